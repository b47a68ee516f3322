"""Directives: the comment lines at the top of a script, such as `-- depends:` and `-- transactional:`.

`-- depends on:` is a `-- depends:` that the stock yoyo passes over: it refuses a folder in which that one names a
migration of another set. Other tools' ways to say "not in a transaction" are understood too: dbmate's `-- migrate:up
transaction:false`, goose's `-- +goose NO TRANSACTION`, sql-migrate's `-- +migrate Up notransaction`, sqlx's
`-- no-transaction`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

from dao.errors import InvalidValue
from dao.migrate.scripts.files import refuse
from dao.migrate.scripts.ids import normal

__all__ = ["ALONE", "NOTHING_ALLOWED", "Allowance", "Directives", "is_transactional", "name_in_list", "read"]

# `depends on:` only before an id: in prose, which applied scripts may have at their top, it is none
_LINE = re.compile(
    r"\s*--\s*(transactional|depends|foreign_keys|allows)(?:(?<=depends)\s+on(?=\s*:\s*(?:\d{4}|\S*/)))?\s*:\s*(.*)$"
)
_DBMATE = re.compile(r"--\s*migrate:(?:up|down)\s(?:.*\s)?transaction:false(?:\s|$)")
_SQL_MIGRATE = re.compile(r"--\s*\+migrate\s+(?:up|down)\s+notransaction\s*$", re.IGNORECASE)
_GOOSE = re.compile(r"^--[ \t]*\+goose[ \t]+NO[ \t]+TRANSACTION[ \t]*$", re.MULTILINE | re.IGNORECASE)
_SQLX = "-- no-transaction"
_QUOTED = r'"(?:[^"]|"")*+"'
_IN_LIST = rf'(?:{_QUOTED}|[^",])+'
_LIST = f"{_IN_LIST}(?:,{_IN_LIST})*"
_FORMS = "`data-loss TABLE[, TABLE]`, `drop table [TABLE[, TABLE]]` or `drop column [TABLE.COLUMN[, TABLE.COLUMN]]`"

#: Begins the text of a script of which a file beside it, as diesel's, says that it runs outside of a transaction. It
#: is in the text, and in the first line, so that the ledger still says it, and lines keep their numbers.
ALONE = "/* a file beside this one says: outside of a transaction */ "


@attrs.frozen
class Allowance:
    """The losses that a script declares: rows of these tables, these tables and columns. All in lower case.

    `any_table` and `any_column`: the declaration names none, so it means all.
    """

    rows: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    any_table: bool = False
    any_column: bool = False

    @classmethod
    def of(cls, names: Collection[str]) -> Allowance:
        """Return what `--allow-loss` allows: a table with all that is in it, or a column as `table.column`.

        Raises:
            InvalidValue: One is no name.
        """
        allowed: frozenset[str] = frozenset()
        for name in [names] if isinstance(names, str) else names:
            if not (found := _names(name.lower())):
                raise InvalidValue(f"{name!r} names neither a table nor, as TABLE.COLUMN, a column")
            allowed |= found
        return cls(rows=allowed, tables=allowed, columns=allowed)

    def loses(self, table: str) -> bool:
        """Return whether rows of a table may get lost."""
        return table.lower() in self.rows

    def drops(self, table: str, column: str | None = None) -> bool:
        """Return whether a table that holds rows, or a column of it that holds values, may be dropped."""
        name = table.lower()
        if self.any_table or name in self.tables:
            return True
        return column is not None and (self.any_column or f"{name}.{column.lower()}" in self.columns)

    def __or__(self, other: Allowance) -> Allowance:
        return Allowance(
            self.rows | other.rows,
            self.tables | other.tables,
            self.columns | other.columns,
            self.any_table or other.any_table,
            self.any_column or other.any_column,
        )


#: Of a script that declares nothing.
NOTHING_ALLOWED = Allowance()


@attrs.frozen(kw_only=True)
class Directives:
    """The directives of a script: `lines` has the line of the first directive of each name that stands there.

    `transactional` is of this script; `pair_transactional` of its pair as a whole, whichever of the two says it.
    """

    depends: tuple[str, ...]
    transactional: bool
    pair_transactional: bool
    foreign_keys: bool
    allows: Allowance
    lines: Mapping[str, int]


def read(text: str, path: Path) -> Directives:
    """Return the directives among the leading comment lines, where yoyo looks for them.

    Raises:
        MigrationFileError: One means nothing, or contradicts another; `path` and the line are in the message.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    alone = text.startswith(_SQLX)
    for number, line in enumerate(text.removeprefix(ALONE).split("\n"), 1):
        comment = line.lstrip()
        if comment and not comment.startswith("--"):
            break
        if match := _LINE.match(line):
            found.setdefault(match[1], []).append((number, match[2].strip()))
        elif _DBMATE.match(line) or _SQL_MIGRATE.match(line):
            alone = True
    lines = {name: rows[0][0] for name, rows in found.items()}
    together = _one_of(found, "transactional", {"true": True, "false": False}, path)
    # goose takes it from anywhere in its file
    together = together and not text.startswith(ALONE) and not ("+goose" in text and _GOOSE.search(text))
    transactional = together and not alone
    foreign_keys = _one_of(found, "foreign_keys", {"off": False, "on": True}, path)
    if foreign_keys and not transactional:
        reason = (
            "`-- foreign_keys: on` goes with a transaction; outside of one a script sets PRAGMA foreign_keys itself"
        )
        refuse(path, reason, lines["foreign_keys"])
    allows = NOTHING_ALLOWED
    for number, value in found.get("allows", ()):
        allowance = _allowance(value)
        if allowance is None:
            refuse(path, f"`-- allows: {value}` must be {_FORMS}", number)
        allows |= allowance
    return Directives(
        depends=tuple(dict.fromkeys(id for _, value in found.get("depends", ()) for id in normal(value).split())),
        transactional=transactional,
        pair_transactional=together,
        foreign_keys=foreign_keys,
        allows=allows,
        lines=lines,
    )


