"""The command that creates a pair of scripts."""

from __future__ import annotations

import click

from dao import migrate, settings
from dao.cli.options import command
from dao.cli.output import Output

__all__ = ["new"]


@click.command("new")
@command(database=False, changes=True, prepares=False)
@click.argument("name", nargs=-1, required=True)
def new(config: settings.Settings, output: Output, name: tuple[str, ...]) -> None:
    """Create an empty pair for a new migration.

    Prints its two paths.
    """
    paths = [str(path) for path in migrate.new(" ".join(name), config.migrations)]
    for path in paths:
        output.line(path)
    output.json({"paths": paths})
