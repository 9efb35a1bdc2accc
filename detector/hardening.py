"""What makes a detector harder to lead astray with short pulses: adversarial training, and guards around a network.

Training: in each step a few short stretches of the planes are pushed where the present network errs most, and it
learns from these (projected gradient ascent, Madry et al., arXiv 1706.06083, bounded to where pulses can reach).
Guards: the network looks several times through transforms drawn anew, or together with a second detector. What a
guard is worth is measured against attackers who know it and average over what it draws (`streaming.attack`).

Shapes: B batch, M microphones, T samples, C planes, K bands, N frames of 20 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.calibration import Calibration
from detector.score import Detector
from detector.systems import Specification

if TYPE_CHECKING:
    from detector.source.model import SourceModel  # imported where one is asked: training knows none

STRETCHES, REACH = 5, 7  # pulses, and the frames that one changes: covariances are smoothed over 100 ms
STRENGTH = 1.0  # at most, of the planes, whose deviation over speech is about 1
# One step would be cheaper, but its pattern tells the true class, and the network learns to read that instead of
# withstanding it (arXiv 1611.01236, section 4.3): seen here, as a training loss far below that of clean recordings.
STEPS = 3
GUARDS = ("windows", "limiter", "noise", "parts")
DRAWN = ("windows", "noise")  # guards that draw numbers


def hardened(
    network: nn.Module,
    planes: Tensor,
    lengths: Tensor,
    columns: Tensor,
    share: float,
    generator: torch.Generator,
) -> Tensor:
    """Planes (B, C, K, N) of a training step with a share of the items attacked, against the network as it stands.

    Up to `STRETCHES` random stretches of `REACH` frames are moved in `STEPS` steps along the sign of the loss's
    gradient, from a random start, within a bound drawn for each item (a quarter of `STRENGTH` to all of it).
    `columns` (B,) are the true columns of the logits. The last plane (the number of microphones) and planes that
    are switched off stay as they are.
    """
    chosen = torch.rand(len(planes), generator=generator) < share
    if not chosen.any():
        return planes
    clean, frames, wanted = planes[chosen], lengths[chosen], columns[chosen]
    mask = stretches(clean, frames, generator)
    drawn = torch.rand(len(clean), 1, 1, 1, generator=generator).to(clean)
    bound = STRENGTH * (0.25 + 0.75 * drawn) * mask
    change = bound * (2 * torch.rand(clean.shape, generator=generator).to(clean) - 1)
    training = network.training
    network.eval()  # neither dropout nor the running statistics take part in the search
    try:
        for _ in range(STEPS):
            change.requires_grad_(True)
            with torch.enable_grad():
                logits = network.logits(clean + change, frames)
                loss = nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, change)
            change = change.detach() + 1.5 / STEPS * bound * gradient.sign()
            change = torch.minimum(torch.maximum(change, -bound), bound)
    finally:
        network.train(training)
    out = planes.clone()
    out[chosen] = clean + change
    return out


def stretches(planes: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Where pulses reach, (B, C, 1, N) 0 or 1: one to `STRETCHES` places drawn for each item."""
    batch, count, _, frames = planes.shape
    mask = planes.new_zeros(batch, 1, 1, frames)
    for item in range(batch):
        pulses = int(torch.randint(1, STRETCHES + 1, (), generator=generator))
        last = max(1, int(lengths[item]) - REACH + 1)
        for start in torch.randint(0, last, (pulses,), generator=generator).tolist():
            mask[item, ..., start : start + REACH] = 1
    live = (planes != 0).any(dim=(2, 3), keepdim=True).to(planes)
    live[:, count - 1] = 0
    return mask * live


