"""The operations on one connection: what is prepared, what is measured, and what shows that it was done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from bench import contenders, data, harness
from bench.contenders import BASE
from bench.contenders.base import Shared
from bench.data import Holds
from bench.harness import Arguments
from bench.run import Run, Size

_EAGER = "apsw records"
_INPUT, _OUTPUT = {"query": "revenue by region", "limit": 10}, {"rows": 10, "source": "warehouse"}


Prepare = Callable[[Any, Holds, int], Arguments]
Check = Callable[[Any, Any, tuple[Any, ...]], bool]


@attrs.frozen
class Operation:
    """One row of the table.

    `prepare(contender, holds, calls)` gives the arguments of each call of the method that has the operation's name;
    `check(contender, result, arguments)` says whether a result is right. `aim` is the largest ratio to `beside` that
    dao is to have, `on_server` that to psycopg. What `adds` rows to a table, or changes a row but `once`, is called
    equally often for all, so that their tables stay alike. The time of a call for `many` rows is that of one, and so is
    that of a call for so many `at_once`. What `grows` is measured at more sizes.
    """

    name: str
    title: str
    prepare: Prepare
    check: Check
    aim: float | None = None
    on_server: float | None = None
    beside: str = BASE
    adds: str = ""
    once: bool = False
    many: bool = False
    at_once: int = 1
    grows: bool = False


# ---------------------------------------------------------------- arguments


def _each(values: Callable[[Holds], Sequence[Any]]) -> Prepare:
    """Return what gives one value to each call, and begins again after the last."""
    return lambda _, holds, calls: [(value,) for value in itertools.islice(itertools.cycle(values(holds)), calls)]


def _nothing(_contender: Shared, _holds: Holds, calls: int) -> Arguments:
    return [()] * calls


def _values(_contender: Shared, _holds: Holds, calls: int) -> Arguments:
    return [(data.fresh(),) for _ in range(calls)]


def _items(contender: Shared, _holds: Holds, calls: int) -> Arguments:
    return [(contender.new(data.fresh()),) for _ in range(calls)]


def _many_values(_contender: Shared, _holds: Holds, rows: int) -> Arguments:
    return [([data.fresh() for _ in range(rows)],)]


def _many_items(contender: Any, _holds: Holds, rows: int) -> Arguments:
    return [(contender.new_many([data.fresh() for _ in range(rows)]),)]


def _deep(contender: Any, holds: Holds, calls: int) -> Arguments:
    return _each(lambda _: contender.positions(holds))(contender, holds, calls)


def _statuses(_contender: Shared, holds: Holds, calls: int) -> Arguments:
    pairs = ((id, status) for id in itertools.cycle(holds.ahead) for status in ("running", "pending"))
    return list(itertools.islice(pairs, calls))


def _changed(contender: Any, holds: Holds, calls: int) -> Arguments:
    # each once: a second change of one row would be of a version that is gone
    return [(contender.changed(id, f"Changed, number {number}"),) for number, id in enumerate(holds.ids[:calls])]


def _settings(_contender: Shared, _holds: Holds, calls: int) -> Arguments:
    return [(data.KEYS[number % len(data.KEYS)], number) for number in range(calls)]


def _started(contender: Any, _holds: Holds, calls: int) -> Arguments:
    return [(contender.tool_start(_INPUT), _OUTPUT) for _ in range(calls)]


def _refill(contender: Any, rows: int) -> None:
    """Store as many tasks as are about to be claimed."""
    contender.create_many(contender.new_many([data.fresh() for _ in range(rows)]))


def _due(contender: Any, _holds: Holds, calls: int) -> Arguments:
    _refill(contender, calls)
    return [()] * calls


def _one_due(contender: Any, holds: Holds, calls: int) -> Arguments:
    return [(1,) for _ in _due(contender, holds, calls)]


def _due_at_once(contender: Any, _holds: Holds, calls: int) -> Arguments:
    _refill(contender, calls * data.PAGE)
    return [(data.PAGE,)] * calls


def _claimed(contender: Any, _holds: Holds, calls: int) -> Arguments:
    _refill(contender, calls)
    return [(task,) for task in contender.claim(calls)]


def _claimed_again(contender: Any, holds: Holds, calls: int) -> Arguments:
    return _claimed(contender, holds, 1) * calls


def _steps(contender: Any, holds: Holds, calls: int) -> Arguments:
    (((task,),), number) = _claimed(contender, holds, 1), itertools.count()
    return [(task, f"step-{next(number)}", _INPUT, _OUTPUT) for _ in range(calls)]


def _keyed(contender: Any, _holds: Holds, calls: int) -> Arguments:
    values = [data.fresh() for _ in range(calls)]
    return [(contender.new(each), f"report:{data.new_id()}") for each in values]


_ids, _listed = _each(lambda holds: holds.ids), _each(lambda _: [data.LISTED])
_sessions, _workflows = _each(lambda holds: holds.sessions), _each(lambda holds: holds.workflows)
_keys, _inputs = _each(lambda _: data.KEYS), _each(lambda _: [_INPUT])


# ---------------------------------------------------------------- results


def _if(right: Callable[[Any, tuple[Any, ...]], bool]) -> Check:
    """Return what looks at the result, beside the call's arguments."""
    return lambda _, result, given: right(result, given)


