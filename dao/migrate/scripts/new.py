"""A new, empty pair of scripts."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dao.errors import MigrationError
from dao.migrate.scripts import ids, layouts
from dao.migrate.scripts.load import default_folder

__all__ = ["new"]


#: How many digits a time has as an id.
_TIME = 14


def new(name: str, folder: str | os.PathLike[str] | None = None, *, now: datetime | None = None) -> tuple[Path, ...]:
    """Create an empty migration in the folder's layout and return the paths of its files, two or one.

    The id is the time in UTC and the name in snake case, such as `20250115010000_create_tasks`; a second later than
    the latest id there is, if the clock is behind that. Among another tool's files with small numbers it is the next
    of these.

    Raises:
        MigrationError: The name holds no letter or digit, the files cannot be written, or no folder is given where this
            package is installed.
        MigrationFileError: The folder's layout cannot be told.
    """
    path = default_folder(write=True) if folder is None else Path(folder)
    slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_")
    if not slug:
        raise MigrationError(f"a migration's name needs a letter or a digit (a-z, 0-9), got {name!r}")
    if not path.is_dir():
        raise MigrationError(f"{path}: the migrations folder does not exist; create it first")
    layout = layouts.layout_of(path)
    moment = (datetime.now(UTC) if now is None else now.astimezone(UTC)).replace(microsecond=0)
    texts = _new_texts(layout, _new_id(path, layout, slug, moment), slug, undo=any(path.glob("U*__*.sql")))
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


def _new_id(folder: Path, layout: layouts.Layout, slug: str, moment: datetime) -> str:
    """Return the id of a migration that comes after all that are there."""
    names = [name for name in os.listdir(folder) if layout == "diesel" or name.endswith(".sql")]
    latest = ids.number_text(max(names, key=lambda name: ids.number(name) or (), default="")) or ""
    v, separator = ("V", "__") if layout == "flyway" else ("", "_")
    if layout != "pair" and 0 < len(latest) < _TIME and "-" not in latest:
        rest = latest.rstrip("0123456789")
        last = latest[len(rest) :]
        return f"{v}{rest}{int(last) + 1:0{len(last)}}{separator}{slug}"
    for name in names:
        number = ids.number(name)
        if number is not None and len(str(number[0])) == _TIME:
            try:
                moment = max(moment, datetime.strptime(f"{number[0]}Z", "%Y%m%d%H%M%S%z") + timedelta(seconds=1))
            except ValueError:
                continue  # fourteen digits that are no time
    form = "%Y-%m-%d-%H%M%S" if layout == "diesel" and "-" in latest else "%Y%m%d%H%M%S"
    return f"{v}{moment:{form}}{separator}{slug}"


def _new_texts(layout: layouts.Layout, id: str, slug: str, *, undo: bool) -> dict[str, str]:
    """Return the texts of a new migration by the names of the files."""
    title = slug.replace("_", " ").capitalize()
    script = f"-- {title}: what for.\n-- Say what it locks or rewrites, and what its rollback loses.\n\n"
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
