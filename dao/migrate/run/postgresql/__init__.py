"""A run on PostgreSQL: the connection set up for scripts, the guard, and what is waited for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any

import attrs

from dao.engine import fetch
from dao.engine.postgresql import Connection, name_of
from dao.errors import ReadOnlyDatabase
from dao.migrate.events import Report
from dao.migrate.ledger.drift.moment import Moment
from dao.migrate.ledger.entries import Ledger
from dao.migrate.lock import telling
from dao.migrate.run.ground import Refuse
from dao.migrate.run.postgresql.guard import Guard
from dao.migrate.run.postgresql.names import made_by
from dao.migrate.schema.model import Schema
from dao.migrate.schema.postgresql import reader, session
from dao.migrate.schema.postgresql.owners import Owners
from dao.migrate.schema.postgresql.script import run_script
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.migration import Migration
from dao.migrate.values import Loss, Step

__all__ = ["OnPostgreSQL", "ready"]

_SERVER = """
SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', current_setting('track_counts') = 'on'
"""


@attrs.define
class OnPostgreSQL:
    """The ground of a run on PostgreSQL."""

    connection: Connection
    tell: Report
    #: The server counts rows.
    counts: bool
    guard: Guard | None = None
    #: The schema at `begin`.
    before: Schema = attrs.field(factory=lambda: Schema({}))
    owners: Owners = attrs.Factory(Owners)

    def enforce_foreign_keys(self, *, enforced: bool) -> None:
        """Do nothing: they always are."""

    def begin(self, ledger: Ledger, *, changed: bool = False) -> Moment:
        """As `Ground`. Takes no snapshot."""
        # what goes before the first script is none of a script's losses
        self.guard = None if changed else Guard(self.connection)
        self.before = reader.read(self.connection)
        self.owners = Owners(self.before)
        return Moment(ledger, self.before)

    def run_script(self, step: Step, notice: Callable[[str], object], refuse: Refuse) -> int:
        """As `Ground`."""
        self.owners.turn_to(step.migration.set, self.connection)
        guard = self.guard = self.guard or Guard(self.connection)
        guard.begin_script(step.key)
        guard.refuse = refuse
        if not self.counts:
            notice("the server does not count rows (track_counts = off): those that cascades take are not noticed")
        whom = ""

        def waiting(seconds: float, holder: str) -> None:
            nonlocal whom
            whom = holder
            told(seconds)

        told = telling(self.tell, lambda: whom)
        return run_script(self.connection, step.id, step.script, notice=notice, watcher=guard, waiting=waiting)

    def losses(self) -> list[tuple[Hashable, Loss]]:
        """As `Ground`."""
        return self.guard.losses() if self.guard else []

    def made_by(self, step: Step, migrations: Sequence[Migration], ledger: Ledger) -> Made:
        """As `Ground`: its text tells, for a replay takes a database of its own."""
        return made_by(step, migrations, ledger)

    def check(self, notice: Callable[[str], object], _allowed: Collection[str]) -> Any:
        """As `Ground`: PostgreSQL lets nothing break that it would find, and each script has met its constraints.

        It tells of those that are new, and that nobody has held the rows against.
        """
        schema = self.owners.look(reader.read(self.connection))
        for kind, name, constraint in sorted(_not_valid(schema) - _not_valid(self.before)):
            notice(
                f"{name}: the constraint {constraint} is NOT VALID, so rows of before may break it: `ALTER "
                f"{kind.upper()} {name} VALIDATE CONSTRAINT {constraint}`, in a later migration, holds them against it"
            )
        return schema


@contextlib.contextmanager
def ready(connection: Connection, tell: Report, **_of_sqlite: object) -> Iterator[OnPostgreSQL]:
    """Set a connection up for a run, and put it back after the block. It takes no snapshot.

    Raises:
        ReadOnlyDatabase: It cannot be written to.
        MigrationError: The connection has temporary tables.
    """
    ((is_standby, is_read_only, counts),) = fetch(connection, _SERVER)
    if is_standby or is_read_only:
        why = "a standby" if is_standby else "read-only by its settings (default_transaction_read_only)"
        raise ReadOnlyDatabase(
            f"{name_of(connection)} is {why}: connect to the primary; with several hosts in the URL, "
            "target_session_attrs=read-write finds it"
        )
    with session.of_run(connection):
        yield OnPostgreSQL(connection, tell, counts=counts)


def _not_valid(schema: Schema) -> set[tuple[str, str, str]]:
    """Return the constraints that are not known to hold for all rows: on what, its name, and theirs."""
    return {
        (one.type, one.name, item.key or "")
        for one in schema.objects.values()
        for item in one.items
        if item.family in reader.CONSTRAINTS and item.shown.endswith(" NOT VALID")
    }
