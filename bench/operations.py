"""The operations on one connection: what is prepared, what is measured, and what shows that it was done."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench import contenders, data, harness
from bench.contenders import ASYNC_BASE, BASE, STANDARD, AsyncContender, Contender
from bench.data import Data

_LATER = "2027-01-01T00:00:00.000Z"
_beaten = itertools.count(80_000_000)
_OUTPUT = {"rows": 10, "source": "warehouse"}
#: Sizes: how many rows the tables hold, and how many calls a round of a writing operation makes.
Arguments = Sequence[tuple[Any, ...]]


@attrs.frozen
class Size:
    """How much is done: rows in the table, rounds, seconds and calls of a round, rows of `create_many`."""

    rows: int
    rounds: int
    seconds: float
    writes: int
    many: int


TINY = Size(rows=60, rounds=1, seconds=0.0, writes=2, many=4)
QUICK = Size(rows=10_000, rounds=9, seconds=0.005, writes=100, many=2_000)
FULL = Size(rows=10_000, rounds=21, seconds=0.01, writes=200, many=10_000)


@attrs.frozen
class Operation:
    """One row of the table.

    `prepare(contender, data, calls)` gives the arguments of each call of `method`. What adds rows is called equally often for
    every contender, so that their tables stay of one size. `check` raises AssertionError if a result is wrong.
    """

    name: str
    title: str
    method: str
    prepare: Callable[[Contender, Data, int], Arguments]
    check: Callable[[Contender, Data, Any, tuple[Any, ...]], None]
    adds: bool = False
    many: bool = False
    asynchronous: bool = False


def _some(values: Sequence[Any], calls: int) -> list[tuple[Any, ...]]:
    return [(value,) for value in itertools.islice(itertools.cycle(values), calls)]


def _ids(_contender: Contender, data: Data, calls: int) -> Arguments:
    return _some(data.ids, calls)


def _fresh(contender: Contender, _data: Data, calls: int) -> Arguments:
    return [(contender.new(data.fresh_values()),) for _ in range(calls)]


def _statuses(contender: Contender, data: Data, calls: int) -> Arguments:
    later = contender.moment(_LATER)
    pairs = ((id, status, later) for id in itertools.cycle(data.ids) for status in ("running", "pending"))
    return list(itertools.islice(pairs, calls))


def _changed(contender: Contender, data: Data, calls: int) -> Arguments:
    # each once: a second change of one row would be of a version that is gone
    return [(contender.changed(id, f"Changed, number {number}"),) for number, id in enumerate(data.ids[:calls])]


def _started(contender: Contender, _data: Data, calls: int) -> Arguments:
    new = contender.new_execution
    later = contender.moment(_LATER)
    return [(contender.start(new(data.fresh_execution_values())), _OUTPUT, later) for _ in range(calls)]


def _beats(contender: Contender, made: Data, calls: int) -> Arguments:
    # each later than the one before, as heartbeats are
    numbers = itertools.islice(_beaten, calls)
    return [(made.session_id(number % made.sessions), contender.moment(data.moment(number))) for number in numbers]


def _true(value: object) -> None:
    if not value:
        raise AssertionError


def _is_row(contender: Contender, _data: Data, result: Any, given: tuple[Any, ...]) -> None:
    _true(contender.key(result) == given[0])


def _is_page(contender: Contender, data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    keys = [contender.key(record) for record in result]
    _true(keys == sorted(keys, reverse=True))
    _true(len(keys) == min(50, len(keys)) and (len(keys) == 50 or data.rows < 1000))


def _is_count(contender: Contender, _data: Data, result: Any, given: tuple[Any, ...]) -> None:
    _true(result == contender.raw(f"SELECT count(*) FROM tasks WHERE status = '{given[0]}'")[0][0])


def _has_status(contender: Contender, _data: Data, result: Any, given: tuple[Any, ...]) -> None:
    stored = contender.raw(f"SELECT status FROM tasks WHERE id = '{given[0]}'")[0][0]
    _true(contender.key(result) == given[0] and stored == given[1])


def _is_changed(contender: Contender, _data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    title = contender.raw(f"SELECT title FROM tasks WHERE id = '{contender.key(result)}'")[0][0]
    _true(title.startswith("Changed, number"))


def _is_finished(contender: Contender, _data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    status = contender.raw(f"SELECT status FROM tool_executions WHERE id = '{contender.key(result)}'")[0][0]
    _true(status == "completed")


def _has_beaten(contender: Contender, _data: Data, _result: Any, given: tuple[Any, ...]) -> None:
    id, moment = given
    stored = contender.raw(f"SELECT last_heartbeat FROM sessions WHERE id = '{id}'")[0][0]
    _true(contender.moment(stored) == moment)


def _is_value(_contender: Contender, _data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    _true(result["seconds"] == 120)


def _is_set(contender: Contender, _data: Data, _result: Any, given: tuple[Any, ...]) -> None:
    _true(
        f'"tokens":{given[1]["tokens"]}'
        in contender.raw(f"SELECT json(value) FROM configurations WHERE key = '{given[0]}'")[0][0]
    )


def _is_workflow(contender: Contender, data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    keys = [contender.key(record) for record in result]
    _true(keys == sorted(keys) and (len(keys) == 20 or data.rows < 1000))


def _is_statistics(_contender: Contender, _data: Data, result: Any, _given: tuple[Any, ...]) -> None:
    _true(len(list(result)) == len(data.TOOLS))


def _one_more(contender: Contender, _data: Data, _result: Any, _given: tuple[Any, ...]) -> None:
    _true(contender.raw("SELECT count(*) FROM tasks WHERE created_at > '2026'")[0][0] > 0)


def _anything(_contender: Contender, _data: Data, _result: Any, _given: tuple[Any, ...]) -> None:
    pass


def _from_values(contender: Contender) -> Callable[[dict[str, Any]], object]:
    return lambda values: contender.create(contender.new(values))


#: Reads first: what is stored later does not meet them.
OPERATIONS = (
    Operation("get", "get by id", "get", _ids, _is_row),
    Operation("get_json", "get by id, both JSON columns read", "get_json", _ids, _is_row),
    Operation("find", "find 50 of a status, newest first", "find", lambda _c, _d, n: _some(["completed"], n), _is_page),
    Operation("page", "page of 50, deep (keyset)", "page", lambda c, d, n: _some(c.positions(d), n), _is_page),
    Operation("count", "count of a status", "count", lambda _c, _d, n: _some(["completed"], n), _is_count),
    Operation(
        "workflow",
        "workflow: its 20 tasks in order",
        "workflow",
        lambda _c, d, n: _some([d.workflow_id(number) for number in range(d.workflows)], n),
        _is_workflow,
    ),
    Operation("statistics", "statistics of each tool", "statistics", lambda _c, _d, n: [()] * n, _is_statistics),
    Operation(
        "configuration_get",
        "configuration: get",
        "get_value",
        lambda _c, d, n: _some([f"limits.{number}" for number in range(d.keys)], n),
        _is_value,
    ),
    Operation(
        "configuration_set",
        "configuration: set",
        "set_value",
        lambda c, d, n: [
            (f"limits.{number % d.keys}", {"tokens": number, "seconds": 120}, c.moment(_LATER)) for number in range(n)
        ],
        _is_set,
    ),
    Operation("heartbeat", "heartbeat of a session", "heartbeat", _beats, _has_beaten),
    Operation("set_status", "set_status, with the fresh record", "set_status", _statuses, _has_status),
    Operation("update", "update if unchanged, with the fresh record", "update", _changed, _is_changed, adds=True),
    Operation(
        "start",
        "tool execution: start",
        "start",
        lambda c, _d, n: [(c.new_execution(data.fresh_execution_values()),) for _ in range(n)],
        _anything,
        adds=True,
    ),
    Operation("finish", "tool execution: finish, with the fresh record", "finish", _started, _is_finished, adds=True),
    Operation("create", "create, own transaction", "create", _fresh, _one_more, adds=True),
    Operation(
        "create_from_values",
        "create from values, own transaction",
        "create",
        lambda _c, _d, n: [(data.fresh_values(),) for _ in range(n)],
        _one_more,
        adds=True,
    ),
    Operation(
        "create_many",
        "create_many, per row",
        "create_many",
        lambda c, _d, n: [(c.new_many([data.fresh_values() for _ in range(n)]),)],
        _one_more,
        adds=True,
        many=True,
    ),
    Operation("lend", "pool: acquire and release", "lend", lambda _c, _d, n: [()] * n, _anything),
    Operation("async_get", "asynchronous get by id", "get", _ids, _is_row, asynchronous=True),
    Operation(
        "async_create",
        "asynchronous create, own transaction",
        "create",
        _fresh,
        _anything,
        adds=True,
        asynchronous=True,
    ),
)
NAMES = tuple(operation.name for operation in OPERATIONS)


def measure(
    chosen: Sequence[Contender], only: Sequence[str], size: Size, report: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return what was measured for each operation, the settings read back from each contender, and who was skipped."""
    settings: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as made, asyncio.Runner() as runner:
        folder = Path(made)
        template = folder / "template.db"
        holds = data.build(template, size.rows)
        opened: list[Contender] = []
        try:
            for number, contender in enumerate(chosen):
                path = data.copy(template, folder / f"{number}.db")
                try:
                    if isinstance(contender, AsyncContender):
                        settings[contender.name] = runner.run(contenders.open_async(contender, path))
                    else:
                        settings[contender.name] = contenders.open_one(contender, path)
                except Exception as error:  # noqa: BLE001 - what another library raises is its own affair
                    skipped[contender.name] = f"could not be opened ({type(error).__name__}: {error})"
                    continue
                opened.append(contender)
            results = {}
            for operation in OPERATIONS:
                if operation.name not in only:
                    continue
                report(operation.title)
                subjects = _subjects(operation, opened, holds, size, runner, skipped)
                if subjects:
                    results[operation.name] = _measure(operation, subjects, size)
        finally:
            for contender in opened:
                if isinstance(contender, AsyncContender):
                    runner.run(contender.aclose())
                else:
                    contender.close()
    return results, settings, skipped


