"""Looks for what may go wrong with migrations before they meet a database: `dao lint`.

Every script is replayed in an empty database in memory, statement by statement, and SQLite's own compiler says what
each one does. `rules` has the rules; `statements`, `outcome` and `losses` find what breaks them; here the findings
meet the comments that silence them.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from dao.migrate.linting.losses import loss_problems
from dao.migrate.linting.outcome import Outcome, find_orphans
from dao.migrate.linting.replay import Replay
from dao.migrate.linting.rules import RULES, Rule, Severity, by_name
from dao.migrate.linting.schema import Schema
from dao.migrate.linting.silences import read as read_silences
from dao.migrate.linting.statements import statement_problems
from dao.migrate.linting.subject import Subject, listed
from dao.migrate.run.parts import parts
from dao.migrate.schema.catalog import fold
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]


@attrs.frozen(kw_only=True)
class Finding:
    """Something that a rule holds against a migration: where it stands, what it is and what to do.

    `silenced` is the reason that the file gives for silencing it, or None.
    """

    code: str
    name: str
    severity: Severity
    migration: str
    path: Path
    line: int
    message: str
    remedy: str
    silenced: str | None = None


def lint(migrations: Source = None) -> list[Finding]:
    """Return what the rules hold against migrations, in the order of the files, then by line. Needs no database.

    Runs the scripts in memory, so it takes as long as they do in an empty database. A script that fails is a finding,
    and what comes after it is judged as far as it goes without it. Silenced findings are among the results.

    Raises:
        MigrationFileError: A file is not what it should be, so that there is no migration to look at.
    """
    with contextlib.closing(Replay()) as replay:
        outcome = Outcome()
        pairs = [_replay_pair(migration, replay, outcome) for migration in loaded(migrations)]
    subjects = [subject for pair in pairs for subject in pair]
    applied = [up for up, *_ in pairs]
    if not any(subject.failure for subject in subjects):
        find_orphans(applied)
    scripts = iter(applied)
    for part in parts([up.step for up in applied]):
        together = list(itertools.islice(scripts, len(part.steps)))
        for up in together:
            up.problems += loss_problems(up, together)
    for subject in subjects:
        if subject.is_rollback:
            subject.problems += loss_problems(subject, [subject])
    _find_collisions(applied)
    return [finding for subject in subjects for finding in _findings(subject)]


# ---------------------------------------------------------------- one pair


def _replay_pair(migration: Migration, replay: Replay, outcome: Outcome) -> list[Subject]:
    """Return both scripts of a pair with their problems, and leave the replay after the first."""
    up = replay.run(Step(migration=migration, direction="apply"))
    _look(up, replay, outcome)
    if not up.statements:
        up.problems.append(("M027", None, "the script holds nothing but comments"))
        return [up]
    if migration.down is None:
        up.problems.append(("M017", None, f"{migration.id} has no rollback script"))
        return [up]
    rollback = Step(migration=migration, direction="rollback")
    if not migration.reversible:
        down = Subject(step=rollback, origin=up.before, before=up.after, after=up.after)
        down.problems.append(("M018", None, "the rollback script holds nothing but comments"))
        return [up, down]
    with contextlib.closing(replay.copy()) as other:
        down = other.run(rollback, up.before)
        _look(down, other, outcome)
    if not (down.failure or up.failure) and (left := [*_left(up.before, down.after)]):
        down.problems.append(("M019", None, "after the rollback " + listed(left)))
    return [up, down]


def _look(subject: Subject, replay: Replay, outcome: Outcome) -> None:
    if subject.failure is not None:
        subject.problems.append(("M001", subject.failure.statement, subject.failure.message))
    subject.problems += statement_problems(subject)
    subject.problems += outcome.problems(subject, replay.connection)


def _left(before: Schema, after: Schema) -> Iterator[str]:
    """Say what a rollback did not bring back, and what it left."""
    for name in sorted(before.tables.keys() | after.tables.keys()):
        old, new = before.tables.get(name), after.tables.get(name)
        if old is None or new is None:
            yield f"the table {name} is {'missing' if new is None else 'still there'}"
        elif old is not new:
            columns = [{column._replace(name=key) for key, column in table.columns.items()} for table in (old, new)]
            if changed := sorted({column.name for column in columns[0] ^ columns[1]}):
                yield f"the table {name} differs in {listed(changed)}"
    for key in sorted(before.objects.keys() ^ after.objects.keys()):
        item = before.objects.get(key) or after.objects[key]
        # it went, or stayed, with its table
        if item.type == "view" or all(
            schema.find("table", fold(item.table)) or schema.find("view", fold(item.table))
            for schema in (before, after)
        ):
            yield f"the {item.type} {key[1]} is {'missing' if key in before.objects else 'still there'}"


def _find_collisions(scripts: Sequence[Subject]) -> None:
    first: dict[tuple[int, ...], str] = {}
    for script in scripts:
        id = script.step.id
        without_number, number, _ = sort_key(id)
        if not without_number and first.setdefault(number, id) != id:
            script.problems.append(("M020", None, f"{id} has the same number as {first[number]}"))


# ---------------------------------------------------------------- findings


def _findings(subject: Subject) -> list[Finding]:
    """Return the problems of a script as findings, by line, with those of its silences."""
    text = subject.step.script.text
    silences = read_silences(text, subject.statements)
    # one for the statement comes before one for the script
    nearest = sorted(silences, key=lambda silence: silence.statement is None)
    found: list[Finding] = []
    for code, statement, message in subject.problems:
        silence = next((silence for silence in nearest if silence.covers(code, statement)), None)
        if silence is not None:
            silence.used = True
        line = text.count("\n", 0, statement.begin) + 1 if statement else 1
        if code == "M001" and subject.failure is not None:
            line = subject.failure.line
        found.append(_finding(subject, code, line, message, silence.reason if silence else None))
    for silence in silences:
        found += [_finding(subject, "M903", silence.line, f"{name!r} is not a rule") for name in silence.unknown]
        if silence.rules and not silence.reason:
            found.append(
                _finding(subject, "M901", silence.line, "a finding is silenced without a reason, so it is not")
            )
        elif silence.rules and not silence.used and subject.failure is None:
            codes = listed([rule.code for rule in silence.rules])
            found.append(_finding(subject, "M902", silence.line, f"there is no {codes} here to silence"))
    return sorted(found, key=lambda finding: (finding.line, finding.code))


def _finding(subject: Subject, code: str, line: int, message: str, silenced: str | None = None) -> Finding:
    rule = by_name[code.lower()]
    return Finding(
        code=code,
        name=rule.name,
        severity=rule.severity,
        migration=subject.step.id,
        path=subject.step.script.path or subject.step.migration.path,
        line=line,
        message=message,
        remedy=rule.remedy,
        silenced=silenced,
    )
