"""The reference in `docs/reference` is what the code says."""

from __future__ import annotations

from tests.reference import refusals


def test_every_refusal_has_a_cure_and_stands_in_the_reference():
    """A message that says what is wrong and not what to do leaves its reader alone; the page listed none at all."""
    found = refusals.refusals()
    assert len(found) > 150
    assert [one.message for one in found if not one.cure] == []
    assert [message for message in refusals.CURES if message not in {one.message for one in found}] == []
    assert refusals.PAGE.read_text(encoding="utf-8") == refusals.page(), "run `make reference`"
