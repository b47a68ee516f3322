"""Standard streams that are full, closed, or pipes whose reader has gone; and names that a terminal would obey."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import apsw
import pytest

from dao import migrate
from dao.cli.main import main
from dao.errors import Error, LedgerMismatch
from dao.text import visible
from tests.cli.calls import CALLS
from tests.cli.test_terminal import shell
from tests.folders import dump, query, tables, write

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
#: The calls that change the database, or write files: what they leave is compared.
CHANGES = [
    "migrate",
    "prune",
    "rollback",
    "redo",
    "init",
    "reset",
    "mark",
    "unmark",
    "accept",
    "adopt",
    "baseline",
    "copy",
    "snapshot",
    "restore",
    "replicate",
    "restore-replica",
    "new",
]
#: What they are asked for is their exit code.
PROBES = ["health", "wait"]
# what `shell` prints is its client's
LOOKS = [name for name in CALLS if name not in [*CHANGES, *PROBES, "shell"]]


@contextlib.contextmanager
def broken(kind: str) -> Iterator[IO[str] | None]:
    """Open a stream that takes nothing: a full disk, or a pipe whose reader has gone.

    Python has None for a closed one.
    """
    if kind == "closed":
        yield None
        return
    if kind == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        read, descriptor = os.pipe()
        os.close(read)
    with open(descriptor, "w", encoding="utf-8") as stream:
        yield stream


@pytest.fixture
def call(run, monkeypatch, capsys):
    """Call `dao` in this process with some of its streams broken, and return its exit code and what it could print."""

    def calling(arguments: list[str], **kinds: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with contextlib.ExitStack() as stack, monkeypatch.context() as patch:
            for name, kind in kinds.items():
                patch.setattr(sys, name, stack.enter_context(broken(kind)))
            patch.setattr(sys, "argv", ["dao", *arguments])
            with pytest.raises(SystemExit) as end:
                main()
            for name in (name for name, kind in kinds.items() if kind == "closed"):
                getattr(sys, name).close()  # it was given another
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return calling


@pytest.fixture
def ready(run, partly, existing):
    """A database in which each call of `CALLS` has something to do."""

    def prepare(name: str) -> None:
        if name in {"restore", "snapshots"}:
            assert run("snapshot").code == 0
        if name == "restore-replica":
            assert run(*CALLS["replicate"]).code == 0
        if name in {"health", "wait"}:
            assert run("migrate").code == 0

    return prepare


def applied(database: Path) -> list[str]:
    return [id for (id,) in query(database, "SELECT migration_id FROM _yoyo_migration ORDER BY 1")]


# ---------------------------------------------------------------- nothing can be printed


@pytest.mark.sample(2)
@needs_full
@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "full") for name in [*CHANGES, *PROBES]), *((name, "gone") for name in ["migrate", "new", *PROBES])],
)
def test_command_that_changes_says_on_stderr_what_stdout_does_not_take(run, call, ready, name, kind):
    """What was committed is said, and the exit code is 0: a full disk under the output made `dao migrate` exit with 1.

    A probe called a healthy database unhealthy.
    """
    ready(name)
    code, out, err = call(CALLS[name], stdout=kind)
    assert (code, out) == (0, "")
    why = "No space left on device" if kind == "full" else "Broken pipe"
    warning, _, said = err.partition(f"warning: standard output failed ({why}); it would have said:\n")
    assert said.strip(), err
    assert "Traceback" not in err
    assert "error:" not in warning


@needs_full
@pytest.mark.parametrize(("name", "kind"), [*((name, "full") for name in LOOKS), ("status", "gone"), ("lint", "gone")])
def test_command_that_looks_fails_if_stdout_takes_nothing(call, ready, name, kind):
    """Where the print is all that was wanted, it is an error of one line, or silence if the reader has gone."""
    ready(name)
    code, out, err = call(CALLS[name], stdout=kind)
    assert (code, out) == ((1, "") if kind == "full" else (141, ""))
    assert "Traceback" not in err
    assert ("No space left on device: 'standard output'" in err) == (kind == "full")


@pytest.mark.parametrize("arguments", [["--help"], ["migrate", "--help"], ["--version"]], ids=" ".join)
def test_help_whose_reader_has_gone_ends_as_what_looks(call, arguments):
    """`dao --help | head` exits with 141 like every other command whose reader has gone: it was 1."""
    assert call(arguments, stdout="gone") == (141, "", "")


@needs_full
@pytest.mark.parametrize("kind", ["full", "gone"])
def test_command_that_is_interrupted_exits_with_130_if_nothing_can_be_printed(call, partly, monkeypatch, kind):
    """Ctrl-C is Ctrl-C though stderr takes nothing.

    It was a failure, since the line end after ^C could not be printed.
    """

    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "status", interrupted)
    assert call(["status"], stderr=kind)[0] == 130


@pytest.mark.sample(3)
@needs_full
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "full") for name in CALLS), ("migrate", "gone"), ("status", "gone")]
)
def test_command_whose_stderr_takes_nothing_does_the_same(run, call, ready, name, kind):
    """Notes and warnings that cannot be printed change neither the work nor the exit code.

    One of them undid the whole run.
    """
    ready(name)
    code, out, _err = call(CALLS[name], stderr=kind)
    assert (code, "Traceback" in out) == (0, False)


@needs_full
def test_migrate_whose_notices_cannot_be_printed_commits(call, partly, folder):
    """A notice that stderr does not take, in the middle of the run, undoes nothing, and the results are printed."""
    write(folder, {"0003_c.sql": "BEGIN;\nCREATE TABLE c (id);\nCOMMIT;"})
    code, out, _ = call(["migrate"], stderr="full")
    assert code == 0
    assert out.startswith("applied 0003_c")
    assert tables(partly) == ["a", "b", "c"]


@needs_full
@pytest.mark.parametrize(
    "arguments", [["rollback", "--to", "x"], ["nothing"], ["migrate", "--steps", "x"]], ids=" ".join
)
def test_command_that_fails_keeps_its_code_if_nothing_can_be_printed(call, partly, arguments):
    """With both streams full, the exit code is still that of the failure, and nothing is changed."""
    before = dump(partly)
    code, _, _ = call(arguments, stdout="full", stderr="full")
    assert code == (1 if arguments[0] == "rollback" else 2)
    assert dump(partly) == before


@needs_full
def test_migrate_as_json_goes_to_stderr_if_stdout_takes_nothing(call, partly):
    """The one document of `--json` is not lost either."""
    code, _, err = call(["migrate", "--json"], stdout="full")
    assert code == 0
    document = json.loads(err[err.index("{") :])
    assert [result["id"] for result in document["results"]] == ["0003_c"]


# ---------------------------------------------------------------- closed streams


@needs_full
@pytest.mark.parametrize(
    ("command", "code", "ids"),
    [
        ("migrate <&- >&- 2>&-", 0, 3),
        ("migrate >/dev/full 2>/dev/full", 0, 3),
        ("status >/dev/full 2>/dev/full", 1, 2),
        pytest.param("migrate --json >&- 2>/dev/full", 0, 3, marks=pytest.mark.slow),
        pytest.param("migrate 2>&1 >/dev/full | true", 0, 3, marks=pytest.mark.slow),
        pytest.param("reset --yes <&- >&- 2>&-", 0, 3, marks=pytest.mark.slow),
        pytest.param("status <&- 2>&-", 0, 2, marks=pytest.mark.slow),
        ("--help >/dev/full 2>&-", 1, 2),
    ],
)
def test_command_with_closed_streams_keeps_its_exit_code(workplace, partly, command, code, ids):
    """Closed and full streams cause no traceback, no exit code 120 and no lost work.

    Each run is a process of its own, since 120 is the code of Python's shutdown.
    """
    migrate.take_snapshot(f"sqlite:///{partly}")
    done = shell(f"dao {command}", workplace)
    assert (done.returncode, "Traceback" in done.stderr, "Exception ignored" in done.stderr) == (code, False, False)
    assert len(applied(partly)) == ids


@pytest.mark.parametrize("name", ["reset", "restore"])
def test_command_that_asks_is_refused_if_stdin_is_closed(call, partly, name):
    """A closed standard input is no terminal to ask on: it was an AttributeError."""
    migrate.take_snapshot(f"sqlite:///{partly}")
    code, _, err = call([name], stdin="closed")
    assert (code, "there is no terminal to ask on: add --yes" in err) == (1, True)
    assert len(applied(partly)) == 2


# ---------------------------------------------------------------- names that a terminal would obey

#: Clears the screen, sets the title, rings, turns the line round, and makes a line that passes for one of ours.
EVIL = "t\x1b[2J\x1b]0;x\x07\x9b1m\x7f\u202ename\napplied 0009_forged"
HARMLESS = re.compile(r"[\x20-\x7e\n\u00a1-\u2027\u2030-\u2065\u206a-\uffff]*")


@pytest.fixture
def evil(partly):
    """A database in which a table, an id, a user and a detail of the ledger have such a name."""
    connection = apsw.Connection(str(partly))
    quoted = EVIL.replace('"', '""')
    connection.execute(f'CREATE TABLE "{quoted}" (id INTEGER PRIMARY KEY, "{quoted}" TEXT)')
    connection.execute(f'INSERT INTO "{quoted}" VALUES (1, 2)')
    connection.execute("UPDATE _yoyo_migration SET migration_id = ? WHERE migration_id = '0002_b'", (EVIL,))
    connection.execute("UPDATE _dao_migration SET migration_id = ? WHERE migration_id = '0002_b'", (EVIL,))
    connection.execute("UPDATE _dao_history SET migration_id = $1, detail = $1, username = $1, hostname = $1", (EVIL,))
    connection.close()
    return partly


@pytest.mark.sample(4)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])
@pytest.mark.parametrize("name", CALLS)
def test_command_shows_control_characters_as_escapes(run, evil, existing, name, as_json):
    """Names give a terminal nothing to obey, and forge no line.

    They are those of files, the database and others.
    """
    arguments = CALLS[name]
    outcome = run(*arguments, *["--json"] * as_json)
    assert HARMLESS.fullmatch(outcome.out + outcome.err), outcome
    assert not re.search("^applied 0009_forged", outcome.out + outcome.err, re.MULTILINE), outcome


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ["migrate", f"--{EVIL}"]),
        (2, [EVIL]),
        (1, ["mark", EVIL]),
        (1, ["restore", EVIL, "--yes"]),
        (2, ["snapshot", "--label", EVIL]),
        (2, ["migrate", "--migrations", EVIL]),
        (1, ["schema", "dump", "--output", f"nowhere/{EVIL}"]),
        (2, ["status"]),
    ],
    ids=lambda value: " ".join(value).replace(EVIL, "…") if isinstance(value, list) else None,
)
def test_command_whose_arguments_hold_escapes_shows_them(run, partly, monkeypatch, code, arguments):
    """A script's arguments and variables, too, are shown with escapes, and forge no line.

    Their line ends made some.
    """
    if arguments == ["status"]:
        monkeypatch.setenv("DATABASE_SNAPSHOTS", EVIL)
    outcome = run(*arguments)
    assert outcome.code == code
    assert HARMLESS.fullmatch(outcome.err), outcome
    assert not re.search("^applied 0009_forged", outcome.err, re.MULTILINE), outcome


def test_bug_is_shown_without_what_a_terminal_would_obey(run, partly, monkeypatch, capsys):
    """What is no error of ours keeps its traceback, for whoever has to mend it, with escapes."""

    def fails(*_arguments: object, **_options: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr(migrate, "status", fails)
    monkeypatch.setattr(sys, "argv", ["dao", "status"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert HARMLESS.fullmatch(err), err


def test_errors_show_control_characters_as_escapes():
    """A message is for logs and terminals, so its names are escaped there; the attributes have them as they are."""
    error = LedgerMismatch(f"a: {EVIL}, \t\nb", changed=[EVIL])
    assert HARMLESS.fullmatch(str(error).replace("\t", " "))
    assert str(error).splitlines()[1:] == ["b"]
    assert error.changed == (EVIL,)
    assert str(Error("é \u200d 日本\n")) == "é \u200d 日本\n"
    assert visible("a\tb\n", line=True) == "a\\tb\\n"


def test_progress_at_a_terminal_shows_markup_and_escapes_as_text(terminal, folder):
    """An id in brackets is no markup for the progress, which dropped it or failed."""
    write(folder, {"0004_[bold]x[red].sql": "SELECT 1;"})
    screen = terminal("migrate")
    assert screen.close() == 0
    assert "applied 0004_[bold]x[red]" in screen.shown
    assert "Traceback" not in screen.shown


@pytest.mark.skipif(not os.path.exists("/proc/self/comm"), reason="processes are named there")
def test_holder_of_a_lock_is_named_without_its_arguments(run, partly):
    """Another process is named by its id and name: its command line, with what may be a password, was printed."""
    script = (
        "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(partly), "--password=hunter2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        outcome = run("migrate", "--busy-timeout", "0")
        assert f"held by process {holder.pid} (" in outcome.err
        assert "hunter2" not in outcome.err
        assert "import sys" not in outcome.err


@needs_full
@pytest.mark.parametrize("arguments", [["prune"], ["tasks", "prune"]], ids=" ".join)
def test_command_that_says_what_it_would_do_fails_if_stdout_takes_nothing(call, ready, arguments):
    """Without --yes the print is all that was wanted, though with it the same command changes something."""
    ready("prune")
    arguments = [*arguments, "--older-than", "1d", "--database", "sqlite:///source.db"]
    assert call(arguments, stdout="full")[0] == 1
    assert call([*arguments, "--yes"], stdout="full")[0] == 0


def test_interruption_while_modules_are_loaded_shows_no_traceback():
    """Ctrl-C in the first tenth of a second showed where Python was among its imports."""
    loading = (
        "import os, signal, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'dao.cli.commands': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from dao.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
