"""What happens to recordings before a detector hears them: padding, gates, filters, coarse steps.

None of it is the attack, and an attacker can do all of it to a file. A detector that never heard it takes a
replay padded with near-silence for something new. One draw serves all microphones, so that what is between
them stays as it was. Waveforms are (M, T) float32; M microphones, T samples.
"""

from __future__ import annotations

import numpy as np

from remasc.identity import scene_rng

SHARE = 0.3  # of the training recordings
VERSION = 1  # raised whenever the same recording would be handled otherwise
FRAME_SECONDS = 0.02


def padded(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """0.1 to 1.5 s of digital silence or of noise 30 to 100 dB below the peak, before, after, or both."""
    before, after = (rng.uniform(0.1, 1.5, 2) * rate * (rng.random(2) < 0.7)).astype(int)
    out = np.pad(x, ((0, 0), (before, after)))
    if rng.random() < 0.7:
        noise = rng.standard_normal(out.shape, dtype=np.float32)
        if rng.random() < 0.5:  # the same on all microphones: a file was edited, not a room recorded
            noise[:] = noise[0]
        noise *= np.abs(x).max() * 10 ** (-rng.uniform(30, 100) / 20)
        noise[:, before : before + x.shape[1]] = 0
        out += noise
    return out


def gated(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Quiet stretches turned down by 10 to 60 dB, the same on all microphones, with ramps of a frame."""
    hop = int(FRAME_SECONDS * rate)
    count = x.shape[1] // hop
    if count < 3:
        return x
    level = np.square(x[:, : count * hop].reshape(len(x), count, hop)).mean(axis=(0, 2))
    db = 10 * np.log10(level + 1e-12)
    opened = db > db.max() - rng.uniform(15, 35)
    opened = np.convolve(opened, np.ones(5), "same") > 0  # held open for two frames on either side
    gain = np.where(opened, 1.0, 10 ** (-rng.uniform(10, 60) / 20))
    return x * np.interp(np.arange(x.shape[1]), (np.arange(count) + 0.5) * hop, gain).astype(np.float32)


def filtered(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A low-pass at 3 to 7 kHz or a high-pass at 60 to 400 Hz, second or fourth order."""
    from scipy import signal  # a second to import, which a detector that only listens need not wait

    low = rng.random() < 0.6
    corner = rng.uniform(3000, min(7000, 0.45 * rate)) if low else rng.uniform(60, 400)
    kind = "lowpass" if low else "highpass"
    sections = signal.butter(int(rng.choice([2, 4])), corner, kind, fs=rate, output="sos")
    return signal.sosfilt(sections, x, axis=1).astype(np.float32)


def stepped(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Rounded to 8 to 13 bits of the peak, half of the time with dither."""
    step = 2 * np.abs(x).max() / 2 ** rng.integers(8, 14) + 1e-12
    dither = rng.uniform(-0.5, 0.5, x.shape) if rng.random() < 0.5 else 0.0
    return (np.rint(x / step + dither) * step).astype(np.float32)


def pressed(x: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Peaks bent or cut, the 0.01 to 1 % loudest samples."""
    top = np.quantile(np.abs(x), 1 - 10 ** rng.uniform(-4, -2)) + 1e-12
    return np.clip(x, -top, top) if rng.random() < 0.5 else (top * np.tanh(x / top)).astype(np.float32)


KINDS = (padded, gated, filtered, stepped, pressed)


def handled(x: np.ndarray, rate: int, trial: str) -> np.ndarray:
    """`x` as somebody may have handled it: one or two of `KINDS`, drawn from the trial's name; a share of
    1 - `SHARE` of the trials stays as it is."""
    rng = scene_rng("handling", trial, str(VERSION))
    if rng.random() >= SHARE:
        return x
    for kind in rng.choice(len(KINDS), size=1 + int(rng.random() < 0.3), replace=False):
        x = KINDS[kind](x, rate, rng)
    return x
