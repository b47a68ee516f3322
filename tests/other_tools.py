"""Other tools: folders in their layouts, and databases as they leave them, with a ledger of their own.

The tables are as the tools make them: sqlx-cli 0.8.6, dbmate 2.37.0, alembic 1.x and yoyo 9.0.0 made databases from
which they were copied; those of goose, golang-migrate, diesel and Flyway are from the tools' sources.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

from dao import migrate
from dao.migrate.scripts.ids import TOOLS, version
from tests.folders import ids

#: A migration as every layout can hold it: its number, name and two scripts.
Written = tuple[int, str, str, str]


def folder_of(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files, in folders in the folder if their names say so, and return the folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def yoyo(number: int, name: str, up: str, down: str) -> dict[str, str]:
    return {f"{number:04}_{name}.sql": up, f"{number:04}_{name}.rollback.sql": down}


def sqlx(number: int, name: str, up: str, down: str) -> dict[str, str]:
    return {f"{number}_{name}.up.sql": up, f"{number}_{name}.down.sql": down}


def dbmate(number: int, name: str, up: str, down: str) -> dict[str, str]:
    return {f"{number:04}_{name}.sql": f"-- migrate:up\n{up}\n\n-- migrate:down\n{down}"}


def goose(number: int, name: str, up: str, down: str) -> dict[str, str]:
    begin, end = "-- +goose StatementBegin", "-- +goose StatementEnd"
    return {
        f"{number:05}_{name}.sql": f"-- +goose Up\n{begin}\n{up}\n{end}\n\n-- +goose Down\n{begin}\n{down}\n{end}\n"
    }


def sql_migrate(number: int, name: str, up: str, down: str) -> dict[str, str]:
    return {name: text.replace("+goose", "+migrate") for name, text in goose(number, name, up, down).items()}


def diesel(number: int, name: str, up: str, down: str) -> dict[str, str]:
    folder = f"2025-01-{number:02}-120000_{name}"
    return {f"{folder}/up.sql": up, f"{folder}/down.sql": down}


def flyway(number: int, name: str, up: str, down: str) -> dict[str, str]:
    return {f"V{number}__{name}.sql": up, f"U{number}__{name}.sql": down}


Layout = Callable[[int, str, str, str], dict[str, str]]


LAYOUTS: list[Layout] = [yoyo, sqlx, dbmate, goose, sql_migrate, diesel, flyway]


def in_layout(folder: Path, layout: Layout, migrations: Sequence[Written], *, windows: bool = False) -> Path:
    """Write migrations into a folder in a layout; with `windows` as an editor there saves them."""
    files = {name: text for written in migrations for name, text in layout(*written).items()}
    if windows:
        return folder_of(folder, {n: b"\xef\xbb\xbf" + t.replace("\n", "\r\n").encode() for n, t in files.items()})
    return folder_of(folder, files)


LAYOUT_OF = {
    "sqlx": sqlx,
    "dbmate": dbmate,
    "goose": goose,
    "golang-migrate": sqlx,
    "diesel": diesel,
    "flyway": flyway,
    "alembic": yoyo,
    "yoyo": yoyo,
}


WRITTEN = [
    (number, name, f"CREATE TABLE {name} (id);\r\n-- é", f"DROP TABLE {name};") for number, name in enumerate("abcd", 1)
]


#: What each tool makes: the name of its table, and how.
TABLES = {
    "sqlx": (
        "_sqlx_migrations",
        """CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
)""",
    ),
    "dbmate": ("schema_migrations", 'CREATE TABLE "schema_migrations" (version varchar(128) primary key)'),
    "goose": (
        "goose_db_version",
        """CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	)""",
    ),
    "golang-migrate": (
        "schema_migrations",
        """CREATE TABLE schema_migrations (version uint64,dirty bool);
  CREATE UNIQUE INDEX version_unique ON schema_migrations (version)""",
    ),
    "diesel": (
        "__diesel_schema_migrations",
        """CREATE TABLE __diesel_schema_migrations (
       version VARCHAR(50) PRIMARY KEY NOT NULL,
       run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
)""",
    ),
    "flyway": (
        "flyway_schema_history",
        """CREATE TABLE "flyway_schema_history" (
    "installed_rank" INT NOT NULL PRIMARY KEY,
    "version" VARCHAR(50),
    "description" VARCHAR(200) NOT NULL,
    "type" VARCHAR(20) NOT NULL,
    "script" VARCHAR(1000) NOT NULL,
    "checksum" INT,
    "installed_by" VARCHAR(100) NOT NULL,
    "installed_on" TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f','now')),
    "execution_time" INT NOT NULL,
    "success" BOOLEAN NOT NULL
);
CREATE INDEX "flyway_schema_history_s_idx" ON "flyway_schema_history" ("success")""",
    ),
    "alembic": (
        "alembic_version",
        """CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)""",
    ),
    "yoyo": (
        "_yoyo_migration",
        """\
