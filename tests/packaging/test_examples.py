"""The examples run as they stand, as an application of somebody else's would."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dao
from dao.testing import make_task, make_tool_execution
from dao.testing.plugin import SERVER
from tests.concurrency import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVICE = EXAMPLES / "service"


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing but these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "PYTEST_"))} | more


def test_service_passes_its_own_tests_on_both_engines(server):
    """An application with a table of its own tests itself by the fixtures of `dao.testing`, in its own process."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--dao-engine=sqlite",
            "--dao-engine=postgresql",
            "-p",
            "no:cacheprovider",
        ],
        cwd=SERVICE,
        env=environment(**{SERVER: server.url}, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "31 passed" in done.stdout


def test_service_has_no_more_glue_than_promised():
    """All that ties FastAPI to dao is in one module, of at most 25 lines of code; a trial took 75."""
    source = (SERVICE / "glue.py").read_text()
    after_docstring = source.split('"""', 2)[2]
    lines = [line for line in after_docstring.splitlines() if line.partition("#")[0].strip()]
    assert '"""' not in after_docstring
    assert 0 < len(lines) <= 25
    assert (
        f"```python\n{source.strip()}\n```" in (EXAMPLES.parent / "docs" / "how-to" / "build-a-service.md").read_text()
    )
    for path in {*SERVICE.glob("*.py")} - {SERVICE / "glue.py"}:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"JSONResponse", "HTTPException", "Depends", "Request", "lifespan_context"}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 3])
def test_script_shows_a_database_and_changes_nothing(database, rows):
    """It runs with warnings as errors, on an empty database too, as a script does that is a notebook at other times."""
    with contextlib.closing(dao.connect(f"sqlite:///{database}")) as connection:
        for number in range(rows):
            dao.tasks.create(connection, make_task(title=f"Number {number}"))
            dao.tool_executions.record(connection, make_tool_execution(tool_name="grep", status="completed"))
        before = connection.execute("PRAGMA data_version").fetchall()
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / "script.py"],
            cwd=database.parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert connection.execute("PRAGMA data_version").fetchall() == before
    assert [f"Number {number}" in done.stdout for number in range(3)] == [number < rows for number in range(3)]
    assert ("grep" in done.stdout, "ready" in done.stdout) == (rows > 0, rows > 0)


@pytest.mark.slow
def test_service_survives_the_end_of_its_worker(tmp_path):
    """A real server, a real socket, and a worker that is killed in the middle of a task: the next one finishes it."""
    import websockets.sync.client  # only the slow tests need it

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    there = environment(
        DATABASE_URL=f"sqlite:///{tmp_path}/service.db",
        DATABASE_MIGRATIONS=f"orchestrator{os.pathsep}summaries={SERVICE}/sql/sqlite",
        PYTHONPATH=str(EXAMPLES),
        LEASE="1",
    )

    def start(*command: str) -> subprocess.Popen[bytes]:
        return stack.enter_context(ended(subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, env=there)))

    def ask(path: str, body: object = None, method: str = "GET") -> Any:
        data = None if method == "GET" else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - our own server
            return json.loads(answer.read() or b"null")

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def is_up() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    subprocess.run([sys.executable, "-m", "dao", "migrate", "--quiet"], cwd=tmp_path, env=there, check=True)
    with contextlib.ExitStack() as stack:
        start("uvicorn", "--app-dir", str(EXAMPLES), "service.app:app", "--port", str(port), "--log-level=warning")
        until(is_up)
        ask("/configuration/summary.seconds", 600, "PUT")
        task = ask("/tasks", {"title": "a", "text": "one two three"}, "POST")
        worker = start("service.worker")
        until(lambda: ask(f"/tasks/{task['id']}/calls")["items"])
        worker.kill()
        ask("/configuration/summary.seconds", 0, "PUT")
        start("service.worker")
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/sessions/browser") as feed:

            def beat() -> bool:
                feed.send("beat")
                return json.loads(feed.recv())["tasks"]["completed"] == 1

            until(beat)
        assert ask(f"/tasks/{task['id']}")["attempt"] == 2
        assert ask(f"/tasks/{task['id']}/summary")["text"] == "one two three"
        assert [call["status"] for call in ask(f"/tasks/{task['id']}/calls")["items"]] == ["failed", "completed"]


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Lend a process, and end it."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
