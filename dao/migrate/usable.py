"""Whether everything in a schema still works: SQLite notices that something refers to what is gone when it is used, not before.

SQLite's compiler is the judge: it is given, and does not run, what uses a view, a table or its triggers. Only what has changed, or
names what has, is asked for. What was broken before is found only if something is broken now, in a database in memory that is
made from the schema's text of then.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.errors import CheckFailed
from dao.migrate.checks import Mismatch, foreign_key_violations, message
from dao.migrate.content import quoted
from dao.migrate.ledger import TABLES

__all__ = [
    "VAGUE",
    "Texts",
    "Unusable",
    "broken",
    "check_schema",
    "compiles",
    "is_elsewhere",
    "reads",
    "texts",
    "trigger_problem",
]

#: A schema: type, name, table and SQL of all that is in it.
Texts = frozenset[tuple[str, str, str, str | None]]

_TEXTS = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema"
_COLUMNS = "SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0"
_KEYS = """
SELECT DISTINCT child.value, key."table" FROM json_each(?) AS child, pragma_foreign_key_list(child.value, 'main') AS key
"""
_LEDGER = frozenset(name.casefold() for name in TABLES)
#: What SQLite says if something is missing that a program registers with its connection.
_ELSEWHERE = re.compile(
    r"(no such|unknown)( window)? function|no such (collation sequence|module|tokenizer)|unknown tokenizer|unsafe use of|"
    r"vtable constructor failed|not authorized|access to .* is prohibited"
)
_VIRTUAL = "create virtual table"  # as SQLite writes it
#: What fts4 says of a table whose content has gone, and of one that never had any.
VAGUE = "SQL logic error"
_MANY = 200  # names that have changed: to look for each everywhere would take longer than to ask for everything
_CURE = (
    "Mend, or drop, in the migration what refers to what is gone. A table is rebuilt by making the new one under another name, "
    "copying, dropping the old one and renaming the new one: to rename the old one takes along what refers to it "
    "(sqlite.org/lang_altertable.html)"
)


@attrs.frozen
class Unusable:
    """A view, a trigger, a table or a foreign key (`name` is its table's) that does not work, and what SQLite says of it."""

    type: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"

    @property
    def what(self) -> str:
        """What it is, with its name."""
        return f"the {self.type}{' of' if self.type == 'foreign key' else ''} {self.name}"

    @property
    def key(self) -> tuple[str, ...]:
        """What it is: a table may have several foreign keys, and they have no names."""
        names = (self.type, self.name.casefold())
        return (*names, self.reason) if self.type == "foreign key" else names


def texts(connection: Connection) -> Texts:
    """Return the schema as text. Reads it in one query."""
    rows: list[Any] = connection.execute(_TEXTS).fetchall()
    return frozenset(rows)


def check_schema(connection: Connection, before: Texts, notice: Callable[[str], object]) -> None:
    """Refuse a schema in which something does not work that did before, or is new. Runs nothing, and changes nothing.

    `notice` is told what cannot be judged, because a function, collation or module is not registered here.

    Raises:
        CheckFailed: There is any; `.violations` are `Unusable`.
    """
    now = texts(connection)
    if now == before:
        return
    changed = frozenset(row[2].casefold() for row in before ^ now)
    found = []
    for one in sorted(_judge(connection, now, changed), key=lambda one: (one.type, one.name)):
        if is_elsewhere(one.reason):
            notice(f"cannot tell whether {one.what} works: {one.reason}")
        # one that is new never had any content
        elif one.reason != VAGUE or any(row[1] == one.name for row in before):
            found.append(one)
    if found:
        known = {one.key for one in _of_text(before)}
        found = [one for one in found if one.key not in known]
    if found:
        shown = message("these migrations leave what does not work", list(map(str, found)))
        raise CheckFailed(f"{shown}\n{_CURE}", violations=found)


def broken(connection: Connection) -> list[Unusable]:
    """Return what does not work in the schema of a database, as far as SQLite alone can tell. Reads its text in one query."""
    found = [one for one in _of_text(texts(connection)) if one.reason != VAGUE and not is_elsewhere(one.reason)]
    return sorted(found, key=lambda one: (one.type, one.name))


def is_elsewhere(reason: str) -> bool:
    """Return whether something cannot be judged here, because of what a program registers with its connection."""
    return _ELSEWHERE.search(reason) is not None


def compiles(connection: Connection, sql: str) -> str | None:
    """Return what is wrong with a statement; None if it compiles. It is not run."""
    try:
        connection.cursor().execute(sql, explain=1, can_cache=False).close(True)
    except (apsw.SQLError, apsw.AuthError) as error:
        return str(error)
    return None


def trigger_problem(
    connection: Connection, statements: Iterable[str], trigger: str | None, others: Iterable[str]
) -> str | None:
    """Return what is wrong with a trigger, or without one with its table: what the statements that fire it say without the others."""
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
    # what fires nothing cannot be done to a view; a virtual table's own tables are guarded by SQLite
    return None if problem is None or problem.endswith(("because it is a view", "may not be modified")) else problem


def _of_text(schema: Texts) -> list[Unusable]:
    """Return what does not work in a schema, made from its text in memory; nothing if the text alone does not make it."""
    connection = apsw.Connection(":memory:")
    try:
        # shadow tables come with their virtual tables, and views and triggers may refer to anything
        kinds = ["table", "index", "view", "trigger"]
        for _, name, _, sql in sorted(schema, key=lambda row: (kinds.index(row[0]), not _is_virtual(row[3]))):
            if sql is not None and not name.startswith("sqlite_"):
                try:
                    connection.execute(sql)
                except apsw.SQLError as error:
                    if _is_virtual(sql) or "already exists" not in str(error):
                        return []
        found = list(_judge(connection, schema, frozenset(row[2].casefold() for row in schema)))
        mismatches = [one for one in foreign_key_violations(connection) if isinstance(one, Mismatch)]
        return [*found, *(Unusable("foreign key", one.table, one.reason) for one in mismatches)]
    finally:
        connection.close()


# ---------------------------------------------------------------- judgement


def _judge(connection: Connection, schema: Texts, changed: AbstractSet[str]) -> Iterator[Unusable]:
    """Yield what does not work among what has changed, by the names of tables and views, and what names that."""
    # names and texts as they compare
    there: dict[str, tuple[str, str, str]] = {}
    triggers: dict[str, list[tuple[str, str]]] = {}
    for type, name, table, sql in schema:
        if type == "trigger":
            triggers.setdefault(table.casefold(), []).append((name, (sql or "").casefold()))
        elif type != "index":
            there[name.casefold()] = ("virtual table" if _is_virtual(sql) else type, name, (sql or "").casefold())
    names = _naming(there, changed)
    for key, (type, name, text) in there.items():
        is_named = key in changed or names(text)
        if key in _LEDGER or key.startswith("sqlite_") or not (is_named or key in triggers):
            continue
        problem = None
        if is_named and type == "view":
            problem = compiles(connection, f"SELECT * FROM main.{quoted(name)}")
        elif is_named and type == "virtual table":
            problem = reads(connection, name)
        if problem is not None:
            yield Unusable(type, name, problem)
        elif type != "virtual table":
            own = triggers.get(key, [])
            firing = " ".join(text for _, text in own if key in changed or names(text))
            # what stands in the table itself is compiled with an INSERT
            firing += " insert" if key in changed and type == "table" else ""
            yield from _judge_writes(connection, type, name, firing, [trigger for trigger, _ in own])
    yield from _judge_keys(connection, there, changed)


def _naming(there: Mapping[str, tuple[str, str, str]], changed: AbstractSet[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a text names one of these, or a view that does."""
    # a quote in a name is two in a text
    if len(changed) > _MANY or any(set(name) & set("\"'`[]") for name in changed):
        return lambda _text: True
    found = set(changed)
    while True:
        named = re.compile(rf"(?<![\w$])(?:{'|'.join(map(re.escape, found))})(?![\w$])").search
        more = {key for key, (type, _, text) in there.items() if type == "view" and key not in found and named(text)}
        if not more:
            return lambda text: named(text) is not None
        found |= more


def _judge_writes(
    connection: Connection, type: str, name: str, firing: str, triggers: Sequence[str]
) -> Iterator[Unusable]:
    """Compile what writes to a table or view: its triggers, and a table's constraints, indexes and generated columns with it.

    `firing` is the text of the triggers that are asked for: the word for what fires each is in it.
    """
    statements = [f"INSERT INTO main.{quoted(name)} DEFAULT VALUES"] if "insert" in firing else []
    if "update" in firing:
        with contextlib.suppress(apsw.SQLError):  # a view that is broken, which is told already
            columns = [quoted(column) for (column,) in connection.execute(_COLUMNS, (name,))]
            statements.append(f"UPDATE main.{quoted(name)} SET " + ", ".join(f"{one} = {one}" for one in columns))
    if "delete" in firing:
        statements.append(f"DELETE FROM main.{quoted(name)}")
    if not any(_fires(connection, sql) for sql in statements):
        return
    if problem := trigger_problem(connection, statements, None, triggers):
        yield Unusable(type, name, problem)
        return
    for trigger in triggers:
        if problem := trigger_problem(connection, statements, trigger, triggers):
            yield Unusable("trigger", trigger, problem)


def _judge_keys(
    connection: Connection, there: Mapping[str, tuple[str, str, str]], changed: AbstractSet[str]
) -> Iterator[Unusable]:
    """Look for the parents of foreign keys. Whether their columns are a key is what `PRAGMA foreign_key_check` tells."""
    gone = _naming({}, changed - there.keys()) if changed - there.keys() else lambda _text: False
    children = [
        name for key, (_, name, text) in there.items() if "references" in text and (key in changed or gone(text))
    ]
    keys: list[Any] = connection.execute(_KEYS, (json.dumps(children),)).fetchall() if children else []
    for table, parent in keys:
        if parent.casefold() not in there:
            yield Unusable("foreign key", table, f"it refers to {parent}, which does not exist")


def _is_virtual(sql: str | None) -> bool:
    return (sql or "").casefold().startswith(_VIRTUAL)


def reads(connection: Connection, table: str) -> str | None:
    """Return what a virtual table misses of what it stands on, which it needs only when it is read."""
    try:
        connection.execute(f"SELECT * FROM main.{quoted(table)} LIMIT 1", can_cache=False).fetchall()
    except apsw.SQLError as error:
        # others may just want a condition
        return str(error) if str(error).startswith(("no such", "unknown tokenizer", VAGUE)) else None
    return None
