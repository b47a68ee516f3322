"""Configurations: what each function of `dao.configurations` promises."""

from __future__ import annotations

import enum
import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any

import attrs
import pytest

import dao
from dao import configurations
from dao.engine import fetch

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

NAIVE = datetime(2025, 1, 1)  # noqa: DTZ001 - it is naive on purpose


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


@attrs.frozen
class Limits:
    """An attrs class with a validator and a private attribute."""

    retries: int = attrs.field(validator=attrs.validators.ge(0))
    _hidden: str = "hush"
    ratio: float = 0.5


@attrs.define
class Agent:
    """An attrs class with a converter, and with objects inside."""

    name: str = attrs.field(converter=str.strip)
    limits: Limits
    backups: list[Limits] = attrs.field(factory=list)
    by_name: dict[str, int] = attrs.field(factory=dict)
    colour: Colour = Colour.RED
    parent: Agent | None = None
    since: datetime | None = None
    pause: timedelta = timedelta(milliseconds=1)
    price: Decimal = Decimal("1.10")


FULL_AGENT = Agent(
    name="a",
    limits=Limits(3, "s", 1.25),
    backups=[Limits(0), Limits(2**70)],
    by_name={"ä": -1},
    colour=Colour.BLUE,
    parent=Agent("b", Limits(1)),
    since=datetime(2025, 1, 15, 12, 0, 0, 1, tzinfo=UTC),
    pause=timedelta(days=-1, microseconds=7),
    price=Decimal("-0.00"),
)

# Each value, and the text under which it is stored.
ROUND_TRIPS = [
    ("text 'with' \"quotes\" 🐍 \0", str, None),
    ("", str, '""'),
    ("5", str, '"5"'),
    (0, int, "0"),
    (2**63 - 1, int, "9223372036854775807"),
    (-(2**63) - 1, int, "-9223372036854775809"),
    (2**200 + 1, int, str(2**200 + 1)),
    (0.1, float, "0.1"),
    (5.0, float, "5.0"),
    (1e300, float, None),
    (True, bool, "true"),
    (False, bool, "false"),
    ([1, "a", None, [2.5]], list, '[1,"a",null,[2.5]]'),
    ([1, 2], list[int], "[1,2]"),
    ([], list[int], "[]"),
    ({"a": {"b": [1]}}, dict, '{"a":{"b":[1]}}'),
    ({"a": 1}, dict[str, int], '{"a":1}'),
    (datetime(2025, 1, 15, 12, tzinfo=UTC), datetime, '"2025-01-15T12:00:00Z"'),
    (datetime(2025, 1, 15, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=-5))), datetime, None),
    (timedelta(days=1, seconds=2, microseconds=3), timedelta, '"P1DT2.000003S"'),
    (timedelta.min, timedelta, None),
    (timedelta.max, timedelta, None),
    (Decimal("1.10"), Decimal, '"1.10"'),
    (Decimal("1E+50"), Decimal, '"1E+50"'),
    (Colour.RED, Colour, '"red"'),
    (Level.HIGH, Level, "2"),
    (dao.TaskStatus.FAILED, dao.TaskStatus, '"failed"'),
    (Limits(3), Limits, '{"retries":3,"_hidden":"hush","ratio":0.5}'),
    (FULL_AGENT, Agent, None),
]


def stored_text(connection: Any, key: str) -> str | None:
    rows = fetch(connection, "SELECT value FROM configurations WHERE key = $1", (key,))
    return rows[0][0] if rows else None


# ---------------------------------------------------------------- set, get


def test_set_value_of_a_type_reads_back_exactly(connection):
    """A value comes back as its type, equal to the digit, and is stored as JSON that others can read."""
    for value, kind, text in ROUND_TRIPS:
        configurations.set(connection, "key", value)
        found = configurations.get(connection, "key", kind)
        assert found == value
        assert type(found) is type(value), value
        assert repr(found) == repr(value)  # Decimal("1.1") equals Decimal("1.10")
        if text is not None:
            assert stored_text(connection, "key") == text


def test_get_takes_a_type_with_metadata_that_cannot_be_hashed(connection):
    """Decoders are kept by type; a type that cannot be a key of that has one made for the call."""
    configurations.set(connection, "agent.retries", 3)
    assert configurations.get(connection, "agent.retries", Annotated[int, {"unit": "times"}]) == 3
    with pytest.raises(dao.ConfigurationTypeError):
        configurations.get(connection, "agent.retries", Annotated[str, {"unit": "times"}])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (2**200, 2**200),
        ([1, {"a": None}], [1, {"a": None}]),
        (timedelta(seconds=1), "PT1S"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Limits(3), {"retries": 3, "_hidden": "hush", "ratio": 0.5}),
    ],
    ids=repr,
)
def test_get_without_a_type_returns_what_json_has(connection, value, plain):
    """Without a type nothing is turned back into Python's own types."""
    configurations.set(connection, "key", value)
    assert configurations.get(connection, "key") == plain


