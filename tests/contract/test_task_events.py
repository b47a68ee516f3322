"""Task events: what `dao.task_events` promises, and `tasks.as_of`, which reads them backwards."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import dao
from dao import codec, configurations, task_dependencies, task_events, tasks, workflows
from dao.engine import fetch
from dao.testing import make_task, make_workflow
from tests.concurrency import Worker
from tests.engines import is_sqlite

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]
server_only = pytest.mark.parametrize("engine", ["postgresql"])

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def stored(connection: Any, **fields: Any) -> dao.Task:
    task = make_task(**{"created_at": NOON} | fields)
    tasks.create(connection, task)
    return task


def followed(connection: Any, limit: int = 100) -> list[dao.TaskEvent]:
    """Return all events, page by page."""
    page = task_events.find(connection, limit=limit)
    events = list(page.items)
    while page.has_more:
        page = task_events.find(connection, after=page.next, limit=limit)
        events += page.items
    return events


# ---------------------------------------------------------------- what is written


def test_each_version_of_a_task_is_one_event(connection):
    """Creation, changes and the end: who, when, from what to what, and what was there before."""
    task = stored(connection, id="a", title="é\"'\n", metadata={"nul": None, "big": 2**60})
    first = tasks.set_status(connection, "a", "running", now=at(1))
    second = tasks.update(connection, attrs.evolve(first, title="b", metadata=[1.5], worker=None))
    third = tasks.set_status(connection, "a", "failed", error="no", now=at(3))
    tasks.delete(connection, "a")
    events = task_events.list_of(connection, "a")
    assert [(event.from_status, event.to_status, event.attempt, event.error) for event in events] == [
        (None, "pending", 0, None),
        ("pending", "running", 1, None),
        ("running", "running", 1, None),
        ("running", "failed", 1, "no"),
        ("failed", None, 1, "no"),
    ]
    versions = [task, first, second, third]
    assert [event.at for event in events[:-1]] == [version.updated_at for version in versions]
    assert events[-1].at > third.updated_at
    assert [json.dumps(event.previous) for event in events[:-1]] == [
        "{}",
        json.dumps({"status": "pending", "updated_at": "2026-01-01T12:00:00.000Z", "started_at": None, "attempt": 0}),
        json.dumps(
            {
                "title": "é\"'\n",
                "metadata": '{"nul":null,"big":1152921504606846976}',
                "updated_at": dao.codec.time_to_text(first.updated_at),
            }
        ),
        json.dumps(
            {
                "status": "running",
                "error": None,
                "updated_at": dao.codec.time_to_text(second.updated_at),
                "completed_at": None,
            }
        ),
    ]
    columns = [field.name for field in attrs.fields(dao.Task) if field.name != "id"]
    assert list(events[-1].previous) == columns
    assert tasks.as_of(connection, "a", third.updated_at) == third


def test_previous_is_the_same_text_on_both_engines(make):
    """A follower in any language reads the same, whichever engine wrote it."""
    texts = []
    for engine in ("sqlite", "postgresql"):
        with contextlib.closing(dao.connect(make(engine))) as connection:
            task = stored(
                connection,
                id="a",
                title='\x01\t"\\ é \U0001f600 </a>',
                description="\n",
                config={"b": "\x7f", "a": 1.0},
                workspace_path="/",
            )
            changed = attrs.evolve(
                task,
                title="b",
                description=None,
                config={},
                metadata=None,
                workspace_path=None,
                priority=3,
                run_at=at(1),
                retries=2,
                retry_delay_ms=5,
                dedup_key="k",
                error="e",
            )
            changed = tasks.update(connection, changed)
            moment = dao.codec.time_to_text(changed.updated_at)
            tasks.delete(connection, "a")
            rows = fetch(connection, "SELECT previous FROM task_events ORDER BY seq")
            texts.append([text.replace(moment, "…") for (text,) in rows])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("correction", ["UPDATE tasks SET status = 'failed'", "DELETE FROM tasks"])
def test_task_of_an_unknown_status_can_be_corrected(connection, correction):
    """The event refused the status that was there before: what was written past the constraints stayed for ever."""
    task = stored(connection)
    if is_sqlite(connection):
        connection.pragma("ignore_check_constraints", True)
    else:
        connection.execute("ALTER TABLE tasks DROP CONSTRAINT tasks_status_known")
        connection.execute("ALTER TABLE task_events DROP CONSTRAINT task_events_to_status_known")
    connection.execute("UPDATE tasks SET status = 'lost'")
    if is_sqlite(connection):
        connection.pragma("ignore_check_constraints", False)
    known = fetch(connection, "SELECT max(updated_at) FROM tasks")[0][0]
    connection.execute(correction)
    ((old, previous),) = fetch(connection, "SELECT from_status, previous FROM task_events ORDER BY seq DESC LIMIT 1")
    assert (old, json.loads(previous)["status"]) == (None, "lost")
    with pytest.raises(dao.UnreadableRow, match="lost"):
        tasks.as_of(connection, task.id, codec.time_from_text(codec.canonical_time(known)))


def test_events_can_be_left_out(connection):
    """The configuration `task_events`, set to False, turns them off, and on again when it is set to True or deleted."""
    stored(connection, id="a")
    configurations.set(connection, "task_events", False)
    tasks.set_status(connection, "a", "running")
    stored(connection, id="b")
    tasks.delete(connection, "b")
    configurations.set(connection, "task_events", True)
    tasks.set_status(connection, "a", "completed")
    assert [(event.task_id, event.to_status) for event in followed(connection)] == [
        ("a", "pending"),
        ("a", "completed"),
    ]


# ---------------------------------------------------------------- get, list_of, find


def test_get_and_get_one_by_seq(connection):
    """One that is there, and one that is not."""
    stored(connection)
    (event,) = followed(connection)
    assert task_events.get(connection, event.seq) == task_events.get_one(connection, event.seq) == event
    assert task_events.exists(connection, event.seq)
    assert task_events.get(connection, event.seq + 1) is None
    assert not task_events.exists(connection, event.seq + 1)
    with pytest.raises(dao.NotFound) as missing:
        task_events.get_one(connection, event.seq + 1)
    assert (missing.value.table, missing.value.key) == ("task_events", event.seq + 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_find_pages_through_all_in_order(connection, limit):
    """Whatever the page: every event once, in the order of `seq`, from any event on; `next` or `seq` leads on."""
    for number in range(3):
        task = stored(connection, id=str(number))
        tasks.set_status(connection, task.id, "running")
    events = followed(connection, limit)
    assert [(event.task_id, event.to_status) for event in events] == [
        (str(number), status) for number in range(3) for status in ("pending", "running")
    ]
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    for place, event in enumerate(events):
        page = task_events.find(connection, after=event.seq, limit=limit)
        assert page.items == events[place + 1 : place + 1 + limit]
        assert page.has_more == (place + 1 + limit < len(events))
    assert task_events.find(connection, after=events[-1].seq).to_dict() == {"items": [], "next": None}


@pytest.mark.parametrize(
    "after",
    [-1, 1.0, True, "", "-1", "1.0", " 1", "٣", "x", 2**63, str(2**63), b"1", pytest.param("9" * 5000, id="long")],
    ids=repr,
)
def test_find_after_what_is_no_event_is_refused(connection, after):
    """Nothing but a number of an event, as a number or as text, says where to go on."""
    with pytest.raises(dao.InvalidCursor, match="the seq of an event"):
        task_events.find(connection, after=after)


@pytest.mark.parametrize("limit", [0, 1001, True, 1.5, "5", None])
def test_find_limit_is_that_of_a_page(connection, limit):
    """From 1 to 1000, as everywhere."""
    with pytest.raises(ValueError, match="limit must be a whole number from 1 to 1000"):
        task_events.find(connection, limit=limit)


@server_only
def test_find_holds_back_what_an_open_transaction_may_come_before(url, connection):
    """A later event that is committed first waits for the earlier one, which would be missed."""
    with contextlib.closing(dao.connect(url)) as slow, contextlib.closing(dao.connect(url)) as other:
        stored(connection, id="0")
        (before,) = task_events.find(connection).items
        with dao.transaction(other):
            stored(other, id="early")
            with dao.transaction(slow):
                stored(slow, id="slow")
                stored(connection, id="quick")  # commits before both
                assert task_events.find(connection, after=before.seq).items == []
            assert task_events.find(connection, after=before.seq).items == []
        found = task_events.find(connection, after=before.seq).items
        assert [event.task_id for event in found] == ["early", "slow", "quick"]


def test_find_is_held_up_only_by_who_may_write_an_earlier_event(url, connection):
    """By no long transaction that writes something else, or no row, and by nothing that was undone, even in part."""
    with contextlib.closing(dao.connect(url)) as undone:
        with pytest.raises(LookupError), dao.transaction(undone):  # noqa: PT012 - the block is the test
            stored(undone, id="undone")
            raise LookupError
        if url.startswith("sqlite"):
            stored(connection, id="a")
        else:
            with dao.transaction(undone):
                configurations.set(undone, "a", 1)
                undone.execute("INSERT INTO tasks (id, title, task_type) SELECT 'none', 'None', 'x' WHERE false")
                with pytest.raises(LookupError), dao.transaction(undone):  # noqa: PT012 - likewise
                    stored(undone, id="undone, too")
                    raise LookupError
                stored(connection, id="a")
                assert [event.task_id for event in task_events.find(connection).items] == ["a"]
                stored(undone, id="b")
                stored(connection, id="c")
                assert [event.task_id for event in task_events.find(connection).items] == ["a"]
    stored(connection, id="d")
    ids = [event.task_id for event in task_events.find(connection).items]
    assert ids == (["a", "d"] if url.startswith("sqlite") else ["a", "b", "c", "d"])


@server_only
def test_events_of_a_task_begin_with_its_creation_whatever_else_the_statement_does(connection):
    """A trigger of another table changes the task that the same statement makes: who follows sees that after it."""
    workflows.create(connection, make_workflow(id="w", status="paused"))
    connection.execute(
        "WITH made AS (INSERT INTO tasks (id, title, task_type) VALUES ('a', 'A', 'x'), ('b', 'B', 'x') RETURNING id) "
        "INSERT INTO workflow_tasks (workflow_id, task_id, sequence) SELECT 'w', id, 1 FROM made"
    )
    for id in "ab":
        created, held = task_events.list_of(connection, id)
        assert (created.from_status, held.previous["paused_by"]) == (None, 0)


@server_only
def test_find_where_it_could_miss_events_is_refused(url, connection):
    """In a snapshot of the past nobody can tell what was complete; alone, a statement has a new one."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(dao.OperationalError, match="REPEATABLE READ"):
        task_events.find(connection)
    connection.execute("ROLLBACK")
    connection.execute("SET default_transaction_isolation = 'serializable'")
    assert task_events.find(connection).items == []


