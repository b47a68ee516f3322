"""A new, empty pair of scripts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dao.errors import MigrationError
from dao.migrate.scripts import ids, layouts
from dao.migrate.scripts.load import default_folder, load

__all__ = ["new"]


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
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    if not slug:
        raise MigrationError(f"a migration's name needs a letter or a digit (a-z, 0-9), got {name!r}")
    if not path.is_dir():
        raise MigrationError(f"{path}: the migrations folder does not exist; create it first")
    layout, names = layouts.layout_and_names(path)
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0)
    id = _new_id(names, layout, slug, moment)
    texts = _new_texts(layout, id, slug, _depends(path, names, layout), undo=any(path.glob("U*__*.sql")))
    paths = tuple(path / name for name in texts)
    with contextlib.ExitStack() as unless_done:
        file = paths[0].parent
        try:
            if layout == "diesel":
                file.mkdir()
                unless_done.callback(file.rmdir)
            for file, text in zip(paths, texts.values(), strict=True):
                with file.open("x", encoding="utf-8") as opened:
                    unless_done.callback(file.unlink)
                    opened.write(text)
        except OSError as error:
            raise MigrationError(f"{file}: cannot be written: {error.strerror}") from error
        unless_done.pop_all()
    return paths


def _new_id(names: Sequence[str], layout: layouts.Layout, slug: str, moment: datetime) -> str:
    """Return the id of a migration that comes after all those whose names begin with a number."""
    last = max(names, key=lambda name: ids.number(name) or (), default="")
    latest = ids.number_text(last) or ""
    v, separator = ("V", "__") if layout == "flyway" else ("", "_")
    if layout != "pair" and 0 < len(latest) < _TIME and "-" not in latest:
        rest = latest.rstrip("0123456789")
        final = latest[len(rest) :]
        return f"{v}{rest}{int(final) + 1:0{len(final)}}{separator}{slug}"
    number = (ids.number(last) or (0,))[0]
    if len(str(number)) == _TIME:
        with contextlib.suppress(ValueError, OverflowError):  # not all are a time, or one after which there is another
            moment = max(moment, datetime.strptime(f"{number}Z", "%Y%m%d%H%M%S%z") + timedelta(seconds=1))
    if int(f"{moment:%Y%m%d%H%M%S}") <= number:
        return f"{v}{number + 1}{separator}{slug}"
    form = "%Y-%m-%d-%H%M%S" if layout == "diesel" and "-" in latest else "%Y%m%d%H%M%S"
    return f"{v}{moment:{form}}{separator}{slug}"


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


def _new_texts(layout: layouts.Layout, id: str, slug: str, depends: str, *, undo: bool) -> dict[str, str]:
    """Return the texts of a new migration by the names of the files."""
    title = slug.replace("_", " ").capitalize()
    script = f"-- {title}: what for.\n-- Say what it locks or rewrites, and what its rollback loses.\n{depends}\n"
    rollback = f"-- Undoes {id}. Say what it loses.\n\n"
    match layout:
        case "dbmate":
            return {f"{id}.sql": f"{script}-- migrate:up\n\n\n-- migrate:down\n\n"}
        case "goose":
            return {f"{id}.sql": f"{script}-- +goose Up\n\n\n-- +goose Down\n\n"}
        case "diesel":
            return {f"{id}/up.sql": script, f"{id}/down.sql": rollback}
        case "flyway":
            return {f"{id}.sql": script} | ({f"U{id[1:]}.sql": rollback} if undo else {})
        case "up/down":
            return {f"{id}.up.sql": script, f"{id}.down.sql": rollback}
        case "pair":
            return {f"{id}.sql": script, f"{id}.rollback.sql": rollback}
