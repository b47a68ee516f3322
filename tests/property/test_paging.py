"""Pages: a walk finds every row once and in order, whatever is inserted meanwhile; a cursor leads nowhere else."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import dao
from dao import rows
from dao.listing import MAX_LIMIT
from dao.testing import make_task, make_tool_execution, make_workflow
from tests.strategies import SHARED

pytestmark = pytest.mark.both_engines

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)


@attrs.frozen
class Listing:
    """A module whose records are listed by page: how to make and store them, and what they are filtered by."""

    module: Any
    make: Any
    store: Any
    statuses: Any
    filters: dict[str, list[str]]


LISTINGS = {
    "tasks": Listing(
        dao.tasks,
        make_task,
        dao.tasks.create,
        dao.TaskStatus,
        {"task_type": ["agent", "Agent"], "workspace_path": ["/a", "/b", ""]},
    ),
    "workflows": Listing(dao.workflows, make_workflow, dao.workflows.create, dao.WorkflowStatus, {}),
    "tool_executions": Listing(
        dao.tool_executions,
        make_tool_execution,
        dao.tool_executions.record,
        dao.ToolStatus,
        {"tool_name": ["search", "shell"], "task_id": ["1", "2"]},
    ),
}
every_listing = pytest.mark.parametrize("name", LISTINGS)


def records_of(listing, *, max_size):
    """Records of which many share a `created_at`, with few values in what they are filtered by."""
    nullable = {"workspace_path", "task_id"}
    return st.lists(
        st.builds(
            lambda place, status, **fields: listing.make(
                created_at=BEGINNING + timedelta(milliseconds=place), status=status, **fields
            ),
            st.integers(0, 4),
            st.sampled_from(listing.statuses),
            # ids whose order in UTF-8, in UTF-16 and in letters without case differ
            id=st.text("aAb\x01\x7f\ufffd\U0001f600", min_size=1, max_size=4),
            **{
                column: st.sampled_from([*values, None] if column in nullable else values)
                for column, values in listing.filters.items()
            },
        ),
        max_size=max_size,
        unique_by=lambda record: record.id,
    )


def filters_of(listing):
    """Filters of `find`: none, some or all of them, in every form that they may be given in."""
    times = st.integers(-1, 5).map(lambda place: BEGINNING + timedelta(milliseconds=place))
    members = st.sampled_from(listing.statuses)
    return st.fixed_dictionaries(
        {},
        optional={
            "status": st.one_of(members, members.map(str), st.lists(members, max_size=3), st.sets(members.map(str))),
            "since": times,
            "until": times,
            **{column: st.sampled_from(values) for column, values in listing.filters.items()},
        },
    )


def matches(record, filters):
    """Whether a record passes the filters, in plain Python."""
    filters = dict(filters)
    since, until = filters.pop("since", record.created_at), filters.pop("until", None)
    if "status" in filters:
        status = filters.pop("status")
        if record.status not in ({status} if isinstance(status, str) else status):
            return False
    return (
        since <= record.created_at
        and (until is None or record.created_at < until)
        and all(getattr(record, column) == value for column, value in filters.items())
    )


def place_of(record):
    return record.created_at, record.id


def expected_of(records, filters, *, oldest_first):
    """Return what a listing of these records holds, in its order."""
    return sorted((record for record in records if matches(record, filters)), key=place_of, reverse=not oldest_first)


# ---------------------------------------------------------------- walks


@pytest.mark.sample(3, engine="postgresql")
@every_listing
@given(data=st.data(), oldest_first=st.booleans(), limits=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_find_walk_returns_every_row_once_in_order(fresh, name, data, oldest_first, limits):
    """Pages of any sizes hold all rows that were there at the start, and of those inserted meanwhile none twice."""
    listing = LISTINGS[name]
    records = data.draw(records_of(listing, max_size=12))
    # those with an odd place come while the pages are read
    present, later = records[::2], records[1::2]
    filters = data.draw(filters_of(listing))
    with fresh.url(foreign_keys=False) as url, contextlib.closing(dao.connect(url)) as connection:
        for record in present:
            listing.store(connection, record)
        with contextlib.closing(dao.connect(url)) as other:
            walked, cursor, arriving = [], None, iter(later)
            for limit in itertools.cycle(limits):
                page = listing.module.find(connection, **filters, oldest_first=oldest_first, limit=limit, after=cursor)
                walked += page.items
                assert page.has_more == (page.next is not None)
                if not page.has_more:
                    assert len(page.items) <= limit
                    break
                assert len(page.items) == limit
                cursor = page.next
                for record in itertools.islice(arriving, 2):
                    listing.store(other, record)
    ids = {record.id for record in present}
    assert [record for record in walked if record.id in ids] == expected_of(present, filters, oldest_first=oldest_first)
    assert walked == expected_of(walked, filters, oldest_first=oldest_first)
    assert len({record.id for record in walked}) == len(walked)
    assert all(record in records for record in walked)


@pytest.mark.sample(3, engine="postgresql")
@every_listing
@SHARED
@given(data=st.data(), oldest_first=st.booleans())
def test_iter_all_and_count_agree_with_a_list(fresh, name, data, oldest_first):
    """`iter_all` yields what sorting and filtering all records in Python gives, and `count` says how many."""
    listing = LISTINGS[name]
    records = data.draw(records_of(listing, max_size=12))
    filters = data.draw(filters_of(listing))
    with fresh(foreign_keys=False) as connection:
        for record in records:
            listing.store(connection, record)
        expected = expected_of(records, filters, oldest_first=oldest_first)
        assert list(listing.module.iter_all(connection, **filters, oldest_first=oldest_first)) == expected
        assert listing.module.count(connection, **filters) == len(expected)


@pytest.mark.parametrize("oldest_first", [False, True])
def test_iter_all_over_many_pages_with_inserts_meanwhile_yields_each_row_once(connection, oldest_first):
    """More rows than one page holds, all of one time, and a new one for every hundred that were read."""
    present = [make_task(created_at=BEGINNING) for _ in range(1100)]
    dao.tasks.create_many(connection, present)
    walked = []
    for number, task in enumerate(dao.tasks.iter_all(connection, oldest_first=oldest_first)):
        walked.append(task.id)
        if number % 100 == 0:
            dao.tasks.create(connection, make_task(created_at=BEGINNING + timedelta(milliseconds=number % 3 - 1)))
    ids = {task.id for task in present}
    assert [id for id in walked if id in ids] == sorted(ids, reverse=not oldest_first)
    assert len(set(walked)) == len(walked)


def test_find_row_deleted_meanwhile_hides_no_other(connection):
    """A page begins after the place of the last row, also when that row is gone."""
    present = [make_task(created_at=BEGINNING) for _ in range(5)]
    dao.tasks.create_many(connection, present)
    page = dao.tasks.find(connection, oldest_first=True, limit=2)
    dao.tasks.delete(connection, page.items[-1].id)
    rest = dao.tasks.find(connection, oldest_first=True, after=page.next)
    assert rest.items == present[2:]


@pytest.mark.parametrize("number", [1, 3])
def test_find_limit_of_exactly_all_rows_has_no_next_page(connection, number):
    """A page that holds the last row says so, without an empty page after it."""
    dao.tasks.create_many(connection, [make_task() for _ in range(number)])
    page = dao.tasks.find(connection, limit=number)
    assert (len(page.items), page.next, page.has_more) == (number, None, False)


# ---------------------------------------------------------------- cursors


@pytest.fixture(scope="module")
def listed(fresh):
    """A connection to a database with three rows in each table that is listed by page."""
    with fresh(foreign_keys=False) as connection:
        for listing in LISTINGS.values():
            for _ in range(3):
                listing.store(
                    connection, listing.make(**{column: values[0] for column, values in listing.filters.items()})
                )
        yield connection


_URLSAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@every_listing
@SHARED
@given(data=st.data())
def test_find_cursor_of_another_query_is_refused(listed, name, data):
    """A cursor works with the filters and the order of its page, and with no others; the limit may change."""
    listing = LISTINGS[name]
    query = {**data.draw(filters_of(listing)), "oldest_first": data.draw(st.booleans())}
    cursor = listing.module.find(listed, oldest_first=False, limit=1).next
    if normal(listing, query) == normal(listing, {}):
        assert listing.module.find(listed, **query, limit=2, after=cursor).items
    elif normal(listing, query)["status"] != []:
        with pytest.raises(dao.InvalidCursor):
            listing.module.find(listed, **query, limit=1, after=cursor)


def normal(listing, query):
    """Return the query in one form for all that mean the same."""
    status = query.get("status")
    return {
        **dict.fromkeys([*listing.filters, "since", "until"]),
        "oldest_first": False,
        **query,
        "status": None if status is None else [status] if isinstance(status, str) else sorted(set(status)),
    }


def test_find_cursor_with_the_same_query_in_another_form_is_accepted(listed):
    """One status or a list of it, members or texts, in any order, twice or once: one query."""
    page = dao.tasks.find(listed, status=["running", "pending"], limit=1)
    for status in (
        ["pending", "running"],
        {dao.TaskStatus.RUNNING, dao.TaskStatus.PENDING},
        iter(["running", "pending", "running"]),
    ):
        assert len(dao.tasks.find(listed, status=status, after=page.next).items) == 2
    assert (
        dao.tasks.find(listed, status="pending", limit=1).next
        == dao.tasks.find(listed, status=[dao.TaskStatus.PENDING], limit=1).next
    )


def test_find_cursor_of_an_earlier_version_is_accepted(connection):
    """A client keeps a cursor over an upgrade of the program: its form stays as it is."""
    for id in "123":
        moment = datetime(2025, 1, 2, 3, 4, int(id), tzinfo=UTC)
        dao.tasks.create(connection, dao.Task(id=id, title="a", task_type="b", created_at=moment))
    query = {"status": ["running", "pending"], "task_type": "b", "until": datetime(2025, 1, 3, tzinfo=UTC), "limit": 1}
    cursor = "1944d270323032352d30312d30325430333a30343a30332e3030305a33"
    assert dao.tasks.find(connection, **query).next == cursor
    assert [task.id for task in dao.tasks.find(connection, **query, after=cursor).items] == ["2"]


def test_find_cursor_of_another_table_is_refused(listed):
    """Tasks, workflows and tool executions do not take each other's cursors."""
    for one, other in itertools.permutations(LISTINGS.values(), 2):
        cursor = one.module.find(listed, limit=1).next
        with pytest.raises(dao.InvalidCursor):
            other.module.find(listed, limit=1, after=cursor)


