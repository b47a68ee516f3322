"""The output of the commands: plain lines, colour for a person at a terminal, JSON for machines.

Results go to standard output, everything else (waiting, notices, errors) to standard error. Names come from files,
databases and other people: control characters in them are shown as escapes, and a line end in one never makes a line.

A failure to print undoes nothing: standard error is given up in silence; a command that changes something, or is a
probe, prints its results there instead, and its exit code stays that of its work. Where the print is all that was
wanted, the failure is an error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import click

from dao import migrate
from dao.migrate.scripts.sets import shown
from dao.text import visible

__all__ = ["GONE", "Output", "in_columns", "is_terminal", "mend", "silence"]

#: The exit code when the reader of a pipe has gone, as of a program that the signal for it ends.
GONE = 141


class Output:
    """Prints for one command. `quiet` leaves nothing but errors and warnings, `as_json` one JSON document.

    `changes`: the command does something beside printing, or answers by its exit code. `sets` are those of migrations
    that are named, if they are several.
    """

    def __init__(
        self, *, quiet: bool = False, as_json: bool = False, changes: bool = False, sets: Collection[str] = ()
    ) -> None:
        self.quiet = quiet
        self.sets = sets
        self.as_json = as_json
        self.changes = changes
        self._lost = False
        self._consoles: dict[int, Any] = {}
        self._status: Any = None
        # what a run has reported
        self.created = False
        self.snapshot: str | None = None
        self.drifted: migrate.Drifted | None = None

    # ------------------------------------------------------------ lines

    def line(self, text: str, *, style: str | None = None) -> None:
        """Print a line of the result."""
        if not self.quiet and not self.as_json:
            self._print(sys.stdout, visible(text, line=True), style)

    def table(self, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows of the result in columns, under their names; on a terminal as wide as that."""
        if not self.quiet and not self.as_json:
            width = self.console(sys.stdout).width if is_terminal(sys.stdout) else None
            for number, line in enumerate(in_columns(names, rows, width)):
                self._print(sys.stdout, line, "bold" if number == 0 else None)

    def text(self, text: str) -> None:
        """Print a result that is a text for a program to read, such as a schema: to a pipe or a file as it is."""
        self._print(sys.stdout, visible(text) if is_terminal(sys.stdout) else text, None, end="")

    def note(self, text: str) -> None:
        """Print a line about what is going on."""
        if not self.quiet:
            self._print(sys.stderr, visible(text, line=True), "dim")

    def error(self, text: str) -> None:
        """Print an error, all but its first line indented: a line end in a name begins no line of its own."""
        self._print(sys.stderr, visible(f"error: {text}").replace("\n", "\n  "), "red")

    def raw_error(self, text: str) -> None:
        """Print an error that is written as it is to be shown."""
        self._print(sys.stderr, visible(text), None, end="")

    def warning(self, text: str) -> None:
        """Print what somebody has to look at although the command did what it should; the JSON document has it, too."""
        if not self.as_json:
            self._print(sys.stderr, visible(f"warning: {text}"), "yellow")

    def logged(self, text: str) -> None:
        """Print a warning that was logged, which no JSON document has."""
        self._print(sys.stderr, visible(f"warning: {text}"), "yellow")

    def drift(self, differences: Sequence[str]) -> None:
        """Warn of a schema that is not what its migrations make, if there is any difference."""
        if differences:
            shown = "".join(f"\n  {difference}" for difference in differences)
            self.warning(f"the schema is not what the applied migrations make (`dao schema diff`):{shown}")

    def json(self, document: Mapping[str, object], *, ok: bool = True) -> None:
        """Print the document, if JSON is wanted; its `ok` says whether all is as it should be."""
        if self.as_json:
            whole = _rounded({"ok": ok, **document})
            try:
                text = json.dumps(whole, indent=2, default=str, allow_nan=False)
            except ValueError:  # JSON has no infinity
                text = json.dumps(json.loads(json.dumps(whole, default=str), parse_constant=str), indent=2)
            self._print(sys.stdout, text.replace("\x7f", "\\u007f"), None)

    def confirmed(self, question: str, *details: str) -> bool:
        """Ask a person to say yes, after these lines."""
        for detail in details:
            self._print(sys.stderr, visible(detail, line=True), None)
        return click.confirm(visible(question, line=True), err=True)

    def _print(self, stream: IO[str], text: str, style: str | None, end: str = "\n") -> None:
        if self._lost and stream is sys.stdout:
            stream = sys.stderr
        try:
            if style and is_terminal(stream):
                self.console(stream).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
            else:
                stream.write(text + end)
            stream.flush()  # at the exit nobody could tell what it was
        except OSError as error:
            silence(stream)
            if stream is not sys.stdout:
                return
            if self.changes:
                self._lost = True
                self._print(
                    sys.stderr, f"warning: standard output failed ({error.strerror}); it would have said:", "yellow"
                )
                self._print(sys.stderr, text, None, end)
            elif isinstance(error, BrokenPipeError):
                sys.exit(GONE)
            else:
                raise OSError(error.errno, error.strerror, "standard output") from error

    def console(self, stream: IO[str]) -> Any:
        """Return rich's console for a terminal."""
        from rich.console import Console  # slow to load: only for a person who looks

        # one for each stream: lines that are printed while the progress is shown must go through the same
        return self._consoles.setdefault(stream.fileno(), Console(file=stream))

    # ------------------------------------------------------------ migrations

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Show on a terminal what is running, for the time of a block, and after it which snapshot was taken before."""
        if self._is_watched():
            self._status = self.console(sys.stderr).status("reading the migrations")
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
            if self.snapshot and not self.as_json:
                self.note(f"snapshot of what was there before: {self.snapshot}")

    def named(self, id: str, set: str | None) -> str:
        """Return the id of a migration as it is shown: behind its set, where several are named."""
        return shown(id, set, self.sets)

    @contextlib.contextmanager
    def bar(self, text: str, *, remaining: bool = False) -> Iterator[Callable[..., None]]:
        """Show on a terminal how far something is, for the time of a block, and how long that took, or will take yet.

        What is lent takes the text, and `completed` and `total` as rich does. Another text is drawn at once, and not in
        the time of what it tells of.
        """
        if not self._is_watched():
            yield lambda *_text, **_how: None
            return
        from rich import progress  # slow to load: only for a person who looks

        columns = (
            (progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
            if remaining
            else (progress.TaskProgressColumn(), progress.TimeElapsedColumn())
        )
        bar = progress.Progress(
            "{task.description}",
            progress.BarColumn(),
            *columns,
            console=self.console(sys.stderr),
            transient=True,
            refresh_per_second=4,
        )
        task, shown = bar.add_task(text, total=None), text

        def update(text: str | None = None, **how: Any) -> None:
            nonlocal shown
            before, shown = shown, text or shown
            bar.update(task, description=_plain(shown), refresh=shown != before, **how)

        try:
            with contextlib.suppress(OSError):  # the terminal may go
                bar.start()
            yield update
        finally:
            with contextlib.suppress(OSError):
                bar.stop()

    def _is_watched(self) -> bool:
        """Whether a person sees what is shown for a while."""
        return not self.quiet and not self.as_json and is_terminal(sys.stderr)

    def report(self, event: migrate.Event) -> None:
        """Show what a run reports while it runs."""
        match event:
            case migrate.Started():
                if self._status is not None:
                    self._status.update(_plain(str(event)))
            case migrate.Verifying(number=number, total=total, name=name):
                if self._status is not None:
                    self._status.update(_plain(f"verifying {name} ({number} of {total})"))
            case migrate.Notice() | migrate.Waiting():
                self.note(str(event))
            case migrate.Snapshotted(snapshot):
                self.snapshot = str(snapshot.path)
            case migrate.Removed(snapshot):
                if str(snapshot.path) == self.snapshot:
                    self.snapshot = None
                else:
                    self.note(f"removed the older snapshot {snapshot.id}")
            case migrate.Created() | migrate.Discarded():
                self.created = isinstance(event, migrate.Created)
                if not self.as_json:
                    self.note(str(event))
            case migrate.Drifted():
                self.drifted = event
            case _:
                pass


# ---------------------------------------------------------------- streams


def mend() -> None:
    """Make the streams safe to use: a closed one is empty, or swallows what it gets; unknown letters are escaped."""
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


# ---------------------------------------------------------------- words


def _rounded(value: Any) -> Any:
    """Return a part of a document with its durations to the microsecond: the rest of their digits says nothing."""
    if isinstance(value, Mapping):
        return {
            key: round(one, 6) if isinstance(one, float) and key.endswith("seconds") else _rounded(one)
            for key, one in value.items()
        }
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _plain(text: str) -> str:
    """Return a text as rich shows it as it is, though it looks for markup in it."""
    from rich.markup import escape

    return escape(visible(text, line=True))


# on a terminal the columns between the first and the last are cut to so many cells, as few as it takes for the last one
# to have some; all of the first is shown, since it has what people copy
_WIDEST, _NARROWEST, _LAST = 20, 6, 12


def in_columns(names: Sequence[str], rows: Sequence[Sequence[object]], width: int | None) -> list[str]:
    """Return the lines of a table, its names first: whole without a width, else cut to so many cells.

    Control characters are shown as escapes, numbers stand to the right, and None is an empty cell; where there is a
    width, columns of nothing else are left out.
    """
    cells = [["" if cell is None else visible(str(cell), line=True) for cell in row] for row in (names, *rows)]
    columns = [[*column] for column in zip(*cells, strict=True)]
    numeric = [all(isinstance(row[place], int | None) for row in rows) for place in range(len(names))]
    if width is None:
        return _joined(columns, numeric, len)
    from rich.cells import cell_len  # wide letters take two cells

    numeric = [is_number for column, is_number in zip(columns, numeric, strict=True) if any(column[1:])]
    columns = [column for column in columns if any(column[1:])]
    widths = [max(map(cell_len, column)) for column in columns]
    for widest in range(_WIDEST, _NARROWEST - 1, -1):
        taken = widths[0] + sum(min(wide, widest) for wide in widths[1:-1]) + 2 * (len(widths) - 1)
        if taken + min(widths[-1], _LAST) <= width:
            break
    columns[1:-1] = [[_cut(cell, widest) for cell in column] for column in columns[1:-1]]
    return [_cut(line, width) for line in _joined(columns, numeric, cell_len)]


def _joined(columns: Sequence[Sequence[str]], numeric: Sequence[bool], length: Callable[[str], int]) -> list[str]:
    padded = []
    for column, is_number in zip(columns, numeric, strict=True):
        wide = max(map(length, column))
        blanks = [" " * (wide - length(cell)) for cell in column]
        padded.append([blank + cell if is_number else cell + blank for cell, blank in zip(column, blanks, strict=True)])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
