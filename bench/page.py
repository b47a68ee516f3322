"""What is printed and written of a document: the tables in a terminal, the Markdown page, the README's table, the charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import charts, harness, targets
from bench.contenders import ASYNC_BASE, BASE, CONTENDERS, STANDARD

Document = Mapping[str, Any]
RESULTS = "results.json"
#: Beyond this share of interrupted turns a machine is busy.
BUSY = 0.1
_OWN = ("dao", "dao (async)", "dao, Pool.write")
_ASYNC = ("dao (async)", "aiosqlite", "SQLAlchemy asyncio", "Tortoise")
_CHARTED = ("get", "find", "page", "create", "create_many", "set_status", "workflow", "async_get")
_IN_README = ("create", "create_many", "get", "get_json", "find", "page", "set_status", "update")
_README_CONTENDERS = ("dao", STANDARD, "SQLAlchemy Core", "SQLAlchemy ORM", "SQLModel", "peewee", "Django ORM", "Pony")
#: Where a target is missed, why: by the operation's title, or how that begins.
_WHY = {
    "get by id": "two function calls, the translation of errors and a record of 13 fields are half a microsecond of Python beside a "
    "statement of four; from run to run it is 1.06 to 1.19.",
    "get by id, both JSON columns read": "msgspec's decoding of the two texts alone is more than half of what is allowed above the "
    "tuple, `get` the rest; two attributes that decode when they are first read, and keep the value, come on top.",
    "page of 50": "fifty objects with their fields, and the cursor that is checked, the row that tells whether another page follows, "
    "the filters and the limit. Tuples would spare the first, an unchecked cursor and no `next` the second; the caller would miss both.",
    "update": "the record's JSON and times are written as text, which the bare driver is handed ready, and the fresh row becomes a "
    "record: some 4 µs of Python, and the double of that when a commit has just emptied the processor's caches.",
    "pool: acquire": "two locks, the set of what is lent, and a look at whether a transaction or a cursor was left open: 1.6 µs when "
    "this machine runs at its full speed, up to twice that when it does not. The queue beside it looks at nothing.",
    "asynchronous get": "almost all of it is two handovers between threads, which aiosqlite has as well; from run to run it is 0.97 to "
    "1.12. dao's returns a record, and can be cancelled in the middle of a statement.",
    "group commit": "see the handover between threads there. The contender, a connection each, became two to three times as fast "
    "when its waits for the lock grew longer (`dao.sqlite.set_busy_timeout`); tasks, which are woken together, reach more.",
}
_VERDICT = {True: "met", False: "**missed**", None: "not measured"}


def duration(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def is_busy(document: Document) -> bool:
    """Return whether other programs had so much of the machine that the figures are not to be quoted."""
    return document["interrupted"] > BUSY


def busy(document: Document) -> str:
    """Return how much other programs had of the machine during the run."""
    said = f"other programs interrupted {document['interrupted']:.0%} of the turns"
    return f"{said}: the machine was busy, repeat the run before you quote it" if is_busy(document) else said


# ---------------------------------------------------------------- terminal


def terminal(document: Document, judged: Sequence[targets.Target]) -> str:
    """Return everything as text for a terminal."""
    parts = []
    for names, bases in ((_synchronous(), (BASE, STANDARD)), (_ASYNC, (ASYNC_BASE,))):
        table = _ratio_table(document.get("operations", {}), names, bases[0])
        if len(table) > 1:
            parts.append(f"ratio to {bases[0]}, medians of the rounds\n" + _aligned(table))
    for entry in document.get("concurrency", {}).values():
        table = _concurrency_table(entry)
        parts.append(entry["title"] + "\n" + _aligned(table))
    if growth := document.get("growth"):
        parts.append("growth\n" + _aligned(_growth_table(growth)))
    parts += [
        f"{entry['title']}: where the time goes\n{_aligned(_steps_table(entry))}"
        for entry in document.get("steps", {}).values()
    ]
    if imports := document.get("imports"):
        rows = [[name, f"{took:.0f} ms"] for name, took in imports["milliseconds"].items()]
        parts.append("import, over an empty interpreter\n" + _aligned([["module", "adds"], *rows]))
    rows = [
        [target.operation, target.what, target.limit, target.measured, _VERDICT[target.met].strip("*")]
        for target in judged
        if target.met is not None
    ]
    if rows:
        parts.append("targets\n" + _aligned([["operation", "", "at most", "measured", ""], *rows], left=2))
    return "\n\n".join(parts)


def _synchronous() -> tuple[str, ...]:
    return tuple(name for name in CONTENDERS if name not in _ASYNC)


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# ---------------------------------------------------------------- tables


def _ratio_table(operations: Document, names: Sequence[str], base: str, *, only: Sequence[str] = ()) -> list[list[str]]:
    """Return the ratios to the base, and the base's own time; a dash where a contender has no natural way."""
    present = [name for name in names if any(name in entry["contenders"] for entry in operations.values())]
    others = [name for name in present if name != base]
    rows = [["operation", base, *others]]
    for key, entry in operations.items():
        measured = entry["contenders"]
        if entry["base"] != base or base not in measured or (only and key not in only):
            continue
        cells = [f"{measured[name]['ratios'][base]:.2f}" if name in measured else targets.MISSING for name in others]
        rows.append([entry["title"], duration(measured[base]["median"]), *cells])
    return rows


