"""SQLAlchemy Core: statements built once, with bound parameters, so that each compiles once; rows as it returns them.

Times are left as the text that the schema stores, which spares SQLAlchemy a conversion. JSON goes through the fast
encoder that the others use, by the documented `json_serializer` and `json_deserializer`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from bench.contenders.base import Contender
from bench.data import COUNTS, PAGE, TASK_COLUMNS, complete, json_text, now_text

_decode = msgspec.json.Decoder().decode


class _Time(sa.types.UserDefinedType[Any]):
    """A time on a server: the driver gives it a type, and SQLAlchemy no cast to one."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "timestamptz"


class _JsonText(sa.types.TypeDecorator[Any]):
    """JSON that is stored as text, as it is on the server."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Any) -> str | None:
        return None if value is None else json_text(value)

    def process_result_value(self, value: Any, _dialect: Any) -> Any:
        return None if value is None else _decode(value)


metadata = sa.MetaData()
_time = sa.Text().with_variant(_Time(), "postgresql")
_TYPES: dict[str, Any] = {
    "config": sa.JSON().with_variant(_JsonText(), "postgresql"),
    "metadata": sa.JSON(none_as_null=True).with_variant(_JsonText(), "postgresql"),
    **dict.fromkeys([name for name in TASK_COLUMNS if name.endswith("_at")], _time),
    **dict.fromkeys(COUNTS, sa.BigInteger),
}
tasks = sa.Table(
    "tasks",
    metadata,
    *(sa.Column(name, _TYPES.get(name, sa.Text), primary_key=name == "id") for name in TASK_COLUMNS),
)


_FAST_JSON: dict[str, Any] = {"json_serializer": json_text, "json_deserializer": _decode}


def engine(place: str) -> sa.Engine:
    """Return an engine for a file, with the settings that all contenders have."""
    made = sa.create_engine(f"sqlite:///{place}", connect_args={"timeout": 5}, **_FAST_JSON)
    sa.event.listen(made, "connect", _set_pragmas)
    return made


def _set_pragmas(connection: Any, _record: object) -> None:
    # as SQLAlchemy's documentation shows it for foreign keys
    cursor = connection.cursor()
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


_b = sa.bindparam

_CREATE = sa.insert(tasks)
_GET = sa.select(tasks).where(tasks.c.id == _b("key"))
_NEWEST = sa.select(tasks).order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(PAGE)
_FIND = _NEWEST.where(tasks.c.status == _b("status"))
_PAGE = _NEWEST.where(sa.tuple_(tasks.c.created_at, tasks.c.id) < sa.tuple_(_b("created_at"), _b("id")))
_SET_STATUS = (
    sa.update(tasks)
    .where(tasks.c.id == _b("key"))
    .values(status=_b("to"), started_at=_b("at"), attempt=tasks.c.attempt + _b("begun"), error=None, completed_at=None)
)
_UPDATE = (
    sa.update(tasks)
    .where(tasks.c.id == _b("key"), tasks.c.updated_at == _b("version"))
    .values({name: _b(name) for name in TASK_COLUMNS if name not in {"id", "created_at", "updated_at"}})
)


def engine_on_server(place: str) -> sa.Engine:
    """Return an engine for the URL of a database on a server."""
    return sa.create_engine(place.replace("postgresql:", "postgresql+psycopg:", 1), **_FAST_JSON)


class Core(Contender):
    name = "SQLAlchemy Core"
    distributions = ("SQLAlchemy",)

    def open(self, place: str) -> None:
        self.engine = engine(place)
        self.connection = self.engine.connect()

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()

    def raw(self, sql: str) -> list[Any]:
        found = [tuple(row) for row in self.connection.exec_driver_sql(sql)]
        self.connection.commit()
        return found

    def new(self, values: dict[str, Any]) -> Any:
        return complete(values)

    def create(self, item: Any) -> None:
        self.connection.execute(_CREATE, item)
        self.connection.commit()

    create_many = create  # a list of dicts is an executemany

    def get(self, id: str) -> Any:
        return self.connection.execute(_GET, {"key": id}).one()

    def find(self, status: str) -> Any:
        return self.connection.execute(_FIND, {"status": status}).all()

    def page(self, place: tuple[str, str]) -> Any:
        return self.connection.execute(_PAGE, {"created_at": place[0], "id": place[1]}).all()

    def set_status(self, id: str, status: str) -> Any:
        at = now_text() if status == "running" else None
        return self._changed(_SET_STATUS, {"key": id, "to": status, "at": at, "begun": int(at is not None)})

    def changed(self, id: str, title: str) -> Any:
        values = self.get(id)._asdict()
        key, version = values.pop("id"), values.pop("updated_at")
        del values["created_at"]
        return values | {"title": title, "key": key, "version": version}

    def update(self, item: Any) -> Any:
        return self._changed(_UPDATE, item)

    def _write(self, statement: Any, values: dict[str, Any]) -> None:
        if self.connection.execute(statement, values).rowcount != 1:
            raise LookupError(values["key"])

    def _changed(self, statement: Any, values: dict[str, Any]) -> Any:
        try:
            self._write(statement, values)
            row = self.get(values["key"])
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()
        return row


class OnServer(Core):
    name = "SQLAlchemy Core (PostgreSQL)"
    base = "psycopg"
    on_server = True
    distributions = ("SQLAlchemy", "psycopg")

    def open(self, place: str) -> None:
        self.engine = engine_on_server(place)
        self.connection = self.engine.connect()
