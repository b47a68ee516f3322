"""Every command. Each is thin: settings, one call of `dao.migrate` or the pool, output."""

from __future__ import annotations

from dao.cli.change import init, migrate_, redo, reset, rollback
from dao.cli.ledger import accept, history, mark, new, resolve, unmark
from dao.cli.look import health, plan, status, wait

__all__ = ["ALL"]

migrate_.add_command(resolve)

#: Every command.
ALL = (migrate_, rollback, redo, status, plan, new, init, reset, wait, health, history, mark, unmark, accept)
