"""The human talker: a mouth on a head that radiates unevenly and never stands quite still."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

from remasc.simulate.rooms import BANDS, Emitter

HEAD_RADIUS = 0.09  # metres
MOUTH_HALF_ANGLE = np.radians(12.0)  # the mouth as a cap of about 2 cm radius
GRID = np.linspace(-1, 1, 181)
SWAY_LIMIT = 0.02  # metres between the ends of a sway
STEP = 0.005  # metres between frames at most: halfway two waves of 7 kHz sum half a decibel low


@lru_cache(maxsize=64)
def cap_directivity(radius: float, half_angle: float, speed: float = 343.0) -> np.ndarray:
    """Far-field gain (B, 181) over cosines -1..1 of a cap vibrating on a rigid sphere, 1 on its axis.

    Closed form (Morse and Ingard, Theoretical Acoustics, 7.2; Aarts and Janssen 2011):
    sum over n of (P_{n-1}(cos a) - P_{n+1}(cos a)) / 2 * i^n P_n(cos t) / h_n'(ka).
    """
    table = np.empty((len(BANDS), len(GRID)))
    for b, frequency in enumerate(np.minimum(BANDS, 7500.0)):
        k = 2 * np.pi * frequency / speed * radius
        total = np.zeros(len(GRID), complex)
        for n in range(int(k) + 12):
            before = 1.0 if n == 0 else special.eval_legendre(n - 1, np.cos(half_angle))
            weight = (before - special.eval_legendre(n + 1, np.cos(half_angle))) / 2
            slope = special.spherical_jn(n, k, True) - 1j * special.spherical_yn(n, k, True)
            total += weight * 1j**n * special.eval_legendre(n, GRID) / slope
        table[b] = np.abs(total) / np.abs(total[-1])
    table.setflags(write=False)
    return table


def look_up(table: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """Gains (B, N) from a table (B, 181) at cosines (N,)."""
    place = np.clip((cosines + 1) / 2, 0, 1) * (table.shape[1] - 1)
    low = np.minimum(place.astype(int), table.shape[1] - 2)
    part = place - low
    return table[:, low] * (1 - part) + table[:, low + 1] * part


def mouth(cosines: np.ndarray) -> np.ndarray:
    """Directivity (B, N) of a human mouth: nearly omnidirectional at 250 Hz, about 15 dB front to back at 8 kHz."""
    return look_up(cap_directivity(HEAD_RADIUS, MOUTH_HALF_ANGLE), cosines)


def turned(facing: np.ndarray, angle: float) -> np.ndarray:
    """A direction turned about the vertical axis by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * facing[0] - sin * facing[1], sin * facing[0] + cos * facing[1], facing[2]])


def head_path(position: np.ndarray, facing: np.ndarray, sway: np.ndarray, turn: float) -> list[Emitter]:
    """The mouth at evenly spaced places of its way through a command, one emitter each for `fades` to go through:
    it sways along the vector `sway` (m; no longer than SWAY_LIMIT is taken of it) and turns by `turn` (rad).

    Neighbours lie at most STEP apart, so that fading from one to the next is a move. Who stands still has one.
    """
    far = float(np.linalg.norm(sway))
    sway = sway * min(1.0, SWAY_LIMIT / max(far, 1e-9))
    frames = 1 + int(np.ceil(min(far, SWAY_LIMIT) / STEP - 1e-9))
    if turn and frames == 1:
        frames = 2
    along = np.linspace(-0.5, 0.5, frames) if frames > 1 else np.zeros(1)
    return [Emitter(position + a * sway, turned(facing, a * turn), mouth) for a in along]


def course(length: int, first: int, last: int) -> np.ndarray:
    """How far along its way the mouth is, 0 to 1 (length,): half a swing from sample `first` to `last`, at rest
    outside. Commands of 1 to 4 s make it 0.1 to 0.5 Hz, as people sway; speed has no jumps."""
    done = np.clip((np.arange(length) - first) / max(1, last - first), 0, 1)
    return (1 - np.cos(np.pi * done)) / 2


def fades(length: int, first: int, last: int, frames: int) -> np.ndarray:
    """Weights (frames, length) that sum to one: where the mouth is between the frames of `head_path`."""
    place = course(length, first, last) * (frames - 1)
    return np.clip(1 - np.abs(place - np.arange(frames)[:, None]), 0, 1).astype(np.float32)
