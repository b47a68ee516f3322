"""Checks of the schema that a script leaves: views, triggers, keys, defaults, and what a rebuild lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw

from dao.engine.sqlite import Connection
from dao.migrate.linting.schema import Schema, Table, alike
from dao.migrate.linting.subject import REMOVING, Problem, Statement, Subject, listed
from dao.migrate.linting.trials import string_in, trying, without_quotes
from dao.migrate.schema.catalog import Definition, ForeignKey, indexes, primary_key
from dao.migrate.schema.names import fold, quoted
from dao.migrate.schema.tokens import body, cut, normal, tokens, written
from dao.migrate.schema.usable import VAGUE, Unusable, check_keys, compiles, is_elsewhere, judge

__all__ = ["Outcome", "find_orphans"]

_STORED_AS = {"view": "view", "trigger": "trigger", "virtual table": "table"}


class Outcome:
    """Looks at the schema after each script of one replay that is judged, and remembers what was wrong already."""

    def __init__(self) -> None:
        self._schema: Schema | None = None
        #: How the views, triggers and virtual tables are defined that do not work, or only with double-quoted strings.
        self._broken: dict[_Key, Definition | None] = {}
        #: The faults of foreign keys, by table.
        self._wrong_keys: dict[str, list[tuple[str, str]]] = {}
        self._told: set[tuple[str, str]] = set()

    def catch_up(self, schema: Schema, connection: Connection) -> None:
        """Note what is wrong already, where scripts that are not judged have run since the last one that is."""
        if schema is not self._schema:
            everything = {fold(item.name) for item in schema.definitions}
            self._broken = {key: _stored(schema, key) for key in _broken(schema, connection, everything)}
            self._wrong_keys = _wrong_keys(schema, connection, everything, {})
            self._schema = schema

    def is_mended(self, problem: Problem) -> bool:
        """Return whether a problem is of a foreign key that a later script has mended."""
        code, _, message = problem
        still = any((code, message) in found for found in self._wrong_keys.values())
        return (code, message) in self._told and not still

    def problems(self, subject: Subject, connection: Connection) -> list[Problem]:
        """Return what is wrong since this script, the last that has run on the connection."""
        changed = subject.after.changed_since(subject.before)
        if not subject.is_rollback:
            self._schema = subject.after
        if not changed:
            return []
        problems = [*self._broken_since(subject, connection, changed)]
        if not subject.is_rollback:
            problems += self._wrong_keys_since(subject, connection, changed)
            for name, table in subject.after.tables.items():
                before = subject.before.tables.get(name)
                if table is not before and table.kind == "table":
                    culprit = subject.culprit("table", name)
                    problems += [(code, culprit, what) for code, what in _wrong_with(connection, table, before)]
            problems += _lost(subject, connection)
        # a script that fails leaves another schema than it means to
        return problems if subject.failure is None else []

    def _broken_since(self, subject: Subject, connection: Connection, changed: set[str]) -> Iterator[Problem]:
        asked = changed | {fold(item.table) for item in self._broken.values() if item}
        found = _broken(subject.after, connection, asked)
        items = {key: _stored(subject.after, key) for key in found}
        before, self._broken = self._broken, self._broken if subject.is_rollback else items
        for key, one in found.items():
            type, name, string = key
            # nor does a run refuse what cannot be judged here, and a virtual table that never had any content
            passed_over = is_elsewhere(one.reason) or (one.reason == VAGUE and name not in subject.before.tables)
            if before.get(key) is items[key] or passed_over:
                continue
            culprit = subject.culprit(_STORED_AS[type], name)
            # in one that was there before, it was the name of a column that has gone
            if string and _stored(subject.before, key) is not items[key]:
                yield "M014", culprit, f"{string} is taken for a string in {one.what}"
            else:
                yield "M009", culprit, f"{one.what} no longer compiles: {one.reason}"

    def _wrong_keys_since(self, subject: Subject, connection: Connection, changed: set[str]) -> Iterator[Problem]:
        before = self._wrong_keys
        self._wrong_keys = _wrong_keys(subject.after, connection, changed, before)
        for name, found in self._wrong_keys.items():
            for code, message in found:
                if (code, message) not in before.get(name, []):
                    self._told.add((code, message))
                    yield code, subject.culprit("table", name), message


#: The type and folded name of what does not work, and the double-quoted string that is all that is wrong with it.
_Key = tuple[str, str, str | None]


def _stored(schema: Schema, key: _Key) -> Definition | None:
    return schema.find(_STORED_AS[key[0]], key[1])


def _broken(schema: Schema, connection: Connection, asked: set[str]) -> dict[_Key, Unusable]:
    """Return the views, triggers and virtual tables that do not work, of those which `asked` has or which name one."""
    definitions = schema.definitions
    with without_quotes(connection):
        found = [*judge(connection, definitions, asked)]
    if any(string_in(one.reason) for one in found):
        # a string hides what else is wrong, and one of a table what is wrong with its triggers
        found += judge(connection, definitions, asked)
    last = {(one.type, fold(one.name)): one for one in found if one.type in _STORED_AS}
    return {(type, name, string_in(one.reason)): one for (type, name), one in last.items()}


def _wrong_keys(
    schema: Schema, connection: Connection, changed: set[str], known: Mapping[str, list[tuple[str, str]]]
) -> dict[str, list[tuple[str, str]]]:
    """Return the faults of foreign keys, by table; they are `known` where neither table nor parent has changed."""
    wrong: dict[str, list[tuple[str, str]]] = {}
    mismatches = {one.name: one.reason for one in check_keys(connection)[1]}
    for name, table in schema.tables.items():
        wrong[name] = known.get(name, [])
        if name in changed or any(fold(key.parent) in changed for key in table.keys):
            wrong[name] = [
                one
                for key in table.keys
                if fold(key.parent) in schema.tables  # or else it may come with a later script
                for one in _wrong_with_key(
                    connection, table, key, schema.tables[fold(key.parent)], mismatches.get(table.name, "")
                )
            ]
    return wrong


def find_orphans(scripts: Sequence[Subject], last: Schema) -> None:
    """Add the foreign keys whose parent never came to the problems of the last script that had to do with each.

    `scripts` are those that are judged, `last` is the schema after all: one that is not judged may have dropped it.
    """
    for name, table in last.tables.items():
        for key in table.keys:
            parent = fold(key.parent)
            if parent not in last.tables:
                message = f"{_columns(table, key)} refers to {key.parent}, which is not there"
                for one in reversed(scripts):
                    if one.before.find("table", name) != one.after.find("table", name) or (
                        parent in one.before.tables and parent not in one.after.tables
                    ):
                        if parent not in one.after.tables:
                            one.problems.append(("M013", one.culprit("table", name), message))
                        break


def _columns(table: Table, key: ForeignKey) -> str:
    return f"{table.name} ({', '.join(key.columns)})"


def _wrong_with_key(
    connection: Connection, table: Table, key: ForeignKey, parent: Table, mismatch: str
) -> Iterator[tuple[str, str]]:
    if fold(f'referencing "{key.parent}"') in fold(mismatch):
        yield "M013", f"{_columns(table, key)}: {mismatch}"
    theirs = key.parent_columns or primary_key(parent.columns.values())
    with contextlib.suppress(apsw.SQLError):  # a column that is not there, or a collation that a program registers
        # SQLite compares as the parent's columns do
        collations = [connection.column_metadata("main", parent.name, name)[1] for name in theirs]
        terms = [f"{quoted(own)} COLLATE {quoted(its)}" for own, its in zip(key.columns, collations, strict=False)]
        if _plan(connection, _search(table.name, terms)).startswith("SCAN"):
            yield "M012", f"no index begins with the foreign key {_columns(table, key)}, which refers to {key.parent}"


# ---------------------------------------------------------------- tables


def _wrong_with(connection: Connection, table: Table, before: Table | None) -> Iterator[tuple[str, str]]:
    """Yield the code and message of what is wrong with a table that a script has made or changed."""
    old = before.columns if before else {}
    added = {name: column for name, column in table.columns.items() if name not in old}
    if changing := [
        column.name for column in added.values() if column.default and _changes(connection, column.default)
    ]:
        yield "M015", f"{table.name}: the default of {listed(changing)} is not constant"
    if before and (stored := added.keys() & table.stored):
        for trigger, missing in _unwatched(connection, table, stored):
            yield "M028", f"the trigger {trigger} watches every column of {table.name} but {listed(missing)}"
    keys = [column for column in table.columns.values() if column.key]
    if not keys and (before is None or any(column.key for column in old.values())):
        yield "M025", f"{table.name} has no PRIMARY KEY"
    loose = [column.name for column in keys if not column.not_null]
    integer = len(keys) == 1 and keys[0].type.upper() == "INTEGER"
    if loose and not integer and not table.without_rowid and before is None:
        yield "M026", f"{table.name}: the key column {listed(loose)} accepts NULL"


def _changes(connection: Connection, default: str) -> bool:
    """Return whether a default is not constant: SQLite does not let such an expression generate a column."""
    connection.execute("SAVEPOINT dao_default")
    try:
        with trying():
            connection.execute(
                f"CREATE TEMP TABLE dao_default (a, b AS ({default}) STORED); "
                "INSERT INTO temp.dao_default (a) VALUES (1)"
            )
    except apsw.Error as error:
        return "non-deterministic" in str(error)
    finally:
        connection.execute("ROLLBACK TO dao_default; RELEASE dao_default")
    return False


def _unwatched(connection: Connection, table: Table, added: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the triggers of an UPDATE that name columns and miss some of those added.

    Each watches all other columns, but for the key and those that it sets itself.
    """
    watched: dict[str, set[str]] = {}
    sets: dict[str, set[str]] = {}

    def note(action: int, first: str | None, second: str | None, _database: str | None, trigger: str | None) -> int:
        if trigger is not None:
            watched.setdefault(trigger, set()).add(asked)
            if action == apsw.SQLITE_UPDATE and first == table.name:
                sets.setdefault(trigger, set()).add(fold(second or ""))
        return apsw.SQLITE_OK

    connection.authorizer = note
    try:
        for asked in table.stored:
            compiles(connection, f"UPDATE {quoted(table.name)} SET {quoted(asked)} = {quoted(asked)}")
    finally:
        connection.authorizer = None
    keys = {name for name, column in table.stored.items() if column.key}
    for trigger, fires in watched.items():
        missing = table.stored.keys() - fires - keys - sets.get(trigger, set())
        # one that watches a single column means that one
        if missing and missing <= added and len(fires - keys - added) > 1:
            yield trigger, [column.name for name, column in table.stored.items() if name in missing]


