"""Time, JSON and ids as both engines store them: the text on one side, the Python value on the other.

Nothing here knows a table or a driver.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
import uuid_utils

__all__ = [
    "decode_json",
    "decode_json_quickly",
    "encode_json",
    "millisecond",
    "moment_to_text",
    "new_id",
    "now",
    "plain_json",
    "plain_json_text",
    "time_from_text",
    "time_to_text",
]


def new_id() -> str:
    """Return a new UUIDv7 as text: ordered in time, so that inserts stay at the right edge of the B-tree."""
    return str(uuid_utils.uuid7())


def now() -> datetime:
    """Return the current time, in UTC, cut to the whole millisecond."""
    return datetime.fromtimestamp(time.time_ns() // 1_000_000 / 1000, UTC)


def millisecond(moment: datetime) -> datetime:
    """Return the aware datetime in UTC, cut to the whole millisecond, which is what the database stores.

    Raises:
        TypeError: It is no datetime.
        ValueError: It is naive, or so close to year 1 or 9999 that it has no UTC equivalent.
    """
    if type(moment) is datetime and moment.tzinfo is UTC and not moment.microsecond % 1000 and not moment.fold:
        return moment
    if not isinstance(moment, datetime):
        raise TypeError(f"expected a datetime, got {moment!r}")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"naive datetime {moment!r}: say which time zone it is in, such as datetime.now(UTC)")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{moment!r} cannot be expressed in UTC within the years 1 to 9999") from error
    whole = moment.microsecond // 1000 * 1000
    # a plain datetime, also from a subclass
    return datetime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, whole, tzinfo=UTC)


def time_to_text(moment: datetime) -> str:
    """Return a UTC datetime, cut to the whole millisecond, as `YYYY-MM-DDTHH:MM:SS.mmmZ`."""
    # msgspec writes a datetime in a tenth of the time that isoformat takes: "…SS.mmm000Z", or "…SSZ" for a whole second
    text = _encode(moment)
    return (text[1:24] + b"Z" if len(text) == 29 else text[1:20] + b".000Z").decode()


def moment_to_text(moment: datetime | None) -> str:
    """Return a caller's `now` as text, cut to the whole millisecond; None is the current time.

    Raises:
        TypeError, ValueError: As `millisecond`.
    """
    if moment is None:
        return _now_to_text()
    if type(moment) is not datetime or moment.tzinfo is not UTC:
        moment = millisecond(moment)
    return time_to_text(moment)


# The last second for which the current time was written, and its text.
_second = (0, "")


def _now_to_text() -> str:
    # The text of the second is kept: after a commit the caches are cold, and a datetime made and written costs 6 µs of
    # the 50 of a short transaction, this a fifth of that.
    global _second  # noqa: PLW0603 - one tuple, replaced as a whole: threads may come at once
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    known, text = _second
    if second != known:
        text = time_to_text(datetime.fromtimestamp(second, UTC))[:20]
        _second = (second, text)
    return f"{text}{nanoseconds // 1_000_000:03}Z"


time_from_text: Callable[[str], datetime] = datetime.fromisoformat


_encode = msgspec.json.Encoder().encode

#: `decode_json` for almost every text, and a tenth of a microsecond faster. It raises for the few that need the other.
decode_json_quickly: Callable[[str | bytes], Any] = msgspec.json.Decoder().decode


def encode_json(value: object) -> str:
    """Return the value as JSON text.

    Raises:
        TypeError: Something in it has no JSON form.
        ValueError: A float in it is not finite, a text is not Unicode, or it is nested too deep.
    """
    try:
        text = _encode(value).decode()
        # msgspec writes NaN and infinity as null, without a word; to look for it in bytes takes twice as long
        if "null" in text:
            _refuse_not_finite(value)
        return text
    except RecursionError as error:
        raise ValueError("nested too deep for JSON") from error


def decode_json(text: str) -> Any:
    """Return the value of a JSON text. Integers of any size stay exact.

    Raises:
        ValueError: The text is not JSON, or has an integer of more digits than Python reads
            (`sys.set_int_max_str_digits`: 4,300 unless set).
    """
    try:
        return decode_json_quickly(text)
    except (msgspec.DecodeError, RecursionError):
        # What SQLite calls valid and msgspec does not: numbers past the range of a float, lone surrogates, and whatever
        # follows a NUL, where SQLite stops reading. Python would take NaN and Infinity as well.
        return json.loads(text.partition("\0")[0], parse_constant=_refuse_constant)


def plain_json(value: object) -> Any:
    """Return a copy of the value as it will be read back from the database.

    Raises:
        TypeError: It would not read back equal (a tuple comes back as a list, a key 1 as "1", bytes as text …).
        ValueError: As `encode_json`.
    """
    return _text_and_copy(value)[1]


def plain_json_text(value: object) -> str:
    """Return the value as JSON text that will read back equal.

    Raises:
        TypeError, ValueError: As `plain_json`.
    """
    return _text_and_copy(value)[0].decode()


def _text_and_copy(value: object) -> tuple[bytes, Any]:
    try:
        text = _encode(value)
        copy = decode_json_quickly(text)
        if copy == value:
            return text, copy
    except RecursionError as error:
        raise ValueError("nested too deep for JSON") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode: {error}") from error
    except msgspec.DecodeError:
        pass
    _refuse_not_finite(value)
    raise TypeError(
        "not plain JSON: it would read back as a different value; "
        "use dict with text keys, list, str, int, float, bool and None"
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _refuse_not_finite(value: object) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"JSON has no {value!r}")
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_not_finite(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _refuse_not_finite(item)
