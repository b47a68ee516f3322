"""The commands that run scripts: migrate, rollback, redo, init, reset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import click
from click.core import ParameterSource

from dao import migrate, settings
from dao.cli import completion
from dao.cli.ledger import resolve
from dao.cli.options import command, examples, only_one_of, options, steps_option
from dao.cli.output import Output, is_terminal
from dao.errors import MigrationError
from dao.text import counted, milliseconds

__all__ = ["init", "migrate_", "redo", "reset", "rollback"]


@click.group("migrate", invoke_without_command=True)
@command(changes=True, creates=True)
@examples("dao migrate", "dao migrate --to 20261202090000", "dao migrate --allow-loss notes.draft --each")
@options("to")
@steps_option("Apply the next N only.")
@options("set", "each", "allow_out_of_order", "allow_loss", "allow_broken", "allow_data_loss", "no_snapshot")
@options("lock_timeout")
@click.pass_context
def migrate_(context: click.Context, /, config: settings.Settings, output: Output, **given: Any) -> None:
    """Apply the pending migrations, all or none. Creates the database if need be."""
    if context.invoked_subcommand is None:
        _run(migrate.apply, config, output, "nothing to apply", **given)
        return
    # a database that is named here is not the one that the other command changes
    for parameter in context.command.params:
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            name, command = parameter.opts[-1], f"dao migrate {context.invoked_subcommand}"
            raise click.UsageError(f"{name} stands before the command that it is for: write it after `{command}`")


migrate_.add_command(resolve)


@click.command("rollback")
@command(changes=True)
@examples("dao rollback", "dao rollback --steps 2", "dao rollback --to 20261201090000  # this one stays")
@steps_option("Undo the latest N. [default: 1]")
@click.option(
    "--to",
    metavar="ID",
    shell_complete=completion.applied,
    help="Undo what was applied after this migration; it stays.",
)
@click.option("--all", "everything", is_flag=True, help="Undo all migrations.")
@options("set", "each", "allow_out_of_order", "allow_loss", "allow_broken", "allow_data_loss", "no_snapshot")
@options("lock_timeout")
def rollback(
    config: settings.Settings, output: Output, steps: int | None, to: str | None, everything: bool, **given: Any
) -> None:
    """Undo the latest migrations, all or none.

    The order is the reverse of that in which they were applied.
    """
    only_one_of(steps=steps, to=to, all=everything)
    steps = None if everything else 1 if steps is None else steps
    _run(migrate.rollback, config, output, "nothing to roll back", to=to, steps=steps, **given)


@click.command("redo")
@command(changes=True)
@examples("dao redo", "dao redo --steps 2")
@steps_option("Redo the latest N. [default: 1]", default=1)
@options("set", "allow_loss", "allow_broken", "allow_data_loss", "no_snapshot", "lock_timeout")
def redo(config: settings.Settings, output: Output, **given: Any) -> None:
    """Undo the latest and apply them again.

    In one transaction, from the files as they are now: while you write one.
    """
    _run(migrate.redo, config, output, "nothing to redo", **given)


@click.command("init")
@command(changes=True, creates=True)
@examples("dao init", "dao init --database sqlite:///new.db")
@options("lock_timeout")
def init(config: settings.Settings, output: Output, lock_timeout: float | None) -> None:
    """Create the database, migrate it, print the status."""
    with output.progress():
        migrate.apply(
            config.url,
            config.migrations,
            snapshots=config.snapshots,
            lock_timeout=lock_timeout,
            report=output.report,
        )
    from dao.cli.look import print_status

    print_status(output, migrate.status(config.url, config.migrations), created=output.created)


@click.command("reset")
@command(changes=True, creates=True)
@examples("dao reset --yes")
@options("yes", "no_snapshot", "lock_timeout")
def reset(config: settings.Settings, output: Output, yes: bool, **given: Any) -> None:
    """Drop everything and migrate again.

    Everything that the migrations made goes, rows included.
    Refuses a database with tables or views that the migrations did not make.
    """
    if not yes:
        if not is_terminal(sys.stdin):
            raise MigrationError(
                f"reset drops every row of {config.url.name}, and there is no terminal to ask on: add --yes to confirm"
            )
        if not output.confirmed(f"Drop every table and row of {config.url.name}, and migrate again?"):
            raise MigrationError(f"{config.url.name} was not reset: you did not say yes. Nothing was changed")
    _run(migrate.reset, config, output, "nothing to apply", **given)


def _run(
    verb: Callable[..., list[migrate.Result]],
    config: settings.Settings,
    output: Output,
    nothing: str,
    *,
    no_snapshot: bool,
    **given: Any,
) -> None:
    """Run scripts with the options that were given, and print what was done; `nothing` if that is nothing."""
    snapshots = 0 if no_snapshot else config.snapshots
    with output.progress():
        results = verb(config.url, config.migrations, snapshots=snapshots, report=output.report, **given)
    _print(output, config.url.name, results, nothing)


def _print(output: Output, database: str, results: Sequence[migrate.Result], nothing: str) -> None:
    for result in results:
        done = "applied" if result.direction == "apply" else "rolled back"
        took = milliseconds(result.seconds)
        output.line(f"{done} {result.name} ({counted(result.statements, 'statement')}, {took})", style="green")
        for loss in () if output.as_json else result.losses:
            output.note(f"{result.name} lost {loss}")
    total = milliseconds(sum(result.seconds for result in results))
    output.line(f"{database}: " + (f"{counted(len(results), 'migration')} in {total}" if results else nothing))
    drifted = output.drifted
    if drifted is not None and drifted.unknown:
        output.warning(f"whether the schema is what the remaining migrations make was not checked: {drifted.unknown}")
    drift = [] if drifted is None else [str(difference) for difference in drifted.differences]
    output.drift(drift)
    output.json(
        {
            "database": database,
            "created": output.created,
            "snapshot": output.snapshot,
            "drift": None if drifted is not None and drifted.unknown else drift,
            "results": [attrs.asdict(result, filter=attrs.filters.exclude("name")) for result in results],
        }
    )
