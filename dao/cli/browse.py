"""The command that shows a database in a browser."""

from __future__ import annotations

import contextlib
import json
import os
from typing import NoReturn

import attrs
import click

from dao import settings, url
from dao.browsing import metadata, serving
from dao.browsing.server import check_installed, name_in_addresses
from dao.cli.files import write_whole
from dao.cli.options import command, examples, file_option
from dao.cli.output import Output
from dao.engine import connect
from dao.errors import UnsupportedEngine
from dao.migrate import database as databases
from dao.migrate.schema.registration import register

__all__ = ["browse"]


def _refuse_server(name: str) -> NoReturn:
    raise UnsupportedEngine(
        f"{name} is on a server, and datasette shows SQLite's files: use `dao top`, `dao tasks` and `dao shell`, or "
        "pgAdmin, DBeaver, Metabase or Grafana with a role that may only read, on the views task_overview and "
        "queue_overview"
    )


@click.command("browse")
@command(migrations=False, on_server=_refuse_server)
@examples("dao browse --open", "dao browse --port 8001", "dao browse --metadata datasette.json")
@click.option("--open", "opens", is_flag=True, help="Open the address in a browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="[default: any that is free]")
@file_option(
    "--metadata",
    "file",
    text="Write what datasette is told of the database to FILE, for a datasette of your own, and end.",
)
def browse(config: settings.Settings, output: Output, opens: bool, port: int, file: str | None) -> None:
    """Show the database in a browser.

    It has queries for what is stuck and why, the story of one task, throughput, slow tools and stale sessions, and all
    tables. Read only, by datasette (`pip install 'orchestrator-dao[browse]'`), in a process of its own that listens on
    this machine only and lets in who has the address that is printed. It ends with Ctrl-C. SQLite only.
    """
    database = url.parse_file(config.url)
    databases.existing(database.creating_nothing(), "show")
    path = os.path.realpath(database.path)
    name = name_in_addresses(path)
    with contextlib.closing(connect(attrs.evolve(database, mode="ro"))) as connection:
        register(connection)
        told = metadata(connection, name, os.path.basename(path))
    if file is not None:
        write_whole(file, json.dumps(told, indent=2) + "\n", "metadata")
        output.line(f"{file}: written")
        output.json({"database": config.url.name, "address": None, "metadata": file})
        return
    check_installed()
    with contextlib.suppress(KeyboardInterrupt), serving(path, told, port) as server:
        output.line(f"{config.url.name}: {server.address}")
        output.note("read only; Ctrl-C ends it")
        output.json({"database": config.url.name, "address": server.address, "metadata": None})
        if opens:
            server.open()
        server.wait()
