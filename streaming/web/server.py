"""The page on a socket: uvicorn with tight limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from streaming.web.app import Page, build_app

CONNECTIONS = 64  # at once; more are answered with 503
HEADER_BYTES = 16384
HEADER_SECONDS = (
    10.0  # from a connection's first moment, or from a request's first byte, to the end of its header
)
TAKEN_SECONDS = 20.0  # in which a reader takes what it was sent
MOST_OWED = 8 * 2**20  # bytes, of a reader that goes on asking


class Impatient(asyncio.Protocol):
    """Who does not read is shown out: what is sent must leave this process within `taking` seconds.

    A transport that is closed waits for ever until all it holds was taken, hence `abort`. Without a limit at zero a
    reader that owes less than 64 KiB would not be noticed.
    """

    taking = TAKEN_SECONDS
    transport: asyncio.Transport
    _owing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > MOST_OWED:
            self.transport.abort()
        else:
            super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._owing = asyncio.get_running_loop().call_later(self.taking, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._paid()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._paid()

    def _paid(self) -> None:
        if self._owing is not None:
            self._owing.cancel()
            self._owing = None


class Viewer(Impatient, WebSocketsSansIOProtocol):
    """A WebSocket whose reader must read."""


class Punctual(Impatient, H11Protocol):
    """Who connects and does not ask is shown out: else `CONNECTIONS` of such would lock out everybody."""

    patience = HEADER_SECONDS
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._keep_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._keep_time()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _keep_time(self) -> None:
        asked = self.cycle is not None and not self.cycle.response_complete
        if asked or self not in self.connections:  # answered now, or a WebSocket from now on
            self._forget()
        elif self._due is None:  # further bytes of a header give no further time
            self._due = self.loop.call_later(self.patience, self._show_out)

    def _show_out(self) -> None:
        self._due = None
        if self in self.connections and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to `host` and `port`, before anything slow is loaded. ValueError where it cannot be."""
    if not 0 <= port <= 65535:
        raise ValueError(f"the port is {port}; expected 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ValueError(
            f"{host}:{port} cannot be served ({error.strerror or error}); choose another --port or --host"
        ) from None
    with bound:
        yield bound


def run(page: Page, bound: socket.socket) -> None:
    """Serve until interrupted."""
    server(page).run(sockets=[bound])


def server(page: Page) -> uvicorn.Server:
    """No access log: it would hold the token."""
    config = uvicorn.Config(
        build_app(page),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=HEADER_BYTES,
        http=Punctual,
        ws=Viewer,
        ws_max_size=4096,
        ws_max_queue=4,
    )
    return uvicorn.Server(config)
