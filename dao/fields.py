"""The fields of records: validators, converters and defaults. They repeat the constraints of `sql/`.

Each raises TypeError or InvalidValue with the field's name first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from dao import codec
from dao.errors import InvalidValue

__all__ = [
    "BOOLEAN",
    "JSON",
    "MAX_INTEGER",
    "TIME",
    "WHEN_CREATED",
    "boolean",
    "converted",
    "is_unicode",
    "json_object",
    "members",
    "name_in_errors",
    "natural",
    "not_blank",
    "not_empty",
    "one_of",
    "text",
    "when_created",
    "whole",
]

#: The largest INTEGER that SQLite and PostgreSQL (bigint) store.
MAX_INTEGER = 2**63 - 1

#: Metadata of a field that is stored in another form than its own.
TIME, JSON, BOOLEAN = ({"column": kind} for kind in ("time", "json", "boolean"))


def one_of(kind: type[enum.Enum]) -> dict[str, Any]:
    """Return the metadata of a field that holds a member of an enum, or None: its converter does not tell."""
    return {"members": kind}


_WHEN_CREATED = object()


def when_created() -> Any:
    """Return what stands for the time at which the record was made: one that was never stored was last changed then.

    The converter puts that in its place, and no factory that takes the record, which msgspec cannot call.
    """
    return _WHEN_CREATED


WHEN_CREATED: Any = attrs.Factory(when_created)


def is_unicode(value: str) -> bool:
    """Return whether a text has a UTF-8 form; one with a lone surrogate has none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(record: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse anything but a text that can be stored."""
    codec.check_text(value, f"{type(record).__name__}.{attribute.name}")


def not_blank(record: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Refuse a text of white space only, as `str.isspace` defines it; the CHECK constraints list its characters."""
    text(record, attribute, value)
    if not value.strip():
        raise InvalidValue(f"{type(record).__name__}.{attribute.name} must not be blank, got {value!r}")


def not_empty(record: object, attribute: attrs.Attribute[Any], value: str) -> None:
    """Refuse a text without characters."""
    text(record, attribute, value)
    if not value:
        raise InvalidValue(f"{type(record).__name__}.{attribute.name} must not be empty")


@attrs.frozen
class whole:  # noqa: N801 - it makes a validator, and stands where the functions do
    """Refuses anything but a whole number within bounds."""

    least: int
    most: int

    def __call__(self, record: object, attribute: attrs.Attribute[Any], value: object) -> None:
        """Check a value."""
        if type(value) is not int:
            raise TypeError(f"{type(record).__name__}.{attribute.name} must be an int, got {value!r}")
        if not self.least <= value <= self.most:
            raise InvalidValue(
                f"{type(record).__name__}.{attribute.name} must be from {self.least} to {self.most}, got {value!r}"
            )


natural = whole(0, MAX_INTEGER)


def boolean(record: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse anything but True and False."""
    if type(value) is not bool:
        raise TypeError(f"{type(record).__name__}.{attribute.name} must be a bool, got {value!r}")


def json_object(value: Mapping[str, Any], name: str = "value") -> dict[str, Any]:
    """Return a copy of a dict as it will be read back."""
    if not isinstance(value, dict):
        raise TypeError(f"{name}: must be a dict, got {value!r}")
    plain: dict[str, Any] = codec.plain_json(value, name)
    return plain


def name_in_errors(_cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Put the field's name in front of the converters' errors, as the validators put it in front of theirs."""

    def named(field: attrs.Attribute[Any]) -> attrs.Attribute[Any]:
        convert: Any = field.converter
        name = field.name
        if convert is None or isinstance(convert, enum.EnumMeta):
            return field  # an enum names itself
        if field.metadata.get("column") == "json":
            return field.evolve(converter=lambda value: convert(value, name))  # it names the place in the value

        def converter(value: Any) -> Any:
            try:
                return convert(value)
            except (TypeError, ValueError) as error:
                kind = InvalidValue if isinstance(error, ValueError) else type(error)
                raise kind(f"{name}: {error}") from error

        def or_when_created(value: Any, record: Any) -> Any:
            return record.created_at if value is _WHEN_CREATED else converter(value)

        if field.default is WHEN_CREATED:
            return field.evolve(converter=attrs.Converter(or_when_created, takes_self=True))
        return field.evolve(converter=converter)

    return [named(field) for field in fields]


def converted(field: attrs.Attribute[Any], value: object, record: object) -> Any:
    """Return the value of a field of a record as its converter makes it."""
    convert: Any = field.converter
    return convert.converter(value, record) if hasattr(convert, "takes_self") else convert(value)


def members(field: attrs.Attribute[Any]) -> dict[object, object]:
    """Return the values that the column of a boolean or an enum can hold, each with its meaning; else nothing."""
    if field.metadata.get("column") == "boolean":
        return {0: False, 1: True}
    if kind := field.metadata.get("members"):
        return {None: None, **kind._value2member_map_}
    return dict(getattr(field.converter, "_value2member_map_", {}))
