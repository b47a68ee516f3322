"""What each statement of `dao` is and how SQLite runs it: collected, written as text, read again, compared.

The text files beside this module hold the answer that was accepted, one file for each module of SQL.
`python -m tests.plans` writes them anew; `tests/contract/test_plans.py` holds them against the code.

A plan is `EXPLAIN QUERY PLAN` on the migrated schema without statistics, as a new database has none and `dao` never
runs ANALYZE. The plan of a statement has that of the triggers that it fires.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
import unittest.mock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import apsw
import attrs

import dao
from dao import (
    configurations,
    listing,
    rows,
    sessions,
    task_dependencies,
    task_events,
    tasks,
    tool_executions,
    workflow_tasks,
    workflows,
)
from dao.engine import PerEngine, fetch

#: The modules of SQL, by name.
MODULES: dict[str, ModuleType] = {
    module.__name__.removeprefix("dao."): module
    for module in (
        configurations,
        sessions,
        task_dependencies,
        task_events,
        tasks,
        tool_executions,
        workflow_tasks,
        workflows,
    )
}
#: Where the accepted plans are, and the command that accepts those of today.
FOLDER = Path(__file__).parent
COMMAND = "python -m tests.plans"
#: The statuses of the modules whose listings and counts are made to measure (`dao.listing`).
LISTED: dict[ModuleType, Any] = {
    tasks: dao.TaskStatus,
    workflows: dao.WorkflowStatus,
    tool_executions: dao.ToolStatus,
}
#: How a statement of ours begins.
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\s")

_SCRIPTS = Path(__file__).parents[2] / "sql" / "sqlite"
_HEAD = "# SQLite {version}: the plans of dao.{name}. Written by `" + COMMAND + "`.\n"
_NOTHING = "(reads no table)"
_WIDTH = 116
_STEP = re.compile(
    r"\s*(SEARCH|SCAN) (\S+)"
    r"(?: USING (?:AUTOMATIC )?(?:COVERING )?(?:PARTIAL )?(?:COVERING )?(INDEX \S+|(?:INTEGER )?PRIMARY KEY))?"
)


@attrs.frozen
class Entry:
    """A statement and its plan, each as lines of text."""

    sql: list[str]
    plan: list[str]


@attrs.frozen
class Plans:
    """The statements of a module with their plans, and the SQLite that made these."""

    version: str
    entries: dict[str, Entry]


# ---------------------------------------------------------------- statements


def parts(module: ModuleType) -> list[ModuleType]:
    """Return the modules that hold the SQL of a module: itself and the homes of its functions, or all of a package."""
    if not hasattr(module, "__path__"):
        offered = [getattr(module, name) for name in module.__all__]
        homes = {one.__module__ for one in offered if inspect.isfunction(one)}
        return [importlib.import_module(home) for home in sorted({module.__name__, *homes})]
    names = [found.name for found in pkgutil.iter_modules(module.__path__)]
    return [importlib.import_module(f"{module.__name__}.{name}") for name in names]


def constants(module: ModuleType, engine: Literal["sqlite", "postgresql"] = "sqlite") -> dict[str, str]:
    """Return every constant of a module that holds SQL, by name, in the words for an engine."""

    def text(value: object) -> object:
        if isinstance(value, rows.Change):
            return value.returning_key if engine == "sqlite" else value.returning_row
        return getattr(value, engine) if isinstance(value, PerEngine) else value

    found: dict[str, str] = {}
    for part in parts(module):
        named = {name: text(value) for name, value in vars(part).items()}
        statements = {name: value for name, value in named.items() if isinstance(value, str) and SQL.match(value)}
        assert not found.keys() & statements.keys(), f"two statements of {module.__name__} have one name"
        found |= statements
    return found


def shapes(module: ModuleType, connection: Any = None) -> dict[str, str]:
    """Return every statement that `find` and `count` of a module make, by what they were asked for.

    They are made for the engine of the `connection`, to a database with the rows of `populate`; by default for SQLite.

    That is each combination of what may be there or absent: the filters, the bounds in time, a cursor, the order, and
    no status, one or two. A third status adds to the statement what the second did; `test_plans.py` shows that.
    """
    if module not in LISTED:
        return {}
    with contextlib.closing(populated()) if connection is None else contextlib.nullcontext(connection) as asking:
        named: dict[str, str] = {}
        for call, sql, _ in asked(asking, module, (0, 1, 2)):
            named.setdefault(sql, call)
    return {call: sql for sql, call in named.items()}


def asked(
    connection: Any,
    module: ModuleType,
    statuses: Iterable[int],
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield each way to call `find` and `count` of a module, the statement that it runs and the values bound to that.

    `statuses` are the numbers of statuses to ask for. `texts` are what to look for in the other columns; there must be
    two rows of it, or no page has a cursor.
    """
    numbers = [*statuses]
    for function in (module.count, module.find):
        names = [
            name for name in inspect.signature(function).parameters if name not in {"connection", "limit", "after"}
        ]
        values: dict[str, tuple[Any, ...]] = {
            "status": tuple(list(LISTED[module])[:number] or None for number in numbers),
            "since": (None, datetime(2000, 1, 1, tzinfo=UTC)),
            "until": (None, datetime(3000, 1, 1, tzinfo=UTC)),
            "oldest_first": (False, True),
        }
        for choice in itertools.product(*(values.get(name, (None, texts.get(name, "x"))) for name in names)):
            arguments = dict(zip(names, choice, strict=True))
            if function is module.count:
                yield _call("count", arguments), *ran(connection, function, **arguments)
                continue
            yield _call("find", arguments), *ran(connection, function, **arguments, limit=1)
            after = function(connection, **arguments, limit=1).next
            if after is not None:
                call = _call("find", arguments | {"after": after})
                yield call, *ran(connection, function, **arguments, limit=1, after=after)


