"""Taking over the ledger of another tool: what it applied is marked as applied here, and nothing is run.

Its table is read and left as it is. What each tool writes into it was looked up in the tool's own source, and for sqlx,
dbmate, yoyo and alembic seen in databases that they made.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from dao.engine import Connection
from dao.errors import LedgerMismatch, MigrationError, MigrationFileError
from dao.migrate.database import Target, exclusive, existing, name_of, opened
from dao.migrate.ledger import drift
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.plan import compare, find_id, refuse
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import quoted
from dao.migrate.scripts.ids import version
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Report

__all__ = ["TOOLS", "adopt"]


@attrs.frozen
class _Applied:
    """What a tool's ledger says: its versions, each with the checksum of its script or None, and those up to a version."""

    checksums: dict[str, Any]
    up_to: str | None = None


def adopt(
    target: Target, tool: str, migrations: Source = None, *, to: str | None = None, report: Report | None = None
) -> list[str]:
    """Mark as applied what another tool has applied, and return the ids of those that were not, in the folder's order.

    `tool` is one of `TOOLS`. Writes, in one transaction, and only into this package's ledger: the texts and checksums of
    the files as they are. Runs no script. What the tool has not applied stays pending, even in the middle. alembic's
    ledger does not tell which files are applied: `to` is the last of them. Safe to repeat: the second time returns none.

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
        _refuse_other_table(connection, tool)
        refuse(compare(files, state), state, allow_out_of_order=True)
        if tool == "yoyo":
            return _complete(connection, files, state)
        if to is not None:
            _refuse_base(connection)
            ids = [migration.id for migration in files]
            wanted = set(ids[: ids.index(find_id(to, ids)) + 1])
        else:
            wanted = _matching(files, _READERS[tool](connection), tool)
        return _mark(connection, files, state, wanted, tool)


def _mark(
    connection: Connection, files: Sequence[Migration], state: ledger.Ledger, wanted: set[str], tool: str
) -> list[str]:
    adopted = [migration for migration in files if migration.id in wanted and migration.id not in state.ids]
    place = {migration.id: number for number, migration in enumerate(files)}
    if adopted:
        writer = Writer(connection)
        for migration in adopted:
            # its place among the applied ones is that in the folder, as for `mark`
            later = [entry.applied_at for entry in state.entries if place[entry.id] > place[migration.id]]
            writer.applied(
                migration, duration_ms=None, operation="adopt", before=min(later, default=None), detail=f"from {tool}"
            )
        drift.record(connection, files, state)
    return [migration.id for migration in adopted]


def _complete(connection: Connection, files: Sequence[Migration], state: ledger.Ledger) -> list[str]:
    """Note the texts of what the stock yoyo applied: its ledger is this package's."""
    by_id = {migration.id: migration for migration in files}
    bare = [entry for entry in state.entries if entry.text is None]
    if bare:
        writer = Writer(connection)
        for entry in bare:
            writer.note(by_id[entry.id], entry, operation="adopt", detail="from yoyo")
        drift.record(connection, files, state)
    return [entry.id for entry in bare]


# ---------------------------------------------------------------- versions and files


def _matching(files: Sequence[Migration], applied: _Applied, tool: str) -> set[str]:
    """Return the ids of the files that a tool's ledger means."""
    by_version: dict[str, Migration] = {}
    for migration in files:
        its = version(migration.id, tool)
        if its in by_version:
            raise MigrationFileError(
                f"{migration.path}: has the version {its}, as {by_version[its].id} has, and {tool}'s ledger does not say "
                "which of the two it means: give one of them another number",
                path=migration.path,
            )
        if its is not None:
            by_version[its] = migration
    missing = [its for its in applied.checksums if its not in by_version]
    if missing:
        raise LedgerMismatch(
            f"{tool} has applied what has no file here: version {', '.join(missing)}. Nothing was changed; restore the "
            "files (another branch, an older checkout?), or name the right folder with --migrations",
            missing=missing,
        )
    wanted = {by_version[its].id: checksum for its, checksum in applied.checksums.items()}
    edited = [
        migration
        for migration in files
        if wanted.get(migration.id) is not None and _CHECKSUMS[tool](migration) != wanted[migration.id]
    ]
    if edited:
        raise LedgerMismatch(
            f"{tool} has applied other texts than the files have now: "
            f"{', '.join(str(migration.path) for migration in edited)}. Nothing was changed; put them back as they were "
            "and write a new migration",
            changed=[migration.id for migration in edited],
        )
    if applied.up_to is not None:
        last = _parts(applied.up_to)
        wanted |= {migration.id: None for its, migration in by_version.items() if _parts(its) <= last}
    return set(wanted)


def _parts(its: str) -> list[int]:
    return [int(part) for part in its.split(".")]


def _named(value: object, tool: str) -> str:
    """Return a value of a version column as `version` writes it; as it is if that means nothing to the tool."""
    return version(f"V{value}" if tool == "flyway" else f"{value}_", tool) or str(value)


