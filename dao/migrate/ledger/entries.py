"""The ledger as it is read: which migrations are applied, and in the middle of which a run ended.

yoyo's `_yoyo_migration` is the authority, so that the stock `yoyo` command can read and write it. Our
`_dao_migration` has the texts beside it, so that an edit is noticed. A row of ours belongs to one of yoyo's by id and
by the time of application: one that is left over from an earlier application counts for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from dao.engine import Connection, DriverError
from dao.errors import MigrationError
from dao.migrate import database, processes
from dao.migrate.ledger.tables import SET, statements
from dao.migrate.scripts.ids import normal, sort_key
from dao.migrate.scripts.migration import Migration

__all__ = ["Entry", "Ledger", "in_utc", "ledger_of", "read"]

_READ_OURS = f"""
SELECT {", ".join(["NULL"] * 7)}, _dao_migration.migration_id, _dao_migration.state, _dao_migration.host,
       _dao_migration.pid, {{set}}
FROM   _dao_migration
"""


@attrs.frozen(kw_only=True)
class Entry:
    """An applied migration. The texts and checksums are None if the stock `yoyo` command applied it.

    `applied_at` is as it is noted, or empty if nothing is: yoyo 5 left some out. `set` is None if none is noted:
    yoyo knows none, nor did this package at first.
    """

    id: str
    applied_at: str
    checksum: str | None = None
    rollback_checksum: str | None = None
    text: str | None = attrs.field(default=None, repr=False)
    rollback_text: str | None = attrs.field(default=None, repr=False)
    duration_ms: int | None = None
    set: str | None = None

    @classmethod
    def of(cls, migration: Migration, applied_at: str, duration_ms: int | None) -> Entry:
        """Return the entry of a migration that is applied with the texts of its files."""
        up, down = migration.up, migration.down
        return cls(
            id=migration.id,
            applied_at=applied_at,
            checksum=up.checksum,
            rollback_checksum=down.checksum if down else None,
            text=up.text,
            rollback_text=down.text if down else None,
            duration_ms=duration_ms,
            set=migration.set,
        )

    @property
    def moment(self) -> datetime | None:
        """The time of application in UTC, without a zone; None if none is noted."""
        try:
            noted = datetime.fromisoformat(self.applied_at)
        except ValueError:
            return None
        return noted if noted.tzinfo is None else noted.astimezone(UTC).replace(tzinfo=None)

    def differs_from(self, migration: Migration) -> bool:
        """Return whether a file was changed since it was applied, as far as the ledger knows."""
        up, down = migration.up, migration.down
        if (self.text, self.rollback_text) == (up.text, down and down.text):
            return False  # of equal texts the checksums are, too
        sums = up.checksum, down and down.checksum
        return self.checksum is not None and (self.checksum, self.rollback_checksum) != sums


@attrs.frozen
class Ledger:
    """All entries in the order of application, and the migrations that a run has begun and not ended.

    Those could not run in a transaction; the value is what is being done: "applying" or "rolling back". `begun_by` says
    which process was at it, for messages. `running` is the one that is still at it, as `process 17 on web-1`; None if
    the run ended in the middle.
    """

    entries: tuple[Entry, ...] = ()
    unfinished: Mapping[str, str] = attrs.Factory(dict)
    begun_by: Mapping[str, str] = attrs.Factory(dict)
    #: The sets of the unfinished ones, as far as they are noted.
    begun_in: Mapping[str, str] = attrs.Factory(dict)
    running: str | None = None
    #: The database it is of, for messages.
    database: str = "the database"
    #: Ids that are noted in another of Unicode's normal forms, and what they are in ours.
    respelled: Mapping[str, str] = attrs.Factory(dict)
    #: Its tables have room for sets.
    has_sets: bool = True

    @property
    def doing(self) -> str:
        """The process that is still at it and at what, for messages, if one is `running`."""
        doing = ", ".join(f"{doing} {id}" for id, doing in self.unfinished.items())
        return f"{self.running} is {doing}, outside of a transaction"

    @property
    def ids(self) -> list[str]:
        """The ids of the applied migrations, in the order of application."""
        return [entry.id for entry in self.entries]

    @property
    def fingerprint(self) -> str:
        """A hash of what is applied."""
        lines = "\n".join(f"{entry.id} {entry.checksum}" for entry in self.entries)
        return hashlib.sha256(lines.encode()).hexdigest()

    def get(self, id: str) -> Entry | None:
        """Return the entry of a migration, or None."""
        return next((entry for entry in self.entries if entry.id == id), None)


def read(connection: Connection) -> Ledger:
    """Return what the database's ledger says; an empty one if there is none. Writes nothing.

    Raises:
        MigrationError: The ledger is of a yoyo before 6.0.
    """
    entries, unfinished, begun_by, begun_in = [], {}, {}, {}
    ids: set[str] = set()
    rows, has_sets = _rows(connection)
    for row in rows:
        id, applied_at, sum_, rollback_sum, text, rollback_text, duration, own_id, state, host, pid, of = row
        ids |= {id, own_id} - {None}
        if id is not None:
            entries.append(
                Entry(
                    id=normal(id),
                    applied_at=str(applied_at or ""),
                    checksum=sum_,
                    rollback_checksum=rollback_sum,
                    text=text,
                    rollback_text=rollback_text,
                    duration_ms=duration,
                    set=of,
                )
            )
        if own_id is not None and state != "applied":
            unfinished[normal(own_id)] = state
            if pid is not None:
                begun_by[normal(own_id)] = processes.named(pid, host)
            if of is not None:
                begun_in[normal(own_id)] = of
    return Ledger(
        entries=tuple(sorted(entries, key=_place)),
        unfinished=unfinished,
        begun_by=begun_by,
        begun_in=begun_in,
        # whoever has the lock is at it: nobody gets it before that one has ended
        running=database.migrator_of(connection) if unfinished else None,
        database=database.called(connection),
        respelled={id: normal(id) for id in ids if id != normal(id)},
        has_sets=has_sets,
    )


def ledger_of(target: database.Target) -> Ledger:
    """Return the ledger of a database that may not exist: then an empty one."""
    if not database.exists(target):
        return Ledger()
    with database.opened(target, read_only=True) as connection:
        return read(connection)


def _rows(connection: Connection) -> tuple[list[Any], bool]:
    """Return the rows of the ledger, and whether its tables have room for sets."""
    wanted = statements(connection)
    if not wanted.has_schemas:  # what is not there fails, and nothing else can be meant
        with contextlib.suppress(DriverError):
            return database.fetch(connection, wanted.read), True
    tables = database.table_names(connection)
    has_ours = "_dao_migration" in tables
    has_sets = not has_ours or SET in database.columns_of(connection, "_dao_migration")
    if "_yoyo_migration" not in tables:  # ours may still have what is unfinished
        read_ours = _READ_OURS.format(set=f"_dao_migration.{SET}" if has_sets else "NULL")
        return database.fetch(connection, read_ours) if has_ours else [], has_sets
    if "migration_id" not in database.columns_of(connection, "_yoyo_migration"):
        raise MigrationError(
            "the ledger was written by a yoyo before 6.0: run the `yoyo list` of yoyo 9 on this database once, "
            "which brings it up to date"
        )
    read = wanted.read_yoyos if not has_ours else wanted.read if has_sets else wanted.read_old
    return database.fetch(connection, read), has_sets


def _place(entry: Entry) -> tuple[bool, object, object]:
    """Return the key by which entries are in the order of application; those without a time are the first."""
    moment = entry.moment
    return moment is not None, moment, sort_key(entry.id)


def in_utc(noted: object) -> str:
    """Return a time of the ledger with its zone: yoyo notes none, and before version 9 a blank in place of the T."""
    return str(noted).replace(" ", "T") + "Z"
