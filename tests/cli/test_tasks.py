"""`dao tasks`: what it lists and tells, and what it does to many at once, on both engines."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.text import Text

import dao
from dao import migrate, task_dependencies, task_events, tasks, tool_executions, workflow_tasks, workflows
from dao.engine import fetch
from dao.records import ToolStatus
from dao.testing import make_task, make_tool_execution, make_workflow
from tests.cli.calls import misused, refused
from tests.engines import impatient

pytestmark = [pytest.mark.both_engines, pytest.mark.sample(3, engine="postgresql")]

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
#: The last migration before claims.
BEFORE_CLAIMS = "20250115010600_create_triggers"
EVERY_COMMAND = [
    ["tasks", "list"],
    ["tasks", "show", "a"],
    ["tasks", "retry", "a"],
    ["tasks", "cancel", "--type", "x", "--yes"],
    ["tasks", "release", "--phase", "lost"],
    ["tasks", "prune", "--older-than", "1d", "--yes"],
    ["top", "--once"],
    ["prune", "--older-than", "1d"],
]


@pytest.fixture(autouse=True)
def named(workplace, url, monkeypatch):
    """DATABASE_URL names the database of the test."""
    monkeypatch.setenv("DATABASE_URL", url)


def ago(duration):
    return dao.codec.now() - duration


def add(connection, *ids, **fields):
    """Store tasks with these ids, which are their titles, too."""
    for id in ids:
        tasks.create(connection, make_task(id=id, title=id, **fields))


def add_failed(connection, *ids, **fields):
    add(connection, *ids, status="failed", attempt=1, started_at=ago(DAY), completed_at=ago(DAY), error="x", **fields)


def statuses(connection):
    return dict(fetch(connection, "SELECT id, status FROM tasks ORDER BY id"))


def all_rows(connection):
    return [sorted(fetch(connection, f"SELECT * FROM {table}"), key=str) for table in ("tasks", "task_events")]


@pytest.fixture
def phases(connection):
    """A task in each phase, with that as its id; `first` is completed."""
    add(connection, "completed", "ready", "blocked", "paused")
    tasks.set_status(connection, "completed", "running")
    tasks.set_status(connection, "completed", "completed")
    add(connection, "scheduled", run_at=ago(-DAY), task_type="mail")
    add(connection, "backing off", run_at=ago(-DAY), failures=1, retries=3, task_type="mail")
    add_failed(connection, "failed")
    add(connection, "cancelled", status="cancelled", completed_at=ago(DAY))
    running = {"status": "running", "attempt": 1, "started_at": ago(MINUTE)}
    add(connection, "running", worker="w1", lease_expires_at=ago(-DAY), **running)
    add(connection, "lost", worker="w2", lease_expires_at=ago(MINUTE), **running)
    task_dependencies.add(connection, "blocked", ["failed", "completed", "ready"])
    workflows.create(connection, make_workflow(id="flow", name="Nightly", status="paused"))
    workflow_tasks.add(connection, workflow_id="flow", task_id="paused")
    return sorted(statuses(connection))


def found(outcome):
    return sorted(task["id"] for task in outcome.document["tasks"])


# ---------------------------------------------------------------- every command


@pytest.fixture(scope="module")
def before_claims(engine, request, tmp_path_factory):
    """The URL of a database without what claims need, which no command changes."""
    if engine == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('before')}/old.db"
        migrate.apply(url, to=BEFORE_CLAIMS)
        yield url
    else:
        server = request.getfixturevalue("server")
        url = server.create()
        migrate.apply(url, to=BEFORE_CLAIMS)
        yield url
        server.drop(url)


@pytest.mark.parametrize("arguments", EVERY_COMMAND, ids=lambda arguments: " ".join(arguments[:2]))
def test_schema_without_claims_is_refused_with_what_to_run(run, before_claims, monkeypatch, arguments):
    """A database that was not migrated since the upgrade is no SQL error about a view that nobody knows."""
    monkeypatch.setenv("DATABASE_URL", before_claims)
    refused(run(*arguments), "its schema has no task_overview", "run `dao migrate`")
    error = run(*arguments, "--json").document["error"]
    assert (error["type"], error["pending"]) == ("SchemaOutOfDate", ["20261128010500_create_task_views"])


@pytest.mark.sqlite_only
@pytest.mark.parametrize("arguments", EVERY_COMMAND, ids=lambda arguments: " ".join(arguments[:2]))
def test_database_that_does_not_exist_is_refused_and_not_made(run, tmp_path, arguments):
    """Whoever looks into the wrong folder is told so, and no empty file is left there."""
    refused(run(*arguments, "--database", f"sqlite:///{tmp_path}/nowhere.db"), "nowhere.db does not exist")
    assert not (tmp_path / "nowhere.db").exists()


# ---------------------------------------------------------------- list


def test_list_shows_each_task_with_its_phase(run, phases):
    """What a task is really doing is told, not the status alone; the columns have names."""
    outcome = run("tasks", "list")
    assert (outcome.code, outcome.err) == (0, "")
    head, *lines = outcome.out.splitlines()
    assert head.split() == ["id", "phase", "type", "attempt", "worker", "age", "title"]
    document = run("tasks", "list", "--json").document
    assert {task["id"]: task["phase"] for task in document["tasks"]} == {phase: phase for phase in phases}
    assert len(lines) == len(phases)
    assert document["more"] is False


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "failed"], ["failed"]),
        (["--status", "failed", "--status", "running"], ["failed", "lost", "running"]),
        (["--phase", "backing off"], ["backing off"]),
        (["--phase", "lost", "--phase", "blocked"], ["blocked", "lost"]),
        (["--status", "pending", "--phase", "lost"], []),
        (["--type", "mail"], ["backing off", "scheduled"]),
        (["--type", "mail", "--phase", "scheduled"], ["scheduled"]),
        (["--worker", "w2"], ["lost"]),
        (["--worker", "w2", "--status", "failed"], []),
        (["--older-than", "12h"], ["cancelled", "failed"]),
        (["--older-than", "2d"], []),
        (["--older-than", "30s", "--status", "running"], ["lost", "running"]),
    ],
    ids=" ".join,
)
def test_list_filters(run, phases, options, ids):
    """Each option narrows the list, also together with others, and repeated ones are alternatives."""
    assert found(run("tasks", "list", *options, "--json")) == ids


def test_list_limit_shows_the_newest_and_says_that_there_are_more(run, connection):
    """What is left out is not passed over in silence."""
    for number in range(5):
        add(connection, f"t{number}", created_at=ago(DAY - number * MINUTE))
    outcome = run("tasks", "list", "--limit", "2")
    assert [line.split()[0] for line in outcome.out.splitlines()[1:]] == ["t4", "t3"]
    assert outcome.err == "these are the newest 2: --limit shows more, the other options filter\n"
    assert run("tasks", "list", "--limit", "2", "--json").document["more"] is True


def test_list_of_nothing_says_so(run, connection):
    """An empty answer is no empty output."""
    assert run("tasks", "list").out.endswith(": no such tasks\n")


def test_list_shows_control_characters_as_escapes(run, connection):
    """A title is somebody else's text: it neither makes a line nor moves the cursor."""
    tasks.create(connection, make_task(title="a\nb\x1b[2J"))
    assert run("tasks", "list").out.splitlines()[1].endswith("a\\nb\\x1b[2J")


