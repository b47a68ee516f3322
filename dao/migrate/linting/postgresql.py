"""What may go wrong with scripts for PostgreSQL on tables in use: rules over their statements, without a server.

A lock is the harm of most: ALTER TABLE keeps everybody from a table until the run commits, and whoever waits for it has
all others wait behind. Where each rule comes from, and that the server does what it says, is in
`tests/migration/test_postgresql_lint.py`, which tries every example on one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dao.migrate.linting.subject import Judged, Problem
from dao.migrate.run.postgresql.names import emptied_by, filled_by, renamed_by
from dao.migrate.scripts.migration import Migration, Script
from dao.migrate.scripts.postgresql import Statement, Token, split
from dao.migrate.scripts.reading import Reading
from dao.migrate.values import Step

__all__ = ["judged_scripts"]

#: By table, column and name: a CHECK that the column is not NULL, and whether it is validated.
_Checks = dict[tuple[str, str, str], bool]

# They give each row a value of its own, so that the table is written anew. What else is not known counts as constant.
_VOLATILE = frozenset(
    {"random", "gen_random_uuid", "uuidv4", "uuidv7", "uuid_generate_v1", "uuid_generate_v4", "clock_timestamp"}
    | {"timeofday", "nextval", "random_normal", "setseed", "gen_random_bytes", "txid_current"}
)
_OF_SERVER = ("database", "tablespace")
_SERIAL = frozenset({"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"})


def judged_scripts(migrations: Sequence[Migration], judged: frozenset[str]) -> list[Judged]:
    """Return the scripts of the migrations that are judged, with their problems, in order."""
    known: _Checks = {}
    found = []
    for migration in migrations:
        up = [*split(migration.up.text)]
        problems = [*_problems(migration.up, up, known)]
        if migration.id not in judged:
            continue
        if not up:
            problems.append(("M027", None, "the script holds nothing but comments"))
        elif migration.down is None:
            problems.append(("M017", None, f"{migration.id} has no rollback script"))
        found.append(Judged(step=Step(migration=migration, direction="apply"), statements=up, problems=problems))
        if migration.down is not None:
            down = [*split(migration.down.text)]
            problems = [*_refused(migration.down, down)]
            if up and not down:
                problems.append(("M018", None, f"the rollback of {migration.id} does nothing"))
            step = Step(migration=migration, direction="rollback")
            found.append(Judged(step=step, statements=down, problems=problems))
    return found


# ---------------------------------------------------------------- a script


def _problems(script: Script, statements: Sequence[Statement], known: _Checks) -> Iterator[Problem]:
    """Yield the problems of an up script, and note what it makes."""
    made = frozenset(filter(None, (filled_by(one) for one in statements if one.first == "create")))
    locked: tuple[str, int] | None = None
    yield from _refused(script, statements)
    for statement in statements:
        words = [token.text for token in statement.tokens]
        yield from _losses(script, statement, made)
        yield from _taken(script, statement, made)
        yield from _conditions(statement, words)
        altered, actions = _alteration(statement)
        table = altered or _indexed(statement)
        if locked is not None and (long := _takes_long(statement, made)):
            yield "M036", statement, f"{long} while {locked[0]} is locked since line {locked[1]}"
        if table is None or table in made:
            continue
        if statement.first == "create":
            if "concurrently" not in words:
                yield "M033", statement, f"{table} cannot be written to while the index is built"
            continue
        shuts_out = False
        for action in actions:
            yield from _action(statement, table, action, known)
            shuts_out |= not _lets_others_work([token.text for token in action])
        if shuts_out and script.transactional and locked is None:
            locked = table, script.text.count("\n", 0, statement.begin) + 1


def _refused(script: Script, statements: Sequence[Statement]) -> Iterator[Problem]:
    """Yield the statements that the server runs in no transaction, of a script that runs in one."""
    for statement in statements if script.transactional else ():
        if alone := _alone(statement):
            cure = "a script that begins with `-- transactional: false` runs outside of one"
            yield "M001", statement, f"{alone} cannot run in a transaction; {cure}"


def _alone(statement: Statement) -> str | None:
    """Return the name of a statement that the server runs in no transaction."""
    words = [token.text if token.kind == "word" else "" for token in statement.tokens]
    unique = words[1:2] == ["unique"]
    if words[:2] in (["create", "index"], ["create", "unique"], ["drop", "index"]):
        return f"{words[0].upper()} INDEX CONCURRENTLY" if words[2 + unique : 3 + unique] == ["concurrently"] else None
    if statement.first == "reindex":
        kinds = {"concurrently", "schema", "database", "system"} & {*words[:6]}
        return f"REINDEX {min(kinds).upper()}" if kinds else None
    if words[:2] in (["alter", "system"], *([verb, kind] for verb in ("create", "drop") for kind in _OF_SERVER)):
        return " ".join(words[:2]).upper()
    if words[:2] == ["alter", "table"] and "detach" in words and words[-1:] == ["concurrently"]:
        return "DETACH PARTITION … CONCURRENTLY"
    return "VACUUM" if statement.first == "vacuum" else None


def _losses(script: Script, statement: Statement, made: frozenset[str]) -> Iterator[Problem]:
    """Yield what statements take from tables that an earlier migration made."""
    allows, reading = script.allows, Reading(statement.tokens)
    has_where = "where" in reading.words
    if reading.passes("drop", "table"):
        reading.passes("if", "exists")
        for table in reading.names():
            if table not in made and not allows.drops(table):
                yield "M002", statement, f"{table} is dropped with all its rows"
    elif statement.first == "truncate":
        for table in sorted(emptied_by(statement) - made):
            if not allows.loses(table):
                yield "M004", statement, f"TRUNCATE: it deletes every row of {table}"
    elif not has_where and reading.passes("delete", "from"):
        table = reading.name() or ""
        if table not in made and not allows.loses(table):
            yield "M004", statement, f"DELETE without WHERE: it deletes every row of {table}"
    elif not has_where and reading.passes("update"):
        table = reading.name() or ""
        if table not in made:
            yield "M005", statement, f"UPDATE without WHERE: it rewrites every row of {table}"


def _taken(script: Script, statement: Statement, made: frozenset[str]) -> Iterator[Problem]:
    """Yield what an ALTER TABLE takes from a table that an earlier migration made: columns, and names."""
    words = [token.text for token in statement.tokens]
    table, actions = _alteration(statement)
    if table is None or table in made:
        return
    for action in map(Reading, actions):
        if action.passes("drop") and not action.passes("constraint"):
            action.passes("column")
            action.passes("if", "exists")
            column = action.name() or ""
            if not script.allows.drops(table, column):
                yield "M003", statement, f"the column {table}.{column} is dropped with its values"
    if renamed := renamed_by(statement):
        yield "M010", statement, f"the table {renamed[0]} is renamed to {renamed[1]}"
    elif "rename" in words and words[-2:-1] == ["to"] and "constraint" not in words:
        yield "M010", statement, f"the column {table}.{words[-3]} is renamed to {words[-1]}"


def _conditions(statement: Statement, words: Sequence[str]) -> Iterator[Problem]:
    for condition in (("if", "not", "exists"), ("if", "exists")):
        head = words[:8]
        if any(tuple(head[place : place + len(condition)]) == condition for place in range(len(head))):
            yield "M016", statement, f"{' '.join(condition).upper()} hides whether it was there"
            return


# ---------------------------------------------------------------- ALTER TABLE


def _action(statement: Statement, table: str, action: Sequence[Token], known: _Checks) -> Iterator[Problem]:
    """Yield the problems of one action of an ALTER TABLE."""
    words = [token.text for token in action]
    if words[0] == "add" and words[1:2] and words[1] not in {"constraint", "primary", "unique", "foreign", "check"}:
        yield from _new_column(statement, table, Reading(action))
    elif words[0] == "add":
        yield from _new_constraint(statement, table, Reading(action), known)
    elif words[:2] == ["validate", "constraint"]:
        for (of, column, name), _ in list(known.items()):
            if (of, name) == (table, words[2]):
                known[of, column, name] = True
    elif words[0] == "alter" and words[-3:] == ["set", "not", "null"]:
        column = words[-4]
        if not any(valid for (of, name, _), valid in known.items() if (of, name) == (table, column)):
            yield "M032", statement, f"every row of {table} is read, under its lock, to see that {column} is not NULL"
    elif words[0] == "alter" and "type" in words:
        column = words[2] if words[1] == "column" else words[1]
        yield "M035", statement, f"{table} is written anew, with its indexes, unless {column} stays as it is stored"
    elif words[:2] in (["set", "logged"], ["set", "unlogged"], ["set", "tablespace"], ["set", "access"]):
        yield "M035", statement, f"{table} is written anew"


def _lets_others_work(words: Sequence[str]) -> bool:
    """Return whether an action takes no lock that keeps readers or writers out."""
    return words[:2] in (["validate", "constraint"], ["set", "("]) or "statistics" in words


def _new_column(statement: Statement, table: str, action: Reading) -> Iterator[Problem]:
    action.passes("add")
    action.passes("column")
    action.passes("if", "not", "exists")
    column, rest = action.name(), action.words
    if _SERIAL & {*rest[:1]} or "identity" in rest:
        yield "M031", statement, f"{table} is written anew, since each row gets a number for {column}"
    elif "stored" in rest and "generated" in rest:
        yield "M031", statement, f"{table} is written anew, since {column} is computed for each row"
    elif "default" in rest and (volatile := _VOLATILE & {*rest[rest.index("default") :]}):
        yield "M031", statement, f"{table} is written anew, since {min(volatile)}() gives each row of {column} its own"
    if "references" in rest and "default" in rest and "not" not in rest[rest.index("references") :][-2:]:
        yield "M034", statement, f"every row of {table} is looked up in the table that {column} refers to"


def _new_constraint(statement: Statement, table: str, action: Reading, known: _Checks) -> Iterator[Problem]:
    action.passes("add")
    name = (action.passes("constraint") and action.name()) or ""
    kind, *words = action.words or [""]
    valid = words[-2:] != ["not", "valid"]
    if kind in {"primary", "unique"} and "using" not in words:
        yield "M033", statement, f"nobody gets at {table} while the index of the constraint is built"
    elif kind == "foreign" and valid:
        yield "M034", statement, f"every row of {table} is looked up, while neither table can be written to"
    elif kind == "check":
        inner = [word for word in words if word not in {"(", ")"}]
        if inner[1:4] == ["is", "not", "null"] and inner[4:] in ([], ["not", "valid"]):
            known[table, inner[0], name] = valid
        if valid:
            yield "M034", statement, f"every row of {table} is read, under its lock"


def _alteration(statement: Statement) -> tuple[str | None, list[list[Token]]]:
    """Return the table of an ALTER TABLE, None if it is another statement, and what stands between its commas."""
    reading = Reading(statement.tokens)
    if not reading.passes("alter", "table"):
        return None, []
    reading.passes("if", "exists")
    table = reading.name()
    depth, actions = 0, [list[Token]()]
    for token in reading.left:
        depth += (token.text == "(") - (token.text == ")") if token.kind == "other" else 0
        if token == Token("other", ",") and not depth:
            actions.append([])
        else:
            actions[-1].append(token)
    return table, [action for action in actions if action]


def _indexed(statement: Statement) -> str | None:
    """Return the table that a CREATE INDEX is about."""
    words = [token.text for token in statement.tokens]
    if words[:1] != ["create"] or "index" not in words[1:3] or "on" not in words:
        return None
    return Reading(statement.tokens, words.index("on") + 1).name()


def _takes_long(statement: Statement, made: frozenset[str]) -> str | None:
    """Return what a statement does that takes as long as a table is large."""
    words = [token.text for token in statement.tokens]
    if statement.first in {"update", "delete", "merge"}:
        return f"{statement.first.upper()} goes through rows"
    if statement.first == "insert" and "select" in words:
        return f"{filled_by(statement)} is filled from a SELECT"
    if statement.first == "create" and (table := _indexed(statement)) and table not in made:
        return f"an index is built on {table}"
    if statement.first == "alter" and "validate" in words:
        return "a constraint is validated"
    return None
