"""Source identification measured: `python -m eval.benchmarks.source ROOT --out eval/results/source/open`.

Fits every classifier and the --peers (void, lfcc-gmm, cqcc-gmm, sub-bass) on train; on dev tells the EER of the
cues alone, of the peers, of the replay detector and of the fusion, with their paired differences, by condition; the
accuracy of the kinds with their confusion matrix, and which groups of cues carry the decision. With --final the
same on eval, once: a folder that holds eval figures is not scored again. Writes results.json and table.md, and with
--final the scores of each system (eval-SYSTEM/scores.tsv). What is measured or fitted is kept in --cache.

    python -m eval.benchmarks.source ROOT --out DIR --final --peers void lfcc-gmm

Run it on a closed and on an open corpus; --hold environment=vehicle (or playback_device=phone ...) leaves a
condition out of train and dev and keeps it alone on eval. --peers NAME=PATH/scores.tsv sets another system's eval
scores beside, on the same trials.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from detector.source.classifiers import CLASSIFIERS
from detector.source.model import SourceModel
from detector.source.training import Partition, fit, measure, pick, provenance
from eval.benchmarks.source_figures import CHOSEN, judged, ratio_table
from eval.benchmarks.source_peers import PEERS, peer_ratios
from eval.benchmarks.source_tables import markdown
from eval.scores import read_scores, write_scores
from remasc import Corpus, Recording
from remasc.atomic import write_text
from remasc.protocol import held_out, partitions


@dataclass(frozen=True)
class Options:
    """Fit on train, judge on dev, and with --final on eval."""

    root: Annotated[Path, tyro.conf.Positional]
    out: Path
    train: int = 4000
    dev: int = 1200
    eval: int = 0
    array: str = "all"
    detector: str = "default"
    classifiers: tuple[str, ...] = tuple(CLASSIFIERS)
    final: bool = False
    hold: str = ""
    seeds: int = 3
    cache: Path | None = None
    workers: int | None = None
    peers: tuple[str, ...] = ("void",)


def main(options: Options) -> None:
    if CHOSEN not in options.classifiers or not set(options.classifiers) <= set(CLASSIFIERS):
        raise ValueError(
            f"--classifiers is {options.classifiers}; expected some of {', '.join(CLASSIFIERS)} with {CHOSEN}"
        )
    if unknown := [name for name in options.peers if "=" not in name and name not in PEERS]:
        raise ValueError(f"no peer {unknown[0]!r}; expected {', '.join(PEERS)} or NAME=PATH/scores.tsv")
    results = options.out / "results.json"
    if options.final and results.is_file() and "eval" in json.loads(results.read_text(encoding="utf-8")):
        raise ValueError(f"{results}: eval was scored already, and it is scored once; give another --out")
    corpus = Corpus.from_meta(options.root)
    counts = {"train": options.train, "dev": options.dev} | ({"eval": options.eval} if options.final else {})
    picked = _picked(corpus, options, counts)
    cache = options.cache or options.out / "cache"
    detector = None if options.detector == "none" else options.detector
    classifiers = [name for name in options.classifiers if detector is not None or name != "neural"]
    parts = {  # what is fitted asks the replay detector for its embeddings alone
        name: measure(
            part,
            cache,
            None if name == "train" and "neural" not in classifiers else detector,
            workers=options.workers,
        )
        for name, part in picked.items()
    }
    figures: dict[str, Any] = provenance(corpus, parts) | {"options": _plain(options)}
    models = {
        name: [fit(parts["train"], parts["dev"], name, seed=seed) for seed in range(options.seeds)]
        for name in classifiers
    }
    peers = {name: peer_ratios(name, picked, cache) for name in options.peers if "=" not in name}
    ratios = {}
    for name in [name for name in parts if name != "train"]:
        ratios[name] = {peer: found[name] for peer, found in peers.items()} | _ratios(parts[name], models)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.final:
        ratios["eval"] |= _scored_elsewhere(options.peers, parts["eval"])
        _write_scores(options.out, parts["eval"], ratios["eval"])
    for name, llrs in ratios.items():
        figures[name] = judged(parts[name], models, llrs)
    write_text(results, json.dumps(figures, indent=1) + "\n")
    write_text(options.out / "table.md", markdown(figures))
    print(markdown(figures))


def _picked(corpus: Corpus, options: Options, counts: dict[str, int]) -> dict[str, list[Recording]]:
    if not options.hold:
        return pick(corpus, options.array, counts)
    key, _, value = options.hold.partition("=")
    parts = held_out(partitions(corpus), **{key: value})
    return pick(corpus, options.array, counts, parts)


def _ratios(part: Partition, models: Mapping[str, list[SourceModel]]) -> dict[str, np.ndarray]:
    """Calibrated ratios (n,) of every system: each classifier (first seed), the detector, and these fused."""
    out = {name: ones[0].calibration.llr(ones[0].score(part.inputs(name))) for name, ones in models.items()}
    if part.detector is None:
        return out
    out["detector"] = part.detector.llr
    for name in models:
        if name != "neural":  # it reads the detector's own embedding
            joined = models[name][0].fusion
            out[f"fused with {name}"] = joined(np.column_stack([out[name], part.detector.llr]))
    return out


def _scored_elsewhere(named: tuple[str, ...], part: Partition) -> dict[str, np.ndarray]:
    """The scores of other systems' score files, on the trials of `part` alone; llrs where they have them."""
    out = {}
    for entry in named:
        name, named_path, path = entry.partition("=")
        if not named_path:
            continue
        table = read_scores(Path(path))
        place = {trial: i for i, trial in enumerate(table.trial)}
        missing = [r.trial_id for r in part.cues.recordings if r.trial_id not in place]
        if missing:
            raise ValueError(
                f"{path}: trial {missing[0]} is not scored; a peer is compared on the same trials"
            )
        values = table.llr if table.calibrated else table.score
        out[name] = values[[place[r.trial_id] for r in part.cues.recordings]]
    return out


def _write_scores(out: Path, part: Partition, llrs: Mapping[str, np.ndarray]) -> None:
    for name, llr in llrs.items():
        folder = out / f"eval-{name.replace(' ', '-')}"
        folder.mkdir(exist_ok=True)
        write_scores(folder / "scores.tsv", ratio_table(part, llr))


def _plain(options: Options) -> dict[str, Any]:
    paths = {
        "root",
        "out",
        "cache",
        "detector",
        "workers",
        "peers",
    }  # of this machine: they say nothing elsewhere
    return {name: value for name, value in vars(options).items() if name not in paths}


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except (ValueError, OSError) as error:
        sys.exit(f"source: {error}")
