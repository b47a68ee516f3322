"""The counters and the history that triggers keep, after statements that Hypothesis makes up."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dao
from dao import rows
from dao.engine import execute
from dao.testing import make_workflow, make_workflow_task
from tests import strategies
from tests.claims import FINISHED, STATUSES, add, assert_counted, events, link, move

STEPS = ["link", "unlink", "move", "delete", "pause", "add", "remove", "moved", "end"]


@pytest.mark.both_engines
@given(st.data())
def test_counters_are_right_after_any_statements(fresh, data):
    """Links, moves, deletions, workflows paused and changed, in any order: the counters are what the tables say."""
    with fresh() as connection:
        ids = ["a", "b", "c", "d"]
        add(connection, *ids)
        for name in ("x", "y"):
            dao.workflows.create(
                connection, make_workflow(id=name, status=data.draw(st.sampled_from(["active", "paused"])))
            )
        one, flow = st.sampled_from(ids), st.sampled_from(["x", "y"])
        for _ in range(data.draw(st.integers(1, 12))):
            with contextlib.suppress(dao.IntegrityError):
                match data.draw(st.sampled_from(STEPS)):
                    case "link":
                        link(connection, data.draw(one), data.draw(one))
                    case "unlink":
                        execute(connection, "DELETE FROM task_dependencies WHERE task_id = $1", (data.draw(one),))
                    case "move":
                        move(connection, data.draw(one), data.draw(st.sampled_from(STATUSES)))
                    case "delete":
                        execute(connection, "DELETE FROM tasks WHERE id IN ($1, $2)", (data.draw(one), data.draw(one)))
                    case "pause":
                        status = data.draw(st.sampled_from(["paused", "active", "archived"]))
                        execute(connection, "UPDATE workflows SET status = $1 WHERE id = $2", (status, data.draw(flow)))
                    case "add":
                        place = make_workflow_task(workflow_id=data.draw(flow), task_id=data.draw(one))
                        execute(connection, rows.WORKFLOW_TASKS.insert, rows.WORKFLOW_TASKS.to_row(place))
                    case "remove":
                        execute(connection, "DELETE FROM workflow_tasks WHERE task_id = $1", (data.draw(one),))
                    case "moved":
                        execute(
                            connection,
                            "UPDATE workflow_tasks SET workflow_id = $1 WHERE task_id = $2",
                            (data.draw(flow), data.draw(one)),
                        )
                    case "end":
                        execute(connection, "DELETE FROM workflows WHERE id = $1", (data.draw(flow),))
            assert_counted(connection)


@given(before=strategies.tasks(), after=strategies.tasks())
def test_previous_is_the_same_text_on_both_engines(fresh_sqlite, fresh_postgresql, before, after):
    """The values that changed, in the order of the columns: texts, numbers, times and JSON, as both have them."""
    found = []
    for fresh in (fresh_sqlite, fresh_postgresql):
        with fresh() as connection:
            row = dict(zip(rows.TASKS.columns, rows.TASKS.to_row(before), strict=True))
            later = dict(zip(rows.TASKS.columns, rows.TASKS.to_row(after), strict=True))
            later |= {
                "id": row["id"],
                "updated_at": row["updated_at"],
                "attempt": max(row["attempt"], later["attempt"]),
            }
            if later["status"] != row["status"] and row["status"] in FINISHED:
                later |= {"status": "pending", "worker": None, "lease_expires_at": None}
            if row["status"] == "pending" and row["attempt"] and later["status"] in {"completed", "failed"}:
                later["status"] = "cancelled"
            if later["status"] == "running" != row["status"] and later["attempt"] == row["attempt"]:
                later["status"] = row["status"]
                later |= {"worker": None, "lease_expires_at": None}
            execute(connection, rows.TASKS.insert, (*row.values(),))
            changed = [name for name in later if name not in {"id", "updated_at"}]
            assigned = ", ".join(f"{name} = ${number}" for number, name in enumerate(changed, 1))
            # beyond the last moment there is no version
            with contextlib.suppress(dao.NotNullViolation):
                execute(connection, f"UPDATE tasks SET {assigned}", [later[name] for name in changed])
            execute(connection, "DELETE FROM tasks")
            # the version that was deleted is of the clock of each
            version = re.compile(r'"updated_at":"[^"]*"')
            found.append([(*event[:6], version.sub("", event[7], count=1)) for event in events(connection)])
    ours, theirs = found
    assert ours == theirs
    assert len(ours) >= 2
