"""The form in which scripts take the values of a column: as JSON, as moments, as numbers. Told by their text alone.

A column that is declared as no more than TEXT may hold JSON that a later script reads. To miss one costs a generated
row that this script refuses; to see one too many costs nothing, since JSON, moments and numbers are texts, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import attrs

from dao.migrate.schema.tokens import Token, cut, group, tokens

__all__ = ["Form", "Use", "uses"]

Form = Literal["json", "moment", "number"]

#: What the functions of SQLite take, and in which argument.
_FUNCTIONS: dict[str, tuple[Form, int]] = {
    **dict.fromkeys(
        (
            *("json", "json_array_length", "json_each", "json_extract", "json_insert", "json_patch", "json_pretty"),
            *("json_remove", "json_replace", "json_set", "json_tree", "json_type"),
            *("jsonb", "jsonb_each", "jsonb_extract", "jsonb_insert", "jsonb_patch", "jsonb_remove", "jsonb_replace"),
            *("jsonb_set", "jsonb_tree"),
        ),
        ("json", 0),
    ),
    **dict.fromkeys(("date", "datetime", "julianday", "time", "timediff", "unixepoch"), ("moment", 0)),
    "strftime": ("moment", 1),
    **dict.fromkeys(("abs", "avg", "cast", "round", "sum", "total"), ("number", 0)),
}
_ADDS_OR_REMOVES = frozenset({"insert", "remove", "set"})
_TO_NUMBER = re.compile(r" as (?:\w*int|real|floa|doub|num|dec)")
#: The forms of text that PostgreSQL's `::` takes, by the first word of the type.
_CASTS: dict[str, Form] = {
    **dict.fromkeys(("json", "jsonb"), "json"),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), "moment"),
    **dict.fromkeys(
        ("smallint", "int", "integer", "bigint", "numeric", "decimal", "real", "float", "double"), "number"
    ),
}
_ARROWS, _ARITHMETIC = frozenset({"->", "->>"}), frozenset("+-*/%")
#: These come first where a column is taken in several forms.
_ORDER: tuple[Form, ...] = ("json", "moment", "number")
_NO_NAME = frozenset("'0123456789.(),;+-*/%|<>=!&~?:@$#")
#: Longer scripts bring rows, each value of which would be a token.
_LONGEST = 500_000


@attrs.frozen
class Use:
    """The form in which a column is taken; of JSON the paths that are read, as `$.a.b`, and whether as an array."""

    form: Form
    paths: tuple[str, ...] = ()
    is_array: bool = False


def uses(texts: Iterable[str]) -> Mapping[str, Use]:
    """Return in which form scripts take columns, by their names as tokens have them, whichever table they are of."""
    found: dict[str, set[Use]] = {}
    for text in texts:
        if len(text) <= _LONGEST:
            for name, use in _in_text(text):
                found.setdefault(name, set()).add(use)
    return {name: _together(of_name) for name, of_name in found.items()}


def _together(found: Collection[Use]) -> Use:
    form = min((use.form for use in found), key=_ORDER.index)
    own = [use for use in found if use.form == form]
    paths = sorted({path for use in own for path in use.paths})
    return Use(form, tuple(paths), all(use.is_array for use in own))


def _in_text(text: str) -> set[tuple[str, Use]]:
    """Return which names a text takes in which form."""
    of = tokens(text)
    aliases: dict[str, set[str]] = {}
    for place in range(len(of) - 2):
        if of[place + 1].value == "as" and _is_name(of[place]) and _is_name(of[place + 2]):
            aliases.setdefault(of[place + 2].value, set()).add(of[place].value)
    return {
        (name, use)
        for place, token in enumerate(of)
        for used, use in _at(of, place, token.value)
        for name in (used, *aliases.get(used, ()))
    }


def _at(of: Sequence[Token], place: int, word: str) -> Iterator[tuple[str, Use]]:
    """Yield the names that are taken by the function or operator there, each with its use."""
    after = of[place + 1].value if place + 1 < len(of) else ""
    if word in _FUNCTIONS and after == "(":
        form, argument = _FUNCTIONS[word]
        arguments = cut(group(of, place + 1))
        of_first = " ".join(token.value for token in arguments[0])
        # only a CAST to a number takes one
        if argument < len(arguments) and (word != "cast" or _TO_NUMBER.search(of_first)):
            use = _use(word, form, arguments)
            yield from ((name, use) for name in _names(arguments[argument]))
    elif word in _ARROWS:
        use = Use("json", _path(of, place))
        yield from ((name, use) for name in _names(of[_begin(of, place) : place]))
    elif (word, after) == (":", ":") and place + 2 < len(of) and of[place + 2].value in _CASTS:
        use = Use(_CASTS[of[place + 2].value])
        yield from ((name, use) for name in _names(of[_begin(of, place) : place]))
    elif word in _ARITHMETIC:
        operand = place + 3 if place + 2 < len(of) and of[place + 2].value == "." else place + 1
        beside = [*_names(of[max(place - 1, 0) : place]), *_names(of[operand : operand + 2])[:1]]
        yield from ((name, Use("number")) for name in beside)


def _use(word: str, form: Form, arguments: Sequence[Sequence[Token]]) -> Use:
    literals = [part[0].value[1:-1] for part in arguments[1:] if len(part) == 1 and part[0].value.startswith("'")]
    if form == "moment" and {"unixepoch", "auto"} & set(literals):
        return Use("number")
    # a script that adds or removes a key does not read it, and its rollback would not bring back one that was there
    reads = form == "json" and word.partition("_")[2] not in _ADDS_OR_REMOVES
    paths = tuple(text for text in literals if text.startswith("$")) if reads else ()
    return Use(form, paths, not paths and word.endswith(("_each", "_array_length")))


def _path(of: Sequence[Token], place: int) -> tuple[str, ...]:
    """Return the path that stands after an arrow, and after those that follow: a label and a number mean one, too."""
    path = ""
    while place + 1 < len(of) and of[place].value in _ARROWS:
        key = of[place + 1].value
        if key.isdecimal():
            path += f"[{key}]"
        elif key.startswith("'"):
            label = key[1:-1]
            path += label[1:] if label.startswith(("$.", "$[")) else f'."{label}"'
        else:
            break
        place += 2
    return (f"${path}",) if path else ()


def _begin(of: Sequence[Token], end: int) -> int:
    """Return where the operand begins that ends there: a name, or what is in parentheses."""
    depth = 0
    for place in range(end - 1, -1, -1):
        depth += (of[place].value == ")") - (of[place].value == "(")
        if depth <= 0:
            return place
    return 0


def _names(of: Sequence[Token]) -> list[str]:
    """Return the names in an expression, without those of functions and tables; some may be words of SQL."""
    following = [token.value for token in of[1:]] + [""]
    return [
        token.value for token, after in zip(of, following, strict=False) if _is_name(token) and after not in {"(", "."}
    ]


def _is_name(token: Token) -> bool:
    return token.value[0] not in _NO_NAME
