"""Looks for what may go wrong with migrations before they meet a database: `dao lint`.

Every script is replayed in an empty database in memory, statement by statement, and SQLite's own compiler says what each
one does. `lint_rules` says what is looked for, `lint_statements` and `lint_outcome` find it; here the findings come
together with what their files say to silence them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from dao.migrate.linting.losses import loss_problems
from dao.migrate.linting.outcome import Outcome
from dao.migrate.linting.replay import Replay
from dao.migrate.linting.rules import RULES, Rule, Severity, by_code
from dao.migrate.linting.schema import Schema
from dao.migrate.linting.script import Script, Statement
from dao.migrate.linting.silences import read as read_silences
from dao.migrate.linting.statements import Problem, Subject, listed, statement_problems
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration, sort_key
from dao.migrate.scripts.migration import Script as Down

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


@attrs.define
class _Linted:
    """A script with its problems; `subject` is None if it holds no statement."""

    migration: Migration
    path: Path
    script: Script
    problems: list[Problem]
    subject: Subject | None = None


def lint(migrations: Source = None) -> list[Finding]:
    """Return what the rules hold against migrations, in the order of the files, then by line. Needs no database.

    Runs the scripts in memory, so it takes as long as they do in an empty database. A script that fails is a finding, and
    what comes after it is judged as far as it goes without it. Silenced findings are among the results.

    Raises:
        MigrationFileError: A file is not what it should be, so that there is no migration to look at.
    """
    files = loaded(migrations)
    linted: list[_Linted] = []
    replay, outcome = Replay(), Outcome()
    try:
        for migration in files:
            linted += _pair(migration, replay, outcome, len(linted))
        if not any(one.script.failure for one in linted):
            for number, problem in outcome.orphans(replay.schema):
                linted[number].problems.append(problem)
    finally:
        replay.close()
    for one, subject, together in _together(linted):
        one.problems += loss_problems(subject, together)
    for one, message in _collisions(linted):
        one.problems.append(("M020", None, message))
    return [finding for one in linted for finding in _findings(one)]


# ---------------------------------------------------------------- one pair


def _pair(migration: Migration, replay: Replay, outcome: Outcome, number: int) -> list[_Linted]:
    """Lint both scripts of a pair, and leave the replay after the first."""
    script = replay.run(
        migration.up.text,
        id=migration.id,
        path=migration.path,
        transactional=migration.up.transactional,
        foreign_keys=migration.up.foreign_keys,
    )
    subject = Subject(
        script=script,
        origin=script.before,
        allows=migration.up.allows,
        is_rollback=False,
        transactional=migration.up.transactional,
    )
    up = _Linted(migration, migration.path, script, list(_problems(subject, replay, outcome, number)), subject)
    if not script.statements:
        up.problems.append(("M027", None, "the script holds nothing but comments"))
        return [up]
    if migration.down is None:
        up.problems.append(("M017", None, f"{migration.id} has no rollback script"))
        return [up]
    return [up, _rollback(migration, migration.down, script, replay, outcome, number)]


def _rollback(
    migration: Migration, down: Down, applied: Script, replay: Replay, outcome: Outcome, number: int
) -> _Linted:
    path = down.path or migration.path
    if not migration.reversible:
        nothing = Script(down.text, (), replay.schema, replay.schema, None)
        return _Linted(migration, path, nothing, [("M018", None, "the rollback script holds nothing but comments")])
    other = replay.copy()
    try:
        script = other.run(
            down.text,
            id=migration.id,
            path=path,
            transactional=down.transactional,
            foreign_keys=down.foreign_keys,
        )
        subject = Subject(
            script=script,
            origin=applied.before,
            allows=down.allows,
            is_rollback=True,
            transactional=down.transactional,
        )
        problems = list(_problems(subject, other, outcome, number))
    finally:
        other.close()
    left = [] if script.failure or applied.failure else list(_left(applied.before, script.after))
    if left:
        problems.append(("M019", None, "after the rollback " + listed(left)))
    return _Linted(migration, path, script, problems, subject)


def _together(linted: Sequence[_Linted]) -> Iterator[tuple[_Linted, Subject, Sequence[Subject]]]:
    """Yield each script, with those that a run may apply in one transaction with it; a rollback alone."""
    batch: list[Subject] = []
    found: list[tuple[_Linted, Subject, Sequence[Subject]]] = []
    for one in linted:
        if one.subject is None:
            continue
        alone = not one.migration.up.transactional or one.migration.up.foreign_keys
        if one.subject.is_rollback or alone:
            found.append((one, one.subject, [one.subject]))
            batch = [] if alone else batch
        else:
            batch.append(one.subject)
            found.append((one, one.subject, batch))
    yield from found


def _problems(subject: Subject, replay: Replay, outcome: Outcome, number: int) -> Iterator[Problem]:
    failure = subject.script.failure
    if failure is not None:
        yield "M001", failure.statement, failure.message
    yield from statement_problems(subject)
    yield from outcome.problems(subject, replay, number)


def _left(before: Schema, after: Schema) -> Iterator[str]:
    """Say what a rollback did not bring back, and what it left."""
    for name in sorted(before.tables.keys() | after.tables.keys()):
        old, new = before.tables.get(name), after.tables.get(name)
        if old is new:
            continue
        if old is None or new is None:
            yield f"the table {name} is {'missing' if new is None else 'still there'}"
            continue
        columns = [{attrs.evolve(column, name=column.name.lower()) for column in table.columns} for table in (old, new)]
        changed = sorted({column.name for column in columns[0] ^ columns[1]})
        if changed:
            yield f"the table {name} differs in {listed(changed)}"
    for type, name in sorted(before.objects.keys() ^ after.objects.keys()):
        item = before.objects.get((type, name)) or after.objects[type, name]
        # it went, or stayed, with its table
        if type == "view" or all(
            item.table.lower() in schema.tables or ("view", item.table.lower()) in schema.objects
            for schema in (before, after)
        ):
            yield f"the {type} {name} is {'missing' if (type, name) in before.objects else 'still there'}"


def _collisions(linted: Sequence[_Linted]) -> Iterator[tuple[_Linted, str]]:
    first: dict[tuple[int, ...], str] = {}
    for one in linted:
        id = one.migration.id
        without_number, number, _ = sort_key(id)
        if without_number or one.path != one.migration.path:
            continue
        if first.setdefault(number, id) != id:
            yield one, f"{id} has the same number as {first[number]}"


# ---------------------------------------------------------------- findings


def _findings(one: _Linted) -> list[Finding]:
    silences = read_silences(one.script.text, one.script.statements)
    found: list[Finding] = []
    for code, statement, message in one.problems:
        # one for the statement comes before one for the script
        nearest = sorted(silences, key=lambda silence: silence.statement is None)
        silence = next((silence for silence in nearest if silence.covers(code, statement)), None)
        if silence is not None:
            silence.used = True
        found.append(_finding(one, code, _line(one, code, statement), message, silence.reason if silence else None))
    for silence in silences:
        found += [_finding(one, "M903", silence.line, f"{name!r} is not a rule") for name in silence.unknown]
        if silence.rules and not silence.reason:
            found.append(_finding(one, "M901", silence.line, "a finding is silenced without a reason, so it is not"))
        elif silence.rules and not silence.used and one.script.failure is None:
            codes = listed([rule.code for rule in silence.rules])
            found.append(_finding(one, "M902", silence.line, f"there is no {codes} here to silence"))
    return sorted(found, key=lambda finding: (finding.line, finding.code))


def _line(one: _Linted, code: str, statement: Statement | None) -> int:
    if code == "M001" and one.script.failure is not None:
        return one.script.failure.line
    return 1 if statement is None else statement.line


def _finding(one: _Linted, code: str, line: int, message: str, silenced: str | None = None) -> Finding:
    rule = by_code[code]
    return Finding(
        code=code,
        name=rule.name,
        severity=rule.severity,
        migration=one.migration.id,
        path=one.path,
        line=line,
        message=message,
        remedy=rule.remedy,
        silenced=silenced,
    )
