"""The commands that only look."""

from __future__ import annotations

import time

import attrs
import click

from dao import migrate, settings
from dao.cli.common import (
    MISMATCH,
    PENDING,
    allow_out_of_order_option,
    common,
    creating_nothing,
    only_one_of,
    timeout_option,
)
from dao.cli.output import Output, milliseconds
from dao.errors import Error, LedgerMismatch, SchemaOutOfDate, SchemaTooNew
from dao.pooling.lending import Health

__all__ = ["health", "plan", "status", "wait"]


@click.command("status")
@common()
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 3 if migrations are pending, with 4 if files changed or went, or the schema is not what they make, or does not work.",
)
def status(config: settings.Settings, output: Output, exit_code: bool) -> int:
    """Print where each migration stands. Reads only; creates no database."""
    current = migrate.status(config.url, config.migrations)
    output.status(current)
    if not exit_code:
        return 0
    if current.drift or current.broken or current.ids("changed", "missing", "unfinished"):
        return MISMATCH
    return PENDING if current.ids("pending") else 0


@click.command("plan")
@common()
@click.option("--rollback", "undo", is_flag=True, help="Plan a rollback instead.")
@click.option("--to", metavar="ID", help="As for migrate and rollback.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="As for migrate and rollback.")
@click.option("--all", "everything", is_flag=True, help="As for rollback.")
@allow_out_of_order_option
def plan(
    config: settings.Settings,
    output: Output,
    undo: bool,
    to: str | None,
    steps: int | None,
    everything: bool,
    allow_out_of_order: bool,
) -> None:
    """Print what migrate or rollback would run.

    Reads only; creates no database.
    """
    if undo:
        only_one_of(steps=steps, to=to, all=everything or None)
    elif everything:
        raise click.UsageError("--all goes with --rollback: migrate applies all anyway")
    planned = migrate.plan(
        config.url,
        config.migrations,
        direction="rollback" if undo else "apply",
        to=to,
        steps=1 if undo and steps is None and not everything else steps,
        allow_out_of_order=allow_out_of_order,
    )
    output.plan(config.url.path, planned)


@click.command("health")
@common(changes=True)
@timeout_option(5)
def health(config: settings.Settings, output: Output, timeout: float) -> int:
    """Check the database and its schema, for probes.

    It is healthy if it answers in time and no migration is pending, also while somebody writes. Creates no database.
    """
    answer, code = _health(config, timeout)
    output.json(
        {
            "database": config.url.path,
            "healthy": answer.ok,
            "seconds": round(answer.seconds, 6),
            "locked": answer.locked,
            "error": answer.error,
        }
    )
    if answer.error is None:
        locked = "; another connection holds the write lock" if answer.locked else ""
        output.line(f"{config.url.path}: healthy (answered in {milliseconds(answer.seconds)}{locked})", style="green")
    else:
        output.error(answer.error)
    return code


@click.command("wait")
@common(changes=True)
@timeout_option(30)
def wait(config: settings.Settings, output: Output, timeout: float) -> int:
    """Wait until the database is ready.

    It is when it exists, answers and no migration is pending: before a program starts.
    """
    end = time.monotonic() + timeout
    while True:
        remaining = end - time.monotonic()
        answer, code = _health(config, max(0.1, min(5.0, remaining)))
        if answer.error is None:
            output.json({"database": config.url.path, "ready": True, "error": None})
            output.line(f"{config.url.path}: ready", style="green")
            return 0
        if remaining <= 0:
            output.json({"database": config.url.path, "ready": False, "error": answer.error})
            output.error(f"not ready after {timeout:g} s: {answer.error}")
            return code
        time.sleep(min(0.2, max(0.0, remaining)))


def _health(config: settings.Settings, timeout: float) -> tuple[Health, int]:
    """Return the health of the database with its schema, and the exit code."""
    # a probe creates nothing, and sets nothing
    url = attrs.evolve(creating_nothing(config).url, journal_mode="keep")
    with attrs.evolve(config, url=url, pool_size=1).pool() as pool:
        answer = pool.health(timeout)
        if not answer.ok:
            return answer, 1
        try:
            with pool.acquire(timeout=timeout) as connection:
                migrate.assert_current(connection, config.migrations)
        except Error as error:
            if isinstance(error, SchemaOutOfDate) and not error.unfinished:
                code = PENDING
            else:
                code = MISMATCH if isinstance(error, SchemaOutOfDate | SchemaTooNew | LedgerMismatch) else 1
            return attrs.evolve(answer, ok=False, error=str(error)), code
    return answer, 0
