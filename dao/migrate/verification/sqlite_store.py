"""Generated rows in a SQLite database: its tables as the catalog has them, and which rows it refuses."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import apsw

from dao.engine import sqlite
from dao.engine.sqlite import Connection
from dao.errors import CheckViolation, IntegrityError, UniqueViolation
from dao.migrate.schema import catalog
from dao.migrate.schema.names import fold, quoted
from dao.migrate.schema.tokens import normal, tokens
from dao.migrate.verification.makers import constant, literals, makers
from dao.migrate.verification.store import Column, Reference, Refusal, Row, Table, UnfilledError
from dao.migrate.verification.uses import Use

__all__ = ["SQLiteStore"]


class SQLiteStore:
    """A SQLite database whose tables are filled: a `Store`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tables(
        self, seed: int, only: Collection[str] | None, without: Collection[str], uses: Mapping[str, Use]
    ) -> dict[str, Table]:
        """As `Store`: without SQLite's own tables, too, and those that a virtual table keeps."""
        wanted = [
            table
            for table in catalog.tables(self._connection, only)
            if table.kind != "shadow" and fold(table.name) not in without
        ]
        names = {table.name for table in wanted}
        texts: dict[str, list[str]] = {}
        for item in sorted(catalog.definitions(self._connection), key=lambda item: (item.type != "table", item.name)):
            if item.table in names:
                texts.setdefault(item.table, []).append(item.sql or "")
        return {
            fold(table.name): _table(self._connection, table, "\n".join(texts[table.name]), seed, uses)
            for table in wanted
            if table.name in texts
        }

    def run(self, sql: str) -> None:
        """As `Store`."""
        self._connection.execute(sql)

    def is_open(self) -> bool:
        """As `Store`: a trigger can end it by RAISE (ROLLBACK, …)."""
        return self._connection.in_transaction

    def defer(self, *, until_end: bool) -> None:  # noqa: ARG002 - as `Store`
        """As `Store`: where the connection enforces foreign keys, they are judged at the end in any case."""
        self._connection.execute("PRAGMA defer_foreign_keys = 1")

    def check(self, table: Table) -> None:
        """As `Store`."""
        try:
            self._connection.execute(f"EXPLAIN {_insert(table)}", [None] * len(table.columns)).fetchall()
        except apsw.SQLError as error:
            raise UnfilledError(str(error)) from error

    def insert(self, table: Table, row: Row) -> Refusal | None:
        """As `Store`."""
        # in a circle a row may refer to one that comes later
        broken = 0 if table.circle else self.broken_keys(table)
        changes = self._connection.total_changes()
        refusal = None
        try:
            self._connection.execute(_insert(table), [row.values[name] for name in table.columns])
        except (apsw.ConstraintError, apsw.SQLError, apsw.MismatchError, apsw.TooBigError) as error:
            refusal = table.refusals.get(str(error)) or self._explained(table, error)
            table.refusals[str(error)] = refusal
        except Exception as error:
            raised = sqlite.raised_by_program(error)
            if raised is None:
                raise
            refusal = Refusal(raised)
        else:
            if self._connection.total_changes() == changes:
                refusal = Refusal("a trigger ignores the row")
            elif not table.circle and self.broken_keys(table) > broken:
                refusal = Refusal("a foreign key would break")
        return refusal

    def _explained(self, table: Table, error: apsw.Error) -> Refusal:
        reason = str(error)
        translated = sqlite.translate(error, self._connection)
        if not isinstance(translated, IntegrityError) or fold(translated.table or table.name) != table.id:
            return Refusal(reason)
        names = [fold(name) for name in translated.columns]
        if isinstance(translated, CheckViolation) and not names:
            # without a name of its own it is called by its expression
            words = {token.value for token in tokens(fold(translated.constraint or ""))}
            names = [name for name in table.columns if normal(name) in words]
        known = tuple(name for name in names if name in table.columns)
        return Refusal(reason, known or None, isinstance(translated, UniqueViolation))

    def insert_all(self, sql: str) -> tuple[set[str], str | None]:
        """As `Store`."""
        tables: set[str] = set()

        def note(action: int, first: str | None, _second: str | None, database: str | None, trigger: str | None) -> int:
            if action == apsw.SQLITE_INSERT and database == "main" and trigger is None:
                tables.add(fold(first or ""))
            # it could change anything
            return apsw.SQLITE_DENY if action in {apsw.SQLITE_ATTACH, apsw.SQLITE_PRAGMA} else apsw.SQLITE_OK

        connection = self._connection
        changes = connection.total_changes()
        authorizer, connection.authorizer = connection.authorizer, note
        try:
            connection.execute(sql, can_cache=False).fetchall()
        except (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError, apsw.AuthError, apsw.BindingsError) as error:
            return tables, str(error)
        finally:
            connection.authorizer = authorizer
        if connection.total_changes() == changes:
            return tables, "it inserts no row"
        for table in tables:
            if connection.execute(f"PRAGMA foreign_key_check({quoted(table)})").fetchall():
                return tables, f"a row of {table} refers to one that does not exist"
        return tables, None

    def broken_keys(self, table: Table) -> int:
        """As `Store`."""
        if not table.references:
            return 0
        try:
            return len(self._connection.execute(f"PRAGMA foreign_key_check({quoted(table.name)})").fetchall())
        except apsw.SQLError:  # it refers to what is no key: not for a row to mend
            return 0

    def keys(self, table: Table, columns: Sequence[str], most: int) -> list[Any]:
        """As `Store`."""
        names = ", ".join(map(quoted, columns))
        there = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in columns)
        sql = f"SELECT {names} FROM {quoted(table.name)} WHERE {there} LIMIT {most}"
        return self._connection.execute(sql).fetchall()

    def has_rows(self, table: Table) -> bool:
        """As `Store`; a virtual table whose module is not there has none."""
        try:
            return bool(self._connection.execute(f"SELECT 1 FROM {quoted(table.name)} LIMIT 1").fetchall())
        except apsw.SQLError:
            return False

    def has_key_among(self, table: Table, values: Collection[str]) -> bool:
        """As `Store`."""
        keys = [catalog.primary_key(catalog.columns(self._connection, table.name))]
        keys += [
            [column.name or "" for column in index.columns]
            for index in catalog.indexes(self._connection, table.name)
            if index.unique
        ]
        return any(
            all(str(value) in values for value in row)
            for key in keys
            if key and all(key)
            for row in self._connection.execute(f"SELECT {', '.join(map(quoted, key))} FROM {quoted(table.name)}")
        )


