"""The service, from an order to its summary."""

import asyncio
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from service import summaries, worker
from service.glue import refuse

import dao
from dao import sessions, tasks
from dao.testing import make_task

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom"


def order(client: TestClient, **fields: object) -> dict:
    answer = client.post("/tasks", json={"title": "a", "text": TEXT, **fields})
    assert answer.status_code == 201
    return answer.json()


def test_order_is_done_by_the_worker(client, pool):
    """The task, its tool call and its summary can be looked at; how long a summary is says the configuration."""
    task = order(client)
    assert task["status"] == "pending"
    assert client.get(f"/tasks/{task['id']}/summary").status_code == 404
    assert client.put("/configuration/summary.words", json=6).status_code == 204
    worker.work(pool, until_empty=True)
    assert client.get(f"/tasks/{task['id']}").json()["status"] == "completed"
    assert client.get(f"/tasks/{task['id']}/summary").json()["text"] == "It was the best of times,"
    (call,) = client.get(f"/tasks/{task['id']}/calls").json()["items"]
    assert (call["tool_name"], call["step"], call["status"]) == ("first_words", "summarise", "completed")
    assert client.get("/configuration").json() == {"summary.words": 6}


def test_listing_goes_page_by_page(client):
    """Each page leads to the next, the newest first."""
    ids = [order(client)["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        page = client.get(
            "/tasks", params={"limit": 2, "status": "pending"} | ({"after": after} if after else {})
        ).json()
        seen += [task["id"] for task in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ids[::-1]


def test_order_that_is_repeated_is_one(client):
    """A client that does not know whether its order arrived sends it again."""
    assert order(client, key="k")["id"] == order(client, key="k")["id"]


def test_session_lives_as_long_as_its_socket(client, connection):
    """Each message is a heartbeat, and is answered; a socket that closes ends its session."""
    order(client)
    with client.websocket_connect("/sessions/browser") as socket:
        socket.send_text("beat")
        answer = socket.receive_json()
        assert answer["tasks"]["pending"] == 1
        (session,) = sessions.list_active(connection)
        assert session.id == answer["session"]
        assert session.last_heartbeat > session.created_at
    assert sessions.list_active(connection) == []


@pytest.mark.parametrize(
    ("status", "ask"),
    [
        (404, lambda client: client.get("/tasks/nowhere")),
        (422, lambda client: client.post("/tasks", json={"title": " ", "text": "a"})),
        (422, lambda client: client.post("/tasks", json={"title": "a", "text": "a", "priority": 10})),
        (422, lambda client: client.get("/tasks", params={"limit": 5000})),
        (422, lambda client: client.get("/tasks", params={"after": "nonsense"})),
        (422, lambda client: client.get("/tasks", params={"status": "nonsense"})),
    ],
)
def test_error_has_its_status(client, status, ask):
    """What a client did wrong is told from what it may try again."""
    answer = ask(client)
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)


@pytest.mark.parametrize("kind", [dao.DatabaseBusy, dao.ConnectionBusy, dao.ConnectionLost, dao.PoolTimeout])
def test_error_that_passes_tells_the_client_to_try_again(kind):
    """It is no fault of the client's, and the request may be repeated."""
    assert asyncio.run(refuse(None, kind("a"))).status_code == 503


def test_error_that_does_not_pass_is_for_the_log():
    """What else happens to a database is an error of the server, with its traceback."""
    with pytest.raises(dao.DiskFull):
        asyncio.run(refuse(None, dao.DiskFull("a")))


def test_documentation_shows_the_records(client):
    """What comes back has a schema, with the statuses that there are."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"TaskModel", "ToolExecutionModel", "PageModel_TaskModel_", "Summary"} <= schemas.keys()
    assert "cancelled" in str(schemas["TaskModel"]["properties"]["status"]) + str(schemas.get("TaskStatus"))


def test_task_that_is_done_cannot_be_cancelled(client, pool):
    """The task has moved on since the client has seen it."""
    task = order(client)
    worker.work(pool, until_empty=True)
    assert client.post(f"/tasks/{task['id']}/cancel").status_code == 409


def test_worker_that_was_killed_is_followed_by_another(pool, connection, clock):
    """What it had claimed is done by the next one once its lease has ended."""
    task = make_task(task_type="summarise", config={"text": TEXT}, retries=1)
    tasks.create(connection, task)
    tasks.claim(connection, worker="killed", lease=timedelta(seconds=30))
    worker.work(pool, until_empty=True)
    assert tasks.get_one(connection, task.id).worker == "killed"
    clock.tick(timedelta(minutes=5))
    worker.work(pool, until_empty=True)
    assert tasks.get_one(connection, task.id).attempt == 2
    assert summaries.get_one(connection, task.id).words == 10
