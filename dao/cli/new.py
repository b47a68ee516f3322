"""The command that creates a pair of scripts."""

from __future__ import annotations

import click

from dao import migrate, settings
from dao.cli.folders import folder_of
from dao.cli.options import command, examples, options, server_for
from dao.cli.output import Output

__all__ = ["new"]


@click.command("new")
@command(database=False, changes=True, prepares=False)
@examples("dao new add_priority_to_notes", "dao new --migrations app_sql add notes")
@click.argument("name", nargs=-1, required=True)
@options("set")
def new(config: settings.Settings, output: Output, name: tuple[str, ...], set: str | None) -> None:
    """Create an empty pair for a new migration.

    Prints its two paths.
    """
    engine = "postgresql" if server_for(None, config.migrations) else "sqlite"
    folder = folder_of(config, engine, set, write=True)
    paths = [str(path) for path in migrate.new(" ".join(name), folder)]
    for path in paths:
        output.line(path)
    output.json({"paths": paths})
