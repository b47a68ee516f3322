"""The command that proves migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import click

from dao import settings
from dao.cli.common import UNSAFE, json_option, quiet_option, read_settings
from dao.cli.output import Output, milliseconds

if TYPE_CHECKING:
    from dao.migrate.verification import Verification

__all__ = ["verify"]

_COLOURS = {"ok": "green", "irreversible": "yellow", "failed": "red"}


@click.command("verify")
@click.option("-d", "--database", metavar="URL", help="With --copy: the database. [default: $DATABASE_URL]")
@click.option(
    "-m",
    "--migrations",
    "folder",
    metavar="DIR",
    help="Folder of the migrations. [default: $DATABASE_MIGRATIONS, else those of this package]",
)
@click.option("--copy", "--database-copy", "copy", is_flag=True, help="Try them on a copy of the database, too.")
@click.option("--rows", type=click.IntRange(min=1), default=3, metavar="N", help="Rows per table. [default: 3]")
@quiet_option
@json_option
def verify(database: str | None, folder: str | None, copy: bool, rows: int, quiet: bool, as_json: bool) -> int:
    """Prove that every migration can be undone.

    Runs each up, down and up again: in an empty database, in one with generated rows, and with --copy in a copy of the
    database, which is only read. Schema and rows must come back. Exits with 5 if they do not.
    """
    from dao.migrate.verification import verify as verified  # for those only who ask for it

    if database is not None and not copy:
        raise click.UsageError("--database names the database for --copy: without it, none is read")
    output = Output(quiet=quiet, as_json=as_json)
    # without a copy, whatever DATABASE_URL says is no matter
    config = read_settings(database if copy else settings.DEFAULT_URL, folder)
    with output.progress():
        found = verified(config.migrations, database=config.url if copy else None, rows=rows)
    failed = [id for id, group in _by_id(found).items() if not all(one.ok for one in group)]
    output.json(
        {
            "ok": not failed,
            "failed": failed,
            "database": config.url.path if copy else None,
            "verifications": [attrs.asdict(one) | {"ok": one.ok, "seconds": round(one.seconds, 6)} for one in found],
        }
    )
    for id, group in _by_id(found).items():
        _print(output, id, group)
    number = len(_by_id(found))
    total = f"{number} migration{'' if number == 1 else 's'}"
    if not failed:
        output.line(f"{total} verified in {milliseconds(sum(one.seconds for one in found))}", style="green")
        return 0
    output.error(f"{len(failed)} of {total} failed: {', '.join(failed)}. Mend them before they are released")
    return UNSAFE


def _by_id(found: Sequence[Verification]) -> dict[str, list[Verification]]:
    groups: dict[str, list[Verification]] = {}
    for one in found:
        groups.setdefault(one.id, []).append(one)
    return groups


def _print(output: Output, id: str, group: Sequence[Verification]) -> None:
    """Print a line for a migration, and below it what was found, each thing once."""
    reversible = all(one.reversible for one in group)
    state = "failed" if not all(one.ok for one in group) else "ok" if reversible else "irreversible"
    output.line(f"{state:<12}  {id}", style=_COLOURS[state])
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


_WHERE = {"empty": "empty database", "generated rows": "generated rows", "copy": "copy of the database"}
