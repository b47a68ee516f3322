"""New migrations: their ids, and their files in the layout of the folder."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dao.errors import MigrationError
from dao.migrate.scripts import ids, layouts, sections
from dao.migrate.scripts.load import default_folder, load

__all__ = ["create", "first", "has_rollback", "new", "remove", "texts_of"]


#: How many digits a time has as an id.
_TIME = 14


def new(name: str, folder: str | os.PathLike[str] | None = None, *, now: datetime | None = None) -> tuple[Path, ...]:
    """Create an empty migration in the folder's layout and return the paths of its files, two or one.

    The id is the time in UTC and the name in snake case, such as `20250115010000_create_tasks`; a second later than
    the latest id there is, if the clock is behind that. Among another tool's files with small numbers it is the next
    of these. Where ids have no number, so that it would come before them, it says that it depends on the last.

    Raises:
        MigrationError: The name holds no letter or digit, the files cannot be written, or no folder is given where this
            package is installed. Or the migration on which it would have to depend has a blank in its id.
        MigrationFileError: The folder's layout, or the order of its migrations, cannot be told.
    """
    path = default_folder(write=True) if folder is None else Path(folder)
    slug, layout, names, moment = _looked_at(name, path, now)
    id = _new_id(names, layout, slug, moment)
    title = slug.replace("_", " ").capitalize()
    comment = f"-- {title}: what for.\n-- Say what it locks or rewrites, and what its rollback loses.\n"
    comment += _depends(path, names, layout)
    rollback = "" if layout in sections.TOOLS else f"-- Undoes {id}. Say what it loses.\n\n"
    return create(path, texts_of(path, layout, id, comment=comment, script="", rollback=rollback))


def first(name: str, folder: Path, *, now: datetime | None = None) -> tuple[layouts.Layout, str]:
    """Return the layout of a folder, and the id of a new migration that comes before all that are there.

    Raises:
        MigrationError: The name holds no letter or digit, the folder does not exist, or no number comes before those
            that are there.
        MigrationFileError: The folder's layout cannot be told.
    """
    slug, layout, names, moment = _looked_at(name, folder, now)
    numbered = [(its, name) for name in names if (its := ids.number(name)) is not None]
    if not numbered:
        return layout, _new_id(names, layout, slug, moment)
    (number, *_), earliest = min(numbered)
    text = ids.number_text(earliest) or ""
    if len(str(number)) == _TIME:
        with contextlib.suppress(ValueError, OverflowError):  # as in `_new_id`
            moment = min(moment, datetime.strptime(f"{number}Z", "%Y%m%d%H%M%S%z") - timedelta(seconds=1))
        if int(f"{moment:%Y%m%d%H%M%S}") < number:
            return layout, _id(layout, f"{moment:{_form(layout, text)}}", slug)
    before = _counted_on(text, -1)
    if before is None:
        raise MigrationError(f"{folder / earliest}: no number comes before its own: give it a larger one")
    return layout, _id(layout, before, slug)


def _looked_at(name: str, folder: Path, now: datetime | None) -> tuple[str, layouts.Layout, Sequence[str], datetime]:
    """Return the name as an id has it, the layout of a folder, the names in it, and the time."""
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    if not slug:
        raise MigrationError(f"a migration's name needs a letter or a digit (a-z, 0-9), got {name!r}")
    if not folder.is_dir():
        raise MigrationError(f"{folder}: the migrations folder does not exist; create it first")
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0)
    return slug, *layouts.layout_and_names(folder), moment


# ---------------------------------------------------------------- files


def create(folder: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Write new files into a folder, all or none, and onto the disk; return their paths. None replaces another.

    Raises:
        MigrationError: One is there already, or cannot be written.
    """
    paths = tuple(folder / name for name in texts)
    with contextlib.ExitStack() as unless_done:
        file = paths[0].parent
        try:
            if file != folder:
                file.mkdir()
                unless_done.callback(file.rmdir)
            for file, text in zip(paths, texts.values(), strict=True):
                with file.open("x", encoding="utf-8", newline="") as opened:
                    unless_done.callback(file.unlink)
                    opened.write(text)
                    opened.flush()
                    os.fsync(opened.fileno())
        except OSError as error:
            raise MigrationError(f"{file}: cannot be written: {error.strerror}") from error
        unless_done.pop_all()
    return paths


