"""The way of a perturbation through the air: the playback device and the room of a simulated scene, as the command
went, or from another place in the same room.

A path is (M, L) impulse responses with unit energy on average over the microphones: how loud a perturbation is at
the array is the budget's affair, not the distance's. The device counts with its linear part (response, drivers and
their directivity); left out are its distortion, which would depend on the command played at the same time, and the
tolerances of the microphones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from remasc.audio import resample
from remasc.identity import scene_rng

if TYPE_CHECKING:
    from remasc.simulate.rooms import Room

PLACES = ("same", "elsewhere", "direct")
LONGEST = 0.6  # seconds kept of a response
LEFT_DB = 40.0  # what lies so far below the whole energy at its end is cut


def scene_path(
    scene: dict[str, Any], corpus_name: str, array: str, rate: int, where: str
) -> np.ndarray | None:
    """(M, L) float32 at `rate` from the attacker's loudspeaker to the microphones of `array` in a drawn scene.

    `where`: "same" = the command's own device and place; "elsewhere" = the same device, another place in the room;
    "direct" = None, all microphones hear the perturbation as it is (an idealised electrical injection).
    """
    if where == "direct":
        return None
    if where not in PLACES:
        raise ValueError(f"unknown way through the air {where!r}; expected one of {', '.join(PLACES)}")
    if scene.get("device") is None:
        raise ValueError(f"scene {scene.get('scene_id')} has no playback device; only a replay is played")
    try:
        response = _responses(scene, corpus_name, array, where)
    except KeyError as missing:
        raise ValueError(
            f"scene {scene.get('scene_id')} does not say {missing}; it was drawn by another version of the "
            "simulator: simulate the corpus anew, or attack with --air direct"
        ) from None
    from remasc.simulate.scenes import CONTENT_RATE

    response = resample(_cut(response, CONTENT_RATE), CONTENT_RATE, rate)
    energy = np.square(response, dtype=np.float64).sum() / len(response)
    return (response / np.sqrt(max(energy, 1e-30))).astype(np.float32)


def _responses(scene: dict[str, Any], corpus_name: str, array: str, where: str) -> np.ndarray:
    """Device and room, (M, L) at the simulator's own rate."""
    from scipy import fft as sfft

    from remasc.simulate import playback
    from remasc.simulate.render import microphones
    from remasc.simulate.rooms import omni, responses, room_of, transfer
    from remasc.simulate.scenes import CONTENT_RATE

    room = room_of(scene["room"])
    nominal = microphones(scene, (array,))
    device = playback.make_device(corpus_name, scene["device"]["id"], scene["device"]["family"])
    if scene["device"].get("one_driver"):
        device = playback.with_one_driver(device)
    position, facing = np.array(scene["source"]), np.array(scene["facing"])
    built_in = scene["device"]["built_in"]
    if where == "elsewhere" and not built_in:
        position, facing = other_place(scene, corpus_name, room)
    cabin = np.array(room.dims) if built_in else None
    emitters = playback.driver_emitters(device, position, facing, cabin)
    if not scene.get("directivity", True):
        emitters = [replace(emitter, directivity=omni) for emitter in emitters]
    rng = scene_rng(corpus_name, scene["scene_id"], "tail")  # as the command's own
    found = responses(room, emitters, nominal, CONTENT_RATE, rng, centre=nominal[0])[:, 1:]
    length = sfft.next_fast_len(found.shape[-1] + 4096)
    flat = np.ones(length // 2 + 1, np.complex64)
    shaped = playback.apply_magnitude(flat, CONTENT_RATE, lambda f: playback.magnitude(device, f))
    spectra = playback.driver_spectra(device, shaped, CONTENT_RATE)
    total = sum(transfer(one, length) * spectrum for one, spectrum in zip(found, spectra, strict=True))
    return sfft.irfft(total, length)[:, : int(LONGEST * CONTENT_RATE)]


def other_place(scene: dict[str, Any], corpus_name: str, room: Room) -> tuple[np.ndarray, np.ndarray]:
    """A place in the scene's room, 0.3 to 3 m from the array at 0.3 to 1.8 m height, that faces it; drawn from the
    scene's identity."""
    rng = scene_rng(corpus_name, scene["scene_id"], "perturbation")
    stand, inside = np.array(scene["stand"]), np.array(room.dims) - 0.1
    for _ in range(200):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 3.0)
        place = stand + far * np.array([np.cos(angle), np.sin(angle), 0.0])
        place[2] = rng.uniform(0.3, 1.8)
        if (place > 0.1).all() and (place < inside).all():
            break
    place = np.clip(place, 0.1, inside)
    towards = stand - place
    return place, towards / max(float(np.linalg.norm(towards)), 1e-9)


def _cut(response: np.ndarray, rate: int) -> np.ndarray:
    """Without the end that carries no energy."""
    left = np.cumsum(np.square(response, dtype=np.float64).sum(0)[::-1])[::-1]
    last = np.flatnonzero(left > left[0] * 10 ** (-LEFT_DB / 10))
    return response[:, : max(int(last[-1]) + 1 if len(last) else 1, rate // 100)]
