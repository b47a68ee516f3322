"""Any records arrive as they were: copied from SQLite to PostgreSQL and back, they are equal, and so are the hashes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import dao
from dao.engine import insert_many, transaction
from dao.rows import TABLES
from dao.transfer.as_stored import without_triggers
from tests import strategies
from tests.conftest import Make
from tests.copies import Records, empty, held, opened

#: A record of each table, in their order.
EACH = (
    *(strategies.tasks(), strategies.task_dependencies(), strategies.task_events()),
    *(strategies.workflows(), strategies.workflow_tasks()),
    *(strategies.tool_executions(), strategies.sessions(), strategies.configurations()),
)


@st.composite
def databases(draw: st.DrawFn, most: int) -> Records:
    """So many records of each table at the most, by its name. Links lead to what is there."""

    def several(records: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(records, max_size=most))

    tasks, workflows = several(strategies.tasks()), several(strategies.workflows())
    executions, links = several(strategies.tool_executions()), several(strategies.workflow_tasks())
    ids = [one.id for one in tasks]
    return {
        "tasks": tasks,
        "task_dependencies": [
            attrs.evolve(one, task_id=first, depends_on=second)
            for one in several(strategies.task_dependencies())
            if len({*ids}) > 1
            for first, second in [draw(st.lists(st.sampled_from(ids), min_size=2, max_size=2, unique=True))]
        ],
        "task_events": several(strategies.task_events()),
        "workflows": workflows,
        "workflow_tasks": [
            attrs.evolve(
                one,
                workflow_id=draw(st.sampled_from([workflow.id for workflow in workflows])),
                task_id=draw(st.sampled_from(ids)),
            )
            for one in links
            if tasks and workflows
        ],
        "tool_executions": [attrs.evolve(one, task_id=draw(st.sampled_from([None, *ids]))) for one in executions],
        "sessions": several(strategies.sessions()),
        "configurations": several(strategies.configurations()),
    }


@pytest.fixture
def urls(make: Make, postgresql_url: str) -> list[str]:
    """The URLs of migrated, empty databases, the second of which is on PostgreSQL, the others on SQLite."""
    return [make("sqlite"), postgresql_url, make("sqlite")]


def store(url: str, records: Records) -> None:
    """Store the records as they are, the last of those that share a key."""
    with opened(url) as connection, transaction(connection), without_triggers(connection, *TABLES):
        for table in TABLES:
            rows = {tuple(getattr(one, name) for name in one.__key__): table.to_row(one) for one in records[table.name]}
            insert_many(connection, table, rows.values())


def there_and_back(urls: Sequence[str]) -> dict[str, int]:
    """Copy from each database into the next, hold all against the first, and return how many rows a table has."""
    copies = [dao.copy(source, target) for source, target in itertools.pairwise(urls)]
    expected = held(urls[0])
    for url in urls[1:]:
        assert held(url) == expected
        assert [one.to_dict() for one in held(url)["tasks"]] == [one.to_dict() for one in expected["tasks"]]
    assert len({copied.tables for copied in copies}) == 1
    return {table.name: table.rows for table in copies[0].tables}


def test_any_records_copied_both_ways_are_equal(urls):
    """Records of all tables go from SQLite to PostgreSQL and back, and every column is as it was."""

    @settings(
        max_examples=settings.default.max_examples // 2,  # each is of eight tables, and copied twice
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(databases(3))
    def check(records: Records) -> None:
        try:
            store(urls[0], records)
            there_and_back(urls)
        finally:
            for url in urls:
                empty(url)

    check()


@pytest.mark.slow
def test_two_thousand_records_of_each_table_copied_both_ways_are_equal(urls):
    """So many at once take several pages, whose keys are of any kind, in the same order on both engines."""
    found: list[Any] = []

    @settings(max_examples=2000, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(st.tuples(*EACH))
    def collect(made: Any) -> None:
        found.append(made)

    collect()
    assert len(found) >= 2000
    records: dict[str, list[Any]] = {table.name: [] for table in TABLES}
    for number, made in enumerate(found):
        # some were found several times; no number has a tab
        keys = [{name: f"{getattr(one, name)}\t{number}" for name in one.__key__} for one in made]
        before = (number or len(found)) - 1
        keys[1] = {"task_id": keys[0]["id"], "depends_on": f"{found[before][0].id}\t{before}"}
        keys[2] = {"seq": number + 1}
        keys[4] = {"workflow_id": keys[3]["id"], "task_id": keys[0]["id"]}
        keys[5]["task_id"] = None if made[5].task_id is None else keys[0]["id"]
        for one, key in zip(made, keys, strict=True):
            records[one.__table__].append(attrs.evolve(one, **key))
    store(urls[0], records)
    assert set(there_and_back(urls).values()) == {len(found)}