def remove(folder: Path, paths: Sequence[Path]) -> None:
    """Take files away that `create` has written into a folder."""
    with contextlib.suppress(OSError):
        for path in paths:
            path.unlink(missing_ok=True)
        if paths and paths[0].parent != folder:
            paths[0].parent.rmdir()


def has_rollback(folder: Path, layout: layouts.Layout) -> bool:
    """Return whether a migration gets a rollback script: among Flyway's files only where others have one."""
    return layout != "flyway" or any(folder.glob("U*__*.sql"))


def texts_of(
    folder: Path, layout: layouts.Layout, id: str, *, comment: str, script: str, rollback: str
) -> dict[str, str]:
    """Return the texts of a migration by the names of its files. `comment` comes first of all, in lines of its own."""
    up = f"{comment}\n{script}"
    match layout:
        case "dbmate" | "goose" | "sql-migrate":
            begin, end = sections.UP[layout], sections.DOWN[layout]
            return {f"{id}.sql": f"{comment}\n{begin}\n\n{script}\n{end}\n\n{rollback}"}
        case "diesel":
            return {f"{id}/up.sql": up, f"{id}/down.sql": rollback}
        case "flyway":
            return {f"{id}.sql": up} | ({f"U{id[1:]}.sql": rollback} if has_rollback(folder, layout) else {})
        case "up/down":
            return {f"{id}.up.sql": up, f"{id}.down.sql": rollback}
        case "pair":
            return {f"{id}.sql": up, f"{id}.rollback.sql": rollback}


# ---------------------------------------------------------------- ids


def _new_id(names: Sequence[str], layout: layouts.Layout, slug: str, moment: datetime) -> str:
    """Return the id of a migration that comes after all those whose names begin with a number."""
    last = max(names, key=lambda name: ids.number(name) or (), default="")
    latest = ids.number_text(last) or ""
    if layout != "pair" and 0 < len(latest) < _TIME and "-" not in latest:
        return _id(layout, _counted_on(latest, 1), slug)
    number = (ids.number(last) or (0,))[0]
    if len(str(number)) == _TIME:
        with contextlib.suppress(ValueError, OverflowError):  # not all are a time, or one after which there is another
            moment = max(moment, datetime.strptime(f"{number}Z", "%Y%m%d%H%M%S%z") + timedelta(seconds=1))
    if int(f"{moment:%Y%m%d%H%M%S}") <= number:
        return _id(layout, number + 1, slug)
    return _id(layout, f"{moment:{_form(layout, latest)}}", slug)


def _id(layout: layouts.Layout, number: object, slug: str) -> str:
    return f"V{number}__{slug}" if layout == "flyway" else f"{number}_{slug}"


def _counted_on(text: str, by: int) -> str | None:
    """Return a number with another last part, as wide as it was; None if that would be below 0."""
    rest = text.rstrip("0123456789")
    final = text[len(rest) :]
    number = int(final) + by
    return None if number < 0 else f"{rest}{number:0{len(final)}}"


def _form(layout: layouts.Layout, like: str) -> str:
    """Return how ids have the time, where one of them is like this."""
    return "%Y-%m-%d-%H%M%S" if layout == "diesel" and "-" in like else "%Y%m%d%H%M%S"


def _depends(folder: Path, names: Sequence[str], layout: layouts.Layout) -> str:
    """Return the directive by which a new migration comes last; nothing where its number says so.

    Raises:
        MigrationError: No directive can name what it has to come after.
    """
    if layout == "flyway" or all(map(ids.number, names)):
        return ""
    last = load(folder)[-1].id
    if len(last.split()) > 1:
        raise MigrationError(
            f"{folder}: {last} does not begin with a number, so that a new migration would come before it, and has a "
            "blank in its name, so that none can depend on it. Rename it; `dao accept` notes that where it is applied"
        )
    return f"-- depends: {last}\n"
