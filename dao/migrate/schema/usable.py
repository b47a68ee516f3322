"""Whether a run may commit: everything that worked before works, keys, rows and all that is in the schema.

SQLite notices that something refers to what is gone when it is used, not before. Its compiler is the judge: it is given, and
does not run, what uses a view, a table or its triggers. Only what has changed, or names what has, is asked for. What of it
was broken before is found only if something is broken now, in a database in memory that is made from the schema's text of then.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.errors import CheckFailed
from dao.migrate.schema.catalog import Definition, columns, definitions, foreign_keys, is_internal, quoted
from dao.migrate.schema.integrity import Broken, Unusable, Violation, first, foreign_key_violations, integrity_check

__all__ = ["VAGUE", "Before", "broken", "check", "compiles", "is_elsewhere", "reads", "trigger_problem"]

#: All that is in a schema.
Texts = frozenset[Definition]

#: What SQLite says if something is missing that a program registers with its connection.
_ELSEWHERE = re.compile(
    r"(no such|unknown)( window)? function|no such (collation sequence|module|tokenizer)|unknown tokenizer|unsafe use of|"
    r"vtable constructor failed|not authorized|access to .* prohibited|may not be used as a window|non-aggregate"
)
_NO_TABLE = re.compile(r"no such table: (?:main\.)?(.+)", re.DOTALL)
#: What fts4 says of a table whose content has gone, and of one that never had any.
VAGUE = "SQL logic error"
_MANY = 200  # names that have changed: to look for each everywhere would take longer than to ask for everything
_ENDLESS = 10_000_000  # instructions of a statement: where there are no rows, it was made to run for ever
_CURE = (
    "Mend, or drop, in the migration what refers to what is gone. A table is rebuilt by making the new one under another name, "
    "copying, dropping the old one and renaming the new one: to rename the old one takes along what refers to it "
    "(sqlite.org/lang_altertable.html). If it is meant, or a migration of a later run mends it:"
)


@attrs.frozen
class Before:
    """What a transaction finds: the foreign keys that are broken, what is wrong in rows, and the schema."""

    broken: Broken
    problems: Collection[str]
    schema: Texts

    @classmethod
    def of(cls, connection: Connection, problems: Collection[str]) -> Before:
        """Return it; `problems` are those that `PRAGMA integrity_check` has found."""
        return cls(foreign_key_violations(connection), problems, _texts(connection))


def check(
    connection: Connection, before: Before, notice: Callable[[str], object], allowed: Collection[str] = ()
) -> Texts:
    """Check the database inside the run's transaction against what it was before, and return its schema. Changes nothing.

    `notice` is told what cannot be judged, because a function, collation or module is not registered here. Of what is `allowed`,
    by the names of views, triggers and tables, nothing has to work.

    Raises:
        CheckFailed: A foreign key or something in the schema is broken that was not, or is new, or `PRAGMA integrity_check` finds
            what it did not; `.violations` has all.
    """
    now = _texts(connection)
    renamed = _renaming(before.schema, now)
    keys = foreign_key_violations(connection) - Counter({_as(one, renamed): n for one, n in before.broken.items()})
    if rows := [one for one in keys if isinstance(one, Violation)]:
        shown = [f"{one}" + (f" ({keys[one]} rows)" if keys[one] > 1 else "") for one in rows]
        raise CheckFailed("these migrations leave foreign keys broken", details=first(shown), violations=rows)
    known = [renamed(problem) for problem in before.problems]
    if problems := [problem for problem in integrity_check(connection) if problem not in known]:
        raise CheckFailed(
            "the database is not intact after these migrations", details=first(problems), violations=problems
        )
    changed = {item.table.casefold() for item in before.schema ^ now}
    judged = [one for one in keys if isinstance(one, Unusable)]
    judged += _judge(connection, now, changed) if changed else ()
    allowed = {name.casefold() for name in allowed}
    found = []
    for one in _sorted(one for one in judged if one.name.casefold() not in allowed):
        if is_elsewhere(one.reason):
            notice(f"cannot tell whether {one.what} works: {one.reason}")
        # one that is new never had any content
        elif one.reason != VAGUE or any(item.name == one.name for item in before.schema):
            found.append(one)
    if found:
        broken_before = {_key(_as(one, renamed)) for one in _of_text(before.schema)}
        found = [one for one in found if _key(one) not in broken_before]
    if found:
        options = " ".join(f"--allow-broken {shlex.quote(name)}" for name in dict.fromkeys(one.name for one in found))
        raise CheckFailed(
            "these migrations leave what does not work",
            details=first([str(one) for one in found]),
            violations=found,
            advice=f"{_CURE} {options}",
        )
    return now


def _sorted(found: Iterable[Unusable]) -> list[Unusable]:
    return sorted(found, key=lambda one: (one.type, one.name))


def _key(one: Unusable) -> tuple[str, ...]:
    # a table may have several foreign keys, and they have no names
    key = (one.type, one.name.casefold())
    return (*key, one.reason.casefold()) if one.type == "foreign key" else key


def broken(connection: Connection) -> list[Unusable]:
    """Return what does not work in the schema of a database, as far as SQLite alone can tell. Reads its text in one query."""
    return _sorted(one for one in _of_text(_texts(connection)) if one.reason != VAGUE)


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
    if problem is None or problem.endswith("may not be modified"):  # a virtual table's own tables are guarded by SQLite
        return None
    # what fires nothing cannot be done to a view; a trigger cannot write to one, either
    view = problem.removeprefix("cannot modify ").removesuffix(" because it is a view")
    return None if view != problem and quoted(view) in sql.partition(" SET ")[0] else problem


# ---------------------------------------------------------------- the schema of before


def _texts(connection: Connection) -> Texts:
    return frozenset(definitions(connection))


def _renaming(before: Texts, now: Texts) -> Callable[[str], str]:
    """Return a function that puts the present name of a table for that of before: it is where it was in the file."""
    names = {item.name for item in now}
    places = {item.page: item.name for item in now if item.type == "table" and item.page}
    new = {
        item.name.casefold(): places[item.page]
        for item in before
        if item.type == "table" and item.name not in names and item.page in places
    }
    if not new:
        return lambda text: text
    old = re.compile(rf"(?<![\w$])(?:{'|'.join(map(re.escape, new))})(?![\w$])", re.IGNORECASE)
    return lambda text: old.sub(lambda found: new.get(found[0].casefold(), found[0]), text)


def _as(one: Any, renamed: Callable[[str], str]) -> Any:
    if isinstance(one, Violation):
        return attrs.evolve(one, table=renamed(one.table), parent=renamed(one.parent))
    return attrs.evolve(one, name=renamed(one.name), reason=renamed(one.reason))


def _of_text(schema: Texts) -> list[Unusable]:
    """Return what does not work in a schema, made from its text in memory, without what cannot be judged there.

    Something stands in for the functions and collations that a program registers. What needs a module, or names what does,
    is left out.
    """
    with contextlib.closing(apsw.Connection(":memory:")) as connection, contextlib.suppress(apsw.InterruptError):
        connection.set_progress_handler(lambda: True, _ENDLESS)
        connection.execute("ANALYZE")  # views may show its tables
        own = [item for item in schema if not item.name.startswith("sqlite_")]
        # shadow tables come with their virtual tables, and views and triggers may refer to anything
        tables = [item for item in own if item.type in {"table", "index"}]
        tables.sort(key=lambda item: (item.type == "index", not item.is_virtual))
        missing = {item.table.casefold() for item in tables if not _made(connection, item)}
        unknown = _naming(_there(schema), missing)
        known = frozenset(
            item for item in own if item.table.casefold() not in missing and not unknown((item.sql or "").casefold())
        )
        for item in sorted(known.difference(tables), key=lambda item: item.type == "trigger"):
            _made(connection, item)
        everything = frozenset(item.table.casefold() for item in known)
        while True:
            found = [*_judge(connection, known, everything)]
            found += [one for one in foreign_key_violations(connection) if isinstance(one, Unusable)]
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


# ---------------------------------------------------------------- judgement


def _there(schema: Texts) -> dict[str, tuple[str, str, str]]:
    """Return tables and views: what each is, its name and its text, by the name, as names and texts compare."""
    return {
        item.name.casefold(): (
            "virtual table" if item.is_virtual else item.type,
            item.name,
            (item.sql or "").casefold(),
        )
        for item in schema
        if item.type in {"table", "view"}
    }


def _judge(connection: Connection, schema: Texts, changed: AbstractSet[str]) -> Iterator[Unusable]:
    """Yield what does not work among what has changed, by the names of tables and views, and what names that."""
    there = _there(schema)
    triggers: dict[str, list[tuple[str, str]]] = {}
    for item in schema:
        if item.type == "trigger":
            triggers.setdefault(item.table.casefold(), []).append((item.name, (item.sql or "").casefold()))
    names = _naming(there, changed)
    for key, (type, name, text) in there.items():
        is_named = key in changed or names(text)
        if is_internal(key) or not (is_named or key in triggers):
            continue
        problem = None
        if is_named and type == "view":
            problem = compiles(connection, f"SELECT * FROM main.{quoted(name)}")
        elif is_named and type == "virtual table":
            problem = reads(connection, name)
        if problem is not None:
            yield Unusable(type, name, _said(problem, schema))
        elif type != "virtual table":
            own = triggers.get(key, [])
            firing = " ".join(text for _, text in own if key in changed or names(text))
            # what stands in the table itself is compiled with an INSERT
            firing += " insert" if key in changed and type == "table" else ""
            for one in _judge_writes(connection, type, name, firing, [trigger for trigger, _ in own]):
                yield attrs.evolve(one, reason=_said(one.reason, schema))
    yield from _judge_keys(connection, there, changed)


def _said(problem: str, schema: Texts) -> str:
    """Return what SQLite should have said: what is not there, and called like a function, is a module's."""
    if gone := _NO_TABLE.fullmatch(problem):
        called = re.compile(rf"(?:from|join|,)\s*\W?{re.escape(gone[1])}\W?\s*\(", re.IGNORECASE)
        if any(called.search(item.sql or "") for item in schema if item.type in {"view", "trigger"}):
            return f"no such module: {gone[1]}"
    return problem


def _naming(there: Mapping[str, tuple[str, str, str]], changed: AbstractSet[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a text names one of these, or a view that does."""
    if not changed:
        return lambda _text: False
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
            own = [quoted(column.name) for column in columns(connection, name) if not column.hidden]
            statements.append(f"UPDATE main.{quoted(name)} SET " + ", ".join(f"{one} = {one}" for one in own))
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
    gone = _naming({}, changed - there.keys())
    children = [
        name for key, (_, name, text) in there.items() if "references" in text and (key in changed or gone(text))
    ]
    for table in children:
        for parent in dict.fromkeys(key.parent for key in foreign_keys(connection, table)):
            if parent.casefold() not in there:
                yield Unusable("foreign key", table, f"it refers to {parent}, which does not exist")


def reads(connection: Connection, table: str) -> str | None:
    """Return what a virtual table misses of what it stands on, which it needs only when it is read."""
    try:
        connection.execute(f"SELECT * FROM main.{quoted(table)} LIMIT 1", can_cache=False).fetchall()
    except apsw.SQLError as error:
        # others may just want a condition
        return str(error) if str(error).startswith(("no such", "unknown tokenizer", VAGUE)) else None
    return None
