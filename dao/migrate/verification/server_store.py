"""Generated rows in a PostgreSQL database: its tables as the catalog has them, and which rows it refuses.

Values go to the server as texts. Which of the stock a column's type takes it says itself (`pg_input_is_valid`), so that
no list of types is kept here: domains, enums, arrays and those of extensions are columns like others.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from dao.engine import execute, fetch, transaction
from dao.engine.postgresql import Connection, DriverError
from dao.engine.postgresql import in_transaction as is_in_transaction
from dao.errors import Error, IntegrityError, NotNullViolation, UniqueViolation
from dao.migrate.run.postgresql.holdings import counters, written
from dao.migrate.run.postgresql.holdings import tables as tables_of
from dao.migrate.run.postgresql.names import names_in
from dao.migrate.schema.model import Schema
from dao.migrate.schema.names import quoted
from dao.migrate.schema.postgresql.pieces import column_names
from dao.migrate.schema.tokens import tokens
from dao.migrate.scripts.postgresql import split
from dao.migrate.verification.makers import Maker, Value, constant, literals, makers
from dao.migrate.verification.store import Column, Reference, Refusal, Row, Table
from dao.migrate.verification.uses import Use

__all__ = ["ServerStore", "without_brackets"]

#: Values for types that take none of the others: intervals, arrays, ranges, points, addresses, bits.
_TEXTS = ("{} hours", "{{}}", "{{{}}}", "{{{0},{0}}}", "[{},)", "empty", "({0},{0})", "08:00:2b:01:02:03", "1", "<a/>")
_OWN: tuple[Maker, ...] = tuple(text.format for text in _TEXTS)
#: Which numbers a maker has to make valid values of.
_SAMPLES = (1, 2, 37, 1_962)
_COLUMNS = """
SELECT a.attrelid::bigint, a.attname::text, format_type(a.atttypid, a.atttypmod), t.typcategory::text,
       format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, NULL),
       a.attnotnull OR t.typnotnull,
       ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid IN (t.oid, t.typbasetype, t.typelem)
             ORDER BY enumsortorder),
       pg_get_expr(d.adbin, d.adrelid)
