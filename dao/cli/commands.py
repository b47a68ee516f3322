"""The commands themselves. Each is thin: settings, one call of `dao.migrate` or the pool, output."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click

from dao import migrate, settings
from dao.cli.output import Output, milliseconds
from dao.errors import Error, LedgerMismatch, MigrationError, SchemaOutOfDate, SchemaTooNew, UnsupportedEngine

__all__ = ["ALL"]

F = TypeVar("F", bound=Callable[..., Any])

PENDING, MISMATCH = 3, 4


def _settings(
    database: str | None, migrations: str | None = None, busy_timeout: int | None = None
) -> settings.Settings:
    if database == "":
        # an unset variable in a script must not come to mean the default database
        raise click.UsageError("--database is empty: name a database, or leave the option out")
    try:
        config = settings.load(database=database, migrations=migrations, busy_timeout=busy_timeout)
    except (ValueError, UnsupportedEngine) as error:
        raise click.UsageError(str(error)) from error
    if config.url.is_memory:
        raise click.UsageError(
            "a database in memory ends with this command: name a file, such as sqlite:///orchestrator.db"
        )
    return config


_quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _common(*, migrations: bool = True) -> Callable[[F], F]:
    """Add the options that every command has, and hand them over as `config` and `output`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(
            *,
            database: str | None,
            busy_timeout: int | None,
            quiet: bool,
            as_json: bool,
            folder: str | None = None,
            **options: Any,
        ) -> Any:
            config = _settings(database, folder, busy_timeout)
            return function(config=config, output=Output(quiet=quiet, as_json=as_json), **options)

        options = [
            click.option("-d", "--database", metavar="URL", help="Database URL. [default: $DATABASE_URL]"),
            click.option(
                "--busy-timeout",
                type=click.IntRange(min=0),
                metavar="MS",
                help="Wait so many milliseconds for a lock. [default: $DATABASE_BUSY_TIMEOUT, else 5000]",
            ),
            _quiet,
            _json,
        ]
        if migrations:
            options.insert(
                1,
                click.option(
                    "-m",
                    "--migrations",
                    "folder",
                    metavar="DIR",
                    help="Folder of the migrations. [default: $DATABASE_MIGRATIONS, else those of this package]",
                ),
            )
        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate


_allow_out_of_order = click.option(
    "--allow-out-of-order", is_flag=True, help="Go on although a pending migration comes before an applied one."
)
_each = click.option("--each", is_flag=True, help="Commit after every migration instead of all together.")


def _timeout(seconds: float) -> Callable[[F], F]:
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        callback=_no_nan,
        default=seconds,
        metavar="S",
        help=f"Seconds. [default: {seconds:g}]",
    )


def _no_nan(_context: click.Context, _parameter: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):  # neither above nor below any limit: waiting would never end
        raise click.BadParameter("nan is no number of seconds.")
    return seconds


# ---------------------------------------------------------------- change the schema