@server_only
@pytest.mark.sample(1)  # no run on SQLite stands for a case of it
@pytest.mark.parametrize("last", [2**32 - 2, 2**32 - 1, 2**32, 2**33 + 2**31, 2**62])
def test_find_holds_back_whatever_the_size_of_the_numbers(url, connection, last):
    """The key of a lock has room for half of a number, and says which one all the same."""
    connection.execute(f"ALTER TABLE task_events ALTER seq RESTART WITH {last}")
    stored(connection, id="0")
    with contextlib.closing(dao.connect(url)) as slow:
        with dao.transaction(slow):
            stored(slow, id="1")
            for number in range(2, 5):
                stored(connection, id=str(number))
            assert [event.task_id for event in task_events.find(connection).items] == ["0"]
        assert [event.task_id for event in task_events.find(connection).items] == [*"01234"]


def test_find_misses_nothing_while_many_write(url, connection):
    """A follower beside writers of long, short and undone transactions sees each event once, in order."""
    writers, number = 4, 25

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.closing(dao.connect(url)) as own:
            for turn in range(number):
                with contextlib.suppress(LookupError), dao.transaction(own):
                    for part in range(chance.randrange(1, 4)):
                        stored(own, id=f"{seed}-{turn}-{part}")
                        if chance.random() < 0.3:
                            threading.Event().wait(chance.random() / 200)
                    if chance.random() < 0.2:
                        raise LookupError

    threads = [Worker(write, seed) for seed in range(writers)]
    seen: list[dao.TaskEvent] = []
    while True:
        ended = not any(thread.is_alive() for thread in threads)
        page = task_events.find(connection, after=seen[-1].seq if seen else None, limit=7)
        seen += page.items
        if ended and not page.has_more:
            break
    for thread in threads:
        thread.end()
    every = fetch(connection, "SELECT seq FROM task_events ORDER BY seq")
    assert [event.seq for event in seen] == [seq for (seq,) in every]
    assert len(every) >= writers * number // 2


