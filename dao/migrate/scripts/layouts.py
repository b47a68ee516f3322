"""The scripts in a folder, in the layout of the tool that it was written for. Every malformed folder is refused here.

The layouts: pairs of `NAME.sql` and `NAME.rollback.sql` (yoyo, and this project) or of `NAME.up.sql` and
`NAME.down.sql` (sqlx, golang-migrate); one file with two sections (dbmate, goose, sql-migrate); folders with
`up.sql` and `down.sql` (diesel); `V1__NAME.sql` with `U1__NAME.sql` (Flyway). Names and contents tell which it is.
Nothing here understands SQL: where a section begins is said by lines that the tools too find without looking at what
is around them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from dao.errors import MigrationFileError
from dao.migrate.scripts import sections
from dao.migrate.scripts.directives import ALONE
from dao.migrate.scripts.files import File, Refusals, check_name, is_folder, is_script, listing, refuse, text_of
from dao.migrate.scripts.ids import normal, version
from dao.migrate.scripts.misnamed import misnamed, nearest, script_meant

__all__ = ["Layout", "layout_and_names", "read"]

#: "pair": `NAME.sql` + `NAME.rollback.sql`; "up/down": `NAME.up.sql` + `NAME.down.sql`. These two may be mixed.
Layout = Literal["pair", "up/down", "dbmate", "goose", "sql-migrate", "diesel", "flyway"]
#: A migration's id and its two scripts. Where one file holds both, each text has its lines where the file has them.
Pair = tuple[str, File, File | None]

_UP_SUFFIXES = (".up.sql", ".sql")
_DOWN_SUFFIXES = (".rollback.sql", ".down.sql")
_SUFFIXES = (*_DOWN_SUFFIXES, ".up.sql")
# the layouts of files that only one tool has
_OTHERS: tuple[Layout, ...] = (*sections.TOOLS, "flyway")
_ODD = "{}, unlike most here: make it like them, or keep the files of different tools in folders of their own"

_FLYWAYS = re.compile(r"(?:[VUB][0-9]+(?:[._][0-9]+)*|R)__.*\.sql", re.DOTALL)
_FLYWAY = re.compile(r"([VUB])([0-9]+(?:[._][0-9]+)*)(?:__.*)?\.sql", re.DOTALL)
_CALLBACK = re.compile(r"(?:before|after|create)[A-Z][A-Za-z]*(?:__.*)?\.sql", re.DOTALL)
_PLACEHOLDER = re.compile(r"\$\{[^}\n]*\}")


def read(folder: Path, refused: Refusals) -> list[Pair]:
    """Return the scripts of the folder's migrations, sorted by file name, without those that are `refused`.

    The texts have LF line ends and no byte order mark. A tool's word on a migration outside of its script (the
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
        refuse(
            folder,
            "the folder holds no migration; a migration is NAME.sql with NAME.rollback.sql. `dao new` writes an empty "
            "one, `dao baseline` one of the schema of a database that is there",
        )
    if layout == "flyway":
        return _flyway(entries, texts, refused)
    if layout in sections.TOOLS:
        return _sectioned(texts, layout, refused)
    return _pairs(texts, refused)


def layout_and_names(folder: Path) -> tuple[Layout, list[str]]:
    """Return the layout of the folder, "pair" if it holds no migration yet, and the names of the files that are in it.

    Raises:
        MigrationFileError: A file is not what it should be.
    """
    refused = Refusals()
    entries = listing(folder)
    layout, texts = _detected(entries, refused)
    refused.raise_all()
    if layout == "diesel":
        return layout, [entry.name for entry in entries if _is_diesel(entry)]
    kinds = _kinds(texts)
    return layout, [path.name for path, kind in kinds.items() if kind == layout or not {kind, layout} & {*_OTHERS}]


