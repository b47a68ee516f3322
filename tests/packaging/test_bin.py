"""The deployment scripts and the Makefile: what each runs, from where, and with what exit code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.checkout import ROOT, SCRIPTS, SYSTEM, call, executable, phony

BIN = ROOT / "bin"
# stands in for the command line: prints what it was given, and where, and exits with a code of its own
STUB = '#!/bin/sh\necho "in $PWD"\nfor argument in "$@"; do echo "<$argument>"; done\nexit 37\n'
every_script = pytest.mark.parametrize("script", list(SCRIPTS))


@pytest.fixture
def deployed(tmp_path):
    """The scripts alone, without the checkout around them."""
    return Path(shutil.copytree(BIN, tmp_path / "app" / "bin"))


@pytest.fixture
def elsewhere(tmp_path):
    """A working directory that has nothing to do with the scripts."""
    folder = tmp_path / "else where"
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- bin/


def test_bin_holds_these_scripts_and_each_is_executable():
    """Each task of a deployment has its script; beside them are the one they share, and those of set-up and CI."""
    scripts = list(BIN.iterdir())
    assert {script.name for script in scripts} == {*SCRIPTS, "dao", "set-up", "check-wheel"}
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []


@every_script
def test_script_says_what_it_does_and_is_one_command(script):
    """A script has a comment for who opens it, and is a single `exec` of the command line."""
    first, comment, *rest = (BIN / script).read_text().splitlines()
    assert first == "#!/bin/sh"
    assert re.fullmatch(r"# [A-Z].*\.", comment)
    assert rest == [f'exec "$(dirname -- "$(readlink -f -- "$0")")/dao" {SCRIPTS[script]} "$@"']


@pytest.mark.sample(4)
@every_script
def test_script_help_is_that_of_its_command(deployed, elsewhere, script):
    """Without a checkout, with only an installed `dao` on PATH, a script prints its command's help."""
    done = call(deployed / script, "--help", cwd=elsewhere, path=f"{Path(sys.executable).parent}:{SYSTEM}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: dao {SCRIPTS[script]} ")
    assert "--help" in done.stdout


@every_script
def test_script_passes_arguments_directory_and_exit_code_through(deployed, elsewhere, script):
    """Arguments arrive as they are, blanks and all.

    The working directory is the caller's, the exit code the command's.
    """
    executable(deployed.parent / ".venv" / "bin" / "dao", STUB)
    arguments = ["--to", "a b", "", "*", "it's", "--", "-x"]
    done = call(deployed / script, *arguments, cwd=elsewhere)
    assert done.returncode == 37
    assert done.stdout.splitlines() == [f"in {elsewhere}", f"<{SCRIPTS[script]}>", *(f"<{one}>" for one in arguments)]


def test_script_in_a_checkout_uses_its_environment_before_the_path(deployed, elsewhere):
    """The checkout's own `.venv` goes before a `dao` on PATH."""
    executable(deployed.parent / ".venv" / "bin" / "dao", STUB)
    other = executable(elsewhere / "bin" / "dao", "#!/bin/sh\nexit 1\n")
    assert call(deployed / "status", cwd=elsewhere, path=f"{other.parent}:{SYSTEM}").returncode == 37


def test_script_through_links_finds_its_folder(deployed, elsewhere):
    """A link to a script, even a relative one to another link, works like the script, from any directory."""
    executable(deployed.parent / ".venv" / "bin" / "dao", STUB)
    (elsewhere / "up").symlink_to(deployed / "migrate")
    (elsewhere / "up2").symlink_to("up")
    for command in (elsewhere / "up", "./up2", "up2"):
        done = call(command, "now", cwd=elsewhere, path=f"{elsewhere}:{SYSTEM}")
        assert (done.returncode, done.stdout) == (37, f"in {elsewhere}\n<migrate>\n<now>\n")


def test_script_real_exit_codes_reach_the_caller(deployed, elsewhere):
    """The codes of the real command line: 3 for pending, 2 for wrong usage, 0 for done."""
    path = f"{Path(sys.executable).parent}:{SYSTEM}"
    codes = [
        call(deployed / script, *arguments, cwd=elsewhere, path=path).returncode
        for script, arguments in [
            ("status", ["--exit-code"]),
            ("rollback", ["--steps", "-1"]),
            ("init-db", ["--quiet"]),
        ]
    ]
    assert codes == [3, 2, 0]
    assert (elsewhere / "orchestrator.db").exists()


