"""Scripts on disk -> migrations in order, and a new one beside them.

Which files make a migration, in which layout, is found in `layouts`, so that another project's folder can be taken as it
is. A migration's id is the name of its file, or folder, without suffixes.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from dao.errors import MigrationFileError
from dao.migrate.scripts import directives, layouts
from dao.migrate.scripts.folder import refuse
from dao.migrate.scripts.statements import broken_off, has_statement, start_of_statement

__all__ = [
    "Migration",
    "checksum",
    "from_texts",
    "has_statement",
    "refuse_broken_off",
    "sort_key",
    "start_of_statement",
]


@attrs.frozen(kw_only=True)
class Migration:
    """A pair of scripts. The texts have LF line ends and no byte order mark; `path` is where the first came from.

    `depends` holds the ids that must be applied before. `transactional` is false if the script says that it must run
    outside of a transaction. `foreign_keys`: it is to run with foreign keys enforced. `allows`: what it may lose. Those
    that begin with `rollback_` are the same of the second script.
    """

    id: str
    path: Path
    text: str = attrs.field(repr=False)
    rollback_path: Path | None = None
    rollback_text: str | None = attrs.field(default=None, repr=False)
    depends: tuple[str, ...] = ()
    transactional: bool = True
    foreign_keys: bool = False
    allows: directives.Allowance = directives.NOTHING_ALLOWED
    rollback_transactional: bool = True
    rollback_foreign_keys: bool = False
    rollback_allows: directives.Allowance = directives.NOTHING_ALLOWED

    @property
    def reversible(self) -> bool:
        """Whether there is a rollback script that holds a statement."""
        return self.rollback_text is not None and has_statement(self.rollback_text)


def refuse_broken_off(path: Path, text: str) -> None:
    """Refuse a script that does not come to its end.

    Raises:
        MigrationFileError: It leaves something open; the message has the line.
    """
    if found := broken_off(text):
        refuse(path, *found)


def sort_key(id: str) -> tuple[bool, tuple[int, ...], str]:
    """Return the key by which ids sort: by their leading numbers, those without one last, then by their text."""
    number = layouts.number(id)
    return number is None, number or (), id


def checksum(text: str | None) -> str | None:
    """Return the SHA-256 of a script's text as hexadecimal digits; None for None."""
    import hashlib  # noqa: PLC0415 - 4 ms, which a run that finds nothing to do saves

    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- read


def from_texts(
    id: str, text: str, rollback_text: str | None, *, path: Path, rollback_path: Path | None = None
) -> Migration:
    """Return the migration that two texts make, with what they say of themselves.

    Raises:
        MigrationFileError: A directive means nothing.
    """
    said = directives.read(text, path)
    undoing = directives.read(rollback_text or "", rollback_path or path)
    for name in ("transactional", "depends"):
        if rollback_path is not None and name in undoing.lines:
            line = undoing.lines[name]
            raise MigrationFileError(
                f"{rollback_path}:{line}: `-- {name}:` has no effect in a rollback script; write it into {path.name}, from "
                "where it applies to both",
                path=rollback_path,
                line=line,
            )
    together = said.pair_transactional and undoing.pair_transactional
    return Migration(
        id=id,
        path=path,
        text=text,
        rollback_path=rollback_path,
        rollback_text=rollback_text,
        depends=said.depends,
        transactional=together and said.transactional,
        foreign_keys=said.foreign_keys,
        allows=said.allows,
        rollback_transactional=together and undoing.transactional,
        rollback_foreign_keys=undoing.foreign_keys,
        rollback_allows=undoing.allows,
    )


# ---------------------------------------------------------------- order


# ---------------------------------------------------------------- new
