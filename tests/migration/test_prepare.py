"""Schemas that need what a program registers with its connection: functions, collations, modules, tokenizers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import re

import apsw
import apsw.ext
import pytest

import dao
from dao import aio, migrate, tasks
from dao.errors import CheckFailed, Error, MigrationError, MigrationFailed, OperationalError, PrepareFailed
from dao.migrate.schema.registration import preparing, register
from tests.folders import query, schema, tables, write

#: Schemas that need something registered, each with a row; `n` is the table that has it, or leads to it.
NEEDS = {
    "check": "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT CHECK (slug(a) = a)); INSERT INTO n VALUES (1, 'x');",
    "generated column": (
        "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b AS (slug(a))); INSERT INTO n (a) VALUES ('x');"
    ),
    "stored column": (
        "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT, b AS (slug(a)) STORED); INSERT INTO n (a) VALUES ('x');"
    ),
    "index": (
        "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX n_a ON n (slug(a)); "
        "INSERT INTO n (a) VALUES ('x');"
    ),
    "default": "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT DEFAULT (slug('x'))); INSERT INTO n (id) VALUES (1);",
    "trigger": "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO n (a) VALUES ('x');"
    "CREATE TRIGGER n_slug AFTER INSERT ON n BEGIN UPDATE n SET a = slug(a) WHERE id = new.id; END;"
    "INSERT INTO n (a) VALUES ('x');",
    "collation": "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT COLLATE ours UNIQUE); INSERT INTO n (a) VALUES ('x');",
    "key": "CREATE TABLE n (a TEXT COLLATE ours PRIMARY KEY) WITHOUT ROWID; INSERT INTO n (a) VALUES ('x');",
    "tokenizer": "CREATE VIRTUAL TABLE n USING fts5(a, tokenize = 'ours'); INSERT INTO n (a) VALUES ('x');",
    "module": "CREATE VIRTUAL TABLE n USING ours;",
}
#: SQLite's words without it.
MISSING = re.compile("(no such|unknown) (function|collation sequence|module|tokenizer): |no query solution")
#: What a view needs goes with it, not with a table.
_VIEW = (
    "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO n (a) VALUES ('x'); "
    "CREATE VIEW v AS SELECT slug(a) AS b FROM n;"
)
every_need = pytest.mark.parametrize("need", [*NEEDS, "view"])


def ours(connection):
    """Register what the schemas need."""

    def tokenizer(_connection, _arguments):
        def words(text, _reason, _locale=None):
            yield 0, len(text), text.decode()

        return words

    def rows():
        return iter([(1,)])

    rows.columns, rows.column_access = ("a",), apsw.ext.VTColumnAccess.By_Index
    connection.create_scalar_function("slug", str.lower, 1, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)
    connection.create_collation("ours", lambda one, other: (one > other) - (one < other))
    connection.register_fts5_tokenizer("ours", tokenizer)
    apsw.ext.make_virtual_module(connection, "ours", rows)


@pytest.fixture
def folder(tmp_path, need):
    """A pair that needs something, and one that does not."""
    undo = "DROP VIEW v; DROP TABLE n;" if need == "view" else "DROP TABLE n;"
    return write(
        tmp_path / "migrations",
        {
            "0001_n.sql": _VIEW if need == "view" else NEEDS[need],
            "0001_n.rollback.sql": undo,
            "0002_x.sql": "CREATE TABLE x (id INTEGER PRIMARY KEY);",
            "0002_x.rollback.sql": "DROP TABLE x;",
        },
    )


def refusal(call, *arguments, **options):
    """Return the error of ours with which a call fails, or None if it does what it should."""
    try:
        call(*arguments, **options)
    except Error as error:
        return error
    return None


# ---------------------------------------------------------------- with it, and without


@pytest.mark.sample(2)
@every_need
def test_every_verb_with_prepare_works_on_a_schema_that_needs_it(folder, path, url):
    """With `prepare`, a program's registrations are there for runs, replays, copies and snapshots.

    There was no way at all.
    """
    assert len(migrate.apply(url, folder, to="0001", prepare=ours)) == 1
    rehearsal = migrate.rehearse(url, folder, round_trip=True, prepare=ours)
    assert rehearsal.ok, rehearsal
    assert [one.problems for one in migrate.verify(folder, database=url, prepare=ours) if not one.ok] == []
    assert [one for one in migrate.lint(folder, prepare=ours).findings if one.severity == "error"] == []
    events: list[object] = []
    (applied,) = migrate.apply(url, folder, prepare=ours, report=events.append)
    assert applied.notices == ()
    assert migrate.status(url, folder, prepare=ours).is_current
    migrate.assert_current(url, folder, prepare=ours)
    assert migrate.diff(url, folder, prepare=ours) == []
    assert migrate.check(url, folder, prepare=ours).ok
    assert "CREATE TABLE x" in migrate.dump(folder, prepare=ours)
    before = schema(path)
    taken = migrate.take_snapshot(url, prepare=ours)
    assert migrate.redo(url, folder, prepare=ours)
    assert migrate.rollback(url, folder, steps=2, allow_data_loss=True, prepare=ours)
    assert tables(path) == []
    migrate.restore(url, taken.path, prepare=ours)
    assert migrate.reset(url, folder, prepare=ours)
    assert schema(path) == before
    migrate.unmark(url, ["0002_x"], folder, prepare=ours)
    migrate.mark(url, ["0002_x"], folder, prepare=ours)
    assert migrate.accept(url, ["0002_x"], folder, prepare=ours)
    assert migrate.status(url, folder, prepare=ours).drift == ()


@pytest.mark.sample(2)
@every_need
def test_every_verb_without_prepare_fails_with_an_error_that_names_it_or_succeeds(folder, url, need):
    """A missing registration is an error of ours that names the option that helps.

    `dao rehearse` and others showed 52 lines of traceback.
    """
    if need != "view":  # SQLite looks for what it uses when it is used
        with pytest.raises(MigrationFailed, match="--prepare MODULE:FUNCTION") as failed:
            migrate.apply(url, folder)
        assert MISSING.match(failed.value.reason or "")
        for call in (migrate.dump, migrate.lint, migrate.verify):
            assert "--prepare MODULE:FUNCTION" in str(refusal(call, folder) or call(folder))
    migrate.apply(url, folder, to="0001", prepare=ours)
    errors = [
        refusal(migrate.diff, url, folder),
        refusal(migrate.rehearse, url, folder, round_trip=True),
        refusal(migrate.verify, folder, database=url),
        refusal(migrate.take_snapshot, url),
        refusal(migrate.check, url, folder),
        refusal(migrate.status, url, folder),
        refusal(migrate.redo, url, folder, allow_data_loss=True),
        refusal(migrate.apply, url, folder),
    ]
    assert (errors[0] is None) == (need == "view")
    assert [
        error for error in errors if error and not (MISSING.search(str(error)) and "--prepare MODULE:F" in str(error))
    ] == []


def test_apply_a_change_whose_table_cannot_be_judged_says_how_it_could(path, url, tmp_path):
    """The notice that something cannot be judged is followed by the option, once."""
    folder = write(tmp_path / "two", {"0001_n.sql": NEEDS["check"] + NEEDS["trigger"].replace("n ", "o ")})
    migrate.apply(url, folder, prepare=ours)
    write(folder, {"0002_n.sql": "ALTER TABLE n ADD COLUMN c TEXT; ALTER TABLE o ADD COLUMN c TEXT;"})
    (result,) = migrate.apply(url, folder)
    assert [text.partition(": ")[0] for text in result.notices[:-1]] == [
        "cannot tell whether the table n works",
        "cannot tell whether the trigger n_slug works",
    ]
    assert result.notices[-1].startswith("--prepare MODULE:FUNCTION")


@pytest.mark.parametrize(
    ("need", "what"),
    [
        ("check", "rows of n break CHECK (slug(a) = a): no such function: slug"),
        ("index", "the table n is intact: unknown function: slug()"),
        ("collation", "the table n is intact: no such collation sequence: ours"),
        ("key", "the table n is intact: no such collation sequence: ours"),
    ],
)
def test_check_tells_into_which_tables_it_cannot_look(folder, url, what):
    """A check names the tables that it cannot look into without the program's functions.

    `PRAGMA integrity_check` cannot either, and the table was called sound in silence.
    """
    migrate.apply(url, folder, prepare=ours)
    found = migrate.check(url, folder)
    assert found.ok
    (unknown,) = found.unknown
    assert unknown.startswith(f"cannot tell whether {what}; --prepare MODULE:FUNCTION")
    assert migrate.check(url, folder, prepare=ours).unknown == ()


def test_check_of_a_foreign_key_by_a_collation_of_the_program_is_not_known(url, tmp_path):
    """That its parent cannot be compared here was held against the foreign key."""
    table = "CREATE TABLE n (a TEXT COLLATE ours PRIMARY KEY); CREATE TABLE m (a TEXT REFERENCES n);"
    folder = write(tmp_path / "one", {"0001_n.sql": table})
    migrate.apply(url, folder, prepare=ours)
    found = migrate.check(url, folder)
    assert found.faults == ()
    assert any(text.startswith("cannot tell whether the foreign key of m holds: ") for text in found.unknown)
    assert migrate.check(url, folder, prepare=ours).unknown == ()


# ---------------------------------------------------------------- which connections


def test_every_function_that_opens_a_database_or_replays_takes_prepare():
    """A new verb that does not pass it on would fail on a schema that needs it."""
    without = {"load", "new", "default_folder", "snapshots"}  # they read files and their names alone
    found = {
        name: inspect.signature(getattr(migrate, name)).parameters
        for name in dir(migrate)
        if inspect.isfunction(getattr(migrate, name))
    }
    assert {name for name, parameters in found.items() if "prepare" not in parameters} == without
    assert all(found[name]["prepare"].kind is inspect.Parameter.KEYWORD_ONLY for name in found.keys() - without)


def test_prepare_is_called_once_with_every_connection_that_a_verb_opens(url, tmp_path, monkeypatch):
    """A connection that is opened somewhere below without it would fail on a schema that needs it."""
    opened: list[apsw.Connection] = []
    called: list[apsw.Connection] = []

    def counted(connection):
        called.append(connection)
        ours(connection)

    monkeypatch.setattr(apsw, "connection_hooks", [opened.append])
    rebuild = (
        "CREATE TABLE m (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO m SELECT * FROM n; DROP TABLE n; "
        "ALTER TABLE m RENAME TO n;"
    )
    folder = write(
        tmp_path / "two",
        {
            "0001_n.sql": NEEDS["index"],
            "0001_n.rollback.sql": "DROP TABLE n;",
            "0002_n.sql": rebuild,
            "0002_n.rollback.sql": rebuild,
        },
    )
    for call in (
        functools.partial(migrate.apply, url, folder, to="0001"),
        functools.partial(migrate.rehearse, url, folder, round_trip=True),
        functools.partial(migrate.lint, folder),
        functools.partial(migrate.verify, folder, database=url),
        functools.partial(migrate.dump, folder),
        functools.partial(migrate.apply, url, folder),
        functools.partial(migrate.status, url, folder),
        functools.partial(migrate.diff, url, folder),
        functools.partial(migrate.check, url, folder),
        functools.partial(migrate.take_snapshot, url),
        functools.partial(migrate.rollback, url, folder),
        functools.partial(migrate.restore, url),
        functools.partial(migrate.unmark, url, ["0001"], folder),
        functools.partial(migrate.mark, url, ["0001"], folder),
        functools.partial(migrate.reset, url, folder),
    ):
        opened.clear()
        called.clear()
        call(prepare=counted)
        assert opened
        assert sorted(map(id, opened)) == sorted(map(id, called)), call


def test_prepare_of_one_thread_is_not_there_in_another(url, path, tmp_path):
    """Runs at the same time, in threads of one program, have each its own."""
    from concurrent.futures import ThreadPoolExecutor

    folder = write(tmp_path / "one", {"0001_n.sql": NEEDS["check"]})
    migrate.apply(url, folder, prepare=ours)
    with ThreadPoolExecutor(1) as other, preparing(ours):
        assert migrate.diff(url, folder) == []
        with pytest.raises(MigrationError, match="no such function"):
            other.submit(migrate.diff, url, folder).result()


def test_prepare_is_called_with_ours_and_not_with_the_callers_connection(theirs, tmp_path):
    """A caller's connection has what its owner registered; the replay in memory beside it had nothing of that."""
    folder = write(tmp_path / "one", {"0001_n.sql": NEEDS["check"]})
    called: list[apsw.Connection] = []

    def counted(connection):
        called.append(connection)
        ours(connection)

    ours(theirs)
    migrate.apply(theirs, folder)
    with pytest.raises(MigrationError, match="no such function: slug; --prepare"):
        migrate.diff(theirs, folder)
    assert migrate.diff(theirs, folder, prepare=counted) == []
    assert called
    assert theirs not in called


