"""Taking over another tool's ledger: what it applied is marked, its table stays, and what does not fit is refused."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from dao import migrate
from dao.errors import LedgerMismatch, MigrationError, MigrationFileError
from dao.migrate.ledger.adopt import adopt
from dao.migrate.scripts.ids import TOOLS, version
from tests.folders import dump, ids, query, tables
from tests.other_tools import (
    LAYOUT_OF,
    LAYOUTS,
    TABLES,
    WRITTEN,
    dbmate,
    execute,
    flyway,
    folder_of,
    goose,
    in_layout,
    made_by,
    row,
    sql_migrate,
    sqlx,
)


def theirs(path: Path, tool: str) -> list[Any]:
    """Return all of a tool's own table, what it is made of and what is in it."""
    table, _ = TABLES[tool]
    made = query(path, "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = ? ORDER BY 1, 2", table)
    return [made, query(path, f"SELECT rowid, * FROM {table}")]


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    """Each of the tools."""
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, tool: str) -> Path:
    """A folder of four migrations in the tool's layout."""
    return in_layout(tmp_path / "sql", LAYOUT_OF[tool], WRITTEN)


def to(tool: str, id: str) -> str | None:
    return id if tool == "alembic" else None


# ---------------------------------------------------------------- what is adopted


def test_adopt_marks_what_the_tool_applied_and_leaves_its_table(path, url, tool, folder):
    """What the tool applied is applied, with its texts, the rest pending; the tool's own table is as it was."""
    applied = made_by(path, tool, folder, [0, 1])
    before = theirs(path, tool)
    assert adopt(url, tool, folder, to=to(tool, applied[-1])) == applied
    assert theirs(path, tool) == before
    current = migrate.status(url, folder)
    assert (current.ids("applied"), len(current.ids("pending")), len(current.migrations)) == (applied, 2, 4)
    assert current.drift == ()
    assert query(path, "SELECT count(*) FROM _dao_schema") == [(1,)]  # so that the next look at the drift is cheap
    texts = {migration.id: (migration.up.text, migration.down.text) for migration in migrate.load(folder)}
    kept = query(path, "SELECT migration_id, apply_text, rollback_text FROM _dao_migration ORDER BY applied_at_utc")
    assert kept == [(id, *texts[id]) for id in applied]
    assert {(deed.operation, deed.id, deed.detail) for deed in migrate.history(url) if deed.tool_version} == {
        ("adopt", id, f"from {tool}") for id in applied
    }


def test_adopt_then_apply_and_rollback_go_on_from_there(path, url, tool, folder):
    """After it the database is one of ours: the rest is applied, and what the tool applied can be rolled back."""
    applied = made_by(path, tool, folder, [0, 1])
    adopt(url, tool, folder, to=to(tool, applied[-1]))
    assert len(migrate.apply(url, folder)) == 2
    assert set(tables(path)) >= {"a", "b", "c", "d"}
    assert ids(migrate.rollback(url, folder, steps=3))[-1] == applied[1]
    assert {"a", "b", "c", "d"} & set(tables(path)) == {"a"}


@pytest.mark.parametrize("tool", ["flyway", "alembic", "yoyo"], indirect=True)
def test_adopt_again_changes_nothing(path, url, tool, folder):
    """The second time there is nothing to adopt, even when more was applied since."""
    applied = made_by(path, tool, folder, [0, 1])
    last = to(tool, applied[-1])
    adopt(url, tool, folder, to=last)
    before = dump(path)
    assert adopt(url, tool, folder, to=last) == []
    assert dump(path) == before
    migrate.apply(url, folder)
    assert adopt(url, tool, folder, to=last) == []


@pytest.mark.parametrize("tool", ["sqlx", "golang-migrate", "alembic"], indirect=True)
def test_adopt_later_takes_what_the_tool_applied_since(path, url, tool, folder):
    """Who went on with the tool adopts the rest."""
    first = made_by(path, tool, folder, [0])
    adopt(url, tool, folder, to=to(tool, first[0]))
    execute(path, f"DROP TABLE {TABLES[tool][0]}; DROP TABLE a")
    applied = made_by(path, tool, folder, [0, 1, 2])
    assert adopt(url, tool, folder, to=to(tool, applied[-1])) == applied[1:]
    assert migrate.status(url, folder).ids("applied") == applied


