"""Files of dbmate, goose and sql-migrate: two scripts in one, told apart by comments. What these refuse is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dao.migrate.scripts.files import refuse

__all__ = ["DOWN", "TOOLS", "UP", "is_marked", "split"]

#: The tools whose files these are.
TOOLS: tuple[Literal["dbmate"], Literal["goose"], Literal["sql-migrate"]] = ("dbmate", "goose", "sql-migrate")
#: By tool: the line that the first section begins with, and the one that the second does.
UP = {"dbmate": "-- migrate:up", "goose": "-- +goose Up", "sql-migrate": "-- +migrate Up"}
DOWN = {"dbmate": "-- migrate:down", "goose": "-- +goose Down", "sql-migrate": "-- +migrate Down"}

# By tool: a line that tells that a text is written for it. The word alone is found a hundred times as fast.
_MARKS = {
    "dbmate": ("migrate:", re.compile(r"^--[ \t]*migrate:(?:up|down)(?:\s|\Z)", re.MULTILINE)),
    "goose": ("+goose", re.compile(r"^--[ \t]*\+goose\b", re.MULTILINE)),
    "sql-migrate": ("+migrate", re.compile(r"^--[ \t]*\+migrate\b", re.MULTILINE)),
}
_DBMATE_MARKER = re.compile(r"--\s*migrate:(up|down)(?:\s.*)?$")
_ANNOTATION = re.compile(r"(\s*)--\s*\+(?:goose|migrate)\b(.*)$")
_WITH_OPTION = {"up notransaction": "up", "down notransaction": "down"}  # sql-migrate's
# by tool: what only the other one understands
_FOREIGN = {"goose": {*_WITH_OPTION}, "sql-migrate": {"no transaction", "envsub off", "envsub on"}}


def is_marked(text: str, tool: str) -> bool:
    """Return whether a text is written for a tool."""
    word, line = _MARKS[tool]
    return word in text and line.search(text) is not None


def split(path: Path, text: str, tool: str) -> tuple[str, str | None]:
    """Return the two scripts of a file, in which every line has the number that it has in the file.

    The lines that part them stay, since they say more: `transaction:false`. The tools take a line for one of those
    wherever it stands, in a string or a comment too, and so it is done here. Without a second section it is None.

    Raises:
        MigrationFileError: The lines are not what the tool wants; the message has the line.
    """
    lines = text.split("\n")
    up, down = _dbmate(path, lines) if tool == "dbmate" else _annotated(path, lines, tool)
    for place, line in enumerate(lines[:up]):
        if line.strip() and not line.lstrip().startswith("--"):
            refuse(path, f"only comments of `--` may stand before `{UP[tool]}`", place + 1)
    if down is None:
        return "\n".join(lines), None
    return "\n".join([*lines[:down], ""]), "\n" * down + "\n".join(lines[down:])


def _dbmate(path: Path, lines: Sequence[str]) -> tuple[int, int]:
    """Return where dbmate's two sections begin."""
    markers = [(place, match[1]) for place, line in enumerate(lines) if (match := _DBMATE_MARKER.match(line))]
    for (place, name), expected in zip(markers, ("up", "down"), strict=False):
        if name != expected:
            refuse(path, f"`-- migrate:{name}` stands where `-- migrate:{expected}` should", place + 1)
    if len(markers) > 2:
        place, name = markers[2]
        refuse(path, f"`-- migrate:{name}` stands here twice; make that a migration of its own", place + 1)
    if len(markers) < 2:
        refuse(path, "no line begins with `-- migrate:down`; dbmate needs one, even if nothing comes after it")
    return markers[0][0], markers[1][0]


def _annotated(path: Path, lines: list[str], tool: str) -> tuple[int, int | None]:
    """Return where the two sections of goose or sql-migrate begin.

    Ends in `lines` the statements whose end only the tool's marker shows.
    """
    mark = UP[tool].removesuffix(" Up")
    up: int | None = None
    down: int | None = None
    block: int | None = None
    for place, line in enumerate(lines):
        match = _ANNOTATION.match(line) if mark[3:] in line else None
        if match is None:
            continue
        name = " ".join(match[2].lower().split())
        name = "" if name in _FOREIGN[tool] else _WITH_OPTION.get(name, name)
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
            refuse(path, f"`{line.strip()}` is no annotation of {tool}'s", place + 1)
        if misplaced:
            refuse(path, f"`{line}` stands in the wrong place", place + 1)
        match name:
            case "up":
                up = place
            case "down":
                down = place
            case "statementbegin":
                block = place
            case "statementend":
                written = next((row for row in reversed(lines[block:place]) if row.strip()), "")
                if not written.partition("--")[0].rstrip().endswith(";"):
                    lines[place] = f"; {line}"
                block = None
    if block is not None:
        refuse(path, f"`{mark} StatementBegin` without `{mark} StatementEnd`", block + 1)
    if up is None:
        refuse(path, f"no line says `{mark} Up`; {tool} needs one before the statements")
    return up, down
