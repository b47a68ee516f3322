"""What the project has set itself, and whether a run meets it. Reads a document; measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from bench import harness
from bench.contenders import ASYNC_BASE, BASE, STANDARD
from bench.growth import LIMIT

Document = Mapping[str, Any]
#: The cost of a B-tree's depth and a cold cache is the bare driver's too: this much more than its factor is dao's own.
_BESIDE = 1.1
#: What stands where nothing was measured.
MISSING = "\N{EN DASH}"


@attrs.frozen
class Target:
    """One line of the table. `met` is None where the run has not measured it."""

    operation: str
    what: str
    limit: str
    measured: str
    met: bool | None


def evaluate(document: Document, migrations: Document | None = None) -> list[Target]:
    """Return all targets with what was measured; `migrations` is the document of `bench.migrations`."""
    return [
        *_operations(document.get("operations", {})),
        *_concurrency(document.get("concurrency", {})),
        *_group_commit(document.get("concurrency", {}).get("group_commit", {})),
        *_growth(document.get("growth", {})),
        *_imports(document.get("imports", {})),
        *_migrations(migrations or {}),
    ]


def _operations(operations: Document) -> Iterator[Target]:
    for name, limit in {"create": 1.10, "create_many": 1.5, "get": 1.15, "get_json": 1.45}.items():
        yield _ratio(operations, name, BASE, limit)
        other = "sqlite3 records" if name == "create_many" else STANDARD
        yield _ratio(operations, name, other, 1.0)
    for name in ("find", "page"):
        yield _ratio(operations, name, BASE, 1.35)
        yield _ratio(operations, name, STANDARD, 1.0)
    for name in ("set_status", "update", "heartbeat", "finish"):
        yield _ratio(operations, name, BASE, 1.10)
    lent = _contender(operations, "lend", "dao")
    yield Target(
        "pool: acquire and release",
        "uncontended",
        "< 2 µs",
        f"{lent['median'] * 1e6:.2f} µs" if lent else MISSING,
        lent["median"] < 2e-6 if lent else None,
    )
    yield _ratio(operations, "async_get", ASYNC_BASE, 1.0, contender="dao (async)")


def _ratio(operations: Document, name: str, base: str, limit: float, *, contender: str = "dao") -> Target:
    measured = operations.get(name, {}).get("contenders", {})
    value = None
    if contender in measured and base in measured:
        own, other = (harness.Times(measured[who]["rounds"]) for who in (contender, base))
        value = statistics.median(harness.ratios(own, other))
    return Target(
        operations.get(name, {}).get("title", name),
        f"to {base}",
        f"≤ {limit:.2f}",
        MISSING if value is None else f"{value:.2f}",
        # what is printed as the limit is the limit
        None if value is None else round(value, 2) <= limit,
    )


def _contender(operations: Document, operation: str, name: str) -> Any:
    return operations.get(operation, {}).get("contenders", {}).get(name)


def _concurrency(concurrency: Document) -> Iterator[Target]:
    waits = _contender(concurrency, "fairness", "dao")
    value = waits["p99_to_median"] if waits else None
    yield Target(
        concurrency.get("fairness", {}).get("title", "pool, many threads: wait"),
        "99th percentile to the median",
        "≤ 3",
        MISSING if value is None else f"{value:.2f}",
        None if value is None else value <= 3,
    )
    own, bare = (_contender(concurrency, "processes", name) for name in ("dao", BASE))
    known = own is not None and bare is not None
    title = concurrency.get("processes", {}).get("title", "several processes writing")
    throughput = 1 / own["ratios"][BASE] if known else None
    yield Target(
        title,
        f"throughput to {BASE}",
        "≥ 0.90",
        MISSING if throughput is None else f"{throughput:.2f}",
        None if throughput is None else round(throughput, 2) >= 0.9,
    )
    yield Target(
        title, "errors", "none", str(own["errors"]) if known else MISSING, own["errors"] == 0 if known else None
    )
    yield Target(
        title,
        f"worst wait, median of the rounds, to {BASE}",
        f"≤ {bare['worst'] * 1000:.0f} ms" if known else "≤ 1.00",
        f"{own['worst'] * 1000:.0f} ms" if known else MISSING,
        own["worst"] <= bare["worst"] if known else None,
    )


def _group_commit(entry: Document) -> Iterator[Target]:
    for mode, limit in {"full": 8.0, "normal": 1.5}.items():
        value = entry["modes"][mode]["ratio"] if entry else None
        yield Target(
            entry.get("title", "group commit"),
            f"throughput to a transaction each, synchronous={mode.upper()}",
            f"≥ {limit:.1f}",
            MISSING if value is None else f"{value:.1f}",
            None if value is None else round(value, 1) >= limit,
        )


def _growth(growth: Document) -> Iterator[Target]:
    sizes = growth.get("sizes", [])
    for operation in growth.get("operations", {}).values():
        own, bare = (operation["contenders"][name]["factor"] for name in ("dao", BASE))
        yield Target(
            operation["title"],
            f"growth from {sizes[0]:,} to {sizes[-1]:,} rows",
            f"≤ {LIMIT}, or {BASE}'s {bare:.2f}",
            f"{own:.2f}",
            own <= max(LIMIT, bare * _BESIDE),
        )


def _imports(imports: Document) -> Iterator[Target]:
    took = imports.get("milliseconds", {}).get("dao")
    yield Target(
        "import dao",
        "over an empty interpreter, without yoyo",
        "≤ 40 ms",
        MISSING if took is None else f"{took:.0f} ms",
        None if took is None else took <= 40 and not imports["dao_loads_yoyo"],
    )


def _migrations(document: Document) -> Iterator[Target]:
    timings = document.get("timings", {})
    for title, kind, row, own, other, limit in (
        ("dao migrate, nothing to do", "commands", "nothing to do", "dao", "yoyo", 0.6),
        (
            "seven migrations in process",
            "in_process",
            "seven pairs, new database",
            "dao.migrate.apply",
            "apsw, one transaction, no ledger",
            1.5,
        ),
    ):
        measured = timings.get(kind, {}).get(row, {})
        value = measured[own]["median"] / measured[other]["median"] if own in measured and other in measured else None
        yield Target(
            title,
            f"to {other}",
            f"≤ {limit}",
            MISSING if value is None else f"{value:.2f}",
            None if value is None else round(value, 2) <= limit,
        )
