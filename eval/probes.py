"""Leak probes: whether a corpus can be solved by what is not the attack.

Each probe is a classifier of a few facts of a recording (its level, its length, its first 50 ms, ...), fitted on
train, chosen on dev among two kinds, and scored on eval. It fails where the 95 % interval of its EER lies wholly
outside of the band that the corpus owes it; with fewer than `ENOUGH` trials of a class the interval is widened
for the number of probes (Bonferroni). The bands are those of a corpus whose two classes follow one law: on
recordings of the world they are reported and gate nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from eval.facts import facts_of, place_of
from eval.metrics import bootstrap_interval, eer
from remasc import Corpus, Recording
from remasc.parallel import tracked, unordered
from remasc.protocol import PARTITIONS, partitions
from remasc.schema import RecordingDevice
from remasc.simulate.layout import by_file, read_scenes, scene_of

VERSION = 1  # of the probes: raised whenever they would find something else on the same recordings
ENOUGH = 1000  # trials of each class from which an interval stands as it is
FEWEST = 50  # of a class: with fewer, that no probe failed says nothing
HANDFUL = 10  # of a class: with fewer no probe fails, for a bootstrap of so few may have no width
NOTHING = (0.45, 0.55)  # EER of what must not tell the classes apart
_CHUNK = 16


@dataclass(frozen=True)
class Verdict:
    """What one probe found on one array: EER and its interval (fractions, at confidence `level`), the band it owes,
    and trials of each class. `gates` is False where the band is reported only."""

    array: str
    probe: str
    eer: float
    low: float
    high: float
    band: tuple[float, float]
    genuine: int
    replay: int
    gates: bool
    level: float = 0.95

    @property
    def failed(self) -> bool:
        """The whole interval lies outside of the band, and there are enough trials to say so."""
        told = min(self.genuine, self.replay) >= HANDFUL
        return told and self.gates and (self.high < self.band[0] or self.low > self.band[1])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"failed": self.failed}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Verdict:
        """What `as_dict` gave; KeyError or TypeError on anything else."""
        known = {entry.name: row[entry.name] for entry in fields(cls)}
        return cls(**known | {"band": tuple(row["band"])})


def probe_corpus(
    root: str | Path,
    *,
    arrays: Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[Verdict]:
    """Every probe on every array of a corpus; ValueError where train, dev and eval do not hold both classes."""
    corpus = Corpus.from_meta(root)
    parts = partitions(corpus)
    scenes = by_file(read_scenes(Path(root)))
    recipe = corpus.card.get("recipe") or {}
    present = [name for name in RecordingDevice.__members__ if any(r.array == name for r in corpus)]
    unknown = sorted(set(arrays or ()) - set(present))
    if unknown:
        raise ValueError(
            f"{root}: holds no recordings of {unknown[0]}; expected some of {', '.join(present)}"
        )
    verdicts = []
    for array in arrays or present:
        chosen = {name: list(parts[name].filter(array=array)) for name in PARTITIONS}
        for name, part in chosen.items():
            if len({r.label for r in part}) < 2:
                raise ValueError(
                    f"{root}: its {name} partition holds one class or none on {array}; probes need train, dev and "
                    "eval with both (a recipe with pairs in all three)"
                )
        facts = _facts(chosen, scenes, array, workers, progress)
        # a corpus that follows ReMASC row by row has its classes where ReMASC has them: reported only
        gates = bool(corpus.simulated) and recipe.get("template") != "exact"
        names = [name for name in facts["eval"][0] if _both_classes(name, facts)]
        verdicts += [_verdict(array, name, facts, recipe, gates) for name in names]
    return verdicts


def _both_classes(probe: str, facts: dict) -> bool:
    """Whether a probe has facts of both classes everywhere: no replay has a place where all are a vehicle's own."""
    return all(
        len({facts["labels"][name][i] for i, row in enumerate(facts[name]) if row[probe] is not None}) == 2
        for name in PARTITIONS
    )


def _facts(
    parts: dict[str, list[Recording]], scenes: dict, array: str, workers: int | None, progress: bool
) -> dict[str, list[dict]]:
    """For each partition the facts of its recordings, in order, with "label" and "place" beside them."""
    everything = [(name, i, r) for name, part in parts.items() for i, r in enumerate(part)]
    jobs = [(everything[i : i + _CHUNK],) for i in range(0, len(everything), _CHUNK)]
    out: dict[str, list[Any]] = {name: [None] * len(part) for name, part in parts.items()}
    done = ((len(found), found) for found in unordered(_facts_of_chunk, jobs, workers))
    for found in tracked(done, f"probing {array}", len(everything), 0, progress):
        for name, i, facts in found:
            out[name][i] = facts
    # a vehicle's own loudspeakers stand apart, and their genuine siblings with them, or "vehicle" would tell
    apart = {scene["pair"] for scene in scenes.values() if scene["device"] and scene["device"]["built_in"]}
    for name, part in parts.items():
        for facts, recording in zip(out[name], part, strict=True):
            scene = scene_of(recording.file_id, scenes)
            if scenes:
                facts["place"] = None if scene is None or scene["pair"] in apart else place_of(scene)
    labels = {name: np.array([int(r.label) for r in part]) for name, part in parts.items()}
    return out | {"labels": labels}


