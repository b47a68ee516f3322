"""Configurations: settings by key. The table `configurations`, its SQL and the functions that run it.

A value is stored as JSON text, so that it keeps its type. Values that JSON does not have become text: a datetime in
ISO 8601, a timedelta as an ISO 8601 duration, a Decimal as its digits; an enum as its value, an attrs object as a
dict.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeVar, overload

import attrs
import msgspec

from dao import codec, stored
from dao.engine import Connection, execute, execute_many, fetch
from dao.engine.keys import by_keys, records_by_keys
from dao.errors import ConfigurationTypeError, InvalidValue
from dao.records import Configuration
from dao.rows import CONFIGURATIONS

__all__ = ["delete", "exists", "get", "get_all", "get_many", "get_one", "get_record", "set", "set_many"]

T = TypeVar("T")
D = TypeVar("D")

_GET = CONFIGURATIONS.get
_GET_MANY = by_keys(CONFIGURATIONS)
_GET_VALUE = "SELECT value FROM configurations WHERE key = $1"
_GET_ALL = "SELECT key, value FROM configurations ORDER BY key"
_GET_PREFIX = "SELECT key, value FROM configurations WHERE key >= $1 AND key < $2 ORDER BY key"
_EXISTS = "SELECT 1 FROM configurations WHERE key = $1"
_SET = f"{CONFIGURATIONS.insert} ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM configurations WHERE key = $1"

_ABSENT = object()
_AS_TEXT = (datetime, timedelta, Decimal, enum.Enum)


def set(connection: Connection, key: str, value: object) -> None:
    """Store a value under a key, in the place of the one that was there.

    Raises:
        TypeError: The value would not read back as it is. Allowed: None, str, int, float, bool, list, dict with text
            keys, datetime, timedelta, Decimal, enum members and attrs objects.
        InvalidValue: The key is empty, a datetime is naive, or a float is not finite.
    """
    execute(connection, _SET, _row(key, value))


def set_many(connection: Connection, values: Mapping[str, object]) -> None:
    """Store several values in one transaction: all of them or none. Otherwise as `set`."""
    # in the same order everywhere, or two that store the same keys could wait for each other
    execute_many(connection, _SET, sorted(_row(key, value) for key, value in values.items()))


@overload
def get(connection: Connection, key: str) -> Any: ...
@overload
def get(connection: Connection, key: str, type: type[T]) -> T | None: ...
@overload
def get(connection: Connection, key: str, type: type[T], default: D) -> T | D: ...
@overload
def get(connection: Connection, key: str, *, default: D) -> Any | D: ...
def get(connection: Connection, key: str, type: Any = Any, default: Any = None) -> Any:
    """Return the value under a key as the given type, or the default if there is none.

    `type` is str, int, float, bool, list, dict, datetime, timedelta, Decimal, an enum, an attrs class, or such a thing
    as `list[int]`. Nothing is converted that is not the same value: the text "5" is no int, 5 is a float, true is
    neither. Without a type the value comes as JSON has it.

    Raises:
        ConfigurationTypeError: The value is not of that type.
        UnreadableRow: The stored text is not JSON.
    """
    rows = fetch(connection, _GET_VALUE, (key,))
    if not rows:
        return default
    try:
        return _decoder(type)(rows[0][0])
    except Exception as error:
        # cattrs raises an ExceptionGroup of whatever the class raised
        if type is not Any and not attrs.has(type) and not isinstance(error, msgspec.DecodeError):
            raise
        return _recovered(key, rows[0][0], type, error)


@overload
def get_one(connection: Connection, key: str) -> Any: ...
@overload
def get_one(connection: Connection, key: str, type: type[T]) -> T: ...
def get_one(connection: Connection, key: str, type: Any = Any) -> Any:
    """Return the value under a key, as `get` does.

    Raises:
        NotFound: There is none.
        ConfigurationTypeError: The value is not of that type.
        UnreadableRow: The stored text is not JSON.
    """
    value = get(connection, key, type, _ABSENT)
    if value is _ABSENT:
        raise CONFIGURATIONS.not_found(key)
    return value


def get_record(connection: Connection, key: str) -> Configuration | None:
    """Return the setting with its `updated_at`, or None."""
    return CONFIGURATIONS.first(fetch(connection, _GET, (key,)))


def get_all(connection: Connection, prefix: str = "") -> dict[str, Any]:
    """Return all settings whose keys begin with the prefix, by key, with the values as JSON has them."""
    codec.check_text(prefix, "prefix")
    end = _end_of_prefix(prefix)
    rows = fetch(connection, _GET_ALL) if end is None else fetch(connection, _GET_PREFIX, (prefix, end))
    return {key: _decoded(key, text) for key, text in rows if key.startswith(prefix)}


def get_many(connection: Connection, keys: Iterable[str]) -> dict[str, Any]:
    """Return the values under these keys, as JSON has them, by key, in their order; others are left out.

    One statement, for thousands of them, too.

    Raises:
        InvalidValue: No row can have such a key: half of a surrogate pair, a NUL.
        UnreadableRow: A stored text is not JSON.
    """
    found = records_by_keys(connection, CONFIGURATIONS, _GET_MANY, keys)
    return {key: record.value for key, record in found.items()}


def exists(connection: Connection, key: str) -> bool:
    """Return whether there is a value under this key."""
    return bool(fetch(connection, _EXISTS, (key,)))


def delete(connection: Connection, key: str) -> bool:
    """Delete a setting. Return whether it was there. Safe to repeat."""
    return bool(execute(connection, _DELETE, (key,)))


def _end_of_prefix(prefix: str) -> str | None:
    """Return the first text, in code point order, that is after all that begin with the prefix; None if none is."""
    trimmed = prefix.rstrip("\U0010ffff")
    if not trimmed:
        return None
    after = ord(trimmed[-1]) + 1
    return trimmed[:-1] + chr(0xE000 if after == 0xD800 else after)


# ---------------------------------------------------------------- values


def _row(key: str, value: object) -> tuple[Any, ...]:
    return CONFIGURATIONS.to_row(Configuration(key=key, value=_json(value)))


def _json(value: object) -> object:
    """Return the value as plain JSON, sure to read back the same."""
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is None:
            raise InvalidValue(f"naive datetime {value!r}: say which time zone it is in, such as datetime.now(UTC)")
        # an hour that the zone's clocks show twice equals none in another zone (PEP 495), but its offset says which
        value = value.replace(tzinfo=timezone(offset), fold=0)
    if isinstance(value, _AS_TEXT):
        kind: Any = type(value)
        try:
            text = msgspec.json.encode(value)
            if msgspec.json.decode(text, type=kind) == value:
                return msgspec.json.decode(text)
        except (TypeError, ArithmeticError, msgspec.ValidationError):
            pass  # ArithmeticError: a signalling NaN cannot even be compared
        raise TypeError(f"{value!r} cannot be stored: it would not read back the same")
    if attrs.has(type(value)):
        converter = _converter()
        plain = converter.unstructure(value)
        if converter.structure(codec.plain_json(plain, "value"), type(value)) != value:
            raise TypeError(f"{value!r} cannot be stored: it would not read back the same")
        return plain
    return value


def _decoded(key: str, text: str) -> Any:
    return stored.decoded(Configuration, (key,), "value", text)


def _decoder(kind: Any) -> Callable[[str], Any]:
    try:
        return _kept_decoder(kind)
    except TypeError:  # a type with metadata that cannot be hashed; or one that msgspec refuses, which does so again
        return _kept_decoder.__wrapped__(kind)


@functools.lru_cache(256)
def _kept_decoder(kind: Any) -> Callable[[str], Any]:
    """Return the function that makes a value of this type of its JSON text."""
    if attrs.has(kind):
        return lambda text: _converter().structure(codec.decode_json(text), kind)
    return msgspec.json.Decoder(kind).decode


def _recovered(key: str, text: str, kind: Any, error: Exception) -> Any:
    """Return the value that the decoder of a type did not take, or raise the error that says why."""
    found = _decoded(key, text)
    if kind is Any:
        return found
    expected = getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)
    raise ConfigurationTypeError(
        f"configuration {key!r}: expected {expected}, found {type(found).__name__} ({_reason(error)})",
        key=key,
        expected=kind,
        found=type(found).__name__,
    ) from error


def _reason(error: BaseException) -> str:
    if not isinstance(error, BaseExceptionGroup):
        return str(error)
    from cattrs import transform_error  # noqa: PLC0415 - only cattrs raises groups: it is loaded already

    def describe(inner: BaseException, _kind: object) -> str:
        return "it is missing" if isinstance(inner, KeyError) else str(inner)

    return "; ".join(transform_error(error, format_exception=describe))


@functools.cache
def _converter() -> Any:
    """Return a cattrs converter that is as strict about plain values as msgspec is."""
    # cattrs takes long to import, and only attrs objects need it
    from cattrs.preconf.json import make_converter  # noqa: PLC0415 - see above

    converter = make_converter(forbid_extra_keys=True)
    for plain in (str, int, float, bool, datetime, timedelta, Decimal):
        converter.register_structure_hook(plain, msgspec.convert)
    for text in (datetime, timedelta, Decimal):
        converter.register_unstructure_hook(text, _json)
    return converter
