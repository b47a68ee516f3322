"""PostgreSQL databases for tests: on one server for all processes of a run, which the first that needs it starts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

import dao
from dao.testing.server import Databases, Reused
from tests.servers import PATIENCE, VARIABLE, Server, Unavailable, join

SCRIPTS = Path(__file__).parents[1] / "sql" / "postgresql"


def migrate(url: str) -> None:
    """Make the tables in an empty database."""
    with psycopg.connect(url) as connection:
        for script in sorted(SCRIPTS.glob("*.sql")):
            if not script.name.endswith(".rollback.sql"):
                connection.execute(script.read_bytes())


# ---------------------------------------------------------------- one server for all processes


class Run:
    """What the processes of one run of the tests share: a server, and a migrated database to copy.

    Attributes:
        folder: Where they tell one another; made by the first that has something to tell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: Server | socket.socket | None = None
        self._databases: Databases | None = None

    def reused(self, prepare: Callable[[psycopg.Connection[Any]], None] | None = None) -> Reused:
        """Return a migrated database that is as new before each test."""
        return Reused(self.databases(), self.template, prepare)

    def databases(self) -> Databases:
        """Return the databases of this run, on a server that the first process starts.

        Raises:
            Unavailable: There is none; it is tried once in a run.
        """
        if self._databases is None:
            with self._locked():
                state = self._joined(self.state()) or self._started()
                self._databases = Databases(state["url"], state["prefix"])
        return self._databases

    @property
    def template(self) -> str:
        """The name of the migrated, empty database."""
        return str(self.state()["template"])

    def state(self) -> dict[str, Any]:
        """Return what is known of the server, in whichever process it was started; empty if none was."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "postgresql.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def leave(self) -> None:
        """Use the server no longer."""
        if self._databases is not None:
            self._databases.close()
        if isinstance(self._server, Server):
            self._server.leave()
        elif self._server is not None:
            self._server.close()

    def end(self) -> None:
        """Leave no trace, when all other processes have left."""
        self.leave()
        state = self.state()
        if "folder" in state:
            deadline = time.monotonic() + PATIENCE
            while Path(state["folder"]).exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        elif "prefix" in state:
            with contextlib.closing(Databases(state["url"], state["prefix"])) as databases:
                databases.drop_all()
        for name in ("lock", "postgresql.json"):
            (self.folder / name).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.folder.rmdir()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with open(self.folder / "lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _joined(self, state: dict[str, Any]) -> dict[str, Any] | None:
        if "error" in state:
            raise Unavailable(state["error"])
        if "folder" not in state:
            return state or None
        self._server = join(Path(state["folder"]))
        return state if self._server else None

    def _started(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        try:
            state = self._prepared(self._found())
        except Exception as error:
            state = {"error": str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"}
            raise
        finally:
            (self.folder / "postgresql.json").write_text(json.dumps(state))
        return state

    def _found(self) -> dict[str, Any]:
        if url := os.environ.get(VARIABLE):
            return {"url": url, "source": VARIABLE}
        self._server = Server()
        return {"url": self._server.url("postgres"), "source": "embedded", "folder": str(self._server.folder)}

    def _prepared(self, state: dict[str, Any]) -> dict[str, Any]:
        with contextlib.closing(Databases(state["url"])) as databases:
            try:
                version = databases.version()
            except dao.OperationalError as error:
                raise Unavailable(f"the server of {VARIABLE} cannot be used: {error}") from error
            prefix = databases.prefix
            migrate(databases.create(name=f"{prefix}template"))
        return state | {"prefix": prefix, "template": f"{prefix}template", "version": version}
