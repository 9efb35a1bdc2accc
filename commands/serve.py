"""`replayguard serve`: the live page in a browser."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from commands.microphone import chosen, microphone, recording


def serve(
    device: str | None = None,
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    array: str | None = None,
    channels: str | None = None,
    detector: str = "default",
    threshold: float | None = None,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    names: tuple[str, ...] = (),
    max_mib: float = 64.0,
) -> int:
    """A page in a browser: what is heard now and what the detector says of it; a recording to be judged.

    Only this machine reaches it, unless --host says otherwise; then a token is needed, which the printed address
    holds. The connection is not encrypted: beyond a trusted network put it behind a proxy that is. Nothing that is
    uploaded is kept.

    Args:
        device: Microphone to listen to, by name or number; see `replayguard devices`. Default: none.
        source: A sound file to listen to instead, in real time, over and over.
        array: The array that is listened to: D1, D2, D3, D4 or an array file (TOML/JSON).
        channels: Channels of the device or file that are the array's, counted from 1: 2-5 or 1,4,2,3.
        detector: A bundled detector's name or a checkpoint folder.
        threshold: Accept at or above this score; default: the detector's own.
        host: Address to serve at; 0.0.0.0 is all of this machine's.
        port: Port to serve at; 0 takes a free one.
        token: Secret that is asked for, 16 characters or more; default: a new one where a token is needed.
        names: Further names by which this machine is asked for (behind a proxy, in a local network).
        max_mib: Largest upload, MiB.
    """
    import secrets

    from streaming.memory import keep_no_lengths

    keep_no_lengths()
    from streaming.web.guard import door, is_local
    from streaming.web.server import listening, run

    if device is not None and source is not None:
        raise ValueError("give either --device or --from, not both")
    if not 0 < max_mib <= 1024:
        raise ValueError(f"--max-mib is {max_mib:g}; expected more than 0 and at most 1024")
    token = token or (None if is_local(host) else secrets.token_urlsafe(24))
    entrance = door(host, token, names)
    with listening(host, port) as sockets:
        page = _page(device, source, array, channels, detector, threshold)
        page.door, page.max_bytes = entrance, round(max_mib * 2**20)
        bound = sockets.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(
            f"replayguard serve: http://{shown}:{bound}/" + (f"?token={token}" if token else ""), flush=True
        )
        every = entrance.addresses * f"From elsewhere put this machine's address for {host}. "
        print(f"{every}Ctrl-C ends it.", file=sys.stderr)
        run(page, sockets)
    return 0


def _page(device, source, array, channels, detector, threshold):
    """The page with its detector, and the live side where there is something to listen to."""
    import math

    from detector.score import load
    from remasc import get_array
    from streaming import Settings, StreamingDetector
    from streaming.web.app import Page
    from streaming.web.guard import door

    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"--threshold is {threshold}; expected a score, such as 0.5")
    judge, known = load(detector), None if array is None else get_array(array)
    page = Page(judge, door("127.0.0.1"), known, threshold, second=_second_opinion())
    if device is None and source is None:
        return page
    from streaming.sources import ArraySource, Paced
    from streaming.web.feed import Feed

    picked = chosen(channels, known) if source is None else ()

    def ears(sample_rate: int) -> StreamingDetector:
        return StreamingDetector(judge, known, sample_rate, settings=Settings(threshold=threshold))

    def sound():
        if source is None:
            return microphone(device, picked, known, None, None)
        return Paced(ArraySource(*recording(source, channels, geometry=known)), source.name)

    page.feed = Feed(sound, ears, known, again=source is not None)
    page.source = source.name if source else str(device)
    return page


def _second_opinion():
    """The bundled source model, where this installation has one that it can use. It decides nothing: a page does
    without."""
    from detector.source.model import bundled_sources, load_source

    try:
        return load_source() if "default" in bundled_sources() else None
    except ValueError as error:
        print(f"replayguard serve: recordings are judged without cues ({error})", file=sys.stderr)
        return None
