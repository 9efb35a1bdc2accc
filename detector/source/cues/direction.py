"""Where the sound comes from, whether that place moves, how wide it is, and how much comes from it directly.

Delays between microphones by GCC-PHAT (Knapp and Carter 1976), of stretches of speech and of bands; with a known
array a plane wave is fitted to them. Conventions of `remasc.arrays`: tdoa = t_i - t_j in seconds, azimuth
positive to +x, elevation to +y. Shapes: M microphones, P pairs, F bins, N frames, S stretches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft as sfft

from detector.source.cues.catalogue import Cue, listed
from detector.source.cues.clip import HIGH_HZ, N_FFT, RATE, TOP_HZ, Clip, band
from detector.source.cues.coherence import covariance
from remasc.arrays import MicArray

SPEED = 343.0  # m/s
FINER = 8  # the correlation is interpolated so many times: 7.8 us
STRETCH, FEWEST = 15, 3  # frames of a stretch; stretches for a movement
BAND_HZ = (400.0, 7000.0)
BANDS = ((500.0, 1200.0), (1200.0, 2500.0), (2500.0, 4500.0), (4500.0, 7000.0))
LONGEST = 1e-3  # seconds, where the array is not known
DRR_BANDS = {"low": (300.0, 1000.0), "middle": (1000.0, 3000.0), "high": (3000.0, 7000.0)}
CUES = (
    (
        Cue("azimuth", "direction", "degrees", "from {:+.0f} degrees to the side", judged=False),
        Cue("elevation", "direction", "degrees", "from {:+.0f} degrees above", judged=False),
    )
    + listed(
        "direction",
        reach=TOP_HZ,
        direction_spread=("degrees", "direction constant within {:.1f} degrees"),
        direction_drift=("degrees", "direction moves by {:.1f} degrees from first to last"),
        tdoa_spread=("us", "delays between microphones constant within {:.1f} us"),
    )
    + listed(
        "extent",
        reach=TOP_HZ,
        tdoa_by_band=("us", "delays differ by {:.1f} us between low and high bands"),
        width=("degrees", "bands come from places {:.1f} degrees apart"),
        wavefront_error=("us", "delays miss one plane wave by {:.1f} us"),
    )
    + listed(
        "direct sound",
        drr_low=("dB", "direct sound {:+.1f} dB against the room's, below 1 kHz"),
        drr_middle=("dB", "direct sound {:+.1f} dB against the room's, 1 to 3 kHz"),
    )
    + listed(
        "direct sound",
        reach=HIGH_HZ,
        drr_high=("dB", "direct sound {:+.1f} dB against the room's, above 3 kHz"),
    )
)


def pairs_of(mics: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(mics, 1)


def delays(cross: np.ndarray, longest: np.ndarray | float) -> np.ndarray:
    """Delays t_i - t_j (..., P) in seconds of cross-spectra x_i x_j* (..., P, F) by the highest correlation
    within +-`longest` (P,), between samples by a parabola."""
    size = FINER * N_FFT
    correlation = sfft.irfft(cross.astype(np.complex64), size, axis=-1)
    most = min(int(np.ceil(np.max(longest) * RATE * FINER)) + 1, size // 2 - 1)
    correlation = np.roll(correlation, most, axis=-1)[..., : 2 * most + 1]
    lag = np.arange(-most, most + 1) / (RATE * FINER)
    allowed = np.abs(lag) <= np.asarray(longest)[..., None] + 0.5 / (RATE * FINER)
    at = np.where(allowed, correlation, -np.inf).argmax(axis=-1).clip(1, 2 * most - 1)
    before, here, after = (
        np.take_along_axis(correlation, (at + step)[..., None], axis=-1)[..., 0] for step in (-1, 0, 1)
    )
    bend = before - 2 * here + after
    shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0).clip(-0.5, 0.5)
    return lag[at] + shift / (RATE * FINER)


def plane_wave(array: MicArray, tdoa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (..., 3) towards the source, least squares of delays (..., P), and what is missed (..., P).

    What the array's shape leaves open is filled to the front: a line gives x alone, a plane x and y.
    """
    baselines, inverse, axes = _geometry(array)
    towards = -SPEED * tdoa @ inverse.T
    length = np.linalg.norm(towards, axis=-1, keepdims=True)
    towards = towards / np.maximum(length, 1.0)
    missed = tdoa + towards @ baselines.T / SPEED
    open_axis = np.array([0.0, 0.0, 1.0]) - axes @ axes[2]
    norm = np.linalg.norm(open_axis)
    if norm > 1e-6:
        rest = np.sqrt(np.maximum(1 - np.square(towards).sum(axis=-1, keepdims=True), 0))
        towards = towards + rest * open_axis / norm
    return towards / np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-9), missed


