"""yoyo's own backend on psycopg, inside a transaction of ours. The `yoyo` command uses it as it is."""

from __future__ import annotations

from typing import Any

from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend

from dao.errors import DatabaseBusy
from dao.migrate import database
from dao.migrate.ledger.backend import LedgerBackend

__all__ = ["PsycopgBackend"]

# yoyo waits for the end of the transaction, then, to write its row
_LOCK = "LOCK TABLE yoyo_lock IN EXCLUSIVE MODE"
# Its holder has a session, which began before the row was written, and is not called as ours are; of a session that is
# another role's, the server may not say when it began. The row has the time of the client's clock.
_HOLDER = """
SELECT pid, to_char(ctime, 'YYYY-MM-DD HH24:MI:SS')
FROM   yoyo_lock
WHERE  EXISTS (SELECT FROM pg_stat_activity
               WHERE  datname = current_database() AND pid <> pg_backend_pid()
               AND    coalesce(backend_type, 'client backend') = 'client backend'
               AND    coalesce(application_name, '') NOT IN ('dao', 'dao migrate')
               AND    coalesce(backend_start AT TIME ZONE 'UTC' <= ctime + INTERVAL '1 minute', true))
"""


class PsycopgBackend(LedgerBackend, PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo has no types
    """yoyo's backend on a connection that is given."""

    def connect(self, _dburi: Any) -> Any:
        """Return the connection that was given."""
        return self._given

    @property
    def driver_connection(self) -> Any:
        """The connection as the rest of this package knows it."""
        return self._given

    def respect_lock(self) -> None:
        """Refuse to go on while a `yoyo` process may hold its own lock, and keep others from taking it meanwhile.

        Which host the process is on nobody knows: it counts while a session is there that may be its own.

        Raises:
            DatabaseBusy: One may.
        """
        database.execute(self._given, _LOCK)
        for pid, since in database.fetch(self._given, _HOLDER):
            raise DatabaseBusy(
                f"a yoyo command (process {pid} on some host, since {since} UTC) holds its lock on "
                f"{database.called(self._given)}: wait for it, or, if it has ended, run `yoyo break-lock`"
            )
