"""The commands that take, list and restore snapshots."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from dao import migrate, settings, url
from dao.cli import completion
from dao.cli.ledger import warn_of_drift
from dao.cli.options import called, command, examples, options
from dao.cli.output import Output, is_terminal
from dao.engine.sqlite.database_file import is_there
from dao.errors import MigrationError
from dao.migrate.copies.snapshot import find, row_changes
from dao.migrate.database import refuse_server
from dao.migrate.values import SNAPSHOTS
from dao.text import counted, milliseconds, readable

__all__ = ["restore", "snapshot", "snapshots_", "tell_replaced"]

_SHOWN = 20


@click.command("snapshot")
@command(migrations=False, changes=True, on_server=refuse_server)
@examples("dao snapshot", "dao snapshot --label before-import", "dao snapshot --to backups --keep 7")
@click.option("--label", metavar="NAME", help="What to call it, for `dao restore NAME`: letters, digits, - and _.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Remove older ones there that were asked for and have no label, but the newest N. [default: remove none]",
)
@click.option(
    "--to",
    metavar="DIR",
    shell_complete=completion.directories,
    help="The folder for it, such as one of another disk. [default: the database's]",
)
def snapshot(config: settings.Settings, output: Output, label: str | None, keep: int | None, to: str | None) -> None:
    """Copy the database into a verified file.

    It is beside the database, or in the folder of --to, and stays until you remove it. Other programs go on meanwhile.
    Those that runs and restores take are counted by themselves (DATABASE_SNAPSHOTS).
    """
    removed = []

    def report(event: migrate.Event) -> None:
        output.report(event)
        if isinstance(event, migrate.Removed):
            removed.append(event.snapshot)

    begun = time.perf_counter()
    try:
        taken = migrate.take_snapshot(config.url, label=label, keep=keep, to=to, report=report)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    seconds = time.perf_counter() - begun
    output.line(f"{taken.path} ({readable(taken.size)}, {milliseconds(seconds)})", style="green")
    output.json(
        {
            "database": config.url.name,
            "snapshot": _described(taken),
            "removed": [_described(one) for one in removed],
            "seconds": seconds,
        }
    )


@click.command("snapshots")
@command(migrations=False, prepares=False, on_server=refuse_server)
@examples("dao snapshots", "dao snapshots --json")
def snapshots_(config: settings.Settings, output: Output) -> None:
    """List the snapshots of the database, the newest first.

    Each with its id, when it was taken, its size, the last migration that was applied then, and its label or what
    took it.
    """
    there = migrate.snapshots(config.url)
    for one in there:
        why = f"  {one.label}" if one.label else "" if one.kind == "manual" else f"  (before a {one.kind})"
        output.line(f"{one.id}  {_age(one):>12} ago  {readable(one.size):>10}  {one.version}{why}")
    if not there:
        how = "; `dao snapshot` takes one" if is_there(config.url.name) else ""
        output.line(f"{called(config)}: no snapshots{how}")
    output.json({"database": config.url.name, "snapshots": [_described(one) for one in there]})


@click.command("restore")
@command(migrations=False, changes=True, creates=True, on_server=refuse_server)
@examples("dao restore  # the newest; asks first", "dao restore before-import --yes")
@click.argument("id", required=False, shell_complete=completion.snapshots)
@options("yes", "lock_timeout")
def restore(config: settings.Settings, output: Output, id: str | None, yes: bool, lock_timeout: float | None) -> None:
    """Replace the database by a snapshot.

    By the newest, the one with this ID (its beginning will do) or label, or the file at this path. The replaced
    database becomes a snapshot itself, so that a restore can be undone. Programs that have the database open go on,
    with the restored rows.
    """
    if id is not None and not (id := url.cleaned(id)):
        # an unset variable in a script must not come to mean the newest
        raise click.UsageError("the ID is empty: name a snapshot, or leave it out for the newest")
    database = config.url.name
    source = find(config.url, id)
    what = f"{source.id} ({source.version}, {readable(source.size)}, {_age(source)} old)"
    if not yes and not is_terminal(sys.stdin):
        raise MigrationError(
            f"restore replaces every row of {database} by the snapshot {what}, and there is no terminal to ask on: "
            "add --yes to confirm"
        )
    if not yes:
        changes = row_changes(config.url, source.path)
        details = [f"  {table}: {_rows(now)} -> {_rows(then)}" for table, (now, then) in changes.items()]
        if len(changes) > _SHOWN:
            details[_SHOWN:] = [f"  … and {len(changes) - _SHOWN} more tables"]
        if not changes:
            details = ["  every table has as many rows as now"]
        if not output.confirmed(
            f"Replace all that {database} holds?", f"{database}: restore the snapshot {what}", *details
        ):
            raise MigrationError(f"{database} was not restored: you did not say yes. Nothing was changed")
    done = migrate.restore(
        config.url,
        source.path,
        keep=config.snapshots or SNAPSHOTS,
        lock_timeout=lock_timeout,
        report=output.report,
    )
    output.line(f"{database}: restored {what}", style="green")
    output.json(
        {
            "database": database,
            "restored": _described(source),
            **tell_replaced(output, done),
            "drift": warn_of_drift(config, output),
        }
    )


def tell_replaced(output: Output, done: migrate.Restored) -> dict[str, Any]:
    """Say where that is which a restore has replaced, and return it as JSON documents show it."""
    if done.replaced is not None:
        output.line(f"what it held before: {done.replaced.id} (`dao restore {done.replaced.id}` puts it back)")
    if done.damaged is not None:
        output.line(f"what it held before was damaged; its bytes: {done.damaged}")
    return {"replaced": None if done.replaced is None else _described(done.replaced), "damaged": done.damaged}


def _rows(number: int | None) -> str:
    return "no table" if number is None else counted(number, "row")


def _age(one: migrate.Snapshot) -> str:
    seconds = max(0, int((datetime.now(UTC) - one.taken_at).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            return counted(seconds // length, unit)
    return counted(seconds, "second")


def _described(one: migrate.Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON documents show it."""
    return {
        "id": one.id,
        "path": one.path,
        "taken_at": one.taken_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "version": one.version,
        "bytes": one.size,
        "kind": one.kind,
        "label": one.label,
    }
