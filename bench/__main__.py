"""`python -m bench`: dao beside the bare drivers and the libraries that one would use in its place.

One process, contenders interleaved round by round, each on a file of its own with the same schema, settings and rows.
Ratios are to the bare driver. Migration tools and imports are timed as whole processes.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import (
    breakdown,
    clients,
    commands,
    contenders,
    data,
    group_commit,
    growth,
    harness,
    held,
    machine,
    migrations,
    page,
    tools,
)
from bench.contenders import OWN
from bench.operations import NAMED
from bench.operations import measure as measure_operations
from bench.run import SIZES, Run

#: What is measured beside the operations.
_PARTS = {
    "breakdown": breakdown.measure, "clients": clients.measure, "claimers": clients.claimers, "events": held.events,
    "ahead": held.ahead, "growth": growth.measure, "group_commit": group_commit.measure, "imports": commands.imports,
    "migrations": migrations.measure,
}  # fmt: skip
#: Those that use a server.
_SERVED = {"clients", "claimers", "events", "ahead"}
_DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
_RESULTS = "results.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write, compare. The exit code is 1 if something got slower than in the stored run."""
    options = _options(arguments)
    if options.readme_table:
        return _print_table(options.docs / _RESULTS)
    try:
        document = measure(options)
    except KeyboardInterrupt:
        print("stopped; nothing is written and the temporary folder is removed", file=sys.stderr)
        return 130
    print(page.terminal(document))
    for name, reason in document["skipped"].items():
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if page.is_busy(document) and options.mode != "tiny":
        print(f"\nnote: {page.interruptions(document)}", file=sys.stderr)
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if options.json:
        options.json.write_text(text, "utf-8")
    if options.write_docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        (options.docs / _RESULTS).write_text(text, "utf-8")
        (options.docs / "README.md").write_text(page.markdown(document), "utf-8")
    return _compare(document, options.compare) if options.compare else 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the document of a run."""
    size = SIZES[options.mode]
    chosen, skipped = contenders.load_all(options.contenders)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        template = Path(folder) / "template.db"
        server = None
        if any(one.on_server for one in chosen) or _SERVED & set(options.only):
            try:
                server = stack.enter_context(_server(size.rows))
            except Exception as error:  # noqa: BLE001 - there is none for this machine: the rest can be measured
                skipped["PostgreSQL"] = f"no server ({type(error).__name__}: {error})"
                chosen = [one for one in chosen if not one.on_server]
        run = Run(size, Path(folder), template, data.build(f"sqlite:///{template}", size.rows), _report, server)
        measured, settings, failed = measure_operations(run, chosen, options.only)
        parts = {name: part(run) for name, part in _PARTS.items() if name in options.only}
    served = {one.name for one in chosen if one.on_server}
    packages = {name for contender in chosen for name in contender.distributions} | {t.package for t in tools.TOOLS}
    # a server of ours, which wakes beside its client, is no other program
    turns = [
        figures["interrupted"]
        for entry in measured.values()
        for name, figures in entry["contenders"].items()
        if name not in served
    ]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "mode": options.mode,
        "rows": size.rows,
        "rounds": size.rounds,
        "machine": machine.describe(),
        "versions": machine.versions(packages),
        "settings": settings,
        "skipped": skipped | failed | parts.get("migrations", {}).get("skipped", {}),
        "interrupted": statistics.mean(turns) if turns else 0.0,
        "operations": measured,
        **parts,
    }


def _server(rows: int) -> Any:
    from bench.server import Running  # noqa: PLC0415 - only where psycopg is

    _report("PostgreSQL: the server")
    return Running(rows)


def _print_table(path: Path) -> int:
    document = _document(str(path))
    if page.is_busy(document) or document["mode"] != "full":
        print(f"error: it was a {document['mode']} run, and {page.interruptions(document)}", file=sys.stderr)
        return 1
    print(page.readme(document))
    return 0


def _compare(document: dict[str, Any], stored: dict[str, Any]) -> int:
    found = harness.compare(document["operations"], stored["operations"], OWN)
    if document["machine"] != stored["machine"]:
        print(f"note: the stored run was made on another machine: {stored['machine']}", file=sys.stderr)
    print(f"\ncompared with the run of {stored['date']}: {len(found)} slower ({harness.RULE})")
    for slower in found:
        print(f"  {slower}")
    return 1 if found else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=harness.RULE + ".")
    mode = parser.add_mutually_exclusive_group()
    modes = {
        "quick": f"{SIZES['quick'].rounds} short rounds, about three minutes (default)",
        "full": f"{SIZES['full'].rounds} rounds, up to a million rows, about half an hour",
        "tiny": "one round of a few rows: shows that everything runs, measures nothing",
    }
    for name, text in modes.items():
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, default="quick", help=text)
    for name, known in {"only": (*NAMED, *_PARTS), "contenders": tuple(contenders.CONTENDERS)}.items():
        kind = {"type": functools.partial(_names, known), "default": known, "metavar": "NAME,…"}
        parser.add_argument(f"--{name}", help=f"of {', '.join(known)}", **kind)
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write what was measured")
    add("--compare", type=_document, metavar="FILE", help="say what got slower than in a stored run; then exit with 1")
    add("--docs", type=Path, default=_DOCS, metavar="FOLDER", help="of the page (default: docs/benchmarks)")
    add("--write-docs", action="store_true", help=f"write {_RESULTS} and the page there")
    add("--readme-table", action="store_true", help=f"measure nothing: print the README's table, from {_RESULTS}")
    options = parser.parse_args(arguments)
    if options.readme_table and not (options.docs / _RESULTS).is_file():
        parser.error(f"{options.docs / _RESULTS} is not there: make it with --write-docs")
    return options


def _names(known: Sequence[str], text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name}: not one of {', '.join(known)}")
    return names


def _document(text: str) -> dict[str, Any]:
    # read before anything is measured: a wrong name should not cost half an hour
    try:
        document = json.loads(Path(text).read_text("utf-8"))
        _ = document["machine"], document["interrupted"]
        _ = [figures["base"] for entry in document["operations"].values() for figures in entry["contenders"].values()]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text}: not a stored run ({error}); --json FILE makes one") from error
    return document


def _report(what: str) -> None:
    if sys.stderr.isatty():
        print(f"… {what}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
