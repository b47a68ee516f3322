"""The base of the records: columns that are decoded when they are first read, and the plain-dict forms.

A record is made from a row: one of the database, or one that `__init__` made of values. JSON stays in that row until it
is first read, and a time is held as its text. So a record costs next to nothing if only its id is read, or if it is
stored as it was made; to read all its columns takes half as long again as if they had been decoded at once. Nobody can
tell whether a column was decoded: `_DecodedFirst` says how.
"""

from __future__ import annotations

import enum
import reprlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import attrs

from dao import codec
from dao.errors import InvalidValue, UnreadableRow
from dao.fields import converted
from dao.initialiser import initialiser

__all__ = ["Stored", "decoded", "unreadable"]


class _DecodedFirst:
    """`record.__dataclass_fields__`, which no record has: to look for it decodes the record.

    msgspec reads the slots of an attrs object at their offsets, past every property, but looks for this name first. The
    class must not have it: a library that takes it for a dataclass makes records past the validators.
    """

    def __get__(self, record: Stored | None, kind: type[Stored]) -> object:
        if record is not None:
            for name in kind.__later__:
                slot = getattr(kind, f"_{name}")
                try:
                    slot.__set__(record, getattr(record, name))
                except Exception as error:  # noqa: BLE001 - msgspec would hide it
                    # an encoder refuses an error, where it would have written the row
                    held = slot.__get__(record)
                    slot.__set__(record, (*held, error) if type(held) is tuple else (held, error))
        raise AttributeError(f"type object {kind.__name__!r} has no attribute '__dataclass_fields__'")


class Stored:
    """Base of the records: columns decoded on first access, and the plain-dict forms."""

    __slots__ = ()
    __dataclass_fields__ = _DecodedFirst()

    __table__: ClassVar[str]
    __key__: ClassVar[tuple[str, ...]] = ("id",)

    #: The columns that are decoded later. Under `config` is the slot `_config`, which holds the value or the row.
    __later__: ClassVar[tuple[str, ...]] = ()
    #: A mutable class of the same layout: an object is filled as one, and then turned into the frozen class, in a
    #: third of the time of `object.__setattr__`. It is a subclass because the turn would compare the slots of any
    #: other class.
    __twin__: ClassVar[type]

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        later = []
        for position, field in enumerate(attrs.fields(cls)):  # type: ignore[arg-type] # it is an attrs class by now
            if field.metadata.get("column") in {"json", "time"}:
                later.append(field.name)
                slot = cls.__dict__.get(field.name)
                if slot is not None:  # as in a class of somebody's own, on one of these
                    setattr(cls, f"_{field.name}", slot)
                    is_time = field.metadata["column"] == "time"
                    attribute = _time(cls, field, slot) if is_time else _json(cls, field, slot, position)
                    setattr(cls, field.name, attribute)
        cls.__later__ = tuple(later)
        if "__table__" in cls.__dict__:
            # both of a pair, or Python code would still run for each assignment
            own = ("__init__", "__setattr__", "__delattr__")
            cls.__twin__ = type("Twin", (cls,), {"__slots__": (), **{name: getattr(object, name) for name in own}})
            cls.__init__ = initialiser(cls, cls.__twin__, later)  # type: ignore[method-assign]
            # msgspec calls that one, too, but no converters before it
            cls._check = vars(cls).get("__attrs_post_init__", Stored._check)  # type: ignore[method-assign]
            cls.__attrs_post_init__ = Stored._complete  # type: ignore[attr-defined]

    def _check(self) -> None:
        """Refuse values that do not go together."""

    def _complete(self) -> None:
        """Convert the values of a record that was filled without that, by msgspec; for others it changes nothing."""
        for field in attrs.fields(type(self)):  # type: ignore[arg-type] # of its own or of one that was made of it
            if field.name in self.__later__:
                slot = getattr(type(self), f"_{field.name}")
                slot.__set__(self, converted(field, slot.__get__(self), self))
        self._check()

    def __dir__(self) -> list[str]:
        hidden = {"__dataclass_fields__", *(f"_{name}" for name in self.__later__)}
        return [name for name in super().__dir__() if name not in hidden]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dict that any JSON encoder takes: statuses, times and ids as text, JSON decoded."""
        return attrs.asdict(self, recurse=False, value_serializer=_plain)  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the record of which `to_dict` made this dict. Fields that are absent get their defaults.

        Raises:
            InvalidValue: A field is unknown, or its value breaks a rule.
            TypeError: A field that has no default is absent, or a value is of another type.
        """
        fields = attrs.fields_dict(cls)  # type: ignore[arg-type]
        unknown = sorted(data.keys() - fields.keys())
        if unknown:
            raise InvalidValue(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}")
        times = {name for name, field in fields.items() if field.metadata.get("column") == "time"}
        return cls(
            **{
                name: _time_from_json(name, value) if name in times and value is not None else value
                for name, value in data.items()
            }
        )