@pytest.mark.parametrize("tool", ["sqlx", "diesel", "yoyo"], indirect=True)
def test_adopt_hole_stays_pending(path, url, tool, folder):
    """What the tool left out in the middle is pending still, and known to be out of order."""
    applied = made_by(path, tool, folder, [0, 2])
    assert adopt(url, tool, folder) == applied
    assert [migration.out_of_order for migration in migrate.status(url, folder).migrations] == [
        False,
        False,
        True,
        False,
    ]


def test_adopt_after_a_hole_is_filled_puts_it_in_its_place(path, url, tmp_path):
    """What is adopted later but comes earlier in the folder is not what a rollback begins with."""
    folder = in_layout(tmp_path / "sql", dbmate, WRITTEN)
    made_by(path, "dbmate", folder, [0, 2])
    adopt(url, "dbmate", folder)
    execute(path, "INSERT INTO schema_migrations VALUES ('0002')")
    assert adopt(url, "dbmate", folder) == ["0002_b"]
    assert migrate.status(url, folder).ids("applied") == ["0001_a", "0002_b", "0003_c"]


def test_adopt_connection_of_the_callers_is_used(path, tmp_path, theirs):
    """It takes a connection as it takes a URL."""
    folder = in_layout(tmp_path / "sql", dbmate, WRITTEN)
    applied = made_by(path, "dbmate", folder, [0])
    assert adopt(theirs, "dbmate", migrate.load(folder)) == applied


@pytest.mark.parametrize("tool", ["goose", "golang-migrate", "yoyo"], indirect=True)
def test_reset_after_adopt_refuses_to_drop_the_tools_table(path, url, folder, tool):
    """The tool's own ledger is not of the migrations, so a reset does not drop it; it can be dropped by hand."""
    applied = made_by(path, tool, folder, [0])
    adopt(url, tool, folder, to=to(tool, applied[-1]))
    if tool == "yoyo":  # its ledger is ours
        assert len(migrate.reset(url, folder)) == 4
        return
    table, _ = TABLES[tool]
    before = dump(path)
    with pytest.raises(MigrationError, match=f"holds what its migrations did not make \\(table {table}\\)"):
        migrate.reset(url, folder)
    assert dump(path) == before
    execute(path, f"DROP TABLE {table}")
    assert len(migrate.reset(url, folder)) == 4


# ---------------------------------------------------------------- what the tools write


def test_adopt_goose_last_row_of_a_version_counts(path, url, tmp_path):
    """A version that goose applied, undid and applied again is applied; one that it undid last is not."""
    folder = in_layout(tmp_path / "sql", goose, WRITTEN)
    made_by(path, "goose", folder, [0, 1])
    for number, applied in ((1, 0), (1, 1), (2, 0)):
        execute(path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, ?)", number, applied)
    assert adopt(url, "goose", folder) == ["00001_a"]


def test_adopt_golang_migrate_takes_all_up_to_its_version(path, url, tmp_path):
    """The one row of golang-migrate stands for all before it."""
    folder = in_layout(
        tmp_path / "sql", sqlx, [(number, *rest) for number, *rest in [(2, "b", "", ""), (10, "c", "", "")]]
    )
    folder_of(folder, {"0001_a.up.sql": "", "11_d.up.sql": ""})
    execute(path, TABLES["golang-migrate"][1] + "; INSERT INTO schema_migrations VALUES (10, 0)")
    assert adopt(url, "golang-migrate", folder) == ["0001_a", "2_b", "10_c"]


def test_adopt_golang_migrate_without_a_version_has_nothing(path, url, tmp_path):
    """A database in which golang-migrate undid everything has nothing to adopt."""
    execute(path, TABLES["golang-migrate"][1])
    assert adopt(url, "golang-migrate", in_layout(tmp_path / "sql", sqlx, WRITTEN)) == []