def test_get_unknown_key_returns_the_default(connection):
    """Without a value there is None, or the default as it is, whatever type was asked for."""
    default = object()
    assert configurations.get(connection, "nobody") is None
    assert configurations.get(connection, "nobody", int) is None
    assert configurations.get(connection, "nobody", int, default) is default
    assert configurations.get(connection, "nobody", default=default) is default
    assert configurations.exists(connection, "nobody") is False


def test_get_stored_none_is_not_the_default(connection):
    """None is a value: it is there, and it is of no other type."""
    configurations.set(connection, "key", None)
    assert configurations.exists(connection, "key") is True
    assert configurations.get(connection, "key", default=5) is None
    with pytest.raises(dao.ConfigurationTypeError):
        configurations.get(connection, "key", int, 5)


WRONG_TYPES = [
    ("5", int, "str"),
    ("5", float, "str"),
    ("true", bool, "str"),
    ("", dict, "str"),
    (5, str, "int"),
    (1, bool, "int"),
    (0, bool, "int"),
    (5, list, "int"),
    (5, timedelta, "int"),
    (2**70, str, "int"),
    (5.0, int, "float"),
    (2.5, int, "float"),
    (True, int, "bool"),
    (True, float, "bool"),
    (False, str, "bool"),
    (None, str, "NoneType"),
    ([1], dict, "list"),
    ([1, "a"], list[int], "list"),
    ([True], list[int], "list"),
    ({"a": 1}, list, "dict"),
    ({"a": "b"}, dict[str, int], "dict"),
    ("yesterday", datetime, "str"),
    ("P", timedelta, "str"),
    ("1,5", Decimal, "str"),
    ("green", Colour, "str"),
    (3, Level, "int"),
    ({}, Limits, "dict"),
    ({"retries": "3"}, Limits, "dict"),
    ({"retries": True}, Limits, "dict"),
    ({"retries": -1}, Limits, "dict"),
    ({"retries": 1, "extra": 2}, Limits, "dict"),
    ({"name": "a", "limits": {"retries": None}}, Agent, "dict"),
    ([], Limits, "list"),
    ("text", Limits, "str"),
    (None, Limits, "NoneType"),
]


def test_get_value_of_another_type_raises_configuration_type_error(connection):
    """Nothing is converted: the error names the key, what was expected and what is there."""
    for value, kind, found in WRONG_TYPES:
        configurations.set(connection, "limits.max", value)
        with pytest.raises(dao.ConfigurationTypeError, match=r"'limits\.max': expected .*, found .* \(.+\)") as caught:
            pytest.fail(f"{configurations.get(connection, 'limits.max', kind)!r} was returned for {value!r}")
        assert (caught.value.key, caught.value.expected, caught.value.found) == ("limits.max", kind, found)
        assert isinstance(caught.value, TypeError)
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, r"it is missing @ \$\.name; it is missing @ \$\.limits"),
        ({"name": "a", "limits": {"retries": "3"}}, r"Expected `int`, got `str` @ \$\.limits\.retries"),
        ({"name": "a", "limits": {"retries": -1}}, r"'retries' must be >= 0: -1 @ \$\.limits"),
        ({"name": "a", "limits": {"retries": 1, "x": 1}}, r"Extra fields .* x @ \$\.limits"),
    ],
    ids=str,
)
def test_get_attrs_object_that_does_not_fit_says_where(connection, value, reason):
    """The message leads to the field that is wrong, in nested objects too."""
    configurations.set(connection, "agent", value)
    with pytest.raises(dao.ConfigurationTypeError, match=reason):
        configurations.get(connection, "agent", Agent)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [(5, float, 5.0), (5, int | None, 5), (None, int | None, None), ({"retries": 1}, Limits, Limits(1))],
    ids=str,
)
def test_get_same_value_in_another_form_is_read(connection, value, kind, expected):
    """A whole number is a float, a union takes either, and what an object leaves out has its default."""
    configurations.set(connection, "key", value)
    found = configurations.get(connection, "key", kind)
    assert found == expected
    assert type(found) is type(expected)


def test_get_attrs_object_runs_converters(connection):
    """An object that is read is made by its class: converters apply."""
    configurations.set(connection, "agent", {"name": "  a ", "limits": {"retries": 1}})
    assert configurations.get(connection, "agent", Agent).name == "a"


@attrs.define
class Forgetful:
    """An attrs class whose objects `__init__` alone does not make again."""

    kept: int
    lost: int = attrs.field(default=0, init=False)


def forgetful() -> Forgetful:
    value = Forgetful(1)
    value.lost = 2
    return value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ((1, 2), TypeError),
        ({1, 2}, TypeError),
        (b"bytes", TypeError),
        ({1: "a"}, TypeError),
        ([(1,)], TypeError),
        pytest.param(object(), TypeError, id="object"),
        (Limits, TypeError),
        ([Limits(1)], TypeError),
        ({"at": datetime(2025, 1, 1, tzinfo=UTC)}, TypeError),
        (date(2025, 1, 1), TypeError),
        (Decimal("NaN"), TypeError),
        (forgetful(), TypeError),
        (NAIVE, ValueError),
        (Agent("a", Limits(1), since=NAIVE), ValueError),
        (math.nan, ValueError),
        ([math.inf], ValueError),
        ("\ud800", ValueError),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_set_value_that_would_not_read_back_changes_nothing(connection, value, error):
    """What JSON cannot hold as it is is refused, and the value before stays, of a whole batch too."""
    configurations.set(connection, "key", "before")
    with pytest.raises(error):
        configurations.set(connection, "key", value)
    with pytest.raises(error):
        configurations.set_many(connection, {"other": 1, "key": value})
    assert configurations.get_all(connection) == {"key": "before"}


