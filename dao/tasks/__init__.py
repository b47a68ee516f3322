"""Tasks: the table `tasks`, in rooms: its rows as those of any table.

Names only; each module has its SQL beside its functions.
"""

from dao.tasks.history import as_of
from dao.tasks.table import (
    count,
    count_by_status,
    create,
    create_many,
    delete,
    exists,
    find,
    get,
    get_one,
    iter_all,
    set_status,
    update,
)

__all__ = [
    "as_of",
    "count",
    "count_by_status",
    "create",
    "create_many",
    "delete",
    "exists",
    "find",
    "get",
    "get_one",
    "iter_all",
    "set_status",
    "update",
]
