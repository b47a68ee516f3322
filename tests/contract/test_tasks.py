"""Tasks: what each function of `dao.tasks` promises."""

from __future__ import annotations

import itertools
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

import dao
from dao import Task, TaskStatus, codec, tasks
from dao.engine import execute, in_transaction
from tests.engines import impatient, is_sqlite

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001 - it is naive on purpose
LATER = NOON + timedelta(hours=1)
MUCH_LATER = NOON + timedelta(hours=2)
MILLISECOND = timedelta(milliseconds=1)


def new(**fields) -> Task:
    return Task(**{"title": "Summarise the report", "task_type": "agent", **fields})


def stored(connection: Any, **fields) -> Task:
    task = new(**fields)
    tasks.create(connection, task)
    return task


def at(minutes: int) -> datetime:
    return NOON + timedelta(minutes=minutes)


def titles(page: dao.Page[Task]) -> str:
    return "".join(task.title for task in page.items)


FULL = {
    "description": "Zusammenfassung: naïve 🐍",
    "status": "failed",
    "config": {"model": "m", "depth": {"n": 2**53 + 1}},
    "metadata": [1, 2.5, None, {"a": "b"}],
    "workspace_path": "/srv/a b",
    "error": "exit 1",
    "created_at": NOON,
    "updated_at": LATER,
    "started_at": NOON,
    "completed_at": MUCH_LATER,
}


# ---------------------------------------------------------------- create


@pytest.mark.parametrize("fields", [{}, FULL], ids=["defaults", "all fields"])
def test_create_new_task_reads_back_equal(connection, fields):
    """Storing a record changes nothing in it."""
    task = stored(connection, **fields)
    assert tasks.get(connection, task.id) == task


def test_create_existing_id_raises_unique_violation(engine, connection):
    """A second task with an id is refused by name, and the first stays as it was."""
    task = stored(connection)
    with pytest.raises(dao.UniqueViolation) as caught:
        tasks.create(connection, new(id=task.id, title="another"))
    assert (caught.value.table, caught.value.columns) == ("tasks", ("id",))
    # SQLite gives primary keys no name
    assert caught.value.constraint == (None if engine == "sqlite" else "tasks_pkey")
    assert list(tasks.iter_all(connection)) == [task]


@pytest.mark.parametrize("number", [1, 32, 67])
@pytest.mark.parametrize("make", [list, tuple, iter], ids=lambda make: make.__name__)
def test_create_many_iterable_stores_each(connection, make, number):
    """Any iterable of tasks is stored, each as it is, however many of them one statement takes."""
    several = [new(title=str(place)) for place in range(number)]
    tasks.create_many(connection, make(several))
    assert {task.id: task for task in tasks.iter_all(connection)} == {task.id: task for task in several}


def test_create_many_nothing_writes_nothing(connection):
    """No tasks are none to write."""
    tasks.create_many(connection, [])
    assert tasks.count(connection) == 0


def test_create_many_duplicate_id_writes_none(connection):
    """One id that exists keeps all of the batch out."""
    task = stored(connection)
    for others in (2, 40):
        many = [*(new() for _ in range(others)), new(id=task.id), new()]
        with pytest.raises(dao.UniqueViolation) as caught:
            tasks.create_many(connection, many)
        assert caught.value.columns == ("id",)
        assert list(tasks.iter_all(connection)) == [task]


def test_create_many_failing_iterable_writes_none(connection):
    """What the iterable raises comes out as it is, and what came before it is not stored."""

    def broken():
        yield new()
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        tasks.create_many(connection, broken())
    assert tasks.count(connection) == 0
    assert not in_transaction(connection)


# ---------------------------------------------------------------- get


def test_get_unknown_id_returns_none(connection):
    """No task is None, and for `exists` it is False."""
    assert tasks.get(connection, "nobody") is None
    assert tasks.exists(connection, "nobody") is False


def test_get_one_unknown_id_raises_not_found(connection):
    """The error says which key is missing where, and is a LookupError too."""
    with pytest.raises(dao.NotFound, match=r"tasks.*'nobody'") as caught:
        tasks.get_one(connection, "nobody")
    assert (caught.value.table, caught.value.key) == ("tasks", "nobody")
    assert isinstance(caught.value, LookupError)


