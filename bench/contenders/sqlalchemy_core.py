"""SQLAlchemy Core: statements built once, with bound parameters, so that each compiles once; rows as it returns them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from bench.contenders import sqlalchemy_tables as tables
from bench.contenders.base import LIMIT, Contender

_tasks, _links, _executions = tables.tasks, tables.workflow_tasks, tables.tool_executions
_sessions, _configurations = tables.sessions, tables.configurations
_b = sa.bindparam

CREATE = sa.insert(_tasks)
GET = sa.select(_tasks).where(_tasks.c.id == _b("key"))
_NEWEST = sa.select(_tasks).order_by(_tasks.c.created_at.desc(), _tasks.c.id.desc()).limit(LIMIT)
_FIND = _NEWEST.where(_tasks.c.status == _b("status"))
_PAGE = _NEWEST.where(sa.tuple_(_tasks.c.created_at, _tasks.c.id) < sa.tuple_(_b("created_at"), _b("id")))
_COUNT = sa.select(sa.func.count()).select_from(_tasks).where(_tasks.c.status == _b("status"))
_SET_STATUS = (
    sa.update(_tasks)
    .where(_tasks.c.id == _b("key"))
    .values(status=_b("to"), started_at=_b("at"), error=None, completed_at=None)
)
_UPDATE = (
    sa.update(_tasks)
    .where(_tasks.c.id == _b("key"), _tasks.c.updated_at == _b("version"))
    .values({name: _b(name) for name in _tasks.c.keys() if name not in {"id", "created_at", "updated_at"}})  # noqa: SIM118 - no dict
)
_START = sa.insert(_executions)
_FINISH = (
    sa.update(_executions)
    .where(_executions.c.id == _b("key"), _executions.c.status.in_(("pending", "running")))
    .values(status="completed", output=_b("result"), error=None, completed_at=_b("at"), duration_ms=_b("took"))
)
_GET_EXECUTION = sa.select(_executions).where(_executions.c.id == _b("key"))
_HEARTBEAT = (
    sa.update(_sessions)
    .where(_sessions.c.id == _b("key"), _sessions.c.is_active == 1)
    .values(last_heartbeat=sa.func.max(_sessions.c.last_heartbeat, _b("at")))
)
_GET_VALUE = sa.select(_configurations.c.value).where(_configurations.c.key == _b("key"))
_SET_VALUE = sqlite_insert(_configurations)
_SET_VALUE = _SET_VALUE.on_conflict_do_update(
    index_elements=[_configurations.c.key], set_={"value": _SET_VALUE.excluded.value}
)
_WORKFLOW = (
    sa.select(_tasks, _links)
    .join(_links, _links.c.task_id == _tasks.c.id)
    .where(_links.c.workflow_id == _b("key"))
    .order_by(_links.c.sequence, _links.c.task_id)
)


def _statistics() -> Any:
    duration = _executions.c.duration_ms
    calls = sa.select(
        _executions.c.tool_name,
        _executions.c.status,
        duration,
        sa.func.count(duration).over(partition_by=_executions.c.tool_name).label("timed"),
        sa.func.row_number()
        .over(partition_by=[_executions.c.tool_name, duration.is_(None)], order_by=duration)
        .label("place"),
    ).subquery("calls")

    def percentile(percent: int) -> Any:
        return sa.func.min(sa.case((calls.c.place * 100 >= calls.c.timed * percent, calls.c.duration_ms)))

    failed = sa.case((calls.c.status.in_(("failed", "timeout")), 1), else_=0)
    columns = (sa.func.count(), sa.func.sum(failed), sa.func.avg(calls.c.duration_ms), percentile(50), percentile(95))
    return sa.select(calls.c.tool_name, *columns).group_by(calls.c.tool_name).order_by(calls.c.tool_name)


STATISTICS = _statistics()


class Core(Contender):
    name = "SQLAlchemy Core"
    kind = "query builder"
    distributions = ("SQLAlchemy",)
    in_threads = True

    def open(self, path: Path) -> None:
        self.engine = tables.engine(path)
        self.connection = self.engine.connect()

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()

    def raw(self, sql: str) -> list[Any]:
        rows = self.connection.exec_driver_sql(sql)
        found = [tuple(row) for row in rows] if rows.returns_rows else []
        self.connection.commit()
        return found

    def new(self, values: dict[str, Any]) -> Any:
        return values

    def create(self, item: Any) -> None:
        self.connection.execute(CREATE, item)
        self.connection.commit()

    create_many = create  # a list of dicts is an executemany

    def get(self, id: str) -> Any:
        return self.connection.execute(GET, {"key": id}).one()

    get_json = get

    def find(self, status: str) -> list[Any]:
        return list(self.connection.execute(_FIND, {"status": status}).all())

    def page(self, place: tuple[str, str]) -> list[Any]:
        return list(self.connection.execute(_PAGE, {"created_at": place[0], "id": place[1]}).all())

    def count(self, status: str) -> int:
        return self.connection.execute(_COUNT, {"status": status}).scalar_one()

    def set_status(self, id: str, status: str, moment: str) -> Any:
        at = moment if status == "running" else None
        return self._changed(_SET_STATUS, {"key": id, "to": status, "at": at}, GET, id)

    def changed(self, id: str, title: str) -> Any:
        values = dict(self.get(id)._mapping)
        key, version = values.pop("id"), values.pop("updated_at")
        del values["created_at"]
        return values | {"title": title, "key": key, "version": version}

    def update(self, item: Any) -> Any:
        return self._changed(_UPDATE, item, GET, item["key"])

    def new_execution(self, values: dict[str, Any]) -> Any:
        return values

    def start(self, item: Any) -> Any:
        self.connection.execute(_START, item)
        self.connection.commit()
        return item["id"]

    def finish(self, item: Any, output: Any, moment: str) -> Any:
        values = {"key": item, "result": output, "at": moment, "took": 12}
        return self._changed(_FINISH, values, _GET_EXECUTION, item)

    def heartbeat(self, id: str, moment: str) -> None:
        self._write(_HEARTBEAT, {"key": id, "at": moment})
        self.connection.commit()

    def get_value(self, key: str) -> Any:
        return self.connection.execute(_GET_VALUE, {"key": key}).scalar_one()

    def set_value(self, key: str, value: object, moment: str) -> None:
        self.connection.execute(_SET_VALUE, {"key": key, "value": value, "updated_at": moment})
        self.connection.commit()

    def workflow(self, id: str) -> list[Any]:
        return list(self.connection.execute(_WORKFLOW, {"key": id}).all())

    def statistics(self) -> list[Any]:
        return list(self.connection.execute(STATISTICS).all())

    def lend(self) -> None:
        """Take a connection from the engine's pool and give it back."""
        with self.engine.connect():
            pass

    def _write(self, statement: Any, values: dict[str, Any]) -> None:
        if self.connection.execute(statement, values).rowcount != 1:
            raise LookupError(values["key"])

    def _changed(self, statement: Any, values: dict[str, Any], get: Any, id: str) -> Any:
        try:
            self._write(statement, values)
            row = self.connection.execute(get, {"key": id}).one()
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()
        return row
