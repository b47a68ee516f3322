"""The command that rehearses migrations on a copy of the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import click

from dao import migrate, settings, url
from dao.cli.folders import telling
from dao.cli.options import UNSAFE, Amount, command, examples, options, steps_option
from dao.cli.output import Output
from dao.migrate.rehearsal.findings import Rehearsed, RoundTrip, RowChange
from dao.text import counted, milliseconds, readable

__all__ = ["rehearse"]

_MEGABYTE = 1024 * 1024


@click.command("rehearse")
@command()
@examples("dao rehearse", "dao rehearse --round-trip")
@options("to")
@steps_option("Rehearse the next N only.")
@click.option("--round-trip", is_flag=True, help="Undo them on the copy, too, and apply them again.")
@click.option(
    "--memory-limit",
    type=click.IntRange(min=0),
    metavar="MB",
    help="Copy a larger database into a temporary file beside it. [default: 1024, or a quarter of the memory]",
)
@click.option(
    "--lock-timeout",
    type=Amount(min=0),
    metavar="S",
    help="PostgreSQL: wait so many seconds for a lock, or for another migration run. [default: 1]",
)
@options("set", "allow_out_of_order", "allow_loss", "allow_broken")
def rehearse(config: settings.Settings, output: Output, memory_limit: int | None, **given: Any) -> int:
    """Try the pending migrations on a copy.

    Copies the database while others go on with it, applies what is pending to the copy, and shows what that does. Never
    writes to the database. Exits with 5 if `dao migrate` would fail or lose rows, the round trip does not come back, or
    nothing could be tried.

    On PostgreSQL it runs them in the database itself, in a transaction that is rolled back. Until then it keeps their
    locks, as `dao migrate` would, and it shows which.
    """
    with _progress(output, config.url.name if isinstance(config.url, url.ServerURL) else None) as report:
        found = migrate.rehearse(
            config.url,
            config.migrations,
            memory_limit=None if memory_limit is None else memory_limit * _MEGABYTE,
            report=report,
            **given,
        )
    told = telling(config)
    output.json(_document(found, told), ok=found.ok)
    if not found.migrations:
        output.line(f"{found.database}: nothing to apply, so there is nothing to rehearse")
        return 0
    for one in found.migrations:
        _print(output, one, told(one.id))
    for id in found.not_reached:
        output.line(f"not tried  {told(id)}", style="yellow")
    if found.round_trip is not None:
        _print_round_trip(output, found.round_trip, told)
    return _verdict(output, found, told, snapshot=config.snapshots > 0 and found.exists)


def _document(found: migrate.Rehearsal, told: Callable[[str], str]) -> dict[str, Any]:
    trip = found.round_trip
    return attrs.asdict(found) | {
        "not_reached": list(map(told, found.not_reached)),
        "seconds": found.seconds,
        "migrations": [attrs.asdict(one) | {"ok": one.ok} for one in found.migrations],
        "round_trip": trip
        and attrs.asdict(trip)
        | {name: list(map(told, getattr(trip, name))) for name in ("undone", "applied_again", "irreversible")}
        | {"ok": trip.ok},
    }


# ---------------------------------------------------------------- what was found


def _print(output: Output, one: Rehearsed, name: str) -> None:
    """Print a line for a migration, and below it what it did that is worth a look."""
    if not one.tried:
        output.line(f"not tried  {name}: {one.why}", style="yellow")
        return
    if one.failure is not None:
        output.line(f"fails      {name}", style="red")
        _details(output, [one.failure.message], "red")
    else:
        state, style = ("applies", "green") if one.ok else ("refused", "red")
        output.line(
            f"{state:<9}  {name} ({counted(one.statements, 'statement')}, {milliseconds(one.seconds)})", style=style
        )
    _details(output, [f"rebuilds {table}" for table in one.rebuilt])
    _details(output, map(_rows, one.rows))
    missing = {gone.table.lower() for gone in one.gone}
    _details(output, [f"takes {gone}" for gone in one.gone], "yellow")
    for loss in one.losses:
        if loss in one.undeclared:
            _details(output, [f"LOSES {loss}"], "red")
            advice = f"unless the file says `{loss.declaration}`, or it is told --allow-loss"
            _details(output, [f"  `dao migrate` refuses that, {advice}"])
        elif loss.kind != "rows" or loss.table.lower() not in missing:
            _details(output, [f"loses {loss}, as is allowed"], "yellow")
    _details(output, [f"takes {lock}" for lock in one.locks], "yellow")
    _details(output, [f"stays after the rollback: {what}" for what in one.lasting], "yellow")
    _details(output, [f"the rebuild loses: {difference}" for difference in one.lost], "yellow")
    _details(output, [f"after the rebuild {what}" for what in one.misplaced], "yellow")
    enforced = "with foreign keys enforced, as in other tools, it would"
    _details(output, [f"{enforced} also take {gone}" for gone in one.cascades], "yellow")
    if one.enforced_failure is not None:
        _details(output, [f"{enforced} fail: {one.enforced_failure}"], "yellow")
    _details(output, one.notices)
    _details(output, _size(one))


def _details(output: Output, texts: Sequence[str] | Iterator[str], style: str | None = None) -> None:
    for text in texts:
        for line in text.split("\n"):
            output.line(f"    {line}", style=style)


def _rows(change: RowChange) -> str:
    if change.before is None:
        return f"makes {change.table}" + (f" with {counted(change.after, 'row')}" if change.after else "")
    if change.now is not None:
        same = change.before == change.after
        rows = counted(change.before, "row") if same else f"{change.before} -> {counted(change.after, 'row')}"
        return f"renames {change.table} to {change.now} ({rows})"
    if change.after is None:
        return f"drops {change.table} ({counted(change.before, 'row')})"
    return f"{change.table}: {change.before} -> {counted(change.after, 'row')}"


def _size(one: Rehearsed) -> list[str]:
    growth = one.bytes_after - one.bytes_before
    if not growth:
        return []
    unused = f", {readable(one.free_after)} of that unused" if one.free_after else ""
    verb = "grows" if growth > 0 else "shrinks"
    return [f"the file {verb} by {readable(abs(growth))} to {readable(one.bytes_after)}{unused}"]


def _print_round_trip(output: Output, trip: RoundTrip, told: Callable[[str], str]) -> None:
    for id in trip.irreversible:
        output.line(f"irreversible  {told(id)}", style="yellow")
    for failure in trip.failures:
        output.line(f"differs    {told(failure.id)}", style="red")
        _details(output, [str(failure)], "red")
    if trip.undone:
        undone, again = len(trip.undone), len(trip.applied_again)
        output.line(f"round trip: {counted(undone, 'migration')} undone, {again} applied again")


def _verdict(output: Output, found: migrate.Rehearsal, told: Callable[[str], str], *, snapshot: bool) -> int:
    number_tried = sum(one.tried for one in found.migrations)
    number, untried = counted(number_tried, "migration"), len(found.migrations) - number_tried
    held = f"holding the write lock for about {milliseconds(found.lock_seconds)}"
    where = "in memory, where it is faster than on a disk" if found.in_memory else "on the same disk"
    where += ", without the snapshot that comes before" if snapshot else ""
    if found.in_place:
        held, where = f"holding locks for up to {milliseconds(found.lock_seconds)}", "there, and rolled back"
    failed = [told(one.id) for one in found.migrations if one.failure is not None]
    refused = [told(one.id) for one in found.migrations if one.undeclared]
    if failed:
        output.error(f"`dao migrate` would FAIL: {failed[0]}. Nothing was changed; mend it and rehearse again")
    elif refused:
        output.error(
            f"`dao migrate` would REFUSE to lose data: {', '.join(refused)}. Nothing was changed; mend the scripts, "
            "or let them declare it"
        )
    elif not number_tried:
        output.error(
            f"{found.database}: nothing was rehearsed, so nothing is known of {counted(untried, 'migration')}. Try "
            "them on a restored backup with `dao migrate`, where they may stay"
        )
    elif not found.ok:
        ids = dict.fromkeys(told(failure.id) for failure in found.round_trip.failures) if found.round_trip else ()
        output.error(f"the round trip does not come back: {', '.join(ids)}. Mend the rollback scripts")
    else:
        output.line(
            f"{found.database}: would apply {number} in {milliseconds(found.seconds)}, {held} (measured {where})"
            + (f"; {untried} not tried" if untried else ""),
            style="green",
        )
    return 0 if found.ok else UNSAFE


# ---------------------------------------------------------------- progress


@contextlib.contextmanager
def _progress(output: Output, server: str | None) -> Iterator[Callable[[migrate.Event], object]]:
    """Show a bar at a terminal for the time of a block: how much is copied, then which migration runs.

    Before the first one, say that it runs in the database itself, if that is on a `server`.
    """
    told = server is None
    with output.bar("copying the database" if server is None else "looking at the database") as update:

        def report(event: migrate.Event) -> None:
            nonlocal told
            match event:
                case migrate.Copying(done, total):
                    update(completed=done, total=total)
                case migrate.Notice():
                    pass  # it is among the results
                case migrate.Started():
                    if not told:
                        told = True
                        output.warning(
                            f"runs in {server} itself, in a transaction that is rolled back: until then it keeps the "
                            "locks that the scripts take"
                        )
                    update(str(event), total=None)  # how long a script will take, nobody knows
                case _:
                    output.report(event)

        yield report
