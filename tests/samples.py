"""Which cases of a test stand for the others in `make test`: those of the sample; `make test-slow` runs all."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any


def left_to_slow_runs(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the cases of tests marked `sample(n)` that are not of the sample, on each engine apart.

    Of a list every n-th is, beginning with the first. Of a product of lists those are whose numbers add up to a
    multiple of n: if n is the length of one of them, each value of another meets one of it, and the next one the next.
    """
    met: dict[Any, dict[Any, int]] = collections.defaultdict(dict)
    for item in items:
        sample, case = item.get_closest_marker("sample"), getattr(item, "callspec", None)
        if sample is None or case is None:
            continue
        engine, number = case.params.get("engine"), 0
        given = [mark.args[0] for mark in item.iter_markers("parametrize")]
        lists = [[name.strip() for name in (one.split(",") if isinstance(one, str) else one)] for one in given]
        of_fixtures = sorted({*case.params}.difference(["engine"], *lists))
        for names in (*lists, *([name] for name in of_fixtures)):
            values = met[item.nodeid.partition("[")[0], engine, *names]
            number += values.setdefault(tuple(id(case.params[name]) for name in names), len(values))
        if number % sample.args[0] and sample.kwargs.get("engine", engine) == engine:
            yield item
