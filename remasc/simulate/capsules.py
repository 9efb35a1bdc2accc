"""What one microphone of an array does to sound that its neighbour does not: gain, lower corner, resonance.

Shapes: M microphones, F frequencies.
"""

from __future__ import annotations

import numpy as np

from remasc.identity import scene_rng
from remasc.simulate.geometries import array_of

PLACE_M = 5e-4  # +- along each axis, as a board is made
GAIN_DB = 1.0  # +-, as sorted MEMS capsules are sold
CORNER_HZ, CORNER_SPREAD = 35.0, 0.25  # the vent's high-pass: +-25 % are +-2.5 degrees at 200 Hz
RESONANCE_HZ, RESONANCE_SPREAD = 24000.0, 0.05  # the port's: +-0.1 dB and +-1.3 degrees at 7 kHz
DAMPING, DAMPING_SPREAD = 0.25, 0.1


def capsule_response(
    frequencies: np.ndarray, corner: np.ndarray, resonance: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Complex response (M, F) of pressure capsules: a first-order high-pass at `corner` (M,) Hz and a resonance of
    second order at `resonance` (M,) Hz with a damping ratio (M,); 1 between them. Causal, of minimum phase."""
    f = np.asarray(frequencies, float)
    s = 1j * f / corner[:, None]
    r = f / resonance[:, None]
    return s / (1 + s) / (1 - r**2 + 2j * damping[:, None] * r)


def draw_capsules(rng: np.random.Generator, count: int, frequencies: np.ndarray) -> np.ndarray:
    """What each of `count` microphones adds to a nominal one, (M, F) complex64: gain within 1 dB, and a high-pass
    corner and a resonance of its own, so that phases differ by degrees below 300 Hz and by less above.

    A shared clock: no delays. The nominal capsule itself is not in it: divide and only the differences stay.
    """

    def around(middle: float, spread: float) -> np.ndarray:
        return middle * rng.uniform(1 - spread, 1 + spread, count)

    f = np.maximum(np.asarray(frequencies, float), 1e-3)  # at 0 Hz the ratio has a limit, not a value
    own = capsule_response(
        f,
        around(CORNER_HZ, CORNER_SPREAD),
        around(RESONANCE_HZ, RESONANCE_SPREAD),
        around(DAMPING, DAMPING_SPREAD),
    )
    nominal = capsule_response(f, *np.array([[CORNER_HZ], [RESONANCE_HZ], [DAMPING]]))
    gains = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB, (count, 1)) / 20)
    return (gains * own / nominal).astype(np.complex64)


def tolerances(
    scene: dict, corpus_name: str, arrays: tuple[str, ...], frequencies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements (1 + M, 3) in metres (+-0.5 mm) and responses (1 + M, F) of a scene's microphones, array after
    array; the first microphone, the reference at the stand, is perfect. An array's are its own whatever others
    stand beside it."""
    moved, responses = [np.zeros((1, 3))], [np.ones((1, len(frequencies)), np.complex64)]
    for name in arrays:
        rng = scene_rng(corpus_name, scene["scene_id"], "microphones", name)
        count = array_of(scene, name).num_mics
        moved.append(rng.uniform(-PLACE_M, PLACE_M, (count, 3)))
        responses.append(draw_capsules(rng, count, frequencies))
    return np.concatenate(moved), np.concatenate(responses)
