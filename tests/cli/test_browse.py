"""`dao browse`: the pages that datasette shows of a database, who gets to see them, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

import dao
from dao import codec, migrate, sessions, task_dependencies, tasks, tool_executions, workflow_tasks, workflows
from dao.testing import make_task, make_workflow
from tests.cli.calls import misused, refused
from tests.concurrency import PATIENCE

pytest.importorskip("datasette")

CHROMIUM = shutil.which("chromium")
QUERIES = ["stuck", "story", "failures", "throughput", "slow_tools", "stale_sessions"]
TABLES = ["tasks", "workflows", "workflow_tasks", "tool_executions", "task_events", "task_dependencies", "sessions"]
#: What a page has to show as it is, and not as HTML.
TITLE = "<b>Nightly</b>"


@attrs.frozen
class Browsed:
    """`dao browse` while it runs: its process, the address that it printed, and what is in the database."""

    process: subprocess.Popen
    address: str
    database: dao.engine.Connection
    ids: dict[str, str]
    opened: Path

    def url(self, path: str, *, token: bool = False) -> str:
        """Return the address of a page, with the token if that is to let in."""
        base, _, query = self.address.partition("/?")
        joint = "&" if "?" in path else "?"
        return base + path + (f"{joint}{query}" if token else "")

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of a page, as a browser gets it that has opened the address."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        with opener.open(self.address, timeout=PATIENCE):
            request = self.url(path)
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@contextlib.contextmanager
def browsing(path, *more: str, **how: Any) -> Iterator[tuple[subprocess.Popen, str]]:
    """Run the command, and end it as Ctrl-C at a terminal does."""
    process = subprocess.Popen(
        [sys.executable, "-Pm", "dao", "browse", "--database", f"sqlite:///{urllib.parse.quote(str(path))}", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **how,
    )
    try:
        first = process.stdout.readline()
        yield process, re.search(r"http://\S+", first)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browsed(tmp_path_factory, template):
    """A database with a task in each plight, shown; its name is one that datasette would not quote."""
    path = tmp_path_factory.mktemp("browse") / "what?.db"
    migrate.apply(f"sqlite:///{urllib.parse.quote(str(path))}")
    connection = dao.connect(f"sqlite:///{urllib.parse.quote(str(path))}")
    now = codec.now()
    ids = {name: codec.new_id() for name in ("done", "waits", "held", "lost")}
    for name in ("done", "waits", "held"):
        tasks.create(connection, make_task(id=ids[name], title=f"{TITLE} {name}", config={"deep": list(range(40))}))
    (task,) = tasks.claim(connection, worker="w-1", lease=timedelta(minutes=1))
    call = tool_executions.start(connection, tool_name="search", input={"q": "x" * 90}, task=task)
    tool_executions.finish(connection, call.id, output="found")
    tasks.fail(connection, task, error="no answer")
    lost = {"status": "running", "attempt": 1, "started_at": now, "worker": "w-2"}
    tasks.create(connection, make_task(id=ids["lost"], lease_expires_at=now - timedelta(hours=1), **lost))
    task_dependencies.add(connection, ids["waits"], [ids["held"]])
    workflow = make_workflow(name=TITLE, status="paused")
    workflows.create(connection, workflow)
    workflow_tasks.add(connection, workflow_id=workflow.id, task_id=ids["held"])
    sessions.open(connection, client_id="silent", now=now - timedelta(hours=1))
    folder = tmp_path_factory.mktemp("anybodys")
    (folder / "datasette.py").write_text("raise SystemExit('not of this folder')")
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {folder}/part\nmv {folder}/part {folder}/opened\n')
    browser.chmod(0o755)
    environment = {**os.environ, "BROWSER": str(browser)}
    with browsing(path, "--open", cwd=folder, env=environment) as (process, address):
        yield Browsed(process, address, connection, ids, folder / "opened")
    connection.close()
    assert process.returncode == 0


def pages(browsed):
    tables = [f"/database/{table}" for table in (*TABLES, "configurations", "task_overview", "queue_overview")]
    queries = [f"/database/{query}" for query in QUERIES]
    story, row = f"/database/story?task={browsed.ids['done']}", f"/database/tasks/{browsed.ids['done']}"
    return ["/", "/database", "/database?sql=select+1", story, row, *tables, *queries]


def test_every_page_is_there(browsed):
    """The first page has all queries and tables; each page answers, and shows what is stored as text."""
    status, first = browsed.get("/")
    assert status == 200
    links = re.findall(r'href="(/database/[^"?]+)', first)
    assert links[: len(QUERIES)] == [f"/database/{query}" for query in QUERIES]
    assert {f"/database/{table}" for table in TABLES} <= {*links}
    assert "_dao_" not in first
    assert "yoyo" not in first
    for page in pages(browsed):
        status, text = browsed.get(page)
        assert (page, status) == (page, 200), text
        assert TITLE not in text
        assert "message-error" not in text


def test_queries_tell_what_is_stuck_and_why(browsed):
    """Each task that does not run is named with its reason; a story has the attempt, its error and its call."""
    _, text = browsed.get("/database/stuck.json?_shape=array")
    why = {row["task"]: row["why"] for row in json.loads(text)}
    ids = browsed.ids
    assert why.keys() == {ids["waits"], ids["held"], ids["lost"]}
    assert why[ids["waits"]] == f"waits for {TITLE} held (pending)"
    assert why[ids["held"]] == f"its workflow is paused: {TITLE}"
    assert why[ids["lost"]].startswith("the lease of w-2 ended at ")
    _, text = browsed.get(f"/database/story.json?_shape=array&task={ids['done']}")
    assert [row["what"] for row in json.loads(text)] == [
        f"made: {TITLE} done",
        "pending",
        "pending → running",
        "tool search: completed",
        "running → failed",
    ]
    for query, expected in {"failures": "no answer", "slow_tools": "search", "stale_sessions": "silent"}.items():
        _, text = browsed.get(f"/database/{query}.json?_shape=array")
        assert [expected in row.values() for row in json.loads(text)] == [True], query
    _, text = browsed.get("/database/throughput.json?_shape=array")
    assert [(row["failed"], row["workers"]) for row in json.loads(text)] == [(1, 1)]


def test_cells_are_made_for_people(browsed):
    """JSON is indented, a task's id leads to its story, and a foreign key shows the title of what it refers to."""
    assert "<details><summary><code>{&#34;deep&#34;" in browsed.get("/database/tasks")[1]
    assert f'href="/database/story?task={browsed.ids["lost"]}"' in browsed.get("/database/stuck")[1]
    assert re.search(r"<a [^>]*>&lt;b&gt;Nightly&lt;/b&gt; done</a>", browsed.get("/database/tool_executions")[1])


