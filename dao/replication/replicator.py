"""Keep a replica up to date, as long as that works: Litestream, watched.

Litestream goes on from its own notes when it starts. If another process has brought the WAL into the file meanwhile
and begun it anew, it does not notice which transactions it has missed, and the replica is damaged in silence. So each
start begins with a whole copy: the WAL is emptied, and the notes are removed, before it starts. While it runs, it keeps
others from beginning the WAL anew by a read transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import attrs

from dao import url
from dao.engine import connect, sqlite
from dao.errors import DatabaseBusy, InvalidURL, ReplicationError
from dao.migrate.copies.new_files import file_errors
from dao.migrate.database import path_of
from dao.replication.litestream import Litestream, Metrics, parse_replica, said
from dao.text import manual

__all__ = ["KEEP", "PATIENCE", "State", "replicate"]

#: How far back a restore reaches, unless something else is said.
KEEP = timedelta(hours=72)
#: After so many seconds in which nothing got through and Litestream told of errors, replication has stopped.
PATIENCE = 60.0

_LOOK = 1.0  # seconds between two looks at the process, the file and the metrics
_ASK = 10.0  # … between two questions to the replica, as long as all is well
_LATE = 10.0  # … after which it is told that it is behind
_END = 60.0  # … for the last upload
_SILENT = 10  # so many times as patient with one that tells of no errors: it may upload a large transaction

Report = Callable[["State"], object]


@attrs.frozen(kw_only=True)
class State:
    """How replication stands: told when it is `begun`, whenever it falls behind or catches up, and at its end.

    `behind`: for so many seconds it has not been known that all is in the replica; None as long as the first whole copy
    is not there. `reason` says why, if Litestream has said it.
    """

    database: str
    replica: str
    metrics: str
    behind: float | None = None
    reason: str | None = None


def replicate(
    database: str | url.AnyURL,
    to: str,
    *,
    keep: timedelta = KEEP,
    metrics: str | None = None,
    once: bool = False,
    patience: float = PATIENCE,
    report: Report | None = None,
) -> State:
    """Replicate a database to a folder or to S3 until KeyboardInterrupt; return how it stood then.

    It begins with a whole copy, and ends with that if it is to do so `once`. On KeyboardInterrupt what is committed by
    then is uploaded first. `keep` is how far back `restore` reaches. `metrics` is the address of Litestream's metrics
    for Prometheus, `host:port`; one of this machine by default.

    Raises:
        InvalidURL: `to` means nothing, or the database is on a server.
        ReplicationError: It cannot begin, or it has stopped: the process ended, the file was replaced, or nothing got
            through for `patience` seconds. To begin again is safe. If Litestream tells of no errors, it has ten times
            as long, and for the first copy as long as that takes.
        DatabaseBusy: It is replicated already, or another connection reads, so that the WAL cannot be emptied.
        OperationalError: The database cannot be opened.
    """
    parsed, replica = _accepted(database), parse_replica(to)
    if metrics is not None and not re.fullmatch(r".*:[0-9]{1,5}", metrics):
        raise InvalidURL(f"the address of the metrics, {metrics}, is none: give HOST:PORT, such as 127.0.0.1:9090")
    path = path_of(parsed)
    notes = Path(os.path.dirname(path), f".{os.path.basename(path)}-litestream")
    with _alone(path, notes) as lock:
        address = metrics or _free_address()
        litestream = Litestream.configured(path, replica, notes, keep=keep, metrics=address)
        _begin_anew(parsed, notes)
        watch = _Watch(
            litestream,
            address,
            path,
            patience,
            report,
            State(database=path, replica=replica.name, metrics=f"http://{address}/metrics"),
        )
        return watch.run(lock, once=once)


def _accepted(database: str | url.AnyURL) -> url.DatabaseURL:
    path_of(database)  # one on a server has none, and the error says what there is for it
    parsed = url.parse_file(database)
    if parsed.is_memory or parsed.mode == "ro":
        raise ReplicationError(f"{parsed.path} cannot be replicated: name a file that can be written to")
    sqlite.check_exists(parsed)
    if parsed.wal_autocheckpoint != 0:
        raise ReplicationError(
            f"{parsed.path} cannot be replicated as long as its programs checkpoint: a commit that brings the WAL into "
            "the file while nothing replicates it would be missing in the replica. Add wal_autocheckpoint=0 to the "
            f"database URL of all that write to it, this command included ({manual('how-to/replicate.md')})"
        )
    return parsed


@contextlib.contextmanager
def _alone(path: str, notes: Path) -> Iterator[int]:
    """Hold a lock on a file, which is lent, so that a database has one replicator. Its processes hold it together."""
    with file_errors(f"cannot write {notes}"):
        notes.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(notes / "dao.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held = " and ".join(os.pread(lock, 100, 0).decode(errors="replace").split()) or "another"
            raise DatabaseBusy(f"{path} is being replicated already (process {held}): end that one first") from error
        yield lock
    finally:
        os.close(lock)


def _begin_anew(parsed: url.DatabaseURL, notes: Path) -> None:
    """Empty the WAL, and remove Litestream's notes, by which it would go on without what it has not seen."""
    with contextlib.closing(connect(attrs.evolve(parsed, mode="rw"))) as connection:
        ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if busy:
        raise DatabaseBusy(
            f"{parsed.path} is read by another connection, so that its WAL cannot be emptied, from which replication "
            "begins: end long transactions, or whatever else replicates it, and repeat"
        )
    shutil.rmtree(notes / "ltx", ignore_errors=True)


