"""`python -m bench`: dao beside the bare drivers and the libraries that one would use in its place.

One process, contenders interleaved round by round, each on a file of its own with the same schema, settings and rows. Medians,
minima, and ratios to bare apsw and bare sqlite3. Migration tools: `python -m bench.migrations`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from bench import breakdown, concurrency, contenders, growth, harness, imports, machine, operations, page, targets
from bench.contenders import BASE

_PARTS = (*operations.NAMES, "fairness", "threads", "processes", "group_commit", "growth", "steps", "imports")
_DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
_SIZES = {
    "tiny": (operations.TINY, concurrency.TINY, (60, 240)),
    "quick": (operations.QUICK, concurrency.QUICK, (10_000, 100_000)),
    "full": (operations.FULL, concurrency.FULL, (10_000, 100_000, 1_000_000)),
}


def main() -> int:
    """Measure, print, write, compare. The exit code is 1 if something got slower than in the stored run."""
    options = _options()
    if options.readme_table or options.render:
        document = json.loads((options.docs / page.RESULTS).read_text("utf-8"))
        if options.render:
            page.write(document, _judged(document), options.docs)
        else:
            print(page.readme_table(document))
        return 0
    try:
        document = measure(options)
    except KeyboardInterrupt:
        print("stopped; nothing is written and the temporary folder is removed", file=sys.stderr)
        return 130
    judged = _judged(document)
    print(page.terminal(document, [] if options.mode == "tiny" else judged))
    if page.is_busy(document) and options.mode != "tiny":
        print(f"\nnote: {page.busy(document)}", file=sys.stderr)
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if options.json:
        options.json.write_text(text, "utf-8")
    if options.write_docs:
        page.write(document, judged, options.docs)
        (options.docs / page.RESULTS).write_text(text, "utf-8")
    return _compare(document, options.compare) if options.compare else 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the document of a run."""
    size, load, sizes = _SIZES[options.mode]
    if options.rounds:
        size, load = attrs.evolve(size, rounds=options.rounds), attrs.evolve(load, rounds=options.rounds)
    sizes = tuple(sorted({*sizes, options.rows})) if options.rows else sizes
    chosen, skipped = contenders.load_all(options.contenders)
    names = [contender.name for contender in chosen]
    measured, settings, failed = operations.measure(chosen, options.only, size, _report)
    skipped |= failed
    document: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "mode": options.mode,
        "rows": size.rows,
        "rounds": size.rounds,
        "machine": machine.describe(),
        "versions": machine.versions(name for contender in chosen for name in contender.distributions),
        "settings": settings,
        "skipped": skipped,
        "interrupted": _interrupted(measured),
        "operations": measured,
        "concurrency": {},
    }
    together = document["concurrency"]
    if "fairness" in options.only:
        together["fairness"] = concurrency.fairness(chosen, load, _report)
    if "threads" in options.only:
        together["threads"] = concurrency.threads(chosen, load, _report)
    if "processes" in options.only:
        together["processes"] = concurrency.processes(names, load, _report)
    if "group_commit" in options.only and "dao" in names:
        together["group_commit"] = concurrency.group(load, _report)
    if "growth" in options.only:
        document["growth"] = growth.measure(sizes, size, _report)
    if "steps" in options.only and {"dao", BASE} <= {*names}:
        document["steps"] = breakdown.measure(size, _report)
    if "imports" in options.only:
        _report("imports")
        document["imports"] = imports.measure(
            size.rounds, imports.MODULES[-1:] if options.mode == "tiny" else imports.MODULES
        )
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    return document


def _interrupted(measured: dict[str, Any]) -> float:
    """Return the share of the turns in which the system gave the processor to others."""
    shares = [figures["interrupted"] for entry in measured.values() for figures in entry["contenders"].values()]
    return statistics.mean(shares) if shares else 0.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=harness.RULE + ".")
    mode = parser.add_mutually_exclusive_group()
    modes = {
        "quick": f"{operations.QUICK.rounds} short rounds, about two minutes (default)",
        "full": f"{operations.FULL.rounds} rounds, up to a million rows, about a quarter of an hour",
        "tiny": "one round of a few rows: shows that everything runs, measures nothing",
    }
    for name, text in modes.items():
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, default="quick", help=text)
    parser.add_argument(
        "--only",
        type=lambda text: _names(text, _PARTS),
        default=_PARTS,
        metavar="OPERATION,…",
        help=f"of {', '.join(_PARTS)}",
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: _names(text, tuple(contenders.CONTENDERS)),
        default=tuple(contenders.CONTENDERS),
        metavar="NAME,…",
        help=f"of {', '.join(contenders.CONTENDERS)}",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="so many rounds of everything")
    parser.add_argument("--rows", type=_positive, metavar="N", help="let `growth` go to this size as well: 5000000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--compare", type=_document, metavar="FILE", help="name what got slower than in a stored run; then exit with 1"
    )
    parser.add_argument(
        "--docs", type=Path, default=_DOCS, metavar="FOLDER", help="of the page (default: docs/benchmarks)"
    )
    parser.add_argument("--write-docs", action="store_true", help="write results.json, the page and the charts there")
    parser.add_argument("--render", action="store_true", help="measure nothing: write the page from its results.json")
    parser.add_argument("--readme-table", action="store_true", help="measure nothing: print the README's table")
    options = parser.parse_args()
    if (options.render or options.readme_table) and not (options.docs / page.RESULTS).is_file():
        parser.error(f"{options.docs / page.RESULTS} is not there: make it with --write-docs")
    return options


def _names(text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name}: not one of {', '.join(known)}")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: not a whole number above zero")
    return int(text)


def _document(text: str) -> dict[str, Any]:
    # read before anything is measured: a wrong name should not cost a quarter of an hour
    try:
        document = json.loads(Path(text).read_text("utf-8"))
        _ = document["operations"], document["machine"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text}: not a stored run ({error}); --json FILE makes one") from error
    return document


def _compare(document: dict[str, Any], stored: dict[str, Any]) -> int:
    now, before = ({**run["operations"], **_comparable(run)} for run in (document, stored))
    found = harness.compare(now, before, ("dao", "dao (async)"))
    if document["machine"] != stored["machine"]:
        print(f"note: the stored run was made on another machine: {stored['machine']}", file=sys.stderr)
    print(f"\ncompared with the run of {stored['date']}: {len(found)} slower ({harness.RULE})")
    for slower in found:
        print(f"  {slower}")
    return 1 if found else 0


def _comparable(run: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in run.get("concurrency", {}).items() if name in {"threads", "processes"}}


def _judged(document: dict[str, Any]) -> list[targets.Target]:
    stored = _DOCS / "migrations.json"
    return targets.evaluate(document, json.loads(stored.read_text("utf-8")) if stored.is_file() else None)


def _report(what: str) -> None:
    if sys.stderr.isatty():
        print(f"… {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
