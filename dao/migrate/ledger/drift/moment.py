"""A database at a moment: what is known of its ledger and its schema."""

from __future__ import annotations

from typing import Any

import attrs

from dao.migrate.ledger.entries import Ledger

__all__ = ["Moment"]


@attrs.frozen
class Moment:
    """A database before a change, or after it.

    `schema` is what `schema.catalog.definitions` returns on SQLite, and `schema.postgresql.reader.read` on PostgreSQL;
    None where nobody has looked. `clean`: it is known to be what the migrations make, and nothing else is there.
    """

    ledger: Ledger
    schema: Any = None
    clean: bool = False