def _times_table(entry: Document) -> list[list[str]]:
    bases = [base for base in (BASE, STANDARD, ASYNC_BASE) if base in entry["contenders"]]
    rows = [["contender", "median", "minimum", *(f"to {base}" for base in bases)]]
    for name, figures in entry["contenders"].items():
        ratios = [f"{figures['ratios'][base]:.2f}" if base in figures["ratios"] else targets.MISSING for base in bases]
        rows.append([name, duration(figures["median"]), duration(figures["minimum"]), *ratios])
    return rows


def _concurrency_table(entry: Document) -> list[list[str]]:
    if "modes" in entry:
        rows = [["synchronous", "one alone, per second", "each", "Pool.write", "Pool.write to each"]]
        for mode, found in entry["modes"].items():
            speeds = [f"{found[who]['per_second']:,.0f}" for who in ("alone", "each", "write")]
            rows.append([mode, *speeds, f"{found['ratio']:.1f}"])
        return rows
    contenders = entry["contenders"]
    if "p99_to_median" in next(iter(contenders.values()), {}):
        rows = [["pool", "median wait", "99th percentile", "to the median", "worst"]]
        for name, found in contenders.items():
            times = [duration(found["median"]), duration(found["p99"]), f"{found['p99_to_median']:.2f}"]
            rows.append([name, *times, duration(found["worst"])])
        return rows
    rows = [["contender", "writes per second", f"throughput to {BASE}", "worst wait", "errors"]]
    for name, found in contenders.items():
        ratio = f"{1 / found['ratios'][BASE]:.2f}" if found["ratios"] else targets.MISSING
        rows.append([name, f"{1 / found['median']:,.0f}", ratio, duration(found["worst"]), str(found["errors"])])
    return rows


def _growth_table(growth: Document) -> list[list[str]]:
    sizes = growth["sizes"]
    rows = [["operation", "contender", *(f"{size:,} rows" for size in sizes), "factor"]]
    for entry in growth["operations"].values():
        for name, found in entry["contenders"].items():
            medians = [duration(found["medians"][str(size)]) for size in sizes]
            rows.append([entry["title"], name, *medians, f"{found['factor']:.2f}"])
    return rows


def _steps_table(entry: Document) -> list[list[str]]:
    rows = [["step", "a call up to there", f"to {BASE}", "adds"]]
    for place, step in enumerate(entry["steps"]):
        added = f"{step['adds']:+.2f}" if place else ""
        rows.append([step["title"], duration(step["median"]), f"{step['ratio']:.2f}", added])
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


# ---------------------------------------------------------------- Markdown


def readme_table(document: Document) -> str:
    """Return the table that the project's README shows."""
    rows = _ratio_table(document["operations"], (BASE, *_README_CONTENDERS), BASE, only=_IN_README)
    rows = [
        [cell.replace(BASE, "bare apsw tuples") if not number else cell for cell in row]
        for number, row in enumerate(rows)
    ]
    machine = document["machine"]
    return (
        f"{_markdown(rows)}\n\n"
        f"Ratios to bare apsw, medians of {document['rounds']} interleaved rounds in one process; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['python']}."
        + (f" **{busy(document).capitalize()}.**" if is_busy(document) else "")
    )


