"""Tasks: the rows of the table `tasks`, the queue that they are, what workers call, and the past."""

# names only: each module has its SQL beside its functions

from dao.tasks.claims import claim, complete, fail, release, renew, rescue
from dao.tasks.history import as_of, list_changed
from dao.tasks.queue import QueueState, cancel, count_prunable, enqueue, prune, queues, retry
from dao.tasks.table import (
    count,
    count_by_status,
    create,
    create_many,
    delete,
    exists,
    find,
    get,
    get_many,
    get_one,
    iter_all,
    set_status,
    update,
)

__all__ = [
    "QueueState",
    "as_of",
    "cancel",
    "claim",
    "complete",
    "count",
    "count_by_status",
    "count_prunable",
    "create",
    "create_many",
    "delete",
    "enqueue",
    "exists",
    "fail",
    "find",
    "get",
    "get_many",
    "get_one",
    "iter_all",
    "list_changed",
    "prune",
    "queues",
    "release",
    "renew",
    "rescue",
    "retry",
    "set_status",
    "update",
]
