"""SQL cut into tokens, so that it can be compared without regard to blanks, comments, quotes and the case of names.

It serves the comparison of schemas only: it is no parser, and nothing is run by its findings. It relies on SQLite
having accepted the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Sequence

import attrs

from dao.migrate.schema.names import fold, quoted

__all__ = ["Clause", "Token", "body", "clauses", "cut", "double_quoted", "group", "normal", "tokens", "written"]

# SQLite's own tokens (sqlite3GetToken): everything beyond ASCII is a letter. Letters are said by what they are not,
# since a range to the last character of Unicode takes 10 ms to compile.
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\n\f\r\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<literal>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    | (?P<number>[xX]'[^']*'|0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?)
    | (?P<word>[^\x00-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*)
    | (?P<operator>\|\||->>|->|<=|>=|<>|!=|==|<<|>>|.)""",
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"[^\x00-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*\Z")
# words that are a value unless they are quoted
_VALUES = frozenset({"null", "true", "false", "current_date", "current_time", "current_timestamp"})


@attrs.frozen
class Token:
    """A token: what is compared; how it was written, after a blank or not; whether it stands without quotes."""

    value: str
    written: str = attrs.field(eq=False)
    bare: bool = attrs.field(eq=False)


@attrs.frozen
class Clause:
    """A constraint of a column or table, or its AS: the first word, the CONSTRAINT name, the tokens."""

    kind: str
    name: str | None
    tokens: tuple[Token, ...]

    @property
    def group(self) -> tuple[Token, ...]:
        """The tokens in its first parentheses."""
        return group(self.tokens)

    @property
    def outside(self) -> str:
        """The tokens outside of parentheses, as one text of lower-case words."""
        depth, words = 0, []
        for token in self.tokens:
            depth += (token.value == "(") - (token.value == ")")
            if depth == 0 and token.value != ")":
                words.append(token.value)
        return " ".join(words)

    @property
    def conflict(self) -> str | None:
        """Its ON CONFLICT clause; None for ABORT, which is the default."""
        found = re.search(r"\bon conflict (\w+)", self.outside)
        return found[1].upper() if found and found[1] != "abort" else None


def tokens(text: str, known: Collection[str] | None = None) -> tuple[Token, ...]:
    """Return the tokens of SQL, without blanks and comments.

    Names are the same with and without quotes of any kind, in upper and lower case. Text in double quotes may be
    a string as well: it is one unless it is among the `known` names (in lower case; None: all are), and keeps its case.
    """
    found: list[Token] = []
    blank = ""
    for match in _TOKEN.finditer(text):
        kind, written = match.lastgroup, match[0]
        if kind == "blank":
            blank = " "
            continue
        value = written
        if kind in {"word", "number"}:
            value = fold(written)
        elif kind == "name":
            name = _unquoted(written)
            is_string = written[0] == '"' and known is not None and fold(name) not in known
            value = written if is_string and fold(name) != name else normal(name)
        found.append(Token(value, blank + written, kind == "word"))
        blank = ""
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def double_quoted(text: str) -> frozenset[str]:
    """Return what stands in double quotes, in lower case: names, or strings."""
    written = (token.written.lstrip() for token in tokens(text))
    return frozenset(fold(_unquoted(one)) for one in written if one.startswith('"'))


def _unquoted(written: str) -> str:
    quote = written[0]
    if quote == "[":
        return written[1:-1]
    return written[1:-1].replace(quote * 2, quote) if quote in "\"'`" else written


def normal(name: str) -> str:
    """Return a name as it is in `Token.value`."""
    plain = fold(name)
    return plain if _PLAIN.match(name) and plain not in _VALUES else quoted(name)


def written(of: Iterable[Token]) -> str:
    """Return tokens as they were written, with one blank where there was any."""
    return "".join(token.written for token in of).strip()


def cut(of: Sequence[Token]) -> list[tuple[Token, ...]]:
    """Return what stands between the commas that are in no parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in of:
        depth += (token.value == "(") - (token.value == ")")
        if token.value == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [tuple(part) for part in parts]


def group(of: Sequence[Token], begin: int = 0) -> tuple[Token, ...]:
    """Return what stands in the first parentheses from a place on."""
    depth = 0
    for place in range(begin, len(of)):
        if of[place].value == "(":
            depth += 1
            if depth == 1:
                begin = place + 1
        elif of[place].value == ")":
            depth -= 1
            if depth == 0:
                return tuple(of[begin:place])
    return ()


def body(of: Sequence[Token]) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """Return what stands in the first parentheses, and what comes after them."""
    inside = group(of)
    begin = next((place for place, token in enumerate(of) if token.value == "("), len(of))
    return inside, tuple(of[begin + len(inside) + 2 :])


def clauses(of: Sequence[Token]) -> list[Clause]:
    """Return the constraints of a column, after its name, or of a table, and what a generated column is made of.

    Parts that the pragmas tell, such as a DEFAULT, stay with the clause before them.
    """
    found: list[tuple[str, str | None, list[Token]]] = []
    name: str | None = None
    depth = 0
    for place, token in enumerate(of):
        before = of[place - 1].value if place and of[place - 1].bare else ""
        after = of[place + 1].value if place + 1 < len(of) else ""
        if depth == 0 and token.bare and _begins(token.value, before, after, found[-1][0] if found else ""):
            if token.value == "constraint":
                name = normal(_unquoted(of[place + 1].written.strip()))
                found.append((token.value, None, []))
            else:
                found.append((token.value, name, []))
                name = None
        depth += (token.value == "(") - (token.value == ")")
        if found:
            found[-1][2].append(token)
    return [Clause(kind, name, tuple(own)) for kind, name, own in found if kind != "constraint"]


def _begins(word: str, before: str, after: str, kind: str) -> bool:
    """Return whether a word outside of parentheses begins a clause, in the middle of another one."""
    if before in {"constraint", "references"}:
        return False  # it is a name
    match word:
        case "not":
            return after == "null"  # not DEFERRABLE
        case "references":
            return kind != "foreign"
        case "as":
            return kind != "generated"
        case _:
            return word in {"constraint", "check", "unique", "primary", "foreign", "generated"}