def _detected(entries: Sequence[os.DirEntry[str]], refused: Refusals) -> tuple[Layout, dict[Path, str]]:
    """Return the layout of a folder, and the texts of its scripts by path if they are not in folders of their own.

    It is that of most migrations. Files of another tool among them are refused by name.
    """
    folders = [entry for entry in entries if _is_diesel(entry)]
    files = sum(entry.name.endswith(".sql") and not entry.name.endswith(_DOWN_SUFFIXES) for entry in entries)
    if folders and len(folders) >= files:
        return "diesel", {}
    texts: dict[Path, str] = {}
    for entry in entries:
        with refused:
            path = Path(entry.path)
            if entry in folders:
                refuse(path, _ODD.format("a folder like diesel's"))
            if is_script(entry, path):
                texts[path] = text_of(path)
    kinds = _kinds(texts)
    layout = _of_most(kinds.values())
    if layout not in sections.TOOLS:  # their files are looked at one by one
        for path, kind in kinds.items():
            if kind in _OTHERS and kind != layout:
                del texts[path]
                with refused:
                    refuse(path, _ODD.format("named like Flyway's" if kind == "flyway" else f"written for {kind}"))
    return layout, texts


def _kinds(texts: Mapping[Path, str]) -> dict[Path, Layout]:
    """Return the layout of each migration: by what is in its script, else by its name."""
    suffixed = [path.name for path in texts if path.name.endswith(_SUFFIXES)]
    ups = sum(not path.name.endswith(_DOWN_SUFFIXES) for path in texts)
    theirs = [path.name for path in texts if _FLYWAYS.fullmatch(path.name)]
    if suffixed and (2 * len(theirs) <= ups or not {*theirs}.isdisjoint(suffixed)):
        theirs = []  # these names do for pairs, too
    kinds: dict[Path, Layout] = {}
    for path, text in texts.items():
        if tool := next((tool for tool in sections.TOOLS if sections.is_marked(text, tool)), None):
            kinds[path] = tool
        elif not path.name.endswith(_DOWN_SUFFIXES):
            is_theirs = path.name in theirs or (theirs and _CALLBACK.fullmatch(path.name))
            kinds[path] = "flyway" if is_theirs else "up/down" if path.name.endswith(".up.sql") else "pair"
    return kinds


def _of_most(kinds: Iterable[Layout]) -> Layout:
    """Return the layout of most migrations; where it is even, what only one tool has counts for more."""
    votes = Counter(kinds)
    layout = max(_OTHERS, key=votes.__getitem__)
    if votes[layout] >= max(votes["pair"] + votes["up/down"], 1):
        return layout
    return "up/down" if votes["up/down"] >= max(votes["pair"], 1) else "pair"


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


def _pairs(texts: Mapping[Path, str], refused: Refusals) -> list[Pair]:
    """Return pairs. Two may have one number: the ids tell them apart, and many tools that name files so do not mind."""
    ups: dict[str, File] = {}
    downs: dict[str, File] = {}
    for path, text in texts.items():
        with refused:
            found, suffixes = (downs, _DOWN_SUFFIXES) if path.name.endswith(_DOWN_SUFFIXES) else (ups, _UP_SUFFIXES)
            suffix = next(suffix for suffix in suffixes if path.name.endswith(suffix))
            id = normal(path.name.removesuffix(suffix))
            if id in found:
                other = found[id][0].name
                alike = (
                    " (the names differ in Unicode's normal form only)" if normal(other) == normal(path.name) else ""
                )
                refuse(
                    path, f"the migration {id} has a script like this already, {other}{alike}; remove one of the two"
                )
            found[id] = path, text
    for id, reason in misnamed(ups, {id: path.name for id, (path, _) in downs.items()}):
        with refused:
            refuse((ups.get(id) or downs.pop(id))[0], reason)
    # what could not be read is there all the same
    unread = {error.path.name.lower() for error in refused if error.path is not None}
    for id in sorted(downs.keys() - ups.keys()):
        if unread.isdisjoint(f"{id}{suffix}".lower() for suffix in _UP_SUFFIXES):
            with refused:
                path, _ = downs.pop(id)
                like = nearest(id, ups)
                which = f" (the nearest is {ups[like][0].name})" if like else ""
                refuse(path, f"a rollback script without its migration{which}; add {id}.sql beside it or remove it")
    return [(id, up, downs.get(id)) for id, up in ups.items()]


# ---------------------------------------------------------------- dbmate, goose, sql-migrate: two sections in one file


