"""Values to try in the columns of generated rows: a stock of usual ones, and those that the table's own SQL mentions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from dao.migrate.schema.tokens import tokens

__all__ = ["Maker", "Makers", "Value", "literals", "makers"]

Value = str | int | float | bytes
#: Makes a value of a number: the same of the same, and another of another as far as the kind of value has others.
Maker = Callable[[int], Value]
#: What to try, the likely first: a value of a later group is tried when none of those before it is accepted.
Makers = tuple[tuple[Maker, ...], ...]

_EPOCH = datetime(2025, 1, 15, 1, tzinfo=UTC)
_MOST_LITERALS = 60
_LONGEST_TEXT = 512


def makers(declared_type: str, name: str, mentioned: Sequence[Value], *, strict: bool, key: bool = False) -> Makers:
    """Return what to try in a column: of its declared type and its name, then what its table's SQL mentions, then the rest.

    In a `key` the likely numbers are none that a script gives to rows of its own.
    """
    kind = _kind(declared_type, strict=strict)
    text = f"{declared_type} {name}"
    hinted = next((found for pattern, found in _HINTS.get(kind, ()) if pattern.search(text)), ())
    if key and kind == "integer":
        hinted = (lambda number: 1_000_000_000 + number,)
    usual, rest = _STOCK[kind]
    return hinted, usual, _of_literals(kind, mentioned), rest


def _kind(declared_type: str, *, strict: bool) -> str:
    """Return what a column prefers to hold, by SQLite's rules of affinity (sqlite.org/datatype3.html, 3.1)."""
    name = declared_type.upper()
    if "INT" in name:
        return "integer"
    if "CHAR" in name or "CLOB" in name or "TEXT" in name:
        return "text"
    if "BLOB" in name:
        return "blob"
    if "REAL" in name or "FLOA" in name or "DOUB" in name:
        return "real"
    if not name or strict:  # ANY
        return "any"
    return "numeric"


# ---------------------------------------------------------------- stock


def _always(value: Value) -> Maker:
    return lambda _number: value


def _moment(form: str) -> Maker:
    return lambda number: (_EPOCH + timedelta(hours=number)).strftime(form)


def _milliseconds(number: int) -> str:
    return (_EPOCH + timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _uuid(number: int) -> str:
    return f"0194{number % 0x10000:04x}-0000-7000-8000-{number % 0x1000000000000:012x}"


def _hexadecimal(length: int) -> Maker:
    return lambda number: f"{number:0{length}x}"[-length:]


def _digits(length: int) -> Maker:
    return lambda number: f"{number:0{length}d}"[-length:]


def _bytes(length: int) -> Maker:
    return lambda number: number.to_bytes(max(length, 8), "big")[-length:] if length else b""


_INTEGERS: tuple[Maker, ...] = (
    *map(_always, (0, 1, -1, 2, 7, 10, 100, 2**31, 2**53)),
    lambda number: -number,
    lambda number: 1_000 * number,
    lambda number: 1_736_902_800 + 60 * number,
    lambda number: 1_736_902_800_000 + 60_000 * number,
)
_REALS: tuple[Maker, ...] = (*map(_always, (0.0, 0.5, 1.0, -1.5, 0.01, 1e10)), lambda number: number / 1_000)
_JSON: tuple[Maker, ...] = (lambda number: f'{{"number": {number}}}', _always("{}"))
_FLAGS: tuple[Maker, ...] = (_always(0), _always(1))
_DATES: tuple[Maker, ...] = (_moment("%Y-%m-%d"),)
_TIMES: tuple[Maker, ...] = (
    _milliseconds,
    _moment("%Y-%m-%dT%H:%M:%SZ"),
    _moment("%Y-%m-%d %H:%M:%S"),
    _moment("%Y-%m-%dT%H:%M:%S+00:00"),
)
_WORDS: tuple[Maker, ...] = (
    lambda number: f"text {number}",
    # what a script must not trip over
    lambda number: f"Zoë's “{number}”\n",
)
_TEXTS: tuple[Maker, ...] = (
    _uuid,
    *_TIMES,
    *_DATES,
    _moment("%H:%M:%S"),
    *_JSON,
    lambda number: f"[{number}]",
    *map(_always, ("[]", "0", "1", "true", "null", "", "a", "A")),
    str,
    lambda number: f"key_{number}",
    lambda number: f"KEY_{number}",
    lambda number: f"key-{number}",
    lambda number: f"user{number}@example.org",
    lambda number: f"https://example.org/{number}",
    lambda number: f"/tmp/{number}",  # noqa: S108 - a text like another
    lambda number: f"1.0.{number}",
    lambda number: f"+1555{number:07d}",
    lambda number: f"#{number % 0x1000000:06x}",
    _digits(26),
    _hexadecimal(32),
    _hexadecimal(40),
    _hexadecimal(64),
    *map(_always, ("EUR", "DE", "en", "127.0.0.1")),
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
        (int, lambda number: f"text {number}", lambda number: number + 0.25, _bytes(16)),
        (*_INTEGERS, *_REALS, *_TEXTS, *_BLOBS),
    ),
}
_NAMED_JSON = r"json|config|metadata|payload|settings|attributes"
_HINTS: dict[str, tuple[tuple[re.Pattern[str], tuple[Maker, ...]], ...]] = {
    kind: tuple((re.compile(pattern, re.IGNORECASE), found) for pattern, found in hints)
    for kind, hints in {
        "text": (
            (_NAMED_JSON, _JSON),
            (r"uuid|guid", (_uuid,)),
            (r"_at\b|timestamp|heartbeat|datetime", _TIMES),
            (r"\bdate|_date|_on\b|birthday", _DATES),
            (r"e_?mail", (lambda number: f"user{number}@example.org",)),
            (r"\bur[il]|_ur[il]", (lambda number: f"https://example.org/{number}",)),
        ),
        "numeric": (
            (r"json", _JSON),
            (r"bool", _FLAGS),
            (r"timestamp|datetime|_at\b", _TIMES),
            (r"date", _DATES),
            (r"uuid", (_uuid,)),
        ),
        "integer": ((r"\bis_|\bhas_|bool|_at\b", (*_FLAGS, lambda number: 1_736_902_800 + 60 * number)),),
        "any": ((_NAMED_JSON, _JSON),),
    }.items()
}


