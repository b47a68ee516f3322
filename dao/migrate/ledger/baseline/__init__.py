"""Begins the migrations of a database that has none: its schema, as it is, becomes the first, noted as applied.

Flyway's `baseline` only notes a version; this one writes the script, too, as Prisma's `migrate diff` with `migrate
resolve` and Atlas's `migrate diff` with `--baseline` do in two steps: with it the folder makes the same schema in a new
database.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dao.engine import Connection, DriverError
from dao.errors import CommitUnknown, Error, MigrationError, MigrationFileError
from dao.migrate.by_engine import by_engine
from dao.migrate.database import (
    Target,
    check_in_place,
    exclusive,
    existing,
    in_line,
    migrations_for,
    name_of,
    translated,
)
from dao.migrate.events import Report
from dao.migrate.ledger import drift, other_tools
from dao.migrate.ledger import entries as ledger
from dao.migrate.ledger.comparison import compare
from dao.migrate.ledger.expected import applied as scripts_of
from dao.migrate.ledger.other_tools import OtherLedger
from dao.migrate.ledger.writer import Writer
from dao.migrate.schema.names import fold
from dao.migrate.schema.registration import Prepare, preparing
from dao.migrate.schema.usable import Unusable
from dao.migrate.scripts.layouts import Layout, layout_and_names
from dao.migrate.scripts.load import default_folder, set_name
from dao.migrate.scripts.migration import Migration
from dao.migrate.scripts.new import create, first, has_rollback, remove, texts_of
from dao.migrate.scripts.sections import UP
from dao.migrate.values import Difference
from dao.settings import Folder
from dao.text import visible

__all__ = ["Baseline", "baseline"]

_COMMENT = """\
-- Baseline: the schema that the database had when its migrations began, as `dao baseline` found it.
-- Rows are not in it. Those that a new database needs, a later migration has to insert where they are missing.
"""
_NO_ROLLBACK = "-- lint: ignore M017 a baseline is where the history begins\n"
_ROLLBACK = """\
-- Undoes nothing: it would drop all tables, with all rows. So `dao rollback` refuses to go back before {id}.
-- lint: ignore M018 a baseline is where the history begins
"""


class _Baseline(Protocol):
    """The module of an engine: the schema of a database as statements, and what these make."""

    def statements(
        self, connection: Any, left_out: Collection[str], applied: Sequence[tuple[str, str]], /
    ) -> list[str]: ...
    def makers(self, connection: Any, migrations: Sequence[Migration], baseline: tuple[str, str], /) -> set[str]: ...
    def remade(
        self, connection: Any, own: Migration, left_out: Collection[str], applied: Sequence[tuple[str, str]], /
    ) -> tuple[list[Difference], list[Unusable]]: ...


if TYPE_CHECKING:
    from dao.migrate.ledger.baseline import postgresql, sqlite

    _MODULES: tuple[_Baseline, ...] = (sqlite, postgresql)

_of: Callable[[Any], _Baseline] = by_engine(__name__)


@attrs.frozen(kw_only=True)
class Baseline:
    """The migration that `baseline` has written and noted as applied, with the paths of its files, two or one.

    `left_out` are the tables of other tools, which it does not make. `broken` is what does not work in the schema: a
    run in a new database refuses that, unless a later migration mends it.
    """

    id: str
    paths: tuple[Path, ...]
    left_out: tuple[OtherLedger, ...] = ()
    broken: tuple[Unusable, ...] = ()


def baseline(
    target: Target,
    folder: str | os.PathLike[str] | Folder,
    *,
    name: str = "baseline",
    now: datetime | None = None,
    prepare: Prepare | None = None,
    lock_timeout: float | None = None,
    report: Report | None = None,
) -> Baseline:
    """Write the schema of a database as the first migration of a folder, and note it there as applied.

    What migrations of other sets have made is not in it: those have to be applied before. A `Folder` of the settings
    says what the set of this one is called.

    Writes the files and the ledger, both or neither, and runs nothing in the database. The id comes before all that are
    in the folder; layout and name are as of `new`. Rows are not written, nor are the ledgers of other tools. The
    rollback script undoes nothing, so that no `rollback` drops what was there before. The files are read back: what
    they make in an empty database is the schema that is there, or nothing is written. `prepare` and `lock_timeout`
    are as in `apply`.

    Raises:
        MigrationError: The database does not exist, holds nothing else, or has a ledger: this package's, with
            migrations of this set, or that of a tool that `adopt` takes over. Or the folder is this package's own, its
            migrations make what is there already, or the schema cannot be made anew from its text. Nothing was changed,
            here and below.
        MigrationFileError: A file of the folder is not what it should be.
        DatabaseBusy: Another migrator or connection kept its lock.
        CommitUnknown: The commit met an I/O error. The files are there, and may be noted as applied.
    """
    given = folder if isinstance(folder, Folder) else Folder(Path(folder))
    path = given.path or default_folder()
    if path.resolve() in {default_folder(engine).resolve() for engine in ("sqlite", "postgresql")}:
        raise MigrationError(
            f"{path} has the migrations of this package, which are of its own tables: name the folder of yours with "
            "--migrations or DATABASE_MIGRATIONS"
        )
    id = ""
    paths: tuple[Path, ...] = ()
    existing(target, "begin with")
    with preparing(prepare), in_line(target, lock_timeout, report) as (lock, connection):
        lock.take()
        check_in_place(connection)
        try:
            with exclusive(connection):
                applied = _applied(connection, given)
                left_out = other_tools.found(connection)
                layout, id = first(name, path, now=now)
                texts = _texts(connection, given, layout, id, left_out, applied)
                paths = create(path, texts)
                unusable = _note(connection, given, id, left_out, applied)
        except CommitUnknown as error:
            error.advice = f"`dao status` says whether {id} is applied; if not, `dao mark {id}` notes it."
            raise
        except BaseException:
            if paths and _is_unmarked(connection, id):
                remove(path, paths)
            raise
    return Baseline(id=id, paths=paths, left_out=tuple(left_out), broken=tuple(unusable))


def _is_unmarked(connection: Connection, id: str) -> bool:
    """Return whether a migration is not noted as applied, for certain: an interruption may come after the commit."""
    try:
        with translated(connection):
            noted = ledger.read(connection).ids
    except (DriverError, Error):
        return False
    return id not in noted


def _applied(connection: Connection, folder: Folder) -> list[tuple[str, str]]:
    """Return the scripts that are applied of other sets; refuse a ledger in which this one is, or may be.

    Raises:
        MigrationError: It is; or nobody has the text of one that is applied.
    """
    state = ledger.read(connection)
    own = set_name(folder.path, folder.name)
    sets = {entry.id: entry.set for entry in state.entries} | dict(state.begun_in)
    if ids := [id for id in dict.fromkeys([*state.ids, *state.unfinished]) if sets.get(id) in {None, own}]:
        which = ids[0] if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
        raise MigrationError(
            f"{state.database} has a ledger already, with {visible(which, line=True)}, and a baseline is where one "
            "begins. Write what else is there as a migration (`dao new`), and note that with `dao mark`"
        )
    for other in other_tools.found(connection):
        applied = other_tools.applied_by(connection, other.tool) if other.tells else None
        if applied is not None and not applied.is_nothing:
            raise MigrationError(
                f"{other.tool} has migrated {state.database}, as its table {other.table} says: take that over with "
                f"`dao adopt --from {other.tool}`; or, to begin anew without it, drop that table first"
            )
    return scripts_of((), state)


# ---------------------------------------------------------------- the script


def _texts(
    connection: Connection,
    given: Folder,
    layout: Layout,
    id: str,
    left_out: Sequence[OtherLedger],
    applied: Sequence[tuple[str, str]],
) -> dict[str, str]:
    """Return the texts of the migration by the names of its files.

    Raises:
        MigrationError: There is nothing to write, or the folder has it already.
    """
    folder = given.path or default_folder()
    found = _of(connection).statements(connection, {fold(other.table) for other in left_out}, applied)
    if not found:
        beside = " but those of other sets" * bool(applied)
        raise MigrationError(
            f"{name_of(connection)} holds no table and no view{beside}: write the first migration with `dao new`"
        )
    script = "\n".join(_statement(sql, layout) for sql in found)
    _, names = layout_and_names(folder)
    _refuse_makers(migrations_for(connection, given) if names else (), id, script, connection, folder)
    return texts_of(
        folder,
        layout,
        id,
        comment=_COMMENT if has_rollback(folder, layout) else _COMMENT + _NO_ROLLBACK,
        script=script,
        rollback=_ROLLBACK.format(id=id),
    )


def _statement(sql: str, layout: Layout) -> str:
    if layout in {"goose", "sql-migrate"} and ";" in sql[:-1]:  # they end a statement at each
        mark = UP[layout].removesuffix(" Up")
        return f"{mark} StatementBegin\n{sql}\n{mark} StatementEnd\n"
    return f"{sql}\n"


def _refuse_makers(migrations: Sequence[Migration], id: str, script: str, connection: Connection, folder: Path) -> None:
    """Refuse a folder whose migrations make what is there, by themselves or after the baseline.

    Raises:
        MigrationError: They do.
    """
    made = _of(connection).makers(connection, migrations, (id, script))
    if made:
        shown = visible(", ".join(sorted(made)[:3]), line=True)
        raise MigrationError(
            f"the migrations in {folder} make what is there already ({shown}): mark those as applied that have made it "
            "(`dao mark ID`, which runs nothing), or name another folder with --migrations"
        )


# ---------------------------------------------------------------- the ledger


def _note(
    connection: Connection,
    folder: Folder,
    id: str,
    left_out: Sequence[OtherLedger],
    applied: Sequence[tuple[str, str]],
) -> list[Unusable]:
    """Note the migration as applied, once it has proved to make the schema that is there; return what does not work.

    Raises:
        MigrationError: It does not.
    """
    name = name_of(connection)
    try:
        files = migrations_for(connection, folder)
    except MigrationFileError as error:
        raise MigrationError(
            f"the schema of {name} cannot be a file of this layout ({error}): rename or drop what is named there"
        ) from error
    writer = Writer(connection, files)
    own = next(migration for migration in files if migration.id == id)
    writer.mark(own, files, operation="baseline")
    try:
        differing, unusable = _of(connection).remade(
            connection, own, {fold(other.table) for other in left_out}, applied
        )
    except MigrationError as error:
        raise MigrationError(
            f"the schema of {name} cannot be made anew from its own text ({error}): mend or drop what is named there"
        ) from error
    if differing:
        raise MigrationError(
            f"the schema of {name} is not the same when it is made anew from its own text: mend or drop what differs",
            details=differing,
        )
    if late := compare(files, writer.after).out_of_order:
        raise MigrationError(f"{late[0]} would come before the baseline: give it a number, or name another folder")
    drift.record(connection, files, drift.Moment(writer.before), drift.Moment(writer.after, clean=not applied))
    return unusable
