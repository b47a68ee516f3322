"""The three standard streams: closed, full, or a pipe whose reader has gone, they stop nothing that is under way."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO

__all__ = ["is_terminal", "mend", "silence"]


def mend() -> None:
    """Make the streams safe to use: one that was closed is empty, or swallows what it gets; unknown letters are escaped."""
    # in this order, so that each gets the file descriptor of its own, and no file of ours does
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open to the end
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(stream: IO[str]) -> None:
    """Let a stream that has failed swallow what it still holds, or Python would fail once more at the exit."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
        stream.flush()


def is_terminal(stream: IO[str]) -> bool:
    """Return whether a person looks at a stream, or types into it."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
