"""`make setup` takes a Python that will do, names one that will not, and mends what was broken off."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.concurrency import PATIENCE
from tests.packaging.checkout import ROOT, call, executable

# Stands in for a Python, and for that of an environment which it makes: it says which one it is, and notes what pip is
# to install. A file `fail` or `wait` beside the checkout's `.venv` has pip do that. A shell starts it: the path of the
# real one may have a space in it, which `#!` does not take.
_PYTHON = """#!/bin/sh
'''exec' "{real}" -IS "$0" "$@"
' '''
import os, pathlib, shutil, sys, time

sys.version_info, sys.version, sys.base_prefix, sys._base_executable = {version}, "{version} (stub)", "{base}", "{base}"
if sys.argv[1] == "-c":
    code, sys.argv[:] = sys.argv[2], ["-c", *sys.argv[3:]]
    exec(code)
elif sys.argv[2] == "venv":
    made = pathlib.Path(sys.argv[3], "bin")
    made.mkdir()
    for name in ("python", "python3"):
        shutil.copy("{base}", made / name)
elif sys.argv[2:4] == ["pip", "install"]:
    if os.path.exists("fail"):
        sys.exit("ERROR: no network")
    if os.path.exists("wait"):
        pathlib.Path("waits").touch()
        try:
            for _ in range({patience} * 10):
                time.sleep(0.1)  # a signal just before it would not end it
        except KeyboardInterrupt:
            sys.exit("ERROR: Operation cancelled by user")
    with open(".venv/installed", "a") as file:
        print(sys.argv[-1], "with", "{base}", file=file)
