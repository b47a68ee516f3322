"""The data that scripts would lose: the verdict of the runner's own guard, where every table holds rows.

A script is judged as if all before it were applied long ago, so that the tables and columns from before it hold
something. Only a database with rows can tell whether a rebuild copies all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apsw

from dao.migrate.linting.schema import Schema
from dao.migrate.linting.subject import Problem, Statement, Subject
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.names import fold
from dao.migrate.values import Loss

__all__ = ["loss_problems"]

_COPIES = (apsw.SQLITE_INSERT, apsw.SQLITE_CREATE_TABLE)
_TAKING = (apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE, apsw.SQLITE_ALTER_TABLE)


def loss_problems(subject: Subject, together: Sequence[Subject]) -> Iterator[Problem]:
    """Yield what a script loses without declaring it.

    `together` are the scripts that a run may hold in one transaction with this one. A rebuild may be spread over some
    of them: then the losses are judged at their end, from the first of them on that had the table.
    """
    found: dict[Loss, Statement] = {}
    own = together.index(subject)
    for statement, loss in _judge([subject]):
        if _is_excused(subject, loss):
            continue
        first = own
        names: tuple[str, str | None] | None = (fold(loss.table), loss.column)
        while first and names and (names := _names_before(together[first - 1], *names)):
            first -= 1
        judged = [(statement, loss)] if len(together) - first == 1 else _judge(together[first:])
        found |= {other: one for one, other in judged if one in subject.statements}
    for loss, statement in found.items():
        if not _is_excused(subject, loss):
            yield ("M003" if loss.column else "M002"), statement, _message(loss, statement, subject.after)


def _is_excused(subject: Subject, loss: Loss) -> bool:
    """Return whether a script may lose it: it says so, or, in a rollback, its own migration made it."""
    table = subject.origin.tables.get(fold(loss.table))
    is_made = table is None or (loss.column is not None and fold(loss.column) not in table.columns)
    # where a script fails, the rest of a rebuild may be what failed
    is_half_done = subject.failure is not None and any(
        fold(loss.table) in one.tables(apsw.SQLITE_READ) and one.tables(*_COPIES) for one in subject.statements
    )
    return (subject.is_rollback and is_made) or is_half_done or loss.is_declared(subject.script.allows)


def _message(loss: Loss, statement: Statement, after: Schema) -> str:
    if loss.kind == "table":
        return f"{loss.table} is dropped with all its rows"
    if loss.column is None:
        return f"{loss.table} is dropped and made anew, and nothing copies its rows"
    if not statement.tables(apsw.SQLITE_DROP_TABLE):
        return f"the column {loss.table}.{loss.column} is dropped with its values"
    table = after.tables.get(fold(loss.table))
    there = "the new table has it, but " if table and fold(loss.column) in table.columns else ""
    return f"{loss.table}.{loss.column} is lost: {there}the copy leaves it out"


def _names_before(script: Subject, name: str, column: str | None) -> tuple[str, str | None] | None:
    """Return what a table and a column were called before a script; None if they were not there."""
    for statement in reversed(script.statements):
        if statement.after is not statement.before:
            now, name = name, next((old for old, new in statement.renamed.items() if new == name), name)
            if (table := statement.before.tables.get(name)) is None:
                return None
            after = statement.after.tables.get(now, table)
            if column and fold(column) not in table.columns and len(table.columns) == len(after.columns):
                pairs = zip(table.columns, after.columns, strict=True)
                column = next((old for old, new in pairs if new == fold(column)), column)
    there = script.before.tables.get(name)
    return None if there is None or (column and fold(column) not in there.columns) else (name, column)


def _judge(scripts: Sequence[Subject]) -> list[tuple[Statement, Loss]]:
    """Return what is lost at the end of scripts that were replayed, each with the statement that took it."""
    statements = [statement for script in scripts for statement in script.statements]
    if not any(one.tables(*_TAKING) for one in statements):
        return []
    holdings = _Assumed(statements[0].before)
    guard = Guard(holdings)
    first = {id(script.statements[0]) for script in scripts if script.statements}
    for place, statement in enumerate(statements):
        if id(statement) in first:
            guard.begin_script(place)
        if statement.only_inserts:
            continue
        holdings.schema = statement.before
        guard.source = place
        for event in statement.events:
            name, database = event.temporary or event.first, "temp" if event.temporary else "main"
            if event.action == apsw.SQLITE_ALTER_TABLE:
                guard.saw(event.action, database, name, event.second or None, None)
            elif event.action in Guard.heeded:
                guard.saw(event.action, name, event.second or None, database, None)
        guard.before_statement()
        holdings.follow(statement)
    holdings.schema = statements[-1].after
    by_place = dict[object, Statement](enumerate(statements))
    return [(by_place[place], loss) for place, loss in guard.losses()]


class _Assumed(Holdings):
    """Holdings of a schema in which every table from the start has rows, and every column has values."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._full = dict.fromkeys(schema.tables, 1)

    def follow(self, statement: Statement) -> None:
        """Note which tables hold rows after a statement: one filled from another does, one that is emptied does not."""
        full = self._full
        for old, new in statement.renamed.items():
            full[new] = full.get(old, 0)
        if read := statement.tables(apsw.SQLITE_READ):
            # a temporary table, a view or a WITH may show rows of any
            brought = sum(full.get(name, 0 if name in statement.before.tables else 1) for name in read)
            full.update({name: full.get(name, 0) + brought for name in statement.tables(*_COPIES)})
        if statement.without_where is not None and statement.without_where[0] == apsw.SQLITE_DELETE:
            full.pop(fold(statement.without_where[1]), None)
        self._full = {name: rows for name, rows in full.items() if name in statement.after.tables}

    def exists(self, name: str) -> bool:
        return name in self.schema.tables

    def changes(self) -> int:
        return 0

    def tables(self) -> Mapping[str, tuple[str, int]]:
        return self.schema.places

    def shadows(self) -> frozenset[str]:
        return frozenset(name for name, table in self.schema.tables.items() if table.kind == "shadow")

    def count(self, name: str) -> int:
        return self._full.get(name, 0) if self.is_own(name) else 0

    def columns(self, name: str) -> list[tuple[str, bool]]:
        table = self.schema.tables.get(name)
        return [(column.name, bool(column.hidden)) for column in table.columns.values()] if table else []

    def holds_values(self, name: str, column: str) -> bool:
        table = self.schema.tables.get(name)
        return table is not None and column in table.stored and self.count(name) > 0
