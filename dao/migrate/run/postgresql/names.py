"""The names in a statement: what it deletes from, what it fills, what it renames. Names are without their schemas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dao.migrate.schema.catalog import fold
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.postgresql import Statement, Token, split, tokens

__all__ = ["emptied_by", "filled_by", "made_by", "names_in", "renamed_by"]
_NO_COLUMN = frozenset({"constraint", "check", "unique", "primary", "foreign", "exclude", "generated", "value"})


def names_in(statement: Statement) -> frozenset[str]:
    """Return the words and names in a statement, without its strings."""
    return frozenset(token.text for token in statement.tokens if token.kind in {"word", "name"})


def emptied_by(statement: Statement) -> set[str]:
    """Return the tables from which a statement, or a block in it, says that it deletes rows; without their schemas."""
    found: set[str] = set()
    pending = [list(statement.tokens)]
    while pending:
        sequence = pending.pop()
        for place, (kind, text) in enumerate(sequence):
            if kind == "text" and statement.first in {"do", "create"}:
                pending.append(list(tokens(text)))  # it is shorter than what it stands in
            elif kind != "word":
                continue
            elif text == "delete" and sequence[place + 1 : place + 2] == [Token("word", "from")]:
                found |= {*_listed(sequence, place + 2)[:1]}
            elif text == "truncate":
                found |= {*_listed(sequence, place + 1)}
            elif text == "into" and place and sequence[place - 1] == Token("word", "merge"):
                found |= {*_listed(sequence, place + 1)[:1]}
    return found


def _listed(sequence: Sequence[Token], place: int) -> list[str]:
    """Return the names in a list with commas that begins there, without schemas."""
    found: list[str] = []
    while place < len(sequence):
        if sequence[place] in {Token("word", "table"), Token("word", "only")}:
            place += 1
            continue
        while sequence[place + 1 : place + 2] == [Token("other", ".")] and place + 2 < len(sequence):
            place += 2
        if sequence[place].kind not in {"word", "name"}:
            break
        found.append(sequence[place].text)
        place += 1
        if sequence[place : place + 1] == [Token("other", "*")]:
            place += 1
        if sequence[place : place + 1] != [Token("other", ",")]:
            break
        place += 1
    return found


def filled_by(statement: Statement) -> str | None:
    """Return the table that a statement brings rows into, without its schema."""
    sequence = statement.tokens
    if statement.first == "create":
        words = [token.text for token in sequence[:4]]
        if "table" not in words:
            return None
        place = words.index("table") + 1
        place += 3 if [token.text for token in sequence[place : place + 3]] == ["if", "not", "exists"] else 0
        return next(iter(_listed(sequence, place)), None)
    for place, token in enumerate(sequence):
        if token == Token("word", "into"):
            return next(iter(_listed(sequence, place + 1)), None)
    return None


def renamed_by(statement: Statement) -> tuple[str, str] | None:
    """Return the old and the new name of a table that a statement renames."""
    sequence = statement.tokens
    words = [token.text for token in sequence]
    if words[1:2] != ["table"] or words[-3:-1] != ["rename", "to"]:
        return None
    place = 4 if words[2:4] == ["if", "exists"] else 2
    old = next(iter(_listed(sequence, place)), None)
    return None if old is None else (old, words[-1])


def made_by(text: str) -> Made:
    """Return the tables that a script makes, and the columns that it adds to others, as its statements name them."""
    tables: set[str] = set()
    columns: set[tuple[str, str]] = set()
    for statement in split(text):
        if statement.first == "create" and (made := filled_by(statement)):
            tables.add(fold(made))
        elif statement.first == "alter":
            columns |= {(fold(table), fold(column)) for table, column in _added_by(statement)}
            if renamed := renamed_by(statement):
                tables |= {fold(renamed[1])} if fold(renamed[0]) in tables else set()
    return Made(frozenset(tables), frozenset(columns))


def _added_by(statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield the table and name of each column that an ALTER TABLE adds, or gives a new name."""
    sequence = list(statement.tokens)
    words = [token.text if token.kind == "word" else "" for token in sequence]
    if words[1:2] != ["table"]:
        return
    table = next(iter(_listed(sequence, 4 if words[2:4] == ["if", "exists"] else 2)), None)
    for place, word in enumerate(words):
        after = place + (2 if words[place + 1 : place + 2] == ["column"] else 1)
        if word == "add":
            after += 3 if words[after : after + 3] == ["if", "not", "exists"] else 0
        elif word != "rename" or words[after + 1 : after + 2] != ["to"]:
            continue
        else:
            after += 2
        if table is not None and after < len(words) and words[after] not in _NO_COLUMN:
            yield table, sequence[after].text
