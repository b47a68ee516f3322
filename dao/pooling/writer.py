"""Group commit: one thread runs what many callers write, and commits it for all of them at once.

For many threads or tasks that each write a little (tool executions, heartbeats): a commit costs the same for one of them
as for a hundred. Here are the queue, the thread and the rules of a batch; `dao.Pool.write` and `dao.aio.Pool.write` wait.

What holds for each call:

- Its function runs in a savepoint. If it fails, that savepoint is undone, and nothing else.
- Its caller returns after the commit. Whoever was told of success is in the file, as safe as `synchronous` makes a commit.
- A commit that fails, or an error for which SQLite gives up the transaction (disk full, I/O error, RAISE(ROLLBACK)), is
  told to every call of the batch that had succeeded so far. Nothing of them is stored, but for a commit of which that cannot
  be known (`CommitUnknown`), and the next batch begins anew.
- It begins in the order of arrival, or not at all if its caller has left the queue. A batch ends when nobody waits, at
  256 calls or after 5 ms, so that a full one cannot keep its callers waiting; whoever comes then is in the next.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw

from dao import engine, url
from dao.engine.sqlite.fork import FORKED
from dao.errors import Error, OperationalError, PoolClosed, PoolTimeout
from dao.pooling.batch import Call, Line, failure
from dao.pooling.lending import CHECK

__all__ = ["Wait", "Writer", "wake_threads"]

log = logging.getLogger("dao.pool")

#: Where a batch ends even if others wait: at so many calls, or so many seconds after its first.
_CALLS = 256
_SECONDS = 0.005

#: An idle thread ends after so many seconds, and the next call starts another: a program that forgets to close the
#: pool ends all the same. The connection stays open.
_IDLE = 0.5


class Wait:
    """What a thread waits at for the end of its call."""

    __slots__ = ("_lock", "_next", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._lock.acquire()
        self._next: Wait | None = None

    def wait(self, timeout: float) -> bool:
        """Wait until it has ended, for so many seconds at the most; wake the next. Return whether it has ended."""
        deadline = time.monotonic() + timeout
        try:
            while not self.ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._lock.acquire(timeout=min(left, CHECK))
        finally:
            # also when a Ctrl-C comes as the word does
            if self.ended and self._next is not None:
                with contextlib.suppress(RuntimeError):  # the next did not wait for it
                    self._next._lock.release()
                self._next = None
        return True


def wake_threads(waits: Sequence[Wait]) -> None:
    """Wake the first of these threads; it wakes the second, and so on.

    All at once they would fight for the interpreter's lock: one by one, 16 threads make a fifth more calls in a second.
    """
    for one, following in itertools.pairwise(waits):
        one._next = following
    for one in waits:
        one.ended = True
    if waits:
        waits[0]._lock.release()


class Writer:
    """The queue of calls, and the thread that runs them on a connection of its own. Both are made when first needed.

    `wake` is called with what the callers wait at (their calls' `done`) when they have ended.
    """

    def __init__(self, database_url: url.DatabaseURL, wake: Callable[[Sequence[Any]], object]) -> None:
        self._url = database_url
        self._wake = wake
        self._line: Line | None = None
        self.writes = self.batches = self.timeouts = 0
        self._begin_anew()
        _WRITERS.add(self)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[Call] = deque()
        self._enders: list[Any] = []  # what those wait at who wait for the end of it all
        self._thread: threading.Thread | None = None
        self._thread_id: int | None = None
        self._asleep = False
        self._closed: str | None = None

    @property
    def queued(self) -> int:
        """How many calls wait for their turn."""
        return len(self._queue)

    # ------------------------------------------------------------ callers

    def write(
        self, function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any], timeout: float
    ) -> Any:
        """Have a function run, and wait for its commit, in a thread. It may wait for its turn so many seconds."""
        call = Call(function, arguments, keywords, Wait())
        left = False
        try:
            self.submit(call)
            if not call.done.wait(timeout):
                left = self.leave(call)
                if not left:  # it has begun: now only its end tells whether it is stored
                    call.done.wait(math.inf)
        except BaseException:  # Ctrl-C
            if not self.leave(call):
                call.done.wait(math.inf)
            raise
        if left:
            raise self.timed_out(timeout)
        return call.outcome()

    def submit(self, call: Call) -> None:
        """Put a call into the queue.

        Raises:
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            RuntimeError: This is the writer's own thread: the call would wait for itself.
        """
        if self._thread_id == threading.get_ident():
            raise RuntimeError(
                "write was called by a function that runs in write: its commit would wait for itself; call the inner "
                "function with the connection that the outer one was given"
            )
        with self._lock:
            if self._closed is not None:
                raise PoolClosed(self._closed)
            if self._thread is None or self._asleep:
                self._start()
            self._queue.append(call)

    def leave(self, call: Call) -> bool:
        """Take a call out of the queue. Return whether its function never runs, as it has not begun. Safe to repeat."""
        with self._lock:
            if not call.begun:
                call.left = True
                if call in self._queue:
                    self._queue.remove(call)
            return call.left

    def timed_out(self, timeout: float) -> PoolTimeout:
        """Return the error for a call that has left the queue, and count it."""
        with self._lock:
            self.timeouts += 1
        return PoolTimeout(
            f"the write did not begin within {timeout:g} s, and now it never will: {len(self._queue)} others wait for "
            "the same writer; give it functions that take less time, or wait longer"
        )

    # ------------------------------------------------------------ the end

    def close(self, timeout: float) -> bool:
        """Close, and wait for it in a thread; return whether the connection is closed."""
        ended = Wait()
        self.finish(ended)
        if ended.wait(timeout):
            return True
        self.give_up(timeout)
        return ended.wait(1.0)

    def finish(self, ended: object) -> None:
        """Take no more calls, run those that are queued, close the connection, and wake who waits at `ended`.

        Safe to repeat.
        """
        with self._lock:
            if self._closed is None:
                self._closed = "the pool is closed"
            if self._thread is not None or self._line is not None:
                # at the interpreter's end no thread can be started
                with contextlib.suppress(RuntimeError):
                    self._start()
            if self._thread is not None:
                self._enders.append(ended)
                return
        self._close_line()
        self._wake([ended])

    def give_up(self, timeout: float) -> None:
        """Run no more of what is queued, and interrupt what is running."""
        with self._lock:
            queued, line = list(self._queue), self._line
            for call in queued:
                call.begun = True  # as good as: it ends here
            self._queue.clear()
        log.warning("pool: writes go on after %.1f s; %d that wait are given up", timeout, len(queued))
        self._end(queued, lambda: PoolClosed("the pool was closed before this write had its turn; nothing was done"))
        if line is not None:
            line.interrupt()

    def _close_line(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _end(self, calls: Sequence[Call], failure: Callable[[], Error]) -> None:
        """Tell each of the calls that has no error of its own about a failure."""
        for call in calls:
            if call.error is None:
                call.result = None
                call.error = failure()
        self._wake([call.done for call in calls])

    # ------------------------------------------------------------ the thread

    def _start(self) -> None:
        """Start the thread, or wake it."""
        if self._thread is None:
            # known before it starts: whatever comes in between, no other thread is the writer as well
            self._thread = threading.Thread(target=self._serve, name="dao writer")
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise
        else:
            self._asleep = False
            self._work.notify()

    def _serve(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # who started it was interrupted, and may have started another
            self._thread_id = threading.get_ident()
        while self._has_work():
            self._run_batch()

    def _has_work(self) -> bool:
        """Wait for a call. Return False if the thread is to end, when all is done that has to be."""
        with self._lock:
            if not self._queue and self._closed is None:
                self._asleep = True
                self._work.wait(_IDLE)
                self._asleep = False
            if self._queue:
                return True
            if self._closed is None:
                self._thread = self._thread_id = None
                return False
        self._close_line()
        with self._lock:
            self._thread = self._thread_id = None
            enders = self._enders
            self._enders = []
        self._wake(enders)
        return False

    def _next(self) -> Call | None:
        with self._lock:
            if not self._queue:
                return None
            self._queue[0].begun = True
            return self._queue.popleft()

    def _run_batch(self) -> None:
        """Run what is queued in one transaction, commit it, and tell each caller."""
        with self._lock:
            waiting = list(self._queue)
        try:
            line = self._begin()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            # these have waited for all of the busy timeout; who came later waits on
            told = failure(error, None if self._line is None else self._line.connection)
            self._end([call for call in waiting if not call.left and self.leave(call)], told)
            return
        batch: list[Call] = []
        lost = self._run_calls(line, batch)
        if lost is not None:
            told = failure(lost, line.connection)
            self._close_line()
            self._end(batch, told)
            return
        self.batches += bool(batch)
        self.writes += sum(call.error is None for call in batch)
        self._wake([call.done for call in batch])

    def _run_calls(self, line: Line, batch: list[Call]) -> BaseException | None:
        """Run calls from the queue, add them to the batch, commit. Return what made the transaction be lost, if it is."""
        end = time.monotonic() + _SECONDS
        try:
            while len(batch) < _CALLS and (call := self._next()) is not None:
                batch.append(call)
                if not line.run(call):
                    return call.error or OperationalError(
                        "a function went on after an error for which SQLite had undone the transaction; let such an error "
                        "leave the function"
                    )
                if time.monotonic() >= end:
                    break
            if not line.commit():
                self._close_line()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            return error
        return None

    def _begin(self) -> Line:
        """Begin a transaction, on a new connection if there is none."""
        line = self._line
        if line is None:
            line = Line(engine.connect(self._url))
            with self._lock:
                self._line = line
        try:
            line.begin()
        except apsw.BusyError:
            raise
        except BaseException:
            self._close_line()
            raise
        return line

    def _abandon(self) -> None:
        """In a forked child: there is no thread any more; a writer that had no connection yet goes on."""
        closed = self._closed if self._line is None else FORKED
        self._line = None
        self._begin_anew()  # another thread of the parent may have held the lock
        self._closed = closed


_WRITERS: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork() -> None:
    for writer in list(_WRITERS):
        writer._abandon()


os.register_at_fork(after_in_child=_after_fork)