# ---------------------------------------------------------------- rebuilds


def _lost(script: Subject, connection: Connection) -> Iterator[Problem]:
    """Yield what tables had before they were made anew."""
    dropping = [one for one in script.statements if one.tables(apsw.SQLITE_DROP_TABLE)]
    explicit = {
        (event.action, fold(event.first))
        for statement in script.statements
        if statement not in dropping
        for event in statement.events
    }
    for name, table in script.after.tables.items() if dropping else ():
        before = script.before.tables.get(name)
        dropped = next((one for one in dropping if before and _drops(one, before)), None)
        if before is None or dropped is None:
            continue
        for item in script.before.on(name):
            action = apsw.SQLITE_DROP_INDEX if item.type == "index" else apsw.SQLITE_DROP_TRIGGER
            key = fold(item.name)
            if (
                (item.type, key) not in script.after.objects
                and (action, key) not in explicit
                and _is_missed(item, table, script.after.on(name), connection)
            ):
                what = f"the {item.type} {item.name} goes with the old {before.name} and is not made again"
                yield "M008", dropped, what
        if before.strict and not table.strict:
            yield "M008", dropped, f"{before.name} was STRICT, and the table that takes its place is not"
        if _counts(before) and not _counts(table):
            yield "M030", dropped, f"{before.name} was AUTOINCREMENT, and the table that takes its place is not"
        elif _counts(before) and not any(map(_sets_sequence, script.statements)):
            yield "M030", dropped, f"the number of {before.name} in sqlite_sequence goes with the old table"


