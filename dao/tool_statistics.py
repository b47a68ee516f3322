"""Figures over the calls of tools. `dao.tool_executions` offers these names."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs

from dao.engine import Connection, fetch
from dao.listing import bounds

__all__ = ["ToolStatistics", "statistics"]

# Percentiles by the nearest rank: the smallest duration that at least that share of the calls did not exceed.
_STATISTICS = """
SELECT tool_name,
       count(*),
       sum(CASE WHEN status IN ('failed', 'timeout') THEN 1 ELSE 0 END),
       avg(duration_ms),
       min(CASE WHEN place * 100 >= timed * 50 THEN duration_ms END),
       min(CASE WHEN place * 100 >= timed * 95 THEN duration_ms END)
FROM (
    SELECT tool_name, status, duration_ms,
           count(duration_ms) OVER (PARTITION BY tool_name) AS timed,
           row_number() OVER (PARTITION BY tool_name, duration_ms IS NULL ORDER BY duration_ms) AS place
    FROM   tool_executions
    WHERE  created_at >= $1 AND created_at < $2
) AS calls
GROUP BY tool_name
ORDER BY tool_name
"""


@attrs.frozen(kw_only=True)
class ToolStatistics:
    """The figures of the calls of one tool. Durations are in milliseconds, None if no call has one.

    `failures` counts the statuses failed and timeout. `p50_ms` and `p95_ms` are durations that occurred: the smallest
    that half, or 95 %, of the calls did not exceed.
    """

    tool_name: str
    count: int
    failures: int
    mean_ms: float | None
    p50_ms: int | None
    p95_ms: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict that any JSON encoder takes."""
        return attrs.asdict(self)


def statistics(
    connection: Connection, *, since: datetime | None = None, until: datetime | None = None
) -> list[ToolStatistics]:
    """Return what the calls of each tool came to, by tool name. Reads every call of the period."""
    earliest, latest = bounds(since, until)
    return [
        ToolStatistics(
            tool_name=name,
            count=total,
            failures=failures,
            mean_ms=None if mean is None else float(mean),
            p50_ms=median,
            p95_ms=p95,
        )
        for name, total, failures, mean, median, p95 in fetch(connection, _STATISTICS, (earliest, latest))
    ]
