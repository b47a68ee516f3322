"""Locks that an exception from outside does not leave taken."""

from __future__ import annotations

import signal
import threading

import pytest

from dao import locks


class Stop(Exception):
    """What the handler of a signal raises."""


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("kind", [locks.Lock, locks.RLock])
def test_lock_interrupted_as_it_is_got_is_free_again(monkeypatch, kind):
    """A signal that comes right after a lock was let go finds it taken by the next one, whose block never ran.

    On Python 3.14 that left a lock of `threading` taken for ever.
    """
    main, interrupted = threading.get_ident(), 0

    def stop(_signal: int, _frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        for _ in range(50):
            lock, held, asked = kind(), threading.Event(), threading.Event()

            def hold(lock=lock, held=held, asked=asked) -> None:
                with lock:
                    held.set()
                    asked.wait()
                signal.pthread_kill(main, signal.SIGUSR1)

            thread = threading.Thread(target=hold)
            thread.start()
            try:
                held.wait()
                asked.set()
                with lock:
                    thread.join()
            except Stop:
                interrupted += 1
            thread.join()
            free = []
            other = threading.Thread(target=lambda lock=lock, free=free: free.append(lock.acquire(blocking=False)))
            other.start()
            other.join()
            assert free == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert interrupted == 50
