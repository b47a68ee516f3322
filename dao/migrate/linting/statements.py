"""Checks of a script, statement by statement. Each yields a code, a statement (or None) and a message."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

import apsw
import attrs

from dao.migrate.linting.schema import Table
from dao.migrate.linting.seen import TEMPORARY, Problem, Statement, Subject, listed
from dao.migrate.scripts.statements import start_of_statement

__all__ = ["statement_problems"]

_WORD = re.compile(r"[A-Za-z]+")
_CREATED = re.compile(r"create (?:temp |temporary |unique |virtual )?(table|index|trigger|view) if not exists")
_DROPPED = re.compile(r"drop (table|index|trigger|view) if exists")
_PRAGMAS = {
    "journal_mode": "the journal mode can only be changed outside of a transaction",
    "page_size": "the page size of a database that exists changes with the next VACUUM, outside of a transaction",
    "auto_vacuum": "auto_vacuum of a database that exists changes with the next VACUUM, outside of a transaction",
    "encoding": "the encoding of a database that exists cannot be changed",
}


@attrs.define
class _Known:
    """A table of before the script: what it was."""

    table: Table

    @functools.cached_property
    def columns(self) -> dict[str, str]:
        """Its columns' present names, in lower case, and what they were before the script."""
        return {column.name.lower(): column.name for column in self.table.columns if not column.hidden}


def statement_problems(subject: Subject) -> Iterator[Problem]:
    """Yield what is wrong with statements, in no particular order."""
    known = {name: _Known(table) for name, table in subject.before.tables.items()}
    commits = 0
    for statement in subject.statements:
        if statement.quotes:
            yield "M014", statement, f"{statement.quotes} is taken for a string"
        commits += statement.commits
        if statement.commits and commits > 1:
            yield "M022", statement, "what came before it is committed by now, and stays if this fails"
        if statement.only_inserts:
            continue
        yield from _without_where(subject, statement, known)
        failed = subject.failure is not None and subject.failure.statement is statement
        if statement.fails_on_rows and not failed:
            yield "M006", statement, f"this fails as soon as the table holds a row: {statement.fails_on_rows}"
        for misfit in statement.misfits:
            yield "M029", statement, misfit
        yield from _if_exists(subject, statement)
        if not subject.is_rollback:
            yield from _new_objects(statement, known)
        for ignored in statement.ignored:
            yield "M021", statement, f"the runner {ignored}"
        yield from _pragmas(subject, statement)
        yield from _follow(subject, statement, known)


def _without_where(subject: Subject, statement: Statement, known: Mapping[str, _Known]) -> Iterator[Problem]:
    if statement.without_where is None:
        return
    action, table = statement.without_where
    # in a rollback, what its up script made is its own affair
    if table.lower() not in known or known[table.lower()].table.name.lower() not in subject.origin.tables:
        return
    if action == apsw.SQLITE_UPDATE:
        yield "M005", statement, f"UPDATE without WHERE: it rewrites every row of {table}"
    elif not subject.step.script.allows.loses(known[table.lower()].table.name):
        yield "M004", statement, f"DELETE without WHERE: it deletes every row of {table}"


def _new_objects(statement: Statement, known: Mapping[str, _Known]) -> Iterator[Problem]:
    for event in statement.events:
        if event.action == apsw.SQLITE_CREATE_INDEX and event.second.lower() in known:
            index = statement.after.objects.get(("index", event.first.lower()))
            unique = index is not None and re.match(r"CREATE UNIQUE ", index.sql or "") is not None
            fails = "; it fails if two rows have the same values" if unique else ""
            yield "M011", statement, f"the index {event.first} is built on {event.second}, which may be large{fails}"
    if statement.tables(apsw.SQLITE_CREATE_TABLE) and statement.tables(apsw.SQLITE_SELECT):
        for name in statement.after.tables.keys() - statement.before.tables.keys():
            table = statement.after.tables[name]
            if table.kind == "table":
                yield "M024", statement, f"{table.name} gets its columns from a SELECT, and nothing but their names"


def _pragmas(subject: Subject, statement: Statement) -> Iterator[Problem]:
    for event in statement.events:
        name = event.first.lower()
        if (
            event.action == apsw.SQLITE_PRAGMA
            and event.second
            and subject.step.script.transactional
            and name in _PRAGMAS
        ):
            yield "M023", statement, f"PRAGMA {name} = {event.second}: {_PRAGMAS[name]}"