@pytest.mark.sqlite_only
@pytest.mark.parametrize("columns", [60, 80, 140])
def test_list_at_a_terminal_is_as_wide_as_that(terminal, connection, url, columns):
    """Ids are shown whole, since people copy them; the rest is cut, and no line breaks."""
    title = "漢字 title " * 20
    task = make_task(title=title, task_type="a rather long type of task")
    tasks.create(connection, task)
    screen = terminal("tasks", "list", DATABASE_URL=url, COLUMNS=str(columns))
    assert screen.close() == 0
    lines = [Text.from_ansi(line).plain for line in screen.shown.splitlines()]
    assert lines[1].startswith(f"{task.id}  ready")
    assert lines[1].endswith("…")
    assert max(map(cell_len, lines)) <= columns


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--type", ""], "--type is empty"),
        (["--worker", "\r"], "--worker is empty"),
        (["--type", "a\0b"], "NUL"),
        (["--older-than", "soon"], "'soon' is no duration"),
        (["--older-than", "99999999999d"], "99999999999d is longer than a thousand years"),
        (["--older-than", "99999999w"], "longer than a thousand years"),
        (["--phase", "asleep"], "'asleep' is not one of"),
        (["--limit", "0"], "--limit"),
    ],
    ids=str,
)
def test_list_misused(run, options, part):
    """An unset variable in a script does not come to mean all, and a duration needs its unit."""
    misused(run("tasks", "list", *options), part)


