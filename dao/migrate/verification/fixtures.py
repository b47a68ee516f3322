"""Rows of the user's own, in place of generated ones: INSERT statements, each tried wherever its table takes it.

A history has many schemas, and a file of rows is for some of them: a statement that does not fit is passed over there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs

from dao.migrate.scripts.files import refuse, refuse_broken_off, text_of
from dao.migrate.scripts.postgresql import split
from dao.migrate.scripts.statements import end_of_statement, start_of_statement
from dao.migrate.verification.store import Store
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
    def read(cls, path: Path, engine: Literal["sqlite", "postgresql"] = "sqlite") -> Fixtures:
        """Read a file, with statements for this engine.

        Raises:
            MigrationFileError: It cannot be read, or holds something else than INSERT statements.
        """
        text = text_of(path)
        refuse_broken_off(path, text, engine)
        spans = _spans(text) if engine == "sqlite" else ((one.begin, one.end) for one in split(text))
        found = [_Statement(text[begin:end], text.count("\n", 0, begin) + 1) for begin, end in spans]
        for statement in found:
            if not _INSERT.match(statement.text):
                reason = "this is no INSERT; leave it out: rows to try migrations on are given by those alone"
                refuse(path, reason, statement.line)
        return cls(path, tuple(found))

    def insert(self, store: Store, needed: Touched) -> frozenset[str]:
        """Insert rows into tables that are `needed` (None: all), and return those that got some: as `Table.id`.

        A statement that fails, or whose rows refer to none, is passed over.
        """
        filled: set[str] = set()
        for statement in self.statements:
            store.run("SAVEPOINT fixtures")
            tables, failure = store.insert_all(statement.text)
            statement.is_used |= failure is None
            statement.reason = failure or ""
            if failure is None and (needed is None or not tables.isdisjoint(needed)):
                filled |= tables
            else:
                store.run("ROLLBACK TO fixtures")
            store.run("RELEASE fixtures")
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


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where statements for SQLite begin and end."""
    begin = start_of_statement(text)
    while begin < len(text):
        end = end_of_statement(text, begin)
        yield begin, end
        begin = start_of_statement(text, end)
