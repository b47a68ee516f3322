"""What was measured, as text for a terminal and as the page docs/benchmarks/migrations.md; both from the JSON document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: heading, cells; the first row are the titles
Table = list[list[str]]

#: The command that makes the page.
COMMAND = (
    "python -m bench.migrations --full --json docs/benchmarks/migrations.json --markdown docs/benchmarks/migrations.md"
)

_TITLES = {
    "crash": "kill -9 during an apply",
    "concurrency": "Several migrators at once",
    "cascade": "A table rebuild with cascading children",
    "failed": "A migration that fails in the middle",
    "edited": "An applied file that was edited",
    "rollback-missing": "A rollback that is not there",
    "row-loss": "A rebuild that loses rows",
    "backup": "A way back from a rollback",
}
_TEXTS = {
    "crash": """The process group of each tool is killed at a random moment of its own run time, start-up included, while it
applies twelve migrations, each of which makes a table, fills it with 10,000 rows and indexes it. Then a copy of the files is
looked at, and the tool is run again. *clean*: the schema is what the ledger says, no lock is left, and the next run exits with 0
and everything is there. *half-applied*: the ledger has a migration whose table, rows or index are not there, or the reverse.
*between*: killed when some, not all, of the migrations were applied; that is no fault. *not even after unlocking*: the next run
fails although the tool's own `break-lock` was run first.""",
    "concurrency": """So many processes are let go at one moment on one file with the project's seven pairs: a new file, or one in
which three of the seven are applied. Counted are the rounds in which a process exits with something other than 0; which processes
did and with what message; and the rounds after which not all seven were there and noted. A tool that is slow gets fewer rounds,
for the time it takes.""",
    "cascade": """`parent` has ten rows, `child` a hundred that refer to it `ON DELETE CASCADE`. The migration creates a new
parent, copies all rows, drops the old one and renames. *no transaction*: the tool's directive for it is at the top of the file
(`-- no-transaction`, which sqlx 0.8.6 heeds on PostgreSQL only and later versions on SQLite too, see
[4015](https://github.com/launchbadge/sqlx/pull/4015); `transaction:false`; `-- transactional: false`). *COMMIT … BEGIN*: the script ends
the tool's transaction, as is advised for sqlx in [2085](https://github.com/launchbadge/sqlx/issues/2085). yoyo, dbmate and the sqlite3
shell leave foreign keys unenforced, as SQLite does by itself; sqlx switches them on.""",
    "failed": """The second of three migrations has three statements, the second of which fails. Then the file is corrected and
the command repeated.""",
    "edited": """A file that was applied is changed (a column has another name), then the same command is run again.""",
    "rollback-missing": """The last of two migrations is rolled back; its rollback was never written, is empty, or was deleted after
it had been applied. *they agree*: the table is there exactly if the ledger says so.""",
    "row-loss": """A table of ten rows is rebuilt with a copy that has a WHERE and leaves out three.""",
    "backup": """A migration whose table holds three rows is rolled back. Are there copies beside the database that hold the rows,
and does the tool have a command that brings them back?""",
}
_CRASH = {
    "rounds": "rounds",
    "clean": "clean",
    "half_applied": "half-applied",
    "lock_left": "lock left",
    "next_run_fails": "next run fails",
    "next_run_hangs": "next run hangs",
    "still_fails_after_unlocking": "not even after unlocking",
    "killed_between_migrations": "between",
}


def terminal(document: dict[str, Any]) -> str:
    """Return the tables as text."""
    parts = [_about(document), *_notes(document)]
    for title, _, table in _sections(document):
        parts += ["", title, _aligned(table)]
    return "\n".join(parts)


