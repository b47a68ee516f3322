"""The commands that replicate a database, and bring it back from its replica."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import click

from dao import settings, url
from dao.cli import completion
from dao.cli.options import Amount, command, examples, options
from dao.cli.output import Output
from dao.cli.snapshots import tell_replaced
from dao.migrate.database import refuse_server
from dao.migrate.values import SNAPSHOTS
from dao.replication import State, restore
from dao.replication import replicate as replicate_database
from dao.replication.replicator import KEEP, PATIENCE
from dao.text import milliseconds

__all__ = ["replicate", "restore_replica"]

_PLACE = "A folder, or s3://bucket/path?region=…&endpoint=…. [default: $DATABASE_REPLICA]"


def _place(config: settings.Settings, given: str | None, option: str) -> str:
    if given is not None and not url.cleaned(given):
        raise click.UsageError(f"{option} is empty: name a folder or an s3:// URL, or leave the option out")
    if (place := given or config.replica) is None:
        raise click.UsageError(
            f"no replica is named: name a folder or an s3:// URL with {option}, or in DATABASE_REPLICA"
        )
    return place


@click.command("replicate")
@command(migrations=False, changes=True, prepares=False, on_server=refuse_server)
@examples(
    "dao replicate --to /mnt/backup/orchestrator", "dao replicate --to s3://bucket/orchestrator?region=eu-central-1"
)
@click.option("--to", metavar="DIR|URL", shell_complete=completion.directories, help=_PLACE)
@click.option(
    "--retention",
    type=Amount(min=1),
    metavar="HOURS",
    default=KEEP / timedelta(hours=1),
    show_default=True,
    help="How far back `dao restore-replica --timestamp` reaches.",
)
@click.option(
    "--metrics", metavar="HOST:PORT", help="Where Litestream tells Prometheus. [default: a free port of this machine]"
)
@click.option(
    "--patience",
    type=Amount(min=1),
    metavar="S",
    default=PATIENCE,
    show_default=True,
    help="End with 1 after so many seconds of errors in which nothing got through.",
)
@click.option("--once", is_flag=True, help="End when all of it is there.")
def replicate(
    config: settings.Settings,
    output: Output,
    to: str | None,
    retention: float,
    metrics: str | None,
    patience: float,
    once: bool,
) -> None:
    """Keep a replica of the database up to date.

    It is in a folder or in S3. Runs Litestream until Ctrl-C or SIGTERM, uploads what is left then, and ends with 0. It
    ends with 1 once replication has stopped, so that whatever looks after it starts it again, which is safe. All that
    write to the database need wal_autocheckpoint=0 in its URL. Credentials are taken from the environment
    (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).
    """
    place = _place(config, to, "--to")
    begun = time.perf_counter()
    told: list[State] = []

    def report(state: State) -> None:
        told.append(state)
        if state.behind:
            because = f" ({state.reason})" if state.reason else ""
            output.warning(f"{state.database}: {state.replica} has been behind for {state.behind:.0f} s{because}")
        elif len(told) == 1:
            output.line(
                f"{state.database}: all of it is in {state.replica} ({milliseconds(time.perf_counter() - begun)}); "
                f"metrics: {state.metrics}",
                style="green",
            )
        else:
            output.line(f"{state.database}: all of it is in {state.replica}")

    ended = replicate_database(
        config.url,
        place,
        keep=timedelta(hours=retention),
        metrics=metrics,
        once=once,
        patience=patience,
        report=report,
    )
    if not once:
        output.line(f"{ended.database}: ended; all of it is in {ended.replica}")
    output.json(
        {
            "database": ended.database,
            "replica": ended.replica,
            "metrics": ended.metrics,
            "seconds": time.perf_counter() - begun,
        }
    )


@click.command("restore-replica")
@command(changes=True, on_server=refuse_server)
@examples(
    "dao restore-replica --from /mnt/backup/orchestrator",
    "dao restore-replica --from /mnt/backup/orchestrator --timestamp 2026-11-28T09:30:00Z --force",
)
@click.option("--from", "source", metavar="DIR|URL", shell_complete=completion.directories, help=_PLACE)
@click.option("--timestamp", metavar="TIME", help="As it was then, such as 2026-11-28T09:30:00Z. [default: the latest]")
@click.option("--force", is_flag=True, help="Replace a database that is there, after taking a snapshot of it.")
@options("lock_timeout")
def restore_replica(
    config: settings.Settings,
    output: Output,
    source: str | None,
    timestamp: str | None,
    force: bool,
    lock_timeout: float | None,
) -> None:
    """Bring the database back from its replica.

    It is written beside first, and takes its place once the whole file, every row, schema and ledger are found sound,
    as by `dao check`. Nothing is replaced without --force; then it becomes a snapshot, and programs that have the
    database open go on.
    """
    place = _place(config, source, "--from")
    begun = time.perf_counter()
    done = restore(
        config.url,
        place,
        at=None if timestamp is None else _time(timestamp),
        force=force,
        migrations=config.migrations,
        keep=config.snapshots or SNAPSHOTS,
        lock_timeout=lock_timeout,
        report=output.report,
    )
    seconds = time.perf_counter() - begun
    when = done.at or done.uploaded_at
    as_of = "" if when is None else f", as of {_written(when)}"
    output.line(f"{done.database}: restored from {done.replica}{as_of} ({milliseconds(seconds)})", style="green")
    output.json(
        {
            "database": done.database,
            "replica": done.replica,
            "as_of": None if when is None else _written(when),
            **tell_replaced(output, done.done),
            "seconds": seconds,
        }
    )


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(url.cleaned(text))
    except ValueError as error:
        raise click.UsageError(
            f"--timestamp {text} is no time: give one with its zone, such as 2026-11-28T09:30:00Z"
        ) from error


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
