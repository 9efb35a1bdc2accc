"""What `replayguard source train` is told; light to import, so that its help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLASSIFIERS = ("additive", "boosting", "svm", "logistic", "neural")


@dataclass(frozen=True)
class SourceConfig:
    """Train a source model: is it a person or a device that speaks, and which kind; judged by acoustic cues."""

    corpus: Path
    """Root of the corpus (ReMASC's layout, or a simulated one)."""
    out: Path
    """Folder of the model; it appears whole."""
    classifier: str = "additive"
    """additive (a curve for each cue), boosting (gradient-boosted trees), svm, logistic (a line); neural reads the
    replay detector's embedding, not cues."""
    detector: str = "default"
    """Replay detector to be joined with: a bundled name, a checkpoint folder, or "none"."""
    array: str = "all"
    """D1, D2, D3, D4, several joined by commas, or all."""
    train: int = 4000
    """At most so many train recordings, chosen by a hash of their names; 0 = all."""
    dev: int = 1200
    """At most so many dev recordings; 0 = all."""
    p_fa: float = 0.05
    """Share of the devices that the thresholds accept on dev."""
    strict: bool = False
    """That share of the replays from each source recorder, not of all together: synthetic and clean speech passes
    more easily than what was recorded before. Fewer people are accepted."""
    seed: int = 0
    """Of the classifiers."""
    cache: Path | None = None
    """Where measured cues are kept; default: OUT with .cues at its end."""
    workers: int | None = None
    """Processes; default: one per core."""

    def __post_init__(self) -> None:
        if self.classifier not in CLASSIFIERS:
            raise ValueError(f"no classifier {self.classifier!r}; expected one of {', '.join(CLASSIFIERS)}")
        if not 0 <= self.p_fa < 1 or self.train < 0 or self.dev < 0:
            raise ValueError(
                f"p_fa {self.p_fa}, train {self.train}, dev {self.dev}; expected a share below 1 and no negatives"
            )
        if self.classifier == "neural" and self.detector == "none":
            raise ValueError(
                "the neural classifier reads a replay detector's embedding; name one with --detector"
            )
