"""The command that looks for what is wrong in a database."""

from __future__ import annotations

import click

from dao import migrate, settings
from dao.cli.options import UNSAFE, command, examples
from dao.cli.output import Output
from dao.text import counted

__all__ = ["check"]

_SHOWN = 10
_LONGEST = 200


@click.command("check")
@command()
@examples("dao check", "dao check --json")
def check(config: settings.Settings, output: Output) -> int:
    """Look for damage, broken rows and a broken schema.

    Holds all rows against foreign keys and constraints, and reads the whole file. Reads only. Exits with 5 if anything
    is wrong.
    """
    with output.progress():
        found = migrate.check(config.url, config.migrations)
    output.json(
        {
            "database": found.database,
            "faults": [fault.to_dict() for fault in found.faults],
            "unknown": list(found.unknown),
        },
        ok=found.ok,
    )
    for fault in found.faults:
        output.line(str(fault), style="red")
        for row in fault.rows[:_SHOWN]:
            output.line(f"  {', '.join(f'{column} = {_shown(value)}' for column, value in row.items())}")
        if fault.count is not None and fault.count > _SHOWN:
            output.line(f"  … and {fault.count - _SHOWN:,} more{' (--json has a hundred)' if fault.rows else ''}")
    for text in found.unknown:
        output.warning(text)
    if found.ok:
        output.line(f"{found.database}: sound", style="green")
        return 0
    output.error(f"{found.database}: not sound ({counted(len(found.faults), 'fault')})")
    return UNSAFE


def _shown(value: object) -> str:
    """Return a value as a line shows it: not all of a long one."""
    text = "NULL" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
