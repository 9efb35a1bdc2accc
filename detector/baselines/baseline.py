"""What the peers without a network have in common: features, a fit on them, a score, and their folder.

Shapes: M microphones, T samples, D numbers of a frame or a recording, N frames. A system's features are (N, D) or
(D,). Higher scores are more genuine. What a system learns are its parameters, float64 and without gradient, so
that it lies in a checkpoint as a network does, and `detector.load` opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.baselines.features import FeatureExamples, build_features
from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.systems import Specification
from remasc import Recording
from remasc.audio import resample
from remasc.sentences import quoted

Tick = Callable[[float], None]  # is told the loss after each step of a fit


def no_tick(loss: float) -> None:
    """Nobody watches."""


class Baseline(nn.Module):
    """A detector of `channels` microphones at `sample_rate` Hz; `arguments` build it again.

    A system says which `features` it takes, how it learns from them (`learn`), what it decides (`decide`), and
    which `choices` of its settings dev is to choose from.
    """

    system: ClassVar[str]
    columns: ClassVar[int]  # D
    rate: ClassVar[int | None] = 16000  # which recordings are brought to; None = their own
    channels_heard: ClassVar[tuple[int, ...] | None] = (0,)  # None = all
    sizes: ClassVar[dict[str, tuple[str, int]]] = {}  # argument: which axis of what it learns
    arrays: tuple[str, ...] = ()  # which it was fitted on, where that is known

    def __init__(self, channels: int = 1, sample_rate: int = 16000, **arguments: int) -> None:
        super().__init__()
        if self.rate not in (None, sample_rate):
            raise ValueError(
                f"{self.system} hears {self.rate} Hz, got a sample rate of {quoted(sample_rate)}"
            )
        whole = {"channels": channels, "sample_rate": sample_rate, **arguments}
        if not all(type(n) is int and 0 <= n <= 10**6 for n in whole.values()):
            raise ValueError(f"{self.system}: {quoted(whole)}; expected whole numbers from 0 to a million")
        self.channels, self.sample_rate = channels, sample_rate
        self.arguments: dict[str, int] = dict(arguments)
        self.learnt(centre=torch.zeros(self.columns), scale=torch.zeros(self.columns))

    @staticmethod
    def features(waveform: np.ndarray, rate: int) -> np.ndarray:
        """(M, T) at `rate` Hz -> (N, D) or (D,)."""
        raise NotImplementedError

    def learn(
        self,
        features: Sequence[Tensor],
        genuine: np.ndarray,
        seed: int,
        tick: Tick = no_tick,
        before: dict[str, Any] | None = None,
        **choice: Any,
    ) -> dict[str, Any]:
        """Set the parameters from standardised features of recordings, of which `genuine` (n,) bool are.

        Returns what the run's history is to say of it: at least its `loss`, and `settled` where no later choice
        would change anything. `before` is what it returned for the choice before this one.
        """
        raise NotImplementedError

    def decide(self, features: Tensor) -> Tensor:
        """The score () of standardised features."""
        raise NotImplementedError

    def choices(self, most_iterations: int | None) -> list[dict[str, Any]]:
        """The settings of `learn` among which dev chooses."""
        return [{}]

    def steps(self, choices: Sequence[dict[str, Any]]) -> int:
        """How many steps all choices together take, at most."""
        return len(choices)

    def loss(self, features: Sequence[Tensor], genuine: np.ndarray) -> float:
        """Cross-entropy of the scores of standardised features, taken as log-odds, both classes alike."""
        scores = torch.stack([self.decide(part) for part in features])
        right = torch.from_numpy(np.asarray(genuine)).to(scores.device)
        return float(sum(F.softplus(side).mean() for side in (-scores[right], scores[~right])) / 2)

    def learnt(self, **values: Tensor) -> None:
        """Set parameters by name, float64."""
        for name, value in values.items():
            setattr(self, name, nn.Parameter(value.double(), requires_grad=False))

    def adopt(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what another of this system learnt, whatever its size."""
        self.learnt(**weights)
        for name, (tensor, axis) in self.sizes.items():
            self.arguments[name] = weights[tensor].shape[axis]

    def fit(
        self, examples: Sequence[Any], labels: Sequence[int] | None = None, *, seed: int = 0, **choice: Any
    ) -> Self:
        """Learn from recordings or their features; `labels` (n,) with genuine = 1 (recordings bring their own).

        Each example is a `Recording`, a pair (waveform (M, T), sample rate), or an array of features.
        """
        examples = list(examples)
        if labels is None:
            if not all(isinstance(example, Recording) for example in examples):
                raise ValueError(
                    f"{self.system}: features and waveforms need labels; give genuine = 1, replay = 0"
                )
            labels = [int(recording.label) for recording in examples]
        labels = np.asarray(labels)
        values = set(labels.ravel().tolist())
        if labels.shape != (len(examples),) or values != {0, 1}:  # 0.5 is neither, nor a word
            raise ValueError(
                f"{self.system}: {len(examples)} examples with labels of shape {labels.shape} and values "
                f"{quoted(sorted(values, key=str))}; expected one each, 1 for genuine and 0 for replay"
            )
        self.arrays = tuple(sorted({e.array for e in examples if isinstance(e, Recording) and e.array}))
        self.fit_features([self._features_of(example) for example in examples], labels == 1, seed, **choice)
        return self

    def fit_features(
        self,
        features: Sequence[Tensor],
        genuine: np.ndarray,
        seed: int,
        tick: Tick = no_tick,
        **choice: Any,
    ) -> dict[str, Any]:
        """`fit` on checked features (N, D) or (D,)."""
        centre, scale = _moments(features)
        self.learnt(centre=centre, scale=scale)
        return self.learn(list(map(self.standardised, features)), genuine, seed, tick, **choice)

    def standardised(self, features: Tensor) -> Tensor:
        return (features.to(self.centre) - self.centre) / self.scale

    def score(self, waveform: np.ndarray, sample_rate: int) -> float:
        """Score of (M, T) samples in [-1, 1] at `sample_rate` Hz; higher = more genuine."""
        return float(self(torch.from_numpy(self._resampled(waveform, sample_rate))[None])[0])

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Recordings (B, M, T) at `sample_rate` -> score (B,)."""
        heard = (self._heard(row.cpu().numpy()) for row in x)
        return torch.stack([self.decide_features(self.features(row, self.sample_rate)) for row in heard])

    def decide_features(self, features: np.ndarray | Tensor) -> Tensor:
        """The score () of a recording's features as `features` gives them."""
        if not self.scale.any():
            raise ValueError(
                f"this {self.system} was never fitted; `fit` it, or train it with `replayguard train`"
            )
        return self.decide(self.standardised(torch.as_tensor(features, dtype=torch.float32)))

    def save(self, folder: str | Path) -> Path:
        """A checkpoint folder, without calibration and threshold; `detector.load` opens it too."""
        specification = Specification(self.system, self.sample_rate, self.arrays, self.channels)
        config = {"specification": specification.as_dict(), "network": self.arguments}
        return save_checkpoint(folder, self, config, {"system": self.system})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What `save` or a training left in a folder; ValueError where it is none of this system's."""
        from detector.score import load

        network = load(folder).network
        if not isinstance(network, cls):
            system = load_checkpoint(folder)[0].get("specification", {}).get("system")
            raise ValueError(
                f"{folder}: holds a {quoted(system)}, not a {cls.__name__}; load it with detector.load"
            )
        return network

    @classmethod
    def build_examples(
        cls, recordings: Sequence[Recording], folder: Path, *, progress: bool = True, **_: Any
    ) -> FeatureExamples:
        """The features of recordings, each computed once and kept in `folder`; see `detector.loading`."""
        return build_features(cls, recordings, folder, progress=progress)

    @classmethod
    def _heard(cls, waveform: np.ndarray) -> np.ndarray:
        return waveform if cls.channels_heard is None else waveform[list(cls.channels_heard)]

    def _resampled(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """(M, T) float32 at the system's rate; ValueError on what is no recording of as many channels."""
        if np.iscomplexobj(waveform) or not isinstance(sample_rate, Real):
            raise ValueError("expected real samples (microphones, samples) and their rate in Hz")
        waveform = np.array(waveform, dtype=np.float32)
        if waveform.ndim != 2 or waveform.size == 0 or not np.isfinite(waveform).all():
            raise ValueError(
                f"the waveform has shape {waveform.shape}; expected finite samples (microphones, samples)"
            )
        if self.channels_heard is None and len(waveform) != self.channels:
            raise ValueError(
                f"the recording has {len(waveform)} channels; this {self.system} takes {self.channels}"
            )
        return resample(waveform, sample_rate, self.sample_rate)

    def _features_of(self, example: Any) -> Tensor:
        if isinstance(example, Recording):
            from detector.baselines.features import features_of

            return features_of(type(self), example)
        if isinstance(example, tuple):
            example = self.features(self._heard(self._resampled(*example)), self.sample_rate)
        found = torch.as_tensor(example, dtype=torch.float32)
        if found.ndim not in (1, 2) or found.shape[-1] != self.columns or not torch.isfinite(found).all():
            raise ValueError(
                f"{self.system}: features of shape {tuple(found.shape)}; expected finite ones of {self.columns} "
                "columns"
            )
        return found


def _moments(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) over all rows; a column that never changes has 1."""

    def rows() -> Iterator[Tensor]:
        return (part.double().reshape(-1, part.shape[-1]) for part in features)

    count = sum(len(part) for part in rows())
    mean = sum(part.sum(dim=0) for part in rows()) / count
    variance = sum((part - mean).square().sum(dim=0) for part in rows()) / count
    return mean, torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