class Guarded(nn.Module):
    """A network that looks `draws` times, each time through the guards drawn anew, and takes the mean score.

    windows: a random stretch of 60 to 100 % of the recording (1 s at least);
    limiter: no 10 ms rise more than 6 dB over the median of the 210 ms around them, the same gain on all channels;
    noise: noise 35 to 45 dB below the recording's level, of its own on every channel;
    parts: the network judges short parts of its planes, none of which counts for much (`Parts`).
    `generator` None draws from the operating system's own randomness, which nobody outside can repeat.
    """

    def __init__(
        self,
        network: nn.Module,
        guards: Sequence[str] = ("windows",),
        draws: int = 4,
        *,
        sample_rate: int = 16000,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if unknown := [name for name in guards if name not in GUARDS]:
            raise ValueError(f"unknown guard {unknown[0]!r}; expected some of {', '.join(GUARDS)}")
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        self.network = Parts(network) if "parts" in guards else network
        self.guards, self.sample_rate = tuple(guards), sample_rate
        self.draws = draws if set(guards) & set(DRAWN) else 1
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B,) of (B, M, T)."""
        return torch.stack([self.network(self.look(x)) for _ in range(self.draws)]).mean(0)

    def look(self, x: Tensor) -> Tensor:
        """The recording as one look hears it."""
        if "limiter" in self.guards:
            x = limited(x, self.sample_rate)
        if "noise" in self.guards:
            below = 35 + 10 * torch.rand((), generator=self.generator)
            level = x.square().mean(dim=(1, 2), keepdim=True).sqrt() * 10 ** (-below / 20)
            x = x + level * torch.randn(x.shape, generator=self.generator).to(x)
        if "windows" in self.guards:
            samples = x.shape[-1]
            share = 0.6 + 0.4 * float(torch.rand((), generator=self.generator))
            size = min(samples, max(self.sample_rate, int(share * samples)))
            start = int(torch.randint(0, samples - size + 1, (), generator=self.generator))
            x = x[..., start : start + size]
        return x


def limited(x: Tensor, sample_rate: int, over_db: float = 6.0, around: int = 21) -> Tensor:
    """(B, M, T) with every 10 ms turned down to `over_db` over the median power of the `around` ones about it."""
    size = sample_rate // 100
    count = x.shape[-1] // size
    if count < 3:
        return x
    power = x[..., : count * size].unflatten(-1, (count, size)).square().mean(dim=(1, 3))
    half = around // 2
    padded = nn.functional.pad(power[:, None], (half, half), mode="replicate")[:, 0]
    usual = padded.unfold(-1, around, 1).median(dim=-1).values * 10 ** (over_db / 10)
    gain = (usual / power.clamp(min=1e-20)).clamp(max=1).sqrt()
    gain = -nn.functional.max_pool1d(-gain[:, None], 3, 1, 1)[:, 0]  # a burst may lie across two of them
    gain = nn.functional.interpolate(gain[:, None], size=count * size, mode="linear")
    rest = gain[..., -1:].expand(-1, -1, x.shape[-1] - count * size)
    return x * torch.cat([gain, rest], dim=-1)


class Parts(nn.Module):
    """A network of planes that judges short parts of a command, each for itself; the score is the mean of theirs,
    none counted for more than `cap`.

    Where the whole command is pooled at once, one stretch of a quarter of a second can outweigh all the rest.
    Here what it gains is bounded: the parts it lies in, up to `cap` each. Parts are `frames` long and begin every
    half of that, the last one so that it ends with the command; planes are those of the whole command.
    """

    def __init__(self, network: nn.Module, frames: int = 16, cap: float = 1.5):
        super().__init__()
        if getattr(network, "front", None) is None:
            raise ValueError("this network has no planes to judge in parts; choose another guard, or compact")
        self.network, self.front, self.frames, self.cap = network, network.front, frames, cap

    def prepare(self, x: Tensor) -> Tensor:
        return self.network.prepare(x)

    def scores(self, planes: Tensor) -> Tensor:
        """Scores (B, P) of the parts of (B, C, K, N)."""
        size = min(self.frames, planes.shape[-1])
        last = planes.shape[-1] - size
        starts = [*range(0, last, max(1, size // 2)), last]
        parts = torch.stack([planes[..., start : start + size] for start in starts], dim=1)
        logits = self.network.logits(parts.flatten(0, 1))
        return (logits[:, 0] - logits[:, 1]).unflatten(0, (len(planes), len(starts)))

    def logits(self, planes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, 2) as the network's own: [score, 0]. `lengths` (B,) in frames, where recordings are padded."""
        whole = [planes.shape[-1]] * len(planes) if lengths is None else lengths.tolist()
        scores = [
            self.scores(one[None, ..., :count]).clamp(max=self.cap).mean()
            for one, count in zip(planes, whole, strict=True)
        ]
        score = torch.stack(scores)
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B,) of (B, M, T)."""
        return self.logits(self.prepare(x))[:, 0]


class Together(nn.Module):
    """Several networks of one sample rate; the score is the mean of their calibrated log-likelihood ratios, or the
    lowest of them: then all have to be led astray at once. A source model takes part as `SourceMember`."""

    def __init__(self, detectors: Sequence[Detector | SourceMember], rule: str = "mean"):
        super().__init__()
        rates = {one.specification.sample_rate for one in detectors}
        if len(rates) != 1 or any(one.calibration is None for one in detectors):
            raise ValueError(
                "detectors that decide together need one sample rate and a calibration each; train them alike"
            )
        if rule not in ("mean", "lowest"):
            raise ValueError(f"unknown rule {rule!r}; expected mean or lowest")
        self.networks = nn.ModuleList(one.network for one in detectors)
        self.calibrations = [one.calibration for one in detectors]
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.joined([network(x) for network in self.networks])

    def joined(self, scores: Sequence[Tensor]) -> Tensor:
        """One score (B,) of each network's own."""
        llrs = torch.stack([one.llr(score) for one, score in zip(self.calibrations, scores, strict=True)])
        return llrs.mean(0) if self.rule == "mean" else llrs.amin(0)