# ---------------------------------------------------------------- delete_before


def test_delete_before_deletes_the_oldest_first(connection):
    """All before the moment, or so many of them; what comes after is left."""
    for minute in (3, 1, 2, 4):
        stored(connection, id=str(minute), created_at=at(minute))
    assert task_events.delete_before(connection, at(4), limit=2) == 2
    assert [event.task_id for event in followed(connection)] == ["3", "4"]
    assert task_events.delete_before(connection, at(4), batch=1) == 1
    assert task_events.delete_before(connection, at(4)) == 0
    assert [event.task_id for event in followed(connection)] == ["4"]


# ---------------------------------------------------------------- as_of


def test_as_of_returns_each_version_for_its_time(connection):
    """From a version's `updated_at` to the next one's; before the first and after the end there is none."""
    versions = [stored(connection, id="a", metadata={"a": [None, "é"]})]
    versions.append(tasks.set_status(connection, "a", "running", now=at(1)))
    versions.append(tasks.update(connection, attrs.evolve(versions[-1], config={"b": 2.5}, metadata=None)))
    versions.append(tasks.set_status(connection, "a", "failed", error="no", now=at(2)))
    stored(connection, id="b")
    task_dependencies.add(connection, "a", "b")
    versions.append(tasks.get_one(connection, "a"))
    tasks.delete(connection, "b")
    versions.append(tasks.get_one(connection, "a"))
    for repeat in range(2):
        for version, later in zip(versions, [*versions[1:], None], strict=True):
            assert tasks.as_of(connection, "a", version.updated_at) == version
            if later is not None:
                assert tasks.as_of(connection, "a", later.updated_at - MILLISECOND) == version
        assert tasks.as_of(connection, "a", NOON - MILLISECOND) is None
        tasks.delete(connection, "a")
        if not repeat:
            end = task_events.list_of(connection, "a")[-1].at
            assert tasks.as_of(connection, "a", end - MILLISECOND) == versions[-1]
        assert tasks.as_of(connection, "a", end) is None


