"""Which migrations of a folder are meant: all, the latest, those after one, or those that are not released.

Released is what a database has applied, or what a branch of git has. Lint and verify run all, and judge those.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs

from dao.errors import InvalidValue
from dao.migrate.database import Target, exists, name_of, opened
from dao.migrate.ledger.comparison import compare
from dao.migrate.ledger.entries import Ledger, read
from dao.migrate.ledger.plan import find_id, up_to
from dao.migrate.scripts import git
from dao.migrate.scripts.migration import Migration

__all__ = ["Selection", "git_default", "select"]


@attrs.frozen
class Selection:
    """The ids of the migrations that are meant, in order, and which those are, in words; "all" if none is left out."""

    ids: tuple[str, ...]
    words: str


def select(
    migrations: Sequence[Migration],
    *,
    since: str | None = None,
    latest: int | None = None,
    database: Target | None = None,
    git_base: str | None = None,
) -> Selection:
    """Return which migrations are meant, by the one argument that is not None; without any, all.

    Raises:
        MigrationError: `since` is no migration, or git does not know `git_base`.
        OperationalError: The database cannot be read.
        InvalidValue: `latest` is below 1, or more than one argument is given.
    """
    if sum(given is not None for given in (since, latest, database, git_base)) > 1:
        raise InvalidValue("since, latest, database and git_base exclude each other")
    ids = [migration.id for migration in migrations]
    chosen: Collection[str] = ids
    words = "all"
    if since is not None:
        chosen = set(ids) - up_to(since, migrations)
        words = f"after {find_id(since, ids)}"
    elif latest is not None:
        if isinstance(latest, bool) or latest < 1:
            raise InvalidValue(f"latest must be a whole number from 1, got {latest!r}")
        chosen = ids[-latest:]
        words = "the latest"
    elif database is not None:
        chosen = _not_applied(migrations, database)
        words = f"not applied in {name_of(database)}, or changed since"
    elif git_base is not None:
        chosen = _not_on(migrations, git_base)
        words = f"not on {git_base}, or changed since"
    return Selection(tuple(id for id in ids if id in chosen), words)


def git_default(migrations: Sequence[Migration]) -> str | None:
    """Return the branch to give as `git_base` if nobody names one: the remote's default branch, if git knows that."""
    return git.default_branch(_folder(migrations))


def _not_applied(migrations: Sequence[Migration], database: Target) -> set[str]:
    ledger = Ledger()
    if exists(database):
        with opened(database, read_only=True) as connection:
            ledger = read(connection)
    comparison = compare(migrations, ledger)
    # one whose file has only got another name is applied
    return {*comparison.pending, *comparison.changed, *comparison.unfinished} - {*comparison.renamed.values()}


def _not_on(migrations: Sequence[Migration], base: str) -> set[str]:
    folder = _folder(migrations)
    same, others = git.compared(base, folder)
    # of a rollback script that has gone, the name tells whose it was
    gone = {Path(path).parent.name or Path(path).name.partition(".")[0] for path in others}
    return {
        migration.id
        for migration in migrations
        if migration.id in gone
        or any(
            script is not None
            and script.path is not None
            and Path(os.path.relpath(script.path, folder)).as_posix() not in same
            for script in (migration.up, migration.down)
        )
    }


def _folder(migrations: Sequence[Migration]) -> Path:
    """Return the folder in which all scripts are, each perhaps in one of its own."""
    return Path(os.path.commonpath([os.path.abspath(migration.path.parent) for migration in migrations] or [os.curdir]))
