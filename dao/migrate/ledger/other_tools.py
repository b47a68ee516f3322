"""The ledgers of other tools: which of their tables a database has, and what these say is applied.

All that is known of other tools' tables stands here. How each writes its own was looked up in the tool's own source,
and for sqlx, dbmate, yoyo and alembic seen in databases that they made. Their tables are read, and left as they are.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from dao.engine import Connection
from dao.errors import MigrationFileError
from dao.migrate.database import Target, columns_of, exists, fetch, opened, table_names
from dao.migrate.schema.names import fold, is_ours, quoted
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.scripts import sections
from dao.migrate.scripts.ids import version
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Difference

__all__ = [
    "Applied",
    "OtherLedger",
    "applied_by",
    "claimed",
    "expected_of",
    "found",
    "is_replicators",
    "is_same",
    "other_ledgers",
    "without",
]


@attrs.frozen
class _Table:
    """A tool's ledger: its name, the columns that are read, and what tells another tool's table of the same name."""

    name: str
    columns: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


_LEDGERS: Mapping[str, _Table] = {
    "sqlx": _Table("_sqlx_migrations", ("version", "success", "checksum")),
    "dbmate": _Table("schema_migrations", ("version",), ("dirty", "inserted_at")),  # the other two: below, Ecto
    "goose": _Table("goose_db_version", ("id", "version_id", "is_applied")),
    "golang-migrate": _Table("schema_migrations", ("version", "dirty")),
    "diesel": _Table("__diesel_schema_migrations", ("version",)),
    "flyway": _Table("flyway_schema_history", ("installed_rank", "version", "type", "script", "checksum", "success")),
    "alembic": _Table("alembic_version", ("version_num",)),
    "yoyo": _Table("_yoyo_migration", ("migration_id", "applied_at_utc")),
}
_RAILS = "ar_internal_metadata"
_REPLICATOR = "Litestream"
#: The tables of tools whose ledger cannot, and of one that replicates.
_TABLES: Mapping[str, tuple[str, ...]] = {
    "Atlas": ("atlas_schema_revisions",),
    "Cloudflare D1": ("d1_migrations",),
    "Django": ("django_migrations",),
    "Drizzle": ("__drizzle_migrations",),
    "Knex": ("knex_migrations", "knex_migrations_lock"),
    "Liquibase": ("DATABASECHANGELOG", "DATABASECHANGELOGLOCK"),
    _REPLICATOR: ("_litestream_seq", "_litestream_lock"),
    "Prisma": ("_prisma_migrations",),
    "Rails": (_RAILS,),
}


@attrs.frozen
class OtherLedger:
    """A table in which another tool notes what it has done. `tool` is its name, as of `adopt` where that reads it."""

    tool: str
    table: str

    def __str__(self) -> str:
        return f"{self.table} (of {self.tool})"

    @property
    def is_adoptable(self) -> bool:
        """Whether `adopt` reads it."""
        return self.tool in _LEDGERS

    @property
    def tells(self) -> bool:
        """Whether it says by itself which files are applied, so that `adopt` needs nothing else."""
        return self.is_adoptable and self.tool != "alembic"

    @property
    def command(self) -> str:
        """The command that takes it over."""
        return f"dao adopt --from {self.tool}" + ("" if self.tells else " --to ID")


# ---------------------------------------------------------------- which there are


def found(connection: Connection) -> list[OtherLedger]:
    """Return the tables of other tools that a database has, under their usual names; none of the stock yoyo's."""
    there = {fold(name): name for name in table_names(connection)}
    rails = _LEDGERS["dbmate"].name if _RAILS in there else None  # it has the same table, and one more
    ledgers = [
        OtherLedger("Rails" if table.name == rails else tool, there[table.name])
        for tool, table in _LEDGERS.items()
        if table.name in there and not is_ours(table.name) and _is_of(connection, table)
    ]
    others = [
        OtherLedger(tool, there[fold(name)]) for tool, names in _TABLES.items() for name in names if fold(name) in there
    ]
    return [*ledgers, *others]


def other_ledgers(target: Target, *, prepare: Prepare | None = None) -> list[OtherLedger]:
    """Return the tables in which other tools keep their own ledger in a database. Reads only.

    `prepare` is as in `apply`.
    """
    if not exists(target):
        return []
    with preparing(prepare), opened(target, read_only=True) as connection:
        return found(connection)


def without(connection: Connection, differences: Iterable[Difference]) -> list[Difference]:
    """Return the differences of a schema without unexpected tables of other tools: those are nobody's drift."""
    names = {fold(ledger.table) for ledger in found(connection)}
    return [
        one
        for one in differences
        if one.kind != "unexpected" or one.part is not None or one.type != "table" or fold(one.name) not in names
    ]


def is_replicators(name: str) -> bool:
    """Return whether a table is one that a program which replicates the database needs, whatever its schema is."""
    return fold(name) in _TABLES[_REPLICATOR]


def expected_of(tool: str) -> tuple[str, str | None]:
    """Return the name of a tool's table, and the other tool whose table has that name, too."""
    table = _LEDGERS[tool].name
    return table, next((other for other, its in _LEDGERS.items() if its.name == table and other != tool), None)