def test_as_of_a_task_that_came_again(connection):
    """Of a task that was deleted and made again both lives are known."""
    first = stored(connection, id="a")
    tasks.delete(connection, "a")
    end = task_events.list_of(connection, "a")[-1].at
    second = stored(connection, id="a", created_at=end + timedelta(hours=1))
    assert tasks.as_of(connection, "a", at(1)) == first
    assert tasks.as_of(connection, "a", end + timedelta(minutes=59)) is None
    assert tasks.as_of(connection, "a", second.created_at) == second


def test_as_of_a_task_that_was_made_again_by_the_same_record(connection):
    """A record that is enqueued again has the times of the first: the task was said to have waited all the while."""
    task = make_task(id="a", created_at=NOON)
    tasks.create(connection, task)
    (running,) = tasks.claim(connection, worker="w", lease=timedelta(minutes=1))
    tasks.delete(connection, "a")
    tasks.enqueue(connection, task)
    assert tasks.as_of(connection, "a", running.updated_at) == running
    assert tasks.as_of(connection, "a", NOON) == task
    assert tasks.as_of(connection, "a", NOON - MILLISECOND) is None


def test_as_of_needs_no_events_of_the_time_since_the_last_version(connection):
    """A task that has not changed since is known, whatever was deleted of it."""
    task = stored(connection, id="a")
    task_events.delete_before(connection, at(60 * 24 * 365 * 100))
    assert tasks.as_of(connection, "a", NOON) == task
    assert tasks.as_of(connection, "a", NOON - MILLISECOND) is None  # it was made later


