"""The command that begins with a database which was made without migrations."""

from __future__ import annotations

from dao import migrate
from tests.cli.calls import CALLS, misused, refused
from tests.folders import dump, query, write

CALL = CALLS["baseline"]


def test_baseline_prints_the_paths_and_what_it_noted(run, workplace, existing):
    """The words of the command line are its name; the paths come first, as of `dao new`."""
    query(existing, "CREATE TABLE django_migrations (id)")
    outcome = run(*CALL, "As it", "was")
    assert (outcome.code, outcome.err) == (0, "")
    (id,) = [migration.id for migration in migrate.load(workplace / "begun")]
    assert id.endswith("_as_it_was")
    assert outcome.out.splitlines() == [
        f"begun/{id}.sql",
        f"begun/{id}.rollback.sql",
        "left out: django_migrations (of Django)",
        f"existing.db: {id} is noted as applied; its rows are not in it",
    ]
    assert run("status", *CALL[1:]).out.splitlines()[-1] == "existing.db: 1 applied"
    assert run("schema", "diff", *CALL[1:]).code == 0


def test_baseline_warns_of_what_does_not_work(run, existing):
    """A view that is broken already would fail the first run in a new database: it is named at once."""
    query(existing, "CREATE VIEW v AS SELECT * FROM gone")
    outcome = run(*CALL)
    assert outcome.code == 0
    assert outcome.err.startswith("warning: the view v: no such table: main.gone; mend it in a migration")


def test_baseline_twice_is_refused(run, workplace, existing):
    """The second time there is a ledger."""
    run(*CALL)
    before = dump(existing), sorted(workplace.joinpath("begun").iterdir())
    refused(run(*CALL), "existing.db has a ledger already", "a baseline is where one begins")
    assert (dump(existing), sorted(workplace.joinpath("begun").iterdir())) == before


def test_baseline_without_a_folder_is_refused(run, existing, monkeypatch):
    """The scripts of this package are no place for another database's schema, in a checkout either."""
    monkeypatch.delenv("DATABASE_MIGRATIONS")
    before = sorted(migrate.default_folder().iterdir())
    refused(run(*CALL[:3]), "has the migrations of this package", "--migrations or DATABASE_MIGRATIONS")
    assert sorted(migrate.default_folder().iterdir()) == before


def test_baseline_after_a_failed_migrate_is_what_the_message_says(run, workplace, existing):
    """The way of a newcomer: a folder without migrations, then one that makes what is there, then the baseline."""
    refused(run("migrate", *CALL[1:]), "`dao baseline` one of the schema of a database that is there")
    write(workplace / "begun", {"1_there.sql": "CREATE TABLE there (id);"})
    refused(run("migrate", *CALL[1:]), "The table there was there before this run", "`dao mark ID`", "`dao baseline`")
    refused(run(*CALL), "make what is there already (there)", "`dao mark ID`")
    (workplace / "begun" / "1_there.sql").unlink()
    assert run(*CALL).code == 0
    write(workplace / "begun", {"99990101000000_next.sql": "ALTER TABLE there ADD COLUMN x;"})
    assert run("migrate", *CALL[1:]).code == 0
    assert run("schema", "diff", *CALL[1:]).code == 0


def test_baseline_wrong_options_are_refused(run, existing):
    """There is nothing to choose but the name."""
    misused(run(*CALL, "--to", "x"), "No such option")
