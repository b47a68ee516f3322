"""The command that opens the database with a client of its engine."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import attrs
import click

from dao import settings, url
from dao.cli.options import command, creating_nothing, examples
from dao.cli.output import Output, is_terminal
from dao.engine import connect
from dao.engine.sqlite import library
from dao.errors import OperationalError, UnsupportedEngine
from dao.migrate import database as databases
from dao.migrate.schema.registration import register

__all__ = ["shell"]

_TIMEOUT = 5
_OWN = "apsw"
#: The clients of each engine, by preference, and those of them that serve a person at a terminal only.
_SQLITE, _SERVER = ("litecli", "sqlite3", _OWN), ("pgcli", "psql")
_FOR_PEOPLE = {"litecli", "pgcli"}
_WRITING = (
    "opened for writing: the database's own rules hold (constraints, triggers), whatever else programs do around a "
    "change does not. A schema that is changed here is drift (`dao schema diff`): write a migration for that. `dao "
    "snapshot` first, and what goes wrong can be brought back"
)
_READING = "read only; `dao shell --write` opens it for writing"


@click.command("shell")
@command(migrations=False, changes=True)
@examples(
    "dao shell",
    'dao shell "SELECT phase, count(*) FROM task_overview GROUP BY phase"',
    "dao shell --write --program psql --database postgresql://dao@db.internal/orchestrator",
)
@click.option("--write", is_flag=True, help="Open it for writing. [default: read only]")
@click.option(
    "--program",
    type=click.Choice([*_SQLITE, *_SERVER]),
    help="The client. [default: litecli, sqlite3 or apsw's shell, which is always there; pgcli or psql]",
)
@click.argument("sql", nargs=-1)
def shell(config: settings.Settings, output: Output, write: bool, program: str | None, sql: tuple[str, ...]) -> int:
    """Open the database with a client for SQL.

    Read only, unless --write is given. With SQL, runs that and ends; otherwise reads from a person or a script. A
    password is handed on in the environment, never on a command line. sqlite3 is not opened for writing if its SQLite
    has the WAL-reset bug, which can damage the database: apsw's shell takes its place. --json prints which program it
    would be, and opens nothing.
    """
    config = creating_nothing(config)
    databases.existing(config.url, "open")
    if isinstance(config.url, url.DatabaseURL) and write and config.url.mode == "ro":
        raise click.UsageError("--write does not go with mode=ro in the URL: leave one of them out")
    plan = _plan(config, program, sql, write=write)
    output.json({"database": config.url.name, "command": list(plan.command), "read_only": not write})
    if output.as_json:
        return 0
    if write:
        output.warning(f"{config.url.name} is {_WRITING}")
    elif is_terminal(sys.stderr):
        output.note(f"{config.url.name}: {_READING}")
    return _own(config, sql, write=write) if plan.command[0] == _OWN else _replace(plan)


@attrs.frozen
class _Plan:
    """A program to run, and what its environment has beside this one's."""

    command: Sequence[str]
    environment: Mapping[str, str] = attrs.Factory(dict)


def _plan(config: settings.Settings, program: str | None, sql: Sequence[str], *, write: bool) -> _Plan:
    known = _SERVER if isinstance(config.url, url.ServerURL) else _SQLITE
    if program is not None and program not in known:
        raise click.UsageError(
            f"--program {program} is for another engine than {config.url.name}: name {' or '.join(known)}"
        )
    refused: list[str] = []
    by_person = not sql and is_terminal(sys.stdin)
    for name in (program,) if program else known:
        if program is None and name in _FOR_PEOPLE and not by_person:
            continue
        path = name if name == _OWN else shutil.which(name)
        if path is None:
            refused.append(f"{name} is not on the PATH")
        elif reason := _unfit(name, path, config, write=write):
            refused.append(reason)
        elif isinstance(config.url, url.ServerURL):
            return _for_server(path, name, config.url, sql, write=write)
        else:
            return _for_file(path, name, config.url, sql, write=write)
    advice = "install psql (Debian: postgresql-client)" if known is _SERVER else "leave --program out"
    raise OperationalError(f"{config.url.name} cannot be opened: {'; '.join(refused)}. Name another, or {advice}")


def _unfit(name: str, path: str, config: settings.Settings, *, write: bool) -> str | None:
    """Return why a client would not do; None if it does."""
    if name in _SERVER or name == _OWN:
        return None
    if config.prepare is not None:
        return f"{name} has none of the functions that {config.prepare} registers, apsw's shell has"
    if not write:
        return None
    if name == "litecli":
        return "litecli enforces no foreign keys, and is for reading"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT, check=True).stdout
        version = told.partition(" ")[0]
        if re.fullmatch(r"[0-9]+(\.[0-9]+)+", version) and not library.has_wal_reset_bug(version):
            return None
        return (
            f"{path} has SQLite {version or '?'}, which can damage a database in WAL mode that others write to "
            "(sqlite.org/wal.html#walresetbug): 3.51.3 or later is needed for writing"
        )
    return f"{path} does not run"


# ---------------------------------------------------------------- the clients


def _for_file(path: str, name: str, database: url.DatabaseURL, sql: Sequence[str], *, write: bool) -> _Plan:
    if name == _OWN:
        return _Plan((_OWN,))
    how = "rw" if write else "ro"
    uri = f"file://{quote(os.path.realpath(database.path))}?mode={how}" + ("&immutable=1" if database.immutable else "")
    if name == "litecli":
        return _Plan((path, uri))
    options = [] if write else ["-readonly"]
    options += ["-cmd", f".timeout {5000 if database.busy_timeout is None else database.busy_timeout}"]
    options += ["-cmd", "PRAGMA foreign_keys = ON"] if write else []
    options += ["-box"] if is_terminal(sys.stdout) else []
    return _Plan((path, *options, uri, *sql))


def _for_server(path: str, name: str, database: url.ServerURL, sql: Sequence[str], *, write: bool) -> _Plan:
    from dao.engine.postgresql.client import environment

    variables, rest = environment(database)
    # times as this package has them
    variables = {"PGAPPNAME": "dao shell", "PGTZ": "UTC", **variables}
    if not write:
        options = variables.get("PGOPTIONS") or os.environ.get("PGOPTIONS", "")
        variables["PGOPTIONS"] = f"{options} -c default_transaction_read_only=on".strip()
    if name == "pgcli" and sql:
        raise UnsupportedEngine("pgcli is for a person at a terminal: leave the SQL out, or use --program psql")
    statements = [word for one in sql for word in ("--command", one)]
    # without it psql goes on behind a statement that failed, and ends as if none had
    strict = ["--set=ON_ERROR_STOP=1"] if name == "psql" else []
    return _Plan((path, *strict, *statements, *([rest] if rest else [])), variables)


def _own(config: settings.Settings, sql: Sequence[str], *, write: bool) -> int:
    from dao.engine.sqlite import shell as own

    database: Any = config.url
    with contextlib.closing(
        connect(attrs.evolve(database, mode="rw" if write else "ro").switching_nothing())
    ) as opened:
        register(opened)
        return own.run(opened, sql)


def _replace(plan: _Plan) -> NoReturn:
    """Have this process become the program: a terminal's Ctrl-C is for that alone."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Python ignores it, and the program would, too
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(plan.command[0], list(plan.command), {**os.environ, **plan.environment})  # noqa: S606 - from the PATH
