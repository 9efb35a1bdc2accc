"""How soon a detector learns an array that it never heard: `python -m eval.benchmarks.adaptation --corpus ROOT
--array D1 --out FOLDER [--base RUN]`.

Minutes of the array's train recordings, labelled or genuine alone, adapt a base that was trained without the array
(`--base`; without one a compact detector is trained here on the others). Held-out trials of the array, of other
speakers, rooms and devices, say what it was worth, and trials of the other arrays what it cost there. Leaves
adaptation.md and adaptation.json.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from detector.adapt import check_base, hear, write
from detector.calibration import Calibration
from detector.classify.data import Clip
from detector.config import TrainConfig
from detector.score import Detector, load
from detector.ways import Adapted, Heard, learn
from eval import words
from eval.benchmarks.drawn import drawn, few
from eval.metrics import cllr, eer, percentile_interval, resampled_counts
from remasc import ARRAYS, Corpus, Label, Recording, read_audio
from remasc.atomic import write_text
from remasc.parallel import tracked
from remasc.protocol import partitions
from remasc.schema import name_of

KINDS = ("labelled", "genuine alone")
DRAWS = 300  # of the bootstrap
RECORD = ("commit", "corpus", "parameters", "epochs", "train_trials", "dev_trials", "dev_eer")
HEARD = {
    True: "HEARD this array in training, so that this is no curve of a new one",
    False: "never heard this array",
    None: "may have heard this array (its protocol is not known)",
}


@dataclass(frozen=True)
class Adaptation:
    """What is adapted to what.

    Args:
        corpus: Folder of a ReMASC copy or of a simulated corpus.
        out: Folder of the base (where one is trained), the adapted detectors and the tables.
        array: The new array: D1, D2, D3 or D4.
        base: A detector trained without that array, a folder or a bundled name; default: one is trained.
        backbone: Of the base to be trained: cnn or edge.
        base_clips: Training recordings of each other array and class for that base; dev has a quarter of these.
        minutes: Of the array's recordings, as many as the corpus holds.
        draws: How many draws of these recordings.
        split: Partition of the held-out trials: dev or eval.
        trials: At most so many held-out trials of each class.
        others: At most so many trials of each other array and class.
    """

    corpus: Path
    out: Path
    array: str = "D1"
    base: str | None = None
    backbone: str = "cnn"
    base_clips: int = 2000
    minutes: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0, 30.0)
    draws: int = 3
    split: str = "dev"
    trials: int = 10_000
    others: int = 100

    def __post_init__(self) -> None:
        if self.array not in ARRAYS:
            raise ValueError(f"unknown array {self.array!r}; expected one of {', '.join(ARRAYS)}")
        if self.draws < 1 or not self.minutes or min(self.minutes) < 0:
            raise ValueError("expected at least one draw, and minutes from 0 on")


def run(bench: Adaptation) -> dict[str, Any]:
    """Adapt at every amount, measure, write the tables; returns the figures."""
    corpus = Corpus.from_meta(bench.corpus)
    parts = partitions(corpus)
    if bench.split not in ("dev", "eval"):
        raise ValueError(f"split is {bench.split!r}; expected dev or eval")
    name = str(train_base(bench, parts)) if bench.base is None else bench.base
    base = load(name)
    check_base(base)
    bars = sys.stderr.isatty()
    own = parts["train"].filter(array=bench.array)
    pool = hear(base, clips(_enough(own, bench)), ARRAYS[bench.array], bars)
    held = few(parts[bench.split].filter(array=bench.array), bench.trials)
    trials = hear(base, clips(held), ARRAYS[bench.array], bars)
    rows, largest = [], None
    for kind in KINDS:
        for minutes in bench.minutes:
            found = [_adapted(base, pool, kind, minutes, draw) for draw in range(bench.draws)]
            if None in found:
                continue
            rows.append(_row(kind, minutes, found, base, trials))
            if kind == KINDS[0] and minutes:
                largest = found[0]
    figures = {
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "array": bench.array,
        "split": bench.split,
        "base": Path(name).name,
        "base_heard_the_array": _heard_it(Path(name), bench.array),
        "base_record": {key: base.run.get(key) for key in RECORD},
        "draws": bench.draws,
        "trials": _counts(trials),
        "speakers": len(set(trials.speakers)),
        "rows": rows,
        "others": _others(bench, parts, base, name, largest, pool) if largest else [],
    }
    bench.out.mkdir(parents=True, exist_ok=True)
    write_text(bench.out / "adaptation.json", json.dumps(figures, indent=1) + "\n")
    write_text(bench.out / "adaptation.md", markdown(figures))
    return figures


def clips(recordings: Iterable[Recording]) -> list[Clip]:
    return [Clip(r.path, r.trial_id, name_of(r.label), "", str(r.speaker)) for r in recordings]


def _enough(own: Corpus, bench: Adaptation) -> list[Recording]:
    """As many of each class as the largest amount takes of that class alone."""
    chosen: list[Recording] = []
    for label in (Label.GENUINE, Label.REPLAY):
        minutes = 0.0
        for recording in drawn(own.filter(label=label)):
            if minutes >= 1.1 * max(bench.minutes):
                break
            chosen.append(recording)
            minutes += recording.seconds / 60
    return chosen


def _adapted(base: Detector, pool: Heard, kind: str, minutes: float, draw: int) -> Adapted | None:
    """What `minutes` of the pool teach; None where it holds too little."""
    if not minutes:
        return Adapted("none", 1.0, 0.0, None, {}, ())
    order = np.random.default_rng([draw, 77]).permutation(len(pool.names))
    genuine, replay = (order[pool.genuine[order] == truth] for truth in (True, False))
    if kind == "labelled":  # one of each class in turn
        count = min(len(genuine), len(replay))
        genuine = np.stack([genuine[:count], replay[:count]], axis=1).ravel()
    total = np.cumsum(pool.seconds[genuine]) / 60
    if not len(total) or total[-1] < minutes:
        return None
    kept = np.zeros(len(pool.names), bool)
    kept[genuine[: int(np.searchsorted(total, minutes)) + 1]] = True
    calibration = _calibration(base)
    chosen = pool.only(kept)
    return learn(
        chosen, calibration.llr(chosen.scores), _limit(base), "auto" if kind == "labelled" else "genuine"
    )


def _calibration(base: Detector) -> Calibration:
    assert base.calibration is not None
    return base.calibration


def _limit(base: Detector) -> float:
    return float(_calibration(base).llr(base.threshold))


def _llr(found: Adapted, base: Detector, heard: Heard) -> np.ndarray:
    """Of the adapted detector, (n,)."""
    llr = found.slope * _calibration(base).llr(heard.scores) + found.offset
    if found.change is not None:
        llr = llr + heard.embeddings @ found.change[:-1] + found.change[-1]
    return llr


def _row(kind: str, minutes: float, found: list[Adapted], base: Detector, trials: Heard) -> dict[str, Any]:
    llrs = [_llr(one, base, trials) for one in found]
    person, replay = np.flatnonzero(trials.genuine), np.flatnonzero(~trials.genuine)
    drawn_eers = []
    for own, other in resampled_counts(len(person), len(replay), n=DRAWS):
        of = np.repeat(person, own), np.repeat(replay, other)
        drawn_eers.append(np.mean([eer(llr[of[0]], llr[of[1]])[0] for llr in llrs]))
    low, high = percentile_interval(np.array(drawn_eers))
    limit = _limit(base)
    eers = [eer(llr[person], llr[replay])[0] for llr in llrs]
    return {
        "kind": kind,
        "minutes": minutes,
        "kept": dict(sorted(Counter(one.way for one in found).items())),
        "eer": float(np.mean(eers)),
        "eer_sd": float(np.std(eers)),
        "interval": [float(low), float(high)],
        "cllr": float(np.mean([cllr(llr[person], llr[replay]) for llr in llrs])),
        "p_miss": float(np.mean([(llr[person] < limit).mean() for llr in llrs])),
        "p_fa": float(np.mean([(llr[replay] >= limit).mean() for llr in llrs])),
    }


def _counts(heard: Heard) -> dict[str, int]:
    return {"genuine": int(heard.genuine.sum()), "replay": int((~heard.genuine).sum())}


def _others(
    bench: Adaptation, parts: dict[str, Corpus], base: Detector, name: str, found: Adapted, pool: Heard
) -> list[dict[str, Any]]:
    """The other arrays' trials as the base judges them, and as the adapted detector does that was written."""
    folder = bench.out / f"adapted-{bench.array}"
    if not folder.exists():
        write(folder, base, name, ARRAYS[bench.array], found, pool)
    adapted, rows = load(folder), []
    for array in sorted(set(ARRAYS) - {bench.array}):
        trials = few(parts[bench.split].filter(array=array), bench.others)
        scores = []
        for trial in tracked(
            ((1, r) for r in trials), f"judging {array}", len(trials), 0, sys.stderr.isatty()
        ):
            heard = read_audio(trial.path)
            scores.append([one.score(*heard, array) for one in (base, adapted)])
        if not scores:
            continue
        before, after = np.array(scores).T
        person = np.array([r.label is Label.GENUINE for r in trials])
        rows.append(
            {
                "array": array,
                "trials": len(trials),
                "largest_change": float(np.abs(after - before).max()),
                "eer_before": float(eer(before[person], before[~person])[0]),
                "eer_after": float(eer(after[person], after[~person])[0]),
            }
        )
    return rows


