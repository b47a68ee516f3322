"""Group commit on SQLite: one thread runs what many callers write, and commits it for all of them at once.

For many threads or tasks that each write a little (tool executions, heartbeats): a commit costs the same for one of
them as for a hundred. Here are the queue and the thread; `dao.Pool.write` and `dao.aio.Pool.write` wait. For each call
holds:

- Its function runs in a savepoint. If it fails, that savepoint is undone, and nothing else.
- Its caller returns after the commit. If it was told of success, its rows are in the file, as safe as `synchronous`
  makes them.
- A commit that fails, or an error for which SQLite gives up the transaction (disk full, I/O error, RAISE(ROLLBACK)), is
  told to every call of the batch that had succeeded so far. Nothing of them is stored, but for a commit of which that
  cannot be known (`CommitUnknown`), and the next batch begins anew.
- It begins in the order of arrival, or not at all if its caller has left the queue. A batch ends when nobody waits, at
  `BATCH_CALLS` or after `BATCH_SECONDS`, so that a full one cannot keep its callers waiting; later calls are in the
  next.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dao import locks, url
from dao.engine import sqlite
from dao.engine.sqlite.shared import SharedTransaction
from dao.errors import CommitUnknown, DatabaseBusy, Error, OperationalError, PoolClosed, PoolTimeout
from dao.logs import logger
from dao.pooling.calls import Call
from dao.pooling.lender import CHECK, FORKED, FORKED_WITH, until
from dao.pooling.opening import Prepare, open_connection

__all__ = ["BATCH_CALLS", "BATCH_SECONDS", "IDLE_SECONDS", "Writer"]

log = logger("dao.pool")

#: A batch ends after so many calls, and so many seconds after its first, even if others wait.
BATCH_CALLS = 256
BATCH_SECONDS = 0.005

#: An idle thread ends after so many seconds, and the next call starts another: a program that forgets to close the
#: pool ends all the same. The connection stays open.
IDLE_SECONDS = 0.5


_NESTED = (
    "write was called by a function that runs in write: its commit would wait for itself, or come before the outer "
    "one's; call the inner function with the connection that the outer one was given"
)


class _Alone:
    __slots__ = ("__weakref__",)


class Writer:
    """The queue of calls, and the thread that runs them on a connection of its own. Both are made when first needed.

    `wake` sets the events of calls that have ended, in their threads or tasks.
    """

    def __init__(
        self, database: url.AnyURL, wake: Callable[[Sequence[Any]], object], prepare: Prepare | None = None
    ) -> None:
        self.wake = wake
        self._url = database
        self._prepare = prepare
        self._shared: SharedTransaction | None = None
        self._writes = self._batches = self._timeouts = 0
        # by the threads' numbers; an interruption at any bytecode leaves none behind
        self._alone: weakref.WeakValueDictionary[int, _Alone] = weakref.WeakValueDictionary()
        self._begin_anew()
        FORKED_WITH.add(self)

    def _begin_anew(self) -> None:
        # A thread may come in twice: the garbage collector ends a coroutine anywhere, and its call leaves the queue.
        self._lock = locks.RLock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[Call] = deque()
        self._enders: list[Any] = []  # the events of those who wait for the end of it all
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._closed: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has a connection that nobody has told it to close."""
        return self._shared is not None and self._closed is None

    def has(self, connection: object) -> bool:
        """Return whether it is the writer's connection."""
        shared = self._shared
        return shared is not None and shared.connection is connection

    def figures(self) -> dict[str, int]:
        """Return what `PoolStats` says of it."""
        return {
            "queued": len(self._queue),
            "writes": self._writes,
            "batches": self._batches,
            "timeouts": self._timeouts,
        }

    # ------------------------------------------------------------ callers

    def alone(self) -> object:
        """Note that this thread writes in a transaction that nobody shares, for as long as it has what this returns.

        Raises:
            RuntimeError: It does so already.
        """
        thread = threading.get_ident()
        if thread in self._alone:
            raise RuntimeError(_NESTED)
        self._alone[thread] = noted = _Alone()
        return noted

    def count(self) -> None:
        """Count a write that was committed by itself."""
        with self._lock:
            self._writes += 1
            self._batches += 1

    def turns(self, call: Call, timeout: float) -> Iterator[float]:
        """Queue a call, and yield, until it has ended, for how many seconds to wait at its event.

        It may wait for its turn for so many seconds. Once it has begun, only its end tells whether it is stored.

        Raises:
            PoolTimeout: Its turn did not come.
            PoolClosed: The pool was closed, or belongs to the parent of this process.
            RuntimeError: This is the writer's own thread: the call would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(_NESTED)
        with self._lock:
            if self._closed is not None:
                raise PoolClosed(self._closed)
            if self._thread is None or self._asleep:
                self._start()
            self._queue.append(call)
        # not by `until`: a second generator for each call is felt when many threads write
        end = time.monotonic() + timeout
        while not call.ended.is_set():
            left = end - time.monotonic()
            if left <= 0 and self.leave(call):
                with self._lock:
                    self._timeouts += 1
                raise PoolTimeout(
                    f"the write did not begin within {timeout:g} s, and now it never will: {len(self._queue)} others "
                    "wait for the same writer; give it functions that take less time, or wait longer"
                )
            yield min(left, CHECK) if left > 0 else CHECK

    def leave(self, call: Call) -> bool:
        """Take a call out of the queue. Return whether its function never runs, as it has not begun. Safe to repeat."""
        with self._lock:
            if not call.begun:
                call.left = True
                if call in self._queue:
                    self._queue.remove(call)
            return call.left

    # ------------------------------------------------------------ the end

    def finish(self, ended: Any) -> None:
        """Take no more calls, run those that are queued, close the connection, and set `ended`. Safe to repeat."""
        with self._lock:
            self._closed = self._closed or "the pool is closed"
            if self._thread is not None or self._shared is not None:
                # at the interpreter's end no thread can be started
                with contextlib.suppress(RuntimeError):
                    self._start()
            if self._thread is not None:
                self._enders.append(ended)
                return
        self._close_connection()
        ended.set()  # here, and not by `wake`: no writer's thread is there to tell

    def ends(self, ended: Any, timeout: float) -> Iterator[float]:
        """Yield, until `ended` is set, for how many seconds to wait at it; or until nothing more can be done.

        After the timeout no more of what is queued is run, what runs is interrupted, and has another second.
        """
        yield from until(ended.is_set, timeout)
        if not ended.is_set():
            self._give_up(timeout)
            yield from until(ended.is_set, 1.0)

    def _give_up(self, timeout: float) -> None:
        with self._lock:
            queued, shared = self._take_out(list(self._queue)), self._shared
        log.warning("pool: writes go on after %.1f s; %d that wait are given up", timeout, len(queued))
        self._fail(queued, lambda: PoolClosed("the pool was closed before this write had its turn; nothing was done"))
        if shared is not None:
            sqlite.interrupt(shared.connection)

    def _close_connection(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _take_out(self, calls: Sequence[Call]) -> list[Call]:
        """Take calls out of the queue that end here, as good as begun. Return those that were in it still."""
        out = []
        with self._lock:
            for call in calls:
                if not (call.begun or call.left):
                    call.begun = True
                    self._queue.remove(call)
                    out.append(call)
        return out

    def _fail(self, calls: Sequence[Call], failure: Callable[[], Error]) -> None:
        """End calls, each with an exception of its own, but for those that have one already."""
        for call in calls:
            if call.error is None:
                call.result = None
                call.error = failure()
        self.wake([call.ended for call in calls])

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
                return  # the caller that started it was interrupted, and may have started another
        while self._has_work():
            self._run_batch()

    def _has_work(self) -> bool:
        """Wait for a call. Return False if the thread is to end, when all is done that has to be."""
        with self._lock:
            if not self._queue and self._closed is None:
                self._asleep = True
                self._work.wait(IDLE_SECONDS)
                self._asleep = False
            if self._queue:
                return True
            if self._closed is None:
                self._thread = None
                return False
        self._close_connection()
        with self._lock:
            self._thread = None
            enders = self._enders
            self._enders = []
        self.wake(enders)
        return False

    def _run_batch(self) -> None:
        """Run what is queued in one transaction, commit it, and tell each caller."""
        with self._lock:
            waiting = list(self._queue)
        try:
            shared = self._begin()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            known = self._translated(error)
            if not isinstance(known, DatabaseBusy):
                self._close_connection()
            # these have waited for all of the busy timeout; later ones wait on
            self._fail(self._take_out(waiting), self._failure(known, error))
            return
        batch: list[Call] = []
        lost = self._run_calls(shared, batch)
        if lost is not None:
            known = self._translated(lost)
            self._close_connection()
            self._fail(batch, self._failure(known, lost))
            return
        self._batches += bool(batch)
        self._writes += sum(call.error is None for call in batch)
        self.wake([call.ended for call in batch])

    def _begin(self) -> SharedTransaction:
        """Begin a transaction, on a new connection if there is none."""
        shared = self._shared
        if shared is None:
            shared = SharedTransaction(open_connection(self._url, self._prepare))
            with self._lock:
                self._shared = shared
        shared.begin()
        return shared

    def _run_calls(self, shared: SharedTransaction, batch: list[Call]) -> BaseException | None:
        """Run calls from the queue, add them to the batch, commit. Return the error for which all is lost, if it is."""
        end = time.monotonic() + BATCH_SECONDS
        try:
            while len(batch) < BATCH_CALLS and (call := self._next()) is not None:
                batch.append(call)
                if not shared.run(call):
                    return call.error or OperationalError(
                        "a function went on after an error for which SQLite had undone the transaction; let such an "
                        "error leave the function"
                    )
                if time.monotonic() >= end:
                    break
            if not shared.commit():
                self._close_connection()
        except BaseException as error:  # noqa: BLE001 - the callers get it
            return error
        return None

    def _next(self) -> Call | None:
        with self._lock:
            if not self._queue:
                return None
            self._queue[0].begun = True
            return self._queue.popleft()

    def _translated(self, error: BaseException) -> BaseException:
        """Return the error of ours for one that met all calls, while its connection is there, or itself."""
        return error if self._shared is None else self._shared.translated(error)

    def _failure(self, known: BaseException, error: BaseException) -> Callable[[], Error]:
        """Return what makes, for each call, an exception of its own for the error that met all of them."""
        kind = type(known) if isinstance(known, OperationalError) else OperationalError
        detail = str(known) if isinstance(known, Error) else f"{type(known).__name__}: {known}"
        if not isinstance(known, CommitUnknown):
            detail = f"nothing of this write is stored, for the transaction that it shared with others failed: {detail}"

        def make() -> Error:
            made = kind(detail)
            made.__cause__ = error
            return made

        return make

    def leave_to_parent(self) -> None:
        """In a forked child: there is no thread any more; a writer that had no connection yet goes on."""
        closed = self._closed if self._shared is None else FORKED
        self._shared = None
        self._begin_anew()  # another thread of the parent may have held the lock
        self._closed = closed
