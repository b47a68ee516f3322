"""Checks of a script, statement by statement. Each yields a code, a statement and a message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import apsw
import attrs

from dao.migrate.linting.schema import Table
from dao.migrate.linting.subject import TEMPORARY, Problem, Statement, Subject, listed
from dao.migrate.schema.names import fold
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


@attrs.frozen
class _Known:
    """A table of before the script, as it was, and the present names of the columns that it still has."""

    table: Table
    columns: set[str]


def statement_problems(subject: Subject) -> Iterator[Problem]:
    """Yield what is wrong with statements, in no particular order."""
    known = {name: _Known(table, set(table.stored)) for name, table in subject.before.tables.items()}
    has_committed = False
    for statement in subject.statements:
        if statement.quotes:
            yield "M014", statement, f"{statement.quotes} is taken for a string"
        if statement.commits and has_committed:
            yield "M022", statement, "what came before it is committed by now, and stays if this fails"
        has_committed |= statement.commits
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
        if subject.script.transactional:
            yield from _pragmas(statement)
        yield from _follow(subject, statement, known)


def _without_where(subject: Subject, statement: Statement, known: Mapping[str, _Known]) -> Iterator[Problem]:
    action, table = statement.without_where or (0, "")
    of_before = known.get(fold(table))
    # in a rollback, what its up script made is its own affair
    if of_before is None or fold(of_before.table.name) not in subject.origin.tables:
        return
    if action == apsw.SQLITE_UPDATE:
        yield "M005", statement, f"UPDATE without WHERE: it rewrites every row of {table}"
    elif not (subject.script.allows.loses(of_before.table.name) or _comes_back(subject, statement, fold(table))):
        yield "M004", statement, f"DELETE without WHERE: it deletes every row of {table}"


def _comes_back(subject: Subject, statement: Statement, name: str) -> bool:
    """Return whether the rows that a DELETE takes from a table are copied before it, and back after it."""
    place, own = subject.statements.index(statement), (name, "")
    holding = {own}
    for one in subject.statements[:place]:
        if holding & one.touched(apsw.SQLITE_READ):
            holding |= one.touched(apsw.SQLITE_INSERT, apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_TEMP_TABLE)
    return any(
        own in one.touched(apsw.SQLITE_INSERT) and (holding - {own}) & one.touched(apsw.SQLITE_READ)
        for one in subject.statements[place + 1 :]
    )


def _new_objects(statement: Statement, known: Mapping[str, _Known]) -> Iterator[Problem]:
    for event in statement.events:
        if event.action == apsw.SQLITE_CREATE_INDEX and fold(event.second) in known:
            index = statement.after.objects.get(("index", fold(event.first)))
            unique = index is not None and (index.sql or "").startswith("CREATE UNIQUE ")  # as SQLite writes it
            fails = "; it fails if two rows have the same values" if unique else ""
            yield "M011", statement, f"the index {event.first} is built on {event.second}, which may be large{fails}"
    if statement.tables(apsw.SQLITE_CREATE_TABLE) and statement.tables(apsw.SQLITE_SELECT):
        for name in statement.after.tables.keys() - statement.before.tables.keys():
            table = statement.after.tables[name]
            if table.kind == "table":
                yield "M024", statement, f"{table.name} gets its columns from a SELECT, and nothing but their names"


def _pragmas(statement: Statement) -> Iterator[Problem]:
    for event in statement.events:
        name = event.first.lower()
        if event.action == apsw.SQLITE_PRAGMA and event.second and name in _PRAGMAS:
            yield "M023", statement, f"PRAGMA {name} = {event.second}: {_PRAGMAS[name]}"


def _if_exists(subject: Subject, statement: Statement) -> Iterator[Problem]:
    """Look at the first words: that a condition stands there is the one thing which the compiler keeps to itself."""
    words = _first_words(subject.script.text, statement.begin)
    condition = _CREATED.match(words) or _DROPPED.match(words)
    # every run begins without temporary ones
    if condition is None or any(event.action in TEMPORARY for event in statement.events):
        return
    creates = words.startswith("create")
    if statement.after is statement.before:
        state = "is there already" if creates else "is not there"
        yield "M016", statement, f"the {condition[1]} {state}, so this does nothing"
    elif not subject.is_rollback:
        verb = "IF NOT EXISTS" if creates else "IF EXISTS"
        yield "M016", statement, f"{verb} hides whether the {condition[1]} was there"


def _first_words(text: str, place: int) -> str:
    words: list[str] = []
    while len(words) < 7 and (word := _WORD.match(text, place)):
        words.append(word[0].lower())
        place = start_of_statement(text, word.end())
    return " ".join(words)


# ---------------------------------------------------------------- tables on their way


def _follow(subject: Subject, statement: Statement, known: dict[str, _Known]) -> Iterator[Problem]:
    """Follow the tables of before through one statement: renamed, changed, dropped."""
    before, after = statement.before.tables, statement.after.tables
    if after is before:
        return
    for old, new in statement.renamed.items():
        if old in known:
            known[new] = known.pop(old)
            yield from _renamed_table(subject, statement, known[new].table, old, new)
    for name in before.keys() - after.keys() - statement.renamed.keys():
        known.pop(name, None)
    for name in statement.tables(apsw.SQLITE_ALTER_TABLE):
        if name in known and name in before and name in after:
            for was, now in _renamed_columns(known[name], before[name], after[name]):
                if not subject.is_rollback:
                    column = f"{known[name].table.name}.{was}"
                    yield "M010", statement, f"the column {column} is renamed to {now}{_rewritten(statement)}"


def _renamed_table(subject: Subject, statement: Statement, table: Table, old: str, new: str) -> Iterator[Problem]:
    successor = subject.after.tables.get(old)
    if successor is None:
        if not subject.is_rollback and new != fold(table.name):
            yield "M010", statement, f"the table {old} is renamed to {new}{_rewritten(statement)}"
    elif successor.root != table.root:  # it does not get its name back
        renamed = f"{table.name} is renamed away before the new {table.name} is made"
        yield "M007", statement, f"{renamed}: {_followers(statement, new)}"


def _followers(statement: Statement, new: str) -> str:
    before, after = statement.before, statement.after
    names = [
        f"the foreign key of {table.name}"
        for name, table in after.tables.items()
        if name in before.tables and before.tables[name].definition != table.definition
    ]
    names += [f"the {kind} {name}" for kind, name, table in _rewritten_objects(statement) if table != new]
    if not names:
        return f"whatever refers to it now refers to {new}"
    return f"{listed(names)} now {'refers' if len(names) == 1 else 'refer'} to {new}"


def _rewritten(statement: Statement) -> str:
    names = [f"{kind} {name}" for kind, name, _ in sorted(_rewritten_objects(statement)) if kind != "index"]
    return f"; SQLite rewrites {listed(names)} to the new name" if names else ""


def _rewritten_objects(statement: Statement) -> list[tuple[str, str, str]]:
    """Return the type, the name and the table of each object that a statement left with other SQL."""
    before = statement.before.objects
    return [
        (item.type, item.name, fold(item.table))
        for key, item in statement.after.objects.items()
        if key in before and before[key].sql != item.sql
    ]


def _renamed_columns(known: _Known, before: Table, after: Table) -> Iterator[tuple[str, str]]:
    """Yield the columns of before that a statement renamed, as old and new name; forget those that it dropped."""
    if len(before.stored) == len(after.stored):
        for was, now in zip(before.stored, after.stored, strict=True):
            if was != now and was in known.columns:
                known.columns.remove(was)
                known.columns.add(now)
                yield was, now
    elif len(after.stored) < len(before.stored):
        known.columns.difference_update(before.stored.keys() - after.stored.keys())
