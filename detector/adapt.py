"""A detector adapted to another array from minutes of its recordings, forgetting nothing.

What is learnt (`detector.ways`) belongs to that array alone: the checkpoint keeps the base's weights, calibration
and threshold, and beside them what `detector.adapted` opens under the array's name. Every other array is judged
as before, bit for bit.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detector import quality
from detector.adapted import HEAD, adapter_file, keep_adapter
from detector.checkpoint import load_checkpoint, save_checkpoint
from detector.classify.data import Clip, read_clips
from detector.score import BUNDLED, Detector, bundled_names, load
from detector.ways import Adapted, Heard, learn
from remasc import MicArray, get_array, read_audio
from remasc.audio import resample
from remasc.parallel import tracked
from remasc.sentences import counted, quoted

LABELS = {"genuine": True, "bonafide": True, "replay": False, "spoof": False}


def adapt(
    detector: str | Path,
    recordings: str | Path,
    array: str | Path,
    out: str | Path,
    *,
    way: str = "auto",
    p_miss: float | None = None,
    p_fa: float | None = None,
    speaker_pattern: str = "",
    progress: bool = True,
) -> Adapted:
    """Adapt a detector to an array and write the whole checkpoint `out`, which `detector.load` opens.

    `recordings` is a folder with genuine/ and perhaps replay/, or a CSV file,label[,speaker]. ValueError, before
    anything is written, where they hold too little or are not of this array.
    """
    out, loaded = Path(out), _base(detector)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is there already; give a new folder with --out")
    check_base(loaded)
    known = get_array(array)
    heard = hear(loaded, labelled(recordings, speaker_pattern), known, progress)
    llr, limit = loaded.calibration.llr(heard.scores), loaded.calibration.llr(loaded.threshold)
    found = learn(heard, llr, limit, way, p_miss, p_fa)
    found = replace(found, said=(*found.said, *_beyond(found, loaded.run["threshold"]["p_fa"])))
    write(out, loaded, detector, known, found, heard)
    return found


def _beyond(found: Adapted, stated: float) -> Iterator[str]:
    """What must be said where more replays get through than the base's threshold states."""
    accepted, of = found.figures.get("held_out", {}).get("accepted_replays", (0, 1))
    if accepted > stated * of:
        yield (
            f"{accepted} of {of} held-out replays are accepted, more than the {stated:.0%} that the threshold was "
            f"set for; --p-fa {stated:g} moves it, and the llr with it"
        )


def _base(detector: str | Path) -> Detector:
    """The detector to begin from; a classifier's sound checkpoint is not called damaged, but what it is."""
    try:
        return load(detector)
    except ValueError:
        from detector.classify.store import KIND

        try:
            kind = load_checkpoint(_folder(detector))[0].get("kind")
        except ValueError:
            kind = None
        if kind != KIND:
            raise
        raise ValueError(
            f"{detector}: is an audio classifier, no replay detector; give a bundled one "
            f"({', '.join(bundled_names())}) or a folder of `replayguard train` (for a classifier there is "
            "`replayguard classify adapt`)"
        ) from None


def check_base(loaded: Detector) -> None:
    """ValueError for a detector that nothing can be added to."""
    if not hasattr(loaded, "network"):
        raise ValueError(
            "an exported detector cannot be adapted; adapt the checkpoint that it was exported from"
        )
    if loaded.calibration is None or loaded.calibration.slope == 0 or loaded.threshold is None:
        raise ValueError(
            "the detector has no calibration or threshold that an array's scores could be moved to; train it with "
            "`replayguard train`, which sets both on dev"
        )


def labelled(source: str | Path, speaker_pattern: str = "") -> list[Clip]:
    """The clips of a folder or a CSV; ValueError where a label is none of `LABELS`."""
    clips = read_clips(source, speaker_pattern)
    for clip in clips:
        if clip.label.lower() not in LABELS:
            raise ValueError(
                f"{source}: {clip.name} is labelled {quoted(clip.label)}; expected genuine or replay (a "
                "folder of that name, or the column label)"
            )
    return clips