def test_get_one_known_id_returns_task(connection):
    """An id finds its own task among others."""
    first, second = stored(connection, title="a"), stored(connection, title="b")
    assert tasks.get_one(connection, first.id) == first
    assert tasks.get_one(connection, second.id) == second
    assert tasks.exists(connection, first.id) is True


# ---------------------------------------------------------------- update


def test_update_every_field_is_stored(connection):
    """All fields but the id and `created_at` are written; `updated_at` moves on and is returned."""
    before = stored(connection, created_at=NOON)
    changes = FULL | {"title": "new", "task_type": "other"}
    del changes["created_at"], changes["updated_at"]
    after = tasks.update(connection, attrs.evolve(before, **changes))
    assert after == attrs.evolve(before, **changes, updated_at=after.updated_at)
    assert after.updated_at > before.updated_at
    assert tasks.get(connection, before.id) == after


def test_update_cleared_fields_are_stored(connection):
    """A field set to None is emptied."""
    before = stored(connection, **FULL)
    cleared = dict.fromkeys(["description", "metadata", "workspace_path", "error", "started_at", "completed_at"])
    after = tasks.update(connection, attrs.evolve(before, config={}, **cleared))
    assert after.to_dict() == before.to_dict() | cleared | {
        "config": {},
        "updated_at": after.to_dict()["updated_at"],
    }


def test_update_changed_created_at_keeps_the_stored_one(connection):
    """When a task was created cannot be changed."""
    before = stored(connection, created_at=NOON)
    after = tasks.update(connection, attrs.evolve(before, created_at=LATER))
    assert after.created_at == NOON


def test_update_returned_record_can_be_updated_again(connection):
    """The record that comes back carries the new version, however fast the updates follow each other."""
    task = stored(connection)
    for number in range(20):
        newer = tasks.update(connection, attrs.evolve(task, title=str(number)))
        assert newer.updated_at > task.updated_at
        task = newer
    assert tasks.get(connection, task.id) == task


def test_update_unknown_id_raises_not_found(connection):
    """A task that was never stored is not stored by an update."""
    task = new()
    with pytest.raises(dao.NotFound) as caught:
        tasks.update(connection, task)
    assert (caught.value.table, caught.value.key) == ("tasks", task.id)
    assert tasks.count(connection) == 0


def test_update_changed_meanwhile_raises_stale_record(connection):
    """Who read an older version is refused, and the newer one stays."""
    old = stored(connection)
    newer = tasks.update(connection, attrs.evolve(old, title="first"))
    with pytest.raises(dao.StaleRecord) as caught:
        tasks.update(connection, attrs.evolve(old, title="second"))
    assert (caught.value.table, caught.value.key) == ("tasks", old.id)
    assert tasks.get(connection, old.id) == newer


def test_update_one_task_leaves_the_others(connection):
    """Only the task with the id is written."""
    task, other = stored(connection), stored(connection)
    tasks.update(connection, attrs.evolve(task, title="changed"))
    assert tasks.get(connection, other.id) == other


# ---------------------------------------------------------------- set_status

PENDING, RUNNING, *FINISHED = TaskStatus


@pytest.mark.parametrize("before", TaskStatus)
def test_set_status_any_to_any_keeps_times_in_step(connection, before):
    """A finished task becomes pending first; else any follows any, and times, error and attempt go with the new one."""
    for after, spell in itertools.product(TaskStatus, (TaskStatus, str)):
        task = stored(connection, status=before, error="old", started_at=NOON, completed_at=NOON)
        if before in FINISHED and after not in {before, PENDING}:
            with pytest.raises(dao.CheckViolation) as caught:
                tasks.set_status(connection, task.id, spell(after), error="new", now=LATER)
            assert caught.value.constraint == "tasks_status_transition"
            assert tasks.get(connection, task.id) == task
            continue
        moved = tasks.set_status(connection, task.id, spell(after), error="new", now=LATER)
        expected = attrs.evolve(
            task,
            status=after,
            error="new",
            started_at=None if after is PENDING else LATER if (after is RUNNING and before is not RUNNING) else NOON,
            completed_at=None if after in {PENDING, RUNNING} else NOON if before is after else LATER,
            attempt=task.attempt + (after is RUNNING and before is not RUNNING),
            updated_at=moved.updated_at,
        )
        assert moved == expected
        assert tasks.get(connection, task.id) == expected
        assert moved.updated_at > task.updated_at


HELD = {"status": RUNNING, "attempt": 3, "worker": "w", "lease_expires_at": LATER}


