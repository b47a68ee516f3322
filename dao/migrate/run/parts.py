"""Which steps of a run share a transaction, and what others may do between two of them. Nothing here runs anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs

from dao.errors import LedgerMismatch
from dao.migrate.ledger.entries import Ledger
from dao.migrate.ledger.sets import Sets
from dao.migrate.values import Result, Step

__all__ = ["Part", "parts", "refuse_interference", "still_due"]


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


def refuse_interference(found: Ledger, results: Sequence[Result], now: Ledger, its: Sets) -> None:
    """Refuse to go on over a hole that somebody has made between two transactions of this run, past its lock.

    `found` is the ledger when it was decided what is due, without that; `results` are those of this run by now.

    Raises:
        LedgerMismatch: There is a hole, or a script is half-way that cannot run in a transaction.
    """
    should_be = dict.fromkeys(found.ids, True) | {result.id: result.direction == "apply" for result in results}
    done = {id: "undone" if applied else "applied" for id, applied in should_be.items() if (id in now.ids) != applied}
    done |= dict.fromkeys(now.unfinished.keys() - found.unfinished.keys(), "begun, and not ended,")
    for id, what in done.items():
        raise LedgerMismatch(
            f"another run has {what} {its.told(id)} while this one was under way, between two of its transactions: "
            "look at `dao status`, then repeat"
        )
