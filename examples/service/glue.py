"""All that ties FastAPI to dao: a pool for as long as the application runs, and a status for each error."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

import dao
from dao import aio, migrate, settings

STATUS = {404: dao.NotFound, 409: (dao.StaleRecord, dao.UniqueViolation), 422: (dao.InvalidValue, dao.IntegrityError)}
STATUS[503] = dao.DatabaseBusy, dao.ConnectionLost, dao.PoolTimeout


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    configured = settings.load()
    async with configured.aio_pool() as app.state.pool:
        await app.state.pool.run(migrate.assert_current, configured.migrations)
        yield


async def refuse(_request: HTTPConnection, error: dao.Error) -> JSONResponse:
    for status, kinds in STATUS.items():
        if isinstance(error, kinds):
            return JSONResponse({"detail": error.to_dict()}, status)
    raise error


def pool_of(connection: HTTPConnection) -> aio.Pool:
    return connection.app.state.pool


Pool = Annotated[aio.Pool, Depends(pool_of)]
