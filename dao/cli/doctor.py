"""The command that looks at a database and its surroundings for somebody who is called because something is wrong."""

from __future__ import annotations

import textwrap

import click
from click.core import ParameterSource

from dao import settings
from dao.cli.options import UNSAFE, command, examples
from dao.cli.output import Output
from dao.diagnosis import Severity, examine
from dao.text import counted

__all__ = ["doctor"]

_COLOURS: dict[Severity, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
_WIDTH = 100
_INDENT = " " * 9


@click.command("doctor")
@command()
@examples("dao doctor", "dao doctor --strict --quiet  # for cron", "dao doctor --json")
@click.option("--strict", is_flag=True, help="Fail because of warnings, too.")
@click.pass_context
def doctor(context: click.Context, /, config: settings.Settings, output: Output, strict: bool) -> int:
    """Look at settings, machine and database for what is wrong.

    Versions (also of other programs with a SQLite of their own), file system, permissions, room, damage, journal,
    pending migrations, rows that nobody takes care of, clocks; of a server its connections, transactions and vacuum:
    what is found, what it means, what to do. Changes nothing. Exits with 5 if there is an error. Whether every row is
    intact takes longer: `dao check`.
    """
    is_named = context.get_parameter_source("database") is ParameterSource.COMMANDLINE
    found = examine(config, source="--database" if is_named else None)
    bad = found.of("error", *(("warning",) if strict else ()))
    output.json({"database": found.database, "findings": [one.to_dict() for one in found.findings]}, ok=not bad)
    for one in found.findings:
        output.line(f"{one.severity:<7}  {one.check}: {one.found}", style=_COLOURS[one.severity])
        for text in filter(None, (one.means, one.advice and f"-> {one.advice}")):
            for line in textwrap.wrap(text, _WIDTH - len(_INDENT), break_long_words=False, break_on_hyphens=False):
                output.line(f"{_INDENT}{line}")
    counts = {severity: len(found.of(severity)) for severity in ("error", "warning", "note")}
    summary = ", ".join(counted(number, severity) for severity, number in counts.items() if number)
    if not bad:
        output.line(f"{found.database}: {summary or 'all is well'}", style="green")
        return 0
    output.error(f"{found.database}: {summary}")
    return UNSAFE
