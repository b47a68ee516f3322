"""Database URLs: every form that is accepted, what is refused and how, and that no message holds a password."""

from __future__ import annotations

import os
import tempfile
import traceback

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao.url import MEMORY, DatabaseURL, ServerURL, parse
from tests import strategies

# ---------------------------------------------------------------- round trip


@given(url=strategies.database_urls())
def test_parse_text_of_any_url_returns_it(url):
    """`str` of a URL means the same, whatever is in the path and the settings."""
    assert parse(str(url)) == url
    assert str(parse(str(url))) == str(url)
    assert str(url).isascii()
    assert str(url).isprintable()


@pytest.mark.parametrize("path", strategies.PATHS)
def test_parse_text_of_an_awkward_path_returns_it(path):
    """A name that looks like another part of a URL, or like another URL, stays a name."""
    url = DatabaseURL(path=path, busy_timeout=1)
    assert parse(str(url)) == url


@given(
    text=st.text()
    | st.text("sqlitefile:/?#%&=.@mode0 \n").map("sqlite:".__add__)
    | strategies.paths().map("file:".__add__)
)
def test_parse_any_text_returns_a_url_or_raises_invalid_url(text):
    """There is no text that breaks the parser, and what it accepts it can write."""
    try:
        url = parse(text)
    except (dao.InvalidURL, dao.UnsupportedEngine):
        return
    assert parse(str(url)) == url


@given(
    name=st.text(
        strategies.characters_of_names().filter("/".__ne__) | st.sampled_from("?#%&=:; '\"\\"),
        min_size=1,
        max_size=40,
    ).filter(lambda name: name not in {".", ".."})
)
def test_connect_file_of_any_name_opens_that_file(name):
    """The database lies under the name that the URL was made for: nothing in it reads as a parameter or an escape."""
    with tempfile.TemporaryDirectory() as folder:
        connection = dao.connect(str(DatabaseURL(path=f"{folder}/{name}")))
        connection.close()
        assert os.listdir(folder) == [name]


# ---------------------------------------------------------------- what is accepted

