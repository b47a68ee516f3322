"""`dao.otel`: spans and metrics of both pools by the semantic conventions, as the SDK of OpenTelemetry reads them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import dao
from dao import aio, otel, tasks
from dao.testing import make_task
from tests.concurrency import making
from tests.engines import is_sqlite

pytestmark = pytest.mark.both_engines


class Telemetry:
    """Providers of a test, and what came of them."""

    def __init__(self) -> None:
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._metrics])

    def instrument(self, pool: Any, **options: Any) -> otel.Instrumentation:
        """Instrument a pool with these providers."""
        return otel.instrument(pool, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def spans(self) -> list[Any]:
        """Return the spans that have ended since the last look."""
        found = [*self._spans.get_finished_spans()]
        self._spans.clear()
        return found

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric now."""
        data = self._metrics.get_metrics_data()
        return {
            metric.name: [*metric.data.data_points]
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Providers of one's own, so that nothing is set for the process."""
    made = Telemetry()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


@pytest.fixture(params=["threads", "asyncio"])
def make_pool(request: pytest.FixtureRequest, url: str) -> Iterator[Callable[..., Any]]:
    """Make pools for threads, or for tasks, by a face that both have: `on` calls a function with a connection."""
    with making(request.param) as make:
        yield lambda **arguments: make(url, **arguments)


def plain(pool: Any) -> Any:
    """Return the pool itself."""
    return getattr(pool, "_pool", pool)


def test_call_is_a_span_by_the_conventions(make_pool, telemetry, connection):
    """Its name, kind, time, place and attributes; a failure has its type and code, and nobody's values."""
    pool = make_pool()
    task = make_task(title="my secret")
    tracer = telemetry.tracers.get_tracer("test")
    with telemetry.instrument(plain(pool)), pool.acquire() as lent:
        with tracer.start_as_current_span("request") as request:
            pool.on(lent, tasks.create, task)
            pool.on(lent, tasks.find)
            with pytest.raises(dao.UniqueViolation):
                pool.on(lent, tasks.create, task)
        tasks.get(connection, task.id)  # on a connection of somebody else
    create, find, failed, parent = telemetry.spans()
    assert [span.name for span in (create, find, failed)] == ["tasks.create", "tasks.find", "tasks.create"]
    for span in (create, find, failed):
        assert span.kind is SpanKind.CLIENT
        assert span.attributes["db.system.name"] == ("sqlite" if is_sqlite(connection) else "postgresql")
        assert span.attributes["db.collection.name"] == "tasks"
        assert span.attributes["db.operation.name"] == span.name.partition(".")[2]
        assert span.attributes["db.query.summary"] == span.name
        assert span.attributes["db.namespace"] in pool.url.name
        assert ("server.address" in span.attributes) is not is_sqlite(connection)
        assert "secret" not in span.to_json()
    if isinstance(plain(pool), dao.Pool):  # the others' tasks are made in another context, by the test's portal
        assert {span.parent.span_id for span in (create, find, failed)} == {request.get_span_context().span_id}
        assert parent.start_time <= create.start_time <= create.end_time <= find.end_time <= parent.end_time
    assert find.attributes["db.response.returned_rows"] == 1
    assert (create.status.status_code, failed.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert "error.type" not in create.attributes
    assert failed.attributes["error.type"] == "dao.errors.UniqueViolation"
    assert failed.attributes["db.response.status_code"] in {"1555", "23505"}


def test_span_is_below_the_one_of_the_task_that_called(url, telemetry):
    """The function runs in another thread, which has the context of the task: asyncio's or the writer's caller."""

    async def main() -> None:
        async with aio.Pool(url) as pool:
            with telemetry.instrument(pool):
                with telemetry.tracers.get_tracer("test").start_as_current_span("request"):
                    await pool.run(tasks.exists, "nobody")
                    await pool.write(tasks.create, make_task())
                await pool.run(tasks.exists, "nobody")

    asyncio.run(main())
    exists, create, request, alone = telemetry.spans()
    assert exists.parent.span_id == create.parent.span_id == request.context.span_id
    assert alone.parent is None


def test_durations_are_in_a_histogram_from_10_microseconds_on(make_pool, telemetry):
    """The buckets that the conventions advise begin at a millisecond: most calls on SQLite would be in the first."""
    pool = make_pool()
    with telemetry.instrument(plain(pool)), pool.acquire() as lent:
        for _ in range(3):
            pool.on(lent, tasks.exists, "nobody")
        with pytest.raises(dao.NotFound):
            pool.on(lent, tasks.get_one, "nobody")
    good, bad = sorted(telemetry.points()["db.client.operation.duration"], key=lambda point: -point.count)
    assert (good.count, bad.count) == (3, 1)
    assert good.explicit_bounds[:3] == (0.00001, 0.000025, 0.00005)
    assert good.attributes["db.operation.name"] == "exists"
    assert "db.response.returned_rows" not in good.attributes  # each number would be a series of its own
    assert bad.attributes["error.type"] == "dao.errors.NotFound"
    spans = [(span.end_time - span.start_time) / 1e9 for span in telemetry.spans()]
    assert good.sum == pytest.approx(sum(spans[:3]), abs=1e-6)


def test_pool_is_in_the_metrics_of_connections(make_pool, telemetry):
    """Their names and states are those of the conventions, and the numbers those of `stats`."""
    pool = make_pool(size=2)
    telemetry.instrument(plain(pool), name="first")
    with pool.acquire(), pool.acquire():
        with pytest.raises(dao.PoolTimeout), pool.acquire(timeout=0.001):
            pass
        points = telemetry.points()
    counts = points["db.client.connection.count"]
    states = {point.attributes["db.client.connection.state"]: point.value for point in counts}
    assert states == {"idle": 0, "used": 2}
    for name, value in [("max", 2), ("idle.max", 2), ("pending_requests", 0), ("timeouts", 1)]:
        (point,) = points[f"db.client.connection.{name}"]
        assert (point.value, dict(point.attributes)) == (value, {"db.client.connection.pool.name": "first"})
    points, stats = telemetry.points(), pool.stats()
    for name, count, total in [
        ("create_time", stats.opened, stats.open_seconds),
        ("use_time", stats.acquired, stats.use_seconds),
        ("wait_time", stats.acquired, None),
    ]:
        (point,) = points[f"db.client.connection.{name}"]
        assert point.count == count == 2
        assert total is None or point.sum == pytest.approx(total)
        assert dict(point.attributes) == {"db.client.connection.pool.name": "first"}


def test_depths_of_queues_are_gauges(make_pool, telemetry, connection):
    """They are what `tasks.queues` says at each collection, and hold no connection of the pool."""
    tasks.create_many(connection, [make_task(task_type="agent") for _ in range(3)])
    pool = make_pool(size=1)
    telemetry.instrument(plain(pool))
    with pool.acquire():
        points = telemetry.points()
    found = {point.attributes["orchestrator.task.phase"]: point.value for point in points["orchestrator.queue.tasks"]}
    (state,) = tasks.queues(connection)
    assert found == {name: value for name, value in state.to_dict().items() if isinstance(value, int)}
    assert {point.attributes["orchestrator.task.type"] for point in points["orchestrator.queue.tasks"]} == {"agent"}
    (age,) = points["orchestrator.queue.oldest_ready.age"]
    assert age.value >= 0
    otel.uninstrument(plain(pool))
    telemetry.instrument(plain(pool), queues=False)
    assert "orchestrator.queue.tasks" not in telemetry.points()


def test_uninstrument_leaves_nothing(make_pool, telemetry, connection):
    """No span, no sample, and the functions as they are written; then it may begin anew, but not twice at once."""
    before = tasks.exists.__code__
    pool = make_pool()
    made = telemetry.instrument(plain(pool))
    with pytest.raises(dao.InvalidValue, match="instrumented already"):
        telemetry.instrument(plain(pool))
    assert tasks.exists.__code__ is not before
    made.uninstrument()
    otel.uninstrument(plain(pool))
    assert tasks.exists.__code__ is before
    with pool.acquire() as lent:
        pool.on(lent, tasks.exists, "nobody")
    assert (telemetry.spans(), telemetry.points()) == ([], {})
    with telemetry.instrument(plain(pool)), pool.acquire() as lent:
        pool.on(lent, tasks.exists, "nobody")
    assert [span.name for span in telemetry.spans()] == ["tasks.exists"]


def test_pools_of_one_database_are_told_apart(url, telemetry):
    """Two pools with one name would be one series, whose numbers jump."""
    before = tasks.exists.__code__
    with dao.Pool(url) as one, dao.Pool(url) as other:
        names = [telemetry.instrument(pool).name for pool in (one, other)]
        assert len({*names}) == 2
        assert names[1] == f"{names[0]}#2"
        with one.acquire() as connection:
            tasks.exists(connection, "nobody")
        assert len(telemetry.spans()) == 1
    assert tasks.exists.__code__ is not before
    del one, other, connection
    gc.collect()
    assert tasks.exists.__code__ is before  # a pool that has gone is observed no more


def test_database_that_cannot_be_read_has_no_depths(telemetry, tmp_path, caplog):
    """An exporter goes on, and the log says why."""
    with dao.Pool(f"sqlite:///{tmp_path}/nothing.db") as pool, telemetry.instrument(pool):
        assert "orchestrator.queue.tasks" not in telemetry.points()
        assert "db.client.connection.max" in telemetry.points()
    assert [record.name for record in caplog.records] == ["dao.otel"]
    with dao.Pool("sqlite://") as memory, telemetry.instrument(memory):
        assert "orchestrator.queue.tasks" not in telemetry.points()
    assert len(caplog.records) == 1


def test_without_an_sdk_everything_works(make_pool):
    """The API alone, as a library meets it: spans and metrics go nowhere."""
    pool = make_pool()
    with contextlib.closing(pool), otel.instrument(plain(pool)), pool.acquire() as lent:
        assert pool.on(lent, tasks.exists, "nobody") is False
