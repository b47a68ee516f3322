"""The JSON documents of the commands: a JSON Schema for each, made from the classes that they show.

`python -m tests.reference.documents` writes `docs/reference/json.md` and `docs/reference/json/` anew.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import attrs
import jsonschema

from dao import migrate, transfer
from dao.cli.filters import PHASES, Seen
from dao.cli.metrics import Metric
from dao.cli.tasks import Attempt
from dao.cli.top import Running
from dao.diagnosis import Finding
from dao.migrate.linting.rules import Rule
from dao.records import Task, TaskStatus, ToolStatus
from dao.task_events import Throughput
from dao.tasks import QueueState

__all__ = ["COMMANDS", "FOLDER", "PAGE", "check", "pages"]

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
FOLDER = PAGE.with_suffix("")

#: A part of a document: its type, and a sentence about it.
Part = tuple[object, str]


@attrs.frozen
class Shape:
    """An object that shows a class: without some of its fields, and with other parts."""

    of: type | None
    without: tuple[str, ...] = ()
    parts: Mapping[str, object] = attrs.Factory(dict)


_Strings = tuple[str, ...]
_Verdict = {"ok": bool}
_Snapshot = Shape(
    None,
    parts={
        "id": str,
        "path": str,
        "taken_at": datetime,
        "version": str,
        "bytes": int,
        "kind": Literal["manual", "run", "restore"],
        "label": str | None,
    },
)
_Status = Shape(migrate.MigrationStatus, ("duration_ms",), {"seconds": float | None})
_Result = Shape(migrate.Result, ("name",))
_Deed = Shape(migrate.Deed, ("duration_ms",), {"seconds": float | None})
_Rehearsed = Shape(typing.get_args(typing.get_type_hints(migrate.Rehearsal)["migrations"])[0], (), _Verdict)
_RoundTrip = Shape(typing.get_args(typing.get_type_hints(migrate.Rehearsal)["round_trip"])[0], (), _Verdict)
_Verification = Shape(migrate.Verification, (), _Verdict)
_Difference = Shape(migrate.Difference, (), {"text": str})
_Seen = Shape(Seen, (), {"phase": Literal[*PHASES]})
_Task = Shape(Task, (), {"status": Literal[*map(str, TaskStatus)]})
_Error = Shape(None, parts={"type": str, "message": str, ...: Any})

_DATABASE: Part = (str, "the path of the database")
_DRIFT: Part = (_Strings, "in what the schema is not what the applied migrations make")
_IDS: Part = (_Strings, "the ids of the migrations that changed in the ledger")
_RUN: dict[str, Part] = {
    "database": _DATABASE,
    "created": (bool, "whether there was no database before"),
    "snapshot": (str | None, "the path of the snapshot that was taken before"),
    "drift": (_Strings | None, "as of `status`; null if it was not checked, after a rollback"),
    "results": (tuple[_Result, ...], "the scripts that ran, in order"),
}
_STATUS: dict[str, Part] = {
    "database": _DATABASE,
    "exists": (bool, "whether the database exists"),
    "drift": _DRIFT,
    "broken": (_Strings, "the views, triggers and tables that do not work"),
    "advice": (str | None, "what to do before the first migration, where what they make is there already"),
    "migrations": (tuple[_Status, ...], "applied ones in the order of application, then the pending ones in theirs"),
    "others": (tuple[_Status, ...], "those of sets that were not named, in the order of application"),
}
_LintFinding = Shape(migrate.Finding, parts={"set": str | None})
_DRY_RUN: Part = (bool, "whether nothing was changed, without --yes")
_ACTED: dict[str, Part] = {
    "database": _DATABASE,
    "dry_run": _DRY_RUN,
    "matched": (int, "how many tasks that is about"),
    "tasks": (tuple[_Seen, ...], "the first ten of them, as they were before"),
    "done": (int, "to how many of them it was done"),
    "passed_over": (
        tuple[Shape(None, parts={"id": str, "reason": str}), ...],
        "those to which it was not done, and why; not `ok` if they were named by their ids",
    ),
}
_LEDGER: dict[str, Part] = {"database": _DATABASE, "ids": _IDS, "drift": _DRIFT}

#: The parts of each document beside `ok`, which is whether all is as it should be.
COMMANDS: dict[str, dict[str, Part]] = {
    "accept": _LEDGER,
    "adopt": {
        "database": _DATABASE,
        "tool": (str, "the tool whose ledger was taken over"),
        "ids": _IDS,
        "drift": _DRIFT,
        "pending": (_Strings, "the ids of the migrations that it has not applied"),
        "out_of_order": (_Strings, "those of them that come before applied ones"),
    },
    "baseline": {
        "database": _DATABASE,
        "id": (str, "the id of the migration, which is noted as applied"),
        "paths": (_Strings, "its files, two or one"),
        "left_out": (tuple[migrate.OtherLedger, ...], "the tables of other tools, which it does not make"),
        "broken": (_Strings, "what does not work in the schema, so that a new database will be refused"),
    },
    "browse": {
        "database": _DATABASE,
        "address": (str | None, "where it is shown, with the token that lets in; null with --metadata"),
        "metadata": (str | None, "the file that was written, with --metadata"),
    },
    "shell": {
        "database": _DATABASE,
        "command": (_Strings, "the client that would be run, and its arguments; no password is among them"),
        "read_only": (bool, "whether it could not write"),
    },
    "doctor": {
        "database": _DATABASE,
        "findings": (tuple[Finding, ...], "what was looked at, in order; `ok` unless one is an error"),
    },
    "check": {
        "database": _DATABASE,
        "faults": (tuple[migrate.Fault, ...], "all that is wrong; `ok` if there is nothing"),
        "unknown": (_Strings, "what could not be checked, and why"),
    },
    "copy": {
        "source": (str, "the database that was read: its path, or its URL without the password"),
        "target": (str, "the database that was filled, likewise"),
        "dry_run": (bool, "whether nothing was copied, only checked and counted"),
        "rows": (int, "how many rows all tables have together"),
        "tables": (tuple[transfer.CopiedTable, ...], "each table of this package, in the order of copying"),
        "left_out": (_Strings, "the other tables of the source, which are not copied"),
        "seconds": (float, "how long it took"),
    },
    "health": {
        "database": _DATABASE,
        "seconds": (float, "how soon the database answered"),
        "locked": (bool, "whether another connection held the write lock"),
        "error": ((_Error, None), "why it is not healthy"),
    },
    "history": {"database": _DATABASE, "history": (tuple[_Deed, ...], "what was done, the oldest first")},
    "init": {**_STATUS, "created": _RUN["created"]},
    "lint": {
        "migrations": (str, "the folder"),
        "judged": (_Strings, "the ids of the migrations that were judged"),
        "total": (int, "how many migrations there are"),
        "selection": (str, "which of them are judged, in words"),
        "failed": (_Strings, "the ids of those that were not judged, and fail in an empty database"),
        "findings": (tuple[_LintFinding, ...], "by file and line; silenced ones have the reason in `silenced`"),
    },
    "lint --write-baseline": {
        "migrations": (str, "the folder"),
        "baseline": (str, "the file that was written"),
        "written": (int, "how many findings it holds"),
    },
    "lint --rules": {"rules": (tuple[Rule, ...], "all rules")},
    "mark": _LEDGER,
    "migrate": _RUN,
    "migrate resolve": {
        "database": _DATABASE,
        "id": (str, "the id of the migration"),
        "set": (str | None, "the set that it is of"),
        "outcome": (
            Literal["applied", "rolled back"] | None,
            "how it ended, if that was said; `ok` if it was, and if nothing is `broken`",
        ),
        "differences": (
            dict[str, _Strings | None],
            "how the schema differs from either end, `applied` and `rolled back`; null if it cannot be compared",
        ),
        "broken": (_Strings, "what in the schema does not work"),
    },
    "metrics": {
        "database": _DATABASE,
        "output": (str | None, "the file that was written, as it was given"),
        "metrics": (tuple[Metric, ...], "each metric, with its samples"),
    },
    "new": {"paths": (_Strings, "the files that were made")},
    "plan": {
        "database": _DATABASE,
        "steps": (
            tuple[
                Shape(
                    None,
                    parts={
                        "id": str,
                        "set": str | None,
                        "direction": Literal["apply", "rollback"],
                        "path": str | None,
                        "transactional": bool,
                        "foreign_keys": bool,
                        "drops": _Strings,
                    },
                ),
                ...,
            ],
            "what would run, in order",
        ),
    },
    "prune": {
        "database": _DATABASE,
        "dry_run": _DRY_RUN,
        "before": (datetime, "rows from before this moment are old"),
        "tables": (
            tuple[Shape(None, parts={"name": str, "matched": int, "deleted": int, "left": int}), ...],
            "how many rows of each table are so old, were deleted, and are left, since others use them",
        ),
    },
    "redo": _RUN,
    "rehearse": {
        "database": _DATABASE,
        "exists": (bool, "whether the database exists"),
        "in_place": (bool, "whether there is no copy: on PostgreSQL it is all rolled back in the database"),
        "in_memory": (bool, "whether the copy was in memory"),
        "bytes": (int, "the size of the database"),
        "copy_seconds": (float, "how long the copy took"),
        "lock_seconds": (float, "how long `dao migrate` would hold the write lock, or on PostgreSQL any lock"),
        "seconds": (float, "how long all scripts took"),
        "migrations": (
            tuple[_Rehearsed, ...],
            "each migration that was tried; `migrate.rehearse` says what its parts are",
        ),
        "not_reached": (_Strings, "the ids of those after one that failed"),
        "round_trip": ((_RoundTrip, None), "with --round-trip: whether all came back"),
    },
    "reset": _RUN,
    "restore": {
        "database": _DATABASE,
        "restored": (_Snapshot, "the snapshot"),
        "replaced": ((_Snapshot, None), "the snapshot of what was there before"),
        "damaged": (str | None, "where the bytes are that were there before, if they were damaged"),
        "drift": _DRIFT,
    },
    "rollback": _RUN,
    "schema check": {
        "path": (str, "the schema file"),
        "exists": (bool, "whether it exists"),
        "diff": (_Strings, "the lines of a unified diff; `ok` if there are none"),
    },
    "schema diff": {
        "database": _DATABASE,
        "differences": (tuple[_Difference, ...], "each difference; `ok` if there is none"),
        "left_out": (tuple[migrate.OtherLedger, ...], "the ledgers of other tools, which are not compared"),
    },
    "schema dump": {"path": (str, "the schema file"), "written": (bool, "whether it was written, or current already")},
    "replicate": {
        "database": _DATABASE,
        "replica": (str, "where the replica is"),
        "metrics": (str, "the URL of Litestream's metrics, as long as it ran"),
        "seconds": (float, "how long it ran"),
    },
    "restore-replica": {
        "database": _DATABASE,
        "replica": (str, "where the replica is"),
        "as_of": (datetime | None, "the time that was asked for, or that of the newest transaction of the replica"),
        "replaced": ((_Snapshot, None), "the snapshot of what was there before"),
        "damaged": (str | None, "the path of a copy of the file that was there, if that was damaged"),
        "seconds": (float, "how long it took"),
    },
    "snapshot": {
        "database": _DATABASE,
        "snapshot": (_Snapshot, "the one that was taken"),
        "removed": (tuple[_Snapshot, ...], "older ones that were removed (--keep)"),
        "seconds": (float, "how long it took"),
    },
    "snapshots": {"database": _DATABASE, "snapshots": (tuple[_Snapshot, ...], "the newest first")},
    "status": _STATUS,
    "tasks list": {
        "database": _DATABASE,
        "tasks": (tuple[_Seen, ...], "the newest first"),
        "more": (bool, "whether there are more than --limit"),
    },
    "tasks show": {
        "database": _DATABASE,
        "task": (_Task, "the whole record"),
        "phase": (Literal[*PHASES], "what it is really doing"),
        "waits_for": (
            tuple[Shape(None, parts={"id": str, "status": Literal[*map(str, TaskStatus)], "title": str}), ...],
            "the tasks that have to complete first, and have not",
        ),
        "paused_by": (tuple[Shape(None, parts={"id": str, "name": str}), ...], "the paused workflows that it is in"),
        "attempts": (tuple[Attempt, ...], "the oldest first, as far as its events are kept"),
        "calls": (
            tuple[
                Shape(
                    None,
                    parts={
                        "id": str,
                        "attempt": int | None,
                        "step": str | None,
                        "tool_name": str,
                        "status": Literal[*map(str, ToolStatus)],
                        "seconds": float | None,
                        "error": str | None,
                    },
                ),
                ...,
            ],
            "its tool executions, the oldest first",
        ),
    },
    "tasks cancel": _ACTED,
    "tasks prune": {
        "database": _DATABASE,
        "dry_run": _DRY_RUN,
        "matched": (int, "how many tasks are so old"),
        "deleted": (int, "how many of them were deleted"),
    },
    "tasks release": _ACTED,
    "tasks retry": _ACTED,
    "top": {
        "database": _DATABASE,
        "at": (datetime, "when it looked"),
        "queues": (tuple[QueueState, ...], "each type of which a task is unfinished, or failed"),
        "throughput": (Shape(Throughput, (), {"seconds": float}), "in so many seconds before that"),
        "workers": (
            tuple[
                Shape(None, parts={"worker": str | None, "tasks": tuple[Shape(Running, ("worker",)), ...]}),
                ...,
            ],
            "each worker with what it runs, by name; those 200 tasks that have run for the longest",
        ),
    },
    "unmark": _LEDGER,
    "verify": {
        "database": (str | None, "the path of the database, with --copy"),
        "failed": (_Strings, "the ids of the migrations that failed; `ok` if none did"),
        "not_tried": (_Strings, "the ids of those that come after one that failed, and did not fail themselves"),
        "verifications": (tuple[_Verification, ...], "each migration in each stage"),
    },
    "wait": {"database": _DATABASE, "error": ((_Error, None), "why it is not ready")},
}


# ---------------------------------------------------------------- schemas

_PLAIN = {
    str: {"type": "string"},
    Path: {"type": "string"},
    datetime: {"type": "string", "format": "date-time"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    types.NoneType: {"type": "null"},
    None: {"type": "null"},
    Any: {},
}


def _schema(of: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type or shape; a pair is one of two."""
    if isinstance(of, Shape):
        return _object(of)
    if isinstance(of, tuple):
        return {"anyOf": [_schema(one) for one in of]}
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin in {types.UnionType, typing.Union}:
        return {"anyOf": [_schema(one) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return _object(Shape(of)) if attrs.has(of) else _PLAIN[of]


def _object(shape: Shape) -> dict[str, Any]:
    parts: dict[Any, Any] = {}
    described = {}
    if shape.of is not None:
        hints = typing.get_type_hints(shape.of)
        parts = {field.name: hints[field.name] for field in attrs.fields(shape.of) if field.name not in shape.without}
        described = {"description": " ".join((shape.of.__doc__ or "").split("\n\n")[0].split())}
    parts |= shape.parts
    properties = {name: _schema(kind) for name, kind in parts.items() if name is not ...}
    return {
        "type": "object",
        **described,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": ... in parts,
    }


_FAILURE = {
    "type": "object",
    "description": "It failed.",
    "properties": {"ok": {"const": False}, "error": _schema(_Error)},
    "required": ["ok", "error"],
    "additionalProperties": False,
}


def _done(command: str) -> dict[str, Any]:
    parts = {"ok": (bool, "whether all is as it should be"), **COMMANDS[command]}
    return {
        "type": "object",
        "properties": {name: {"description": text, **_schema(kind)} for name, (kind, text) in parts.items()},
        "required": list(parts),
        "additionalProperties": False,
    }


def check(command: str, document: Mapping[str, object]) -> None:
    """Hold a document against the schema of its command.

    Raises:
        jsonschema.ValidationError: It is another.
    """
    _validator(None if set(document) == {"ok", "error"} else command).validate(document)


@functools.cache
def _validator(command: str | None) -> jsonschema.Draft202012Validator:
    """Return what holds documents against the schema of a command, or of a failure: the schema is looked at once."""
    schema = _FAILURE if command is None else _done(command)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


# ---------------------------------------------------------------- pages


def pages() -> dict[Path, str]:
    """Return all files of the reference of the documents, with their texts."""
    found = {
        _file(name): json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "title": f"dao {name} --json",
                "oneOf": [_done(name), _FAILURE],
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
        for name in COMMANDS
    }
    lines = [
        "# The JSON documents of the commands",
        "",
        (
            "With `--json` a command prints one document on standard output, whatever happens. It is an object; "
            "`ok` says whether all is as it"
        ),
        (
            'should be. If the command fails, it is `{"ok": false, "error": {…}}`: '
            "the error has the name of its class as `type`"
        ),
        (
            "([refusals and errors](refusals.md)), its `message`, and what else that class tells (`details`, "
            "`committed`, `advice`, ids). Durations"
        ),
        (
            "are seconds, times are ISO 8601 in UTC. Each document has a JSON Schema, which the tests hold it to; "
            "new keys may come, and a"
        ),
        "key that goes is named in the changelog. Made from the code by `make reference`.",
    ]
    for name, parts in COMMANDS.items():
        lines += ["", f"## `dao {name}`", "", f"[json/{_file(name).name}](json/{_file(name).name})", ""]
        lines += ["| key | |", "|---|---|", *(f"| `{key}` | {text} |" for key, (_, text) in parts.items())]
    return found | {PAGE: "\n".join([*lines, ""])}


def _file(command: str) -> Path:
    return FOLDER / f"{command.replace(' --', '-').replace(' ', '-')}.schema.json"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.schema.json"):
        path.unlink()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
