"""The ASGI application of `replayguard serve`: a page, its two files, the analysis of an upload, a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from remasc import MicArray
from remasc.arrays import ARRAYS
from remasc.sentences import quoted
from streaming.web.analysis import analyse
from streaming.web.guard import Door, Guard
from streaming.web.limits import RateLimit, uploaded

if TYPE_CHECKING:
    from detector.score import Detector
    from detector.source.model import SourceModel
    from streaming.web.feed import Feed

STATIC = Path(__file__).parent / "static"
# by name, so that no path is ever made of what was asked for
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/pictures.js": ("pictures.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
MAX_BYTES = 64 * 2**20
UPLOAD_SECONDS = 60.0
MOST_UPLOADS, MOST_VIEWERS = 2, 16
QUEUED = 64  # messages that wait for a slow viewer; older ones are dropped


@dataclass
class Page:
    """What is served. `arrays` may be named for an upload; `array` is the one that is listened to, or expected;
    `second` explains a recording by cues."""

    detector: Detector
    door: Door
    array: MicArray | None = None
    threshold: float | None = None
    feed: Feed | None = None
    source: str = ""
    second: SourceModel | None = None
    max_bytes: int = MAX_BYTES
    rate: RateLimit = field(default_factory=lambda: RateLimit(20, 60.0))
    upload_seconds: float = UPLOAD_SECONDS
    uploads: int = 0

    def arrays(self) -> dict[str, MicArray]:
        own = {} if self.array is None else {self.array.name: self.array}
        return own | ARRAYS


def build_app(page: Page) -> Guard:
    """The application behind its guard; its lifespan starts and ends the live side."""
    scoring = CapacityLimiter(1)  # one recording at a time: the live side needs the machine, too

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if page.feed is None:
            yield
            return
        page.feed.start(asyncio.get_running_loop())
        watching = asyncio.create_task(page.feed.watch())
        try:
            yield
        finally:
            watching.cancel()
            await to_thread.run_sync(page.feed.stop)

    routes = [Route(path, partial(_file, *what)) for path, what in FILES.items()]
    routes += [
        Route("/api/about", partial(_about, page)),
        Route("/api/analyse", partial(_analyse, page, scoring), methods=["POST"]),
        WebSocketRoute("/api/live", partial(_live, page)),
    ]
    handlers = {HTTPException: _sentence, Exception: _broken}
    return Guard(Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), page.door)


def about(page: Page) -> dict[str, Any]:
    """Who judges here, and by what."""
    run, specification = page.detector.run, page.detector.specification
    return {
        "live": page.feed is not None,
        "source": page.source,
        "array": None if page.array is None else page.array.name,
        "microphones": None if page.feed is None else page.feed.num_mics,
        "arrays": {name: array.description for name, array in page.arrays().items()},
        "threshold": page.detector.threshold if page.threshold is None else page.threshold,
        "system": specification.system,
        "simulated": bool(run.get("simulated")),
        "dev_eer": run.get("dev_eer_shipped", run.get("dev_eer")),
        "max_bytes": page.max_bytes,
    }


async def _file(name: str, kind: str, _request: Request) -> Response:
    return Response((STATIC / name).read_bytes(), media_type=kind)


async def _about(page: Page, _request: Request) -> Response:
    return JSONResponse(about(page))


async def _analyse(page: Page, scoring: CapacityLimiter, request: Request) -> Response:
    if not page.rate.take(request.client.host if request.client else "?"):
        raise HTTPException(429, "Too many recordings in a short time; wait a minute.", {"retry-after": "60"})
    array = _array(page, request.query_params.get("array", ""))
    if page.uploads >= MOST_UPLOADS:
        raise HTTPException(503, "Other recordings are being judged; try again.", {"retry-after": "5"})
    page.uploads += 1
    try:
        async with uploaded(request, page.max_bytes, page.upload_seconds) as path:
            work = partial(analyse, path, page.detector, array, page.threshold, page.second)
            return JSONResponse(await to_thread.run_sync(work, limiter=scoring))
    finally:
        page.uploads -= 1


def _array(page: Page, name: str) -> MicArray | None:
    """By name alone: a path is no name here."""
    if name and name not in page.arrays():
        raise HTTPException(400, f"Unknown array {quoted(name)}; known: {', '.join(page.arrays())}.")
    return page.arrays()[name] if name else None


async def _live(page: Page, socket: WebSocket) -> None:
    if page.feed is None or len(page.feed.hub.viewers) >= MOST_VIEWERS:
        return await socket.close(4404)
    hub, queue = page.feed.hub, asyncio.Queue(maxsize=QUEUED)
    hub.viewers.add(queue)
    gone = None
    try:
        await socket.accept()
        gone = asyncio.create_task(_until_gone(socket))
        await socket.send_text(_line({"type": "about", **about(page), "past": list(hub.past)}))
        if page.feed.ended is not None:
            await socket.send_text(_line(page.feed.ended))
        while not gone.done():
            message = asyncio.create_task(queue.get())
            await asyncio.wait({message, gone}, return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                await socket.send_text(_line(message.result()))
            else:
                message.cancel()
    except (WebSocketDisconnect, RuntimeError):
        pass  # the viewer left while we spoke
    finally:
        hub.viewers.discard(queue)
        if gone is not None:
            gone.cancel()
    return None


async def _until_gone(socket: WebSocket) -> None:
    """Nothing is expected from a viewer; whatever comes is thrown away."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _line(message: dict[str, Any]) -> str:
    return json.dumps(message, allow_nan=False)


async def _sentence(_request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _broken(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": "Something failed here; nothing was accepted."}, 500)