@pytest.mark.parametrize("after", TaskStatus)
def test_set_status_ends_the_lease_unless_the_task_runs_on(connection, after):
    """Whoever had the task has it no longer, except one that is set to running while it runs: that is left its own."""
    task = stored(connection, **HELD)
    moved = tasks.set_status(connection, task.id, after)
    assert moved.attempt == 3
    kept = ("w", LATER) if after is RUNNING else (None, None)
    assert (moved.worker, moved.lease_expires_at) == kept


@pytest.mark.parametrize("expected", [PENDING, "pending", [PENDING, "running"], {RUNNING, PENDING, *FINISHED}])
def test_set_status_from_an_expected_status_moves_the_task(connection, expected):
    """The status is one of those that were asked for."""
    task = stored(connection)
    assert tasks.set_status(connection, task.id, "cancelled", expected=expected).status == "cancelled"


def test_set_status_from_another_status_than_expected_is_refused(connection):
    """The late worker that finds its task cancelled changes nothing, and is told."""
    task = stored(connection, status="cancelled")
    with pytest.raises(dao.StaleRecord, match="is not pending or running") as caught:
        tasks.set_status(connection, task.id, "completed", expected=["running", "pending"])
    assert (caught.value.table, caught.value.key) == ("tasks", task.id)
    assert tasks.get(connection, task.id) == task
    with pytest.raises(dao.NotFound):
        tasks.set_status(connection, "nobody", "completed", expected="running")
    with pytest.raises(ValueError, match="none is expected"):
        tasks.set_status(connection, task.id, "pending", expected=[])
    with pytest.raises(ValueError, match="'lost' is not a valid TaskStatus"):
        tasks.set_status(connection, task.id, "pending", expected=["running", "lost"])


def test_update_leaves_the_lease_that_was_renewed_meanwhile(connection):
    """A heartbeat makes no version, so that the lease in a record may be stale, and must not come back."""
    task = stored(connection, **HELD)
    renewed = LATER + timedelta(hours=1)
    execute(connection, "UPDATE tasks SET lease_expires_at = $1", (codec.time_to_text(renewed),))
    changed = tasks.update(connection, attrs.evolve(task, title="changed"))
    assert (changed.title, changed.worker, changed.lease_expires_at) == ("changed", "w", renewed)
    other = tasks.update(connection, attrs.evolve(changed, worker="other", lease_expires_at=NOON))
    assert (other.worker, other.lease_expires_at) == ("other", NOON)
    ended = tasks.update(connection, attrs.evolve(other, status=PENDING, worker=None, lease_expires_at=None))
    assert ended.lease_expires_at is None


def test_update_leaves_the_counters(connection):
    """They belong to the triggers: what a record has of them is never written."""
    task, other = stored(connection), stored(connection)
    execute(connection, "INSERT INTO task_dependencies (task_id, depends_on) VALUES ($1, $2)", (task.id, other.id))
    waits = tasks.get_one(connection, task.id)
    changed = tasks.update(connection, attrs.evolve(waits, waiting_for=0, paused_by=7))
    assert (changed.waiting_for, changed.paused_by) == (1, 0)


@pytest.mark.parametrize("after", TaskStatus)
def test_set_status_without_times_sets_the_one_that_is_due(connection, after):
    """From a clean slate running sets the start, the last three set the end, and pending neither."""
    task = stored(connection, status=after)
    moved = tasks.set_status(connection, task.id, after, now=NOON)
    assert (moved.started_at, moved.completed_at) == (
        NOON if after is RUNNING else None,
        NOON if after in FINISHED else None,
    )


@pytest.mark.parametrize("status", TaskStatus)
def test_set_status_repeated_keeps_times_and_clears_error(connection, status):
    """A repeated call moves no time; without an error there is none afterwards."""
    task = stored(connection)
    once = tasks.set_status(connection, task.id, status, error="it broke", now=NOON)
    twice = tasks.set_status(connection, task.id, status, now=LATER)
    assert once.error == "it broke"
    assert twice == attrs.evolve(once, error=None, updated_at=twice.updated_at)


def test_set_status_now_in_another_zone_is_stored_in_utc_milliseconds(connection):
    """`now` is cut to the millisecond in UTC."""
    moment = datetime(2025, 1, 15, 14, 0, 0, 1999, tzinfo=timezone(timedelta(hours=2)))
    task = tasks.set_status(connection, stored(connection).id, RUNNING, now=moment)
    assert task.started_at == NOON + MILLISECOND
    assert task.started_at.tzinfo is UTC