# ---------------------------------------------------------------- from a row to values


def _json(record: type[Stored], field: attrs.Attribute[Any], slot: Any, position: int) -> property:
    """Return the attribute over a slot that holds either its value or the row, with its text at that position.

    The value stays, since it may be changed in place. No JSON value is a tuple, so that a tuple is the row.
    """
    expected = dict if str(field.type).startswith("dict") else object
    body = f"""
    value = record._{field.name}
    if type(value) is tuple:
        text = value[{position}]
        if {"text is None" if field.default is None else "False"}:
            value = None
        else:
            try:
                value = decode(text)
            except Exception:
                value = recover(record, text)
        store(record, value)
    return value
"""
    decode = codec.decode_json_quickly if expected is object else codec.decode_object
    return _attribute(record, field.name, slot, body, expected, decode=decode)


def _time(record: type[Stored], field: attrs.Attribute[Any], slot: Any) -> property:
    """Return the attribute over a slot that holds either its value or its text.

    The text stays: to keep the value takes longer than to decode it once more.
    """
    body = f"""
    value = record._{field.name}
    if type(value) is str:
        try:
            moment = decode(value)
            if moment.tzinfo is UTC:
                return moment
        except Exception:
            pass
    elif {"value is None or " if field.default is None else ""}isinstance(value, datetime):
        return value
    return recover(record, value[0] if type(value) is tuple else value)
"""
    return _attribute(record, field.name, slot, body, datetime, decode=codec.time_from_text, datetime=datetime, UTC=UTC)


def _attribute(record: type[Stored], name: str, slot: Any, body: str, expected: type, **scope: object) -> property:
    def recover(found: Stored, text: str | None) -> Any:
        return decoded(type(found), [getattr(found, part) for part in record.__key__], name, text, expected)

    scope.update(recover=recover, store=slot.__set__)
    # code with the slot's name reads it in a quarter of the time of slot.__get__
    exec(f"def {name}(record):{body}", scope)  # noqa: S102 - of field names only, as attrs makes `__init__`
    # attrs and pickle store through it; a frozen record refuses any other assignment before
    return property(scope[name], slot.__set__)  # type: ignore[arg-type]


def decoded(kind: type[Stored], key: Sequence[object], column: str, text: str | None, expected: type = object) -> Any:
    """Return the value of the text that a row of a record's table has in a column: a time, or JSON.

    Raises:
        UnreadableRow: It is neither, or not of the expected type, or has a number that Python does not read.
    """
    decode: Callable[[Any], Any] = codec.time_from_text if expected is datetime else codec.decode_json
    try:
        value = decode(text)
        if expected is datetime and value.tzinfo is not UTC:
            raise ValueError("it is not in UTC")
    except (TypeError, ValueError, RecursionError) as error:
        raise unreadable(kind, key, column, text, f"which it cannot read ({error})") from error
    if not isinstance(value, expected):
        raise unreadable(kind, key, column, text, "which is not a JSON object")
    return value


def unreadable(kind: type[Stored], key: Sequence[object], column: str, value: object, why: str) -> UnreadableRow:
    """Return the error for a row of a record's table that holds what its column cannot hold for this program."""
    name = key[0] if len(key) == 1 else tuple(key)
    return UnreadableRow(
        f"{kind.__table__}: {column} of the row {name!r} is {reprlib.repr(value)}, {why}: this program is older than "
        "the data, or somebody wrote past the schema's constraints; run a newer version, or correct the row in SQL",
        table=kind.__table__,
        key=name,
        column=column,
        value=value,
    )


def _plain(_record: object, _field: object, value: object) -> object:
    if isinstance(value, datetime):
        return codec.time_to_text(value)
    return value.value if isinstance(value, enum.Enum) else value


def _time_from_json(name: str, value: object) -> object:
    try:
        return codec.time_from_text(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InvalidValue(f"{name}: {value!r} is no ISO 8601 time") from error
