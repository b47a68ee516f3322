"""Runs a command with a PostgreSQL server for it: `python -m tests.with_server bin/dao schema check`.

DATABASE_URL names a new server, or that of DAO_TEST_POSTGRESQL_URL, which are the ones that tests have.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.servers import VARIABLE, Server, Unavailable


def main(command: list[str]) -> int:
    """Run the command, and return its exit code; 1 if there is no server."""
    if url := os.environ.get(VARIABLE):
        return subprocess.run(command, env=os.environ | {"DATABASE_URL": url}, check=False).returncode
    try:
        with Server() as server:
            url = server.url("postgres")
            return subprocess.run(command, env=os.environ | {"DATABASE_URL": url}, check=False).returncode
    except Unavailable as error:
        sys.stderr.write(f"error: no PostgreSQL server to run {' '.join(command)} with: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
