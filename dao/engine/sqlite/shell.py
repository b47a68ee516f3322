"""The shell that comes with apsw: SQLite's own commands, with the SQLite that is in use here."""

from __future__ import annotations

from collections.abc import Sequence
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
            shell.cmdloop()
    except SystemExit as end:  # `.exit`
        return end.code if isinstance(end.code, int) else 0
    except (apsw.Error, shell.Error):
        shell.handle_exception()  # which shows it
        return 1
    return 0
