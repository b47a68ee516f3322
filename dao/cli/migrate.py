"""`dao migrate` and `dao migrate resolve`. Not beside the others, since it is run most, and mostly finds nothing to do."""

from __future__ import annotations

from typing import Literal

import click

from dao import migrate, settings
from dao.cli.common import (
    MISMATCH,
    allow_broken_option,
    allow_loss_option,
    allow_out_of_order_option,
    common,
    data_loss_option,
    each_option,
    no_snapshot_option,
    only_one_of,
    warn_of_drift,
)
from dao.cli.output import Output

__all__ = ["migrate_", "resolve"]


@click.group("migrate", invoke_without_command=True)
@common(changes=True, creates=True)
@click.option("--to", metavar="ID", help="Stop after this migration; the beginning of its id will do.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="Apply the next N only.")
@each_option
@allow_out_of_order_option
@allow_loss_option
@allow_broken_option
@data_loss_option
@no_snapshot_option
@click.pass_context
def migrate_(
    context: click.Context,
    config: settings.Settings,
    output: Output,
    to: str | None,
    steps: int | None,
    each: bool,
    allow_out_of_order: bool,
    allow_loss: tuple[str, ...],
    allow_broken: tuple[str, ...],
    allow_data_loss: bool,
    no_snapshot: bool,
) -> None:
    """Apply the pending migrations, all or none. Creates the database if need be."""
    if context.invoked_subcommand is not None:
        return
    with output.progress():
        results = migrate.apply(
            config.url,
            config.migrations,
            to=to,
            steps=steps,
            each=each,
            allow_out_of_order=allow_out_of_order,
            allow_data_loss=allow_data_loss,
            allow_loss=allow_loss,
            allow_broken=allow_broken,
            snapshots=0 if no_snapshot else config.snapshots,
            report=output.report,
        )
    output.results(config.url.path, results, f"{config.url.path}: nothing to apply")


@migrate_.command("resolve")
@common(changes=True)
@click.argument("id", metavar="ID")
@click.option("--applied", is_flag=True, help="It is applied: somebody finished it.")
@click.option("--rolled-back", is_flag=True, help="It is not: somebody undid it.")
def resolve(config: settings.Settings, output: Output, id: str, applied: bool, rolled_back: bool) -> int:
    """Say how an unfinished migration ended.

    One that runs outside of a transaction and did not come to its end. Shows how the schema differs from both ends, then
    notes which it is; without either option it only shows.
    """
    only_one_of(**{"applied": applied or None, "rolled-back": rolled_back or None})
    outcome: Literal["applied", "rolled back"] | None = "applied" if applied else "rolled back" if rolled_back else None
    found = migrate.unfinished(config.url, id, config.migrations)
    ends = {"applied": found.from_applied, "rolled back": found.from_rolled_back}
    for end, differences in ends.items():
        if differences is None:
            output.line(f"{end}: cannot be compared, since the migrations do not run in an empty database")
        elif differences:
            output.line(f"{end}: it would differ from the schema as it is:")
        else:
            output.line(f"{end}: that is the schema as it is")
        for difference in differences or ():
            output.line(f"  {difference}")
    if outcome is None:
        output.line(f"say which it is: `dao migrate resolve {found.id} --applied` or `--rolled-back`")
    else:
        migrate.resolve(config.url, found.id, outcome, config.migrations)
        output.line(f"{found.id}: noted as {outcome}", style="green")
        warn_of_drift(config, output)
    output.json(
        {
            "database": config.url.path,
            "id": found.id,
            "outcome": outcome,
            "differences": {
                end: None if differences is None else [str(difference) for difference in differences]
                for end, differences in ends.items()
            },
        }
    )
    return 0 if outcome else MISMATCH