def markdown(document: dict[str, Any]) -> str:
    """Return the page."""
    parts = [
        "# Migration tools on SQLite",
        "Written by a program from `migrations.json` beside it; do not edit. To run it again:",
        f"```sh\npip install -e '.[bench]'\n{COMMAND}\n```",
        _about(document),
        (
            "Every tool is run as a command of its own process, with its defaults, on the same SQL in its own layout. "
            "`bench/migrations/tools.py` holds the exact commands. sqlx is run as `sqlx database setup`, which makes the database "
            "and runs what is pending. Alembic's revisions run the statements of the script one by one."
        ),
        *_notes(document),
    ]
    for title, text, table in _sections(document):
        parts += [f"## {title}", text, _piped(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(document: dict[str, Any]) -> str:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return (
        f"{document['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"SQLite {machine['sqlite']} in apsw, files on {machine['file_system']}.\n{versions}."
    )


def _notes(document: dict[str, Any]) -> list[str]:
    return [f"Skipped: {name}: {why}" for name, why in document["skipped"].items()]


def _sections(document: dict[str, Any]) -> Iterator[tuple[str, str, Table]]:
    for case, results in document["cases"].items():
        table = {"crash": _crash, "concurrency": _concurrency}.get(case, _outcomes)(results)
        yield _TITLES[case], _TEXTS[case], table
        said = _messages(results) if case in {"crash", "concurrency"} else []
        if len(said) > 1:
            yield f"{_TITLES[case]}: what was said", "The most frequent messages of the runs that failed.", said
    timings = document["timings"]
    if "commands" in timings:
        yield (
            "Time, as commands",
            (
                "Milliseconds, process start included: median, minimum, and the median's ratio to dao's. Rounds are interleaved, each on a "
                "new database. `shell` is the sqlite3 shell reading the same scripts, each in BEGIN and COMMIT, without a ledger. dao and "
                "sqlx switch a new database to WAL; the others leave the rollback journal, which syncs more often. dbmate's time for "
                "one large script is its driver's: [go-sqlite3 1145](https://github.com/mattn/go-sqlite3/issues/1145)."
            ),
            _timings(timings["commands"]),
        )
    if "in_process" in timings:
        yield (
            "Time, in one process",
            (
                "Milliseconds for a new database file, imports not counted. The bare driver opens the file with the settings that dao "
                "gives it, and runs the seven files in one transaction, with no ledger and no checks."
            ),
            _timings(timings["in_process"]),
        )
    if "steps" in timings:
        yield (
            "Where the time of a run goes",
            (
                "The same two, in milliseconds: the median of each step, and what dao takes more. Medians of parts do not quite add "
                "up to that of the whole. Whatever first looks into the file opens its log: the checks with dao, BEGIN (in *all else*) "
                "with apsw. dao commits more pages: those of the ledger, which keeps the texts of the scripts."
            ),
            _steps(timings["steps"]),
        )


def _crash(results: dict[str, Any]) -> Table:
    rows = [[name, *(str(counted[key]) for key in _CRASH)] for name, counted in results.items()]
    return [["tool", *_CRASH.values()], *rows]


def _concurrency(results: dict[str, Any]) -> Table:
    table = [["tool", "file", "at once", "rounds with a failure", "processes failed", "“already exists”", "“locked”",
              "hung", "schema wrong after"]]  # fmt: skip
    for name, cases in results.items():
        for case, counted in cases.items():
            file, count = case.split(", ")
            table.append(
                [
                    name,
                    file,
                    count,
                    f"{counted['rounds_with_failure']} of {counted['rounds']}",
                    f"{counted['processes_failed']} of {counted['processes']}",
                    *(str(counted[key]) for key in ("already_exists", "locked", "processes_hung", "schema_wrong")),
                ]
            )
    return table


def _messages(results: dict[str, Any]) -> Table:
    table = [["tool", "times", "message"]]
    for name, result in results.items():
        # crash: one count per tool; concurrency: one per case
        tallies = [result["messages"]] if "messages" in result else [case["messages"] for case in result.values()]
        total: dict[str, int] = {}
        for tally in tallies:
            for message, times in tally.items():
                total[message] = total.get(message, 0) + times
        most = sorted(total.items(), key=lambda item: -item[1])[:3]
        table += [[name, str(times), message] for message, times in most]
    return table


def _outcomes(results: dict[str, Any]) -> Table:
    """Return a row for each outcome; one that came out differently in another round has a row for each."""
    titles: list[str] = []
    rows = []
    for name, variants in results.items():
        for variant, outcomes in variants.items():
            total = sum(outcome["times"] for outcome in outcomes)
            for outcome in outcomes:
                cells = {key: value for key, value in outcome.items() if key != "times"}
                titles = list(cells)
                often = "" if len(outcomes) == 1 else f" ({outcome['times']} of {total} rounds)"
                rows.append([f"{name}{often}", variant, *(str(value) for value in cells.values())])
    table = [["tool", "case", *titles], *rows]
    return [[*row[:1], *row[2:]] for row in table] if not any(row[1] for row in rows) else table


def _timings(results: dict[str, Any]) -> Table:
    table = [["operation", "tool", "median ms", "minimum ms", "ratio", "rounds"]]
    for operation, by_tool in results.items():
        for name, times in by_tool.items():
            table.append(
                [
                    operation,
                    name,
                    f"{times['median'] * 1000:,.1f}",
                    f"{times['minimum'] * 1000:,.1f}",
                    f"{times['ratio']:.2f}",
                    str(times["rounds"]),
                ]
            )
    return table


def _steps(results: dict[str, Any]) -> Table:
    (ours, by_ours), (bare, by_bare) = results["steps"].items()
    together = results["together"]
    rows = [(step, by_ours[step], by_bare[step]) for step in by_ours]
    table = [["step", f"{ours} ms", f"{bare} ms", "more"]]
    for step, own, other in [*rows, (f"together, {results['rounds']} rounds", together[ours], together[bare])]:
        table.append([step, f"{own * 1000:.2f}", f"{other * 1000:.2f}", f"{(own - other) * 1000:+.2f}"])
    return table


def _aligned(table: Table) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "─" * min(160, max(map(len, lines))), *lines[1:]])


def _piped(table: Table) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---"] * len(rows[0])
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
