"""The commands that change the schema, beside `dao migrate`."""

from __future__ import annotations

import sys

import click

from dao import migrate, settings
from dao.cli.common import (
    allow_broken_option,
    allow_loss_option,
    allow_out_of_order_option,
    common,
    data_loss_option,
    each_option,
    no_snapshot_option,
    only_one_of,
)
from dao.cli.output import Output
from dao.cli.streams import is_terminal
from dao.errors import MigrationError

__all__ = ["init", "redo", "reset", "rollback"]


@click.command("rollback")
@common(changes=True)
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="Undo the latest N. [default: 1]")
@click.option("--to", metavar="ID", help="Undo what was applied after this migration; it stays.")
@click.option("--all", "everything", is_flag=True, help="Undo all migrations.")
@each_option
@allow_out_of_order_option
@allow_loss_option
@allow_broken_option
@data_loss_option
@no_snapshot_option
def rollback(
    config: settings.Settings,
    output: Output,
    steps: int | None,
    to: str | None,
    everything: bool,
    each: bool,
    allow_out_of_order: bool,
    allow_loss: tuple[str, ...],
    allow_broken: tuple[str, ...],
    allow_data_loss: bool,
    no_snapshot: bool,
) -> None:
    """Undo the latest migrations, all or none.

    The order is the reverse of that in which they were applied.
    """
    only_one_of(steps=steps, to=to, all=everything or None)
    with output.progress():
        results = migrate.rollback(
            config.url,
            config.migrations,
            to=to,
            steps=None if everything else 1 if steps is None else steps,
            each=each,
            allow_out_of_order=allow_out_of_order,
            allow_data_loss=allow_data_loss,
            allow_loss=allow_loss,
            allow_broken=allow_broken,
            snapshots=0 if no_snapshot else config.snapshots,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to roll back")


@click.command("redo")
@common(changes=True)
@click.option("--steps", type=click.IntRange(min=1), default=1, metavar="N", help="Redo the latest N. [default: 1]")
@allow_loss_option
@allow_broken_option
@data_loss_option
@no_snapshot_option
def redo(
    config: settings.Settings,
    output: Output,
    steps: int,
    allow_loss: tuple[str, ...],
    allow_broken: tuple[str, ...],
    allow_data_loss: bool,
    no_snapshot: bool,
) -> None:
    """Undo the latest and apply them again.

    In one transaction, from the files as they are now: while you write one.
    """
    with output.progress():
        results = migrate.redo(
            config.url,
            config.migrations,
            steps=steps,
            allow_data_loss=allow_data_loss,
            allow_loss=allow_loss,
            allow_broken=allow_broken,
            snapshots=0 if no_snapshot else config.snapshots,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to redo")


@click.command("init")
@common(changes=True, creates=True)
def init(config: settings.Settings, output: Output) -> None:
    """Create the database, migrate it, print the status."""
    with output.progress():
        migrate.apply(config.url, config.migrations, snapshots=config.snapshots, report=output.report)
    output.status(migrate.status(config.url, config.migrations))


@click.command("reset")
@common(changes=True, creates=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@no_snapshot_option
def reset(config: settings.Settings, output: Output, yes: bool, no_snapshot: bool) -> None:
    """Drop everything and migrate again.

    Everything that the migrations made goes, rows included.
    Refuses a database with tables or views that the migrations did not make.
    """
    if not yes:
        if not is_terminal(sys.stdin):
            raise MigrationError(
                f"reset drops every row of {config.url.path}, and there is no terminal to ask on: add --yes to confirm"
            )
        if not output.confirmed(f"Drop every table and row of {config.url.path}, and migrate again?"):
            raise MigrationError(f"{config.url.path} was not reset: you did not say yes. Nothing was changed")
    with output.progress():
        results = migrate.reset(
            config.url,
            config.migrations,
            snapshots=0 if no_snapshot else config.snapshots,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to apply")
