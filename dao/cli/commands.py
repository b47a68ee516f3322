"""Every command. Each is thin: settings, one call of `dao.migrate` or the pool, output."""

from __future__ import annotations

from dao.cli.adopt import adopt
from dao.cli.change import init, migrate_, redo, reset, rollback
from dao.cli.ledger import accept, history, mark, new, resolve, unmark
from dao.cli.lint import lint
from dao.cli.look import health, plan, status, wait
from dao.cli.rehearse import rehearse
from dao.cli.schema import schema
from dao.cli.snapshots import restore, snapshot, snapshots_
from dao.cli.verify import verify

__all__ = ["ALL"]

migrate_.add_command(resolve)

#: Every command.
ALL = (
    migrate_,
    rollback,
    redo,
    status,
    plan,
    rehearse,
    new,
    init,
    reset,
    snapshot,
    snapshots_,
    restore,
    wait,
    health,
    history,
    lint,
    verify,
    schema,
    mark,
    unmark,
    accept,
    adopt,
)
