"""The worker: `PYTHONPATH=examples python -m service.worker`, as many as there is work for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from datetime import timedelta
from typing import Any

import dao
from dao import Task, ToolStatus, configurations, settings, tasks, tool_executions
from service import summaries

NAME = f"{socket.gethostname()}-{os.getpid()}"
LEASE = timedelta(seconds=float(os.environ.get("LEASE", "30")))
STOP = threading.Event()


def summarise(text: str, words: int, seconds: float) -> str:
    """Return the first words of a text. It takes a while, as a model would."""
    time.sleep(seconds)
    return " ".join(text.split()[:words])


def perform(pool: dao.Pool, task: Task) -> None:
    """Do a task. An attempt after one that was broken off finds what is done already, and does the rest."""
    call = dao.run_in_transaction(
        pool, tool_executions.step, task, "summarise", tool_name="first_words", input=task.config
    )
    if call.status is not ToolStatus.COMPLETED:
        with pool.acquire() as connection:
            words = configurations.get(connection, "summary.words", int, 10)
            seconds = configurations.get(connection, "summary.seconds", float, 0.0)
        text = summarise(task.config["text"], words, seconds)
        call = dao.run_in_transaction(pool, tool_executions.finish, call, output=text)
    dao.run_in_transaction(pool, _finish, task, call.output)


def _finish(connection: Any, task: Task, text: str) -> None:
    tasks.complete(connection, task)  # raises LeaseLost, and then there is no summary either
    summaries.put(connection, task.id, text)


def attempt(pool: dao.Pool, task: Task) -> None:
    """Do a task that was claimed, and renew its lease meanwhile."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE.total_seconds() / 3):
            with contextlib.suppress(dao.Error):
                dao.run_in_transaction(pool, tasks.renew, task, lease=LEASE)

    threading.Thread(target=renew, daemon=True).start()
    try:
        perform(pool, task)
        print(f"{task.id}: done, attempt {task.attempt}", flush=True)
    except dao.LeaseLost as error:
        print(error, file=sys.stderr, flush=True)
    except Exception as error:
        with contextlib.suppress(dao.LeaseLost):
            dao.run_in_transaction(pool, tasks.fail, task, error=repr(error))
    finally:
        done.set()


def work(pool: dao.Pool, *, until_empty: bool = False) -> None:
    """Claim and do tasks until somebody stops the worker, or until there are none."""
    while not STOP.is_set():
        claimed = dao.run_in_transaction(pool, tasks.claim, worker=NAME, lease=LEASE, task_type="summarise")
        for task in claimed:
            attempt(pool, task)
        if not claimed:
            if until_empty:
                return
            with contextlib.suppress(dao.ConnectionLost), pool.acquire() as connection:
                dao.wait_for_change(connection, timeout=1)


def main() -> None:
    """Work until SIGINT or SIGTERM; the task at hand is done first."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: STOP.set())
    with settings.load().pool() as pool:
        work(pool)


if __name__ == "__main__":
    main()
