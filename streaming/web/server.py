"""The page on a socket: uvicorn with tight limits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from streaming.web.app import Page, build_app

CONNECTIONS = 64  # at once; more are answered with 503
HEADER_BYTES = 16384


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
    """Serve until interrupted. No access log: it would hold the token."""
    import uvicorn

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
        http="h11",
        ws="websockets-sansio",
        ws_max_size=4096,
        ws_max_queue=4,
    )
    uvicorn.Server(config).run(sockets=[bound])
