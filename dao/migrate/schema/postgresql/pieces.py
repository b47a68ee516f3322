"""Pieces of SQL over PostgreSQL's catalog, which its statements share."""

from __future__ import annotations

__all__ = ["OF_USERS", "RELATIONS", "brought_along", "column_names", "qualified"]

#: A condition: a schema, as `n`, is for users.
OF_USERS = "left(n.nspname, 3) <> 'pg_' AND n.nspname <> 'information_schema'"
#: The clause that gives relations, as `c`, each with its schema, as `n`.
RELATIONS = "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"


def column_names(numbers: str, relation: str, name: str = "own.attname") -> str:
    """Return SQL for an array of the names of a relation's columns, by an array of their numbers."""
    return (
        f"ARRAY(SELECT {name}::text FROM unnest({numbers}) WITH ORDINALITY AS listed (number, place) "
        f"JOIN pg_attribute AS own ON own.attrelid = {relation} AND own.attnum = listed.number ORDER BY listed.place)"
    )


def qualified(name: str, schema: str = "n") -> str:
    """Return SQL for a name as one writes it, with its schema unless that is the connection's."""
    return (
        f"CASE WHEN {schema}.nspname = current_schema() THEN '' ELSE quote_ident({schema}.nspname) || '.' END "
        f"|| quote_ident({name})"
    )


def brought_along(catalog: str, oid: str, kinds: str = "ei") -> str:
    """Return a condition: an extension has brought it along ("e"), or another object ("i")."""
    listed = ", ".join(f"'{kind}'" for kind in kinds)
    return (
        f"EXISTS (SELECT FROM pg_depend AS m WHERE m.classid = '{catalog}'::regclass AND m.objid = {oid} "
        f"AND m.objsubid = 0 AND m.deptype IN ({listed}))"
    )
