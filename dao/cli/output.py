"""What the commands print: plain lines, colour for a person at a terminal, JSON for machines.

Results go to standard output, everything else (waiting, notices, errors) to standard error. Names come from files, databases
and other people: control characters in them are shown as escapes, and a line end in one never makes a line.

What cannot be printed undoes nothing: standard error is given up in silence; a command that changes something, or is a probe,
prints its results there instead, and its exit code stays that of what it did. Where the print is all that was wanted, it is an error.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

import attrs

from dao import migrate
from dao.cli.streams import is_terminal, silence
from dao.errors import visible

__all__ = ["GONE", "Output", "milliseconds", "plain"]

#: The exit code when the reader of a pipe has gone, as of a program that the signal for it ends.
GONE = 141

_COLOURS = {
    "applied": "green",
    "pending": "yellow",
    "changed": "red",
    "missing": "red",
    "unfinished": "bold red",
    "error": "bold red",
}


class Output:
    """Prints for one command. `quiet` leaves nothing but errors and warnings, `as_json` one JSON document.

    `changes`: the command does something beside printing, or answers by its exit code.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, changes: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._changes = changes
        self._lost = False
        self._consoles: dict[int, Any] = {}
        self._status: Any = None
        self._snapshot: str | None = None
        self._created = False
        self._drift: list[str] | None = []
        self._unknown: str | None = None

    # ------------------------------------------------------------ lines

    def line(self, text: str, *, style: str | None = None) -> None:
        """Print a line of the result."""
        if not self.quiet and not self.as_json:
            self._print(sys.stdout, visible(text, line=True), style)

    def text(self, text: str) -> None:
        """Print a result that is a text for a program to read, such as a schema: to a pipe or a file as it is."""
        self._print(sys.stdout, visible(text) if is_terminal(sys.stdout) else text, None, end="")

    def note(self, text: str) -> None:
        """Print a line about what is going on."""
        if not self.quiet:
            self._print(sys.stderr, visible(text, line=True), "dim")

    def error(self, text: str) -> None:
        """Print an error, all but its first line indented: a line end in a name makes no line that passes for another."""
        self._print(sys.stderr, visible(f"error: {text}").replace("\n", "\n  "), "red")

    def raw_error(self, text: str) -> None:
        """Print an error that is written as it is to be shown."""
        self._print(sys.stderr, visible(text), None, end="")

    def warning(self, text: str) -> None:
        """Print what somebody has to look at although the command did what it should; the JSON document has it, too."""
        if not self.as_json:
            self._print(sys.stderr, visible(f"warning: {text}"), "yellow")

    def drift(self, differences: Sequence[str]) -> None:
        """Warn of a schema that is not what its migrations make, if there is any difference."""
        if differences:
            shown = "".join(f"\n  {difference}" for difference in differences)
            self.warning(f"the schema is not what the applied migrations make (`dao schema diff`):{shown}")

    def json(self, document: object) -> None:
        """Print the document, if JSON is wanted."""
        if self.as_json:
            import json  # 2 ms: only if it is wanted

            self._print(sys.stdout, json.dumps(document, indent=2).replace("\x7f", "\\u007f"), None)

    def confirmed(self, question: str, *details: str) -> bool:
        """Ask a person to say yes, after these lines."""
        import click

        for detail in details:
            self._print(sys.stderr, visible(detail, line=True), None)
        return click.confirm(visible(question, line=True), err=True)

    def _print(self, stream: IO[str], text: str, style: str | None, end: str = "\n") -> None:
        if self._lost and stream is sys.stdout:
            stream = sys.stderr
        try:
            if style and is_terminal(stream):
                self._rich(stream).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
            else:
                stream.write(text + end)
            stream.flush()  # at the exit nobody could tell what it was
        except OSError as error:
            silence(stream)
            if stream is not sys.stdout:
                return
            if self._changes:
                self._lost = True
                self._print(
                    sys.stderr, f"warning: standard output failed ({error.strerror}); it would have said:", "yellow"
                )
                self._print(sys.stderr, text, None, end)
            elif isinstance(error, BrokenPipeError):
                sys.exit(GONE)
            else:
                raise OSError(error.errno, error.strerror, "standard output") from error

    def _rich(self, stream: IO[str]) -> Any:
        from rich.console import Console  # 26 ms: only for a person who looks

        # one for each stream: lines that are printed while the progress is shown must go through the same
        return self._consoles.setdefault(stream.fileno(), Console(file=stream))

    # ------------------------------------------------------------ migrations

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Show what is running for the time of a block, on a terminal, and after it which snapshot there is of before."""
        if not self.quiet and not self.as_json and is_terminal(sys.stderr):
            self._status = self._rich(sys.stderr).status("reading the migrations")
        try:
            with contextlib.suppress(OSError):  # the terminal may go
                if self._status is not None:
                    self._status.start()
            yield
        finally:
            with contextlib.suppress(OSError):
                if self._status is not None:
                    self._status.stop()
            self._status = None
            # a run that changed nothing has taken its own away
            if self._snapshot and not self.as_json:
                self.note(f"snapshot of what was there before: {self._snapshot}")

    def report(self, event: migrate.Event) -> None:
        """Show what a run reports while it runs."""
        match event:
            case migrate.Started(step):
                if self._status is not None:
                    doing = "applying" if step.direction == "apply" else "rolling back"
                    self._status.update(plain(f"{doing} {step.id}"))
            case migrate.Notice(step, text):
                self.note(f"{step.id}: {text}")
            case migrate.Snapshotted(snapshot):
                self._snapshot = str(snapshot.path)
            case migrate.Removed(snapshot):
                if str(snapshot.path) == self._snapshot:
                    self._snapshot = None
                else:
                    self.note(f"removed the older snapshot {snapshot.id}")
            case migrate.Created(path):
                self._created = True
                if not self.as_json:
                    self.note(f"created {path}, since there was no database")
            case migrate.Drifted(differences, unknown):
                self._drift = None if unknown else [str(difference) for difference in differences]
                self._unknown = unknown
            case migrate.Waiting(seconds, holder):
                who = f" held by {holder}" if holder else ""
                self.note(f"waiting for the lock{who} ({seconds:.0f} s) …")
            case _:
                pass

    def results(self, database: str, results: Sequence[migrate.Result], nothing: str) -> None:
        """Print what a run did; `nothing` if it did nothing."""
        for result in results:
            done = "applied" if result.direction == "apply" else "rolled back"
            plural = "" if result.statements == 1 else "s"
            took = milliseconds(result.seconds)
            self.line(f"{done} {result.id} ({result.statements} statement{plural}, {took})", style="green")
            for loss in () if self.as_json else result.losses:
                self.note(f"{result.id} lost {loss}")
        if results:
            total = milliseconds(sum(result.seconds for result in results))
            self.line(f"{database}: {len(results)} migration{'' if len(results) == 1 else 's'} in {total}")
        else:
            self.line(nothing)
        if self._drift is None:
            self.warning(f"whether the schema is what the remaining migrations make was not checked: {self._unknown}")
        self.drift(self._drift or ())
        self.json(
            {
                "database": database,
                "created": self._created,
                "snapshot": self._snapshot,
                "drift": self._drift,
                "results": [
                    {
                        "id": result.id,
                        "direction": result.direction,
                        "statements": result.statements,
                        "seconds": round(result.seconds, 6),
                        "notices": list(result.notices),
                        "losses": [attrs.asdict(loss) for loss in result.losses],
                    }
                    for result in results
                ],
            }
        )

    def status(self, status: migrate.Status) -> None:
        """Print where each migration stands."""
        self.json(
            {
                "database": status.database,
                "exists": status.exists,
                **({"created": self._created} if self._changes else {}),  # of `dao init`
                "current": status.is_current,
                "drift": list(status.drift),
                "broken": list(status.broken),
                "migrations": [attrs.asdict(migration) for migration in status.migrations],
            }
        )
        width = max(len(migration.id) for migration in status.migrations)
        for migration in status.migrations:
            details = [f"{migration.applied_at[:19].replace('T', ' ')} UTC"] if migration.applied_at else []
            details += [] if migration.duration_ms is None else [f"{migration.duration_ms} ms"]
            details += [] if migration.reversible else ["irreversible"]
            details += [f"its file is {migration.renamed} now"] if migration.renamed else []
            details += ["out of order"] if migration.out_of_order else []
            text = f"{migration.state:<10}  {migration.id:<{width}}  {', '.join(details)}".rstrip()
            self.line(text, style=_COLOURS[migration.state])
        counts = {state: len(status.ids(state)) for state in ("applied", "pending", "changed", "missing", "unfinished")}
        summary = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        where = status.database if status.exists else f"{status.database} (does not exist yet)"
        self.line(f"{where}: {summary}")
        if status.drift:
            self.line("the schema is not what these migrations make (`dao schema diff`):", style="red")
        for difference in status.drift:
            self.line(f"  {difference}", style="red")
        for problem in status.broken:
            self.line(f"does not work: {problem}; mend it in a migration", style="red")

    def plan(self, database: str, steps: Sequence[migrate.Step]) -> None:
        """Print the steps that would run."""
        for step in steps:
            how = "" if step.script.transactional else ", alone and outside of a transaction"
            how += ", alone and with foreign keys enforced" if step.script.foreign_keys else ""
            source = step.script.path or "the ledger"
            verb = "apply" if step.direction == "apply" else "roll back"
            self.line(f"{verb} {step.id} (from {source}{how})")
            if step.drops:
                self.line(f"  drops what it made, with what that holds: {', '.join(step.drops)}")
        if not steps:
            self.line(f"{database}: nothing to do")
        self.json(
            {
                "database": database,
                "steps": [
                    {
                        "id": step.id,
                        "direction": step.direction,
                        "path": None if step.script.path is None else str(step.script.path),
                        "transactional": step.script.transactional,
                        "foreign_keys": step.script.foreign_keys,
                        "drops": list(step.drops),
                    }
                    for step in steps
                ],
            }
        )


def milliseconds(seconds: float) -> str:
    """Return a duration as a person reads it."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def plain(text: str) -> str:
    """Return a text as rich shows it as it is, though it looks for markup in it."""
    from rich.markup import escape

    return escape(visible(text, line=True))
