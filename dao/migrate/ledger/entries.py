"""What has been applied: yoyo's tables, and beside them one of ours with the texts, so that an edit is noticed.

yoyo's `_yoyo_migration` is the authority, so that the stock `yoyo` command can read and write it. Our row belongs to
yoyo's by id and by the time of application: one left over from an earlier application counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.engine import files as database_file
from dao.errors import MigrationError
from dao.migrate import processes as lock
from dao.migrate.schema.catalog import TABLE_NAMES
from dao.migrate.scripts.folder import normal
from dao.migrate.scripts.migration import Migration, checksum, sort_key

__all__ = ["Entry", "Ledger", "checksums", "ended", "read"]


_COLUMNS = "SELECT name FROM pragma_table_info('_yoyo_migration')"
_ENTRIES = """ FROM _yoyo_migration LEFT JOIN _dao_migration
ON _dao_migration.migration_id = _yoyo_migration.migration_id AND _dao_migration.applied_at_utc = _yoyo_migration.applied_at_utc
"""
_KEYS = "SELECT _yoyo_migration.migration_id, _yoyo_migration.applied_at_utc, "
_READ = f"""{_KEYS}
       _dao_migration.checksum, _dao_migration.rollback_checksum, _dao_migration.apply_text, _dao_migration.rollback_text,
       _dao_migration.duration_ms {_ENTRIES}"""
_READ_YOYO_ONLY = _KEYS + "NULL, NULL, NULL, NULL, NULL FROM _yoyo_migration"
_READ_CHECKSUMS = _KEYS + "_dao_migration.checksum" + _ENTRIES
_UNFINISHED = """
SELECT _dao_migration.migration_id, _dao_migration.state, _dao_migration.host, _dao_migration.pid
FROM   _dao_migration WHERE _dao_migration.state <> 'applied'
"""
_ENDED = "UPDATE _dao_migration SET host = NULL, pid = NULL WHERE migration_id = ?"
_RENAME_YOYOS = "UPDATE OR REPLACE _yoyo_migration SET migration_hash = ?, migration_id = ? WHERE migration_id = ?"
_RENAME = "UPDATE OR REPLACE _dao_migration SET migration_id = ? WHERE migration_id = ?"
_IDS = "SELECT migration_id FROM _yoyo_migration UNION SELECT migration_id FROM _dao_migration"


@attrs.frozen(kw_only=True)
class Entry:
    """An applied migration. The texts and checksums are None if the stock `yoyo` command applied it."""

    id: str
    applied_at: str
    checksum: str | None = None
    rollback_checksum: str | None = None
    text: str | None = attrs.field(default=None, repr=False)
    rollback_text: str | None = attrs.field(default=None, repr=False)
    duration_ms: int | None = None

    def differs_from(self, migration: Migration) -> bool:
        """Return whether a file was changed since it was applied, as far as the ledger knows."""
        up, down = migration.up.text, migration.down.text if migration.down else None
        if (self.text, self.rollback_text) == (up, down):
            return False  # of equal texts the checksums are, too
        return self.checksum is not None and (self.checksum != checksum(up) or self.rollback_checksum != checksum(down))


@attrs.frozen
class Ledger:
    """All entries in the order of application, and the migrations in the middle of which a run ended.

    Those could not run in a transaction; the value is what was being done: "applying" or "rolling back". `running` has
    those of them at which a living process of this machine still is, and its id.
    """

    entries: tuple[Entry, ...] = ()
    unfinished: dict[str, str] = attrs.Factory(dict)
    running: dict[str, int] = attrs.Factory(dict)
    #: The database it is of, for messages.
    database: str = "the database"

    @property
    def ids(self) -> list[str]:
        """The ids of the applied migrations, in the order of application."""
        return [entry.id for entry in self.entries]

    def get(self, id: str) -> Entry | None:
        """Return the entry of a migration, or None."""
        return next((entry for entry in self.entries if entry.id == id), None)


def read(connection: Connection) -> Ledger:
    """Return what the database's ledger says; an empty one if there is none. Writes nothing.

    Raises:
        MigrationError: The ledger is of a yoyo before 6.0.
    """
    tables = {name for (name,) in connection.execute(TABLE_NAMES)}
    try:
        entries: list[Any] = (
            connection.execute(_READ if "_dao_migration" in tables else _READ_YOYO_ONLY).fetchall()
            if "_yoyo_migration" in tables
            else []
        )
    except apsw.SQLError as error:
        if ("migration_id",) in connection.execute(_COLUMNS).fetchall():
            raise
        raise MigrationError(
            "the ledger was written by a yoyo before 6.0: run the `yoyo list` of yoyo 9 on this database once, which "
            "brings it up to date"
        ) from error
    unfinished: list[Any] = connection.execute(_UNFINISHED).fetchall() if "_dao_migration" in tables else []
    entries.sort(key=_place)
    return Ledger(
        tuple(
            Entry(
                id=normal(id),
                applied_at=str(applied_at),
                checksum=sum_,
                rollback_checksum=rollback_sum,
                text=text,
                rollback_text=rollback_text,
                duration_ms=duration,
            )
            for id, applied_at, sum_, rollback_sum, text, rollback_text, duration in entries
        ),
        {normal(id): state for id, state, _, _ in unfinished},
        {
            normal(id): pid
            for id, _, host, pid in unfinished
            if pid is not None and host == os.uname().nodename and lock.is_alive(pid)
        },
        database_file.called(connection),
    )


def checksums(connection: Connection) -> list[tuple[str, str | None]]:
    """Return the ids and checksums of the entries as `read` does, without the texts, after a `Writer` made the tables."""
    rows: list[Any] = connection.execute(_READ_CHECKSUMS).fetchall()
    return [(normal(id), checksum) for id, _, checksum in sorted(rows, key=_place)]


def _place(row: Sequence[Any]) -> tuple[str, object]:
    """Return the key by which rows of id and time are in the order of application."""
    # yoyo before 9 wrote a blank where there is a T now
    return str(row[1]).replace(" ", "T"), sort_key(row[0])


def ended(connection: Connection, id: str) -> None:
    """Note that nobody is at a script any more which cannot run in a transaction and did not come to its end."""
    connection.execute(_ENDED, (id,))
