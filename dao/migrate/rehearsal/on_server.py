"""The rehearsal on PostgreSQL: in the database itself, in a transaction that is rolled back.

No command can copy a database beside a server. What a transaction does is undone by the server, whole, so the real
runner runs in one, and nobody else sees anything of it; but it takes the locks of a run, and keeps them to the end.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import attrs

from dao.engine import execute, transaction
from dao.engine.postgresql import Connection
from dao.errors import CheckFailed, DatabaseBusy, MigrationFailed
from dao.migrate.database import Target, in_line, name_of
from dao.migrate.events import Event, Finished, Notice, Report, Started
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger import unnoted
from dao.migrate.ledger.entries import Ledger
from dao.migrate.rehearsal.findings import Failure, Held, Rehearsal, Rehearsed, RoundTrip
from dao.migrate.rehearsal.first_keys import FirstKeys
from dao.migrate.rehearsal.observation import Effect, Inventory, Table
from dao.migrate.rehearsal.trip import round_trip
from dao.migrate.run.postgresql import holdings
from dao.migrate.run.postgresql.names import names_in
from dao.migrate.run.runner import run
from dao.migrate.schema.model import Schema
from dao.migrate.schema.names import fold
from dao.migrate.schema.postgresql import reader, traces
from dao.migrate.schema.postgresql.traces import Relation
from dao.migrate.scripts.directives import Allowance
from dao.migrate.scripts.migration import Migration, Script
from dao.migrate.scripts.postgresql import Statement, Token, split
from dao.migrate.values import Drifted, Result, Step
from dao.migrate.verification.observer import Observer
from dao.migrate.verification.round_trip import State
from dao.text import counted

__all__ = ["rehearse"]

#: Others wait behind a statement that waits for a lock: it gives up after so many seconds.
_LOCK_TIMEOUT = 1.0
#: The functions, by how their names begin, that reach outside of the transaction.
_ELSEWHERE = ("dblink", "lo_export", "pg_file_", "pg_terminate_backend", "pg_cancel_backend", "pg_logical_emit_message")


class _RolledBack(Exception):
    """Ends the transaction of a rehearsal."""


def rehearse(
    target: Target,
    files: Sequence[Migration],
    decide: Callable[[Ledger], Sequence[Step]],
    allowed: Allowance,
    allow_broken: Collection[str],
    report: Report,
    *,
    lock_timeout: float | None,
    with_round_trip: bool,
) -> Rehearsal:
    """As `dao.migrate.rehearse`, for a database on a server: the steps that `decide` names, by its ledger."""
    patience = _LOCK_TIMEOUT if lock_timeout is None else lock_timeout
    found = Rehearsal(database=name_of(target), in_memory=False, in_place=True)
    with in_line(target, patience, report) as (lock, connection):
        state = ledger.read(connection)
        todo = decide(state)
        if not todo:
            return found
        lock.take()
        unnoted.refuse(connection, [step.migration for step in todo], state)
        trial = _Trial(connection, files, todo, allowed, allow_broken, report)
        try:
            with transaction(connection):
                execute(connection, f"SET LOCAL lock_timeout = {max(1, int(patience * 1000))}")
                rehearsed = trial.rehearse(observed=with_round_trip)
                trip = trial.round_trip(rehearsed) if with_round_trip else None
                raise _RolledBack
        except _RolledBack:
            pass
        except DatabaseBusy as error:
            error.advice = (
                f"A rehearsal waits for {patience:g} s, as others wait behind it; --lock-timeout waits longer"
            )
            raise
    return attrs.evolve(
        found,
        migrations=rehearsed,
        round_trip=trip,
        not_reached=tuple(step.id for step in todo[len(rehearsed) :]),
        lock_seconds=max((lock.seconds for one in rehearsed for lock in one.locks), default=0.0),
    )


@attrs.define
class _Trial:
    """The pending migrations in the transaction that is open."""

    connection: Connection
    files: Sequence[Migration]
    todo: Sequence[Step]
    allowed: Allowance
    allow_broken: Collection[str]
    report: Report
    #: What a look has found after each script that came to its end.
    _seen: dict[str, Rehearsed] = attrs.field(init=False, factory=dict)
    _notices: dict[str, list[str]] = attrs.field(init=False, factory=dict)
    #: The locks by the step that took them: on what, in which mode, from which moment on.
    _locks: dict[str, list[tuple[str, str, float]]] = attrs.field(init=False, factory=dict)
    _strongest: dict[int, str] = attrs.field(init=False, factory=dict)
    #: The step that is running, and what was there before it.
    _step: Step = attrs.field(init=False)
    _before: _Look = attrs.field(init=False)
    _keys: FirstKeys = attrs.field(init=False)
    _known: Mapping[int, Relation] = attrs.field(init=False)
    _begun: float = attrs.field(init=False, default=0.0)
    _observer: Observer = attrs.field(init=False)
    #: The database before the first step and after each, if there is to be a round trip.
    _states: list[State] = attrs.field(init=False, factory=list)
    #: Seconds that looking has taken, which is no part of a run.
    _looking: float = attrs.field(init=False, default=0.0)

    def rehearse(self, *, observed: bool) -> tuple[Rehearsed, ...]:
        """Run what can be run, and return what it did, up to the first that fails; note each state if `observed`."""
        self._known = traces.relations(self.connection)
        self._observer = Observer(self.connection)
        if observed:
            self._states.append(self._observer.look())
        why = {step.id: _in_the_way(step.script) for step in self.todo}
        steps = [step for step in self.todo if why[step.id] is None]
        failure, results = self._run(steps) if steps else (None, {})
        end = self._clock()
        found = []
        for step in self.todo:
            if (reason := why[step.id]) is not None:
                found.append(attrs.evolve(Rehearsed.of(step), tried=False, why=reason))
            elif failure is not None and step.id not in self._seen:
                found.append(attrs.evolve(Rehearsed.of(step), failure=failure, notices=self._said(step, found)))
                break
            else:
                found.append(self._finding(step, results[step.id], end))
        return tuple(found)

    def _run(self, steps: Sequence[Step]) -> tuple[Failure | None, dict[str, Result]]:
        """Run steps as a run does; if one fails, those before it once more, to hear what they lose."""
        failure = None
        try:
            with transaction(self.connection):
                results = self._run_once(steps, self._hear)
        except (MigrationFailed, CheckFailed) as error:
            error.committed = None  # nothing ever is
            if isinstance(error, MigrationFailed):
                unnoted.explain(error, self.connection, self.files)
            failure = Failure.of(error)
            before = list(itertools.takewhile(lambda step: step.id in self._seen, steps))
            results = self._run_once(before, lambda _event: None) if before else []
        return failure, {result.id: result for result in results}

    def _run_once(self, steps: Sequence[Step], report: Report) -> list[Result]:
        """Run steps, and by themselves those that a run commits together: what it has committed can be lost."""
        commits = itertools.accumulate(not step.script.transactional for step in self.todo)
        batch = {step.id: number for step, number in zip(self.todo, commits, strict=True)}
        results: list[Result] = []
        for _, together in itertools.groupby(steps, key=lambda step: batch[step.id]):
            results += self._run_together(list(together), report)
            # what the ledger took is no script's
            self._strongest.update(traces.locks(self.connection))
        return results

    def _run_together(self, steps: Sequence[Step], report: Report) -> list[Result]:
        return run(
            self.connection,
            self.files,
            lambda _ledger: steps,
            allow_data_loss=True,
            allow_broken=self.allow_broken,
            report=report,
        )

    def round_trip(self, rehearsed: Sequence[Rehearsed]) -> RoundTrip:
        """Undo what was applied and apply it again, in the same transaction."""
        done = [one for one in rehearsed if one.tried and one.failure is None]
        applied = [step.migration for step in self.todo if step.id in {one.id for one in done}]

        def goes(step: Step) -> tuple[Result, State]:
            with transaction(self.connection):
                (result,) = run(
                    self.connection,
                    self.files,
                    lambda _ledger: [step],
                    allow_data_loss=step.direction == "apply",
                    allow_broken=self.allow_broken,
                    report=self._pass_on,
                )
            return result, self._observer.look()

        return round_trip(applied, done, self._states[: len(done) + 1], goes)

    # ------------------------------------------------------------ looking

    def _clock(self) -> float:
        return time.perf_counter() - self._looking

    def _pass_on(self, event: Event) -> None:
        if not isinstance(event, Drifted):  # it may be of this transaction
            self.report(event)

    def _hear(self, event: Event) -> None:
        begun = time.perf_counter()
        match event:
            case Started(step):
                self._step = step
                self._before = _Look.at(self.connection, step)
                self._keys = FirstKeys.of(self.connection, step.script, self._before.tables)
            case Notice(step, text):
                self._notices.setdefault(step.id, []).append(text)
            case Finished(result):
                self._look(result)
        self._pass_on(event)
        self._looking += time.perf_counter() - begun
        if isinstance(event, Started):
            self._begun = self._clock()

    def _look(self, result: Result) -> None:
        """Look at what a script has done."""
        taken = self._locks.setdefault(result.id, [])
        lasting = []
        for id, mode in traces.locks(self.connection).items():
            if id in self._known and traces.is_stronger(mode, self._strongest.get(id)):
                self._strongest[id] = mode
                if mode in traces.MODES:
                    taken.append((self._known[id].name, mode, self._begun))
                elif self._known[id].is_sequence and mode == traces.DRAWN:
                    lasting.append(f"the numbers that {self._known[id].name} gave are not given again")
        now = _Look.at(self.connection)
        for id, number in now.versions.items():
            more = number - self._before.versions.get(id, 0)
            if id in self._known and id in now.tables and more:
                what = counted(more, "dead row")
                lasting.append(f"{now.tables[id].name} is left with {what} that VACUUM has to remove")
        if self._states:
            self._states.append(self._observer.look())
        effect = _effect(self.connection, self._before, now)
        found = effect.noted_in(Rehearsed.of(self._step), result)
        gone = tuple(self._keys.gone(effect, now.tables))
        self._seen[result.id] = attrs.evolve(found, gone=gone, lasting=tuple(lasting))

    # ------------------------------------------------------------ findings

    def _finding(self, step: Step, result: Result, end: float) -> Rehearsed:
        return attrs.evolve(
            self._seen[step.id],
            notices=self._said(step, ()),
            losses=result.losses,
            undeclared=tuple(loss for loss in result.losses if not loss.is_declared(step.script.allows | self.allowed)),
            locks=tuple(
                Held(name, mode, traces.MODES[mode], end - since)
                for name, mode, since in sorted(self._locks.get(step.id, ()))
            ),
        )

    def _said(self, step: Step, before: Sequence[Rehearsed]) -> tuple[str, ...]:
        missed = [f"{one.id} comes before it, and was not tried" for one in before if not one.tried]
        return (*self._notices.get(step.id, ()), *missed)


# ---------------------------------------------------------------- what no rollback undoes


def _in_the_way(script: Script) -> str | None:
    """Return why a script cannot be tried in a transaction that is rolled back; None if it can, as far as it says."""
    if not script.transactional:
        return "it runs outside of a transaction, and so would stay"
    for statement in split(script.text):
        if found := _reaches(statement):
            line = script.text.count("\n", 0, statement.begin) + 1
            return f"line {line}: {found} reaches outside of the transaction, and no rollback undoes that"
    return None


def _reaches(statement: Statement) -> str | None:
    words = [token.text for token in statement.tokens if token.kind in {"word", "name"}]
    if statement.first == "copy" and (Token("word", "program") in statement.tokens or "to" in words):
        return "COPY to a file or a program"
    return next((f"{word}()" for word in words if word.startswith(_ELSEWHERE)), None)


# ---------------------------------------------------------------- the effect of a script


@attrs.frozen
class _Look:
    """What there is at a moment: tables by their number, what this transaction has written to each, the schema.

    `rows` is how many rows some tables have.
    """

    tables: Mapping[int, holdings.Table]
    counters: Mapping[int, tuple[int, int]]
    versions: Mapping[int, int]
    schema: Schema
    rows: Mapping[int, int]

    @classmethod
    def at(cls, connection: Connection, step: Step | None = None) -> _Look:
        """Look; before a step, count what its script may drop or empty."""
        tables = holdings.tables(connection)
        named = frozenset[str]() if step is None else _named(step)
        return cls(
            tables,
            holdings.counters(connection),
            traces.row_versions(connection),
            reader.read(connection),
            {id: holdings.row_count(connection, table) for id, table in tables.items() if table.table in named},
        )


def _named(step: Step) -> frozenset[str]:
    return frozenset().union(
        *(names_in(statement) for statement in split(step.script.text) if statement.first in {"drop", "truncate", "do"})
    )


def _effect(connection: Connection, before: _Look, now: _Look) -> Effect:
    """Return the effect of a script; only tables that it touched are counted."""
    was: dict[str, Table] = {}
    there: dict[str, Table] = {}
    for id, table in before.tables.items():
        was[fold(table.name)] = Table(table.name, id, before.rows.get(id), {})
    for id, table in now.tables.items():
        came_before, gone_before = before.counters.get(id, (0, 0))
        came, gone = now.counters.get(id, (0, 0))
        came, gone = came - came_before, gone - gone_before
        key = fold(table.name)
        old = before.tables.get(id)
        if old is not None and not came and not gone and old.name == table.name and old.file == table.file:
            there[key] = Table(table.name, id, before.rows.get(id), {})
            continue
        rows = holdings.row_count(connection, table)
        there[key] = Table(table.name, id, rows, {})
        if old is not None and id not in before.rows:
            name = fold(old.name)
            was[name] = Table(old.name, id, rows - came + gone, {})
    dropped = frozenset(fold(table.name) for id, table in before.tables.items() if id not in now.tables)
    return Effect(Inventory(was, before.schema, {}), Inventory(there, now.schema, {}), dropped, by_number=True)
