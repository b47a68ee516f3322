"""The commands on a PostgreSQL database: what they print there, what they refuse, and that no password is told."""

from __future__ import annotations

import json
import os

import psycopg
import pytest

from dao import migrate
from tests.cli.calls import CALLS, refused
from tests.folders import IDS, write

#: A password that no other word contains.
SECRET = "hunter2%40%2Fx"  # noqa: S105 - of nobody
PLAIN = "hunter2@/x"
#: The commands that work on a copy of a file.
OF_FILES = ["snapshot", "snapshots", "restore"]


def with_password(url: str) -> str:
    """Return a URL with the password in it."""
    user, at, rest = url.partition("@")
    return f"{user}:{SECRET}{at}{rest}"


@pytest.fixture
def there(new_postgresql_url, workplace, monkeypatch) -> str:
    """The URL of a new database, with a password, as DATABASE_URL has it."""
    url = with_password(new_postgresql_url)
    monkeypatch.setenv("DATABASE_URL", url)
    return url


def test_status_and_marks(run, there):
    """What is marked shows in the status, the plan and the history, and each is told with the name of the database."""
    assert run("status", "--exit-code").code == 3
    assert run("mark", *IDS[:2]).out == "marked as applied: 0001_a\nmarked as applied: 0002_b\n"
    status = run("status", "--json").document
    assert [one["state"] for one in status["migrations"]] == ["applied", "applied", "pending"]
    assert status["database"].startswith("postgresql://")
    assert "?" not in status["database"]
    assert [step["id"] for step in run("plan", "--json").document["steps"]] == ["0003_c"]
    assert run("unmark", "0002").out == "marked as not applied: 0002_b\n"
    deeds = run("history", "--json").document["history"]
    assert [(deed["operation"], deed["id"]) for deed in deeds] == [
        ("mark", "0001_a"),
        ("mark", "0002_b"),
        ("unmark", "0002_b"),
    ]


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("where", ["there", "no database", "no server", "no host", "no TLS"])
def test_no_command_tells_the_password(run, there, monkeypatch, name, where):
    """Nothing that a command prints has the password in it, whatever is wrong."""
    user, _, rest = there.rpartition("@")
    bad = {
        "there": there,
        "no database": there.replace("/dao_test", "/nowhere"),
        "no server": f"{user}@/x?host=%2Fnowhere",
        "no host": f"{user}@no.such.host.invalid/x",
        "no TLS": f"{user}@localhost:1/x?sslmode=verify-full&sslrootcert=nowhere.pem",
    }
    monkeypatch.setenv("DATABASE_URL", bad[where])
    del rest
    for form in ([], ["--json"]):
        outcome = run(*CALLS[name], *form)
        assert PLAIN not in outcome.out + outcome.err
        assert SECRET not in outcome.out + outcome.err
