"""The command `dao`: its group, its way with errors, and the exit codes.

Exit codes: 0 done; 1 it failed; 2 the command line is wrong; 3 migrations are pending; 4 applied files have changed
or gone; 5 a check found what must not be; 130 interrupted (143 if by SIGTERM, which a shell shows); 141 the reader of
the output has gone. 3 and 4 are for `status --exit-code` and `health`, 5 for `check`, `rehearse`, `verify`, `lint` and
`schema`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

import click

from dao import _version
from dao.cli.commands import Commands
from dao.cli.output import GONE, Output, mend, silence
from dao.errors import Error
from dao.text import visible

__all__ = ["INTERRUPTED", "group", "run"]

#: The exit code after Ctrl-C.
INTERRUPTED = 130
_INTERRUPTED = "interrupted; what was not committed was rolled back, `{}` shows what stands"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version.__version__, prog_name="dao", message="%(prog)s %(version)s")
def group() -> None:
    """Migrate and look after the database of a task orchestrator.

    It is that of --database, DATABASE_URL, ./.env or sqlite:///orchestrator.db.
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 migrations pending, 4 applied files changed or missing,
    5 a check found what must not be.
    """


def run() -> int:
    """Run the command line and return its exit code."""
    mend()
    if "_DAO_COMPLETE" in os.environ:
        from dao.cli import completion

        completion.teach_fish()
    output = Output(as_json="--json" in sys.argv[1:])
    try:
        code = group(prog_name="dao", standalone_mode=False)
    except click.ClickException as error:
        usage, message = io.StringIO(), error.format_message()
        if isinstance(error, click.MissingParameter):  # a choice stands there as a list of lines
            message = " ".join(message.split())
        error.show(usage)
        hint, label, _ = usage.getvalue().partition("Error: ")
        output.raw_error(f"{hint}{label}{visible(message, line=True)}\n" if label else hint)
        _report(output, {"type": type(error).__name__, "message": message})
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__context__, EOFError):  # click raises the same for Ctrl-D as for Ctrl-C
            message, code, committed = "there was no answer: nothing was changed", 1, {}
        else:
            # click raises its own of what the command has told something
            told = error.__cause__ or error.__context__ or error
            message, code = _INTERRUPTED.format(getattr(told, "look", "dao status")), INTERRUPTED
            committed = _committed(told)
        output.error(message)
        _report(output, {"type": type(error).__name__, "message": message, **committed})
    except SystemExit as end:
        # by click once it has completed a word; else by click, which calls it 1, or `Output`: whoever read what was
        # asked for has seen enough
        if code := GONE if end.code else 0:
            silence(sys.stdout)
    except (Error, OSError) as error:
        interrupted = isinstance(error.__context__, KeyboardInterrupt)  # click failed to print a line end after ^C
        output.error(_INTERRUPTED.format("dao status") if interrupted else str(error))
        described: dict[str, object] = {"type": type(error).__name__, "message": str(error), **_committed(error)}
        _report(output, error.to_dict() if isinstance(error, Error) else described)
        try:
            sys.stdout.flush()
        except OSError:  # what click itself has printed, such as help
            silence(sys.stdout)
        code = INTERRUPTED if interrupted else 1
    except Exception:  # noqa: BLE001 - a bug of ours: Python's own way to show it would obey the names in it
        import traceback

        output.raw_error(traceback.format_exc())
        code = 1
    return code if isinstance(code, int) else 0


def _committed(error: BaseException) -> dict[str, object]:
    """Return what a command says of what it had done for good before an error."""
    return {"committed": error.committed} if hasattr(error, "committed") else {}


def _report(output: Output, error: dict[str, object]) -> None:
    with contextlib.suppress(OSError, SystemExit):  # standard output itself may be what failed
        output.json({"error": error}, ok=False)
