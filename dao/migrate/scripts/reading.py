"""A statement for PostgreSQL, read from its beginning on: words that are passed over, names without their schemas."""

from __future__ import annotations

from collections.abc import Sequence

from dao.migrate.scripts.postgresql import Token

__all__ = ["Reading"]


class Reading:
    """The tokens of a statement, or of a part of it, and the place up to which they are read."""

    def __init__(self, tokens: Sequence[Token], place: int = 0) -> None:
        self._tokens, self._place = tokens, place

    @property
    def left(self) -> Sequence[Token]:
        """What is left to read."""
        return self._tokens[self._place :]

    @property
    def words(self) -> list[str]:
        """What is left to read, as texts."""
        return [token.text for token in self.left]

    @property
    def next(self) -> Token:
        """The token that comes next; one of no kind at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else Token("", "")

    def passes(self, *words: str) -> bool:
        """Pass over these words, or signs, if they come next; return whether they did."""
        there = self._tokens[self._place : self._place + len(words)]
        if [token.text for token in there if token.kind in {"word", "other"}] != [*words]:
            return False
        self._place += len(words)
        return True

    def name(self) -> str | None:
        """Pass over a name, perhaps after ONLY and before a *, and return it; None if none comes next."""
        self.passes("only")
        found = None
        while self.next.kind in {"word", "name"}:
            found = self.next.text
            self._place += 1
            if not self.passes("."):  # else it was a schema's
                break
        self.passes("*")
        return found

    def names(self) -> list[str]:
        """Pass over names with commas between them, and return them."""
        found: list[str] = []
        while (name := self.name()) is not None:
            found.append(name)
            if not self.passes(","):
                break
        return found
