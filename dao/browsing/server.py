"""datasette as a process: started, asked where it listens, ended with this one."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from dao.errors import OperationalError, UnsupportedEngine

__all__ = ["Server", "check_installed", "name_in_addresses", "serving"]

_HOST = "127.0.0.1"
_PAGES = Path(__file__).parent / "pages"
# seconds that it has to end by itself: it only reads, and nothing is lost
_GRACE = 2
# Reading may go on for so long; what datasette would read by itself, past SQLite's locks, stays off.
_SETTINGS = {
    "sql_time_limit_ms": "10000",
    "default_page_size": "50",
    "truncate_cells_html": "200",
    "allow_download": "off",
    "suggest_facets": "off",
    "num_sql_threads": "2",
}


@attrs.frozen
class Server:
    """datasette while it runs: the address to open, with its token, and the process."""

    address: str
    process: subprocess.Popen[str]
    _folder: Path

    def open(self) -> None:
        """Have a browser open the address, by a file that this user alone can read.

        The command line of a browser is for all users of the machine to see, and the token must not be.
        """
        import webbrowser  # noqa: PLC0415 - for this only

        leading = self._folder / "open.html"
        leading.write_text(f'<meta http-equiv="refresh" content="0; url={self.address}">\n', encoding="utf-8")
        webbrowser.open(leading.as_uri())

    def wait(self) -> None:
        """Wait until it ends.

        Raises:
            OperationalError: It has ended by itself.
        """
        told = [line for line in self.process.stderr or () if line.strip()]
        if code := self.process.wait():
            last = told[-1].strip() if told else f"exit code {code}"
            raise OperationalError(f"datasette has ended ({last}): start it again")


def check_installed() -> None:
    """Raise UnsupportedEngine if datasette is not there."""
    if importlib.util.find_spec("datasette") is None:
        raise UnsupportedEngine(
            "dao browse needs datasette, which is not installed here: install it with `make setup` in a checkout, or "
            "pip install 'orchestrator-dao[browse]'"
        )


def name_in_addresses(path: str) -> str:
    """Return what a database is called in the addresses of its pages."""
    stem = Path(path).stem
    return stem if re.fullmatch(r"[A-Za-z0-9_-]+", stem) else "database"


@contextlib.contextmanager
def serving(path: str, metadata: Mapping[str, Any], port: int = 0) -> Iterator[Server]:
    """Show a database by its real path for the time of a block, on this machine's loopback; port 0 is any free one.

    Raises:
        UnsupportedEngine: datasette is not installed.
        OperationalError: It does not start.
    """
    check_installed()
    _check_free(port)
    token = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="dao-browse-") as folder:
        # datasette does not quote the path: with a ? in it, it would open another file
        link = Path(folder, f"{name_in_addresses(path)}.db")
        link.symlink_to(path)
        described = Path(folder, "metadata.json")
        described.write_text(json.dumps(metadata), encoding="utf-8")
        # -P, or Python would look for datasette in the working folder first, which may be anybody's
        command = [sys.executable, "-P", "-m", "datasette", "serve", str(link), "--metadata", str(described)]
        command += ["--host", _HOST, "--port", str(port), "--plugins-dir", str(_PAGES / "plugins")]
        command += ["--template-dir", str(_PAGES / "templates"), "--static", f"dao:{_PAGES / 'static'}"]
        command += [word for name, value in _SETTINGS.items() for word in ("--setting", name, value)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DAO_BROWSE_TOKEN": token, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield Server(f"{_address(process)}/?token={token}", process, Path(folder))
        finally:
            _end(process)


def _check_free(port: int) -> None:
    """Raise OperationalError if datasette could not listen there: its own log does not end with the reason."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise OperationalError(
                f"port {port} cannot be listened on: {error.strerror}. Name another with --port, or leave it out for "
                "any that is free"
            ) from error


def _address(process: subprocess.Popen[str]) -> str:
    told = []
    for line in process.stderr or ():
        told.append(line.strip())
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise OperationalError(
        f"datasette does not start: {next(filter(None, reversed(told)), 'it says nothing')}. Run `{sys.executable} -m "
        "datasette --version` to see whether it works at all"
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End the process, and wait for it: Ctrl-C has reached it already."""
    process.terminate()
    try:
        process.communicate(timeout=_GRACE)
    except subprocess.TimeoutExpired:  # it waits for a query that is under way
        process.kill()
        process.communicate()
    except OSError:
        pass
