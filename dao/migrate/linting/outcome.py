"""Checks of the schema that a script leaves: views, triggers, keys, defaults, and what a rebuild lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection
from dao.migrate.linting.replay import Replay
from dao.migrate.linting.schema import Schema, Table
from dao.migrate.linting.seen import Problem, Statement, Subject, listed
from dao.migrate.linting.trials import undone, without_quotes
from dao.migrate.schema import catalog
from dao.migrate.schema.catalog import Definition, quoted
from dao.migrate.schema.tokens import tokens
from dao.migrate.schema.usable import VAGUE, compiles, is_elsewhere, reads, trigger_problem

__all__ = ["Outcome"]

_REMOVING = tuple(value for name, value in vars(apsw).items() if name.startswith(("SQLITE_DROP_", "SQLITE_ALTER_")))


@attrs.frozen
class _Key:
    """A foreign key of a table."""

    table: str
    columns: tuple[str, ...]
    parent: str


class Outcome:
    """Looks at the schema after each script of one replay, and remembers what was wrong already."""

    def __init__(self) -> None:
        self._broken: dict[tuple[str, str], str] = {}
        self._keys: set[tuple[str, _Key]] = set()
        #: Foreign keys whose parent was not there after a script; it may come with a later one.
        self._orphans: dict[_Key, tuple[int, Statement | None, str]] = {}
        self._defaults: dict[str, bool] = {}

    def problems(self, subject: Subject, replay: Replay, number: int) -> Iterator[Problem]:
        """Yield what is wrong since this script, which is the folder's so-and-so-many'th."""
        if subject.after == subject.before:
            return
        connection = replay.connection
        # only what is new can be broken, unless something was taken away from under it
        everything = subject.uses(*_REMOVING)
        problems = [*self._compile(subject, connection, everything=everything)]
        if not subject.is_rollback:
            problems += self._foreign_keys(subject, connection, number, everything=everything)
            problems += self._tables(subject, connection)
            problems += _lost(subject)
        # a script that fails leaves another schema than it means to
        if subject.failure is None:
            yield from problems

    def orphans(self, schema: Schema) -> Iterator[tuple[int, Problem]]:
        """Yield the foreign keys whose parent never came, each with the number of its script."""
        for key, (number, statement, message) in self._orphans.items():
            if key.table.lower() in schema.tables and key.parent.lower() not in schema.tables:
                yield number, ("M013", statement, message)

    # ------------------------------------------------------------ views and triggers

    def _compile(self, subject: Subject, connection: Connection, *, everything: bool) -> Iterator[Problem]:
        before, after = _objects(subject.before), _objects(subject.after)
        asked = {key: item for key, item in after.items() if everything or before.get(key) != item}
        known = self._broken
        broken: dict[tuple[str, str], str] = {key: problem for key, problem in known.items() if key in after}
        with without_quotes(connection):
            for key, item in asked.items():
                if item.type == "view":
                    problem = compiles(connection, f"SELECT * FROM {quoted(item.name)}")
                elif item.type == "trigger":
                    problem = _compile_trigger(connection, item, subject.after)
                elif item.type == "virtual table":
                    problem = reads(connection, item.name)
                else:
                    continue
                broken.pop(key, None)
                if problem is not None:
                    broken[key] = problem
        for key, problem in broken.items():
            # nor does a run refuse these
            if is_elsewhere(problem) or (problem == VAGUE and key not in before):
                continue
            if key not in known or before.get(key) != after[key]:
                item = after[key]
                yield "M009", _culprit(subject, item), f"the {item.type} {item.name} no longer compiles: {problem}"
        if not subject.is_rollback:
            self._broken = broken

    # ------------------------------------------------------------ foreign keys

    def _foreign_keys(
        self, script: Subject, connection: Connection, number: int, *, everything: bool
    ) -> Iterator[Problem]:
        tables = script.after.tables
        asked = {name: table for name, table in tables.items() if everything or script.before.tables.get(name) != table}
        known = {(code, key) for code, key in self._keys if key.table.lower() in tables}
        self._keys = {(code, key) for code, key in known if key.table.lower() not in asked}
        self._orphans = {key: found for key, found in self._orphans.items() if key.table.lower() not in asked}
        for table in asked.values():
            for key in _foreign_keys(connection, table):
                for code, message in self._wrong_with(connection, key, script.after):
                    self._keys.add((code, key))
                    statement = _last(script, table.name)
                    if code == "M013" and key.parent.lower() not in tables:
                        self._orphans[key] = (number, statement, message)
                    elif (code, key) not in known:
                        yield code, statement, message

    def _wrong_with(self, connection: Connection, key: _Key, schema: Schema) -> Iterator[tuple[str, str]]:
        columns = ", ".join(key.columns)
        if key.parent.lower() not in schema.tables:
            yield "M013", f"{key.table} ({columns}) refers to {key.parent}, which is not there"
            return
        if problem := _mismatch(connection, key):
            yield "M013", f"{key.table} ({columns}): {problem}"
        where = " AND ".join(f"{quoted(column)} = ?1" for column in key.columns)
        plan: list[Any] = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT 1 FROM {quoted(key.table)} WHERE {where}", (None,), can_cache=False
        ).fetchall()
        if any(detail.startswith("SCAN") for *_, detail in plan):
            yield "M012", f"no index begins with the foreign key {key.table} ({columns}), which refers to {key.parent}"

    # ------------------------------------------------------------ tables

    def _tables(self, script: Subject, connection: Connection) -> Iterator[Problem]:
        for name, table in script.after.tables.items():
            before = script.before.tables.get(name)
            if table == before or table.kind != "table":
                continue
            old = {column.name.lower() for column in before.columns} if before else set()
            new = [column for column in table.columns if column.default is not None and column.name.lower() not in old]
            changing = [column.name for column in new if self._changes(connection, column.default or "")]
            if changing:
                yield "M015", _last(script, name), f"{table.name}: the default of {listed(changing)} is not constant"
            added = {column.name for column in table.columns if column.name.lower() not in old and not column.hidden}
            for trigger, missing in _unwatched(connection, table, added) if before and added else ():
                message = f"the trigger {trigger} watches every column of {table.name} but {listed(missing)}"
                yield "M028", _last(script, name), message
            keys = [column for column in table.columns if column.key]
            had_key = before is None or any(column.key for column in before.columns)
            if not keys and had_key:
                yield "M025", _last(script, name), f"{table.name} has no PRIMARY KEY"
            loose = [column.name for column in keys if not column.not_null]
            integer = len(keys) == 1 and keys[0].type.upper() == "INTEGER"
            if loose and not integer and not table.without_rowid and before is None:
                yield "M026", _last(script, name), f"{table.name}: the key column {listed(loose)} accepts NULL"

    def _changes(self, connection: Connection, default: str) -> bool:
        """Return whether a default is not constant: SQLite does not let such an expression generate a column."""
        if default not in self._defaults:
            problem = ""
            with undone(connection):
                try:
                    connection.execute(f"CREATE TEMP TABLE lint_default (a, b AS ({default}) STORED)")
                    connection.execute("INSERT INTO temp.lint_default (a) VALUES (1)")
                except apsw.Error as error:
                    problem = str(error)
            self._defaults[default] = "non-deterministic" in problem
        return self._defaults[default]


def _objects(schema: Schema) -> dict[tuple[str, str], Definition]:
    """Return what may not work in a schema: its objects, and its virtual tables."""
    virtual = {
        ("virtual table", name): Definition("virtual table", table.name, table.name, table.sql, 0, 0)
        for name, table in schema.tables.items()
        if table.kind == "virtual"
    }
    return {**schema.objects, **virtual}


def _compile_trigger(connection: Connection, trigger: Definition, schema: Schema) -> str | None:
    """Compile the statements that fire a trigger, with no other on its table, and return what is wrong."""
    table = quoted(trigger.table)
    known = schema.tables.get(trigger.table.lower())
    columns = (
        [column.name for column in known.columns if not column.hidden] if known else _columns(connection, trigger.table)
    )
    others = [other.name for other in schema.on(trigger.table.lower()) if other.type == "trigger"]
    firing = [f"INSERT INTO {table} DEFAULT VALUES", f"DELETE FROM {table}"]
    if columns:
        firing.append(f"UPDATE {table} SET " + ", ".join(f"{quoted(name)} = NULL" for name in columns))
    return trigger_problem(connection, firing, trigger.name, others)


def _columns(connection: Connection, view: str) -> list[str]:
    try:
        return [column.name for column in catalog.columns(connection, view)]
    except apsw.Error:  # the view itself is broken, and reported
        return []


def _unwatched(connection: Connection, table: Table, added: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the triggers of an UPDATE that name columns and miss some of those added.

    Each watches all other columns, but for the key and those that it sets itself.
    """
    watched: dict[str, set[str]] = {}
    sets: dict[str, set[str]] = {}
    columns = [column for column in table.columns if not column.hidden]

    def note(action: int, first: str | None, second: str | None, _database: str | None, trigger: str | None) -> int:
        if trigger is not None:
            watched.setdefault(trigger, set()).add(asked)
            if action == apsw.SQLITE_UPDATE and first == table.name:
                sets.setdefault(trigger, set()).add(str(second))
        return apsw.SQLITE_OK

    connection.authorizer = note
    try:
        for asked in [column.name for column in columns]:
            compiles(connection, f"UPDATE {quoted(table.name)} SET {quoted(asked)} = {quoted(asked)}")
    finally:
        connection.authorizer = None
    keys = {column.name for column in columns if column.key}
    for trigger, fires in watched.items():
        missing = [column.name for column in columns if column.name not in fires | keys | sets.get(trigger, set())]
        # one that watches a single column means that one
        if missing and added.issuperset(missing) and len(fires - keys - added) > 1:
            yield trigger, missing


