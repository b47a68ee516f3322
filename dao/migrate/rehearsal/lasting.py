"""What a script for PostgreSQL does that no rollback undoes, as far as its text tells: such a script is not tried."""

from __future__ import annotations

from dao.migrate.scripts.migration import Script
from dao.migrate.scripts.postgresql import Statement, Token, split

__all__ = ["in_the_way"]

_ELSEWHERE = ("dblink", "lo_export", "pg_file_", "pg_terminate_backend", "pg_cancel_backend", "pg_logical_emit_message")


def in_the_way(script: Script) -> str | None:
    """Return why a script cannot be tried in a transaction that is rolled back; None if it can."""
    if not script.transactional:
        return "it runs outside of a transaction, and so would stay"
    for statement in split(script.text):
        if found := _reaches(statement):
            line = script.text.count("\n", 0, statement.begin) + 1
            return f"line {line}: {found} reaches outside of the transaction, and no rollback undoes that"
    return None


def _reaches(statement: Statement) -> str | None:
    words = [token.text for token in statement.tokens if token.kind in {"word", "name"}]
    if statement.first == "copy" and (Token("word", "program") in statement.tokens or "to" in words):
        return "COPY to a file or a program"
    return next((f"{word}()" for word in words if word.startswith(_ELSEWHERE)), None)
