"""Whether real speech passes: what the bundled detectors say of real recordings of people, folder by folder.

    python -m eval.benchmarks.real_speech FOLDER ... [--detector default edge] [--files 300] [--results FOLDER]

The bundled detectors learnt from simulated recordings alone. This is the half of their way into the world that
clean speech collections can show: recordings of people by their own microphones, one channel each. No folder holds
real replays, so nothing here says how many of those would pass; and where a folder was the simulator's speech, its
voices (through simulated rooms) were heard in training. A folder is read as `simulate --speech` reads it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

import detector
from remasc.atomic import write_text
from remasc.identity import position_of
from remasc.parallel import tracked
from remasc.simulate.speech import Clip, scan_speech
from streaming.attack.measures import share_of

COMMAND = "python -m eval.benchmarks.real_speech"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--detector", nargs="+", default=["default", "edge"])
    parser.add_argument("--files", type=int, default=300, help="drawn by name, of each folder")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    rows = [
        judged(folder, clips_of(folder, options.files), name)
        for folder in options.folders
        for name in options.detector
    ]
    text = markdown(rows)
    print(text)
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
        write_text(options.results / "real_speech.json", json.dumps(rows, indent=1) + "\n")
        write_text(options.results / "real_speech.md", text)


def clips_of(folder: Path, most: int) -> list[Clip]:
    """At most so many clips of a folder, drawn by their names."""
    return sorted(scan_speech(folder), key=lambda clip: position_of(str(clip.path)))[:most]


def judged(folder: Path, clips: list[Clip], name: str) -> dict:
    """Counts and rates of one folder before one detector. Intervals are over speakers where these are known."""
    guard = detector.load(name)
    jobs = ((1, guard.judge_file(folder / clip.path)) for clip in clips)
    found = list(tracked(jobs, f"{folder.name}, {name}", len(clips), 0, True))
    decided = [(one, clip) for one, clip in zip(found, clips, strict=True) if one.decision != "undecided"]
    speakers = [clip.group for _, clip in decided] if all(clip.labelled for _, clip in decided) else None
    passing = share_of([one.decision == "genuine" for one, _ in decided], speakers)
    likely = share_of([one.llr > 0 for one, _ in decided], speakers)
    return {
        "folder": folder.name,
        "detector": name,
        "files": len(clips),
        "undecided": dict(Counter(one.reason for one in found if one.decision == "undecided")),
        "passing": passing and passing.as_dict(),
        "more likely genuine": likely and likely.as_dict(),
        "median llr": float(np.median([one.llr for one, _ in decided])) if decided else None,
    }


def markdown(rows: list[dict]) -> str:
    lines = [
        "# Real recordings of people before the bundled detectors",
        "",
        f"Written by `{COMMAND}`. One channel each; 95 % intervals, over speakers where they are labelled. "
        "Passing: at the shipped threshold, set on simulated dev for 5 % p_fa. Undecided (gated, clipped) is no "
        "passing. No real replay is among them.",
        "",
        "| folder | detector | files | undecided | passing, of those decided | llr above 0 | median llr |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        told = [f"{row['folder']} | {row['detector']} | {row['files']} | {sum(row['undecided'].values())}"]
        told += [_rate(row["passing"]), _rate(row["more likely genuine"])]
        told += ["-" if row["median llr"] is None else f"{row['median llr']:.2f}"]
        lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _rate(rate: dict | None) -> str:
    if rate is None:
        return "-"
    return f"{100 * rate['value']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


if __name__ == "__main__":
    main()
