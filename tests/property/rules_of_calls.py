"""Rules of the state machine: tool executions, sessions and configurations."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import dao
from dao import Configuration, ToolStatus
from dao.records import FINISHED_CALLS
from dao.testing import make_tool_execution
from tests import strategies
from tests.property.machine import UNKNOWN, Machine, keys, moments, numbers, periods, values


class ExecutionRules(Machine):
    """The verbs of `dao.tool_executions`."""

    def task_or_none(self, number):
        """Return the id of a task, one that no task has, or None."""
        return None if number == 0 else self.pick("tasks", number)

    @rule(number=numbers, name=st.sampled_from(["search", "shell"]), input=values, now=moments)
    def start_execution(self, number, name, input, now):
        """A call that begins now is running."""
        task_id = self.task_or_none(number)
        if task_id == UNKNOWN:
            with self.refused(dao.ForeignKeyViolation, match="task_id refers to 'unknown'"):
                dao.tool_executions.start(self.connection, tool_name=name, input=input, task_id=task_id)
            return
        execution = dao.tool_executions.start(self.connection, tool_name=name, input=input, task_id=task_id, now=now)
        assert (execution.status, execution.started_at, execution.created_at) == (ToolStatus.RUNNING, now, now)
        assert (execution.tool_name, execution.input, execution.task_id) == (name, input, task_id)
        self.model.executions[execution.id] = execution

    @rule(
        execution=st.builds(
            make_tool_execution,
            tool_name=st.sampled_from(["search", "shell"]),
            status=st.sampled_from(ToolStatus),
            output=values,
            duration_ms=st.none() | numbers,
            created_at=moments,
        ),
        number=numbers,
    )
    def record_execution(self, execution, number):
        """A call is stored as it is, and once only."""
        execution = attrs.evolve(execution, task_id=self.task_or_none(number))
        if execution.task_id == UNKNOWN:
            with self.refused(dao.ForeignKeyViolation):
                dao.tool_executions.record(self.connection, execution)
            return
        dao.tool_executions.record(self.connection, execution)
        self.model.executions[execution.id] = execution
        with self.refused(dao.UniqueViolation):
            dao.tool_executions.record(self.connection, execution)

    @rule(
        number=numbers,
        status=st.sampled_from(sorted(FINISHED_CALLS)),
        by_id=st.booleans(),
        output=values,
        error=strategies.texts(),
        now=moments,
    )
    def end_execution(self, number, status, by_id, output, error, now):
        """Finish, fail or time out: once, and never again."""
        id = self.pick("executions", number)
        old = self.model.executions.get(id, make_tool_execution(id=UNKNOWN))
        execution = id if by_id else old
        if status is ToolStatus.COMPLETED:
            error, end = None, dao.tool_executions.finish
            arguments = {"output": output, "now": now}
        else:
            end = dao.tool_executions.fail if status is ToolStatus.FAILED else dao.tool_executions.timeout
            arguments = {"output": output, "error": error, "now": now}
        if id == UNKNOWN or old.status in FINISHED_CALLS:
            with pytest.raises(dao.NotFound if id == UNKNOWN else dao.StaleRecord):
                end(self.connection, execution, **arguments)
            return
        duration = None if old.started_at is None else max(0, (now - old.started_at) // timedelta(milliseconds=1))
        self.change("executions", id, status=status, output=output, error=error, completed_at=now, duration_ms=duration)
        self.returned("executions", id, end(self.connection, execution, **arguments))

    @rule(moment=moments)
    def delete_executions_before(self, moment):
        """Older calls go, whatever their status."""
        kept = {key: call for key, call in self.model.executions.items() if call.created_at >= moment}
        deleted = dao.tool_executions.delete_before(self.connection, moment)
        assert deleted == len(self.model.executions) - len(kept)
        self.model.executions = kept

    @rule(since=st.none() | moments, until=st.none() | moments)
    def read_statistics(self, since, until):
        """Counts, failures, mean and percentiles are those of the calls of the period."""
        calls = {}
        for call in self.model.executions.values():
            if (since is None or since <= call.created_at) and (until is None or call.created_at < until):
                calls.setdefault(call.tool_name, []).append(call)
        found = dao.tool_executions.statistics(self.connection, since=since, until=until)
        assert [tool.tool_name for tool in found] == sorted(calls)
        for tool in found:
            of_tool = calls[tool.tool_name]
            durations = sorted(call.duration_ms for call in of_tool if call.duration_ms is not None)
            assert tool.count == len(of_tool)
            assert tool.failures == sum(call.status in {ToolStatus.FAILED, ToolStatus.TIMEOUT} for call in of_tool)
            assert (tool.p50_ms, tool.p95_ms) == (nearest_rank(durations, 50), nearest_rank(durations, 95))
            mean = Fraction(sum(durations), len(durations)) if durations else None
            assert tool.mean_ms == (None if mean is None else pytest.approx(float(mean)))


def nearest_rank(durations, percent):
    """Return the smallest duration that so many per cent of them do not exceed; None of none."""
    if not durations:
        return None
    return next(
        duration
        for duration in durations
        if sum(other <= duration for other in durations) * 100 >= percent * len(durations)
    )


class SessionRules(Machine):
    """The verbs of `dao.sessions`."""

    @rule(client_id=strategies.names(), metadata=values, now=moments)
    def open_session(self, client_id, metadata, now):
        """A new session was last heard of when it was opened."""
        session = dao.sessions.open(self.connection, client_id=client_id, metadata=metadata, now=now)
        assert (session.client_id, session.metadata, session.is_active) == (client_id, metadata, True)
        assert session.created_at == session.last_heartbeat == now
        self.model.sessions[session.id] = session

    @rule(number=numbers, now=moments)
    def heartbeat_session(self, number, now):
        """A heartbeat moves an open session on and never back."""
        id = self.pick("sessions", number)
        if id == UNKNOWN or not self.model.sessions[id].is_active:
            with pytest.raises(dao.NotFound, match="no open session"):
                dao.sessions.heartbeat(self.connection, id, now=now)
        else:
            dao.sessions.heartbeat(self.connection, id, now=now)
            self.change("sessions", id, last_heartbeat=max(now, self.model.sessions[id].last_heartbeat))

    @rule(number=numbers)
    def close_session(self, number):
        """A session closes once."""
        id = self.pick("sessions", number)
        was_open = id != UNKNOWN and self.model.sessions[id].is_active
        assert dao.sessions.close(self.connection, id) == was_open
        if was_open:
            self.change("sessions", id, is_active=False)

    def silent(self, older_than, now):
        """Return the sessions that were last heard of longer ago than that."""
        return [session for session in self.model.sessions.values() if session.last_heartbeat < now - older_than]

    @rule(older_than=periods, now=moments)
    def close_stale_sessions(self, older_than, now):
        """Open sessions that were silent for too long are listed, then closed."""
        stale = [session for session in self.silent(older_than, now) if session.is_active]
        found = dao.sessions.list_stale(self.connection, older_than=older_than, now=now)
        assert found == sorted(stale, key=lambda session: (session.last_heartbeat, session.id))
        closed = dao.sessions.close_stale(self.connection, older_than=older_than, now=now)
        assert closed == sorted(session.id for session in stale)
        for id in closed:
            self.change("sessions", id, is_active=False)

    @rule(older_than=periods, now=moments)
    def delete_stale_sessions(self, older_than, now):
        """Sessions that were silent for too long go, open or closed."""
        deleted = dao.sessions.delete_stale(self.connection, older_than=older_than, now=now)
        assert deleted == sorted(session.id for session in self.silent(older_than, now))
        for id in deleted:
            del self.model.sessions[id]


class ConfigurationRules(Machine):
    """The verbs of `dao.configurations`."""

    def expect_configuration(self, key, value):
        """Note that a value was set."""
        if key in self.model.configurations:
            self.change("configurations", key, value=value)
        else:
            # whenever it was written, that was later
            self.model.configurations[key] = Configuration(key=key, value=value, updated_at=strategies.EARLIEST)
            self.changed.add(("configurations", key))

    @rule(key=keys, value=values)
    def set_configuration(self, key, value):
        """A value takes the place of the one that was there."""
        dao.configurations.set(self.connection, key, value)
        self.expect_configuration(key, value)

    @rule(new=st.dictionaries(keys, values), fails=st.booleans())
    def set_configurations(self, new, fails):
        """Several at once: all of them, or none if one cannot be stored."""
        if fails:
            with pytest.raises(TypeError):
                dao.configurations.set_many(self.connection, {**new, "last": object()})
            return
        dao.configurations.set_many(self.connection, new)
        for key, value in new.items():
            self.expect_configuration(key, value)

    @rule(key=keys)
    def delete_configuration(self, key):
        """A setting goes once."""
        was_there = self.model.configurations.pop(key, None) is not None
        assert dao.configurations.exists(self.connection, key) == was_there
        assert dao.configurations.delete(self.connection, key) == was_there

    @rule(key=keys | st.just(""))
    def read_configurations(self, key):
        """One by its key, or the default; all that begin with a prefix."""
        expected = {key: setting.value for key, setting in sorted(self.model.configurations.items())}
        assert dao.configurations.get(self.connection, key, default=...) == expected.get(key, ...)
        found = dao.configurations.get_all(self.connection, key)
        assert list(found.items()) == [item for item in expected.items() if item[0].startswith(key)]
