"""Rows that satisfy the constraints of a schema, whatever it is: SQLite decides, a bounded search proposes.

Nothing here reads SQL: a row that a constraint refuses is changed in the columns that the refusal is about, and tried
again. So a table whose constraints are a riddle stays empty, and is reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apsw
import attrs

from dao.engine import Connection, sqlite
from dao.errors import CheckViolation, IntegrityError, UniqueViolation
from dao.migrate.schema.catalog import fold, quoted, row_count
from dao.migrate.schema.tokens import normal, tokens
from dao.migrate.verification.fillable import Column, Reference, Refusal, Row, Table, groups, read

__all__ = ["Filled", "fill"]

#: How many rows are tried for one that is accepted: a table may have no room for a second.
_TRIES, _TRIES_FOR_ANOTHER = 2_000, 400
#: From here on values are tried that are not likely.
_PATIENCE = 100
_CIRCLE_TRIES = 60
#: How often a column is NULL that may be.
_NULLS = 0.3
#: Among how many rows of its parent a row chooses.
_PARENTS = 50


@attrs.frozen
class Filled:
    """What `fill` did: how many rows each table got, and why the others got none."""

    rows: dict[str, int]
    unfilled: dict[str, str]


def fill(connection: Connection, *, rows: int = 3, seed: int = 0) -> Filled:
    """Insert generated rows into every table that satisfy its constraints, and return how many each table got.

    Writes, in a savepoint. Each table gets `rows` more than it has, parents before their children; fewer if its
    constraints leave no room for more. The first row has a value in every column, the second NULL wherever that may be, the
    others both. The same schema, rows and seed make the same rows. Triggers fire; generated columns are left to SQLite;
    a virtual table gets rows if it is still empty when the others have theirs. The ledger's tables are left out.
    """
    given_up: dict[str, str] = {}
    while True:
        try:
            return _fill(connection, rows, seed, given_up)
        except _RolledBackError as error:
            # a trigger took the other tables' rows with it: once more without that table
            given_up[error.table] = error.reason


class _UnfilledError(Exception):
    """A table cannot be filled; the text says why."""


class _RolledBackError(Exception):
    def __init__(self, table: str, reason: str) -> None:
        super().__init__(reason)
        self.table = table
        self.reason = reason


def _fill(connection: Connection, rows: int, seed: int, given_up: dict[str, str]) -> Filled:
    filled = Filled({}, dict(given_up))
    with _savepoint(connection):
        # for a connection that enforces foreign keys: a row may come before the one that it refers to
        connection.execute("PRAGMA defer_foreign_keys = 1")
        tables = {fold(table.name): table for table in read(connection, seed) if table.name not in given_up}
        for names in groups(tables):
            group = [tables[name] for name in names]
            for table in group if len(group) > 1 else ():
                table.circle = frozenset(other.name for other in group)
            _fill_group(connection, group, tables, rows, filled)
    return filled


@contextlib.contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT fill")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO fill")
            connection.execute("RELEASE fill")
        raise
    connection.execute("RELEASE fill")


# ---------------------------------------------------------------- rows


def _fill_group(
    connection: Connection, group: Sequence[Table], tables: dict[str, Table], rows: int, filled: Filled
) -> None:
    for _ in range(_CIRCLE_TRIES if len(group) > 1 else 1):
        before = {table.name: _violations(connection, table) for table in group}
        connection.execute("SAVEPOINT fill_group")
        counts, reasons = _fill_tables(connection, group, tables, rows)
        broken = [table.name for table in group if _violations(connection, table) > before[table.name]]
        if not broken:
            break
        connection.execute("ROLLBACK TO fill_group")
        connection.execute("RELEASE fill_group")
        for table in group:
            table.promised.clear()
    else:
        reason = f"these tables refer to each other, and no rows were found that do: {', '.join(broken)}"
        filled.unfilled.update({table.name: reason for table in group})
        return
    connection.execute("RELEASE fill_group")
    filled.rows.update({name: number for name, number in counts.items() if number})
    filled.unfilled.update({name: reason for name, reason in reasons.items() if reason and not counts[name]})


def _fill_tables(
    connection: Connection, group: Sequence[Table], tables: dict[str, Table], rows: int
) -> tuple[dict[str, int], dict[str, str]]:
    """Insert rows in turn, one into each table; return how many there are of each, and why there are no more."""
    counts = {table.name: 0 for table in group}
    reasons: dict[str, str] = {}
    for place in range(rows):
        for table in group:
            if table.name in reasons:
                continue
            try:
                if place == 0 and not _wants_rows(connection, table):
                    reasons[table.name] = ""  # nothing to report
                    continue
                _insert_row(connection, table, tables, place)
                counts[table.name] += 1
            except _UnfilledError as error:
                reasons[table.name] = str(error)
    return counts, reasons


def _wants_rows(connection: Connection, table: Table) -> bool:
    """Return whether a table is to be filled: a virtual one that its triggers or its content fill already is not.

    Raises:
        _UnfilledError: It cannot be written to.
    """
    try:
        connection.execute(f"EXPLAIN {table.insert}", [None] * len(table.columns)).fetchall()
        return not table.virtual or not row_count(connection, table.name)
    except apsw.SQLError as error:
        raise _UnfilledError(str(error)) from error


def _insert_row(connection: Connection, table: Table, tables: dict[str, Table], place: int) -> None:
    """Insert one row, changing it until it is accepted.

    Raises:
        _UnfilledError: It was not.
    """
    row = Row()
    promised = table.promised.pop(0) if table.promised else Row()
    # everything is set in the first row, what can be NULL is in the second, chance decides in the others
    null = None if place > 1 else place == 1
    for column in table.columns.values():
        _set(table, column, row, null=null)
    _refer(connection, table, tables, row, null=null)
    reason = ""
    tries = _TRIES if place == 0 else _TRIES_FOR_ANOTHER
    for number in range(tries):
        row.values.update(promised.values)
        row.makers.update(promised.makers)
        connection.execute("SAVEPOINT fill_row")
        refusal = _refusal(connection, table, row)
        if not connection.in_transaction:
            raise _RolledBackError(table.name, str(refusal and refusal.reason))
        if refusal is not None:
            connection.execute("ROLLBACK TO fill_row")
        connection.execute("RELEASE fill_row")
        if refusal is None:
            return
        reason = refusal.reason
        if refusal.columns is not None and len(refusal.columns) == 1 and not refusal.depends_on_others:
            _remember(table, row, refusal.columns[0])
            if refusal.columns[0] in promised.values:
                break  # others refer to it
        _change(connection, table, tables, row, refusal.columns, anything=number > _PATIENCE)
    raise _UnfilledError(f"no row was accepted in {number + 1:,} tries; the last was refused: {reason}")


def _set(table: Table, column: Column, row: Row, *, null: bool | None, anything: bool = False) -> None:
    """Give a column a new value; NULL, if it may be: always, never, or (None) now and then."""
    name = fold(column.name)
    row.makers.pop(name, None)
    if column.nullable and (table.generator.random() < _NULLS if null is None else null):
        row.values[name] = None
        return
    index = row.makers[name] = column.choose(table.generator, anything=anything)
    row.values[name] = column.tried[index][1](table.next_number())


def _change(
    connection: Connection,
    table: Table,
    tables: dict[str, Table],
    row: Row,
    blamed: tuple[str, ...] | None,
    *,
    anything: bool,
) -> None:
    """Change some of the columns that are to blame, or of all."""
    generator = table.generator
    referring = {column for reference in table.references for column in reference.columns}
    own = [column for column in blamed or table.columns if column not in referring]
    if len(own) < len(blamed or table.columns) and (not own or generator.random() < 0.5):
        _refer(connection, table, tables, row, null=None)
    most = len(own) if blamed else min(3, len(own))
    changed = generator.sample(own, generator.randint(1, most)) if own else []
    for column in changed:
        _set(table, table.columns[column], row, null=None, anything=anything)
    if any(reference.parent == fold(table.name) and {*changed} & {*reference.keys} for reference in table.references):
        _refer(connection, table, tables, row, null=None)  # it may refer to itself


def _remember(table: Table, row: Row, name: str) -> None:
    """Note that a column's value was refused for itself."""
    column = table.columns[name]
    if name in row.makers:
        column.refused[row.makers[name]] += 1
    elif row.values[name] is None:
        column.nullable = False


