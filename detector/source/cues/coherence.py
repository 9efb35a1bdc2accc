"""What several microphones tell without knowing where they stand: coherence in speech and in pauses, and whether
what is heard in the pauses comes from where the speech came from (Yaguchi et al. 2019: a loudspeaker's hiss does).

Shapes: M microphones, F bins, N frames. Shares are scaled so that 0 is what unrelated noise in M microphones gives
and 1 is a single coherent wave: arrays of different size are comparable.
"""

from __future__ import annotations

import numpy as np

from detector.source.cues.catalogue import Cue, listed
from detector.source.cues.clip import HIGH_HZ, TOP_HZ, Clip, band, decibel

BANDS = {"low": (200.0, 800.0), "middle": (800.0, 2500.0), "high": (2500.0, 7000.0)}
_IN = {"low": "below 800 Hz", "middle": "from 0.8 to 2.5 kHz", "high": "above 2.5 kHz"}
_REACH = {"low": 0.0, "middle": 0.0, "high": HIGH_HZ}
CUES = (
    tuple(
        Cue(f"coherence_{part}_{name}", "coherence", "", f"{words} {_IN[name]} {{:.2f}}", reach=_REACH[name])
        for part, words in (
            ("speech", "coherence between microphones while speaking"),
            ("pause", "coherence between microphones in the pauses"),
        )
        for name in BANDS
    )
    + tuple(
        Cue(f"{part}_{name}", "coherence", "", f"{words} {_IN[name]} {{:.0%}}", reach=_REACH[name])
        for part, words in (
            ("one_wave_speech", "share of the speech in one wave"),
            ("one_wave_pause", "share of the pauses' noise in one wave"),
            ("pause_from_source", "share of the pauses' noise from where the speech came"),
            ("tail_from_source", "share of the dying sound from where the speech came"),
        )
        for name in BANDS
    )
    + listed("coherence", reach=TOP_HZ, level_spread=("dB", "levels differ by {:.1f} dB between microphones"))
)


def covariance(spectrum: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Mean of x x^H over the chosen frames: (M, F, N), (N,) bool -> (F, M, M)."""
    chosen = spectrum[:, :, frames].transpose(1, 0, 2)
    return chosen @ chosen.conj().transpose(0, 2, 1) / max(1, chosen.shape[2])


def coherence(covariances: np.ndarray) -> np.ndarray:
    """Mean magnitude of the coherence over the pairs of microphones, (F, M, M) -> (F,), 0..1."""
    power = np.maximum(covariances.diagonal(axis1=1, axis2=2).real, 1e-20)
    rows, columns = np.triu_indices(covariances.shape[1], 1)
    cross = np.abs(covariances[:, rows, columns])
    return (cross / np.sqrt(power[:, rows] * power[:, columns])).mean(axis=1)


def share_along(vectors: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Share of the power that lies along unit vectors (F, M), scaled: 0 for unrelated noise, 1 for that wave."""
    mics = vectors.shape[1]
    along = np.einsum("fi,fij,fj->f", vectors.conj(), covariances, vectors).real
    share = along / np.maximum(np.trace(covariances, axis1=1, axis2=2).real, 1e-20)
    return (share - 1 / mics) / (1 - 1 / mics)


def measure(clip: Clip) -> dict[str, float]:
    mics = len(clip.waveform)
    needed = max(5, 2 * mics)  # fewer frames look coherent whatever they hold
    if mics < 2 or clip.speech.sum() < needed:
        return {}
    top = band(BANDS["high"][0], min(BANDS["high"][1], clip.top)).stop
    spectrum = clip.spectrum[:, :top].astype(np.complex64)
    speech = covariance(spectrum, clip.speech)
    source = np.linalg.eigh(speech)[1][:, :, -1]
    found = {"coherence_speech": coherence(speech), "one_wave_speech": share_along(source, speech)}
    if clip.pause.sum() >= needed:
        pause = covariance(spectrum, clip.pause)
        own = np.linalg.eigh(pause)[1][:, :, -1]
        found |= {
            "coherence_pause": coherence(pause),
            "one_wave_pause": share_along(own, pause),
            "pause_from_source": share_along(source, pause),
        }
    between = ~clip.speech & ~clip.pause
    if between.sum() >= needed:
        found["tail_from_source"] = share_along(source, covariance(spectrum, between))
    out = {}
    for name, (low, high) in BANDS.items():
        if clip.top >= min(high, HIGH_HZ):
            inside = band(low, min(high, clip.top))
            out |= {f"{what}_{name}": float(per_bin[inside].mean()) for what, per_bin in found.items()}
    levels = decibel(speech.diagonal(axis1=1, axis2=2).real)[band(300, clip.top).start :]
    levels = levels - levels.mean(axis=0)  # a microphone's own gain is not the room's
    return out | {"level_spread": float(levels.std(axis=1).mean())}