def _sectioned(texts: Mapping[Path, str], tool: str, refused: Refusals) -> list[Pair]:
    marked = {path.stem: path for path, text in texts.items() if sections.is_marked(text, tool)}
    _refuse_collisions(marked, tool, refused)
    example = next(iter(marked.values()))
    found: list[Pair] = []
    for path, text in texts.items():
        with refused:
            if path.stem not in marked:
                refuse(
                    path,
                    f"has no line `{sections.UP[tool]}`, and {example.name} is written for {tool}: add that line, or "
                    "keep the files of different tools in folders of their own",
                )
            up, down = sections.split(path, text, tool)
            found.append((normal(path.stem), (path, up), None if down is None else (path, down)))
    return found


# ---------------------------------------------------------------- diesel: a folder for each


def _is_diesel(entry: os.DirEntry[str]) -> bool:
    return is_folder(entry) and any(os.path.lexists(os.path.join(entry.path, name)) for name in ("up.sql", "down.sql"))


def _diesel(entries: Iterable[os.DirEntry[str]], refused: Refusals) -> list[Pair]:
    found: list[Pair] = []
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
    _refuse_collisions({id: path for id, (path, _), _ in found}, "diesel", refused)
    return found


def _in_folder(folder: Path, refused: Refusals) -> Pair:
    names = {inner.name for inner in listing(folder)}
    for name in sorted(names - {"up.sql", "down.sql", "metadata.toml"}):
        meant = "metadata.toml" if name.lower() == "metadata.toml" else script_meant(name)
        if meant is not None:
            with refused:
                refuse(folder / name, f"would be passed over; rename it to {meant}, or move it elsewhere")
    if "up.sql" not in names:
        refuse(folder, "a folder without up.sql among diesel's migrations; add it, or move the folder elsewhere")
    prefix = "" if "metadata.toml" not in names or _in_transaction(folder / "metadata.toml") else ALONE
    up, down = folder / "up.sql", folder / "down.sql"
    return normal(folder.name), (up, prefix + text_of(up)), (down, text_of(down)) if "down.sql" in names else None


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


def _flyway(entries: Iterable[os.DirEntry[str]], texts: Mapping[Path, str], refused: Refusals) -> list[Pair]:
    ups: dict[str, Path] = {}
    downs: dict[str, Path] = {}  # by the id of the V script
    for path in texts:
        with refused:
            match = _FLYWAY.fullmatch(path.name)
            if match is None or match[1] == "B":
                refuse(path, _not_run(path.name))
            (ups if match[1] == "V" else downs)[f"V{path.stem[1:]}"] = path
    for entry in entries:
        with refused:
            if is_folder(entry) and (inner := next(Path(entry.path).rglob("[VUR]*__*.sql"), None)):
                refuse(inner, "Flyway looks into folders in folders, and here that is not done; move it up")
    _refuse_collisions(ups, "flyway", refused)
    _refuse_collisions(downs, "flyway", refused)
    undo = {version(id, "flyway"): path for id, path in downs.items()}
    found: list[Pair] = []
    for id, path in ups.items():
        with refused:
            down = undo.pop(version(id, "flyway"), None)
            up = path, _flyway_text(path, texts[path])
            found.append((normal(id), up, None if down is None else (down, _flyway_text(down, texts[down]))))
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
    if _CALLBACK.fullmatch(name):
        return "callbacks are not run here; make it a versioned script, or run it after `dao migrate`"
    return "not a name of Flyway's among others that are; rename it like V2__add_x.sql, or move it out of the folder"


def _flyway_text(path: Path, text: str) -> str:
    """Return the text of a script, with what the file beside it says of it."""
    config = path.with_name(f"{path.name}.conf")
    lines = text_of(config).split("\n") if config.exists() else ()
    rows = (line.partition("=") for line in lines if line.strip() and line.lstrip()[0] != "#")
    settings = {name.strip(): value.strip().lower() for name, _, value in rows}
    for name, value in settings.items():
        if name not in {"executeInTransaction", "placeholderReplacement"} or value not in {"true", "false"}:
            refuse(
                config, f"`{name}={value}` means nothing here; only executeInTransaction and placeholderReplacement do"
            )
    match = _PLACEHOLDER.search(text)
    if match and settings.get("placeholderReplacement") != "false":
        line = text.count("\n", 0, match.start()) + 1
        refuse(path, f"{match[0]} is a placeholder, and nothing is replaced here; write its value", line)
    return (ALONE if settings.get("executeInTransaction") == "false" else "") + text