def _if_exists(subject: Subject, statement: Statement) -> Iterator[Problem]:
    """Look at the first words: that a condition stands there is the one thing which the compiler keeps to itself."""
    words = _first_words(subject.step.script.text, statement)
    condition = _CREATED.match(words) or _DROPPED.match(words)
    if condition is None:
        return
    if any(event.action in TEMPORARY for event in statement.events):
        return  # every run begins without them
    if statement.after is statement.before:
        state = "is there already" if words.startswith("create") else "is not there"
        yield "M016", statement, f"the {condition[1]} {state}, so this does nothing"
    elif not subject.is_rollback:
        verb = "IF NOT EXISTS" if words.startswith("create") else "IF EXISTS"
        yield "M016", statement, f"{verb} hides whether the {condition[1]} was there"


def _first_words(text: str, statement: Statement) -> str:
    words: list[str] = []
    place = statement.begin
    while len(words) < 7 and (word := _WORD.match(text, place)):
        words.append(word[0].lower())
        place = start_of_statement(text, word.end())
    return " ".join(words)


# ---------------------------------------------------------------- tables on their way


def _follow(subject: Subject, statement: Statement, known: dict[str, _Known]) -> Iterator[Problem]:
    """Follow the tables of before through one statement: renamed, changed, dropped."""
    if statement.after is statement.before:
        return
    renamed = statement.after.renamed_since(statement.before)
    for old, new in renamed.items():
        if old in known:
            known[new] = known.pop(old)
            yield from _renamed_table(subject, statement, known[new], old, new)
    for name in statement.before.tables.keys() - statement.after.tables.keys() - renamed.keys():
        known.pop(name, None)
    for name in statement.tables(apsw.SQLITE_ALTER_TABLE):
        if name in known and name in statement.after.tables and name in statement.before.tables:
            yield from _altered_table(subject, statement, known[name], name)


def _renamed_table(subject: Subject, statement: Statement, known: _Known, old: str, new: str) -> Iterator[Problem]:
    successor = subject.after.tables.get(old)
    if successor is not None and successor.root == known.table.root:
        return  # it gets its name back
    if successor is not None:
        name = known.table.name
        yield (
            "M007",
            statement,
            f"{name} is renamed away before the new {name} is made: {_followers(statement, new)}",
        )
    elif not subject.is_rollback and new != known.table.name.lower():
        yield (
            "M010",
            statement,
            f"the table {old} is renamed to {new}{_rewritten(statement)}",
        )


def _followers(statement: Statement, new: str) -> str:
    own = [
        f"the {item.type} {item.name}"
        for key, item in statement.after.objects.items()
        if key in statement.before.objects
        and statement.before.objects[key].sql != item.sql
        and item.table.lower() != new
    ]
    tables = [
        f"the foreign key of {table.name}"
        for name, table in statement.after.tables.items()
        if name in statement.before.tables and statement.before.tables[name].sql != table.sql
    ]
    names = tables + own
    if not names:
        return f"whatever refers to it now refers to {new}"
    return f"{listed(names)} now {'refers' if len(names) == 1 else 'refer'} to {new}"


def _rewritten(statement: Statement) -> str:
    names = [
        f"{item.type} {item.name}"
        for key, item in sorted(statement.after.objects.items())
        if item.type != "index" and key in statement.before.objects and statement.before.objects[key].sql != item.sql
    ]
    return f"; SQLite rewrites {listed(names)} to the new name" if names else ""


def _altered_table(subject: Subject, statement: Statement, known: _Known, name: str) -> Iterator[Problem]:
    before, after = statement.before.tables[name], statement.after.tables[name]
    old = [column.name.lower() for column in before.columns if not column.hidden]
    new = [column.name.lower() for column in after.columns if not column.hidden]
    table = known.table.name
    if len(new) == len(old):
        for was, now in zip(old, new, strict=True):
            if was != now and was in known.columns:
                known.columns[now] = known.columns.pop(was)
                if not subject.is_rollback:
                    yield "M010", statement, f"the column {table}.{was} is renamed to {now}{_rewritten(statement)}"
    for column in set(old) - set(new) if len(new) < len(old) else ():
        known.columns.pop(column, None)
