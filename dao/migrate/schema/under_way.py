"""A script under way, on whichever engine: its statements, the savepoints that it sets, and how its failure reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dao.errors import MigrationFailed
from dao.migrate.scripts.migration import Script

__all__ = ["Notice", "UnderWay", "unheard"]

#: Is told of what is not done as it is written, and of what the database says.
Notice = Callable[[str], object]

_LONGEST_QUOTE = 400


def unheard(*_said: object) -> None:
    """Make nothing of what is told."""


class UnderWay:
    """A script that is running, by the id of its migration."""

    def __init__(self, id: str, script: Script, notice: Notice) -> None:
        self.script = script
        #: How many statements have begun, without those that are ignored; and the savepoints that are set.
        self.statements = 0
        self.savepoints: list[str] = []
        self._id, self._notice = id, notice

    def savepoint(self, operation: str, name: str) -> str | None:
        """Note a savepoint's "BEGIN", "RELEASE" or "ROLLBACK"; return why that is to be refused, None if it is not."""
        if operation == "BEGIN":
            self.savepoints.append(name)
        elif name not in self.savepoints:
            return f"{operation} of savepoint {name}: this script did not set it"
        else:
            place = len(self.savepoints) - self.savepoints[::-1].index(name)
            del self.savepoints[place - 1 if operation == "RELEASE" else place :]
        return None

    def refuse_open_savepoint(self) -> None:
        """Refuse a savepoint that is left open.

        Raises:
            MigrationFailed: There is one.
        """
        if self.savepoints:
            raise self.failed(f"the script leaves the savepoint {self.savepoints[0]} open", cure="release it")

    def where(self, line: int | None = None) -> str:
        """Return how messages name the script, or a line of it."""
        name = str(self.script.path or f"{self._id} (text from the ledger)")
        return name if line is None else f"{name}:{line}"

    def line(self, place: int) -> int:
        """Return the line at a place of the text, from 1."""
        return self.script.text.count("\n", 0, place) + 1

    def failed(
        self,
        reason: str,
        line: int | None = None,
        statement: str | None = None,
        details: Sequence[str] = (),
        *,
        cure: str = "",
    ) -> MigrationFailed:
        """Return the error for a script that fails; with the statement, its beginning and some details."""
        quoted = statement or ""
        quoted = quoted if len(quoted) <= _LONGEST_QUOTE else quoted[:_LONGEST_QUOTE] + " …"
        return MigrationFailed(
            f"{self.where(line)}: {reason}" + f"; {cure}" * bool(cure),
            details=[*quoted.splitlines(), *details],
            migration=self._id,
            path=self.script.path,
            line=line,
            statement=statement,
            reason=reason,
        )
