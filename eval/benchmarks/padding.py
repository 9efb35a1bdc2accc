"""Whether padding a recording moves a detector's decision: what it accepts as recorded and padded, in one run.

    python -m eval.benchmarks.padding CORPUS [--detector default] [--array D2] [--clips 60]

Of the first so many genuine and replayed trials of dev: the share accepted by score alone (the quality check, which
refuses digital silence, is left out), as recorded, with 200 ms of digital silence appended, and with 0.4 s of noise
60 dB below the peak at both ends.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import detector
from remasc import Corpus, Label, read_audio
from remasc.identity import scene_rng
from remasc.protocol import partitions
from remasc.schema import name_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--detector", default="default")
    parser.add_argument("--array", default="D2")
    parser.add_argument("--clips", type=int, default=60)
    options = parser.parse_args()
    guard = detector.load(options.detector)
    dev = partitions(Corpus.from_meta(options.corpus))["dev"].filter(array=options.array)
    report: dict[str, dict[str, list[int]]] = {}
    for label in Label:
        for recording in [r for r in dev if r.label is label][: options.clips]:
            waveform, rate = read_audio(recording.path)
            for name, padded in versions(waveform, rate, recording.trial_id).items():
                accepted = guard.score(padded, rate, options.array) >= guard.threshold
                counts = report.setdefault(name, {}).setdefault(name_of(label), [0, 0])
                counts[0] += int(accepted)
                counts[1] += 1
    print(json.dumps(report, indent=1))


def versions(waveform: np.ndarray, rate: int, trial: str) -> dict[str, np.ndarray]:
    """The recording (M, T) as it is and padded."""
    soft = scene_rng("padding", trial).standard_normal((2, len(waveform), int(0.4 * rate)), dtype=np.float32)
    soft *= np.abs(waveform).max() * 1e-3
    return {
        "as recorded": waveform,
        "200 ms of zeros after": np.pad(waveform, ((0, 0), (0, int(0.2 * rate)))),
        "0.4 s at -60 dB around": np.concatenate([soft[0], waveform, soft[1]], axis=1),
    }


if __name__ == "__main__":
    main()
