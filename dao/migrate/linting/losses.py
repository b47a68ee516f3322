"""The data that scripts would lose: the verdict of the runner's own guard, where every table holds rows.

A script is judged as if all before it were applied long ago, so that the tables and columns from before it hold
something. Only a database with rows can tell whether a rebuild copies all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apsw

from dao.migrate.linting.schema import Schema, Table
from dao.migrate.linting.seen import Problem, Statement, Subject
from dao.migrate.run.guard import Guard
from dao.migrate.run.holdings import Holdings
from dao.migrate.schema.catalog import fold
from dao.migrate.values import Loss

__all__ = ["loss_problems"]

#: A table and, if it is about one, a column.
_Names = tuple[str, str | None]
_COPIES = (apsw.SQLITE_INSERT, apsw.SQLITE_CREATE_TABLE)


def loss_problems(subject: Subject, together: Sequence[Subject]) -> Iterator[Problem]:
    """Yield what a script loses without declaring it.

    `together` are the scripts that a run may hold in one transaction with this one. A rebuild may be spread over some
    of them: then what is lost is judged at their end, from the first of them on that had the table.
    """
    found: dict[Loss, Statement] = {}
    own = set(map(id, subject.statements))
    for statement, loss in _judge(subject.statements):
        if _is_excused(subject, loss):
            continue
        place = next(place for place, other in enumerate(together) if other is subject)
        lost: _Names | None = (loss.table.lower(), loss.column)
        while place and (lost := lost and _names_before(together[place - 1], *lost)):
            place -= 1
        wider = [one for other in together[place:] for one in other.statements]
        judged = [(statement, loss)] if len(wider) == len(subject.statements) else _judge(wider)
        found |= {other: one for one, other in judged if id(one) in own}
    for loss, statement in found.items():
        if not _is_excused(subject, loss):
            yield ("M003" if loss.column else "M002"), statement, _message(loss, statement, subject.after)


def _is_excused(subject: Subject, loss: Loss) -> bool:
    """Return whether a script may lose it: it says so, or, in a rollback, its own migration made it."""
    table = subject.origin.tables.get(loss.table.lower())
    gone = table is None or (loss.column is not None and table.column(loss.column) is None)
    # where a script fails, the rest of a rebuild may be what failed
    half_done = subject.failure is not None and _is_copied(subject.statements, loss)
    return (subject.is_rollback and gone) or half_done or loss.is_declared(subject.step.script.allows)


def _message(loss: Loss, statement: Statement, after: Schema) -> str:
    table = after.tables.get(loss.table.lower())
    if loss.kind == "table":
        return f"{loss.table} is dropped with all its rows"
    if loss.column is None:
        return f"{loss.table} is dropped and made anew, and nothing copies its rows"
    if not statement.tables(apsw.SQLITE_DROP_TABLE):
        return f"the column {loss.table}.{loss.column} is dropped with its values"
    there = "the new table has it, but " if table is not None and table.column(loss.column) else ""
    return f"{loss.table}.{loss.column} is lost: {there}the copy leaves it out"


def _names_before(script: Subject, name: str, column: str | None) -> _Names | None:
    """Return what a table and a column were called before a script; None if they were not there."""
    for statement in reversed(script.statements):
        if statement.after is not statement.before:
            renamed = statement.after.renamed_since(statement.before)
            now, name = name, next((old for old, new in renamed.items() if new == name), name)
            if (table := statement.before.tables.get(name)) is None:
                return None
            after = statement.after.tables.get(now, table)
            if column is not None and table.column(column) is None and len(table.columns) == len(after.columns):
                pairs = zip(table.columns, after.columns, strict=True)
                column = next((old.name for old, new in pairs if new.name.lower() == column.lower()), column)
    table = script.before.tables.get(name)
    return None if table is None or (column is not None and table.column(column) is None) else (name, column)


def _is_copied(statements: Sequence[Statement], loss: Loss) -> bool:
    return any(loss.table.lower() in one.tables(apsw.SQLITE_READ) and one.tables(*_COPIES) for one in statements)


def _judge(statements: Sequence[Statement]) -> list[tuple[Statement, Loss]]:
    """Return what is lost at the end of statements that were replayed, each with the one that took it."""
    if not any(
        one.tables(apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE, apsw.SQLITE_ALTER_TABLE) for one in statements
    ):
        return []
    holdings = _Assumed(statements[0].before)
    guard = Guard(holdings)
    for place, statement in enumerate(statements):
        if statement.only_inserts:
            continue
        holdings.schema = statement.before
        guard.source = place
        for action, first, second in ((event.action, event.first, event.second or None) for event in statement.events):
            if action == apsw.SQLITE_ALTER_TABLE:
                guard.saw(action, "main", first, second, None)
            elif action in Guard.heeded:
                guard.saw(action, first, second, "main", None)
        guard.before_statement()
        holdings.follow(statement)
    holdings.schema = statements[-1].after
    return [(statements[int(str(place))], loss) for place, loss in guard.losses()]


class _Assumed(Holdings):
    """Holdings of a schema in which every table from the start has rows, and every column has values."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._full = dict.fromkeys(schema.tables, 1)

    def follow(self, statement: Statement) -> None:
        """Note which tables hold rows after a statement: one filled from another does, one that is emptied does not."""
        full = self._full
        for old, new in statement.after.renamed_since(statement.before).items():
            full[new] = full.get(old, 0)
        if read := statement.tables(apsw.SQLITE_READ):
            brought = max(1, sum(full.get(name, 0) for name in read))
            full.update({name: full.get(name, 0) + brought for name in statement.tables(*_COPIES)})
        if statement.without_where is not None and statement.without_where[0] == apsw.SQLITE_DELETE:
            full.pop(statement.without_where[1].lower(), None)
        self._full = {name: rows for name, rows in full.items() if name in statement.after.tables}

    def _table(self, name: str) -> Table | None:
        return next((table for table in self.schema.tables.values() if fold(table.name) == name), None)

    def exists(self, name: str) -> bool:
        return self._table(name) is not None

    def changes(self) -> int:
        return 0

    def tables(self) -> Mapping[str, tuple[str, int]]:
        return {fold(table.name): (table.name, table.root) for table in self.schema.tables.values()}

    def shadows(self) -> frozenset[str]:
        return frozenset(fold(table.name) for table in self.schema.tables.values() if table.kind == "shadow")

    def count(self, name: str) -> int:
        table = self._table(name)
        return self._full.get(table.name.lower(), 0) if table is not None and self.is_own(name) else 0

    def columns(self, name: str) -> list[tuple[str, bool]]:
        table = self._table(name)
        return [] if table is None else [(column.name, bool(column.hidden)) for column in table.columns]

    def holds_values(self, name: str, column: str) -> bool:
        return self.count(name) > 0 and (column, False) in [(fold(one), hidden) for one, hidden in self.columns(name)]
