"""The command that proves migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import click

from dao import migrate, settings
from dao.cli.options import (
    UNSAFE,
    command,
    examples,
    file_option,
    only_one_of,
    options,
    read_settings,
    server_for,
)
from dao.cli.output import Output
from dao.text import counted, milliseconds

__all__ = ["verify"]

_WHERE = {"empty": "empty database", "generated rows": "generated rows", "copy": "copy of the database"}
_COLOURS = {"ok": "green", "irreversible": "yellow", "not tried": "yellow", "failed": "red"}


@click.command("verify")
@command(database=False)
@examples("dao verify --latest", "dao verify --copy --since 20261202090000")
@click.option(
    "-d",
    "--database",
    "named",
    metavar="URL",
    help="With --copy: the database. For PostgreSQL: a server, on which they run in a database of their own, which is "
    "dropped. [default: $DATABASE_URL]",
)
@click.option("--copy", is_flag=True, help="Try them on a copy of the database, too.")
@click.option("--rows", type=click.IntRange(min=1), default=3, metavar="N", help="Rows per table. [default: 3]")
@file_option("--fixtures", text="Rows of your own, as INSERT statements, in place of generated ones.")
@options("set", "since", "latest")
def verify(config: settings.Settings, output: Output, named: str | None, copy: bool, rows: int, **given: Any) -> int:
    """Prove that every migration can be undone.

    Runs each up, down and up again: in an empty database, in one with generated rows, and with --copy in a copy of the
    database, which is only read. Schema and rows must come back. Exits with 5 if they do not. For PostgreSQL there is
    no --copy: `dao rehearse --round-trip` tries what is pending on the rows of a database.
    """
    server = server_for(named, config.migrations)
    if named is not None and server is None and not copy:
        raise click.UsageError("--database names the database for --copy: without it, none is read")
    only_one_of(since=given["since"], latest=given["latest"])
    database = read_settings(named).url if copy else None
    with output.progress():
        found = migrate.verify(
            config.migrations, database=database, server=server, rows=rows, report=output.report, **given
        )
    groups: dict[str, list[migrate.Verification]] = {}
    for one in found:
        groups.setdefault(output.named(one.id, one.set), []).append(one)
    states = {name: _state(group) for name, group in groups.items()}
    failed, untried = ([name for name, its in states.items() if its == state] for state in ("failed", "not tried"))
    output.json(
        {
            "failed": failed,
            "not_tried": untried,
            "database": None if database is None else database.name,
            "verifications": [attrs.asdict(one) | {"ok": one.ok} for one in found],
        },
        ok=not failed,
    )
    for name, group in groups.items():
        _print(output, name, states[name], group)
    total = counted(len(groups), "migration")
    if not failed:
        output.line(f"{total} verified in {milliseconds(sum(one.seconds for one in found))}", style="green")
        return 0
    after = f"; {counted(len(untried), 'migration')} after that not tried" if untried else ""
    output.error(f"{len(failed)} of {total} failed: {', '.join(failed)}{after}. Mend them before they are released")
    return UNSAFE


def _state(group: Sequence[migrate.Verification]) -> str:
    if not all(one.ok for one in group if one.tried):
        return "failed"
    if not all(one.tried for one in group):
        return "not tried"
    return "ok" if all(one.reversible for one in group) else "irreversible"


def _print(output: Output, name: str, state: str, group: Sequence[migrate.Verification]) -> None:
    """Print a line for a migration, and below it what was found, each thing once."""
    output.line(f"{state:<12}  {name}", style=_COLOURS[state])
    seen: set[str] = set()
    for one in group:
        unfilled = [f"{table} got no rows: {reason}" for table, reason in one.unfilled.items()]
        for style, texts in (("red", one.problems), ("yellow", one.warnings), (None, one.losses), (None, unfilled)):
            for text in texts:
                if text not in seen:
                    seen.add(text)
                    first, *more = text.split("\n")
                    for line in (f"{_WHERE[one.stage]}: {first}", *(f"  {line}" for line in more)):
                        output.line(f"    {line}", style=style)