# ---------------------------------------------------------------- references


def _refer(connection: Connection, table: Table, tables: dict[str, Table], row: Row, *, null: bool | None) -> None:
    """Let the row refer to rows of its parents, or to none.

    Raises:
        _UnfilledError: It has to, and there is none.
    """
    for promised_by, promise in row.promises:
        if promise in promised_by.promised:
            promised_by.promised.remove(promise)
    row.promises.clear()
    for reference in table.references:
        if not all(column in table.columns for column in reference.columns):
            continue  # a generated column: only what it is made of can be changed
        parent = tables.get(reference.parent)
        nullable = [column for column in reference.columns if table.columns[column].nullable]
        if parent is not None and not _is_key(parent, reference):
            parent = None
        rows = [] if parent is None else _rows_of(connection, parent, reference.keys)
        if nullable and (not rows or (table.generator.random() < _NULLS if null is None else null)):
            values: Sequence[Any] = [None if column in nullable else row.values[column] for column in reference.columns]
        elif rows:
            values = table.generator.choice(rows)
        elif parent is table:
            values = [row.values[key] for key in reference.keys]
        elif parent is not None and parent.name in table.circle:
            values = _promise(parent, reference.keys, row)
        else:
            raise _UnfilledError(f"a row has to refer to one of {reference.parent}, which has none to refer to")
        for column, value in zip(reference.columns, values, strict=True):
            row.values[column] = value
            row.makers.pop(column, None)


