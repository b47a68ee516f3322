"""At a terminal: colour, progress, questions and Ctrl-C; in a pipe or a closed stream none of it. Real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.cli.calls import plain
from tests.folders import IDS, dump, query, tables, write

ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# runs for as long as anybody would wait
ENDLESS = """
CREATE TABLE counted AS
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000000) SELECT count(*) AS n FROM n;
"""


def shell(command: str, cwd: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which `dao` is the command line."""
    function = f'dao() {{ "{sys.executable}" -m dao "$@"; }}; '
    return subprocess.run(
        ["sh", "-c", function + command],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def applied(partly):
    """The path of a database with two migrations applied and a row that no migration made."""
    query(partly, "INSERT INTO a VALUES (42)")
    return partly


# ---------------------------------------------------------------- colour and progress


def test_migrate_at_a_terminal_shows_progress_and_colour(terminal, path):
    """What is running is shown while it runs, then each migration in colour, with its time."""
    screen = terminal("migrate")
    assert screen.close() == 0
    assert re.search(r"applying 000\d_[abc]|reading the migrations", screen.shown)
    green = [COLOUR.sub("", line) for line in screen.shown.splitlines() if f"{ESCAPE}[32mapplied" in line]
    assert [re.sub(r"^.*applied", "applied", plain(line)) for line in green] == [
        f"applied {id} ({statements}, TIME)"
        for id, statements in zip(IDS, ["1 statement", "2 statements", "1 statement"], strict=True)
    ]
    assert "orchestrator.db: 3 migrations in" in screen.shown
    assert tables(path) == ["a", "b", "c"]


def test_verify_at_a_terminal_shows_how_far_it_is(terminal):
    """A long history showed nothing but that migrations were being read, for minutes."""
    # so that the line is drawn once at least: it is, four times a second
    screen = terminal("verify", "--rows", "2000")
    assert screen.close() == 0
    assert re.search(r"verifying 000[123]_[abc] \([123] of 3\)", screen.shown)


def test_status_at_a_terminal_has_a_colour_for_each_state(terminal, partly):
    """Applied is green, pending yellow; the text is that of the plain output."""
    screen = terminal("status")
    assert screen.close() == 0
    assert re.findall(r"\x1b\[(\d+)m(\w+)", screen.shown) == [("32", "applied"), ("32", "applied"), ("33", "pending")]
    assert plain(COLOUR.sub("", screen.shown)).splitlines() == [
        "applied     0001_a  WHEN, TIME",
        "applied     0002_b  WHEN, TIME",
        "pending     0003_c",
        "orchestrator.db: 2 applied, 1 pending",
    ]


def test_error_at_a_terminal_is_red(terminal):
    """An error stands out."""
    screen = terminal("rollback")
    assert screen.close() == 1
    assert f"{ESCAPE}[31merror: " in screen.shown


def test_no_color_at_a_terminal_prints_plain_lines(terminal, partly):
    """With NO_COLOR the terminal gets what a pipe gets."""
    screen = terminal("status", NO_COLOR="1")
    assert screen.close() == 0
    assert "applied     0001_a" in screen.shown
    assert ESCAPE not in screen.shown


def test_no_color_at_a_terminal_leaves_the_progress_without_colour(terminal, partly):
    """The progress is still shown and cleared away, but nothing has a colour, the error neither."""
    screen = terminal("rollback", "--to", "0003", NO_COLOR="1")
    assert screen.close() == 1
    assert "error: " in screen.shown
    assert not COLOUR.search(screen.shown)


def test_migrate_in_a_pipe_at_a_terminal_keeps_the_results_plain(terminal, partly):
    """Results that go elsewhere have no colour, while the progress is on the screen."""
    read, write_end = os.pipe()
    screen = terminal("migrate", stdout=write_end)
    os.close(write_end)
    assert screen.close() == 0
    with os.fdopen(read) as results:
        assert plain(results.read()) == "applied 0003_c (1 statement, TIME)\norchestrator.db: 1 migration in TIME\n"
    assert "applied" not in screen.shown


def test_migrate_in_a_pipe_prints_no_escape(workplace, path):
    """Without a terminal there is neither colour nor progress, whatever TERM says."""
    done = shell("dao migrate && dao status && dao frobnicate", workplace, TERM="xterm-256color")
    assert done.returncode == 2
    assert "orchestrator.db: 3 applied" in done.stdout
    assert "frobnicate" in done.stderr
    assert ESCAPE not in done.stdout + done.stderr


# ---------------------------------------------------------------- questions


def test_reset_answered_with_yes_resets(terminal, applied):
    """It asks, naming the database, and goes on after a y."""
    screen = terminal("reset")
    screen.until("Drop every table and row of orchestrator.db, and migrate again? [y/N]:")
    screen.press("y\n")
    assert screen.close() == 0
    assert "3 migrations in" in screen.shown
    assert query(applied, "SELECT * FROM a") == []


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"], ids=["n", "Enter", "Ctrl-D"])
def test_reset_answered_otherwise_changes_nothing(terminal, applied, answer):
    """No is no, and so is no answer; it says that nothing was changed."""
    before = dump(applied)
    screen = terminal("reset")
    screen.until("[y/N]:")
    screen.press(answer)
    assert screen.close() == 1
    assert "othing was changed" in screen.shown
    assert dump(applied) == before


def test_reset_interrupted_at_the_question_changes_nothing(terminal, applied):
    """Ctrl-C at the question exits with 130, without a traceback."""
    before = dump(applied)
    screen = terminal("reset")
    screen.until("[y/N]:")
    screen.interrupt()
    assert screen.close() == 130
    assert "Traceback" not in screen.shown
    assert dump(applied) == before


# ---------------------------------------------------------------- Ctrl-C


def test_migrate_interrupted_in_a_long_statement_rolls_back(terminal, applied, folder):
    """Ctrl-C in the middle of a statement ends it: exit 130, no traceback, and the migrations before it undone too."""
    before = dump(applied)
    write(folder, {"0004_endless.sql": ENDLESS})
    screen = terminal("migrate")
    screen.until("applying 0004_endless")
    screen.interrupt()
    assert screen.close() == 130
    assert "interrupted; what was not committed was rolled back" in screen.shown
    assert "Traceback" not in screen.shown
    assert dump(applied) == before


def test_migrate_interrupted_while_it_waits_for_the_lock_ends(terminal, applied):
    """Ctrl-C ends the wait for another's lock."""
    before = dump(applied)
    script = (
        "import sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE'); print(flush=True); "
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(applied)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        screen = terminal("migrate", "--busy-timeout", "600000")
        screen.until("waiting for the lock held by process")
        screen.interrupt()
        assert screen.close() == 130
    assert "Traceback" not in screen.shown
    assert dump(applied) == before


# ---------------------------------------------------------------- streams that do not last


def test_status_whose_reader_has_gone_prints_no_traceback(workplace, partly):
    """`dao status | head -1`: who has seen enough closes the pipe, and that is no error to report."""
    done = shell("dao status | head -1", workplace)
    assert plain(done.stdout) == "applied     0001_a  WHEN, TIME\n"
    assert done.stderr == ""


def test_status_with_a_broken_pipe_prints_nothing_and_fails(workplace, partly):
    """If nobody reads at all, nothing is said on standard error either."""
    read, write_end = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dao", "status", "--json"], stdout=write_end, stderr=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize(("command", "code"), [("dao status >&-", 0), ("dao rollback --to x >&- 2>&-", 1)])
def test_command_with_closed_streams_does_its_work(workplace, partly, command, code):
    """A stream that was closed before the start swallows what it gets."""
    done = shell(command, workplace)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["status --json", "nothing --json"])
def test_command_that_cannot_print_says_why(workplace, partly, command):
    """A full disk under the output is an error of one line, not a traceback."""
    done = shell(f"dao {command} >/dev/full", workplace)
    assert done.returncode == (2 if "nothing" in command else 1)
    assert re.search(
        "^error: .*No space left on device: 'standard output'$|^Error: No such command", done.stderr, re.MULTILINE
    )
    assert "Traceback" not in done.stderr


def test_status_letters_that_the_output_cannot_hold_are_escaped(workplace, folder):
    """A name outside of the output's encoding is shown with escapes."""
    write(folder, {"0004_é.sql": "SELECT 1;"})
    done = shell("dao status", workplace, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "pending     0004_\\xe9" in done.stdout
