"""A torture of claims: workers are killed, stopped and continued at random, and every law must hold all the same.

Usage::

    dao migrate --database sqlite:///torture.db
    python -m dao.testing.torture sqlite:///torture.db --minutes 10

The database must be migrated and hold no tasks; it is left as it is at the end, to be looked at. Workers claim tasks of
two steps for a lease of some milliseconds, so that a worker that stands still loses its task to another one, and comes
back as one that does not know. Meanwhile tasks are enqueued, some after others, cancelled and retried, and workflows
are paused. When the time is up, all of it is brought to its end, and the history is held against these laws:

- no task is lost, and none has two attempts at a time: each that begins follows the end of the one before;
- each completed task had its effect once, by the attempt that completed it, and each of its steps once;
- a finished task became pending before it became anything else;
- undone event by event, the table leads back to tasks as they were enqueued;
- `waiting_for` and `paused_by` are what they count, and no call is open of an attempt that has ended;
- a worker that had lost its task could not end it in plain SQL, either.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing import resource_tracker
from typing import Any, Self

import attrs

from dao import configurations, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import Connection, connect, execute, fetch
from dao.errors import Error, IntegrityError, InvalidValue, LeaseLost, StaleRecord
from dao.records import Task, ToolStatus, Workflow, WorkflowStatus
from dao.testing.laws import violations
from dao.transactions import replaying
from dao.url import parse

__all__ = ["Report", "torture"]

_LEASE = timedelta(milliseconds=200)
_WORK = (0.001, 0.02)  # seconds of each step
_STOPPED = (0.1, 0.6)  # seconds a worker stands still: some longer than the lease
_STEPS = ("fetch", "write")
_UNFINISHED = 150  # so many tasks wait or run at a time
_DRAIN = 120.0  # seconds to bring all to an end, when every worker may work
_MOST = 20  # so many violations are told

_NOTES = "CREATE TABLE torture_notes (kind text NOT NULL, task_id text NOT NULL, attempt bigint NOT NULL)"
_NOTE = "INSERT INTO torture_notes (kind, task_id, attempt) VALUES ($1, $2, $3)"
# as somebody writes who knows nothing of claims
_LATE = "UPDATE tasks SET status = 'completed' WHERE id = $1 AND status <> 'completed'"
_patiently = replaying(deadline=60)


@attrs.frozen(kw_only=True)
class Report:
    """A torture that has ended: what was done, and each violation of a law in words."""

    seconds: float
    kills: int
    stops: int
    tasks: int
    claims: int
    lost_leases: int
    late_writes_refused: int
    violations: list[str]


def torture(
    url: str, *, seconds: float = 20.0, workers: int = 6, seed: int | None = None, tell: Callable[[str], object] = print
) -> Report:
    """Torture the workers of a database for so many seconds, and return what was seen.

    Its tables must be there, and no tasks in them. Starts processes of its own, which end with it. Not on Windows.

    Raises:
        InvalidValue: The database holds tasks, or is to write no events of them; or there is no time or no worker.
        OSError: This platform cannot stop a process and continue it.
        Error: The database cannot be used.
    """
    if not hasattr(signal, "SIGSTOP"):
        raise OSError("workers are stopped and continued by signals, which this platform does not have")
    if not 0 < seconds < math.inf:
        raise InvalidValue(f"a torture takes some time, got {seconds!r} seconds")
    if workers < 1:
        raise InvalidValue(f"somebody has to work, got {workers} workers")
    chance = random.Random(seed)
    with contextlib.closing(connect(parse(url).creating_nothing())) as connection:
        if tasks.count(connection):
            raise InvalidValue("the database holds tasks: give the torture one of its own, just migrated")
        if configurations.get(connection, "task_events", default=True) is False:
            raise InvalidValue(
                "the configuration task_events is false, and without a history there is nothing to check"
            )
        execute(connection, _NOTES)
        begun = time.monotonic()
        life = _Life(connection, chance)
        with _Crowd(url, workers, chance) as crowd:
            next_word = begun + 10
            while time.monotonic() < begun + seconds and crowd.failure is None:
                time.sleep(0.02)
                life.go_on()
                if time.monotonic() > next_word:
                    tell(f"{next_word - begun:.0f} s: {crowd.kills} kills, {crowd.stops} stops, {life.count} tasks")
                    next_word += 10
            crowd.leave_in_peace()
            life.end(time.monotonic() + _DRAIN)
        if crowd.failure is not None:
            raise RuntimeError(crowd.failure)
        return _report(connection, life, crowd, time.monotonic() - begun)


# ---------------------------------------------------------------- workers


def _work(url: str, name: str, parent: int) -> None:
    """Claim tasks and run them, until the process that started this one has gone."""
    chance = random.Random(os.getpid())
    connection = connect(url)
    while os.getppid() == parent:
        claimed = _patiently(connection, tasks.claim, worker=name, lease=_LEASE, limit=chance.choice((1, 1, 3)))
        if not claimed:
            time.sleep(0.01)
        for task in claimed:
            try:
                _run(connection, task, chance)
            except (LeaseLost, StaleRecord, IntegrityError):
                _patiently(connection, _note, "lost", task)
                _come_late(connection, task)


def _run(connection: Connection, task: Task, chance: random.Random) -> None:
    for step in _STEPS:
        call = _patiently(connection, tool_executions.step, task, step, tool_name=step, input={})
        if call.status is not ToolStatus.COMPLETED:
            time.sleep(chance.uniform(*_WORK))
            _patiently(connection, tool_executions.finish, call, output=step)
        task = _patiently(connection, tasks.renew, task, lease=_LEASE)
        fate = chance.random()
        if fate < 0.03:
            _patiently(connection, tasks.fail, task, error="at random")
            return
        if fate < 0.06:
            _patiently(connection, tasks.release, task)
            return
    _patiently(connection, _complete, task)


def _complete(connection: Connection, task: Task) -> None:
    """Complete a task, and have its effect: both or neither."""
    tasks.complete(connection, task)
    _note(connection, "effect", task)


def _note(connection: Connection, kind: str, task: Task) -> None:
    execute(connection, _NOTE, (kind, task.id, task.attempt))


def _come_late(connection: Connection, task: Task) -> None:
    """Try to end a task that is lost, past all functions."""
    try:
        changed = _patiently(connection, execute, _LATE, (task.id,))
    except IntegrityError:
        _patiently(connection, _note, "refused", task)
        return
    if changed:
        _patiently(connection, _note, "late", task)


class _Crowd:
    """The worker processes, which a thread disturbs: one that stands still may keep the database locked for all."""

    def __init__(self, url: str, size: int, chance: random.Random) -> None:
        self.kills = self.stops = 0
        #: Why there are no workers any more.
        self.failure: str | None = None
        self._url, self._chance = url, random.Random(chance.random())
        self._context = multiprocessing.get_context("spawn")
        self._names = (f"worker {number}" for number in itertools.count(1))
        self._stopped: dict[Any, float] = {}
        resource_tracker.ensure_running()  # or the first one would start it, which unblocks the signal
        self._all = [self._started() for _ in range(size)]
        self._peace = threading.Event()
        self._thread = threading.Thread(target=self._disturb, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave_in_peace()
        for process in self._all:
            process.kill()
        for process in self._all:
            process.join()

    def leave_in_peace(self) -> None:
        """Let all workers work, from now on."""
        self._peace.set()
        self._thread.join()
        for process in list(self._stopped):
            self._continue(process)

    def _started(self) -> Any:
        process = self._context.Process(target=_work, args=(self._url, next(self._names), os.getpid()), daemon=True)
        # a Ctrl-C is for this process, which kills them: they begin with it blocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def _disturb(self) -> None:
        """Kill or stop one now and then, and continue those that have stood still for long enough."""
        next_one = time.monotonic() + 1.0  # they take a while to start
        while not self._peace.wait(0.01):
            now = time.monotonic()
            for process in [process for process, until in self._stopped.items() if until < now]:
                self._continue(process)
            if any(not process.is_alive() for process in self._all):
                self.failure = "a worker has ended by itself: its error is above"
                return
            free = [process for process in self._all if process not in self._stopped]
            if now < next_one or len(free) < 2:
                continue
            next_one = now + self._chance.uniform(0.1, 0.4)
            process = self._chance.choice(free)
            if self._chance.random() < 0.25:
                process.kill()
                process.join()
                self.kills += 1
                self._all.remove(process)
                self._all.append(self._started())
            else:
                os.kill(process.pid, signal.SIGSTOP)
                self.stops += 1
                self._stopped[process] = now + self._chance.uniform(*_STOPPED)

    def _continue(self, process: Any) -> None:
        os.kill(process.pid, signal.SIGCONT)
        del self._stopped[process]


# ---------------------------------------------------------------- tasks


class _Life:
    """The others that use the database: they enqueue, cancel and retry tasks, and pause workflows."""

    def __init__(self, connection: Connection, chance: random.Random) -> None:
        self.count = 0
        self._connection, self._chance = connection, chance
        self._ids: list[str] = []
        self._workflows = [Workflow(name=f"workflow {number}", status=WorkflowStatus.ACTIVE) for number in range(3)]
        for workflow in self._workflows:
            self._do(workflows.create, workflow)

    def _do(self, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
        return _patiently(self._connection, function, *given, **options)

    def go_on(self) -> None:
        """Do a little of everything."""
        chance = self._chance
        missing = _UNFINISHED - tasks.count(self._connection, status=["pending", "running"])
        for _ in range(min(missing, 20)):
            self._enqueue()
        if chance.random() < 0.2:
            with contextlib.suppress(StaleRecord):  # it has ended meanwhile
                self._do(tasks.cancel, chance.choice(self._ids[-_UNFINISHED:]))
        if chance.random() < 0.2:
            self._retry()
        if chance.random() < 0.1:
            status = chance.choice((WorkflowStatus.PAUSED, WorkflowStatus.ACTIVE))
            self._do(workflows.set_status, chance.choice(self._workflows).id, status)

    def _enqueue(self) -> None:
        chance = self._chance
        earlier = chance.sample(self._ids[-10:], k=min(len(self._ids), chance.choice((0, 0, 1, 2))))
        task = Task(
            title=f"Task {self.count}",
            task_type=chance.choice(("agent", "tool")),
            priority=chance.randrange(10),
            retries=1_000_000,
            retry_delay_ms=chance.randrange(30),
        )
        self._do(tasks.enqueue, task, depends_on=earlier)
        if chance.random() < 0.3:
            self._do(workflow_tasks.add, workflow_id=chance.choice(self._workflows).id, task_id=task.id)
        self._ids.append(task.id)
        self.count += 1

    def _retry(self) -> None:
        for task in tasks.find(self._connection, status=["cancelled", "failed"], limit=10).items:
            self._do(tasks.retry, task.id)

    def end(self, deadline: float) -> None:
        """Hold nothing back any more, and wait until all tasks are completed."""
        for workflow in self._workflows:
            self._do(workflows.set_status, workflow.id, WorkflowStatus.ACTIVE)
        while time.monotonic() < deadline:
            self._retry()
            if not tasks.count(self._connection, status=["pending", "running", "failed", "cancelled"]):
                return
            time.sleep(0.05)

    def lost(self) -> Iterator[str]:
        """Yield in words each task that was enqueued and is not completed at the end."""
        for id in self._ids:
            task = tasks.get(self._connection, id)
            if task is None:
                yield f"{id} has gone"
            elif task.status != "completed":
                yield f"{id} is {task.status.value} at the end: {task}"


# ---------------------------------------------------------------- report


def _report(connection: Connection, life: _Life, crowd: _Crowd, seconds: float) -> Report:
    notes = fetch(connection, "SELECT kind, task_id, attempt FROM torture_notes")
    kinds = collections.Counter(kind for kind, *_ in notes)
    effects: dict[str, list[int]] = collections.defaultdict(list)
    for kind, id, attempt in notes:
        if kind == "effect":
            effects[id].append(attempt)
    found = [
        *life.lost(),
        *(f"{id}: attempt {attempt} had lost it, and ended it in SQL" for kind, id, attempt in notes if kind == "late"),
        *violations(connection, effects, _STEPS),
    ]
    return Report(
        seconds=round(seconds, 1),
        kills=crowd.kills,
        stops=crowd.stops,
        tasks=life.count,
        claims=fetch(connection, "SELECT CAST(sum(attempt) AS bigint) FROM tasks")[0][0],
        lost_leases=kinds["lost"],
        late_writes_refused=kinds["refused"],
        violations=found,
    )


# ---------------------------------------------------------------- command


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dao.testing.torture", description=__doc__.split("\n\n")[0])
    parser.add_argument("url", help="a database that is migrated and holds no tasks")
    parser.add_argument("--minutes", type=float, default=1.0, help="for how long (default: 1)")
    parser.add_argument("--workers", type=int, default=6, help="how many processes (default: 6)")
    parser.add_argument("--seed", type=int, help="of what is done at random")
    given = parser.parse_args(arguments)
    try:
        report = torture(given.url, seconds=given.minutes * 60, workers=given.workers, seed=given.seed)
    except (Error, OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: no law was checked", file=sys.stderr)
        return 130
    for name, value in attrs.asdict(report, filter=attrs.filters.exclude("violations")).items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(f"violations: {len(report.violations)}")
    for text in report.violations[:_MOST]:
        print(f"  {text}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(_main())
