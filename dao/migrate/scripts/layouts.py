"""The scripts in a folder, in the layout of the tool that it was written for. Every malformed folder is refused here.

The layouts: pairs of `NAME.sql` and `NAME.rollback.sql` (yoyo, and this project) or of `NAME.up.sql` and `NAME.down.sql`
(sqlx, golang-migrate); one file with two sections (dbmate, goose); folders with `up.sql` and `down.sql` (diesel);
`V1__NAME.sql` with `U1__NAME.sql` (Flyway). Names and contents tell which it is. Nothing here understands SQL: where a
section begins is said by lines that the tools too find without looking at what is around them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from dao.errors import MigrationFileError
from dao.migrate.scripts import sections
from dao.migrate.scripts.directives import ALONE
from dao.migrate.scripts.folder import Refusals, check_name, is_folder, is_script, listing, normal, refuse, text_of
from dao.migrate.scripts.misnamed import misnamed, nearest, script_meant

__all__ = ["Layout", "Scripts", "layout_of", "number", "number_text", "read", "version"]

#: "pair": `NAME.sql` + `NAME.rollback.sql`; "up/down": `NAME.up.sql` + `NAME.down.sql`. These two may be mixed.
Layout = Literal["pair", "up/down", "dbmate", "goose", "diesel", "flyway"]

T = TypeVar("T")

_SCRIPT_SUFFIXES = (".up.sql", ".sql")
_ROLLBACK_SUFFIXES = (".rollback.sql", ".down.sql")
_PAIR_SUFFIXES = (*_ROLLBACK_SUFFIXES, ".up.sql")

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:-([0-9]{6}))?(?:-([0-9]+))?(?=_|$)")
_FLYWAY_NUMBER = re.compile(r"V([0-9]+(?:[._][0-9]+)*)(?=__|$)")

_FLYWAY_FOLDER = re.compile(r"(?:[VUB][0-9]+(?:[._][0-9]+)*|R)__.*\.sql", re.DOTALL)
# not compiled here: only folders of Flyway's need them
_FLYWAY = r"(?s)([VUB])([0-9]+(?:[._][0-9]+)*)(?:__.*)?\.sql"
_CALLBACK = r"(?s)(?:before|after|create)[A-Z][A-Za-z]*(?:__.*)?\.sql"
_PLACEHOLDER = r"\$\{[^}\n]*\}"


class Scripts(NamedTuple):
    """The scripts of one migration. In a layout of one file both paths are that file, and lines keep their numbers."""

    # a tuple, as nobody keeps them: each attrs class costs every command a millisecond
    id: str
    path: Path
    text: str
    rollback_path: Path | None = None
    rollback_text: str | None = None


def read(folder: Path, refused: Refusals) -> list[Scripts]:
    """Return the scripts of the folder's migrations, sorted by file name, without those that are `refused`.

    The texts have LF line ends and no byte order mark. What a tool says about a migration outside of its script (the
    `metadata.toml` of diesel) stands in a comment in the first line of the text.

    Raises:
        MigrationFileError: It is no folder, or holds no migration.
    """
    entries = listing(folder)
    layout, texts = _detected(entries, refused)
    if layout == "diesel":
        return _diesel(entries, refused)
    if not texts:
        refused.raise_all()
        raise MigrationFileError(
            f"{folder}: the folder holds no migration; a migration is NAME.sql with NAME.rollback.sql", path=folder
        )
    if layout == "flyway":
        return _flyway(entries, dict(texts), refused)
    if layout in {"dbmate", "goose"}:
        return _sectioned(entries, dict(texts), layout, refused)
    return _pairs(texts, refused)


def layout_of(folder: Path) -> Layout:
    """Return the layout of the folder; "pair" if it holds no migration yet.

    Raises:
        MigrationFileError: A file is not what it should be.
    """
    refused = Refusals()
    layout, _ = _detected(listing(folder), refused)
    refused.raise_all()
    return layout


def _detected(entries: Sequence[os.DirEntry[str]], refused: Refusals) -> tuple[Layout, list[tuple[Path, str]]]:
    """Return the layout of a folder, and the paths and texts of its scripts if they are not in folders of their own."""
    if any(_is_diesel(entry) for entry in entries):
        return "diesel", []
    texts = []
    for entry in entries:
        with refused:
            path = Path(entry.path)
            if is_script(entry, path):
                texts.append((path, text_of(path)))
    paths = [path for path, _ in texts]
    if any(_FLYWAY_FOLDER.fullmatch(path.name) for path in paths) and not any(
        path.name.endswith(_PAIR_SUFFIXES) for path in paths
    ):
        return "flyway", texts
    if any(sections.is_marked(text, "dbmate") for _, text in texts):
        return "dbmate", texts
    if any(sections.is_marked(text, "goose") for _, text in texts):
        return "goose", texts
    return "up/down" if paths and all(path.name.endswith((".up.sql", ".down.sql")) for path in paths) else "pair", texts


def number(id: str) -> tuple[int, ...] | None:
    """Return the number that an id begins with, by which it sorts, in its parts: (1, 10) for `1.10_a`; None without one.

    A date is one number, whichever way it is written: `2025-01-15-010000_a` is `20250115010000_a`. An id of Flyway's has
    its number after the V, where underscores part it too.
    """
    plain = id.partition("_")[0]
    if plain.isdecimal() and plain.isascii():
        return (int(plain),)
    if match := _DATE.match(id):
        year, month, day, time, counter = match.groups()
        return (int(f"{year}{month}{day}{time or '000000'}"), *([] if counter is None else [int(counter)]))
    text = number_text(id)
    return None if text is None else tuple(int(part) for part in re.findall(r"[0-9]+", text))


def number_text(id: str) -> str | None:
    """Return the number that an id begins with as it is written there, without Flyway's V; None without one."""
    for pattern in (_DATE, _FLYWAY_NUMBER, _NUMBER):
        if match := pattern.match(id):
            return match[0].removeprefix("V")
    return None


