"""The verbs that run scripts: each decides what is due, and hands it to the runner."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import attrs

from dao.errors import MigrationError, MigrationFailed
from dao.migrate.database import (
    Target,
    check_in_place,
    existing,
    exists,
    in_line,
    migrations_for,
    name_of,
    opened,
)
from dao.migrate.ledger import entries
from dao.migrate.ledger.comparison import compare, refuse
from dao.migrate.ledger.entries import Ledger, ledger_of
from dao.migrate.ledger.plan import latest, to_apply, to_roll_back
from dao.migrate.listening import listened
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import SNAPSHOTS, Direction, Drifted, Result, Step

if TYPE_CHECKING:  # a run that has nothing to do reports nothing
    from dao.migrate.events import Report

__all__ = ["apply", "plan", "redo", "reset", "rollback"]

_LOGGER = "dao.migrate.run"


class Limits(TypedDict, total=False):
    """Keywords of `plan`: those that say how far `apply` or `rollback` go."""

    to: str | None
    steps: int | None
    allow_out_of_order: bool
    set: str | None


def apply(
    target: Target,
    migrations: Source = None,
    *,
    set: str | None = None,
    to: str | None = None,
    steps: int | None = None,
    each: bool = False,
    allow_out_of_order: bool = False,
    allow_data_loss: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    snapshots: int = SNAPSHOTS,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[Result]:
    """Apply the pending migrations, all or none: all there are, up to and with `to`, or the next `steps`.

    Migrations of several sets are applied in one order: set by set, and each migration after those that it depends on.
    Those of sets that are not named here are none of its business; nor, with `set`, those of other sets than that.

    Writes, in one transaction; with `each`, in one for every migration. A database that does not exist is created.
    Foreign keys are not enforced meanwhile; broken ones, and a damaged file, are found at the end and undo
    everything. So do views and triggers that worked before, or are new, and do not work, and foreign keys and
    virtual tables whose table has gone; unless `allow_broken` has the name, which is the child's for a foreign key.
    With nothing pending it only reads. A loss is refused (rows, or tables or columns that held something, and are
    gone at the end), unless its script declares it, `allow_loss` names it (`table`, with all that is in it, or
    `table.column`), or `allow_data_loss`. Before a file that holds rows is changed, a snapshot of it is taken beside
    it, and the newest `snapshots` of them are kept; 0 takes none.

    Safe to repeat, and to run in several processes at once: the others wait for as long as the one lives that is at it,
    or for `lock_timeout` seconds, and find nothing to do. The busy timeout is for the locks of other programs.

    `prepare` is called with each connection that this opens, those to copies and in memory among them: it registers the
    functions, collations, modules and tokenizers that the schema needs, and loads extensions. Your own connection has
    them, and cannot pass them on.

    `report` is told what happens while it happens. An exception that it raises undoes the run; but what is committed
    stays, and the exception is logged if it was told of that. So are old snapshots that cannot be removed. The logger
    `dao.migrate.run` is told of all of it, too.

    Raises:
        MigrationFileError: A file is not what it should be.
        LedgerMismatch: Applied files have changed or gone, or a pending one comes before an applied one of its set, or
            depends on one of another set that is not applied, nor to be; or another tool has applied the files to this
            database, and was not adopted.
        MigrationFailed: A script failed; it says where.
        CheckFailed: A foreign key was broken, data would get lost, something would not work, or the file is damaged.
        DatabaseBusy: Another run lasted for longer than `lock_timeout`, or another connection kept the lock for longer
            than the busy timeout.
        DiskFull: There is no room, for the snapshot for one.
        CommitUnknown: The commit met an I/O error. To repeat the run is safe: it begins with what is stored.
        PrepareFailed: `prepare` raised, or would have changed more than that.
    """
    files = migrations_for(target, migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_apply(files, state, set=set, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    # what is refused creates no database, nor does what has nothing to do
    if not exists(target) and not decide(Ledger()):
        return []
    return _run(
        target,
        files,
        decide,
        lock_timeout,
        report,
        tell_drift=True,
        each=each,
        allow_data_loss=allow_data_loss,
        allow_loss=allow_loss,
        allow_broken=allow_broken,
        snapshots=snapshots,
        prepare=prepare,
    )


def rollback(
    target: Target,
    migrations: Source = None,
    *,
    set: str | None = None,
    to: str | None = None,
    steps: int | None = 1,
    each: bool = False,
    allow_out_of_order: bool = False,
    allow_data_loss: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    snapshots: int = SNAPSHOTS,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[Result]:
    """Undo applied migrations, the latest first, all or none: so many (None: all of them), or all that came after `to`.

    The order is that in which they were applied. Only migrations of the sets that are named here are undone, or of one
    of these (`set`). A script comes from its file or, if that has gone, from the ledger.
    It may drop what its own migration made; otherwise data and snapshots are as in `apply`. Where it ends at another
    schema than the remaining migrations make, `report` is told in what (`Drifted`), and `status` knows it from then
    on.

    Raises:
        Irreversible: One of them has no rollback script. Nothing was changed.
        MigrationError: `to` is not applied, no set has this name, or the database does not exist.
        LedgerMismatch: As `apply`; or a migration that stays applied, of whichever set, depends on one of them.
        MigrationFailed, CheckFailed, DatabaseBusy, DiskFull: As `apply`.
    """
    files = migrations_for(target, migrations)

    def decide(state: Ledger) -> list[Step]:
        return to_roll_back(files, state, set=set, to=to, steps=steps, allow_out_of_order=allow_out_of_order)

    return _run(
        existing(target, "roll back"),
        files,
        decide,
        lock_timeout,
        report,
        each=each,
        allow_data_loss=allow_data_loss,
        allow_loss=allow_loss,
        allow_broken=allow_broken,
        snapshots=snapshots,
        prepare=prepare,
    )


def redo(
    target: Target,
    migrations: Source = None,
    *,
    set: str | None = None,
    steps: int = 1,
    allow_data_loss: bool = False,
    allow_loss: Collection[str] = (),
    allow_broken: Collection[str] = (),
    snapshots: int = SNAPSHOTS,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[Result]:
    """Undo the latest migrations and apply them again, in one transaction: for one that is being written.

    The rollback comes from the ledger's text, as it was applied, so the files may have changed since; if there was none
    then, from the file. `set` is as in `rollback`.

    Raises:
        Irreversible, LedgerMismatch, MigrationFailed, CheckFailed, DatabaseBusy: As `rollback`.
    """
    files = migrations_for(target, migrations)

    def decide(state: Ledger) -> list[Step]:
        comparison = compare(files, state).of_set(set)
        again = {entry.id for entry in latest(comparison, state, set)[:steps]}
        back = to_roll_back(files, state, set=set, steps=steps, redoing=True)
        missing = again - {migration.id for migration in files}
        if missing:
            refuse(attrs.evolve(comparison, missing=tuple(sorted(missing)), changed=()), state)
        its = comparison.sets
        forth = [attrs.evolve(one, set=its.by_id[one.id]) for one in files if one.id in again]
        return [*back, *(Step(migration=one, direction="apply", name=its.told(one.id)) for one in forth)]

    return _run(
        existing(target, "redo"),
        files,
        decide,
        lock_timeout,
        report,
        allow_data_loss=allow_data_loss,
        allow_loss=allow_loss,
        allow_broken=allow_broken,
        snapshots=snapshots,
        prepare=prepare,
    )


def plan(
    target: Target,
    migrations: Source = None,
    *,
    direction: Direction = "apply",
    prepare: Prepare | None = None,
    **limits: Unpack[Limits],
) -> list[Step]:
    """Return the steps that `apply` or `rollback` would run with these arguments, in order. Reads only.

    `limits` are `set`, `to`, `steps` and `allow_out_of_order`, with the defaults that they have there.

    Raises:
        MigrationFileError, LedgerMismatch, Irreversible, MigrationError: As `apply` and `rollback`.
    """
    files = migrations_for(target, migrations)
    with preparing(prepare):
        if direction == "apply":
            state = ledger_of(target)
            steps = to_apply(files, state, **limits)
            if steps and not state.entries and exists(target):
                from dao.migrate.ledger import unnoted  # noqa: PLC0415 - for the first run only

                with opened(target, read_only=True) as connection:
                    unnoted.refuse(connection, [step.migration for step in steps], state)
            return steps
        state = ledger_of(existing(target, "roll back"))
        from dao.migrate.run.drop import own_drops  # noqa: PLC0415 - as in `_run`

        steps = to_roll_back(files, state, **limits)
        return [attrs.evolve(step, drops=own_drops(target, step, files, state)) for step in steps]


def reset(
    target: Target,
    migrations: Source = None,
    *,
    snapshots: int = SNAPSHOTS,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[Result]:
    """Drop everything, rows included, and apply all migrations again, in one transaction. Takes a snapshot before.

    What migrations of sets have made that are not named here stays, with its rows.

    Raises:
        MigrationError: The database holds tables or views that no migrations made, or a migration does not run in a
            transaction; or something of a set that is not named would go with a table. Nothing was changed.
        LedgerMismatch: The ledger has a migration in another set than the files. Nothing was changed.
        MigrationFailed, CheckFailed, DatabaseBusy: As `apply`; nothing was changed.
    """
    from dao.migrate.run.drop import drop_all, dropping, refuse_torn  # noqa: PLC0415 - as in `_run`
    from dao.migrate.run.runner import run  # noqa: PLC0415 - as in `_run`

    files = migrations_for(target, migrations)
    report = listened(report, _LOGGER, name_of(target))
    with preparing(prepare), in_line(target, lock_timeout, report) as (lock, connection):
        what = dropping(connection)
        gone: list[str] = []

        def decide(state: Ledger) -> list[Step]:
            comparison = compare(files, state)
            its = comparison.sets
            # rows and tables that are another set's, under an id that both have
            refuse(comparison.only_misplaced(), state)
            foreign = what.foreign(files, state, its)
            if foreign:
                raise MigrationError(
                    f"{name_of(connection)} holds what its migrations did not make ({', '.join(foreign)}): it is not "
                    "for this command to drop. Nothing was changed; drop that first, or the whole database, if that is "
                    "what you want"
                )
            refuse_torn(what)
            gone[:] = [id for id in dict.fromkeys([*state.ids, *state.unfinished]) if its.is_named(id)]
            stays = tuple(entry for entry in state.entries if entry.id not in gone)
            unfinished = {id: doing for id, doing in state.unfinished.items() if id not in gone}
            return to_apply(files, Ledger(entries=stays, unfinished=unfinished, database=state.database))

        lock.take()
        check_in_place(connection)
        return run(
            connection,
            files,
            decide,
            first=lambda: drop_all(connection, what, gone),
            snapshots=snapshots,
            report=report,
        )


def _run(
    target: Target,
    files: Sequence[Migration],
    decide: Callable[[Ledger], Sequence[Step]],
    lock_timeout: float | None,
    report: Report | None,
    *,
    tell_drift: bool = False,
    prepare: Prepare | None,
    **options: Any,
) -> list[Result]:
    """Run what there is to do; with nothing to do, and `tell_drift`, report how the schema differs."""
    report = listened(report, _LOGGER, name_of(target))
    with preparing(prepare), in_line(target, lock_timeout, report) as (lock, connection):
        state = entries.read(connection)
        if state.running is not None and lock.take():  # nothing can be decided before its script has ended
            state = entries.read(connection)
        if (steps := decide(state)) and lock.take():
            # the other has most likely done it: then the file need not be checked, nor a runner be loaded
            state = entries.read(connection)
            steps = decide(state)
        if steps:
            from dao.migrate.ledger import unnoted  # noqa: PLC0415 - a run with nothing to do loads no runner
            from dao.migrate.run.runner import run  # noqa: PLC0415 - as above

            check_in_place(connection)
            unnoted.refuse(connection, [step.migration for step in steps], state)
            try:
                return run(connection, files, decide, report=report, **options)
            except MigrationFailed as error:
                unnoted.explain(error, connection, files)
                raise
        if report is not None and tell_drift:
            from dao.migrate.ledger import drift  # noqa: PLC0415 - as above

            if found := drift.differences(connection, files, state):
                report(Drifted(tuple(found)))
        return []
