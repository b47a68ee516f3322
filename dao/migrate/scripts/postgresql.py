"""Where statements begin and end in PostgreSQL's terms, and whether a script comes to its end.

The lexical rules are those of its scanner (src/backend/parser/scan.l), and where a statement ends is what psql does
(psqlscan.l): at a semicolon in no string, comment, parenthesis or `BEGIN ATOMIC … END`. Nobody has to trust this: each
piece is sent as one prepared statement, and the server refuses two of them in one.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import attrs

from dao.migrate.scripts.statements import conflict, line_of

__all__ = ["Statement", "Token", "broken_off", "created_by", "has_statement", "makers", "plain", "split", "tokens"]

_LETTER = "A-Za-z_\x80-\U0010ffff"
_BLANKS = r"[ \t\n\r\f\v]++"
_COMMENT = r"--[^\n\r]*+"
_ESCAPED = r"'(?:[^'\\]++|\\.|'')*+'"
# literals with a line end between them are one, and the E in front is for all of them
_CONTINUED = rf"(?:[ \t\f\v]*+(?:{_COMMENT})?[\n\r](?:{_BLANKS}|{_COMMENT}[\n\r])*+{_ESCAPED})*+"
_LITERAL = rf"[eE]{_ESCAPED}{_CONTINUED}|'(?:[^']++|'')*+'"
# an E that begins a literal which never ends is no word
_WORD = rf"(?![eE]')[{_LETTER}][{_LETTER}0-9$]*+"
_QUOTED = r'"(?:[^"]++|"")*+"'
_DOLLARS = rf"\$(?P<tag>(?:[{_LETTER}][{_LETTER}0-9]*+)?)\$(?P<body>.*?)\$(?P=tag)\$"
# without a comment in it: those are left to `_end_of_comment`
_BLOCK = r"/\*(?:[^*/]++|\*(?!/)|/(?!\*))*+\*/"

_BETWEEN = re.compile(rf"(?>{_BLANKS}|;|{_COMMENT}|{_BLOCK})*+", re.DOTALL)
_INSIDE = re.compile(
    rf"(?>[^'\"$;()/\\\-0-9{_LETTER}]++|{_LITERAL}|{_WORD}|[0-9]++|{_QUOTED}|{_DOLLARS}|\$(?=[0-9])|{_COMMENT}|{_BLOCK}"
    r"|-(?!-)|/(?!\*))*+",
    re.DOTALL,
)
_TOKEN = re.compile(
    rf"{_BLANKS}|{_COMMENT}|(?P<literal>{_LITERAL})|(?P<word>{_WORD})|(?P<quoted>{_QUOTED})|(?P<dollars>{_DOLLARS})"
    r"|(?P<other>.)",
    re.DOTALL,
)
_FIRST = re.compile(_WORD)
_KINDS = frozenset(
    {"aggregate", "domain", "extension", "function", "index", "policy", "procedure", "rule", "schema", "sequence"}
    | {"statistics", "table", "trigger", "type", "view"}
)
_PARTS = re.compile(r'"(?:[^"]|"")*"|[^".]+')
_COMMENT_ENDS = re.compile(r"/\*|\*/")
_OPEN = {
    "/": "a comment begins here and never ends; end it with */, one for each /* in it",
    "'": "a string begins here and never ends; a ' is missing, here or before",
    '"': 'a name in quotes begins here and never ends; a " is missing, here or before',
    "$": "a string in dollars begins here and never ends; its second {} is missing",
    "\\": "{} is a command of psql, which the server does not know; remove it, or say it in SQL",
}
_STDIN = (
    "COPY of STDIN or STDOUT is between psql and the server; write INSERTs, or a file that the server reads, or have a "
    "program load the rows"
)


class Token(NamedTuple):
    """A word ("word", in lower case), a name in quotes ("name"), what is in a string ("text"), or a character."""

    kind: str
    text: str


@attrs.frozen
class Statement:
    """A statement, without its semicolon, and where in the script it stands."""

    text: str
    begin: int
    end: int

    @property
    def first(self) -> str:
        """Its first word, in lower case; none if it begins with something else."""
        found = _FIRST.match(self.text)
        return found[0].lower() if found else ""

    @functools.cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Its tokens, without blanks and comments."""
        return tuple(tokens(self.text))

    def words(self, number: int) -> tuple[str, ...]:
        """Return its first words, so many, in lower case; fewer if anything else comes before."""
        begin = itertools.takewhile(lambda token: token.kind == "word", tokens(self.text))
        return tuple(token.text for token in itertools.islice(begin, number))


def split(text: str) -> Iterator[Statement]:
    """Yield the statements of a script. What it leaves open goes to the end of it."""
    begin = _start(text, 0)
    while begin < len(text):
        end = _end(text, begin)
        yield Statement(text[begin:end], begin, end)
        begin = _start(text, end)


def created_by(statement: Statement) -> str | None:
    """Return the name of what a CREATE makes, without its schema; None if it names none, or makes nothing like that."""
    words = [token.text for token in statement.tokens]
    place = next((place for place, word in enumerate(words) if word in _KINDS), None)
    if statement.first != "create" or place is None:
        return None
    place += 1
    while words[place : place + 1] and words[place] in {"concurrently", "if", "not", "exists"}:
        place += 1
    while words[place + 1 : place + 2] == ["."]:
        place += 2
    return None if words[place : place + 1] in ([], ["on"]) else words[place]


