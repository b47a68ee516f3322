"""The command that copies all rows into another database."""

from __future__ import annotations

import attrs
import click

from dao import migrate, settings, transfer, url
from dao.cli.options import command, examples, options
from dao.cli.output import Output
from dao.errors import UnsupportedEngine
from dao.text import counted, milliseconds

__all__ = ["copy"]


def _parsed(_context: click.Context, parameter: click.Parameter, given: str) -> url.AnyURL:
    try:
        return url.parse(given)
    except (ValueError, UnsupportedEngine) as error:
        raise click.UsageError(f"{parameter.opts[0]}: {error}") from error


@click.command("copy")
@command(database=False, migrations=False, changes=True)
@examples(
    "dao copy --from sqlite:///source.db --to sqlite:///target.db --dry-run",
    "dao copy --from sqlite:///source.db --to postgresql://dao@db.internal/orchestrator",
)
@click.option("--from", "source", required=True, callback=_parsed, metavar="URL", help="The database to read.")
@click.option("--to", "target", required=True, callback=_parsed, metavar="URL", help="The database to fill.")
@click.option("--dry-run", is_flag=True, help="Check and count only; change nothing.")
@options("lock_timeout")
def copy(
    config: settings.Settings,
    output: Output,
    source: url.AnyURL,
    target: url.AnyURL,
    dry_run: bool,
    lock_timeout: float | None,
) -> None:
    """Copy all rows into an empty database, of either engine.

    The target has the same migrations, and no rows. The source is read as of one moment; nothing is written to it, and
    others go on with it. At the end both are compared, by counts and hashes. Until then the target is marked as
    unfinished. A run that was broken off can be repeated, and goes on.

    Write no password on the command line: ~/.pgpass and PGPASSWORD are there for it.
    """
    if (timeout := config.url.busy_timeout) is not None:
        source, target = (
            one if one.busy_timeout is not None else attrs.evolve(one, busy_timeout=timeout) for one in (source, target)
        )
    try:
        with output.bar("reading the schemas", remaining=True) as update:

            def report(event: transfer.Moved | migrate.Event) -> None:
                if isinstance(event, transfer.Moved):
                    update(f"{event.doing} {event.table}", completed=event.done, total=event.total)
                else:
                    output.report(event)

            copied = transfer.copy(source, target, dry_run=dry_run, lock_timeout=lock_timeout, report=report)
    except KeyboardInterrupt:
        output.note(
            "what was copied by now stays in the target, marked as unfinished: repeat, and it goes on from there"
        )
        raise
    for table in copied.tables:
        kept = f" ({table.kept} of them were there already)" if table.kept else ""
        hashed = f", hash {table.hash[:16]}" if table.hash else ""
        output.line(f"{table.name}: {counted(table.rows, 'row')}{kept}{hashed}")
    rows = counted(copied.rows, "row")
    if dry_run:
        output.line(f"{copied.target}: would get {rows} of {copied.source}; nothing was changed")
    else:
        took = milliseconds(copied.seconds)
        output.line(f"{copied.target}: {rows} of {copied.source} in {took}; both hold the same", style="green")
    if copied.left_out:
        output.warning(
            f"{copied.source} has other tables, which are not copied: {', '.join(copied.left_out)}. Copy them by means "
            "of their own"
        )
    output.json(
        {
            **attrs.asdict(copied),
            "dry_run": dry_run,
            "rows": copied.rows,
            "seconds": copied.seconds,
        }
    )
