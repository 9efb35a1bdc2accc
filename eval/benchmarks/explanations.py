"""What explanations say of recordings whose class is known: `python -m eval.benchmarks.explanations --corpus ROOT`.

For each group of evidence (`detector.explain`): its mean contribution by class, how often it speaks for the right
class, and the EER of the group's contribution alone. Beside it what a band of abstention below the threshold would
buy: what is undecided in it is accepted as little as before, but the word "replay" is said of fewer people. With
--learn the average command is learnt first, from
the corpus's train partition, and written where `detector.neutral` finds it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from detector.explain import GROUPS
from detector.frontends.planes import CovariancePlanes
from detector.neutral import PATH, learn
from detector.score import load
from eval.benchmarks.drawn import few
from eval.metrics import eer
from remasc import Corpus, Label, Recording, read_audio
from remasc.atomic import write_text
from remasc.audio import resample
from remasc.parallel import tracked
from remasc.protocol import partitions

BANDS = (0.0, 0.5, 1.0, 2.0)  # of abstention, in the explanation's unit


@dataclass(frozen=True)
class Explanations:
    """What is explained.

    Args:
        corpus: Folder of a ReMASC copy or of a simulated corpus.
        detector: A bundled detector's name or a checkpoint folder.
        split: Partition whose recordings are explained: train, dev or eval.
        trials: At most so many of each array and class, drawn by a hash.
        out: Folder of explanations.md and explanations.json; default: nothing is written.
        learn: First learn the average command from so many training recordings of each array and class, and
            keep it in this copy of the program; 0 = as it is.
    """

    corpus: Path
    detector: str = "default"
    split: str = "dev"
    trials: int = 50
    out: Path | None = None
    learn: int = 0


def planes_of(recordings: list[Recording]) -> Iterator[tuple[int, np.ndarray]]:
    import torch

    front = CovariancePlanes()
    for recording in recordings:
        waveform, rate = read_audio(recording.path)
        x = torch.from_numpy(np.ascontiguousarray(resample(waveform, rate, front.sample_rate)))
        yield 1, front(x[None])[0].numpy()


def run(options: Explanations) -> dict[str, Any]:
    """Learn the average command if asked, explain the trials, and return the figures."""
    corpus = Corpus.from_meta(options.corpus)
    parts = partitions(corpus)
    if options.split not in parts:
        raise ValueError(f"unknown split {options.split!r}; expected one of {', '.join(parts)}")
    if options.learn:
        chosen = few(parts["train"], options.learn)
        heard = tracked(planes_of(chosen), "hearing train", len(chosen), 0, sys.stderr.isatty())
        said = "simulated" if corpus.simulated else "recorded"
        learn(heard, f"train of {corpus.name} ({said}), {len(chosen)} recordings").save(PATH)
    detector, rows = load(options.detector), []
    trials = few(parts[options.split], options.trials)
    for recording in tracked(((1, r) for r in trials), "explaining", len(trials), 0, sys.stderr.isatty()):
        told = detector.explain(*read_audio(recording.path), recording.array)
        if told.contributions:
            rows.append((recording, told))
    figures = {
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "split": options.split,
        "detector": options.detector,
        "unit": rows[0][1].unit if rows else None,
        "reference": rows[0][1].reference_source if rows else None,
        "trials": _counts(rows),
        "undecided": len(trials) - len(rows),
        "largest_error_of_the_sum": max((_error(told) for _, told in rows), default=0.0),
        "groups": {group: _figures(rows, group) for group in GROUPS},
        "bands": [_band(rows, width) for width in BANDS] if rows else [],
        "average_command": _spread([told.reference for _, told in rows]),
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "explanations.json", json.dumps(figures, indent=1) + "\n")
        write_text(options.out / "explanations.md", markdown(figures))
    return figures


def _counts(rows: list) -> dict[str, int]:
    genuine = sum(recording.label is Label.GENUINE for recording, _ in rows)
    return {"genuine": genuine, "replay": len(rows) - genuine}


def _error(told: Any) -> float:
    return abs(told.reference + sum(one.part for one in told.contributions) - told.value)


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values))} if values else {}


def _band(rows: list, width: float) -> dict[str, Any]:
    """Were everything undecided that lies less than `width` below the threshold: shares of each class, and how many
    of those that are then called replays are people."""
    below = np.array([told.threshold - told.value for _, told in rows])
    person = np.array([recording.label is Label.GENUINE for recording, _ in rows])
    called, undecided = below > width, (below > 0) & (below <= width)
    return {
        "width": width,
        "called_replay": int(called.sum()),
        "of_these_people": int((called & person).sum()),
        "genuine_undecided": float(undecided[person].mean()),
        "replay_undecided": float(undecided[~person].mean()),
    }


def _figures(rows: list, group: str) -> dict[str, Any]:
    """Of a group's contributions where it was defined."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for recording, told in rows:
        one = next(one for one in told.contributions if one.group == group)
        if one.defined:
            found[recording.label is Label.GENUINE].append(one.part)
    genuine, replay = np.array(found[True]), np.array(found[False])
    if not len(genuine) or not len(replay):
        return {"defined": len(genuine) + len(replay)}
    return {
        "defined": len(genuine) + len(replay),
        "genuine_mean": float(genuine.mean()),
        "replay_mean": float(replay.mean()),
        "mean_size": float(np.abs(np.concatenate([genuine, replay])).mean()),
        "eer_alone": float(eer(genuine, replay)[0]),
    }


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    trials, tag = figures["trials"], " (simulated)" if figures["simulated"] else ""
    lines = [
        f"| group | recordings | mean, genuine ({figures['unit']}) | mean, replay | mean size | EER alone{tag} |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for group, found in figures["groups"].items():
        if "eer_alone" in found:
            numbers = (f"{found[name]:+.2f}" for name in ("genuine_mean", "replay_mean"))
            cells = [*numbers, f"{found['mean_size']:.2f}", f"{100 * found['eer_alone']:.1f} %"]
            lines.append(f"| {group} | {found['defined']} | " + " | ".join(cells) + " |")
    if figures["bands"]:
        head = ("called replay", "of these people", "genuine undecided", "replay undecided")
        lines += ["", f"| band ({figures['unit']}) | " + " | ".join(head) + " |"]
        lines += ["|---:|---:|---:|---:|---:|"]
    for band in figures["bands"]:
        share = band["of_these_people"] / max(1, band["called_replay"])
        lines.append(
            f"| {band['width']:g} | {band['called_replay']} | {share:.0%} | {band['genuine_undecided']:.0%} | "
            f"{band['replay_undecided']:.0%} |"
        )
    average = figures["average_command"]
    lines += [
        "",
        f"Detector {figures['detector']}, {figures['split']} of {figures['corpus']}{tag}: {trials['genuine']} "
        f"genuine and {trials['replay']} replayed trials. Compared with the average command "
        f"({figures['reference']}), whose own value is {average['mean']:+.2f} (standard deviation "
        f"{average['sd']:.2f}). The parts sum to the value within {figures['largest_error_of_the_sum']:.0e}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        print(markdown(run(tyro.cli(Explanations, description=__doc__))))
    except (ValueError, OSError) as error:
        sys.exit(f"explanations: {error}")
