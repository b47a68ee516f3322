"""`apply`: all of it or nothing, and never a foreign key or a file left broken."""

from __future__ import annotations

import apsw
import pytest

from dao import migrate
from dao.errors import CheckFailed, MigrationError, MigrationFailed
from tests.folders import IDS, dump, ids, query, tables, with_fourth, write

# ---------------------------------------------------------------- what is done


def test_apply_new_database_runs_all_in_order(path, url, three):
    """All pending migrations are applied, in their order, and the result says so."""
    results = migrate.apply(url, three)
    assert [(result.id, result.direction, result.statements) for result in results] == [
        ("0001_a", "apply", 1),
        ("0002_b", "apply", 2),
        ("0003_c", "apply", 1),
    ]
    assert tables(path) == ["a", "b", "c"]
    assert query(path, "SELECT id FROM b") == [(2,)]


def test_apply_ledger_row_holds_checksums_and_both_texts(path, url, three):
    """The ledger keeps what was applied, so that it can be compared and undone without the files."""
    migrate.apply(url, three)
    rows = query(
        path,
        "SELECT migration_id, state, checksum, rollback_checksum, apply_text, rollback_text, applied_at_utc "
        "FROM _dao_migration ORDER BY migration_id",
    )
    times = dict(query(path, "SELECT migration_id, applied_at_utc FROM _yoyo_migration"))
    assert rows == [
        (
            migration.id,
            "applied",
            migration.up.checksum,
            migration.down.checksum,
            migration.up.text,
            migration.down.text,
            times[migration.id],
        )
        for migration in migrate.load(three)
    ]
    assert query(path, "SELECT migration_id, operation FROM _yoyo_log ORDER BY created_at_utc") == [
        (id, "apply") for id in IDS
    ]


def test_apply_nothing_pending_writes_nothing(path, url, three):
    """A second run finds nothing to do and changes nothing."""
    migrate.apply(url, three)
    before = dump(path)
    events = []
    assert migrate.apply(url, three, report=events.append) == []
    assert (dump(path), events) == (before, [])


def test_apply_new_migration_runs_only_that(path, url, three):
    """What is applied is not run again."""
    migrate.apply(url, three)
    write(three, {"0004_d.sql": "CREATE TABLE d (id);"})
    assert ids(migrate.apply(url, three)) == ["0004_d"]
    assert tables(path) == ["a", "b", "c", "d"]


def test_apply_loaded_migrations_are_taken_as_they_are(path, url, three):
    """Instead of a folder, `load`'s migrations may be given."""
    assert ids(migrate.apply(url, migrate.load(three)[:2])) == IDS[:2]
    assert tables(path) == ["a", "b"]


def test_apply_events_tell_what_happens_in_order(url, tmp_path):
    """`report` hears of each script when it begins and when it is done, and of what was not done as written."""
    folder = write(tmp_path / "sql", {"1_a.sql": "BEGIN; CREATE TABLE a (id); COMMIT;", "2_b.sql": "SELECT 1;"})
    events = []
    results = migrate.apply(url, folder, report=events.append)
    assert [type(event).__name__ for event in events] == [
        "Created",
        "Started",
        "Notice",
        "Notice",
        "Finished",
        "Started",
        "Finished",
        "Committed",
    ]
    assert [event.step.id for event in events if isinstance(event, migrate.Started)] == ["1_a", "2_b"]
    assert [event.result for event in events if isinstance(event, migrate.Finished)] == results
    assert (events[-1].ids, events[-1].seconds > 0) == (("1_a", "2_b"), True)


# ---------------------------------------------------------------- to, steps, each


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"to": "0002_b"}, IDS[:2]),
        ({"to": "0002"}, IDS[:2]),
        ({"to": "0003_c"}, IDS),
        ({"steps": 0}, []),
        ({"steps": 1}, IDS[:1]),
        ({"steps": 99}, IDS),
        ({"to": "0002_b", "steps": 1}, IDS[:1]),
        ({"each": True}, IDS),
        ({"each": True, "steps": 2}, IDS[:2]),
    ],
    ids=str,
)
def test_apply_to_and_steps_limit_what_runs(path, url, three, arguments, expected):
    """`to` and `steps` end a run earlier, and a later run goes on where it ended."""
    assert ids(migrate.apply(url, three, **arguments)) == expected
    assert migrate.status(url, three).ids("applied") == expected
    assert ids(migrate.apply(url, three)) == IDS[len(expected) :]
    assert tables(path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"to": "0009"},
            MigrationError,
            "no migration '0009' is in the folder; those that are: 0001_a, 0002_b, 0003_c",
        ),
        ({"to": "000"}, MigrationError, "'000' may be any of 0001_a, 0002_b, 0003_c"),
        ({"to": ""}, MigrationError, "'' is no id of a migration: give an id"),
        ({"steps": -1}, ValueError, "steps must be a whole number from 0, got -1"),
        ({"steps": True}, ValueError, "steps must be a whole number from 0, got True"),
    ],
    ids=str,
)
def test_apply_impossible_limit_is_refused_and_creates_nothing(path, url, three, arguments, error, message):
    """A wrong argument is refused before a database is created."""
    with pytest.raises(error, match=message):
        migrate.apply(url, three, **arguments)
    assert not path.exists()


