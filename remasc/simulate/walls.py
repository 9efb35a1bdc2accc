"""What walls absorb, and how the energy of a shoebox's image sources decays.

Shapes: B octave bands, T moments; the six walls are x=0, x=X, y=0, y=Y, z=0, z=Z.
"""

from __future__ import annotations

import numpy as np

BANDS = np.array([125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
AIR = np.array([0.0001, 0.0003, 0.0006, 0.0011, 0.0024, 0.0073, 0.025])  # ISO 9613-1, 20 C, 50 %: 1/m, energy
MAX_IMAGES = 500
EARLY = 0.15  # of the reverberation time at most is made of images: 9 dB
MOST = 0.9998  # absorbed by a wall: a reflection 37 dB down is as good as none
_TYPICAL_DISTANCE = 1.5  # metres from source to microphones, where walls are fitted


def _octant(count: int = 12) -> np.ndarray:
    """|cosines| (count ** 2, 3) of directions spread evenly over the sphere, whose octants are alike."""
    height, around = np.meshgrid(*2 * [(np.arange(count) + 0.5) / count])
    flat, angle = np.sqrt(1 - height**2), np.pi / 2 * around
    return np.stack([flat * np.cos(angle), flat * np.sin(angle), height], axis=-1).reshape(-1, 3)


_DIRECTIONS = _octant()


def decay_exponents(dims: tuple[float, ...], exponents: np.ndarray) -> np.ndarray:
    """How fast each direction loses energy, (D, B) per metre of path, in a box whose walls lose exp(-exponents
    (6, B)) of it at each reflection. A path along the unit vector n meets a pair of walls L apart |n| / L times
    a metre, each wall every other time."""
    pairs = (exponents[0::2] + exponents[1::2]) / 2 / np.asarray(dims)[:, None]
    return _DIRECTIONS @ pairs


def image_decay(dims: tuple[float, ...], absorption: np.ndarray, path: float) -> np.ndarray:
    """Energy (B,) that images `path` metres away have on average, 1 for walls and air that lose none.

    Directions that meet hard walls keep what others lose, so it falls ever more slowly than the exponential of
    Eyring's formula, which is its tangent at the beginning.
    """
    rates = decay_exponents(dims, -np.log1p(-np.minimum(np.asarray(absorption), MOST)))
    return np.exp(-(rates + AIR) * path).mean(axis=0)


def splice_path(volume: float, rt60: np.ndarray, direct: float) -> float:
    """Metres of path after which images give way to the diffuse tail, for a direct path of `direct` metres."""
    most = (3 * volume * MAX_IMAGES / (4 * np.pi)) ** (1 / 3)
    # in a dead cabin before the images are all that there is: they do not decay as one exponential
    wanted = 343.0 * min(2e-3 * np.sqrt(volume) + 0.012, EARLY * float(np.mean(rt60)))
    return max(min(most, direct + wanted), direct + 1.4)


def walls_for(dims: tuple[float, float, float], rt60: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Absorption (6, B) whose images decay at the wanted `rt60` (B,), split over walls as `shares` (6, B).

    Shares are relative exponents: a wall with share 2 loses twice the decibels per reflection of share 1.
    Eyring's formula, then as much more as lets the images be where the wanted exponential is when the tail takes
    over: in a small dead room with uneven walls they would be decibels above it.
    """
    x, y, z = dims
    areas = np.array([y * z, y * z, x * z, x * z, x * y, x * y])
    volume = x * y * z
    air = 4 * AIR * volume
    # Eyring: rt60 = 0.161 V / (-S ln(1 - a) + 4 m V), so the wall part is what air leaves
    wall = np.maximum(0.161 * volume / np.asarray(rt60) - air, 0.02 * areas.sum())
    exponents = shares * wall / (areas @ shares)
    rates = decay_exponents(dims, exponents)
    path = splice_path(volume, rt60, _TYPICAL_DISTANCE)
    wanted = np.exp(-wall / (4 * volume) * path)
    low, high = np.ones(len(BANDS)), np.full(len(BANDS), 4.0)
    for _ in range(20):  # halving: the mean falls as the factor grows
        middle = (low + high) / 2
        above = np.exp(-middle * rates * path).mean(axis=0) > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.minimum(1 - np.exp(-exponents * low), MOST)
