"""Every Hypothesis strategy of the suite: values, records, URLs, and raw texts that are nearly right."""

from __future__ import annotations

import enum
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import attrs
from hypothesis import settings
from hypothesis import strategies as st

import dao
from dao import rows
from dao.records import (
    FINISHED_CALLS,
    LONGEST_RETRY_DELAY_MS,
    MAX_INTEGER,
    Configuration,
    Session,
    Task,
    TaskDependency,
    TaskEvent,
    TaskStatus,
    ToolExecution,
    ToolStatus,
    Workflow,
    WorkflowStatus,
    WorkflowTask,
)
from dao.url import MEMORY, DatabaseURL, control_character

#: For a law that is tried for each of many columns or classes, which share the examples.
SHARED = settings(max_examples=max(5, settings.default.max_examples // 4))

#: The table of each record.
TABLES = {
    dao.Task: rows.TASKS,
    dao.TaskDependency: rows.TASK_DEPENDENCIES,
    dao.TaskEvent: rows.TASK_EVENTS,
    dao.Workflow: rows.WORKFLOWS,
    dao.WorkflowTask: rows.WORKFLOW_TASKS,
    dao.ToolExecution: rows.TOOL_EXECUTIONS,
    dao.Session: rows.SESSIONS,
    dao.Configuration: rows.CONFIGURATIONS,
}

#: The columns of each record that hold JSON.
JSON_COLUMNS = {
    kind: tuple(field.name for field in attrs.fields(kind) if field.metadata.get("column") == "json") for kind in TABLES
}

#: Every character that is blank, as `str.isspace` has it.
BLANKS = "".join(chr(number) for number in range(0x110000) if chr(number).isspace())

# ---------------------------------------------------------------- text

# blanks, control characters, what is neither blank nor visible, quotes and comments of SQL, both ends of the planes
_EDGES = (
    BLANKS
    + "".join(map(chr, range(1, 0x20)))
    + "\x7f\u180e\u200b\ufeff\ufffd\uffff\ue000\ud7ff\U0010ffff'\"`\\%_;-$?aA"
)


def texts(*, min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that UTF-8 has, but for NUL, which PostgreSQL does not store: control characters, blanks, all planes."""
    characters = st.characters(codec="utf-8", exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=max_size) | st.text(
        _EDGES, min_size=min_size, max_size=max_size
    )


def strings() -> st.SearchStrategy[str]:
    """Any text that JSON can hold, in which a NUL is written as an escape."""
    return texts() | st.text('\0 a"\\', max_size=5)


def hostile_texts() -> st.SearchStrategy[str]:
    """Texts that an engine may refuse: with NUL, with half of a surrogate pair, blank, or of many bytes."""
    awkward = st.text("\0\ud800\udfff \u3000a", max_size=4)
    return (
        awkward | blank_texts() | st.builds(lambda text, times: text * times, texts(max_size=2), st.integers(0, 1000))
    )


def blank_texts() -> st.SearchStrategy[str]:
    """Nothing but blanks, or nothing."""
    return st.text(BLANKS, max_size=5)


def names() -> st.SearchStrategy[str]:
    """Any text that is not blank, with blanks around it more often than not."""
    return st.builds(
        lambda before, text, after: before + text + after,
        blank_texts(),
        texts(min_size=1).filter(lambda text: not text.isspace()),
        blank_texts(),
    )


# ---------------------------------------------------------------- JSON


def json_values(*, max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Any JSON value: integers of any size, all finite floats, nested lists and objects."""
    scalars = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**40, -(10**400)])
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from([-0.0, 1e16, 1e22, 1e308, -1e308, 5e-324, 2.2250738585072014e-308, 0.1, 1.0])
        | strings()
    )
    return st.recursive(scalars, _json_containers, max_leaves=max_leaves)


