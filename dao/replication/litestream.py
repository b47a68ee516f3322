"""The program Litestream: where it is, its configuration, its commands, its metrics, what it writes.

It knows nothing of this package. Its credentials come from the environment, and are passed on there: they are in no
file, no argument of a process and no message.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import attrs

from dao import url
from dao.errors import InvalidURL, ReplicationError
from dao.migrate.copies.new_files import file_errors

__all__ = ["Litestream", "Metrics", "Replica", "Uploaded", "parse_replica", "program", "said"]

#: How often it looks at the WAL, and how often it uploads what it found: both may be lost when a machine is.
_LOOKS, _UPLOADS = "500ms", "1s"
#: From how many pages on it brings the WAL into the file, and from how many it makes writers wait for that.
_CHECKPOINT_PAGES, _TRUNCATE_PAGES = 1_000, 25_000
_COPY_HOURS = 24
#: The version with which docs/how-to/replicate.md was measured: it and later ones of its series will do.
_TRIED = (0, 5, 17)
_EXTRA = "`make setup` in a checkout, or pip install 'orchestrator-dao[replication]'"
_FORMS = "a folder, or s3://bucket/path?region=…&endpoint=…"
_PARAMETERS = ("endpoint", "force-path-style", "region", "sign-payload", "storage-class")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LITESTREAM_SECRET_ACCESS_KEY")
_TIMEOUT = 15  # seconds for a command that lists


# ---------------------------------------------------------------- where to


@attrs.frozen
class Replica:
    """Where a replica is: `name` for messages, and `settings` as Litestream's configuration has them."""

    name: str
    settings: Mapping[str, str]


def parse_replica(text: str) -> Replica:
    """Return the meaning of a path or URL of a replica.

    Raises:
        InvalidURL: It means nothing, or holds a password; the message does not repeat it.
    """
    text = url.cleaned(text)
    if what := url.control_character(text):
        raise InvalidURL(f"the place of the replica cannot hold {what}: remove it")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if not text:
        raise InvalidURL(f"the place of the replica is empty: name {_FORMS}")
    if scheme is None or scheme[1].lower() == "file":
        path = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", text, flags=re.IGNORECASE)) if scheme else text
        return Replica(path, {"type": "file", "path": os.path.abspath(path)})
    if scheme[1].lower() != "s3":
        raise InvalidURL(
            f"replicas are kept in {_FORMS}; {scheme[1]} was not tried with this version: use one of these"
        )
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise InvalidURL(
            "a replica's URL holds no credentials: remove them, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in "
            "the environment"
        )
    if not parts.netloc or parts.fragment:
        raise InvalidURL(f"the URL of the replica names no bucket, or has a fragment: use {_FORMS}")
    given = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := [name for name, _ in given if name not in _PARAMETERS]:
        which = f" {unknown[0]!r}" if unknown[0].replace("-", "_").isidentifier() else ""
        raise InvalidURL(f"unknown parameter{which} in the URL of the replica: use {', '.join(_PARAMETERS)}")
    query = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in given)
    name = f"s3://{parts.netloc}{parts.path}"
    return Replica(name, {"url": name + (f"?{query}" if query else "")})


# ---------------------------------------------------------------- the program


