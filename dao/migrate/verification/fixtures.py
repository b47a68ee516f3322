"""Rows of the user's own, in place of generated ones: INSERT statements, each tried wherever its table takes it.

A history has many schemas, and a file of rows is for some of them: a statement that does not fit is passed over there.
"""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import attrs

from dao.engine.sqlite import Connection
from dao.migrate.schema.catalog import fold, quoted
from dao.migrate.scripts.files import refuse, refuse_broken_off, text_of
from dao.migrate.scripts.statements import end_of_statement, start_of_statement
from dao.migrate.verification.touched import Touched

__all__ = ["Fixtures"]

_INSERT = re.compile(r"(insert|replace|with)\b", re.IGNORECASE)


@attrs.define
class _Statement:
    """An INSERT at a line of the file; whether any schema took it, and why the last that did not refused it."""

    text: str
    line: int
    is_used: bool = False
    reason: str = ""


@attrs.frozen
class Fixtures:
    """The statements of a file."""

    path: Path
    statements: tuple[_Statement, ...]

    @classmethod
    def read(cls, path: Path) -> Fixtures:
        """Read a file.

        Raises:
            MigrationFileError: It cannot be read, or holds something else than INSERT statements.
        """
        text = text_of(path)
        refuse_broken_off(path, text)
        found: list[_Statement] = []
        begin = start_of_statement(text)
        while begin < len(text):
            end = end_of_statement(text, begin)
            found.append(_Statement(text[begin:end], text.count("\n", 0, begin) + 1))
            begin = start_of_statement(text, end)
        for statement in found:
            if not _INSERT.match(statement.text):
                reason = "this is no INSERT; leave it out: rows to try migrations on are given by those alone"
                refuse(path, reason, statement.line)
        return cls(path, tuple(found))

    def insert(self, connection: Connection, needed: Touched) -> frozenset[str]:
        """Insert rows into tables that are `needed` (None: all), and return the folded names of those that got some.

        A statement that fails, or whose rows refer to none, is passed over.
        """
        filled: set[str] = set()
        for statement in self.statements:
            tables: set[str] = set()
            connection.execute("SAVEPOINT fixtures")
            failure = _insert(connection, statement.text, tables)
            statement.is_used |= failure is None
            statement.reason = failure or ""
            if failure is None and (needed is None or not tables.isdisjoint(needed)):
                filled |= tables
            else:
                connection.execute("ROLLBACK TO fixtures")
            connection.execute("RELEASE fixtures")
        return frozenset(filled)

    @property
    def refused(self) -> list[tuple[int, str]]:
        """The lines of the statements that did not fit when they were last tried, each with the reason."""
        return [(statement.line, statement.reason) for statement in self.statements if statement.reason]

    def refuse_unused(self) -> None:
        """Refuse a statement that was tried, and that no schema took.

        Raises:
            MigrationFileError: There is one.
        """
        for statement in self.statements:
            if statement.reason and not statement.is_used:
                reason = f"no migration leaves a schema that takes this ({statement.reason}); mend it, or leave it out"
                refuse(self.path, reason, statement.line)


def _insert(connection: Connection, sql: str, tables: set[str]) -> str | None:
    """Run an INSERT, note into which tables; return what is wrong with it."""

    def note(action: int, first: str | None, _second: str | None, database: str | None, trigger: str | None) -> int:
        if action == apsw.SQLITE_INSERT and database == "main" and trigger is None:
            tables.add(fold(first or ""))
        # it could change anything
        return apsw.SQLITE_DENY if action in {apsw.SQLITE_ATTACH, apsw.SQLITE_PRAGMA} else apsw.SQLITE_OK

    changes = connection.total_changes()
    authorizer, connection.authorizer = connection.authorizer, note
    try:
        connection.execute(sql, can_cache=False).fetchall()
    except (apsw.SQLError, apsw.ConstraintError, apsw.MismatchError, apsw.AuthError, apsw.BindingsError) as error:
        return str(error)
    finally:
        connection.authorizer = authorizer
    if connection.total_changes() == changes:
        return "it inserts no row"
    for table in tables:
        if connection.execute(f"PRAGMA foreign_key_check({quoted(table)})").fetchall():
            return f"a row of {table} refers to one that does not exist"
    return None