def _json_containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=4) | st.dictionaries(strings(), values, max_size=4)


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object."""
    return st.dictionaries(strings(), json_values(max_leaves=4), max_size=4)


def json_texts() -> st.SearchStrategy[str]:
    """Text that is JSON, in any style, or nearly."""
    values = json_values() | json_objects()
    compact = values.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    indented = values.map(lambda value: json.dumps(value, indent=1))
    return st.one_of(compact, indented, _damaged(compact), st.sampled_from(JSON_EDGES), texts())


# fmt: off
#: JSON, and what is nearly JSON: each breaks another rule of its grammar.
JSON_EDGES = [
    "", " ", "null", "NULL", "nul", "true", "True", "undefined", "NaN", "Infinity", "-Infinity", "[NaN]",
    "0", "-0", "-", "--1", "+1", "01", "-01", "1.", ".5", "1.5.5", "1e5", "1E+5", "1e", "1e+", "0x1F", "1e999",
    "-1e999",
    '""', '"', '"a', "'a'", '"a" "b"', '"\t"', '"\n"', '"\x00"', '"\x1f"', '"\x7f"', '"\u2028"', '"\\x41"', '"\\\'"',
    '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u00"', '"\\u0000"', '"\\/"', '"\\a"', '"\\0"', '"\\u00e9"',
    "[]", "[", "]", "[,]", "[1,]", "[,1]", "[1 2]", "[[]]", "[1]]", " [ 1 , 2 ] ", "\f[]", "\v[]", "\u00a0[]",
    "\ufeff[]",
    "{}", "{", "}", "{,}", '{"a"}', '{"a":}', '{"a":1,}', '{"a":1 "b":2}', '{"a":1,"a":2}', "{a:1}", "{'a':1}", "{1:1}",
    "{}\x00", "{}\x00{", "\x00{}", "{\x00}", "{} // c", "/* c */ {}", "{}{}", "\r\n\t {}\r\n\t ", "{}\f", "[1]\x00",
    "1\x002",
]
# fmt: on


def _damaged(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A text with one character left out, put in, or changed."""

    def damage(text: str, where: float, how: str, character: str) -> str:
        place = int(where * len(text))
        if how == "insert":
            return text[:place] + character + text[place:]
        return text[:place] + (character if how == "replace" else "") + text[place + 1 :]

    return st.builds(
        damage,
        texts,
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["insert", "replace", "delete"]),
        st.sampled_from("\x00 \t\n0123456789-+.:TtZzeE[]{},\"'\\/a") | st.characters(codec="utf-8"),
    )


# ---------------------------------------------------------------- time

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


def moments() -> st.SearchStrategy[datetime]:
    """Aware datetimes of the years 1 to 9999 in any time zone, to the microsecond; each has an equivalent in UTC."""
    offsets = st.timedeltas(timedelta(hours=-24, microseconds=1), timedelta(hours=24, microseconds=-1)).map(timezone)
    zones = st.just(UTC) | offsets | st.timezones()
    edges = st.sampled_from(
        [
            EARLIEST,
            LATEST,
            datetime(1, 1, 1, 23, 59, tzinfo=timezone(timedelta(hours=23, minutes=59))),
            datetime(9999, 12, 31, 0, 0, 59, 999_999, tzinfo=timezone(-timedelta(hours=23, minutes=59))),
        ]
    )
    return st.datetimes(timezones=zones).filter(_has_utc) | edges


def _has_utc(moment: datetime) -> bool:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


def times(earliest: datetime = EARLIEST, latest: datetime = LATEST) -> st.SearchStrategy[datetime]:
    """Timestamps as they are stored: UTC, whole milliseconds."""
    moments = st.datetimes(earliest.replace(tzinfo=None), latest.replace(tzinfo=None))
    return moments.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC))


def time_texts() -> st.SearchStrategy[str]:
    """Text in the form of a timestamp, or nearly: wrong days and hours, other precision, other zones, and junk."""
    pattern = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z".format
    right = st.builds(
        pattern,
        st.integers(1, 9999),
        st.integers(1, 12),
        st.integers(1, 28),
        st.integers(0, 23),
        st.integers(0, 59),
        st.integers(0, 59),
        st.integers(0, 999),
    )
    nearly = st.builds(
        pattern,
        st.sampled_from([0, 1, 4, 100, 400, 1900, 2000, 2023, 2024, 9999, 10000]) | st.integers(0, 10000),
        st.integers(0, 13),
        st.integers(0, 32) | st.integers(28, 31),
        st.integers(0, 25),
        st.integers(0, 61),
        st.integers(0, 61),
        st.integers(0, 1000),
    )
    return st.one_of(right, nearly, _damaged(right), st.sampled_from(TIME_EDGES))