ACCEPTED = {
    "sqlite:///orchestrator.db": DatabaseURL(path="orchestrator.db"),
    "sqlite:///data/orchestrator.db": DatabaseURL(path="data/orchestrator.db"),
    "sqlite:///./orchestrator.db": DatabaseURL(path="./orchestrator.db"),
    "sqlite:////var/lib/orchestrator.db": DatabaseURL(path="/var/lib/orchestrator.db"),
    "sqlite:orchestrator.db": DatabaseURL(path="orchestrator.db"),
    "sqlite:/var/lib/orchestrator.db": DatabaseURL(path="/var/lib/orchestrator.db"),
    "sqlite+apsw:///orchestrator.db": DatabaseURL(path="orchestrator.db"),
    "SQLite:///Orchestrator.db": DatabaseURL(path="Orchestrator.db"),
    "file:orchestrator.db": DatabaseURL(path="orchestrator.db"),
    "file:/var/lib/orchestrator.db": DatabaseURL(path="/var/lib/orchestrator.db"),
    "file:///var/lib/orchestrator.db": DatabaseURL(path="/var/lib/orchestrator.db"),
    "file://localhost/var/lib/orchestrator.db": DatabaseURL(path="/var/lib/orchestrator.db"),
    "sqlite://": DatabaseURL(path=MEMORY),
    "sqlite:///": DatabaseURL(path=MEMORY),
    "sqlite:///:memory:": DatabaseURL(path=MEMORY),
    "sqlite::memory:": DatabaseURL(path=MEMORY),
    "file::memory:": DatabaseURL(path=MEMORY),
    "sqlite:///./:memory:": DatabaseURL(path="./:memory:"),
    "sqlite:///a%3Fb%23c%25d.db": DatabaseURL(path="a?b#c%d.db"),
    "sqlite:///a b+c é.db": DatabaseURL(path="a b+c é.db"),
    "sqlite:///%C3%A9.db": DatabaseURL(path="é.db"),
    "sqlite:///x.db?": DatabaseURL(path="x.db"),
    "sqlite:///x.db?mode=ro": DatabaseURL(path="x.db", mode="ro"),
    "sqlite:///x.db?mode=RWC": DatabaseURL(path="x.db", mode="rwc"),
    "sqlite:///x.db?busy_timeout=0": DatabaseURL(path="x.db", busy_timeout=0),
    "sqlite:///x.db?synchronous=Full&mode=rw": DatabaseURL(path="x.db", mode="rw", synchronous="full"),
    "sqlite:///x.db?cache_size=-65536": DatabaseURL(path="x.db", cache_size=-65536),
    "sqlite:///x.db?cache_size=+100": DatabaseURL(path="x.db", cache_size=100),
    "sqlite:///x.db?wal_autocheckpoint=0": DatabaseURL(path="x.db", wal_autocheckpoint=0),
    **dict.fromkeys(
        (
            "sqlite:///x.db\r\n",
            "\ufeffsqlite:///x.db",
            " sqlite:///x.db\t ",
            "'sqlite:///x.db'\r",
            '"sqlite:///x.db "',
            '\ufeff"sqlite:///x.db"\n',
            "sqlite:///x.db\xa0",
        ),
        DatabaseURL(path="x.db"),
    ),
    "sqlite:///x.db?mode=ro\r": DatabaseURL(path="x.db", mode="ro"),
    "sqlite:///x.db%20": DatabaseURL(path="x.db "),
    "sqlite:///%22x'y%22": DatabaseURL(path='"x\'y"'),
    "sqlite:///x.db?journal_mode=keep": DatabaseURL(path="x.db", journal_mode="keep"),
    "sqlite:///x.db?mode=ro&immutable=1": DatabaseURL(path="x.db", mode="ro", immutable=True),
    "sqlite:///x.db?immutable=off": DatabaseURL(path="x.db", immutable=False),
    "sqlite:///x.db?foreign_keys=off": DatabaseURL(path="x.db", foreign_keys=False),
    "sqlite:///x.db?foreign_keys=1": DatabaseURL(path="x.db", foreign_keys=True),
    "sqlite://?busy_timeout=10&&foreign_keys=no&": DatabaseURL(path=MEMORY, busy_timeout=10, foreign_keys=False),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_parse_accepted_form_returns_what_it_means(text):
    """Each documented form names the file, or memory, and the settings that it says."""
    assert parse(text) == ACCEPTED[text]


@pytest.mark.parametrize(
    ("path", "is_memory"), [(MEMORY, True), ("./:memory:", False), (":memory", False), ("x", False)]
)
def test_is_memory_is_true_of_the_one_name(path, is_memory):
    """Only `:memory:` itself is no file."""
    assert DatabaseURL(path=path).is_memory is is_memory


# ---------------------------------------------------------------- what is refused

_FORMS = r".*sqlite:///relative\.db, sqlite:////absolute\.db"
REFUSED = {
    "": "begins with its scheme:" + _FORMS,
    "orchestrator.db": "begins with its scheme:" + _FORMS,
    "/var/lib/orchestrator.db": "begins with its scheme:" + _FORMS,
    "://x": "begins with its scheme:" + _FORMS,
    "mysql://localhost/x": "unknown database scheme 'mysql': use" + _FORMS,
    "sqlite3:///x.db": "unknown database scheme 'sqlite3': use" + _FORMS,
    r"C:\data\x.db": "unknown database scheme 'c': use" + _FORMS,
    "sqlite://x.db": (
        "names a file, not a host: write three slashes before a relative path, four before an absolute one"
    ),
    "sqlite://localhost/x.db": "names a file, not a host",
    "file://server/x.db": "names a file, not a host",
    "sqlite:": "names no file: use" + _FORMS,
    "file:": "names no file",
    "file://": "names no file",
    "file://localhost": "names no file",
    "sqlite:///x.db#part": "no fragment: write %23 for a # in a name",
    "sqlite:///x.db?mode=ro#part": "no fragment",
    "sqlite:///100%.db": "followed by two hexadecimal digits: write %25",
    "sqlite:///%zz.db": "followed by two hexadecimal digits",
    "sqlite:///%ff.db": "not UTF-8",
    "sqlite:///\udcff.db": "not UTF-8",
    "sqlite:///x.db%0D": r"cannot hold a carriage return \(%0D\): remove it from the database URL",
    "sqlite:///x\r\n.db": r"cannot hold a carriage return \(%0D\)",
    "sqlite:///x.db\n/y": r"cannot hold a line feed \(%0A\)",
    "sqlite:///\ufeffx.db": r"cannot hold a byte order mark \(%EF%BB%BF\)",
    "sqlite:///x\x1b[2J.db": r"cannot hold U\+001B \(%1B\)",
    "sqlite:///x\u200b.db": r"cannot hold U\+200B \(%E2%80%8B\)",
    "sqlite:///x.db'": "ends with ': remove it, or write %27 for one in a name",
    'sqlite:///x.db"\r': 'ends with ": remove it, or write %22',
    "'sqlite:///x.db": "begins with its scheme",
    "sqlite:///a%00b.db": r"cannot hold a NUL \(%00\)",
    "sqlite:///x.db?timeout=5": (
        "unknown parameter 'timeout'.*: use mode, busy_timeout, synchronous, cache_size, foreign_keys"
    ),
    "sqlite:///x.db?Mode=ro": "unknown parameter 'Mode'",
    "sqlite:///x.db?=ro": "unknown parameter in the database URL",
    "sqlite:///x.db?mode=ro&mode=rw": "parameter 'mode' twice",
    "sqlite:///x.db?mode": "mode .*expected ro or rw or rwc",
    "sqlite:///x.db?mode=memory": "mode .*expected ro or rw or rwc",
    "sqlite:///x.db?busy_timeout=5s": "busy_timeout .*expected a whole number of milliseconds",
    "sqlite:///x.db?busy_timeout=-1": "busy_timeout .*expected a whole number of milliseconds",
    "sqlite:///x.db?busy_timeout=٣": "busy_timeout .*expected a whole number of milliseconds",
    "sqlite:///x.db?busy_timeout=1000000000": "busy_timeout .*expected a whole number of milliseconds",
    "sqlite:///x.db?synchronous=2": "synchronous .*expected off or normal or full or extra",
    "sqlite:///x.db?cache_size=1.5": "cache_size .*expected a whole number",
    "sqlite:///x.db?foreign_keys=": "foreign_keys .*expected on or off",
    "sqlite:///x.db?wal_autocheckpoint=off": "wal_autocheckpoint .*expected a whole number of pages",
    "sqlite:///x.db?mode=ro&immutable=2": "immutable .*expected on or off",
    "sqlite:///x.db?immutable=1": "immutable .*goes with mode=ro.*: add mode=ro",
    "sqlite:///x.db?immutable=1&mode=rw": "immutable .*goes with mode=ro",
}


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_parse_refused_form_says_what_is_allowed(text):
    """The message names the part that is wrong and what to write instead."""
    with pytest.raises(dao.InvalidURL, match=REFUSED[text]) as caught:
        parse(text)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["DATABASE_URL=sqlite:///x.db", "\u201csqlite:///x.db\u201d", "`sqlite:///x.db`"])
