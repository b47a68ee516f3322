"""Texts that are not UTF-8: SQLite takes any bytes for a text, Python does not."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Sequence
from typing import Any

import apsw

from dao.errors import UnreadableRow

__all__ = ["unreadable_text"]


def unreadable_text(connection: apsw.Connection, sql: str, parameters: Sequence[Any]) -> UnreadableRow:
    """Return the error for a SELECT that gives a text which is not UTF-8, with the row that has it."""
    # of a RETURNING, which must not be run again, this is no SQL
    with contextlib.suppress(apsw.SQLError):
        # of each column its name, its type, and the names of its database, table and column
        described: Any = connection.execute(f"SELECT * FROM ({sql})", parameters).description_full
        names = [f"c{number}" for number in range(len(described))]
        blobs = ", ".join(f"CAST({name} AS BLOB)" for name in names)
        rows: Any = connection.execute(f"WITH r ({', '.join(names)}) AS ({sql}) SELECT {blobs} FROM r", parameters)
        for row in rows:
            for (*_, base, table, column), value in zip(described, row, strict=True):
                if table is not None and value is not None and value != _as_text(value).encode():
                    key = tuple(
                        _as_text(held)
                        for (*_, of, name), held in zip(described, row, strict=True)
                        if of == table and connection.column_metadata(base, table, name)[3]
                    )
                    # a statement that does not read the key asks by it
                    key = key or tuple(parameters)
                    of = f"the row {', '.join(map(repr, key))}" if key else "a row"
                    return UnreadableRow(
                        f"{table}: {column} of {of} is {reprlib.repr(value)}, which is not UTF-8: correct it in SQL",
                        table=table,
                        key=key[0] if len(key) == 1 else key or None,
                        column=column,
                        value=value,
                    )
    message = "a row holds a text that is not UTF-8: CAST(… AS BLOB) shows its bytes"
    return UnreadableRow(message, table=None, key=None, column=None, value=None)


def _as_text(value: bytes) -> str:
    return value.decode(errors="replace")
