"""What grows with the database: some operations at several sizes, their rounds interleaved."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench import contenders, data, operations
from bench.contenders import BASE, OWN
from bench.contenders.base import Shared
from bench.data import Holds
from bench.operations import OPERATIONS
from bench.run import Run

#: What dao adds to the bare driver's own growth is its own.
_FOLLOWED = (OWN[0], BASE)


def measure(run: Run) -> dict[str, Any]:
    """Return the medians of each operation at each size, and by which factor the last is above the first."""
    found = {}
    with ExitStack() as stack:
        subjects: dict[str, tuple[Shared, Holds]] = {}
        for rows in run.size.grown:
            run.report(f"growth: {rows:,} rows")
            template = run.folder / f"{rows}.db"
            holds = data.build(f"sqlite:///{template}", rows)
            here = [contenders.load(name) for name in _FOLLOWED]
            stack.enter_context(contenders.opened(here, lambda one, template=template: data.copy(template, one.name)))
            subjects |= {f"{contender.name}, {rows}": (contender, holds) for contender in here}
            template.unlink()
        for operation in OPERATIONS:
            if operation.grows:
                run.report(f"growth: {operation.title}")
                measured = operations.times(operation, subjects, run.size)
                found[operation.name] = {"title": operation.title, "contenders": {}}
                for name in _FOLLOWED:
                    medians = [measured[f"{name}, {rows}"].median for rows in run.size.grown]
                    figures = {"medians": medians, "factor": medians[-1] / medians[0]}
                    found[operation.name]["contenders"][name] = figures
    return {"sizes": list(run.size.grown), "operations": found}
