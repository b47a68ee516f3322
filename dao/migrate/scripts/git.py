"""The files of a folder that a branch of git has. Asks the command `git`, and changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dao.errors import MigrationError

__all__ = ["compared", "default_branch", "is_known"]

#: Where the default branch of a remote may be, if the clone does not know which it is.
_DEFAULTS = ("origin/main", "origin/master")
# what git sets for its hooks is relative to another folder
_OF_HOOKS = {"GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"}


def default_branch(folder: Path) -> str | None:
    """Return the default branch of the remote `origin` of the repository that a folder is in, such as "origin/main".

    None if there is no repository, no such remote, or nothing of that branch, as in some shallow clones.
    """
    try:
        head = _git(folder, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD").strip()
        return next((name for name in (head, *_DEFAULTS) if name and _commit(folder, name)), None)
    except MigrationError:
        return None


def is_known(folder: Path) -> bool:
    """Return whether a folder is in a repository, which does not ignore it."""
    try:
        return not _git(folder, "check-ignore", ".")
    except MigrationError:
        return False


def compared(branch: str, folder: Path) -> tuple[set[str], set[str]]:
    """Return the files below a folder, relative to it, that a branch or commit has: as they are here, and otherwise.

    Those that are not here any more are among the others. A branch is taken as it is now, not as it was when this one
    left it: what was merged since is on it.

    Raises:
        MigrationError: There is no git, no repository, or no such branch or commit.
    """
    commit = _commit(folder, branch)
    if not commit:
        raise MigrationError(
            f"git knows no branch or commit {branch!r} in {folder}: fetch it (a shallow clone has one branch only), or "
            "name another"
        )
    there = _git(folder, "ls-tree", "-r", "-z", "--name-only", commit)
    differing = _git(folder, "diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--", ".")
    others = set(differing.split("\0"))
    return set(there.split("\0")) - others, others


def _commit(folder: Path, name: str) -> str:
    """Return the id of the commit that a name means; "" if it means none."""
    return _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints; nothing where it finds nothing."""
    environ = {name: value for name, value in os.environ.items() if name not in _OF_HOOKS}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            check=False,
            env=environ | {"GIT_OPTIONAL_LOCKS": "0"},
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise MigrationError(
            "there is no command `git` to ask what is released: install it, or say otherwise what is to be judged"
        ) from error
    if done.returncode and done.stderr:
        raise MigrationError(
            f"git cannot tell what is released ({done.stderr.strip()}): mend that, or say otherwise what to judge"
        )
    return done.stdout
