"""Sessions: what each function of `dao.sessions` promises."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

import dao
from dao import Session, sessions
from dao.engine import execute, fetch
from tests.engines import scramble, wait_for_waiter

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001 - it is naive on purpose
MINUTE, MILLISECOND = timedelta(minutes=1), timedelta(milliseconds=1)


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def opened(connection: Any, minutes: float = 0, client_id: str = "cli", *, closed: bool = False) -> str:
    """Store a session, open or closed, that was opened and last heard of then; return its id."""
    session = sessions.open(connection, client_id=client_id, now=at(minutes))
    if closed:
        sessions.close(connection, session.id)
    return session.id


def ids(found: list[Session]) -> list[str]:
    return [session.id for session in found]


# ---------------------------------------------------------------- open, get


@pytest.mark.parametrize("metadata", [None, {"agent": "x/1.0"}, [1], "text", 0, False], ids=repr)
def test_open_stores_and_returns_a_new_session(connection, metadata):
    """The session is open, was heard of just now, and is stored as it is returned."""
    session = sessions.open(connection, client_id="cli", metadata=metadata, now=NOON + timedelta(microseconds=1999))
    moment = NOON + MILLISECOND
    assert session == Session(
        id=session.id, client_id="cli", metadata=metadata, created_at=moment, last_heartbeat=moment, updated_at=moment
    )
    assert session.is_active is True
    assert sessions.get(connection, session.id) == sessions.get_one(connection, session.id) == session


def test_open_twice_gives_two_sessions(connection):
    """A client may have several sessions at once."""
    first, second = sessions.open(connection, client_id="cli"), sessions.open(connection, client_id="cli")
    assert first.id != second.id
    assert sessions.count_active(connection) == 2


def test_open_without_now_takes_the_clock(connection):
    """Without `now` the session begins at the present moment."""
    before = dao.codec.now()
    assert before <= sessions.open(connection, client_id="cli").created_at <= dao.codec.now()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"client_id": "\t"}, ValueError),
        ({"client_id": "cli", "metadata": {1: 2}}, TypeError),
        ({"client_id": "cli", "now": NAIVE}, ValueError),
    ],
    ids=["blank client", "no JSON", "naive time"],
)
def test_open_refused_argument_stores_nothing(connection, arguments, error):
    """What cannot be stored as it is is refused."""
    with pytest.raises(error):
        sessions.open(connection, **arguments)
    assert sessions.count_active(connection) == 0


def test_get_unknown_id_finds_nothing(connection):
    """`get` returns None, and `get_one` says what is missing where."""
    opened(connection)
    assert sessions.get(connection, "nobody") is None
    with pytest.raises(dao.NotFound) as caught:
        sessions.get_one(connection, "nobody")
    assert (caught.value.table, caught.value.key) == ("sessions", "nobody")


# ---------------------------------------------------------------- heartbeat


@pytest.mark.parametrize(("minutes", "expected"), [(0, 5), (5, 5), (5.5, 5.5), (600, 600)])
def test_heartbeat_moves_the_last_one_forward_only(connection, minutes, expected):
    """A heartbeat that arrives late does not turn the clock back; either way the row counts as changed."""
    id, other = opened(connection, 5), opened(connection, 5)
    before, untouched = sessions.get_one(connection, id), sessions.get_one(connection, other)
    sessions.heartbeat(connection, id, now=at(minutes))
    after = sessions.get_one(connection, id)
    assert after == attrs.evolve(before, last_heartbeat=at(expected), updated_at=after.updated_at)
    assert after.updated_at > before.updated_at
    assert sessions.get_one(connection, other) == untouched


def test_heartbeat_without_now_takes_the_clock(connection):
    """Without `now` the session was heard of at the present moment."""
    id, before = opened(connection), dao.codec.now()
    sessions.heartbeat(connection, id)
    assert before <= sessions.get_one(connection, id).last_heartbeat <= dao.codec.now()


@pytest.mark.parametrize("which", ["closed", "unknown"])
def test_heartbeat_no_open_session_raises_not_found(connection, which):
    """A closed session stays closed and unheard of; the message says what to do."""
    id = opened(connection, closed=True) if which == "closed" else "nobody"
    before = sessions.get(connection, id)
    with pytest.raises(dao.NotFound, match="open a new one") as caught:
        sessions.heartbeat(connection, id, now=at(9))
    assert (caught.value.table, caught.value.key) == ("sessions", id)
    assert sessions.get(connection, id) == before


# ---------------------------------------------------------------- close


def test_close_open_session_closes_it_once(connection):
    """The first call closes the session and says so; the second, and one of nobody, change nothing."""
    id, other = opened(connection), opened(connection)
    before = sessions.get_one(connection, id)
    assert sessions.close(connection, id) is True
    closed = sessions.get_one(connection, id)
    assert closed == attrs.evolve(before, is_active=False, updated_at=closed.updated_at)
    assert sessions.close(connection, id) is False
    assert sessions.close(connection, "nobody") is False
    assert sessions.get_one(connection, id) == closed
    assert ids(sessions.list_active(connection)) == [other]


# ---------------------------------------------------------------- list_active, count_active


def test_list_active_open_sessions_in_order_of_opening(connection):
    """Open sessions come in the order of their opening, of all clients or of one; closed ones do not."""
    last, first = opened(connection, 3), opened(connection, 1)
    opened(connection, 2, closed=True)
    foreign = opened(connection, 2, "web")
    scramble(connection)
    assert ids(sessions.list_active(connection)) == [first, foreign, last]
    assert ids(sessions.list_active(connection, client_id="cli")) == [first, last]
    assert ids(sessions.list_active(connection, client_id="web")) == [foreign]
    assert sessions.list_active(connection, client_id="nobody") == []
    assert sessions.list_active(connection)[0] == sessions.get(connection, first)


def test_count_active_agrees_with_list_active(connection):
    """The number of open sessions, of all clients or of one, zero included."""
    assert sessions.count_active(connection) == 0
    for client_id, closed in [("cli", False), ("cli", True), ("web", False), ("cli", False)]:
        opened(connection, 0, client_id, closed=closed)
    assert sessions.count_active(connection) == 3
    assert sessions.count_active(connection, client_id="cli") == 2
    assert sessions.count_active(connection, client_id="nobody") == 0


# ---------------------------------------------------------------- list_stale, close_stale, delete_stale


@pytest.fixture
def silent(connection) -> Any:
    """A connection to sessions whose ids say how many minutes before noon they were last heard of, in no order."""
    for id in ("5", "closed 30", "20", "10", "0", "closed 1"):
        moment = dao.codec.time_to_text(at(-int(id.split()[-1])))
        execute(
            connection,
            "INSERT INTO sessions (id, client_id, is_active, last_heartbeat) VALUES ($1, 'cli', $2, $3)",
            (id, not id.startswith("closed"), moment),
        )
    scramble(connection)
    return connection


@pytest.mark.parametrize(
    ("older_than", "expected"),
    [
        (timedelta(0), ["20", "10", "5"]),
        (5 * MINUTE - MILLISECOND, ["20", "10", "5"]),
        (5 * MINUTE, ["20", "10"]),
        (15 * MINUTE, ["20"]),
        (60 * MINUTE, []),
        (-MINUTE, ["20", "10", "5", "0"]),
        (timedelta(days=800_000), []),
        (timedelta.max, []),
    ],
    ids=str,
)
def test_list_stale_open_sessions_longest_silent_first(silent, older_than, expected):
    """Open sessions whose silence is longer than that, and not as long; before the year 1 there was none."""
    assert ids(sessions.list_stale(silent, older_than=older_than, now=NOON)) == expected
    assert sessions.count_active(silent) == 4
    assert sessions.close_stale(silent, older_than=older_than, now=NOON) == sorted(expected)
    assert all(not sessions.get_one(silent, id).is_active for id in expected)
    assert sessions.count_active(silent) == 4 - len(expected)
    assert sessions.close_stale(silent, older_than=older_than, now=NOON) == []


@pytest.mark.parametrize(
    ("older_than", "expected"),
    [
        (timedelta(0), ["20", "10", "5", "closed 30", "closed 1"]),
        (5 * MINUTE, ["20", "10", "closed 30"]),
        (30 * MINUTE, []),
        (timedelta.max, []),
    ],
    ids=str,
)
def test_delete_stale_open_and_closed_sessions_are_gone(silent, older_than, expected):
    """All sessions whose silence is longer than that go, closed ones too; a second call finds none."""
    assert sessions.delete_stale(silent, older_than=older_than, now=NOON) == sorted(expected)
    assert [id for id in expected if sessions.get(silent, id)] == []
    assert fetch(silent, "SELECT count(*) FROM sessions")[0][0] == 6 - len(expected)
    assert sessions.delete_stale(silent, older_than=older_than, now=NOON) == []


def test_list_stale_after_a_heartbeat_is_no_longer_stale(connection):
    """What counts is the last heartbeat, not the opening; without `now` the present moment is taken."""
    id = opened(connection)
    assert ids(sessions.list_stale(connection, older_than=MINUTE)) == [id]
    sessions.heartbeat(connection, id)
    assert sessions.list_stale(connection, older_than=MINUTE) == []


def test_close_stale_several_callers_share_the_sessions(url, connection):
    """Of callers at the same time only one gets the id of a session."""
    expected = sorted(opened(connection, -number) for number in range(20))
    closed: list[str] = []
    barrier = threading.Barrier(4)

    def close() -> None:
        own = dao.connect(url)
        barrier.wait()
        closed.extend(sessions.close_stale(own, older_than=timedelta(0), now=at(1)))
        own.close()

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(closed) == expected


@pytest.mark.parametrize("function", [sessions.close_stale, sessions.delete_stale])
def test_close_stale_session_that_is_heard_of_meanwhile_stays(url, connection, function):
    """A heartbeat whose transaction was there first keeps its session.

    Where writers wait for rows and not for one another, the wait was followed by the change as it was planned.
    """
    id = opened(connection)
    taken: list[str] = []

    def take() -> None:
        with contextlib.closing(dao.connect(url)) as own:
            taken.extend(function(own, older_than=timedelta(0), now=at(1)))

    with dao.transaction(connection):
        sessions.heartbeat(connection, id, now=at(2))
        thread = threading.Thread(target=take)
        thread.start()
        with contextlib.closing(dao.connect(url)) as other:
            wait_for_waiter(other)
    thread.join()
    assert taken == []
    assert sessions.get_one(connection, id).is_active


@pytest.mark.parametrize("function", [sessions.list_stale, sessions.close_stale, sessions.delete_stale])
def test_list_stale_naive_now_raises_value_error(connection, function):
    """A moment without a zone is none."""
    with pytest.raises(ValueError, match="naive"):
        function(connection, older_than=MINUTE, now=NAIVE)
