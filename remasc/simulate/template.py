"""A corpus simulated row by row after the meta.csv of a real one: the same ids, one array a row.

`exact` keeps every condition of a row, and with them what tells the classes in the real protocol: places,
environments and lengths that only one class has. `matched` keeps in which environment, how long and on which array
something was recorded, draws the place in it, and deals anew, within each subset and array, what was recorded
(class, speaker, source recorder, playback device): then neither place nor length tells the class.

Rooms and device instances are shared by all partitions, as in ReMASC. Source recordings are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from remasc.corpus import Corpus
from remasc.identity import position_of, scene_rng
from remasc.parallel import tracked
from remasc.schema import Environment, PlaybackDevice, Recording, SpeechType
from remasc.simulate.attacks import add_replay
from remasc.simulate.casts import Cast
from remasc.simulate.places import draw_place, rounded
from remasc.simulate.recipes import Recipe
from remasc.simulate.scenes import draw_command, draw_stage, draw_voice, set_scene
from remasc.simulate.split import home_of

CORE_SHARES = {"train": 0.8, "dev": 0.2}  # of core's speakers
LONGEST_COMMAND = 4.0  # seconds; the rest of a longer file is silence before and after
EDGES = 0.25  # seconds before and after a command, at least, where the file is long enough


def template_rows(root: Path, scale: float) -> list[Recording]:
    """The trials of the template, a share of them where `scale` is below 1; ValueError without core and eval."""
    rows = [r for r in Corpus.from_meta(root).trials() if position_of(r.trial_id) < scale]
    if {r.subset for r in rows} != {"core", "eval"}:
        raise ValueError(
            f"{root}: holds no trials of both core/meta.csv and eval/meta.csv; expected a ReMASC copy"
        )
    return rows


def dealt_anew(rows: list[Recording], corpus_name: str) -> list[Recording]:
    """For each row the row whose class, speaker, recorder and playback device it takes: a permutation within each
    subset and array, where a vehicle's own loudspeakers stay in vehicles."""
    out: list[Recording | None] = [None] * len(rows)
    groups: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.subset, row.array), []).append(i)
    for (subset, array), members in groups.items():
        rng = scene_rng(corpus_name, f"{subset}-{array}", "deal")
        fixed = [i for i in members if rows[i].playback_device is PlaybackDevice.VEHICLE]
        vehicles = [i for i in members if rows[i].environment is Environment.VEHICLE]
        taken = set(rng.permutation(vehicles)[: len(fixed)].tolist()) if fixed else set()
        free = [i for i in members if i not in taken]
        others = [i for i in members if rows[i].playback_device is not PlaybackDevice.VEHICLE]
        for place, who in zip(sorted(taken), fixed, strict=True):
            out[place] = rows[who]
        for place, who in zip(free, rng.permutation(others).tolist(), strict=True):
            out[place] = rows[who]
    assert all(row is not None for row in out)
    return [row for row in out if row is not None]


def voices_of(rows: list[Recording], casts: dict[str, Cast]) -> dict[tuple[str, int], tuple[str, str | None]]:
    """(subset, speaker) -> partition and voice; speaker 0, text to speech, has any voice of eval or train."""
    found: dict[tuple[str, int], tuple[str, str | None]] = {}
    for subset, speaker in sorted({(r.subset, r.speaker) for r in rows}):
        home = "eval" if subset == "eval" else home_of(f"core speaker {speaker}", CORE_SHARES)
        names = sorted(casts[home].names, key=position_of)
        count = sum(partition == home for partition, _ in found.values())
        found[subset, speaker] = (home, names[count % len(names)] if speaker else None)
    return found


def draw_rows(
    recipe: Recipe, corpus_name: str, casts: dict[str, Cast], rows: list[Recording], progress: bool = False
) -> list[dict]:
    """One scene for each row, in the rows' order."""
    voices = voices_of(rows, casts)
    whats = dealt_anew(rows, corpus_name) if recipe.template == "matched" else rows
    drawn = (
        (1, _row(recipe, corpus_name, casts, voices, where, what))
        for where, what in zip(rows, whats, strict=True)
    )
    scenes = list(tracked(drawn, "drawing scenes", len(rows), 0, progress))
    for index, scene in enumerate(scenes):
        scene["index"] = index
    return [rounded(scene) for scene in scenes]


def _row(
    recipe: Recipe,
    corpus_name: str,
    casts: dict[str, Cast],
    voices: dict[tuple[str, int], tuple[str, str | None]],
    where: Recording,
    what: Recording,
) -> dict:
    """The scene of one row: place, length and array of `where`; class, speaker and attack of `what`."""
    rng = scene_rng(corpus_name, where.trial_id, "row")
    partition, voice = voices[what.subset, what.speaker]
    cast, environment = casts[partition], int(where.environment)
    said = _said(recipe, cast, voice, where.seconds, rng)
    room, _ = draw_stage(recipe, corpus_name, partition, environment, rng)
    known = where.position if recipe.template == "exact" else -1
    place = draw_place(room, environment, False, rng, known)
    own = scene_rng(corpus_name, where.trial_id, "scene")
    scene = {
        "scene_id": where.trial_id,
        "pair": where.trial_id,
        "file_id": where.file_id,
        "arrays": [where.array],
    }
    scene |= set_scene(recipe, cast, environment, room, place, said, own)
    silence = max(where.seconds - said["spoken"], 0.0)
    scene["lead"] = silence * rng.uniform(0.25, 0.5)
    scene["trail"] = silence - scene["lead"]
    scene["seconds"] = scene["lead"] + said["spoken"] + scene["trail"]
    if what.speech_type is SpeechType.REPLAY:
        family, kind = int(what.playback_device or 1), int(what.source_recorder or 1)
        add_replay(scene, recipe, own, family=family, kind=kind)
    scene["speaker"] = what.speaker
    if recipe.template == "exact":
        scene["position"] = where.position
        scene["genuine_recorder"] = int(what.source_recorder or -1)  # core and eval name one outdoors
    return scene


def _said(recipe: Recipe, cast: Cast, voice: str | None, seconds: float, rng: np.random.Generator) -> dict:
    """A command that fits into a file of so many seconds, by this voice if it has one."""
    most = min(max(seconds - EDGES, 0.6 * seconds), LONGEST_COMMAND)
    try:
        name, parts, spoken = draw_command(cast, (min(1.0, 0.7 * most), most), rng, voice)
    except ValueError:  # very short files: whatever fits
        name, parts, spoken = draw_command(cast, (0.1 * most, most), rng, voice)
    return {"voice": name, "utterance": parts, "spoken": spoken, **draw_voice(recipe, rng)}
