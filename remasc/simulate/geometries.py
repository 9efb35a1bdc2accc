"""Microphone arrays that nobody has built yet, for detectors that are to work on any: 1 to 16 microphones on a
line, a circle or scattered over a face of a device. Metres, in the arrays' own frame (x right, y up, z forward).
"""

from __future__ import annotations

import numpy as np

from remasc.arrays import ARRAYS, MicArray
from remasc.schema import RecordingDevice

MOST = 16  # microphones
RATES = (16000, 44100, 48000)  # Hz
DEVICE_M = (0.03, 0.25)  # from the smallest to the largest device: no two microphones are farther apart
SPACING_M = 0.01  # between any two, at least


def random_array(rng: np.random.Generator, microphones: int, sample_rate: int = 16000) -> MicArray:
    """An array of `microphones` (1 to 16): a line (even or uneven), a circle (with or without one in its centre) or
    a scatter; upright like a panel or lying like a smart speaker's lid, around its own middle.

    A pure function of the generator's state. Sizes spread evenly over log size within `DEVICE_M`; small crowded
    devices grow until `SPACING_M` fits. Named by what was drawn, so that equal names are equal arrays.
    """
    if not 1 <= microphones <= MOST:
        raise ValueError(f"an array of {microphones} microphones was asked for; 1 to {MOST} can be drawn")
    kind = _KINDS[int(rng.integers(len(_KINDS)))] if microphones > 2 else line
    flat = kind(rng, microphones) if microphones > 1 else np.zeros((1, 2))
    angle = rng.uniform(-0.1, 0.1) if kind is line else rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    flat = (flat - flat.mean(axis=0)) @ np.array([[cos, sin], [-sin, cos]])
    positions = np.zeros((microphones, 3))
    lying = kind is not line and rng.random() < 0.5
    positions[:, [0, 2] if lying else [0, 1]] = flat
    name = f"random-{kind.__name__}-{microphones}-{int(rng.integers(16**8)):08x}"
    return MicArray(name, positions.round(5), sample_rate, "drawn at random")


def _size(rng: np.random.Generator, least: float) -> float:
    low, high = DEVICE_M
    return float(np.exp(rng.uniform(np.log(max(low, least)), np.log(high))))


def line(rng: np.random.Generator, count: int) -> np.ndarray:
    """Places (count, 2) along x: every second line has even steps, the others steps of any length."""
    size = _size(rng, 1.01 * SPACING_M * (count - 1))
    steps = np.ones(count - 1)
    if rng.random() < 0.5:
        steps = rng.dirichlet(np.ones(count - 1)) * (size - SPACING_M * (count - 1)) + SPACING_M
    along = np.concatenate([[0], np.cumsum(steps)])
    return np.stack([along * size / along[-1], np.zeros(count)], axis=1)


def circle(rng: np.random.Generator, count: int) -> np.ndarray:
    """Places (count, 2) evenly around a circle; from four on every second circle has the last one in its centre."""
    centre = count > 3 and rng.random() < 0.5
    around = count - centre
    size = _size(rng, 1.01 * SPACING_M * max(2.0 * centre, 1 / np.sin(np.pi / around)))
    angles = 2 * np.pi * np.arange(around) / around
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * size / 2
    return np.concatenate([ring, np.zeros((1, 2))]) if centre else ring


def scatter(rng: np.random.Generator, count: int) -> np.ndarray:
    """Places (count, 2) anywhere on a rectangle that fits into the device's size, none too near another."""
    aspect = rng.uniform(0.4, 1.0)
    size = _size(rng, 1.7 * SPACING_M * np.sqrt(count * (1 + aspect**2) / aspect))
    sides = np.array([1.0, aspect]) * size / np.hypot(1.0, aspect)
    while True:
        places = np.zeros((0, 2))
        for _ in range(200):
            place = rng.uniform(0, 1, 2) * sides
            if (np.linalg.norm(places - place, axis=1) > 1.01 * SPACING_M).all():
                places = np.concatenate([places, place[None]])
            if len(places) == count:
                return places


_KINDS = (line, circle, scatter)


def drawn_array(rng: np.random.Generator) -> dict:
    """An array of 1 to 16 microphones at a usual rate, as a scene describes it."""
    rate = int(rng.choice(RATES))
    array = random_array(rng, int(rng.integers(1, MOST + 1)), rate)
    return {"name": array.name, "positions": array.positions, "sample_rate": rate}


def array_of(scene: dict, name: str) -> MicArray:
    """The array of this name in a scene: one of the four, or the scene's own where it is "RANDOM"."""
    if name != RecordingDevice.RANDOM.name:
        return ARRAYS[name]
    own = scene["array"]
    return MicArray(own["name"], np.array(own["positions"]), own["sample_rate"])
