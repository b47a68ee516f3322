"""Where each command is. Each is thin: settings, one call of `dao.migrate`, a table module or the pool, output."""

from __future__ import annotations

import click

from dao import _lazy

__all__ = ["Commands"]

# An underscore at the end is no part of a command's name: it tells the command from what its module imports.
_NAMES = _lazy.Names(
    "dao.cli",
    {
        "browse": "browse",
        "change": "init migrate_ redo reset rollback",
        "check": "check",
        "copy": "copy",
        "doctor": "doctor",
        "ledger": "accept adopt baseline mark unmark",
        "lint": "lint",
        "look": "health history plan status wait",
        "metrics": "metrics",
        "new": "new",
        "prune": "prune",
        "rehearse": "rehearse",
        "replication": "replicate restore_replica",
        "schema": "schema",
        "shell": "shell",
        "snapshots": "restore snapshot snapshots_",
        "tasks": "tasks",
        "top": "top",
        "verify": "verify",
    },
)
_COMMANDS = {name.removesuffix("_").replace("_", "-"): name for name in _NAMES}
# As the help lists them: each command is in one.
_GROUPS = {
    "Migrate": "new migrate rollback redo init reset baseline adopt mark unmark accept",
    "Look": "status plan history schema top metrics browse shell",
    "Protect": "snapshot snapshots restore replicate restore-replica copy",
    "Check": "health wait doctor check lint verify rehearse",
    "Work": "tasks prune",
}


class Commands(click.Group):
    """A group whose commands are loaded when they are called, or listed with their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, each with the first sentence of its help."""
        width = max(map(len, self.list_commands(ctx)))
        for title, names in _GROUPS.items():
            found = [(f"{name:<{width}}", self.get_command(ctx, name)) for name in names.split()]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in found if command])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named, or refuse with what is near: click itself knows only what was loaded."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            if near := get_close_matches(args[0], self.list_commands(ctx)):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(map(repr, near))}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None if there is none of this name."""
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            self.add_command(_NAMES.load(_COMMANDS[cmd_name]))
        return super().get_command(ctx, cmd_name)
