"""The ground of a run: what the runner asks of the database, which each engine does in its own way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Protocol

from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Step

__all__ = ["Ground", "Refuse"]

#: Raises an error for losses, each with the key of the step that has them, unless they may be.
Refuse = Callable[[Sequence[tuple[Hashable, Loss]]], object]


class Ground(Protocol):
    """A connection that is set up for a run, and what has been seen on it."""

    def enforce_foreign_keys(self, *, enforced: bool) -> None:
        """Say whether foreign keys are enforced in the transactions that begin from now on, where that can be said."""

    def begin(self, ledger: Ledger, *, changed: bool = False) -> Moment:
        """Look at what is there before scripts run, in the transaction that is open; `changed`: before the first does.

        Takes the snapshot, if there is to be one and none was taken.
        """

    def run_script(self, step: Step, notice: Callable[[str], object], refuse: Refuse) -> int:
        """Run the script of a step, and return how many statements it had.

        `refuse` raises for losses that it may not have, where they would be committed before the script's end.

        Raises:
            MigrationFailed: A statement failed or was refused; it says where.
            CheckFailed: It was refused for what it would lose.
        """

    def losses(self) -> list[tuple[Hashable, Loss]]:
        """Return what is lost since `begin`, each with the key of the step that lost it."""

    def made_by(self, step: Step, migrations: Sequence[Migration], ledger: Ledger) -> Made:
        """Return the tables and columns that the migration of a step made; nothing if that cannot be told."""

    def check(self, notice: Callable[[str], object], allowed: Collection[str]) -> Any:
        """Check that all works which did at `begin`, but for what is `allowed`, and return the schema as it is now.

        Raises:
            CheckFailed: Something does not.
        """
