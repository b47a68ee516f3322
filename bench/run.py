"""A run: how much it does, and on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from bench.data import Holds


@attrs.frozen
class Size:
    """Numbers of a run.

    `rows` are in the table; a turn takes about so many `seconds`, or makes so many `writes` or rows of a bulk load
    (`many`); `grown` are the sizes of `bench.growth`; so many `writers` make so many `calls` each. `migrations` and
    `inserts` are those of the long runs of migration tools, 0 for none. A `tiny` run shows that everything runs.
    """

    rounds: int
    rows: int = 10_000
    seconds: float = 0.01
    writes: int = 200
    many: int = 10_000
    grown: tuple[int, ...] = (10_000, 100_000)
    writers: int = 16
    calls: int = 200
    migrations: int = 0
    inserts: int = 0
    tiny: bool = False


SIZES = {
    "quick": Size(rounds=9, seconds=0.005, writes=100, many=2000, calls=50),
    "full": Size(rounds=21, grown=(10_000, 100_000, 1_000_000), migrations=1000, inserts=20_000),
    "tiny": Size(rounds=1, rows=60, seconds=0.0, writes=2, many=4, grown=(60, 120), writers=3, calls=2, tiny=True),
}


@attrs.frozen
class Run:
    """How much is done, in which folder, on copies of which database, and what is told what is measured now."""

    size: Size
    folder: Path
    template: Path
    holds: Holds
    report: Callable[[str], None]