def markdown(document: Document, judged: Sequence[targets.Target]) -> str:
    """Return the page of `docs/benchmarks/`."""
    return "\n\n".join(_sections(document, judged)) + "\n"


def _sections(document: Document, judged: Sequence[targets.Target]) -> Iterator[str]:
    machine = document["machine"]
    yield "# Benchmarks"
    yield (
        "Written by `make bench-full` (`python -m bench --full --write-docs`); the figures are those of [results.json](results.json), and this page is written from it. "
        "Migration tools have a page of their own: [migrations.md](migrations.md)."
    )
    yield (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']} memory, {machine['kernel']}, {machine['python']}; "
        f"{document['date']}, a {document['mode']} run. "
        + ("**{}.**" if is_busy(document) else "{}.").format(busy(document).capitalize())
    )
    yield "## Targets"
    rows = [[target.operation, target.what, target.limit, target.measured, _VERDICT[target.met]] for target in judged]
    yield _markdown([["operation", "figure", "limit", "measured", ""], *rows])
    if reasons := _reasons(judged):
        yield 'Why these are missed, which "Where the time goes" below shows in figures:'
        yield reasons
    yield "## How it is measured"
    yield _method(document)
    yield from _operation_sections(document.get("operations", {}))
    if steps := document.get("steps"):
        yield "### Where the time goes"
        yield (
            f"The same calls with one step more each time, and what that adds to the ratio to {BASE}. Steps by apsw "
            "are on its file, all others on dao's."
        )
        for entry in steps.values():
            yield f"{entry['title'][0].upper()}{entry['title'][1:]}:"
            yield _markdown(_steps_table(entry))
    yield from _other_sections(document)
    yield "## Versions and settings"
    yield _markdown([["", "version"], *([name, version] for name, version in document["versions"].items())])
    yield "What each contender's own connection said of its settings:"
    names = ("sqlite", "journal_mode", "synchronous", "foreign_keys")
    settings = [[name, *(str(read[key]) for key in names)] for name, read in document["settings"].items()]
    yield _markdown([["contender", "SQLite", "journal_mode", "synchronous", "foreign_keys"], *settings])
    if document["skipped"]:
        yield "Skipped:"
        yield "\n".join(f"- {name}: {reason}" for name, reason in document["skipped"].items())


def _reasons(judged: Sequence[targets.Target]) -> str:
    missed = dict.fromkeys(target.operation for target in judged if target.met is False)
    found = {}
    for operation in missed:
        beginnings = [beginning for beginning in _WHY if operation.startswith(beginning)]
        if beginnings:
            found[operation] = _WHY[max(beginnings, key=len)]
    return "\n".join(f"- {operation}: {why}" for operation, why in found.items())


def _method(document: Document) -> str:
    return f"""One process. Every contender has a file of its own, a copy of one database that `dao.migrate` made from `sql/sqlite`,
with WAL, `synchronous=NORMAL` and foreign keys on, which is read back through its own connection. The rows are the same: a
title of about 40 characters, a description of about 200, a config of six keys with one nested, metadata of four;
{document["rows"]:,} tasks. What is read or changed is checked once before it is measured.

{document["rounds"]} rounds; in each, every contender has a turn of some milliseconds, in an order that moves on. A ratio is the median
of the ratios within the rounds. "{targets.MISSING}": the library has no way of its own to do this, or it is not installed.

- Tuples: rows as the driver gives them, JSON left as text, also in the line "both JSON columns read". Records: a frozen attrs
  class written by hand, with datetimes, an enum, and JSON decoded by the same library as dao's.
- `create` is measured with the library's own object in hand (record, model, dict, tuple); "create from values" makes it too.
  `dao.Task(…)` checks every field and copies its JSON, which most of the others do not.
- Bare drivers run dao's statements in the way one writes them: around an UPDATE and the SELECT of the fresh row they put BEGIN IMMEDIATE
  and COMMIT. dao reads the row within the UPDATE's own transaction; what that saves is in "Where the time goes".
- SQLite prepares `find` anew at each call of the bare driver, since its filter is a parameter and the table has a partial index; on
  dao's connections it does not (`SQLITE_DBCONFIG_ENABLE_QPSG`), which is how records cost no more than tuples there.
- The ORMs leave times as text, which spares them a conversion. SQLAlchemy has the fast JSON library too.
- A stored run is compared by ratios. {harness.RULE[0].upper()}{harness.RULE[1:]}."""


