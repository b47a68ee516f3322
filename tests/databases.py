"""PostgreSQL databases for tests: on one server for all processes of a run, each made in milliseconds.

The server is started when the first test asks for it. A test has a database of its process's own, which is emptied
after it, or one of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.servers import PATIENCE, VARIABLE, Server, Unavailable, join

SCRIPTS = Path(__file__).parents[1] / "sql" / "postgresql"

#: What the tables of a used database may hold before another takes its place, in bytes.
ROOM = 8 * 2**20

#: The application_name of a session that is no test's.
BETWEEN_TESTS = "between tests"

# What a test may have changed for good: everything in the catalog that DDL changes gets another `xmin`. Those that a
# new database has anyhow, with ids below 16384, are thousands, and nobody changes them.
_FINGERPRINT = "SELECT " + ", ".join(
    f"(SELECT sum(hashint8(xmin::text::bigint + oid::bigint)) FROM {catalog} WHERE {which})"
    for catalog, which in {
        **dict.fromkeys(
            ("pg_class", "pg_constraint", "pg_trigger", "pg_proc", "pg_type", "pg_attrdef"), "oid >= 16384"
        ),
        "pg_namespace": "true",
        "pg_database": "datname = current_database()",
    }.items()
)
_FINGERPRINT += """
    , (SELECT sum(hashint8(xmin::text::bigint)) FROM pg_attribute WHERE attrelid >= 16384)
    , (SELECT sum(hashint8(xmin::text::bigint)) FROM pg_db_role_setting)
"""
_RESTART = """
SELECT setval(pg_get_serial_sequence(attrelid::regclass::text, attname), 1, false)
FROM   pg_attribute
WHERE  attidentity <> '' AND attrelid::regclass::text !~ 'pg_'
"""
_TERMINATE = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# A table is made after those that it refers to.
_TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY c.oid DESC
"""


def migrate(url: str) -> None:
    """Make the tables in an empty database."""
    with psycopg.connect(url) as connection:
        for script in sorted(SCRIPTS.glob("*.sql")):
            if not script.name.endswith(".rollback.sql"):
                connection.execute(script.read_bytes())


def database_of(url: str, name: str) -> str:
    """Return the URL of another database on the server of a URL."""
    parameters = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    parameters.pop("dbname", None)
    who = ":".join(quote(parameters.pop(key), safe="") for key in ("user", "password") if key in parameters)
    return f"postgresql://{who}{'@' if who else ''}/{quote(name, safe='')}?{urlencode(parameters)}"


class Databases:
    """The databases of a run of the tests, on a server that may have others.

    Attributes:
        url: That of a database to connect to while others are made and dropped.
        prefix: How the names of those made here begin.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix

    @functools.cached_property
    def _administration(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def version(self) -> str:
        """Return the server's version: `18.6`."""
        return str(self._administration.info.parameter_status("server_version")).partition(" ")[0]

    def create(self, template: str = "template0", name: str | None = None) -> str:
        """Make a database, a copy of another, and return its URL."""
        name = name or f"{self.prefix}{uuid.uuid4().hex[:12]}"
        # in half of the time of a copy by way of the log
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        self._administration.execute(command.format(sql.Identifier(name), sql.Identifier(template)))
        return database_of(self.url, name)

    def drop(self, url: str) -> None:
        """Drop a database, ending all connections to it; nothing happens if there is none."""
        name = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
        self._administration.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def drop_all(self) -> None:
        """Drop those that were made in this run."""
        found = self._administration.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix]
        ).fetchall()
        for (name,) in found:
            self.drop(database_of(self.url, name))

    def close(self) -> None:
        """Close the connection; the databases stay."""
        if "_administration" in vars(self):
            self._administration.close()
            del self._administration


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
        if VARIABLE in os.environ:
            return {"url": os.environ[VARIABLE], "source": VARIABLE}
        self._server = Server()
        return {"url": self._server.url("postgres"), "source": "embedded", "folder": str(self._server.folder)}

    def _prepared(self, state: dict[str, Any]) -> dict[str, Any]:
        prefix = f"dao_test_{uuid.uuid4().hex[:8]}_"
        with contextlib.closing(Databases(state["url"], prefix)) as databases:
            try:
                version = databases.version()
            except psycopg.OperationalError as error:
                raise Unavailable(f"the server of {VARIABLE} cannot be used: {error}") from error
            migrate(databases.create(name=f"{prefix}template"))
        return state | {"prefix": prefix, "template": f"{prefix}template", "version": version}


# ---------------------------------------------------------------- one database for many tests


class Reused:
    """A migrated database that is empty before each test, and another one if a test changed more than its rows.

    Attributes:
        url: Its URL.
    """

    def __init__(self, run: Run, prepare: Callable[[psycopg.Connection[Any]], None] | None = None) -> None:
        """Make one; `prepare` changes what all tests are to have otherwise than the migrations make it."""
        self._run = run
        self._prepare = prepare
        self._make()

    def _make(self) -> None:
        self.url = self._run.databases().create(self._run.template)
        # it stays: a new session reads the catalog anew, which is most of what the emptying costs
        self._connection = psycopg.connect(self.url, autocommit=True, application_name=BETWEEN_TESTS)
        if self._prepare:
            self._prepare(self._connection)
        self._fingerprint = self._connection.execute(_FINGERPRINT).fetchone()
        tables = [table for (table,) in self._connection.execute(_TABLES)]
        self._kept = [table for table in tables if self._connection.execute(f"SELECT FROM {table} LIMIT 1").fetchone()]
        self._rows = self._rows_now()
        # the events last: whatever else goes has one
        emptied = (table for table in tables if table not in self._kept)
        self._emptied = sorted(emptied, key=lambda table: table.endswith("task_events"))

    def _rows_now(self) -> list[Any]:
        """Return what tells whether the tables that are not empty at the start are as they were."""
        return [
            self._connection.execute(f"SELECT count(*), sum(hashint8(xmin::text::bigint)) FROM {table}").fetchone()
            for table in self._kept
        ]

    def close(self) -> None:
        """Close the connection; the database stays."""
        self._connection.close()

    def empty(self) -> None:
        """Make it as new: with no rows, and no connection but those to come."""
        if not self._emptied_in_place():
            self.close()
            self._run.databases().drop(self.url)
            self._make()

    def _emptied_in_place(self) -> bool:
        connection = self._connection
        try:
            connection.execute(_TERMINATE)
            if connection.execute(_FINGERPRINT).fetchone() != self._fingerprint:
                return False
            if self._rows_now() != self._rows:
                return False
            if self._emptied:
                sizes = " + ".join(f"pg_total_relation_size('{table}')" for table in self._emptied)
                if connection.execute(f"SELECT {sizes}").fetchone()[0] > ROOM:
                    return False
                # no trigger notes what goes
                connection.execute("SET session_replication_role = replica")
                connection.execute("; ".join(f"DELETE FROM {table}" for table in self._emptied))
                connection.execute(_RESTART)
                connection.execute("SET session_replication_role = origin")
        except psycopg.Error:
            return False
        return True
