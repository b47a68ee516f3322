"""A database that was made without migrations goes on with them: whatever its schema, the baseline makes the same."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import apsw
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dao import migrate
from dao.errors import Irreversible
from dao.migrate.schema.names import is_internal
from tests.folders import dump, write
from tests.migration.test_drift import FOURTH
from tests.migration.test_schema_file import OTHERS
from tests.strategies import schemas

OWN = "".join(migration.up.text for migration in migrate.load())
#: A migration that each folder of another tool holds before, so that its layout is known.
LAYOUTS = {
    "pair": {},
    "up/down": {"9_x.up.sql": "CREATE TABLE nine (id);", "9_x.down.sql": "DROP TABLE nine;"},
    "dbmate": {"9_x.sql": "-- migrate:up\nCREATE TABLE nine (id);\n-- migrate:down\nDROP TABLE nine;\n"},
    "goose": {"9_x.sql": "-- +goose Up\nCREATE TABLE nine (id);\n-- +goose Down\nDROP TABLE nine;\n"},
    "flyway": {"V9__x.sql": "CREATE TABLE nine (id);"},
}


def next_of(layout: str) -> dict[str, str]:
    """Return the files of a migration that is written after the baseline."""
    made = "CREATE TABLE after (id INTEGER PRIMARY KEY);"
    match layout:
        case "dbmate":
            return {"99991231235959_z.sql": f"-- migrate:up\n{made}\n-- migrate:down\n"}
        case "goose":
            return {"99991231235959_z.sql": f"-- +goose Up\n{made}\n-- +goose Down\n"}
        case "flyway":
            return {"V99991231235959__z.sql": made}
        case "up/down":
            return {"99991231235959_z.up.sql": made}
        case _:
            return {"99991231235959_z.sql": made}


def made_by(path: Path, statements: list[str]) -> bool:
    """Make a database by statements, and return whether SQLite takes them all."""
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        try:
            for sql in statements:
                connection.execute(sql).fetchall()
        except apsw.Error:
            return False
    return True


def content(path: Path) -> dict[str, list[object]]:
    """Return all that a database holds but for the ledger."""
    held = {name: rows for name, rows in dump(path).items() if not is_internal(name)}
    held["schema"] = [row for row in held["schema"] if not is_internal(row[2])]
    return held


def goes_on(path: Path, layout: str) -> None:
    """Assert the law: after a baseline the database is as it was, and a new one gets the same schema."""
    new = path.with_name("new.db")
    url, new_url = f"sqlite:///{path}", f"sqlite:///{new}"
    before = content(path)
    scripts = write(path.with_name("sql"), LAYOUTS[layout])
    done = migrate.baseline(url, scripts)
    assert content(path) == before
    assert migrate.diff(url, scripts) == []
    status = migrate.status(url, scripts)
    assert (status.ids("applied"), status.drift) == ([done.id], ())
    assert not any(migration.out_of_order for migration in status.migrations)
    with pytest.raises(Irreversible):
        migrate.rollback(url, scripts, steps=None)
    assert content(path) == before
    write(scripts, next_of(layout))
    broken = [one.name for one in done.broken]
    migrate.apply(url, scripts, snapshots=0)
    migrate.apply(new_url, scripts, snapshots=0, allow_broken=broken)
    assert migrate.diff(url, scripts) == migrate.diff(new_url, scripts) == []
    assert migrate.status(url, scripts).drift == migrate.status(new_url, scripts).drift == ()
    assert content(new)["schema"] == content(path)["schema"]


@given(schemas(), st.sampled_from(sorted(LAYOUTS)))
def test_baseline_of_any_schema_makes_it_again(statements, layout):
    """There was no way from a database to its first migration but to write a dump by hand and `dao mark` it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "there.db"
        assume(made_by(path, statements))
        goes_on(path, layout)


@pytest.mark.sample(3)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "script", [OWN, OTHERS, FOURTH.replace("REFERENCES a", "REFERENCES t")], ids=["own", "others", "drift"]
)
def test_baseline_of_the_schemas_of_other_tests_makes_them_again(tmp_path, script, layout):
    """This package's own schema, and those on which reading and comparing schemas are tested."""
    path = tmp_path / "there.db"
    assert made_by(path, [script])
    goes_on(path, layout)
