"""What a shell completes of the values of options and arguments: ids of migrations, snapshots and tasks, sets, files.

It reads only, waits for nobody, and whatever is wrong is silence: somebody is in the middle of a line. Where several
sets of migrations are named, an id is offered behind that of its own, unless it was begun without.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import attrs
import click

from dao import settings, url
from dao.migrate.scripts.load import named_sets
from dao.migrate.scripts.sets import id_of
from dao.text import visible

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "Complete",
    "applied",
    "changed",
    "directories",
    "files",
    "known",
    "migrations",
    "pending",
    "sets",
    "snapshots",
    "tasks",
    "teach_fish",
]

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]
# milliseconds for another's lock, and seconds for a server
_PATIENCE = 100
_SERVER_PATIENCE = 2
_MOST = 50
_LONGEST = 60
# What a shell takes as it stands. Ids are other people's texts: what means something to a shell is not for it to type.
_PLAIN = r"[\w.@%+,/][\w.@%+,/-]*"


def files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def directories(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the name of a folder."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def teach_fish() -> None:
    """Have click's script for fish cut a completion at its first comma only: ids and what is said of them have some."""
    from click.shell_completion import FishComplete, add_completion_class

    class Fish(FishComplete):
        source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')

    add_completion_class(Fish)


def _completing(
    found: Callable[[settings.Settings, str], Iterable[tuple[str, str]]], *, key: Callable[[str], str] = str
) -> Complete:
    """Return a completion of what a function finds in the database: pairs of a value and a word about it.

    The function gets the settings that the command line has so far, and the beginning of the value. What has the `key`
    of a value that is there already is not offered again.
    """

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        given: dict[str, Any] = context.params
        with contextlib.suppress(Exception):
            config = settings.load(
                database=given.get("database") or given.get("named"), migrations=given.get("folders")
            )
            taken = {key(id) for ids in (given.get("ids"), given.get("id")) if isinstance(ids, tuple) for id in ids}
            return [
                CompletionItem(value, help=visible(about, line=True)[:_LONGEST])
                for value, about in found(attrs.evolve(config, url=_impatient(config.url)), incomplete)
                if value.startswith(incomplete) and key(value) not in taken and re.fullmatch(_PLAIN, value)
            ]
        return []

    return complete


def _impatient(database: url.AnyURL) -> url.AnyURL:
    if isinstance(database, url.ServerURL):
        parameters = {**database.parameters, "connect_timeout": str(_SERVER_PATIENCE)}
        return attrs.evolve(database, parameters=parameters, busy_timeout=_PATIENCE)
    return attrs.evolve(database, mode="ro", busy_timeout=_PATIENCE)


# ---------------------------------------------------------------- migrations


def _known(config: settings.Settings, incomplete: str) -> Iterator[tuple[str, str]]:
    from dao.migrate.database import migrations_for
    from dao.migrate.scripts.sets import names, shown

    files = migrations_for(config.url, config.migrations)
    for migration in files:
        yield _as_begun(shown(migration.id, migration.set, names(files)), incomplete), "in the folder"


def _in_state(*states: str) -> Complete:
    """Return a completion of the ids of migrations in some states, or of all, without a look at the schema."""

    def found(config: settings.Settings, incomplete: str) -> Iterator[tuple[str, str]]:
        from dao.migrate.database import migrations_for
        from dao.migrate.ledger.comparison import compare
        from dao.migrate.ledger.entries import ledger_of

        ledger = ledger_of(config.url)
        comparison = compare(migrations_for(config.url, config.migrations), ledger)
        special = {"unfinished": comparison.unfinished, "changed": comparison.changed, "missing": comparison.missing}
        for id in dict.fromkeys([*ledger.ids, *comparison.pending]):
            state = next((state for state, ids in special.items() if id in ids), None)
            state = state or ("pending" if id in comparison.pending else "applied")
            if id not in comparison.others and (state in states or not states):
                yield _as_begun(comparison.sets.told(id), incomplete), state

    return _completing(found, key=id_of)


def _as_begun(name: str, incomplete: str) -> str:
    return name if name.startswith(incomplete) else id_of(name)


def _sets(config: settings.Settings, _incomplete: str) -> Iterator[tuple[str, str]]:
    for name, folder in named_sets(config.migrations).items():
        yield name, str(folder)


sets = _completing(_sets)
#: Migrations of the folder; all; those to apply; those to undo; those whose files have changed.
known = _completing(_known, key=id_of)
migrations = _in_state()
pending = _in_state("pending", "unfinished")
applied = _in_state("applied", "changed", "missing")
changed = _in_state("changed")


# ---------------------------------------------------------------- snapshots and tasks

_BY_ID = "SELECT id, title, status FROM tasks WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT $3"
_NEWEST = "SELECT id, title, status FROM tasks WHERE status = $1 ORDER BY created_at DESC, id DESC LIMIT $2"


def _snapshots(config: settings.Settings, _incomplete: str) -> Iterator[tuple[str, str]]:
    from dao.migrate import snapshots as list_snapshots

    there = list_snapshots(config.url)
    for one in there:
        yield one.id, f"{one.taken_at:%Y-%m-%d %H:%M} UTC, {one.label or one.kind}"
    for one in there:
        if one.label:
            yield one.label, f"{one.taken_at:%Y-%m-%d %H:%M} UTC"


snapshots = _completing(_snapshots)


def tasks(*statuses: str) -> Complete:
    """Return a completion of the ids of the newest tasks, of these statuses or of any."""

    def found(config: settings.Settings, incomplete: str) -> Iterator[tuple[str, str]]:
        from dao.cli.database import opened
        from dao.engine import fetch

        with opened(config) as connection:
            if incomplete:  # by the key: of UUIDv7 ids the newest are last
                rows = fetch(connection, _BY_ID, (incomplete, f"{incomplete}\U0010ffff", _MOST))
            else:
                rows = [row for status in wanted for row in fetch(connection, _NEWEST, (status, _MOST))]
        yield from ((id, title) for id, title, status in rows if status in wanted)

    from dao.records import TaskStatus

    wanted = statuses or tuple(status.value for status in TaskStatus)
    return _completing(found)
