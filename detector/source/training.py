"""A source model from a corpus: cues measured once, heads fitted on train; dev calibrates, sets the threshold and
joins the model with the replay detector. The same seed gives the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.calibration import Calibration, threshold_at
from detector.source.choice import chosen
from detector.source.classifiers import CLASSIFIERS
from detector.source.config import SourceConfig
from detector.source.cues import CUES, JUDGED, VERSION
from detector.source.evidence import MONO, NARROW, NARROW_MONO, hidden, strangeness
from detector.source.explain import ranges
from detector.source.fusion import Fusion
from detector.source.model import FAMILY, SOURCE, SYNTHETIC, SourceModel, both_logits
from detector.source.shares import Shares
from detector.source.table import CueTable, Embeddings, measure_embeddings, measure_table
from eval.metrics import eer
from remasc import Corpus, Recording
from remasc.protocol import partitions, write_protocol
from remasc.schema import PlaybackDevice, name_of

FEWEST = 20  # trials of a class, for anything to be fitted to them
STRANGER = 1.5  # times as strange as all but one in a hundred of dev: what is farther off is undecided


@dataclass(frozen=True, eq=False)
class Partition:
    """What is known of one partition's recordings: their cues, and what the replay detector says of them."""

    cues: CueTable
    detector: Embeddings | None

    def inputs(self, classifier: str) -> np.ndarray:
        """What a classifier reads: the judged cues (n, C), or embeddings (n, D)."""
        return self.detector.values if classifier == "neural" else self.cues.columns(JUDGED)


def train(config: SourceConfig, progress: bool = True) -> Path:
    """Train as the config says; returns the model's folder. Beside the cues, in the cache, lies protocol.tsv with
    the trials. ValueError where a partition lacks a class."""
    corpus = Corpus.from_meta(config.corpus)
    parts = pick(corpus, config.array, {"train": config.train, "dev": config.dev})
    cache = config.cache or config.out.with_name(config.out.name + ".cues")
    detector = None if config.detector == "none" else config.detector
    measured = {
        name: measure(
            part,
            cache,
            detector if name == "dev" or config.classifier == "neural" else None,  # the fusion is set on dev
            workers=config.workers,
            progress=progress,
        )
        for name, part in parts.items()
    }
    options = {"seed": config.seed, "p_fa": config.p_fa, "strict": config.strict}
    model = fit(measured["train"], measured["dev"], config.classifier, **options)
    trials = {name: corpus.replace(part) for name, part in parts.items()}
    record = provenance(corpus, measured) | {
        "seed": config.seed,
        "array": config.array,
        "protocol_sha256": write_protocol(cache / "protocol.tsv", trials),
    }
    return SourceModel(model.heads, model.human, model.config, model.run | record).save(config.out)


def pick(
    corpus: Corpus, array: str, counts: dict[str, int], parts: Mapping[str, Corpus] | None = None
) -> dict[str, list[Recording]]:
    """The recordings of each partition (the corpus's own, or `parts`), at most so many of each (0 = all)."""
    parts = parts or partitions(corpus)
    picked = {}
    for name, count in counts.items():
        part = parts[name] if array == "all" else parts[name].filter(array=array.split(","))
        picked[name] = chosen(part, count or None)
        labels = [r.label for r in picked[name]]
        if len(set(labels)) < 2 or min(map(labels.count, set(labels))) < FEWEST:
            raise ValueError(
                f"{corpus.root}: {name} holds {len(labels)} recordings of {len(set(labels))} classes; expected at "
                f"least {FEWEST} of people and of devices"
            )
    return picked


def measure(recordings: Sequence[Recording], cache: Path, detector: str | None, **options: Any) -> Partition:
    """Cues, and the replay detector's score and embedding where one is named; kept in `cache`."""
    cues = measure_table(recordings, cache, **options)
    heard = None if detector is None else measure_embeddings(recordings, detector, cache, **options)
    return Partition(cues, heard)


def fit(
    train: Partition,
    dev: Partition,
    classifier: str = "additive",
    *,
    seed: int = 0,
    p_fa: float = 0.05,
    strict: bool = False,
) -> SourceModel:
    """Heads fitted on train; calibration, thresholds and fusion set on dev. The thresholds accept `p_fa` of all
    replays, or if `strict` no more of those from any source recorder."""
    kind, inputs = CLASSIFIERS[classifier], train.inputs(classifier)
    if classifier != "neural":
        inputs = filled(inputs, np.random.default_rng(seed))
    device = ~train.cues.genuine
    families = [name for name in map(name_of, PlaybackDevice) if (train.cues.family == name).sum() >= FEWEST]
    if len(families) < 2:
        raise ValueError(
            f"train holds {len(families)} kinds of playback devices with {FEWEST} replays; expected 2"
        )
    known = device & np.isin(train.cues.family, families)
    number = np.array([families.index(name) for name in train.cues.family[known]])
    heads = {
        SOURCE: kind.fit(inputs, train.cues.genuine.astype(int), seed=seed),
        FAMILY: kind.fit(inputs[known], number, seed=seed),
    }
    synthetic = train.cues.synthetic[device]
    if FEWEST <= synthetic.sum() <= len(synthetic) - FEWEST:
        heads[SYNTHETIC] = kind.fit(inputs[device], synthetic.astype(int), seed=seed)
    names = list(JUDGED)
    human = ranges(train.cues.columns(names)[train.cues.genuine])
    config = {
        "system": "source",
        "classifier": classifier,
        "cues_version": VERSION,
        "cues": names,
        "families": families,
        "embedding": inputs.shape[1] if classifier == "neural" else None,
    }
    run = _set_on_dev(heads, families, dev, classifier, p_fa, strict)
    run["strangest"] = STRANGER * float(np.nanpercentile(strangeness(dev.cues.columns(names), human), 99))
    return SourceModel(heads, human, config, run)