@pytest.mark.parametrize("found", ["nowhere", "itself"])
def test_script_without_an_installed_dao_says_what_to_do(deployed, elsewhere, tmp_path, found):
    """With no `dao` anywhere, or none on PATH but the script of that name, it exits with 127 and the two ways out."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "readlink", "dirname"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    path = str(tools) if found == "nowhere" else f"{deployed}:{tools}"
    done = call(deployed / "status", cwd=elsewhere, path=path)
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == (
        "error: dao is not installed: run 'make setup' in the checkout, or install the wheel that 'make wheel' builds "
        "there\n"
    )


def test_script_in_a_checkout_without_dependencies_says_what_to_do(deployed, tmp_path):
    """The source beside it is of no use to a Python without the dependencies: no traceback of that."""
    shutil.copytree(ROOT / "dao", deployed.parent / "dao", ignore=shutil.ignore_patterns("__pycache__"))
    python = executable(tmp_path / "bare" / "python3", f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    done = call(deployed / "status", cwd=deployed.parent, path=f"{python.parent}:{SYSTEM}")
    assert (done.returncode, done.stdout) == (127, "")
    assert "run 'make setup' in the checkout" in done.stderr


def test_script_with_the_package_but_not_what_it_needs_says_what_to_do(deployed, elsewhere, tmp_path):
    """A Python that has the package and not its dependencies cannot run it: no traceback of that either."""
    python = executable(tmp_path / "bare" / "python3", f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    path = f"{python.parent}:{SYSTEM}"
    done = call(deployed / "status", cwd=elsewhere, path=path, environ={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (127, "")
    assert "run 'make setup' in the checkout" in done.stderr


def test_script_with_the_package_but_no_command_runs_the_module(deployed, elsewhere, tmp_path):
    """Where Python has the package but PATH has no `dao`, `python3 -m dao` is what runs."""
    python = executable(tmp_path / "full" / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    done = call(deployed / "status", "--exit-code", cwd=elsewhere, path=f"{python.parent}:{SYSTEM}")
    assert done.returncode == 3
    assert "does not exist yet" in done.stdout


# ---------------------------------------------------------------- Makefile


@pytest.fixture
def checkout(deployed):
    """A copy of what `make` reads: the Makefile, the project's files, the scripts; no environment."""
    (deployed.parent / "docs" / "reference").mkdir(parents=True)
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "docs/reference/commands.md"):
        shutil.copy(ROOT / name, deployed.parent / name)
    return deployed.parent


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call("make", *arguments, cwd=checkout, path=os.environ["PATH"])


def set_up(checkout: Path, *stamps: str) -> None:
    """Make an environment with a stub in it, of which the stamps say that it is up to date."""
    executable(checkout / ".venv" / "bin" / "dao", STUB.replace("37", "0"))
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for stamp in stamps:
        (checkout / ".venv" / stamp).touch()


def test_make_alone_prints_every_target_with_its_description(checkout):
    """`make` lists all targets and what they are for, and makes nothing."""
    done = make(checkout)
    listed = re.findall(r"^  make (\S+) +(\S.*)$", done.stdout, re.MULTILINE)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name, _ in listed] == phony()
    assert len(listed) == len(done.stdout.splitlines())
    assert not (checkout / ".venv").exists()


def test_makefile_declares_every_target_phony():
    """Every documented target is declared, so that a file of that name does not hide it."""
    documented = re.findall(r"^([a-z-]+):.*## \S", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert documented == phony()


@pytest.mark.parametrize("target", phony())
def test_make_dry_run_of_every_target_succeeds(checkout, target):
    """No target lacks a rule for something that it needs."""
    assert make(checkout, "-n", target).returncode == 0


def test_make_target_in_a_fresh_checkout_sets_up_the_environment_first(checkout):
    """A target that needs the environment makes it and installs the project; nothing is activated."""
    assert make(checkout, "-n", "migrate").stdout.split("\n") == ["bin/set-up .", "bin/migrate ", ""]


def test_make_target_with_an_environment_goes_straight_to_work(checkout):
    """The stamp says that nothing has to be installed: only the script runs."""
    set_up(checkout, ".installed")
    assert make(checkout, "-n", "migrate").stdout.strip() == "bin/migrate"


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml"])
def test_make_target_after_an_edit_of_the_project_installs_again(checkout, name):
    """An environment older than what it holds is brought up to date."""
    set_up(checkout, ".installed", ".installed-dev")
    stamp = (checkout / ".venv" / ".installed").stat().st_mtime
    os.utime(checkout / name, (stamp + 10, stamp + 10))
    assert "bin/set-up .\n" in make(checkout, "-n", "migrate").stdout
    assert "bin/set-up '.[dev]'\n" in make(checkout, "-n", "test").stdout


def test_make_test_installs_the_tools_once(checkout):
    """The development tools are for the targets that need them, and are installed once."""
    set_up(checkout, ".installed")
    assert "bin/set-up '.[dev]'\n" in make(checkout, "-n", "test").stdout
    (checkout / ".venv" / ".installed-dev").touch()
    assert "set-up" not in make(checkout, "-n", "test").stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["migrate"], ["migrate"]),
        (["migrate", "TO=0002"], ["migrate", "--to", "0002"]),
        (["rollback"], ["rollback", "--steps", "1"]),
        (["rollback", "STEPS=2"], ["rollback", "--steps", "2"]),
        (["rollback", "TO=0001"], ["rollback", "--to", "0001"]),
        (["redo"], ["redo", "--steps", "1"]),
        (["redo", "STEPS=3"], ["redo", "--steps", "3"]),
        (["status"], ["status"]),
        (["plan"], ["plan"]),
        (["new", "NAME=add priority"], ["new", "--migrations", "sql/sqlite", "--", "add priority"]),
        (["init"], ["init"]),
        (["reset"], ["reset"]),
        (["reset", "YES=1"], ["reset", "--yes"]),
    ],
    ids=" ".join,
)
def test_make_target_runs_its_command_with_the_variables(checkout, arguments, command):
    """Variables become options, and the command runs in the checkout."""
    set_up(checkout, ".installed")
    done = make(checkout, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"in {checkout}", *(f"<{word}>" for word in command)]


def test_make_target_that_fails_fails_make(checkout):
    """The failure of a command is that of `make`, but not its exit code, as the README says."""
    set_up(checkout, ".installed")
    executable(checkout / ".venv" / "bin" / "dao", STUB)
    assert make(checkout, "status").returncode == 2


def test_make_clean_keeps_databases(checkout):
    """What the other targets made is removed; databases and sources stay."""
    set_up(checkout, ".installed")
    (checkout / "orchestrator.db").touch()
    before = {path.name for path in checkout.iterdir()}
    assert make(checkout, "clean").returncode == 0
    assert {path.name for path in checkout.iterdir()} == before - {".venv"}
