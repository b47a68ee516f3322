"""A document as tables: in a terminal, as the page docs/benchmarks/README.md, and as the README's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import breakdown, clients, group_commit, harness, tools
from bench.contenders import BASE, CONTENDERS, OWN
from bench.operations import NAMED

Document = Mapping[str, Any]
#: The first row holds the titles.
Table = list[list[str]]
#: The contender that has aims, by its base.
_AIMS = {BASE: OWN[0], clients.PSYCOPG: clients.OWN}
#: Beyond this share of interrupted turns a machine is busy.
BUSY = 0.1
#: Stands where nothing was measured.
MISSING = "\N{EN DASH}"
_IN_README = ("get", "find", "set_status", "create", "claim")


def is_busy(document: Document) -> bool:
    """Return whether other programs had so much of the machine that the figures are not to be quoted."""
    return document["interrupted"] > BUSY


def interruptions(document: Document) -> str:
    """Return how much other programs had of the machine during the run."""
    said = f"other programs interrupted {document['interrupted']:.0%} of the turns"
    return f"{said}: the machine was busy, repeat the run before you quote it" if is_busy(document) else said


def terminal(document: Document) -> str:
    """Return all tables as text."""
    return "\n\n".join(f"{title}\n{_aligned(table)}" for title, _, table in _sections(document))


def markdown(document: Document) -> str:
    """Return the page."""
    machine = document["machine"]
    about = f"{_machine(document)}, {machine['system']}; {document['date']}, a {document['mode']} run."
    written = "Written by `make bench-full` from `results.json` beside it; do not edit."
    parts = ["# Benchmarks", written, f"{about} {interruptions(document).capitalize()}.", _method(document)]
    for title, text, table in _sections(document):
        parts += [f"## {title}", text, _piped(table)]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    parts += ["## Versions", f"{versions}."]
    if document["skipped"]:
        parts += ["Skipped:", "\n".join(f"- {name}: {reason}" for name, reason in document["skipped"].items())]
    return "\n\n".join(parts) + "\n"


def readme(document: Document) -> str:
    """Return the table that the project's README shows: what a program does most, on SQLite."""
    operations = {name: document["operations"][name] for name in _IN_README if name in document["operations"]}
    rounds = f"medians of {document['rounds']} interleaved rounds in one process"
    more = "How it was measured, PostgreSQL, and the rest: [docs/benchmarks](docs/benchmarks/README.md)."
    about = f"Ratios to the bare driver's shortest statement, {rounds}; {_machine(document)}. {more}"
    return "\n\n".join([_piped(_ratios(operations, BASE, aims=False)), about])


