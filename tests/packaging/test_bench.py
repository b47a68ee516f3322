"""The benchmark runs, and what it makes of its figures is right. What it measures is nobody's test."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import charts, contenders, data, harness, operations, page, targets
from bench.harness import Subject, Times, Turn

ROOT = Path(__file__).parents[2]
INSTALLED = ("dao", "apsw tuples", "apsw records", "sqlite3 tuples", "sqlite3 records", "dao (async)")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run(ratio: float, *, spread: float = 0.01) -> dict[str, object]:
    """Return an operation as a run stores it: dao at a ratio to the base, with a little noise."""
    base = [1.0 + number / 100 for number in range(7)]
    own = [time * (ratio + (number - 3) * spread) for number, time in enumerate(base)]
    measured = {"dao": Times(own), "apsw tuples": Times(base)}
    return {"title": "get", "base": "apsw tuples", "contenders": harness.summary(measured, ["apsw tuples"])}


# ---------------------------------------------------------------- the program


def test_bench_tiny_run_measures_every_operation(tmp_path):
    """A run of a few rows gives times for each operation and installed contender, a page, and well-formed charts."""
    stored = tmp_path / "run.json"
    chosen = ",".join((*INSTALLED, "peewee"))
    done = bench(
        "--tiny", "--contenders", chosen, "--json", str(stored), "--write-docs", "--docs", str(tmp_path / "docs")
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(stored.read_text("utf-8"))
    assert tuple(document["operations"]) == operations.NAMES
    assert document["operations"]["get"]["contenders"].keys() >= set(INSTALLED) - {"dao (async)"}
    assert document["operations"]["async_get"]["contenders"].keys() >= {"dao (async)"}
    for entry in document["operations"].values():
        assert all(figures["minimum"] > 0 for figures in entry["contenders"].values())
    assert {"fairness", "threads", "processes", "group_commit"} == document["concurrency"].keys()
    assert document["concurrency"]["processes"]["contenders"]["dao"]["errors"] == 0
    assert document["concurrency"]["group_commit"]["handover"] > 0
    assert document["growth"]["sizes"] == [60, 240]
    assert document["steps"].keys() == {"get_json", "find", "page", "set_status", "update", "create"}
    for entry in document["steps"].values():
        assert entry["steps"][0]["ratio"] == 1.0
        assert sum(step["adds"] for step in entry["steps"]) == pytest.approx(entry["steps"][-1]["ratio"] - 1.0)
    assert document["imports"]["milliseconds"].keys() == {"dao"}
    assert document["machine"]["cores"] >= 1
    for name in INSTALLED:
        assert (
            document["settings"][name].items() >= {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}.items()
        )
    # whatever is not installed is named, and nothing that is was left out
    assert set(document["skipped"]) <= {"peewee"}
    assert "peewee" in document["settings"] or "not installed" in document["skipped"]["peewee"]
    assert "## Targets" in (tmp_path / "docs" / "README.md").read_text("utf-8")
    drawings = list((tmp_path / "docs").glob("*.svg"))
    assert {"get.svg", "processes.svg", "growth.svg"} <= {drawing.name for drawing in drawings}
    for drawing in drawings:
        ET.parse(drawing)  # noqa: S314 - of our own making


def test_bench_unknown_operation_is_refused():
    """An operation that there is not is wrong usage, and the message names those that there are."""
    done = bench("--only", "fly")
    assert done.returncode == 2
    assert "fly: not one of get, get_json" in done.stderr


def test_bench_compare_file_that_is_no_run_is_refused(tmp_path):
    """A file that no run has written is refused before anything is measured."""
    (tmp_path / "other.json").write_text("{}", "utf-8")
    done = bench("--compare", str(tmp_path / "other.json"))
    assert done.returncode == 2
    assert "other.json: not a stored run" in done.stderr


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
    """A turn that the system interrupted gives way to the next one; if none is free of it, the fastest counts, and is noted."""
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
    """A ratio compares what was measured in one round, not the medians of all."""
    measured = {"dao": Times([1.0, 20.0, 3.0]), "base": Times([1.0, 10.0, 1.0]), "lone": Times([1.0, 1.0, 1.0])}
    found = harness.summary(measured, ["base", "absent"])
    assert found["dao"]["ratios"] == {"base": 2.0}
    assert found["dao"]["median"] == 3.0
    assert found["dao"]["minimum"] == 1.0


@pytest.mark.parametrize(
    ("now", "before", "slower"),
    [
        (1.50, 1.20, True),
        (1.20, 1.50, False),
        (1.25, 1.20, False),  # 4 %: within the rule
        (1.20, 1.20, False),
    ],
)
def test_compare_ratio_grown_by_more_than_the_rule_is_named(now, before, slower):
    """An operation is slower if its ratio grew by more than a tenth."""
    found = harness.compare({"get": run(now)}, {"get": run(before)}, ["dao", "apsw tuples"])
    assert [(each.operation, each.contender) for each in found] == ([("get", "dao")] if slower else [])
    if slower:
        assert str(found[0]) == "get: dao 1.20 → 1.50 × apsw tuples (+25 %)"


def test_compare_growth_within_the_noise_is_not_named():
    """A ratio that grew by more than a tenth is not called slower while the quartiles overlap."""
    assert harness.compare({"get": run(1.4, spread=0.3)}, {"get": run(1.2, spread=0.3)}, ["dao"]) == []


def test_compare_operation_that_the_stored_run_lacks_is_passed_over():
    """What only one of the runs has measured says nothing."""
    assert harness.compare({"get": run(2.0)}, {}, ["dao"]) == []


def test_evaluate_run_within_and_beyond_the_limits_says_so():
    """A target is met up to its limit, missed beyond it, and neither if it was not measured."""
    document = {"operations": {"get": run(1.15), "find": run(1.36)}}
    judged = {(target.operation, target.what): target for target in targets.evaluate(document)}
    assert judged["get", "to apsw tuples"].met is not None
    by_limit = {target.limit: target for target in judged.values() if target.what == "to apsw tuples"}
    assert by_limit["≤ 1.45"].met is None
    assert [
        target.met for target in targets.evaluate({"operations": {"get": run(1.15)}}) if target.met is not None
    ] == [True]
    assert [
        target.met for target in targets.evaluate({"operations": {"find": run(1.36)}}) if target.met is not None
    ] == [False]


# ---------------------------------------------------------------- charts and pages


@pytest.mark.parametrize(("longest", "logarithmic"), [(10.0, False), (500.0, True)])
def test_render_bars_are_well_formed_in_both_scales(longest, logarithmic):
    """A chart is XML whatever its labels hold, has a bar for each contender, and says when its scale is logarithmic."""
    bars = [charts.Bar("a < b & c", 1.0, '"1"', "own"), charts.Bar("other", longest, "far")]
    drawing = charts.render("title & more", "note", bars)
    root = ET.fromstring(drawing)  # noqa: S314 - of our own making
    rectangles = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(rectangles) == 2
    assert float(rectangles[0].get("width")) < float(rectangles[1].get("width"))
    assert ("logarithmic" in drawing) is logarithmic
    assert "prefers-color-scheme: dark" in drawing


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


def test_open_one_other_settings_are_refused(tmp_path):
    """A contender that runs with other settings than the rest has no place among them."""
    data.build(tmp_path / "one.db", 1)
    contender = contenders.load("apsw tuples")
    contender.open(tmp_path / "one.db")
    contender.raw("PRAGMA synchronous = off")
    contender.open = lambda path: None
    with pytest.raises(RuntimeError, match="PRAGMA synchronous is 0"):
        contenders.open_one(contender, tmp_path / "one.db")
    contender.close()


def test_copy_of_an_open_database_is_refused(tmp_path):
    """What is still in the WAL of an open file would be missing from its copy."""
    data.build(tmp_path / "one.db", 1)
    contender = contenders.load("apsw tuples")
    contender.open(tmp_path / "one.db")
    contender.raw("UPDATE tasks SET title = 'changed'")
    with pytest.raises(RuntimeError, match="is open"):
        data.copy(tmp_path / "one.db", tmp_path / "two.db")
    contender.close()


def test_task_values_size_and_order_are_what_the_page_says():
    """Titles have about 40 characters, descriptions about 200; ids are ordered as the rows are."""
    values = [data.task_values(number) for number in range(200)]
    assert 35 <= statistics.mean(len(each["title"]) for each in values) <= 45
    assert 180 <= statistics.mean(len(each["description"]) for each in values) <= 220
    assert len(values[0]["config"]) == 6
    assert len(values[0]["metadata"]) == 4
    ids = [each["id"] for each in values]
    assert ids == sorted(set(ids))
