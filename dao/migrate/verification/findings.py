"""The findings about one migration on one stage, whichever engine it runs on, and which losses are allowed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import attrs

from dao.migrate.schema.model import Schema
from dao.migrate.schema.names import fold
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Step
from dao.migrate.verification.fixtures import Fixtures
from dao.migrate.verification.round_trip import Differences, Law, State, TripFailure, down_and_up

__all__ = ["BROUGHT", "Findings", "Stage", "Turn", "Verification", "advise", "not_reached", "up_to_last"]

#: Why a table holds no generated rows when the script runs.
BROUGHT = "its constraints leave room for the rows that the script brings, but not for others beside them"
_ADVICE = (
    "The rows that it met are generated. Where there can be none like them, give rows of your own, as INSERT "
    "statements in a file: `dao verify --fixtures FILE`"
)

#: Where a migration was tried: on an empty database, on one whose tables hold generated rows, on a copy of a real one.
Stage = Literal["empty", "generated rows", "copy"]
#: Is told whose turn has come, on which stage: so many of a total.
Turn = Callable[[Migration, Stage, int, int], object]


@attrs.frozen(kw_only=True)
class Verification:
    """The result of one migration on one stage.

    `problems` are texts, of one line or several. `warnings` may be meant: the migration is irreversible, its rollback
    refuses rows that were written since, or leaves a `user_version`. `losses` are the data that its scripts lose: those
    that are declared, and those that the rollback drops because the migration made them. `unfilled` are the tables
    for which no rows could be generated, with the reason. One that comes after a failure is not `tried`, which is a
    problem too. `seconds` is how long it took. `set` is that of the migration.
    """

    id: str
    stage: Stage
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    unfilled: dict[str, str] = attrs.Factory(dict)
    reversible: bool = True
    tried: bool = True
    seconds: float = 0.0
    set: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def up_to_last(migrations: Sequence[Migration], chosen: Collection[str]) -> Sequence[Migration]:
    """Return the migrations up to the last that is chosen: nothing is to be found after it."""
    return migrations[: max((place for place, one in enumerate(migrations, 1) if one.id in chosen), default=0)]


def not_reached(
    migrations: Sequence[Migration], chosen: Collection[str], failed: Migration, stage: Stage
) -> Iterator[Verification]:
    """Yield the results of those of the chosen migrations that come after one that fails."""
    problem = f"not tried: {failed.id} comes before it here, and fails"
    for one in migrations:
        if one.id in chosen:
            yield Verification(
                id=one.id, set=one.set, stage=stage, problems=(problem,), reversible=one.reversible, tried=False
            )


class Findings:
    """Collects what shows while a migration is tried on one stage."""

    def __init__(self, migration: Migration, stage: Stage) -> None:
        self.migration, self.stage = migration, stage
        self.up, self.down = (Step(migration=migration, direction=one) for one in ("apply", "rollback"))
        self.problems: list[TripFailure] = []
        self.warnings: list[str] = []
        self.losses: list[str] = []
        self.unfilled: dict[str, str] = {}
        self.law = Law()
        self._begun = time.perf_counter()

    def end(self) -> Verification:
        """Return what was found, each thing once."""
        return Verification(
            id=self.migration.id,
            set=self.migration.set,
            stage=self.stage,
            problems=tuple(dict.fromkeys(map(str, self.problems))),
            warnings=tuple(dict.fromkeys(self.warnings)),
            losses=tuple(dict.fromkeys(self.losses)),
            unfilled=self.unfilled,
            reversible=self.migration.reversible,
            seconds=time.perf_counter() - self._begun,
        )

    def repeat(self, other: Findings) -> None:
        """Note what another trial of the migration has found."""
        self.problems += other.problems
        self.warnings += other.warnings
        self.losses += other.losses

    def trip(self, states: Sequence[State | None], run: Callable[[Step], State | None]) -> tuple[bool, bool]:
        """Go `round_trip.down_and_up`; return whether the migration was undone, and whether it was applied again."""
        if not self.migration.reversible:
            which = "no" if self.migration.down is None else "an empty"
            self.warnings.append(f"irreversible: it has {which} rollback script")
        undone, again = down_and_up([self.migration], states, self.law, run, self.differs)
        return bool(undone), bool(again)

    def note_losses(self, step: Step, losses: Sequence[Loss], before: Schema, *, excuses_all: bool = False) -> None:
        """Note the losses of a script: each must be declared in it, or be of something that the migration made.

        `before` is the schema without the migration. Data whose loss is declared need not come back; with
        `excuses_all`, no lost data need.
        """
        script = step.script
        for loss in losses:
            is_declared = loss.is_declared(script.allows)
            is_made = step.direction == "rollback" and not _has(before, loss.table, loss.column)
            if not is_declared and not is_made:
                name = script.path.name if script.path else step.id
                mend = f"Mend it, or write `{loss.declaration}` at the top of {name}"
                self.fails(step, f"{step.direction} loses data without saying so: {loss}", mend)
                continue
            self.losses.append(f"{step.direction}: {loss}")
            # the migration makes again what it made, but not what was written to it since
            if is_declared or excuses_all:
                self.law.excuse([loss])

    def fails(self, step: Step, message: str, *differences: str) -> None:
        """Note a problem."""
        self.problems.append(TripFailure(step.id, step.direction, message, differences))

    def differs(self, step: Step, found: Differences, when: str | None = None) -> None:
        """Note how the database differs from what it should be after a step."""
        when = when or ("after the rollback" if step.direction == "rollback" else "after the second apply")
        if found.schema:
            self.fails(step, f"the schema {when} is another", *found.schema)
        for rows in found.rows:
            self.fails(step, f"rows {when} are others", *str(rows).split("\n"))
        for name, (expected, actual) in found.header.items():
            self.warnings.append(f"PRAGMA {name} is {actual} {when}, expected {expected}")


def _has(schema: Schema, table: str, column: str | None) -> bool:
    """Return whether there is a table, or a column of it."""
    of = (one for one in schema.objects.values() if one.type in {"table", "virtual table"})
    one = next((one for one in of if _plain(one.name) == _plain(table)), None)
    if one is None or column is None:
        return one is not None
    return any(item.family == "column" and _plain(item.key or "") == _plain(column) for item in one.items)


def _plain(name: str) -> str:
    """Return a name as it can be compared: a schema has them in quotes on PostgreSQL, and losses have not."""
    return fold(name).replace('"', "")


def advise(found: Findings, fixtures: Fixtures | None) -> None:
    """Say beside the latest problem, which generated rows may have made, what to do about it."""
    refused = fixtures.refused if fixtures else []
    lines = [f"That of line {line} does not fit here: {why}" for line, why in refused]
    found.problems[-1] = attrs.evolve(found.problems[-1], differences=(_ADVICE, *lines))
