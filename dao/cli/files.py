"""How commands write files that somebody named: whole or not at all, and a refusal that says why not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from dao.errors import MigrationError

__all__ = ["write_whole"]


def write_whole(file: str | Path, text: str, what: str) -> None:
    """Make a text what a file holds. Nobody reads half of it, and what fails leaves the file as it was.

    A link stays one, and what is no regular file (a pipe, /dev/stdout) is written to as it stands. The file gets the
    permissions of any new one.

    Args:
        file: Where to.
        text: What it holds from then on, in UTF-8.
        what: What that is, for the message: "report".

    Raises:
        MigrationError: It cannot be written.
    """
    try:
        if os.path.exists(file) and not os.path.isfile(file):
            with open(file, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
            return
        _replace(os.path.realpath(file), text)
    except OSError as error:
        raise MigrationError(f"the {what} cannot be written to {file}: {error.strerror}") from error


def _replace(path: str, text: str) -> None:
    folder, name = os.path.split(path)
    # of no ending that a program looks for which reads each file of a folder, as Prometheus's collector does
    number, made = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
    try:
        with open(number, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(made, 0o666 & ~mask)  # who reads it may be another user
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise
