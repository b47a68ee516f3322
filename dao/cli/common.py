"""What the commands share: settings from options, the options that every command has, exit codes."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click

from dao import migrate, settings, url
from dao.cli.output import Output
from dao.engine.files import is_there
from dao.errors import MigrationError, MigrationFileError, UnsupportedEngine

__all__ = [
    "MISMATCH",
    "PENDING",
    "UNSAFE",
    "allow_out_of_order_option",
    "common",
    "creating_nothing",
    "data_loss_option",
    "each_option",
    "json_option",
    "no_snapshot_option",
    "only_one_of",
    "quiet_option",
    "read_settings",
    "timeout_option",
    "warn_of_drift",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Exit codes beside those of `dao.cli.group`: migrations pending; files changed or gone; a check found what must not be.
PENDING, MISMATCH, UNSAFE = 3, 4, 5


def read_settings(
    database: str | None, migrations: str | None = None, busy_timeout: int | None = None
) -> settings.Settings:
    """Return the settings that the options and the environment make."""
    if database is not None and not url.cleaned(database):
        # an unset variable in a script must not come to mean the default database
        raise click.UsageError("--database is empty: name a database, or leave the option out")
    if migrations is not None and not url.cleaned(migrations):
        raise click.UsageError("--migrations is empty: name a folder, or leave the option out")
    try:
        config = settings.load(database=database, migrations=migrations, busy_timeout=busy_timeout)
    except (ValueError, UnsupportedEngine) as error:
        raise click.UsageError(str(error)) from error
    if config.url.is_memory:
        raise click.UsageError(
            "a database in memory ends with this command: name a file, such as sqlite:///orchestrator.db"
        )
    return config


def creating_nothing(config: settings.Settings) -> settings.Settings:
    """Return the settings with a URL by which no database is created."""
    if config.url.mode not in {None, "rwc"}:
        return config
    return attrs.evolve(config, url=attrs.evolve(config.url, mode="rw"))


def warn_of_drift(config: settings.Settings, output: Output) -> list[str]:
    """Warn of a schema that is not what its migrations make, and return in what."""
    try:
        found = migrate.status(config.url, config.migrations).drift
    except MigrationFileError:  # the ledger has the texts
        found = migrate.status(config.url, ()).drift
    output.drift(found)
    return list(found)


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors and warnings only.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def common(*, migrations: bool = True, changes: bool = False, creates: bool = False) -> Callable[[F], F]:
    """Add the options that every command has, and hand them over as `config` and `output`.

    `changes`: as of `Output`. `creates`: the command makes a database that does not exist, unless `--existing` forbids it.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(
            *,
            database: str | None,
            busy_timeout: int | None,
            quiet: bool,
            as_json: bool,
            folder: str | None = None,
            existing: bool = False,
            **options: Any,
        ) -> Any:
            config = read_settings(database, folder, busy_timeout)
            if existing:
                config = creating_nothing(config)
                if not is_there(config.url.path):
                    path = os.path.abspath(config.url.path)
                    raise MigrationError(
                        f"{path} does not exist, and --existing creates no database: name another, or leave it out"
                    )
            output = Output(quiet=quiet, as_json=as_json, changes=changes)
            return function(config=config, output=output, **options)

        options = [
            click.option("-d", "--database", metavar="URL", help="Database URL. [default: $DATABASE_URL]"),
            click.option(
                "--busy-timeout",
                type=click.IntRange(min=0),
                metavar="MS",
                help="Wait so many milliseconds for a lock. [default: $DATABASE_BUSY_TIMEOUT, else 5000]",
            ),
            quiet_option,
            json_option,
        ]
        if creates:
            options.append(click.option("--existing", is_flag=True, help="Create no database: fail if there is none."))
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


allow_out_of_order_option = click.option(
    "--allow-out-of-order", is_flag=True, help="Go on although a pending migration comes before an applied one."
)
data_loss_option = click.option(
    "--allow-data-loss", is_flag=True, help="Commit although a script loses data that it does not declare."
)


def _names(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    from dao.migrate.scripts.directives import Allowance

    try:
        Allowance.of(names)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
    return names


allow_loss_option = click.option(
    "--allow-loss",
    multiple=True,
    callback=_names,
    metavar="TABLE[.COLUMN]",
    help="Commit although data of this table, or the values of this column, are lost. Can be given several times.",
)
allow_broken_option = click.option(
    "--allow-broken",
    multiple=True,
    metavar="NAME",
    help="Commit although this view or trigger, or a foreign key of this table, does not work. Can be given several times.",
)
no_snapshot_option = click.option(
    "--no-snapshot",
    is_flag=True,
    help="Take no snapshot before. [default: one is taken; $DATABASE_SNAPSHOTS of them are kept, else 3]",
)
each_option = click.option("--each", is_flag=True, help="Commit after every migration instead of all together.")


def timeout_option(seconds: float) -> Callable[[F], F]:
    """Add `--timeout`, with a default in seconds."""
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


def only_one_of(**options: object) -> None:
    """Refuse options that exclude each other; None means that one was not given."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")