def _free_address() -> str:
    import socket  # noqa: PLC0415 - the rest needs none

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


class _Watch:
    """A run of Litestream under way."""

    def __init__(
        self, litestream: Litestream, address: str, path: str, patience: float, report: Report | None, state: State
    ) -> None:
        self._litestream, self._address, self._path = litestream, address, path
        self._patience, self._report = patience, report or (lambda _state: None)
        self._state = state
        self._file = os.stat(path)
        self._metrics = Metrics(0, 0, 0)
        #: Up to when it is known that all that was committed is in the replica, by the monotonic clock.
        self._safe = time.monotonic()
        self._begun = False
        self._error: str | None = None
        self._failed = 0.0

    def run(self, lock: int, *, once: bool) -> State:
        """Replicate until KeyboardInterrupt, or until all is there once."""
        process = self._litestream.begin(lock)
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        try:
            reader.start()
            os.pwrite(lock, f"{os.getpid()} {process.pid}\n".ljust(100).encode(), 0)
            with contextlib.suppress(KeyboardInterrupt):
                while not (once and self._begun):
                    time.sleep(_LOOK if self._begun else _LOOK / 5)
                    self._look(process)
            self._error = None
            self._end(process, reader)
            return self._state
        finally:
            if process.poll() is None:
                # what it would still upload may be of another file
                process.kill()
                process.wait()
            reader.join(timeout=_LOOK)

    def _end(self, process: subprocess.Popen[str], reader: threading.Thread) -> None:
        """Let Litestream upload what is left; another KeyboardInterrupt ends that."""
        process.terminate()
        try:
            code = process.wait(timeout=_END)
            reader.join(timeout=_LOOK)
            if code == 0 and self._error is None:
                return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        raise ReplicationError(
            f"{self._path}: replication has ended, and the last commits may not be in {self._state.replica}"
            f"{self._because()}: begin it again"
        )

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Keep the last error that Litestream wrote."""
        if process.stderr is not None:
            with process.stderr as lines:
                for line in lines:
                    level, text = said(line)
                    if level == "ERROR":
                        self._fails(text)

    def _fails(self, error: str) -> None:
        self._error, self._failed = error, time.monotonic()

    def _look(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is not None:
            raise self._stopped(f"litestream has ended with exit code {process.returncode}")
        self._check_file()
        begun = time.monotonic()
        found = Metrics.read(self._address, self._path)
        works = found is not None and found.looks - found.failed > self._metrics.looks - self._metrics.failed
        late = begun - self._safe
        if found is not None and works:
            self._metrics = found
            if late >= _ASK or not self._begun or self._state.behind:
                self._ask(begun)
        fails = found is None or found.failed > self._metrics.failed or self._is_failing(late)
        if late >= self._patience and (fails or (self._begun and late >= _SILENT * self._patience)):
            raise self._stopped(f"nothing got through for {late:.0f} s")
        if self._begun and late >= _LATE + _ASK and not self._state.behind:
            self._told(late)

    def _is_failing(self, late: float) -> bool:
        """Return whether Litestream tells of errors all the time: it tries again after twice as long, each time."""
        return self._error is not None and time.monotonic() - self._failed < 0.6 * late

    def _ask(self, begun: float) -> None:
        """Ask the replica what it has: if that is all that was found in the WAL, all is safe up to that look."""
        try:
            uploaded = self._litestream.uploaded()
        except ReplicationError as error:
            self._fails(self._error or str(error))  # what it says itself is nearer to the cause
            return
        if uploaded is None or not 0 < self._metrics.number <= uploaded.number:
            return
        self._safe, self._error = begun, None
        if not self._begun or self._state.behind:
            self._begun = True
            self._told(0.0)

    def _check_file(self) -> None:
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, self._file):
            raise self._stopped("the file was replaced or removed, and what is written to another is not replicated")

    def _stopped(self, why: str) -> ReplicationError:
        return ReplicationError(
            f"{self._path}: replication to {self._state.replica} has stopped, since {why}{self._because()}",
            advice="To begin it again is safe: it begins with a whole copy.",
        )

    def _because(self) -> str:
        return f" ({self._error})" if self._error else ""

    def _told(self, behind: float) -> None:
        self._state = attrs.evolve(self._state, behind=behind, reason=self._error)
        self._report(self._state)