def test_parse_what_is_around_a_url_is_no_file(text):
    """The message of a URL in typographer's quotes gives no URL for the file of that name.

    It did, and that made another database.
    """
    with pytest.raises(
        dao.InvalidURL, match=r"begins with its scheme: .* or postgresql://user:password@host/database$"
    ):
        parse(text)


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\x7f", "\x85", "\u202e", "\ufeff"])
def test_database_url_with_a_control_character_is_refused(character):
    """No URL means a file whose name nobody sees: one with a carriage return was made beside the real one."""
    with pytest.raises(dao.InvalidURL, match="a file name cannot hold"):
        DatabaseURL(path=f"app.db{character}")


@pytest.mark.parametrize(
    ("text", "parameters", "name"),
    [
        ("postgresql://localhost/x", {"host": "localhost", "dbname": "x"}, "postgresql://localhost/x"),
        ("postgres:///x", {"dbname": "x"}, "postgresql:///x"),
        ("PostgreSQL://me@a:1,b/x", {"user": "me", "host": "a,b", "port": "1,", "dbname": "x"}, None),
        (
            "postgresql://me:p%40w@[::1]:5,b/x",
            {"user": "me", "password": "p@w", "host": "::1,b", "port": "5,"},
            "postgresql://me@[::1]:5,b/x",
        ),
        ("postgresql:///x?host=/run&application_name=a%20b", {"host": "/run", "application_name": "a b"}, None),
        ("postgres://", {}, "postgresql:///"),
    ],
)
def test_parse_postgresql_has_the_parameters_of_libpq(text, parameters, name):
    """Every parameter that libpq knows is taken as libpq takes it; the name for messages has the main ones."""
    meant = parse(text)
    assert isinstance(meant, ServerURL)
    assert parameters.items() <= dict(meant.parameters).items()
    assert name in {None, meant.name}
    assert parse(meant) is meant
    assert {meant, parse(text)} == {meant}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("postgresql:x", "is not of the form"),
        ("postgresql://h/x?nix=1", "unknown parameter 'nix'"),
        ("postgresql://h/x?sslmode", "no meaning"),
        ("postgresql://u@[::1/x", "no meaning"),
        ("postgresql://h:1x/x", "a port .* is no number"),
        ("postgresql://h%ff/x", "a name in the database URL is not UTF-8"),
        ("postgresql://h/x?connect_timeout=nan", "connect_timeout .* no whole number"),
        ("postgresql://h/x?connect_timeout=2.5", "connect_timeout .* no whole number"),
        ("postgresql://h/x?connect_timeout=", "connect_timeout .* no whole number"),
        ("postgresql://u:%zz@h/x", "two hexadecimal digits"),
        ("postgresql://u:a@b@h/x", "%40"),
        ("postgresql://u:a/b@h/x", "%2F"),
        ("postgresql://u:a?b@h/x", "%3F"),
        ("postgresql://h/x#b", "%23"),
        ("postgresql://h/x y", "%20"),
    ],
)
def test_parse_postgresql_in_doubt_is_refused(text, words):
    """Libpq would take a part of a password for a host, a port or a database; here the URL is refused."""
    with pytest.raises(dao.InvalidURL, match=words):
        parse(text)


