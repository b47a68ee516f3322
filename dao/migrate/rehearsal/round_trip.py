"""The round trip of a rehearsal: what was applied to the copy is undone, the latest first, and applied again.

After each script, schema and rows are compared with what they were at that point on the way up, by hashes: no further
copy of the database is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from dao.engine import Connection
from dao.errors import CheckFailed, MigrationFailed
from dao.migrate.copies import rows as contents
from dao.migrate.copies.working_copy import WorkingCopy
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.plan import to_roll_back
from dao.migrate.rehearsal.findings import RoundTrip, TripFailure
from dao.migrate.run.runner import run
from dao.migrate.schema import replay as schema
from dao.migrate.schema.model import Schema
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Committed, Event, Result, Step
from dao.text import counted

__all__ = ["Content", "content", "there_and_back"]


@attrs.frozen
class Content:
    """What a database holds at a moment: its schema, and a hash of each table's rows, by name in lower case."""

    schema: Schema
    tables: dict[str, contents.Content]


def content(connection: Connection) -> Content:
    """Return what there is, without the ledger. Reads all rows."""
    found = contents.contents(connection, inside=False)
    return Content(schema.read(connection), {name.lower(): held for name, held in found.items()})


def there_and_back(
    copy: WorkingCopy,
    files: Sequence[Migration],
    applied: Sequence[Step],
    expected: Sequence[Content],
    tell: Callable[[Event], object],
) -> RoundTrip:
    """Undo the steps that were applied to the copy and apply them again, each in a run of its own with all checks.

    `expected` has what there was before the first of them, and after each. What a script loses by its declaration is no
    difference. The way down ends at the first that is irreversible or fails, and the way up begins there.
    """
    trip = _Trip(copy, files, tell)
    undone: list[Step] = []
    again: list[str] = []
    for place in reversed(range(len(applied))):
        step = applied[place]
        if not step.migration.reversible:
            break
        if not trip.down(step):
            break
        undone.insert(0, step)
        trip.compare(step, "rollback", expected[place], content(copy))
    for place, step in enumerate(applied):
        if step in undone:
            if not trip.up(step):
                break
            again.append(step.id)
            trip.compare(step, "apply", expected[place + 1], content(copy))
    return RoundTrip(
        undone=tuple(step.id for step in reversed(undone)),
        applied_again=tuple(again),
        irreversible=tuple(step.id for step in applied if not step.migration.reversible),
        failures=tuple(trip.failures),
    )


class _Trip:
    def __init__(self, copy: WorkingCopy, files: Sequence[Migration], tell: Callable[[Event], object]) -> None:
        self.copy = copy
        self.files = files
        self.tell = tell
        self.failures: list[TripFailure] = []
        #: Tables whose rows differ for a reason that is known already, and differences that were told.
        self.excused: set[str] = set()
        self.told: set[str] = set()

    def down(self, step: Step) -> bool:
        """Undo a migration; return whether that went well."""

        def decide(state: Ledger) -> list[Step]:
            return to_roll_back(self.files, state, steps=1, allow_out_of_order=True)

        return self._run(step, "rollback", decide, allow_data_loss=False)

    def up(self, step: Step) -> bool:
        """Apply it again; return whether that went well."""
        return self._run(step, "apply", lambda _state: [step], allow_data_loss=True)

    def _run(
        self, step: Step, direction: str, decide: Callable[[Ledger], Sequence[Step]], *, allow_data_loss: bool
    ) -> bool:
        self.copy.seed()
        try:
            (result,) = run(self.copy, self.files, decide, allow_data_loss=allow_data_loss, report=self._report)
        except (MigrationFailed, CheckFailed) as error:
            error.committed = None  # it was a copy
            self.failures.append(TripFailure(step.id, direction, f"{_verb(direction)} fails: {error}"))
            return False
        self._excuse(step, result)
        return True

    def _report(self, event: Event) -> None:
        if not isinstance(event, Committed):  # to the copy
            self.tell(event)

    def _excuse(self, step: Step, result: Result) -> None:
        """Note the tables that need not come back: the pair says that it loses something of them."""
        allows = step.migration.allows
        self.excused |= {loss.table.lower() for loss in result.losses if loss.is_declared(allows)}
        self.excused |= allows.rows | allows.tables | {name.partition(".")[0] for name in allows.columns}

    def compare(self, step: Step, direction: str, expected: Content, actual: Content) -> None:
        """Note in what there is something else now than there was."""
        lines = [str(difference) for difference in schema.differences(expected.schema, actual.schema)]
        for name in sorted(expected.tables.keys() & actual.tables.keys()):
            one, other = expected.tables[name], actual.tables[name]
            if one != other and name not in self.excused:
                difference = f"expected {one.rows}" if one.rows != other.rows else "not all as expected"
                lines.append(f"rows of {name}: {counted(other.rows, 'row')}, {difference}")
                self.excused.add(name)
        new = [line for line in lines if line not in self.told]
        self.told.update(new)
        if new:
            message = f"{_verb(direction)} does not give back what was there before"
            if direction == "apply":
                message = f"{_verb(direction)} gives something else than the first time"
            self.failures.append(TripFailure(step.id, direction, message, tuple(new)))


def _verb(direction: str) -> str:
    return "the rollback" if direction == "rollback" else "applying it again"
