"""The site of `docs/`: `make docs` builds it, and `tests.site` looks at what was built."""

from __future__ import annotations

import re

import pytest

from tests.packaging.checkout import ROOT
from tests.site import faults, missing


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ('<script src="https://cdn.example/a.js"></script>', "fetches https://cdn.example/a.js"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "fetches //fonts.example/a.css"),
        ("<style>@import 'https://fonts.example/a.css';</style>", "fetches https://fonts.example/a.css"),
        ('<img src="missing.png">', "fetches missing.png, which is not there"),
        ('<a href="other.html">', "leads to other.html, which is not there"),
        ('<a href="page.html#nowhere">', "leads to page.html#nowhere: that page has no such place"),
    ],
)
def test_page_that_fetches_from_elsewhere_or_leads_nowhere_is_told(html, said, tmp_path):
    """Fonts of a CDN, an image or an anchor that has gone: a reader without a network would have seen it first."""
    (tmp_path / "page.html").write_text(html)
    assert list(faults(tmp_path)) == [f"page.html {said}"]


def test_page_that_is_whole_has_no_fault(tmp_path):
    """Links to other sites are no assets, and a place is found by its id, escaped or not."""
    (tmp_path / "a.css").write_text("body { background: url(data:image/png;base64,AA) }")
    (tmp_path / "page.html").write_text(
        '<link rel="stylesheet" href="a.css"><a href="https://www.sqlite.org/#x">x</a>'
        '<p id="größe"><a href="#gr%C3%B6%C3%9Fe">'
    )
    assert list(faults(tmp_path)) == []


def test_style_sheet_that_fetches_is_told_and_so_is_an_empty_folder(tmp_path):
    """A check that finds no pages has checked nothing."""
    assert list(faults(tmp_path)) == [f"{tmp_path}: no page"]
    (tmp_path / "page.html").write_text("<p>")
    (tmp_path / "a.css").write_text("@font-face { src: url(https://fonts.example/a.woff2) }")
    assert list(faults(tmp_path)) == ["a.css fetches https://fonts.example/a.woff2"]


def test_public_name_without_a_place_is_told(tmp_path):
    """The reference is written by module: a new function would have been in none."""
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "page.html").write_text('<dt id="dao.tasks.create"><dt id="dao.connect">')
    told = [*missing(tmp_path)]
    assert "dao.tasks.claim is not in the reference" in told
    assert not {"dao.tasks.create is not in the reference", "dao.connect is not in the reference"} & {*told}


def test_make_and_ci_build_the_site():
    """A warning of the build is an error wherever a change lands."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^docs: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe
    assert "$(SPHINX) --fresh-env" in recipe[1]
    assert re.search(r"^SPHINX := .* --fail-on-warning ", makefile, re.MULTILINE)
    assert "tests.site" in recipe[1]
    assert re.search(r"^check:.* docs ", makefile, re.MULTILINE)
    assert "make docs" in (ROOT / ".ci" / "run").read_text()
