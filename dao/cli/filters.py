"""Which tasks a command is about: the options that say so, and the query for them over the view `task_overview`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import attrs
import click

from dao import codec, url
from dao.cli.options import duration_option
from dao.engine import Connection, fetch
from dao.records import TaskStatus
from dao.text import brief

__all__ = ["COLUMNS", "PHASES", "Filters", "Seen", "filtered", "ids_of", "listed", "named", "of_ids", "shown"]

F = TypeVar("F", bound=Callable[..., Any])

#: Each phase of a task, and the status that it has then.
PHASES = {
    "ready": "pending",
    "scheduled": "pending",
    "backing off": "pending",
    "blocked": "pending",
    "paused": "pending",
    "running": "running",
    "lost": "running",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
# the statuses that have several phases: for the others the status says it
_HIDING = {"pending", "running"}
#: The names of the columns of `shown`.
COLUMNS = ("id", "phase", "type", "attempt", "worker", "age", "title")
# so many ids are looked for by one statement
_BATCH = 100
_SEEN = "id, phase, task_type, attempt, worker, age_seconds, title"


@attrs.frozen
class Seen:
    """A task as a list shows it. `age_seconds` counts from when it was made."""

    id: str
    phase: str
    task_type: str
    attempt: int
    worker: str | None
    age_seconds: float
    title: str


@attrs.frozen(kw_only=True)
class Filters:
    """The conditions that a task has to meet, all of them; None and () mean anything.

    `older_than` is for how long a task has been what it is: since it ended, else since its attempt began, else since
    it was made.
    """

    status: tuple[str, ...] = ()
    phase: tuple[str, ...] = ()
    task_type: str | None = None
    worker: str | None = None
    older_than: timedelta | None = None

    def condition(self, *before: Any) -> tuple[str, list[Any]]:
        """Return the condition of a WHERE, and its parameters, after those that come before in the statement."""
        parameters = [*before]

        def value(given: Any) -> str:
            parameters.append(given)
            return f"${len(parameters)}"

        def one_of(column: str, given: Iterable[str]) -> str:
            return f"{column} IN ({', '.join(map(value, given))})"

        found = []
        # a phase is computed, and no index has it; that of its status does
        statuses = self.status or sorted({PHASES[phase] for phase in self.phase})
        if self.worker is not None and not statuses:
            statuses = [TaskStatus.RUNNING.value]
        if statuses:
            found.append(one_of("status", statuses))
        if any(PHASES[phase] in _HIDING for phase in self.phase) or (self.phase and self.status):
            found.append(one_of("phase", self.phase))
        if self.task_type is not None:
            found.append(f"task_type = {value(self.task_type)}")
        if self.worker is not None:
            found.append(f"worker = {value(self.worker)}")
        if self.older_than is not None:
            since = codec.time_to_text(codec.now() - self.older_than)
            found.append(f"coalesce(completed_at, started_at, created_at) < {value(since)}")
        return " AND ".join(found) or "TRUE", parameters


def named(given: str, what: str) -> str:
    """Return a name or an id from the command line, without what files from Windows leave on it.

    Raises:
        click.UsageError: There is nothing of it, or it is no text.
    """
    text = url.cleaned(given)
    if not text:
        # an unset variable in a script must not come to mean all
        raise click.UsageError(f"{what} is empty: give one")
    try:
        codec.check_text(text, what)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return text


def filtered(*statuses: str, phases: Iterable[str] = PHASES, worker: bool = True) -> Callable[[F], F]:
    """Add the options that filter tasks by these statuses and phases; the function takes what they say as `filters`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def called(
            *,
            status: tuple[str, ...] = (),
            phase: tuple[str, ...] = (),
            task_type: str | None,
            worker: str | None = None,
            older_than: timedelta | None,
            **options: Any,
        ) -> Any:
            task_type, worker = (
                None if given is None else named(given, option)
                for option, given in (("--type", task_type), ("--worker", worker))
            )
            filters = Filters(status=status, phase=phase, task_type=task_type, worker=worker, older_than=older_than)
            return function(filters=filters, **options)

        given = [
            click.option("--type", "task_type", metavar="NAME", help="Only those of this type."),
            duration_option(
                "--older-than",
                "Only those that have been what they are for so long, such as 15m, 12h or 30d: since they ended, else "
                "since they began to run, else since they were made.",
            ),
        ]
        if worker:
            given.append(click.option("--worker", metavar="NAME", help="Only those that this worker runs."))
        given.append(
            click.option(
                "--phase",
                multiple=True,
                type=click.Choice([*phases]),
                help="Only those in this phase. Can be given several times.",
            )
        )
        if len(statuses) > 1:
            given.append(
                click.option(
                    "--status",
                    multiple=True,
                    type=click.Choice([str(status) for status in statuses]),
                    help="Only those of this status. Can be given several times.",
                )
            )
        decorated: Any = called
        for option in given:
            decorated = option(decorated)
        found: F = decorated
        return found

    return decorate


def listed(connection: Connection, filters: Filters, limit: int) -> list[Seen]:
    """Return the tasks that the filters let through, the newest first, so many at the most."""
    condition, parameters = filters.condition()
    return [
        Seen(*row)
        for row in fetch(
            connection,
            f"SELECT {_SEEN} FROM task_overview WHERE {condition} ORDER BY created_at DESC, id DESC "
            f"LIMIT ${len(parameters) + 1}",
            (*parameters, limit),
        )
    ]


def ids_of(connection: Connection, filters: Filters, among: Sequence[str] | None = None) -> list[str]:
    """Return the ids of all tasks that the filters let through, or of those among some, sorted."""
    if among is not None:
        batches = [among[start : start + _BATCH] for start in range(0, len(among), _BATCH)]
        conditions = [(f"{_is_in(batch)} AND ", batch) for batch in batches]
    else:
        conditions = [("", ())]
    found = []
    for is_in, batch in conditions:
        condition, parameters = filters.condition(*batch)
        found += fetch(connection, f"SELECT id FROM task_overview WHERE {is_in}{condition}", parameters)
    return sorted(id for (id,) in found)


def of_ids(connection: Connection, ids: Sequence[str]) -> dict[str, Seen]:
    """Return the tasks with these ids, those that there are, by id."""
    found = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        rows = fetch(connection, f"SELECT {_SEEN} FROM task_overview WHERE {_is_in(batch)}", batch)
        found.update({row[0]: Seen(*row) for row in rows})
    return found


def shown(tasks: Iterable[Seen]) -> list[tuple[object, ...]]:
    """Return the rows of a table of tasks, under `COLUMNS`."""
    return [
        (task.id, task.phase, task.task_type, task.attempt, task.worker, brief(task.age_seconds), task.title)
        for task in tasks
    ]


def _is_in(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(f'${place}' for place in range(1, len(ids) + 1))})"