def duration(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def _machine(document: Document) -> str:
    machine = document["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['python']}"


def _method(document: Document) -> str:
    rows, rounds = document["rows"], document["rounds"]
    return f"""Every contender has a file of its own, a copy of one database that dao made and filled, with WAL,
`synchronous=NORMAL` and foreign keys on, which is read back through its own connection. There are {rows:,} tasks, each
with a title of about 40 characters, a description of about 200, a config of six keys and metadata of four. In each of
{rounds} rounds every contender has a turn of some milliseconds, in an order that moves on. A ratio is the median of the
ratios within the rounds. "{MISSING}": not measured.

- Those on PostgreSQL have a copy each of a database in one server on this machine, by a Unix socket, with its default
  durability (`fsync` and `synchronous_commit` on); psycopg is their base.
- {BASE}, sqlite3 and psycopg are the bare drivers: the shortest statement for what is asked, rows as tuples, JSON left
  as text, on SQLite what is temporary in memory, as dao has it. After a change on SQLite they return the row as it was
  before its trigger moved `updated_at` on; the others read it once more.
- What claims a task, prolongs its lease and completes it is the same statement for the bare drivers and for dao.
- apsw records are attrs objects written by hand, without validators, with times and JSON decoded at once.
- `create` has the library's own object in hand; "from values" makes it first, with its id and times.
- The ORMs leave times as text, which spares them a conversion. SQLAlchemy has the fast JSON library that dao has.
- A stored run is compared by ratios. {harness.RULE[0].upper()}{harness.RULE[1:]}."""


# ---------------------------------------------------------------- tables


def _sections(document: Document) -> Iterator[tuple[str, str, Table]]:
    """Yield for each table its heading, what is to be known of it, and the table."""
    operations = document["operations"]
    measured = [figures for entry in operations.values() for figures in entry["contenders"].values()]
    for base in dict.fromkeys(figures["base"] for figures in measured):
        text = f"The time of {base}, and the ratios of the others to it."
        yield f"Operations, beside {base}", text, _ratios(operations, base, aims=base in _AIMS)
    for key, make in _PARTS.items():
        if key in document:
            yield make(document[key])


def _ratios(operations: Document, base: str, *, aims: bool) -> Table:
    """Return the ratios to a base, and its own time; the time of what was measured without the base."""
    groups = {
        name: {who: figures for who, figures in entry["contenders"].items() if figures["base"] == base}
        for name, entry in operations.items()
    }
    others = [name for name in CONTENDERS if name != base and any(name in found for found in groups.values())]
    rows = [["operation", base, *(["aim"] if aims else []), *others]]
    for name, found in groups.items():
        if found:
            own = duration(found[base]["median"]) if base in found else MISSING
            cells = [_ratio(found[other]) if other in found else MISSING for other in others]
            rows.append([operations[name]["title"], own, *([_aim(name, base, found)] if aims else []), *cells])
    return rows


def _ratio(figures: Document) -> str:
    return duration(figures["median"]) if figures["ratio"] is None else f"{figures['ratio']:.2f}"


def _aim(name: str, base: str, measured: Document) -> str:
    """Return the largest ratio that dao is to have, and by what it is missed."""
    own, operation = _AIMS[base], NAMED.get(name)
    aim = operation and (operation.aim if base == BASE else operation.on_server)
    beside = operation.beside if operation and base == BASE else base
    if not aim or not {own, beside} <= measured.keys():
        return MISSING
    ratio = harness.ratio(measured[own]["rounds"], measured[beside]["rounds"])
    to = f" of {beside}" if beside != base else ""
    # the limit is what is printed
    return f"≤ {aim:.2f}{to}" + (f", missed: {ratio:.2f}" if round(ratio, 2) > aim else "")


def _breakdown(found: Document) -> tuple[str, str, Table]:
    table = [["operation", *breakdown.PARTS, "statements", "Python"]]
    for entry in found.values():
        parts = [entry["parts"][part] for part in breakdown.PARTS]
        _, by_hand, own = (part["ratio"] for part in parts)
        times = (duration(part["median"]) for part in parts)
        table.append([entry["title"], *times, f"{by_hand - 1:+.2f}", f"{own - by_hand:+.2f}"])
    text = (
        "dao's own statements run by hand on its connection show what it asks of SQLite beyond the shortest statement; "
        "the rest is Python. The last two columns split what the ratio has above 1."
    )
    return "Where the time goes", text, table


def _growth(found: Document) -> tuple[str, str, Table]:
    table = [["operation", "contender", *(f"{size:,} rows" for size in found["sizes"]), "factor"]]
    for entry in found["operations"].values():
        for name, figures in entry["contenders"].items():
            table.append([entry["title"], name, *map(duration, figures["medians"]), f"{figures['factor']:.2f}"])
    text = "Rows are read in an order without locality: a deeper B-tree and a colder cache cost the bare driver too."
    return "Growth", text, table


def _clients(found: Document) -> tuple[str, str, Table]:
    table = [["client processes", clients.PSYCOPG, clients.OWN, "throughput, dao to psycopg"]]
    for number, figures in found.items():
        rates = (f"{1 / figures[name]['median']:,.0f}/s" for name in (clients.PSYCOPG, clients.OWN))
        table.append([number, *rates, f"{1 / figures[clients.OWN]['ratio']:.2f}"])
    return "Clients of one server", "Tasks that are created a second, each in a transaction of its own.", table


def _claimers(found: Document) -> tuple[str, str, Table]:
    table = [["engine", "client processes", "driver", "dao", "throughput, dao to the driver"]]
    for engine, numbers in found.items():
        base, own = clients.ENGINES[engine]
        for number, figures in numbers.items():
            rates = (f"{1 / figures[name]['median']:,.0f}/s" for name in (base, own))
            table.append([engine, number, *rates, f"{1 / figures[own]['ratio']:.2f}"])
    text = "Tasks that are claimed one by one and completed a second, each by one of the processes."
    return "Claimers of one database", text, table


def _events(found: Document) -> tuple[str, str, Table]:
    return "The price of events", "dao, with the configuration `task_events` false, and as it is.", _variants(found)


def _ahead(found: Document) -> tuple[str, str, Table]:
    text = "dao's claim of a task where others come first in the queue and are held back, as many as a bulk load has."
    return "What a claim passes by", text, _variants(found)


def _variants(found: Document) -> Table:
    """Return the time of the first variant, and the ratios of the others to it."""
    names = list(next(iter(next(iter(found.values())).values()))["variants"])
    table = [["engine", "operation", *names]]
    for engine, priced in found.items():
        for entry in priced.values():
            first, *others = (entry["variants"][name] for name in names)
            cells = (f"{duration(figures['median'])} ({_ratio(figures)})" for figures in others)
            table.append([engine, entry["title"], duration(first["median"]), *cells])
    return table


def _group_commit(found: Document) -> tuple[str, str, Table]:
    names = (group_commit.ALONE, group_commit.EACH, group_commit.SHARED)
    table = [["writers", *names, f"{names[2]} to {names[1]}"]]
    for title, figures in found.items():
        cells = [f"{1 / figures[name]['median']:,.0f}/s ({duration(figures[name]['p99'])})" for name in names]
        table.append([title, *cells, f"{1 / figures[names[2]]['ratio']:.1f}"])
    return "Group commit", "Heartbeats per second, and the 99th percentile of a call in brackets.", table


def _imports(found: Document) -> tuple[str, str, Table]:
    table = [["module", "adds"], *([f"`{name}`", duration(took)] for name, took in found["adds"].items())]
    empty = duration(found["empty"])
    return "Imports", f"Each alone, over an interpreter that imports nothing ({empty}). They share modules.", table


def _migrations(found: Document) -> tuple[str, str, Table]:
    names = [tool.name for tool in tools.TOOLS if any(tool.name in case for case in found["cases"].values())]
    table = [["case", *names]]
    for title, case in found["cases"].items():
        table.append([title, *(f"{duration(case[name]['median'])} ({_ratio(case[name])})" for name in names)])
    text = (
        f"Whole processes, start included, and in brackets the ratio to {tools.BASE}: one transaction, no checks, a "
        "number for a ledger. It, dao and sqlx switch a new database to WAL; the others leave the rollback journal."
    )
    return "Migration tools", text, table


_PARTS = {
    "breakdown": _breakdown, "clients": _clients, "claimers": _claimers, "events": _events, "ahead": _ahead,
    "growth": _growth, "group_commit": _group_commit, "imports": _imports, "migrations": _migrations,
}  # fmt: skip


def _aligned(rows: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        " ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], (w + 1 for w in widths[1:]))]) for row in rows
    )


def _piped(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))
