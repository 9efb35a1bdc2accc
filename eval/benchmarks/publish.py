"""What README and model cards say in figures, written from the result files: `python -m eval.benchmarks.publish`.

    python -m eval.benchmarks.publish                            # rewrite the marked parts
    python -m eval.benchmarks.publish --run RUN --name edge      # ship a run first: its checkpoint and results
    python -m eval.benchmarks.publish --corpus ROOT              # and keep the verdict of its leak probes

A marked part stands between `<!-- figures: NAME -->` and `<!-- end -->`. RUN is a folder of `replayguard train`
whose eval scores lie in RUN/eval (`replayguard score --corpus ROOT --detector RUN --out RUN/eval`, then
`replayguard evaluate RUN/eval`); its checkpoint goes to detector/bundled/NAME, its results to eval/results/NAME.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from detector.checkpoint import update_run
from eval.probes import Verdict, conclusion, table
from eval.words import interval, rate
from remasc.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "eval" / "results"
CHECKPOINT = ("config.json", "model.safetensors", "run.json")
KEPT = ("metrics.json", "report.md", "det.png", "histogram.png", "scores.tsv", "protocol.tsv", "run.json")
MARKED = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
MICS = {"D1": "D1 (2 mics)", "D2": "D2 (4)", "D3": "D3 (6)", "D4": "D4 (7)"}


@dataclass(frozen=True)
class Publish:
    """What to ship, and what to write anew.

    Attributes:
        run: A finished and evaluated run to ship before the figures are written.
        name: The bundled detector that it becomes.
        corpus: The corpus of the bundled detector, probed: its verdict is kept in eval/results.
    """

    run: Path | None = None
    name: str = "default"
    corpus: Path | None = None


def main(options: Publish) -> None:
    """Ship the run, keep the verdict, rewrite the marked parts of README and cards."""
    if options.run is not None:
        ship(options.run, options.name)
    if options.corpus is not None:
        keep_probes(options.corpus)
    for path in documents():
        write_text(path, rewritten(path.read_text(encoding="utf-8")))


def documents() -> list[Path]:
    """The files with marked parts."""
    return [ROOT / "README.md", *sorted((ROOT / "detector" / "bundled").glob("*/CARD.md"))]


def ship(run: Path, name: str) -> None:
    """Copy the run's checkpoint and its results to where the bundled detector `name` keeps them."""
    results, bundled = RESULTS / name, ROOT / "detector" / "bundled" / name
    figures = _read(run / "eval" / "metrics.json")
    for folder, source, names in ((bundled, run, CHECKPOINT), (results, run / "eval", KEPT)):
        folder.mkdir(parents=True, exist_ok=True)
        for file in names:
            shutil.copyfile(source / file, folder / file)
    error, point = figures["metrics"]["eer"], figures["operating_point"]
    told = {key: figures[key] for key in ("corpus", "partition", "simulated")}
    told |= {"eer": error["value"], "low": error["low"], "high": error["high"]}
    told |= {key: figures["trials"][key] for key in ("genuine", "replay")}
    told |= {"p_fa": point["p_fa"]["value"], "p_miss": point["bpcer"]["value"]}
    update_run(bundled, eval=told | {"protocol_sha256": figures["files"]["protocol"]["sha256"]})


def keep_probes(corpus: Path) -> None:
    """Keep what `replayguard corpus probe` found on the corpus that the bundled detectors come from."""
    name = _read(corpus / "corpus.json")["name"]
    shutil.copyfile(corpus / "probes.json", RESULTS / "default" / "probes.json")
    verdicts = _verdicts()
    text = (
        f"# Leak probes of {name} (simulated)\n\n`replayguard corpus probe ROOT`: EER in % of what may not tell "
        "the classes, learnt on train, the kind of classifier chosen on dev, scored on eval; 95 % intervals over "
        f"trials.\n\n{table(verdicts)}\n{conclusion(verdicts)}\n"
    )
    write_text(RESULTS / "default" / "probes.md", text)


def rewritten(text: str) -> str:
    """The document with every marked part made anew; ValueError where one has a name that nothing makes."""

    def made(found: re.Match) -> str:
        if (make := PARTS.get(found["name"])) is None:
            raise ValueError(f"no figures are called {found['name']}; there are {', '.join(sorted(PARTS))}")
        return found[1] + make() + found[3]

    return MARKED.sub(made, text)


def bundled() -> str:
    """README's table of the default detector, by array."""
    figures, record = _figures("default"), _record("default")
    cells = {cell["name"]: cell for cell in figures["breakdowns"]["array"]}
    error = figures["metrics"]["eer"]
    each = {f"{cell['genuine']:,} genuine and {cell['replay']:,} replayed" for cell in cells.values()}
    rows = [
        ["", *(MICS[name] for name in cells), "all"],
        ["---", *["---:"] * (len(cells) + 1)],
        ["EER, simulated", *(rate(cell["eer"]) for cell in cells.values()), f"**{rate(error['value'])}**"],
        ["95 % interval", *(_interval(cell) for cell in cells.values()), _interval(error)],
    ]
    return "\n".join(
        [
            f"{record['parameters']:,} parameters; {' or '.join(sorted(each))} trials per array; {_probes()}",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            f"By playback family: {_families(figures)}.",
            f"The threshold that let 5 % of the dev replays pass let {_point(figures)}.",
        ]
    )


def variant(name: str) -> str:
    """A sentence on another bundled detector."""
    figures, record = _figures(name), _record(name)
    error = figures["metrics"]["eer"]
    return (
        f"{record['parameters']:,} parameters: {rate(error['value'])} {_interval(error)} on the same eval trials "
        f"(simulated); at its threshold it let {_point(figures)}."
    )