# ---------------------------------------------------------------- show


def test_show_tells_why_a_task_does_not_run(run, connection, phases):
    """It names the tasks that have to complete first, the paused workflow, and the time."""
    blocked = run("tasks", "show", "blocked").out
    assert "it waits for 2 tasks:\n  failed  failed  failed\n  ready  pending  ready\n" in blocked
    assert "its workflow is paused: Nightly\n" in run("tasks", "show", "paused").out
    assert "(in 23h) on\n" in run("tasks", "show", "scheduled").out
    backing_off = run("tasks", "show", "backing off").out
    assert "(in 23h) on, after a failure\n" in backing_off
    assert "  attempts: 0, with 1 failure; retries allowed: 3\n" in backing_off
    assert "any worker may claim it\n" in run("tasks", "show", "ready").out
    assert "worker w1 has it since" in run("tasks", "show", "running").out
    assert "its lease ended" in run("tasks", "show", "lost").out
    document = run("tasks", "show", "blocked", "--json").document
    assert document["waits_for"] == [
        {"id": "failed", "status": "failed", "title": "failed"},
        {"id": "ready", "status": "pending", "title": "ready"},
    ]
    assert document["task"] == tasks.get_one(connection, "blocked").to_dict()
    assert run("tasks", "show", "paused", "--json").document["paused_by"] == [{"id": "flow", "name": "Nightly"}]


def test_show_tells_attempts_and_calls(run, connection):
    """Each attempt with its worker, its end and its error; each call with its step."""
    add(connection, "a", retries=5)

    def claim(worker):
        (task,) = tasks.claim(connection, worker=worker, lease=MINUTE)
        return task

    task = claim("w1")
    call = make_tool_execution(task_id="a", tool_name="fetch", step="load", attempt=1, status=ToolStatus.RUNNING)
    tool_executions.record(connection, call)
    tasks.fail(connection, task, error="no answer", retry_in=timedelta(0))
    tasks.release(connection, claim("w2"))
    tasks.complete(connection, claim("w3"))
    document = run("tasks", "show", "a", "--json").document
    assert [(one["attempt"], one["worker"], one["outcome"], one["error"]) for one in document["attempts"]] == [
        (1, "w1", "failed, to be tried again", "no answer"),
        (2, "w2", "released", None),
        (3, "w3", "completed", None),
    ]
    assert all(one["started_at"] <= one["ended_at"] for one in document["attempts"])
    ((step, status, error),) = [(one["step"], one["status"], one["error"]) for one in document["calls"]]
    assert (step, status) == ("load", "failed")
    assert error.startswith("outcome unknown: attempt 1")
    text = run("tasks", "show", "a").out
    assert "no answer" in text
    assert "load" in text


