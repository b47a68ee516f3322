"""The rules of `lint`, as data: the documentation and the SARIF report are made from this table.

A code is never given to another rule. A severity says what a finding does to `dao lint`: an error fails it, a warning
does with `--strict`, a note never.
"""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["RULES", "Rule", "Severity", "by_name"]

Severity = Literal["error", "warning", "note"]


@attrs.frozen
class Rule:
    """A rule: its stable code and name, how grave it is, why it is there, and what to do about a finding."""

    code: str
    name: str
    severity: Severity
    reason: str
    remedy: str


#: Every rule, by code.
RULES = (
    Rule("M001", "statement-fails", "error",
         "The database or the runner refuses the statement even in an empty database.",
         "mend the statement; run `dao lint` again, since what follows it was judged without it"),
    Rule("M002", "drop-table", "error",
         "The rows of a table that an earlier migration made are gone for good; a rollback brings back an empty table.",
         "copy the rows first, or declare it at the top of the file: `-- allows: drop table NAME`"),
    Rule("M003", "drop-column", "error",
         "The values of a column that an earlier migration made are gone for good.",
         "copy the values first, or declare it at the top of the file: `-- allows: drop column TABLE.COLUMN`"),
    Rule("M004", "delete-without-where", "warning",
         "The statement deletes every row of a table that an earlier migration made.",
         "add the WHERE that is missing; if all rows are meant, write WHERE true"),
    Rule("M005", "update-without-where", "warning",
         "The statement rewrites every row of a table that an earlier migration made, under the write lock.",
         "add the WHERE that leaves out the rows that need no change; if all rows are meant, write WHERE true"),
    Rule("M006", "fails-on-rows", "error",
         "The statement succeeds while the table is empty, as in every test, and fails once it holds a row.",
         "give the column a constant default that its constraints accept, or fill it in the copy"),
    Rule("M007", "rebuild-order", "warning",
         "Renaming the old table away takes along what refers to it: foreign keys, triggers and views then name a "
         "table that is about to go (sqlite.org/lang_altertable.html, section 7).",
         "create the new table under another name, copy, drop the old one, rename the new one"),
    Rule("M008", "lost-in-rebuild", "warning",
         "Dropping a table drops its indexes and triggers, and the table that took its place lacks them.",
         "create them again after the rename; if one is to go, drop it before the table, by its name"),
    Rule("M009", "broken-view-or-trigger", "error",
         "A view or trigger no longer compiles after the migration: it fails when it is used, not before.",
         "drop it before the change and create it anew after it"),
    Rule("M010", "rename", "warning",
         "Programs that still use the old name fail from the moment the migration is committed.",
         "add the new name, move the programs, then drop the old; or deploy both together and silence this"),
    Rule("M011", "index-on-existing-table", "note",
         "Building the index reads the whole table and holds the write lock meanwhile.",
         "try it on a copy of the production database (`dao rehearse`) if the table is large"),
    Rule("M012", "foreign-key-without-index", "warning",
         "Every delete of a parent, and every update of its key, scans the whole child table.",
         "create an index that begins with the columns of the foreign key"),
    Rule("M013", "unusable-foreign-key", "error",
         "The foreign key refers to a table that is not there, or to columns that are not unique: with enforcement on, "
         "writing to the tables fails.",
         "make the parent's columns its PRIMARY KEY or UNIQUE, or mend the reference"),
    Rule("M014", "double-quoted-string", "warning",
         "Double quotes are for names. SQLite takes one that fits no column for a string, so a misspelt column passes "
         "as a text, and connections that have this turned off fail.",
         "write strings in single quotes"),
    Rule("M015", "non-deterministic-default", "note",
         "The default differs from insert to insert: the same inserts make different rows in every database, and rows "
         "that the migration itself inserts get the time of the migration.",
         "name the column in inserts whose rows must be the same everywhere"),
    Rule("M016", "if-exists", "warning",
         "The statement succeeds whatever the schema is, so that a database which differs from its ledger goes "
         "unnoticed.",
         "leave out IF [NOT] EXISTS: the ledger knows what is there"),
    Rule("M017", "missing-rollback", "warning",
         "There is no rollback script: the migration cannot be undone.",
         "write it, or silence this at the top of the file with the reason why it cannot be undone"),
    Rule("M018", "empty-rollback", "warning",
         "The rollback script holds no statement: the migration cannot be undone.",
         "write it, or silence this at its top with the reason why it cannot be undone"),
    Rule("M019", "incomplete-rollback", "warning",
         "After the rollback the schema is not what it was before the migration, so applying it again may fail.",
         "undo in the rollback what the migration did, in the opposite order"),
    Rule("M020", "version-collision", "warning",
         "Two migrations begin with the same number: their order is an accident of their names, and other tools refuse "
         "them.",
         "give the newer one, which no database has applied yet, a number of its own"),
    Rule("M021", "ignored-statement", "note",
         "The runner passes over the statement: a run is one transaction, and foreign keys are checked at its end.",
         "leave it out"),
    Rule("M022", "not-atomic", "warning",
         "Outside of a transaction SQLite commits after every statement: if a later one fails, the earlier ones stay.",
         "leave in this file the one statement that needs `-- transactional: false`, and move the others to another "
         "pair"),
    Rule("M023", "pragma-in-transaction", "warning",
         "The pragma fails or does nothing within a transaction.",
         "leave it out, or put it into a pair of its own with `-- transactional: false`"),
    Rule("M024", "create-table-as", "warning",
         "CREATE TABLE … AS SELECT makes columns without keys, constraints, defaults and exact types.",
         "write CREATE TABLE with its columns, then INSERT … SELECT"),
    Rule("M025", "no-primary-key", "note",
         "Nothing tells the table's rows apart but the rowid, which VACUUM may change.",
         "give the table a PRIMARY KEY"),
    Rule("M026", "nullable-primary-key", "note",
         "For historical reasons SQLite accepts NULL in a PRIMARY KEY, any number of times, unless the table is STRICT "
         "or WITHOUT ROWID or the key is INTEGER (sqlite.org/lang_createtable.html, section 3.5).",
         "write NOT NULL beside PRIMARY KEY"),
    Rule("M027", "empty-migration", "note",
         "The script holds no statement.",
         "write it or remove it"),
    Rule("M028", "column-not-watched", "warning",
         "A trigger AFTER UPDATE OF names all columns of its table but a new one: changes of that go unnoticed, so "
         "that updated_at, for one, stands still.",
         "drop the trigger and create it anew with the column, in the same script"),
    Rule("M029", "misfit-copy", "warning",
         "INSERT … SELECT goes by position, not by name: with another order of columns values come into the wrong "
         "ones, and into one of another type SQLite converts what it can and keeps the rest as it is, or fails if the "
         "table is STRICT.",
         "name the columns on both sides, in the same order, and convert values with CAST"),
    Rule("M030", "sequence-reset", "warning",
         "Dropping an AUTOINCREMENT table drops its number in sqlite_sequence: the table that takes its place goes on "
         "after its largest id, so that ids of rows which were deleted are given again.",
         "between the copy and the drop, write UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence "
         "WHERE name = 'OLD') WHERE name = 'NEW'"),
    Rule("M031", "volatile-default", "warning",
         "PostgreSQL: the new column has a value of its own in each row, so that the whole table is written anew, and "
         "nobody gets at it meanwhile (postgresql.org/docs/current/sql-altertable.html, Notes).",
         "add the column without a default, set the default after it, and fill the rows in batches"),
    Rule("M032", "set-not-null", "warning",
         "PostgreSQL reads the whole table under a lock that keeps everybody out, unless a validated CHECK says that "
         "there is no NULL.",
         "ADD CONSTRAINT … CHECK (COLUMN IS NOT NULL) NOT VALID; in a later migration VALIDATE CONSTRAINT, then SET "
         "NOT NULL"),
    Rule("M033", "index-not-concurrent", "warning",
         "PostgreSQL: nobody can write to the table while the index is built.",
         "CREATE INDEX CONCURRENTLY in a pair of its own with `-- transactional: false`; a constraint then takes it: "
         "ADD CONSTRAINT … UNIQUE USING INDEX"),
    Rule("M034", "validated-at-once", "warning",
         "PostgreSQL checks all rows when the constraint is added, under a lock that keeps writers out.",
         "add it NOT VALID, and VALIDATE CONSTRAINT in a later migration, which lets others write"),
    Rule("M035", "table-rewrite", "warning",
         "PostgreSQL writes the table and its indexes anew, and nobody gets at it meanwhile, unless the new type is "
         "stored as the old one is (a longer varchar, varchar to text).",
         "add a column of the new type, fill it in batches, move the programs, then drop the old one"),
    Rule("M036", "lock-held", "warning",
         "PostgreSQL: the lock of an ALTER TABLE is held until the run commits, and what follows takes as long as a "
         "table is large.",
         "put what takes long into a migration before it, or after it, and apply with --each"),
    Rule("M901", "silence-without-reason", "warning",
         "A finding is silenced and nobody will know why.",
         "write the reason behind the code: `-- lint: ignore M002 the reason`"),
    Rule("M902", "unused-silence", "warning",
         "The comment silences nothing here.",
         "remove it, or move it to the line above the statement"),
    Rule("M903", "unknown-rule", "warning",
         "The comment names no rule.",
         "write a code or name that `dao lint --rules` prints: `-- lint: ignore M002 the reason`"),
    Rule("M904", "stale-baseline", "warning",
         "The baseline has a finding that is not there any more: it would hide the same one if it came back.",
         "remove the line"),
)  # fmt: skip

#: The rules by code and by name, both in lower case.
by_name = {text.lower(): rule for rule in RULES for text in (rule.code, rule.name)}
