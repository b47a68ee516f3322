"""What a database and its surroundings look like to somebody who is called because something is wrong. Changes nothing.

Each module looks at one kind of thing and yields findings: `place` and `programs` at the machine, `sqlite` and
`postgresql` at what an engine tells of itself, `rows` at ledger and tables. Whether every row is intact
takes longer to tell: `dao.migrate.check` does that.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import platform
from collections.abc import Iterator, Mapping

import attrs

from dao import codec, url
from dao import settings as all_settings
from dao._version import __version__
from dao.diagnosis import place, programs, rows, sqlite
from dao.diagnosis.finding import Finding, Look, Severity, cannot_tell, error, note, ok
from dao.engine import engine_of
from dao.engine.sqlite import library
from dao.errors import DatabaseCorrupt, Error
from dao.migrate import database as databases
from dao.migrate import status
from dao.settings import Settings

__all__ = ["Diagnosis", "Finding", "Severity", "examine"]


@attrs.frozen(kw_only=True)
class Diagnosis:
    """All that was looked at, in order."""

    database: str
    findings: tuple[Finding, ...]

    def of(self, *severities: Severity) -> list[Finding]:
        """Return the findings of these severities."""
        return [one for one in self.findings if one.severity in severities]


def examine(config: Settings, *, source: str | None = None, environ: Mapping[str, str] = os.environ) -> Diagnosis:
    """Look at the settings, the machine, the database, its schema and rows that nobody takes care of.

    Reads only, waits for no lock longer than the busy timeout, and raises nothing for what is wrong: that is a finding.
    `source` is the option that named the database, if one did.
    """
    return Diagnosis(database=config.url.name, findings=tuple(_findings(config, source, environ)))


def _findings(config: Settings, source: str | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield from _settings(config, source, environ)
    yield ok(
        "versions",
        f"dao {__version__}, SQLite {library.version()}, Python {platform.python_version()}, {platform.platform()}",
    )
    if isinstance(config.url, url.ServerURL):
        from dao.diagnosis import postgresql  # noqa: PLC0415 - SQLite needs none of it

        yield from postgresql.settings(config)
        yield from _of_database(config, postgresql.looks(config))
        return
    path = os.path.realpath(config.url.path)
    yield from sqlite.settings(config.url, config.replica)
    yield from place.findings(path)
    yield from programs.findings(path)
    yield from sqlite.beside(path, config)
    if not databases.exists(config.url):
        yield error("database", f"{path} does not exist", "there is nothing to work with", "`dao migrate` makes it")
        return
    yield from _of_database(config, sqlite.looks(path))


def _of_database(config: Settings, looks: Mapping[str, Look]) -> Iterator[Finding]:
    """Yield what an open database tells: by the looks of its engine, its rows, its ledger."""
    now, driver_error = codec.now(), engine_of(config.url).DriverError
    both: dict[str, Look] = {
        "orphans": lambda connection: rows.orphans(connection, now),
        "times": lambda connection: rows.future(connection, now),
    }
    with contextlib.ExitStack() as opened:
        try:
            connection = opened.enter_context(databases.opened(config.url, read_only=True))
        except Error as problem:
            yield error(
                "database",
                str(problem),
                "nothing can be read or written",
                "mend that first: what is in it was not looked at",
            )
            return
        for check, look in {**looks, **both}.items():
            try:
                with databases.translated(connection):
                    yield from look(connection)
            except DatabaseCorrupt as problem:
                yield error(check, str(problem), "rows are lost or wrong", "do as it says")
            except (Error, OSError, driver_error) as problem:
                yield cannot_tell(check, problem)
    try:
        current = status(config.url, config.migrations)
    except Error as problem:
        yield error("migrations", str(problem), "`dao migrate` refuses to run", "do as it says")
        return
    yield from rows.migrations(current)
    yield from rows.schema(current)


# ---------------------------------------------------------------- settings


def _settings(config: Settings, source: str | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    check = "settings"
    origin = source or all_settings.origin("DATABASE_URL", environ=environ)
    sets = config.migrations if isinstance(config.migrations, tuple) else [all_settings.Folder(config.migrations)]
    folder = "those of this package" if config.migrations is None else ", ".join(map(str, sets))
    found = f"{config.url.name}, by {origin or 'default'}; migrations: {folder}"
    if origin is None:
        yield note(
            check,
            found,
            "nothing names the database: each working folder has another one",
            "set DATABASE_URL, in the environment or in .env",
        )
    elif isinstance(config.url, url.DatabaseURL) and not os.path.isabs(config.url.path):
        yield note(
            check, found, f"the path is relative, and means {os.path.realpath(config.url.path)} in this folder only"
        )
    else:
        yield ok(check, found)
    for name in sorted(environ):
        if name.startswith("DATABASE_") and name not in all_settings.VARIABLES:
            meant = difflib.get_close_matches(name, all_settings.VARIABLES, 1, 0.85)
            if meant:
                yield note(
                    check,
                    f"{name} is set, which means nothing here",
                    f"it looks like {meant[0]}, which then has its default",
                    f"if it was meant: call it {meant[0]}",
                )