# ---------------------------------------------------------------- passwords

# not spelled out below: tracebacks quote the lines of this file
HIDDEN = "hunter2"

# every place in which somebody may write one
_WITH_PASSWORD = [
    "postgresql://user:{}@host:5432/db",
    "postgres://user:{}@/db?sslmode=require",
    "mysql+driver://user:{}@host/db",
    "user:{}@host/db",
    "//user:{}@host/db",
    "host=localhost password={} dbname=db",  # as libpq has it: it was taken for the name of a file, and repeated
    "password = '{}'",
    "sqlite://user:{}@host/x.db",
    "sqlite://:{}@/x.db",
    "sqlite+apsw://user:{}@host",
    "file://user:{}@host/x.db?mode=ro",
    "file://user:{}@localhost/x.db",
    "sqlite://x.db?password={}",
    "sqlite:///x.db?password={}",
    "sqlite:///x.db?mode=ro&user=me&password={}",
    "sqlite:///x.db?mode=ro;password={}",
    "sqlite:///x.db?mode=ro password={}",
    "sqlite:///x.db?busy_timeout={}",
    "sqlite:///x.db?synchronous=user:{}@host",
    "sqlite:///x.db#password={}",
]
_awkward = st.text("?#%&=:/@ +;%\0é\udcffx", max_size=4)


@given(shape=st.sampled_from(_WITH_PASSWORD), before=_awkward, after=_awkward)
def test_parse_url_with_a_password_never_repeats_it(shape, before, after):
    """No message holds a password, nor does any error that it was raised from, whatever else is in the URL."""
    try:
        meant = parse(shape.format(before + HIDDEN + after))
    except dao.InvalidURL as error:
        chain = "".join(traceback.format_exception(error))
        assert "InvalidURL" in chain
        assert HIDDEN not in chain
    else:
        assert isinstance(meant, ServerURL)
        assert HIDDEN in meant.parameters["password"]
        assert HIDDEN not in f"{meant} {meant!r} {meant.name}"


@pytest.mark.parametrize("shape", _WITH_PASSWORD)
def test_connect_url_with_a_password_never_repeats_it(shape):
    """Nothing that opening adds to the messages holds it either."""
    with pytest.raises(dao.Error) as caught:
        dao.connect(shape.format(HIDDEN))
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))
    assert not os.path.exists("x.db")


def test_str_without_settings_has_no_query():
    """Only what differs from the defaults is written."""
    url = DatabaseURL(path="/x.db")
    assert str(url) == "sqlite:////x.db"
    assert str(attrs.evolve(url, foreign_keys=False, mode="ro")) == "sqlite:////x.db?mode=ro&foreign_keys=off"
