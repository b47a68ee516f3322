"""The round trip of a rehearsal: the migrations that were applied are undone, the latest first, and applied again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.rehearsal.findings import Rehearsed, RoundTrip
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Result, Step
from dao.migrate.verification.round_trip import Differences, Law, State, TripFailure, down_and_up

__all__ = ["round_trip"]

_VERBS = {"rollback": "the rollback", "apply": "applying it again"}
_DIFFERS = {
    "rollback": "the rollback does not give back what was there before",
    "apply": "applying it again gives something else than the first time",
}


def round_trip(
    applied: Sequence[Migration],
    rehearsed: Sequence[Rehearsed],
    states: Sequence[State],
    run: Callable[[Step], tuple[Result, State]],
) -> RoundTrip:
    """Undo migrations that were applied and apply them again, each in a run of its own with all checks.

    `states` has the database before the first of them, and after each; `run` returns what a step did, and the database
    after it. A declared loss is no difference.
    """
    failures: list[TripFailure] = []
    law = Law()
    for migration, one in zip(applied, rehearsed, strict=True):
        law.excuse(loss for loss in one.losses if loss.is_declared(migration.allows))

    def goes(step: Step) -> State | None:
        try:
            result, state = run(step)
        except (MigrationFailed, CheckFailed) as error:
            error.committed = None  # nothing of it stays
            failures.append(TripFailure(step.id, step.direction, f"{_VERBS[step.direction]} fails: {error}"))
            return None
        law.excuse(loss for loss in result.losses if loss.is_declared(step.migration.allows))
        return state

    def differs(step: Step, found: Differences) -> None:
        lines = (*found.schema, *(f"rows of {rows}" for rows in found.rows))
        if lines:
            failures.append(TripFailure(step.id, step.direction, _DIFFERS[step.direction], lines))

    undone, again = down_and_up(applied, states, law, goes, differs)
    return RoundTrip(
        undone=tuple(migration.id for migration in undone),
        applied_again=tuple(migration.id for migration in again),
        irreversible=tuple(migration.id for migration in applied if not migration.reversible),
        failures=tuple(failures),
    )
