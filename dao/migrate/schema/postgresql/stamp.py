"""A stamp of PostgreSQL's catalog: another one once DDL has changed anything, so that not all has to be read again.

Each row of the catalog says which transaction has written it, and where. VACUUM and ANALYZE write numbers into the
rows that are there, and leave that as it is; so do sequences. A stamp that differs proves nothing: rows are written
anew with a table, and in a database that is made from a dump.
"""

from __future__ import annotations

from dao.migrate.schema.postgresql.pieces import OF_USERS

__all__ = ["STAMP"]

#: The catalogs that count, with what tells their rows, and which of them are of schemas for users.
_CATALOGS = (
    ("pg_namespace", "oid", "oid IN (SELECT oid FROM spaces)"),
    ("pg_class", "oid", "relnamespace IN (SELECT oid FROM spaces)"),
    ("pg_attribute", "concat(attrelid, ' ', attnum)", "attrelid IN (SELECT oid FROM relations)"),
    ("pg_attrdef", "oid", "adrelid IN (SELECT oid FROM relations)"),
    ("pg_index", "indexrelid", "indrelid IN (SELECT oid FROM relations)"),
    ("pg_inherits", "concat(inhrelid, ' ', inhseqno)", "inhrelid IN (SELECT oid FROM relations)"),
    ("pg_sequence", "seqrelid", "seqrelid IN (SELECT oid FROM relations)"),
    ("pg_foreign_table", "ftrelid", "ftrelid IN (SELECT oid FROM relations)"),
    ("pg_constraint", "oid", "connamespace IN (SELECT oid FROM spaces)"),
    ("pg_trigger", "oid", "tgrelid IN (SELECT oid FROM relations)"),
    ("pg_rewrite", "oid", "ev_class IN (SELECT oid FROM relations)"),
    ("pg_policy", "oid", "polrelid IN (SELECT oid FROM relations)"),
    ("pg_statistic_ext", "oid", "stxnamespace IN (SELECT oid FROM spaces)"),
    ("pg_proc", "oid", "pronamespace IN (SELECT oid FROM spaces)"),
    ("pg_type", "oid", "typnamespace IN (SELECT oid FROM spaces)"),
    ("pg_enum", "oid", "true"),
    ("pg_extension", "oid", "true"),
    ("pg_description", "concat(classoid, ' ', objoid, ' ', objsubid)", "objoid >= 16384"),
)
_SUMS = "\n    UNION ALL ".join(
    f"SELECT sum(hashtextextended(concat({key}, ' ', xmin, ' ', ctid), {place})) FROM {catalog} WHERE {condition}"
    for place, (catalog, key, condition) in enumerate(_CATALOGS)
)
#: In a query: the stamp, of the catalog as it is seen from the schema of the connection.
STAMP = f"""(
    WITH spaces AS (SELECT oid FROM pg_namespace AS n WHERE {OF_USERS}),
         relations AS (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM spaces))
    SELECT concat(current_schema(), ' ', sum(one)) FROM (
    {_SUMS}
    ) AS sums (one)
)"""