def filled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cues (n, C) with what is undefined drawn from the other recordings, group by group: that a cue is undefined
    tells nothing of the class then, and a tree's shares are those of recordings that have it.

    A recording is filled with one other's cues of the same group, so that they belong together; what that one
    lacks too comes from anybody. What nobody has is a constant, which nothing can be learnt from.
    """
    out = values.copy()
    groups = np.array([CUES[name].group for name in JUDGED])
    for group in dict.fromkeys(groups):
        columns = np.flatnonzero(groups == group)
        part, other = values[:, columns], values[rng.permutation(len(values))][:, columns]
        part = np.where(np.isnan(part), other, part)
        for place, column in enumerate(columns):
            pool = values[np.isfinite(values[:, column]), column]
            left = np.isnan(part[:, place])
            part[left, place] = rng.choice(pool, left.sum()) if len(pool) else 0.0
        out[:, columns] = part
    return out


def _set_on_dev(
    heads: dict[str, Any], families: list[str], dev: Partition, classifier: str, p_fa: float, strict: bool
) -> dict[str, Any]:
    inputs, genuine = dev.inputs(classifier), dev.cues.genuine
    scores = heads[SOURCE].logits(inputs)[:, 0]
    calibration = Calibration.fit(scores[genuine], scores[~genuine])
    llr = calibration.llr(scores)
    logits, known = both_logits(heads[FAMILY].logits(inputs)), np.isin(dev.cues.family, families)
    number = np.array([families.index(name) for name in dev.cues.family[known]], int)
    run: dict[str, Any] = {
        "calibration": calibration.as_dict(),
        "threshold": {"llr": _threshold(llr, dev.cues, p_fa, strict), "p_fa": p_fa, "strict": strict},
        "dev_eer": eer(scores[genuine], scores[~genuine])[0],
        "calibration_of": {},
        "dev_eer_of": {},
        "family_shares": Shares.fit(logits[known], number).as_dict(),
    }
    for condition in () if classifier == "neural" else (NARROW, MONO, NARROW_MONO):
        fewer = heads[SOURCE].logits(hidden(inputs, JUDGED, condition))[:, 0]
        fitted = Calibration.fit(fewer[genuine], fewer[~genuine])
        run["calibration_of"][condition] = fitted.as_dict()
        run["dev_eer_of"][condition] = eer(fewer[genuine], fewer[~genuine])[0]
    if SYNTHETIC in heads:
        told, true = heads[SYNTHETIC].logits(inputs)[~genuine, 0], dev.cues.synthetic[~genuine]
        both = 0 < true.sum() < len(true)
        fitted = Calibration.fit(told[true], told[~true]) if both else Calibration(0.0, 0.0)
        run["synthetic_calibration"] = fitted.as_dict()
        run["synthetic_share"] = float(np.clip(true.mean(), 0.01, 0.99))
    if dev.detector is not None:
        llrs = np.column_stack([llr, dev.detector.llr])
        fusion = Fusion.fit(("cues", "detector"), llrs, genuine)
        joined = fusion(llrs)
        run["fusion"] = {
            "llr": fusion.as_dict(),
            "threshold": _threshold(joined, dev.cues, p_fa, strict),
            "detector": dev.detector.fingerprint,
            "dev_eer": eer(joined[genuine], joined[~genuine])[0],
            "dev_eer_detector": eer(dev.detector.llr[genuine], dev.detector.llr[~genuine])[0],
        }
    return run


def _threshold(llr: np.ndarray, cues: CueTable, p_fa: float, strict: bool) -> float:
    """What at most `p_fa` of the replays reach; if `strict`, of those from each recorder with `FEWEST` of them."""
    kinds = [~cues.genuine]
    if strict:
        source = np.array([str(r.source_recorder) for r in cues.recordings])
        found = [~cues.genuine & (source == name) for name in sorted(set(source))]
        kinds += [kind for kind in found if kind.sum() >= FEWEST]
    return max(threshold_at(llr[kind], p_fa) for kind in kinds)


def provenance(corpus: Corpus, parts: dict[str, Partition]) -> dict[str, Any]:
    """What run.json says of the data."""
    counts = {
        f"{name}_trials": {
            "genuine": int(part.cues.genuine.sum()),
            "replay": int((~part.cues.genuine).sum()),
        }
        for name, part in parts.items()
    }
    return {
        "corpus": corpus.name,
        "simulated": corpus.simulated,
        "attribution": _attribution(corpus),
        **counts,
    }


def _attribution(corpus: Corpus) -> list[dict]:
    sources = [*corpus.card.get("speech", []), *corpus.card.get("noise", [])]
    return json.loads(json.dumps([source for source in sources if isinstance(source, dict)]))
