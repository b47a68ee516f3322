"""The core of both pools, by hand: no thread, no event loop, no database, and no connection but a name."""

from __future__ import annotations

import contextlib

import pytest

import dao
from dao.pooling.lender import FORKED, Lender, Place
from dao.url import parse


class Lease:
    """Whoever holds a place."""


class Bell:
    """An event that counts how often it was set."""

    def __init__(self) -> None:
        self.rung = 0

    def set(self) -> None:
        """Ring."""
        self.rung += 1


@pytest.fixture
def lender() -> Lender:
    """A lender of one connection."""
    return Lender(parse("sqlite:///a.db"), 1, 30.0)


def placed(lender: Lender, lease: Lease) -> Place:
    place = Place(lease, lender.note_lost)
    place.connection = None
    return place


def figures(lender: Lender) -> tuple[int, int, int]:
    stats = lender.stats(queued=0, writes=0, batches=0, timeouts=0)
    return stats.idle, stats.active, stats.waiting


def test_take_lends_in_the_order_of_arrival(lender):
    """The first opens a connection, the second waits for it, and has it when it is put back."""
    one, other = Lease(), Lease()
    first, second = placed(lender, one), placed(lender, other)
    assert lender.take(first, Bell)
    lender.opened(first, "a")
    assert not lender.take(second, Bell)
    waits = lender.waits(second, 600)
    assert 0 < next(waits) <= 1.0
    assert lender.put_back(first, usable=True)
    assert second.event.rung == 1
    assert list(waits) == []
    assert (second.connection, figures(lender)) == ("a", (0, 1, 0))


def test_take_in_vain_leaves_the_queue(lender):
    """A place whose time is up is served no more."""
    one, other = Lease(), Lease()
    first, second = placed(lender, one), placed(lender, other)
    lender.take(first, Bell)
    lender.opened(first, "a")
    lender.take(second, Bell)
    with pytest.raises(dao.PoolTimeout, match="within 0 s: all 1 are in use and 0 others wait"):
        list(lender.waits(second, 0))
    lender.put_back(first, usable=True)
    assert (second.connection, figures(lender)) == (None, (1, 0, 0))


@pytest.mark.parametrize("broken", [False, True], ids=["handed over", "to be opened"])
def test_drop_of_a_place_that_was_just_served_goes_to_the_next(lender, broken):
    """A place that is given up at the moment of the hand-over is served to the next in the queue."""
    leases = [Lease() for _ in range(3)]
    first, second, third = (placed(lender, lease) for lease in leases)
    lender.take(first, Bell)
    lender.opened(first, "a")
    lender.take(second, Bell)
    lender.take(third, Bell)
    if not lender.put_back(first, usable=not broken):
        lender.drop(first)
    assert (second.connection, third.event.rung) == (None if broken else "a", 0)
    lender.drop(second)
    assert third.event.rung == 1
    assert list(lender.waits(third, 600)) == []
    assert figures(lender) == (0, 1, 0)


def test_lease_that_dies_without_an_end_is_found(lender):
    """Nobody has to call anything: the next who takes a place, or looks while waiting, has that of a dead lease."""
    lost, waiting, other = Lease(), Lease(), Lease()
    first, second, third = placed(lender, lost), placed(lender, waiting), placed(lender, other)
    lender.take(first, Bell)
    lender.opened(first, "a")
    lender.take(second, Bell)
    looks = lender.waits(second, 600)
    next(looks)
    del lost
    assert list(looks) == []
    assert figures(lender) == (0, 1, 0)
    del waiting
    assert lender.take(third, Bell)


def test_close_tells_the_queue_and_ends_with_the_last_connection(lender):
    """Those in the queue are woken to `PoolClosed`; `ended` is set when the last connection is dropped."""
    one, other = Lease(), Lease()
    first, second = placed(lender, one), placed(lender, other)
    lender.take(first, Bell)
    lender.opened(first, "a")
    lender.take(second, Bell)
    ended = Bell()
    lender.close(ended)
    assert second.event.rung == 1
    with pytest.raises(dao.PoolClosed, match="the pool is closed"):
        list(lender.waits(second, 600))
    assert not lender.put_back(first, usable=True)
    assert not lender.is_drained
    lender.drop(first)
    assert (lender.is_drained, ended.rung) == (True, 1)


@pytest.mark.parametrize("opened", [False, True])
def test_leave_to_parent_refuses_if_anything_was_open(lender, opened):
    """In a forked child a pool that had opened nothing goes on; another refuses, and what comes back is left alone."""
    lease, new = Lease(), Lease()
    place, other = placed(lender, lease), placed(lender, new)
    if opened:
        lender.take(place, Bell)
        lender.opened(place, "a")
    lender.leave_to_parent()
    assert (lender.closed, place.connection) == (FORKED if opened else None, None)
    assert lender.put_back(place, usable=True)
    with pytest.raises(dao.PoolClosed, match="make a pool there") if opened else contextlib.nullcontext():
        assert lender.take(other, Bell)
