"""Values that no engine takes: looked for among the parameters of a statement that has failed, never before."""

from __future__ import annotations

from collections.abc import Sequence

from dao.errors import InvalidValue

__all__ = ["check_types", "not_taken"]


def not_taken(parameters: Sequence[object]) -> InvalidValue | None:
    """Return the error for a text that no row can have, or a number of more than 64 bits; None if all are taken."""
    from dao.codec import check_text  # noqa: PLC0415 - loads msgspec, which opening a database does not need
    from dao.fields import MAX_INTEGER  # noqa: PLC0415 - as above

    for value in parameters:
        if isinstance(value, int) and not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            return InvalidValue(
                f"a number must be from {-MAX_INTEGER - 1} to {MAX_INTEGER}, got one of {value.bit_length()} bits"
            )
        if isinstance(value, str):
            try:
                check_text(value, "a text")
            except InvalidValue as error:
                return error.with_traceback(None)
    return None


def check_types(parameters: Sequence[object]) -> None:
    """Refuse what is neither a text nor a number, nor None.

    Raises:
        TypeError: There is something else.
    """
    for value in parameters:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise TypeError(f"expected a text or a number, got {value!r}")
