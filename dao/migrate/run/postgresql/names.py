"""The names in a statement: what it deletes from, what it fills, what it renames. Names are without their schemas."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from dao.errors import MigrationError
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.expected import applied
from dao.migrate.schema.names import fold
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.postgresql import Statement, Token, makers, split, tokens
from dao.migrate.scripts.reading import Reading
from dao.migrate.values import Step

__all__ = ["dropped_by", "emptied_by", "filled_by", "made_by", "names_in", "renamed_by"]
_ADDS, _DROPS = "add", "drop"
_NO_COLUMN = frozenset(
    Token("word", word)
    for word in (
        *("constraint", "check", "unique", "primary", "foreign", "exclude", "default", "expression", "generated"),
        *("identity", "not", "value"),
    )
)


def names_in(statement: Statement) -> frozenset[str]:
    """Return the words and names in a statement, without its strings; but those in a block that it runs."""
    parts = _parts(statement, {"do"})
    return frozenset(token.text for part in parts for token in part if token.kind in {"word", "name"})


def _parts(statement: Statement, with_blocks: Collection[str]) -> Iterator[list[Token]]:
    """Yield the tokens of a statement, and of each string in it, which may be a block, if it begins with these."""
    pending = [list(statement.tokens)]
    while pending:
        yield (part := pending.pop())
        if statement.first in with_blocks:  # a string is shorter than what it stands in
            pending += [list(tokens(text)) for kind, text in part if kind == "text"]


def emptied_by(statement: Statement) -> set[str]:
    """Return the tables from which a statement, or a block in it, says that it deletes rows; without their schemas."""
    found: set[str] = set()
    for sequence in _parts(statement, {"do", "create"}):
        for place, (kind, text) in enumerate(sequence):
            if kind != "word":
                continue
            if text == "delete" and sequence[place + 1 : place + 2] == [Token("word", "from")]:
                found |= {*Reading(sequence, place + 2).names()[:1]}
            elif text == "truncate":
                reading = Reading(sequence, place + 1)
                reading.passes("table")
                found |= {*reading.names()}
            elif text == "into" and place and sequence[place - 1] == Token("word", "merge"):
                found |= {*Reading(sequence, place + 1).names()[:1]}
    return found


def filled_by(statement: Statement) -> str | None:
    """Return the table that a statement brings rows into, without its schema."""
    creates = statement.first == "create"
    before = Token("word", "table" if creates else "into")
    if before not in (statement.tokens[:4] if creates else statement.tokens):
        return None
    reading = Reading(statement.tokens, statement.tokens.index(before) + 1)
    reading.passes("if", "not", "exists")
    reading.passes("table")  # of SELECT … INTO
    return reading.name()


def renamed_by(statement: Statement) -> tuple[str, str] | None:
    """Return the old and the new name of a table that a statement renames."""
    reading = Reading(statement.tokens)
    if not reading.passes("alter", "table") or reading.words[-3:-1] != ["rename", "to"]:
        return None
    reading.passes("if", "exists")
    old = reading.name()
    return None if old is None else (old, reading.words[-1])


def made_by(step: Step, migrations: Sequence[Migration], ledger: Ledger) -> Made:
    """Return the tables that the migration of a step made, and the columns that it added to others, by its text."""
    entry = ledger.get(step.id)
    files = {migration.id: migration.up.text for migration in migrations}
    text = files.get(step.id, "") if entry is None or entry.text is None else entry.text
    tables: set[str] = set()
    columns: set[tuple[str, str]] = set()
    for statement in split(text):
        if statement.first == "create" and (made := filled_by(statement)):
            tables.add(fold(made))
        elif statement.first == "alter":
            columns |= {(fold(table), fold(column)) for table, column in _altered(statement, _ADDS)}
            if renamed := renamed_by(statement):
                tables |= {fold(renamed[1])} if fold(renamed[0]) in tables else set()
    return Made(frozenset(tables - _earlier(step, migrations, ledger)), frozenset(columns))


def _earlier(step: Step, migrations: Sequence[Migration], ledger: Ledger) -> set[str]:
    """Return the names of what migrations made before that of a step: what it rebuilds, or makes anew, is theirs."""
    try:
        scripts = applied(migrations, ledger)
    except MigrationError:
        return set()
    return {*map(fold, makers(itertools.takewhile(lambda script: script[0] != step.id, scripts)))}


def dropped_by(statement: Statement) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the tables that a statement drops, and the columns, each with its table; by `fold`."""
    if statement.first == "drop" and (reading := Reading(statement.tokens)).passes("drop", "table"):
        reading.passes("if", "exists")
        return {*map(fold, reading.names())}, set()
    return set(), {(fold(table), fold(column)) for table, column in _altered(statement, _DROPS)}


def _altered(statement: Statement, verb: str) -> Iterator[tuple[str, str]]:
    """Yield the table and name of each column that an ALTER TABLE adds, or gives a new name, or drops: its verb."""
    reading = Reading(statement.tokens)
    if not reading.passes("alter", "table"):
        return
    reading.passes("if", "exists")
    table, left = reading.name(), reading.left
    for place, token in enumerate(left):
        column = Reading(left, place + 1)
        column.passes("column")
        if token == Token("word", verb):
            column.passes("if", "exists") or column.passes("if", "not", "exists")
        elif verb != _ADDS or token != Token("word", "rename") or column.name() is None or not column.passes("to"):
            continue
        if table is not None and column.next not in _NO_COLUMN and (name := column.name()) is not None:
            yield table, name
