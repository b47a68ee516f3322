"""Where dao's time goes beside bare apsw's: the same call, one step more each time."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench import contenders, data, harness, statements
from bench.contenders import BASE, Contender
from bench.data import Data
from bench.operations import OPERATIONS, Arguments, Operation, Size
from dao import codec, engine, tasks
from dao.engine import Connection
from dao.rows import TASKS

_OPERATIONS = {operation.name: operation for operation in OPERATIONS}


@attrs.frozen
class Step:
    """One more thing that is done, and a call that does it and all before it."""

    title: str
    contender: Contender
    call: Callable[..., object]


def measure(size: Size, report: Callable[[str], None]) -> dict[str, Any]:
    """Return for each operation its steps, with the seconds that a call takes up to there."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        template = Path(made) / "template.db"
        holds = data.build(template, size.rows)
        bare, own = contenders.load(BASE), contenders.load("dao")
        try:
            for number, contender in enumerate((bare, own)):
                contenders.open_one(contender, data.copy(template, Path(made) / f"{number}.db"))
            for name, steps in _operations(bare, own, holds).items():
                title = _OPERATIONS[name].title
                report(f"steps: {title}")
                found[name] = {"title": title, "steps": _measured(_OPERATIONS[name], steps, holds, size)}
        finally:
            for contender in (bare, own):
                contender.close()
    return found


def _measured(operation: Operation, steps: Sequence[Step], holds: Data, size: Size) -> list[dict[str, Any]]:
    def prepare(contender: Contender) -> Callable[[int], Arguments]:
        return lambda calls: operation.prepare(contender, holds, calls)

    subjects = [harness.Subject(step.title, harness.timed(step.call, prepare(step.contender))) for step in steps]
    measured = harness.interleave(
        subjects,
        rounds=size.rounds,
        calls=min(size.writes, size.rows) if operation.adds else None,
        seconds=size.seconds,
    )
    base = measured[steps[0].title].rounds
    ratios = {
        step.title: statistics.median(own / other for own, other in zip(measured[step.title].rounds, base, strict=True))
        for step in steps
    }
    adds = [0.0, *(ratios[after.title] - ratios[before.title] for before, after in itertools.pairwise(steps))]
    return [
        {"title": step.title, "median": measured[step.title].median, "ratio": ratios[step.title], "adds": added}
        for step, added in zip(steps, adds, strict=True)
    ]


def _operations(bare: Any, own: Any, holds: Data) -> dict[str, list[Step]]:
    connection: Connection = own.connection
    execute = connection.execute

    def decoded(id: str) -> object:
        row = tasks.get(connection, id)._config
        return codec.decode_json_quickly(row[5]), codec.decode_json_quickly(row[6])

    [(find, found)] = _statements(connection, own.find, "completed")
    places = [_statements(connection, own.page, place)[0] for place in own.positions(holds)]
    page, begun = places[0][0], itertools.cycle([parameters for _, parameters in places])
    moment = own.moment("2027-01-01T00:00:00.000Z")
    changing = {
        status: _statements(connection, own.set_status, holds.ids[0], status, moment)
        for status in ("running", "pending")
    }

    def changed(id: str, status: str, _moment: object) -> object:
        (change, parameters), (read, _) = changing[status]
        return engine.fetch_changed(connection, change, (*parameters[:-1], id), read, (id,), lambda _, rows: rows)

    def changed_barely(id: str, status: str, _moment: object) -> object:
        (change, parameters), (read, _) = changing[status]
        return in_one(change, (*parameters[:-1], id), read, id)

    def in_one(change: str, parameters: tuple[Any, ...], read: str, id: str) -> object:
        cursor = bare.connection.execute(change, parameters)
        rows = bare.connection.execute(read, (id,)).fetchall()
        cursor.fetchall()
        return rows

    def records(sql: str, parameters: Sequence[Any]) -> object:
        rows = execute(sql, parameters).fetchall()
        rows.pop()
        return TASKS.from_rows(rows)

    return {
        "get_json": [
            Step("the statement, by apsw", bare, bare.get),
            Step("a record of the row", own, own.get),
            Step("both JSON texts decoded, by msgspec", own, decoded),
            Step("decoded when they are read, and kept", own, own.get_json),
        ],
        "find": [
            Step("the statement, by apsw", bare, bare.find),
            Step(
                "dao's, prepared once for all values, with a row more", own, lambda _: execute(find, found).fetchall()
            ),
            Step("records of the rows", own, lambda _: records(find, found)),
            Step("filters, limit, errors, the page", own, own.find),
        ],
        "page": [
            Step("the statement, by apsw", bare, bare.page),
            Step("dao's, bounded at both ends, with a row more", own, lambda _: execute(page, next(begun)).fetchall()),
            Step("records of the rows", own, lambda _: records(page, next(begun))),
            Step("the cursor checked, filters, limit, errors, the page", own, own.page),
        ],
        "set_status": [
            Step("BEGIN, UPDATE, SELECT, COMMIT, by apsw", bare, bare.set_status),
            Step("UPDATE with the SELECT in its transaction, by apsw", bare, changed_barely),
            Step("through dao's function, which undoes it if the SELECT fails", own, changed),
            Step("the status and time checked, a record of the row", own, own.set_status),
        ],
        "update": [
            Step("BEGIN, UPDATE, SELECT, COMMIT, by apsw", bare, bare.update),
            Step(
                "UPDATE with the SELECT in its transaction, by apsw",
                bare,
                lambda item: in_one(statements.UPDATE, item, statements.GET, item[-2]),
            ),
            Step("the record written as a row, and a record of the row", own, own.update),
        ],
        "create": [
            Step("the statement, by apsw", bare, bare.create),
            Step(
                "the record written as a row", own, lambda item: execute(tasks._CREATE, TASKS.to_row(item)).fetchall()
            ),
            Step("errors", own, own.create),
        ],
    }


def _statements(
    connection: Connection, call: Callable[..., object], *given: object
) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements that a call runs and what it binds."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def note(_cursor: object, sql: str, bindings: Any) -> bool:
        seen.append((sql, tuple(bindings)))
        return True

    connection.exec_trace = note
    try:
        call(*given)
    finally:
        connection.exec_trace = None
    return seen
