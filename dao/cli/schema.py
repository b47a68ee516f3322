"""The commands about the schema: the file that shows it whole, and what differs between it and a database."""

from __future__ import annotations

import difflib
from pathlib import Path

import attrs
import click

from dao import migrate, settings, url
from dao.cli.files import write_whole
from dao.cli.folders import folder_of
from dao.cli.options import UNSAFE, command, examples, file_option, options
from dao.cli.output import Output
from dao.errors import MigrationError
from dao.text import counted

__all__ = ["schema"]


def _schema_file(folder: Path) -> Path:
    """Return where the schema of a folder of migrations is written: beside it, as every *.sql in it is a migration."""
    folder = folder.absolute()
    return folder.with_name(f"{folder.name}.schema.sql")


@click.group("schema")
@examples("dao schema dump", "dao schema diff")
def schema() -> None:
    """Show the schema whole, and what differs from it."""


_file_option = file_option(
    "-o", "--output", "file", text="The schema file; - for standard output. [default: DIR.schema.sql]"
)


def _dumped(config: settings.Settings, file: str | None, set: str | None, *, write: bool = False) -> tuple[Path, str]:
    """Return where the schema belongs, and its text. `write`: it will be written there."""
    server = config.url if isinstance(config.url, url.ServerURL) else None
    engine = "sqlite" if server is None else "postgresql"
    path = _schema_file(folder_of(config, engine, set, write=write)) if file is None else Path(file)
    return path, migrate.dump(config.migrations, set=set, server=server)


@schema.command("dump")
@command(database=False, server=True)
@examples("dao schema dump", "dao schema dump --output -")
@_file_option
@options("set")
def dump(config: settings.Settings, output: Output, file: str | None, set: str | None) -> None:
    """Write the schema file.

    It holds what all migrations make, found by running them: in memory, or those for PostgreSQL on a server, in a
    database that is dropped then. A file that is current stays as it is. Each set of migrations has a file of its own,
    with what its migrations make.
    """
    output.changes = file != "-"
    if file == "-" and output.as_json:
        raise click.UsageError("--output - and --json exclude each other")
    path, text = _dumped(config, file, set, write=True)
    if file == "-":
        output.text(text)
        return
    changed = _content(path) != text
    if changed:
        write_whole(path, text, "schema file")
    output.line(f"{path}: {'written' if changed else 'current already'}")
    output.json({"path": path, "written": changed})


@schema.command("check")
@command(database=False, server=True)
@examples("dao schema check", "dao schema check --output notes.schema.sql")
@_file_option
@options("set")
def check(config: settings.Settings, output: Output, file: str | None, set: str | None) -> int:
    """Check that the schema file is current.

    Exits with 5 and shows what differs if it is not. Migrations for PostgreSQL need a server, as in dump.
    """
    if file == "-":
        raise click.UsageError("--output - is for dump: name the file to check")
    path, text = _dumped(config, file, set)
    there = _content(path)
    rows = list(
        difflib.unified_diff(
            [] if there is None else there.split("\n"),
            text.split("\n"),
            str(path),
            "what the migrations make",
            lineterm="",
        )
    )
    current = there == text
    output.json({"path": path, "exists": there is not None, "diff": rows}, ok=current)
    if current:
        output.line(f"{path}: current", style="green")
        return 0
    for row in rows:
        output.line(row)
    problem = "does not exist" if there is None else "is not what the migrations make"
    output.error(f"{path} {problem}: `dao schema dump` with the same options writes it")
    return UNSAFE


@schema.command("diff")
@command()
@examples("dao schema diff", "dao schema diff --json")
def diff(config: settings.Settings, output: Output) -> int:
    """Show where the database is not what its migrations make.

    Those that are applied. Object by object, columns and constraints by their structure, not their text. Tables in
    which other tools keep their own ledger are left out. Reads only. Exits with 5 if anything differs.
    """
    found = migrate.diff(config.url, config.migrations)
    left_out = migrate.other_ledgers(config.url)
    output.json(
        {
            "database": config.url.name,
            "differences": [attrs.asdict(difference) | {"text": str(difference)} for difference in found],
            "left_out": [attrs.asdict(ledger) for ledger in left_out],
        },
        ok=not found,
    )
    for ledger in left_out:
        output.line(f"left out: {ledger}")
    for difference in found:
        output.line(str(difference))
    if not found:
        output.line(f"{config.url.name}: the schema is what its migrations make", style="green")
        return 0
    output.error(f"{config.url.name}: the schema is not what its migrations make ({counted(len(found), 'difference')})")
    return UNSAFE


def _content(path: Path) -> str | None:
    """Return the text of the schema file, with LF line ends, or None if there is none."""
    try:
        if path.exists() and not path.is_file():
            raise MigrationError(f"{path}: not a regular file; name the schema file")
        return path.read_bytes().decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MigrationError(f"{path}: the schema file cannot be read: {error.strerror}") from error
