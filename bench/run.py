"""A run: how much it does, and on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bench import data
from bench.contenders.base import Shared
from bench.data import Holds

if TYPE_CHECKING:
    from bench.server import Running


@attrs.frozen
class Size:
    """Numbers of a run.

    `rows` are in the table; a turn takes about so many `seconds`, or makes so many `writes` or rows of a bulk load
    (`many`); `grown` are the sizes of `bench.growth`, `clients` and `claimers` those of `bench.clients`; so many
    `writers` make so many `calls` each. `migrations` and `inserts` are those of the long runs of migration tools, 0 for
    none. A `tiny` run shows that everything runs.
    """

    rounds: int
    rows: int = 10_000
    seconds: float = 0.01
    writes: int = 200
    many: int = 10_000
    grown: tuple[int, ...] = (10_000, 100_000)
    clients: tuple[int, ...] = (1, 4, 16)
    claimers: tuple[int, ...] = (1, 4, 8)
    writers: int = 16
    calls: int = 200
    migrations: int = 0
    inserts: int = 0
    tiny: bool = False


SIZES = {
    "quick": Size(rounds=9, seconds=0.005, writes=100, many=2000, calls=50),
    "full": Size(rounds=21, grown=(10_000, 100_000, 1_000_000), migrations=1000, inserts=20_000),
    "tiny": Size(
        rounds=1,
        rows=60,
        seconds=0.0,
        writes=2,
        many=4,
        grown=(60, 120),
        clients=(1,),
        claimers=(2,),
        writers=3,
        calls=2,
        tiny=True,
    ),
}


@attrs.frozen
class Run:
    """How much is done, in which folder, on copies of which databases, and what is told what is measured now.

    Those on the `server`, if there is one, hold what `on_server` says.
    """

    size: Size
    folder: Path
    template: Path
    holds: Holds
    report: Callable[[str], None]
    server: Running | None = None

    def copy(self, contender: Shared) -> str:
        """Copy the database for a contender, and return what it opens.

        Raises:
            RuntimeError: It needs a server, and there is none.
        """
        if not contender.on_server:
            return data.copy(self.template, contender.name)
        if self.server is None:
            raise RuntimeError("there is no server")
        return self.server.copy(contender.name)

    def held(self, contender: Shared) -> Holds:
        """Return what the copy holds."""
        return self.server.holds if contender.on_server and self.server is not None else self.holds
