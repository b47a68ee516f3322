"""Whether what is in a schema works: its views, triggers, virtual tables and foreign keys.

SQLite notices that an object refers to one that is gone when it is used, not before. Its compiler is the judge: it is
given statements that use a view, a table or its triggers, and does not run them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import Definition, columns, definitions, foreign_keys, table_names
from dao.migrate.schema.names import fold, is_internal, quoted
from dao.migrate.schema.registration import register, to_register
from dao.text import visible

__all__ = [
    "VAGUE",
    "Unusable",
    "broken",
    "broken_in",
    "check_keys",
    "compiles",
    "is_elsewhere",
    "judge",
    "reads",
]

#: SQLite says these, too, of what a program registers with its connection, or forbids there.
_ELSEWHERE = re.compile(
    r"vtable constructor failed|not authorized|access to .* prohibited|may not be used as a window|non-aggregate"
)
_NO_TABLE = re.compile(r"no such table: (?:main\.)?(.+)", re.DOTALL)
#: fts4 says this of a table whose content has gone, and of one that never had any.
VAGUE = "SQL logic error"
_MANY = 200  # names that have changed: to look for each everywhere would take longer than to ask for everything
_ENDLESS = 10_000_000  # instructions of a statement: where there are no rows, it was made to run for ever


@attrs.frozen(order=True)
class Unusable:
    """A view, trigger, table or foreign key (`name` is its table's) that does not work, and what SQLite says of it."""

    type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return visible(f"{self.what}: {self.reason}", line=True)

    @property
    def what(self) -> str:
        """Its type and name, for messages."""
        return f"the {self.type}{' of' if self.type == 'foreign key' else ''} {self.name}"


def broken(connection: Connection) -> list[Unusable]:
    """Return what does not work in the schema of a database, as far as SQLite alone can tell. One query."""
    return sorted(one for one in broken_in(definitions(connection)) if one.reason != VAGUE)


def is_elsewhere(reason: str) -> bool:
    """Return whether something cannot be judged here, because of what a program registers with its connection."""
    return to_register(reason) is not None or _ELSEWHERE.search(reason) is not None


# ---------------------------------------------------------------- the compiler


def compiles(connection: Connection, sql: str) -> str | None:
    """Return what is wrong with a statement; None if it compiles. It is not run."""
    try:
        connection.cursor().execute(sql, explain=1, can_cache=False).close(True)
    except (apsw.SQLError, apsw.AuthError) as error:
        return str(error)
    return None


def _trigger_problem(
    connection: Connection, statements: Iterable[str], trigger: str | None, others: Iterable[str]
) -> str | None:
    """Return what statements that fire a trigger say without the others; with None, what is wrong with the table."""
    connection.execute("SAVEPOINT dao_usable")
    try:
        for other in others:
            if other != trigger:
                connection.execute(f"DROP TRIGGER main.{quoted(other)}")
        return next(filter(None, (_fires(connection, sql) for sql in statements)), None)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO dao_usable; RELEASE dao_usable")


def _fires(connection: Connection, sql: str) -> str | None:
    problem = compiles(connection, sql)
    if problem is None or problem.endswith("may not be modified"):  # a virtual table's own tables are guarded by SQLite
        return None
    # what fires nothing cannot be done to a view; a trigger cannot write to one, either
    view = problem.removeprefix("cannot modify ").removesuffix(" because it is a view")
    return None if view != problem and quoted(view) in sql.partition(" SET ")[0] else problem


def reads(connection: Connection, table: str) -> str | None:
    """Return what a virtual table misses of what it stands on, which it needs only when it is read."""
    try:
        connection.execute(f"SELECT * FROM main.{quoted(table)} LIMIT 1", can_cache=False).fetchall()
    except apsw.SQLError as error:
        # others may just want a condition
        return str(error) if str(error).startswith(("no such", "unknown tokenizer", VAGUE)) else None
    return None


def check_keys(connection: Connection) -> tuple[list[Any], list[Unusable]]:
    """Return the rows of `PRAGMA foreign_key_check`, and the foreign keys whose parent is not unique."""
    try:
        return connection.execute("PRAGMA main.foreign_key_check").fetchall(), []
    except apsw.SQLError:  # one mismatch, and it says nothing else
        rows: list[Any] = []
        found = []
        for table in sorted(table_names(connection)):
            try:
                rows += connection.execute(f"PRAGMA main.foreign_key_check({quoted(table)})").fetchall()
            except apsw.SQLError as error:
                found.append(Unusable("foreign key", table, str(error)))
        return rows, found


# ---------------------------------------------------------------- judgement


def judge(connection: Connection, schema: Collection[Definition], changed: AbstractSet[str]) -> Iterator[Unusable]:
    """Yield what does not work among the tables and views that `changed` (folded names) and the objects that name one.

    `check_keys` tells whether the parent columns of a foreign key are unique.
    """
    there = {item.key: item for item in schema if item.type in {"table", "view"}}
    triggers: dict[str, list[Definition]] = {}
    for item in schema:
        if item.type == "trigger":
            triggers.setdefault(fold(item.table), []).append(item)
    names = _naming(there.values(), changed)
    for key, item in there.items():
        own = triggers.get(key, [])
        # to be named matters to what is compiled by itself; a table is compiled with its triggers
        is_named = key in changed or ((item.type == "view" or item.is_virtual) and names(item))
        if is_internal(key) or not (is_named or own):
            continue
        problem = None
        if is_named and item.type == "view":
            problem = compiles(connection, f"SELECT * FROM main.{quoted(item.name)}")
        elif is_named and item.is_virtual:
            problem = reads(connection, item.name)
        if problem is not None:
            yield Unusable(item.kind, item.name, _said(problem, schema))
        elif not item.is_virtual:
            firing = " ".join(one.words for one in own if key in changed or names(one))
            # what stands in the table itself is compiled with an INSERT
            firing += " insert" if key in changed and item.type == "table" else ""
            for one in _judge_writes(connection, item, firing, [trigger.name for trigger in own]):
                yield attrs.evolve(one, reason=_said(one.reason, schema))
    gone = _naming((), changed - there.keys())
    for key, item in there.items():
        if "references" in item.words and (key in changed or gone(item)):
            for parent in dict.fromkeys(found.parent for found in foreign_keys(connection, item.name)):
                if fold(parent) not in there:
                    yield Unusable("foreign key", item.name, f"it refers to {parent}, which does not exist")


def _said(problem: str, schema: Iterable[Definition]) -> str:
    """Return what SQLite should have said: what is not there, and called like a function, is a module's."""
    if gone := _NO_TABLE.fullmatch(problem):
        called = re.compile(rf"(?:from|join|,)\s*\W?{re.escape(gone[1])}\W?\s*\(", re.IGNORECASE)
        if any(called.search(item.sql or "") for item in schema if item.type in {"view", "trigger"}):
            return f"no such module: {gone[1]}"
    return problem


def _naming(there: Collection[Definition], changed: AbstractSet[str]) -> Callable[[Definition], bool]:
    """Return a function that tells whether a definition names one of these, or a view that is there and does."""
    if not changed:
        return lambda _item: False
    # a quote in a name is two in a text
    if len(changed) > _MANY or any(set(name) & set("\"'`[]") for name in changed):
        return lambda _item: True
    found = set(changed)
    while True:
        pattern = re.compile(rf"(?<![\w$])(?:{'|'.join(map(re.escape, found))})(?![\w$])")
        named = {fold(item.name) for item in there if item.type == "view" and pattern.search(item.words)}
        if named <= found:
            return lambda item: pattern.search(item.words) is not None
        found |= named


def _judge_writes(connection: Connection, item: Definition, firing: str, triggers: Sequence[str]) -> Iterator[Unusable]:
    """Compile statements that write to a table or view, with its triggers, constraints, indexes and generated columns.

    `firing` is the text of the triggers that are asked for: the word for what fires each is in it.
    """
    name = quoted(item.name)
    statements = [f"INSERT INTO main.{name} DEFAULT VALUES"] if "insert" in firing else []
    if "update" in firing:
        with contextlib.suppress(apsw.SQLError):  # a view that is broken, which is told already
            own = [quoted(column.name) for column in columns(connection, item.name) if not column.hidden]
            statements.append(f"UPDATE main.{name} SET " + ", ".join(f"{one} = {one}" for one in own))
    if "delete" in firing:
        statements.append(f"DELETE FROM main.{name}")
    if not any(_fires(connection, sql) for sql in statements):
        return
    if problem := _trigger_problem(connection, statements, None, triggers):
        yield Unusable(item.type, item.name, problem)
        return
    for trigger in triggers:
        if problem := _trigger_problem(connection, statements, trigger, triggers):
            yield Unusable("trigger", trigger, problem)


# ---------------------------------------------------------------- by the text alone


def broken_in(schema: Iterable[Definition]) -> list[Unusable]:
    """Return what does not work in a schema, made from its text in memory, without what cannot be judged there.

    Stand-ins are registered for the functions and collations of a program. Objects that need a module, or name one that
    does, are left out.
    """
    with contextlib.closing(apsw.Connection(":memory:")) as connection, contextlib.suppress(apsw.InterruptError):
        register(connection)
        connection.set_progress_handler(lambda: True, _ENDLESS)
        connection.execute("ANALYZE")  # views may show its tables
        own = [item for item in schema if not item.name.startswith("sqlite_")]
        # shadow tables come with their virtual tables, and views and triggers may refer to anything
        tables = [item for item in own if item.type in {"table", "index"}]
        tables.sort(key=lambda item: (item.type == "index", not item.is_virtual))
        missing = {fold(item.table) for item in tables if not _made(connection, item)}
        unknown = _naming(own, missing)
        known = frozenset(item for item in own if fold(item.table) not in missing and not unknown(item))
        for item in sorted(known.difference(tables), key=lambda item: item.type == "trigger"):
            _made(connection, item)
        everything = frozenset(fold(item.table) for item in known)
        while True:
            found = [*judge(connection, known, everything), *check_keys(connection)[1]]
            if not any(_stood_in_for(connection, one.reason) for one in found):
                return [one for one in found if not is_elsewhere(one.reason)]
    return []


def _made(connection: Connection, item: Definition) -> bool:
    try:
        connection.execute(item.sql or "")
    except apsw.Error as error:
        if _stood_in_for(connection, str(error)):
            return _made(connection, item)
        return not item.is_virtual and "already exists" in str(error)
    return True


def _stood_in_for(connection: Connection, reason: str) -> bool:
    """Register something for a function or collation that is missing; return whether one is."""
    what, _, name = reason.partition(": ")
    with contextlib.suppress(apsw.MisuseError):  # no function has so long a name
        if what in {"no such function", "unknown function"}:
            connection.create_scalar_function(name.removesuffix("()"), lambda *_: None, deterministic=True)
            return True
        if what == "no such collation sequence":
            connection.create_collation(name, lambda *_: 0)
            return True
    return False
