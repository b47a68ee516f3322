"""Looks for what may go wrong with migrations before they meet a database: `dao lint`.

Every script is replayed in an empty database in memory. Those that are judged go statement by statement, and SQLite's
own compiler says what each one does. `rules` has the rules; `statements`, `outcome` and `losses` find what breaks them;
here the findings meet the comments and the baseline that let them be.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

import attrs

from dao.migrate.database import Target
from dao.migrate.ledger.selection import select
from dao.migrate.linting.baseline import marked
from dao.migrate.linting.finding import Finding, finding
from dao.migrate.linting.losses import loss_problems
from dao.migrate.linting.outcome import Outcome, find_orphans
from dao.migrate.linting.replay import Replay
from dao.migrate.linting.schema import Schema, alike
from dao.migrate.linting.silences import read as read_silences
from dao.migrate.linting.statements import statement_problems
from dao.migrate.linting.subject import Judged, Subject, listed
from dao.migrate.run.parts import parts
from dao.migrate.schema.names import fold
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.schema.tokens import tokens
from dao.migrate.scripts.ids import sort_key
from dao.migrate.scripts.load import Source, loaded
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step

__all__ = ["LintResult", "lint"]


@attrs.frozen(kw_only=True)
class LintResult:
    """The findings, in the order of the migrations, then by line, and which of the `total` migrations were judged.

    `selection` says in words which those are. `failed` are migrations that were not judged, and fail in an empty
    database: what comes after them was judged as if they had ended there.
    """

    findings: tuple[Finding, ...]
    judged: tuple[str, ...]
    total: int
    selection: str
    failed: tuple[str, ...] = ()


def lint(
    migrations: Source = None,
    *,
    engine: str = "sqlite",
    set: str | None = None,
    since: str | None = None,
    latest: int | None = None,
    database: Target | None = None,
    git_base: str | None = None,
    baseline: str | os.PathLike[str] | None = None,
    prepare: Prepare | None = None,
) -> LintResult:
    """Return what the rules hold against migrations. Changes nothing, and needs no database.

    All are judged, unless one of four arguments says which: those after `since` (an id, or what begins only one), the
    `latest` so many, those that `database` has not applied, or not as they are now, or those that the branch or commit
    `git_base` does not have, or not as they are now. The others count as applied long ago; they are replayed, too.

    Of several sets all are replayed, in their order, and with `set` those of one are judged.

    For the `engine` "sqlite" it runs the scripts in memory, so it takes as long as they do in an empty database. A
    script that fails is a finding, and what comes after it is judged as far as it goes without it. For "postgresql" it
    reads them, and says what they do to tables that are in use; whether they run is for `verify` to see. Silenced
    findings are among the results, and so are those that the file `baseline` has.

    `prepare` is as in `apply`.

    Raises:
        MigrationFileError: A file is not what it should be, so that there is no migration to look at, or no baseline.
        MigrationError: `since` is no migration, git does not know `git_base`, or the baseline cannot be read.
        OperationalError: The database cannot be read.
        InvalidValue: `latest` is below 1, or more than one of the four is given.
    """
    files = loaded(migrations, engine)
    with preparing(prepare):
        chosen = select(files, set=set, since=since, latest=latest, database=database, git_base=git_base)
    judged = frozenset(chosen.ids)
    failed: list[str] = []
    found: list[Finding]
    if engine == "postgresql":
        from dao.migrate.linting import postgresql  # noqa: PLC0415 - what it stands on knows the driver

        read = postgresql.judged_scripts(files, judged)
        _find_collisions(files, {one.step.id: one for one in read if one.step.direction == "apply"})
        found = [one for subject in read for one in _findings(subject)]
    else:
        found = _replayed(files, judged, failed, prepare)
    if baseline is not None:
        found = marked(found, baseline, {migration.id for migration in files}, judged)
    return LintResult(
        findings=tuple(found), judged=chosen.ids, total=len(files), selection=chosen.words, failed=tuple(failed)
    )


def _replayed(
    files: Sequence[Migration], judged: frozenset[str], failed: list[str], prepare: Prepare | None
) -> list[Finding]:
    """Return the findings about scripts for SQLite, which are replayed; note those that are not judged, and fail."""
    pairs: list[list[Subject]] = []
    with preparing(prepare), contextlib.closing(Replay()) as replay:
        outcome = Outcome()
        for migration in files:
            if migration.id in judged:
                pairs.append(_replay_pair(migration, replay, outcome))
            elif not replay.run_unseen(Step(migration=migration, direction="apply")):
                failed.append(migration.id)
        replay.look_again()
        outcome.catch_up(replay.schema, replay.connection)
    subjects = [subject for pair in pairs for subject in pair]
    applied = [up for up, *_ in pairs]
    if not failed and not any(subject.failure for subject in subjects):
        find_orphans(applied, replay.schema)
    _find_losses(files, {up.step.id: up for up in applied})
    for subject in subjects:
        if subject.is_rollback:
            subject.problems += loss_problems(subject, [subject])
    _find_collisions(files, {up.step.id: up for up in applied})
    return [one for subject in subjects for one in _findings(subject, outcome)]


# ---------------------------------------------------------------- one pair


def _replay_pair(migration: Migration, replay: Replay, outcome: Outcome) -> list[Subject]:
    """Return both scripts of a pair with their problems, and leave the replay after the first."""
    replay.look_again()
    outcome.catch_up(replay.schema, replay.connection)
    up = replay.run(Step(migration=migration, direction="apply"))
    _look(up, replay, outcome)
    if not up.statements:
        up.problems.append(("M027", None, "the script holds nothing but comments"))
    if migration.down is None:
        if up.statements:
            up.problems.append(("M017", None, f"{migration.id} has no rollback script"))
        return [up]
    rollback = Step(migration=migration, direction="rollback")
    if not migration.reversible:
        down = Subject(step=rollback, origin=up.before, before=up.after, after=up.after)
        if up.statements:
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
    gone = {key: before.objects[key] for key in sorted(before.objects.keys() - after.objects.keys())}
    came = {key: after.objects[key] for key in sorted(after.objects.keys() - before.objects.keys())}
    for key, item in [*gone.items()]:
        if (twin := next((one for one, other in came.items() if alike(item, other)), None)) is not None:
            del gone[key], came[twin]
            yield f"the {item.type} {key[1]} is named {twin[1]}"
    for key, item in (gone | came).items():
        # it went, or stayed, with its table
        if item.type == "view" or all(
            schema.find("table", fold(item.table)) or schema.find("view", fold(item.table))
            for schema in (before, after)
        ):
            yield f"the {item.type} {key[1]} is {'missing' if key in gone else 'still there'}"


# ---------------------------------------------------------------- all of them


def _find_losses(migrations: Sequence[Migration], applied: Mapping[str, Subject]) -> None:
    """Add what is lost to the problems of the scripts, which a run may hold together if they follow one another."""
    for part in parts([Step(migration=migration, direction="apply") for migration in migrations]):
        for is_judged, steps in itertools.groupby(part.steps, lambda step: step.id in applied):
            together = [applied[step.id] for step in steps] if is_judged else []
            for up in together:
                up.problems += loss_problems(up, together)


def _find_collisions(migrations: Sequence[Migration], applied: Mapping[str, Judged]) -> None:
    first: dict[tuple[str | None, tuple[int, ...]], str] = {}
    # one that is not judged is the older one
    for id, set in sorted(((one.id, one.set) for one in migrations), key=lambda one: one[0] in applied):
        without_number, number, _ = sort_key(id)
        if not without_number and first.setdefault((set, number), id) != id and id in applied:
            applied[id].problems.append(("M020", None, f"{id} has the same number as {first[set, number]}"))


# ---------------------------------------------------------------- findings


def _findings(subject: Judged, outcome: Outcome | None = None) -> list[Finding]:
    """Return the problems of a script that are left at the end as findings, by line, with those of its silences."""
    text, path = subject.script.text, subject.script.path or subject.step.migration.path
    silences = read_silences(text, subject.statements)
    # one for the statement comes before one for the script
    nearest = sorted(silences, key=lambda silence: silence.statement is None)
    found: list[Finding] = []

    def add(code: str, line: int, message: str, about: str = "", silenced: str | None = None) -> None:
        about = f"{subject.step.direction} {about}"
        found.append(finding(code, subject.step.id, path, line, message, about=about, silenced=silenced))

    for problem in subject.problems:
        code, statement, message = problem
        silence = next((silence for silence in nearest if silence.covers(code, statement)), None)
        if silence is not None:
            silence.used = True
        if outcome is not None and outcome.is_mended(problem):
            continue
        line = text.count("\n", 0, statement.begin) + 1 if statement else 1
        if code == "M001" and subject.failure is not None:
            line = subject.failure.line
        about = text[statement.begin : statement.end] if statement else ""
        if code == "M019":  # both scripts make what the rollback leaves
            pair = [script for script in (subject.step.migration.up, subject.step.migration.down) if script]
            about = " ".join(token.value for script in pair for token in tokens(script.text))
        add(code, line, message, about, silence.reason if silence else None)
    for silence in silences:
        for name in silence.unknown:
            add("M903", silence.line, f"{name!r} is not a rule", name)
        codes = listed([rule.code for rule in silence.rules])
        if silence.rules and not silence.reason:
            add("M901", silence.line, "a finding is silenced without a reason, so it is not", codes)
        elif silence.rules and not silence.used and subject.failure is None:
            add("M902", silence.line, f"there is no {codes} here to silence", codes)
    return sorted(found, key=lambda finding: (finding.line, finding.code))
