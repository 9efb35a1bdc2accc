"""Cross-model distillation (CMKD, arXiv 2203.06760): a frozen classifier teaches another one.

Loss = lambda * task loss + (1 - lambda) * divergence to the teacher's softened output. The teacher hears the very
spectrograms that the student hears, after augmentation, once per batch; its answers are kept nowhere.
Shapes: B batch, N frames, F mel bands, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remasc.sentences import quoted


@dataclass(frozen=True)
class Distillation:
    """How much the teacher says.

    `temperature` divides the teacher's logits, with `soften` = "both" also the student's; the divergence is then
    multiplied by its square, so that its gradient keeps its size. `task_share` is lambda.
    """

    temperature: float = 1.0
    task_share: float = 0.5
    soften: str = "teacher"

    def __post_init__(self) -> None:
        numbers = all(isinstance(value, int | float) for value in (self.temperature, self.task_share))
        if not (
            numbers
            and self.temperature > 0
            and 0 <= self.task_share <= 1
            and self.soften in ("teacher", "both")
        ):
            raise ValueError(
                f"distillation at temperature {quoted(self.temperature)}, lambda {quoted(self.task_share)}, soften "
                f"{quoted(self.soften)}; expected one above 0, one of 0 to 1, and teacher or both"
            )


def task_loss(logits: Tensor, targets: Tensor, kind: str = "ce") -> Tensor:
    """Logits and soft targets (B, K) -> their cross-entropy, over one class a clip ("ce") or each class ("bce")."""
    if kind == "ce":
        return F.cross_entropy(logits.float(), targets)
    return F.binary_cross_entropy_with_logits(logits.float(), targets)


def distillation_loss(
    student: Tensor, teacher: Tensor, targets: Tensor, distillation: Distillation, kind: str = "ce"
) -> Tensor:
    """Logits of student and teacher and soft targets, each (B, K) -> the whole loss.

    The divergence is zero where the student says what the softened teacher says.
    """
    d = distillation
    if student.shape != teacher.shape:
        raise ValueError(
            f"the teacher's logits are {tuple(teacher.shape)}, the student's {tuple(student.shape)}; expected the "
            "same"
        )
    own = student.float() / d.temperature if d.soften == "both" else student.float()
    wanted = teacher.detach().float() / d.temperature
    if kind == "ce":
        apart = F.kl_div(own.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")
    else:  # of each class by itself: cross-entropy less the teacher's own entropy
        sure = wanted.sigmoid()
        least = F.binary_cross_entropy_with_logits(wanted, sure)
        apart = F.binary_cross_entropy_with_logits(own, sure) - least
    if d.soften == "both":
        apart = apart * d.temperature**2
    return d.task_share * task_loss(student, targets, kind) + (1 - d.task_share) * apart


class Teacher:
    """A frozen classifier that answers to another one's spectrograms.

    `network` has `architecture` and `logits(spectra, frames)`. It is kept out of the student's modules, so that no
    optimiser, checkpoint or state ever holds it.
    """

    def __init__(self, network: nn.Module, student: nn.Module, device: torch.device | str = "cpu") -> None:
        own, other = network.architecture, student.architecture
        if own.classes != other.classes:
            raise ValueError(
                f"the teacher knows the classes {quoted(own.classes)}, the student {quoted(other.classes)}; "
                "expected the same"
            )
        if own.frontend != "fixed" or own.mels != other.mels:
            raise ValueError(
                f"a teacher with {own.mels} bands and a {own.frontend} front end hears other spectrograms than its "
                f"student of {other.mels}; expected a fixed one of the same bands"
            )
        if own.backbone == "ast" and own.frames < other.frames:
            raise ValueError(
                f"the teacher hears {own.frames} frames, the student {other.frames}; train it with as many"
            )
        self.network = network.to(device).eval().requires_grad_(False)
        # from the student's normalisation to the teacher's
        self.gain = other.deviation / own.deviation
        self.shift = (other.mean - own.mean) / (2 * own.deviation)

    @torch.no_grad()
    def __call__(self, spectra: Tensor, frames: Tensor) -> Tensor:
        """(B, N, F) as the student hears them, real frames (B,) -> logits (B, K)."""
        if (self.gain, self.shift) != (1.0, 0.0):
            beyond = torch.arange(spectra.shape[1], device=spectra.device) >= frames[:, None]
            spectra = (spectra * self.gain + self.shift).masked_fill(beyond[..., None], 0)
        return self.network.logits(spectra.detach(), frames)