def test_set_status_without_now_takes_the_clock(connection):
    """Without `now` the time is the present one."""
    before = dao.codec.now()
    task = tasks.set_status(connection, stored(connection).id, RUNNING)
    assert before <= task.started_at <= dao.codec.now()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nobody", "running"), dao.NotFound),
        (("nobody", "finished"), ValueError),
        (("nobody", "running", NAIVE), ValueError),
    ],
    ids=["unknown id", "unknown status", "naive time"],
)
def test_set_status_refused_argument_changes_nothing(connection, arguments, error):
    """A wrong id, status or time is refused, and nothing is written."""
    task = stored(connection)
    id, status, *now = arguments
    with pytest.raises(error):
        tasks.set_status(connection, id, status, now=now[0] if now else None)
    assert list(tasks.iter_all(connection)) == [task]


def test_set_status_that_a_trigger_passes_by_is_no_success(connection):
    """A row that is there is not returned as if the statement had changed it."""
    task = stored(connection)
    if is_sqlite(connection):
        connection.execute("CREATE TRIGGER keep BEFORE UPDATE ON tasks BEGIN SELECT raise(IGNORE); END")
    else:
        connection.execute("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        connection.execute("CREATE TRIGGER keep BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION keep()")
    for expected in (None, "pending"):  # one that was as expected was said not to be
        with pytest.raises(dao.StaleRecord, match="was left as it is: a trigger"):
            tasks.set_status(connection, task.id, "running", expected=expected)


def test_set_status_after_the_last_version_is_one_error_on_both_engines(connection):
    """PostgreSQL said that a constraint was broken, and SQLite that a value was missing, as both do for `update`."""
    task = stored(connection)
    tasks.set_status(connection, task.id, "running", now=codec.time_from_text("9999-12-31T23:59:59.999Z"))
    with pytest.raises(dao.NotNullViolation):
        tasks.set_status(connection, task.id, "completed")


# ---------------------------------------------------------------- delete


def test_delete_known_task_is_gone_and_safe_to_repeat(connection):
    """The first call deletes that task alone and says so; the second finds nothing."""
    task, other = stored(connection), stored(connection)
    assert tasks.delete(connection, task.id) is True
    assert tasks.delete(connection, task.id) is False
    assert list(tasks.iter_all(connection)) == [other]


def test_delete_takes_links_and_tool_executions_along(connection):
    """A task goes with its places in workflows and its tool executions; what is others' stays."""
    task, other = stored(connection), stored(connection)
    workflow = dao.Workflow(name="w")
    dao.workflows.create(connection, workflow)
    calls = {}
    for owner in (task, other):
        dao.workflow_tasks.add(connection, workflow_id=workflow.id, task_id=owner.id)
        calls[owner] = dao.tool_executions.start(connection, tool_name="grep", input={}, task_id=owner.id)
    alone = dao.tool_executions.start(connection, tool_name="grep", input={})
    tasks.delete(connection, task.id)
    assert [linked.task for linked in dao.workflow_tasks.list_tasks(connection, workflow.id)] == [other]
    assert set(dao.tool_executions.iter_all(connection)) == {calls[other], alone}
    assert dao.workflows.get(connection, workflow.id) == workflow


# ---------------------------------------------------------------- find, iter_all, count


@pytest.fixture
def shelf(connection):
    """Six tasks, a to f, a minute apart, `e` and `f` at the same one; stored in no order."""
    rows = [
        new(title="a", created_at=at(1), status="pending", workspace_path="/x"),
        new(title="b", created_at=at(2), status="running", workspace_path="/x"),
        new(title="c", created_at=at(3), status="pending", task_type="tool"),
        new(title="d", created_at=at(4), status="failed", task_type="tool", workspace_path="/y"),
        new(title="e", created_at=at(5), status="completed", id="1"),
        new(title="f", created_at=at(5), status="pending", id="2"),
    ]
    tasks.create_many(connection, [rows[number] for number in (3, 5, 0, 4, 2, 1)])
    return connection


QUERIES = {
    "none": ({}, "fedcba"),
    "a status": ({"status": TaskStatus.PENDING}, "fca"),
    "a status as text": ({"status": "pending"}, "fca"),
    "several statuses": ({"status": ["failed", TaskStatus.PENDING]}, "fdca"),
    "a status twice": ({"status": ("pending", "pending")}, "fca"),
    "all statuses": ({"status": TaskStatus}, "fedcba"),
    "no status": ({"status": []}, ""),
    "a status that none has": ({"status": "cancelled"}, ""),
    "a type": ({"task_type": "tool"}, "dc"),
    "a workspace": ({"workspace_path": "/x"}, "ba"),
    "an unknown workspace": ({"workspace_path": ""}, ""),
    "a type, a workspace and a status": ({"task_type": "tool", "workspace_path": "/y", "status": "failed"}, "d"),
    "a type and several statuses": ({"task_type": "agent", "status": ["running", "pending"]}, "fba"),
    "since, inclusive": ({"since": at(4)}, "fed"),
    "since, a millisecond later": ({"since": at(4) + MILLISECOND}, "fe"),
    "until, exclusive": ({"until": at(4)}, "cba"),
    "until, a millisecond later": ({"until": at(4) + MILLISECOND}, "dcba"),
    "since and until": ({"since": at(2), "until": at(5)}, "dcb"),
    "since and until of one moment": ({"since": at(2), "until": at(2)}, ""),
    "until before since": ({"since": at(5), "until": at(1)}, ""),
    "since with a status": ({"since": at(2), "status": ["pending", "failed"]}, "fdc"),
}


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 2, 50])
def test_find_filters_return_matching_tasks_in_order(shelf, limit, oldest_first):
    """The pages of a query hold what matches, each once, by creation time and then by id."""
    for name, (filters, expected) in QUERIES.items():
        found, after, pages = "", None, 0
        while True:
            page = tasks.find(shelf, **filters, oldest_first=oldest_first, limit=limit, after=after)
            assert len(page.items) <= limit, name
            assert page.has_more is (page.next is not None), name
            found += titles(page)
            pages += 1
            if not page.has_more:
                break
            after = page.next
        assert found == (expected[::-1] if oldest_first else expected), name
        # all are full but the last, and that is not empty
        assert pages == max(1, -(-len(expected) // limit)), name


def test_iter_all_and_count_agree_with_find(shelf):
    """`iter_all` yields and `count` counts what `find` lists."""
    for name, (filters, expected) in QUERIES.items():
        assert "".join(task.title for task in tasks.iter_all(shelf, **filters)) == expected, name
        oldest = tasks.iter_all(shelf, **filters, oldest_first=True)
        assert "".join(task.title for task in oldest) == expected[::-1], name
        assert tasks.count(shelf, **filters) == len(expected), name


@pytest.mark.parametrize("function", [tasks.find, tasks.iter_all, tasks.count])
def test_find_status_of_a_generator_is_read_once(shelf, function):
    """The statuses may come from a generator, also where several pages are fetched."""
    answer = function(shelf, status=(status for status in ("failed", "running")))
    if function is not tasks.count:
        answer = len(list(answer.items if function is tasks.find else answer))
    assert answer == 2


def test_find_default_limit_is_fifty(connection):
    """A page holds 50 tasks unless told otherwise, and at most 1000."""
    tasks.create_many(connection, [new() for _ in range(1001)])
    assert len(tasks.find(connection).items) == 50
    page = tasks.find(connection, limit=1000)
    assert (len(page.items), page.has_more) == (1000, True)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, "5", 2.0, None])