def ran(connection: Any, function: Callable[..., object], **arguments: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the one statement that a call of a listing runs and the values bound to it."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def traced(to: Any, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        seen.append((sql, tuple(parameters)))
        return fetch(to, sql, parameters)

    with unittest.mock.patch.object(listing, "fetch", traced):
        function(connection, **arguments)
    (only,) = seen
    return only


def statements(engine: Literal["sqlite", "postgresql"] = "sqlite", connection: Any = None) -> dict[str, dict[str, str]]:
    """Return every statement by the name of its module and its own, as for `constants` and `shapes`."""
    return {name: constants(module, engine) | shapes(module, connection) for name, module in MODULES.items()}


def parameters(sql: str) -> list[int]:
    """Return the numbers of a statement's parameters in order of first appearance."""
    return list(dict.fromkeys(int(number) for number in re.findall(r"\$(\d+)", sql)))


def _call(function: str, arguments: Mapping[str, Any]) -> str:
    words = [
        f"{len(value)} statuses" if name == "status" and len(value) > 1 else name
        for name, value in arguments.items()
        if value
    ]
    return f"{function}({', '.join(words)})"


def populated() -> apsw.Connection:
    """Return a connection to a database with two rows that every filter lets through: a page of one has a cursor."""
    connection = database()
    populate(connection)
    return connection


def populate(connection: Any) -> None:
    """Store two rows that every filter lets through."""
    tasks.create(connection, dao.Task(id="x", title="a", task_type="x", workspace_path="x"))
    tasks.create(connection, dao.Task(title="b", task_type="x", workspace_path="x"))
    for name in "ab":
        workflows.create(connection, dao.Workflow(name=name))
        tool_executions.record(connection, dao.ToolExecution(tool_name="x", input=name, task_id="x"))


# ---------------------------------------------------------------- plans


def database(path: str = ":memory:", *, without: str | None = None) -> apsw.Connection:
    """Return a connection to a new database with the schema of `sql/sqlite`, without one of its indexes.

    It has compiled no statement yet: the plan of a statement in a connection's cache is the one from before the DDL.
    """
    connection = dao.connect(f"sqlite:///{path}")
    for script in sorted(_SCRIPTS.glob("*.sql")):
        if not script.name.endswith(".rollback.sql"):
            connection.execute(script.read_text()).fetchall()
    if without is not None:
        connection.execute(f'DROP INDEX "{without}"')
    return connection


def plan(connection: apsw.Connection, sql: str, bindings: tuple[Any, ...] | None = None) -> list[str]:
    """Return the lines of a statement's plan, indented as a tree, and after them those of the triggers that it fires.

    What is bound matters only to a database with statistics.
    """
    connection.config(apsw.SQLITE_DBCONFIG_TRIGGER_EQP, 1)
    lines: list[str] = []
    depths: dict[int, int] = {}
    top, shown = 0, True
    for id, parent, _, text in connection.execute(
        "EXPLAIN QUERY PLAN " + sql, bindings or (None,) * len(parameters(sql))
    ).fetchall():
        if parent == 1 and id == 0:
            # A program of its own begins. One without a name is a foreign key's action, whose lines were there already.
            shown, depths, top = text is not None, {}, 1
        else:
            depths[id] = depths.get(parent, top - 1) + 1
        if shown:
            lines.append("  " * depths.get(id, 0) + text.removeprefix("-- "))
    return lines


def essence(lines: Iterable[str]) -> list[str]:
    """Return what of a plan every version of SQLite must agree on: tables, whether walked or searched, indexes, sorts.

    Left out are the words for the terms that an index is searched with, whether it covers, and the nesting.
    """
    steps = []
    for line in lines:
        found = _STEP.match(line)
        if found and not found[2].startswith("("):
            automatic = "AUTOMATIC " if "AUTOMATIC" in line else ""
            steps.append(f"{found[1]} {found[2]} {automatic}{found[3] or ''}".rstrip())
        elif "TEMP B-TREE" in line:
            steps.append("TEMP B-TREE")
    return sorted(steps)


def collect(connection: apsw.Connection, named: Mapping[str, Mapping[str, str]]) -> dict[str, Plans]:
    """Return the plans of such statements as `statements` gives, from a connection that has compiled none of them."""
    version = apsw.sqlite_lib_version()
    return {
        module: Plans(
            version, {name: Entry(_layout(sql, module), plan(connection, sql)) for name, sql in sorted(by_name.items())}
        )
        for module, by_name in named.items()
    }


# ---------------------------------------------------------------- text


def render(name: str, plans: Plans) -> str:
    """Return the plans of a module as the text of its file."""
    lines = [_HEAD.format(version=plans.version, name=name)]
    lines.extend(f"# {line}\n" for line in _wrapped(f"[columns] is {_columns(name)}"))
    for title, entry in plans.entries.items():
        body = [*entry.sql, *(f"| {line}" for line in entry.plan or [_NOTHING])]
        lines.append(f"\n{title}\n" + "".join(f"  {line}\n" for line in body))
    return "".join(lines)


def parse(text: str) -> Plans:
    """Return the plans that a file holds."""
    version = text.split(maxsplit=3)[2].rstrip(":") if text.startswith("# SQLite ") else ""
    entries: dict[str, Entry] = {}
    for block in text.split("\n\n")[1:]:
        title, *body = (line.removeprefix("  ") for line in block.strip("\n").split("\n"))
        steps = [line.removeprefix("| ") for line in body if line.startswith("| ")]
        sql = [line for line in body if not line.startswith("| ")]
        entries[title] = Entry(sql, [] if steps == [_NOTHING] else steps)
    return Plans(version, entries)


def differences(stored: Plans, found: Plans) -> list[str]:
    """Return what is other than it was, as lines for a person; nothing if all is as stored.

    Plans are compared word by word if the same SQLite made both, else by their essence.
    """
    lines: list[str] = []
    for name in sorted({*stored.entries, *found.entries}):
        old, new = stored.entries.get(name), found.entries.get(name)
        if old is None or new is None:
            lines.append(
                f"{name}: {'new, and its plan is not stored' if old is None else 'stored, but no longer there'}"
            )
        elif old.sql != new.sql:
            lines += [f"{name}: the statement, or its layout, is another", *_changed(old.sql, new.sql)]
        if old is None or new is None:
            continue
        same = old.plan == new.plan if stored.version == found.version else essence(old.plan) == essence(new.plan)
        if not same:
            lines += [f"{name}: the plan is another", *_changed(old.plan, new.plan)]
    return lines


def _changed(old: list[str], new: list[str]) -> list[str]:
    return [f"    {line}" for line in difflib.ndiff(old, new) if not line.startswith("?")]


def _layout(sql: str, module: str) -> list[str]:
    """Return a statement as lines, with a word for its table's columns: a new column then changes few of them."""
    text = textwrap.dedent(sql).strip("\n").replace(_columns(module), "[columns]")
    if "\n" not in text and len(text) > _WIDTH:
        text = re.sub(r" (?=UNION ALL|WHERE|ORDER BY|VALUES)", "\n", text)
    return [wrapped for line in text.split("\n") for wrapped in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(
        line, _WIDTH, drop_whitespace=True, break_long_words=False, break_on_hyphens=False, subsequent_indent="    "
    )


def _columns(module: str) -> str:
    table: rows.Table[Any] = getattr(rows, module.upper())
    return table.listed
