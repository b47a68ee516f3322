"""Migrations: from one schema version to another, and never in between.

The verbs are the API: `load`, `plan`, `apply`, `rollback`, `redo`, `status`, `reset`, `new`; `take_snapshot`,
`snapshots`, `restore`; `rehearse`, `verify`, `lint`, `dump`, `diff`, `history`; and for the ledger alone `mark`,
`unmark`, `accept`, `resolve`, `adopt`, `baseline`. Each takes a database URL, or a connection that the caller owns,
and works on this package's own migrations unless given others::

    from dao import migrate

    migrate.apply("sqlite:///orchestrator.db")
    connection = dao.connect("sqlite:///orchestrator.db")
    migrate.assert_current(connection)

Each that opens a connection takes `prepare`: a function that registers with it what the schema needs of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dao import _lazy

# what type checkers and editors see, and what is imported when it is first used
if TYPE_CHECKING:
    from dao.migrate.checking import Fault as Fault
    from dao.migrate.checking import Soundness as Soundness
    from dao.migrate.checking import check as check
    from dao.migrate.copies.restore import Restored as Restored
    from dao.migrate.copies.restore import restore as restore
    from dao.migrate.copies.snapshot import snapshots as snapshots
    from dao.migrate.copies.snapshot import take_snapshot as take_snapshot
    from dao.migrate.events import Committed as Committed
    from dao.migrate.events import Copying as Copying
    from dao.migrate.events import Created as Created
    from dao.migrate.events import Discarded as Discarded
    from dao.migrate.events import Event as Event
    from dao.migrate.events import Finished as Finished
    from dao.migrate.events import Notice as Notice
    from dao.migrate.events import Removed as Removed
    from dao.migrate.events import Report as Report
    from dao.migrate.events import Snapshotted as Snapshotted
    from dao.migrate.events import Started as Started
    from dao.migrate.events import Verifying as Verifying
    from dao.migrate.events import Waiting as Waiting
    from dao.migrate.ledger.adopt import adopt as adopt
    from dao.migrate.ledger.baseline import Baseline as Baseline
    from dao.migrate.ledger.baseline import baseline as baseline
    from dao.migrate.ledger.comparison import Comparison as Comparison
    from dao.migrate.ledger.drift import diff as diff
    from dao.migrate.ledger.history import Deed as Deed
    from dao.migrate.ledger.history import history as history
    from dao.migrate.ledger.marks import Unfinished as Unfinished
    from dao.migrate.ledger.marks import accept as accept
    from dao.migrate.ledger.marks import mark as mark
    from dao.migrate.ledger.marks import resolve as resolve
    from dao.migrate.ledger.marks import unfinished as unfinished
    from dao.migrate.ledger.marks import unmark as unmark
    from dao.migrate.ledger.other_tools import OtherLedger as OtherLedger
    from dao.migrate.ledger.other_tools import other_ledgers as other_ledgers
    from dao.migrate.ledger.status import MigrationStatus as MigrationStatus
    from dao.migrate.ledger.status import State as State
    from dao.migrate.ledger.status import Status as Status
    from dao.migrate.ledger.status import assert_current as assert_current
    from dao.migrate.ledger.status import status as status
    from dao.migrate.linting import Finding as Finding
    from dao.migrate.linting import LintResult as LintResult
    from dao.migrate.linting import lint as lint
    from dao.migrate.rehearsal import Rehearsal as Rehearsal
    from dao.migrate.rehearsal import rehearse as rehearse
    from dao.migrate.run.verbs import apply as apply
    from dao.migrate.run.verbs import plan as plan
    from dao.migrate.run.verbs import redo as redo
    from dao.migrate.run.verbs import reset as reset
    from dao.migrate.run.verbs import rollback as rollback
    from dao.migrate.schema.dump import dump as dump
    from dao.migrate.schema.registration import Prepare as Prepare
    from dao.migrate.scripts.load import default_folder as default_folder
    from dao.migrate.scripts.load import load as load
    from dao.migrate.scripts.migration import Migration as Migration
    from dao.migrate.scripts.migration import Script as Script
    from dao.migrate.scripts.new import new as new
    from dao.migrate.scripts.sets import MigrationSet as MigrationSet
    from dao.migrate.values import SNAPSHOTS as SNAPSHOTS
    from dao.migrate.values import Difference as Difference
    from dao.migrate.values import Drifted as Drifted
    from dao.migrate.values import Loss as Loss
    from dao.migrate.values import Result as Result
    from dao.migrate.values import Snapshot as Snapshot
    from dao.migrate.values import Step as Step
    from dao.migrate.verification import Verification as Verification
    from dao.migrate.verification import verify as verify
else:
    _NAMES = _lazy.Names(
        __name__,
        {
            "checking": "Fault Soundness check",
            "copies.restore": "Restored restore",
            "copies.snapshot": "snapshots take_snapshot",
            "events": "Committed Copying Created Discarded Event Finished Notice Removed Report Snapshotted Started "
            "Verifying Waiting",
            "ledger.adopt": "adopt",
            "ledger.baseline": "Baseline baseline",
            "ledger.comparison": "Comparison",
            "ledger.drift": "diff",
            "ledger.history": "Deed history",
            "ledger.marks": "Unfinished accept mark resolve unfinished unmark",
            "ledger.other_tools": "OtherLedger other_ledgers",
            "ledger.status": "MigrationStatus State Status assert_current status",
            "linting": "Finding LintResult lint",
            "rehearsal": "Rehearsal rehearse",
            "run.verbs": "apply plan redo reset rollback",
            "schema.dump": "dump",
            "schema.registration": "Prepare",
            "scripts.load": "default_folder load",
            "scripts.migration": "Migration Script",
            "scripts.new": "new",
            "scripts.sets": "MigrationSet",
            "values": "SNAPSHOTS Difference Drifted Loss Result Snapshot Step",
            "verification": "Verification verify",
        },
    )
    __all__ = [name for name in _NAMES]  # noqa: C416 - ruff takes it for what it is
    __getattr__, __dir__ = _NAMES.find, _NAMES.listed
