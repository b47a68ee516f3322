"""Values to try in the columns of generated rows: a stock of usual ones, and those that the table's SQL mentions."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dao.migrate.schema.tokens import tokens
from dao.migrate.verification.uses import Form, Use

__all__ = ["Maker", "Value", "constant", "literals", "makers", "values"]

Value = str | int | float | bytes
#: Makes a value of a number: the same of the same, and another of another as far as the kind of value has others.
Maker = Callable[[int], Value]

_EPOCH = datetime(2025, 1, 15, 1, tzinfo=UTC)
_MOST_LITERALS = 60
_LONGEST_TEXT = 512
#: The digits of an index in a JSON path, with its brackets.
_LONGEST_INDEX = 5
_LARGEST = 2**63 - 1
#: The steps of a JSON path: a label in quotes, one without, an index.
_STEPS = re.compile(r"""\."([^"]*)"|\.([^.\[]+)|(\[[^\]]*\])""")


@functools.lru_cache(maxsize=4096)
def makers(
    kind: str,
    name: str,
    mentioned: tuple[Value, ...],
    *,
    key: bool = False,
    use: Use | None = None,
) -> tuple[tuple[int, Maker], ...]:
    """Return the makers of values to try in a column, each with its rank: first those of rank 0, then those of 1.

    `kind` is what it prefers, as of `catalog.affinity`. `name` is its declared type and
    its name. Those of the form in which scripts `use` it, or of type and name, come first, then the values that the
    table's SQL mentions, then the rest. In a `key`, the likely numbers are none that a script gives to rows of its own.
    """
    hinted = next((found for pattern, found in _HINTS.get(kind, ()) if re.search(pattern, name, re.IGNORECASE)), ())
    if key and kind == "integer":
        hinted = (lambda number: 1_000_000_000 + number,)
    elif use is not None and kind in _USABLE[use.form]:
        hinted = _of_use(use)
    usual, rest = _STOCK[kind]
    groups = (hinted, usual, _of_literals(kind, mentioned), rest)
    return tuple((rank, maker) for rank, group in enumerate(groups) for maker in group)


# ---------------------------------------------------------------- stock


def _always(*values: Value) -> tuple[Maker, ...]:
    return tuple(lambda _number, value=value: value for value in values)


def _texts(*forms: str) -> tuple[Maker, ...]:
    return tuple(form.format for form in forms)


def _moments(*forms: str) -> tuple[Maker, ...]:
    return tuple(lambda number, form=form: (_EPOCH + timedelta(hours=number)).strftime(form) for form in forms)


def _seconds(number: int) -> int:
    return 1_736_902_800 + 60 * number


def _hexadecimal(length: int) -> Maker:
    return lambda number: f"{number:0{length}x}"[-length:]


def _digits(length: int) -> Maker:
    return lambda number: f"{number:0{length}d}"[-length:]


def _bytes(length: int) -> Maker:
    return lambda number: number.to_bytes(max(length, 8), "big")[-length:] if length else b""


_FLAGS = _always(0, 1)
_INTEGERS: tuple[Maker, ...] = (
    *_always(0, 1, -1, 2, 7, 10, 100, 2**31, 2**53),
    lambda number: -number,
    lambda number: 1_000 * number,
    _seconds,
    lambda number: 1_000 * _seconds(number),
)
_REALS: tuple[Maker, ...] = (*_always(0.0, 0.5, 1.0, -1.5, 0.01, 1e10), lambda number: number / 1_000)
_JSON = _texts('{{"number":{}}}', "{{}}")  # as SQLite writes it: a key that is added and removed leaves no trace
_UUIDS = _texts("01940000-0000-7000-8000-{:012x}")
_DATES = _moments("%Y-%m-%d")
_TIMES = _moments("%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00")
_ADDRESSES = _texts("user{}@example.org")
_LINKS = _texts("https://example.org/{}")
# the second is what a script must not trip over
_WORDS = _texts("text {}", "Zoë's “{}”\n")
_TEXTS: tuple[Maker, ...] = (
    *(*_UUIDS, *_TIMES, *_DATES, *_moments("%H:%M:%S"), *_JSON),
    *_texts("[{}]", "[]", "0", "1", "true", "null", "", "a", "A", "{}", "key_{}", "KEY_{}", "key-{}"),
    *(*_ADDRESSES, *_LINKS),
    *_texts("/tmp/{}", "1.0.{}", "+1555{:07d}", "#{:06x}"),  # noqa: S108 - a text like another
    *(_digits(26), _hexadecimal(32), _hexadecimal(40), _hexadecimal(64)),
    *_texts("EUR", "DE", "en", "127.0.0.1"),
)
_BLOBS: tuple[Maker, ...] = (_bytes(8), _bytes(1), _bytes(32), _bytes(0))