# ---------------------------------------------------------------- literals


def literals(sql: str) -> list[Value]:
    """Return the values that stand in SQL, each once and in their order; 1 and 1.0 are two."""
    # what tells nothing apart is left out early: there are many tokens, and few of them are values
    written = dict.fromkeys(token.value for token in tokens(sql) if token.value[0] in "'xX.0123456789")
    found = {(type(value), value): value for value in map(_literal, written) if value is not None}
    return list(found.values())[:_MOST_LITERALS]


def _of_literals(kind: str, literals: Sequence[Value]) -> tuple[Maker, ...]:
    texts = [literal for literal in literals if isinstance(literal, str)]
    numbers = [literal for literal in literals if isinstance(literal, int | float)]
    lengths = [number for number in numbers if isinstance(number, int) and 0 < number <= _LONGEST_TEXT]
    of_texts = [*map(_always, texts), *(maker for text in texts for maker in _patterns(text))]
    of_numbers = [_always(number + step) for number in numbers for step in (0, 1, -1)]
    of_blobs = [_always(literal) for literal in literals if isinstance(literal, bytes)]
    made: dict[str, Sequence[Maker]] = {
        "text": [*of_texts, *map(_digits, lengths), *map(_hexadecimal, lengths)],
        "blob": [*of_blobs, *map(_bytes, lengths), *of_texts],
        "integer": [*of_numbers, *of_texts],
        "real": of_numbers,
    }
    return tuple(made.get(kind, [*of_texts, *of_numbers, *of_blobs]))


def _literal(written: str) -> Value | None:
    """Return the value of a token, None if it is no literal."""
    with contextlib.suppress(ValueError):
        if written.startswith("'"):
            return written[1:-1].replace("''", "'")
        if written.startswith("x'"):
            return bytes.fromhex(written[2:-1])
        if written.startswith("0x"):
            return int(written, 16)
        if re.match(r"\.?[0-9]", written):
            return float(written) if re.search(r"[.e]", written) else int(written)
    return None


def _patterns(text: str) -> list[Maker]:
    """Return what makes texts that a literal may be the pattern or the beginning of."""
    made: list[Maker] = [lambda number: f"{text}{number}"]
    if any(sign in text for sign in "*?["):
        made.append(lambda number: _like_glob(text, number))
    if "%" in text:
        made += [
            lambda number: text.replace("%", str(number)).replace("_", "x"),
            _always(text.replace("%", "").replace("_", "x")),
        ]
    return made


def _like_glob(pattern: str, number: int) -> str:
    """Return a text that matches a GLOB pattern, as a rule."""
    made: list[str] = []
    digits = iter(f"{number:09d}"[::-1])
    for part in re.findall(r"\[\^?\]?[^\]]*\]|.", pattern, re.DOTALL):
        if part == "*":
            made.append(str(number))
        elif part == "?":
            made.append(next(digits, "0"))
        elif part.startswith("[^"):
            made.append(next((sign for sign in "0a-~" if sign not in part), "x"))
        elif len(part) > 2:
            choices = _choices(part[1:-1])
            made.append(choices[int(next(digits, "0")) % len(choices)])
        else:
            made.append(part)
    return "".join(made)


def _choices(inside: str) -> str:
    spans = re.sub(
        r"(.)-(.)",
        lambda span: "".join(map(chr, range(ord(span[1]), min(ord(span[2]), ord(span[1]) + 25) + 1))),
        inside,
    )
    return spans or "x"
