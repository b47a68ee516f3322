"""The command that looks for what may go wrong with migrations, without a database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from dao import migrate, settings
from dao.cli.options import UNSAFE, command
from dao.cli.output import Output
from dao.errors import MigrationError
from dao.migrate.linting import RULES
from dao.migrate.linting.sarif import report
from dao.text import counted

__all__ = ["lint"]

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command("lint")
@command(database=False)
@click.option("--rules", is_flag=True, help="Print the rules and do nothing else.")
@click.option("--sarif", metavar="FILE", help="Write a SARIF report to FILE too, for code review; - prints it instead.")
@click.option("--strict", is_flag=True, help="Fail because of warnings too.")
def lint(config: settings.Settings, output: Output, rules: bool, sarif: str | None, strict: bool) -> int:
    """Look for what may go wrong with migrations.

    Runs them in memory and asks SQLite's compiler what each statement does; needs no database. Exits with 5 if there is
    an error that is not silenced (`-- lint: ignore CODE reason` above the statement). Notes never fail.
    """
    if rules:
        _print_rules(output)
        return 0
    if sarif == "-" and output.as_json:
        raise click.UsageError("--json and --sarif - both print one document; write the report to a file")
    findings = migrate.lint(config.migrations)
    if sarif is not None:
        _write_sarif(output, findings, sarif)
    grave = {"error", "warning"} if strict else {"error"}
    failed = any(finding.severity in grave and finding.silenced is None for finding in findings)
    if sarif != "-":
        _print(output, findings, config.migrations or migrate.default_folder(), ok=not failed)
    return UNSAFE if failed else 0


def _print(output: Output, findings: Sequence[migrate.Finding], folder: Path, *, ok: bool) -> None:
    for finding in findings:
        if finding.silenced is None:
            text = f"{finding.severity} {finding.code} {finding.name}: {finding.message}; {finding.remedy}"
            output.line(f"{finding.path}:{finding.line}: {text}", style=_STYLES[finding.severity])
    counts = {
        severity: sum(finding.severity == severity and finding.silenced is None for finding in findings)
        for severity in _STYLES
    }
    silenced = sum(finding.silenced is not None for finding in findings)
    parts = [counted(number, name) for name, number in counts.items() if number]
    parts += [f"{silenced} silenced"] if silenced else []
    output.line(f"{folder}: {', '.join(parts) or 'nothing found'}")
    output.json(
        {
            "migrations": folder,
            "findings": [attrs.asdict(finding) for finding in findings],
        },
        ok=ok,
    )


def _print_rules(output: Output) -> None:
    for rule in RULES:
        for line in (f"{rule.code} {rule.name} ({rule.severity})", f"    {rule.reason}", f"    To do: {rule.remedy}."):
            output.line(line)
    output.json({"rules": [attrs.asdict(rule) for rule in RULES]})


def _write_sarif(output: Output, findings: Sequence[migrate.Finding], file: str) -> None:
    text = json.dumps(report(findings), indent=2) + "\n"
    if file == "-":
        output.text(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MigrationError(f"the report cannot be written to {file}: {error.strerror}") from error
