"""What is there and what migrations make, on PostgreSQL: their texts tell that, for a replay takes a database."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dao.engine import fetch
from dao.engine.postgresql import Connection
from dao.migrate.ledger.entries import Ledger
from dao.migrate.schema.names import fold, is_ours
from dao.migrate.scripts.migration import Migration

__all__ = ["COLUMN", "MISSING", "THERE", "is_there", "made", "made_one", "names"]

# the server's words in English; in another language there is no advice
THERE = re.compile(
    r'(type|schema|function|extension|relation|constraint|trigger|policy|rule)()()? "(.+?)"'
    r'(?: for (?:relation|table) ".+")? already exists(?: with same argument types)?',
    re.DOTALL,
)
COLUMN = re.compile(r'column "(.+)" of relation ".+" already exists', re.DOTALL)
MISSING = re.compile(r'relation "(?:public\.)?(.+)" does not exist', re.DOTALL)
_MAKES = re.compile(
    r'create\s+(?:unlogged\s+|or\s+replace\s+|materialized\s+)*(?:table|view)\s+(?:if\s+not\s+exists\s+)?(?:"([^"]+)"|(\w+))',
    re.IGNORECASE,
)
_NAMES = """
SELECT relname
FROM   pg_class AS c
WHERE  relkind IN ('r', 'p', 'f', 'v', 'm') AND relnamespace = to_regnamespace(quote_ident(current_schema()))
AND    NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
"""
_HAS_COLUMN = """
SELECT 1 FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE  a.attname = $1 AND c.relnamespace = to_regnamespace(quote_ident(current_schema()))
LIMIT  1
"""
_HAS = """
SELECT 1 FROM pg_class WHERE relname = $1 UNION ALL SELECT 1 FROM pg_type WHERE typname = $1
UNION  ALL SELECT 1 FROM pg_proc WHERE proname = $1 UNION ALL SELECT 1 FROM pg_namespace WHERE nspname = $1
UNION  ALL SELECT 1 FROM pg_extension WHERE extname = $1 UNION ALL SELECT 1 FROM pg_constraint WHERE conname = $1
UNION  ALL SELECT 1 FROM pg_trigger WHERE tgname = $1 UNION ALL SELECT 1 FROM pg_policy WHERE polname = $1
UNION  ALL SELECT 1 FROM pg_rewrite WHERE rulename = $1
LIMIT  1
"""


def names(connection: Connection) -> set[str]:
    """Return the names of the tables and views of a database, by `fold`, without this package's ledger."""
    return {fold(name) for (name,) in fetch(connection, _NAMES) if not is_ours(name)}


def made(migrations: Sequence[Migration]) -> set[str]:
    """Return the names of the tables and views that migrations make, by the words of their scripts."""
    return {fold(one or other) for migration in migrations for one, other in _MAKES.findall(migration.up.text)}


def is_there(connection: Connection, type: str, name: str) -> bool:
    """Return whether a database has something of a name: a column, or anything else."""
    return bool(fetch(connection, _HAS_COLUMN if type == "column" else _HAS, (name,)))


def made_one(state: Ledger, type: str, name: str) -> bool:
    """Return whether the applied migrations have made something of a name, as far as they name it."""
    del type
    word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
    return any(word.search(entry.text or "") for entry in state.entries)