def name_in_list(table: str, column: str | None = None) -> str:
    """Return how an `-- allows:` names a table or a column: in quotes, unless it is made of letters, digits and _."""
    names = [table] if column is None else [table, column]
    return ".".join(name if re.fullmatch(r"\w+", name) else '"' + name.replace('"', '""') + '"' for name in names)


def is_transactional(text: str) -> bool:
    """Return whether a script may run in a transaction: it does not say that it must not."""
    return read(text, Path()).transactional


def _one_of(found: Mapping[str, list[tuple[int, str]]], name: str, values: Mapping[str, bool], path: Path) -> bool:
    """Return the value of a directive that may stand there once; the first of the values if it does not."""
    rows = found.get(name, [])
    if len(rows) > 1:
        refuse(path, f"`-- {name}:` stands here twice", rows[1][0])
    for line, value in rows:
        if value.lower() not in values:
            refuse(path, f"`-- {name}: {value}` must be {' or '.join(sorted(values, reverse=True))}", line)
        return values[value.lower()]
    return next(iter(values.values()))


def _allowance(value: str) -> Allowance | None:
    """Return what an `-- allows:` allows; None if it means nothing."""
    what, _, rest = value.lower().partition(" ")
    if what == "data-loss" and (rows := _names(rest)):
        return Allowance(rows=rows)
    kind, _, rest = rest.strip().partition(" ")
    names = _names(rest)
    if what == "drop" and (names or not rest.strip()):
        if kind == "table":
            return Allowance(any_table=not names, tables=names)
        if kind == "column" and all("." in name for name in names):
            return Allowance(any_column=not names, columns=names)
    return None


def _names(text: str) -> frozenset[str]:
    """Return the names in a list with commas, without their quotes; none if one of them is empty or a quote is open."""
    if not re.fullmatch(_LIST, text):
        return frozenset()
    names = frozenset(
        re.sub(_QUOTED, lambda quoted: quoted[0][1:-1].replace('""', '"'), name.strip())
        for name in re.findall(_IN_LIST, text)
    )
    return frozenset() if "" in names else names
