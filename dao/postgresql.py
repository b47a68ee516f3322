"""What a program needs that brings a PostgreSQL connection of its own: `dao.postgresql.prepare(connection)`."""

from dao.engine.postgresql import prepare

__all__ = ["prepare"]