def test_apply_each_failure_keeps_what_was_committed(path, url, tmp_path):
    """With `each`, migrations before the failed one stay, and the message names them."""
    with pytest.raises(MigrationFailed, match=r"These stay committed: 0001_a, 0002_b, 0003_c\.") as caught:
        migrate.apply(url, with_fourth(tmp_path / "sql", "CREATE TABLE x (id); SELEC 1;"), each=True)
    assert "Nothing was changed" not in str(caught.value)
    assert tables(path) == ["a", "b", "c"]
    assert migrate.status(url, tmp_path / "sql").ids("applied") == IDS


def test_apply_each_failed_check_keeps_what_was_committed(path, url, tmp_path):
    """With `each`, the checks are made for every migration, and one that fails undoes only its own."""
    script = "CREATE TABLE x (id REFERENCES a (id)); INSERT INTO x VALUES (1);"
    with pytest.raises(CheckFailed, match=r"These stay committed: 0001_a, 0002_b, 0003_c\.") as caught:
        migrate.apply(url, with_fourth(tmp_path / "sql", script), each=True)
    assert "Nothing was changed" not in str(caught.value).replace("nothing", "Nothing")
    assert tables(path) == ["a", "b", "c"]


# ---------------------------------------------------------------- all or nothing

FAILURES = {
    "syntax": ("CREATE TABLE x (id); SELEC 1;", MigrationFailed),
    "constraint": ("CREATE TABLE x (id NOT NULL); INSERT INTO x VALUES (NULL);", MigrationFailed),
    "missing table": ("CREATE TABLE x (id); INSERT INTO y VALUES (1);", MigrationFailed),
    "raise": (
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT RAISE(ROLLBACK, 'no'); END; INSERT INTO a VALUES (9);",
        MigrationFailed,
    ),
    "conflict": ("INSERT INTO a VALUES (9); INSERT OR ROLLBACK INTO a VALUES (9);", MigrationFailed),
    "refusal": ("CREATE TABLE x (id); ROLLBACK;", MigrationFailed),
    "own transaction": ("COMMIT; BEGIN; CREATE TABLE x (id); COMMIT; SELEC 1;", MigrationFailed),
    "foreign key": ("CREATE TABLE x (id REFERENCES a (id)); INSERT INTO x VALUES (77);", CheckFailed),
    "integrity": (
        "CREATE TABLE x (id CHECK (id > 0)); PRAGMA ignore_check_constraints = ON; INSERT INTO x VALUES (-1);",
        CheckFailed,
    ),
    "dropped rows": ("DELETE FROM b; DROP TABLE a; PRAGMA user_version = 7; SELEC 1;", MigrationFailed),
}


@pytest.mark.parametrize("applied", [0, 2])
@pytest.mark.parametrize(("script", "error"), FAILURES.values(), ids=FAILURES)
def test_apply_failure_in_the_last_leaves_everything_as_before(path, url, tmp_path, script, error, applied):
    """Whatever fails, in the last of several migrations: schema, rows and ledger are what they were."""
    folder = with_fourth(tmp_path / "sql", script)
    migrate.apply(url, folder, steps=applied)
    before = dump(path)
    with pytest.raises(error, match=r"\nNothing was changed\.(?:\n|$)"):
        migrate.apply(url, folder)
    assert dump(path) == before
    assert migrate.status(url, folder).ids("applied") == IDS[:applied]


def test_apply_report_that_raises_undoes_the_run(path, url, three):
    """An exception of the caller's own, a Ctrl-C among them, undoes everything too."""

    def interrupt(event):
        if isinstance(event, migrate.Finished) and event.result.id == "0002_b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate.apply(url, three, report=interrupt)
    assert dump(path) == {}
    assert ids(migrate.apply(url, three)) == IDS


def test_apply_after_the_script_was_mended_goes_through(path, url, tmp_path):
    """A failure leaves nothing behind that would stop the next run."""
    with pytest.raises(MigrationFailed):
        migrate.apply(url, with_fourth(tmp_path / "sql", "SELEC 1;"))
    assert ids(migrate.apply(url, with_fourth(tmp_path / "sql", "CREATE TABLE x (id);"))) == [*IDS, "0004_x"]
    assert tables(path) == ["a", "b", "c", "x"]


@pytest.mark.parametrize(
    ("script", "most"), [("CREATE TABLE d (id INTEGER PRIMARY KEY);", 27), ("ALTER TABLE a ADD COLUMN y;", 30)]
)
def test_apply_one_line_takes_few_statements(path, url, three, monkeypatch, script, most):
    """A run asks little of a database that holds rows, and nothing twice.

    The snapshot's connections may ask for more. Five of the statements only set the connection up: `dao.connect` keeps
    what is temporary in memory, and a connection for scripts does not.
    """
    write(three, {"0003_c.sql": "CREATE TABLE c (id); INSERT INTO a VALUES (1);"})
    migrate.apply(url, three)
    write(three, {"0004_d.sql": script})
    statements: list[str] = []
    opened: list[apsw.Connection] = []

    def note(connection: apsw.Connection) -> None:
        opened.extend([connection] if connection.filename == str(path) else ())
        if opened == [connection]:
            connection.exec_trace = lambda _cursor, sql, _bindings: statements.append(" ".join(sql.split())) or True

    monkeypatch.setattr(apsw, "connection_hooks", [note])
    assert ids(migrate.apply(url, three)) == ["0004_d"]
    statements.append(script)  # the runner traces the script itself
    listed = "\n".join(f"{number:2} {sql}" for number, sql in enumerate(statements, 1))
    assert len(opened) > 1
    assert len(statements) <= most, f"{len(statements)} statements, at most {most}:\n{listed}"
