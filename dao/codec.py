"""Time, JSON and ids as both engines store them: the text on one side, the Python value on the other.

Nothing here knows a table or a driver.
"""

from __future__ import annotations

import json
import re
import reprlib
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
import uuid_utils

from dao.errors import InvalidValue

__all__ = [
    "AFTER_ALL",
    "BEFORE_ALL",
    "DEEPEST",
    "canonical_time",
    "check_text",
    "decode_json",
    "decode_json_quickly",
    "decode_object",
    "millisecond",
    "monotonic",
    "new_id",
    "now",
    "now_to_text",
    "plain_json",
    "plain_json_text",
    "time_from_text",
    "time_ns",
    "time_to_text",
]

#: The clocks that are read for what happens now, and for how long it took. `dao.testing.Clock` puts still ones here.
time_ns: Callable[[], int] = time.time_ns
monotonic: Callable[[], float] = time.monotonic


def new_id() -> str:
    """Return a new UUIDv7 as text: ordered in time, so that inserts stay at the right edge of the B-tree."""
    return str(uuid_utils.uuid7())


def now() -> datetime:
    """Return the current time, in UTC, cut to the whole millisecond."""
    return datetime.fromtimestamp(time_ns() // 1_000_000 / 1000, UTC)


def millisecond(moment: datetime) -> datetime:
    """Return the aware datetime in UTC, cut to the whole millisecond, which is what the database stores.

    Raises:
        TypeError: It is no datetime.
        InvalidValue: It is naive, or so close to year 1 or 9999 that it has no UTC equivalent.
    """
    if type(moment) is datetime and moment.tzinfo is UTC and not moment.microsecond % 1000 and not moment.fold:
        return moment
    if not isinstance(moment, datetime):
        raise TypeError(f"expected a datetime, got {moment!r}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidValue(f"naive datetime {moment!r}: say which time zone it is in, such as datetime.now(UTC)")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidValue(f"{moment!r} cannot be expressed in UTC within the years 1 to 9999") from error
    whole = moment.microsecond // 1000 * 1000
    # a plain datetime, also from a subclass
    return datetime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, whole, tzinfo=UTC)


def time_to_text(moment: datetime) -> str:
    """Return an aware datetime as `YYYY-MM-DDTHH:MM:SS.mmmZ`, cut to the whole millisecond.

    Raises:
        TypeError, InvalidValue: As `millisecond`.
    """
    if type(moment) is not datetime or moment.tzinfo is not UTC:
        moment = millisecond(moment)
    # msgspec writes a datetime in a tenth of the time that isoformat takes: "…SS.mmm000Z", or "…SSZ" for a whole second
    text = _encode_time(moment)
    return (text[1:24] + b"Z" if len(text) > 22 else text[1:20] + b".000Z").decode()


def canonical_time(held: datetime | str) -> str:
    """Return a time, or the text of one as any engine writes it, as `time_to_text` writes it.

    A text that is no time is returned as it is: the database will refuse it.
    """
    if isinstance(held, datetime):
        return time_to_text(held)
    try:
        return held if held[10:11] == "T" else time_to_text(datetime.fromisoformat(held))
    except ValueError:
        return held


# The last second for which the current time was written, and its text.
_second = (0, "")


def now_to_text(now: datetime | None = None) -> str:
    """Return the current time as text, unless a caller gives another `now`."""
    if now is not None:
        return time_to_text(now)
    # The text of the second is kept: with the cold caches after a commit, to make and write a datetime takes 4 µs of
    # the 60 of a short transaction.
    global _second  # noqa: PLW0603 - one tuple, replaced as a whole: threads may come at once
    second, nanoseconds = divmod(time_ns(), 1_000_000_000)
    known, text = _second
    if second != known:
        text = time_to_text(datetime.fromtimestamp(second, UTC))[:20]
        _second = (second, text)
    return f"{text}{nanoseconds // 1_000_000:03}Z"


#: Any time is between these two, as text on SQLite and as PostgreSQL's own words for it.
BEFORE_ALL, AFTER_ALL = "-infinity", "infinity"

time_from_text: Callable[[str], datetime] = datetime.fromisoformat

_encode = msgspec.json.Encoder().encode
# what fakes the clock, as freezegun, puts a subclass in the place of `datetime`, which msgspec does not take
_encode_time = msgspec.json.Encoder(enc_hook=lambda moment: moment.isoformat(timespec="milliseconds")).encode

#: `decode_json` for almost every text, and a tenth of a microsecond faster. It raises for the few that need the other.
decode_json_quickly: Callable[[str | bytes], Any] = msgspec.json.Decoder().decode
#: The same for a text that is an object.
decode_object: Callable[[str | bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


def decode_json(text: str) -> Any:
    """Return the value of a JSON text. Integers of any size stay exact.

    Raises:
        ValueError: The text is not JSON, or has an integer of more digits than Python reads
            (`sys.set_int_max_str_digits`: 4,300 unless set).
        RecursionError: It is nested deeper than Python reads.
    """
    try:
        return _decode(text)
    except RecursionError:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - takes 5 ms, and hardly anybody needs it

        # what was written where the stack was low is read where it is high: a thread has one of its own
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_decode, text).result()


def _decode(text: str) -> Any:
    try:
        return decode_json_quickly(text)
    except msgspec.DecodeError:
        # SQLite accepts more than msgspec does: numbers past the range of a float, lone surrogates, and anything after
        # a NUL, where SQLite stops reading. Python would accept NaN and Infinity as well.
        return json.loads(text.partition("\0")[0], parse_constant=_refuse_constant)


#: So many lists and objects may be in one another: the least that an engine reads, which is SQLite's JSON_MAX_DEPTH.
DEEPEST = 1000


def check_text(value: object, name: str) -> None:
    """Refuse anything but a text that every engine stores.

    Raises:
        TypeError: It is no text.
        InvalidValue: It has no UTF-8 form, or a NUL in it.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{name} is not valid Unicode: {error}") from error
    if "\0" in value:
        raise InvalidValue(
            f"{name} has a NUL character at {value.index(chr(0))}, which PostgreSQL does not store: take it out, or "
            "write it as something else"
        )


def plain_json(value: object, name: str = "value") -> Any:
    """Return a copy of the value as it will be read back from the database.

    Raises:
        TypeError, InvalidValue: As `plain_json_text`.
    """
    return decode_json_quickly(plain_json_text(value, name))


def plain_json_text(value: object, name: str) -> str:
    """Return the value as JSON text that will read back equal.

    Raises:
        TypeError: It would not read back equal (a tuple comes back as a list, a key 1 as "1", bytes as text …). The
            message begins with the place, as `config.steps[2].retry` for `name` config.
        InvalidValue: A float in it is not finite, a text is not Unicode, or it is nested too deep.
    """
    try:
        text = _encode(value)
        if decode_json_quickly(text) == value:
            if len(text) > 2 * DEEPEST and _is_too_deep(text):
                raise RecursionError
            return text.decode()
    except RecursionError as error:
        raise InvalidValue(f"{name}: nested too deep for JSON") from error
    except (ValueError, TypeError, msgspec.DecodeError):
        pass  # something in it has no JSON form, or none that can be read
    place, found = _first_fault(value, name)
    if isinstance(found, float | int | str) and not _reads_back(found):
        why = "more digits than Python writes" if isinstance(found, int) else ascii(found)
        raise InvalidValue(f"{place}: JSON has no {why}")
    raise TypeError(
        f"{place}: {reprlib.repr(found)} is not plain JSON: it would read back as a different value; "
        "use dict with text keys, list, str, int, float, bool and None"
    )


_ESCAPED = re.compile(rb"\\.")
_STRING = re.compile(rb'"[^"]*"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NEITHER = bytes({*range(256)} - {*b'[]{}"'})


def _is_too_deep(text: bytes) -> bool:
    """Return whether a JSON text is nested deeper than every engine reads: by its brackets, which is quick."""
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    # those in strings go; that two quotes without anything between them go first changes no other's side, and is quick
    brackets = _ESCAPED.sub(b"", text).translate(_SQUARE, _NEITHER)
    brackets = _STRING.sub(b"", brackets.replace(b'""', b""))
    for _ in range(DEEPEST):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")  # the innermost
    return bool(brackets)


def _first_fault(value: object, place: str) -> tuple[str, object]:
    """Return the place in a value, and what is there that JSON would change."""
    while True:
        inner: Iterable[tuple[str, object]] = ()
        if isinstance(value, list):
            inner = ((f"{place}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or not _reads_back(key):
                    return f"a key of {place}", key
            inner = ((_below(place, key), item) for key, item in value.items())
        fault = next((found for found in inner if not _reads_back(found[1])), None)
        if fault is None:
            return place, value
        place, value = fault


def _reads_back(value: object) -> bool:
    try:
        return bool(decode_json_quickly(_encode(value)) == value)
    except (ValueError, TypeError, msgspec.DecodeError):
        return False


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if key.isidentifier() else f"{place}[{key!r}]"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")
