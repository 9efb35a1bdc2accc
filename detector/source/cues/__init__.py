"""Acoustic cues of a recording that a person can check: what tells a mouth from a loudspeaker.

`cues_of` measures them all; each module holds one or two groups and names its sources. A cue that a recording does
not allow (no voice, no pause, one microphone, a rate too low) is undefined: NaN, never 0. A gain on all channels,
an offset and digital silence at the ends change nothing, nor an order of the channels that keeps the first; turned
round, the waveform leans to the other side (`ODD`) and nothing else changes.
"""

from __future__ import annotations

import numpy as np

from detector.source.cues import (
    coherence,
    decay,
    direction,
    distortion,
    harmonicity,
    lows,
    pauses,
    pitch,
    residual,
    shape,
    spectral,
)
from detector.source.cues.catalogue import Cue
from detector.source.cues.clip import hear
from remasc.arrays import MicArray, get_array

VERSION = 3  # raised whenever the same samples would give other values
MODULES = (
    pitch,
    spectral,
    harmonicity,
    lows,
    shape,
    residual,
    distortion,
    pauses,
    decay,
    coherence,
    direction,
)
VOICED = (pitch, harmonicity, distortion)  # those that need the pitch track
CUES: dict[str, Cue] = {cue.name: cue for module in MODULES for cue in module.CUES}
NAMES = tuple(CUES)
JUDGED = tuple(name for name, cue in CUES.items() if cue.judged)
ODD = ("skewness", "residual_skewness", "squared_envelope")  # their sign is the polarity's
GROUPS = tuple(dict.fromkeys(cue.group for cue in CUES.values()))

__all__ = ["CUES", "GROUPS", "JUDGED", "NAMES", "ODD", "VERSION", "Cue", "cues_of"]


def cues_of(waveform: np.ndarray, sample_rate: int, array: MicArray | str | None = None) -> dict[str, float]:
    """All cues of (M, T) samples (or (T,)) at `sample_rate` Hz, by name, in the order of `NAMES`.

    `array` (a MicArray, a name or a file) is needed for what is said in degrees and for the direct sound; without
    it these are NaN. ValueError where the samples are not finite or the array has another number of channels.
    """
    waveform = np.atleast_2d(np.asarray(waveform, np.float32))
    array = get_array(array) if array is not None and not isinstance(array, MicArray) else array
    if waveform.ndim != 2 or not np.isfinite(waveform).all():
        raise ValueError(
            f"the waveform {waveform.shape} is no (microphones, samples) of finite numbers; mend it"
        )
    if not 4000 <= sample_rate <= 384000:
        raise ValueError(f"the sample rate is {sample_rate}; expected 4000 to 384000 Hz")
    if array is not None and array.num_mics != len(waveform):
        raise ValueError(
            f"the recording has {len(waveform)} channels but the array {array.name} has {array.num_mics} "
            "microphones; name the array that recorded it"
        )
    values = dict.fromkeys(NAMES, np.nan)
    clip = hear(waveform, sample_rate, array)
    if clip is None:
        return values
    f0 = pitch.pitch_track(clip)
    for module in MODULES:
        values |= module.measure(clip, f0) if module in VOICED else module.measure(clip)
    return {
        name: value if np.isfinite(value) and clip.top >= CUES[name].reach else np.nan
        for name, value in values.items()
    }
