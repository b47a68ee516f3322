"""How a program that uses libpq is told of a database: by its environment, which no other user can read."""

from __future__ import annotations

from psycopg import conninfo, pq

from dao.errors import UnsupportedEngine
from dao.url import ServerURL

__all__ = ["environment"]


def environment(url: ServerURL) -> tuple[dict[str, str], str]:
    """Return the variables that tell libpq of a database, and a connection string of what has no variable.

    The second is empty as a rule. It may stand on a command line: a secret is in none.

    Raises:
        UnsupportedEngine: A secret has no variable.
    """
    variables, rest = {}, {}
    for option in pq.Conninfo.get_defaults():
        name, value = option.keyword.decode(), url.parameters.get(option.keyword.decode())
        if value is None:
            continue
        if option.envvar:
            variables[option.envvar.decode()] = value
        elif option.dispchar:  # that of a password, or of what libpq shows to nobody
            raise UnsupportedEngine(
                f"{name} in the database URL can be handed to another program in a file only: write it to a service of "
                "~/.pg_service.conf, and name that in the URL (service=NAME)"
            )
        else:
            rest[name] = value
    return variables, conninfo.make_conninfo(**rest) if rest else ""
