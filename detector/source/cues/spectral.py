"""How the speech sounds in the mean and how it varies: MFCC and LFCC statistics, centroid, flatness, flux."""

from __future__ import annotations

import numpy as np

from detector.frontends.cepstral import cepstra, linear_bands, mel_bands
from detector.source.cues.catalogue import Cue, listed
from detector.source.cues.clip import MIN_FRAMES, N_FFT, RATE, TOP_HZ, Clip, band, decibel

COUNT = 12  # coefficients 1 to 12: coefficient 0 is the level
BANDS = {"mfcc": 40, "lfcc": 20}
WORDS = {"mean": "mean", "sd": "variation", "step": "speed", "pause": "in the pauses, mean"}
OF_PAUSES = 8  # coefficients that are read in the pauses too: the shape of what goes on there
SCALES = {"mfcc": "mel", "lfcc": "linear"}
CUES = listed(
    "spectrum",
    reach=TOP_HZ,
    centroid=("Hz", "the spectrum's middle lies at {:.0f} Hz"),
    centroid_sd=("Hz", "the spectrum's middle moves by {:.0f} Hz"),
    flatness=("dB", "spectral flatness of {:.1f} dB (0 is noise)"),
    flux=("", "the spectrum changes by {:.2f} from frame to frame"),
) + tuple(
    Cue(
        f"{kind}{n}_{statistic}",
        kind,
        "",
        f"{WORDS[statistic]} of the spectrum's shape {n} ({SCALES[kind]} scale) {{:.2f}}",
        checkable=False,
        reach=TOP_HZ,
    )
    for kind in BANDS
    for statistic in WORDS
    for n in range(1, COUNT + 1)
    if statistic != "pause" or (kind == "lfcc" and n <= OF_PAUSES)
)


def measure(clip: Clip) -> dict[str, float]:
    """The cues of these groups over the frames of speech; those of a narrower recording would be those of another
    bank."""
    if clip.speech.sum() < MIN_FRAMES or clip.top < TOP_HZ:
        return {}
    speech = clip.power[:, clip.speech]
    values = _shape(speech[band(100, clip.top)], band(100, clip.top).start * RATE / N_FFT)
    for kind, bank in (("mfcc", mel_bands), ("lfcc", linear_bands)):
        found = cepstra(clip.power, bank(BANDS[kind], N_FFT, RATE, 60.0, TOP_HZ), COUNT + 1)
        values |= _statistics(kind, found, clip)
    return values


def _statistics(kind: str, found: np.ndarray, clip: Clip) -> dict[str, float]:
    """Of cepstra (C, N): mean and deviation in the speech, deviation of the change over 40 ms, mean in pauses."""
    steps = np.zeros_like(found)
    steps[:, 2:-2] = found[:, 4:] - found[:, :-4]
    spoken = found[:, clip.speech]
    columns = {
        "mean": spoken.mean(axis=1),
        "sd": spoken.std(axis=1),
        "step": steps[:, clip.speech].std(axis=1),
    }
    if kind == "lfcc" and clip.pause.sum() >= MIN_FRAMES:
        columns["pause"] = found[: OF_PAUSES + 1, clip.pause].mean(axis=1)
    return {
        f"{kind}{n}_{statistic}": float(column[n])
        for statistic, column in columns.items()
        for n in range(1, len(column))
    }


def _shape(power: np.ndarray, first: float) -> dict[str, float]:
    """Of power (F, N) whose first bin lies at `first` Hz."""
    power = power + 1e-12 * power.max()
    hertz = first + np.arange(len(power)) * RATE / N_FFT
    centroid = hertz @ power / power.sum(axis=0)
    share = np.sqrt(power / power.sum(axis=0))
    return {
        "centroid": float(centroid.mean()),
        "centroid_sd": float(centroid.std()),
        "flatness": float(np.mean(decibel(np.exp(np.log(power).mean(axis=0))) - decibel(power.mean(axis=0)))),
        "flux": float(np.sqrt(np.square(np.diff(share, axis=1)).sum(axis=0)).mean()),
    }
