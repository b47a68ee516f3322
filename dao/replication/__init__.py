"""A replica of a SQLite database in a folder or in S3, kept up to date by Litestream, and the way back from it.

Litestream is a program of its own. All that is known of it is in `litestream`; `docs/how-to/replicate.md` has what was
measured, and which of its faults `replicator` and `restore` are there for.
"""

from __future__ import annotations

from dao.replication.litestream import Replica, parse_replica
from dao.replication.replicator import State, replicate
from dao.replication.restore import Restored, restore

__all__ = ["Replica", "Restored", "State", "parse_replica", "replicate", "restore"]
