"""The state machine without its verbs: the model, transactions, and what must hold after every step."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import dao
from dao import TaskStatus, WorkflowStatus
from dao.engine import fetch
from tests import engines, strategies

BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
UNKNOWN = "unknown"

numbers = st.integers(0, 5)
# few moments, so that many coincide
moments = numbers.map(lambda seconds: BEGINNING + timedelta(seconds=seconds))
periods = numbers.map(lambda seconds: timedelta(seconds=seconds))
# simple ones: that any value is kept is the business of other tests
values = st.none() | numbers | st.sampled_from(["text", 0.5, True, [], {}, [None, "a"], {"a": {"b": [1]}}])
objects = st.sampled_from([{}, {"a": 1}, {"a": {"b": None}}])
keys = st.sampled_from(["a", "a.b", "a.\U0010ffff", "b", "é", "\1"])
optional_texts = st.none() | strategies.texts()


class Abandoned(Exception):
    """Raised in a transaction that is to be undone."""


@attrs.define
class Model:
    """What the database should hold: records by key."""

    tasks: dict = attrs.Factory(dict)
    workflows: dict = attrs.Factory(dict)
    links: dict = attrs.Factory(dict)
    executions: dict = attrs.Factory(dict)
    sessions: dict = attrs.Factory(dict)
    configurations: dict = attrs.Factory(dict)

    def copy(self):
        """Return a model that later changes leave alone."""
        return Model(*(dict(table) for table in attrs.astuple(self, recurse=False)))


class Machine(RuleBasedStateMachine):
    """`changed` names the rows whose `updated_at` a rule moved on; the invariants check it and clear it."""

    def __init__(self, fresh):
        super().__init__()
        self.end = contextlib.ExitStack()
        self.url = self.end.enter_context(fresh.url())
        self.connection = dao.connect(self.url)
        self.model = Model()
        self.changed = set()
        # records as they once were, also of transactions that were undone
        self.versions = []
        # the open transactions, outermost first, each with what the database held before it
        self.transactions = []

    def pick(self, table, number):
        """Return the key of some row of the table, or, less often, one that no row has."""
        present = sorted(getattr(self.model, table))
        return present[number % len(present)] if present and number < 5 else UNKNOWN

    def change(self, table, key, **changes):
        """Note a change of a row by an UPDATE."""
        rows = getattr(self.model, table)
        rows[key] = attrs.evolve(rows[key], **changes)
        self.changed.add((table, key))

    @contextlib.contextmanager
    def refused(self, error, match=None):
        """Expect a statement to fail, in a block of its own where it would spoil the transaction that is open."""
        spoils = self.transactions and not engines.is_sqlite(self.connection)
        block = dao.transaction(self.connection) if spoils else contextlib.nullcontext()
        with pytest.raises(error, match=match) as caught, block:
            yield caught

    # ------------------------------------------------------------ transactions

    @precondition(lambda self: len(self.transactions) < 3)
    @rule()
    def begin(self):
        """Open a transaction, or one inside another."""
        stack = contextlib.ExitStack()
        stack.enter_context(dao.transaction(self.connection))
        self.transactions.append((stack, self.model.copy()))

    @precondition(lambda self: self.transactions)
    @rule()
    def commit(self):
        """End the innermost transaction: what was done in it stays."""
        stack, _ = self.transactions.pop()
        stack.close()

    @precondition(lambda self: self.transactions)
    @rule()
    def roll_back(self):
        """Raise in the innermost transaction: what was done in it is gone, what was done before it stays."""
        stack, self.model = self.transactions.pop()
        with pytest.raises(Abandoned), stack:
            raise Abandoned

    @rule()
    def reopen(self):
        """Close the connection and open another: open transactions are undone, all others were kept."""
        if self.transactions:
            _, self.model = self.transactions[0]
            self.transactions.clear()
        self.connection.close()
        self.connection = dao.connect(self.url)

    # ------------------------------------------------------------ invariants

    def returned(self, table, key, record):
        """Check that a verb returned the row as it is now."""
        assert record == self.read(table)[key]

    def read(self, table):
        """Return what the database holds in a table, by key, through the public functions."""
        connection = self.connection
        if table == "links":
            links = [
                linked.link for id in self.model.workflows for linked in dao.workflow_tasks.list_tasks(connection, id)
            ]
            return {(link.workflow_id, link.task_id): link for link in links}
        if table == "sessions":
            ids = fetch(connection, "SELECT id FROM sessions")
            return {id: dao.sessions.get_one(connection, id) for (id,) in ids}
        if table == "configurations":
            ids = dao.configurations.get_all(connection)
            return {key: dao.configurations.get_record(connection, key) for key in ids}
        module = dao.tool_executions if table == "executions" else getattr(dao, table)
        return {record.id: record for record in module.iter_all(connection)}

    @invariant()
    def database_and_model_agree(self):
        """Every row is as expected, and `updated_at` moved on in those that were changed and in no other."""
        for table in attrs.fields_dict(Model):
            expected, found = getattr(self.model, table), self.read(table)
            assert found.keys() == expected.keys()
            for key, record in found.items():
                if (table, key) in self.changed:
                    assert record.updated_at > expected[key].updated_at
                    expected[key] = attrs.evolve(expected[key], updated_at=record.updated_at)
                assert record == expected[key]
        self.changed.clear()

    @rule()
    def read_listings_and_counts(self):
        """What the other reading functions say follows from the model too."""
        connection, model = self.connection, self.model
        for id in [*model.workflows, UNKNOWN]:
            links = self.linked(id)
            assert dao.workflow_tasks.list_tasks(connection, id) == [
                (model.tasks[link.task_id], link) for link in links
            ]
            assert dao.workflow_tasks.count(connection, id) == len(links)
        for id in [*model.tasks, UNKNOWN]:
            ids = sorted(workflow_id for workflow_id, task_id in model.links if task_id == id)
            assert dao.workflow_tasks.list_workflows(connection, id) == [model.workflows[key] for key in ids]
            assert dao.tasks.exists(connection, id) == (id in model.tasks)
            calls = sum(call.task_id == id for call in model.executions.values())
            assert dao.tool_executions.count(connection, task_id=id) == calls
        for module, table, kind in (
            (dao.tasks, model.tasks, TaskStatus),
            (dao.workflows, model.workflows, WorkflowStatus),
        ):
            statuses = [record.status for record in table.values()]
            assert module.count_by_status(connection) == {status: statuses.count(status) for status in kind}
            assert module.count(connection) == len(statuses)
        active = sorted(
            (session for session in model.sessions.values() if session.is_active),
            key=lambda session: (session.created_at, session.id),
        )
        assert dao.sessions.list_active(connection) == active
        assert dao.sessions.count_active(connection) == len(active)

    @invariant()
    def foreign_keys_are_clean(self):
        """No row refers to one that is gone. A server is asked at the end only: a question takes it longer."""
        if engines.is_sqlite(self.connection):
            assert engines.orphans(self.connection) == []

    def teardown(self):
        """The database is intact at the end, indexes and references included."""
        with self.end, contextlib.closing(self.connection):
            assert engines.orphans(self.connection) == []
            if engines.is_sqlite(self.connection):  # a server's files are not ours
                assert fetch(self.connection, "PRAGMA integrity_check") == [("ok",)]
