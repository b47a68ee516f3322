"""A script as `lint` saw it while it was replayed: its statements, its failure, and the problems found in them."""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import attrs

from dao.migrate.linting.schema import Schema
from dao.migrate.values import Step

__all__ = ["TEMPORARY", "Event", "Failure", "Problem", "Statement", "Subject", "listed"]

#: The actions that make or drop a temporary object.
TEMPORARY = frozenset(value for name, value in vars(apsw).items() if name.startswith("SQLITE_") and "_TEMP_" in name)


@attrs.frozen
class Event:
    """One call of the authorizer: an action of SQLite's and its two arguments, in the main database."""

    action: int
    first: str
    second: str


@attrs.define(kw_only=True)
class Statement:
    """A statement of a script. `begin` and `end` are its place in the text, without the comments before it.

    `without_where` is the table of a DELETE or UPDATE that has no WHERE, `quotes` whether it compiles only because it
    has a double-quoted string, `fails_on_rows` what SQLite says if the tables that it reads or alters hold a row,
    `misfits` which values a copy brings into columns where they do not belong.
    `commits`: it ran outside of a transaction and wrote, or ended one. `ignored` is what the runner passes over.
    """

    begin: int
    end: int
    line: int
    events: tuple[Event, ...]
    before: Schema
    after: Schema
    ignored: tuple[str, ...] = ()
    without_where: tuple[int, str] | None = None
    quotes: str | None = None
    fails_on_rows: str | None = None
    misfits: tuple[str, ...] = ()
    commits: bool = False

    @property
    def only_inserts(self) -> bool:
        """Whether it writes values into a table and reads none: what most statements of a large script do."""
        return len(self.events) == 1 and self.events[0].action == apsw.SQLITE_INSERT

    def tables(self, *actions: int) -> list[str]:
        """Return the names of what such actions were about, in lower case, each once."""
        return list(dict.fromkeys(event.first.lower() for event in self.events if event.action in actions))

    def columns_read(self, table: str) -> set[str]:
        """Return the columns that are read of a table, in lower case."""
        return {
            event.second.lower()
            for event in self.events
            if event.action == apsw.SQLITE_READ and event.first.lower() == table.lower()
        }


@attrs.frozen
class Failure:
    """The first statement of a script that failed."""

    line: int
    message: str
    statement: Statement | None


#: A rule's code, the statement that broke it (None: the script as a whole), and the message.
Problem = tuple[str, Statement | None, str]


@attrs.define(kw_only=True)
class Subject:
    """A script that was replayed: its statements in order, the schema before and after, its first failure, problems.

    `origin` is the schema whose data it must keep: in a rollback, that before its up script.
    """

    step: Step
    origin: Schema
    before: Schema
    after: Schema
    statements: Sequence[Statement] = ()
    failure: Failure | None = None
    problems: list[Problem] = attrs.Factory(list)

    @property
    def is_rollback(self) -> bool:
        """Whether it undoes its migration."""
        return self.step.direction == "rollback"

    def uses(self, *actions: int) -> bool:
        """Return whether any statement does one of these."""
        return any(statement.tables(*actions) for statement in self.statements)


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
