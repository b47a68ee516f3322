"""The commands that write a migration or mend the ledger."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import click

from dao import migrate, settings
from dao.cli.common import common, json_option, quiet_option, read_settings, warn_of_drift
from dao.cli.output import Output

__all__ = ["accept", "history", "mark", "new", "unmark"]


@click.command("new")
@click.argument("name", nargs=-1, required=True)
@click.option("-m", "--migrations", "folder", metavar="DIR", help="Folder of the migrations. [default: as for migrate]")
@quiet_option
@json_option
def new(name: tuple[str, ...], folder: str | None, quiet: bool, as_json: bool) -> None:
    """Create an empty pair for a new migration.

    Prints its two paths.
    """
    output = Output(quiet=quiet, as_json=as_json, changes=True)
    paths = [str(path) for path in migrate.new(" ".join(name), read_settings(None, folder).migrations)]
    for path in paths:
        output.line(path)
    output.json({"paths": paths})


def _ledger_command(name: str, done: str, description: str) -> click.Command:
    @click.command(name, help=description)
    @common(changes=True)
    @click.argument("ids", nargs=-1, required=True, metavar="ID…")
    def command(config: settings.Settings, output: Output, ids: tuple[str, ...]) -> None:
        change: Callable[..., list[str]] = getattr(migrate, name)
        changed = change(config.url, ids, config.migrations)
        for id in changed:
            output.line(f"{done} {id}")
        if not changed:
            output.line("nothing to change")
        output.json({"database": config.url.path, "ids": changed, "drift": warn_of_drift(config, output)})

    return command


mark = _ledger_command("mark", "marked as applied:", "Note migrations as applied, running nothing.")
unmark = _ledger_command("unmark", "marked as not applied:", "Note migrations as not applied, undoing nothing.")
accept = _ledger_command(
    "accept",
    "accepted as it is now:",
    "Accept edits of applied files as deliberate.\n\nRuns nothing.",
)


@click.command("history")
@common(migrations=False)
def history(config: settings.Settings, output: Output) -> None:
    """Print who changed the schema, and when.

    The oldest first. Reads only.
    """
    deeds = migrate.history(config.url)
    for deed in deeds:
        took = "" if deed.duration_ms is None else f" in {deed.duration_ms} ms"
        by = "by yoyo" if deed.tool_version is None else f"by dao {deed.tool_version}"
        what = f"{deed.operation:<8}  {deed.id or config.url.path}{took}"
        output.line(f"{deed.at[:19].replace('T', ' ')} UTC  {what}, {deed.user}@{deed.host}, {by}")
        if deed.detail:
            output.line(f"  {deed.detail}")
    if not deeds:
        output.line(f"{config.url.path}: nothing was done yet")
    output.json({"database": config.url.path, "history": [attrs.asdict(deed) for deed in deeds]})
