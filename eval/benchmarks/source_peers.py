"""The peers of source identification, fitted in the same run on the same recordings: systems without a network.

Fitted on train by their own schedule, the choice of their settings by dev's EER, calibrated on dev; features and
the fitted system are kept in the cache, so that a run that was stopped goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from detector.baselines import BASELINES, Baseline
from detector.baselines.features import FeatureExamples
from detector.calibration import Calibration
from detector.state import copy_weights
from eval.metrics import eer
from remasc import Recording
from remasc.parallel import tracked

PEERS = tuple(name for name, kind in BASELINES.items() if kind.channels_heard == (0,))  # of any array


def peer_ratios(
    name: str, recordings: Mapping[str, Sequence[Recording]], cache: Path, progress: bool = True
) -> dict[str, np.ndarray]:
    """Calibrated ratios (n,) of a peer for each partition of `recordings` but train, on which it learns."""
    kind = BASELINES[name]
    examples = {
        part: kind.build_examples(ones, cache, progress=progress) for part, ones in recordings.items()
    }
    network = _fitted(kind, examples["train"], examples["dev"], cache, progress)
    scores = {part: _scores(network, ones) for part, ones in examples.items() if part != "train"}
    genuine = examples["dev"].labels == 1
    calibration = Calibration.fit(scores["dev"][genuine], scores["dev"][~genuine])
    return {part: calibration.llr(found) for part, found in scores.items()}


def _fitted(
    kind: type[Baseline], train: FeatureExamples, dev: FeatureExamples, cache: Path, progress: bool
) -> Baseline:
    trials = "\n".join(r.trial_id for part in (train, dev) for r in part.recordings)
    folder = cache / f"{kind.system}-{hashlib.sha256(trials.encode()).hexdigest()[:16]}"
    if (folder / "config.json").is_file():
        return kind.load(folder)
    network, features, before = kind(), [train[i] for i in range(len(train))], None
    best, weights, choices = 2.0, copy_weights(network), network.choices(None)
    turns = ((1, choice) for choice in choices)
    for choice in tracked(turns, f"fitting {kind.system}", len(choices), 0, progress):
        if before is None or not before.get("settled"):
            found = network.fit_features(features, train.labels == 1, 0, before=before, **choice)
            before = choice | found
            scores = _scores(network, dev)
            rate = eer(scores[dev.labels == 1], scores[dev.labels == 0])[0]
            if rate < best:
                best, weights = rate, copy_weights(network)
    network.adopt(weights)
    network.save(folder)
    return network


@torch.inference_mode()
def _scores(network: Baseline, examples: FeatureExamples) -> np.ndarray:
    return np.array([float(network.decide_features(examples[i])) for i in range(len(examples))])