@lru_cache(maxsize=16)
def _geometry(array: MicArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Baselines (P, 3), their pseudoinverse (3, P), and the projection (3, 3) on what they span."""
    rows, columns = pairs_of(array.num_mics)
    baselines = array.positions[rows] - array.positions[columns]
    inverse = np.linalg.pinv(baselines, rcond=1e-3)
    return baselines, inverse, inverse @ baselines


def measure(clip: Clip) -> dict[str, float]:
    mics = len(clip.waveform)
    at = np.flatnonzero(clip.speech)
    if mics < 2 or len(at) < STRETCH:
        return {}
    array = clip.array if clip.array is not None and clip.array.num_mics == mics else None
    rows, columns = pairs_of(mics)
    longest = np.full(len(rows), LONGEST)
    if array is not None:
        longest = np.linalg.norm(_geometry(array)[0], axis=1) / SPEED + 1 / (RATE * FINER)
    phases = clip.spectrum / np.maximum(np.abs(clip.spectrum), 1e-12)
    inside = band(BAND_HZ[0], min(BAND_HZ[1], clip.top))
    stretches = np.array_split(at, max(1, len(at) // STRETCH))
    cross = np.stack([_cross(phases[:, :, part], rows, columns, inside) for part in stretches])
    tdoa = delays(cross, longest)
    whole = cross.mean(axis=0)
    bands = [b for b in BANDS if clip.top >= b[1] - 600]
    by_band = delays(np.stack([_only(whole, *b) for b in bands]), longest)
    values = {"tdoa_by_band": float(1e6 * by_band.std(axis=0).mean())} if len(bands) > 1 else {}
    if len(tdoa) >= FEWEST:
        values["tdoa_spread"] = float(1e6 * np.median(tdoa.std(axis=0)))
    if array is not None:
        values |= _directions(array, tdoa, by_band, delays(whole, longest))
        values |= direct_to_reverberant(clip, array)
    return values


def _cross(phases: np.ndarray, rows: np.ndarray, columns: np.ndarray, inside: slice) -> np.ndarray:
    """Mean cross-spectra (P, F) of phases (M, F, n) in a band, zero outside."""
    part = phases[:, inside].transpose(1, 0, 2)
    products = (part @ part.conj().transpose(0, 2, 1))[:, rows, columns].T / part.shape[2]
    out = np.zeros((len(rows), phases.shape[1]), np.complex64)
    out[:, inside] = products
    return out


def _only(cross: np.ndarray, low: float, high: float) -> np.ndarray:
    out = np.zeros_like(cross)
    out[:, band(low, high)] = cross[:, band(low, high)]
    return out


def _directions(
    array: MicArray, tdoa: np.ndarray, by_band: np.ndarray, whole: np.ndarray
) -> dict[str, float]:
    towards, missed = plane_wave(array, whole)
    values = {
        "azimuth": float(np.degrees(np.arctan2(towards[0], towards[2]))),
        "wavefront_error": float(1e6 * np.sqrt(np.square(missed).mean())),
    }
    if np.linalg.matrix_rank(array.positions - array.positions[0], tol=1e-3) > 1:
        values["elevation"] = float(np.degrees(np.arcsin(np.clip(towards[1], -1, 1))))
    if len(by_band) > 1:
        values["width"] = float(np.sqrt(np.square(apart(plane_wave(array, by_band)[0])).mean()))
    if len(tdoa) >= FEWEST:
        moving = plane_wave(array, tdoa)[0]
        third = max(1, len(moving) // 3)
        ends = np.stack([moving[:third].mean(axis=0), moving[-third:].mean(axis=0)])
        values["direction_spread"] = float(np.median(apart(moving)))
        values["direction_drift"] = float(2 * apart(ends)[0])
    return values


def apart(towards: np.ndarray) -> np.ndarray:
    """Angles (S,) in degrees of vectors (S, 3) from their mean direction."""
    towards = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-9)
    middle = towards.mean(axis=0)
    middle = middle / max(np.linalg.norm(middle), 1e-9)
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(towards - middle, axis=1) / 2, 0, 1)))


def direct_to_reverberant(clip: Clip, array: MicArray, most: int = 6) -> dict[str, float]:
    """Coherent-to-diffuse ratio in bands, in dB, of the widest pairs: at least `most` where there are so many, and
    all that are as wide, so that the order of the microphones does not matter. Without knowing the direction
    (Schwarz and Kellermann 2015, their direction-independent estimate), from the coherence over all of the speech:
    over few frames any noise looks coherent. A spherically diffuse field has sinc(2 f d / c)."""
    distance = np.linalg.norm(_geometry(array)[0], axis=1)
    chosen = np.flatnonzero(distance > np.sort(distance)[-min(most, len(distance))] - 1e-4)
    rows, columns = (index[chosen] for index in pairs_of(array.num_mics))
    top = band(DRR_BANDS["low"][0], min(7000.0, clip.top))
    covariances = covariance(clip.spectrum[:, top], clip.speech)
    powers = np.maximum(covariances.diagonal(axis1=1, axis2=2).real, 1e-20)
    coherence = covariances[:, rows, columns] / np.sqrt(powers[:, rows] * powers[:, columns])
    hertz = (top.start + np.arange(len(powers))) * RATE / N_FFT
    diffuse = np.sinc(2 * hertz[:, None] * distance[chosen] / SPEED)
    share = 1 / (1 + coherent_to_diffuse(coherence, diffuse))
    values = {}
    for name, (low, high) in DRR_BANDS.items():
        if clip.top >= min(high, HIGH_HZ):
            scattered = float(np.clip(share[(hertz >= low) & (hertz < high)].mean(), 1e-4, 1 - 1e-4))
            values[f"drr_{name}"] = float(10 * np.log10((1 - scattered) / scattered))
    return values


def coherent_to_diffuse(coherence: np.ndarray, diffuse: np.ndarray) -> np.ndarray:
    """Power ratio >= 0 of complex coherence and that of the diffuse field, broadcast together."""
    real, square = coherence.real, np.minimum(np.square(np.abs(coherence)), 1 - 1e-6)
    inner = diffuse**2 * real**2 - diffuse**2 * square + diffuse**2 - 2 * diffuse * real + square
    return np.maximum((diffuse * real - square - np.sqrt(np.maximum(inner, 0))) / (square - 1), 0)