def version(id: str, tool: str) -> str | None:
    """Return what a tool's own ledger calls the migration; None if the tool would not take it for one.

    Leading zeros, and Flyway's trailing `.0`, are left out where the tool does not tell them apart.
    """
    if tool == "diesel":
        return id.partition("_")[0].replace("-", "") or None
    if tool == "dbmate":
        match = re.match(r"[0-9]+", id)
        return None if match is None else match[0]
    if tool == "flyway":
        parts = list(number(id) or ()) if _FLYWAY_NUMBER.match(id) else []
        while len(parts) > 1 and parts[-1] == 0:
            del parts[-1]
        return ".".join(map(str, parts)) or None
    match = re.match(r"([0-9]+)_", id)
    return None if match is None else str(int(match[1]))


def _refuse_collisions(paths: Mapping[str, Path], tool: str, refused: Refusals) -> None:
    """Refuse ids, given with their files, that are one version for a tool: it would fail, too."""
    found: dict[str, Path] = {}
    for id, path in paths.items():
        with refused:
            its = version(id, tool)
            if its is None:
                refuse(path, f"the name must begin with a number, as {tool} needs it; rename it to 0001_{path.name}")
            if its in found:
                other = found[its].parent.name if tool == "diesel" else found[its].name
                refuse(path, f"has the version {its}, as {other} has; give one of the two another number")
            found[its] = path


# ---------------------------------------------------------------- pairs