def test_show_says_how_many_calls_it_leaves_out(run, connection):
    """The text shows the last twenty, and said nothing of the others; --json has all."""
    add(connection, "a")
    for number in range(21):
        tool_executions.record(connection, make_tool_execution(task_id="a", tool_name=f"tool-{number:02}"))
    text = run("tasks", "show", "a").out
    assert ("tool-00" in text, "tool-01" in text, "tool-20" in text) == (False, True, True)
    assert text.endswith("the last 20 of 21 tool calls: --json has all\n")
    assert len(run("tasks", "show", "a", "--json").document["calls"]) == 21


def test_show_a_running_task_without_events(run, connection):
    """Where the history is left out, or deleted, there still is the attempt that runs."""
    dao.configurations.set(connection, "task_events", False)
    add(connection, "a")
    tasks.claim(connection, worker="w1", lease=MINUTE)
    (attempt,) = run("tasks", "show", "a", "--json").document["attempts"]
    assert (attempt["attempt"], attempt["worker"], attempt["outcome"]) == (1, "w1", None)


def test_show_a_task_that_has_gone(run, connection):
    """It is told that there was one, and when it was deleted; of an unknown id there is nothing to tell."""
    add(connection, "a")
    tasks.delete(connection, "a")
    refused(run("tasks", "show", "a"), "there is no task 'a' any more, it was pending, and deleted at ")
    refused(run("tasks", "show", "b"), "there is no task 'b': `dao tasks list` shows")
    misused(run("tasks", "show", " "), "the ID is empty")


# ---------------------------------------------------------------- retry, cancel, release


@pytest.mark.parametrize("verb", ["retry", "cancel", "release"])
def test_acting_without_yes_says_what_it_would_do(run, connection, verb):
    """Nothing changes: it tells how many tasks that is, and the first ten."""
    add_failed(connection, *(f"f{number:02}" for number in range(12)))
    add(connection, *(f"p{number:02}" for number in range(12)))
    running = {"status": "running", "attempt": 1, "worker": "w1", "lease_expires_at": ago(-DAY)}
    add(connection, *(f"r{number:02}" for number in range(12)), **running)
    before = all_rows(connection)
    option = {"retry": ["--status", "failed"], "cancel": ["--phase", "ready"], "release": ["--worker", "w1"]}[verb]
    outcome = run("tasks", verb, *option)
    assert (outcome.code, outcome.err) == (0, "nothing was changed: add --yes to do it\n")
    first, head, *lines, last = outcome.out.splitlines()
    assert first.endswith(f": would {verb} 12 tasks")
    assert head.startswith("id")
    letter = {"retry": "f", "cancel": "p", "release": "r"}[verb]
    assert [line.split()[0] for line in lines] == [f"{letter}{number:02}" for number in range(10)]
    assert last == "… and 2 more"
    document = run("tasks", verb, *option, "--json").document
    assert (document["dry_run"], document["matched"], document["done"]) == (True, 12, 0)
    assert len(document["tasks"]) == 10
    assert all_rows(connection) == before


def test_retry_by_filter_takes_failed_ones(run, connection, phases):
    """Without a status it does not run again what has completed."""
    outcome = run("tasks", "retry", "--older-than", "1h", "--yes")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(": retried 1 task\n")
    assert statuses(connection)["failed"] == "pending"
    assert statuses(connection)["cancelled"] == "cancelled"
    assert run("tasks", "retry", "--older-than", "1h").out.endswith(": no task to retry\n")


def test_retry_of_a_pending_task_ends_its_wait(run, connection, phases):
    """One that backs off, or is scheduled, is due at once."""
    assert run("tasks", "retry", "--phase", "backing off", "--phase", "scheduled", "--yes").code == 0
    overview = dict(fetch(connection, "SELECT id, phase FROM task_overview"))
    assert (overview["backing off"], overview["scheduled"]) == ("ready", "ready")


