"""Trials: a statement is compiled in another way, or run while a table holds a row.

All of it happens in a copy of the database, its twin, and is undone there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw

from dao.engine import sqlite
from dao.engine.sqlite import Connection
from dao.migrate.linting.schema import Table
from dao.migrate.schema.catalog import affinity
from dao.migrate.schema.names import quoted
from dao.migrate.schema.usable import compiles

__all__ = [
    "LONG",
    "double_quoted",
    "failure_with_rows",
    "lacks_where",
    "misfits",
    "string_in",
    "trying",
    "without_quotes",
]

#: The instructions after which a trial is given up: a script may count up to what stands in the one row of a trial.
LONG = 1_000_000
#: SQLite's words for a double-quoted string where they are turned off.
_QUOTES = " - should this be a string literal in single-quotes?"
#: A value for a column of such a type; for others it is a number, which most constraints of type accept.
_VALUES = {"TEXT": "'x'", "BLOB": "x'00'"}


@contextlib.contextmanager
def _configured(connection: Connection, options: Mapping[int, int]) -> Iterator[None]:
    before = {option: connection.config(option, -1) for option in options}
    for option, value in options.items():
        connection.config(option, value)
    try:
        yield
    finally:
        for option, value in before.items():
            connection.config(option, value)


@contextlib.contextmanager
def _undone(twin: Connection) -> Iterator[None]:
    """Turn triggers off for a block, and undo what it does."""
    twin.execute("SAVEPOINT lint")
    try:
        with _configured(twin, {apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER: 0}):
            yield
    finally:
        twin.pragma("ignore_check_constraints", False)
        if twin.in_transaction:
            twin.execute("ROLLBACK TO lint; RELEASE lint")


@contextlib.contextmanager
def trying() -> Iterator[None]:
    """Make an error of SQLite's of what a program's function raises, which may not take the values of a trial."""
    try:
        yield
    except Exception as error:
        if raised := sqlite.raised_by_program(error):
            raise apsw.SQLError(raised) from error
        raise


def without_quotes(connection: Connection) -> contextlib.AbstractContextManager[None]:
    """Turn double-quoted strings off for a block, as `dao.connect` has it."""
    return _configured(connection, {apsw.SQLITE_DBCONFIG_DQS_DDL: 0, apsw.SQLITE_DBCONFIG_DQS_DML: 0})


def double_quoted(twin: Connection, sql: str) -> str | None:
    """Return the double-quoted string without which a statement does not compile, with its quotes."""
    with without_quotes(twin):
        problem = compiles(twin, sql) or ""
    name = string_in(problem)
    # one in a trigger that the statement fires is the trigger's
    return name if name and name in sql else None


def string_in(problem: str) -> str | None:
    """Return the double-quoted string, with its quotes, that SQLite complains of; None if it is another problem."""
    found = problem.removeprefix("no such column: ").removesuffix(_QUOTES)
    return found if problem.endswith(_QUOTES) else None


def lacks_where(twin: Connection, sql: str) -> bool:
    """Return whether a DELETE or UPDATE has no WHERE: then one can be added, which SQLite's grammar decides.

    A parameter shows that it was understood as SQL, and not as part of a string or comment.
    """
    body = sql.rstrip().removesuffix(";")
    for place in [len(body), *(match.start() for match in re.finditer("returning", body, re.IGNORECASE))]:
        try:
            compiles(twin, f"{body[:place]}\nWHERE ?1\n{body[place:]}")
        except apsw.BindingsError:
            return True
    return False


def failure_with_rows(twin: Connection, sql: str, tables: Sequence[Table], *, copies: bool) -> str | None:
    """Run a statement while each of these tables holds a row, and return what fails because of that."""
    with _undone(twin):
        known = [problem for table in tables for problem in _give_row(twin, table)]
        try:
            with trying():
                twin.execute(sql, can_cache=False).fetchall()
        except apsw.InterruptError:
            return None
        except apsw.Error as error:
            message = str(error)
            if error.__cause__ is not None:
                return None
            if copies:
                return message if message.startswith("NOT NULL constraint failed") else None
            # our row may break the table's own CHECKs
            return None if known and message.startswith("CHECK") else message
    return None


def _give_row(twin: Connection, table: Table) -> Sequence[Any]:
    """Insert a row into a table, if that can be done, and return what constraints it breaks."""
    values = {
        quoted(column.name): _VALUES.get(column.type.upper(), "'x'" if "CHAR" in column.type.upper() else "1")
        for column in table.stored.values()
        if column.default is None and (column.key == 0 or column.type.upper() != "INTEGER")
    }
    what = f"({', '.join(values)}) VALUES ({', '.join(values.values())})" if values else "DEFAULT VALUES"
    with contextlib.suppress(apsw.Error), trying():
        twin.pragma("ignore_check_constraints", True)
        twin.execute(f"INSERT INTO {quoted(table.name)} {what}")
    twin.pragma("ignore_check_constraints", False)
    with contextlib.suppress(apsw.Error), trying():
        problems = twin.execute(f"PRAGMA quick_check({quoted(table.name)})").fetchall()
        return [problem for problem in problems if problem != ("ok",)]
    return []


def misfits(twin: Connection, sql: str, source: Table, target: Table) -> tuple[str, ...]:
    """Run a copy from a table whose one row has another value in each column; say which come where they do not belong.

    A value belongs into the column of its own name, or one whose name is new; and into one of its own type.
    """
    kinds = {name: affinity(column.type, strict=source.strict) for name, column in source.stored.items()}
    marks = {name: _mark(kind, place) for place, (name, kind) in enumerate(kinds.items())}
    names, places = ", ".join(map(quoted, marks)), ", ".join("?" * len(marks))
    with _undone(twin):
        twin.pragma("ignore_check_constraints", True)
        there = ", ".join(map(quoted, target.columns))
        insert = f"INSERT INTO main.{quoted(source.name)} ({names}) VALUES ({places})"
        try:
            with trying():
                twin.execute(f"DELETE FROM main.{quoted(source.name)}")
                twin.execute(f"DELETE FROM main.{quoted(target.name)}")
                twin.execute(insert, tuple(marks.values()))
                twin.execute(sql, can_cache=False).fetchall()
                rows = twin.execute(f"SELECT {there} FROM main.{quoted(target.name)}").fetchall()
        except apsw.Error as error:
            # that of a STRICT table, and of an INTEGER PRIMARY KEY
            return (str(error),) if str(error).startswith(("cannot store ", "datatype mismatch")) else ()
    values = [pair for row in rows for pair in zip(target.columns, row, strict=True)]
    found: list[str] = []
    for name, column in source.stored.items():
        # it may have been converted, too
        landed = [own for own, value in values if str(value).removesuffix(".0") == str(marks[name])]
        for own in landed:
            into = target.columns[own]
            if own != name and own in source.columns and name not in landed:
                found.append(f"the values of {column.name} come into {into.name}")
            elif (kinds[name], affinity(into.type, strict=target.strict)) in _CONVERTED:
                found.append(
                    f"{into.name} is {into.type}, and its values come from {column.name}, which is {column.type}"
                )
    return tuple(found)


#: Between these SQLite converts what it can, and keeps or refuses the rest.
_CONVERTED = frozenset(
    {("text", "integer"), ("text", "real"), ("text", "numeric"), ("real", "integer")}
    | {(number, "text") for number in ("integer", "real", "numeric")}
    | {("blob", other) for other in ("integer", "real", "text")}
)


def _mark(kind: str, place: int) -> int | float | str | bytes:
    """Return a value for a column of that affinity which no other column of the table has."""
    match kind:
        case "integer" | "numeric" | "any":  # a column without a type may hold what fits anywhere
            return 7_000_000 + place
        case "real":
            return 7_000_000.5 + place
        case "blob":
            return b"dao %d" % place
        case _:
            return f"dao {place}"
