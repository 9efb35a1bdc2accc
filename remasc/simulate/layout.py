"""Where a simulated corpus lies on disk: ReMASC's folders, ids and columns, and the plan beside them.

core/meta.csv core/data/*.wav (train, dev)   eval/meta.csv eval/data/*.wav   partitions.tsv
scenes.jsonl (every scene as drawn)   plan.json (what the folder holds)   corpus.json (the card)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from remasc.atomic import write_text
from remasc.audio import sound_files_below
from remasc.schema import RecordingDevice
from remasc.sentences import quoted
from remasc.simulate.geometries import array_of
from remasc.simulate.scenes import CONTENT_RATE

FIRST_ID = 1_000_000
PLAN = "plan.json"
VOICES = "voices"  # the embedded synthesiser's, below the corpus
SUBSETS = ("core", "eval")
SUBTYPES = {"D1": "PCM_16", "D2": "PCM_16", "D3": "PCM_32", "D4": "PCM_16", "RANDOM": "PCM_16"}
_BYTES = {"PCM_16": 2, "PCM_32": 4}


def subset_of(scene: dict) -> str:
    return "eval" if scene["partition"] == "eval" else "core"


def file_id(scene: dict, array: str) -> str:
    """Eight digits: the scene's number, which says nothing of the scene, and the recording device. A scene after a
    template has the id of its row."""
    return scene.get("file_id") or f"{FIRST_ID + scene['index']}{RecordingDevice[array].value}"


def arrays_of(scene: dict, arrays: Sequence[str]) -> tuple[str, ...]:
    """Which of the corpus's arrays recorded the scene: all, or the one that its template names."""
    return tuple(a for a in arrays if a in scene.get("arrays", arrays))


def sound_path(out: Path, scene: dict, array: str) -> Path:
    return out / subset_of(scene) / "data" / f"{file_id(scene, array)}.wav"


def sample_count(scene: dict, array: str) -> int:
    """Samples of the scene's file at the array's own rate."""
    return round(round(scene["seconds"] * CONTENT_RATE) * array_of(scene, array).sample_rate / CONTENT_RATE)


def sound_bytes(scene: dict, array: str) -> int:
    """Size of the scene's file, without its header."""
    return sample_count(scene, array) * array_of(scene, array).num_mics * _BYTES[SUBTYPES[array]]


def meta_rows(scene: dict, arrays: Sequence[str]) -> list[str]:
    """The scene's rows of meta.csv, nine columns padded with spaces as ReMASC pads them."""
    replay = scene["label"] == "replay"
    codes = [
        3 if replay else 2,
        scene["speaker"],
        scene["environment"],
        scene["position"],
        scene["recorder"]["kind"] if replay else scene.get("genuine_recorder", -1),
        scene["device"]["family"] if replay else -1,
    ]
    rows = []
    for array in arrays_of(scene, arrays):
        seconds = sample_count(scene, array) / array_of(scene, array).sample_rate
        cells = [f"{c:>10}" for c in (file_id(scene, array), *codes, RecordingDevice[array].value)]
        rows.append(",".join([*cells, f"{seconds:.6e}"]) + "\n")
    return rows


def is_done(scene: dict, arrays: tuple[str, ...], out: Path) -> bool:
    """Whether every file of the scene is there and as long as it must be (files appear whole or not at all)."""
    for array in arrays_of(scene, arrays):
        path = sound_path(out, scene, array)
        sound = sound_bytes(scene, array)
        if not path.is_file() or not sound < path.stat().st_size < sound + 256:
            return False
    return True


def scenes_text(scenes: list[dict]) -> str:
    """scenes.jsonl: one scene a line."""
    return "".join(json.dumps(s, separators=(",", ":"), ensure_ascii=False) + "\n" for s in scenes)


def by_number(scenes: list[dict]) -> list[dict]:
    """Scenes in the order of their numbers, as tables list them: as drawn, siblings stand side by side, genuine
    first, and the order of the rows would tell the class."""
    return sorted(scenes, key=lambda scene: scene["index"])


