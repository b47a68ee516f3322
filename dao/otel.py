"""Spans and metrics of OpenTelemetry for a pool, by the semantic conventions for databases. Needs the extra `otel`.

    pool = dao.Pool("sqlite:///orchestrator.db")
    otel.instrument(pool)

Each call of a table's function on one of the pool's connections is a span, such as `tasks.claim`, below the span that
is current where it was called, and counts in `db.client.operation.duration`. The pool itself is in
`db.client.connection.*`, the queues are in `orchestrator.queue.*`. Neither has a value that was stored, nor a password.

Where no SDK is configured all of this does nothing, but for the time of `dao.observe`.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from dao import codec, engine, tasks, url
from dao._version import __version__
from dao.errors import Error, InvalidValue
from dao.in_place import guard
from dao.logs import logger
from dao.observing import Observed, observe
from dao.pooling.figures import PoolStats, Timed

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError("dao.otel needs opentelemetry-api: pip install 'orchestrator-dao[otel]'") from error

if TYPE_CHECKING:
    from dao import aio
    from dao.pool import Pool

    AnyPool = Pool | aio.Pool

__all__ = ["Instrumentation", "instrument", "uninstrument"]

_NAME = "dao"
_SCHEMA = "https://opentelemetry.io/schemas/1.34.0"
# the advice of the conventions begins at 1 ms, and most calls of SQLite take less than a tenth of that
_SECONDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# an exporter must not hang with a server that does not answer
_PATIENCE = 5.0

Attributes = dict[str, str | int]


def instrument(
    pool: AnyPool,
    *,
    name: str | None = None,
    queues: bool = True,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> Instrumentation:
    """Make spans and metrics of what goes through a pool, a `dao.Pool` or a `dao.aio.Pool`, until `uninstrument`.

    `name` is the `db.client.connection.pool.name`, by default that of the database. The depths of the queues are read
    at each collection of metrics, on a connection of their own, and take as long as `tasks.queues`; not with
    `queues=False`, nor of a database in memory. The providers are those of the process unless others are given.

    Raises:
        InvalidValue: It is instrumented already.
    """
    with _GUARD:
        if pool in _INSTRUMENTED:
            raise InvalidValue("this pool is instrumented already: `dao.otel.uninstrument(pool)` ends that")
        if meter_provider not in _INSTRUMENTS:
            _INSTRUMENTS[meter_provider] = _Instruments(
                metrics.get_meter(_NAME, __version__, meter_provider, schema_url=_SCHEMA)
            )
        tracer = trace.get_tracer(_NAME, __version__, tracer_provider, schema_url=_SCHEMA)
        unused = name or _unused(pool.url.name)
        made = Instrumentation(pool, unused, tracer, _INSTRUMENTS[meter_provider], queues=queues)
        _INSTRUMENTED[pool] = made
    return made


def uninstrument(pool: AnyPool) -> None:
    """End what `instrument` began. Safe to repeat."""
    if (made := _INSTRUMENTED.get(pool)) is not None:
        made.uninstrument()


class Instrumentation:
    """What `instrument` began. `uninstrument` ends it, as does the end of a block: `with otel.instrument(pool): …`."""

    def __init__(
        self, pool: AnyPool, name: str, tracer: trace.Tracer, instruments: _Instruments, *, queues: bool
    ) -> None:
        """Begin; by `instrument` only."""
        self.name = name
        self.url = pool.url
        self.queues = queues and not pool.url.is_memory
        self._pool = weakref.ref(pool, lambda _: self._end())  # not kept: one that is dropped is closed
        self._tracer = tracer
        self._instruments = instruments
        self._database = _database(pool.url)
        self.labels: Attributes = {"db.client.connection.pool.name": name}
        instruments.live.add(self)
        self._calls, self._times = observe(self._called), pool.observe(self._timed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstrument()

    def uninstrument(self) -> None:
        """Make no more spans and metrics of the pool. Safe to repeat."""
        self._end()
        self._times.end()
        with _GUARD:
            pool = self._pool()
            if pool is not None and _INSTRUMENTED.get(pool) is self:
                del _INSTRUMENTED[pool]

    def _end(self) -> None:
        # by the garbage collector, it may be, in the middle of anything: it takes no lock of the pool's
        self._instruments.live.discard(self)
        self._calls.end()

    def stats(self) -> PoolStats | None:
        """Return the figures of the pool, or None if it has gone."""
        pool = self._pool()
        return None if pool is None else pool.stats()

    def _timed(self, what: Timed, seconds: float) -> None:
        self._instruments.timed[what].record(seconds, self.labels)

    def _called(self, event: Observed) -> None:
        ended = time.time_ns()
        pool = self._pool()
        if pool is None or not pool.has(event.connection):
            return
        attributes: Attributes = {
            **self._database,
            **_server(event.connection, self.url),
            "db.collection.name": event.table,
            "db.operation.name": event.name.partition(".")[2],
        }
        if event.error is not None:
            attributes["error.type"] = f"{type(event.error).__module__}.{type(event.error).__qualname__}"
            if code := _status_code(event.error):
                attributes["db.response.status_code"] = code
        self._instruments.duration.record(event.seconds, attributes)
        span = self._tracer.start_span(
            event.name,
            kind=trace.SpanKind.CLIENT,
            attributes={**attributes, "db.query.summary": event.name, "db.response.returned_rows": event.rows},
            start_time=ended - int(event.seconds * 1e9),
        )
        if event.error is not None:
            span.set_status(trace.StatusCode.ERROR)  # its message may have values
        span.end(ended)


# ---------------------------------------------------------------- attributes


def _database(of: url.AnyURL) -> Attributes:
    named = of.parameters.get("dbname") if isinstance(of, url.ServerURL) else of.path
    found: Attributes = {"db.system.name": engine.engine_of(of).NAME}
    if named:
        found["db.namespace"] = named
    return found


def _server(connection: Any, of: url.AnyURL) -> Attributes:
    """Return what a connection to a server knows of that, without asking it."""
    if not isinstance(of, url.ServerURL):
        return {}
    try:
        info = connection.info
        return {"db.namespace": info.dbname, "server.address": info.host, "server.port": info.port}
    except engine.engine_of(of).DriverError:  # it is lost
        return {}


def _status_code(error: BaseException) -> str | None:
    """Return the code of the database for an error: the SQLSTATE of PostgreSQL, or SQLite's extended result code."""
    for one in (error, error.__cause__):
        code = getattr(one, "sqlstate", None) or getattr(one, "extendedresult", None)
        if code is not None:
            return str(code)
    return None


