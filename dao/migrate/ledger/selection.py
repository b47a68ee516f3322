"""Which migrations of a folder are meant: all, the latest, those after one, or those that are not released.

Released is what a database has applied, or what a branch of git has. Lint and verify run all, and judge those.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs

from dao.errors import InvalidValue, MigrationError
from dao.migrate.database import Target, name_of
from dao.migrate.ledger import sets
from dao.migrate.ledger.comparison import compare
from dao.migrate.ledger.entries import Ledger, ledger_of
from dao.migrate.ledger.plan import up_to
from dao.migrate.scripts import git
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.sets import check_named, names, parted, shown

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
    set: str | None = None,
) -> Selection:
    """Return which migrations are meant, by the one argument that is not None; without any, all. Only of a `set`, too.

    Raises:
        MigrationError: `since` is no migration, git does not know `git_base`, no set has this name, or a migration
            depends on one of a set that is not named, so that it cannot be tried.
        OperationalError: The database cannot be read.
        InvalidValue: `latest` is below 1, or more than one argument is given.
    """
    if sum(given is not None for given in (since, latest, database, git_base)) > 1:
        raise InvalidValue("since, latest, database and git_base exclude each other")
    check_named(set, names(migrations))
    _refuse_needs(migrations)
    ids = [migration.id for migration in migrations if set in {None, migration.set}]
    chosen: Collection[str] = ids
    words = "all" if set is None else f"of {set}"
    if since is not None:
        its = sets.of(migrations, Ledger())
        since = its.find(since, [migration.id for migration in migrations])
        chosen = {*ids} - up_to(since, migrations, its)
        words = f"after {its.told(since)}"
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
    """Return the branch to give as `git_base` if nobody names one: the remote's default branch, if git knows that.

    Of several sets, that of the first folder of which it does.
    """
    found = (git.default_branch(folder) for folder, _ in _known(migrations))
    return next(filter(None, found), None)


def _not_applied(migrations: Sequence[Migration], database: Target) -> set[str]:
    comparison = compare(migrations, ledger_of(database))
    # one whose file has only got another name is applied
    return {*comparison.pending, *comparison.changed, *comparison.unfinished} - {*comparison.renamed.values()}


def _not_on(migrations: Sequence[Migration], base: str) -> set[str]:
    """Return the ids of those that a branch does not have. A set in no repository was released elsewhere."""
    found: set[str] = set()
    for folder, its in _known(migrations):
        same, others = git.compared(base, folder)
        # of a rollback script that has gone, the name tells whose it was
        gone = {Path(path).parent.name or Path(path).name.partition(".")[0] for path in others}
        for migration in its:
            paths = [script.path for script in (migration.up, migration.down) if script and script.path]
            there = [Path(os.path.relpath(path, folder)).as_posix() for path in paths]
            if migration.id in gone or not same.issuperset(there):
                found.add(migration.id)
    return found


def _known(migrations: Sequence[Migration]) -> list[tuple[Path, list[Migration]]]:
    """Return the folder of each set, in which all its scripts are, each perhaps in one of its own.

    Those of sets that are in no repository are left out, unless there is only one.
    """
    by_set: dict[str | None, list[Migration]] = {} if migrations else {None: []}
    for migration in migrations:
        by_set.setdefault(migration.set, []).append(migration)
    folders = [
        (Path(os.path.commonpath([os.path.abspath(one.path.parent) for one in its] or [os.getcwd()])), its)
        for its in by_set.values()
    ]
    return [(folder, its) for folder, its in folders if len(folders) == 1 or git.is_known(folder)]


def _refuse_needs(migrations: Sequence[Migration]) -> None:
    known = {migration.id for migration in migrations}
    for migration in migrations:
        for name in migration.depends:
            set, id = parted(name)
            if id not in known:
                told = shown(migration.id, migration.set, names(migrations))
                raise MigrationError(
                    f"{told} depends on {name}, and the set {set} is not named, so that it cannot be tried: name that "
                    "set, too (--migrations, DATABASE_MIGRATIONS)"
                )