CREATE TABLE "yoyo_lock" ("locked" INT DEFAULT 1, "ctime" TIMESTAMP,"pid" INT NOT NULL,PRIMARY KEY ("locked"));
CREATE TABLE "_yoyo_log" (
            "id" VARCHAR(36),
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "operation" VARCHAR(10),
            "username" VARCHAR(255),
            "hostname" VARCHAR(255),
            "comment" VARCHAR(255),
            "created_at_utc" TIMESTAMP,
            PRIMARY KEY ("id")
        );
CREATE TABLE "_yoyo_version" (
            "version" INT NOT NULL PRIMARY KEY,
            "installed_at_utc" TIMESTAMP
        );
INSERT INTO _yoyo_version VALUES (2, '2025-01-15 12:00:00.000000');
CREATE TABLE "_yoyo_migration" (
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "applied_at_utc" TIMESTAMP,
            PRIMARY KEY ("migration_hash")
        )""",
    ),
}


def row(tool: str, path: Path, id: str, number: int) -> tuple[str, list[Any]]:
    """Return the row that a tool writes for a migration, and the columns that it names."""
    its: Any = version(id, tool)
    match tool:
        case "sqlx":
            digest = hashlib.sha384(path.read_bytes()).digest()
            return "version, description, success, checksum, execution_time", [int(its), id, 1, digest, 5]
        case "goose":
            return "version_id, is_applied", [int(its), 1]
        case "golang-migrate":
            return "version, dirty", [int(its), 0]
        case "flyway":
            sum_ = zlib.crc32(b"".join(path.read_bytes().splitlines()))
            signed = sum_ - (1 << 32) if sum_ >= 1 << 31 else sum_
            values = [number, its, id, "SQL", path.name, signed, "me", 5, 1]
            return (
                "installed_rank, version, description, type, script, checksum, installed_by, execution_time, success",
                values,
            )
        case "alembic":
            return "version_num", ["481d9efb4ae9"]
        case "yoyo":
            hash_ = hashlib.sha256(id.encode()).hexdigest()
            return "migration_hash, migration_id, applied_at_utc", [hash_, id, f"2025-01-15T12:00:0{number}.000000"]
        case _:
            return "version", [its]


def execute(path: Path, sql: str, *values: Any) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, values or None).fetchall()
    connection.close()


def made_by(path: Path, tool: str, folder: Path, applied: Sequence[int]) -> list[str]:
    """Make the database as a tool leaves it after these of the folder's migrations, and return their ids."""
    table, sql = TABLES[tool]
    execute(path, sql)
    if tool == "goose":
        execute(path, f"INSERT INTO {table} (version_id, is_applied) VALUES (0, 1)")
    migrations = [migrate.load(folder)[place] for place in applied]
    for number, migration in enumerate(migrations, 1):
        execute(path, migration.up.text)
        if tool in {"golang-migrate", "alembic"}:
            execute(path, f"DELETE FROM {table}")
        columns, values = row(tool, migration.path, migration.id, number)
        execute(path, f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", *values)
    return ids(migrations)


#: The tools whose ledger tells for certain which files it means.
CERTAIN = [tool for tool in TOOLS if tool not in {"alembic", "yoyo"}]