FROM   pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
       LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE  a.attrelid = ANY ($1::bigint[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER  BY a.attrelid, a.attnum
"""
#: Of constraints, and of unique indexes that are none: what they are, and of which columns.
_KEYS = f"""
SELECT k.conrelid::bigint, k.contype::text, k.conname::text, k.confrelid::bigint,
       {column_names("k.conkey", "k.conrelid")}, {column_names("k.confkey", "k.confrelid")}
FROM   pg_constraint AS k
WHERE  k.conrelid = ANY ($1::bigint[]) AND k.contype IN ('p', 'u', 'x', 'f', 'c')
UNION  ALL
SELECT i.indrelid::bigint, 'u', c.relname::text, 0, {column_names("i.indkey::int2[]", "i.indrelid")}, '{{}}'
FROM   pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE  i.indrelid = ANY ($1::bigint[]) AND i.indisunique
       AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
ORDER  BY 1, 2, 3
"""
_VALID = "SELECT pg_input_is_valid(value, type) FROM unnest($1::text[], $2::text[]) AS given (value, type)"


@attrs.frozen
class _Key:
    """A constraint, or a unique index: `kind` as `pg_constraint.contype`, `parent` the number of a table."""

    kind: str
    name: str
    parent: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]


class ServerStore:
    """A PostgreSQL database with this schema whose tables are filled: a `Store`. Names are as the catalog has them."""

    def __init__(self, connection: Connection, schema: Schema) -> None:
        self.connection, self._texts = connection, _Texts(schema)
        #: By the name of a table, its name in SQL, and its keys.
        self._sql: dict[str, str] = {}
        self._keys: dict[str, list[_Key]] = {}
        self._valid: dict[tuple[str, str], bool] = {}

    # ------------------------------------------------------------ tables

    def tables(
        self, seed: int, only: Collection[str] | None, without: Collection[str], uses: Mapping[str, Use]
    ) -> dict[str, Table]:
        """As `Store`: a table with its partitions is one."""
        there = tables_of(self.connection)
        wanted = {
            id: table
            for id, table in there.items()
            if (only is None or table.name in only)
            and table.name not in without
            and not (table.parent in there and there[table.parent].is_partitioned)
        }
        ids = list(wanted)
        keys: dict[int, list[_Key]] = {id: [] for id in ids}
        for id, kind, name, parent, own, theirs in fetch(self.connection, _KEYS, (ids,)):
            keys[id].append(_Key(kind, name, parent, tuple(own), tuple(theirs)))
        rows: dict[int, list[Any]] = {id: [] for id in ids}
        for id, *row in fetch(self.connection, _COLUMNS, (ids,)):
            rows[id].append(row)
        found = {}
        for id, table in wanted.items():
            self._sql[table.name], self._keys[table.name] = written(table).removeprefix("ONLY "), keys[id]
            primary = next((key.columns for key in keys[id] if key.kind == "p"), ())
            mentioned = literals(self._texts.of(table.name))
            found[table.name] = Table(
                name=table.name,
                id=table.name,
                virtual=False,
                generator=random.Random(f"{seed} {table.name}"),  # noqa: S311 - no secret
                columns={row[0]: _column(row, mentioned, uses, is_key=row[0] in primary) for row in rows[id]},
                key=primary,
                references=[
                    Reference(there[key.parent].name, key.columns, key.parent_columns)
                    for key in keys[id]
                    if key.kind == "f" and key.parent in there
                ],
            )
        self._choose({(wanted[id].name, row[0]): row[1] for id in ids for row in rows[id]}, found)
        return found

    def _choose(self, types: Mapping[tuple[str, str], str], tables: Mapping[str, Table]) -> None:
        """Leave to each column the makers whose values its type takes."""
        asked = {
            (_text(maker(number)), types[table.name, column.id])
            for table in tables.values()
            for column in table.columns.values()
            for _, maker in column.makers
            for number in _SAMPLES
        }
        new = sorted(asked - self._valid.keys())
        self._valid.update(zip(new, self._are_valid(new), strict=True))
        for table in tables.values():
            for column in table.columns.values():
                type = types[table.name, column.id]
                column.makers = [
                    (rank, maker)
                    for rank, maker in column.makers
                    if all(self._valid[_text(maker(number)), type] for number in _SAMPLES)
                ] or [(0, str)]  # none of it: the server will say so
                column.refused = [0] * len(column.makers)

    def _are_valid(self, given: Sequence[tuple[str, str]]) -> list[bool]:
        """Return of texts, each with a type, whether the type takes them."""
        if not given:
            return []
        try:
            with transaction(self.connection):
                values, types = zip(*given, strict=True)
                return [one for (one,) in fetch(self.connection, _VALID, (list(values), list(types)))]
        except (Error, DriverError):
            # a type of an extension may raise an error in place of an answer
            half = len(given) // 2
            return [*self._are_valid(given[:half]), *self._are_valid(given[half:])] if half else [False]

    # ------------------------------------------------------------ the transaction

    def run(self, sql: str) -> None:
        """As `Store`."""
        execute(self.connection, sql)

    def is_open(self) -> bool:
        """As `Store`."""
        return is_in_transaction(self.connection)

    def defer(self, *, until_end: bool) -> None:
        """As `Store`: those that are DEFERRABLE."""
        execute(self.connection, f"SET CONSTRAINTS ALL {'DEFERRED' if until_end else 'IMMEDIATE'}")

    # ------------------------------------------------------------ rows

    def check(self, table: Table) -> None:
        """As `Store`: the server takes rows into any."""

    def insert(self, table: Table, row: Row) -> Refusal | None:
        """As `Store`."""
        names = ", ".join(map(quoted, table.columns))
        values = ", ".join(f"${place}" for place in range(1, len(table.columns) + 1))
        sql = f"INSERT INTO {self._sql[table.id]} ({names}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        if not table.columns:
            sql = f"INSERT INTO {self._sql[table.id]} DEFAULT VALUES"
        given = [None if row.values[name] is None else _text(row.values[name]) for name in table.columns]
        try:
            inserted = execute(self.connection, sql, given)
        except IntegrityError as error:
            return self._explained(table, error)
        except (Error, DriverError) as error:
            return Refusal(_reason(error))
        return None if inserted else Refusal("a trigger or a rule ignores the row")

    def _explained(self, table: Table, error: IntegrityError) -> Refusal:
        reason = str(error)
        if error.table is None or error.table != table.name.rpartition(".")[2]:
            return Refusal(reason)
        columns = tuple(error.columns) if isinstance(error, NotNullViolation) else ()
        for key in self._keys[table.id]:
            if key.name == error.constraint:
                columns = key.columns
        known = tuple(name for name in columns if name in table.columns)
        is_of_others = isinstance(error, UniqueViolation) or any(
            key.name == error.constraint and key.kind == "x" for key in self._keys[table.id]
        )
        return Refusal(reason, known or None, is_of_others)

    def insert_all(self, sql: str) -> tuple[set[str], str | None]:
        """As `Store`: of the tables that got rows, those that it names; triggers fill others."""
        before = counters(self.connection)
        self.defer(until_end=False)
        try:
            execute(self.connection, sql)
        except IntegrityError as error:
            return set(), str(error)
        except (Error, DriverError) as error:
            return set(), _reason(error)
        came = {id for id, now in counters(self.connection).items() if now[0] > before.get(id, (0, 0))[0]}
        named = frozenset().union(*(names_in(statement) for statement in split(sql)))
        there = tables_of(self.connection)
        found = set()
        for id in came & there.keys():
            whole = there[id]
            while whole.parent in there and there[whole.parent].is_partitioned:
                whole = there[whole.parent]
            if {whole.table, there[id].table} & named:
                found.add(whole.name)
        return found, None if found else "it inserts no row"

    def broken_keys(self, table: Table) -> int:
        """As `Store`; outside of a circle the server refuses them at once."""
        if not table.circle:
            return 0
        broken = 0
        for reference in table.references:
            if reference.parent in self._sql:
                pairs = list(zip(map(quoted, reference.columns), map(quoted, reference.keys), strict=True))
                there = " AND ".join(f"child.{column} IS NOT NULL" for column, _ in pairs)
                same = " AND ".join(f"parent.{key} = child.{column}" for column, key in pairs)
                sql = f"""
                    SELECT count(*) FROM {self._sql[table.id]} AS child
                    WHERE  {there} AND NOT EXISTS (SELECT FROM {self._sql[reference.parent]} AS parent WHERE {same})
                """
                broken += fetch(self.connection, sql)[0][0]
        return broken

    def keys(self, table: Table, columns: Sequence[str], most: int) -> list[Any]:
        """As `Store`: as texts."""
        names = ", ".join(f"{quoted(column)}::text" for column in columns)
        there = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in columns)
        return fetch(self.connection, f"SELECT {names} FROM {self._sql[table.id]} WHERE {there} LIMIT {most}")

    def has_rows(self, table: Table) -> bool:
        """As `Store`."""
        return bool(fetch(self.connection, f"SELECT 1 FROM {self._sql[table.id]} LIMIT 1"))

    def has_key_among(self, table: Table, values: Collection[str]) -> bool:
        """As `Store`."""
        for key in self._keys[table.id]:
            if key.kind in {"p", "u"} and key.columns:
                names = ", ".join(f"{quoted(column)}::text" for column in key.columns)
                for row in fetch(self.connection, f"SELECT {names} FROM {self._sql[table.id]}"):
                    if all(value in values for value in row):
                        return True
        return False


def _column(row: Sequence[Any], mentioned: tuple[Value, ...], uses: Mapping[str, Use], *, is_key: bool) -> Column:
    name, declared, category, base, not_null, labels, expression = row
    found = makers(_kind(category, base), f"{declared} {name}", mentioned, key=is_key, use=uses.get(name))
    own = [(0, lambda _number, label=label: label) for label in labels]
    last = max((rank for rank, _ in found), default=0) + 1
    default = constant(expression) if expression is not None else () if not_null else (None,)
    stock = [*own, *found, *((last, maker) for maker in _OWN)]
    return Column(name, name, stock, nullable=not not_null, default=default)


def _kind(category: str, base: str) -> str:
    """Return the kind of value that a type takes, as `makers` has them; "numeric" is tried with all that it has."""
    if category == "S":
        return "text"
    kinds = {"smallint": "integer", "integer": "integer", "bigint": "integer", "real": "real", "bytea": "blob"}
    return kinds.get(base, "real" if base == "double precision" else "numeric")


def _text(value: Any) -> str:
    """Return a value as the server reads it; JSON as it writes that: a key added and removed leaves no trace."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.dumps(json.loads(value), ensure_ascii=False)
        except ValueError:
            return value
    return str(value)


def _reason(error: Exception) -> str:
    """Return what the server said."""
    said = error if isinstance(error, DriverError) else error.__cause__
    return (said.diag.message_primary if isinstance(said, DriverError) else None) or str(error)


def without_brackets(sql: str) -> str:
    """Return SQL with parentheses in the place of brackets, in which SQLite has names, and PostgreSQL arrays."""
    return re.sub(r"'(?:[^']|'')*'|\[|\]", lambda found: {"[": "(", "]": ")"}.get(found[0], found[0]), sql)


class _Texts:
    """The texts of tables in a schema: their constraints, indexes and triggers, with the functions that these call."""

    def __init__(self, schema: Schema) -> None:
        self._of: dict[str, list[str]] = {}
        functions: dict[str, str] = {}
        for one in schema.objects.values():
            text = "\n".join(item.shown for item in one.items)
            if one.type in {"function", "domain"}:
                functions[one.name.partition("(")[0].rpartition(".")[2]] = text
            for table in {one.table, *_attached_to(text)}:
                self._of.setdefault(table.replace('"', ""), []).append(text)
        self._functions = functions

    def of(self, table: str) -> str:
        """Return what is said of a table."""
        text = without_brackets("\n".join(self._of.get(table.replace('"', ""), ())))
        words = {token.value for token in tokens(text)}
        return "\n".join([text, *(without_brackets(body) for name, body in self._functions.items() if name in words)])


def _attached_to(text: str) -> Iterator[str]:
    """Yield the table of which it is a partition."""
    for line in text.split("\n"):
        if " ATTACH PARTITION " in line:
            yield line.partition(" ATTACH PARTITION ")[0]