#: For each kind: what to try before the literals of the table's SQL, and what after them.
_STOCK: dict[str, tuple[tuple[Maker, ...], tuple[Maker, ...]]] = {
    "integer": ((int,), (*_INTEGERS, *_REALS, *_WORDS, *_TEXTS)),
    "real": ((lambda number: number + 0.25,), (*_REALS, *_INTEGERS)),
    "text": (_WORDS, _TEXTS),
    "blob": ((_bytes(16),), (*_BLOBS, *_WORDS, *_TEXTS)),
    "numeric": ((int,), (*_INTEGERS, *_REALS, *_TEXTS)),
    "any": (
        (int, _WORDS[0], lambda number: number + 0.25, _bytes(16)),
        (*_INTEGERS, *_REALS, *_TEXTS, *_BLOBS),
    ),
}
_NAMED_JSON = r"json|config|metadata|payload|settings|attributes"
#: For each kind: what to try first in a column whose type and name match a pattern.
_HINTS: dict[str, tuple[tuple[str, tuple[Maker, ...]], ...]] = {
    "text": (
        (_NAMED_JSON, _JSON),
        (r"uuid|guid", _UUIDS),
        (r"_at\b|timestamp|heartbeat|datetime", _TIMES),
        (r"\bdate|_date|_on\b|birthday", _DATES),
        (r"e_?mail", _ADDRESSES),
        (r"\bur[il]|_ur[il]", _LINKS),
    ),
    "numeric": (
        (r"json", _JSON),
        (r"bool", _FLAGS),
        (r"timestamp|datetime|_at\b", _TIMES),
        (r"date", _DATES),
        (r"uuid", _UUIDS),
    ),
    "integer": ((r"\bis_|\bhas_|bool|_at\b", (*_FLAGS, _seconds)),),
    "any": ((_NAMED_JSON, _JSON),),
}

#: In which kinds of column a form is looked for: a number of seconds in an INTEGER is no text.
_USABLE: dict[Form, frozenset[str]] = {
    "json": frozenset({"text", "numeric", "blob", "any"}),
    "moment": frozenset({"text", "numeric", "any"}),
    "number": frozenset({"text", "any"}),
}


# ---------------------------------------------------------------- uses


def _of_use(use: Use) -> tuple[Maker, ...]:
    match use.form:
        case "json" if use.paths:
            return (functools.partial(_json_with, use.paths),)
        case "json":
            return _texts("[{}]") if use.is_array else _JSON
        case "moment":
            return (*_TIMES, *_DATES)
        case _:
            return _texts("{}")


def _json_with(paths: Sequence[str], number: int) -> str:
    """Return JSON that has a number at each of these paths: a column of any type can take that over."""
    found: Any = None
    for path in paths:
        found = _with(found, _STEPS.findall(path), number)
    return json.dumps(found, separators=(",", ":"))


def _with(within: Any, steps: Sequence[tuple[str, str, str]], number: int) -> Any:
    """Return what there is with a number beside it, so many steps further in."""
    if not steps:
        return number if within is None else within
    quoted, label, index = steps[0]
    if index:
        items: list[Any] = within if isinstance(within, list) else []
        place = int(index[1:-1]) if index[1:-1].isdecimal() and len(index) < _LONGEST_INDEX else 0
        items = items + [None] * (place + 1 - len(items))
        return [*items[:place], _with(items[place], steps[1:], number), *items[place + 1 :]]
    there: dict[str, Any] = within if isinstance(within, dict) else {}
    key = quoted or label
    return there | {key: _with(there.get(key), steps[1:], number)}


# ---------------------------------------------------------------- literals


@functools.lru_cache(maxsize=4096)
def literals(sql: str) -> tuple[Value, ...]:
    """Return the first of the values that stand in SQL."""
    return values(sql)[:_MOST_LITERALS]


def constant(sql: str) -> tuple[Value, ...]:
    """Return the value for which a literal stands, in a tuple; nothing for any other expression."""
    found = values(sql) if sql[:1] in "'0123456789" else ()
    return found if len(found) == 1 else ()


def values(sql: str) -> tuple[Value, ...]:
    """Return the values that stand in SQL, each once and in their order; 1 and 1.0 are two.

    A number after a minus sign stands for its negative, too.
    """
    found: dict[tuple[type, Value], Value] = {}
    before = ""
    for token in tokens(sql):
        # most tokens cannot be values, and are left out early
        value = _literal(token.value) if token.value[0] in "'xX.0123456789" else None
        if value is not None:
            found.setdefault((type(value), value), value)
        if isinstance(value, int | float) and before == "-":
            found.setdefault((type(value), -value), -value)
        before = token.value
    return tuple(found.values())


def _literal(written: str) -> Value | None:
    """Return the value of a token, None if it is no literal."""
    with contextlib.suppress(ValueError):
        if written.startswith("'"):
            return written[1:-1].replace("''", "'")
        if written.startswith("x'"):
            return bytes.fromhex(written[2:-1])
        if written.startswith("0x"):
            number = int(written, 16)
            return number - 2**64 if number > _LARGEST else number
        if re.match(r"\.?[0-9]", written):
            # of 2 to the 63rd only the negative is an INTEGER; what is larger is a REAL
            is_real = re.search(r"[.e]", written) or float(written) > _LARGEST + 1
            return float(written) if is_real else int(written)
    return None


