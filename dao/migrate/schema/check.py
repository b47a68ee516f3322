"""Whether a run may commit: everything that worked before works, foreign keys, rows and all that is in the schema.

Only objects that have changed, or name one that has, are looked at. If something is broken now, the schema of before is
made from its text in memory, to find whether it was broken then.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import apsw
import attrs

from dao.engine.sqlite import Connection, database_file
from dao.errors import CheckFailed, DatabaseCorrupt
from dao.migrate.schema.catalog import (
    Definition,
    Definitions,
    columns,
    definitions,
    foreign_keys,
    rowid_name,
    table_names,
    typed,
    untyped,
)
from dao.migrate.schema.names import fold, quoted
from dao.migrate.schema.registration import to_register
from dao.migrate.schema.usable import VAGUE, Unusable, broken_in, check_keys, is_elsewhere, judge
from dao.text import visible

__all__ = ["Before", "Violation", "check", "integrity", "integrity_problems"]

_SHOWN = 10
# integrity_check says these of rows, not of the file (sqlite.org/pragma.html).
_IN_ROWS = re.compile(r"CHECK constraint failed in |(?:non-)?[A-Z]+ value in ")
_CURE = (
    "Mend, or drop, in the migration what refers to what is gone. A table is rebuilt by making the new one under "
    "another name, copying, dropping the old one and renaming the new one: to rename the old one takes along what "
    "refers to it (sqlite.org/lang_altertable.html). If it is meant, or a migration of a later run mends it:"
)


@attrs.frozen
class Violation:
    """Rows of `table` whose foreign key has the `values` (in `columns`), which no row of `parent` has."""

    table: str
    columns: tuple[str, ...] = attrs.field(eq=False)  # a column may be renamed
    values: tuple[Any, ...]
    parent: str

    def __str__(self) -> str:
        pairs = ", ".join(f"{column} = {value!r}" for column, value in zip(self.columns, self.values, strict=False))
        what = f"{self.table}: {pairs or 'a row'} refers to a row of {self.parent} that does not exist"
        return visible(what, line=True)


@attrs.frozen
class Before:
    """The state that a transaction finds: the broken foreign keys, what is wrong in rows, and the schema."""

    violations: Counter[Violation]
    unusable: Collection[Unusable]
    problems: Collection[str]
    schema: Definitions

    @classmethod
    def of(cls, connection: Connection, problems: Collection[str]) -> Before:
        """Return it; `problems` are those that `PRAGMA integrity_check` has found."""
        return cls(*_keys(connection), problems, frozenset(definitions(connection)))


def check(
    connection: Connection,
    before: Before,
    notice: Callable[[str], object],
    allowed: Collection[str] = (),
    *,
    written: Collection[str] | None = None,
    schema: Definitions | None = None,
) -> Before:
    """Check the database inside the run's transaction against what it was before; return what it is. Changes nothing.

    `notice` is told of objects that cannot be judged, because a function, collation or module is not registered here.
    The views, triggers and tables whose names are `allowed` do not have to work. `written` are the tables (folded
    names) outside of which no row has changed, and no page of the file, and `schema` is what is defined now, where
    that is known.

    Raises:
        CheckFailed: A foreign key or an object of the schema is broken that was not or is new, or `PRAGMA
            integrity_check` finds a new problem; `.violations` has all.
    """
    now = frozenset(definitions(connection)) if schema is None else schema
    renamed = _renaming(before.schema, now)
    present, unusable = _keys(connection)
    violations = present - Counter(
        {
            attrs.evolve(one, table=renamed(one.table), parent=renamed(one.parent)): number
            for one, number in before.violations.items()
        }
    )
    if violations:
        shown = [f"{one}" + (f" ({number} rows)" if number > 1 else "") for one, number in violations.items()]
        raise CheckFailed(
            "these migrations leave foreign keys broken", details=_first(shown), violations=list(violations)
        )
    known = [renamed(problem) for problem in before.problems]
    changed = {fold(item.table) for item in before.schema ^ now}
    # a table that has got another name, or definition, is another
    in_rows = list(itertools.chain(*integrity(connection, tables=None if written is None else {*written, *changed})))
    if problems := [problem for problem in in_rows if problem not in known]:
        raise CheckFailed(
            "the database is not intact after these migrations", details=_first(problems), violations=problems
        )
    was_unusable = [_renamed(one, renamed) for one in before.unusable]
    judged = [one for one in unusable if one not in was_unusable]
    if changed:
        judged += judge(connection, now, changed)
    passed_over = set(map(fold, allowed))
    found, advice = [], dict[str, None]()
    for one in sorted(one for one in judged if fold(one.name) not in passed_over):
        if is_elsewhere(one.reason):
            notice(f"cannot tell whether {one.what} works: {one.reason}")
            advice |= dict.fromkeys(filter(None, [to_register(one.reason)]))
        # one that is new never had any content
        elif one.reason != VAGUE or any(item.name == one.name for item in before.schema):
            found.append(one)
    for text in advice:
        notice(text)
    if found:
        broken_before = {_identity(_renamed(one, renamed)) for one in broken_in(before.schema)}
        found = [one for one in found if _identity(one) not in broken_before]
    if found:
        options = " ".join(f"--allow-broken {shlex.quote(name)}" for name in dict.fromkeys(one.name for one in found))
        raise CheckFailed(
            "these migrations leave what does not work",
            details=_first([str(one) for one in found]),
            violations=found,
            advice=f"{_CURE} {options}",
        )
    return Before(present, unusable, in_rows if written is None else known, now)


def _keys(connection: Connection) -> tuple[Counter[Violation], list[Unusable]]:
    """Return the broken foreign keys, by values that a rebuild keeps, and those without a unique parent."""
    rows, unusable = check_keys(connection)
    found: Counter[Violation] = Counter()
    tables = {row[0] for row in rows}
    named = {(table, key.id): key.columns for table in tables for key in foreign_keys(connection, table)}
    places = {table: rowid_name(columns(connection, table)) for table in tables}
    for table, rowid, parent, key in rows:
        names = named[table, key]
        values: tuple[Any, ...] = ()
        own = places[table]
        if own is not None and rowid is not None:  # a table WITHOUT ROWID tells only that there is one
            sql = f"SELECT {typed(names)} FROM main.{quoted(table)} WHERE {own} = ?"
            row: Any = connection.execute(sql, (rowid,)).fetchone()
            values = untyped(row or ())
        found[Violation(table, names, values, parent)] += 1
    return found, unusable


def _identity(one: Unusable) -> tuple[str, ...]:
    # a table may have several foreign keys, and they have no names
    return (one.type, fold(one.name), fold(one.reason) if one.type == "foreign key" else "")


def _renaming(before: Collection[Definition], now: Collection[Definition]) -> Callable[[str], str]:
    """Return a function that puts the present name of a table for that of before: it is where it was in the file."""
    names = {item.name for item in now}
    places = {item.page: item.name for item in now if item.type == "table" and item.page}
    new = {
        fold(item.name): places[item.page]
        for item in before
        if item.type == "table" and item.name not in names and item.page in places
    }
    if not new:
        return lambda text: text
    old = re.compile(rf"(?<![\w$])(?:{'|'.join(map(re.escape, new))})(?![\w$])", re.IGNORECASE)
    return lambda text: old.sub(lambda found: new.get(fold(found[0]), found[0]), text)


def _renamed(one: Unusable, renamed: Callable[[str], str]) -> Unusable:
    return attrs.evolve(one, name=renamed(one.name), reason=renamed(one.reason))


# ---------------------------------------------------------------- rows


def integrity_problems(connection: Connection) -> frozenset[str]:
    """Return what `PRAGMA integrity_check` finds in the rows: values that their constraints would refuse today.

    Raises:
        DatabaseCorrupt: It finds damage to the file.
    """
    damage, in_rows = integrity(connection)
    if damage:
        raise DatabaseCorrupt(
            f"{database_file.called(connection)} is damaged, before any migration: restore a snapshot "
            "(`dao restore`; what was written since is lost) or a backup",
            details=_first(damage),
        )
    return frozenset(in_rows)


def _checked(connection: Connection, what: str) -> list[Any]:
    rows: list[Any] = []
    try:
        rows.extend(connection.execute(f"PRAGMA main.integrity_check({what})"))
    except apsw.CorruptError:
        if not rows:  # else it ends in the damage that it has told of
            raise
    return rows


def integrity(
    connection: Connection,
    *,
    most: int = 100,
    tables: Collection[str] | None = None,
    unseen: Callable[[str, str], object] = lambda _table, _reason: None,
) -> tuple[list[str], list[str]]:
    """Return what `PRAGMA integrity_check` finds: damage to the file, and values that their constraints would refuse.

    It ends after so many lines, and looks as far as it can without what is not registered here; into these `tables`
    (folded names) only, if they are given. `unseen` is told of each table into which it cannot look, and why.
    """
    rows: list[Any] = []
    some = tables
    if some is None:
        try:
            rows += _checked(connection, str(most))
        except apsw.SQLError:
            # a function or collation is not registered here: what needs none can be checked
            some = {fold(name) for name in table_names(connection)}
    for table in sorted(some or ()):
        if connection.table_exists("main", table):
            try:
                rows += _checked(connection, quoted(table))
            except apsw.SQLError as error:
                unseen(table, str(error))
    found = [str(problem) for (problem,) in rows if problem != "ok"]
    in_rows = [problem for problem in found if _IN_ROWS.match(problem)]
    return [problem for problem in found if problem not in in_rows], in_rows


def _first(lines: list[str]) -> list[str]:
    """Return as many of the lines as a message shows, and how many more there are."""
    rest = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"… and {rest} more"] if rest > 0 else [])