def program() -> str:
    """Return the path of Litestream: beside this Python, or on the PATH.

    Raises:
        ReplicationError: There is none, or one of a version that was not tried.
    """
    beside = Path(sys.executable).parent / "litestream"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("litestream")
    if found is None:
        raise ReplicationError(f"replication needs the program litestream, which is not here: install it with {_EXTRA}")
    try:
        version = subprocess.run(
            [found, "version"], capture_output=True, text=True, timeout=_TIMEOUT, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ReplicationError(f"{found} does not run ({error}): install another with {_EXTRA}") from error
    numbers = tuple(int(part) for part in re.findall(r"[0-9]+", version)[:3])
    if numbers[:2] != _TRIED[:2] or numbers < _TRIED:
        tried = ".".join(map(str, _TRIED))
        raise ReplicationError(
            f"{found} is version {version.strip()}, and {tried} was tried, of which later ones of its series will do: "
            f"install it with {_EXTRA}"
        )
    return found


@attrs.frozen
class Uploaded:
    """The newest transaction that a replica has, by Litestream's number, and when that was."""

    number: int
    at: datetime


@attrs.frozen
class Litestream:
    """Litestream with the configuration for one database and its replica, which is in a file."""

    program: str
    database: str
    configuration: Path

    @classmethod
    def configured(
        cls, database: str, replica: Replica, folder: Path, *, keep: timedelta = timedelta(hours=72), metrics: str = ""
    ) -> Litestream:
        """Return it, once its configuration is written into a folder, for this user alone.

        Raises:
            ReplicationError: As `program`.
            OperationalError: The file cannot be written.
        """
        document = {
            "addr": metrics,
            "logging": {"level": "info", "type": "json", "stderr": True},
            "snapshot": {"interval": f"{_COPY_HOURS}h", "retention": f"{int(keep.total_seconds())}s"},
            "dbs": [
                {
                    "path": database,
                    "monitor-interval": _LOOKS,
                    "min-checkpoint-page-count": _CHECKPOINT_PAGES,
                    "truncate-page-n": _TRUNCATE_PAGES,
                    "replica": {**replica.settings, "sync-interval": _UPLOADS},
                }
            ],
        }
        found = program()
        path = folder / "dao.yml"
        with file_errors(f"cannot write {path}"):
            path.unlink(missing_ok=True)
            with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                # YAML has what JSON has, but for surrogates
                json.dump(document, file, ensure_ascii=False, indent=2)
        return cls(found, database, path)

    def begin(self, lock: int) -> subprocess.Popen[str]:
        """Start to replicate. The process keeps the file `lock` open, and with it the lock on that."""
        return subprocess.Popen(
            self._command("replicate"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C is for this process, which passes it on
        )

    def uploaded(self) -> Uploaded | None:
        """Return what the replica has, as it says itself; None if it has nothing.

        Raises:
            ReplicationError: It could not be asked.
        """
        found = json.loads(self._run("ltx", "-json", self.database) or "null") or []
        newest = max(found, key=lambda file: int(file["max_txid"], 16), default=None)
        return newest and Uploaded(int(newest["max_txid"], 16), datetime.fromisoformat(newest["timestamp"]))

    def restore(self, output: Path, at: datetime | None) -> None:
        """Write the database as the replica has it, as of a time or the latest, into a new file.

        Raises:
            ReplicationError: There is none, or it could not be read.
        """
        moment = () if at is None else ("-timestamp", f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z")
        self._run("restore", *moment, "-o", str(output), self.database, timeout=None)

    def _command(self, name: str, *arguments: str) -> list[str]:
        return [self.program, name, "-config", str(self.configuration), "-no-expand-env", *arguments]

    def _run(self, name: str, *arguments: str, timeout: float | None = _TIMEOUT) -> str:
        try:
            ended = subprocess.run(
                self._command(name, *arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=_environment(),
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReplicationError(f"litestream {name} had no answer for {timeout:g} s") from error
        if ended.returncode:
            lines = [said(line) for line in ended.stderr.splitlines() if line.strip()]
            raise ReplicationError(
                f"litestream {name} failed: {lines[-1][1] if lines else f'exit code {ended.returncode}'}"
            )
        return ended.stdout


def _environment() -> dict[str, str]:
    # it would say less, or more, than what is read here
    return {name: value for name, value in os.environ.items() if name != "LOG_LEVEL"}


def said(line: str) -> tuple[str, str]:
    """Return the level and the text of a line that Litestream wrote, without a secret of the environment in it."""
    try:
        record: Any = json.loads(line)
        level, text = record["level"], record["msg"]
        text = f"{text}: {record['error']}" if record.get("error") else text
    except (ValueError, TypeError, KeyError):
        level, text = "ERROR", line.strip().removeprefix("Error: ")
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return level, text


# ---------------------------------------------------------------- how it does


@attrs.frozen
class Metrics:
    """What Litestream counts: transactions found in the WAL, looks at it, and those that failed."""

    number: int
    looks: int
    failed: int

    @classmethod
    def read(cls, address: str, database: str) -> Metrics | None:
        """Return what it says of a database at this address; None if nobody answers."""
        import http.client  # noqa: PLC0415 - takes 10 ms, and most of this package needs none

        host, _, port = address.rpartition(":")
        connection = http.client.HTTPConnection(host.strip("[]") or "localhost", int(port), timeout=5)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

        label = database.replace("\\", "\\\\").replace('"', '\\"')

        def value(name: str) -> int:
            found = re.search(rf'^litestream_{name}{{db="{re.escape(label)}"}} (\S+)$', text, re.MULTILINE)
            return int(float(found[1])) if found else 0

        return cls(value("txid"), value("sync_count"), value("sync_error_count"))
