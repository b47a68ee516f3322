"""Waiting until there may be something to do, instead of asking again and again."""

from __future__ import annotations

from dao import engine
from dao.engine import Connection
from dao.transactions import check_seconds

__all__ = ["wait_for_change"]


def wait_for_change(connection: Connection, *, timeout: float) -> bool:
    """Wait until others have changed something, for `timeout` seconds at the most; return whether they have.

    The first call for a connection returns True at once. Each later one looks at what has been committed since the call
    before returned, so that nothing is missed between a look and the wait::

        while True:
            claimed = tasks.claim(connection, worker="w1", lease=timedelta(minutes=1))
            if not claimed:
                dao.wait_for_change(connection, timeout=5)

    True means to look again: there may be nothing for this caller. The connection's own changes do not count, and
    time that passes is no change: a task that is due at six, or whose lease runs out, is found by looking then, so
    choose the timeout as the latest that one may begin late.

    SQLite: any commit of another connection counts, of this or another process. They are looked for every 5 to 20 ms,
    and hold no lock. A database in memory has no other connection. Without WAL, whoever keeps the database locked for
    longer keeps this up, too, by the busy timeout at the most.

    PostgreSQL: what counts is that a task has become one that can be claimed: it was made or became pending, what it
    waited for was completed, its workflow goes on, or it is due at another time. Claims, ends and edits of tasks do not
    count, nor do other tables: a notification makes each commit wait for the others, as
    docs/explanation/postgresql.md tells. The connection listens from the first call on, and has to be direct: behind a
    pooler that lends sessions for a transaction, as PgBouncer does in transaction mode, nothing is heard, and the wait
    always takes the whole timeout. A lost connection is an error at once; on a new one the first call returns True, so
    nothing is missed.

    In async code: `await aio.run(connection, dao.wait_for_change, timeout=5)`. A cancellation ends it, as does the
    closing of a pool. It occupies a connection all the while: give it one of its own, and do not use one of a pool that
    others wait for.

    Raises:
        ConnectionBusy: A transaction is open on the connection, or a cursor that is not at its end; or it is psycopg's
            and not in autocommit mode.
        ConnectionLost: The connection to the server is lost.
        OperationalError: It was interrupted.
        TypeError, InvalidValue: The timeout is no number of seconds from 0.
    """
    return engine.wait_for_change(connection, check_seconds(timeout))
