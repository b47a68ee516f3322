"""The folders of migrations that the settings of a command name, each of a set, and how ids are shown among several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from dao import migrate, settings
from dao.errors import Error
from dao.migrate.scripts.load import named_sets

__all__ = ["called_folders", "folder_of", "named_folder", "several", "telling"]


def named_folder(config: settings.Settings, set: str | None) -> settings.Folder:
    """Return the folder of migrations that is meant, of several that of a set."""
    folders = named_sets(config.migrations)
    if set is not None and set not in folders:
        raise click.UsageError(f"--set {set}: no such set is named: give one of those that are ({', '.join(folders)})")
    if set is None and len(folders) > 1:
        raise click.UsageError(f"several sets are named ({', '.join(folders)}): say for which this is, with --set NAME")
    return folders[set or next(iter(folders))]


def folder_of(config: settings.Settings, engine: str, set: str | None, *, write: bool = False) -> Path:
    """Return the path of the folder that is meant; `write`: there will be written to it."""
    path = named_folder(config, set).path
    return migrate.default_folder(engine, write=write) if path is None else path


def called_folders(config: settings.Settings, engine: str) -> str:
    """Return how the folders of the migrations are called: one by its path, several with the names of their sets."""
    paths = {name: one.path or migrate.default_folder(engine) for name, one in named_sets(config.migrations).items()}
    named = [f"{name}={path}" for name, path in paths.items()]
    return str(*paths.values()) if len(paths) == 1 else ", ".join(named)


def several(config: settings.Settings) -> tuple[str, ...]:
    """Return the names of the sets, if several are named; none of one, before whose ids its name is not shown."""
    given = config.migrations
    # to find the name of a set takes a millisecond, and most commands are about one
    return tuple(named_sets(given)) if isinstance(given, tuple) and len(given) > 1 else ()


def telling(config: settings.Settings) -> Callable[[str], str]:
    """Return what shows the id of a migration, by the files and the ledger as they are now."""
    if not several(config):
        return str
    from dao.migrate.ledger.sets import known

    try:
        return known(config.url, config.migrations).told
    except Error:  # what is wrong the command says itself
        return str