def _read(right: Callable[[tuple[Any, ...], tuple[Any, ...]], bool]) -> Check:
    """Return what looks at the columns of a result that is a task."""
    return lambda contender, result, given: right(contender.read(result), given)


def _stored(condition: str) -> Check:
    """Return what looks for a row, by a table with a condition that may name the call's arguments."""
    return lambda contender, _, given: contender.raw(f"SELECT count(*) FROM {condition.format(*given)}")[0][0] > 0


def _is_page(contender: Shared, result: Any, given: tuple[Any, ...]) -> bool:
    return _are_rows(contender, [contender.read(record) for record in result], given)


def _are_rows(_contender: Shared, result: Any, _given: tuple[Any, ...]) -> bool:
    ids = [row[0] for row in result]
    return 0 < len(ids) <= data.PAGE and ids == sorted(ids, reverse=True)


_is_any = _if(lambda *_: True)
_is_row = _if(lambda row, given: row[0] == given[0] and len(row) == len(data.TASK_COLUMNS))
_is_workflow = _if(lambda found, _: len(found) == data.WORKFLOW)
_is_value = _if(lambda found, given: f"limits.{found}" == given[0])
_is_task = _read(lambda row, given: row[0] == given[0])
_waits = _read(lambda row, _: row[4] == "pending")
_has_status = _read(lambda row, given: (row[0], row[4]) == given)
_has_title = _read(lambda row, _: row[1].startswith("Changed, number"))
_are_claimed = _stored("tasks WHERE status = 'running' AND attempt = 1 AND worker IS NOT NULL")
_is_completed = _read(lambda row, _: row[4] == "completed" and row[16] is None)
_is_held = _read(lambda row, _: row[4] == "running" and row[16] == data.WORKER)
_is_set = _stored("configurations WHERE key = '{0}' AND value = '{1}'")
_has_beaten = _stored("sessions WHERE id = '{0}' AND last_heartbeat > '2026-01-01'")
_has_ended = _stored("tool_executions WHERE status = 'completed'")