"""


@pytest.fixture
def checkout(tmp_path):
    """What `make` reads of the checkout, and no environment."""
    folder = tmp_path / "check out"
    shutil.copytree(ROOT / "bin", folder / "bin")
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    executable(folder / "bin" / "dao", "#!/bin/sh\nexit 0\n")
    return folder


@pytest.fixture
def path(tmp_path):
    """A PATH with a folder for Pythons in front, and no other Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("awk", "bash", "cat", "dirname", "make", "mkdir", "mv", "readlink", "rm", "sed", "sh", "touch"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    return f"{tmp_path / 'pythons'}:{tools}"


@pytest.fixture
def python(tmp_path):
    """Makes a stub of a Python, of this name and version, that is on the PATH."""

    def make(name: str, *version: int) -> Path:
        file = tmp_path / "pythons" / name
        text = _PYTHON.format(real=sys.executable, version=(*version, 7), base=file, patience=PATIENCE)
        return executable(file, text)

    return make


def make(checkout: Path, path: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return call("make", *arguments, cwd=checkout, path=path, environ=environ)


def installed(checkout: Path) -> list[str]:
    """Return what pip installed into the environment, each with the Python that this was made with."""
    return (checkout / ".venv" / "installed").read_text().splitlines()


def test_setup_makes_an_environment_once(checkout, path, python):
    """It holds the project and its tools, and there is nothing to do again."""
    first = python("python3", 3, 11)
    done = make(checkout, path, "setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "making .venv, which is not there …"
    assert installed(checkout) == [f". with {first}", f".[dev] with {first}"]
    assert not (checkout / ".venv" / ".unfinished").exists()
    assert "set-up" not in make(checkout, path, "-n", "setup").stdout


def test_prerequisites_name_what_is_defined_above_them(checkout, path):
    """`make` takes a variable that it has not read yet for nothing: `make wheel` alone made no man page, and failed."""
    read = make(checkout, path, "--warn-undefined-variables", "help", PYTHON="")
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize(("version", "how"), [((3, 9), "by default"), ((3, 15), "by name")], ids=str)
def test_setup_with_a_python_that_will_not_do_says_what_is_needed(checkout, path, python, version, how):
    """Python 3.9 flooded the screen, and left an environment that a newer one then kept."""
    python("python3", *version)
    more = ["PYTHON=python3"] if how == "by name" else []
    for other in ("/path/to/python3", "python3.12"):
        done = make(checkout, path, "setup", *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[0] == (
            f"error: this needs Python >=3.11, <3.15, and python3 is Python {version[0]}.{version[1]}.7. Name another: "
            f"make setup PYTHON={other}"
        )
        assert len(done.stderr.splitlines()) == 2  # the other is make's own
        assert not (checkout / ".venv").exists()
        good = python("python3.12", 3, 12)
    assert make(checkout, path, "setup", "PYTHON=python3.12").returncode == 0
    assert installed(checkout)[-1] == f".[dev] with {good}"
    # and it stays, without being named again
    (checkout / "setup.cfg").touch()
    assert make(checkout, path, "setup").returncode == 0
    assert {line.split()[-1] for line in installed(checkout)} == {str(good)}


def test_setup_without_that_python_says_so(checkout, path):
    """A name that leads to no Python is named, and how to name another."""
    done = make(checkout, path, "setup", "PYTHON=python9")
    assert done.returncode == 2
    assert "and python9 does not run. Name another: make setup PYTHON=" in done.stderr


@pytest.mark.parametrize("how", ["command line", "environment"])
def test_setup_with_another_python_makes_the_environment_anew(checkout, path, python, how):
    """The one that is named is the one that is used: the environment kept that with which it was made first."""
    python("python3", 3, 11)
    other = python("python3.12", 3, 12)
    make(checkout, path, "setup")
    named = "python3.12" if how == "command line" else str(other)
    more = ([f"PYTHON={named}"], {}) if how == "command line" else ([], {"PYTHON": named})
    done = make(checkout, path, "migrate", *more[0], **more[1])
    assert done.stdout.splitlines() == ["making .venv, which is of another Python …", "installing . …"]
    assert installed(checkout) == [f". with {other}"]
    assert "set-up" not in make(checkout, path, "-n", "migrate", *more[0], **more[1]).stdout


def test_setup_with_another_python_that_will_not_do_keeps_the_environment(checkout, path, python):
    """What would not be made is not removed either."""
    python("python3", 3, 11)
    python("python3.9", 3, 9)
    make(checkout, path, "setup")
    before = installed(checkout)
    assert make(checkout, path, "migrate", "PYTHON=python3.9").returncode == 2
    assert installed(checkout) == before
    assert "set-up" not in make(checkout, path, "-n", "setup").stdout


def test_setup_with_what_is_no_python_keeps_the_environment(checkout, path, python):
    """A program that succeeds whatever it is told passed for a Python that will do, and a good environment was gone."""
    python("python3", 3, 11)
    make(checkout, path, "setup")
    before = installed(checkout)
    done = make(checkout, path, "migrate", "PYTHON=/bin/true")
    assert done.returncode == 2
    assert "error: this needs Python " in done.stderr
    assert installed(checkout) == before


def test_setup_after_its_python_has_gone_makes_the_environment_anew(checkout, path, python):
    """An upgrade of the system took the Python away: every target failed with a bad interpreter."""
    python("python3", 3, 11)
    make(checkout, path, "setup")
    (checkout / ".venv" / "bin" / "python").unlink()
    (checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.10")
    done = make(checkout, path, "migrate")
    assert done.stdout.splitlines()[0] == "making .venv, which has no Python that will do …"
    assert done.returncode == 0


def test_setup_of_an_environment_that_somebody_else_made_keeps_it(checkout, path, python):
    """What else is in it is not ours to remove; it need not have been made with `make`."""
    python("python3", 3, 11)
    own = python("python3.13", 3, 13)
    (checkout / ".venv").mkdir()
    call(own, "-m", "venv", ".venv", cwd=checkout, path=path)
    (checkout / ".venv" / "theirs").touch()
    assert make(checkout, path, "setup").returncode == 0
    assert (checkout / ".venv" / "theirs").exists()
    assert installed(checkout) == [f". with {own}", f".[dev] with {own}"]


@pytest.fixture
def interruptible():
    """Lets Ctrl-C reach what is started, though to a job in the background, which this may be, it means nothing."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.sample(2)
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.parametrize("command", ["make migrate", "make setup", "bash bin/set-up .[dev]"])
def test_setup_broken_off_is_repaired_by_the_next(checkout, path, python, end, command):
    """A half-made environment was kept: it has no pip, or some packages in part, of which pip knows nothing."""
    first = python("python3", 3, 11)
    if command != "make migrate":  # in the middle of the tools; the project is installed already
        make(checkout, path, "migrate")
    (checkout / "wait").touch()
    process = subprocess.Popen(
        command.split(),  # where sh is bash, it goes on after a pip that ended by itself
        cwd=checkout,
        env={"PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + PATIENCE
    while not (checkout / "waits").exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, end)
    assert process.wait(PATIENCE) != 0
    (checkout / "wait").unlink()
    # an environment that is activated is first on PATH
    done = make(checkout, f"{checkout}/.venv/bin:{path}", "setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "making .venv, which was not finished …"
    assert installed(checkout) == [f". with {first}", f".[dev] with {first}"]


def test_setup_that_pip_fails_leaves_what_works(checkout, path, python):
    """Without a network the tools cannot be installed; the environment goes on as it was."""
    python("python3", 3, 11)
    make(checkout, path, "migrate")
    (checkout / "fail").touch()
    done = make(checkout, path, "setup")
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: no network\n")
    assert make(checkout, path, "-n", "migrate").stdout.strip() == "bin/migrate"
    (checkout / "fail").unlink()
    assert make(checkout, path, "setup").stdout == "installing .[dev] …\n"


def test_setup_that_pip_fails_at_once_begins_anew(checkout, path, python):
    """Nobody knows what is in an environment in which nothing was ever installed."""
    python("python3", 3, 11)
    (checkout / "fail").touch()
    assert make(checkout, path, "migrate").returncode == 2
    (checkout / "fail").unlink()
    assert make(checkout, path, "migrate").stdout.splitlines()[0] == "making .venv, which was not finished …"
