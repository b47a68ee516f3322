"""Takes over the ledger of another tool: marks as applied here what it has applied, and runs nothing.

Its table is read and left as it is. How each tool writes its own was looked up in the tool's own source, and for sqlx,
dbmate, yoyo and alembic seen in databases that they made.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from dao.engine import Connection
from dao.errors import LedgerMismatch, MigrationError, MigrationFileError
from dao.migrate.database import Target, exclusive, existing, name_of, opened
from dao.migrate.events import Report
from dao.migrate.ledger import drift
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.plan import compare, refuse, up_to
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import quoted
from dao.migrate.scripts.ids import version
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration

__all__ = ["TOOLS", "adopt"]

#: By tool: its table, the columns that are read, and what tells another tool's table of the same name.
_TABLES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "sqlx": ("_sqlx_migrations", ("version", "success", "checksum"), ()),
    "dbmate": ("schema_migrations", ("version",), ("dirty",)),
    "goose": ("goose_db_version", ("id", "version_id", "is_applied"), ()),
    "golang-migrate": ("schema_migrations", ("version", "dirty"), ()),
    "diesel": ("__diesel_schema_migrations", ("version",), ()),
    "flyway": ("flyway_schema_history", ("installed_rank", "version", "type", "script", "checksum", "success"), ()),
    "alembic": ("alembic_version", ("version_num",), ()),
    "yoyo": ("_yoyo_migration", ("migration_id", "applied_at_utc"), ()),
}
#: The tools whose ledger can be taken over.
TOOLS = tuple(_TABLES)


def adopt(
    target: Target, tool: str, migrations: Source = None, *, to: str | None = None, report: Report | None = None
) -> list[str]:
    """Mark as applied what another tool has applied, and return the ids of those that were not, in the folder's order.

    `tool` is one of `TOOLS`. Writes, in one transaction, and only into this package's ledger: the texts and checksums
    of the files as they are. Runs no script. A migration that the tool has not applied stays pending, even in the
    middle. alembic's ledger does not tell which files are applied: `to` is the last of them. Safe to repeat: the
    second time returns none.

    Raises:
        MigrationError: The tool is not known, the database does not exist or has no table of the tool's, or that says
            that a migration failed halfway. Nothing was changed, here and below.
        LedgerMismatch: The tool applied what has no file, or a file was edited since; or this package's own ledger does
            not agree with the files.
        DatabaseBusy: Another connection kept the lock.
    """
    if tool not in TOOLS:
        raise MigrationError(f"{tool!r} is no tool whose ledger can be taken over; those are {', '.join(TOOLS)}")
    if (to is not None) != (tool == "alembic"):
        raise MigrationError(
            f"{tool}'s ledger says itself what is applied: leave --to out"
            if to is not None
            else "alembic's ledger does not say which of these files are applied: name the last of them with --to ID"
        )
    files = loaded(migrations)
    with opened(existing(target), report=report) as connection, exclusive(connection):
        state = ledger.read(connection)
        rows = _rows(connection, tool)
        refuse(compare(files, state), state, allow_out_of_order=True)
        if tool == "yoyo":
            # its ledger is this package's: only the texts are missing
            wanted = {entry.id for entry in state.entries if entry.text is None}
        elif to is not None:
            if not rows:
                raise MigrationError(f"alembic_version in {name_of(connection)} is empty: alembic has applied nothing")
            wanted = up_to(to, files) - set(state.ids)
        else:
            wanted = _matching(files, *_applied(rows, tool), tool) - set(state.ids)
        adopted = [migration for migration in files if migration.id in wanted]
        if not adopted:
            return []
        writer = Writer(connection)
        for migration in adopted:
            if entry := state.get(migration.id):
                writer.note(migration, entry, operation="adopt", detail=f"from {tool}")
            else:
                writer.mark(migration, files, operation="adopt", detail=f"from {tool}")
        drift.record(connection, files, state)
        return [migration.id for migration in adopted]


# ---------------------------------------------------------------- what a tool has applied


def _rows(connection: Connection, tool: str) -> Sequence[Any]:
    """Return the rows of a tool's table, sorted by the first column.

    Raises:
        MigrationError: There is none, or it is another tool's.
    """
    table, wanted, unwanted = _TABLES[tool]
    columns = {column.name for column in catalog.columns(connection, table)}
    if not columns:
        raise MigrationError(
            f"{name_of(connection)} has no table {table}, so {tool} has applied nothing to it: `dao migrate` applies "
            "the migrations, `dao mark` notes by hand which are applied"
        )
    if not columns >= set(wanted) or columns & set(unwanted):
        others = [name for name, (its, *_) in _TABLES.items() if its == table and name != tool]
        hint = f"; is it that of {others[0]}?" if others else ""
        raise MigrationError(
            f"the table {table} of {name_of(connection)} is not as {tool} makes it: its columns are "
            f"{', '.join(sorted(columns))}{hint}"
        )
    rows: Sequence[Any] = connection.execute(
        f"SELECT {', '.join(map(quoted, wanted))} FROM {quoted(table)} ORDER BY 1"
    ).fetchall()
    return rows


def _applied(rows: Sequence[Any], tool: str) -> tuple[dict[str, Any], str | None]:
    """Return what the rows say: versions with the checksums of their scripts or None, and up to which all are applied.

    Raises:
        MigrationError: One did not come to its end.
    """
    found: dict[Any, Any] = {}
    last = None
    unfinished: list[Any] = []
    match tool:
        case "sqlx":
            unfinished = [its for its, success, _ in rows if not success]
            found = {its: checksum for its, _, checksum in rows}
        case "dbmate" | "diesel":
            found = {its: None for (its,) in rows}
        case "goose":
            # the last row of a version counts; version 0 is goose's own
            latest = {its: applied for _, its, applied in rows}
            found = {its: None for its, applied in latest.items() if applied and its != 0}
        case "golang-migrate":
            # one row: all up to it are applied
            unfinished = [its for its, dirty in rows if dirty]
            found = {its: None for its, _ in rows}
            last = next(iter(found), None)
        case "flyway":
            unfinished = [its or script for _, its, _, script, _, success in rows if not success]
            for _, its, kind, _, checksum, _ in rows:
                if its is None:
                    continue  # a repeatable script, or the schema's creation
                if "BASELINE" in kind and version(f"V{its}", tool):
                    last = its
                elif kind.startswith("UNDO") or kind == "DELETE":
                    found.pop(_named(its, tool), None)
                else:
                    found[_named(its, tool)] = checksum
    if unfinished:
        raise MigrationError(
            f"{tool} did not come to the end of version {', '.join(map(str, unfinished))}, so part of it may be "
            f"done. Nothing was changed; look at the database, finish or undo it by hand, mend it in {tool}'s "
            "ledger, then repeat"
        )
    return {_named(its, tool): checksum for its, checksum in found.items()}, None if last is None else _named(
        last, tool
    )


def _named(value: object, tool: str) -> str:
    """Return a value of a version column as `version` writes it; as it is if that means nothing to the tool."""
    return version(f"V{value}" if tool == "flyway" else f"{value}_", tool) or str(value)


# ---------------------------------------------------------------- which files that means


def _matching(files: Sequence[Migration], checksums: Mapping[str, Any], last: str | None, tool: str) -> set[str]:
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
    if missing := [its for its in checksums if its not in by_version]:
        raise LedgerMismatch(
            f"{tool} has applied what has no file here: version {', '.join(missing)}. Nothing was changed; restore the "
            "files (another branch, an older checkout?), or name the right folder with --migrations",
            missing=missing,
        )
    wanted = {by_version[its].id: by_version[its] for its in checksums}
    edited = [
        by_version[its]
        for its, checksum in checksums.items()
        if checksum is not None and _checksum(by_version[its], tool) not in {None, checksum}
    ]
    if edited:
        raise LedgerMismatch(
            f"{tool} has applied other texts than the files have now: "
            f"{', '.join(str(migration.path) for migration in edited)}. Nothing was changed; put them back as they "
            "were and write a new migration",
            changed=[migration.id for migration in edited],
        )
    if last is not None:
        wanted |= {migration.id: migration for its, migration in by_version.items() if _parts(its) <= _parts(last)}
    return set(wanted)


def _parts(its: str) -> list[int]:
    return [int(part) for part in its.split(".")]


def _checksum(migration: Migration, tool: str) -> bytes | int | None:
    """Return a tool's checksum of a file as it is on disk, byte order mark and line ends included, or None."""
    if tool not in {"sqlx", "flyway"}:
        return None
    try:
        content = migration.path.read_bytes()
    except OSError as error:
        raise MigrationFileError(f"{migration.path}: cannot be read: {error.strerror}", path=migration.path) from error
    if tool == "sqlx":
        return hashlib.sha384(content).digest()
    # Flyway's: of the lines without their ends, as a signed number
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    sum_ = zlib.crc32(text.replace("\n", "").encode())
    return sum_ - (1 << 32) if sum_ >= 1 << 31 else sum_
