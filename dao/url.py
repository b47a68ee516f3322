"""DATABASE_URL -> what to open. Text in, text out: nothing here touches a file.

The messages name the part that is wrong, never the whole URL, so that a password cannot leak into a log.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import attrs

from dao.errors import InvalidURL, UnsupportedEngine

__all__ = [
    "MEMORY",
    "AnyURL",
    "DatabaseURL",
    "ServerURL",
    "cleaned",
    "control_character",
    "is_for_server",
    "name_of_server",
    "parse",
    "parse_file",
    "parse_server",
]

#: The path of a database that lives in memory and ends with its connection.
MEMORY = ":memory:"

_FORMS = (
    "sqlite:///relative.db, sqlite:////absolute.db, sqlite:///:memory:, file:path or "
    "postgresql://user:password@host/database"
)
# what surrounds a value that was pasted, or read from a file of Windows or by `docker --env-file`
_AROUND = " \t\r\n\v\f\x85\xa0\ufeff"
_QUOTES = ("'", '"')
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_NAMES = {"\0": "a NUL", "\t": "a tab", "\n": "a line feed", "\r": "a carriage return", "\ufeff": "a byte order mark"}


@attrs.frozen(kw_only=True)
class DatabaseURL:
    """The meaning of the URL of a SQLite database. `str()` of it is a URL with the same meaning.

    `path` is a file's path, or `MEMORY`. A setting that the URL does not mention is None: the default applies.
    `busy_timeout` counts milliseconds; `cache_size` counts pages, or KiB when negative, as the pragma does;
    `wal_autocheckpoint` counts pages.
    """

    path: str = attrs.field()
    mode: str | None = None
    busy_timeout: int | None = None
    synchronous: str | None = None
    cache_size: int | None = None
    foreign_keys: bool | None = None
    journal_mode: str | None = None
    immutable: bool | None = None
    wal_autocheckpoint: int | None = None

    @path.validator
    def _check_path(self, _attribute: object, path: str) -> None:
        if what := control_character(path):
            raise InvalidURL(f"a file name cannot hold {what}: remove it from the database URL")

    def __attrs_post_init__(self) -> None:
        if self.immutable and self.mode != "ro":
            raise InvalidURL("immutable in the database URL goes with mode=ro, for nobody can write then: add mode=ro")

    @property
    def name(self) -> str:
        """The path, for messages."""
        return self.path

    @property
    def is_memory(self) -> bool:
        """Whether the database is in memory, private to one connection."""
        return self.path == MEMORY

    def creating_nothing(self) -> DatabaseURL:
        """Return the URL by which no database is created."""
        return attrs.evolve(self, mode="rw") if self.mode in {None, "rwc"} else self

    def switching_nothing(self) -> DatabaseURL:
        """Return the URL by which the database keeps its journal mode."""
        return attrs.evolve(self, journal_mode="keep")

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in _PARAMETERS if getattr(self, name) is not None}
        written = {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in given.items()}
        query = "&".join(f"{name}={value}" for name, value in written.items())
        path = MEMORY if self.is_memory else quote(self.path, safe="/:@!$&()*+,;=~-._")
        return f"sqlite:///{path}" + (f"?{query}" if query else "")


@attrs.frozen(kw_only=True)
class ServerURL:
    """The meaning of the URL of a database on a PostgreSQL server. `str()` of it is a URL without its secrets.

    `parameters` are libpq's, by their names; those that are not there have libpq's defaults, from the environment, too.
    `busy_timeout` is for how many milliseconds a statement waits for a lock; None: the server's own `lock_timeout`.
    """

    parameters: Mapping[str, str] = attrs.field(repr=False, hash=False)
    busy_timeout: int | None = None

    @property
    def is_memory(self) -> bool:
        """Whether the database is in memory: none on a server is."""
        return False

    @property
    def name(self) -> str:
        """The user, the hosts and the database, for messages."""
        given = self.parameters
        user = f"{quote(given['user'], safe='')}@" if "user" in given else ""
        hosts = given.get("host") or given.get("hostaddr", "")
        pairs = itertools.zip_longest(hosts.split(","), given.get("port", "").split(","), fillvalue="")
        # a folder is that of a socket
        named = ",".join(_bracketed(quote(host, safe=":")) + f":{port}" * bool(port) for host, port in pairs)
        return f"postgresql://{user}{named}/{quote(given.get('dbname', ''), safe='')}"

    def creating_nothing(self) -> ServerURL:
        """Return the URL: nobody creates a database by connecting to it."""
        return self

    def switching_nothing(self) -> ServerURL:
        """Return the URL: to connect switches nothing."""
        return self

    def __str__(self) -> str:
        return self.name


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host  # an address of IPv6


#: The meaning of a URL, whichever engine it is for.
AnyURL = DatabaseURL | ServerURL


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


def parse(url: str | AnyURL) -> AnyURL:
    """Return the meaning of a URL. A URL that was parsed already is returned as it is.

    PostgreSQL: `postgresql://user:password@host:port/database?parameter=value`, `postgres://` for short, with several
    hosts (`host1,host2`) and every parameter that libpq knows (postgresql.org/docs/current/libpq-connect.html), which
    is asked. In names and passwords `@ : / ? # %` and blanks are written as `%40 %3A %2F %3F %23 %25 %20`.

    SQLite: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:relative.db`, `sqlite:/absolute.db`,
    `file:relative.db`, `file:///absolute.db`, and for a database in memory `sqlite://` or `sqlite:///:memory:`.
    In names `?`, `#` and `%` are written `%3F`, `%23` and `%25`; blanks and other characters may stand as they are, but
    no control character. Blanks, line ends, a byte order mark and quotes around the whole URL are no part of it.

    Parameters: `mode=ro|rw|rwc`, `busy_timeout=` milliseconds, `synchronous=off|normal|full|extra`, `cache_size=` pages
    (KiB if negative), `foreign_keys=on|off`, `journal_mode=wal|keep`: whether a database is switched to WAL when it is
    opened for writing, which stays so in the file, or keeps the mode that it has. With `mode=ro`, `immutable=on|off`:
    nobody can write to the database, as on read-only media, where SQLite cannot make the files without which it does
    not read one in WAL mode. It takes no locks then and notices no change: if somebody does write, what is read is
    wrong, or taken for damage (sqlite.org/uri.html#uriimmutable). One with a WAL or a journal beside it is refused.
    `wal_autocheckpoint=` pages: how long the WAL gets before a commit brings it into the file, 1,000 by default. With 0
    no commit does, so that another process has to, as one that replicates the database.

    Raises:
        InvalidURL: It means nothing; the message says what is allowed.
        TypeError: It is no text.
        UnsupportedEngine: It is for PostgreSQL, and psycopg is not installed.
    """
    if isinstance(url, DatabaseURL | ServerURL):
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
        is_file = url and not re.search("[@=]|sqlite:", url) and url.isprintable()
        meant = f"; for the file {url} write sqlite:///{url}" if is_file else ""
        raise InvalidURL(f"a database URL begins with its scheme: {_FORMS}{meant}")
    scheme = match[1].lower()
    if scheme in {"postgresql", "postgres"}:
        return _server(url)
    if scheme not in {"sqlite", "sqlite+apsw", "file"}:
        raise InvalidURL(f"unknown database scheme {scheme!r}: use {_FORMS}")
    rest, _, query = url[match.end() :].partition("?")
    if "#" in rest or "#" in query:
        raise InvalidURL("a database URL has no fragment: write %23 for a # in a name")
    return DatabaseURL(path=_path(scheme, rest), **_parameters(query))


def is_for_server(url: str) -> bool:
    """Return whether a text is a URL of a PostgreSQL server, by its scheme."""
    return cleaned(url).partition(":")[0].lower() in {"postgresql", "postgres"}


def name_of_server(url: str) -> str:
    """Return what messages call the database of a server's URL; where psycopg is not installed, nothing reads that.

    Raises:
        InvalidURL: As `parse`.
    """
    try:
        return parse(url).name
    except UnsupportedEngine:
        return "the database"


def parse_file(url: str | AnyURL) -> DatabaseURL:
    """Return the meaning of a URL for what there is for a database in a file only.

    Raises:
        InvalidURL, TypeError: As `parse`.
        UnsupportedEngine: It is for PostgreSQL.
    """
    parsed = parse(url)
    if isinstance(parsed, ServerURL):
        raise UnsupportedEngine(
            f"{parsed.name} is on a server, and this is for SQLite's files only: use what the server has for it"
        )
    return parsed


def parse_server(url: str | AnyURL) -> ServerURL:
    """Return the meaning of a URL for what there is for a database on a server only.

    Raises:
        InvalidURL: It is for a file; and as `parse`.
    """
    parsed = parse(url)
    if not isinstance(parsed, ServerURL):
        raise InvalidURL(
            f"{parsed.name} is a file, and this needs a PostgreSQL server: give a URL such as {_SERVER_FORM}"
        )
    return parsed


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
        raise InvalidURL("a name in the database URL is not UTF-8 once its %xx are decoded") from error
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
    "wal_autocheckpoint": ("[0-9]{1,9}", int, "a whole number of pages"),
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


# ---------------------------------------------------------------- PostgreSQL

_SERVER_FORM = "postgresql://user:password@host:5432/database?parameter=value"


def _server(url: str) -> ServerURL:
    try:
        from psycopg import ProgrammingError, conninfo  # noqa: PLC0415 - takes 100 ms, and SQLite needs none of it
    except ImportError as error:
        raise UnsupportedEngine(
            "PostgreSQL needs psycopg, which is not installed here: install it with `make setup` in a checkout, or "
            "pip install 'orchestrator-dao[postgresql]'"
        ) from error
    rest = url.partition(":")[2]
    # where libpq would go on, and take the rest of a password for a host, a port or a database
    before, at, after = rest.partition("@")
    in_doubt = "@" in after or (at and re.search("[/?#]", before[2:])) or re.search(r"[#\s]", url)
    if not rest.startswith("//") or in_doubt or control_character(url):
        raise InvalidURL(
            f"the database URL is not of the form {_SERVER_FORM}. Write in names and passwords @ : / ? # % and blanks "
            "as %40 %3A %2F %3F %23 %25 %20"
        )
    _unquoted(rest)
    try:
        parameters = conninfo.conninfo_to_dict(f"postgresql:{rest}")
    except ProgrammingError as error:
        # libpq repeats what it does not understand, which may be a password
        found = re.fullmatch(r'invalid URI query parameter: "(\w+)"\s*', str(error))
        if found and found[1].isidentifier():
            raise InvalidURL(
                f"unknown parameter {found[1]!r} in the database URL: use those of libpq, which are listed at "
                "postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"
            ) from None
        raise InvalidURL(f"libpq finds no meaning in the database URL: write it as {_SERVER_FORM}") from None
    given = {name: str(value) for name, value in parameters.items()}
    if not re.fullmatch(r"(\d{1,5})?(,(\d{1,5})?)*", given.get("port", "")):
        raise InvalidURL(f"a port in the database URL is no number: write it as in {_SERVER_FORM}")
    if not re.fullmatch(r"-?\d+", given.get("connect_timeout", "0")):
        raise InvalidURL("connect_timeout in the database URL is no whole number: write it in seconds")
    return ServerURL(parameters=given)
