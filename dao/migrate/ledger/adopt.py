"""Takes over the ledger of another tool: marks as applied here what it has applied, and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from dao.engine import Connection
from dao.errors import LedgerMismatch, MigrationError, MigrationFileError
from dao.migrate.database import Target, alone, columns_of, existing, migrations_for, name_of
from dao.migrate.events import Report
from dao.migrate.ledger import drift, other_tools
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.comparison import compare, refuse
from dao.migrate.ledger.other_tools import Applied
from dao.migrate.ledger.plan import up_to
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts.ids import TOOLS, version
from dao.migrate.scripts.load import Source
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import names

__all__ = ["adopt"]


def adopt(
    target: Target,
    tool: str,
    migrations: Source = None,
    *,
    to: str | None = None,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> list[str]:
    """Mark as applied what another tool has applied, and return the ids of those that were not, in the folder's order.

    `tool` is a name as of `dao adopt --from`. Writes, in one transaction, and only into this package's ledger: texts
    and checksums of the files as they are. Runs no script. A migration that the tool has not applied stays pending,
    even in the middle. alembic's ledger does not tell which files are applied: `to` is the last of them. Safe to
    repeat: the second time returns none.

    `prepare` is as in `apply`.

    Raises:
        MigrationError: The tool is not known, the database does not exist or has no table of the tool's, or that says
            that a migration failed halfway. Nothing was changed, here and below.
        LedgerMismatch: The tool applied what has no file, or a file was edited since; or this package's own ledger does
            not agree with the files.
        DatabaseBusy: Another migrator or connection kept its lock. `lock_timeout` is as in `apply`.
    """
    if tool not in TOOLS:
        raise MigrationError(f"{tool!r} is no tool whose ledger can be taken over; those are {', '.join(TOOLS)}")
    if (to is not None) != (tool == "alembic"):
        raise MigrationError(
            f"{tool}'s ledger says itself what is applied: leave --to out"
            if to is not None
            else "alembic's ledger does not say which of these files are applied: name the last of them with --to ID"
        )
    files = migrations_for(target, migrations)
    if tool != "yoyo" and len(names(files)) > 1:
        raise MigrationError(
            f"the ledger of {tool} is of one set of migrations, and several are named: name that one alone "
            "(--migrations)"
        )
    with preparing(prepare), alone(existing(target, "adopt"), lock_timeout, report) as connection:
        state = ledger.read(connection)
        applied = _applied(connection, tool)
        comparison = compare(files, state)
        refuse(comparison, state, allow_out_of_order=True)
        if tool == "yoyo":
            # its ledger is this package's: only the texts are missing
            wanted = {entry.id for entry in state.entries if entry.text is None}
        elif to is not None:
            if applied.is_empty:
                raise MigrationError(f"alembic_version in {name_of(connection)} is empty: alembic has applied nothing")
            wanted = up_to(to, files, comparison.sets) - set(state.ids)
        else:
            wanted = _matching(files, applied, tool) - set(state.ids)
        adopted = [migration for migration in files if migration.id in wanted]
        if not adopted:
            return []
        writer = Writer(connection, files)
        for migration in adopted:
            if entry := state.get(migration.id):
                writer.note(migration, entry, operation="adopt", detail=f"from {tool}")
            else:
                writer.mark(migration, files, operation="adopt", detail=f"from {tool}")
        drift.record(connection, files, drift.Moment(state))
        return [migration.id for migration in adopted]


def _applied(connection: Connection, tool: str) -> Applied:
    """Return what a tool's ledger says is applied.

    Raises:
        MigrationError: There is none, it is another tool's, or a migration did not come to its end.
    """
    applied = other_tools.applied_by(connection, tool)
    if applied is None:
        raise MigrationError(_no_ledger(connection, tool))
    if applied.unfinished:
        raise MigrationError(
            f"{tool} did not come to the end of version {', '.join(applied.unfinished)}, so part of it may be done. "
            f"Nothing was changed; look at the database, finish or undo it by hand, mend it in {tool}'s ledger, then "
            "repeat"
        )
    return applied


def _no_ledger(connection: Connection, tool: str) -> str:
    """Return the message for a database that does not have a tool's ledger as that makes it."""
    table, other = other_tools.expected_of(tool)
    columns = sorted(columns_of(connection, table))
    if columns:
        hint = f"; is it that of {other}?" if other else ""
        return (
            f"the table {table} of {name_of(connection)} is not as {tool} makes it: its columns are "
            f"{', '.join(columns)}{hint}"
        )
    there = [one for one in other_tools.found(connection) if one.is_adoptable]
    hint = (
        f"its table {there[0].table} is as {there[0].tool} makes it: `{there[0].command}`"
        if there
        else "`dao migrate` applies the migrations, `dao mark` notes by hand which are applied, `dao baseline` begins "
        "with the schema that is there"
    )
    return f"{name_of(connection)} has no table {table}, so {tool} has applied nothing to it: {hint}"


def _matching(files: Sequence[Migration], applied: Applied, tool: str) -> set[str]:
    """Return the ids of the files that a tool's ledger means.

    Raises:
        MigrationFileError: Two files have one version.
        LedgerMismatch: It applied what has no file, or another text.
    """
    by_version: dict[str, Migration] = {}
    for migration in files:
        its = version(migration.id, tool)
        if its in by_version:
            raise MigrationFileError(
                f"{migration.path}: has the version {its}, as {by_version[its].id} has, and {tool}'s ledger does not "
                "say which of the two it means: give one of them another number",
                path=migration.path,
            )
        if its is not None:
            by_version[its] = migration
    if missing := [its for its in applied.checksums if its not in by_version]:
        raise LedgerMismatch(
            f"{tool} has applied what has no file here: version {', '.join(missing)}. Nothing was changed; restore the "
            "files (another branch, an older checkout?), or name the right folder with --migrations",
            missing=missing,
        )
    edited = [
        by_version[its]
        for its, checksum in applied.checksums.items()
        if not other_tools.is_same(by_version[its], checksum, tool)
    ]
    if edited:
        raise LedgerMismatch(
            f"{tool} has applied other texts than the files have now: "
            f"{', '.join(str(migration.path) for migration in edited)}. Nothing was changed; put them back as they "
            "were and write a new migration",
            changed=[migration.id for migration in edited],
        )
    return {migration.id for its, migration in by_version.items() if applied.has(its)}
