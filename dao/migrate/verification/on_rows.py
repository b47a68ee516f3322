"""The trial of a migration on rows: generated ones, or the user's own, in the tables that its scripts can touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from dao.errors import Error
from dao.migrate.copies.working_copy import WorkingCopies
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step
from dao.migrate.verification.findings import BROUGHT, advise
from dao.migrate.verification.fixtures import Fixtures
from dao.migrate.verification.generate import fill, in_the_way
from dao.migrate.verification.sqlite_store import SQLiteStore
from dao.migrate.verification.touched import Trace, related
from dao.migrate.verification.trial import Place, Trial, follow
from dao.migrate.verification.uses import Use

__all__ = ["OnRows"]


@attrs.frozen
class OnRows:
    """The trial of a migration on generated rows, after the one on no rows but those of the scripts (`alone`).

    `uses` says in which form scripts take columns. The migrations that come `earlier` make the database again.
    Tables into which `fixtures` put rows get no generated ones.
    """

    copies: WorkingCopies
    alone: Trial
    uses: Mapping[str, Use]
    rows: int
    earlier: Sequence[Migration]
    fixtures: Fixtures | None

    def tried(self, here: Place, without: frozenset[str] = frozenset()) -> Trial:
        """Fill the tables that it can touch, but some (`without`), and try it; then undo it with rows written since."""
        trial = Trial(self.copies, self.alone.migration, "generated rows")
        schemas = [place.state.schema for place in (self.alone.before, self.alone.after) if place]
        needed = related(self.alone.touched, *schemas)
        own = self.fixtures.insert(SQLiteStore(here.connection), needed) if self.fixtures else frozenset[str]()
        filled = fill(SQLiteStore(here.connection), rows=self.rows, only=needed, without=without | own, uses=self.uses)
        if filled.rows or own:
            state = here.state.with_rows(here.connection, needed)
            there = trial.there_and_back(attrs.evolve(here, state=state))
        else:  # it finds what it found there
            there = self._as_alone(trial, here)
        trial.unfilled = filled.unfilled | dict.fromkeys(without, BROUGHT)
        if there is None:
            text = trial.up.script.text
            brought = in_the_way(SQLiteStore(here.connection), filled, self.alone.inserts, text)
            if brought and not without:
                again = self.copies.copy()
                follow(again, *(Step(migration=migration, direction="apply") for migration in self.earlier))
                other = self.tried(here.at(again), brought)
                if other.after is not None:
                    return other
            if filled.rows:
                advise(trial, self.fixtures)
            return trial
        if trial.migration.reversible and not trial.problems:
            own |= self.fixtures.insert(SQLiteStore(there.connection), needed) if self.fixtures else frozenset()
            more = fill(SQLiteStore(there.connection), rows=self.rows, seed=1, only=needed, without=own, uses=self.uses)
            trial.unfilled |= more.unfilled
            try:
                # new tables and columns take with them what is in them
                trial.run_script(there.connection, there, trial.down, Trace(there.connection), is_end=True)
            except Error as error:
                trial.warnings.append(f"the rollback refuses rows that were written since: {error}")
        return trial

    def _as_alone(self, trial: Trial, here: Place) -> Place | None:
        alone = self.alone
        trial.problems += alone.problems
        trial.warnings += alone.warnings
        trial.losses += alone.losses
        trial.before = here
        follow(here.connection, trial.up)
        trial.after = alone.after and alone.after.at(here.connection)
        return trial.after
