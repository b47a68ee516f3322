"""A process that writes to a database until it is killed, and what the database holds after each of its commits.

Run as a program: `python writers.py URL NAME SEED ACKNOWLEDGED [PAUSE]`. Each commit is a function of name, seed and
number, so that any state of the database can be judged: it must be the one after some commit. The file gets a line for
each commit that was acknowledged: its number, and when. Between two commits it sleeps up to PAUSE seconds.
"""

from __future__ import annotations

import os
import random
import sys
import time

import attrs

import dao
from dao import Task, TaskStatus, configurations, tasks


@attrs.frozen
class Commit:
    """What a commit does: makes these tasks, or gives a run of tasks a status, or deletes it (None)."""

    made: dict[str, str]
    place: float
    length: int
    status: str | None

    @classmethod
    def of(cls, name: str, seed: str, number: int) -> Commit:
        """Return the commit with this number, from 1."""
        rng = random.Random(f"{seed} {name} {number}")
        kind = rng.choices(["load", "many", "one", "status", "delete"], [1, 3, 6, 6, 2])[0]
        count = {"load": rng.randint(300, 1500), "many": rng.randint(5, 40), "one": 1}.get(kind, 0)
        made = {f"{name}-{number:06}-{task:04}": "t" + rng.randint(0, 600) * "x" for task in range(count)}
        length = 20 if kind in {"status", "delete"} else 0
        status = rng.choice(["pending", "running"])  # between which a task may change at any time
        return cls(made, rng.random(), length, None if kind == "delete" else status)

    def apply(self, held: list[str]) -> list[str]:
        """Bring the list of all tasks, in the order of their making, up to date; return which it changes or deletes."""
        held += self.made
        begin = int(self.place * len(held))
        touched = held[begin : begin + self.length]
        if self.status is None:
            del held[begin : begin + self.length]
        return touched


def state_after(name: str, seed: str, number: int) -> dict[str, tuple[str, str]]:
    """Return title and status of each task after so many commits, in the order in which they were made."""
    state: dict[str, tuple[str, str]] = {}
    held: list[str] = []
    for done in range(1, number + 1):
        commit = Commit.of(name, seed, done)
        state |= {id: (title, "pending") for id, title in commit.made.items()}
        for id in commit.apply(held):
            if commit.status is None:
                del state[id]
            else:
                state[id] = (state[id][0], commit.status)
    return state


def number_of(connection: dao.engine.Connection, name: str) -> int:
    """Return the number of the last commit that a database has."""
    return configurations.get(connection, f"writer.{name}", int) or 0


def write(connection: dao.engine.Connection, name: str, number: int, commit: Commit, touched: list[str]) -> None:
    """Do what a commit does."""
    tasks.create_many(connection, [Task(id=id, title=title, task_type="t") for id, title in commit.made.items()])
    for id in touched:
        if commit.status is None:
            tasks.delete(connection, id)
        else:
            tasks.set_status(connection, id, TaskStatus(commit.status))
    configurations.set(connection, f"writer.{name}", number)


def main(url: str, name: str, seed: str, acknowledged: str, pause: str = "0.04") -> None:
    """Write until killed."""
    file = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with dao.Pool(url, size=2) as pool:
        with pool.acquire() as connection:
            number = number_of(connection, name)
        held = list(state_after(name, seed, number))
        while True:
            number += 1
            commit = Commit.of(name, seed, number)
            dao.run_in_transaction(pool, write, name, number, commit, commit.apply(held))
            os.write(file, f"{number} {time.time()}\n".encode())
            time.sleep(random.random() * float(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