def _is_key(parent: Table, reference: Reference) -> bool:
    """Return whether a foreign key refers to columns that its parent has."""
    return len(reference.keys) == len(reference.columns) and all(key in parent.columns for key in reference.keys)


def _rows_of(connection: Connection, parent: Table, keys: Sequence[str]) -> list[Any]:
    names = ", ".join(map(quoted, keys))
    there = " AND ".join(f"{quoted(key)} IS NOT NULL" for key in keys)
    return connection.execute(f"SELECT {names} FROM {quoted(parent.name)} WHERE {there} LIMIT {_PARENTS}").fetchall()


def _promise(parent: Table, keys: Sequence[str], row: Row) -> list[Any]:
    """Return the key of a row that the parent, which is in one circle with the table, will have later."""
    promise = Row()
    for key in keys:
        _set(parent, parent.columns[key], promise, null=False)
    parent.promised.append(promise)
    row.promises.append((parent, promise))
    return [promise.values[key] for key in keys]


def _violations(connection: Connection, table: Table) -> int:
    """Return how many foreign keys of the table's rows are broken."""
    if not table.references:
        return 0
    try:
        return len(connection.execute(f"PRAGMA foreign_key_check({quoted(table.name)})").fetchall())
    except apsw.SQLError:  # it refers to what is no key: not for a row to mend
        return 0


# ---------------------------------------------------------------- refusals


def _refusal(connection: Connection, table: Table, row: Row) -> Refusal | None:
    """Insert a row and return why it is refused; None if it is not."""
    # in a circle a row may refer to one that comes later
    before = 0 if table.circle else _violations(connection, table)
    changes = connection.total_changes()
    try:
        connection.execute(table.insert, [row.values[name] for name in table.columns])
    except (apsw.ConstraintError, apsw.SQLError, apsw.MismatchError) as error:
        reason = str(error)
        if reason not in table.refusals:
            table.refusals[reason] = _explained(connection, table, error)
        return table.refusals[reason]
    if connection.total_changes() == changes:
        return Refusal("a trigger ignores the row")
    if not table.circle and _violations(connection, table) > before:
        return Refusal("a foreign key would break")
    return None


def _explained(connection: Connection, table: Table, error: apsw.Error) -> Refusal:
    reason = str(error)
    translated = sqlite.translate(error, connection)
    if not isinstance(translated, IntegrityError) or fold(translated.table or table.name) != fold(table.name):
        return Refusal(reason)
    names = [fold(name) for name in translated.columns]
    if isinstance(translated, CheckViolation) and not names:
        # without a name of its own it is called by its expression
        text = fold(translated.constraint or "")
        words = {token.value for token in tokens(text)}
        names = [name for name in table.columns if normal(name) in words]
    known = tuple(name for name in names if name in table.columns)
    return Refusal(reason, known or None, isinstance(translated, UniqueViolation))