#: Reads first: what is stored later does not meet them.
OPERATIONS = (
    Operation("get", "get by id", _ids, _is_task, aim=1.15, on_server=1.15, grows=True),
    Operation("get_all", "get by id, all columns read", _ids, _is_row, aim=1.3, beside=_EAGER),
    Operation("find", "find 50 of a status, newest first", _listed, _is_page, aim=1.35, on_server=1.15, grows=True),
    Operation("find_all", "find 50, all columns read", _listed, _are_rows, aim=1.3, beside=_EAGER),
    Operation("page", "page of 50, deep (keyset)", _deep, _is_page, aim=1.35, on_server=1.15, grows=True),
    Operation("oldest", "oldest pending task, as a worker looks it up", _nothing, _waits, grows=True),
    Operation("workflow", "workflow: its 20 tasks in order", _workflows, _is_workflow),
    Operation("configuration_get", "configurations.get, an integer", _keys, _is_value, aim=1.3),
    Operation("configuration_set", "configurations.set, an integer", _settings, _is_set, aim=1.5),
    Operation("heartbeat", "heartbeat of a session", _sessions, _has_beaten, aim=1.15),
    Operation(
        "set_status", "set_status, returning the row", _statuses, _has_status, aim=1.15, on_server=1.15, grows=True
    ),
    Operation(
        "update", "update if unchanged, returning the row", _changed, _has_title, aim=1.15, on_server=1.15, once=True
    ),
    Operation("tool_start", "tool execution: start", _inputs, _is_any, adds="tool_executions"),
    Operation("tool_finish", "tool execution: finish, returning it", _started, _has_ended, on_server=1.15, once=True),
    Operation("claim", "claim a task", _one_due, _are_claimed, aim=1.15, on_server=1.15, once=True, grows=True),
    Operation(
        "claim_many", "claim 50 tasks at once, per task", _due_at_once, _are_claimed, once=True, at_once=data.PAGE
    ),
    Operation("complete", "complete a claimed task", _claimed, _is_completed, aim=1.15, on_server=1.15, once=True),
    Operation("work", "claim a task and complete it", _due, _is_completed, once=True, grows=True),
    Operation("renew", "renew the lease of a claimed task", _claimed_again, _is_held, aim=1.15, on_server=1.15),
    Operation("step", "begin and finish a step of a task", _steps, _has_ended, adds="tool_executions"),
    Operation("enqueue", "enqueue under a key, own transaction", _keyed, _is_any, adds="tasks"),
    Operation("new", "Task(…): a record of values", _values, _is_any),
    Operation("create", "create, own transaction", _items, _is_any, aim=1.1, on_server=1.15, adds="tasks", grows=True),
    Operation("create_from_values", "create from values, own transaction", _values, _is_any, aim=1.15, adds="tasks"),
    Operation(
        "create_many", "create_many, per row", _many_items, _is_any, aim=1.5, on_server=0.33, adds="tasks", many=True
    ),
    Operation(
        "create_many_from_values",
        "create_many from values, per row",
        _many_values,
        _is_any,
        aim=1.5,
        adds="tasks",
        many=True,
    ),
    Operation("lend", "pool: acquire and release", _nothing, _is_any),
)
NAMED = {operation.name: operation for operation in OPERATIONS}


# ---------------------------------------------------------------- measuring


def measure(
    run: Run, chosen: Sequence[Shared], only: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return what was measured for each operation, the settings of each contender, and who was skipped."""
    results = {}
    with contenders.opened(chosen, run.copy) as (settings, skipped):
        here = [contender for contender in chosen if contender.name not in skipped]
        for operation in OPERATIONS:
            if operation.name not in only:
                continue
            run.report(operation.title)
            able = []
            for contender in here:
                if contender.supports(operation.name):
                    try:
                        _check(operation, contender, run)
                        able.append(contender)
                    except Exception as error:  # noqa: BLE001 - one contender's trouble is not the others'
                        skipped[f"{contender.name}, {operation.name}"] = f"failed ({type(error).__name__}: {error})"
            if able:
                subjects = {contender.name: (contender, run.held(contender)) for contender in able}
                measured = times(operation, subjects, run.size)
                bases = {contender.name: contender.base for contender in able}
                results[operation.name] = {"title": operation.title, "contenders": harness.summary(measured, bases)}
    return results, settings, skipped


def times(operation: Operation, subjects: dict[str, tuple[Shared, Holds]], size: Size) -> dict[str, harness.Times]:
    """Measure an operation for contenders, each with what its database holds, round by round."""
    units = size.many if operation.many else operation.at_once
    made = [harness.Subject(name, timed(operation, *subject, size), units) for name, subject in subjects.items()]
    return interleave(operation, made, size)


def timed(operation: Operation, contender: Shared, holds: Holds, size: Size) -> harness.Timed:
    """Return what measures an operation's calls."""

    def prepare(calls: int) -> Arguments:
        return operation.prepare(contender, holds, size.many if operation.many else calls)

    return contender.timed(operation.name, prepare)


def interleave(operation: Operation, subjects: Sequence[harness.Subject], size: Size) -> dict[str, harness.Times]:
    """Measure subjects with the rounds and calls that are right for the operation."""
    each = max(1, min(size.writes, size.rows) // operation.at_once)
    calls = 1 if operation.many else each if operation.adds or operation.once else None
    return harness.interleave(subjects, rounds=size.rounds, calls=calls, seconds=size.seconds)


def _check(operation: Operation, contender: Shared, run: Run) -> None:
    """Make a call and look at what it did."""
    rows = run.size.many if operation.many else 1
    given = operation.prepare(contender, run.held(contender), rows)[0]
    counted = f"SELECT count(*) FROM {operation.adds or '(SELECT 1) AS one'}"
    before = contender.raw(counted)[0][0]
    right = operation.check(contender, contender.call(operation.name, *given), given)
    if not right or contender.raw(counted)[0][0] != before + (rows if operation.adds else 0):
        raise AssertionError("it does not do what it should")
