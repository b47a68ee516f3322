"""A proxy in front of a PostgreSQL server that loses a connection at the moment that a test names."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

#: How the server says that it has answered all of what it was sent, or that it is ready for the rows of a COPY
#: (postgresql.org/docs/current/protocol-message-formats.html: ReadyForQuery, CopyInResponse).
_ANSWERED = (b"Z\x00\x00\x00\x05", b"G\x00\x00\x00")

Side = Literal["before", "after"]


class Proxy:
    """Passes on what clients of a server and the server say.

    Attributes:
        url: Where clients connect.
        lost: How many connections were lost.
    """

    def __init__(self, url: str) -> None:
        """Stand in front of the server of a URL."""
        given = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
        host, port = given.pop("host"), int(given.pop("port", "5432"))
        self._server: Any = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._folder = tempfile.mkdtemp(prefix="dao-proxy-", dir="/tmp")
        who = ":".join(quote(given.pop(name), safe="") for name in ("user", "password") if name in given)
        database = quote(given.pop("dbname"), safe="")
        self.url = f"postgresql://{who}{'@' if who else ''}/{database}?{urlencode(given | {'host': self._folder})}"
        self.lost = 0
        self._loss: tuple[Side, bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder) / ".s.PGSQL.5432"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        shutil.rmtree(self._folder)

    def lose(self, side: Side, said: str) -> None:
        """Lose the next connection on which the client says this, before the server hears it or after it answered."""
        self._loss = (side, said.encode())

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        unix = isinstance(self._server, str)
        with client, socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as server:
            server.connect(self._server)
            with contextlib.suppress(OSError):
                while self._pass_one_on(client, server):
                    pass

    def _pass_one_on(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what one of the two says next; return whether the connection goes on."""
        for one in select.select([client, server], [], [])[0]:
            said = one.recv(65536)
            if not said:
                return False
            loses = one is client and self._loss is not None and self._loss[1] in said
            if not loses:
                (server if one is client else client).sendall(said)
                continue
            assert self._loss is not None
            side, self._loss = self._loss[0], None
            if side == "after":
                server.sendall(said)
                heard = b""
                while not any(message in heard for message in _ANSWERED):
                    heard += server.recv(65536)
            self.lost += 1
            return False
        return True
