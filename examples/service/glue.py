"""All that ties FastAPI to dao: a pool for as long as the application runs, and a status for each error."""

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import HTTPConnection

import dao
from dao import aio, migrate, settings

STATUS: dict[type[object], int] = {dao.NotFound: 404, dao.InvalidValue: 422, dao.IntegrityError: 422}
STATUS |= dict.fromkeys((dao.StaleRecord, dao.UniqueViolation), 409)
STATUS |= dict.fromkeys((dao.DatabaseBusy, dao.ConnectionLost, dao.PoolTimeout), 503)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    configured = settings.load()
    async with configured.aio_pool() as app.state.pool:
        await app.state.pool.run(migrate.assert_current, configured.migrations)
        yield


async def refuse(_request: HTTPConnection, error: dao.Error) -> JSONResponse:
    for kind in type(error).__mro__:
        if kind in STATUS:
            return JSONResponse({"detail": error.to_dict()}, STATUS[kind])
    raise error


def pool_of(connection: HTTPConnection) -> aio.Pool:
    return cast(aio.Pool, connection.app.state.pool)


Pool = Annotated[aio.Pool, Depends(pool_of)]
