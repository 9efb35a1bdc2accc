"""Background noise with the coherence between microphones that its kind has.

Diffuse noise (rooms, traffic, babble, cabin): coherence sinc(2 f d / c) between microphones d apart.
Wind: each capsule on its own. Shapes: M microphones, F frequencies, N samples.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft as sfft
from scipy import signal

BLOCK_HZ = 62.5  # the mixing matrix is held over this width


def diffuse_coherence(positions: np.ndarray, frequencies: np.ndarray, speed: float = 343.0) -> np.ndarray:
    """Coherence (F, M, M) of a spherically diffuse field between microphones at `positions` (M, 3)."""
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    return np.sinc(2 * frequencies[:, None, None] * distance / speed)


@lru_cache(maxsize=8)
def _mixing(key: bytes, count: int, blocks: int) -> np.ndarray:
    positions = np.frombuffer(key).reshape(count, 3)
    coherence = diffuse_coherence(positions, (np.arange(blocks) + 0.5) * BLOCK_HZ)
    # a triangular root: microphone m hears only the first m + 1 streams
    root = np.linalg.cholesky(coherence + 1e-5 * np.eye(count))
    return root.astype(np.float32)


def diffuse(positions: np.ndarray, streams: np.ndarray, rate: int) -> np.ndarray:
    """Spectra (M, F) of a diffuse field from spectra (M, F) of independent streams of one kind of noise."""
    count, bins = streams.shape
    per_block = max(1, round(BLOCK_HZ / (rate / 2 / (bins - 1))))
    blocks = -(-bins // per_block)
    root = _mixing(np.ascontiguousarray(positions, float).tobytes(), count, blocks)
    padded = np.zeros((count, blocks * per_block), np.complex64)
    padded[:, :bins] = streams
    parts = padded.reshape(count, blocks, per_block).transpose(1, 0, 2)
    return (root @ parts).transpose(1, 0, 2).reshape(count, -1)[:, :bins]


def coloured(frequencies: np.ndarray, slope_db: float, corner: float = 60.0) -> np.ndarray:
    """Amplitudes (F,) falling by `slope_db` per octave above `corner` Hz, flat below it."""
    return (10 ** (-slope_db * np.log2(np.maximum(frequencies, corner) / corner) / 20)).astype(np.float32)


def babble_shape(frequencies: np.ndarray) -> np.ndarray:
    """Amplitudes (F,) of long-term average speech: flat to 500 Hz, then falling by 9 dB per octave."""
    f = np.maximum(frequencies, 1.0)
    return (1 / np.sqrt(1 + (100 / f) ** 4) / np.sqrt(1 + (f / 550) ** 3)).astype(np.float32)


def engine_orders(length: int, rate: int, rng: np.random.Generator, rpm: float) -> np.ndarray:
    """An engine (N,): harmonics of half its speed with slowly wandering pitch."""
    base = rpm / 120
    wander = np.cumsum(rng.standard_normal(length // 400 + 2)) * 0.002
    wander = np.interp(np.arange(length), np.arange(len(wander)) * 400, wander - wander.mean())
    phase = 2 * np.pi * np.cumsum(base * (1 + np.clip(wander, -0.05, 0.05))) / rate
    out = np.zeros(length)
    for order in range(2, 25):
        strength = (2.0 if order % 2 == 0 else 0.7) * rng.uniform(0.3, 1) / order
        out += strength * np.sin(order * phase + rng.uniform(0, 2 * np.pi))
    return out.astype(np.float32)


def slow_envelope(length: int, rng: np.random.Generator, depth_db: float, knot: int) -> np.ndarray:
    """A gain (N,) that wanders by about `depth_db` (standard deviation) with knots every `knot` samples."""
    db = rng.normal(0, depth_db, length // knot + 2)
    return (10 ** (np.interp(np.arange(length), np.arange(len(db)) * knot, db) / 20)).astype(np.float32)


def white(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    return rng.standard_normal((count, length), dtype=np.float32)


def modulated(rng: np.random.Generator, count: int, envelope: np.ndarray) -> np.ndarray:
    """Spectra (count, F) of independent white streams that swell together, with the `envelope` (N,)."""
    return sfft.rfft(white(rng, count, len(envelope)) * envelope)


def tile_clip(clip: np.ndarray, length: int, offset: int) -> np.ndarray:
    """`length` samples of a noise clip from `offset` on, round and round, with 50 ms fades at the seam."""
    clip = clip.astype(np.float32)
    fade = min(800, len(clip) // 4)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        body = clip[fade:].copy()
        body[-fade:] = body[-fade:] * (1 - ramp) + clip[:fade] * ramp
        clip = body
    return np.take(clip, np.arange(offset, offset + length), mode="wrap")


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x, dtype=np.float64).mean())) + 1e-12


def speech_band(f: np.ndarray) -> np.ndarray:
    """Which frequencies (F,) count for levels and ratios: 200 to 7000 Hz."""
    return (f > 200) & (f < 7000)


def band_share(x: np.ndarray, rate: int) -> float:
    """Which share of what is heard of a clip (N,), that is of its power below 8 kHz, lies between 200 and 7000 Hz;
    NaN where nothing is heard. The mean does not count."""
    x = x - x.mean()
    size = min(len(x), sfft.next_fast_len(max(rate // 8, 1)))
    heard = counted = 0.0
    for piece in np.array_split(x, max(1, round(len(x) / (60 * rate)))):  # one minute: memory does not grow
        f, power = signal.welch(piece, rate, nperseg=size, detrend=False)
        heard += float(power[f < 8000].sum(dtype=np.float64))
        counted += float(power[speech_band(f)].sum(dtype=np.float64))
    return counted / heard if heard else float("nan")


def band_power(spectrum: np.ndarray, f: np.ndarray, length: int) -> float:
    """Mean power between 200 and 7000 Hz of a spectrum (F,) of `length` samples."""
    return float(2 * np.square(np.abs(spectrum[speech_band(f)])).sum(dtype=np.float64) / length**2) + 1e-20