def _is_of(connection: Connection, table: _Table) -> bool:
    columns = set(columns_of(connection, table.name))
    return columns >= set(table.columns) and not columns & set(table.unwanted)


# ---------------------------------------------------------------- what they say


@attrs.frozen
class Applied:
    """The versions that a tool's ledger says are applied, with the checksums of their scripts where it has them.

    `last`: so is all up to that version. `unfinished`: versions that did not come to their end. `is_empty`: the table
    has no row.
    """

    checksums: Mapping[str, Any]
    last: str | None
    unfinished: tuple[str, ...]
    is_empty: bool

    @property
    def is_nothing(self) -> bool:
        """Whether it says of no version that it was begun."""
        return not self.checksums and self.last is None and not self.unfinished

    def has(self, its: str) -> bool:
        """Return whether a version is among them."""
        return its in self.checksums or (self.last is not None and _parts(its) <= _parts(self.last))


def applied_by(connection: Connection, tool: str) -> Applied | None:
    """Return what a tool's ledger says; None if the database does not have it as the tool makes it."""
    table = _LEDGERS[tool]
    if not _is_of(connection, table):
        return None
    rows: Sequence[Any] = fetch(
        connection, f"SELECT {', '.join(map(quoted, table.columns))} FROM {quoted(table.name)} ORDER BY 1"
    )
    checksums: dict[Any, Any] = {}
    last = None
    unfinished: list[Any] = []
    match tool:
        case "sqlx":
            unfinished = [its for its, success, _ in rows if not success]
            checksums = {its: checksum for its, _, checksum in rows}
        case "dbmate" | "diesel":
            checksums = {its: None for (its,) in rows}
        case "goose":
            # the last row of a version counts; version 0 is goose's own
            latest = {its: applied for _, its, applied in rows}
            checksums = {its: None for its, applied in latest.items() if applied and its != 0}
        case "golang-migrate":
            # one row: all up to it are applied
            unfinished = [its for its, dirty in rows if dirty]
            checksums = {its: None for its, _ in rows}
            last = next(iter(checksums), None)
        case "flyway":
            unfinished = [its or script for _, its, _, script, _, success in rows if not success]
            for _, its, kind, _, checksum, _ in rows:
                if its is None:
                    continue  # a repeatable script, or the schema's creation
                if "BASELINE" in kind and version(f"V{its}", tool):
                    last = its
                elif kind.startswith("UNDO") or kind == "DELETE":
                    checksums.pop(_named(its, tool), None)
                else:
                    checksums[_named(its, tool)] = checksum
    return Applied(
        {_named(its, tool): checksum for its, checksum in checksums.items()},
        None if last is None else _named(last, tool),
        tuple(map(str, unfinished)),
        not rows,
    )


def _named(value: object, tool: str) -> str:
    """Return a value of a version column as `version` writes it; as it is if that means nothing to the tool."""
    return version(f"V{value}" if tool == "flyway" else f"{value}_", tool) or str(value)


def _parts(its: str) -> list[int]:
    return [int(part) for part in its.split(".") if part.isdigit()]


# ---------------------------------------------------------------- which files that means


def is_same(migration: Migration, checksum: Any, tool: str) -> bool:
    """Return whether a file has the checksum that a tool's ledger notes, or would have it with other line ends.

    That is how a checkout on another system has the file. A ledger without checksums takes any.

    Raises:
        MigrationFileError: The file cannot be read.
    """
    if checksum is None or tool not in {"sqlx", "flyway"}:
        return True
    try:
        content = migration.path.read_bytes()
    except OSError as error:
        raise MigrationFileError(f"{migration.path}: cannot be read: {error.strerror}", path=migration.path) from error
    unix = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if tool == "sqlx":  # of the bytes
        return any(hashlib.sha384(text).digest() == checksum for text in (content, unix, unix.replace(b"\n", b"\r\n")))
    # of the lines without their ends and a byte order mark, as a signed number
    sum_ = zlib.crc32(unix.decode("utf-8-sig").replace("\n", "").encode())
    return bool(checksum == sum_ - ((sum_ >> 31) << 32))


def claimed(connection: Connection, tool: str, migrations: Iterable[Migration]) -> list[Migration]:
    """Return those of the migrations that a tool has applied for certain, by its ledger.

    That a version has the same number proves nothing: another folder may have it, too. So the file must be written
    for the tool, or have the checksum.
    """
    applied = applied_by(connection, tool)
    if applied is None:
        return []
    return [
        migration
        for migration in migrations
        if (its := version(migration.id, tool)) is not None
        and applied.has(its)
        and _is_written_for(migration, tool, applied.checksums.get(its))
    ]


def _is_written_for(migration: Migration, tool: str, checksum: Any) -> bool:
    match tool:
        case "dbmate" | "goose":
            return sections.is_marked(migration.up.text, tool)
        case "golang-migrate":
            return migration.path.name.endswith(".up.sql")
        case "diesel":
            return migration.path.name == "up.sql"
        case "sqlx":
            return checksum is not None and migration.up.path is not None and is_same(migration, checksum, tool)
        case "flyway":  # its names are like no other's
            return True
        case _:
            return False
