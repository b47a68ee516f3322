"""The trial of a migration on rows: generated ones, or the user's own, in the tables that its scripts can touch.

The law is one for both engines; what it asks of a trial (`_OnRows`), `verifier` and `on_server` each have.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import attrs

from dao.errors import Error
from dao.migrate.verification.findings import BROUGHT, Findings, Verification, advise
from dao.migrate.verification.fixtures import Fixtures
from dao.migrate.verification.generate import Filled, fill
from dao.migrate.verification.store import Store
from dao.migrate.verification.touched import Touched
from dao.migrate.verification.uses import Use

__all__ = ["Rows", "tried"]


class _OnRows(Protocol):
    """A trial in a database to which rows are written, after the one on the rows of its scripts `alone`.

    `needed` are the tables that the scripts can touch, as `Table.id`, of those that are there now. `writing` lends the
    database as it is now. Where no rows were written, it is enough to `follow`: the trial alone has shown what the
    scripts do.
    """

    @property
    def trial(self) -> Findings: ...
    @property
    def alone(self) -> Findings: ...
    @property
    def needed(self) -> Touched: ...
    @property
    def is_applied(self) -> bool: ...
    def writing(self) -> AbstractContextManager[Store]: ...
    def there_and_back(self) -> object: ...
    def follow(self) -> object: ...
    def roll_back(self) -> object: ...
    def in_the_way(self, store: Store, filled: Filled) -> frozenset[str]: ...


class _Lend(Protocol):
    """Lends a database as it is before the migration, at first and `again`, set up for a trial."""

    def __call__(self, *, again: bool) -> AbstractContextManager[_OnRows]: ...


@attrs.frozen
class Rows:
    """The rows to write: so many generated ones into each table, but where `fixtures` put theirs.

    `uses` says in which form scripts take columns.
    """

    number: int
    uses: Mapping[str, Use]
    fixtures: Fixtures | None

    def write(self, store: Store, needed: Touched, without: frozenset[str], seed: int) -> tuple[frozenset[str], Filled]:
        """Write rows into tables that are needed, but no generated ones into some (`without`).

        Return which tables got rows of `fixtures`, and how many generated ones each got.
        """
        own = self.fixtures.insert(store, needed) if self.fixtures else frozenset[str]()
        without |= own
        return own, fill(store, rows=self.number, seed=seed, only=needed, without=without, uses=self.uses)


def tried(lend: _Lend, rows: Rows) -> Verification:
    """Try a migration on rows; if those may have the place of rows that it brings, once more without these."""
    with lend(again=False) as first:
        brought = _try(first, rows)
    if brought:
        with lend(again=True) as other:
            _try(other, rows, without=brought)
        if other.is_applied:
            return other.trial.end()
    return first.trial.end()


def _try(on_rows: _OnRows, rows: Rows, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """Fill the tables that it can touch, but some (`without`), and try it; then undo it with rows written since.

    Return the tables whose generated rows may be in the way of its own, if it could not be applied.
    """
    trial = on_rows.trial
    with on_rows.writing() as store:
        own, filled = rows.write(store, on_rows.needed, without, seed=0)
    trial.unfilled = filled.unfilled | dict.fromkeys(without, BROUGHT)
    if filled.rows or own:
        on_rows.there_and_back()
    else:
        trial.repeat(on_rows.alone)
        on_rows.follow()
    if not on_rows.is_applied:
        if filled.rows:
            advise(trial, rows.fixtures)
        return on_rows.in_the_way(store, filled)
    if trial.migration.reversible and not trial.problems:
        with on_rows.writing() as store:
            _, more = rows.write(store, on_rows.needed, own, seed=1)
        trial.unfilled |= more.unfilled
        try:
            on_rows.roll_back()  # new tables and columns take with them what is in them
        except Error as error:
            trial.warnings.append(f"the rollback refuses rows that were written since: {error}")
    return frozenset()