def test_apply_on_the_callers_connection_with_prepare_knows_whether_the_schema_drifted(theirs, tmp_path):
    """A rollback on a connection of the caller's own could not tell whether it ends where it should."""
    folder = write(
        tmp_path / "one",
        {"0001_n.sql": NEEDS["check"], "0002_x.sql": "CREATE TABLE x (a);", "0002_x.rollback.sql": "DROP TABLE x;"},
    )
    ours(theirs)
    migrate.apply(theirs, folder)
    for options, unknown in (({}, True), ({"prepare": ours}, False)):
        events: list[object] = []
        migrate.rollback(theirs, folder, report=events.append, **options)
        assert any(isinstance(event, migrate.Drifted) and event.unknown for event in events) is unknown
        migrate.apply(theirs, folder)


def test_prepare_ends_with_its_call(url, tmp_path):
    """What one call was given is not there for the next; a call without it, inside of one with it, has it."""
    folder = write(tmp_path / "one", {"0001_n.sql": NEEDS["check"]})
    migrate.apply(url, folder, prepare=ours)
    with pytest.raises(MigrationError):
        migrate.diff(url, folder)
    with preparing(ours):
        assert migrate.diff(url, folder) == []
        with contextlib.suppress(PrepareFailed):
            migrate.diff(url, folder, prepare=lambda _: 1 / 0)
        assert migrate.diff(url, folder) == []
    with pytest.raises(MigrationError):
        migrate.diff(url, folder)


