"""What datasette's process loads: who may ask, JSON and ids as people read them, and the end with its parent.

This runs in datasette's process alone, which has another SQLite: nothing of `dao` may be imported here.
"""

from __future__ import annotations

import hmac
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from datasette import hookimpl
from markupsafe import Markup

_TOKEN = os.environ.get("DAO_BROWSE_TOKEN", "")
_SHORT = 60
# seconds that requests under way have, once the parent has gone
_GRACE = 2
_TASKS = {"task", "task_id", "depends_on"}

Scope = dict[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]


# ---------------------------------------------------------------- who may ask


@hookimpl
def asgi_wrapper() -> Callable[[Application], Application]:
    """Let in those only who bring the token of the address that was printed, or the cookie that it left.

    Any user of this machine reaches its loopback, and so does any page in a browser of it.
    """

    def wrap(application: Application) -> Application:
        async def guarded(scope: Scope, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            cookie = f"dao_browse_{(scope.get('server') or ('', ''))[1]}"
            given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            tokens = [value for name, value in given if name == "token"]
            if any(_is_right(token) for token in tokens):
                rest = urlencode([pair for pair in given if pair[0] != "token"])
                where = quote(scope["path"]) + (f"?{rest}" if rest else "")
                kept = f"{cookie}={_TOKEN}; Path=/; HttpOnly; SameSite=Strict"
                # two slashes at the beginning would lead to another host
                await _answer(send, 303, "", [("location", "/" + where.lstrip("/")), ("set-cookie", kept)])
            elif any(_is_right(value) for value in _cookies(scope, cookie)):
                # datasette needs none, and fails at a cookie of others that is not well-formed
                headers = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
                await application({**scope, "headers": headers}, receive, send)
            else:
                await _answer(send, 403, "Open the address that `dao browse` has printed: it has a token.\n", [])

        return guarded

    return wrap


def _is_right(token: str) -> bool:
    return bool(_TOKEN) and hmac.compare_digest(token.encode(), _TOKEN.encode())


def _cookies(scope: Scope, wanted: str) -> Iterator[str]:
    """Yield the values of a cookie. Those of others on this machine come along, and need not be well-formed."""
    for header, value in scope["headers"]:
        if header == b"cookie":
            for pair in value.decode("latin-1").split(";"):
                name, _, text = pair.strip().partition("=")
                if name == wanted:
                    yield text


async def _answer(send: Any, status: int, text: str, headers: list[tuple[str, str]]) -> None:
    told = [("content-type", "text/plain; charset=utf-8"), *headers]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in told]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})


# ---------------------------------------------------------------- cells


@hookimpl
def render_cell(value: Any, column: str, table: str | None, database: str) -> Markup | None:
    """Show JSON indented, and lead from the id of a task to its story."""
    if not isinstance(value, str) or not value:
        return None
    # where a foreign key is, datasette shows the title
    if column in _TASKS and table in {None, "task_events"}:
        where = f"/{quote(database)}/story?{urlencode({'task': value})}"
        return Markup('<a href="{}" title="{}">{}</a>').format(where, value, _cut(value, 13))
    if value[0] in "{[":
        try:
            text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)
        except ValueError:
            return None
        if len(text) <= _SHORT:
            return Markup("<code>{}</code>").format(value)
        whole = Markup("<details><summary><code>{}</code></summary><pre>{}</pre></details>")
        return whole.format(_cut(value, _SHORT), text)
    return None


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "…"


# ---------------------------------------------------------------- the end


@hookimpl
def startup() -> None:
    """End with the process that began this one, however that ends: its end of the pipe is closed then."""
    if _TOKEN:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)  # it would wait for queries that are under way
    os._exit(1)