def _heard_it(folder: Path, array: str) -> bool | None:
    """Whether the base's training held the array, by its protocol.tsv; None where it has none."""
    try:
        with (folder / "protocol.tsv").open(encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            return any(row["array"] == array and row["partition"] in ("train", "dev") for row in rows)
    except (OSError, KeyError):
        return None


def train_base(bench: Adaptation, parts: dict[str, Corpus]) -> Path:
    """A compact detector that never heard the array; goes on where it was interrupted."""
    from detector.model import CompactDetector
    from detector.train import train

    config = TrainConfig(
        bench.corpus,
        bench.out / f"base-without-{bench.array}",
        backbone=bench.backbone,
        cache=bench.out / "prepared",
    )
    options = {"seconds": config.seconds, "progress": sys.stderr.isatty()}
    examples = {}
    for name, most in (("train", bench.base_clips), ("dev", max(1, bench.base_clips // 4))):
        others = few([r for r in parts[name] if r.array != bench.array], most)
        examples[name] = CompactDetector.build_examples(
            others, config.cache, training=name == "train", **options
        )
    return train(config, examples=examples, progress=options["progress"]).folder


def markdown(figures: dict[str, Any]) -> str:
    """The curve and what it cost elsewhere."""
    tag = " (simulated)" if figures["simulated"] else ""
    head = ["recordings", "minutes", "kept", f"EER{tag}", "95 %", "Cllr", "p_miss", "p_fa"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---|" + "---:|" * 5]
    for row in figures["rows"]:
        cells = (
            row["kind"] if row["minutes"] else "none",
            f"{row['minutes']:g}",
            ", ".join(f"{way} {count} of {figures['draws']}" for way, count in row["kept"].items()),
            f"{words.rate(row['eer'])} ± {100 * row['eer_sd']:.1f}",
            words.interval(*row["interval"]),
            f"{row['cllr']:.3f}",
            words.rate(row["p_miss"]),
            words.rate(row["p_fa"]),
        )
        if row["minutes"] or row["kind"] == KINDS[0]:
            lines.append("| " + " | ".join(cells) + " |")
    known, trials = HEARD[figures["base_heard_the_array"]], figures["trials"]
    lines += [
        "",
        f"Array {figures['array']}, {figures['split']} of {figures['corpus']}{tag}: {trials['genuine']} genuine "
        f"and {trials['replay']} replayed held-out trials of {figures['speakers']} speakers; mean (± standard "
        f"deviation) of {figures['draws']} draws of the recordings, interval over trials; p_miss and p_fa at the "
        f"base's threshold. The base ({figures['base']}) {known}.",
    ]
    if figures["others"]:
        lines += ["", f"| other array | trials | EER before{tag} | after | largest change of a score |"]
        lines += ["|---|---:|---:|---:|---:|"]
        lines += [
            f"| {row['array']} | {row['trials']} | {words.rate(row['eer_before'])} | "
            f"{words.rate(row['eer_after'])} | {row['largest_change']:g} |"
            for row in figures["others"]
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    try:
        print(markdown(run(tyro.cli(Adaptation, description=__doc__))))
    except (ValueError, OSError) as error:
        sys.exit(f"adaptation: {error}")
