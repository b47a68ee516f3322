"""The function that `--prepare` names: found and imported."""

from __future__ import annotations

import functools
import importlib
import os
import sys

import click

from dao.migrate.schema.registration import Prepare

__all__ = ["loaded"]


def loaded(name: str) -> Prepare:
    """Import the function that is named as MODULE:FUNCTION, from the current folder or where Python looks for modules.

    Raises:
        click.UsageError: There is none, or its module cannot be imported.
    """
    module, _, path = name.partition(":")
    folder = os.getcwd()
    # as `python -m` and web servers have it: the command itself lies elsewhere
    if not {"", folder} & set(sys.path):
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        # its own name, or that of a package around it: else it is another that the module imports
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            advice = (
                f"leave .py out: {module[:-3]}:{path}" if module.endswith(".py") else "name one that can be imported"
            )
            raise click.UsageError(
                f"cannot call {name}: there is no module {error.name} in {folder}, nor where Python looks for modules; "
                f"{advice}"
            ) from error
        raise click.UsageError(
            f"cannot call {name}: to import {module} raises {type(error).__name__}: {error}; mend the module"
        ) from error
    try:
        function: object = functools.reduce(getattr, path.split("."), found)
    except AttributeError as error:
        where = getattr(found, "__file__", None) or module
        raise click.UsageError(f"cannot call {name}: {where} has no {path}; name a function that it has") from error
    if not callable(function):
        kind = type(function).__name__
        raise click.UsageError(f"cannot call {name}: {path} is no function, but of type {kind}; name a function")
    return function
