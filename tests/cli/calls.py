"""What the tests of the commands share: a call of each command, and what a refusal looks like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from dao.cli.group import group
from tests.folders import ALONE, write
from tests.reference import documents


@attrs.frozen
class Outcome:
    """What a call of the command line left: its exit code, and what it printed."""

    code: int
    out: str
    err: str
    #: The command that printed a document, as the reference names it.
    command: str | None = attrs.field(default=None, eq=False)

    @property
    def document(self) -> Any:
        """What it printed as JSON: one document and nothing else, as the reference has it."""
        document = json.loads(self.out)
        if self.command is not None:
            documents.check(self.command, document)
        return document


#: Every command, by its name.
COMMANDS: dict[str, click.Command] = {
    name: group.get_command(click.Context(group), name) for name in group.list_commands(click.Context(group))
}
#: A call of each command that succeeds, once two of three migrations are applied (`health` and `wait`: all of them).
CALLS = {
    "migrate": ["migrate"],
    "rollback": ["rollback"],
    "redo": ["redo"],
    "init": ["init"],
    "reset": ["reset", "--yes"],
    "status": ["status"],
    "plan": ["plan"],
    "health": ["health"],
    "wait": ["wait", "--timeout", "0"],
    "new": ["new", "add", "priority"],
    "mark": ["mark", "0003"],
    "unmark": ["unmark", "0002"],
    "accept": ["accept", "0002"],
    "adopt": ["adopt", "--from", "yoyo"],
    "baseline": ["baseline", "--database", "sqlite:///existing.db", "--migrations", "begun"],
    "copy": ["copy", "--from", "sqlite:///source.db", "--to", "sqlite:///target.db"],
    "history": ["history"],
    "rehearse": ["rehearse"],
    "snapshot": ["snapshot"],
    "snapshots": ["snapshots"],
    "restore": ["restore", "--yes"],
    "replicate": [
        "replicate",
        "--once",
        "--to",
        "replica",
        "--database",
        "sqlite:///orchestrator.db?wal_autocheckpoint=0",
    ],
    "restore-replica": ["restore-replica", "--force", "--from", "replica", "--database", "sqlite:///brought-back.db"],
    "schema": ["schema", "diff"],
    "lint": ["lint"],
    "verify": ["verify"],
    "check": ["check"],
    "doctor": ["doctor"],
    "metrics": ["metrics", "--database", "sqlite:///source.db"],
    "browse": ["browse", "--metadata", "browse.json"],
    "shell": ["shell", "--program", "apsw", ".headers off"],
    "tasks": ["tasks", "list", "--database", "sqlite:///source.db"],
    "top": ["top", "--once", "--database", "sqlite:///source.db"],
    "prune": ["prune", "--older-than", "30d", "--yes", "--database", "sqlite:///source.db"],
}
#: The commands of work, which need the tables of this package.
WORKERS = {"tasks", "top", "prune", "metrics"}
#: The commands that change a database, those that open one, and those that load migrations. To `doctor`, what stops
#: these is something that it has found; `shell` opens whatever its client opens.
WRITERS = ["migrate", "rollback", "redo", "init", "reset", "mark", "unmark", "accept"]
OPENERS = [
    name
    for name in CALLS
    if name
    not in {
        *{"new", "lint", "verify", "snapshots", "restore", "baseline", "copy", "replicate", "restore-replica"},
        *{"doctor", "shell"},
        *WORKERS,
    }
]
LOADERS = [name for name in OPENERS if name not in {"browse", "unmark", "history", "snapshot"}]


def documented(arguments: Sequence[str]) -> str | None:
    """Return the command that is called, as the reference of its document names it; None if it prints none."""
    if "--json" not in arguments:
        return None
    if alone := {"--rules", "--write-baseline"} & {*arguments}:
        return f"lint {alone.pop()}"
    two = " ".join(arguments[:2])
    return two if two in documents.COMMANDS else arguments[0]


def plain(text: str) -> str:
    """Return the text with what differs from run to run replaced."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "WHEN", text)
    return re.sub(r"\b\d+(\.\d+)? (ms|s)\b", "TIME", text)


def refused(outcome: Outcome, *parts: str, code: int = 1) -> None:
    """Assert that the call failed with one message that holds these parts, and printed nothing else."""
    assert (outcome.code, outcome.out) == (code, ""), outcome
    told = "snapshot of what was there before: .*|created .*, since there was no database|removed .* again, since .*"
    message = re.sub(rf"^(?:(?:{told})\n)*", "", outcome.err)
    assert message.startswith("error: "), outcome
    assert message.count("error:") == 1, outcome
    assert_has(outcome, parts)


def misused(outcome: Outcome, *parts: str) -> None:
    """Assert that the call was refused as wrong usage, with a message that holds these parts."""
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert re.search(r"^Error: ", outcome.err, re.MULTILINE), outcome
    assert_has(outcome, parts)


def assert_has(outcome: Outcome, parts: Iterable[str]) -> None:
    """Assert that the message holds all these parts."""
    assert [part for part in parts if part not in outcome.err] == [], outcome


# ---------------------------------------------------------------- files and database disagree


def edited(folder: Path) -> None:
    """Edit an applied file."""
    write(folder, {"0001_a.sql": "CREATE TABLE a (id INTEGER PRIMARY KEY, x);"})


def removed(folder: Path) -> None:
    """Remove an applied pair."""
    (folder / "0002_b.sql").unlink()
    (folder / "0002_b.rollback.sql").unlink()


def slipped_in(folder: Path) -> None:
    """Add a migration before an applied one."""
    write(folder, {"0000_z.sql": "CREATE TABLE z (id);"})


def unfinished(folder: Path) -> None:
    """Break a migration that runs outside of a transaction; the run of it comes later."""
    write(folder, {"0003_c.sql": ALONE + "CREATE TABLE half (id);\nnonsense;"})


#: Each kind of mismatch: how it comes about, which migration it is, and what is said of it and advised.
KINDS = {
    "changed": (edited, "0001_a", "its files have changed since it was applied", "dao accept 0001_a"),
    "missing": (removed, "0002_b", "its file has gone", "dao unmark 0002_b"),
    "out_of_order": (slipped_in, "0000_z", "comes before migrations that are applied", "--allow-out-of-order"),
    "unfinished": (unfinished, "0003_c", "did not come to its end", "dao migrate resolve 0003_c"),
}