def makers(scripts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the id of the script that makes each object, by the names in their statements, without schemas.

    One that a later script makes anew is the earlier one's.
    """
    found: dict[str, str] = {}
    for id, text in scripts:
        for statement in split(text):
            words = [token.text for token in statement.tokens]
            if words[-3:-1] == ["rename", "to"]:
                found[words[-1]] = found.get(words[-4], id)
            elif statement.first == "drop":
                found = {name: maker for name, maker in found.items() if name not in words}
            elif name := created_by(statement):
                found.setdefault(name, id)
    return found


def plain(name: str) -> str:
    """Return the name of an object of the catalog as tokens have it: without its schema, arguments and quotes."""
    last: str = [name, *_PARTS.findall(name.partition("(")[0])][-1]
    return last.strip('"').replace('""', '"')


def has_statement(text: str) -> bool:
    """Return whether a script holds anything but blanks, comments and semicolons."""
    return _start(text, 0) < len(text)


def broken_off(text: str) -> tuple[str, int] | None:
    """Return what a script leaves open, or says to psql, and the line of that; None if a server can run the script.

    A last statement needs no semicolon.
    """
    if found := conflict(text):
        return found
    end = 0
    for statement in split(text):
        if statement.first == "copy" and _copies_from_client(statement):
            return _STDIN, line_of(text, statement.begin)
        place, end = statement.begin, statement.end
        while (place := _INSIDE.match(text, place).end()) < end:  # type: ignore[union-attr] # it matches nothing, too
            sign = text[place]
            if sign in "();":
                place += 1
            elif sign != "/":
                what = re.match(r"\$[^$\s]*\$|\\\S*", text[place:])
                return _OPEN[sign if sign not in "eE" else "'"].format(what[0] if what else sign), line_of(text, place)
            elif (after := _end_of_comment(text, place)) < 0:
                return _OPEN["/"], line_of(text, place)
            else:
                place = after
    opened = _after_comments(text, end)
    return (_OPEN["/"], line_of(text, opened)) if opened < len(text) else None


def _start(text: str, begin: int) -> int:
    """Return where the next statement begins; the text's length if none does."""
    begin = _after_comments(text, begin)
    return len(text) if text.startswith("/*", begin) else begin


def _after_comments(text: str, begin: int) -> int:
    """Return where a statement begins, or a comment that never ends."""
    while True:
        begin = _BETWEEN.match(text, begin).end()  # type: ignore[union-attr] # it matches nothing, too
        if not text.startswith("/*", begin) or (end := _end_of_comment(text, begin)) < 0:
            return begin
        begin = end


def _end(text: str, begin: int) -> int:
    """Return where the statement that begins there ends, at its semicolon or with the text."""
    place, depth = begin, 0
    while (place := _INSIDE.match(text, place).end()) < len(text):  # type: ignore[union-attr] # it matches nothing, too
        match text[place]:
            case ";":
                if depth <= 0 and not _is_in_body(text[begin:place]):
                    return place
            case "(":
                depth += 1
            case ")":
                depth -= 1
            case "/":
                if (end := _end_of_comment(text, place)) < 0:
                    break
                place = end - 1
            case "\\":
                pass
            case _:  # what never ends
                break
        place += 1
    return len(text)


def _end_of_comment(text: str, begin: int) -> int:
    """Return where a comment ends, which may have others in it; -1 if it does not."""
    depth = 0
    for found in _COMMENT_ENDS.finditer(text, begin):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return -1


def _is_in_body(text: str) -> bool:
    """Return whether a statement up to here is in the body of a function, in standard SQL: `BEGIN ATOMIC … END`."""
    if text[:6].lower() != "create":
        return False
    words = Statement(text, 0, len(text)).words(4)
    if not {*words[1:2], *words[3:4]} & {"function", "procedure"}:
        return False
    depth = parentheses = 0
    for kind, word in tokens(text):
        if kind == "other":
            parentheses += (word == "(") - (word == ")")
        elif kind == "word" and not parentheses:
            if word == "begin" or (word == "case" and depth):
                depth += 1
            elif word == "end":
                depth = max(0, depth - 1)
    return depth > 0


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a text, without blanks and comments."""
    place = 0
    while place < len(text):
        if text.startswith("/*", place):
            place = _end_of_comment(text, place)
            if place < 0:
                return
            continue
        found = _TOKEN.match(text, place)
        assert found is not None  # noqa: S101 - any character is one
        place = found.end()
        match found.lastgroup:
            case "word":
                yield Token("word", found[0].lower())
            case "quoted":
                yield Token("name", found[0][1:-1].replace('""', '"'))
            case "literal":
                yield Token("text", found[0][found[0].index("'") + 1 : -1].replace("''", "'"))
            case "dollars":
                yield Token("text", found["body"])
            case "other":
                yield Token("other", found[0])


def _copies_from_client(statement: Statement) -> bool:
    words = [token.text for token in statement.tokens if token.kind == "word"]
    return any(pair in {("from", "stdin"), ("to", "stdout")} for pair in itertools.pairwise(words))