# fmt: off
#: Timestamps, and what is nearly one.
TIME_EDGES = [
    "", "now", "0", "2460000.5", "subsec", "12:00", "2024-01-01", "2024-W01-1T00:00:00.000Z", "20240101T000000.000Z",
    "2024-01-01T00:00:00Z", "2024-01-01T00:00:00.00Z", "2024-01-01T00:00:00.0000Z", "2024-01-01T00:00:00.000000Z",
    "2024-01-01T00:00:00,000Z", "2024-01-01 00:00:00.000Z", "2024-01-01t00:00:00.000Z", "2024-01-01T00:00:00.000z",
    "2024-01-01T00:00:00.000", "2024-01-01T00:00:00.000+00:00", "2024-01-01T00:00:00.000-00:00", "2024-01-01T00:00Z",
    "2024-01-01T00:00:00.000Z ", " 2024-01-01T00:00:00.000Z", "2024-01-01T00:00:00.000 Z", "2024-01-01T00:00:00.000ZZ",
    "2024-01-01T00:00:00.000Z\x00", "2024-01-01T00:00:00.000Z\x00junk", "\x002024-01-01T00:00:00.000Z",
    "2024-01-01\x00",
    "2024-13-01T00:00:00.000Z", "2024-00-01T00:00:00.000Z", "2024-01-00T00:00:00.000Z", "2024-04-31T00:00:00.000Z",
    "2023-02-29T00:00:00.000Z", "2024-02-29T00:00:00.000Z", "2024-02-30T00:00:00.000Z", "1900-02-29T00:00:00.000Z",
    "2024-01-01T24:00:00.000Z", "2024-01-01T23:60:00.000Z", "2024-01-01T23:59:60.000Z", "2016-12-31T23:59:60.000Z",
    "0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "-2024-01-01T00:00:00.000Z",
    "10000-01-01T00:00:00.000Z", "+2024-01-01T00:00:00.000Z", "24-01-01T00:00:00.000Z", "\uff12024-01-01T00:00:00.000Z",
]
# fmt: on


# ---------------------------------------------------------------- records


def _record_times(*names: str) -> dict[str, st.SearchStrategy[datetime]]:
    return dict.fromkeys(("created_at", "updated_at", *names), moments())


def _optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def tasks() -> st.SearchStrategy[Task]:
    """Any task that can be new: no trigger has counted yet for what it waits."""
    return st.one_of(
        _tasks(status=st.sampled_from(TaskStatus)),
        _tasks(status=st.just(TaskStatus.RUNNING), worker=texts(min_size=1), lease_expires_at=moments()),
    )


