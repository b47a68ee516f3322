"""`get_many`: the rows with many keys in one statement; `tasks.list_changed`; and cursors in URLs."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

import dao
from dao import configurations, engine, task_events, tasks
from dao.engine import fetch, keys
from dao.testing import make_task
from tests.every_function import fill
from tests.plans import MODULES

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.__name__)
def test_get_many_is_get_for_each_key_that_is_there(connection, module):
    """There was only a `get` for each: it is the same records, in the order of the keys, each once."""
    fill(connection)
    configurations.set(connection, "nothing", None)
    name = module.__name__.removeprefix("dao.")
    record = next(table for table in dao.rows.TABLES if table.name == name)
    found = [tuple(row) for row in fetch(connection, f"SELECT {record.key} FROM {name}")]
    random.Random(name).shuffle(found)
    there = [key if len(key) > 1 else key[0] for key in found]
    unknown = 2**60 if name == "task_events" else ("no", "no") if len(found[0]) > 1 else "no"
    many = module.get_many(connection, iter([*there, unknown, there[0]]))
    assert len(there) > 0
    assert [*many] == there
    assert many == {key: module.get(connection, *(key if isinstance(key, tuple) else (key,))) for key in there}
    assert module.get_many(connection, []) == {}


def test_get_many_is_one_statement_for_more_keys_than_parameters(connection, monkeypatch):
    """SQLite takes 32,766 parameters and PostgreSQL 65,535: the keys are one."""
    ran = []
    monkeypatch.setattr(keys, "fetch", lambda *arguments: ran.append(arguments) or engine.fetch(*arguments))
    wanted = [make_task(id=id) for id in ("'", '"', "\\", "é\n", "5")]
    tasks.create_many(connection, wanted)
    ids = [f"no {number}" for number in range(70_000)]
    ids[::14_000] = [task.id for task in wanted]
    assert tasks.get_many(connection, ids) == {task.id: task for task in wanted}
    assert len(ran) == 1


def test_get_many_of_other_keys_is_refused(connection):
    """One text is many of one letter, a number finds a text on one engine only, and a link has two parts."""
    with pytest.raises(TypeError, match=r"expected several keys, such as \['task'\], got one text"):
        tasks.get_many(connection, "task")
    with pytest.raises(TypeError, match="id must be text, got 5"):
        tasks.get_many(connection, [5])
    with pytest.raises(TypeError, match="seq must be an int, got '5'"):
        task_events.get_many(connection, ["5"])
    for key in ("ab", ("a",), ["a", "b"]):
        with pytest.raises(TypeError, match="a key is a tuple of workflow_id and task_id, got"):
            dao.workflow_tasks.get_many(connection, [key])


def test_list_changed_has_each_task_once_the_latest_first(connection):
    """Nothing listed tasks by their `updated_at`; what events tell is in an index that is there anyway."""
    first, second, third, gone = (make_task(created_at=PAST + timedelta(days=n)) for n in range(4))
    tasks.create_many(connection, [first, second, third, gone])
    tasks.delete(connection, gone.id)
    assert tasks.list_changed(connection, since=PAST) == [third, second, first]
    cancelled = tasks.cancel(connection, first.id)
    tasks.set_status(connection, second.id, "running")
    running = tasks.set_status(connection, second.id, "failed", error="e")
    assert tasks.list_changed(connection, since=PAST) == [running, cancelled, third]
    assert tasks.list_changed(connection, since=cancelled.updated_at) == [running, cancelled]
    assert tasks.list_changed(connection, since=PAST, limit=1) == [running]
    task_events.delete_before(connection, cancelled.updated_at)
    assert tasks.list_changed(connection, since=PAST) == [running, cancelled]


def test_cursor_stands_in_a_url_as_it_is(connection):
    """A client hands it back in a query string: nothing in it has to be quoted, whatever the ids are."""
    tasks.create_many(connection, [make_task(id=id) for id in ("a/b?c=d&e", "é ü", "+%20", "z")])
    pages = [tasks.find(connection, limit=1, status="pending"), task_events.find(connection, limit=1)]
    while pages[0].next is not None:
        pages.insert(0, tasks.find(connection, limit=1, status="pending", after=pages[0].next))
    cursors = [page.next for page in pages if page.next is not None]
    assert len(cursors) == 4
    assert [quote(cursor, safe="") for cursor in cursors] == cursors
    assert pages[1].to_dict() == {"items": [task.to_dict() for task in pages[1].items], "next": pages[1].next}
