"""Verifies migrations for PostgreSQL: up, down and up again in a scratch database, which goes at the end.

There they run as in the first run of a new database: those that may share a transaction do. Each is tried in a
savepoint, which is undone, and then applied for those after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import attrs

from dao import url
from dao.engine import fetch, in_transaction, transaction
from dao.engine.postgresql import Connection
from dao.errors import Error
from dao.migrate.copies.rows import Content
from dao.migrate.events import Report, Verifying
from dao.migrate.schema.model import Object
from dao.migrate.schema.postgresql import reader, traces
from dao.migrate.schema.postgresql.replay import scratch
from dao.migrate.schema.postgresql.script import run_script
from dao.migrate.schema.postgresql.session import of_run
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Step
from dao.migrate.verification.round_trip import (
    Differences,
    Law,
    State,
    TripFailure,
    down_and_up,
    irreversible,
    trip_failures,
)
from dao.migrate.verification.trial import Verification

__all__ = ["Observer", "verify"]


class Observer:
    """Looks at a database time and again. In one transaction, it reads only the tables again that were written to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[Any, Content] = {}

    def look(self) -> State:
        """Return the state of now, without the ledger. Reads all rows the first time."""
        schema = reader.read(self._connection)
        signs = traces.signatures(self._connection)
        # what was written in another transaction has no sign here
        known = self._known if in_transaction(self._connection) else {}
        self._known = {}
        found = {}
        for one in schema.objects.values():
            if one.type == "table":
                key = (one, signs.get(one.name))
                found[one.name] = self._known[key] = known.get(key) or _content(self._connection, one)
        return State(schema, frozenset(), found, {}, None)


def _content(connection: Connection, table: Object) -> Content:
    """Return what a table itself holds; its partitions and heirs are tables, too. Reads all rows."""
    names = sorted(item.key for item in table.items if item.family == "column" and item.key)
    row = f"ROW({', '.join(names)})::text"
    sql = f"SELECT count(*), coalesce(sum(hashtextextended({row}, 0)), 0)::text FROM ONLY {table.name}"
    ((rows, hash),) = fetch(connection, sql)
    return Content(rows, tuple(names), int(hash))


# ---------------------------------------------------------------- all migrations


def verify(
    server: url.ServerURL, migrations: Sequence[Migration], chosen: Collection[str], tell: Report
) -> list[Verification]:
    """Try the migrations that are `chosen` in a database of their own on a server, and return the results in order.

    The others are just applied.

    Raises:
        MigrationError: The role may not create a database.
        OperationalError: The server cannot be reached.
    """
    found: list[Verification] = []
    with scratch(server) as connection, of_run(connection), contextlib.ExitStack() as shared:
        for place, migration in enumerate(migrations):
            tell(Verifying(migration.id, "empty", place + 1, len(migrations)))
            if not migration.up.transactional:
                shared.close()  # commits
            elif not in_transaction(connection):
                shared.enter_context(transaction(connection))
            trial = _Trial(connection, migration)
            is_applied = trial.there_and_back() if migration.id in chosen else trial.apply()
            if migration.id in chosen or not is_applied:
                found.append(trial.end())
            if not is_applied:
                found += _not_reached(migrations[place + 1 :], chosen, migration)
                break
    return found


def _not_reached(migrations: Sequence[Migration], chosen: Collection[str], failed: Migration) -> Iterator[Verification]:
    problem = f"not tried: {failed.id} comes before it here, and fails"
    for one in migrations:
        if one.id in chosen:
            yield Verification(id=one.id, stage="empty", problems=(problem,), reversible=one.reversible, tried=False)


class _Undone(Exception):
    """Undoes what was tried."""


@attrs.define
class _Trial:
    """One migration in the scratch database. A transaction is open, unless one of its scripts does not run in any."""

    connection: Connection
    migration: Migration
    problems: list[TripFailure] = attrs.Factory(list)
    _observer: Observer = attrs.field(init=False)
    _begun: float = attrs.field(init=False, factory=time.perf_counter)

    def __attrs_post_init__(self) -> None:
        self._observer = Observer(self.connection)

    def end(self) -> Verification:
        """Return what was found, each thing once."""
        why = irreversible(self.migration)
        return Verification(
            id=self.migration.id,
            stage="empty",
            problems=tuple(dict.fromkeys(map(str, self.problems))),
            warnings=() if why is None else (why,),
            reversible=self.migration.reversible,
            seconds=time.perf_counter() - self._begun,
        )

    def apply(self) -> bool:
        """Just apply it, and return whether that could be done."""
        return self._run(Step(migration=self.migration, direction="apply"), "apply fails") is not None

    def there_and_back(self) -> bool:
        """Apply it, undo it and apply it again, and return whether it is applied then, for those that come after it."""
        if not in_transaction(self.connection):
            return self._tried()[1]
        could_be = False
        with contextlib.suppress(_Undone), transaction(self.connection):
            could_be, _ = self._tried()
            raise _Undone
        return could_be and self.apply()

    def _tried(self) -> tuple[bool, bool]:
        """Return whether it could be applied the first time, and whether it is applied now."""
        before = self._observer.look()
        after = self._run(Step(migration=self.migration, direction="apply"), "apply fails")
        if after is None:
            return False, False

        def run(step: Step) -> State | None:
            return self._run(step, f"{step.direction}{' after the rollback' * (step.direction == 'apply')} fails")

        def differs(step: Step, found: Differences) -> None:
            when = "after the rollback" if step.direction == "rollback" else "after the second apply"
            self.problems += trip_failures(step, found, when)

        undone, again = down_and_up([self.migration], [before, after], Law(), run, differs)
        return True, len(undone) == len(again)

    def _run(self, step: Step, failure: str) -> State | None:
        """Run a script; return the database after it, None if it fails."""
        script = step.script
        try:
            with transaction(self.connection) if script.transactional else contextlib.nullcontext():
                run_script(self.connection, step.id, script)
        except Error as error:
            self.problems.append(TripFailure(step.id, step.direction, f"{failure}: {error}"))
            return None
        return self._observer.look()