def _tasks(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[Task]:
    return st.builds(
        Task,
        id=texts(min_size=1),
        title=names(),
        description=_optional(texts()),
        task_type=names(),
        config=json_objects(),
        metadata=json_values(),
        workspace_path=_optional(texts()),
        error=_optional(texts()),
        started_at=_optional(moments()),
        completed_at=_optional(moments()),
        **_record_times("run_at"),
        priority=st.integers(0, 9),
        attempt=sequences(),
        failures=sequences(),
        retries=sequences(),
        retry_delay_ms=st.integers(0, LONGEST_RETRY_DELAY_MS),
        dedup_key=_optional(texts(min_size=1)),
        **more,
    )


def task_dependencies() -> st.SearchStrategy[TaskDependency]:
    """Any link of two tasks; they need not exist."""
    return (
        st.tuples(texts(), texts(), moments())
        .filter(lambda link: link[0] != link[1])
        .map(lambda link: TaskDependency(task_id=link[0], depends_on=link[1], created_at=link[2]))
    )


def task_events() -> st.SearchStrategy[TaskEvent]:
    """Any event; its task need not exist."""
    return st.builds(
        TaskEvent,
        seq=st.integers(1, 9) | st.integers(1, MAX_INTEGER),
        task_id=texts(),
        attempt=sequences(),
        from_status=_optional(st.sampled_from(TaskStatus)),
        to_status=_optional(st.sampled_from(TaskStatus)),
        worker=_optional(texts()),
        error=_optional(texts()),
        at=moments(),
        previous=json_objects(),
    )


def workflows() -> st.SearchStrategy[Workflow]:
    """Any workflow."""
    return st.builds(
        Workflow,
        id=texts(min_size=1),
        name=names(),
        description=_optional(texts()),
        status=st.sampled_from(WorkflowStatus),
        config=json_objects(),
        metadata=json_values(),
        **_record_times(),
    )


def workflow_tasks() -> st.SearchStrategy[WorkflowTask]:
    """Any link; its workflow and its task need not exist."""
    return st.builds(
        WorkflowTask,
        workflow_id=texts(),
        task_id=texts(),
        sequence=sequences(),
        config=json_objects(),
        **_record_times(),
    )


def sequences() -> st.SearchStrategy[int]:
    """Any sequence, also the largest."""
    return st.integers(0, 9) | st.integers(0, MAX_INTEGER) | st.just(MAX_INTEGER)


def tool_executions() -> st.SearchStrategy[ToolExecution]:
    """Any tool execution but one of an attempt, which has to be that of its task; its task need not exist."""
    return st.one_of(
        _tool_executions(st.sampled_from(sorted(set(ToolStatus) - FINISHED_CALLS)), st.none()),
        _tool_executions(st.sampled_from(sorted(FINISHED_CALLS)), moments()),
    )


def _tool_executions(
    statuses: st.SearchStrategy[ToolStatus], ends: st.SearchStrategy[datetime | None]
) -> st.SearchStrategy[ToolExecution]:
    return st.builds(
        ToolExecution,
        id=texts(min_size=1),
        task_id=_optional(texts()),
        tool_name=names(),
        input=json_values(),
        output=json_values(),
        status=statuses,
        error=_optional(texts()),
        duration_ms=_optional(sequences()),
        started_at=_optional(moments()),
        completed_at=ends,
        **_record_times(),
    )


def sessions() -> st.SearchStrategy[Session]:
    """Any session."""
    return st.builds(
        Session,
        id=texts(min_size=1),
        client_id=names(),
        is_active=st.booleans(),
        metadata=json_values(),
        **_record_times("last_heartbeat"),
    )


def configurations() -> st.SearchStrategy[Configuration]:
    """Any setting."""
    return st.builds(Configuration, key=texts(min_size=1), value=json_values(), updated_at=moments())


def records() -> st.SearchStrategy[Any]:
    """Any record of any kind."""
    return st.one_of(
        tasks(),
        task_dependencies(),
        task_events(),
        workflows(),
        workflow_tasks(),
        tool_executions(),
        sessions(),
        configurations(),
    )


# ---------------------------------------------------------------- configuration values


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1
    HIGH = 2


def configuration_values() -> st.SearchStrategy[tuple[object, Any]]:
    """What `configurations.set` takes, each with the type as which `configurations.get` returns an equal value."""
    return st.one_of(
        _with_type(texts(), str),
        _with_type(st.integers(), int),
        _with_type(st.floats(allow_nan=False, allow_infinity=False), float),
        _with_type(st.booleans(), bool),
        _with_type(st.lists(json_values(max_leaves=3), max_size=3), list),
        _with_type(json_objects(), dict),
        _with_type(st.lists(st.integers(), max_size=3), list[int]),
        _with_type(zoned_moments(), datetime),
        _with_type(st.timedeltas(), timedelta),
        _with_type(st.decimals(allow_nan=False, allow_infinity=False)),
        _with_type(st.sampled_from(Colour)),
        _with_type(st.sampled_from(Level)),
    )


def _with_type(values: st.SearchStrategy[Any], kind: Any = None) -> st.SearchStrategy[tuple[object, Any]]:
    return values.map(lambda value: (value, type(value) if kind is None else kind))


def zoned_moments() -> st.SearchStrategy[datetime]:
    """Aware datetimes whose offset ISO 8601 can write, which is to the minute; hours that occur twice included."""
    twice = st.builds(
        lambda zone, fold, minute: datetime(2023, 10, 29, 2, minute, tzinfo=zone, fold=fold),
        st.sampled_from([UTC, ZoneInfo("Europe/Berlin")]),
        st.sampled_from([0, 1]),
        st.integers(0, 59),
    )
    return (moments() | twice).filter(lambda moment: moment.utcoffset() % timedelta(minutes=1) == timedelta(0))


# ---------------------------------------------------------------- URLs


def characters_of_names() -> st.SearchStrategy[str]:
    """Any character that the name of a database file may have: all but those that nobody sees."""
    return st.characters(codec="utf-8").filter(lambda character: control_character(character) is None)


def paths() -> st.SearchStrategy[str]:
    """Any file name that a URL can have, absolute or relative, or the one of a database in memory."""
    character = characters_of_names() | st.sampled_from("/?#%&=:+@ .~\\;'\"")
    return st.just(MEMORY) | st.text(character, min_size=1, max_size=30) | st.sampled_from(PATHS)


# fmt: off
#: File names with what means something in a URL.
PATHS = [
    "orchestrator.db", "/var/lib/orchestrator.db", "./:memory:", ":memory", ":memory:x", "/", "//", "//host/share", ".",
    "a?mode=ro", "a#b", "100%", "%41", "a%2Fb", "a b", "~/x", "C:\\data\\x.db", "x.db?", "localhost/x", "//localhost/x",
    "sqlite:///x.db", "file:x", "a&b=c", "user:secret@host/x", "\u00e9\u4e2d\U0001f600", "-wal", "a+b", "+", " a ",
    "'a'",
]
# fmt: on


def database_urls() -> st.SearchStrategy[DatabaseURL]:
    """Any database URL, with any settings."""
    modes = st.sampled_from([(None, None), ("ro", True), ("ro", False), ("rw", False), ("rwc", None)])
    return st.builds(
        lambda mode, **more: DatabaseURL(mode=mode[0], immutable=mode[1], **more),
        path=paths(),
        mode=modes,
        busy_timeout=_optional(st.integers(0, 999_999_999)),
        synchronous=_optional(st.sampled_from(["off", "normal", "full", "extra"])),
        cache_size=_optional(st.integers(-999_999_999, 999_999_999)),
        foreign_keys=_optional(st.booleans()),
        journal_mode=_optional(st.sampled_from(["wal", "keep"])),
        wal_autocheckpoint=_optional(st.integers(0, 999_999_999)),
    )


def field_values() -> st.SearchStrategy[Any]:
    """Return values for a field of any record: what some field takes, what is nearly that, and what none takes."""
    return st.one_of(
        texts(),
        blank_texts(),
        json_values(),
        moments(),
        times(),
        st.sampled_from(
            [*TaskStatus, *WorkflowStatus, *ToolStatus, "pending", "running", "failed", "active", "Pending"]
        ),
        st.sampled_from(
            [
                None,
                True,
                False,
                0,
                1,
                -1,
                MAX_INTEGER,
                MAX_INTEGER + 1,
                2**64,
                -(2**63),
                1.0,
                "",
                "\0",
                "a\0 b",
                "\ud800",
                "\udfff x",
                b"x",
            ]
        ),
        st.sampled_from([{1: 2}, {"a": (1,)}, {"a": float("nan")}, [{}], (1, 2), {"a": {"b": "\ud800"}}, 10**5000]),
        st.sampled_from([datetime(2024, 1, 1), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]),  # noqa: DTZ001
        st.builds(type("Text", (str,), {}), texts()),
        st.builds(type("Dict", (dict,), {}), json_objects()),
    )


# ---------------------------------------------------------------- schemas

_NAMES = ("a", "B", "c d", 'e"f', "é", "order", "x;y", "--z")
_COLUMNS = (
    "v TEXT NOT NULL DEFAULT 'it''s; -- so'",
    'v INTEGER CONSTRAINT "v\'s range" CHECK (v BETWEEN 0 AND 9) -- of v\n',
    "v TEXT COLLATE NOCASE UNIQUE ON CONFLICT IGNORE",
    "v INTEGER DEFAULT (1 + 2)",
    "v INT, g INT AS (v * 2) STORED, h INT GENERATED ALWAYS AS (g || ';') VIRTUAL",
    "v BLOB DEFAULT x'00ff' /* ; */",
)
_PARENT = "p INTEGER REFERENCES {parent} (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
_TABLES = (
    "CREATE TABLE {name} (id INTEGER PRIMARY KEY, {column})",
    (
        "CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT, {column}, {reference}); "
        "INSERT INTO {name} DEFAULT VALUES"
    ),
    "create table {name}(id TEXT PRIMARY KEY, {column}, {reference}) without rowid",
    "CREATE TABLE {name} (id INTEGER PRIMARY KEY, {reference}, u ANY, UNIQUE (p, u)) STRICT",
    (
        "CREATE TABLE {name} (id INTEGER PRIMARY KEY, {column}, {reference}); "
        "ALTER TABLE {name} ADD COLUMN late DEFAULT 'x;'"
    ),
    "CREATE TABLE {other} (id INTEGER PRIMARY KEY, {column}); ALTER TABLE {other} RENAME TO {name}",
    "CREATE TABLE {name} AS SELECT 1 AS id, 'two' AS v",
)
_BESIDE = (
    "CREATE INDEX {other} ON {name} (id DESC) WHERE id > 0",
    "CREATE UNIQUE INDEX {other} ON {name} (lower(id), id COLLATE NOCASE)",
    "CREATE VIEW {other} (id) AS SELECT id FROM {view} WHERE ';' <> '--'",
    (
        "CREATE VIEW {other} AS WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 3) "
        "SELECT id FROM n"
    ),
    (
        "CREATE VIEW {other} AS SELECT 1; "
        "CREATE TRIGGER {trigger} INSTEAD OF INSERT ON {other} BEGIN DELETE FROM {name}; END"
    ),
    (
        "CREATE TRIGGER {trigger} AFTER UPDATE OF id ON {name} WHEN new.id <> ';' BEGIN SELECT ';'; "
        "UPDATE {name} SET id = id; END"
    ),
    "CREATE VIRTUAL TABLE {other} USING fts5 (id, content={name}); INSERT INTO {other} ({other}) VALUES ('rebuild')",
    "CREATE VIRTUAL TABLE {other} USING fts5 (x, tokenize='porter ascii'); INSERT INTO {other} VALUES ('words')",
    "CREATE VIRTUAL TABLE {other} USING fts4 (content={name}); INSERT INTO {other} ({other}) VALUES ('rebuild')",
    "CREATE VIRTUAL TABLE {other} USING rtree (id, low, high)",
)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def schemas(draw: st.DrawFn) -> list[str]:
    """Statements that make a schema: tables of every kind, and what may stand on them.

    Tables come in any order, the others earlier or later.
    """
    tables = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4, unique=True))
    statements = [
        draw(st.sampled_from(_TABLES)).format(
            name=_quoted(name),
            other=_quoted(f"{name} old"),
            column=draw(st.sampled_from(_COLUMNS)),
            reference=_PARENT.format(parent=_quoted(draw(st.sampled_from(tables)))),
        )
        for name in tables
    ]
    shapes = draw(st.lists(st.sampled_from(_BESIDE), max_size=4))
    others = [f"{number} of {draw(st.sampled_from(tables))}" for number in range(len(shapes))]
    for other, shape in zip(others, shapes, strict=True):
        statements.append(
            shape.format(
                name=_quoted(draw(st.sampled_from(tables))),
                view=_quoted(draw(st.sampled_from([*tables, *others]))),
                other=_quoted(other),
                trigger=_quoted(f"on {other}"),
            )
        )
    return statements