_HISTORY = (
    "INSERT INTO flyway_schema_history (installed_rank, version, description, type, script, checksum, installed_by, "
    "execution_time, success) VALUES (?, ?, '', ?, ?, NULL, '', 0, 1)"
)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("2", "BASELINE")], ["V1__a", "V2__b"]),
        ([("1.5", "BASELINE"), ("2", "SQL")], ["V1__a", "V2__b"]),
        ([("0", "BASELINE"), ("01.0", "SQL")], ["V1__a"]),
        ([("3", "SQL_BASELINE")], ["V1__a", "V2__b", "V3__c"]),
        ([("1", "SQL"), ("2", "SQL"), ("2", "UNDO_SQL")], ["V1__a"]),
        ([("1", "SQL"), ("1", "UNDO_SQL"), ("1", "SQL")], ["V1__a"]),
        ([("1", "SQL"), ("9", "SQL"), ("9", "DELETE")], ["V1__a"]),
        ([(None, "SCHEMA"), ("1", "SQL"), (None, "SQL")], ["V1__a"]),
    ],
    ids=str,
)
def test_adopt_flyway_history_is_read_in_its_order(path, url, tmp_path, rows, expected):
    """A baseline stands for all before it, and a missing checksum is none.

    Migrations that were undone or deleted are not applied.
    """
    folder = in_layout(tmp_path / "sql", flyway, WRITTEN)
    execute(path, TABLES["flyway"][1])
    for rank, (its, kind) in enumerate(rows, 1):
        execute(path, _HISTORY, rank, its, kind, "x")
    assert adopt(url, "flyway", folder) == expected


