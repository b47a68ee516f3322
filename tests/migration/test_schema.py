"""The project's own migrations: what they make, that each can be undone exactly, and the house rules they keep."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

from dao import migrate
from dao.migrate.schema.names import TABLES
from tests.folders import ids

MIGRATIONS = migrate.load()
PREFIXES = pytest.mark.parametrize("number", range(len(MIGRATIONS) + 1))
EACH = pytest.mark.parametrize("migration", MIGRATIONS, ids=ids(MIGRATIONS))


@pytest.fixture
def memory():
    """A connection to an empty database in memory."""
    connection = apsw.Connection(":memory:")
    yield connection
    connection.close()


@pytest.fixture
def migrated(memory):
    """A connection to a database in memory with all migrations."""
    migrate.apply(memory)
    return memory


def schema(connection: apsw.Connection) -> list[tuple[str, str, str, str | None]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    # SQLite makes sqlite_sequence with the first AUTOINCREMENT, and nobody can drop it
    return [row for row in rows if row[2] not in {*TABLES, "sqlite_sequence"}]


def names(connection: apsw.Connection, kind: str) -> list[str]:
    return [name for type_, name, _, sql in schema(connection) if type_ == kind and sql is not None]


def columns(connection: apsw.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


# ---------------------------------------------------------------- the pairs


def test_load_own_migrations_are_the_pairs_in_order():
    """Pairs are named by a timestamp, a verb and an object; further ones come after them."""
    assert ids(MIGRATIONS)[:13] == [
        "20250115010000_create_tasks",
        "20250115010100_create_workflows",
        "20250115010200_create_workflow_tasks",
        "20250115010300_create_tool_executions",
        "20250115010400_create_sessions",
        "20250115010500_create_configurations",
        "20250115010600_create_triggers",
        "20261128010000_add_task_claims",
        "20261128010100_create_task_dependencies",
        "20261128010200_hold_tasks_of_paused_workflows",
        "20261128010300_create_task_events",
        "20261128010400_add_tool_steps",
        "20261128010500_create_task_views",
    ]


@EACH
def test_own_migration_is_a_pair_named_by_convention(migration):
    """A pair has a timestamp, lower case, a rollback, and runs in the transaction."""
    assert re.fullmatch(r"[0-9]{14}_[a-z][a-z0-9_]*", migration.id)
    assert (migration.up.path.name, migration.down.path.name) == (
        f"{migration.id}.sql",
        f"{migration.id}.rollback.sql",
    )
    assert migration.reversible
    assert migration.up.transactional
    assert migration.depends == ()


@EACH
def test_own_migration_begins_with_what_for_what_it_locks_and_what_it_loses(migration):
    """The leading comment says what the script is for, what it locks or rewrites, and what its rollback loses."""
    header = re.match(r"(?:--[^\n]*\n)+", migration.up.text)[0]
    assert re.match(r"-- [A-Z]", header)
    assert "ocks" in header
    assert "rewrites nothing" in header
    assert "Its rollback " in header
    assert re.match(r"-- (?:Drops|Loses) [a-z ,_]+", migration.down.text)


@EACH
def test_own_migration_runs_without_notice(memory, migration):
    """No script carries a transaction or a pragma of its own."""
    results = migrate.apply(memory, to=migration.id)
    assert results[-1].id == migration.id
    assert results[-1].notices == ()


def test_own_folder_holds_nothing_but_the_pairs():
    """What ships is what runs."""
    shipped = {Path(path).name for path in migrate.default_folder().iterdir()} - {
        "__init__.py",
        "__pycache__",
        "README.md",
    }
    assert shipped == {path.name for m in MIGRATIONS for path in (m.up.path, m.down.path)}


# ---------------------------------------------------------------- up, down, up


@PREFIXES
def test_rollback_after_every_prefix_and_up_again_gives_the_same_schema(memory, number):
    """Down to nothing and up again, from any version: the same schema, and nothing left in between."""
    migrate.apply(memory, steps=number)
    before = schema(memory)
    assert len(migrate.rollback(memory, steps=None)) == number
    assert schema(memory) == []
    migrate.apply(memory, steps=number)
    assert schema(memory) == before


@pytest.mark.parametrize("number", range(len(MIGRATIONS)))
def test_rollback_of_each_restores_the_exact_schema_before(memory, number):
    """A rollback leaves exactly what was there before its migration, which did change something."""
    migrate.apply(memory, steps=number)
    before = schema(memory)
    migrate.apply(memory, steps=1)
    assert schema(memory) != before
    assert ids(migrate.rollback(memory)) == [MIGRATIONS[number].id]
    assert schema(memory) == before


def test_apply_one_by_one_gives_the_schema_of_all_at_once(memory, migrated, template):
    """However the migrations are run, and by whomever, the schema is the same."""
    other = apsw.Connection(":memory:")
    migrate.apply(other, each=True)
    plain = apsw.Connection(str(template))
    assert schema(other) == schema(migrated) == schema(plain)
    plain.close()
    other.close()


# ---------------------------------------------------------------- the rules


def test_schema_has_the_tables_indexes_and_triggers_of_its_design(migrated):
    """The names of all objects, so that a change of one is a change here."""
    assert names(migrated, "table") == [
        "configurations",
        "sessions",
        "task_dependencies",
        "task_events",
        "tasks",
        "tool_executions",
        "workflow_tasks",
        "workflows",
    ]
    assert names(migrated, "index") == [
        "idx_sessions_client_id",
        "idx_sessions_is_active",
        "idx_sessions_last_heartbeat",
        "idx_task_dependencies_depends_on",
        "idx_task_events_at",
        "idx_task_events_task_id",
        "idx_tasks_claim",
        "idx_tasks_claim_type",
        "idx_tasks_created_at",
        "idx_tasks_dedup_key",
        "idx_tasks_ended",
        "idx_tasks_lease_expires_at",
        "idx_tasks_status",
        "idx_tasks_task_type",
        "idx_tasks_workspace_path",
        "idx_tool_executions_created_at",
        "idx_tool_executions_open",
        "idx_tool_executions_status",
        "idx_tool_executions_step",
        "idx_tool_executions_task_id",
        "idx_tool_executions_tool_name",
        "idx_tool_executions_without_task",
        "idx_workflow_tasks_sequence",
        "idx_workflow_tasks_task_id",
        "idx_workflows_created_at",
        "idx_workflows_status",
    ]
    assert names(migrated, "trigger") == [
        "configurations_updated_at",
        "sessions_updated_at",
        "task_dependencies_added",
        "task_dependencies_no_cycle",
        "task_dependencies_removed",
        "task_dependencies_unchangeable",
        "task_events_changed",
        "task_events_created",
        "task_events_deleted",
        "tasks_attempt_ended",
        "tasks_attempt_increases",
        "tasks_counters_begin_at_zero",
        "tasks_dependencies_completed",
        "tasks_dependencies_deleted",
        "tasks_status_transition",
        "tasks_updated_at",
        "tool_executions_attempt_current",
        "tool_executions_attempt_fixed",
        "tool_executions_end_final",
        "tool_executions_updated_at",
        "workflow_tasks_added",
        "workflow_tasks_moved",
        "workflow_tasks_removed",
        "workflow_tasks_updated_at",
        "workflows_paused",
        "workflows_tasks_deleted",
        "workflows_updated_at",
    ]
    assert names(migrated, "view") == ["queue_overview", "task_overview"]


def test_schema_every_table_is_strict(migrated):
    """Every column holds what its type says."""
    rows = migrated.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    strict = {name: bool(strict) for name, strict in rows}
    assert {name: strict[name] for name in names(migrated, "table")} == dict.fromkeys(names(migrated, "table"), True)


def test_schema_every_constraint_has_a_name_of_its_table(migrated):
    """Every CHECK and FOREIGN KEY is named after its table, so that an error can say which one it was."""
    seen = []
    for kind, table, _, sql in schema(migrated):
        if kind != "table":
            continue
        text = re.sub(r"'(?:[^']|'')*'|--[^\n]*", "''", sql)
        named = re.findall(r"\bCONSTRAINT\s+(\w+)\s+(?:CHECK|FOREIGN\s+KEY)\b", text)
        assert len(named) == len(re.findall(r"\bCHECK\b|\bREFERENCES\b", text))
        assert named
        assert all(name.startswith(f"{table}_") for name in named)
        keys = migrated.execute('SELECT "from" FROM pragma_foreign_key_list(?)', (table,)).fetchall()
        assert {f"{table}_{column}_fkey" for (column,) in keys} == {name for name in named if name.endswith("_fkey")}
        seen += named
    assert len(seen) == len(set(seen)) > 30


def test_schema_indexes_are_named_after_their_table(migrated):
    """An index's name says which table it is on."""
    for kind, name, table, sql in schema(migrated):
        if kind == "index" and sql is not None:
            assert name.startswith(f"idx_{table}_")