def _foreign_keys(connection: Connection, table: Table) -> list[_Key]:
    # the last that is written is the first
    keys = reversed(catalog.foreign_keys(connection, table.name))
    return [_Key(table.name, key.columns, key.parent) for key in keys]


def _mismatch(connection: Connection, key: _Key) -> str | None:
    """Return what SQLite says of a foreign key whose parent columns are not unique."""
    try:
        connection.execute(f"PRAGMA foreign_key_check({quoted(key.table)})", can_cache=False).fetchall()
    except apsw.Error as error:
        message = str(error)
        return message if f'referencing "{key.parent}"'.lower() in message.lower() else None
    return None


def _lost(script: Subject) -> Iterator[Problem]:
    """Yield what tables had before they were made anew."""
    if not script.uses(apsw.SQLITE_DROP_TABLE):
        return
    explicit = {
        (event.action, event.first.lower())
        for statement in script.statements
        if not statement.tables(apsw.SQLITE_DROP_TABLE)
        for event in statement.events
    }
    for name, table in script.after.tables.items():
        before = script.before.tables.get(name)
        dropped = next((one for one in script.statements if before and _drops(one, before)), None)
        if before is None or dropped is None:
            continue
        for item in script.before.on(name):
            action = apsw.SQLITE_DROP_INDEX if item.type == "index" else apsw.SQLITE_DROP_TRIGGER
            key = (item.type, item.name.lower())
            if key not in script.after.objects and (action, item.name.lower()) not in explicit:
                yield (
                    "M008",
                    dropped,
                    f"the {item.type} {item.name} goes with the old {before.name} and is not made again",
                )
        if _counts(before) and not _counts(table):
            yield "M030", dropped, f"{before.name} was AUTOINCREMENT, and the table that takes its place is not"
        elif _counts(before) and not any(map(_sets_sequence, script.statements)):
            yield "M030", dropped, f"the number of {before.name} in sqlite_sequence goes with the old table"
        if before.strict and not table.strict:
            yield "M008", dropped, f"{before.name} was STRICT, and the table that takes its place is not"


