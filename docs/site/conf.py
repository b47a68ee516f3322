"""How the site is made of this folder: `make docs`. The pages are Markdown, and read well as files, too."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import apsw  # noqa: E402

from dao._version import __version__ as release  # noqa: E402

# in annotations of asynchronous code, and only for type checkers there
apsw.AsyncConnection = type("AsyncConnection", (), {"__module__": "apsw"})

project = "orchestrator-dao"
author = "the authors of orchestrator-dao"
version = release.rpartition(".")[0]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
root_doc = "index"
exclude_patterns = ["site"]

myst_heading_anchors = 4  # links to headings are checked, by the anchors that GitHub gives them
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["ref.python"]  # two pools are called Pool, which each of them calls itself

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "imported-members": True}
default_role = "code"  # a docstring writes `name` for code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
add_module_names = False
maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"orchestrator-dao {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
smartquotes = False  # an option is --json, and no dash
html_static_path = ["static"]
pygments_dark_style = "github-dark"  # the one by default underlines modules, as if they were links
html_css_files = ["site.css"]
man_pages = [("reference/commands", "dao", "migrate and look after the database of a task orchestrator", "", 1)]

#: Pages whose text has its home beside what it explains. In their places here are links, which are right in a checkout.
ELSEWHERE = {
    "how-to/write-a-migration": "sql/README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}
#: Files that have no page of their own, and the page where their readers find the same.
STANDS_FOR = {"README.md": "index.md"} | {home: f"{page}.md" for page, home in ELSEWHERE.items()}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def put_in_place(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give a page the text that stands elsewhere, and have the links of all pages lead to pages."""
    home = ROOT / ELSEWHERE.get(page, f"docs/{page}.md")
    source[0] = home.read_text(encoding="utf-8")

    def led(link: re.Match[str]) -> str:
        target = os.path.relpath(home.parent / link[1], ROOT)
        found = "docs/" + STANDS_FOR.get(target, "") if target in STANDS_FOR else target
        return os.path.relpath(ROOT / found, (ROOT / "docs" / page).parent) + (link[2] or "")

    source[0] = LINK.sub(led, source[0])


def set_examples_as_code(_app: Sphinx, _context: object, lines: list[str]) -> None:
    """Show the examples of a command as what one types, not as prose."""
    if "| Examples:" in lines:
        at = lines.index("| Examples:")
        calls = [line.removeprefix("|   ") for line in lines[at + 1 :] if line]
        lines[at:] = ["Examples", "", ".. code-block:: shell", "", *(f"    {call}" for call in calls), ""]


def keep_brackets(_app: Sphinx, _context: object, lines: list[str]) -> None:
    """Give `[NAME=]DIR` back the bracket with which it begins, which sphinx-click takes for its own."""
    lines[:] = [line.replace("<NAME=]DIR>", "<[NAME=]DIR>") for line in lines]


def unlink_pages(app: Sphinx, tree: nodes.document, _page: str) -> None:
    """Leave no link between pages in the man page, where it is an empty <>."""
    if app.builder.name == "man":
        for link in [one for one in tree.findall(nodes.reference) if ":" not in one.get("refuri", "")]:
            link.replace_self(link.children)


def set_dashes(_app: Sphinx, tree: nodes.document, _page: str) -> None:
    """Have a dash between an error and what it means, where Sphinx writes two hyphens."""
    for text in [one for one in tree.findall(nodes.Text) if one == " -- "]:
        text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> None:
    """Be called by Sphinx."""
    app.connect("doctree-resolved", set_dashes)
    app.connect("doctree-resolved", unlink_pages)
    app.connect("sphinx-click-process-description", set_examples_as_code)
    app.connect("sphinx-click-process-options", keep_brackets)
    app.connect("source-read", put_in_place)
