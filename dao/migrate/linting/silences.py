"""Comments that silence a finding: `-- lint: ignore CODE[, CODE] reason`.

On the lines above a statement or at its line's end, one is for that statement. Before the first statement, and apart
from it by an empty line, it is for the whole script. Comments are what SQLite's compiler says nothing of, so they are
found with a pattern, which knows strings and names only to pass over them.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence

import attrs

from dao.migrate.linting.rules import Rule, by_name
from dao.migrate.linting.subject import Span

__all__ = ["Silence", "read"]

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | /\*.*?(?:\*/|\Z)
    | --[ \t]*lint[ \t]*:(?P<rest>[^\n]*) | --[^\n]*""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_IGNORE = re.compile(r"\s*ignore\s+([\w-]+(?:\s*,\s*[\w-]+)*)(.*)", re.IGNORECASE)


@attrs.define
class Silence:
    """One such comment. `statement` is the one that it is for; None: the whole script, or none at all if `nowhere`."""

    line: int
    rules: tuple[Rule, ...]
    unknown: tuple[str, ...]
    reason: str
    statement: Span | None
    nowhere: bool
    above_first: bool
    used: bool = False

    def covers(self, code: str, statement: Span | None) -> bool:
        """Return whether it silences a finding of this code about this statement, or about the script as a whole."""
        if self.nowhere or not self.reason or code not in {rule.code for rule in self.rules}:
            return False
        if self.statement is None:
            return True
        return statement is self.statement or (statement is None and self.above_first)


def read(text: str, statements: Sequence[Span]) -> list[Silence]:
    """Return the silences of a script, in order."""
    if "lint" not in text.lower():
        return []
    return [_silence(text, match, statements) for match in _TOKEN.finditer(text) if match["rest"] is not None]


def _silence(text: str, match: re.Match[str], statements: Sequence[Span]) -> Silence:
    parts = _IGNORE.match(match["rest"])
    names = [name.strip() for name in parts[1].split(",")] if parts else [match["rest"].strip()]
    rules = {name: by_name.get(name.lower()) for name in names}
    statement, nowhere = _statement(text, match.start(), statements)
    return Silence(
        line=text.count("\n", 0, match.start()) + 1,
        rules=tuple(rule for rule in rules.values() if rule is not None),
        unknown=tuple(name for name, rule in rules.items() if rule is None),
        reason=parts[2].strip(" \t:;-") if parts else "",
        statement=statement,
        nowhere=nowhere,
        above_first=not statements or match.start() < statements[0].begin,
    )


def _statement(text: str, place: int, statements: Sequence[Span]) -> tuple[Span | None, bool]:
    """Return the statement that a comment at this place is for, and whether it is for nothing."""
    number = bisect.bisect_right(statements, place, key=lambda statement: statement.begin)
    before = statements[number - 1] if number else None
    after = statements[number] if number < len(statements) else None
    if before is not None and (place < before.end or "\n" not in text[before.end : place]):
        return before, False
    if after is None:
        return before, before is not None
    if before is None and re.search(r"\n[ \t]*\n", text[place : after.begin]):
        return None, False
    return after, False