def _insert(table: Table) -> str:
    """Return the statement that inserts a row. OR ABORT: an ON CONFLICT clause of the schema could hide a refusal."""
    names = ", ".join(quoted(column.name) for column in table.columns.values())
    return f"INSERT OR ABORT INTO {quoted(table.name)} ({names}) VALUES ({', '.join('?' * len(table.columns))})"


def _table(connection: Connection, table: catalog.Table, sql: str, seed: int, uses: Mapping[str, Use]) -> Table:
    mentioned = literals(sql)
    own = [column for column in catalog.columns(connection, table.name) if not column.hidden]
    return Table(
        name=table.name,
        id=fold(table.name),
        virtual=table.kind == "virtual",
        generator=random.Random(f"{seed} {table.name}"),  # noqa: S311 - no secret
        columns={
            fold(column.name): Column(
                column.name,
                fold(column.name),
                makers(
                    catalog.affinity(column.type, strict=table.strict),
                    f"{column.type} {column.name}",
                    mentioned,
                    key=bool(column.key),
                    use=uses.get(normal(column.name)),
                ),
                # SQLite lets a key be NULL by an old mistake; nobody means it
                nullable=not column.not_null and not column.key,
                default=_default(column),
            )
            for column in own
        },
        key=tuple(map(fold, catalog.primary_key(own))),
        references=[
            Reference(fold(key.parent), tuple(map(fold, key.columns)), tuple(map(fold, key.parent_columns)))
            for key in reversed(catalog.foreign_keys(connection, table.name))
        ],
    )


def _default(column: catalog.Column) -> tuple[Any, ...]:
    if column.default is None:
        return () if column.not_null or column.key else (None,)
    return constant(column.default)