def test_prepare_may_load_an_extension_and_be_called_often(path, url, tmp_path):
    """Extensions are loaded in it: the runner refuses load_extension() in a script, and names the way."""
    folder = write(
        tmp_path / "one",
        {"0001_n.sql": "CREATE TABLE n (a TEXT COLLATE uint PRIMARY KEY); INSERT INTO n VALUES ('a10'), ('a9');"},
    )
    load = functools.partial(apsw.sqlite_extra.load, extension="uint")
    migrate.apply(url, folder, prepare=load)
    assert migrate.check(url, folder, prepare=load).ok
    write(folder, {"0002_x.sql": "SELECT load_extension('uint');"})
    with pytest.raises(MigrationFailed, match=r"load_extension.*--prepare"):
        migrate.apply(url, folder, prepare=load)


# ---------------------------------------------------------------- what it may not do


def raises(_connection):
    raise ValueError("no such luck")


def ends(_connection):
    raise SystemExit(3)


def closes(connection):
    connection.close()


async def waits(_connection):
    pass


def takes_nothing():
    pass


def writes(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS cache (a)")


def writes_in_secret(connection):
    with contextlib.suppress(apsw.Error):
        connection.execute("CREATE TEMP TABLE cache (a)")


def begins(connection):
    connection.execute("BEGIN")


def attaches(connection):
    connection.execute("ATTACH ':memory:' AS other")


def forbids_itself(connection):
    # instead of what forbids it: it made the table in the file, and the run went on
    connection.authorizer = lambda *_action: apsw.SQLITE_OK
    connection.execute("CREATE TABLE mine (a)")


def stays_in_the_middle(connection, kept=[]):  # noqa: B006 - so that nothing ends the statement
    # a copy of the database could not be filled then: 25 lines of traceback
    kept.append(connection.execute("SELECT name FROM sqlite_schema UNION ALL SELECT 1 UNION ALL SELECT 2"))
    next(kept[-1])


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (raises, r"test_prepare:raises raised ValueError: no such luck \(.*test_prepare.py:\d+\); mend it$"),
        (ends, r"test_prepare:ends raised SystemExit: 3"),
        (closes, r"test_prepare:closes closed the connection"),
        (waits, r"test_prepare:waits raised TypeError: .*async def"),
        (takes_nothing, r"test_prepare:takes_nothing raised TypeError: .*takes 0 positional arguments[^(]*; mend it$"),
        (functools.partial(raises), r"partial.* raised ValueError"),
        (writes, r"test_prepare:writes .* may not INSERT sqlite_master"),
        (writes_in_secret, r"test_prepare:writes_in_secret .* may not INSERT sqlite_temp_master"),
        (begins, r"test_prepare:begins .* may not TRANSACTION BEGIN"),
        (attaches, r"test_prepare:attaches .* may not ATTACH"),
        (forbids_itself, r"test_prepare:forbids_itself raised ReadOnlyError"),
        (stays_in_the_middle, r"test_prepare:stays_in_the_middle leaves a statement"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_prepare_that_fails_or_changes_more_is_refused_and_nothing_is_done(path, url, three, theirs, prepare, message):
    """Each mistake has its message, which names the function; nothing runs, and no connection is left behind."""
    for call in (migrate.apply, migrate.status, migrate.rehearse, migrate.diff):
        with pytest.raises(PrepareFailed, match=message):
            call(url, three, prepare=prepare)
    for call in (migrate.lint, migrate.verify, migrate.dump):
        with pytest.raises(PrepareFailed, match=message):
            call(three, prepare=prepare)
    with pytest.raises(PrepareFailed, match=message):
        migrate.take_snapshot(url, prepare=prepare)
    assert tables(path) == []
    migrate.apply(theirs, three)
    with pytest.raises(PrepareFailed, match=message):  # beside the caller's connection
        migrate.diff(theirs, three, prepare=prepare)


def sets_everything(connection):
    """Set what a program sets for itself, in each way that there is."""
    for pragma in ("foreign_keys = on", "recursive_triggers = on", "journal_mode = delete", "legacy_alter_table = on"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.pragma("query_only", True)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 1)
    connection.config(apsw.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, 1)
    connection.row_trace = lambda _cursor, row: [row]
    connection.authorizer = lambda *_: apsw.SQLITE_DENY
    connection.set_busy_timeout(1)


def test_prepare_that_sets_what_a_program_sets_changes_nothing_for_the_scripts(path, url, tmp_path):
    """A function that a program shares with its own connections does no harm.

    A rebuild keeps the children, and triggers fire.
    """
    folder = write(
        tmp_path / "two",
        {
            "0001_t.sql": "CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p ON DELETE CASCADE);"
            "CREATE TABLE log (a); CREATE TRIGGER t AFTER INSERT ON c BEGIN INSERT INTO log VALUES (1); END;"
            "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);",
            "0002_t.sql": "CREATE TABLE q (id INTEGER PRIMARY KEY, a); INSERT INTO q (id) SELECT id FROM p; "
            "DROP TABLE p;ALTER TABLE q RENAME TO p;",
        },
    )
    migrate.apply(url, folder, to="0001", prepare=sets_everything)
    assert migrate.rehearse(url, folder, prepare=sets_everything).ok
    migrate.apply(url, folder, prepare=sets_everything)
    assert query(path, "SELECT (SELECT count(*) FROM c), (SELECT count(*) FROM log)") == [(1, 1)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert migrate.diff(url, folder, prepare=sets_everything) == []


def test_register_leaves_the_settings_but_for_what_a_schema_may_use(connection):
    """Of what it sets, `trusted_schema` and what LIKE means stay: they are what the schema needs."""
    connection.execute("CREATE TABLE asked (a)")

    def sets(given):
        assert given.execute("PRAGMA table_info(asked)").fetchall()
        assert given.execute("SELECT name FROM pragma_table_info('asked')").fetchall() == [("a",)]
        given.pragma("trusted_schema", True)
        given.pragma("case_sensitive_like", True)
        sets_everything(given)

    names = ("foreign_keys", "recursive_triggers", "journal_mode", "legacy_alter_table", "query_only")
    before = [connection.pragma(name) for name in names]
    with preparing(sets):
        register(connection)
    assert [connection.pragma(name) for name in names] == before
    assert connection.execute("SELECT 1, 'a' LIKE 'A'").fetchall() == [(1, 0)]
    assert connection.pragma("trusted_schema") == 1
    connection.execute("CREATE TABLE written (a)")


# ---------------------------------------------------------------- registered otherwise than the schema needs it


def trusting(connection):
    connection.create_scalar_function("slug", str.lower, 1, deterministic=True)
    connection.pragma("trusted_schema", True)


def test_a_function_that_is_not_innocuous_is_no_damage(path, url, tmp_path):
    """A function that the schema may not use is no damage to the file.

    It was reported as such, with the advice to restore a snapshot.
    """
    folder = write(tmp_path / "one", {"0001_n.sql": NEEDS["check"]})
    migrate.apply(url, folder, prepare=trusting)
    assert migrate.check(url, folder, prepare=trusting).ok
    write(folder, {"0002_n.sql": "ALTER TABLE n ADD COLUMN c TEXT;"})
    with pytest.raises(PrepareFailed, match=r"may not use: unsafe use of slug\(\); .*SQLITE_INNOCUOUS.*trusted_schema"):
        migrate.apply(
            url, folder, prepare=lambda given: given.create_scalar_function("slug", str.lower, 1, deterministic=True)
        )
    connection = dao.connect(url)
    connection.create_scalar_function("slug", str.lower, 1, deterministic=True)
    query(path, "CREATE TABLE other (a)")
    with pytest.raises(OperationalError, match=r"unsafe use of slug\(\); .*SQLITE_INNOCUOUS") as failed:
        migrate.status(connection, folder)
    assert "damaged" not in str(failed.value)
    connection.close()


def test_a_function_that_is_not_deterministic_is_no_damage(url, tmp_path):
    """So was one that an index may not use."""
    folder = write(tmp_path / "one", {"0001_n.sql": NEEDS["index"]})
    migrate.apply(url, folder, prepare=ours)
    with pytest.raises(PrepareFailed, match=r"non-deterministic functions prohibited.*deterministic=True"):
        migrate.apply(
            url,
            write(folder, {"0002_x.sql": "CREATE TABLE x (a);"}),
            prepare=lambda given: given.create_scalar_function("slug", str.lower, 1, flags=apsw.SQLITE_INNOCUOUS),
        )


def test_lint_knows_a_default_that_a_function_of_the_program_makes(tmp_path):
    """Whether a default is constant was asked of a connection without the function, and answered with yes."""
    folder = write(
        tmp_path / "one", {"0001_n.sql": "CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT DEFAULT (any_id()));"}
    )
    codes = {}
    for deterministic in (True, False):

        def makes(connection, constant=deterministic):
            connection.create_scalar_function(
                "any_id", lambda: "1", 0, deterministic=constant, flags=apsw.SQLITE_INNOCUOUS
            )

        codes[deterministic] = {finding.code for finding in migrate.lint(folder, prepare=makes).findings}
    assert codes[False] - codes[True] == {"M015"}


def test_apply_what_a_function_breaks_is_refused(url, tmp_path):
    """With `prepare`, uses of the program's functions are judged.

    A view that passes one too many arguments is broken.
    """
    folder = write(tmp_path / "one", {"0001_n.sql": _VIEW})
    migrate.apply(url, folder, prepare=ours)
    write(folder, {"0002_v.sql": "DROP VIEW v; CREATE VIEW v AS SELECT slug(a, a) AS b FROM n;"})
    with pytest.raises(CheckFailed, match="the view v: wrong number of arguments"):
        migrate.apply(url, folder, prepare=ours)


# ---------------------------------------------------------------- pools


def test_a_hook_of_apsw_reaches_the_connections_of_pools(url, monkeypatch):
    """The documented hook reaches connections that pools lend.

    Pools have no parameter for it, and nobody has seen the connections before.
    """
    monkeypatch.setattr(apsw, "connection_hooks", [ours])

    def slug(connection):
        return connection.execute("SELECT slug('A')").get

    async def slugs():
        async with aio.Pool(url) as pool:
            return await pool.run(slug), await pool.write(slug)

    with contextlib.closing(dao.connect(url)) as connection:
        assert slug(connection) == "a"
    with dao.Pool(url) as pool:
        with pool.acquire() as connection:
            assert slug(connection) == "a"
        assert pool.write(slug) == "a"
    assert asyncio.run(slugs()) == ("a", "a")


# ---------------------------------------------------------------- functions that raise


def picky(connection):
    """Register what takes texts alone, and says so in the way of Python."""

    def compare(one, other):
        return ord(one) - ord(other)

    connection.create_scalar_function("slug", str.lower, 1, deterministic=True, flags=apsw.SQLITE_INNOCUOUS)
    connection.create_collation("letter", compare)


@pytest.mark.parametrize("script", ["INSERT INTO n (b) VALUES (slug(1));", "INSERT INTO n (b) VALUES ('ab'), ('c');"])
def test_apply_what_makes_a_registered_function_raise_fails_like_any_script(path, url, tmp_path, script):
    """What a function of the program raised in a script came as a traceback; nothing of the run stays."""
    folder = write(tmp_path / "one", {"0001_n.sql": f"CREATE TABLE n (b COLLATE letter UNIQUE);\n{script}"})
    with pytest.raises(
        MigrationFailed,
        match=r"0001_n.sql:2: a function of the program raised TypeError: .* \((user-defined-scalar-slug|.*\.py:\d+)\)",
    ) as failed:
        migrate.apply(url, folder, prepare=picky)
    assert failed.value.committed == ()
    assert isinstance(failed.value.__cause__, TypeError)
    assert tables(path) == []


def test_what_a_registered_function_raises_in_a_check_is_an_error_of_ours(path, url, tmp_path):
    """A row that a function of the program does not take any more ended commands that only read with a traceback."""
    folder = write(
        tmp_path / "one", {"0001_n.sql": "CREATE TABLE n (a, b AS (slug(a)));", "0002_x.sql": "CREATE TABLE x (a);"}
    )
    migrate.apply(url, folder, to="0001", prepare=picky)
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("slug", str, 1, deterministic=True)
    connection.execute("INSERT INTO n VALUES (1)")
    connection.close()
    for call in (migrate.take_snapshot, functools.partial(migrate.rehearse, migrations=folder, round_trip=True)):
        with pytest.raises(OperationalError, match=r"a function of the program raised TypeError.*; mend it"):
            call(url, prepare=picky)


def test_lint_and_verify_try_values_that_a_registered_function_does_not_take(tmp_path):
    """Their made-up rows are no fault of the migrations: they ended with a traceback."""
    folder = write(
        tmp_path / "two",
        {
            "0001_n.sql": "CREATE TABLE n (id INTEGER PRIMARY KEY, a INTEGER, CHECK (slug(a) <> 'x'));",
            "0001_n.rollback.sql": "DROP TABLE n;",
            "0002_n.sql": "ALTER TABLE n ADD COLUMN b; UPDATE n SET b = slug(a); CREATE INDEX n_b ON n (slug(b));"
            "CREATE TABLE m (id INTEGER PRIMARY KEY, a, b, c TEXT DEFAULT (slug('X'))); "
            "INSERT INTO m (id, a, b) SELECT * FROM n;",
            "0002_n.rollback.sql": "DROP TABLE m; DROP INDEX n_b; ALTER TABLE n DROP COLUMN b;",
        },
    )
    assert [one.message for one in migrate.lint(folder, prepare=picky).findings if one.severity == "error"] == []
    found = migrate.verify(folder, prepare=picky)
    assert all(one.ok for one in found), found


# ---------------------------------------------------------------- the functions of tables


def test_create_in_a_table_whose_trigger_needs_a_function_says_what_to_do(url):
    """An insert whose trigger needs an unregistered function says what to do.

    The table's function raised the driver's error.
    """
    migrate.apply(url)
    connection, other = dao.connect(url), dao.connect(url)
    ours(connection)
    connection.execute("CREATE TRIGGER own AFTER INSERT ON tasks BEGIN SELECT slug(new.title); END")
    tasks.create(connection, dao.Task(title="t", task_type="agent"))
    with pytest.raises(OperationalError, match="no such function: slug; its schema uses that: register it"):
        tasks.create(other, dao.Task(title="u", task_type="agent"))
    connection.close()
    other.close()
