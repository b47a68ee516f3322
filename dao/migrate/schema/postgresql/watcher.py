"""What a watcher of scripts on PostgreSQL hears, and what it may ask for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.postgresql import Statement

__all__ = ["Watcher"]


class Watcher:
    """Is told what a script does. This one makes nothing of it."""

    def begin(self, script: Script) -> None:
        """Look at the database before a script runs."""

    def kind(self, _statement: Statement) -> Hashable:
        """Return what a statement has in common with its neighbours that may run in one journey with it.

        None: it runs alone, for it is likely to lose something.
        """
        return ""

    def tries(self, _statement: Statement) -> bool:
        """Return whether what a statement has done is to be `tried` before it stays."""
        return False

    def before(self, statements: Sequence[Statement]) -> None:
        """Look at the database before statements run that are of one kind."""

    def tried(self, _statements: Sequence[Statement]) -> bool:
        """Look at what statements have done, and return whether to undo that, to look at what was there before.

        Then several are run again one by one, and each is tried; for a single one `undone` is called before that.
        """
        return False

    def undone(self) -> None:
        """Look at what was there before."""

    def after(self, statements: Sequence[Statement], tags: Sequence[str]) -> None:
        """Look at the database after statements, of which the server has said these tags, as `DELETE 3`."""

    def judge(self, rest: str) -> None:
        """Refuse what a statement has done that is about to be committed alone; the `rest` of the script comes later.

        Raises:
            CheckFailed: It lost what it may not.
        """