@every_listing
@SHARED
@given(data=st.data())
def test_find_damaged_cursor_is_refused(listed, name, data):
    """One character changed, left out or put in, at any place, and a cursor is one no more."""
    listing = LISTINGS[name]
    cursor = listing.module.find(listed, limit=1).next
    place = data.draw(st.integers(0, len(cursor)))
    character = data.draw(st.sampled_from(_URLSAFE) | st.sampled_from("=+/ \n\0é"))
    damaged = data.draw(
        st.sampled_from(
            [
                cursor[:place] + character + cursor[place + 1 :],
                cursor[:place] + character + cursor[place:],
                cursor[:place] + cursor[place + 1 :],
                cursor[:place],
                cursor[place:],
                cursor[place:] + cursor[:place],
                cursor.swapcase(),
            ]
        )
    )
    assume(damaged != cursor)
    with pytest.raises(dao.InvalidCursor):
        listing.module.find(listed, limit=1, after=damaged)


def test_find_cursor_in_any_other_form_is_refused(listed):
    """Capitals and spaces stand for the same bytes: only the text that was handed out is a cursor."""
    for listing in LISTINGS.values():
        cursor = listing.module.find(listed, limit=1).next
        for other in (cursor.upper(), f" {cursor}", f"{cursor}\n", f"{cursor[:8]} {cursor[8:]}", f"{cursor}00"):
            with pytest.raises(dao.InvalidCursor):
                listing.module.find(listed, after=other)