def card(name: str) -> str:
    """A card's table of dev and eval, the families, and what the threshold did."""
    figures, record = _figures(name), _record(name)
    dev, trials, error = record["dev_trials"], figures["trials"], figures["metrics"]["eer"]
    arrays = ", ".join(f"{c['name']} {rate(c['eer'])} {_interval(c)}" for c in figures["breakdowns"]["array"])
    return "\n".join(
        [
            "| partition (simulated) | trials | EER | 95 % interval |",
            "|---|---:|---:|---:|",
            f"| dev ({record['corpus']}) | {dev['genuine']:,} genuine, {dev['replay']:,} replayed | "
            f"{rate(record['dev_eer_shipped'])} | (chosen on it) |",
            f"| eval ({figures['corpus']}) | {trials['genuine']:,} genuine, {trials['replay']:,} replayed | "
            f"**{rate(error['value'])}** | {_interval(error)} |",
            "",
            f"By array: {arrays}.",
            f"By playback family: {_families(figures)}.",
            f"The threshold lets 5 % of the dev replays pass; it let {_point(figures)}.",
            f"Trained at commit {record['commit'][:7]}, {record['epochs']} epochs, epoch {record['epoch']} chosen.",
        ]
    )


def space() -> str:
    """README's table of what one channel and space tell, by protocol, over several corpora."""
    rows = _read(RESULTS / "space" / "arrays" / "knobs.json")["over seeds"]
    protocols = {
        protocol: {row["array"]: row for row in rows if row["knob"] == knob}
        for protocol, knob in (("open", "as it is"), ("closed", "closed"))
    }
    views = {
        "one channel": "single",
        "channel 1 repeated (control)": "dummy",
        "one channel and space": "both",
    }
    arrays = list(protocols["open"])
    lines = ["| EER, simulated | " + " | ".join(arrays) + " |", "|---|" + "---:|" * len(arrays)]
    for protocol, by_array in protocols.items():
        for words, view in views.items():
            told = [rate(by_array[array]["views"][view]["eer"]) for array in arrays]
            lines.append(f"| {protocol}: {words} | " + " | ".join(told) + " |")
        gains = [by_array[array]["gains"]["single - both"] for array in arrays]
        told = [f"{100 * gain['points']:.1f} {interval(*gain['interval'])}" for gain in gains]
        lines.append(f"| {protocol}: gain over one channel, points | " + " | ".join(told) + " |")
    return "\n".join(lines)


def peers() -> str:
    """README's table of detectors side by side, by array."""
    found = _read(RESULTS / "peers" / "peers.json")["figures"]
    arrays = list(dict.fromkeys(cell["column"] for cell in found))
    lines = ["| EER, simulated | " + " | ".join(arrays) + " |", "|---|" + "---:|" * len(arrays)]
    for row in dict.fromkeys(cell["row"] for cell in found):
        cells = {cell["column"]: cell for cell in found if cell["row"] == row}
        told = [f"{rate(cells[a]['eer'])} {_interval(cells[a])}" if a in cells else "" for a in arrays]
        lines.append(f"| {row} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def source() -> str:
    """README's sentence on source identification: cues alone, its peers, and what joining adds."""
    found = _read(RESULTS / "source" / "open" / "results.json")
    systems, trials = found["eval"]["systems"], found["eval_trials"]
    gain = found["eval"]["differences"]["fused with boosting below detector"]

    def told(name: str) -> str:
        one = systems[name]
        return f"{rate(one['eer'])} {interval(one['eer_low'], one['eer_high'])}"

    return (
        f"On {trials['genuine']:,} genuine and {trials['replay']:,} replayed eval trials of the bundled detector's "
        f"corpus (simulated, open, scored once): the cues alone {told('boosting')}, Void {told('void')}, LFCC-GMM "
        f"{told('lfcc-gmm')}; the detector {told('detector')}, both joined {told('fused with boosting')}, which is "
        f"{100 * gain['gain']:.1f} points less {interval(gain['low'], gain['high'])}."
    )


def _figures(name: str) -> dict[str, Any]:
    return _read(RESULTS / name / "metrics.json")


def _record(name: str) -> dict[str, Any]:
    return _read(ROOT / "detector" / "bundled" / name / "run.json")


def _interval(cell: dict[str, Any]) -> str:
    return interval(cell["low"], cell["high"])


def _families(figures: dict[str, Any]) -> str:
    cells = [cell for cell in figures["breakdowns"]["playback device"] if cell.get("eer") is not None]
    cells.sort(key=lambda cell: cell["eer"])
    return ", ".join(f"{cell['name'].replace('-', ' ')} {rate(cell['eer'])}" for cell in cells)


def _point(figures: dict[str, Any]) -> str:
    point = figures["operating_point"]
    passed, refused = point["p_fa"], point["bpcer"]
    return (
        f"{rate(passed['value'])} {_interval(passed)} of the eval replays pass and rejected "
        f"{rate(refused['value'])} {_interval(refused)} of the genuine commands"
    )


def _probes() -> str:
    told = conclusion(_verdicts())
    return f"leak probes of the corpus: {told[0].lower()}{told[1:]} [Table](eval/results/default/probes.md)."


def _verdicts() -> list[Verdict]:
    return [Verdict.from_dict(row) for row in _read(RESULTS / "default" / "probes.json")["verdicts"]]


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; ship an evaluated run first (see --help)") from None


PARTS: dict[str, Callable[[], str]] = {
    "bundled": bundled,
    "edge": lambda: variant("edge"),
    "space": space,
    "peers": peers,
    "source": source,
    "card-default": lambda: card("default"),
    "card-edge": lambda: card("edge"),
}

if __name__ == "__main__":
    try:
        main(tyro.cli(Publish, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"{error}")
