"""A script that is judged: its statements, its failure, and the problems found in it; and what a replay has seen."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import apsw
import attrs

from dao.migrate.linting.schema import Schema
from dao.migrate.schema.names import fold
from dao.migrate.scripts.migration import Script
from dao.migrate.values import Step

__all__ = ["REMOVING", "TEMPORARY", "Event", "Failure", "Judged", "Problem", "Span", "Statement", "Subject", "listed"]

#: The actions that make or drop a temporary object, and those that drop or alter anything.
TEMPORARY = frozenset(value for name, value in vars(apsw).items() if name.startswith("SQLITE_") and "_TEMP_" in name)
REMOVING = frozenset(value for name, value in vars(apsw).items() if name.startswith(("SQLITE_DROP_", "SQLITE_ALTER_")))


@attrs.frozen
class Event:
    """One call of the authorizer: an action and its two arguments, in the main database.

    `temporary` is the folded name of the temporary table that it is about; that is not in `first`, where somebody might
    take it for another, unless the action can only be about one.
    """

    action: int
    first: str
    second: str
    temporary: str = ""


@attrs.define(kw_only=True, eq=False)
class Statement:
    """A statement of a script. `begin` and `end` are its place in the text, without the comments before it.

    Attributes:
        ignored: What the runner passes over.
        commits: Whether it ran outside of a transaction and wrote, or ended one.
        without_where: The action and the table of a DELETE or UPDATE that has no WHERE.
        quotes: The double-quoted string without which it does not compile.
        fails_on_rows: What SQLite says if the tables that it reads or alters hold a row.
        misfits: Which values a copy brings into columns where they do not belong.
    """

    begin: int
    end: int
    before: Schema
    after: Schema
    events: tuple[Event, ...] = ()
    ignored: tuple[str, ...] = ()
    commits: bool = False
    without_where: tuple[int, str] | None = None
    quotes: str | None = None
    fails_on_rows: str | None = None
    misfits: tuple[str, ...] = ()

    @property
    def only_inserts(self) -> bool:
        """Whether it writes values into a table and reads none: what most statements of a large script do."""
        return len(self.events) == 1 and self.events[0].action == apsw.SQLITE_INSERT

    @functools.cached_property
    def renamed(self) -> dict[str, str]:
        """The tables that it renamed, as old and new name. Known once it has run."""
        return {} if self.after is self.before else self.after.renamed_since(self.before)

    def tables(self, *actions: int) -> list[str]:
        """Return the folded names of what such actions were about, each once; "" for temporary tables."""
        return list(dict.fromkeys(fold(event.first) for event in self.events if event.action in actions))

    def touched(self, *actions: int) -> set[tuple[str, str]]:
        """Return the tables that such actions were about, by folded name: either that of one, or of a temporary one."""
        return {
            ("" if event.temporary else fold(event.first), event.temporary)
            for event in self.events
            if event.action in actions
        }


@attrs.frozen
class Failure:
    """The first failure of a script, and the statement that met it."""

    line: int
    message: str
    statement: Statement


class Span(Protocol):
    """The place of a statement in its text, whichever engine it is for."""

    @property
    def begin(self) -> int:
        """Where it begins."""

    @property
    def end(self) -> int:
        """Where it ends."""


#: A rule's code, the statement that broke it (None: the script as a whole), and the message.
Problem = tuple[str, Span | None, str]


@attrs.define(kw_only=True, eq=False)
class Judged:
    """A script that is judged: its statements in order, its first failure, and its problems."""

    step: Step
    statements: Sequence[Span] = ()
    failure: Failure | None = None
    problems: list[Problem] = attrs.Factory(list)

    @property
    def script(self) -> Script:
        """The script."""
        return self.step.script

    @property
    def is_rollback(self) -> bool:
        """Whether it undoes its migration."""
        return self.step.direction == "rollback"


@attrs.define(kw_only=True, eq=False)
class Subject(Judged):
    """A script that was replayed, with the schema before it and after.

    `origin` is the schema whose data it must keep: in a rollback, that before its up script.
    """

    statements: Sequence[Statement] = ()
    origin: Schema
    before: Schema
    after: Schema

    def culprit(self, type: str, name: str) -> Statement | None:
        """Return the statement that made an object, or last changed a table; or else the last that removed anything."""
        for statement in reversed(self.statements):
            before, after = statement.before.find(type, name), statement.after.find(type, name)
            if before != after and (before is None or type == "table"):
                return statement
        return next((one for one in reversed(self.statements) if one.tables(*REMOVING)), None)


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
