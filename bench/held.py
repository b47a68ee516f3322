"""What a task costs beside itself: the events of its history, and tasks ahead of it that a claim has to pass by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench import contenders, data, harness, operations
from bench.contenders.base import Shared
from bench.operations import NAMED
from bench.run import Run

#: dao on each engine.
ENGINES = {"SQLite": "dao", "PostgreSQL": "dao (PostgreSQL)"}
WITHOUT, WITH = "without events", "with events"
_PRICED = ("create", "create_many", "set_status", "claim", "complete")

_NO_EVENTS = "INSERT INTO configurations (key, value) VALUES ('task_events', 'false') RETURNING key"
_AHEAD = "SELECT id FROM tasks WHERE title = 'ahead'"
_LINKED = "SELECT 'held', id, 1 FROM tasks WHERE title = 'ahead'"
_WAITING = "SELECT id, 'held' FROM tasks WHERE title = 'ahead'"
#: What holds the tasks back that are the first in the queue otherwise; each statement gives rows.
_HELD: Mapping[str, Sequence[str]] = {
    "nothing": [],
    "scheduled": [f"UPDATE tasks SET run_at = '2500-01-01T00:00:00.000Z' WHERE id IN ({_AHEAD}) RETURNING id"],
    "in a paused workflow": [
        "INSERT INTO workflows (id, name, status) VALUES ('held', 'held', 'active') RETURNING id",
        f"INSERT INTO workflow_tasks (workflow_id, task_id, sequence) {_LINKED} RETURNING task_id",
        "UPDATE workflows SET status = 'paused' WHERE id = 'held' RETURNING id",
    ],
    "waiting for a task": [
        "INSERT INTO tasks (id, title, task_type, status) VALUES ('held', 'held', 'summary', 'failed') RETURNING id",
        f"INSERT INTO task_dependencies (task_id, depends_on) {_WAITING} RETURNING task_id",
    ],
}


def events(run: Run) -> dict[str, Any]:
    """Return for each engine and operation the medians without and with events, and the ratio."""
    return {
        engine: _measured(run, name, {WITHOUT: [_NO_EVENTS], WITH: []}, _PRICED, lambda *_: None)
        for engine, name in _engines(run)
    }


def ahead(run: Run) -> dict[str, Any]:
    """Return for each engine what a claim takes with tasks ahead that are held back, and the ratio to one without."""
    return {engine: _measured(run, name, _HELD, ("claim",), _put_ahead) for engine, name in _engines(run)}


def _engines(run: Run) -> list[tuple[str, str]]:
    return [(engine, name) for engine, name in ENGINES.items() if engine == "SQLite" or run.server is not None]


def _put_ahead(run: Run, contender: Any, variant: str) -> None:
    """Store tasks that would be claimed before all others, unless nothing is to be held."""
    if variant == next(iter(_HELD)):
        return
    values = [{**data.fresh(), "title": "ahead", "priority": 9} for _ in range(run.size.many)]
    contender.create_many(contender.new_many(values))


def _measured(
    run: Run,
    name: str,
    variants: Mapping[str, Sequence[str]],
    names: Sequence[str],
    prepare: Callable[[Run, Shared, str], None],
) -> dict[str, Any]:
    with ExitStack() as stack:
        subjects = {}
        for variant, statements in variants.items():
            contender = contenders.load(name)
            contender.name = f"{name} {variant}"  # type: ignore[misc] # its copy is one of its own
            contender.open(run.copy(contender))
            stack.callback(contender.close)
            prepare(run, contender, variant)
            for sql in statements:
                contender.raw(sql)
            subjects[variant] = (contender, run.held(contender))
        found = {}
        base = next(iter(variants))
        for operation in map(NAMED.__getitem__, names):
            run.report(f"{', '.join(variants)}: {operation.title} ({name})")
            times = operations.times(operation, subjects, run.size)
            found[operation.name] = {
                "title": operation.title, "variants": harness.summary(times, dict.fromkeys(times, base))
            }  # fmt: skip
    return found