def _beside(number: int | float) -> Iterator[int | float]:  # noqa: PYI041 - the two are different here
    """Yield a number and those next to it, as SQLite can store them."""
    if isinstance(number, float):
        yield from (number, number + 1, number - 1, math.nextafter(number, math.inf), math.nextafter(number, -math.inf))
    else:
        for other in (number, number + 1, number - 1):
            yield other if -_LARGEST - 1 <= other <= _LARGEST else float(other)


def _of_literals(kind: str, literals: tuple[Value, ...]) -> Sequence[Maker]:
    numbers = [literal for literal in literals if isinstance(literal, int | float)]
    lengths = [number for number in numbers if isinstance(number, int) and 0 < number <= _LONGEST_TEXT]
    texts = [literal for literal in literals if isinstance(literal, str)]
    of_texts = [*_always(*texts), *(maker for text in texts for maker in _patterns(text))]
    of_numbers = _always(*(other for number in numbers for other in _beside(number)))
    of_blobs = _always(*(literal for literal in literals if isinstance(literal, bytes)))
    match kind:
        case "text":
            return [*of_texts, *map(_digits, lengths), *map(_hexadecimal, lengths)]
        case "blob":
            return [*of_blobs, *map(_bytes, lengths), *of_texts]
        case "integer":
            return [*of_numbers, *of_texts]
        case "real":
            return of_numbers
        case _:
            return [*of_texts, *of_numbers, *of_blobs]


#: The parts of a regular expression, each with how often it may stand there: {least,most} or a sign.
_ATOMS = re.compile(
    r"(\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]])*\]|\(\?:|.)(?:\{([0-9]+)(?:,([0-9]*))?\}|([*+?]))?\??", re.DOTALL
)
_NO_TEXT = frozenset({"^", "$", "(", "(?:", ")", "|"})
_CLASSES = {"\\d": "0-9", "\\w": "a-z", "\\s": " ", ".": "a-z"}
_NAMED = {
    "alpha": "a-z",
    "digit": "0-9",
    "alnum": "a-z0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "space": " ",
    "xdigit": "0-9",
}
#: How often a part stands that may stand there more than once.
_REPEATED = 6


def _patterns(text: str) -> Iterator[Maker]:
    """Yield makers of texts of which a literal may be the pattern or the beginning."""
    yield lambda number: f"{text}{number}"
    if any(sign in text for sign in "*?["):
        yield lambda number: _like_glob(text, number)
    if text.startswith("^"):
        yield lambda number: _like_regular(text, number)
    if "%" in text:
        yield lambda number: text.replace("%", str(number)).replace("_", "x")
        yield lambda _number: text.replace("%", "").replace("_", "x")


def _like_glob(pattern: str, number: int) -> str:
    """Return a text that matches a GLOB pattern, as a rule."""
    made: list[str] = []
    digits = iter(f"{number:09d}"[::-1])
    for part in re.findall(r"\[\^?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if part == "*":
            made.append(str(number))
        elif part == "?":
            made.append(next(digits, "0"))
        elif len(part) > 2:
            made.append(_one_of(part, digits))
        else:
            made.append(part)
    return "".join(made)


def _like_regular(pattern: str, number: int) -> str:
    """Return a text that matches a regular expression, as a rule: of alternatives the first."""
    made: list[str] = []
    digits = iter(f"{number:09d}"[::-1])
    depth, left = 0, None
    for atom, least, most, sign in _ATOMS.findall(pattern):
        depth += (atom in {"(", "(?:"}) - (atom == ")")
        if left is not None and depth >= left:
            continue  # another alternative
        left = depth if atom == "|" else None
        if atom in _NO_TEXT:
            continue
        times = max(int(least), min(int(most or least), _REPEATED)) if least else {"": 1, "+": _REPEATED}.get(sign, 0)
        signs = atom if atom[0] == "[" else f"[{_CLASSES.get(atom, atom)}]"
        made += [_one_of(signs, digits) for _ in range(min(times, _LONGEST_TEXT))]
    return "".join(made)


def _one_of(part: str, digits: Iterator[str]) -> str:
    """Return a character of a class as GLOB and regular expressions have them; the next of the digits says which."""
    for name, signs in _NAMED.items():
        part = part.replace(f"[:{name}:]", signs)
    if part.startswith("[^"):
        return next((sign for sign in "0a-~" if sign not in re.sub(r"(.)-(.)", _span, part)), "x")
    choices = re.sub(r"\\(.)", _escaped, part[1:-1])
    choices = re.sub(r"(.)-(.)", _span, choices) or "x"
    return choices[int(next(digits, "0")) % len(choices)]


def _escaped(found: re.Match[str]) -> str:
    return _CLASSES.get(found[0], found[1])


def _span(found: re.Match[str]) -> str:
    first, last = ord(found[1]), ord(found[2])
    return "".join(map(chr, range(first, min(last, first + 25) + 1)))
