"""`updated_at` as the version of a row while many change it at once; its law alone is in tests/property."""

from __future__ import annotations

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest

import dao
from dao.testing import make_task

pytestmark = pytest.mark.both_engines

WRITERS = 8


def test_updated_at_of_one_row_from_many_connections_is_never_given_twice(url, connection):
    """Each change of a row has a version of its own, in the order in which they came, whoever made it."""
    task = make_task()
    dao.tasks.create(connection, task)
    start = Barrier(WRITERS)

    def write(_):
        with contextlib.closing(dao.connect(url)) as own:
            start.wait()
            return [dao.tasks.set_status(own, task.id, "running", error=f"{n}").updated_at for n in range(50)]

    with ThreadPoolExecutor(WRITERS) as threads:
        seen = list(threads.map(write, range(WRITERS)))
    for versions in seen:
        assert all(earlier < later for earlier, later in itertools.pairwise(versions))
    every = [*itertools.chain.from_iterable(seen)]
    assert len({*every}) == len(every) == WRITERS * 50
    assert dao.tasks.get_one(connection, task.id).updated_at == max(every)


def test_update_of_one_version_from_many_connections_succeeds_once(url, connection):
    """Of all who read the same version and write it, one stores its change; the others are told, and may read again."""
    task = make_task()
    dao.tasks.create(connection, task)
    start = Barrier(WRITERS)

    def write(number):
        with contextlib.closing(dao.connect(url)) as own:
            start.wait()
            with contextlib.suppress(dao.StaleRecord):
                return dao.tasks.update(own, make_task(id=task.id, title=f"{number}", updated_at=task.updated_at))

    with ThreadPoolExecutor(WRITERS) as threads:
        stored = [record for record in threads.map(write, range(WRITERS)) if record is not None]
    assert stored == [dao.tasks.get_one(connection, task.id)]


@pytest.mark.parametrize("changes", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_updated_at_of_one_transaction_runs_ahead_of_the_clock_rather_than_stand(connection, changes):
    """Many changes of a row in one transaction each move it on by a millisecond at the least; the clock catches up."""
    task = make_task()
    dao.tasks.create(connection, task)
    with dao.transaction(connection):
        versions = [
            dao.tasks.set_status(connection, task.id, "running", error=f"{n}").updated_at for n in range(changes)
        ]
    assert all(earlier < later for earlier, later in itertools.pairwise([task.updated_at, *versions]))
    assert versions[-1] >= task.updated_at + timedelta(milliseconds=changes)
    record = dao.tasks.get_one(connection, task.id)
    assert record.updated_at == versions[-1]
    assert dao.tasks.update(connection, record).updated_at > record.updated_at
