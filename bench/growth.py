"""What grows with the database: the same operations at several sizes, their rounds interleaved."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench import contenders, data, harness
from bench.contenders import BASE, Contender
from bench.data import Data
from bench.operations import OPERATIONS, Arguments, Size

#: Whose cost is followed: what it adds to the bare driver's own growth is its own.
FOLLOWED = ("dao", BASE)
LIMIT = 1.5
_STALE = 50
_SWEEPS = 8


def _sweeps(contender: Contender, made: Data, _calls: int) -> Arguments:
    """Let some sessions go silent, a group for each sweep, and return the moments before which each was last heard of."""
    moments = [f"2024-01-{day + 1:02}T00:00:00.000Z" for day in range(_SWEEPS + 1)]
    size = max(1, min(_STALE, made.sessions // _SWEEPS))
    for group, moment in enumerate(moments[:-1]):
        ids = ", ".join(f"'{made.session_id(number)}'" for number in range(group * size, (group + 1) * size))
        contender.raw(f"UPDATE sessions SET is_active = 1, last_heartbeat = '{moment}' WHERE id IN ({ids})")
    return [(contender.moment(moment),) for moment in moments[1:]]


@attrs.frozen
class _Grown:
    name: str
    title: str
    method: str
    prepare: Callable[[Contender, Data, int], Arguments]
    adds: bool = False


_NAMED = {operation.name: operation for operation in OPERATIONS}
_GROWN = (
    *(_Grown(name, _NAMED[name].title, _NAMED[name].method, _NAMED[name].prepare) for name in ("get", "find", "page")),
    _Grown("claim", "oldest pending task, as a claim looks it up", "oldest_pending", lambda _c, _d, n: [()] * n),
    _Grown("sweep", f"stale-session sweep, {_STALE} stale", "sweep", _sweeps),
    _Grown("create", _NAMED["create"].title, "create", _NAMED["create"].prepare, adds=True),
)


def measure(sizes: Sequence[int], size: Size, report: Callable[[str], None]) -> dict[str, Any]:
    """Return the medians of each operation at each size, and by which factor the last is above the first."""
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        opened: list[tuple[str, int, Contender, Data]] = []
        try:
            for rows in sizes:
                report(f"growth: {rows:,} rows")
                template = Path(made) / f"{rows}.db"
                holds = data.build(template, rows, sessions=rows)
                for place, name in enumerate(FOLLOWED):
                    contender = contenders.load(name)
                    contenders.open_one(contender, data.copy(template, Path(made) / f"{rows}-{place}.db"))
                    opened.append((name, rows, contender, holds))
                template.unlink()
            found = {}
            for operation in _GROWN:
                report(f"growth: {operation.title}")
                found[operation.name] = {
                    "title": operation.title,
                    "contenders": _measured(operation, opened, sizes, size),
                }
            return {"sizes": list(sizes), "operations": found}
        finally:
            for _, _, contender, _ in opened:
                contender.close()


def _measured(
    operation: _Grown, opened: Sequence[tuple[str, int, Contender, Data]], sizes: Sequence[int], size: Size
) -> dict[str, Any]:
    subjects = [
        harness.Subject(
            f"{name} {rows}",
            harness.timed(
                getattr(contender, operation.method),
                # bound now: the loop's variables move on
                lambda calls, contender=contender, holds=holds: operation.prepare(contender, holds, calls),
            ),
        )
        for name, rows, contender, holds in opened
    ]
    writes = {"sweep": _SWEEPS, "create": size.writes}.get(operation.name)
    measured = harness.interleave(subjects, rounds=size.rounds, calls=writes, seconds=size.seconds)
    found: dict[str, Any] = {}
    for name, rows in itertools.product(FOLLOWED, sizes):
        times = measured[f"{name} {rows}"]
        found.setdefault(name, {"medians": {}, "minimums": {}})
        found[name]["medians"][str(rows)] = times.median
        found[name]["minimums"][str(rows)] = times.minimum
        found[name]["interrupted"] = max(found[name].get("interrupted", 0.0), times.interrupted)
    for figures in found.values():
        figures["factor"] = figures["medians"][str(sizes[-1])] / figures["medians"][str(sizes[0])]
    return found
