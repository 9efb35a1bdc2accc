"""What `live`, `serve` and `array check` share: a microphone, or a recording, from command line arguments."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def chosen(channels: str | None, geometry: Any) -> tuple[int, ...]:
    """The channels of a device, from 0."""
    from streaming.devices import channels_of

    if channels is None and geometry is None:
        raise ValueError(
            "neither --array nor --channels says which channels are microphones; give one, `replayguard devices` "
            "guesses them"
        )
    picked = channels_of(channels) if channels is not None else tuple(range(geometry.num_mics))
    if geometry is not None and len(picked) != geometry.num_mics:
        raise ValueError(
            f"--channels {channels} are {len(picked)} channels, the array {geometry.name} has "
            f"{geometry.num_mics} microphones; name as many"
        )
    return picked


def recording(
    path: Path, channels: str | None, seconds: float | None = None, geometry: Any = None
) -> tuple[Any, int]:
    """The array's channels (M, T) of a sound file, its first `seconds`, and its rate; `geometry` has to fit."""
    from remasc.audio import read_audio
    from streaming.devices import channels_of

    waveform, rate = read_audio(path, seconds=seconds)
    if channels is not None:
        waveform = waveform[list(channels_of(channels, len(waveform)))]
    if geometry is not None and len(waveform) != geometry.num_mics:
        count = f"{len(waveform)} channel{'s' if len(waveform) != 1 else ''}"
        held = f"{path} has {count}" if channels is None else f"--channels {channels} picks {count} of {path}"
        raise ValueError(
            f"{held}, the array {geometry.name} has {geometry.num_mics} microphones; name the array that recorded "
            "it, or as many channels by --channels"
        )
    return waveform, rate


def microphone(
    device: str | None, picked: tuple[int, ...], geometry: Any, rate: int | None, seconds: float | None
) -> Any:
    """The device, opened; `picked` as `chosen` gives them."""
    from streaming.microphone import Microphone

    array_rate = None if geometry is None else geometry.sample_rate
    return Microphone(device, picked, rate, array_rate=array_rate, seconds=seconds)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """ALSA and PortAudio print a page to file descriptor 2 when a device goes; ours is said in a sentence."""
    if os.environ.get("REPLAYGUARD_DEBUG"):
        yield
        return
    ours = sys.stderr
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    ours.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    is_ours = _number(ours) == 2
    if is_ours:
        sys.stderr = open(os.dup(kept), "w", buffering=1, errors="replace", encoding="utf-8")  # noqa: SIM115
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        if is_ours:
            sys.stderr.close()
            sys.stderr = ours


def _number(stream: Any) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None
