"""The reference in `docs/reference` is what the code says."""

from __future__ import annotations

import re

from tests.cli.calls import COMMANDS
from tests.reference import documents, refusals


def test_every_refusal_has_a_cure_and_stands_in_the_reference():
    """A message that says what is wrong and not what to do leaves its reader alone; the page listed none at all."""
    found = refusals.refusals()
    assert len(found) > 150
    assert [one.message for one in found if not one.cure] == []
    assert [message for message in refusals.CURES if message not in {one.message for one in found}] == []
    assert refusals.PAGE.read_text(encoding="utf-8") == refusals.page(), "run `make reference`"


def test_names_in_code_are_in_capitals():
    """Markdown shows an asterisk in code as such: the page said "write it after `*command*`"."""
    page = refusals.page()
    codes = [code for line in page.splitlines() for code in re.findall(r"`([^`]*)`", line)]
    assert [code for code in codes if re.search(r"\*[a-z ]+\*", code)] == []
    assert "| write it after `COMMAND` |" in page


def test_every_command_has_a_schema_of_its_document():
    """The tests of the commands hold each document to its schema.

    Only readers of the code knew the shapes of `--json`.
    """
    below = {name: getattr(command, "commands", None) or {} for name, command in COMMANDS.items()}
    groups = {name for name, commands in below.items() if commands}
    names = {f"{name} {one}" for name in groups for one in below[name]} | (set(COMMANDS) - groups) | {"migrate"}
    assert set(documents.COMMANDS) == names | {"lint --rules", "lint --write-baseline"}
    written = {path: path.read_text(encoding="utf-8") for path in [documents.PAGE, *documents.FOLDER.iterdir()]}
    assert written == documents.pages(), "run `make reference`"
