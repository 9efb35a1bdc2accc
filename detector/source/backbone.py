"""The replay detector's backbone, shared: one pass gives its score and the embedding that source heads read."""

from __future__ import annotations

import math

import numpy as np
import torch

from detector.score import Detector, load
from remasc import MicArray
from remasc.audio import resample
from remasc.sentences import quoted

WEIGHTS = "model.safetensors"


def fingerprint(detector: Detector) -> str:
    """SHA-256 of the detector's weights: a head or a fusion belongs to these and to no others."""
    return detector.run.get("checksums", {}).get(WEIGHTS, "")


def backbone(name: str, known: str | None = None) -> Detector:
    """A detector whose backbone can be shared; ValueError where it has none, or where its weights are not the
    `known` ones."""
    detector = load(name)
    if not hasattr(detector.network, "embed"):
        raise ValueError(
            f"the detector {quoted(name)} gives no embedding to share; expected one of the system compact"
        )
    check_same(detector, known)
    return detector


def check_same(detector: Detector, known: str | None) -> None:
    """ValueError unless the detector has the weights that a head or a fusion was trained with (None: any)."""
    if known is not None and fingerprint(detector) != known:
        raise ValueError(
            "the source model was trained with other weights of the replay detector than these; train it again "
            "with `replayguard source train --detector`, or leave --detector out"
        )


@torch.inference_mode()
def heard(
    detector: Detector, waveform: np.ndarray, sample_rate: int, array: MicArray | None = None
) -> tuple[np.ndarray, float]:
    """Embedding (D,) float32 and score of (M, T) samples, in one pass; the first 30 s are heard."""
    waveform = np.asarray(waveform, np.float32)[:, : int(30 * sample_rate)]
    detector.specification.check(len(waveform), array)
    at_rate = resample(waveform, sample_rate, detector.specification.sample_rate)
    x = torch.from_numpy(detector.specification.channels_of(np.ascontiguousarray(at_rate)))[None]
    network = detector.network
    embedding = network.embed(network.prepare(x))
    logits = network.head(embedding)[0]
    score = float(logits[0] - logits[1])
    if not math.isfinite(score):
        raise ValueError("the detector's score is no number; its weights are damaged, copy it anew")
    return embedding[0].numpy(), score