def test_cancel_by_filter_takes_pending_and_running_ones(run, connection, phases):
    """Whatever is not finished of a type; with the reason as its error."""
    assert run("tasks", "cancel", "--type", "mail", "--error", "by hand", "--yes").code == 0
    ended = {id: status for id, status in statuses(connection).items() if status == "cancelled"}
    assert sorted(ended) == ["backing off", "cancelled", "scheduled"]
    assert tasks.get_one(connection, "scheduled").error == "by hand"


def test_release_gives_tasks_back_without_a_retry(run, connection):
    """Another worker may claim it; the one that had it can write nothing more."""
    add(connection, "a", retries=1)
    (task,) = tasks.claim(connection, worker="w1", lease=MINUTE)
    assert run("tasks", "release", "a", "--yes").out.endswith(": released 1 task\n")
    (again,) = tasks.claim(connection, worker="w2", lease=MINUTE)
    assert (again.attempt, again.failures) == (2, 0)
    with pytest.raises(dao.LeaseLost):
        tasks.complete(connection, task)


@pytest.mark.parametrize("verb", ["retry", "cancel", "release"])
def test_acting_on_ids_is_all_that_it_does(run, connection, phases, verb):
    """Ids that are named twice count once, and blanks around them are no part of them."""
    id, status = {"retry": ("failed", "pending"), "cancel": ("ready", "cancelled"), "release": ("lost", "pending")}[
        verb
    ]
    before = statuses(connection)
    assert run("tasks", verb, id, f"{id}\r", "--yes").code == 0
    assert statuses(connection) == before | {id: status}


def test_id_that_is_not_there_is_refused_before_anything_is_done(run, connection, phases):
    """A slip of the pen in one of many leaves no half of it."""
    before = statuses(connection)
    refused(
        run("tasks", "cancel", "ready", "gone", "--yes"),
        "there is no task 'gone', so nothing was changed: `dao tasks list`",
    )
    assert statuses(connection) == before


def test_named_task_that_cannot_be_acted_on_fails(run, connection, phases):
    """A script that names a task learns by the exit code that it was not done; the others are."""
    outcome = run("tasks", "release", "lost", "completed", "--yes")
    assert outcome.code == 1
    assert outcome.out.endswith(": released 1 task\n")
    assert "passed over 1 task:\n  completed: it is completed\n" in outcome.err
    document = run("tasks", "release", "completed", "--yes", "--json").document
    assert (document["ok"], document["done"]) == (False, 0)
    assert document["passed_over"] == [{"id": "completed", "reason": "it is completed"}]
    assert run("tasks", "release", "completed").code == 0


def test_retry_passes_over_a_task_whose_key_another_has(run, connection):
    """One that the database refuses does not undo the others of its batch."""
    add_failed(connection, "a", dedup_key="k")
    add_failed(connection, "b", "c")
    add(connection, "newer", dedup_key="k")
    outcome = run("tasks", "retry", "--status", "failed", "--yes")
    assert outcome.code == 0
    assert ": retried 2 tasks\npassed over 1 task:\n  a: " in outcome.out
    assert "dedup_key" in outcome.out
    assert statuses(connection) == {"a": "failed", "b": "pending", "c": "pending", "newer": "pending"}


def test_many_tasks_are_done_in_batches_and_those_that_moved_on_are_passed_over(run, connection, url, monkeypatch):
    """Between two batches others write; what they changed is judged again, not acted on as it was."""
    ids = [f"t{number:03}" for number in range(250)]
    add_failed(connection, *ids)
    waits = []

    def sleep(_seconds):
        waits.append(1)
        if len(waits) == 1:
            other = impatient(url)  # does not wait for a lock
            tasks.set_status(other, "t249", "pending")
            tasks.set_status(other, "t249", "running")
            tasks.delete(other, "t248")
            other.close()

    monkeypatch.setattr(time, "sleep", sleep)
    outcome = run("tasks", "retry", "--status", "failed", "--yes")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0].endswith(": retried 248 tasks")
    assert outcome.out.splitlines()[1:] == [
        "passed over 2 tasks:",
        "  t248: it was deleted",
        "  t249: it is running now",
    ]
    assert len(waits) == 2
    assert statuses(connection) == dict.fromkeys(ids[:248], "pending") | {"t249": "running"}