def test_as_of_before_what_is_left_is_an_error(connection):
    """Retention limits how far back one can look, and says so; it never gives a version that was another's."""
    first = stored(connection, id="a")
    second = tasks.set_status(connection, "a", "running")
    third = tasks.set_status(connection, "a", "completed")
    task_events.delete_before(connection, third.updated_at)
    assert tasks.as_of(connection, "a", second.updated_at) == second
    with pytest.raises(dao.NotFound, match=r"what the task 'a' was at 2026-01-01T12:00:00.000Z is not known") as lost:
        tasks.as_of(connection, "a", first.updated_at)
    assert (lost.value.table, lost.value.key) == ("task_events", "a")
    tasks.delete(connection, "a")
    task_events.delete_before(connection, task_events.list_of(connection, "a")[-1].at + MILLISECOND)
    with pytest.raises(dao.NotFound):
        tasks.as_of(connection, "a", third.updated_at)


@pytest.mark.parametrize("change", ["edit", "end", "make"])
def test_as_of_a_time_without_events_is_an_error(connection, change):
    """Where events were left out, what was then is not made up from those before and after."""
    if change != "make":
        stored(connection, id="a")
    configurations.set(connection, "task_events", False)
    made = stored(connection, id="a", created_at=at(1)) if change == "make" else tasks.get_one(connection, "a")
    if change == "end":
        tasks.delete(connection, "a")
    else:
        made = tasks.update(connection, attrs.evolve(made, title="b"))
    configurations.delete(connection, "task_events")
    if change != "end":
        last = tasks.set_status(connection, "a", "running")
        assert tasks.as_of(connection, "a", made.updated_at) == made
        assert tasks.as_of(connection, "a", last.updated_at) == last
    with pytest.raises(dao.NotFound, match="is not known"):
        tasks.as_of(connection, "a", at(2))


def test_as_of_a_task_whose_end_was_not_written_and_that_came_again_is_an_error(connection):
    """From the event that made it anew it followed that it had not been there before, though an older event says so."""
    stored(connection, id="a")
    configurations.set(connection, "task_events", False)
    tasks.delete(connection, "a")
    configurations.delete(connection, "task_events")
    again = stored(connection, id="a", created_at=at(5))
    assert tasks.as_of(connection, "a", at(5)) == again
    with pytest.raises(dao.NotFound, match="is not known"):
        tasks.as_of(connection, "a", at(2))


def test_as_of_a_task_that_never_was(connection):
    """None while the events of that time are left; before that nobody can tell."""
    stored(connection, id="a")
    assert tasks.as_of(connection, "nobody", NOON) is None
    with pytest.raises(dao.NotFound):
        tasks.as_of(connection, "nobody", NOON - MILLISECOND)
    with pytest.raises(ValueError, match="naive"):
        tasks.as_of(connection, "a", datetime(2026, 1, 1))  # noqa: DTZ001 - it is naive on purpose
