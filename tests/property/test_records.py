"""Records keep what they are given: through the database, plain dicts, JSON, pickle and `attrs.evolve`."""

from __future__ import annotations

import copy
import decimal
import inspect
import itertools
import json
import pickle
import re
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import codec
from dao.engine import fetch
from dao.testing import (
    make_configuration,
    make_session,
    make_task,
    make_task_dependency,
    make_task_event,
    make_tool_execution,
    make_workflow,
    make_workflow_task,
)
from tests import strategies
from tests.strategies import JSON_COLUMNS, TABLES

pytestmark = pytest.mark.both_engines

MAKERS = {
    dao.Task: make_task,
    dao.TaskDependency: make_task_dependency,
    dao.TaskEvent: make_task_event,
    dao.Workflow: make_workflow,
    dao.WorkflowTask: make_workflow_task,
    dao.ToolExecution: make_tool_execution,
    dao.Session: make_session,
    dao.Configuration: make_configuration,
}
any_record = strategies.records()
# the modules that store a whole record
UPDATED = {"tasks": (dao.tasks, make_task), "workflows": (dao.workflows, make_workflow)}
every_updated = pytest.mark.parametrize("kind", UPDATED)


def stored(connection, record):
    """Store the record and return it as it is read back, its JSON not yet decoded."""
    table = TABLES[type(record)]
    fetch(connection, table.insert, table.to_row(record))
    (found,) = table.from_rows(fetch(connection, f"SELECT {table.listed} FROM {table.name}"))
    return found


def loaded_again(record):
    """Return the record as it is read from its row, its JSON not yet decoded."""
    table = TABLES[type(record)]
    return table.from_rows([table.to_row(record)])[0]


def is_decoded(record, column):
    """Whether the record holds the column's value, rather than the row that has its text."""
    return not isinstance(getattr(record, f"_{column}"), tuple)


def assert_same(found, expected):
    """Equal in every field, also where Python calls different things equal (1, 1.0 and True)."""
    assert found == expected
    assert hash(found) == hash(expected)
    assert repr(found) == repr(expected)


# ---------------------------------------------------------------- through the database


@given(record=any_record)
def test_record_stored_reads_back_equal(fresh, record):
    """Any record that can be made can be stored, and reads back as it was."""
    with fresh(foreign_keys=False) as connection:
        assert_same(stored(connection, record), record)


@given(record=any_record, decoded=st.tuples(st.booleans(), st.booleans()))
def test_record_read_back_is_stored_again_unchanged(fresh, record, decoded):
    """A record that was read gives the row that it came from, whether its JSON was decoded in between or not."""
    with fresh(foreign_keys=False) as connection:
        loaded = stored(connection, record)
    for column in itertools.compress(JSON_COLUMNS[type(record)], decoded):
        getattr(loaded, column)
    to_row = TABLES[type(record)].to_row
    assert to_row(loaded) == to_row(record)


@given(task=strategies.tasks(), workflow=strategies.workflows(), execution=strategies.tool_executions())
def test_create_any_record_get_returns_it(fresh, task, workflow, execution):
    """What the public functions store, they return."""
    with fresh(foreign_keys=False) as connection:
        dao.tasks.create(connection, task)
        dao.workflows.create(connection, workflow)
        dao.tool_executions.record(connection, execution)
        assert_same(dao.tasks.get_one(connection, task.id), task)
        assert_same(dao.workflows.get_one(connection, workflow.id), workflow)
        assert_same(dao.tool_executions.get_one(connection, execution.id), execution)


@given(value_and_type=strategies.configuration_values(), key=strategies.texts(min_size=1))
def test_configurations_set_any_value_get_returns_it_as_its_type(fresh, value_and_type, key):
    """A setting reads back as the value and the type that was set."""
    value, kind = value_and_type
    with fresh() as connection:
        dao.configurations.set(connection, key, value)
        found = dao.configurations.get(connection, key, kind)
    if isinstance(value, datetime):
        # an hour that a zone's clocks show twice equals none in another zone
        found, value = found.astimezone(UTC), value.astimezone(UTC)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("fold", [0, 1])
def test_configurations_set_hour_that_occurs_twice_keeps_which(connection, fold):
    """A time in the hour in which clocks are set back is stored with the offset that it has."""
    zone = pytest.importorskip("zoneinfo").ZoneInfo("Europe/Berlin")
    moment = datetime(2023, 10, 29, 2, 30, tzinfo=zone, fold=fold)
    dao.configurations.set(connection, "when", moment)
    assert dao.configurations.get(connection, "when", datetime).astimezone(UTC) == moment.astimezone(UTC)
    assert dao.configurations.get(connection, "when") == f"2023-10-29T02:30:00+0{2 - fold}:00"


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-sNaN123"])
def test_configurations_set_decimal_not_a_number_is_refused(connection, text):
    """What does not equal itself cannot read back equal."""
    with pytest.raises(TypeError, match="would not read back the same"):
        dao.configurations.set(connection, "amount", decimal.Decimal(text))
    assert not dao.configurations.exists(connection, "amount")


