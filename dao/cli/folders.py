"""The folders of migrations that the settings of a command name, each of a set."""

from __future__ import annotations

from pathlib import Path

import click

from dao import migrate, settings
from dao.migrate.scripts.load import set_name

__all__ = ["called_folders", "folder_of", "named_folder"]


def named_folder(config: settings.Settings, set: str | None) -> settings.Folder:
    """Return the folder of migrations that is meant, of several that of a set."""
    folders = _folders(config)
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
    paths = {name: one.path or migrate.default_folder(engine) for name, one in _folders(config).items()}
    named = [f"{name}={path}" for name, path in paths.items()]
    return str(*paths.values()) if len(paths) == 1 else ", ".join(named)


def _folders(config: settings.Settings) -> dict[str, settings.Folder]:
    """Return the folders of the migrations by the names of their sets."""
    given = config.migrations if isinstance(config.migrations, tuple) else [settings.Folder(config.migrations)]
    return {set_name(one.path, one.name): one for one in given}