def test_acting_that_breaks_off_says_what_was_done(run, connection, monkeypatch):
    """What is committed stays, and is told beside the error."""
    add_failed(connection, *(f"t{number:03}" for number in range(150)))

    def sleep(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    outcome = run("tasks", "retry", "--status", "failed", "--yes", "--json")
    assert outcome.code == 130
    assert "retried by then, and committed: 100 of 150 tasks\n" in outcome.err
    assert "`dao tasks list` shows what stands" in outcome.err
    assert outcome.document["error"]["committed"] == 100
    assert list(statuses(connection).values()).count("pending") == 100


@pytest.mark.parametrize("command", [["prune"], ["tasks", "prune"]], ids=" ".join)
def test_prune_that_breaks_off_says_what_was_done(run, connection, monkeypatch, command):
    """It said nothing of what it had deleted, and named a command that is about migrations."""
    tasks.create_many(
        connection, [make_task(status="failed", created_at=datetime(2025, 1, 15, tzinfo=UTC)) for _ in range(150)]
    )

    def sleep(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    outcome = run(*command, "--older-than", "30d", "--yes", "--json")
    assert outcome.code == 130
    assert "deleted by then, and committed: 100" in outcome.err
    assert "`dao tasks list` shows what stands" in outcome.err
    assert (outcome.document["error"]["committed"], tasks.count(connection)) == (100, 50)


@pytest.mark.parametrize("verb", ["retry", "cancel", "release"])
def test_acting_without_a_choice_is_wrong_usage(run, connection, phases, verb):
    """Nobody means all tasks by saying nothing, nor by an empty variable; ids and filters are two choices."""
    before = all_rows(connection)
    misused(run("tasks", verb, "--yes"), f"no tasks are named to {verb}")
    misused(run("tasks", verb, "", "--yes"), "an ID is empty")
    misused(run("tasks", verb, "ready", "--type", "mail", "--yes"), "exclude each other")
    assert all_rows(connection) == before


def test_status_that_a_command_is_not_for_is_wrong_usage(run):
    """What has completed cannot be cancelled: that is no empty answer."""
    misused(run("tasks", "cancel", "--status", "completed"), "'completed' is not one of")
    misused(run("tasks", "release", "--phase", "ready"), "'ready' is not one of")
    misused(run("tasks", "retry", "--phase", "lost"), "'lost' is not one of")


# ---------------------------------------------------------------- prune


def test_prune_deletes_finished_tasks_that_are_old(run, connection, phases):
    """First it says how many; with --yes they go, and what is not finished, or not old enough, stays."""
    assert run("tasks", "prune", "--older-than", "12h").out.endswith(": would delete 1 task\n")
    assert "failed" in statuses(connection)  # `blocked` waits for it
    task_dependencies.remove(connection, "blocked", "failed")
    document = run("tasks", "prune", "--older-than", "12h", "--status", "failed", "--yes", "--json").document
    assert (document["dry_run"], document["matched"], document["deleted"]) == (False, 1, 1)
    assert run("tasks", "prune", "--older-than", "12h", "--yes").out.endswith(": deleted 1 task\n")
    assert {"failed", "cancelled"} & {*statuses(connection)} == set()
    assert "completed" in statuses(connection)
    assert task_events.list_of(connection, "failed")
    misused(run("tasks", "prune", "--yes"), "--older-than")


def test_prune_of_many_goes_on_until_none_is_left(run, connection):
    """More than a batch of them, each batch a transaction of its own."""
    add_failed(connection, *(f"t{number:03}" for number in range(250)))
    assert run("tasks", "prune", "--older-than", "1h", "--yes").out.endswith(": deleted 250 tasks\n")
    assert statuses(connection) == {}