# ---------------------------------------------------------------- through dicts, JSON, pickle, copies


@given(record=any_record)
def test_from_dict_of_to_dict_through_json_returns_equal_record(record):
    """`to_dict` gives what any JSON encoder takes, and `from_dict` makes the same record of it."""
    assert_same(type(record).from_dict(json.loads(json.dumps(record.to_dict()))), record)


@given(record=any_record, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_pickle_record_returns_equal_record(record, protocol):
    """A record survives pickling, whether it was made or read, and so do copies of it."""
    loaded = loaded_again(record)
    for made in (record, loaded):
        assert_same(pickle.loads(pickle.dumps(made, protocol)), record)  # noqa: S301 - it was pickled here
    assert_same(copy.copy(loaded_again(record)), record)
    assert_same(copy.deepcopy(loaded_again(record)), record)


@given(record=any_record)
def test_evolve_record_changes_what_is_named_and_nothing_else(record):
    """`attrs.evolve` works on a record that was read, and shares no JSON value with it."""
    other = MAKERS[type(record)]()
    loaded = loaded_again(record)
    same = attrs.evolve(loaded)
    assert_same(same, record)
    for column in JSON_COLUMNS[type(record)]:
        value = getattr(same, column)
        assert not isinstance(value, dict | list) or value is not getattr(loaded, column)
    changes = {field.name: getattr(other, field.name) for field in attrs.fields(type(record))}
    assert_same(attrs.evolve(loaded, **changes), other)


@given(moment=strategies.moments())
def test_record_any_aware_time_is_kept_in_utc_to_the_millisecond(moment):
    """A time in any zone becomes the same moment in UTC, cut and not rounded to the millisecond."""
    kept = make_configuration(updated_at=moment).updated_at
    assert kept.tzinfo is UTC
    assert kept.microsecond % 1000 == 0
    assert timedelta(0) <= moment - kept < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "value",
    [
        *((1, 2), {1, 2}, b"bytes", bytearray(b"bytes"), {1: "number"}, {None: 1}, {True: 1}, {"a": [{"b": (1,)}]}),
        *(float("nan"), float("inf"), [-float("inf")], {"a": float("nan")}, {"a": None, "b": [float("inf")]}),
        *("\ud800", ["\udfff"], {"\ud800": 1}, {"a": {"b": "\ud800"}}),
        *(object(), decimal.Decimal(1), datetime(2024, 1, 1, tzinfo=UTC), timedelta(1), 1j, 10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_record_value_that_json_would_change_is_refused(value):
    """What has no JSON form, or would read back as something else, makes no record."""
    for make in (
        lambda value: make_configuration(value=value),
        lambda value: make_task(config={"value": value}),
        lambda value: make_tool_execution(input=[value]),
    ):
        with pytest.raises((TypeError, ValueError), match=r"^(a key of )?(value|config|input)\b.*: "):
            make(value)


class _Faked(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Frozen(datetime, metaclass=_Faked):
    """A library that freezes the clock puts such a class in the place of `datetime` in every module."""


class Own(dao.Task):
    """A class of somebody's own, which the `__init__` of attrs fills."""


@pytest.mark.parametrize("kind", [dao.Task, Own])
@pytest.mark.parametrize("given", [{}, {"created_at": Frozen(2025, 1, 2, 3, 4, 5, 678999, tzinfo=UTC)}])
def test_record_under_a_frozen_clock_is_made_read_and_stored(connection, monkeypatch, kind, given):
    """Users freeze the clock in their tests: a time of that library's class is a time."""
    monkeypatch.setattr(codec, "datetime", Frozen)
    assert type(codec.now()) is Frozen
    task = kind(title="a", task_type="b", **given)
    dao.tasks.create(connection, task)
    found = dao.tasks.get_one(connection, task.id)
    assert found.to_dict() == task.to_dict()
    assert found.created_at == codec.millisecond(task.created_at)
    assert dao.tasks.set_status(connection, task.id, "failed", now=codec.now()).completed_at is not None


def test_record_value_that_contains_itself_is_refused():
    """A list within itself is no JSON, and no crash."""
    endless = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested too deep"):
        make_configuration(value=endless)


# ---------------------------------------------------------------- the generated __init__


def made(initialise, kind, given):
    """Return what an `__init__` makes of the arguments: the values of what they determine, or its error."""
    record = object.__new__(kind)
    try:
        initialise(record, **given)
    except Exception as error:  # noqa: BLE001 - whatever it is, it has to be the same
        return type(error), str(error)
    new = {"id", "created_at", "updated_at", "last_heartbeat"} - given.keys()
    if "created_at" in given:
        new -= {"updated_at", "last_heartbeat"}
    assert type(record) is kind
    row = TABLES[kind].to_row(record)
    values = [(name, type(value), repr(value)) for name, value in attrs.asdict(record, recurse=False).items()]
    return [value for value in values if value[0] not in new], [
        text for name, text in zip(TABLES[kind].columns, row, strict=True) if name not in new
    ]


def assert_made_alike(kind, given):
    """Make the record by the generated `__init__` and by that of attrs, from the same arguments."""
    assert made(kind.__init__, kind, given) == made(kind.__init__.__wrapped__, kind, given)


@given(data=st.data(), record=any_record)
def test_init_makes_and_refuses_what_the_one_by_attrs_does(data, record):
    """With some fields absent and some of other values: the same record and row, or the same error."""
    kind = type(record)
    given = attrs.asdict(record, recurse=False)
    absent = data.draw(st.sets(st.sampled_from(sorted(given)), max_size=len(given)))
    strange = data.draw(st.sets(st.sampled_from(sorted(given)), max_size=2))
    given = {name: value for name, value in given.items() if name not in absent}
    given |= {name: data.draw(strategies.field_values()) for name in strange}
    assert_made_alike(kind, given)


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
@given(value=strategies.field_values())
def test_init_each_field_takes_what_the_one_by_attrs_does(kind, value):
    """One field after the other gets a value that may be meant for another."""
    given = attrs.asdict(MAKERS[kind](), recurse=False)
    for name in given:
        assert_made_alike(kind, {**given, name: value})


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_init_is_to_everybody_the_one_by_attrs(kind):
    """Its signature, its name and the errors of a wrong call are those of attrs."""
    by_attrs = kind.__init__.__wrapped__
    assert inspect.signature(kind.__init__) == inspect.signature(by_attrs)
    assert list(inspect.signature(kind).parameters) == [field.name for field in attrs.fields(kind)]
    assert (kind.__init__.__qualname__, kind.__init__.__doc__) == (by_attrs.__qualname__, by_attrs.__doc__)
    assert kind.__init__.__annotations__ == by_attrs.__annotations__
    for wrong in ({"colour": 1}, {}):
        assert made(kind.__init__, kind, wrong) == made(by_attrs, kind, wrong)
    with pytest.raises(TypeError, match="positional"):
        kind("a")


def test_init_of_a_class_of_somebodys_own_makes_that_class():
    """Plain subclasses and attrs subclasses are made, stored and evolved as they are."""

    class Plain(dao.Task):
        __slots__ = ()

    @attrs.frozen(kw_only=True)
    class Wider(dao.Task):
        colour: str = "red"

    for kind in (Plain, Wider):
        task = kind(title="a", task_type="b", config={"a": [1]})
        assert type(task) is kind
        assert task.config == {"a": [1]}
        assert attrs.evolve(task, title="c").title == "c"
        assert type(pickle.loads(pickle.dumps(dao.Task(title="a", task_type="b")))) is dao.Task  # noqa: S301
        assert TABLES[dao.Task].to_row(task)[:4] == (task.id, "a", None, "b")
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            task.title = "c"


def test_init_with_validators_disabled_takes_what_attrs_would():
    """`attrs.validators.disabled()` means the records of this package too."""
    with attrs.validators.disabled():
        assert make_task(title=" ").title == " "
    with pytest.raises(ValueError, match="must not be blank"):
        make_task(title=" ")


# ---------------------------------------------------------------- lazy JSON


@given(record=any_record)
def test_record_read_decodes_json_when_it_is_asked_for(record):
    """Loading a row decodes no JSON column; reading one decodes that one, once."""
    loaded = loaded_again(record)
    for position, column in enumerate(JSON_COLUMNS[type(record)]):
        assert [is_decoded(loaded, name) for name in JSON_COLUMNS[type(record)][position:]] == [False] * (
            len(JSON_COLUMNS[type(record)]) - position
        )
        value = getattr(loaded, column)
        assert value == getattr(record, column)
        assert getattr(loaded, column) is value
        assert is_decoded(loaded, column)


def test_get_row_with_json_that_python_cannot_read_returns_the_rest(connection):
    """A number that SQLite takes and Python refuses to read spoils its own column and no other."""
    task = make_task()
    dao.tasks.create(connection, task)
    fetch(connection, "UPDATE tasks SET metadata = $1", ("9" * 5000,))
    loaded = dao.tasks.get_one(connection, task.id)
    assert (loaded.title, loaded.config) == (task.title, task.config)
    with pytest.raises(dao.UnreadableRow, match="4300 digits") as caught:
        loaded.metadata  # noqa: B018 - reading it is what decodes it
    assert (caught.value.table, caught.value.key, caught.value.column) == ("tasks", task.id, "metadata")


def test_record_read_has_no_other_attributes(connection):
    """An attribute that is no column is missing in a record that was read as in any other."""
    loaded = loaded_again(make_task())
    with pytest.raises(AttributeError, match="'Task' object has no attribute 'colour'"):
        loaded.colour  # noqa: B018 - reading it is what raises
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        loaded.title = "another"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        loaded.config = {}


@every_updated
@given(before=strategies.json_objects(), after=strategies.json_objects(), key=strategies.texts())
def test_update_after_change_in_place_writes_the_changed_value(fresh, kind, before, after, key):
    """What was done to a decoded value in place is what `update` stores; the column that was not read stays."""
    module, make = UPDATED[kind]
    record = make(config=before, metadata=before)
    with fresh() as connection:
        module.create(connection, record)
        loaded = module.get_one(connection, record.id)
        loaded.config.clear()
        loaded.config.update(after)
        loaded.config[key] = [1]
        assert module.update(connection, loaded).config == {**after, key: [1]}
        again = module.get_one(connection, record.id)
        assert again.config == {**after, key: [1]}
        assert again.metadata == before


@every_updated
def test_update_column_not_read_keeps_its_text(connection, kind):
    """JSON that another program wrote in its own style is written back to the byte, unless it was decoded."""
    module, make = UPDATED[kind]
    record = make()
    module.create(connection, record)
    fetch(connection, f"UPDATE {kind} SET config = $1, metadata = $2", ('{ "a" : 1.50 }', "[ 1,\n2 ]"))
    loaded = module.get_one(connection, record.id)
    assert loaded.metadata == [1, 2]
    module.update(connection, loaded)
    assert fetch(connection, f"SELECT config, metadata FROM {kind}") == [('{ "a" : 1.50 }', "[1,2]")]


# what JSON does not have, or would give back as something else, each in a place of its own
WRONG = {
    "config.steps[2].retry": ({"steps": [1, 2, {"retry": (1, 2)}]}, TypeError),
    "config['two words']": ({"two words": decimal.Decimal(1)}, TypeError),
    "a key of config.names": ({"names": {1: "x"}}, TypeError),
    "config.a[0][0]": ({"a": [[{1, 2}]]}, TypeError),
    "config.when": ({"ok": None, "when": datetime(2024, 1, 1, tzinfo=UTC)}, TypeError),
    "config.raw": ({"raw": b"x"}, TypeError),
    "config.object": ({"object": object()}, TypeError),
    "config.rate": ({"rate": float("nan")}, ValueError),
    "config.text": ({"text": "\ud800"}, ValueError),
    "config.number": ({"number": 10**5000}, ValueError),
}


@pytest.mark.parametrize("place", WRONG)
def test_value_that_is_not_plain_json_is_named_with_its_place(connection, place):
    """Who makes a record, changes one in place or ends a call is told where the value is, and nothing is written.

    A tuple, a Decimal or a key 1 that was put into a decoded value was stored as something else.
    """
    value, kind = WRONG[place]
    with pytest.raises(kind, match=f"^{re.escape(place)}: "):
        make_task(config=value)
    with pytest.raises(kind, match=f"^{re.escape(place.replace('config', 'output'))}: "):
        dao.tool_executions.finish(connection, make_tool_execution(status="running"), output=value)
    task = make_task()
    dao.tasks.create(connection, task)
    for store in (dao.tasks.update, dao.tasks.create):
        changed = dao.tasks.get_one(connection, task.id)
        changed.config.update(value)
        with pytest.raises(kind, match=f"^{re.escape(place)}: "):
            store(connection, changed)
    made = make_task()
    made.config.update(value)
    with pytest.raises(kind, match=f"^{re.escape(place)}: "):
        dao.tasks.create_many(connection, [make_task(), made])
    assert [one.config for one in dao.tasks.iter_all(connection)] == [task.config]


@every_updated
@pytest.mark.parametrize("value", [float("nan"), "\ud800", object(), (1,)], ids=lambda value: type(value).__name__)
def test_update_after_change_in_place_to_no_json_is_refused(connection, kind, value):
    """A value put in place that has no JSON form is found before anything is written."""
    module, make = UPDATED[kind]
    record = make()
    module.create(connection, record)
    loaded = module.get_one(connection, record.id)
    loaded.config["value"] = [value]
    with pytest.raises((TypeError, ValueError)):
        module.update(connection, loaded)
    assert_same(module.get_one(connection, record.id), record)