def _facts_of_chunk(chunk: list[tuple[str, int, Recording]]) -> list[tuple[str, int, dict]]:
    return [(name, i, facts_of(recording, i)) for name, i, recording in chunk]


def band_of(probe: str, recipe: dict) -> tuple[float, float]:
    """The EERs that a corpus of this recipe owes a probe."""
    if recipe.get("null"):
        return NOTHING
    if probe == "first 50 ms":  # the attack's own hiss may be heard, a little
        return (0.35, NOTHING[1]) if recipe.get("device_noise", True) else NOTHING
    if probe == "long-term spectrum":  # the loudspeaker's response is a real cue
        return (0.30 if recipe.get("protocol") == "closed" else 0.40, NOTHING[1])
    return NOTHING


def _verdict(array: str, probe: str, facts: dict, recipe: dict, gates: bool) -> Verdict:
    columns, labels = {}, {}
    # where every scene has an array of its own, rates differ: then what the lowest of them holds is compared
    width = min(len(row[probe]) for name in PARTITIONS for row in facts[name] if row[probe] is not None)
    for name in PARTITIONS:
        kept = [i for i, row in enumerate(facts[name]) if row[probe] is not None]
        columns[name] = np.array([facts[name][i][probe][:width] for i in kept], float)
        labels[name] = facts["labels"][name][kept]
    scores = classify(columns, labels)
    genuine, replay = scores[labels["eval"] == 1], scores[labels["eval"] == 0]
    # of the partition, not of the probe: place leaves some pairs out
    fewest = np.bincount(facts["labels"]["eval"], minlength=2).min()
    level = 0.95 if fewest >= ENOUGH else 1 - 0.05 / len(facts["eval"][0])
    low, high = bootstrap_interval(genuine, replay, eer, n=2000, level=level)
    owed, found = band_of(probe, recipe), float(eer(genuine, replay)[0])
    return Verdict(array, probe, found, low, high, owed, len(genuine), len(replay), gates, level)


def classify(columns: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> np.ndarray:
    """Scores (n,) of the eval rows, higher = genuine, by what train taught: linear discriminant or boosted trees,
    whichever has the lower EER on dev. Ties are broken at random, so that a constant says nothing.

    `columns` holds (n, facts) and `labels` (n,), genuine = 1, of train, dev and eval.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    middle, spread = columns["train"].mean(axis=0), columns["train"].std(axis=0)
    kept = spread > 1e-9 * (1 + np.abs(columns["train"]).max(axis=0))
    if not kept.any():
        return rng.standard_normal(len(columns["eval"]))
    x = {name: (rows - middle)[:, kept] / spread[kept] for name, rows in columns.items()}

    def tell(model: Any, name: str) -> np.ndarray:
        return model.predict_proba(x[name])[:, 1] + 1e-9 * rng.standard_normal(len(x[name]))

    def dev_eer(model: Any) -> float:
        scores = tell(model, "dev")
        return float(eer(scores[labels["dev"] == 1], scores[labels["dev"] == 0])[0])

    linear = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    trees = HistGradientBoostingClassifier(max_iter=80, max_depth=3, learning_rate=0.08, random_state=0)
    with threadpool_limits(1):  # a few columns: threads would wait for each other longer than they work
        best = min((linear, trees), key=lambda model: dev_eer(model.fit(x["train"], labels["train"])))
        return tell(best, "eval")


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown: a row a probe, a column an array; EER with its interval in %, and what failed."""
    arrays = list(dict.fromkeys(v.array for v in verdicts))
    cells = {(v.probe, v.array): v for v in verdicts}
    lines = [
        "| probe | owes (EER, %) | " + " | ".join(arrays) + " |",
        "|---|---|" + "---|" * len(arrays),
    ]
    for probe in dict.fromkeys(v.probe for v in verdicts):
        band = cells[probe, arrays[0]].band
        row = [probe, f"{100 * band[0]:.0f} to {100 * band[1]:.0f}"]
        lines.append("| " + " | ".join([*row, *(_cell(cells[probe, array]) for array in arrays)]) + " |")
    return "\n".join(lines) + "\n"


def _cell(verdict: Verdict) -> str:
    mark = " **failed**" if verdict.failed else ""
    return f"{100 * verdict.eer:.1f} [{100 * verdict.low:.1f}, {100 * verdict.high:.1f}]{mark}"


def conclusion(verdicts: Sequence[Verdict]) -> str:
    """One sentence: what the probes found, and what the intervals are of."""
    failed = [v for v in verdicts if v.failed]
    fewest = min(min(v.genuine, v.replay) for v in verdicts)
    counts = f"{fewest:,} eval trials or more of each class on each array"
    if any(v.level > 0.95 for v in verdicts):
        counts += f"; fewer than {ENOUGH:,} in eval, so the intervals are widened for the number of probes"
    if not any(v.gates for v in verdicts):
        return f"Reported only: this corpus follows the world and owes no band ({counts})."
    if not failed and fewest < FEWEST:
        return f"Too few trials to tell: no probe failed, but none could ({counts})."
    if not failed:
        return f"No probe failed ({counts})."
    names = ", ".join(f"{v.probe} on {v.array}" for v in failed)
    return f"{len(failed)} of {len(verdicts)} probes failed: {names} ({counts})."
