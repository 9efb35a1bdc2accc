"""Dev as the finished detector scores it: whole recordings from their files, one at a time, as users have it.

The training loop scores dev in batches of prepared features, which is quick and chooses the epoch. Threshold and
calibration belong to the scores that users will see, so they are set on these. A recording on which the detector
abstains is rejected whatever the threshold (fail closed), and so has no part in setting it.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from detector.batch import judge_all
from detector.calibration import Calibration, threshold_at
from detector.checkpoint import CONFIG, WEIGHTS, load_checkpoint, save_checkpoint
from detector.team import one_thread
from eval.metrics import eer
from remasc import Label, Recording
from remasc.atomic import write_text
from remasc.parallel import tracked
from remasc.shards import sealed, unsealed

JUDGED = "dev-judged.jsonl"  # what an interrupted judging leaves behind
DETECTOR, TRAINING = "detector", "training loop"


@dataclass(frozen=True)
class DevScores:
    """`scores` (n,) float64, higher = more genuine, of the dev trials; `genuine` (n,) bool; `reasons` n words,
    empty where the trial was judged, else why not. `scored_by` is "detector" or "training loop"."""

    scores: np.ndarray
    genuine: np.ndarray
    reasons: tuple[str, ...]
    scored_by: str

    def eer(self) -> float:
        """Over all trials; what was abstained from ranks below every other."""
        judged = self._judged
        lowest = self.scores[judged].min() - 1 if judged.any() else 0.0
        scores = np.where(judged, self.scores, lowest)
        return float(eer(scores[self.genuine], scores[~self.genuine])[0])

    def calibration(self) -> Calibration | None:
        """Fitted on what was judged; None where a class has nothing that was."""
        genuine, replay = self._by_class()
        return Calibration.fit(genuine, replay) if len(genuine) and len(replay) else None

    def threshold(self, p_fa: float) -> float | None:
        """Accepts at most a share `p_fa` of the replays that were judged, and so of all; None as above: a
        detector without a threshold decides nothing."""
        genuine, replay = self._by_class()
        return threshold_at(replay, p_fa) if len(genuine) and len(replay) else None

    def abstained(self) -> dict[str, dict[str, int]]:
        """How often each reason was given, by class."""
        found: dict[str, Counter] = {"genuine": Counter(), "replay": Counter()}
        for reason, genuine in zip(self.reasons, self.genuine, strict=True):
            if reason:
                found["genuine" if genuine else "replay"][reason] += 1
        return {name: dict(sorted(counts.items())) for name, counts in found.items()}

    @property
    def _judged(self) -> np.ndarray:
        return np.array([not reason for reason in self.reasons], dtype=bool)

    def _by_class(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scores[self._judged & self.genuine], self.scores[self._judged & ~self.genuine]


def from_training(scores: np.ndarray, genuine: np.ndarray) -> DevScores:
    """The training loop's own scores, where there are no recordings to ask the detector about."""
    return DevScores(scores, genuine, ("",) * len(scores), TRAINING)


def judge_dev(
    out: Path,
    weights: Mapping[str, Tensor],
    description: Mapping[str, Any],
    recordings: Sequence[Recording],
    *,
    progress: bool = True,
) -> DevScores:
    """Score the recordings with the detector of these weights on all cores; an interrupted call goes on.

    Missing files are a ValueError, for they say nothing of the detector; what cannot be read is abstained from.
    """
    if missing := [r for r in recordings if not r.path.is_file()]:
        raise ValueError(
            f"{len(missing)} of {len(recordings)} dev recordings are gone (first: {missing[0].path}), and the "
            "threshold is set on them; put them back and run this again to go on from the finished training"
        )
    # a name of its own each time: the judging processes keep the detectors that they loaded, by name
    with (
        tempfile.TemporaryDirectory(prefix=".judging.", suffix=".partial", dir=out) as scratch,
        one_thread(),
    ):
        folder = save_checkpoint(Path(scratch) / "detector", weights, dict(description), {})
        sums = load_checkpoint(folder)[2]["checksums"]
        key = {name: sums[name] for name in (CONFIG, WEIGHTS)}
        rows = {row["trial"]: row for row in _kept(out / JUDGED, key)}
        write_text(out / JUDGED, "".join(sealed(row) + "\n" for row in (key, *rows.values())))
        jobs = [(r.trial_id, str(r.path), r.array) for r in recordings if r.trial_id not in rows]
        # any threshold does: what is asked for is the score, and whether it may be used
        found = judge_all(str(folder), jobs, options={"threshold": 0.0})
        counted = ((1, judgement) for judgement in found)
        with (out / JUDGED).open("a", encoding="utf-8") as stream:
            for one in tracked(counted, "judging dev", len(recordings), len(rows), progress):
                rows[one.trial] = {"trial": one.trial, "score": one.score, "reason": one.reason}
                stream.write(sealed(rows[one.trial]) + "\n")
                stream.flush()
    found_rows = [rows[r.trial_id] for r in recordings]
    scores = [np.nan if row["score"] is None else row["score"] for row in found_rows]
    genuine = [r.label is Label.GENUINE for r in recordings]
    reasons = tuple(row["reason"] for row in found_rows)
    return DevScores(np.array(scores, dtype=np.float64), np.array(genuine), reasons, DETECTOR)


def _kept(path: Path, key: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of an interrupted judging by the same detector; what is torn is left out and judged again."""
    rows = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            rows.append(unsealed(line))
        except (ValueError, RecursionError):
            continue
    return rows[1:] if rows and rows[0] == key else []
