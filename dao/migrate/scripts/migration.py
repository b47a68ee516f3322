"""A migration: a pair of scripts, with what they say of themselves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs

from dao.migrate.scripts import directives
from dao.migrate.scripts.files import refuse
from dao.migrate.scripts.statements import has_statement

__all__ = ["Migration", "Script", "from_texts", "is_reversible"]


@attrs.frozen(kw_only=True)
class Script:
    """The text of a script, with LF line ends and without a byte order mark, and how it says that it is to run.

    `path` is None for one that only the ledger still has. `transactional` is false if it must run outside of a
    transaction, `foreign_keys` true if foreign keys are to be enforced meanwhile. `allows` is what it may lose.
    """

    path: Path | None
    text: str = attrs.field(repr=False)
    transactional: bool = True
    foreign_keys: bool = False
    allows: directives.Allowance = directives.NOTHING_ALLOWED

    @property
    def checksum(self) -> str:
        """The SHA-256 of the text, as hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@attrs.frozen(kw_only=True)
class Migration:
    """A pair of scripts: `up` applies it, `down` rolls it back. `depends` holds the ids that must be applied before.

    The id is the name of its file, or folder, without suffixes; that of a migration on which it depends stands behind
    the name of its set, as in `orchestrator/20250115010000_create_tasks`, if it is of another one. `set` is the set
    that it is of itself, None if that is not known.
    """

    id: str
    up: Script
    down: Script | None = None
    depends: tuple[str, ...] = ()
    set: str | None = None

    @property
    def path(self) -> Path:
        """The file of the first script; the id, where only the ledger still has that."""
        return self.up.path or Path(self.id)

    @property
    def allows(self) -> directives.Allowance:
        """The losses that either script declares."""
        return self.up.allows | self.down.allows if self.down else self.up.allows

    @property
    def reversible(self) -> bool:
        """Whether there is a rollback script that holds a statement, or there is nothing to undo."""
        return is_reversible(self.up.text, self.down.text if self.down else None)


def is_reversible(text: str, rollback_text: str | None) -> bool:
    """Return whether a migration with these scripts can be undone: the second holds a statement, or the first none."""
    return has_statement(rollback_text or "") or not has_statement(text)


def from_texts(
    id: str,
    text: str,
    rollback_text: str | None,
    *,
    path: Path | None = None,
    rollback_path: Path | None = None,
    set: str | None = None,
) -> Migration:
    """Return the migration that two texts make, with what they say of themselves. Without paths they are the ledger's.

    Raises:
        MigrationFileError: A directive means nothing.
    """
    file = path or Path(id)
    up = directives.read(text, file)
    down = directives.read(rollback_text or "", rollback_path or file)
    for name in ("transactional", "depends"):
        if rollback_path is not None and name in down.lines:
            refuse(
                rollback_path,
                f"`-- {name}:` has no effect in a rollback script; write it into {file.name}, from where it applies "
                "to both",
                down.lines[name],
            )
    together = up.pair_transactional and down.pair_transactional

    def script(said: directives.Directives, path: Path | None, text: str) -> Script:
        return Script(
            path=path,
            text=text,
            transactional=together and said.transactional,
            foreign_keys=said.foreign_keys,
            allows=said.allows,
        )

    return Migration(
        id=id,
        up=script(up, path, text),
        down=None if rollback_text is None else script(down, rollback_path, rollback_text),
        depends=up.depends,
        set=set,
    )
