"""The shell that comes with apsw: SQLite's own commands, with the SQLite that is in use here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

__all__ = ["run"]

# of SQLite's machine: they take some milliseconds
_STEPS = 100_000


def run(connection: apsw.Connection, statements: Sequence[str] = ()) -> int:
    """Run these statements or commands on a connection, else what comes from standard input; return the exit code.

    Ctrl-C ends a statement, not the shell.
    """
    import apsw.shell  # noqa: PLC0415 - takes 60 ms, and only this needs it

    # Python takes notice of a signal when it runs something
    connection.set_progress_handler(lambda: False, _STEPS)
    shell: Any = apsw.shell.Shell(db=connection)
    try:
        for statement in statements:
            shell.process_complete_line(statement)
        if not statements:
            with _history(shell):
                shell.cmdloop()
    except SystemExit as end:  # `.exit`
        return end.code if isinstance(end.code, int) else 0
    except (apsw.Error, shell.Error):
        shell.handle_exception()  # which shows it
        return 1
    return 0


@contextlib.contextmanager
def _history(shell: Any) -> Iterator[None]:
    """Keep what was typed for the length of this block only, where there is no home to keep it in: it is no error."""
    kept = os.path.expanduser(shell.history_file)
    if os.access(os.path.dirname(kept), os.W_OK) and (not os.path.exists(kept) or os.access(kept, os.W_OK)):
        yield
        return
    import tempfile  # noqa: PLC0415 - only this needs it

    with tempfile.TemporaryDirectory() as folder:
        shell.history_file = os.path.join(folder, "history")
        yield
