"""DATABASE_URL -> what to open. Text in, text out: nothing here touches a file.

The messages name the part that is wrong, never the whole URL, so that a password cannot leak into a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import attrs

from dao.errors import InvalidURL, UnsupportedEngine

__all__ = ["MEMORY", "DatabaseURL", "cleaned", "control_character", "parse"]

#: The path of a database that lives in memory and ends with its connection.
MEMORY = ":memory:"

_FORMS = "sqlite:///relative.db, sqlite:////absolute.db, sqlite:///:memory: or file:path"
# what surrounds a value that was pasted, or read from a file of Windows or by `docker --env-file`
_AROUND = " \t\r\n\v\f\x85\xa0\ufeff"
_QUOTES = ("'", '"')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_NAMES = {"\0": "a NUL", "\t": "a tab", "\n": "a line feed", "\r": "a carriage return", "\ufeff": "a byte order mark"}


@attrs.frozen(kw_only=True)
class DatabaseURL:
    """The meaning of a database URL. `str()` of it is a URL with the same meaning.

    `path` is a file's path, or `MEMORY`. A setting that the URL does not mention is None: the default applies.
    `busy_timeout` counts milliseconds; `cache_size` counts pages, or KiB when negative, as the pragma does.
    """

    path: str = attrs.field()
    mode: str | None = None
    busy_timeout: int | None = None
    synchronous: str | None = None
    cache_size: int | None = None
    foreign_keys: bool | None = None
    journal_mode: str | None = None
    immutable: bool | None = None

    @path.validator
    def _check_path(self, _attribute: object, path: str) -> None:
        if what := control_character(path):
            raise InvalidURL(f"a file name cannot hold {what}: remove it from the database URL")

    def __attrs_post_init__(self) -> None:
        if self.immutable and self.mode != "ro":
            raise InvalidURL("immutable in the database URL goes with mode=ro, for nobody can write then: add mode=ro")

    @property
    def is_memory(self) -> bool:
        """Whether the database is in memory, private to one connection."""
        return self.path == MEMORY

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in _PARAMETERS if getattr(self, name) is not None}
        written = {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in given.items()}
        query = "&".join(f"{name}={value}" for name, value in written.items())
        path = MEMORY if self.is_memory else quote(self.path, safe="/:@!$&()*+,;=~-._")
        return f"sqlite:///{path}" + (f"?{query}" if query else "")


def cleaned(text: str) -> str:
    """Return a value without what nobody sees around it, and without quotes that enclose all of it."""
    text = text.strip(_AROUND)
    if text[:1] in _QUOTES and text[-1] == text[0] and len(text) > 1:
        return text[1:-1].strip(_AROUND)
    return text


def control_character(text: str) -> str | None:
    """Return which character that nobody sees a text holds, for a message; None if it holds none."""
    match = _CONTROL.search(text)
    return None if match is None else f"{_NAMES.get(match[0], f'U+{ord(match[0]):04X}')} ({quote(match[0])})"


def parse(url: str | DatabaseURL) -> DatabaseURL:
    """Return the meaning of a URL. A URL that was parsed already is returned as it is.

    Forms: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:relative.db`, `sqlite:/absolute.db`,
    `file:relative.db`, `file:///absolute.db`, and for a database in memory `sqlite://` or `sqlite:///:memory:`.
    In names `?`, `#` and `%` are written `%3F`, `%23` and `%25`; blanks and other characters may stand as they are, but
    no control character. Blanks, line ends, a byte order mark and quotes around the whole URL are no part of it.

    Parameters: `mode=ro|rw|rwc`, `busy_timeout=` milliseconds, `synchronous=off|normal|full|extra`, `cache_size=` pages
    (KiB if negative), `foreign_keys=on|off`, `journal_mode=wal|keep`: whether a database is switched to WAL when it is
    opened for writing, which stays so in the file, or keeps the mode that it has. With `mode=ro`, `immutable=on|off`:
    nobody can write to the database, as on read-only media, where SQLite cannot make the files without which it does
    not read one in WAL mode. It takes no locks then and notices no change: if somebody does write, what is read is
    wrong, or taken for damage (sqlite.org/uri.html#uriimmutable). One with a WAL or a journal beside it is refused.

    Raises:
        InvalidURL: It means nothing; the message says what is allowed.
        TypeError: It is no text.
        UnsupportedEngine: It is for PostgreSQL.
    """
    if isinstance(url, DatabaseURL):
        return url
    if not isinstance(url, str):
        raise TypeError(f"a database URL is text, such as 'sqlite:///orchestrator.db', got {type(url).__name__}")
    url = cleaned(url)
    if url[-1:] in _QUOTES:
        raise InvalidURL(
            f"the database URL ends with {url[-1]}: remove it, or write {quote(url[-1], safe='')} for one in a name"
        )
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    if match is None:
        # what looks as if it held a password is not repeated
        is_file = url and "@" not in url and "sqlite:" not in url and url.isprintable()
        meant = f"; for the file {url} write sqlite:///{url}" if is_file else ""
        raise InvalidURL(f"a database URL begins with its scheme: {_FORMS}{meant}")
    scheme = match[1].lower()
    if scheme in {"postgresql", "postgres"}:
        raise UnsupportedEngine(f"this version opens SQLite only, not {scheme}: use {_FORMS}")
    if scheme not in {"sqlite", "sqlite+apsw", "file"}:
        raise InvalidURL(f"unknown database scheme {scheme!r}: use {_FORMS}")
    rest, _, query = url[match.end() :].partition("?")
    if "#" in rest or "#" in query:
        raise InvalidURL("a database URL has no fragment: write %23 for a # in a name")
    return DatabaseURL(path=_path(scheme, rest), **_parameters(query))


def _path(scheme: str, rest: str) -> str:
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if authority and not (scheme == "file" and authority == "localhost"):
            # the authority may hold a password: do not repeat it
            raise InvalidURL(
                "a SQLite URL names a file, not a host: write three slashes before a relative path, four before an "
                f"absolute one ({_FORMS})"
            )
        # file:///x is absolute by RFC 8089; sqlite:///x is relative by the convention that SQLAlchemy set
        raw = slash + path if scheme == "file" else path
        if scheme != "file" and not path:
            return MEMORY
    else:
        raw = rest
    path = _unquoted(raw)
    if not path:
        raise InvalidURL(f"the database URL names no file: use {_FORMS}")
    return path


def _unquoted(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidURL(
            "a % in a database URL must be followed by two hexadecimal digits: write %25 for a % in a name"
        )
    try:
        path = unquote(text, errors="strict")
        path.encode()
    except UnicodeError as error:
        raise InvalidURL("the file name in the database URL is not UTF-8 once its %xx are decoded") from error
    return path


_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
# For each parameter the values that it may have in lower case, what becomes of one, and what to say of any other.
_PARAMETERS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "mode": ("ro|rw|rwc", str, "ro or rw or rwc"),
    "busy_timeout": ("[0-9]{1,9}", int, "a whole number of milliseconds"),
    "synchronous": ("off|normal|full|extra", str, "off or normal or full or extra"),
    "cache_size": ("[+-]?[0-9]{1,9}", int, "a whole number"),
    "foreign_keys": ("|".join(_ON + _OFF), _ON.__contains__, "on or off"),
    "journal_mode": ("wal|keep", str, "wal or keep"),
    "immutable": ("|".join(_ON + _OFF), _ON.__contains__, "on or off"),
}


def _parameters(query: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name not in _PARAMETERS:
            # what is no name may be the rest of a password with a ? in it
            which = f" {name!r}" if name.isidentifier() else ""
            raise InvalidURL(f"unknown parameter{which} in the database URL: use {', '.join(_PARAMETERS)}")
        if name in settings:
            raise InvalidURL(f"the database URL has the parameter {name!r} twice")
        allowed, convert, expected = _PARAMETERS[name]
        value = _unquoted(value).lower()
        if not re.fullmatch(allowed, value):
            raise InvalidURL(f"{name} in the database URL: expected {expected}")
        settings[name] = convert(value)
    return settings
