"""The command that takes over another tool's ledger."""

from __future__ import annotations

import click

from dao import migrate, settings
from dao.cli.common import common
from dao.cli.output import Output

__all__ = ["adopt"]

_TOOLS = ("sqlx", "dbmate", "goose", "golang-migrate", "diesel", "flyway", "alembic", "yoyo")


@click.command("adopt")
@common(changes=True)
@click.option("--from", "tool", type=click.Choice(_TOOLS), required=True, help="The tool that made the database.")
@click.option("--to", metavar="ID", help="For alembic: the last of the migrations that are applied.")
def adopt(config: settings.Settings, output: Output, tool: str, to: str | None) -> None:
    """Take over the ledger of another tool.

    Notes as applied what that tool has applied, and the checksums of its files. Runs nothing, and leaves the tool's own
    table as it is.
    """
    from dao.migrate.ledger.adopt import adopt as take_over

    if tool == "alembic" and to is None:
        raise click.UsageError(
            "alembic's ledger does not say which of these files are applied: name the last with --to"
        )
    if tool != "alembic" and to is not None:
        raise click.UsageError(f"--to goes with --from alembic: {tool}'s ledger says itself what is applied")
    ids = take_over(config.url, tool, config.migrations, to=to, report=output.report)
    current = migrate.status(config.url, config.migrations)
    pending = [migration for migration in current.migrations if migration.state == "pending"]
    for id in ids:
        output.line(f"adopted {id}", style="green")
    for migration in pending:
        output.line(f"pending {migration.id}{' (out of order)' if migration.out_of_order else ''}", style="yellow")
    output.drift(current.drift)
    if not ids:
        output.line(f"{config.url.path}: nothing to adopt")
    output.json(
        {
            "database": config.url.path,
            "tool": tool,
            "ids": ids,
            "drift": list(current.drift),
            "pending": [migration.id for migration in pending],
            "out_of_order": [migration.id for migration in pending if migration.out_of_order],
        }
    )
