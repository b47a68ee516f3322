"""The migrations that every tool is given, each once, as text; contenders.py lays them out as each tool wants them."""

from __future__ import annotations

from pathlib import Path

import attrs

#: The project's own pairs.
PROJECT = Path(__file__).parents[2] / "sql" / "sqlite"

_HEAVY = """
CREATE TABLE crash_{n:02} (id INTEGER PRIMARY KEY, label TEXT NOT NULL);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
INSERT INTO crash_{n:02} (id, label) SELECT n, 'row ' || n FROM numbers;
CREATE INDEX crash_{n:02}_label ON crash_{n:02} (label);
"""
_FAMILY = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE child (
    id        INTEGER PRIMARY KEY,
    parent_id INTEGER NOT NULL REFERENCES parent (id) ON DELETE CASCADE
);
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10)
INSERT INTO parent (id, name) SELECT n, 'parent ' || n FROM numbers;
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100)
INSERT INTO child (id, parent_id) SELECT n, 1 + n % 10 FROM numbers;
"""
_REBUILD = """
CREATE TABLE parent_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT);
INSERT INTO parent_new (id, name) SELECT id, name FROM parent{where};
DROP TABLE parent;
ALTER TABLE parent_new RENAME TO parent;
"""


@attrs.frozen
class Script:
    """A migration. `rollback` is None if it was never written; `transactional` is false to ask for no transaction."""

    version: str
    name: str
    apply: str
    rollback: str | None = "SELECT 1;\n"
    transactional: bool = True

    @property
    def id(self) -> str:
        return f"{self.version}_{self.name}"


def project() -> list[Script]:
    """Return the seven pairs of this project."""
    paths = sorted(path for path in PROJECT.glob("*.sql") if not path.name.endswith(".rollback.sql"))
    return [
        Script(
            *path.stem.split("_", 1),
            apply=path.read_text("utf-8"),
            rollback=path.with_suffix(".rollback.sql").read_text("utf-8"),
        )
        for path in paths
    ]


def heavy(count: int = 12, rows: int = 5000) -> list[Script]:
    """Return migrations of some milliseconds each: a table, its rows, an index."""
    return [
        Script(_version(n), f"crash_{n:02}", _HEAVY.format(n=n, rows=rows), f"DROP TABLE crash_{n:02};\n")
        for n in range(1, count + 1)
    ]


def small(count: int) -> list[Script]:
    """Return migrations of one small table each."""
    return [
        Script(
            _version(n),
            f"create_t{n:04}",
            f"CREATE TABLE t{n:04} (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n",
            f"DROP TABLE t{n:04};\n",
        )
        for n in range(1, count + 1)
    ]


def inserts(count: int) -> list[Script]:
    """Return one migration of so many INSERT statements."""
    rows = "".join(
        f"INSERT INTO items (id, name, price) VALUES ({n}, 'item number {n}; it''s new', {n % 997}.5);\n"
        for n in range(1, count + 1)
    )
    table = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL);\n"
    return [Script(_version(1), "fill_items", table + rows, "DROP TABLE items;\n")]


def rebuild(*, before: str = "", after: str = "", transactional: bool = True) -> list[Script]:
    """Return a parent with ten rows and a child with a hundred, and the rebuild of the parent between two texts."""
    script = before + _REBUILD.format(where="") + after
    return [
        Script(_version(1), "create_family", _FAMILY, "DROP TABLE child;\nDROP TABLE parent;\n"),
        Script(_version(2), "rebuild_parent", script, transactional=transactional),
    ]


def failing(*, fixed: bool = False) -> list[Script]:
    """Return three migrations, the second of which fails at the second of its three statements."""
    second = "INSERT INTO broken_1 (id) VALUES (1)" if fixed else "INSERT INTO no_such_table (id) VALUES (1)"
    return [
        Script(_version(1), "before", "CREATE TABLE before (id INTEGER PRIMARY KEY);\n", "DROP TABLE before;\n"),
        Script(
            _version(2),
            "broken",
            f"CREATE TABLE broken_1 (id INTEGER PRIMARY KEY);\n{second};\nCREATE TABLE broken_3 (id INTEGER PRIMARY KEY);\n",
            "DROP TABLE broken_3;\nDROP TABLE broken_1;\n",
        ),
        Script(_version(3), "after", "CREATE TABLE after (id INTEGER PRIMARY KEY);\n", "DROP TABLE after;\n"),
    ]


def lossy() -> list[Script]:
    """Return a table with ten rows, and its rebuild that copies seven of them."""
    first = rebuild()[0]
    table = first.apply.split("CREATE TABLE child", 1)[0] + first.apply.split(");", 2)[2].rsplit("WITH", 1)[0]
    return [
        attrs.evolve(first, name="create_parent", apply=table, rollback="DROP TABLE parent;\n"),
        Script(_version(2), "rebuild_parent", _REBUILD.format(where=" WHERE id <= 7")),
    ]


def notes(*, column: str = "body", rollback: str | None = "DROP TABLE notes;\n") -> list[Script]:
    """Return two migrations, the second of which makes a table with three rows."""
    text = f"""CREATE TABLE notes (id INTEGER PRIMARY KEY, {column} TEXT NOT NULL);
INSERT INTO notes (id, {column}) VALUES (1, 'one'), (2, 'two'), (3, 'three');
"""
    return [
        Script(_version(1), "before", "CREATE TABLE before (id INTEGER PRIMARY KEY);\n", "DROP TABLE before;\n"),
        Script(_version(2), "create_notes", text, rollback),
    ]


def _version(n: int) -> str:
    return str(20250101000000 + n)
