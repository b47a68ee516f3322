"""The commands that only look: status, plan, history, health, wait."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import attrs
import click

import dao
from dao import migrate, settings
from dao.cli import completion
from dao.cli.options import (
    MISMATCH,
    PENDING,
    called,
    command,
    examples,
    only_one_of,
    options,
    steps_option,
    timeout_option,
)
from dao.cli.output import Output
from dao.errors import Error, LedgerMismatch, SchemaOutOfDate, SchemaTooNew
from dao.migrate.schema.registration import register
from dao.migrate.scripts.sets import shown
from dao.text import milliseconds

__all__ = ["health", "history", "plan", "print_status", "status", "wait"]

_COLOURS: dict[migrate.State, str] = {
    "applied": "green",
    "pending": "yellow",
    "changed": "red",
    "missing": "red",
    "unfinished": "bold red",
}
# The errors that no waiting mends.
_FOR_GOOD = {
    *("DatabaseCorrupt", "LedgerMismatch", "MigrationFileError", "PrepareFailed", "SchemaTooNew", "UnsupportedEngine")
}


# ---------------------------------------------------------------- migrations


@click.command("status")
@command()
@examples("dao status", "dao status --exit-code --quiet  # for scripts")
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 3 if migrations are pending, with 4 if files changed or went, or the schema is not what they "
    "make, or does not work.",
)
def status(config: settings.Settings, output: Output, exit_code: bool) -> int:
    """Print where each migration stands. Reads only; creates no database."""
    current = migrate.status(config.url, config.migrations)
    print_status(output, current)
    if not exit_code:
        return 0
    if current.drift or current.broken or current.ids("changed", "missing", "unfinished"):
        return MISMATCH
    if current.ids("pending"):
        return PENDING
    return 0 if current.is_current else MISMATCH


def print_status(output: Output, status: migrate.Status, **more: object) -> None:
    """Print where each migration stands; the JSON document has `more`, too."""
    output.json(
        {
            "database": status.database,
            "exists": status.exists,
            **more,
            "drift": list(status.drift),
            "broken": list(status.broken),
            "advice": status.advice,
            "migrations": [_in_seconds(migration) for migration in status.migrations],
            "others": [_in_seconds(migration) for migration in status.others],
        },
        ok=status.is_current,
    )
    names = status.names
    width = max(map(len, names.values()))
    for migration in status.migrations:
        details = [_time(migration.applied_at)] if migration.applied_at else []
        details += [] if migration.duration_ms is None else [f"{migration.duration_ms} ms"]
        details += [] if migration.reversible else ["irreversible"]
        details += [f"its file is {migration.renamed} now"] if migration.renamed else []
        details += [f"its file is in the set {migration.moved} here"] if migration.moved else []
        details += ["out of order"] if migration.out_of_order else []
        text = f"{migration.state:<10}  {names[migration.id]:<{width}}  {', '.join(details)}".rstrip()
        output.line(text, style=_COLOURS[migration.state])
    counts = {state: len(status.ids(state)) for state in _COLOURS}
    summary = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    output.line(f"{status.database}{'' if status.exists else ' (does not exist yet)'}: {summary}")
    others = Counter(migration.set for migration in status.others)
    for name, number in others.items():
        output.line(f"of another set: {name} ({number} applied)")
    if status.drift:
        output.line("the schema is not what these migrations make (`dao schema diff`):", style="red")
    for difference in status.drift:
        output.line(f"  {difference}", style="red")
    for problem in status.broken:
        output.line(f"does not work: {problem}; mend it in a migration", style="red")
    if status.advice:
        output.line(status.advice, style="red")


def _in_seconds(one: migrate.MigrationStatus | migrate.Deed) -> dict[str, Any]:
    found = attrs.asdict(one)
    taken = found.pop("duration_ms")
    return found | {"seconds": None if taken is None else taken / 1000}


def _time(text: str) -> str:
    return f"{text[:19].replace('T', ' ')} UTC"


@click.command("plan")
@command()
@examples("dao plan", "dao plan --rollback --steps 2")
@click.option("--rollback", "undo", is_flag=True, help="Plan a rollback instead.")
@click.option("--to", metavar="ID", shell_complete=completion.migrations, help="As for migrate and rollback.")
@steps_option("As for migrate and rollback.")
@click.option("--all", "everything", is_flag=True, help="As for rollback.")
@options("set", "allow_out_of_order")
def plan(
    config: settings.Settings,
    output: Output,
    undo: bool,
    to: str | None,
    steps: int | None,
    everything: bool,
    set: str | None,
    allow_out_of_order: bool,
) -> None:
    """Print what migrate or rollback would run.

    Reads only; creates no database.
    """
    if undo:
        only_one_of(steps=steps, to=to, all=everything)
    elif everything:
        raise click.UsageError("--all goes with --rollback: migrate applies all anyway")
    database = config.url.name
    planned = migrate.plan(
        config.url,
        config.migrations,
        direction="rollback" if undo else "apply",
        to=to,
        steps=1 if undo and steps is None and not everything else steps,
        set=set,
        allow_out_of_order=allow_out_of_order,
    )
    for step in planned:
        how = "" if step.script.transactional else ", alone and outside of a transaction"
        how += ", alone and with foreign keys enforced" if step.script.foreign_keys else ""
        verb = "apply" if step.direction == "apply" else "roll back"
        source = f"from {step.script.path or 'the ledger'}" if step.script.text else "it has nothing to undo"
        output.line(f"{verb} {step.name} ({source}{how})")
        if step.drops:
            output.line(f"  drops what it made, with what that holds: {', '.join(step.drops)}")
    if not planned:
        output.line(f"{database}: nothing to do")
    output.json(
        {
            "database": database,
            "steps": [
                {
                    "id": step.id,
                    "set": step.migration.set,
                    "direction": step.direction,
                    "path": step.script.path,
                    "transactional": step.script.transactional,
                    "foreign_keys": step.script.foreign_keys,
                    "drops": step.drops,
                }
                for step in planned
            ],
        }
    )


@click.command("history")
@command(migrations=False)
@examples("dao history", "dao history --json")
def history(config: settings.Settings, output: Output) -> None:
    """Print who changed the schema, and when.

    The oldest first. Reads only.
    """
    deeds = migrate.history(config.url)
    sets = {deed.set for deed in deeds}
    for deed in deeds:
        took = "" if deed.duration_ms is None else f" in {deed.duration_ms} ms"
        by = "by yoyo" if deed.tool_version is None else f"by dao {deed.tool_version}"
        name = config.url.name if deed.id is None else shown(deed.id, deed.set, sets)
        done = f"{deed.operation:<8}  {name}{took}"
        output.line(f"{_time(deed.at)}  {done}, {deed.user}@{deed.host}, {by}")
        if deed.detail:
            output.line(f"  {deed.detail}")
    if not deeds:
        output.line(f"{called(config)}: nothing was done yet")
    output.json({"database": config.url.name, "history": [_in_seconds(deed) for deed in deeds]})


# ---------------------------------------------------------------- probes


_AT_LEAST = (
    "Whether the database may have more migrations than this program knows, applied after all that it knows, as in a "
    "rolling deployment."
)


@click.command("health")
@command(changes=True)
@examples("dao health", "dao health --timeout 1 --at-least --quiet  # for a probe, in a rolling deployment")
@timeout_option(5)
@click.option("--at-least/--exact", default=False, help=f"{_AT_LEAST} [default: --exact]")
def health(config: settings.Settings, output: Output, timeout: float, at_least: bool) -> int:
    """Check the database and its schema, for probes.

    It is healthy if it answers in time and no migration is pending, also while somebody writes. Creates no database.
    """
    answer, error, code = _health(config, timeout, at_least=at_least)
    output.json(
        {
            "database": config.url.name,
            "seconds": answer.seconds,
            "locked": answer.locked,
            "error": error,
        },
        ok=error is None,
    )
    if error is None:
        locked = "; another connection holds the write lock" if answer.locked else ""
        output.line(f"{config.url.name}: healthy (answered in {milliseconds(answer.seconds)}{locked})", style="green")
    else:
        output.error(error["message"])
    return code


@click.command("wait")
@command(changes=True)
@examples("dao wait", "dao wait --timeout 120 --exact")
@timeout_option(30)
@click.option("--at-least/--exact", default=True, help=f"{_AT_LEAST} [default: --at-least]")
def wait(config: settings.Settings, output: Output, timeout: float, at_least: bool) -> int:
    """Wait until the database is ready.

    It is when it exists, answers and no migration is pending: before a program starts. It fails at once if waiting
    cannot help: the file is damaged, the schema is another one, or a run ended in the middle of a script.
    """
    begun = time.monotonic()
    while True:
        remaining = begun + timeout - time.monotonic()
        _, error, code = _health(config, max(0.1, min(5.0, remaining)), at_least=at_least)
        # one that is being applied is not called unfinished
        for_good = error is not None and (error["type"] in _FOR_GOOD or bool(error.get("unfinished")))
        if error is None or for_good or remaining <= 0:
            break
        time.sleep(min(0.2, remaining))
    output.json({"database": config.url.name, "error": error}, ok=error is None)
    if error is None:
        output.line(f"{config.url.name}: ready", style="green")
    elif for_good:
        output.error(f"not ready, and waiting does not help: {error['message']}")
    else:
        output.error(f"not ready after {timeout:g} s: {error['message']}")
    return code


def _health(
    config: settings.Settings, timeout: float, *, at_least: bool
) -> tuple[dao.Health, dict[str, Any] | None, int]:
    """Return the answer of the database, what is wrong with it or its schema, and the exit code."""
    # a probe creates nothing, and sets nothing
    url = config.url.creating_nothing().switching_nothing()
    with attrs.evolve(config, url=url, pool_size=1).pool() as pool:
        answer = pool.health(timeout)
        if not answer.ok:
            return answer, {"type": answer.kind, "message": answer.error}, 1
        try:
            with pool.acquire(timeout=timeout) as connection:
                register(connection)
                migrate.assert_current(connection, config.migrations, at_least=at_least)
        except Error as error:
            if isinstance(error, SchemaOutOfDate) and not error.unfinished:
                code = PENDING
            else:
                code = MISMATCH if isinstance(error, SchemaOutOfDate | SchemaTooNew | LedgerMismatch) else 1
            return answer, error.to_dict(), code
    return answer, None, 0