class SourceMember:
    """A source model as a member of `Together`, beside a detector and heard at its rate.

    It is a black box: its cues are measured and its trees are asked in NumPy, so it has scores and no gradients.
    `array` names the microphones' places, for the cues that need them.
    """

    def __init__(self, model: SourceModel, specification: Specification, array: str | None = None):
        if model.reads_embeddings:
            raise ValueError(
                "this source model reads a replay detector's embedding, so it is no second opinion; use one by cues"
            )
        self.network = Cues(model, specification.sample_rate, array)
        self.specification = specification
        self.calibration = Calibration(slope=1.0, offset=0.0)  # it answers with ratios already


class Cues(nn.Module):
    """(B, M, T) -> calibrated log-likelihood ratios (B,) of a source model's cues. No parameters, no gradients."""

    def __init__(self, model: SourceModel, sample_rate: int, array: str | None = None):
        super().__init__()
        self.model, self.sample_rate, self.array = model, sample_rate, array

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor(
            [self._llr(one.detach().cpu().numpy()) for one in x], dtype=x.dtype, device=x.device
        )

    def _llr(self, waveform: np.ndarray) -> float:
        from detector.source.cues import cues_of

        cues = cues_of(waveform, self.sample_rate, self.array)
        values = np.array([cues[name] for name in self.model.cues], np.float32)
        return float(self.model.calibration_of(values).llr(self.model.score(values[None])[0]))


def guarded(detector: Detector, module: nn.Module, **run: Any) -> Detector:
    """A detector of the same specification that asks `module`. It has no threshold and no calibration until they
    are set on clean dev (`threshold`, `calibration` in `run`): those of the bare network are of other scores."""
    config = dict(detector.config)
    config["specification"] = Specification.from_dict(config["specification"]).as_dict()
    return Detector(module, config, {"threshold": None, "calibration": None} | run)