def _pairs(texts: Iterable[tuple[Path, str]], refused: Refusals) -> list[Scripts]:
    """Return pairs. Two may have one number: the ids tell them apart, and many tools that name files so do not mind."""
    scripts: dict[str, tuple[Path, str]] = {}
    rollbacks: dict[str, tuple[Path, str]] = {}
    for path, text in texts:
        with refused:
            id, found = _id(path.name, scripts, rollbacks)
            if id in found:
                other = found[id][0].name
                alike = (
                    " (the names differ in Unicode's normal form only)" if normal(other) == normal(path.name) else ""
                )
                refuse(
                    path, f"the migration {id} has a script like this already, {other}{alike}; remove one of the two"
                )
            found[id] = path, text
    for id, reason in misnamed(scripts, {id: path.name for id, (path, _) in rollbacks.items()}):
        with refused:
            refuse((scripts.get(id) or rollbacks.pop(id))[0], reason)
    # what could not be read is there all the same
    unread = {error.path.name.lower() for error in refused if error.path is not None}
    for id in sorted(rollbacks.keys() - scripts.keys()):
        if unread.intersection(f"{id}{suffix}".lower() for suffix in _SCRIPT_SUFFIXES):
            continue
        with refused:
            path = rollbacks.pop(id)[0]
            like = nearest(id, scripts)
            which = f" (the nearest is {scripts[like][0].name})" if like else ""
            refuse(path, f"a rollback script without its migration{which}; add {id}.sql beside it or remove it")
    return [Scripts(id, *script, *rollbacks.get(id, (None, None))) for id, script in scripts.items()]


def _id(name: str, scripts: dict[str, T], rollbacks: dict[str, T]) -> tuple[str, dict[str, T]]:
    for suffixes, found in ((_ROLLBACK_SUFFIXES, rollbacks), (_SCRIPT_SUFFIXES, scripts)):
        for suffix in suffixes:
            if name.endswith(suffix) and name != suffix:
                return normal(name.removesuffix(suffix)), found
    raise AssertionError(name)  # hidden files and other suffixes were passed over


# ---------------------------------------------------------------- dbmate, goose: two sections in one file


def _sectioned(
    entries: Iterable[os.DirEntry[str]], texts: Mapping[Path, str], tool: str, refused: Refusals
) -> list[Scripts]:
    example = next(path for path, text in texts.items() if sections.is_marked(text, tool))
    for entry in entries:
        if tool == "goose" and re.match(r"[0-9]+_.*(?<!_test)\.go$", entry.name):
            with refused:
                refuse(Path(entry.path), "Go migrations are not run here; write it in SQL")
    _refuse_collisions(
        {path.stem: path for path, text in texts.items() if sections.is_marked(text, tool)}, tool, refused
    )
    found = []
    for path, text in texts.items():
        with refused:
            if not sections.is_marked(text, tool):
                refuse(
                    path,
                    f"has no line `{sections.UP[tool]}`, and {example.name} is written for {tool}: add that line, or keep the "
                    "files of different tools in folders of their own",
                )
            up, down = sections.split(path, text, tool)
            found.append(Scripts(normal(path.stem), path, up, None if down is None else path, down))
    return found


# ---------------------------------------------------------------- diesel: a folder for each


def _is_diesel(entry: os.DirEntry[str]) -> bool:
    return is_folder(entry) and any(os.path.lexists(os.path.join(entry.path, name)) for name in ("up.sql", "down.sql"))


def _diesel(entries: Iterable[os.DirEntry[str]], refused: Refusals) -> list[Scripts]:
    found = []
    for entry in entries:
        path = Path(entry.path)
        with refused:
            check_name(path)
            if is_folder(entry):
                found.append(_in_folder(path, refused))
            elif path.suffix.lower() == ".sql":
                refuse(
                    path, "a file beside folders of diesel's (NAME/up.sql); keep the two apart in folders of their own"
                )
    _refuse_collisions({scripts.id: scripts.path for scripts in found}, "diesel", refused)
    return found


def _in_folder(path: Path, refused: Refusals) -> Scripts:
    names = {inner.name for inner in listing(path)}
    for name in sorted(names - {"up.sql", "down.sql", "metadata.toml"}):
        meant = "metadata.toml" if name.lower() == "metadata.toml" else script_meant(name)
        if meant is not None:
            with refused:
                refuse(path / name, f"would be passed over; rename it to {meant}, or move it elsewhere")
    if "up.sql" not in names:
        refuse(path, "a folder without up.sql among diesel's migrations; add it, or move the folder elsewhere")
    prefix = "" if "metadata.toml" not in names or _in_transaction(path / "metadata.toml") else ALONE
    down = path / "down.sql" if "down.sql" in names else None
    return Scripts(
        id=normal(path.name),
        path=path / "up.sql",
        text=prefix + text_of(path / "up.sql"),
        rollback_path=down,
        rollback_text=None if down is None else text_of(down),
    )


