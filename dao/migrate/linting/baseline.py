"""A baseline: a file of the findings that there were when it was written, so that only new ones count.

Each is a line, in the order of the migrations, then by code: the migration, the rule's code, the fingerprint, and the
message, which is for people and not compared. So a line neither goes stale when a script gets a comment, nor when a
message is worded better; it does when its statement changes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import attrs

from dao.errors import MigrationError, MigrationFileError
from dao.migrate.linting.finding import Finding, finding
from dao.text import visible

__all__ = ["marked", "recorded", "text"]

_HEAD = """\
# Findings that `dao lint --baseline` passes over. Made by `dao lint --write-baseline`, which makes it anew;
# a line whose finding has been mended is to be removed.
"""


def recorded(findings: Iterable[Finding]) -> list[Finding]:
    """Return those of the findings that a baseline has, in its order: those that nothing silences."""
    found = [one for one in findings if one.silenced is None and one.code != "M904"]
    place = {id: number for number, id in enumerate(dict.fromkeys(one.migration for one in found))}
    return sorted(found, key=lambda one: (place[one.migration], _key(one), one.message))


def text(findings: Iterable[Finding]) -> str:
    """Return the text of a baseline that has these findings."""
    return _HEAD + "".join(
        "\t".join([*_key(one), visible(f"{one.name}: {one.message}", line=True)]) + "\n" for one in recorded(findings)
    )


def marked(
    findings: Sequence[Finding], file: str | os.PathLike[str], ids: Collection[str], judged: Collection[str]
) -> list[Finding]:
    """Return findings with those marked that a baseline has, and one more for each of its lines that is stale.

    Where it has fewer of a kind than there are, the first are marked. `ids` are all migrations; of those that are not
    `judged` nothing can be stale.

    Raises:
        MigrationError: The file cannot be read.
        MigrationFileError: It is no baseline.
    """
    path = Path(file)
    lines = _read(path)
    left = Counter(key for _, key in lines)
    result = []
    for one in findings:
        known = one.silenced is None and left[_key(one)] > 0
        left[_key(one)] -= known
        result.append(attrs.evolve(one, in_baseline=True) if known else one)
    # the last of several equal ones are the stale ones
    stale = []
    for line, key in reversed(lines):
        id, code, _ = key
        if left[key] > 0 and (id in judged or id not in ids):
            left[key] -= 1
            what = f"{id} is no migration here" if id not in ids else f"{id} has no such {code} any more"
            stale.append(finding("M904", id, path, line, what, about=what))
    return result + stale[::-1]


def _key(one: Finding) -> tuple[str, str, str]:
    return one.migration, one.code, one.fingerprint


def _read(path: Path) -> list[tuple[int, tuple[str, str, str]]]:
    """Return the entries of a baseline, each with its line."""
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MigrationError(
            f"there is no baseline {path}: `dao lint --write-baseline {path}` makes one of today's findings"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise MigrationError(
            f"the baseline {path} cannot be read ({error}): check its permissions, or make it anew with `dao lint "
            f"--write-baseline {path}`"
        ) from error
    entries = []
    for number, line in enumerate(content.split("\n"), 1):
        match line.removesuffix("\r").split("\t"):
            case [id, code, fingerprint, *_]:
                entries.append((number, (id, code, fingerprint)))
            case [comment] if not comment.strip() or comment.startswith("#"):
                pass
            case _:
                raise MigrationFileError(
                    f"{path}:{number}: not a line of a baseline: make it anew with `dao lint --write-baseline {path}`",
                    path=path,
                    line=number,
                )
    return entries
