"""Where each command is. Each is thin: settings, one call of `dao.migrate` or the pool, output."""

from __future__ import annotations

import importlib

import click

__all__ = ["Commands"]

# by module: one is loaded when a command of it is called, since all together take longer than most commands do
_NAMES = {
    "change": ("init", "migrate", "redo", "reset", "rollback"),
    "ledger": ("accept", "adopt", "mark", "unmark"),
    "lint": ("lint",),
    "look": ("health", "history", "plan", "status", "wait"),
    "new": ("new",),
    "rehearse": ("rehearse",),
    "schema": ("schema",),
    "snapshots": ("restore", "snapshot", "snapshots"),
    "verify": ("verify",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


class Commands(click.Group):
    """A group whose commands are loaded when they are called, or listed with their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_MODULE_OF})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        if cmd_name in _MODULE_OF and cmd_name not in self.commands:
            module = importlib.import_module(f"dao.cli.{_MODULE_OF[cmd_name]}")
            # those whose names are taken in their module have an underscore there
            self.add_command(getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)
