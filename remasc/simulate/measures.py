"""What a room response measures: decay, clarity, direct-to-reverberant ratio; and those of a scene, from its plan.

Shapes: M microphones, L taps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import signal

from remasc.identity import scene_rng
from remasc.simulate.playback import driver_emitters, make_device
from remasc.simulate.rooms import PRE, Emitter, responses, room_of
from remasc.simulate.scenes import CONTENT_RATE
from remasc.simulate.talkers import mouth

WINDOW_S = 0.0025  # direct sound: so much on either side of its arrival
EARLY_S = 0.05  # of clarity C50
SHORTEST_S = 0.02  # decays that can be told from the filters' own


@lru_cache(maxsize=8)
def _octaves(rate: int) -> np.ndarray:
    return signal.butter(3, [500 / 2**0.5, 1000 * 2**0.5], "bandpass", fs=rate, output="sos")


def decay_curve(response: np.ndarray, rate: int) -> np.ndarray:
    """Schroeder's backward integral (L,) in dB, 0 at the beginning, in the octaves of 500 and 1000 Hz, of the mean
    energy of a response (M, L) or (L,)."""
    energy = np.square(signal.sosfilt(_octaves(rate), np.atleast_2d(response), axis=1)).mean(axis=0)
    left = np.cumsum(energy[::-1])[::-1]
    return 10 * np.log10(np.maximum(left / max(left[0], 1e-30), 1e-12))


def reverberation_time(response: np.ndarray, rate: int) -> float:
    """T20: seconds to fall by 60 dB, by a line through -5 to -25 dB; nan where it ends before or where nothing
    decays more slowly than the octave filters themselves."""
    curve = decay_curve(response, rate)
    inside = np.flatnonzero((curve < -5) & (curve > -25))
    if len(inside) < SHORTEST_S / 3 * rate or curve.min() > -25:
        return float("nan")
    return float(-60 / np.polyfit(inside / rate, curve[inside], 1)[0])


def _ratio_db(above: np.ndarray, whole: np.ndarray) -> float:
    return float(np.mean(10 * np.log10(np.maximum(above, 1e-20) / np.maximum(whole - above, 1e-12 * whole))))


def direct_to_reverberant(response: np.ndarray, rate: int, direct: float) -> float:
    """Energy within `WINDOW_S` of sample `direct` over all the rest, dB; mean over microphones."""
    response, half = np.atleast_2d(response), WINDOW_S * rate
    own = np.square(response[:, max(0, round(direct - half)) : round(direct + half)]).sum(axis=1)
    return _ratio_db(own, np.square(response).sum(axis=1))


def clarity(response: np.ndarray, rate: int, direct: float) -> float:
    """C50: energy until `EARLY_S` after sample `direct` over what comes later, dB; mean over microphones."""
    response = np.atleast_2d(response)
    early = np.square(response[:, : round(direct + EARLY_S * rate)]).sum(axis=1)
    return _ratio_db(early, np.square(response).sum(axis=1))


def scene_measures(scene: dict, corpus_name: str) -> dict[str, float]:
    """Measured `rt60` (s; nan outdoors), `drr_db` and `c50_db` at the stand of what speaks in a scene: its mouth,
    or its device's drivers with their places and directivity, in its room. From the plan alone, in milliseconds.

    Drivers sound at once and by their gains; crossovers and the sway are left out.
    """
    room, stand = room_of(scene["room"]), np.array(scene["stand"])
    source, facing = np.array(scene["source"]), np.array(scene["facing"])
    emitters, gains = [Emitter(source, facing, mouth)], np.ones(1)
    if scene["chain"] != "mouth":
        device = make_device(corpus_name, scene["device"]["id"], scene["device"]["family"])
        cabin = np.array(room.dims) if scene["device"]["built_in"] else None
        treble = [i for i, driver in enumerate(device.drivers) if driver.band[1] > 2000]
        if scene["device"].get("one_driver"):
            treble = treble[:1]
        every = driver_emitters(device, source, facing, cabin)
        emitters, gains = [every[i] for i in treble], np.array([device.drivers[i].gain for i in treble])
    rng = scene_rng(corpus_name, scene["scene_id"], "tail")
    taps = responses(room, emitters, stand[None], CONTENT_RATE, rng, centre=stand)[:, 0]
    away = min(float(np.linalg.norm(emitter.position - stand)) for emitter in emitters)
    direct = PRE + away / room.speed_of_sound * CONTENT_RATE
    heard = gains @ taps
    outdoors = room.kind == "outdoor"
    return {
        "rt60": float("nan") if outdoors else reverberation_time(heard, CONTENT_RATE),
        "drr_db": direct_to_reverberant(heard, CONTENT_RATE, direct),
        "c50_db": clarity(heard, CONTENT_RATE, direct),
    }
