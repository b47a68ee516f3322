"""dbmate's and goose's files: two scripts in one, told apart by lines of comment. A file that these tools refuse is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dao.migrate.scripts.folder import refuse

__all__ = ["UP", "is_marked", "split"]

# Patterns are not compiled here: folders of pairs need none of them.
# By tool: what tells that a text is written for it. The word alone is found a hundred times as fast.
_MARKS = {
    "dbmate": ("migrate:", r"(?m)^--[ \t]*migrate:(?:up|down)(?:\s|\Z)"),
    "goose": ("+goose", r"(?m)^--[ \t]*\+goose\b"),
}
#: By tool: the line that the first section begins with.
UP = {"dbmate": "-- migrate:up", "goose": "-- +goose Up"}

_DBMATE_MARKER = r"--\s*migrate:(up|down)(?:\s.*)?$"
_GOOSE_MARKER = r"(\s*)--\s*\+goose\b(.*)$"


def is_marked(text: str, tool: str) -> bool:
    """Return whether a text is written for a tool."""
    word, line = _MARKS[tool]
    return word in text and re.search(line, text) is not None


def split(path: Path, text: str, tool: str) -> tuple[str, str | None]:
    """Return the two scripts of a file, in which every line has the number that it has in the file.

    The lines that part them stay, since they say more: `transaction:false`. The tools take a line for one of those
    wherever it stands, in a string or a comment too, and so it is done here. Without a second section it is None.

    Raises:
        MigrationFileError: The lines are not what the tool wants; the message has the line.
    """
    lines = text.split("\n")
    down = _dbmate_down(path, lines) if tool == "dbmate" else _goose_down(path, lines)
    if down is None:
        return "\n".join(lines), None
    return "\n".join([*lines[:down], ""]), "\n" * down + "\n".join(lines[down:])


def _dbmate_down(path: Path, lines: Sequence[str]) -> int:
    """Return where dbmate's second section begins."""
    markers = [(place, match[1]) for place, line in enumerate(lines) if (match := re.match(_DBMATE_MARKER, line))]
    for (place, name), expected in zip(markers, ("up", "down"), strict=False):
        if name != expected:
            refuse(path, f"`-- migrate:{name}` stands where `-- migrate:{expected}` should", place + 1)
    if len(markers) > 2:
        place, name = markers[2]
        refuse(path, f"`-- migrate:{name}` stands here twice; make that a migration of its own", place + 1)
    if len(markers) < 2:
        refuse(path, "no line begins with `-- migrate:down`; dbmate needs one, even if nothing comes after it")
    _refuse_statement_before(path, lines[: markers[0][0]], "-- migrate:up")
    return markers[1][0]


def _goose_down(path: Path, lines: list[str]) -> int | None:
    """Return where goose's second section begins. Ends in `lines` the statements whose end only goose's marker shows."""
    up: int | None = None
    down: int | None = None
    block: int | None = None
    for place, line in enumerate(lines):
        match = re.match(_GOOSE_MARKER, line)
        if match is None:
            continue
        name = " ".join(match[2].lower().split())
        misplaced = {
            "up": up is not None,
            "down": up is None or down is not None or block is not None,
            "statementbegin": up is None or block is not None,
            "statementend": block is None,
            "no transaction": False,
            "envsub off": False,
        }.get(name)
        if name == "envsub on":
            refuse(path, "`-- +goose ENVSUB ON`: nothing is replaced by environment variables here", place + 1)
        if misplaced is None or match[1]:
            refuse(path, f"`{line.strip()}` is no annotation of goose's", place + 1)
        if misplaced:
            refuse(path, f"`{line}` stands in the wrong place", place + 1)
        if name == "up":
            up = place
        elif name == "down":
            down = place
        elif name == "statementbegin":
            block = place
        elif name == "statementend":
            written = next((row for row in reversed(lines[block:place]) if row.strip()), "")
            if not written.partition("--")[0].rstrip().endswith(";"):
                lines[place] = f"; {line}"
            block = None
    if block is not None:
        refuse(path, "`-- +goose StatementBegin` without `-- +goose StatementEnd`", block + 1)
    if up is None:
        refuse(path, "no line says `-- +goose Up`; goose needs one before the statements")
    _refuse_statement_before(path, lines[:up], "-- +goose Up")
    return down


def _refuse_statement_before(path: Path, lines: Sequence[str], marker: str) -> None:
    for place, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("--"):
            refuse(path, f"only comments of `--` may stand before `{marker}`", place + 1)