def _in_transaction(path: Path) -> bool:
    import tomllib  # noqa: PLC0415 - only folders of diesel's need it

    try:
        value = tomllib.loads(text_of(path)).get("run_in_transaction")
    except tomllib.TOMLDecodeError as error:
        raise MigrationFileError(f"{path}: not TOML: {error}", path=path) from error
    if not isinstance(value, bool):
        # diesel takes false where it is missing
        refuse(path, "must say `run_in_transaction = true` or `run_in_transaction = false`")
    return value


# ---------------------------------------------------------------- Flyway


def _flyway(entries: Iterable[os.DirEntry[str]], texts: Mapping[Path, str], refused: Refusals) -> list[Scripts]:
    scripts: dict[str, Path] = {}
    undoing: dict[str, Path] = {}
    for path in texts:
        with refused:
            match = re.fullmatch(_FLYWAY, path.name)
            if match is None or match[1] == "B":
                refuse(path, _not_run(path.name))
            (scripts if match[1] == "V" else undoing)[path.stem] = path
    for entry in entries:
        with refused:
            if is_folder(entry) and (inner := next(Path(entry.path).rglob("[VUR]*__*.sql"), None)):
                refuse(inner, "Flyway looks into folders in folders, and here that is not done; move it up")
    _refuse_collisions(scripts, "flyway", refused)
    _refuse_collisions({f"V{id[1:]}": path for id, path in undoing.items()}, "flyway", refused)
    undo = {version(f"V{id[1:]}", "flyway"): path for id, path in undoing.items()}
    found = []
    for id, path in scripts.items():
        with refused:
            down = undo.pop(version(id, "flyway"), None)
            text = _flyway_text(path, texts[path])
            found.append(
                Scripts(normal(id), path, text, down, None if down is None else _flyway_text(down, texts[down]))
            )
    for path in undo.values():
        with refused:
            refuse(path, "an undo script without its migration; add the V script of this version or remove it")
    return found


def _not_run(name: str) -> str:
    """Say why a script of Flyway's other kinds is refused, and what to do."""
    if name.startswith("R__"):
        return "repeatable scripts are not run here; make it a versioned one, and another for each change to come"
    if name[0] == "B":
        return "baseline scripts are not run here, since the V scripts make the same; move it out of the folder"
    if re.fullmatch(_CALLBACK, name):
        return "callbacks are not run here; make it a versioned script, or run it after `dao migrate`"
    return "not a name of Flyway's among others that are; rename it like V2__add_x.sql, or move it out of the folder"


def _flyway_text(path: Path, text: str) -> str:
    """Return the text of a script, with what the file beside it says of it."""
    config = path.with_name(f"{path.name}.conf")
    settings = {}
    if config.exists():
        rows = (line.partition("=") for line in text_of(config).split("\n") if line.strip() and line.lstrip()[0] != "#")
        settings = {name.strip(): value.strip().lower() for name, _, value in rows}
    for name, value in settings.items():
        if name not in {"executeInTransaction", "placeholderReplacement"} or value not in {"true", "false"}:
            refuse(
                config, f"`{name}={value}` means nothing here; only executeInTransaction and placeholderReplacement do"
            )
    match = re.search(_PLACEHOLDER, text)
    if match and settings.get("placeholderReplacement") != "false":
        line = text.count("\n", 0, match.start()) + 1
        refuse(path, f"{match[0]} is a placeholder, and nothing is replaced here; write its value", line)
    return (ALONE if settings.get("executeInTransaction") == "false" else "") + text