def test_schema_every_foreign_key_has_an_index(migrated):
    """No deletion of a parent scans its children."""
    for table in names(migrated, "table"):
        for (column,) in migrated.execute('SELECT "from" FROM pragma_foreign_key_list(?)', (table,)).fetchall():
            first = migrated.execute(
                "SELECT info.name FROM pragma_index_list(?) AS list, pragma_index_info(list.name) AS info "
                "WHERE info.seqno = 0",
                (table,),
            ).fetchall()
            assert (column,) in first


def test_schema_every_updated_at_has_a_trigger_that_watches_all_other_columns(migrated):
    """Whatever column changes, `updated_at` moves on; a column that is added later must be watched, too.

    A heartbeat is the one exception: the lease of a task moves on without it.
    """
    watching = {
        table: (name, re.search(r"AFTER\s+UPDATE\s+OF\s+(.*?)\s+ON\s", sql, re.DOTALL)[1])
        for kind, name, table, sql in schema(migrated)
        if kind == "trigger" and name.endswith("_updated_at")
    }
    with_version = {table for table in names(migrated, "table") if "updated_at" in columns(migrated, table)}
    assert watching.keys() == with_version
    for table, (name, watched) in watching.items():
        assert name == f"{table}_updated_at"
        assert re.split(r",\s*", watched) == [
            column for column in columns(migrated, table) if column not in {"updated_at", "lease_expires_at"}
        ]


def test_schema_defaults_of_times_are_utc_with_milliseconds(migrated):
    """A row that is inserted by hand gets times as the library writes them."""
    for table in names(migrated, "table"):
        rows = migrated.execute("SELECT name, dflt_value FROM pragma_table_info(?)", (table,)).fetchall()
        for column, default in rows:
            if column in {"created_at", "updated_at", "last_heartbeat"}:
                assert re.fullmatch(
                    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", migrated.execute(f"SELECT {default}").get
                )