def test_find_limit_out_of_range_raises_value_error(connection, limit):
    """A limit is a whole number from 1 to 1000."""
    with pytest.raises(ValueError, match="limit"):
        tasks.find(connection, limit=limit)


@pytest.mark.parametrize("function", [tasks.find, tasks.iter_all, tasks.count])
@pytest.mark.parametrize(
    "filters",
    [{"status": "finished"}, {"status": ["pending", ""]}, {"since": NAIVE}],
)
def test_find_unknown_status_or_naive_time_raises_value_error(connection, function, filters):
    """A filter that can mean nothing is refused, not taken for one without matches."""
    with pytest.raises(ValueError, match=r"TaskStatus|naive"):
        list(function(connection, **filters))


@pytest.mark.parametrize("oldest_first", [False, True], ids=["newest", "oldest"])
def test_find_rows_written_between_pages_neither_hide_nor_repeat(shelf, oldest_first):
    """A later page goes on where the one before ended, whatever was stored or deleted meanwhile."""
    first = tasks.find(shelf, limit=3, oldest_first=oldest_first)
    stored(shelf, title="x", created_at=at(0))
    stored(shelf, title="y", created_at=at(6))
    tasks.delete(shelf, first.items[-1].id)
    rest = tasks.find(shelf, limit=50, oldest_first=oldest_first, after=first.next)
    assert titles(first) + titles(rest) == ("abcdefy" if oldest_first else "fedcbax")