@given(
    forged=st.one_of(
        st.text(),
        st.text(_URLSAFE),
        st.binary().map(bytes.hex),
        st.sampled_from(["", "\ud800", "null", 5, b"abc", ["abc"], 1.5, True]),
    )
)
def test_find_forged_cursor_is_refused(listed, forged):
    """What no page handed out is no cursor, of whatever type; it never begins another walk."""
    with pytest.raises(dao.InvalidCursor, match="cursor"):
        dao.tasks.find(listed, after=forged)


def test_find_invalid_cursor_is_a_value_error(listed):
    """Who catches bad arguments in general also catches this one."""
    with pytest.raises(ValueError, match="not a page cursor: pass the `next` of a page, unchanged"):
        dao.tasks.find(listed, after="*")


# ---------------------------------------------------------------- limits and filters


@every_listing
@given(
    limit=st.integers(MAX_LIMIT + 1) | st.integers(max_value=0) | st.booleans() | st.floats() | st.text() | st.none()
)
def test_find_limit_outside_1_to_1000_is_refused(listed, name, limit):
    """A limit is a whole number from 1 to 1000; true is none."""
    with pytest.raises(ValueError, match="limit must be a whole number from 1 to 1000"):
        LISTINGS[name].module.find(listed, limit=limit)
    with pytest.raises(ValueError, match="limit must be a whole number from 1 to 1000"):
        dao.tool_executions.list_errors(listed, limit=limit)


@every_listing
@given(limit=st.integers(1, MAX_LIMIT))
def test_find_limit_within_1_to_1000_is_obeyed(listed, name, limit):
    """A page never holds more than its limit, and as many as there are below it."""
    assert len(LISTINGS[name].module.find(listed, limit=limit).items) == min(limit, 3)


@every_listing
def test_find_of_no_status_is_empty(listed, name):
    """A listing of none of the statuses has nothing in it, which is not the same as no filter."""
    module = LISTINGS[name].module
    page = module.find(listed, status=[])
    assert (page.items, page.next) == ([], None)
    assert list(module.iter_all(listed, status=[])) == []
    assert module.count(listed, status=[]) == 0


@every_listing
@pytest.mark.parametrize(
    "query", [{"status": "unknown"}, {"status": ["running", "x"]}, {"since": BEGINNING.replace(tzinfo=None)}]
)
def test_find_filter_that_means_nothing_is_refused(listed, name, query):
    """An unknown status and a naive time are mistakes, not filters that match nothing."""
    module = LISTINGS[name].module
    for call in (module.find, module.count, lambda *args, **filters: list(module.iter_all(*args, **filters))):
        with pytest.raises(ValueError, match=r"not a valid|naive datetime"):
            call(listed, **query)
        with pytest.raises(TypeError, match="not iterable"):
            call(listed, status=0)


def test_every_table_with_created_at_and_status_is_tested_here():
    """A new table that is listed by page gets its entry in LISTINGS."""
    tables = [rows.TASKS, rows.WORKFLOWS, rows.WORKFLOW_TASKS, rows.TOOL_EXECUTIONS, rows.SESSIONS, rows.CONFIGURATIONS]
    assert {table.name for table in tables if "status" in table.columns} == LISTINGS.keys()
