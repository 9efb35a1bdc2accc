"""How much may be asked: requests per client, bytes of an upload, uploads at once."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

CLIENTS = 1024  # remembered at most


class RateLimit:
    """`count` requests per `seconds` and client; what was not used is saved up to `count`.

    >>> limit = RateLimit(2, 60.0, clock=lambda: 0.0)
    >>> [limit.take("me") for _ in range(3)], limit.take("you")
    ([True, True, False], True)
    """

    def __init__(self, count: int, seconds: float, *, clock: Callable[[], float] = time.monotonic):
        self.count, self.seconds, self.clock = count, seconds, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when

    def take(self, client: str) -> bool:
        """Whether this client may ask once more, now."""
        now = self.clock()
        left, then = self._clients.pop(client, (float(self.count), now))
        left = min(self.count, left + (now - then) * self.count / self.seconds)
        allowed = left >= 1
        self._clients[client] = (left - allowed, now)
        while len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        return allowed


@asynccontextmanager
async def uploaded(request: Request, limit: int, patience: float) -> AsyncIterator[Path]:
    """The body of a request as a temporary file, which is gone afterwards, whatever happens.

    What says that it is larger than `limit` bytes is refused unread, what turns out larger at once; what takes
    longer than `patience` seconds, too.
    """
    stated = request.headers.get("content-length")
    if stated is not None and not (stated.isascii() and stated.isdigit()):
        raise HTTPException(400, "The length of the upload is no number.")
    if stated is not None and int(stated) > limit:
        raise _too_large(limit)
    handle, name = tempfile.mkstemp(prefix="replayguard-", suffix=".upload")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            await _receive(request, file.write, limit, patience)
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _receive(request: Request, write: Callable[[bytes], int], limit: int, patience: float) -> None:
    size = 0
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                write(chunk)
    except TimeoutError:
        raise HTTPException(
            408, f"The upload took longer than {patience:g} s.", {"connection": "close"}
        ) from None
    if size == 0:
        raise HTTPException(400, "The upload is empty; expected a WAV, FLAC or OGG file.")


def _too_large(limit: int) -> HTTPException:
    # the rest of the body is not read, so the connection cannot go on
    return HTTPException(
        413, f"The file is larger than {limit / 2**20:g} MiB; cut it to the command.", {"connection": "close"}
    )
