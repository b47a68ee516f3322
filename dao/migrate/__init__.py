"""Migrations: from one schema version to another, and never in between.

The verbs are the API: `load`, `plan`, `apply`, `rollback`, `redo`, `status`, `reset`, `new`; `take_snapshot`, `snapshots`,
`restore`; `rehearse`, `verify`, `lint`, `dump`, `history`; and for the ledger alone `mark`, `unmark`, `accept`, `resolve`, `adopt`.
Each takes a database URL, or a connection that the caller owns, and works on this package's own migrations unless given
others::

    from dao import migrate

    migrate.apply("sqlite:///orchestrator.db")
    connection = dao.connect("sqlite:///orchestrator.db")
    migrate.assert_current(connection)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dao import _lazy

if TYPE_CHECKING:
    from dao.migrate.copies.restore import Restored, restore
    from dao.migrate.copies.snapshot import snapshots, take_snapshot
    from dao.migrate.ledger.adopt import adopt
    from dao.migrate.ledger.history import Deed, history
    from dao.migrate.ledger.marks import Unfinished, accept, mark, resolve, unfinished, unmark
    from dao.migrate.ledger.plan import Comparison
    from dao.migrate.ledger.status import MigrationStatus, State, Status, assert_current, status
    from dao.migrate.linting import Finding, lint
    from dao.migrate.rehearsal import Rehearsal, rehearse
    from dao.migrate.run.verbs import apply, plan, redo, reset, rollback
    from dao.migrate.schema.dump import dump
    from dao.migrate.scripts.load import default_folder, load
    from dao.migrate.scripts.migration import Migration, Script
    from dao.migrate.scripts.new import new
    from dao.migrate.values import (
        SNAPSHOTS,
        Committed,
        Created,
        Difference,
        Drifted,
        Event,
        Finished,
        Loss,
        Notice,
        Removed,
        Report,
        Result,
        Snapshot,
        Snapshotted,
        Started,
        Step,
        Waiting,
    )
    from dao.migrate.verification import Verification, verify

__all__ = [
    "SNAPSHOTS",
    "Committed",
    "Comparison",
    "Created",
    "Deed",
    "Difference",
    "Drifted",
    "Event",
    "Finding",
    "Finished",
    "Loss",
    "Migration",
    "MigrationStatus",
    "Notice",
    "Rehearsal",
    "Removed",
    "Report",
    "Restored",
    "Result",
    "Script",
    "Snapshot",
    "Snapshotted",
    "Started",
    "State",
    "Status",
    "Step",
    "Unfinished",
    "Verification",
    "Waiting",
    "accept",
    "adopt",
    "apply",
    "assert_current",
    "default_folder",
    "dump",
    "history",
    "lint",
    "load",
    "mark",
    "new",
    "plan",
    "redo",
    "rehearse",
    "reset",
    "resolve",
    "restore",
    "rollback",
    "snapshots",
    "status",
    "take_snapshot",
    "unfinished",
    "unmark",
    "verify",
]

# by module: what a command has no use for takes longer to load than the command does
_NAMES = {
    "copies.restore": ("Restored", "restore"),
    "copies.snapshot": ("snapshots", "take_snapshot"),
    "ledger.adopt": ("adopt",),
    "ledger.history": ("Deed", "history"),
    "ledger.marks": ("Unfinished", "accept", "mark", "resolve", "unfinished", "unmark"),
    "ledger.plan": ("Comparison",),
    "ledger.status": ("MigrationStatus", "State", "Status", "assert_current", "status"),
    "linting": ("Finding", "lint"),
    "rehearsal": ("Rehearsal", "rehearse"),
    "run.verbs": ("apply", "plan", "redo", "reset", "rollback"),
    "schema.dump": ("dump",),
    "scripts.load": ("default_folder", "load"),
    "scripts.migration": ("Migration", "Script"),
    "scripts.new": ("new",),
    "values": (
        "SNAPSHOTS",
        "Committed",
        "Created",
        "Difference",
        "Drifted",
        "Event",
        "Finished",
        "Loss",
        "Notice",
        "Removed",
        "Report",
        "Result",
        "Snapshot",
        "Snapshotted",
        "Started",
        "Step",
        "Waiting",
    ),
    "verification": ("Verification", "verify"),
}

__getattr__, __dir__ = _lazy.attach(__name__, _NAMES)
