"""The things that commands share: their options, the settings that those make, exit codes."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import attrs
import click

from dao import logs, settings, url
from dao.cli import completion
from dao.cli.folders import several
from dao.cli.output import Output
from dao.errors import MigrationError, UnsupportedEngine
from dao.migrate import database as databases
from dao.migrate.schema.registration import preparing
from dao.migrate.scripts.directives import Allowance

__all__ = [
    "MISMATCH",
    "PENDING",
    "UNSAFE",
    "Amount",
    "called",
    "command",
    "creating_nothing",
    "duration_option",
    "examples",
    "file_option",
    "only_one_of",
    "options",
    "read_settings",
    "server_for",
    "steps_option",
    "timeout_option",
]

if TYPE_CHECKING:
    from logging import Handler

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes for what `dao.cli.group` lists: migrations pending; files changed or gone; a check found a fault.
PENDING, MISMATCH, UNSAFE = 3, 4, 5


# ---------------------------------------------------------------- settings


def read_settings(
    database: str | None,
    migrations: Sequence[str] = (),
    busy_timeout: int | None = None,
    prepare: str | None = None,
) -> settings.Settings:
    """Return the settings that the options and the environment make."""
    for option, value, kind in (
        ("--database", database, "database"),
        *(("--migrations", folder, "folder") for folder in migrations),
        ("--prepare", prepare, "function"),
    ):
        if value is not None and not url.cleaned(value):
            # an unset variable in a script must not come to mean the default
            raise click.UsageError(f"{option} is empty: name a {kind}, or leave the option out")
    try:
        config = settings.load(database=database, migrations=migrations, busy_timeout=busy_timeout, prepare=prepare)
    except (ValueError, UnsupportedEngine) as error:
        raise click.UsageError(str(error)) from error
    if config.url.is_memory:
        raise click.UsageError(
            "a database in memory ends with this command: name a file, such as sqlite:///orchestrator.db"
        )
    return config


def server_for(database: str | None, folder: Path | Sequence[str | settings.Folder] | None) -> str | None:
    """Return the URL of the server on which migrations are tried, as it was given; None if they are for SQLite."""
    if database is not None:
        return database if url.is_for_server(database) else None
    try:
        return settings.server(folder)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def creating_nothing(config: settings.Settings) -> settings.Settings:
    """Return the settings with a URL by which no database is created."""
    return attrs.evolve(config, url=config.url.creating_nothing())


def called(config: settings.Settings) -> str:
    """Return the name of the database as it was given, with a word if it does not exist."""
    return config.url.name if databases.exists(config.url) else f"{config.url.name} (does not exist yet)"


# ---------------------------------------------------------------- the options of every command

_DATABASE = click.option(
    "-d", "--database", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/NAME. [default: $DATABASE_URL]"
)
_SERVER = click.option(
    "-d",
    "--database",
    metavar="URL",
    help="A PostgreSQL server, if the migrations are for that: they run there in a database of their own, which is "
    "dropped. [default: $DATABASE_URL, if it is one]",
)
_FOLDER = click.option(
    "-m",
    "--migrations",
    "folders",
    multiple=True,
    metavar="[NAME=]DIR",
    shell_complete=completion.directories,
    help="Folder of the migrations, with a name for their set; can be given several times, one for each set. "
    f"{settings.OWN} alone is the set of this package. [default: $DATABASE_MIGRATIONS, else those of this package]",
)
_BUSY = click.option(
    "--busy-timeout",
    type=click.IntRange(min=0),
    metavar="MS",
    help="Wait so many milliseconds for another program's lock. [default: $DATABASE_BUSY_TIMEOUT, else 5000; "
    "PostgreSQL: lock_timeout]",
)
_PREPARE = click.option(
    "--prepare",
    metavar="MODULE:FUNCTION",
    help="Call this Python function with each connection: it registers the functions, collations and extensions that "
    "the schema needs. [default: $DATABASE_PREPARE]",
)
_EXISTING = click.option("--existing", is_flag=True, help="Create no database: fail if there is none.")
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def command(
    *,
    database: bool = True,
    server: bool = False,
    migrations: bool = True,
    changes: bool = False,
    creates: bool = False,
    prepares: bool = True,
    on_server: Callable[[str], NoReturn] | None = None,
) -> Callable[[F], F]:
    """Add the options that every command has; they reach the function as `config` and `output`.

    `database`, `migrations`: whether the command takes them; without the first, DATABASE_URL may say anything. With
    `server` in place of it, what it says counts if it is of PostgreSQL, and the migrations are not for SQLite.
    `changes`: as of `Output`. `creates`: the command makes a database that does not exist, unless `--existing`
    forbids it. `prepares`: it opens connections, if only in memory. `on_server`: it is for files alone, and this raises
    what there is for the database on a server that is named, also where psycopg is not installed.
    """
    given = [
        *([_DATABASE] if database else [_SERVER] if server else ()),
        *([_FOLDER] if migrations else ()),
        *([_BUSY] if database else ()),
        *([_PREPARE] if prepares else ()),
        _QUIET,
        _JSON,
        *([_EXISTING] if creates else ()),
    ]

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def called(
            *,
            database: str | None = None,
            busy_timeout: int | None = None,
            prepare: str | None = None,
            quiet: bool,
            as_json: bool,
            folders: Sequence[str] = (),
            existing: bool = False,
            **options: Any,
        ) -> Any:
            if not takes_one:
                database = (server_for(database, folders) if server else None) or database or settings.DEFAULT_URL
            # whatever the migrations are for
            if on_server is not None and (named := server_for(database, (settings.Folder(None),))):
                on_server(url.name_of_server(named))
            config = read_settings(database, folders, busy_timeout, prepare)
            if existing:
                config = creating_nothing(config)
                if not databases.exists(config.url):
                    raise MigrationError(
                        f"{os.path.abspath(config.url.name)} does not exist, and --existing creates no database: name "
                        "another, or leave it out"
                    )
            output = Output(quiet=quiet, as_json=as_json, changes=changes, sets=several(config))
            logs.handle_by(lambda: _handler(output))
            config.watch()
            if config.prepare is None or not prepares:
                return function(config=config, output=output, **options)
            from dao.cli.prepare import loaded

            with preparing(loaded(config.prepare)):
                return function(config=config, output=output, **options)

        decorated: F = _with(given, called)
        return decorated

    takes_one = database
    return decorate


def _handler(output: Output) -> Handler:
    """Return what prints the warnings that are logged; but those of events, of which the command hears itself."""
    import logging

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not hasattr(record, "event"):
                output.logged(self.format(record))

    return Printing(logging.WARNING)


def _with(given: Sequence[Callable[[Any], Any]], function: Any) -> Any:
    for option in reversed(given):
        function = option(function)
    return function


def examples(*calls: str) -> Callable[[F], F]:
    """Add to the help of a command calls of it, each of which may have a comment behind a #."""

    def decorate(function: F) -> F:
        # after a \\b click keeps the lines as they are
        lines = "\n".join(f"  {call}" for call in calls)
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExamples:\n{lines}"
        return function

    return decorate