def _counts(table: Table) -> bool:
    return any(token.bare and token.value == "autoincrement" for token in tokens(table.sql))


def _sets_sequence(statement: Statement) -> bool:
    # what a rename writes there is the name
    return any(event.first == "sqlite_sequence" and event.second in {"", "seq"} for event in statement.events) and (
        not statement.tables(*_REMOVING)
    )


def _drops(statement: Statement, table: Table) -> bool:
    """Return whether a statement drops the table that had this root before the script, under any name."""
    if not statement.tables(apsw.SQLITE_DROP_TABLE):
        return False
    gone = statement.before.tables.keys() - statement.after.tables.keys()
    return any(statement.before.tables[one].root == table.root for one in gone)


def _last(script: Subject, table: str) -> Statement | None:
    """Return the statement that left a table as it is: it made, altered or renamed it."""
    found: Statement | None = None
    name = table.lower()
    for statement in script.statements:
        if statement.after is statement.before:
            continue
        if statement.before.tables.get(name) != statement.after.tables.get(name):
            found = statement
    return found or _remover(script.statements)


def _culprit(script: Subject, item: Definition) -> Statement | None:
    """Return the statement that made a view or trigger, or else one that took away what it needs."""
    key = (item.type, item.name.lower())
    for statement in reversed(script.statements):
        if statement.after is not statement.before and key not in statement.before.objects:
            return statement
    return _remover(script.statements)


def _remover(statements: Sequence[Statement]) -> Statement | None:
    return next((one for one in reversed(statements) if one.tables(*_REMOVING)), None)