@pytest.mark.parametrize("tool", ["sqlx", "flyway"], indirect=True)
def test_adopt_checksum_of_a_saved_file_is_the_tools(path, url, tmp_path, tool):
    """Line ends, a byte order mark and letters beyond ASCII count in a checksum as they count for the tool."""
    folder = in_layout(
        tmp_path / "sql", LAYOUT_OF[tool], [(1, "a", "-- é\nCREATE TABLE a (id);\n\n", "")], windows=True
    )
    table, sql = TABLES[tool]
    execute(path, sql)
    up = next(path for path in folder.iterdir() if path.name[0] in "1V" and "down" not in path.name)
    columns, values = row(tool, up, up.name.partition(".")[0], 1)
    if tool == "flyway":
        values[5] = zlib.crc32("-- éCREATE TABLE a (id);".encode())
        values[5] -= (values[5] >> 31) << 32
    execute(path, f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", *values)
    assert len(adopt(url, tool, folder)) == 1


@pytest.mark.parametrize("tool", ["sqlx", "flyway"], indirect=True)
@pytest.mark.parametrize("here", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("there", ["\n", "\r\n"], ids=repr)
def test_adopt_file_with_other_line_ends_is_the_one_that_was_applied(path, url, folder, tool, there, here):
    """Another checkout's line ends are no edit.

    On Windows they differ from those by which the tool ran, and sqlx's checksum called the file edited.
    """

    def check_out(ends: str) -> None:
        for file in folder.rglob("*.sql"):
            file.write_bytes(ends.encode().join(file.read_bytes().splitlines()))

    check_out(there)
    applied = made_by(path, tool, folder, [0, 1])
    check_out(here)
    assert adopt(url, tool, folder) == applied


# ---------------------------------------------------------------- the tool's own table afterwards


def test_diff_after_adopt_is_clean(path, url, tool, folder):
    """The table in which the tool notes what it did is nobody's drift.

    `dao schema diff` named it for ever, with exit 5.
    """
    applied = made_by(path, tool, folder, [0, 1])
    adopt(url, tool, folder, to=to(tool, applied[-1]))
    assert migrate.diff(url, folder) == []
    migrate.apply(url, folder)
    assert migrate.diff(url, folder) == []
    assert migrate.status(url, folder).is_current
    query(path, "CREATE TABLE theirs (id)")
    assert [str(one) for one in migrate.diff(url, folder)] == ["table theirs is unexpected"]


def test_apply_after_adopt_replays_nothing(path, url, tool, folder, monkeypatch):
    """The tool's table does not count, so the schema is known to be clean, and a run need not replay the migrations."""
    applied = made_by(path, tool, folder, [0, 1])
    adopt(url, tool, folder, to=to(tool, applied[-1]))

    def fail(*_arguments):
        raise AssertionError("the migrations were replayed")

    monkeypatch.setattr("dao.migrate.ledger.expected.replayed", fail)
    assert len(migrate.apply(url, folder)) == 2
    assert migrate.status(url, folder).drift == ()


#: Tables of tools that cannot be adopted, in another case here and there, as SQLite does not mind.
BESIDE = {
    "Atlas": "atlas_schema_revisions",
    "Cloudflare D1": "d1_migrations",
    "Django": "django_migrations",
    "Drizzle": "__drizzle_migrations",
    "Knex": "knex_migrations",
    "Liquibase": "databasechangelog",
    "Litestream": "_litestream_seq",
    "Prisma": "_PRISMA_migrations",
    "Rails": "ar_internal_metadata",
}


@pytest.mark.parametrize(("tool", "table"), BESIDE.items(), indirect=["tool"])
def test_diff_tables_of_other_tools_are_no_difference(path, url, three, tool, table):
    """Tools that cannot be adopted leave a table behind, too, and each is known by whose it is."""
    migrate.apply(url, three)
    query(path, f"CREATE TABLE {table} (id)")
    assert migrate.diff(url, three) == []
    assert [(one.tool, one.table) for one in migrate.other_ledgers(url)] == [(tool, table)]


@pytest.mark.parametrize("change", ["ALTER TABLE schema_migrations ADD COLUMN x", "DROP TABLE schema_migrations"])
def test_diff_table_that_a_migration_made_is_compared_whatever_it_is_called(path, url, tmp_path, change):
    """A table that migrations make is theirs, also under the name of another tool's ledger."""
    folder = folder_of(tmp_path / "sql", {"1_a.sql": "CREATE TABLE schema_migrations (version TEXT);"})
    migrate.apply(url, folder)
    query(path, change)
    assert [one.name for one in migrate.diff(url, folder)] == ["schema_migrations"]


# ---------------------------------------------------------------- refusals


def refused(path: Path, error: type[MigrationError], message: str, *arguments: Any, **options: Any) -> MigrationError:
    """Assert that an adoption is refused and nothing changed, and return the error."""
    before = dump(path)
    with pytest.raises(error, match=message) as caught:
        adopt(f"sqlite:///{path}", *arguments, **options)
    assert dump(path) == before
    return caught.value


def test_adopt_unknown_tool_is_refused(path, three):
    """A tool that is not known is refused, with those that are."""
    refused(path, MigrationError, "'liquibase' is no tool whose ledger .* those are sqlx, dbmate", "liquibase", three)


def test_adopt_missing_database_is_refused_and_not_created(path, three):
    """A database that does not exist has nothing to adopt."""
    refused(path, MigrationError, "does not exist", "sqlx", three)
    assert not path.exists()


def test_adopt_database_without_the_tools_table_is_refused(path, tool, folder):
    """A database that the tool has not worked on is refused, and sent to the tool that has, if one has."""
    execute(path, "CREATE TABLE x (id)")
    table, _ = TABLES[tool]
    last = to(tool, "0001_a")
    message = f"has no table {table}, so {tool} has"
    refused(path, MigrationError, f"{message}.*`dao mark` notes.*`dao baseline` begins", tool, folder, to=last)
    theirs = "flyway" if tool == "goose" else "goose"
    execute(path, TABLES[theirs][1])
    refused(path, MigrationError, f"{message}.*: `dao adopt --from {theirs}`", tool, folder, to=last)


@pytest.mark.parametrize(
    ("tool", "other"), [("dbmate", "golang-migrate"), ("golang-migrate", "dbmate")], indirect=["tool"]
)
def test_adopt_table_of_another_tool_is_refused(path, tool, other, folder):
    """Two tools have a table of the same name: which of the two made it is told by its columns."""
    execute(path, TABLES[other][1])
    refused(path, MigrationError, f"not as {tool} makes it: .*; is it that of {other}", tool, folder)


def test_adopt_version_without_a_file_is_refused(path, tool, folder):
    """What the tool applied and has no file is named, and nothing is adopted."""
    applied = made_by(path, tool, folder, [0, 1, 2])
    if tool == "alembic":
        refused(path, MigrationError, "no migration '0009' is in the folder", tool, folder, to="0009")
        return
    gone = [migration for migration in migrate.load(folder) if migration.id == applied[2]]
    for file in {gone[0].up.path, gone[0].down.path}:
        file.unlink()
    if tool == "diesel":
        gone[0].path.parent.rmdir()
    error = refused(path, LedgerMismatch, "its file has gone" if tool == "yoyo" else "has no file here", tool, folder)
    assert error.missing == (applied[2] if tool == "yoyo" else version(applied[2], tool),)


@pytest.mark.parametrize("tool", ["sqlx", "flyway"], indirect=True)
def test_adopt_file_that_was_edited_is_refused(path, tool, folder):
    """A file that is not the one that the tool applied is named."""
    applied = made_by(path, tool, folder, [0, 1])
    edited = migrate.load(folder)[1]
    edited.path.write_bytes(edited.path.read_bytes() + b" ")
    error = refused(path, LedgerMismatch, f"{tool} has applied other texts than .*{edited.path.name}", tool, folder)
    assert error.changed == (applied[1],)


@pytest.mark.parametrize(
    ("tool", "sql"),
    [
        ("sqlx", "UPDATE _sqlx_migrations SET success = 0 WHERE version = 2"),
        ("golang-migrate", "UPDATE schema_migrations SET dirty = 1"),
        ("flyway", "UPDATE flyway_schema_history SET success = 0 WHERE version = '2'"),
    ],
    indirect=["tool"],
)
def test_adopt_migration_that_failed_halfway_is_refused(path, tool, folder, sql):
    """Where the tool says that it did not come to an end, a person has to look first."""
    made_by(path, tool, folder, [0, 1])
    execute(path, sql)
    refused(path, MigrationError, f"{tool} did not come to the end of version 2,", tool, folder)


def test_adopt_two_files_of_one_version_are_refused(path, tmp_path):
    """Where the tool's version may mean either of two files, neither is marked."""
    folder = in_layout(tmp_path / "sql", sqlx, WRITTEN)
    made_by(path, "sqlx", folder, [0, 1])
    folder_of(folder, {"01_z.up.sql": ""})
    refused(path, MigrationFileError, "1_a.up.sql: has the version 1, as 01_z has", "sqlx", folder)


@pytest.mark.parametrize("tool", ["dbmate", "alembic", "yoyo"], indirect=True)
def test_adopt_ledger_that_disagrees_is_refused(path, url, tool, folder):
    """A database whose own ledger does not fit the files is refused before anything is taken over."""
    applied = made_by(path, tool, folder, [0, 1])
    adopt(url, tool, folder, to=to(tool, applied[-1]))
    changed = migrate.load(folder)[0].path
    changed.write_bytes(changed.read_bytes() + b" ")
    refused(path, LedgerMismatch, "its files have changed", tool, folder, to=to(tool, applied[-1]))


def test_adopt_alembic_needs_to_know_the_last_file(path, three):
    """A revision of alembic says nothing about files: which is the last that is applied has to be said."""
    execute(path, TABLES["alembic"][1])
    refused(path, MigrationError, "name the last of them with --to ID", "alembic", three)
    refused(path, MigrationError, "is empty: alembic has applied nothing", "alembic", three, to="0001_a")


def test_adopt_to_is_refused_where_the_ledger_knows(path, three):
    """For the other tools nothing is left to say."""
    execute(path, TABLES["dbmate"][1])
    refused(path, MigrationError, "dbmate's ledger says itself what is applied", "dbmate", three, to="0001_a")


@pytest.mark.parametrize(
    ("tool", "sql"),
    [
        ("goose", "INSERT INTO goose_db_version (version_id, is_applied) VALUES ('x', 1)"),
        ("dbmate", "INSERT INTO schema_migrations VALUES ('x')"),
        ("flyway", "INSERT INTO flyway_schema_history VALUES (9, 'x', '', 'BASELINE', '', 0, '', '', 0, 1)"),
    ],
    indirect=["tool"],
)
def test_adopt_version_that_is_none_is_refused(path, tool, folder, sql):
    """A version that the tool itself would not make has no file."""
    made_by(path, tool, folder, [0])
    execute(path, sql)
    refused(path, LedgerMismatch, "has no file here: version x. Nothing was changed", tool, folder)


def test_layouts_cover_all_tools():
    """Every tool has a layout here, and every layout a tool, but that of sql-migrate, whose ledger is not known."""
    assert tuple(LAYOUT_OF) == TOOLS == tuple(TABLES)
    assert set(LAYOUT_OF.values()) == set(LAYOUTS) - {sql_migrate}
