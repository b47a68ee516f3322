"""`python -m bench.indexes`: what each index costs an insert, and which statement needs it.

The cost: every contender is a copy of one database of mixed rows (`tests/plans/population.py`), one with all indexes and
one without each. All insert the same rows, round by round, each contender in its turn; the ratio of a round is all indexes
to without that one, and what is reported is the median of these. The need: the plans of all statements with and without it.

It is the thread's processor time that is measured: with synchronous NORMAL an insert waits for nothing, and on a machine
that does other things as well the clock on the wall would drown a difference of microseconds. Checkpoints are left out.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import apsw
import attrs

import dao
from bench import machine
from tests import plans
from tests.plans import population

COMMAND = "python -m bench.indexes --markdown docs/benchmarks/indexes.md"
_ALL = ""
# a filter is what a listing looks for; the others change where a walk begins and ends
_BOUNDS = {"since", "until", "after", "oldest_first"}


@attrs.frozen
class Cost:
    """What an index adds to an insert: microseconds, and the ratio of all indexes to all but this one."""

    microseconds: float
    ratio: float
    lowest: float
    highest: float


@attrs.frozen
class Index:
    """An index: its table and columns, its size in bytes for a row, its cost, and what needs it.

    `needed_by` says for each statement, or group of listings with the same filters, what its plan is without the index.
    """

    name: str
    table: str
    columns: str
    bytes: float
    alone: Cost
    together: Cost
    needed_by: dict[str, str]


# ---------------------------------------------------------------- need


def needs(index: str, named: Mapping[str, Mapping[str, str]], today: Mapping[str, plans.Plans]) -> dict[str, str]:
    """Return which statements have another plan without an index, and in a few words what it is then."""
    connection = plans.database(without=index)
    without = plans.collect(connection, named)
    connection.close()
    found: dict[str, list[str]] = {}
    for module, now in today.items():
        for name, entry in now.entries.items():
            then = without[module].entries[name].plan
            if plans.essence(then) != plans.essence(entry.plan):
                found.setdefault(f"{module}.{_group(name)}", []).append(_instead(entry.plan, then))
    return {group: "; or ".join(dict.fromkeys(sorted(words))) for group, words in sorted(found.items())}


def _group(name: str) -> str:
    """Return a statement's name; of a listing or count, only what it looks for."""
    function, bracket, rest = name.partition("(")
    if not bracket:
        return name
    words = dict.fromkeys(word.replace("2 statuses", "status") for word in rest.rstrip(")").split(", "))
    return f"{function}({', '.join(word for word in words if word not in _BOUNDS)})"


def _instead(now: list[str], then: list[str]) -> str:
    """Return what a plan has that the one before did not."""
    steps = (Counter(plans.essence(then)) - Counter(plans.essence(now))).elements()
    words = [
        "sorts"
        if step == "TEMP B-TREE"
        else re.sub(
            r"^SCAN (\w+)(?: INDEX (\w+)| PRIMARY KEY)?$", _walk, re.sub(r"^SEARCH \w+ (?:INDEX )?", "by ", step)
        )
        for step in steps
    ]
    return ", ".join(dict.fromkeys(words))


def _walk(match: re.Match[str]) -> str:
    return f"walks all {match[1]}" + (f" along {match[2]}" if match[2] else "")


# ---------------------------------------------------------------- cost


def indexes_of(connection: apsw.Connection) -> dict[str, dict[str, str]]:
    """Return the indexes that CREATE INDEX made, by table and name, each with its columns and condition."""
    found: dict[str, dict[str, str]] = {}
    for table, name, sql in connection.execute(
        "SELECT tbl_name, name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL ORDER BY tbl_name, rowid"
    ).fetchall():
        found.setdefault(table, {})[name] = re.sub(r"^.*? ON \w+ ", "", re.sub(r"\s+", " ", sql))
    return found


def measure(
    template: Path, table: str, names: list[str], *, rows: int, rounds: int, calls: int
) -> dict[str, list[Cost]]:
    """Return what each index of a table costs an insert in a transaction of its own, and in one for all."""
    tasks = rows * population.SHARES["tasks"] // 1000
    first = rows * population.SHARES[table] // 1000
    ways: list[Callable[[apsw.Connection, str, list[tuple[object, ...]]], float]] = [_alone, _together]
    times: list[dict[str, list[float]]] = [{name: [] for name in (_ALL, *names)} for _ in ways]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        connections = {}
        for name in (_ALL, *names):
            connections[name] = _copy(template, folder / f"{name or 'all'}.db", without=name)
            stack.callback(connections[name].close)
        order = list(connections)
        for number in range(-1, rounds):
            for way, measured in zip(ways, times, strict=True):
                made = [*population.made(table, range(first, first + calls), tasks=tasks)]
                first += calls
                sql, values = population.statement(made[0], table), [tuple(row.values()) for row in made]
                order.append(order.pop(0))
                for name in order:
                    connections[name].execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    seconds = way(connections[name], sql, values) / calls
                    if number >= 0:  # the round before the first fills the caches
                        measured[name].append(seconds)
    return {name: [_cost(measured[_ALL], measured[name]) for measured in times] for name in names}


