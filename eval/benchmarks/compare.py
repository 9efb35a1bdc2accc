"""Systems trained on the same trials, side by side: `python -m eval.benchmarks.compare RUN ... --out FOLDER`.

Each RUN is a folder of `replayguard train` whose eval scores lie in RUN/eval (`replayguard score --corpus ROOT
--detector RUN --out RUN/eval`, then `replayguard evaluate`). All runs must have been scored on the same protocol.
Writes table.md, table.json, curves.png (table.json holds the runs' records too); other trials are refused.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from eval import words
from eval.plots import curves_png
from remasc.atomic import whole_file, write_text

# arXiv 2003.08225, Table II: EER (%) on ReMASC, first second, core -> eval. Context, never the comparison.
PUBLISHED = {
    "nn-single": {"D1": 16.6, "D2": 23.7, "D3": 23.7, "D4": 27.5},
    "nn-dummy": {"D1": 16.0, "D2": 23.2, "D3": 24.5, "D4": 25.2},
    "nn-multichannel": {"D1": 14.9, "D2": 15.4, "D3": 16.5, "D4": 19.8},
}
KEPT = ("system", "seed", "epoch", "epochs", "dev_eer", "dev_trials", "train_trials", "parameters", "corpus")
RECORD = (
    *KEPT,
    "dev_eer_shipped",
    "simulated",
    "commit",
    "protocol_sha256",
    "wall_seconds",
    "environment",
    "attribution",
    "curves",
)


def row_of(run: Path) -> dict:
    """What the table says of one run, from its own files alone."""
    record = _read(run / "run.json")
    figures = _read(run / "eval" / "metrics.json")
    row = {key: record.get(key) for key in KEPT}
    arrays = _read(run / "config.json")["specification"]["arrays"]
    return row | {
        "arrays": arrays,
        "simulated": figures["simulated"],
        "protocol": figures["files"]["protocol"]["sha256"],
        "eer": figures["metrics"]["eer"],
        "trials": figures["trials"],
        "published_eer": PUBLISHED.get(record["system"], {}).get(arrays[0] if len(arrays) == 1 else ""),
        "record": {key: record.get(key) for key in RECORD},
    }


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: not there; train, score and evaluate the run first") from None


def markdown(rows: list[dict]) -> str:
    """The rows as one Markdown table."""
    tag = " (simulated)" if rows[0]["simulated"] else ""
    head = ["system", "arrays", "parameters", "train / dev trials", "epochs (chosen)", "dev EER"]
    head += [f"eval EER{tag}", "95 %", "published, on ReMASC"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        trials = [sum(row[key].values()) for key in ("train_trials", "dev_trials")]
        published = "" if row["published_eer"] is None else f"{row['published_eer']} %"
        cells = (
            row["system"],
            " ".join(row["arrays"]),
            f"{row['parameters']:,}",
            f"{trials[0]:,} / {trials[1]:,}",
            f"{row['epochs']} ({row['epoch']})",
            words.rate(row["dev_eer"]),
            f"**{words.rate(row['eer']['value'])}**",
            words.interval(row["eer"]["low"], row["eer"]["high"]),
            published,
        )
        lines.append("| " + " | ".join(cells) + " |")
    trials, seeds = rows[0]["trials"], sorted({str(row["seed"]) for row in rows})
    lines += [
        "",
        f"Corpus {rows[0]['corpus']}{tag}; {trials['genuine']:,} genuine and {trials['replay']:,} replayed eval "
        f"trials, scored once; dev chose the epoch; seeds {', '.join(seeds)}.",
    ]
    return "\n".join(lines) + "\n"


def compare(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path) -> None:
    """Write the table and the curves of the runs into `out`."""
    rows = [row_of(run) for run in runs]
    if len({row["protocol"] for row in rows}) > 1:
        raise ValueError("the runs were scored on different trials; only the same trials can be compared")
    out.mkdir(parents=True, exist_ok=True)
    tag = " (simulated)" if rows[0]["simulated"] else ""
    histories = {row["system"]: row["record"]["curves"] for row in rows}
    with whole_file(out / "curves.png") as temporary:
        temporary.write_bytes(curves_png(histories, title=f"Training on {rows[0]['corpus']}{tag}"))
    write_text(out / "table.json", json.dumps(rows, indent=1) + "\n")
    write_text(out / "table.md", markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    try:
        tyro.cli(compare)
    except (ValueError, OSError) as error:
        sys.exit(f"compare: {error}")
