"""Statements that somebody watches: which of them take long, and how many rows they are about.

While nobody does, the functions of `dao.engine` are as they are written (`dao.in_place`). All that is told of a
statement is its text, in which `$1 … $n` stand for values.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dao import engine
from dao.errors import InvalidValue
from dao.in_place import Hook, Hooked, guard, switch
from dao.logs import logger
from dao.text import counted, milliseconds

__all__ = ["Rows", "count_rows", "log_slow_statements", "rows_here"]


class Rows:
    """How many rows statements were about, since somebody set it to nought."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class _Here(threading.local):
    def __init__(self) -> None:
        self.rows = Rows()
        self.at_work = False  # of the statements within one nothing is told


_HERE = _Here()
_GUARD = guard()
_counting = False
_slow: float | None = None  # in seconds


def rows_here() -> Rows:
    """Return the count of this thread, which goes on while `count_rows` is on."""
    return _HERE.rows


def count_rows(*, on: bool) -> None:
    """Count rows from now on, or no more."""
    global _counting  # noqa: PLW0603 - one switch for the process
    with _GUARD:
        _counting = on
        _switch()


def log_slow_statements(threshold: float | None) -> None:
    """Log statements that take so many milliseconds, or longer, as warnings of the logger `dao.engine`; None: none.

    It is for the whole process, and for the statements of this package's functions. BEGIN and COMMIT of their
    transactions are among them, in which they wait for locks and for the disk. What is logged is the text of a
    statement, its time, and how many rows it returned or changed; never a value that was bound to it. Texts of your
    own, as for `dao.fetch`, are logged as they are.

    `DATABASE_SLOW` sets it for the commands, and for programs that take their pool from `dao.settings`.

    Raises:
        TypeError, InvalidValue: The threshold is no number of milliseconds from 0.
    """
    global _slow  # noqa: PLW0603 - as above
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise TypeError(f"a threshold is a number of milliseconds, got {threshold!r}")
        if not threshold >= 0:
            raise InvalidValue(f"a threshold must be a number of milliseconds from 0, got {threshold!r}")
    with _GUARD:
        _slow = None if threshold is None else threshold / 1000
        _switch()


def _switch() -> None:
    switch(_HOOKS, lambda: _counting or _slow is not None)


# ---------------------------------------------------------------- hooks


def _hooked(
    function: Any, text: Callable[[tuple[Any, ...], Mapping[str, Any]], str], number: Callable[[Any], int] | None
) -> tuple[Hooked, Hook]:
    """Return a function and its hook.

    `text` makes the text of the statement of its arguments, and `number` how many rows it is about of its result.
    Without that the third argument are rows to write, which are counted on their way.
    """
    hooked = Hooked(function)
    plain = hooked.plain

    def hook(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        here = _HERE
        if here.at_work:
            return plain(*args, **kwargs)
        rows, given = 0, args
        if number is None:
            through = Rows()
            given = (*args[:2], _through(args[2], through))
        failed = True
        begun = time.perf_counter()
        try:
            here.at_work = True  # in here, or an interruption could leave it so
            result = plain(*given, **kwargs)
            failed = False
            return result
        finally:
            seconds = time.perf_counter() - begun
            try:
                if not failed:
                    rows = through.number if number is None else number(result)
                    here.rows.number += rows
                if (slow := _slow) is not None and seconds >= slow:
                    _log(text(args, kwargs), seconds, None if failed else rows)
            finally:
                here.at_work = False  # only now: a handler of the log may have statements of its own

    return hooked, hook


def _through(rows: Iterable[Any], through: Rows) -> Iterator[Any]:
    for row in rows:
        through.number += 1
        yield row


def _log(sql: str, seconds: float, rows: int | None) -> None:
    statement = " ".join(sql.split())
    try:
        logger("dao.engine").warning(
            "slow statement, %s, %s: %s",
            milliseconds(seconds),
            "failed" if rows is None else counted(rows, "row"),
            statement,
            extra={"statement": statement, "seconds": seconds, "rows": rows},
        )
    except Exception:  # noqa: BLE001 - a commit must not look as if it had failed
        traceback.print_exc()


def _second(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs["sql"]


_HOOKS: list[tuple[Hooked, Hook]] = [
    _hooked(engine.fetch, _second, len),
    _hooked(engine.fetch_changed, _second, len),
    _hooked(engine.execute, _second, int),
    _hooked(engine.execute_many, _second, None),
    _hooked(engine.insert_many, lambda args, _: args[1].insert, None),
    # the record, or an error
    _hooked(engine.change, lambda args, _: args[2].returning_row, lambda _: 1),
    _hooked(engine.transaction.__enter__, lambda *_: "BEGIN", lambda _: 0),
    _hooked(engine.transaction.__exit__, lambda args, _: "COMMIT" if args[1] is None else "ROLLBACK", lambda _: 0),
]