@pytest.mark.parametrize(("key", "error"), [("", ValueError), (5, TypeError), (None, TypeError)])
def test_set_key_that_is_no_name_is_refused(connection, key, error):
    """A key is a text, and not empty."""
    with pytest.raises(error):
        configurations.set(connection, key, 1)
    assert configurations.get_all(connection) == {}


def test_set_existing_key_replaces_the_value_and_its_type(connection):
    """The last value counts, of whatever type; `updated_at` moves on even if it is the same."""
    configurations.set(connection, "key", 5)
    first = configurations.get_record(connection, "key")
    configurations.set(connection, "key", [1])
    second = configurations.get_record(connection, "key")
    configurations.set(connection, "key", [1])
    third = configurations.get_record(connection, "key")
    assert [first.value, second.value, third.value] == [5, [1], [1]]
    assert first.updated_at < second.updated_at < third.updated_at
    assert len(configurations.get_all(connection)) == 1


def test_set_value_changed_later_stays_as_it_was(connection):
    """The database holds a copy: nobody changes it from afar."""
    value = {"a": [1]}
    configurations.set(connection, "key", value)
    value["a"].append(2)
    configurations.get(connection, "key")["a"].append(3)
    assert configurations.get(connection, "key") == {"a": [1]}


# ---------------------------------------------------------------- set_many, get_record, get_all


def test_set_many_values_are_all_stored(connection):
    """New keys and old ones are written; nothing is nothing to write."""
    configurations.set(connection, "a", 1)
    configurations.set_many(connection, {})
    configurations.set_many(connection, {"a": 2, "b": Limits(3), "c": Decimal(1)})
    assert configurations.get_all(connection) == {"a": 2, "b": attrs.asdict(Limits(3)), "c": "1"}


def test_get_record_known_and_unknown_key(connection):
    """The record has the value as JSON has it and the time of its change; None if there is none."""
    before = dao.codec.now()
    configurations.set(connection, "key", Decimal("1.10"))
    record = configurations.get_record(connection, "key")
    assert record == dao.Configuration(key="key", value="1.10", updated_at=record.updated_at)
    assert before <= record.updated_at <= dao.codec.now()
    assert configurations.get_record(connection, "nobody") is None


# The last code point, and the neighbours of the surrogates, which are none: the ends of ranges of prefixes.
LAST, BEFORE_GAP, AFTER_GAP = "\U0010ffff", "\ud7ff", "\ue000"
KEYS = ["a", "a.b", "a.b.c", "a/", "aa", "a_b", "a%b", "b", "B", "ä", "a" + LAST, "a" + LAST + LAST, LAST, LAST + "a"]
KEYS += [BEFORE_GAP, BEFORE_GAP + "x", AFTER_GAP]


def test_get_all_prefix_returns_what_begins_with_it_by_key(connection):
    """Exactly the keys that begin with the prefix come, by their code points; no character is a wildcard."""
    configurations.set_many(connection, {key: number for number, key in enumerate(KEYS)})
    for prefix in ["", "A", "a_", "a%", "x", *KEYS]:
        found = configurations.get_all(connection, prefix)
        assert [*found.items()] == [(key, KEYS.index(key)) for key in sorted(KEYS) if key.startswith(prefix)], prefix


def test_get_all_empty_table_is_empty(connection):
    """No settings are an empty dict."""
    assert configurations.get_all(connection) == {}
    assert configurations.get_all(connection, "a") == {}


# ---------------------------------------------------------------- delete


def test_delete_known_key_is_gone_and_safe_to_repeat(connection):
    """The first call deletes that setting alone and says so; the second finds nothing."""
    configurations.set_many(connection, {"a": 1, "b": 2})
    assert configurations.delete(connection, "a") is True
    assert configurations.delete(connection, "a") is False
    assert configurations.get_all(connection) == {"b": 2}


# ---------------------------------------------------------------- what is loaded


def test_get_plain_value_does_not_import_cattrs(url):
    """Only who stores attrs objects pays for cattrs."""
    code = f"""
import sys, attrs, dao
from dao import configurations
connection = dao.connect({url!r})
configurations.set(connection, "key", 5)
assert configurations.get(connection, "key", int) == 5
try:
    configurations.get(connection, "key", str)
except dao.ConfigurationTypeError:
    pass
assert "cattrs" not in sys.modules
Point = attrs.make_class("Point", {{"x": attrs.field(type=int)}})
configurations.set(connection, "key", Point(1))
assert configurations.get(connection, "key", Point) == Point(1)
assert "cattrs" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
