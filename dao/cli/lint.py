"""The command that looks for what may go wrong with migrations, without a database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import click

from dao import migrate, settings
from dao.cli.files import write_whole
from dao.cli.folders import called_folders
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
from dao.migrate.ledger.selection import git_default
from dao.migrate.linting import RULES, baseline
from dao.migrate.linting.sarif import report
from dao.migrate.scripts.load import loaded
from dao.text import counted

__all__ = ["lint"]

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command("lint")
@command(database=False)
@examples("dao lint", "dao lint --since 20261201090000 --strict", "dao lint --all --sarif lint.sarif")
@click.option("--all", "everything", is_flag=True, help="Judge all migrations.")
@options("set", "since", "latest")
@click.option("-d", "--database", "named", metavar="URL", help="Judge those that this database has not applied.")
@click.option(
    "--git-base",
    metavar="REF",
    help="Judge those that this branch or commit does not have. [default: the default branch of origin; all are judged "
    "if git knows of none]",
)
@file_option("--baseline", "known", text="Pass over the findings in FILE.")
@file_option("--write-baseline", "written", text="Write the findings of all migrations to FILE.")
@click.option("--rules", is_flag=True, help="Print the rules and do nothing else.")
@file_option("--sarif", text="Write a SARIF report to FILE too, for code review; - prints it instead.")
@click.option("--strict", is_flag=True, help="Fail because of warnings too.")
def lint(
    config: settings.Settings,
    output: Output,
    everything: bool,
    named: str | None,
    known: str | None,
    written: str | None,
    rules: bool,
    sarif: str | None,
    strict: bool,
    set: str | None,
    **which: Any,
) -> int:
    """Look for what may go wrong with migrations.

    Runs them in memory and asks SQLite's compiler what each statement does; needs no database. Those for PostgreSQL
    (--database or DATABASE_URL says so) are read, for what they do to tables in use. Judges those that are not
    released, as far as git knows, and says how many; the others are run too, and count as applied long ago. Exits with
    5 if there is an error that is neither silenced (`-- lint: ignore CODE reason` above the statement) nor in the
    baseline. Notes never fail.
    """
    if rules:
        _print_rules(output)
        return 0
    if sarif == "-" and output.as_json:
        raise click.UsageError("--json and --sarif - both print one document; write the report to a file")
    which["database"] = named
    only_one_of(all=everything, **which)
    only_one_of(write_baseline=written, **which)
    for other in ({"baseline": known}, {"sarif": sarif}):
        only_one_of(write_baseline=written, **other)
    engine = "postgresql" if server_for(named, config.migrations) else "sqlite"
    files = loaded(config.migrations, engine)
    if named is not None:
        which["database"] = read_settings(named).url
    elif not everything and written is None and all(given is None for given in which.values()):
        which["git_base"] = git_default(files)
    result = migrate.lint(files, engine=engine, set=set, baseline=known, **which)
    folder = called_folders(config, engine)
    if written is not None:
        _write_baseline(output, result, folder, written)
        return 0
    if sarif == "-":
        output.text(json.dumps(report(result), indent=2) + "\n")
    elif sarif is not None:
        write_whole(sarif, json.dumps(report(result), indent=2) + "\n", "report")
    grave = {"error", "warning"} if strict else {"error"}
    failed = any(finding.is_open and finding.severity in grave for finding in result.findings)
    if sarif != "-":
        _print(output, result, folder, {one.id: one.set for one in files}, ok=not failed)
    return UNSAFE if failed else 0


def _print(
    output: Output, result: migrate.LintResult, folder: str, sets: Mapping[str, str | None], *, ok: bool
) -> None:
    judged, failed = ([output.named(id, sets[id]) for id in ids] for ids in (result.judged, result.failed))
    for finding in result.findings:
        if finding.is_open:
            text = f"{finding.severity} {finding.code} {finding.name}: {finding.message}; {finding.remedy}"
            output.line(f"{finding.path}:{finding.line}: {text}", style=_STYLES[finding.severity])
    if failed:
        output.warning(
            f"not judged, and failing in an empty database: {', '.join(failed)}. The others were judged "
            "without what these would have done; `dao lint --all` says why they fail"
        )
    counts = [(sum(one.is_open and one.severity == name for one in result.findings), name) for name in _STYLES]
    parts = [counted(number, name) for number, name in counts if number]
    for number, what in (
        (sum(one.in_baseline for one in result.findings), "in the baseline"),
        (sum(one.silenced is not None for one in result.findings), "silenced"),
    ):
        parts += [f"{number} {what}"] if number else []
    extent = f"judged {len(result.judged)} of {counted(result.total, 'migration')} ({result.selection})"
    extent += "" if result.judged else "; `dao lint --all` judges all"
    output.line(f"{folder}: {', '.join(parts) or 'nothing found'}; {extent}")
    output.json(
        {
            "migrations": folder,
            "judged": judged,
            "total": result.total,
            "selection": result.selection,
            "failed": failed,
            "findings": [attrs.asdict(one) | {"set": sets[one.migration]} for one in result.findings],
        },
        ok=ok,
    )


def _print_rules(output: Output) -> None:
    for rule in RULES:
        for line in (f"{rule.code} {rule.name} ({rule.severity})", f"    {rule.reason}", f"    To do: {rule.remedy}."):
            output.line(line)
    output.json({"rules": [attrs.asdict(rule) for rule in RULES]})


def _write_baseline(output: Output, result: migrate.LintResult, folder: str, file: str) -> None:
    number = len(baseline.recorded(result.findings))
    write_whole(file, baseline.text(result.findings), "baseline")
    output.line(
        f"{folder}: {counted(number, 'finding')} written to {file}; `dao lint --baseline {file}` passes over them"
    )
    output.json({"migrations": folder, "baseline": file, "written": number})
