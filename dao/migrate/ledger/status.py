"""Where each migration stands, and whether the schema is the one that a program was written for. Reads only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import attrs

from dao.engine import Connection
from dao.errors import LedgerMismatch, SchemaOutOfDate, SchemaTooNew
from dao.migrate.database import Target, broken, called, exists, migrations_for, name_of, opened, table_names
from dao.migrate.ledger.comparison import Comparison, compare, other_folder, refuse
from dao.migrate.ledger.drift import differences
from dao.migrate.ledger.entries import Entry, Ledger, in_utc, read
from dao.migrate.ledger.sets import Sets
from dao.migrate.schema.names import COPY
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration, is_reversible
from dao.migrate.scripts.sets import shown

__all__ = ["MigrationStatus", "State", "Status", "assert_current", "half_copied", "status"]

State = Literal["applied", "pending", "changed", "missing", "unfinished"]


@attrs.frozen(kw_only=True)
class MigrationStatus:
    """One migration: where it stands, when it was applied (UTC, ISO 8601) and in how many milliseconds.

    `renamed` is the id that its file has now, if it has another and that is certain. `set` is None if it is not known;
    `moved` is the one that its file is in here, if it was applied as one of another.
    """

    id: str
    state: State
    reversible: bool
    renamed: str | None = None
    out_of_order: bool = False
    applied_at: str | None = None
    duration_ms: int | None = None
    set: str | None = None
    moved: str | None = None


@attrs.frozen(kw_only=True)
class Status:
    """All migrations, applied ones first, in the order of application, then the pending ones in theirs.

    `others` are those of sets that were not named: they are applied, and nothing else is said of them. `drift` says in
    what the live schema is not what the applied migrations make, `broken` what in it does not work, `advice` what to do
    first where none is applied and what they make is there already, where a run has not come to its end, or a copy, or
    where all files differ from what was applied.
    """

    database: str
    exists: bool
    migrations: tuple[MigrationStatus, ...]
    drift: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    advice: str | None = None
    others: tuple[MigrationStatus, ...] = ()

    def ids(self, *states: State) -> list[str]:
        """Return the ids of the migrations that are in one of these states."""
        return [migration.id for migration in self.migrations if migration.state in states]

    @property
    def names(self) -> dict[str, str]:
        """The ids of the migrations, and how people see each: behind its set, where there are several."""
        sets = {migration.set for migration in self.migrations}
        return {migration.id: shown(migration.id, migration.set, sets) for migration in self.migrations}

    @property
    def is_current(self) -> bool:
        """Whether every migration is applied and as its file has it, and the schema is what they make, and works."""
        is_applied = all(migration.state == "applied" for migration in self.migrations)
        return is_applied and not self.drift and not self.broken and self.advice is None


def status(target: Target, migrations: Source = None, *, prepare: Prepare | None = None) -> Status:
    """Return where each migration stands. Reads only, and creates no database.

    `prepare` is as in `apply`.

    Raises:
        MigrationFileError: A file is not what it should be.
        OperationalError: The database cannot be read.
    """
    known = migrations_for(target, migrations)
    files = {migration.id: migration for migration in known}
    with preparing(prepare), _read(target) as (connection, state):
        drifted = _drift(connection, known, state)
        unusable = [] if connection is None else broken(connection)
        comparison = compare(known, state)
        if connection is not None and comparison.unfinished:
            advice: str | None = _half_run(name_of(target), comparison, state)
        else:
            advice = _advice(connection, known, state, comparison)
    sets = comparison.sets.by_id
    rows: list[MigrationStatus] = []
    others: list[MigrationStatus] = []
    for entry in state.entries:
        file = files.get(entry.id)
        is_other = entry.id in comparison.others
        where: State = "applied" if file or is_other else "missing"
        if entry.id in comparison.unfinished:
            where = "unfinished"
        elif entry.id in comparison.changed:
            where = "changed"
        (others if is_other else rows).append(
            MigrationStatus(
                id=entry.id,
                state=where,
                reversible=file.reversible if file else _is_reversible(entry),
                renamed=comparison.renamed.get(entry.id),
                applied_at=in_utc(entry.applied_at) if entry.applied_at else None,
                duration_ms=entry.duration_ms,
                set=sets[entry.id],
                moved=comparison.sets.files[entry.id] if entry.id in comparison.misplaced else None,
            )
        )
    # one that was begun, and not applied, may have lost its file
    lost = [id for id in comparison.unfinished if id not in files and id not in state.ids]
    rows += [
        MigrationStatus(
            id=id,
            state="unfinished" if id in comparison.unfinished else "pending",
            reversible=id in files and files[id].reversible,
            out_of_order=id in comparison.out_of_order,
            set=comparison.sets.files.get(id) or sets.get(id),
        )
        for id in (*comparison.pending, *lost)
    ]
    return Status(
        database=name_of(target),
        exists=exists(target),
        migrations=tuple(rows),
        drift=tuple(drifted),
        broken=tuple(unusable),
        advice=advice,
        others=tuple(others),
    )


def _is_reversible(entry: Entry) -> bool:
    """Return whether the texts in the ledger can undo a migration whose file has gone."""
    return entry.text is not None and is_reversible(entry.text, entry.rollback_text)


@contextlib.contextmanager
def _read(target: Target) -> Iterator[tuple[Connection | None, Ledger]]:
    """Lend a connection to a database, None if it does not exist, with its ledger, then empty."""
    if not exists(target):
        yield None, Ledger(database=name_of(target))
        return
    with opened(target, read_only=True) as connection:
        yield connection, read(connection)


def _drift(connection: Any, migrations: Sequence[Migration], state: Ledger) -> list[str]:
    return [] if connection is None else [str(one) for one in differences(connection, migrations, state)]


def _last(state: Ledger, sets: Sets) -> set[str]:
    """Return the ids that were applied after all those of the files, of the same set."""
    later: set[str] = set()
    ended: set[str | None] = set()
    for id in reversed(state.ids):
        if id in sets.files:
            ended.add(sets.by_id[id])
        elif sets.by_id[id] not in ended:
            later.add(id)
    return later


def _advice(
    connection: Connection | None, migrations: Sequence[Migration], state: Ledger, comparison: Comparison
) -> str | None:
    if connection is None:
        return None
    if state.entries:
        return half_copied(connection) or other_folder(comparison, state)
    from dao.migrate.ledger import unnoted  # noqa: PLC0415 - 30 ms, before the first migration only

    return unnoted.advice(connection, migrations, state)


def _half_run(name: str, comparison: Comparison, state: Ledger) -> str:
    """Return what to do about migrations that are unfinished in a database of that name."""
    if state.running is not None:
        return f"{name}: {state.doing}: wait until it has ended"
    ids = [*map(comparison.sets.told, comparison.unfinished)]
    return (
        f"{name}: a run ended in the middle of {', '.join(ids)}, outside of a transaction: `dao "
        f"migrate resolve {ids[0]}` shows how the schema differs from both ends; finish or undo it "
        "by hand, then say which with --applied or --rolled-back"
    )


def half_copied(connection: Connection) -> str | None:
    """Return what to do about a copy into this database that has not ended (`dao.copy`); None if there is none."""
    if COPY not in table_names(connection):
        return None
    return (
        f"{called(connection)} lacks rows, since a copy into it has not ended: repeat that `dao copy`, and it goes on"
    )


def assert_current(
    target: Target, migrations: Source = None, *, at_least: bool = False, prepare: Prepare | None = None
) -> None:
    """Refuse to work on a schema that is not the one this program was written for. Reads only, and creates no database.

    With `at_least` it may have more: migrations that are not known here and were applied after all that are. Thus the
    old release goes on while a new one is deployed, provided that the migrations of that leave alone what the old one
    uses: nobody but their author knows. Sets that are not named here do not matter.

    `prepare` is as in `apply`.

    Raises:
        SchemaTooNew: The database has migrations that are not known here.
        SchemaOutOfDate: Migrations are pending, or one was left unfinished, or a copy into the database (`dao.copy`).
        LedgerMismatch: The files of applied migrations have changed, or the schema is not what they make.
    """
    files = migrations_for(target, migrations)
    with preparing(prepare), _read(target) as (connection, state):
        drifted = _drift(connection, files, state)
        lacking = None if connection is None else half_copied(connection)
    comparison = compare(files, state)
    name = name_of(target)

    def listed(ids: Iterable[str]) -> str:
        return ", ".join(map(comparison.sets.told, ids))

    if comparison.missing and comparison.renamed.keys() >= set(comparison.missing):
        refuse(attrs.evolve(comparison, pending=(), changed=(), out_of_order=(), unfinished=()), Ledger(database=name))
    if comparison.missing and not (at_least and set(comparison.missing) <= _last(state, comparison.sets)):
        raise SchemaTooNew(
            f"{name} has migrations that this program does not know ({listed(comparison.missing)}): use a newer "
            "version of the program",
            unknown=comparison.missing,
        )
    pending = tuple(dict.fromkeys([*comparison.unfinished, *comparison.pending]))
    if comparison.unfinished:
        raise SchemaOutOfDate(
            _half_run(name, comparison, state),
            pending=pending,
            unfinished=() if state.running is not None else comparison.unfinished,
        )
    if comparison.misplaced:
        refuse(attrs.evolve(comparison, changed=tuple(comparison.misplaced), out_of_order=()), Ledger(database=name))
    if comparison.changed:
        error = LedgerMismatch(
            f"{name}: the files of applied migrations have changed ({listed(comparison.changed)}), so the schema "
            "may be another one than this program was written for: put them back, or `dao accept ID`",
            changed=comparison.changed,
        )
        error.advice = other_folder(comparison, state)
        raise error
    if comparison.out_of_order:
        raise SchemaOutOfDate(
            f"{name} lacks migrations that come before applied ones ({listed(comparison.out_of_order)}): `dao "
            "migrate` refuses them as they are, and says what can be done",
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
            f"{name} lacks migrations that this program needs ({listed(pending)}): run `dao migrate`",
            pending=pending,
        )
    if lacking:
        raise SchemaOutOfDate(lacking)