# ---------------------------------------------------------------- metrics


class _Instruments:
    """The instruments of one provider, which cannot be taken back: they tell of what is `live`."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.live: weakref.WeakSet[Instrumentation] = weakref.WeakSet()
        self._depths = _Depths()

        def seconds(name: str, text: str) -> metrics.Histogram:
            return meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=_SECONDS)

        self.duration = seconds("db.client.operation.duration", "Duration of database client operations.")
        self.timed: dict[Timed, metrics.Histogram] = {
            "open": seconds("db.client.connection.create_time", "The time it took to create a new connection."),
            "wait": seconds("db.client.connection.wait_time", "The time it took to obtain a connection from the pool."),
            "use": seconds("db.client.connection.use_time", "The time between borrowing and returning one."),
        }
        counted: list[tuple[Callable[..., object], str, str, str, Callable[[PoolStats], dict[str, int]]]] = [
            (
                meter.create_observable_up_down_counter,
                "count",
                "{connection}",
                "The number of connections that are currently in the state.",
                lambda stats: {"idle": stats.idle, "used": stats.active},
            ),
            (
                meter.create_observable_up_down_counter,
                "max",
                "{connection}",
                "The maximum number of open connections.",
                lambda stats: {"": stats.size},
            ),
            (
                meter.create_observable_up_down_counter,
                "idle.max",
                "{connection}",
                "The maximum number of idle open connections.",
                lambda stats: {"": stats.size},
            ),
            (
                meter.create_observable_up_down_counter,
                "pending_requests",
                "{request}",
                "The number of requests that wait for a connection.",
                lambda stats: {"": stats.waiting},
            ),
            (
                meter.create_observable_counter,
                "timeouts",
                "{timeout}",
                "The number of requests that waited in vain for a connection.",
                lambda stats: {"": stats.timeouts},
            ),
        ]
        for create, name, unit, text, figures in counted:
            create(f"db.client.connection.{name}", [self._pools(figures)], unit, text)
        meter.create_observable_gauge(
            "orchestrator.queue.tasks", [self._queues(_of_phases)], "{task}", "Tasks that are not done with, by phase."
        )
        meter.create_observable_gauge(
            "orchestrator.queue.oldest_ready.age",
            [self._queues(_of_age)],
            "s",
            "For how long the oldest task that is ready could have been claimed, by type.",
        )

    def _pools(
        self, figures: Callable[[PoolStats], dict[str, int]]
    ) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
        def look(_: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
            for one in list(self.live):
                if (stats := one.stats()) is not None:
                    for state, number in figures(stats).items():
                        more: Attributes = {"db.client.connection.state": state} if state else {}
                        yield metrics.Observation(number, {**one.labels, **more})

        return look

    def _queues(
        self, samples: Callable[[tasks.QueueState], Iterable[tuple[float, dict[str, str]]]]
    ) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
        def look(_: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
            for database in {one.url.name: one.url for one in list(self.live) if one.queues}.values():
                for state in self._depths.of(database):
                    for value, labels in samples(state):
                        attributes = {**_database(database), "orchestrator.task.type": state.task_type, **labels}
                        yield metrics.Observation(value, attributes)

        return look


def _of_phases(state: tasks.QueueState) -> Iterator[tuple[float, dict[str, str]]]:
    for phase, number in state.to_dict().items():
        if isinstance(number, int):
            yield number, {"orchestrator.task.phase": phase}


def _of_age(state: tasks.QueueState) -> Iterator[tuple[float, dict[str, str]]]:
    if state.oldest_ready is not None:
        yield max(0.0, (codec.now() - state.oldest_ready).total_seconds()), {}


class _Depths:
    """The queues of databases, read once for all gauges of a collection."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[float, list[tasks.QueueState]]] = {}

    def of(self, database: url.AnyURL) -> list[tasks.QueueState]:
        """Return the state of the queues; nothing if it cannot be read now."""
        at, states = self._read.get(database.name, (-1.0, []))
        if time.monotonic() - at > 1.0:
            try:
                states = self._look(database)
            except (Error, engine.engine_of(database).DriverError) as error:
                logger("dao.otel").warning("%s: cannot read the depths of queues: %s", database.name, error)
                states = []
            self._read[database.name] = (time.monotonic(), states)
        return states

    def _look(self, database: url.AnyURL) -> list[tasks.QueueState]:
        quiet = database.creating_nothing().switching_nothing()
        connection = engine.engine_of(database).open_connection(quiet, time.monotonic() + _PATIENCE)
        try:
            return tasks.queues(connection)
        finally:
            connection.close()


_GUARD = guard()
_INSTRUMENTED: weakref.WeakKeyDictionary[Any, Instrumentation] = weakref.WeakKeyDictionary()
_INSTRUMENTS: dict[metrics.MeterProvider | None, _Instruments] = {}


def _unused(name: str) -> str:
    """Return the name of a pool that no other has: they tell the pools of one database apart."""
    taken = {one.name for one in _INSTRUMENTED.values()}
    number = 1
    while (name if number == 1 else f"{name}#{number}") in taken:
        number += 1
    return name if number == 1 else f"{name}#{number}"
