"""Where each migration stands, and whether the schema is the one that a program was written for. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from dao.engine import Connection
from dao.errors import LedgerMismatch, SchemaOutOfDate, SchemaTooNew
from dao.migrate.database import Target, exists, name_of, opened
from dao.migrate.ledger import drift
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.entries import Ledger, in_utc
from dao.migrate.ledger.plan import compare, refuse
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.statements import has_statement

__all__ = ["MigrationStatus", "State", "Status", "assert_current", "status"]

State = Literal["applied", "pending", "changed", "missing", "unfinished"]


@attrs.frozen(kw_only=True)
class MigrationStatus:
    """One migration: where it stands, when it was applied (UTC, ISO 8601) and in how many milliseconds.

    `renamed` is the id that its file has now, if it has another and that is certain.
    """

    id: str
    state: State
    reversible: bool
    renamed: str | None = None
    out_of_order: bool = False
    applied_at: str | None = None
    duration_ms: int | None = None


@attrs.frozen(kw_only=True)
class Status:
    """All migrations, applied ones first, in the order of application, then the pending ones in theirs.

    `drift` says in what the live schema is not what the applied migrations make, `broken` what in it does not work.
    """

    database: str
    exists: bool
    migrations: tuple[MigrationStatus, ...]
    drift: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def ids(self, *states: State) -> list[str]:
        """Return the ids of the migrations that are in one of these states."""
        return [migration.id for migration in self.migrations if migration.state in states]

    @property
    def is_current(self) -> bool:
        """Whether every migration is applied and as its file has it, and the schema is what they make, and works."""
        return not self.drift and not self.broken and all(migration.state == "applied" for migration in self.migrations)


def status(target: Target, migrations: Source = None) -> Status:
    """Return where each migration stands. Reads only, and creates no database.

    Raises:
        MigrationFileError: A file is not what it should be.
        OperationalError: The database cannot be read.
    """
    from dao.migrate.schema.usable import broken  # noqa: PLC0415 - `assert_current`, at every start of a program, has no use for it

    files = {migration.id: migration for migration in loaded(migrations)}
    state, found, unusable = Ledger(), list[str](), list[str]()
    if exists(target):
        with opened(target, read_only=True) as connection:
            state = ledger.read(connection)
            # in the middle of a script nobody knows what the schema should be
            found = [] if state.unfinished else _drift(connection, list(files.values()), state)
            unusable = [str(one) for one in broken(connection)]
    comparison = compare(list(files.values()), state)
    rows = []
    for entry in state.entries:
        file = files.get(entry.id)
        reversible = has_statement(entry.rollback_text or "") if file is None else file.reversible
        where: State = (
            "unfinished"
            if entry.id in comparison.unfinished
            else "missing"
            if file is None
            else "changed"
            if entry.id in comparison.changed
            else "applied"
        )
        rows.append(
            MigrationStatus(
                id=entry.id,
                state=where,
                reversible=reversible,
                renamed=comparison.renamed.get(entry.id),
                applied_at=in_utc(entry.applied_at),
                duration_ms=entry.duration_ms,
            )
        )
    rows += [
        MigrationStatus(
            id=id,
            state="unfinished" if id in comparison.unfinished else "pending",
            reversible=files[id].reversible,
            out_of_order=id in comparison.out_of_order,
        )
        for id in comparison.pending
    ]
    listed = {row.id for row in rows}
    rows += [
        # begun, not applied, and its file has gone
        MigrationStatus(id=id, state="unfinished", reversible=False)
        for id in comparison.unfinished
        if id not in listed
    ]
    return Status(
        database=name_of(target),
        exists=exists(target),
        migrations=tuple(rows),
        drift=tuple(found),
        broken=tuple(unusable),
    )


def _drift(connection: Connection, migrations: Sequence[Migration], state: Ledger) -> list[str]:
    return [str(difference) for difference in drift.differences(connection, migrations, state)]


def assert_current(target: Target, migrations: Source = None) -> None:
    """Refuse to work on a schema that is not the one this program was written for. Reads only, and creates no database.

    Raises:
        SchemaTooNew: The database has migrations that are not known here.
        SchemaOutOfDate: Migrations are pending, or one was left unfinished.
        LedgerMismatch: The files of applied migrations have changed, or the schema is not what they make.
    """
    files = loaded(migrations)
    state, drifted = Ledger(), list[str]()
    if exists(target):
        with opened(target, read_only=True) as connection:
            state = ledger.read(connection)
            drifted = [] if state.unfinished else _drift(connection, files, state)
    comparison = compare(files, state)
    name = name_of(target)
    if comparison.missing and comparison.renamed.keys() >= set(comparison.missing):
        refuse(attrs.evolve(comparison, pending=(), changed=(), out_of_order=(), unfinished=()), Ledger(database=name))
    if comparison.missing:
        raise SchemaTooNew(
            f"{name} has migrations that this program does not know ({', '.join(comparison.missing)}): use a newer "
            "version of the program",
            unknown=comparison.missing,
        )
    pending = tuple(dict.fromkeys([*comparison.unfinished, *comparison.pending]))
    if comparison.unfinished:
        ids = ", ".join(comparison.unfinished)
        raise SchemaOutOfDate(
            f"{name}: a run ended in the middle of {ids}, outside of a transaction: `dao migrate resolve "
            f"{comparison.unfinished[0]}` shows how the schema differs from both ends; finish or undo it by hand, then say which "
            "with --applied or --rolled-back",
            pending=pending,
            unfinished=comparison.unfinished,
        )
    if comparison.changed:
        raise LedgerMismatch(
            f"{name}: the files of applied migrations have changed ({', '.join(comparison.changed)}), so the schema may be "
            "another one than this program was written for: put them back, or `dao accept ID`",
            changed=comparison.changed,
        )
    if comparison.out_of_order:
        raise SchemaOutOfDate(
            f"{name} lacks migrations that come before applied ones ({', '.join(comparison.out_of_order)}): `dao migrate` "
            "refuses them as they are, and says what can be done",
            pending=pending,
        )
    if drifted:
        raise LedgerMismatch(
            f"{name}: the schema is not what its migrations make: {drifted[0]}"
            + (f", and {len(drifted) - 1} more" if len(drifted) > 1 else "")
            + "; `dao schema diff` shows all. Undo what was done by hand, or bring it into a migration",
            drift=drifted,
        )
    if pending:
        raise SchemaOutOfDate(
            f"{name} lacks migrations that this program needs ({', '.join(pending)}): run `dao migrate`",
            pending=pending,
        )
