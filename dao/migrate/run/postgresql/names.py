"""The names in a statement: what it deletes from, what it fills, what it renames. Names are without their schemas."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema.catalog import fold
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.postgresql import Statement, Token, split, tokens
from dao.migrate.values import Step

__all__ = ["emptied_by", "filled_by", "made_by", "names_in", "own_drops", "renamed_by"]
_ADDS, _DROPS = "add", "drop"
_NO_COLUMN = frozenset(
    {"constraint", "check", "unique", "primary", "foreign", "exclude", "default", "expression", "generated", "identity"}
    | {"not", "value"}
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
    return Made(frozenset(tables), frozenset(columns))


def own_drops(step: Step, migrations: Sequence[Migration], state: Ledger) -> tuple[str, ...]:
    """Return what the rollback of a step takes away of what its own migration made, as `tasks.priority`; sorted."""
    made = made_by(step, migrations, state)
    found: set[str] = set()
    for statement in split(step.script.text):
        if statement.first == "drop" and statement.words(2)[1:] == ("table",):
            exists = statement.words(4)[2:] == ("if", "exists")
            names = map(fold, _listed(statement.tokens, 4 if exists else 2))
            found |= {f"table {name}" for name in names if name in made.tables}
        elif statement.first == "alter":
            dropped = ((fold(table), fold(column)) for table, column in _altered(statement, _DROPS))
            found |= {f"column {table}.{column}" for table, column in dropped if (table, column) in made.columns}
    return tuple(sorted(found))


def _altered(statement: Statement, verb: str) -> Iterator[tuple[str, str]]:
    """Yield the table and name of each column that an ALTER TABLE adds, or gives a new name, or drops: its verb."""
    sequence = list(statement.tokens)
    words = [token.text if token.kind == "word" else "" for token in sequence]
    if words[1:2] != ["table"]:
        return
    table = next(iter(_listed(sequence, 4 if words[2:4] == ["if", "exists"] else 2)), None)
    for place, word in enumerate(words):
        after = place + (2 if words[place + 1 : place + 2] == ["column"] else 1)
        if word == verb:
            exists = words[after : after + 2] == ["if", "exists"]
            after += 3 if words[after : after + 3] == ["if", "not", "exists"] else 2 if exists else 0
        elif verb != _ADDS or word != "rename" or words[after + 1 : after + 2] != ["to"]:
            continue
        else:
            after += 2
        if table is not None and after < len(words) and words[after] not in _NO_COLUMN:
            yield table, sequence[after].text