def _copy(template: Path, path: Path, *, without: str) -> apsw.Connection:
    source = apsw.Connection(str(template))
    source.execute("VACUUM INTO ?", (str(path),))
    source.close()
    connection = dao.connect(f"sqlite:///{path}")
    if without:
        connection.execute(f'DROP INDEX "{without}"')
        # else the others would grow the file where this one fills the pages that it left
        connection.execute("VACUUM")
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return connection


def _alone(connection: apsw.Connection, sql: str, rows: list[tuple[object, ...]]) -> float:
    begun = time.thread_time()
    for row in rows:
        connection.execute(sql, row)
    return time.thread_time() - begun


def _together(connection: apsw.Connection, sql: str, rows: list[tuple[object, ...]]) -> float:
    begun = time.thread_time()
    with dao.transaction(connection):
        connection.executemany(sql, rows)
    return time.thread_time() - begun


def _cost(every: list[float], without: list[float]) -> Cost:
    ratios = [one / other for one, other in zip(every, without, strict=True)]
    more = statistics.median(one - other for one, other in zip(every, without, strict=True))
    lower, _, upper = statistics.quantiles(ratios, n=4)
    return Cost(more * 1e6, statistics.median(ratios), lower, upper)


def _bytes(connection: apsw.Connection, index: str) -> float:
    """Return how many bytes of the file an index takes for a row of its own."""
    size, cells = connection.execute("SELECT sum(pgsize), sum(ncell) FROM dbstat WHERE name = ?1", (index,)).fetchall()[
        0
    ]
    return float(size) / max(1, cells)


def run(*, rows: int, rounds: int, calls: int) -> list[Index]:
    """Return all that is known of each index."""
    named = plans.statements()
    plain = plans.database()
    today = plans.collect(plain, named)
    plain.close()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.db"
        connection = plans.database(str(template))
        population.fill(connection, rows)
        every = indexes_of(connection)
        sizes = {name: _bytes(connection, name) for names in every.values() for name in names}
        connection.close()
        for table, names in every.items():
            sys.stderr.write(f"{table} …\n")
            costs = measure(template, table, [*names], rows=rows, rounds=rounds, calls=calls)
            for name, columns in names.items():
                alone, together = costs[name]
                found.append(Index(name, table, columns, sizes[name], alone, together, needs(name, named, today)))
    return found


# ---------------------------------------------------------------- page


def page(indexes: list[Index], *, rows: int, rounds: int, calls: int) -> Iterator[str]:
    """Yield the lines of docs/benchmarks/indexes.md."""
    here = machine.describe()
    yield f"""# What the indexes cost, and what they are for

Written by a program; do not edit. To run it again: `{COMMAND}`

{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {here["cpu"]}, {here["cores"]} cores, {here["kernel"]}, {here["python"]}, SQLite \
{apsw.sqlite_lib_version()} in apsw, WAL, synchronous NORMAL.

## Cost of an insert

A database of {rows:,} rows in all, and copies of it that lack one index each. *own transaction*: every insert commits by itself.
*together*: {calls} inserts in one transaction, for a row. Each is what the insert takes more with the index: microseconds of
processor time, checkpoints left out, and the ratio of all indexes to all but this one, with the quartiles of {rounds} rounds.

| table | index | columns | bytes a row | own transaction | together |
|---|---|---|---|---|---|"""
    for index in indexes:
        cells = [
            f"{cost.microseconds:+.1f} µs, {cost.ratio:.2f}× ({cost.lowest:.2f} to {cost.highest:.2f})"
            for cost in (index.alone, index.together)
        ]
        yield f"| {index.table} | `{index.name}` | `{index.columns}` | {index.bytes:.0f} | {' | '.join(cells)} |"
    yield """
## What needs them

The statements whose plan is another without the index, and what it is then: *sorts* collects all rows that match before it
returns the first, *walks all* reads the whole table, *by* searches another index and looks at the rest in each row. Found by
dropping the index and comparing all plans (`tests/plans/`). `find` and `count` stand for all their shapes with these filters.
`tests/contract/test_plans.py` fails when an index is needed by nothing.
"""
    for index in indexes:
        yield f"### `{index.name}`\n\n| statement | without the index |\n|---|---|"
        yield from (f"| `{statement}` | {instead} |" for statement, instead in index.needed_by.items())
        yield ""


def main() -> None:
    """Measure, print, and write the page if told to."""
    parser = argparse.ArgumentParser(prog="python -m bench.indexes", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows in the database (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=41, help="rounds (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=100, help="inserts in a round (default: %(default)s)")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    options = parser.parse_args()
    bounds = {"rows": options.rows, "rounds": options.rounds, "calls": options.calls}
    text = "\n".join(page(run(**bounds), **bounds)).rstrip() + "\n"
    if options.markdown:
        options.markdown.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
