"""What holds for every listing: its pages, its iteration and its count agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def assert_lists(
    module: Any, connection: Any, filters: Mapping[str, Any], attribute: str, newest_first: str, *, oldest_first: bool
) -> None:
    """Assert that pages of two, `iter_all` and `count` of a table's module find the records with these values.

    `newest_first` has the values of the attribute of all that match, one letter each.
    """
    expected = newest_first[::-1] if oldest_first else newest_first

    def text(found: Iterable[Any]) -> str:
        return "".join(getattr(record, attribute) for record in found)

    found, after = "", None
    while True:
        page = module.find(connection, **filters, oldest_first=oldest_first, limit=2, after=after)
        found, after = found + text(page.items), page.next
        if not page.has_more:
            break
    assert found == expected, filters
    assert text(module.iter_all(connection, **filters, oldest_first=oldest_first)) == expected, filters
    assert module.count(connection, **filters) == len(expected), filters
