"""The SQLite of other programs on this machine: those that may open the database, and those that have it open.

Each is asked in a process of its own, and none is told of the database: two SQLite libraries in one process drop each
other's locks.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import attrs

from dao.diagnosis.finding import Finding, note, ok, warning
from dao.engine.sqlite import library
from dao.errors import ReplicationError
from dao.migrate.processes import program_of
from dao.replication.litestream import program as litestream
from dao.text import counted

__all__ = ["Holder", "Program", "findings", "holders", "installed"]

_BUG = "sqlite.org/wal.html#walresetbug"
_TIMEOUT = 5
_CHECK = "other programs"
# for the program `python3` that is on the PATH
_ASK_PYTHON = """
import sqlite3, _sqlite3  # in a process of its own, of another Python, to ask for the version: it opens no database
print(sqlite3.sqlite_version)
print(_sqlite3.__file__)
try:
    print(*{line.split()[-1] for line in open("/proc/self/maps") if "libsqlite3" in line}, sep="\\n")
except OSError:
    pass
"""


@attrs.frozen
class Program:
    """A program with a SQLite of its own: its name, that SQLite's version, and the files by which it is recognised."""

    name: str
    version: str
    files: frozenset[str] = frozenset()

    @property
    def is_affected(self) -> bool:
        """Whether its SQLite has the WAL-reset bug."""
        return library.has_wal_reset_bug(self.version)


@attrs.frozen
class Holder:
    """A process that has a database open; `program` says which SQLite it uses, None if that is not known."""

    pid: int
    name: str
    program: Program | None


@functools.cache
def installed() -> tuple[Program, ...]:
    """Return the programs on this machine that bring a SQLite: Python's module, SQLite's shell, Litestream."""
    return tuple(_found())


def _found() -> Iterator[Program]:
    told: set[str] = set()
    for path in filter(None, (sys.executable, shutil.which("python3"))):
        answer = _told(path, "-I", "-c", _ASK_PYTHON)
        version, *files = answer.splitlines() or [""]
        if _is_version(version) and answer not in told:  # an environment has the module of what it was made from
            told.add(answer)
            yield Program(f"the sqlite3 module of {path}", version, frozenset(map(os.path.realpath, files)))
    if shell := shutil.which("sqlite3"):
        version = _told(shell, "--version").partition(" ")[0]
        if _is_version(version):
            yield Program(shell, version, frozenset({os.path.realpath(shell)}))
    with contextlib.suppress(ReplicationError, OSError):
        path = litestream()
        if (found := _written_in(path)) is not None:
            yield Program(path, found, frozenset({os.path.realpath(path)}))


def _told(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True).stdout
    return ""


def _is_version(text: str) -> bool:
    return re.fullmatch(r"3(\.\d+){1,3}", text) is not None


def _written_in(path: str) -> str | None:
    """Return the version of the SQLite that is compiled into a program which tells only its own."""
    import mmap  # noqa: PLC0415 - for Litestream only

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = re.search(rb"\0(3\.[0-9]{1,2}\.[0-9]{1,2})\0", text)
        return found[1].decode() if found else None


# ---------------------------------------------------------------- who has it open


def holders(path: str, programs: list[Program]) -> Iterator[Holder]:
    """Yield the other processes that have a database open, as far as this user may see them; Linux only."""
    names = {path, f"{path}-wal", f"{path}-shm"}
    by_file = {file: program for program in programs for file in program.files}
    with contextlib.suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) != os.getpid() and _has_open(pid, names):
                used = _files_of(pid)
                found = next((by_file[file] for file in used if file in by_file), None)
                yield Holder(int(pid), program_of(int(pid)) or "?", found)


def _has_open(pid: str, names: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in names:
                    return True
    return False


def _files_of(pid: str) -> list[str]:
    """Return the libraries of a process that may be SQLite, and then the program that it runs."""
    found = []
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            found = [line.rstrip("\n").partition("/")[2] for line in maps if re.search("sqlite|apsw", line)]
        found = [f"/{file}" for file in dict.fromkeys(found) if file]
        # Python's module and the library behind it are one SQLite; apsw beside them is the one that is used
        found.sort(key=lambda file: "apsw" not in file)
        found.append(os.readlink(f"/proc/{pid}/exe"))
    return found


# ---------------------------------------------------------------- findings


def findings(path: str | None) -> Iterator[Finding]:
    """Yield which other SQLite there is on this machine, and who has the database open with one that can damage it."""
    ours = Program("apsw", library.version(), frozenset({library.path()}))
    programs = [ours, *installed()]
    affected = [program for program in programs if program.is_affected]
    listed = ", ".join(f"{program.name} has {program.version}" for program in affected)
    if affected:
        yield note(
            _CHECK,
            f"SQLite with the WAL-reset bug: {listed}",
            "if they write to the database, or are the last to close it, while others write, it may be damaged "
            f"({_BUG}); 3.7.0 to 3.51.2 are affected, but for 3.44.6 and 3.50.7",
            "let them read only (`dao shell` does), or bring them to 3.51.3 or later, unless your distribution says "
            "that it has mended its own",
        )
    else:
        listed = ", ".join(f"{program.name} has {program.version}" for program in programs[1:]) or "none was found"
        yield ok(_CHECK, f"no SQLite with the WAL-reset bug: {listed}")
    if path is None:
        return
    having = list(holders(path, programs))
    for one in having:
        if one.program is not None and one.program.is_affected:
            yield warning(
                _CHECK,
                f"process {one.pid} ({one.name}) has the database open with SQLite {one.program.version}",
                f"that version has the WAL-reset bug: it may damage the database while others write ({_BUG})",
                f"end process {one.pid}, unless it reads only, and bring its SQLite to 3.51.3 or later",
            )
    unknown = [f"{one.pid} ({one.name})" for one in having if one.program is None]
    if unknown:
        yield note(
            _CHECK,
            f"{counted(len(unknown), 'process')} with an unknown SQLite have the database open: {', '.join(unknown)}"
            if len(unknown) > 1
            else f"process {unknown[0]} has the database open, with an unknown SQLite",
            f"versions 3.7.0 to 3.51.2 may damage it ({_BUG})",
            "look up which version they bring",
        )
    known = [one for one in having if one.program is not None and not one.program.is_affected]
    if known:
        listed = ", ".join(f"{one.pid} ({one.name}, SQLite {one.program.version})" for one in known if one.program)
        yield ok(_CHECK, f"has the database open: process {listed}")