def read_scenes(root: Path) -> list[dict]:
    """The drawn scenes of a simulated corpus; empty for any other corpus."""
    path = root / "scenes.jsonl"
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def by_file(scenes: Sequence[dict]) -> dict[str, dict]:
    """Scenes by what their files are called: the whole id after a template, else the id without the device."""
    return {scene.get("file_id") or str(FIRST_ID + scene["index"]): scene for scene in scenes}


def scene_of(file_id: str, scenes: dict[str, dict]) -> dict | None:
    """The scene of a file among those of `by_file`."""
    return scenes.get(file_id[:-1]) or scenes.get(file_id)


def write_plan(out: Path, scenes: list[dict], stamp: dict, arrays: tuple[str, ...], resume: bool) -> None:
    """Write the plan before any audio. A folder that holds another corpus or anybody's recordings is refused;
    without `resume` an older simulation in it is replaced. (`voices` in it are the simulator's own.)"""
    text = scenes_text(scenes)
    stamp = stamp | {"scenes": hashlib.sha256(text.encode("utf-8")).hexdigest()}
    check_place(out, stamp, resume)
    for subset in SUBSETS:
        for path in (out / subset / "data").glob(".*.partial.wav" if resume else "*.wav"):
            path.unlink()  # what a killed run had begun; or, starting afresh, everything
        if not resume:
            (out / subset / "meta.csv").unlink(missing_ok=True)
        if any(subset_of(scene) == subset for scene in scenes):
            (out / subset / "data").mkdir(parents=True, exist_ok=True)
    lines = [
        f"{subset_of(scene)}/{file_id(scene, array)}\t{scene['partition']}\n"
        for scene in by_number(scenes)
        for array in arrays_of(scene, arrays)
    ]
    write_text(out / "scenes.jsonl", text)
    write_text(out / "partitions.tsv", "trial\tpartition\n" + "".join(lines))
    write_text(out / PLAN, json.dumps(stamp, indent=1) + "\n")


def check_place(out: Path, stamp: dict, resume: bool) -> None:
    """ValueError where `out` holds anybody's recordings, or (if they are to be kept) those of a corpus whose plan
    says something else than `stamp`."""
    mark = out / PLAN
    if not mark.is_file():
        if found := [s for s in (*SUBSETS, "complete") if (out / s / "meta.csv").exists()]:
            raise ValueError(f"{out}: its {found[0]}/meta.csv was not simulated here; choose another --out")
        if found := [p for p in sound_files_below(out) if p.relative_to(out).parts[0] != VOICES]:
            raise ValueError(f"{found[0]}: was not simulated here; choose another --out, nothing was touched")
    elif resume:
        try:
            there = dict(json.loads(mark.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            there = {}
        if any(there.get(key) != value for key, value in stamp.items()):
            name = quoted(str(there.get("name", "?")))
            raise ValueError(
                f"{out}: holds another simulated corpus ({name}, or made of other speech, noise, scale or arrays); "
                "choose another --out, or remove that folder"
            )


def check_room(out: Path, scenes: Sequence[dict], arrays: Sequence[str]) -> None:
    """ValueError where the sound files that are still to be written are larger than what is free on the disk."""
    needed = sum(
        sound_bytes(scene, array)
        for scene in scenes
        for array in arrays_of(scene, arrays)
        if not sound_path(out, scene, array).is_file()
    )
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    if needed > (free := shutil.disk_usage(there).free):
        raise ValueError(
            f"{out}: this corpus still takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free there; choose "
            "another disk, a smaller --scale or fewer --arrays"
        )


def write_tables(out: Path, scenes: list[dict], card: dict, arrays: tuple[str, ...]) -> None:
    """The card first, so that no table is ever there without the word "simulated" beside it."""
    write_text(out / "corpus.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    for subset in SUBSETS:
        rows = [
            row
            for scene in by_number(scenes)
            if subset_of(scene) == subset
            for row in meta_rows(scene, arrays)
        ]
        if rows:
            write_text(out / subset / "meta.csv", "".join(rows))
