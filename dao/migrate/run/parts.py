"""Which steps of a run share a transaction. Nothing here runs anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs

from dao.migrate.ledger.entries import Ledger
from dao.migrate.values import Step

__all__ = ["Part", "parts", "still_due"]


@attrs.frozen
class Part:
    """Steps of a run that share a transaction, or a single one that runs outside of any; never empty."""

    steps: tuple[Step, ...]

    @property
    def transactional(self) -> bool:
        """Whether it is a transaction."""
        return self.steps[0].script.transactional

    @property
    def foreign_keys(self) -> bool:
        """Whether foreign keys are enforced in it, which can be set between two transactions only."""
        return self.steps[0].script.foreign_keys


def parts(steps: Sequence[Step], *, each: bool = False) -> list[Part]:
    """Return the steps in the parts that a run commits one after the other, in order.

    Neighbours share one, but with `each`; and but for those that cannot run in a transaction, or want foreign keys
    enforced.
    """

    def place(numbered: tuple[int, Step]) -> int:
        number, step = numbered
        return number if each or step.script.foreign_keys or not step.script.transactional else -1

    return [Part(tuple(step for _, step in part)) for _, part in itertools.groupby(enumerate(steps), place)]


def still_due(steps: Sequence[Step], ledger: Ledger) -> list[Step]:
    """Return the steps without those that another run did between two transactions of this one."""
    applied = set(ledger.ids)
    due = []
    for step in steps:
        if (step.id in applied) == (step.direction == "rollback"):
            due.append(step)
            applied ^= {step.id}
    return due