def _measure(operation: Operation, subjects: list[harness.Subject], size: Size) -> dict[str, Any]:
    writes = 1 if operation.many else min(size.writes, size.rows) if operation.adds else None
    measured = harness.interleave(subjects, rounds=size.rounds, calls=writes, seconds=size.seconds)
    bases = (ASYNC_BASE,) if operation.asynchronous else (BASE, STANDARD)
    return {"title": operation.title, "base": bases[0], "contenders": harness.summary(measured, bases)}


def _subjects(
    operation: Operation,
    opened: Sequence[Contender],
    holds: Data,
    size: Size,
    runner: asyncio.Runner,
    skipped: dict[str, str],
) -> list[harness.Subject]:
    subjects = []
    for contender in opened:
        if isinstance(contender, AsyncContender) is not operation.asynchronous or not contender.supports(
            operation.method
        ):
            continue
        run = _run(operation, contender, holds, size, runner)
        try:
            _check(operation, contender, holds, size, runner)
        except Exception as error:  # noqa: BLE001 - one contender's trouble is not the others'
            skipped[f"{contender.name}, {operation.name}"] = f"failed ({type(error).__name__}: {error})"
            continue
        subjects.append(harness.Subject(contender.name, run, size.many if operation.many else 1))
    return subjects


def _check(operation: Operation, contender: Contender, holds: Data, size: Size, runner: asyncio.Runner) -> None:
    given = operation.prepare(contender, holds, size.many if operation.many else 2)[0]
    if operation.asynchronous:
        result = runner.run(getattr(contender, operation.method)(*given))
    else:
        result = _call(operation, contender)(*given)
    operation.check(contender, holds, result, given)


def _call(operation: Operation, contender: Contender) -> Callable[..., Any]:
    return _from_values(contender) if operation.name == "create_from_values" else getattr(contender, operation.method)


def _run(operation: Operation, contender: Contender, holds: Data, size: Size, runner: asyncio.Runner) -> harness.Timed:
    def prepare(calls: int) -> Arguments:
        return operation.prepare(contender, holds, size.many if operation.many else calls)

    if not operation.asynchronous:
        return harness.timed(_call(operation, contender), prepare)
    method = getattr(contender, operation.method)

    async def each(arguments: Arguments) -> harness.Turn:
        before = harness.interruptions()
        begun = time.perf_counter()
        for given in arguments:
            await method(*given)
        seconds = time.perf_counter() - begun
        return harness.Turn(seconds, harness.interruptions() != before)

    return lambda calls: runner.run(each(prepare(calls)))