def test_what_is_written_meanwhile_is_shown_and_nothing_can_be_written(browsed):
    """A live database is read with its WAL, by a connection that cannot write."""
    tasks.create(browsed.database, make_task(title="while it runs"))
    assert "while it runs" in browsed.get("/database/tasks")[1]
    for sql in ("delete from tasks", "insert into sessions (id, client_id) values ('a', 'b')"):
        assert "Statement must be a SELECT" in browsed.get(f"/database?sql={urllib.parse.quote(sql)}")[1]
    assert browsed.get("/database.db")[0] in {403, 404}


def test_only_who_has_the_address_gets_in(browsed):
    """Without the token nobody gets a page: other users of the machine reach the port, and so do pages of a browser."""
    for path in ("/", "/database/tasks", "/database/tasks?token=x", "/dao/browse.css"):
        with pytest.raises(urllib.error.HTTPError, match="403") as refusal:
            urllib.request.build_opener().open(browsed.url(path), timeout=PATIENCE)
        refusal.value.close()
    # to somewhere else it leads nobody
    opener = urllib.request.build_opener(_NoRedirects)
    with pytest.raises(urllib.error.HTTPError) as redirect:
        opener.open(browsed.url("//evil.example/x", token=True), timeout=PATIENCE)
    assert redirect.value.headers["location"] == "/evil.example/x"
    assert "HttpOnly; SameSite=Strict" in redirect.value.headers["set-cookie"]
    redirect.value.close()


def test_cookies_of_others_on_this_machine_lock_nobody_out(browsed):
    """The browser sends all that any port has set; one that is not well-formed locked out."""
    opener = urllib.request.build_opener(_NoRedirects)
    with pytest.raises(urllib.error.HTTPError) as redirect:
        opener.open(browsed.address, timeout=PATIENCE)
    ours = redirect.value.headers["set-cookie"].partition(";")[0]
    redirect.value.close()
    for theirs in ('a={"x": 1, "y": "2"}', "a:b@c=1", "nothing"):
        request = urllib.request.Request(browsed.url("/"), headers={"Cookie": f"{theirs}; {ours}"})  # noqa: S310
        with opener.open(request, timeout=PATIENCE) as answer:
            assert answer.status == 200