@click.command("migrate")
@_common()
@click.option("--to", metavar="ID", help="Stop after this migration; the beginning of its id will do.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="Apply the next N only.")
@_each
@_allow_out_of_order
def migrate_(
    config: settings.Settings,
    output: Output,
    to: str | None,
    steps: int | None,
    each: bool,
    allow_out_of_order: bool,
) -> None:
    """Apply the pending migrations, all or none. Creates the database if need be."""
    with output.progress():
        results = migrate.apply(
            config.url,
            config.migrations,
            to=to,
            steps=steps,
            each=each,
            allow_out_of_order=allow_out_of_order,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to apply")


@click.command("rollback")
@_common()
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="Undo the latest N. [default: 1]")
@click.option("--to", metavar="ID", help="Undo what was applied after this migration; it stays.")
@click.option("--all", "everything", is_flag=True, help="Undo all migrations.")
@_each
@_allow_out_of_order
def rollback(
    config: settings.Settings,
    output: Output,
    steps: int | None,
    to: str | None,
    everything: bool,
    each: bool,
    allow_out_of_order: bool,
) -> None:
    """Undo the latest migrations, all or none.

    The order is the reverse of that in which they were applied.
    """
    _only_one_of(steps=steps, to=to, all=everything or None)
    with output.progress():
        results = migrate.rollback(
            config.url,
            config.migrations,
            to=to,
            steps=None if everything else 1 if steps is None else steps,
            each=each,
            allow_out_of_order=allow_out_of_order,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to roll back")


@click.command("redo")
@_common()
@click.option("--steps", type=click.IntRange(min=1), default=1, metavar="N", help="Redo the latest N. [default: 1]")
def redo(config: settings.Settings, output: Output, steps: int) -> None:
    """Undo the latest and apply them again.

    In one transaction, from the files as they are now: while you write one.
    """
    with output.progress():
        results = migrate.redo(config.url, config.migrations, steps=steps, report=output.report)
    output.results(config.url.path, results, f"{config.url.path}: nothing to redo")


@click.command("init")
@_common()
def init(config: settings.Settings, output: Output) -> None:
    """Create the database, migrate it, print the status."""
    with output.progress():
        migrate.apply(config.url, config.migrations, report=output.report)
    output.status(migrate.status(config.url, config.migrations))


@click.command("reset")
@_common()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def reset(config: settings.Settings, output: Output, yes: bool) -> None:
    """Drop everything and migrate again.

    Everything that the migrations made goes, rows included.
    Refuses a database with tables or views that the migrations did not make.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise MigrationError(
                f"reset drops every row of {config.url.path}, and there is no terminal to ask on: add --yes to confirm"
            )
        if not click.confirm(f"Drop every table and row of {config.url.path}, and migrate again?", err=True):
            raise MigrationError(f"{config.url.path} was not reset: you did not say yes. Nothing was changed")
    with output.progress():
        results = migrate.reset(config.url, config.migrations, report=output.report)
    output.results(config.url.path, results, f"{config.url.path}: nothing to apply")


# ---------------------------------------------------------------- look


@click.command("status")
@_common()
@click.option(
    "--exit-code", is_flag=True, help="Exit with 3 if migrations are pending, with 4 if files changed or went."
)
def status(config: settings.Settings, output: Output, exit_code: bool) -> int:
    """Print where each migration stands. Reads only; creates no database."""
    current = migrate.status(config.url, config.migrations)
    output.status(current)
    if not exit_code:
        return 0
    if current.ids("changed", "missing", "unfinished"):
        return MISMATCH
    return PENDING if current.ids("pending") else 0


@click.command("plan")
@_common()
@click.option("--rollback", "undo", is_flag=True, help="Plan a rollback instead.")
@click.option("--to", metavar="ID", help="As for migrate and rollback.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="As for migrate and rollback.")
@click.option("--all", "everything", is_flag=True, help="As for rollback.")
@_allow_out_of_order
def plan(
    config: settings.Settings,
    output: Output,
    undo: bool,
    to: str | None,
    steps: int | None,
    everything: bool,
    allow_out_of_order: bool,
) -> None:
    """Print what migrate or rollback would run.

    Reads only; creates no database.
    """
    if undo:
        _only_one_of(steps=steps, to=to, all=everything or None)
    elif everything:
        raise click.UsageError("--all goes with --rollback: migrate applies all anyway")
    planned = migrate.plan(
        config.url,
        config.migrations,
        direction="rollback" if undo else "apply",
        to=to,
        steps=1 if undo and steps is None and not everything else steps,
        allow_out_of_order=allow_out_of_order,
    )
    output.plan(config.url.path, planned)


@click.command("health")
@_common()
@_timeout(5)
def health(config: settings.Settings, output: Output, timeout: float) -> int:
    """Check the database and its schema, for probes.

    It is healthy if it answers in time and no migration is pending. Creates no database.
    """
    problem, seconds, code = _health(config, timeout)
    output.json(
        {"database": config.url.path, "healthy": problem is None, "seconds": round(seconds, 6), "error": problem}
    )
    if problem is None:
        output.line(f"{config.url.path}: healthy (answered in {milliseconds(seconds)})", style="green")
    else:
        output.error(problem)
    return code


@click.command("wait")
@_common()
@_timeout(30)
def wait(config: settings.Settings, output: Output, timeout: float) -> int:
    """Wait until the database is ready.

    It is when it exists, answers and no migration is pending: before a program starts.
    """
    end = time.monotonic() + timeout
    while True:
        remaining = end - time.monotonic()
        problem, _, code = _health(config, max(0.1, min(5.0, remaining)))
        if problem is None:
            output.json({"database": config.url.path, "ready": True, "error": None})
            output.line(f"{config.url.path}: ready", style="green")
            return 0
        if remaining <= 0:
            output.json({"database": config.url.path, "ready": False, "error": problem})
            output.error(f"not ready after {timeout:g} s: {problem}")
            return code
        time.sleep(min(0.2, max(0.0, remaining)))


def _health(config: settings.Settings, timeout: float) -> tuple[str | None, float, int]:
    """Return what is wrong, or None; the seconds that the database took to answer; the exit code."""
    # a probe creates nothing
    mode = "rw" if config.url.mode in {None, "rwc"} else config.url.mode
    url = attrs.evolve(config.url, mode=mode)
    with attrs.evolve(config, url=url, pool_size=1).pool() as pool:
        answer = pool.health(timeout)
        if not answer.ok:
            return answer.error, answer.seconds, 1
        try:
            with pool.acquire(timeout=timeout) as connection:
                migrate.assert_current(connection, config.migrations)
        except SchemaOutOfDate as error:
            return str(error), answer.seconds, MISMATCH if error.unfinished else PENDING
        except (SchemaTooNew, LedgerMismatch) as error:
            return str(error), answer.seconds, MISMATCH
        except Error as error:
            return str(error), answer.seconds, 1
    return None, answer.seconds, 0


# ---------------------------------------------------------------- write a migration, mend the ledger


@click.command("new")
@click.argument("name", nargs=-1, required=True)
@click.option("-m", "--migrations", "folder", metavar="DIR", help="Folder of the migrations. [default: as for migrate]")
@_quiet
@_json
def new(name: tuple[str, ...], folder: str | None, quiet: bool, as_json: bool) -> None:
    """Create an empty pair for a new migration.

    Prints its two paths.
    """
    output = Output(quiet=quiet, as_json=as_json)
    paths = [str(path) for path in migrate.new(" ".join(name), _settings(None, folder).migrations)]
    for path in paths:
        output.line(path)
    output.json({"paths": paths})


def _ledger_command(name: str, change: Callable[..., list[str]], done: str, description: str) -> click.Command:
    @click.command(name, help=description)
    @_common(migrations=name != "unmark")
    @click.argument("ids", nargs=-1, required=True, metavar="ID…")
    def command(config: settings.Settings, output: Output, ids: tuple[str, ...]) -> None:
        source = () if name == "unmark" else (config.migrations,)
        changed = change(config.url, ids, *source)
        for id in changed:
            output.line(f"{done} {id}")
        if not changed:
            output.line("nothing to change")
        output.json({"database": config.url.path, "ids": changed})

    return command


mark = _ledger_command("mark", migrate.mark, "marked as applied:", "Note migrations as applied, running nothing.")
unmark = _ledger_command(
    "unmark", migrate.unmark, "marked as not applied:", "Note migrations as not applied, undoing nothing."
)
accept = _ledger_command(
    "accept",
    migrate.accept,
    "accepted as it is now:",
    "Accept edits of applied files as deliberate.\n\nRuns nothing.",
)


def _only_one_of(**options: object) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")


#: Every command.
ALL = (migrate_, rollback, redo, status, plan, new, init, reset, wait, health, mark, unmark, accept)
