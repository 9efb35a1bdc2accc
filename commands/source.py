"""`replayguard source`: a person or a device, which kind, and why; and the training of what decides it."""

from pathlib import Path
from typing import Annotated

import tyro

from commands import AsJson, Files, configured_by


def source(
    files: Files = (),
    array: str | None = None,
    model: str = "default",
    detector: str = "none",
    file_list: Annotated[Path | None, tyro.conf.arg(name="list")] = None,
    as_json: AsJson = False,
    report: Path | None = None,
    prior: float = 0.5,
    reasons: int = 5,
) -> int:
    """Say whether a person or a device spoke, which kind, and by which acoustic cues.

    Exit code: 0 when every file was decided, 1 when one could not be, 2 on bad arguments.

    Args:
        files: Sound files, folders or glob patterns.
        array: The array that recorded them: D1, D2, D3, D4 or an array file (TOML/JSON).
        model: A bundled source model's name or the folder of `replayguard source train`.
        detector: Join with a replay detector: "default", a checkpoint folder, or none.
        file_list: Text file with one path a line; lines that begin with # are skipped.
        as_json: One JSON object a line.
        report: Also write an HTML page with the cues of each file as a figure.
        prior: Prior probability of a living person, for the probabilities.
        reasons: How many cues are told of each file; 0 = all.
    """
    from detector.calibration import probability
    from detector.source.backbone import backbone
    from detector.source.model import load_source
    from eval import source_report, terminal_source
    from remasc import get_array
    from remasc.files import sound_files

    probability(0.0, prior)  # a bad prior is an error before any file is opened
    if reasons < 0:
        raise ValueError(f"--reasons is {reasons}; expected how many cues to tell, 0 for all")
    if array is not None:
        get_array(array)
    loaded = load_source(model)
    known = loaded.run["fusion"]["detector"] if loaded.fusion else None
    joined = None if detector == "none" else backbone(detector, known)  # refused before any file is opened
    judged = []
    undecided = 0
    if not as_json:
        print(terminal_source.polarity(loaded, joined is not None, prior))
    for path in sound_files(files, file_list):
        found = loaded.judge_file(path, array, prior=prior, detector=joined, most=reasons or None)
        undecided += found.decision == "undecided"
        print(terminal_source.json_line(found) if as_json else terminal_source.text(found), flush=True)
        judged.append(found)
    if report is not None:
        source_report.write(report, judged, loaded, prior)
    return 1 if undecided else 0


@configured_by("detector.source.config:SourceConfig")
def train(config) -> None:
    """Train a source model on a corpus: cues measured, classifier fitted, thresholds and fusion set on dev."""
    from detector.source.training import train

    print(train(config))
