"""The ledger's tables as each engine has them, and the statements over them that differ. The others are one text.

Times are in UTC, as texts of ISO 8601 once they are read. SQLite keeps them so; PostgreSQL has a type for them, in
yoyo's tables, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dao.engine import Connection
from dao.engine.engines import engine_for

__all__ = ["ADD_SETS", "SET", "Statements", "statements"]

_READ = """
SELECT _yoyo_migration.migration_id, {yoyos}, _dao_migration.checksum,
       _dao_migration.rollback_checksum, _dao_migration.apply_text, _dao_migration.rollback_text,
       _dao_migration.duration_ms, _dao_migration.migration_id, _dao_migration.state, _dao_migration.host,
       _dao_migration.pid, {set}
FROM   _yoyo_migration
FULL   JOIN _dao_migration ON _dao_migration.migration_id = _yoyo_migration.migration_id
                          AND {same}
"""
_READ_YOYOS = f"""
SELECT _yoyo_migration.migration_id, {{yoyos}}, {", ".join(["NULL"] * 10)}
FROM   _yoyo_migration
"""
_WRITE = """
INSERT INTO _dao_migration (migration_id, applied_at_utc, state, checksum, rollback_checksum, apply_text,
                            rollback_text, duration_ms, tool_version, host, pid, set_name)
VALUES ($1, {given}, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (migration_id) DO UPDATE
SET applied_at_utc = excluded.applied_at_utc, state = excluded.state, checksum = excluded.checksum,
    rollback_checksum = excluded.rollback_checksum, apply_text = excluded.apply_text,
    rollback_text = excluded.rollback_text, duration_ms = excluded.duration_ms, tool_version = excluded.tool_version,
    host = excluded.host, pid = excluded.pid, set_name = excluded.set_name
"""
_HISTORY = """
SELECT {at}, _dao_history.operation, _dao_history.migration_id, _dao_history.duration_ms,
       _dao_history.detail, _dao_history.username, _dao_history.hostname, _dao_history.tool_version, {set}
FROM   _dao_history
ORDER  BY id
"""
# what the stock command did, or a version of this package that kept no history
_LOG = """
SELECT {logged}, _yoyo_log.operation, _yoyo_log.migration_id, NULL, NULL,
       _yoyo_log.username, _yoyo_log.hostname, NULL, NULL
FROM   _yoyo_log
"""
_CREATE_ON_SQLITE = """
CREATE TABLE IF NOT EXISTS _dao_migration (
    migration_id      TEXT    NOT NULL PRIMARY KEY,
    applied_at_utc    TEXT    NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN ('applied', 'applying', 'rolling back')),
    checksum          TEXT    NOT NULL,
    rollback_checksum TEXT,
    apply_text        TEXT    NOT NULL,
    rollback_text     TEXT,
    duration_ms       INTEGER,
    tool_version      TEXT    NOT NULL,
    host              TEXT,
    pid               INTEGER,
    set_name          TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS _dao_history (
    id           INTEGER NOT NULL PRIMARY KEY,
    at_utc       TEXT    NOT NULL,
    operation    TEXT    NOT NULL,
    migration_id TEXT,
    duration_ms  INTEGER,
    detail       TEXT,
    username     TEXT    NOT NULL,
    hostname     TEXT    NOT NULL,
    tool_version TEXT    NOT NULL,
    yoyo_log_id  TEXT,
    set_name     TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS _dao_schema (
    only           INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    schema_version INTEGER NOT NULL,
    migrations     TEXT    NOT NULL,
    live           TEXT    NOT NULL,
    expected       TEXT
) STRICT
"""
_CREATE_ON_POSTGRESQL = """
CREATE TABLE IF NOT EXISTS _dao_migration (
    migration_id      text   NOT NULL PRIMARY KEY,
    applied_at_utc    timestamp,
    state             text   NOT NULL CHECK (state IN ('applied', 'applying', 'rolling back')),
    checksum          text   NOT NULL,
    rollback_checksum text,
    apply_text        text   NOT NULL,
    rollback_text     text,
    duration_ms       bigint,
    tool_version      text   NOT NULL,
    host              text,
    pid               bigint,
    set_name          text
);
CREATE TABLE IF NOT EXISTS _dao_history (
    id           bigint    NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_utc       timestamp NOT NULL,
    operation    text      NOT NULL,
    migration_id text,
    duration_ms  bigint,
    detail       text,
    username     text      NOT NULL,
    hostname     text      NOT NULL,
    tool_version text      NOT NULL,
    yoyo_log_id  text,
    set_name     text
);
CREATE TABLE IF NOT EXISTS _dao_schema (
    "only"     integer NOT NULL PRIMARY KEY CHECK ("only" = 1),
    migrations text    NOT NULL,
    stamp      text,
    expected   text    NOT NULL
)
"""


#: The column that says of which set a migration is. Ledgers of 0.1 get it with the first change.
SET = "set_name"
ADD_SETS = f"ALTER TABLE _dao_migration ADD COLUMN {SET} text; ALTER TABLE _dao_history ADD COLUMN {SET} text"


class Statements(NamedTuple):
    """The statements of an engine: those that make our tables, read and write them, and read the two histories.

    `read_old`, `history_old`: where the tables do not say of which set a migration is.
    `has_schemas`: a table of a name may be another one, in another schema, so that nothing is read on trial.
    """

    create: str
    read: str
    read_old: str
    read_yoyos: str
    write: str
    history: str
    history_old: str
    log: str
    has_schemas: bool


def _text(column: str) -> str:
    return f"""to_char({column}, 'YYYY-MM-DD"T"HH24:MI:SS.US')"""


_OURS, _NONE = f"_dao_migration.{SET}", "NULL"
_LOGGED = f"_dao_history.{SET}"


def _of_engine(create: str, *, at: Callable[[str], str], same: str, given: str, has_schemas: bool) -> Statements:
    """Return an engine's statements.

    Args:
        create: The script that makes our tables.
        at: How a column with a time is read as text.
        same: The condition that a time of ours and of yoyo's are the same. yoyo 5 left some out.
        given: The second parameter, as a time.
        has_schemas: As `Statements` has it.
    """
    terms = {"yoyos": at("_yoyo_migration.applied_at_utc"), "same": same}
    return Statements(
        create=create,
        read=_READ.format(**terms, set=_OURS),
        read_old=_READ.format(**terms, set=_NONE),
        read_yoyos=_READ_YOYOS.format(**terms),
        write=_WRITE.format(given=given),
        history=_HISTORY.format(at=at("_dao_history.at_utc"), set=_LOGGED),
        history_old=_HISTORY.format(at=at("_dao_history.at_utc"), set=_NONE),
        log=_LOG.format(logged=at("_yoyo_log.created_at_utc")),
        has_schemas=has_schemas,
    )


_STATEMENTS = {
    "sqlite": _of_engine(
        _CREATE_ON_SQLITE,
        at=str,
        same="_dao_migration.applied_at_utc = coalesce(_yoyo_migration.applied_at_utc, '')",
        given="$2",
        has_schemas=False,
    ),
    "postgresql": _of_engine(
        _CREATE_ON_POSTGRESQL,
        at=_text,
        same="coalesce(_dao_migration.applied_at_utc, 'epoch') = coalesce(_yoyo_migration.applied_at_utc, 'epoch')",
        given="nullif($2, '')::timestamp",
        has_schemas=True,
    ),
}


def statements(connection: Connection) -> Statements:
    """Return the statements of the engine that a connection is of."""
    return _STATEMENTS[engine_for(connection).NAME]