def _is_missed(item: Definition, table: Table, others: Sequence[Definition], connection: Connection) -> bool:
    """Return whether nothing stands for an index or trigger that went with its table, under whatever name.

    A trigger with the same text stands for a trigger; for an index any that finds rows by the same first columns, or a
    key, as far as the columns are there.
    """
    if item.type == "trigger":
        return not any(alike(item, other) for other in others)
    text = tokens(item.sql or "")
    inside, rest = body(text)
    parts = [part[:-1] if part[-1].value in {"asc", "desc"} else part for part in cut(inside)]
    where = [written(rest[1:])] if rest else []
    columns = [written(part) for part in parts]
    while columns and compiles(connection, _search(item.table, columns, where)):
        columns.pop()
    # what was unique together with a column that has gone is another matter
    is_unique = text[1].value == "unique" and len(columns) == len(parts)
    names = {part[0].value for part in parts}
    keys = [
        [column.name or "" for column in index.columns] for index in indexes(connection, table.name) if index.unique
    ]
    keys.append([column.name for column in table.columns.values() if column.key])
    if is_unique and not any(key and names.issuperset(map(normal, key)) for key in keys):
        return True
    return any(
        _plan(connection, _search(item.table, columns[:number], where)).count("=?") < number
        for number in range(1, len(columns) + 1)
    )


def _search(table: str, columns: Sequence[str], more: Sequence[str] = ()) -> str:
    """Return a statement that looks for rows by their values in columns, as they stand in SQL."""
    return f"SELECT 1 FROM {quoted(table)} WHERE " + " AND ".join([*(f"({one}) = x''" for one in columns), *more])


def _plan(connection: Connection, sql: str) -> str:
    """Return how SQLite would look for rows, beginning with SEARCH or SCAN."""
    rows: list[Any] = connection.execute(f"EXPLAIN QUERY PLAN {sql}", can_cache=False).fetchall()
    return str(rows[0][-1])


def _drops(statement: Statement, table: Table) -> bool:
    """Return whether a statement drops the table that had this root before the script, under any name."""
    gone = statement.before.tables.keys() - statement.after.tables.keys()
    return any(statement.before.tables[one].root == table.root for one in gone)


def _counts(table: Table) -> bool:
    return any(token.bare and token.value == "autoincrement" for token in tokens(table.definition.sql or ""))


def _sets_sequence(statement: Statement) -> bool:
    # what a rename writes there is the name
    return not statement.tables(*REMOVING) and any(
        event.first == "sqlite_sequence" and event.second in {"", "seq"} for event in statement.events
    )