# ---------------------------------------------------------------- the options of some


def _loss(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        Allowance.of(names)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    return names


def _one_set(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
    if len({*given}) > 1:  # as --migrations can be; click would take the last of them without a word
        raise click.UsageError(f"--set is given for several ({', '.join(given)}): name one set, or leave --set out")
    return given[-1] if given else None


class Amount(click.FloatRange):
    """A number in a range. click takes nan for one, which is neither above nor below any limit."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, unless it is none."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            raise click.BadParameter("nan is no number.", ctx, param)
        return number


_OPTIONS = {
    "to": click.option(
        "--to",
        metavar="ID",
        shell_complete=completion.pending,
        help="Stop after this migration; the beginning of its id will do.",
    ),
    "yes": click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    "set": click.option(
        "--set",
        metavar="NAME",
        multiple=True,
        callback=_one_set,
        shell_complete=completion.sets,
        help="Only of this set, where several are named by --migrations.",
    ),
    "since": click.option("--since", metavar="ID", shell_complete=completion.known, help="Only those after this one."),
    "latest": click.option(
        "--latest",
        type=click.IntRange(min=1),
        is_flag=False,
        flag_value=1,
        metavar="[N]",
        help="Only the latest, or the N latest.",
    ),
    "each": click.option("--each", is_flag=True, help="Commit after every migration instead of all together."),
    "allow_out_of_order": click.option(
        "--allow-out-of-order", is_flag=True, help="Go on although a pending migration comes before an applied one."
    ),
    "allow_loss": click.option(
        "--allow-loss",
        multiple=True,
        callback=_loss,
        metavar="TABLE[.COLUMN]",
        help="Commit although data of this table, or the values of this column, are lost. Can be given several times.",
    ),
    "allow_broken": click.option(
        "--allow-broken",
        multiple=True,
        metavar="NAME",
        help="Commit although this view or trigger, or a foreign key of this table, does not work. Can be given "
        "several times.",
    ),
    "allow_data_loss": click.option(
        "--allow-data-loss", is_flag=True, help="Commit although a script loses data that it does not declare."
    ),
    "lock_timeout": click.option(
        "--lock-timeout",
        type=Amount(min=0),
        metavar="S",
        help="Wait so many seconds for another migration run. [default: for as long as it lives]",
    ),
    "no_snapshot": click.option(
        "--no-snapshot",
        is_flag=True,
        help="Take no snapshot before. [default: one is taken; $DATABASE_SNAPSHOTS of them are kept, else "
        f"{settings.SNAPSHOTS}]",
    ),
}


def options(*names: str) -> Callable[[F], F]:
    """Add these of the options that several commands have; each is named as the parameter that takes it."""
    return functools.partial(_with, [_OPTIONS[name] for name in names])


def file_option(*names: str, text: str) -> Callable[[F], F]:
    """Add an option that takes the name of a file, with its help."""
    return click.option(*names, metavar="FILE", shell_complete=completion.files, callback=_not_empty, help=text)


def _not_empty(_context: click.Context, parameter: click.Parameter, file: str | None) -> str | None:
    option = parameter.opts[-1]
    if file == "":  # an unset variable in a script
        raise click.UsageError(f"{option} is empty: name a file, or leave the option out")
    return file


def steps_option(text: str, default: int | None = None) -> Callable[[F], F]:
    """Add `--steps`, with its help: a number of migrations, none of which would be no more than a mistake."""
    return click.option("--steps", type=int, callback=_from_one, default=default, metavar="N", help=text)


def _from_one(_context: click.Context, _parameter: click.Parameter, steps: int | None) -> int | None:
    # other tools take 0 for none, for all, and for the default
    if steps is not None and steps < 1:
        raise click.BadParameter(f"{steps} is no number of migrations to run: give one from 1, or leave it out.")
    return steps


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=365_000)
_DIGITS = 8


def _duration(_context: click.Context, _parameter: click.Parameter, given: str | None) -> timedelta | None:
    if given is None:
        return None
    text = url.cleaned(given)
    found = re.fullmatch(r"([0-9]+)([smhdw])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no duration: give a number and its unit, such as 90s, 15m, 12h or 30d.")
    is_long = len(found[1]) > _DIGITS  # more than a timedelta takes, whatever the unit
    duration = _LONGEST if is_long else timedelta(**{_UNITS[found[2]]: int(found[1])})
    if is_long or duration > _LONGEST:
        raise click.BadParameter(f"{text} is longer than a thousand years: give a shorter one, such as 30d.")
    return duration


def duration_option(name: str, text: str, *, required: bool = False) -> Callable[[F], F]:
    """Add an option that takes a duration, with its help."""
    return click.option(name, callback=_duration, metavar="DURATION", required=required, help=text)


def timeout_option(seconds: float) -> Callable[[F], F]:
    """Add `--timeout`, with a default in seconds."""
    return click.option(
        "--timeout", type=Amount(min=0), default=seconds, metavar="S", help=f"Seconds. [default: {seconds:g}]"
    )


def only_one_of(**options: object) -> None:
    """Refuse options that exclude each other; None and False mean that one was not given."""
    given = [
        f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None and value is not False
    ]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")