def _operation_sections(operations: Document) -> Iterator[str]:
    if not operations:
        return
    yield "## Operations"
    for names, base in ((_synchronous(), BASE), (_ASYNC, ASYNC_BASE)):
        table = _ratio_table(operations, names, base)
        if len(table) > 1:
            yield f"Ratios to {base}, whose own time is in the first column."
            yield _markdown(table)
    for key in _CHARTED:
        if key in operations:
            yield f"![{operations[key]['title']}]({key}.svg)"
    yield "### Times"
    for entry in operations.values():
        yield f"<details><summary>{entry['title']}</summary>\n\n{_markdown(_times_table(entry))}\n\n</details>"


def _other_sections(document: Document) -> Iterator[str]:
    if concurrency := document.get("concurrency"):
        yield "## Several at once"
        for entry in concurrency.values():
            yield f"### {entry['title'][0].upper()}{entry['title'][1:]}"
            yield _markdown(_concurrency_table(entry))
            if "handover" in entry:
                yield (
                    f"Who waits for another thread's commit is woken after it: from one thread to the next takes "
                    f"{duration(entry['handover'])} here, with nothing done in between. So all threads together cannot make more than "
                    f"{1 / entry['handover']:,.0f} such calls a second, whatever a commit costs; less what the call itself takes. Tasks are "
                    "woken together. More: `python -m bench.group_commit`."
                )
        if "processes" in concurrency:
            yield "![writes per second from several processes](processes.svg)"
    if growth := document.get("growth"):
        yield "## Growth"
        yield (
            "The factor is the last size's median over the first's. Rows are read in an order without locality, so what "
            "bare apsw pays for a deeper B-tree and a cache that holds less of it is in its line."
        )
        yield _markdown(_growth_table(growth))
        yield "![how each operation grows](growth.svg)"
    if imports := document.get("imports"):
        yield "## Import"
        yield f"Over an empty interpreter, which takes {imports['empty']:.0f} ms, each alone: they share modules."
        rows = [[f"`{name}`", f"{took:.0f} ms"] for name, took in imports["milliseconds"].items()]
        yield _markdown([["module", "adds"], *rows])


# ---------------------------------------------------------------- charts


def drawings(document: Document) -> dict[str, str]:
    """Return the charts by file name."""
    found = {}
    operations = document.get("operations", {})
    for key in _CHARTED:
        if key in operations:
            entry = operations[key]
            bars = [
                charts.Bar(
                    name,
                    figures["median"],
                    duration(figures["median"])
                    + (f", {figures['ratios'][entry['base']]:.2f} ×" if entry["base"] in figures["ratios"] else ""),
                    _kind(name, entry["base"]),
                )
                for name, figures in sorted(entry["contenders"].items(), key=lambda item: item[1]["median"])
            ]
            found[f"{key}.svg"] = charts.render(
                entry["title"], f"median time, shorter is better; × is the ratio to {entry['base']}", bars
            )
    if entry := document.get("concurrency", {}).get("processes"):
        speeds = sorted(((1 / found["median"], name) for name, found in entry["contenders"].items()), reverse=True)
        bars = [charts.Bar(name, speed, f"{speed:,.0f} per second", _kind(name, BASE)) for speed, name in speeds]
        found["processes.svg"] = charts.render(entry["title"], "writes per second together, longer is better", bars)
    if growth := document.get("growth"):
        first, last = growth["sizes"][0], growth["sizes"][-1]
        bars = [
            charts.Bar(f"{key}: {name}", figures["factor"], f"{figures['factor']:.2f} ×", _kind(name, BASE))
            for key, entry in growth["operations"].items()
            for name, figures in entry["contenders"].items()
        ]
        note = "factor of the median time, shorter is better; 1 is no growth"
        found["growth.svg"] = charts.render(f"From {first:,} to {last:,} rows", note, bars)
    return found


def _kind(name: str, base: str) -> str:
    return "own" if name in _OWN else "base" if name == base else "bar"


def write(document: Document, judged: Sequence[targets.Target], folder: Path) -> None:
    """Write the page and the charts into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(markdown(document, judged), "utf-8")
    for name, drawing in drawings(document).items():
        (folder / name).write_text(drawing, "utf-8")
