"""The commands that write the ledger and run nothing: mark, unmark, accept, resolve, adopt, baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs
import click

from dao import migrate, settings, url
from dao.cli import completion
from dao.cli.folders import folder_of, named_folder, telling
from dao.cli.options import MISMATCH, command, examples, only_one_of, options
from dao.cli.output import Output
from dao.errors import MigrationFileError
from dao.migrate.scripts.ids import TOOLS

__all__ = ["accept", "adopt", "baseline", "mark", "resolve", "unmark", "warn_of_drift"]


def warn_of_drift(config: settings.Settings, output: Output) -> list[str]:
    """Warn of a schema that is not what its migrations make, and return the differences."""
    try:
        found = migrate.status(config.url, config.migrations).drift
    except MigrationFileError:  # the ledger has the texts
        found = migrate.status(config.url, ()).drift
    output.drift(found)
    return list(found)


def _ledger_command(
    name: str, done: str, description: str, complete: completion.Complete, *calls: str
) -> click.Command:
    def change(config: settings.Settings, output: Output, ids: tuple[str, ...], lock_timeout: float | None) -> None:
        verb: Callable[..., list[str]] = getattr(migrate, name)
        told = telling(config)
        changed = [
            told(id) for id in verb(config.url, ids, config.migrations, lock_timeout=lock_timeout, report=output.report)
        ]
        for id in changed:
            output.line(f"{done} {id}")
        if not changed:
            output.line("nothing to change")
        output.json({"database": config.url.name, "ids": changed, "drift": warn_of_drift(config, output)})

    change.__doc__ = description
    ids = click.argument("ids", nargs=-1, required=True, metavar="ID…", shell_complete=complete)
    return click.command(name)(command(changes=True)(examples(*calls)(ids(options("lock_timeout")(change)))))


mark = _ledger_command(
    "mark",
    "marked as applied:",
    "Note migrations as applied, running nothing.",
    completion.pending,
    "dao mark 20261203090000_index_notes",
)
unmark = _ledger_command(
    "unmark",
    "marked as not applied:",
    "Note migrations as not applied, undoing nothing.",
    completion.applied,
    "dao unmark 20261202090000_add_color",
)
accept = _ledger_command(
    "accept",
    "accepted as it is now:",
    "Accept edits of applied files as deliberate.\n\nRuns nothing.",
    completion.changed,
    "dao accept 20261202090000_add_color",
)


@click.command("resolve")
@command(changes=True)
@examples("dao migrate resolve 20261203090000  # shows both ends", "dao migrate resolve 20261203090000 --applied")
@click.argument("id", metavar="ID", shell_complete=completion.pending)
@click.option("--applied", is_flag=True, help="It is applied: somebody finished it.")
@click.option("--rolled-back", is_flag=True, help="It is not: somebody undid it.")
@options("lock_timeout")
def resolve(
    config: settings.Settings, output: Output, id: str, applied: bool, rolled_back: bool, lock_timeout: float | None
) -> int:
    """Say how an unfinished migration ended.

    One that runs outside of a transaction and did not come to its end. Shows how the schema differs from both ends,
    then notes which it is; without either option it only shows.
    """
    only_one_of(applied=applied, rolled_back=rolled_back)
    outcome: Literal["applied", "rolled back"] | None = "applied" if applied else "rolled back" if rolled_back else None
    found = migrate.unfinished(config.url, id, config.migrations)
    name = output.named(found.id, found.set)
    ends = {
        end: None if differences is None else [str(difference) for difference in differences]
        for end, differences in (("applied", found.from_applied), ("rolled back", found.from_rolled_back))
    }
    for end, differences in ends.items():
        if differences is None:
            output.line(f"{end}: cannot be compared, since the migrations do not run in an empty database of their own")
        elif differences:
            output.line(f"{end}: it would differ from the schema as it is:")
        else:
            output.line(f"{end}: that is the schema as it is")
        for difference in differences or ():
            output.line(f"  {difference}")
    for problem in found.broken:
        output.line(f"does not work: {problem}", style="red")
    sound = outcome == "rolled back" or not found.broken
    if outcome is None:
        output.line(f"say which it is: `dao migrate resolve {name} --applied` or `--rolled-back`")
    else:
        migrate.resolve(
            config.url, found.id, outcome, config.migrations, lock_timeout=lock_timeout, report=output.report
        )
        output.line(f"{name}: noted as {outcome}", style="green")
        if not sound:
            output.error(f"{name} is noted as applied, and the schema has what does not work: mend that")
        warn_of_drift(config, output)
    output.json(
        {
            "database": config.url.name,
            "id": found.id,
            "set": found.set,
            "outcome": outcome,
            "differences": ends,
            "broken": list(found.broken),
        },
        ok=outcome is not None and sound,
    )
    return 0 if outcome and sound else MISMATCH


@click.command("adopt")
@command(changes=True)
@examples("dao adopt --from yoyo", "dao adopt --from alembic --to 1975ea83b712")
@click.option("--from", "tool", type=click.Choice(TOOLS), required=True, help="The tool that made the database.")
@click.option(
    "--to",
    metavar="ID",
    shell_complete=completion.known,
    help="For alembic: the last of the migrations that are applied.",
)
@options("lock_timeout")
def adopt(config: settings.Settings, output: Output, tool: str, to: str | None, lock_timeout: float | None) -> None:
    """Take over the ledger of another tool.

    Notes as applied what that tool has applied, and the checksums of its files. Runs nothing, and leaves the tool's own
    table as it is.
    """
    if tool == "alembic" and to is None:
        raise click.UsageError(
            "alembic's ledger does not say which of these files are applied: name the last with --to"
        )
    if tool != "alembic" and to is not None:
        raise click.UsageError(f"--to goes with --from alembic: {tool}'s ledger says itself what is applied")
    adopted = migrate.adopt(config.url, tool, config.migrations, to=to, lock_timeout=lock_timeout, report=output.report)
    current = migrate.status(config.url, config.migrations)
    names = current.names
    ids = [names[id] for id in adopted]
    pending = [migration for migration in current.migrations if migration.state == "pending"]
    for id in ids:
        output.line(f"adopted {id}", style="green")
    for migration in pending:
        late = " (out of order)" if migration.out_of_order else ""
        output.line(f"pending {names[migration.id]}{late}", style="yellow")
    output.drift(current.drift)
    if not ids:
        output.line(f"{config.url.name}: nothing to adopt")
    output.json(
        {
            "database": config.url.name,
            "tool": tool,
            "ids": ids,
            "drift": current.drift,
            "pending": [names[migration.id] for migration in pending],
            "out_of_order": [names[migration.id] for migration in pending if migration.out_of_order],
        }
    )


@click.command("baseline")
@command(changes=True)
@examples("dao baseline --database sqlite:///existing.db --migrations app_sql", "dao baseline as delivered")
@click.argument("name", nargs=-1)
@options("set", "lock_timeout")
def baseline(
    config: settings.Settings, output: Output, name: tuple[str, ...], set: str | None, lock_timeout: float | None
) -> None:
    """Begin with a database that has no migrations.

    Writes its schema as the first migration of the folder, and notes that as applied. Runs nothing, and touches no row.
    Rows are not written: a new database will have none. Prints the paths. NAME is "baseline" if there is none.
    """
    engine = "postgresql" if isinstance(config.url, url.ServerURL) else "sqlite"
    done = migrate.baseline(
        config.url,
        attrs.evolve(named_folder(config, set), path=folder_of(config, engine, set)),
        name=" ".join(name) or "baseline",
        lock_timeout=lock_timeout,
        report=output.report,
    )
    for path in done.paths:
        output.line(str(path))
    for ledger in done.left_out:
        output.line(f"left out: {ledger}")
    output.line(f"{config.url.name}: {done.id} is noted as applied; its rows are not in it", style="green")
    for problem in done.broken:
        output.warning(f"{problem}; mend it in a migration, or a new database will be refused")
    output.json(
        {
            "database": config.url.name,
            "id": done.id,
            "paths": [str(path) for path in done.paths],
            "left_out": [attrs.asdict(ledger) for ledger in done.left_out],
            "broken": [str(problem) for problem in done.broken],
        }
    )