@pytest.mark.parametrize(
    "change",
    [
        {"status": "running"},
        {"status": ["pending", "running"]},
        {"status": None},
        {"task_type": "tool"},
        {"workspace_path": "/x"},
        {"since": at(0)},
        {"until": at(9)},
        {"oldest_first": True},
    ],
    ids=str,
)
def test_find_cursor_of_another_query_raises_invalid_cursor(shelf, change):
    """A cursor leads on in the query that gave it and in no other; only the limit may differ."""
    query = {"status": "pending"}
    cursor = tasks.find(shelf, **query, limit=1).next
    assert titles(tasks.find(shelf, **query, limit=9, after=cursor)) == "ca"
    with pytest.raises(dao.InvalidCursor, match="another query"):
        tasks.find(shelf, **(query | change), after=cursor)


@pytest.mark.parametrize("cursor", ["", "x", "?", "ä", "AAAA", "AAAAAAAAAAAAAAAAAAAA"])
def test_find_made_up_cursor_raises_invalid_cursor(shelf, cursor):
    """What no page gave out is refused as a ValueError too."""
    with pytest.raises(dao.InvalidCursor) as caught:
        tasks.find(shelf, after=cursor)
    assert isinstance(caught.value, ValueError)


def test_iter_all_more_than_a_page_yields_each_once_while_others_write(url, connection):
    """All pages are walked without holding a transaction, so another connection can write in between."""
    tasks.create_many(connection, [new(created_at=at(number // 7), title="a") for number in range(1203)])
    writer = impatient(url)
    seen = []
    for task in tasks.iter_all(connection, status=iter(TaskStatus)):
        seen.append(task.id)
        if len(seen) % 300 == 0:
            tasks.create(writer, new(created_at=at(10_000)))
    writer.close()
    assert len(seen) == len(set(seen)) == 1203
    assert tasks.count(connection) == 1203 + 4


# ---------------------------------------------------------------- count_by_status


def test_count_by_status_names_every_status(shelf):
    """Each status has its number, in the order of the enum, with zero where there is none."""
    assert list(tasks.count_by_status(shelf).items()) == [
        (TaskStatus.PENDING, 3),
        (TaskStatus.RUNNING, 1),
        (TaskStatus.COMPLETED, 1),
        (TaskStatus.FAILED, 1),
        (TaskStatus.CANCELLED, 0),
    ]


def test_count_by_status_empty_table_is_all_zeros(connection):
    """No tasks are zero of each status."""
    assert tasks.count_by_status(connection) == dict.fromkeys(TaskStatus, 0)


@pytest.mark.parametrize("depth", [100, 700, 880])
def test_get_reads_deeply_nested_json_at_a_deep_stack(connection, depth):
    """What was written where the stack was low gave a bare RecursionError where it is high, as in a web framework."""
    config: dict[str, Any] = {}
    for _ in range(depth):
        config = {"a": config}
    task = Task(title="a", task_type="b", config=config)
    tasks.create(connection, task)

    def read(frames: int) -> dict[str, Any]:
        return read(frames - 1) if frames else tasks.get_one(connection, task.id).config

    for used in (0, 300, sys.getrecursionlimit() - 150):
        assert read(used) == config


def test_get_json_that_is_nested_too_deep_is_a_typed_error(connection):
    """SQL may write what SQLite still takes for JSON and the stack of Python 3.11 does not hold; later ones read it."""
    task = Task(title="a", task_type="b")
    tasks.create(connection, task)
    text = '{"a":' * 999 + "1" + "}" * 999
    execute(connection, "UPDATE tasks SET config = $1", (text,))
    if sys.version_info < (3, 12):
        with pytest.raises(dao.UnreadableRow, match="config of the row"):
            assert tasks.get_one(connection, task.id).config
    else:
        assert tasks.get_one(connection, task.id).config == json.loads(text)