def _sha384(migration: Migration) -> bytes:
    return hashlib.sha384(_bytes(migration)).digest()


def _crc32(migration: Migration) -> int:
    """Return Flyway's checksum: of the lines without their ends, as a signed number."""
    text = _bytes(migration).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    sum_ = zlib.crc32(text.replace("\n", "").encode())
    return sum_ - (1 << 32) if sum_ >= 1 << 31 else sum_


def _bytes(migration: Migration) -> bytes:
    """Return the file as it is on disk, byte order mark and line ends included."""
    try:
        return migration.path.read_bytes()
    except OSError as error:
        raise MigrationFileError(f"{migration.path}: cannot be read: {error.strerror}", path=migration.path) from error


_CHECKSUMS: Mapping[str, Callable[[Migration], Any]] = {"sqlx": _sha384, "flyway": _crc32}

# ---------------------------------------------------------------- their tables


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


def _refuse_other_table(connection: Connection, tool: str) -> None:
    table, wanted, unwanted = _TABLES[tool]
    columns = {column.name for column in catalog.columns(connection, table)}
    if not columns:
        raise MigrationError(
            f"{name_of(connection)} has no table {table}, so {tool} has applied nothing to it: `dao migrate` applies the "
            "migrations, `dao mark` notes by hand which are applied"
        )
    if not columns >= set(wanted) or columns & set(unwanted):
        others = [name for name, (its, *_) in _TABLES.items() if its == table and name != tool]
        hint = f"; is it that of {others[0]}?" if others else ""
        raise MigrationError(
            f"the table {table} of {name_of(connection)} is not as {tool} makes it: its columns are "
            f"{', '.join(sorted(columns))}{hint}"
        )


def _rows(connection: Connection, tool: str) -> Sequence[Any]:
    """Return the rows of a tool's table, sorted by the first column."""
    table, columns, _ = _TABLES[tool]
    rows: Sequence[Any] = connection.execute(
        f"SELECT {', '.join(quoted(name) for name in columns)} FROM {quoted(table)} ORDER BY 1"
    ).fetchall()
    return rows


def _refuse_unfinished(tool: str, versions: Sequence[str]) -> None:
    if versions:
        raise MigrationError(
            f"{tool} did not come to the end of version {', '.join(versions)}, so part of it may be done. Nothing was "
            f"changed; look at the database, finish or undo it by hand, mend it in {tool}'s ledger, then repeat"
        )


def _refuse_base(connection: Connection) -> None:
    if not _rows(connection, "alembic"):
        raise MigrationError(f"alembic_version in {name_of(connection)} is empty: alembic has applied nothing")


def _read_sqlx(connection: Connection) -> _Applied:
    rows = _rows(connection, "sqlx")
    _refuse_unfinished("sqlx", [str(its) for its, success, _ in rows if not success])
    return _Applied({_named(its, "sqlx"): checksum for its, _, checksum in rows})


def _read_dbmate(connection: Connection) -> _Applied:
    return _Applied({_named(its, "dbmate"): None for (its,) in _rows(connection, "dbmate")})


def _read_diesel(connection: Connection) -> _Applied:
    return _Applied({_named(its, "diesel"): None for (its,) in _rows(connection, "diesel")})


def _read_goose(connection: Connection) -> _Applied:
    # the last row of a version counts; version 0 is goose's own
    last = {its: applied for _, its, applied in _rows(connection, "goose")}
    return _Applied({_named(its, "goose"): None for its, applied in last.items() if applied and its != 0})


def _read_golang_migrate(connection: Connection) -> _Applied:
    rows = _rows(connection, "golang-migrate")
    _refuse_unfinished("golang-migrate", [str(its) for its, dirty in rows if dirty])
    versions = [_named(its, "golang-migrate") for its, _ in rows]
    # one row: all up to it are applied
    return _Applied(dict.fromkeys(versions), versions[0] if versions else None)


def _read_flyway(connection: Connection) -> _Applied:
    rows = _rows(connection, "flyway")
    _refuse_unfinished("flyway", [str(its or script) for _, its, _, script, _, success in rows if not success])
    checksums: dict[str, Any] = {}
    up_to: str | None = None
    for _, its, kind, _, checksum, _ in rows:
        if its is None:
            continue  # a repeatable script, or the schema's creation
        name = _named(its, "flyway")
        if "BASELINE" in kind and version(f"V{its}", "flyway"):
            up_to = name
        elif kind.startswith("UNDO") or kind == "DELETE":
            checksums.pop(name, None)
        else:
            checksums[name] = checksum
    return _Applied(checksums, up_to)


_READERS: Mapping[str, Callable[[Connection], _Applied]] = {
    "sqlx": _read_sqlx,
    "dbmate": _read_dbmate,
    "goose": _read_goose,
    "golang-migrate": _read_golang_migrate,
    "diesel": _read_diesel,
    "flyway": _read_flyway,
}
