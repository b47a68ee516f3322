"""Rules of another state machine: the life of tasks among workers, dependencies and workflows that are paused.

The model is kept in Python. Copies of the table are taken on the way, and in the end each is held against what
`tasks.as_of` says of its moment.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from datetime import datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import dao
from dao import TaskStatus, codec, task_dependencies, task_events, tasks, workflow_tasks, workflows
from dao.engine import fetch
from dao.testing import make_task, make_workflow

MILLISECOND = timedelta(milliseconds=1)
PENDING, RUNNING, COMPLETED, FAILED, CANCELLED = TaskStatus
UNFINISHED = {PENDING, RUNNING}

numbers = st.integers(0, 9)
booleans = st.booleans()
aheads = st.sampled_from([0, 0, 0, 3, 3_600_000]).map(lambda count: count * MILLISECOND)
# some have ended when the next rule runs
leases = st.sampled_from([1, 1, 3_600_000]).map(lambda count: count * MILLISECOND)


def without_lease(task: dao.Task | None) -> dict[str, Any] | None:
    """Return what `as_of` tells of a task: not the lease, which heartbeats move without a version."""
    return None if task is None else task.to_dict() | {"lease_expires_at": None}


class Life(RuleBasedStateMachine):
    """Tasks as they should be, and what holds them back; `moved` are those of which a rule made another version."""

    def __init__(self, fresh: Any) -> None:
        super().__init__()
        self.end = contextlib.ExitStack()
        self.connection = self.end.enter_context(fresh())
        self.tasks: dict[str, dao.Task] = {}
        self.links: set[tuple[str, str]] = set()
        self.flows: dict[str, tuple[bool, set[str]]] = {}
        self.moved: set[str] = set()
        self.held: list[dao.Task] = []
        self.copies: list[tuple[datetime, dict[str, dao.Task]]] = []
        self.number = itertools.count()
        self.now = codec.now()

    # ------------------------------------------------------------ the model

    def tick(self) -> datetime:
        """Return the time, which both the function and the model get; it does not go back."""
        self.now = max(self.now, codec.now())
        return self.now

    def pick(self, number: int) -> str:
        """Return the id of some task, or, rarely, one that none has."""
        present = sorted(self.tasks)
        return present[number % len(present)] if present and number < 9 else "nobody"

    def change(self, id: str, **changes: Any) -> None:
        """Note a new version of a task."""
        if changes.get("status", RUNNING) is not RUNNING:
            changes |= {"worker": None, "lease_expires_at": None}
        self.tasks[id] = attrs.evolve(self.tasks[id], **changes)
        self.moved.add(id)

    def count(self) -> None:
        """Bring up to date what the database counts, and what a task's end takes with it."""
        self.links = {(one, other) for one, other in self.links if {one, other} <= self.tasks.keys()}
        self.flows = {id: (paused, members & self.tasks.keys()) for id, (paused, members) in self.flows.items()}
        for id, task in list(self.tasks.items()):
            waiting = sum(one == id and self.tasks[other].status is not COMPLETED for one, other in self.links)
            paused = sum(paused and id in members for paused, members in self.flows.values())
            if (task.waiting_for, task.paused_by) != (waiting, paused):
                self.change(id, waiting_for=waiting, paused_by=paused)

    def has_key(self, task: dao.Task) -> bool:
        """Return whether another unfinished task has the key of this one."""
        return task.dedup_key is not None and any(
            other.dedup_key == task.dedup_key and other.status in UNFINISHED and other.id != task.id
            for other in self.tasks.values()
        )

    def upstream(self, id: str) -> set[str]:
        """Return a task and all that it waits for, by way of others, too."""
        found, todo = set(), [id]
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += [other for task, other in self.links if task == one]
        return found

    # ------------------------------------------------------------ what must hold

    @invariant()
    def database_and_model_agree(self) -> None:
        """Every task is as expected, counters included, and has another version if it was changed, and only then."""
        self.count()
        found = {task.id: task for task in tasks.iter_all(self.connection)}
        assert found.keys() == self.tasks.keys()
        for id, task in found.items():
            if id in self.moved:
                assert task.updated_at > self.tasks[id].updated_at
                self.tasks[id] = attrs.evolve(self.tasks[id], updated_at=task.updated_at)
            assert task == self.tasks[id]
        self.moved.clear()

    def teardown(self) -> None:
        """The history gives every copy back, and has no step in it that is not allowed."""
        with self.end:
            every = {id for (id,) in fetch(self.connection, "SELECT task_id FROM task_events")}
            for moment, copy in self.copies:
                for id in every | {"nobody"}:
                    if id != "nobody" or self.any_before(moment):
                        told = tasks.as_of(self.connection, id, moment)
                        assert without_lease(told) == without_lease(copy.get(id)), (id, moment)
            for id in every:
                self.check_events(task_events.list_of(self.connection, id), self.tasks.get(id))

    def any_before(self, moment: datetime) -> bool:
        """Return whether there are events of the time before."""
        return any(event.at <= moment for event in task_events.find(self.connection, limit=1).items)

    def check_events(self, events: list[dao.TaskEvent], last: dao.Task | None) -> None:
        """Check that each version follows from the one before."""
        assert events[0].from_status is None
        for before, after in itertools.pairwise(events):
            assert (after.from_status, after.at > before.at) == (before.to_status, True)
            begins = after.to_status is RUNNING and after.from_status is not RUNNING
            assert after.attempt == before.attempt + begins
            if before.to_status not in UNFINISHED:
                assert after.to_status in {before.to_status, PENDING, None}
            if before.to_status is PENDING and before.attempt > 0:
                assert after.to_status not in {COMPLETED, FAILED}
        assert (events[-1].to_status is None) == (last is None)
        if last is not None:
            assert (events[-1].at, events[-1].to_status) == (last.updated_at, last.status)

    # ------------------------------------------------------------ copies

    @rule()
    def copy(self) -> None:
        """Take a copy of the table, of a moment that everything comes before or after."""
        ats = [event.at for id in self.tasks for event in task_events.list_of(self.connection, id)[-1:]]
        gone = fetch(self.connection, "SELECT max(at) FROM task_events")[0][0]
        moment = max([self.tick(), *ats, *([] if gone is None else [codec.time_from_text(codec.canonical_time(gone))])])
        while codec.now() <= moment:
            time.sleep(0.0005)
        self.copies.append((moment, dict(self.tasks)))

    # ------------------------------------------------------------ producers

    @initialize(size=st.integers(2, 4))
    def begin(self, size: int) -> None:
        """Begin with tasks to work on, and a workflow."""
        for _ in range(size):
            self.enqueue(1, 1, None, [], timedelta(0))
        self.make_flow()

    @precondition(lambda self: len(self.tasks) < 12)
    @rule(
        priority=st.integers(0, 2),
        retries=st.integers(0, 2),
        key=st.sampled_from([None, None, "k", "l"]),
        on=st.lists(numbers, max_size=2),
        ahead=aheads,
    )
    def enqueue(self, priority: int, retries: int, key: str | None, on: list[int], ahead: timedelta) -> None:
        """A new task is stored, unless an unfinished one has its key; it waits for what it depends on."""
        now = self.tick()
        task = make_task(
            id=f"t{next(self.number)}",
            priority=priority,
            retries=retries,
            dedup_key=key,
            created_at=now,
            run_at=now + ahead,
        )
        before = {self.pick(number) for number in on} - {"nobody"}
        if self.has_key(task):
            stored, is_new = tasks.enqueue(self.connection, task, depends_on=before, now=now)
            assert not is_new
            assert stored == self.tasks[stored.id]
            assert (stored.dedup_key, stored.status in UNFINISHED) == (key, True)
            return
        stored, is_new = tasks.enqueue(self.connection, task, depends_on=before, now=now)
        assert is_new
        self.tasks[task.id] = task
        self.links |= {(task.id, id) for id in before}
        self.count()
        assert stored == attrs.evolve(self.tasks[task.id], updated_at=stored.updated_at)

    @rule(number=numbers, title=st.sampled_from(["a", 'é"\\\n']), ahead=aheads, priority=st.integers(0, 2))
    def edit(self, number: int, title: str, ahead: timedelta, priority: int) -> None:
        """Whoever edits a task makes a version of it, and leaves its lease and what is counted."""
        if (id := self.pick(number)) in self.tasks:
            changes = {"title": title, "run_at": self.tick() + ahead, "priority": priority, "metadata": [title, None]}
            record = attrs.evolve(self.tasks[id], **changes)
            assert tasks.update(self.connection, record).title == title
            self.change(id, **changes)

    @rule(number=numbers, status=st.sampled_from(TaskStatus), error=st.sampled_from([None, "e"]))
    def set_status(self, number: int, status: TaskStatus, error: str | None) -> None:
        """A status is set past all workers; what is finished becomes pending first, what was begun runs first."""
        id, now = self.pick(number), self.tick()
        if id not in self.tasks:
            with pytest.raises(dao.NotFound):
                tasks.set_status(self.connection, id, status)
            return
        old = self.tasks[id]
        again = old.status is PENDING and old.attempt > 0 and status in {COMPLETED, FAILED}
        if again or (old.status not in UNFINISHED and status not in {old.status, PENDING}):
            with pytest.raises(dao.CheckViolation) as refused:
                tasks.set_status(self.connection, id, status, error=error, now=now)
            assert refused.value.constraint == "tasks_status_transition"
            return
        if status is PENDING and old.status not in UNFINISHED and self.has_key(old):
            with pytest.raises(dao.UniqueViolation):
                tasks.set_status(self.connection, id, status, error=error, now=now)
            return
        tasks.set_status(self.connection, id, status, error=error, now=now)
        repeated = status is old.status
        if status is PENDING:
            times: dict[str, Any] = {"started_at": None, "completed_at": None}
        elif status is RUNNING:
            times = {"started_at": old.started_at if repeated and old.started_at else now, "completed_at": None}
            times["attempt"] = old.attempt + (not repeated)
        else:
            times = {"completed_at": old.completed_at if repeated and old.completed_at else now}
        self.change(id, status=status, error=error, **times)

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        """What is not finished is cancelled, whoever has it; a second time nothing happens."""
        id, now = self.pick(number), self.tick()
        status = self.tasks[id].status if id in self.tasks else None
        if status in {None, COMPLETED, FAILED}:
            with pytest.raises(dao.NotFound if status is None else dao.StaleRecord):
                tasks.cancel(self.connection, id, now=now)
            return
        assert tasks.cancel(self.connection, id, error="c", now=now).status is CANCELLED
        if status in UNFINISHED:
            self.change(id, status=CANCELLED, completed_at=now, error="c")

    @rule(number=numbers)
    def retry(self, number: int) -> None:
        """What is finished, or waits, may run at once; what runs does not."""
        id, now = self.pick(number), self.tick()
        old = self.tasks.get(id)
        if old is None or old.status is RUNNING:
            with pytest.raises(dao.NotFound if old is None else dao.StaleRecord):
                tasks.retry(self.connection, id, now=now)
        elif old.status is PENDING:
            tasks.retry(self.connection, id, now=now)
            self.change(id, run_at=min(old.run_at, now), started_at=None, completed_at=None)
        elif self.has_key(old):
            with pytest.raises(dao.UniqueViolation):
                tasks.retry(self.connection, id, now=now)
        else:
            tasks.retry(self.connection, id, now=now)
            self.change(id, status=PENDING, run_at=now, failures=0, error=None, started_at=None, completed_at=None)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        """A task goes with its dependencies, in both directions, and its places in workflows."""
        id = self.pick(number)
        assert tasks.delete(self.connection, id) == (self.tasks.pop(id, None) is not None)

    @rule(limit=st.integers(1, 3))
    def prune(self, limit: int) -> None:
        """What is finished goes, the oldest first, unless an unfinished task would begin without it."""
        now = self.tick()
        waited = {other for one, other in self.links if self.tasks[one].status in UNFINISHED}
        gone = sorted(
            (task.completed_at or task.created_at, task.id)
            for task in self.tasks.values()
            if task.status not in UNFINISHED
            and (task.completed_at or task.updated_at) < now
            and (task.completed_at or task.created_at) < now
            and (task.status is COMPLETED or task.id not in waited)
        )[:limit]
        assert tasks.prune(self.connection, before=now, limit=limit) == len(gone)
        for _, id in gone:
            del self.tasks[id]

    # ------------------------------------------------------------ workers

    def save(self, limit: int, now: datetime) -> list[str]:
        """Note that the attempts are ended whose lease has: the longest ago first."""
        lost = sorted(
            (task.lease_expires_at, task.id)
            for task in self.tasks.values()
            if task.lease_expires_at is not None and task.lease_expires_at < now
        )[:limit]
        for ended, id in lost:
            error = f"the lease of worker {self.tasks[id].worker!r} ended at {codec.time_to_text(ended)}"
            self.fail_model(id, error, now, now, retry=True)
        return [id for _, id in lost]

    def fail_model(self, id: str, error: str, run_at: datetime, now: datetime, *, retry: bool) -> None:
        """Note that an attempt has failed."""
        task = self.tasks[id]
        if retry and task.failures < task.retries:
            end: dict[str, Any] = {"status": PENDING, "run_at": run_at, "started_at": None, "completed_at": None}
        else:
            end = {"status": FAILED, "completed_at": now}
        self.change(id, **end, failures=task.failures + 1, error=error)

    @rule(limit=st.integers(1, 3), lease=leases, worker=st.sampled_from(["v", "w"]))
    def claim(self, limit: int, lease: timedelta, worker: str) -> None:
        """What is due is claimed, in order, once; before that what was lost is taken back."""
        now = self.tick()
        self.save(100, now)
        due = sorted(
            (-task.priority, task.run_at, task.id)
            for task in self.tasks.values()
            if task.status is PENDING and task.run_at <= now and not task.waiting_for and not task.paused_by
        )[:limit]
        claimed = tasks.claim(self.connection, worker=worker, lease=lease, limit=limit, now=now)
        assert [task.id for task in claimed] == [id for *_, id in due]
        for *_, id in due:
            self.change(
                id,
                status=RUNNING,
                attempt=self.tasks[id].attempt + 1,
                worker=worker,
                lease_expires_at=now + lease,
                started_at=now,
                completed_at=None,
                error=None,
            )
        assert claimed == [tasks.get_one(self.connection, task.id) for task in claimed]
        self.held += claimed

    @rule(limit=st.integers(1, 3))
    def rescue(self, limit: int) -> None:
        """What was lost is taken back, so many at a time."""
        now = self.tick()
        expected = self.save(limit, now)
        assert [task.id for task in tasks.rescue(self.connection, limit=limit, now=now)] == expected

    @precondition(lambda self: self.held)
    @rule(
        number=numbers,
        verb=st.sampled_from(["renew", "complete", "complete", "fail", "release"]),
        again=booleans,
        ahead=aheads,
    )
    def write(self, number: int, verb: str, again: bool, ahead: timedelta) -> None:  # noqa: FBT001
        """A worker's write counts if its attempt has the task, whatever the clock says, and else is refused."""
        token, now, connection = self.held[-1 - number % len(self.held)], self.tick(), self.connection
        calls = {
            "renew": lambda: tasks.renew(connection, token, lease=ahead + MILLISECOND, now=now),
            "complete": lambda: tasks.complete(connection, token, now=now),
            "fail": lambda: tasks.fail(connection, token, error="f", retry=again, retry_in=ahead, now=now),
            "release": lambda: tasks.release(connection, token, run_at=now + ahead if again else None, now=now),
        }
        present = self.tasks.get(token.id)
        if present is None or (present.status, present.attempt) != (RUNNING, token.attempt):
            with pytest.raises(dao.LeaseLost) as lost:
                calls[verb]()
            assert lost.value.status == (None if present is None else present.status)
            assert lost.value.worker == (None if present is None else present.worker)
            return
        written = calls[verb]()
        if verb == "renew":
            self.tasks[token.id] = attrs.evolve(present, lease_expires_at=now + ahead + MILLISECOND)
        elif verb == "complete":
            self.change(token.id, status=COMPLETED, completed_at=now, error=None)
        elif verb == "fail":
            self.fail_model(token.id, "f", now + ahead, now, retry=again)
        else:
            moved = {"run_at": now + ahead} if again else {}
            self.change(token.id, status=PENDING, started_at=None, completed_at=None, **moved)
        assert written == tasks.get_one(connection, token.id)

    # ------------------------------------------------------------ dependencies, workflows

    @rule(number=numbers, on=st.lists(numbers, min_size=1, max_size=3))
    def depend(self, number: int, on: list[int]) -> None:
        """A task waits for others, unless they wait for it: then nothing of it is stored."""
        id, others = self.pick(number), {self.pick(one) for one in on} - {"nobody"}
        if id not in self.tasks or not others - {id}:
            return
        others.discard(id)
        if any(id in self.upstream(other) for other in others):
            with pytest.raises(dao.CheckViolation) as refused:
                task_dependencies.add(self.connection, id, others)
            assert refused.value.constraint == "task_dependencies_no_cycle"
            return
        new = {(id, other) for other in others} - self.links
        added = task_dependencies.add(self.connection, id, others)
        assert {(link.task_id, link.depends_on) for link in added} == new
        self.links |= new

    @precondition(lambda self: self.links)
    @rule(number=numbers)
    def part(self, number: int) -> None:
        """A task waits for another no longer."""
        link = sorted(self.links)[number % len(self.links)]
        assert task_dependencies.remove(self.connection, *link)
        self.links.remove(link)

    @precondition(lambda self: len(self.flows) < 3)
    @rule()
    def make_flow(self) -> None:
        """A new workflow, which is not paused."""
        flow = make_workflow(id=f"w{next(self.number)}")
        workflows.create(self.connection, flow)
        self.flows[flow.id] = (False, set())

    @precondition(lambda self: self.flows)
    @rule(flow=numbers, number=numbers, verb=st.sampled_from(["toggle", "toggle", "put", "put", "take", "delete"]))
    def flow(self, flow: int, number: int, verb: str) -> None:
        """A paused workflow holds its tasks back, also those that it gets, and none that it loses."""
        id, task = sorted(self.flows)[flow % len(self.flows)], self.pick(number)
        paused, members = self.flows[id]
        if verb == "toggle":
            workflows.set_status(self.connection, id, "active" if paused else "paused")
            self.flows[id] = (not paused, members)
        elif verb == "delete":
            workflows.delete(self.connection, id)
            del self.flows[id]
        elif verb == "take":
            assert workflow_tasks.remove(self.connection, id, task) == (task in members)
            members.discard(task)
        elif task in self.tasks and task not in members:
            workflow_tasks.add(self.connection, id, task)
            members.add(task)