def test_the_token_is_on_no_command_line(browsed):
    """--open gave the address to the browser as an argument, for all users of the machine to see."""
    end = time.monotonic() + PATIENCE
    while not browsed.opened.exists() and time.monotonic() < end:
        time.sleep(0.05)
    told = browsed.opened.read_text()
    leading = Path(urllib.parse.unquote(urllib.parse.urlparse(told).path))
    assert browsed.address not in told
    assert f"url={browsed.address}" in leading.read_text()
    assert stat.S_IMODE(leading.parent.stat().st_mode) == 0o700


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


# ---------------------------------------------------------------- the command


def test_metadata_for_a_datasette_of_ones_own(run, database, three):
    """--metadata writes what datasette is told and ends; a database without our tables has no queries."""
    call = ["browse", "--metadata", "told.json", "--database"]
    assert run(*call, f"sqlite:///{database}").code == 0
    with open("told.json", encoding="utf-8") as file:
        told = json.load(file)["databases"]["orchestrator"]
    assert list(told["queries"]) == QUERIES
    migrate.apply("sqlite:///other.db", three)
    assert run(*call, "sqlite:///other.db").code == 0
    with open("told.json", encoding="utf-8") as file:
        told = json.load(file)["databases"]["other"]
    assert (told["queries"], told["first_page"]) == ({}, ["a", "b", "c"])
    refused(run("browse", "--metadata", "no/such/folder.json", "--database", f"sqlite:///{database}"), "no/such")
    misused(run("browse", "--metadata", "", "--database", f"sqlite:///{database}"), "--metadata is empty")


def test_what_keeps_it_from_starting_is_said(run, database, monkeypatch):
    """A server, a database that is not there, and datasette that is not installed: each is said with what to do."""
    refused(run("browse", "--database", "postgresql://me@h/app"), "is on a server", "dao shell", "Grafana")
    refused(run("browse", "--database", "sqlite:///none.db"), "none.db", "does not exist")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # the last line of datasette's log was shown, which does not tell
        call = ["browse", "--port", str(port), "--database", f"sqlite:///{database}"]
        refused(run(*call), f"port {port} cannot be listened on: Address already in use", "leave it out")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    refused(run("browse", "--database", f"sqlite:///{database}"), "pip install 'orchestrator-dao[browse]'")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_datasette_ends_with_a_command_that_ends(number, tmp_path, template):
    """Nothing goes on listening once `dao browse` has gone, even by kill -9, and in the middle of a query.

    Ctrl-C while a query was under way ended in a traceback, and datasette went on for as long as that took.
    """
    path = tmp_path / "killed.db"
    path.write_bytes(template.read_bytes())
    query = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with browsing(path) as (process, address), contextlib.ExitStack() as threads:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        opener.open(address, timeout=PATIENCE).close()
        asked = f"{address.partition('/?')[0]}/killed.json?sql={urllib.parse.quote(query)}"

        def ask() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                opener.open(asked, timeout=PATIENCE).close()

        asking = threading.Thread(target=ask)
        asking.start()
        threads.callback(asking.join)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(PATIENCE) == (0 if number == signal.SIGINT else -number)
        assert number == signal.SIGKILL or "Traceback" not in process.stderr.read()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                urllib.request.build_opener().open(address, timeout=PATIENCE).close()
            except OSError:
                return
            time.sleep(0.1)
        pytest.fail("datasette goes on")


# ---------------------------------------------------------------- in a browser

# the background networking of a browser has to be off where nothing but this machine can be reached
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--enable-logging=stderr"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"),
]


def seen_in_chromium(url: str) -> tuple[str, list[str]]:
    """Return a page as chromium has built it, and what that wrote to its console."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", url],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed here (Debian: apt-get install chromium)")
def test_pages_have_no_error_in_a_browser(browsed, tmp_path):
    """A real browser builds each page, with its style, and writes nothing to its console."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>nonsense(</script>")
    assert seen_in_chromium(bad.as_uri())[1], "what is wrong would not be noticed"
    for page in pages(browsed):
        shown, console = seen_in_chromium(browsed.url(page, token=True))
        assert console == [], page
        assert 'href="/dao/browse.css"' in shown, page
