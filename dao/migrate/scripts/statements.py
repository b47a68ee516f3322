"""Where statements begin and end, in SQLite's own terms, and whether a script comes to its end.

SQLite ends an open comment at the end of the text, or of the next comment, without a word. No parser: its tokens tell
what is open, its notion of a complete statement where the last one begins, and its compiler whether that one lacks
something.
"""

from __future__ import annotations

import re

from dao.engine.sqlite.parsing import is_complete, wants_more

__all__ = ["broken_off", "conflict", "end_of_statement", "has_statement", "line_of", "start_of_statement"]

# all that SQLite's tokenizer skips, byte for byte (sqlite3GetToken); possessive, so that no comment is matched past
# its end
_NO_STATEMENT = re.compile(
    r"(?>[ \t\n\f\r][\t-\r ]*+|[;\ufeff]|--[^\n]*+|/\*(?!\Z).*?(?:\*/|\Z))*+",
    re.DOTALL,
)
_QUOTED = r"""'[^']*+'|"[^"]*+"|`[^`]*+`|\[[^\]]*+\]|--[^\n]*+|/\*.*?\*/"""
_CLOSED = re.compile(rf"""(?>[^'"`\[/-]++|{_QUOTED}|-(?!-)|/(?!\*))*+""", re.DOTALL)
_SEMICOLON = re.compile(rf"{_QUOTED}|(;)", re.DOTALL)
_CONFLICT = re.compile(r"^<{7}(?: |$)(?=.*^>{7}(?: |$))", re.MULTILINE | re.DOTALL)
_SWALLOWED = re.compile(r";\s*(?:--[^\n]*\s*)*/\*")
_OPEN = {
    "/": "a comment begins here and never ends, so that SQLite would pass over all that follows; end it with */",
    "'": "a string begins here and never ends; a ' is missing, here or before",
    "[": "a name in brackets begins here and never ends; a ] is missing",
    '"': 'a name in quotes begins here and never ends; a " is missing, here or before',
    "`": "a name in quotes begins here and never ends; a ` is missing, here or before",
}


def has_statement(text: str) -> bool:
    """Return whether a script holds anything but blanks, comments and semicolons."""
    return start_of_statement(text) < len(text)


def start_of_statement(text: str, begin: int = 0) -> int:
    """Return where the next statement begins, after blanks, semicolons and comments; the text's length if none does.

    `begin` is not inside of a statement, so there is no string that a comment could stand in.
    """
    return _NO_STATEMENT.match(text, begin).end()  # type: ignore[union-attr] # it matches nothing, too


def end_of_statement(text: str, begin: int) -> int:
    """Return where the statement that begins there ends, by SQLite's own notion of a complete statement."""
    end = begin
    while (end := text.find(";", end) + 1) > 0:
        if is_complete(text[begin:end]):
            return end
    return len(text)


def broken_off(text: str) -> tuple[str, int] | None:
    """Return what a script leaves open, and the line in which that begins; None if the script comes to its end.

    A last statement needs no semicolon. One that alters tables which other scripts make may be taken for complete
    though it lacks something: SQLite says so when it runs.
    """
    if found := conflict(text):
        return found
    closed = _CLOSED.match(text).end()  # type: ignore[union-attr] # as above
    if closed < len(text):
        return _OPEN[text[closed]], line_of(text, closed)
    if text.count("/*") > text.count("*/"):
        for match in _SEMICOLON.finditer(text):
            if match[0].startswith("/*") and _SWALLOWED.search(match[0]):
                return (
                    "a comment begins here and goes on to the end of another, with statements between; end it with */",
                    line_of(text, match.start()),
                )
    if is_complete(text):
        return None
    begin = 0
    for match in _SEMICOLON.finditer(text):
        if match[1] and is_complete(text[begin : match.end()]):
            begin = match.end()
    begin = start_of_statement(text, begin)
    if not is_complete(f"{text[begin:]}\n;"):
        return "a trigger begins here and never ends; its END is missing", line_of(text, begin)
    if wants_more(text[begin:]):
        return "a statement begins here that is not complete", line_of(text, begin)
    return None


def conflict(text: str) -> tuple[str, int] | None:
    """Return that a script has the marks of a merge in it, and the line of the first; None if it has none."""
    if "<<<<<<<" in text and (found := _CONFLICT.search(text)):
        return "a merge conflict begins here; resolve it", line_of(text, found.start())
    return None


def line_of(text: str, place: int) -> int:
    """Return the number of the line that a place in a text is in."""
    return text.count("\n", 0, place) + 1
