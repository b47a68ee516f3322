"""The losses of a run on PostgreSQL: rows that no statement of its scripts names, tables and columns that held some.

The law is that of SQLite's guard. What happens is told by the server: it counts the rows that a transaction inserts and
deletes, by table, cascades and triggers included; and its catalog shows which tables and columns have gone. Statements
run in a savepoint; if the catalog shows that one has dropped something, it is undone, what is about to go is counted,
and it runs again. So nothing is counted that stays.

Whose rows an INSERT brings is told by the names that stand in it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Hashable, Iterator, Sequence

import attrs

from dao.engine.postgresql import Connection
from dao.migrate.run.postgresql import holdings
from dao.migrate.run.postgresql.holdings import Table
from dao.migrate.run.postgresql.names import emptied_by, filled_by, names_in, renamed_by
from dao.migrate.schema.postgresql.script import Watcher
from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.postgresql import Statement, Token, tokens
from dao.migrate.values import Loss

__all__ = ["Guard"]

_DROPS = frozenset({"drop", "truncate", "do", "call"})
_POINTS = frozenset({"savepoint", "release", "rollback"})
#: No savepoint of ours goes around these: they end or undo it, or are not undone with it; COPY … FREEZE fails in one.
_BARE = _POINTS | {"begin", "start", "commit", "end", "abort", "prepare", "deallocate", "copy"}
#: These may write a table anew with all its rows.
_REWRITES = frozenset({"alter", "cluster"})
#: These fill tables from others, unless they hold no word of `_READS`.
_FILLS = frozenset({"insert", "with", "create", "merge", "select", "update", "do"})
#: These bring rows into tables by functions or prepared statements only: their text does not tell from where.
_OPAQUE = frozenset({"select", "values", "call", "execute", "explain"})
_READS = re.compile(r"\b(?:select|table|from|using|update)\b", re.IGNORECASE)


def _let_pass(_found: list[tuple[Hashable, Loss]]) -> None: ...


@attrs.define
class _Origin:
    """A table of before the run, and what became of it.

    `rows` and `held`, the columns with values, are of when it was dropped; `cut` are those that it lost before, each
    with whose script took it.
    """

    table: Table
    dropped_by: Hashable = None
    rows: int = 0
    held: tuple[str, ...] = ()
    cut: dict[str, tuple[Hashable, int]] = attrs.Factory(dict)
    is_emptied: bool = False


@attrs.define
class _State:
    """All that is known, as a savepoint keeps it."""

    origins: dict[int, _Origin]
    #: The tables as they are now.
    tables: dict[int, Table]
    losses: list[tuple[Hashable, Loss]] = attrs.Factory(list)
    #: Rows that came into tables, by the tables of before whose rows they may be; and those that DELETEs named.
    came: dict[int, dict[frozenset[int], int]] = attrs.Factory(dict)
    deleted: dict[int, int] = attrs.Factory(dict)
    #: The tables of before whose rows a table may have, by its name.
    lineage: dict[str, frozenset[int]] = attrs.Factory(dict)
    #: The names in each statement that may fill a column from another.
    fillings: list[frozenset[str]] = attrs.Factory(list)
    #: The names that columns have had, by table and number.
    names: dict[tuple[int, int], set[str]] = attrs.Factory(dict)


@attrs.define
class _Going:
    """Tables, columns, and rows of tables, that are about to go."""

    tables: list[Table] = attrs.Factory(list)
    columns: list[tuple[Table, str]] = attrs.Factory(list)
    emptied: list[Table] = attrs.Factory(list)
    rows: dict[int, int] = attrs.Factory(dict)
    held: dict[int, tuple[str, ...]] = attrs.Factory(dict)


class Guard(Watcher):
    """Watches the scripts of a run on a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: Is told of losses that are about to be committed before the script has come to its end.
        self.refuse: Callable[[list[tuple[Hashable, Loss]]], object] = _let_pass
        #: The owner of the statement that runs, as `losses` tells.
        self.source: Hashable = 0
        found = holdings.tables(connection)
        self._state = _State({id: _Origin(table) for id, table in found.items()}, found)
        for id, table in found.items():
            self._state.lineage[table.table] = self._state.lineage.get(table.table, frozenset()) | {id}
        self._counters = holdings.counters(connection)
        self._savepoints: list[tuple[str, _State]] = []
        self._going = _Going()
        #: The tables from which statements delete rows that the script has prepared.
        self._prepared: set[str] = set()
        self._changes: int | None = None
        #: The tables are known since the last statements were tried; or they have to be looked at again.
        self._is_known = self._is_stale = self._alone = False

    def begin_script(self, source: Hashable) -> None:
        """Get ready for another script of the run; `losses` calls it by this."""
        self.source = source
        self._savepoints.clear()
        self._prepared.clear()

    # ------------------------------------------------------------ before a statement

    def kind(self, statement: Statement) -> Hashable:
        """As `Watcher`: the tables of before whose rows it may bring into others."""
        first = statement.first
        if first in _DROPS or (first == "alter" and Token("word", "drop") in statement.tokens):
            return None
        if first in _BARE:
            return statement.begin
        if first in {"alter", "create", "select", "with", "insert"}:
            self._follow_names(statement)
        # after one that renames, the names in others mean something else
        return "alter" if first == "alter" else self._reads(statement)

    def tries(self, statement: Statement) -> bool:
        """As `Watcher`."""
        return statement.first not in _BARE

    def _reads(self, statement: Statement) -> frozenset[int]:
        if statement.first not in _FILLS or not _READS.search(statement.text):
            return frozenset()
        names, target = names_in(statement), filled_by(statement)
        lineage = self._state.lineage
        return frozenset().union(*(lineage[name] for name in names - {target} if name in lineage))

    def _follow_names(self, statement: Statement) -> None:
        """Note under which names the rows of tables are found after a statement."""
        lineage, target = self._state.lineage, filled_by(statement)
        if target is not None and (read := self._reads(statement)):
            lineage[target] = lineage.get(target, frozenset()) | read
        if statement.first == "alter" and (renamed := renamed_by(statement)) and renamed[0] in lineage:
            old, new = renamed
            lineage[new] = lineage.get(new, frozenset()) | lineage[old]

    def begin(self, script: Script) -> None:
        """As `Watcher`."""
        self._alone = not script.transactional

    def before(self, statements: Sequence[Statement]) -> None:
        """As `Watcher`."""
        if self._is_stale:
            self._look()
        if self._alone:  # what an earlier transaction did may not count any more
            self._counters, self._changes = holdings.counters(self._connection), None
        for statement in statements:
            if statement.first in _FILLS and _READS.search(statement.text):
                self._state.fillings.append(names_in(statement))

    def _look(self, now: dict[int, Table] | None = None) -> None:
        """See which tables there are `now`."""
        self._is_stale = False
        self._state.tables = holdings.tables(self._connection) if now is None else now
        for table in self._state.tables.values():
            for number, name in table.columns.items():
                self._state.names.setdefault((table.id, number), set()).add(name)

    # ------------------------------------------------------------ statements that drop something

    def tried(self, statements: Sequence[Statement]) -> bool:
        """As `Watcher`."""
        was, self._changes = self._changes, holdings.catalog_changes(self._connection)
        if self._changes is not None and was == self._changes:
            self._is_known = True
            return False
        before, now = self._state.tables, holdings.tables(self._connection)
        going = _Going()
        named = set[str]().union(*map(emptied_by, statements))
        for id, table in before.items():
            if id not in now:
                going.tables.append(table)
            elif id in self._state.origins:
                gone = table.columns.keys() - now[id].columns.keys()
                going.columns += [(table, table.columns[number]) for number in gone]
            if id in now and table.file != now[id].file and statements[0].first not in _REWRITES:
                is_named = any(one.table in named for one in self._line(table))
                going.emptied += [] if is_named and id in self._state.origins else [table]
        if going.tables or going.columns or going.emptied:
            self._going = going if len(statements) == 1 else _Going()
            return True
        self._look(now)
        self._is_known = True
        return False

    def undone(self) -> None:
        """As `Watcher`."""
        going, connection = self._going, self._connection
        for table in {table.id: table for table in [*going.tables, *going.emptied]}.values():
            if table.id in self._state.origins:
                going.rows[table.id] = rows = holdings.row_count(connection, table)
                going.held[table.id] = tuple(
                    column
                    for column in (table.columns.values() if rows else ())
                    if holdings.holds_values(connection, table, column)
                )
        for table, column in going.columns:
            if holdings.holds_values(connection, table, column):
                going.held[table.id] = (*going.held.get(table.id, ()), column)
                going.rows[table.id] = holdings.row_count(connection, table)

    def _gone(self, statement: Statement, came: dict[int, int], deleted: dict[int, int]) -> None:
        """Note what a statement has dropped; rows `came` into tables with it, and others were `deleted`."""
        going, self._going = self._going, _Going()
        origins, named = self._state.origins, emptied_by(statement)
        for table in going.tables:
            if table.id in origins:
                origin = origins[table.id]
                origin.dropped_by, origin.rows = self.source, going.rows.get(table.id, 0)
                origin.held = going.held.get(table.id, ())
            else:  # it may have had the place of another
                for origin in origins.values():
                    if origin.dropped_by is not None and origin.table.place == table.place:
                        origin.dropped_by = self.source
        for table, column in going.columns:
            if column in going.held.get(table.id, ()):
                first = origins[table.id].table.columns
                number = next((number for number, name in table.columns.items() if name == column), 0)
                if number in first:
                    origins[table.id].cut[first[number]] = (self.source, going.rows[table.id])
        for table in going.emptied:
            if table.table in named:
                for origin in origins.values():
                    origin.is_emptied |= origin.table.place == table.place
            elif rows := going.rows.get(table.id):
                # it may only have been written anew, as for another type of a column
                present = self._state.tables.get(table.id)
                there = 0 if present is None else holdings.row_count(self._connection, present)
                # what is counted begins anew with TRUNCATE
                lost = rows + max(0, came.get(table.id, 0)) - max(0, deleted.get(table.id, 0)) - there
                if lost > 0:
                    self._state.losses.append((self.source, Loss("rows", self._name(table), min(lost, rows))))

    # ------------------------------------------------------------ after statements

    def after(self, statements: Sequence[Statement], tags: Sequence[str]) -> None:
        """As `Watcher`."""
        first = statements[0]
        if first.first in _POINTS:
            self._point(first)
        elif first.first == "prepare":
            self._prepared |= emptied_by(first)
        was, self._counters = self._counters, holdings.counters(self._connection)
        changed = {id: now for id, now in self._counters.items() if now != was.get(id, (0, 0))}
        came = {id: inserted - was.get(id, (0, 0))[0] for id, (inserted, _) in changed.items()}
        gone = {id: deleted - was.get(id, (0, 0))[1] for id, (_, deleted) in changed.items()}
        if self._going.tables or self._going.columns or self._going.emptied:
            self._look()
            self._gone(first, came, gone)
        elif not self._is_known:
            self._is_stale = True
        self._is_known = False
        if not changed:
            return
        if self._is_stale and not changed.keys() <= self._state.tables.keys():
            self._look()
        is_opaque = first.first in _OPAQUE and filled_by(first) is None
        reads = frozenset(self._state.origins) if is_opaque else self._reads(first)
        for id, rows in came.items():
            if rows > 0:
                of_table = self._state.came.setdefault(id, {})
                of_table[reads] = of_table.get(reads, 0) + rows
        if any(rows > 0 for rows in gone.values()):
            self._judge_rows(statements, tags, came, gone)

    def _judge_rows(
        self, statements: Sequence[Statement], tags: Sequence[str], came: dict[int, int], gone: dict[int, int]
    ) -> None:
        """Note the rows that went without being named, by table, or tree of partitions."""
        direct: dict[str, int] = {}
        named: set[str] = set()
        for statement, tag in zip(statements, tags, strict=True):
            if statement.first == "delete" and (target := next(iter(emptied_by(statement)), None)):
                direct[target] = direct.get(target, 0) + int(tag.split()[-1])
            elif statement.first == "execute":
                named |= self._prepared
            elif statement.first not in {"insert", "update"}:
                named |= emptied_by(statement)
        trees: dict[int, list[int]] = {}
        for id in gone:
            if id in self._state.tables:
                trees.setdefault(self._line(self._state.tables[id])[-1].id, []).append(id)
        for root, ids in trees.items():
            tables = [one for id in ids for one in self._line(self._state.tables[id])]
            rows = sum(gone[id] for id in ids)
            said = rows if any(one.table in named for one in tables) else 0
            said = said or sum(direct.get(name, 0) for name in {one.table for one in tables})
            for id in ids:
                self._state.deleted[id] = self._state.deleted.get(id, 0) + min(gone[id], said)
            # an UPDATE moves a row from one partition to another
            lost = rows - said - (sum(came.get(id, 0) for id in ids) if self._state.tables[root].is_partitioned else 0)
            if lost > 0 and any(id in self._state.origins for id in ids):
                self._state.losses.append((self.source, Loss("rows", self._name(self._state.tables[root]), lost)))

    def _point(self, statement: Statement) -> None:
        """Keep what is known at a savepoint, or go back to it."""
        name = next((token.text for token in reversed(statement.tokens) if token.kind in {"word", "name"}), "")
        if statement.first == "savepoint":
            self._savepoints.append((name, copy.deepcopy(self._state)))
            return
        place = max((place for place, (known, _) in enumerate(self._savepoints) if known == name), default=None)
        if place is None:
            return
        if statement.first == "rollback":
            self._state = copy.deepcopy(self._savepoints[place][1])
            self._is_stale = True
            del self._savepoints[place + 1 :]
        else:
            del self._savepoints[place:]

    def judge(self, rest: str) -> None:
        """As `Watcher`: a table that the rest of the script names may be one that it makes anew."""
        words = {token.text for token in tokens(rest) if token.kind in {"word", "name"}}
        self.refuse([(whose, loss) for whose, loss in self.losses() if loss.table.rpartition(".")[2] not in words])

    # ------------------------------------------------------------ the end

    def losses(self) -> list[tuple[Hashable, Loss]]:
        """Return what is lost by now, each with whose script lost it; what comes later may make up for it."""
        self._look()
        places = {table.place: table for table in self._state.tables.values()}
        found = list(self._state.losses)
        for origin in self._state.origins.values():
            if origin.dropped_by is not None:
                found += self._judge_dropped(origin, places.get(origin.table.place))
            elif origin.cut:
                present = self._state.tables.get(origin.table.id)
                for column, (source, rows) in origin.cut.items():
                    if present is None or not self._keeps(present, column):
                        found.append((source, Loss("column", self._name(origin.table), rows, column)))
        return found

    def _judge_dropped(self, origin: _Origin, present: Table | None) -> Iterator[tuple[Hashable, Loss]]:
        """Compare a table that was dropped with what has its place now."""
        if not origin.rows or self._is_part(origin):
            return
        name, source = self._name(origin.table), origin.dropped_by
        if present is None:
            yield source, Loss("table", name, origin.rows)
            return
        ids = [id for id, table in self._state.tables.items() if present in self._line(table)]
        elsewhere = sum(
            rows for id in ids for tables, rows in self._state.came.get(id, {}).items() if origin.table.id not in tables
        )
        deleted = sum(self._state.deleted.get(id, 0) for id in ids)
        lost = origin.rows + elsewhere - deleted - holdings.row_count(self._connection, present)
        lost = 0 if origin.is_emptied else min(max(0, lost), origin.rows)
        if lost:
            yield source, Loss("rows", name, lost)
        if lost < origin.rows and not origin.is_emptied:
            for column in origin.held:
                if column not in present.columns.values() or not holdings.holds_values(
                    self._connection, present, column
                ):
                    yield source, Loss("column", name, origin.rows, column)
            for column, (whose, rows) in origin.cut.items():
                if not self._keeps(present, column):
                    yield whose, Loss("column", name, rows, column)

    def _keeps(self, table: Table, column: str) -> bool:
        """Return whether a table has a column of that name that was filled from the one that has gone."""
        number = next((number for number, name in table.columns.items() if name == column), None)
        if number is None or not holdings.holds_values(self._connection, table, column):
            return False
        names = self._state.names.get((table.id, number), set()) - {column}
        return any(column in filling and not names.isdisjoint(filling) for filling in self._state.fillings)

    def _line(self, table: Table) -> list[Table]:
        """Return a table, what it is a part of, and so on."""
        line = [table]
        while (parent := line[-1].parent) is not None and parent in self._state.tables:
            line.append(self._state.tables[parent])
        return line

    def _is_part(self, origin: _Origin) -> bool:
        """Return whether it was dropped with what it was a partition of, which counts its rows."""
        parent = self._state.origins.get(origin.table.parent or 0)
        return parent is not None and parent.table.is_partitioned and parent.dropped_by is not None

    def _name(self, table: Table) -> str:
        """Return the name that a table had before the run."""
        origin = self._state.origins.get(table.id)
        return table.name if origin is None else origin.table.name
