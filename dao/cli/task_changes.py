"""The commands that act on many tasks: retry, cancel, release, prune. Without --yes each says what it would do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import attrs
import click

from dao import codec, settings
from dao import tasks as queue
from dao.cli import completion
from dao.cli.database import opened
from dao.cli.filters import COLUMNS, PHASES, Filters, Seen, filtered, ids_of, named, of_ids, shown
from dao.cli.options import command, duration_option, examples
from dao.cli.output import Output
from dao.engine import Connection, lock_row, transaction
from dao.errors import DatabaseBusy, IntegrityError, NotFound, StaleRecord
from dao.records import FINISHED_TASKS, Task, TaskStatus
from dao.rows import TASKS
from dao.text import counted
from dao.transactions import run_in_transaction

__all__ = ["cancel", "prune", "pruned", "release", "retry", "telling_committed", "yes_option"]

# seconds between two batches, so that others find the lock free
_PAUSE = 0.005
# the tasks of one transaction: it is over in a few dozen milliseconds
_BATCH = 100
_SHOWN = 10

yes_option = click.option("-y", "--yes", is_flag=True, help="Do it. [default: say what would be done]")
_Act = Callable[[Connection, str], Task]


@attrs.frozen
class _Verb:
    """A change of each task: its words, the statuses that it is for, and those that it takes without --status."""

    name: str
    done: str
    statuses: tuple[str, ...]
    default: tuple[str, ...]

    @property
    def phases(self) -> tuple[str, ...]:
        return tuple(phase for phase, status in PHASES.items() if status in self.statuses)

    def ids(self, function: Callable[..., int]) -> Callable[..., int]:
        """Add the argument that names tasks; the shell completes those that the verb takes without --status."""
        complete = completion.tasks(*self.default)
        return click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=complete)(function)


_RETRY = _Verb("retry", "retried", ("failed", "cancelled", "completed", "pending"), ("failed",))
_CANCEL = _Verb("cancel", "cancelled", ("pending", "running"), ("pending", "running"))
_RELEASE = _Verb("release", "released", ("running",), ("running",))


@click.command("retry")
@command(migrations=False, changes=True)
@filtered(*_RETRY.statuses, phases=_RETRY.phases, worker=False)
@examples(
    "dao tasks retry 019a2b3c-4d5e-7f60-8a9b-0c1d2e3f4a5b --yes", "dao tasks retry --type mail  # says what it would do"
)
@_RETRY.ids
@yes_option
def retry(config: settings.Settings, output: Output, filters: Filters, ids: tuple[str, ...], yes: bool) -> int:
    """Have tasks run again.

    Those with these IDs, or those that the options say: of these, failed ones, unless --status or --phase names
    others. Each is pending then, due at once, and has all its retries. One that is pending already waits no longer for
    its run_at.
    """
    return _act(_RETRY, queue.retry, config, output, filters, ids, yes=yes)


@click.command("cancel")
@command(migrations=False, changes=True)
@filtered(*_CANCEL.statuses, phases=_CANCEL.phases)
@examples("dao tasks cancel --type mail --older-than 12h --error outdated --yes")
@click.option("--error", metavar="TEXT", help="Why, for the task's error.")
@_CANCEL.ids
@yes_option
def cancel(
    config: settings.Settings, output: Output, filters: Filters, ids: tuple[str, ...], error: str | None, yes: bool
) -> int:
    """Cancel tasks that are pending or running.

    Those with these IDs, or those that the options say. A worker that runs one is told when it renews its lease, or
    ends it; what it has done by then stays.
    """
    error = None if error is None else named(error, "--error")

    def act(connection: Connection, id: str) -> Task:
        return queue.cancel(connection, id, error=error)

    return _act(_CANCEL, act, config, output, filters, ids, yes=yes)


@click.command("release")
@command(migrations=False, changes=True)
@filtered(*_RELEASE.statuses, phases=_RELEASE.phases)
@examples("dao tasks release --phase lost --yes", "dao tasks release --worker web-3")
@_RELEASE.ids
@yes_option
def release(config: settings.Settings, output: Output, filters: Filters, ids: tuple[str, ...], yes: bool) -> int:
    """Give tasks back, whoever runs them.

    Those with these IDs, or those that the options say. Each is pending then, and another worker may claim it; that
    costs no retry. The worker that had it can write nothing more to it, but what it has called by then may be done a
    second time.
    """
    return _act(_RELEASE, _released, config, output, filters, ids, yes=yes)


def _released(connection: Connection, id: str) -> Task:
    task = queue.get_one(connection, id)
    if task.status is not TaskStatus.RUNNING:
        raise StaleRecord(f"tasks: {id!r} is {task.status.value}: name one that is running", table="tasks", key=id)
    return queue.release(connection, task)


# ---------------------------------------------------------------- many tasks


def _act(
    verb: _Verb,
    act: _Act,
    config: settings.Settings,
    output: Output,
    filters: Filters,
    given: Sequence[str],
    *,
    yes: bool,
) -> int:
    output.changes = yes
    ids = sorted({named(id, "an ID") for id in given})
    if ids and filters != Filters():
        raise click.UsageError("IDs and options that filter exclude each other: give one or the other")
    if not ids and filters == Filters():
        raise click.UsageError(
            f"no tasks are named to {verb.name}: give their IDs, or options that filter, such as --type"
        )
    if ids:
        filters = Filters(status=verb.statuses)
    elif not filters.status and not filters.phase:
        filters = attrs.evolve(filters, status=verb.default)
    with opened(config, changes=yes) as connection:
        chosen = ids_of(connection, filters, among=ids or None)
        there = of_ids(connection, ids)
        if missing := [id for id in ids if id not in there]:
            names = ", ".join(map(repr, missing))
            raise NotFound(
                f"there is no task {names}, so nothing was changed: `dao tasks list` shows those that there are",
                table="tasks",
                key=missing[0],
            )
        passed = {id: f"it is {there[id].phase}" for id in ids if id not in {*chosen}}
        seen = of_ids(connection, chosen[:_SHOWN])
        first = [seen[id] for id in chosen[:_SHOWN] if id in seen]
        done = 0
        with telling_committed(output, verb.done, "task", len(chosen)) as committed:
            for number, batch in enumerate(_batches(chosen) if yes else ()):
                if number:
                    time.sleep(_PAUSE)
                passed_by = run_in_transaction(connection, _done, act, filters, batch)
                done = committed["tasks"] = done + len(batch) - len(passed_by)
                passed |= passed_by
    # what was named and not done is a failure; what a filter found has only moved on
    failed = yes and bool(ids) and bool(passed)
    _print(verb, config, output, len(chosen), first, done, passed, yes=yes, failed=failed)
    return 1 if failed else 0


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))


def _done(connection: Connection, act: _Act, filters: Filters, ids: Sequence[str]) -> dict[str, str]:
    """Act on tasks that the filters still let through; return the others, and what has become of them."""
    for id in ids:
        lock_row(connection, TASKS, id)
    chosen = ids_of(connection, filters, among=ids)
    moved = [id for id in ids if id not in {*chosen}]
    there = of_ids(connection, moved)
    passed = {id: f"it is {there[id].phase} now" if id in there else "it was deleted" for id in moved}
    for id in chosen:
        try:
            with transaction(connection):  # one that is refused undoes none of the others
                act(connection, id)
        except (StaleRecord, NotFound, IntegrityError) as error:
            passed[id] = str(error)
    return passed


def _print(
    verb: _Verb,
    config: settings.Settings,
    output: Output,
    chosen: int,
    first: Sequence[Seen],
    done: int,
    passed: dict[str, str],
    *,
    yes: bool,
    failed: bool,
) -> None:
    if yes:
        output.line(f"{config.url.name}: {verb.done} {counted(done, 'task')}", style="green")
    elif chosen:
        output.line(f"{config.url.name}: would {verb.name} {counted(chosen, 'task')}")
        output.table(COLUMNS, shown(first))
        if chosen > len(first):
            output.line(f"… and {chosen - len(first)} more")
    else:
        output.line(f"{config.url.name}: no task to {verb.name}")
    if passed:
        lines = [f"passed over {counted(len(passed), 'task')}:"]
        lines += [f"  {id}: {why}" for id, why in [*passed.items()][:_SHOWN]]
        if len(passed) > _SHOWN:
            lines.append(f"  … and {len(passed) - _SHOWN} more (--json has all)")
        if failed:
            output.error("\n".join(line.strip() for line in lines))
        else:
            for line in lines:
                output.line(line)
    if chosen and not yes:
        output.note("nothing was changed: add --yes to do it")
    output.json(
        {
            "database": config.url.name,
            "dry_run": not yes,
            "matched": chosen,
            "tasks": [attrs.asdict(one) for one in first],
            "done": done,
            "passed_over": [{"id": id, "reason": why} for id, why in passed.items()],
        },
        ok=not failed,
    )


# ---------------------------------------------------------------- prune


@click.command("prune")
@command(migrations=False, changes=True)
@examples("dao tasks prune --older-than 30d --status completed --yes")
@duration_option("--older-than", "Those that ended so long ago, such as 12h or 30d.", required=True)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice([status.value for status in FINISHED_TASKS]),
    help="Only those of this status. Can be given several times.",
)
@yes_option
def prune(config: settings.Settings, output: Output, older_than: timedelta, status: tuple[str, ...], yes: bool) -> None:
    """Delete finished tasks, with their tool calls.

    Their events stay (`dao prune` deletes old ones). One that failed or was cancelled stays while an unfinished task
    waits for it.
    """
    output.changes = yes
    before = codec.now() - older_than
    with opened(config, changes=yes) as connection:
        matched = queue.count_prunable(connection, before=before, status=status or None)
        with telling_committed(output, "deleted", "task", matched):
            deleted = pruned(connection, before, status) if yes else 0
    if yes:
        output.line(f"{config.url.name}: deleted {counted(deleted, 'task')}", style="green")
    else:
        output.line(f"{config.url.name}: would delete {counted(matched, 'task')}")
        if matched:
            output.note("nothing was changed: add --yes to do it")
    output.json({"database": config.url.name, "dry_run": not yes, "matched": matched, "deleted": deleted})


def pruned(connection: Connection, before: datetime, status: Sequence[str] = ()) -> int:
    """Delete all finished tasks that ended before a moment, in batches, and return how many it deleted.

    If others keep the lock for too long meanwhile, the rest is left to the next call.

    Raises:
        DatabaseBusy: So it was at the first batch.
    """
    deleted = 0
    try:
        while number := run_in_transaction(connection, queue.prune, before=before, status=status or None, limit=_BATCH):
            deleted += number
            time.sleep(_PAUSE)
    except DatabaseBusy:
        if not deleted:
            raise
    except BaseException as error:
        error.committed = deleted  # type: ignore[attr-defined] # whatever error it is
        raise
    return deleted


@contextlib.contextmanager
def telling_committed(output: Output, done: str, noun: str, of: int | None = None) -> Iterator[dict[str, int]]:
    """Say how much stays done although an error ends the block, which notes it; `.committed` of the error has it, too.

    The block may note it in several parts, and raise an error that has a part already.
    """
    parts: dict[str, int] = {}
    try:
        yield parts
    except BaseException as error:
        committed = sum(parts.values()) + (getattr(error, "committed", None) or 0)
        error.committed = committed  # type: ignore[attr-defined] # whatever error it is
        if committed:
            number = counted(committed, noun) if of is None else f"{committed} of {counted(of, noun)}"
            output.note(f"{done} by then, and committed: {number}")
        raise
