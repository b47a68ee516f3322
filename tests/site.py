"""The built site, looked at as a browser would: `python -m tests.site FOLDER` says what is wrong, and fails.

Nothing may be fetched from elsewhere when a page is opened, every link within leads somewhere, down to its anchor, and
every public name of `dao` has its place in the reference.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import dao

__all__ = ["faults"]

#: What a browser fetches by itself, as attributes of elements; of a link, if it is one of these.
_FETCHED = {"src", "srcset", "poster", "data"}
_LINKED = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}
_IN_CSS = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")
#: The modules whose names are public, beside `dao` itself. The models of `dao.pydantic` are made of the records, and
#: its page says how.
PUBLIC = (
    *("tasks", "task_dependencies", "task_events", "workflows", "workflow_tasks", "tool_executions"),
    *("sessions", "configurations", "aio", "migrate", "errors", "settings", "testing", "postgresql"),
    "otel",
)


class _Page(HTMLParser):
    """What a page fetches, where its links lead, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        self.fetched += [value for name, value in given.items() if name in _FETCHED]
        if tag == "link" and _LINKED & {*given.get("rel", "").split()}:
            self.fetched.append(given.get("href", ""))
        if tag in {"a", "area"} and "href" in given:
            self.links.append(given["href"])

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.fetched += _IN_CSS.findall(data)


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong with the pages in a folder: what they fetch from elsewhere, and links that lead nowhere."""
    pages = {path: _Page(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site}: no page"
    for path, page in pages.items():
        name = path.relative_to(site)
        for url in page.fetched:
            if urlsplit(url).netloc:
                yield f"{name} fetches {url}"
            elif not url.startswith("data:") and not (path.parent / unquote(urlsplit(url).path)).exists():
                yield f"{name} fetches {url}, which is not there"
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{name} leads to {link}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} leads to {link}: that page has no such place"
    for path in sorted(site.rglob("*.css")):
        for url in _IN_CSS.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} fetches {url}"


def missing(site: Path) -> Iterator[str]:
    """Yield the public names of `dao` that have no place in the reference."""
    anchors = set().union(*(_Page(path).anchors for path in (site / "reference").rglob("*.html")))
    for module in (dao, *(importlib.import_module(f"dao.{name}") for name in PUBLIC)):
        for name in module.__all__:
            found = getattr(module, name)
            homes = {f"{module.__name__}.{name}", f"{getattr(found, '__module__', '')}.{name}", f"dao.{name}"}
            if not isinstance(found, ModuleType) and not homes & anchors:
                yield f"{module.__name__}.{name} is not in the reference"


if __name__ == "__main__":
    wrong = [line for look in (faults, missing) for line in look(Path(sys.argv[1]).resolve())]
    sys.exit("\n".join(wrong) or None)
