"""`python -m tests.plans`: write the plan of every statement anew, and say what has changed."""

from __future__ import annotations

import sys

from tests.plans import FOLDER, collect, database, differences, parse, render, statements


def main() -> None:
    """Write a file for each module of SQL and remove those of modules that are gone."""
    connection = database()
    found = collect(connection, statements())
    connection.close()
    for stale in FOLDER.glob("*.txt"):
        if stale.stem not in found:
            stale.unlink()
            sys.stdout.write(f"{stale.name}: removed\n")
    for name, plans in found.items():
        path = FOLDER / f"{name}.txt"
        old, new = path.read_text() if path.exists() else "", render(name, plans)
        path.write_text(new)
        for line in differences(parse(old), plans):
            sys.stdout.write(f"{path.name}: {line}\n")
        sys.stdout.write(f"{path.name}: {len(plans.entries)} statements, {'as before' if old == new else 'written'}\n")


if __name__ == "__main__":
    main()