def hear(loaded: Detector, clips: Sequence[Clip], array: MicArray, progress: bool = True) -> Heard:
    """What the frozen network says of each clip; a recording of other channels than the array's is a ValueError,
    one that cannot be judged is left out and counted."""
    rows: list[tuple[Clip, float, float, np.ndarray]] = []
    left_out: Counter[str] = Counter()
    for clip in tracked(((1, clip) for clip in clips), "hearing", len(clips), 0, progress):
        try:
            waveform, rate = read_audio(clip.path, seconds=quality.MAX_SECONDS + 1)
        except (ValueError, OSError):
            left_out["unreadable"] += 1
            continue
        reason = quality.fault(waveform, rate, array.num_mics)
        if reason == "channels":
            raise ValueError(
                f"{clip.path}: {counted(len(waveform), 'channel')}, but the array {array.name} has "
                f"{array.num_mics}; name the array that recorded it"
            )
        if reason:
            left_out[reason] += 1
            continue
        loaded.specification.check(len(waveform), None)
        rows.append((clip, waveform.shape[1] / rate, *said_of(loaded, waveform, rate)))
    if not rows:
        reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items())
        raise ValueError(f"none of the {len(clips)} recordings can be judged ({reasons}); record them anew")
    return Heard(
        np.array([score for _, _, score, _ in rows]),
        np.stack([embedding for *_, embedding in rows]),
        np.array([LABELS[clip.label.lower()] for clip, *_ in rows]),
        tuple(clip.speaker for clip, *_ in rows),
        tuple(clip.name for clip, *_ in rows),
        np.array([seconds for _, seconds, *_ in rows]),
        dict(left_out),
    )


@torch.inference_mode()
def said_of(loaded: Detector, waveform: np.ndarray, rate: int) -> tuple[float, np.ndarray]:
    """The base's score of (M, T) samples and the embedding (E,) that its head reads; E = 0 where it has none."""
    network = loaded.network
    if not hasattr(network, HEAD):
        return loaded._logit(waveform, rate), np.zeros(0)
    x = np.ascontiguousarray(resample(waveform, rate, loaded.specification.sample_rate))
    device = next(network.parameters()).device
    embedding = network.embed(network.prepare(torch.from_numpy(x)[None].to(device)))
    logits = network.head(embedding)
    return float(logits[0, 0] - logits[0, 1]), embedding[0].double().cpu().numpy()


def write(
    out: Path, loaded: Detector, detector: str | Path, array: MicArray, found: Adapted, heard: Heard
) -> None:
    """The base's checkpoint with what was learnt of the array beside it, whole or not at all."""
    calibration = loaded.calibration
    entry: dict[str, Any] = {
        "slope": found.slope,
        "offset": ((found.slope - 1) * calibration.offset + found.offset) / calibration.slope,
        "adapter_sha256": None,
        "way": found.way,
        "said": list(found.said),
        "figures": found.figures,
        "recordings": {
            "genuine": int(heard.genuine.sum()),
            "replay": int((~heard.genuine).sum()),
            "minutes": round(heard.minutes, 2),
            "left_out": heard.left_out,
        },
        "base": {"name": Path(detector).name, "checksums": loaded.run.get("checksums")},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        temporary.chmod(0o755)
        before = dict(loaded.run.get("arrays") or {})
        for name, other in before.items():
            if other["adapter_sha256"] and name != array.name:
                shutil.copyfile(_folder(detector) / adapter_file(name), temporary / adapter_file(name))
        if found.change is not None:
            path = temporary / adapter_file(array.name)
            entry["adapter_sha256"] = keep_adapter(path, loaded.network, found.change / calibration.slope)
        run = {name: value for name, value in loaded.run.items() if name != "checksums"}
        run["arrays"] = before | {array.name: entry}
        save_checkpoint(temporary, loaded.network, loaded.config, run)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _folder(detector: str | Path) -> Path:
    return BUNDLED / str(detector) if str(detector) in bundled_names() else Path(detector)
