"""A database shown in a browser, by datasette: a process of its own, since it opens the file with another SQLite.

`pages` has what that process loads; nothing of it is imported here. `metadata` says what it shows, and how.
"""

from __future__ import annotations

from dao.browsing.metadata import metadata
from dao.browsing.server import Server, serving

__all__ = ["Server", "metadata", "serving"]
