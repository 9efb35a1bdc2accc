"""What the attacker brings: how the utterance was got, on what it is played, and what else is done.

Everything is drawn as plain numbers, before any audio exists. Families of playback devices and kinds of source
recorders are ReMASC's codes (data/README.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from remasc.simulate.codecs import CODECS
from remasc.simulate.places import WALL_SHAPES, tilted_walls
from remasc.simulate.recipes import Recipe


def add_replay(
    scene: dict,
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    family: int | None = None,
    kind: int | None = None,
    turn: int = 0,
) -> None:
    """Turn a drawn scene into a replay: recorder, device instance, and the codes that ReMASC gives them.

    `family` 1..5 and `kind` 1..3 are drawn where they are None: the family goes round with `turn`, in a vehicle a
    share of them is its own loudspeakers.
    """
    if family is None:
        built_in = scene["environment"] == 4 and rng.random() < recipe.built_in_share
        families = recipe.allowed("playback_device", scene["partition"], (1, 2, 3, 4))
        own = recipe.allowed("playback_device", scene["partition"], (5,))
        family = 5 if not families or (built_in and own) else families[(turn - 1) % len(families)]
    if scene["environment"] == 4:  # ReMASC's codes: a genuine row says quiet or moving before the seat
        scene["position"] = 0 if family == 5 else scene["position"] % 10
    shared = recipe.home(scene["partition"])
    instance = int(rng.integers(max(recipe.devices[recipe.source_of(scene["partition"])], 1)))
    scene["label"] = "replay"
    scene["recorder"] = _recorder(recipe, scene["partition"], scene["room"], rng, kind)
    if not recipe.device_noise and "noise_db" in scene["recorder"]:
        scene["recorder"]["noise_db"] = 120.0
    scene["attack"] = _attack(recipe, rng)
    scene["device"] = {
        "id": f"{shared}-device{family}-{instance:03d}",
        "family": family,
        "drive_db": rng.uniform(-4, 5),
        "hiss": recipe.device_noise,
        "one_driver": recipe.one_driver,
        "built_in": family == 5,
    }
    scene["chain"] = "mouth" if recipe.null else "device"
    if scene["recorder"]["kind"] == 3:
        scene["speaker"] = 0


def _codec(rng: np.random.Generator) -> dict:
    name = str(rng.choice(sorted(CODECS)))
    return {"name": name, "compression": rng.uniform(*CODECS[name][2])}


def _attack(recipe: Recipe, rng: np.random.Generator) -> dict:
    """What the attacker does beyond playing the recording."""
    use = rng.random(2) < [recipe.equaliser_share, recipe.dereverberated_share]
    error, late_db = rng.normal(0, 1.0, 36), rng.uniform(6, 18)
    return {"equaliser_error_db": error if use[0] else None, "late_down_db": late_db if use[1] else 0.0}


def _recorder(
    recipe: Recipe, partition: str, target: dict, rng: np.random.Generator, kind: int | None
) -> dict:
    """How the attacker got the utterance: 1 professional recorder, 2 phone, 3 no recorder (speech synthesis).

    A recording is taken in a room of its own, or in the `target` room, where it will be played.
    """
    kinds = recipe.allowed("source_recorder", partition, sorted(map(int, recipe.source_recorders)))
    shares = np.array([recipe.source_recorders[str(k)] for k in kinds])
    drawn = int(rng.choice(kinds, p=shares / shares.sum()))
    kind = drawn if kind is None else kind
    out: dict[str, Any] = {
        "kind": kind,
        "codec": _codec(rng) if rng.random() < recipe.codec_share else None,
    }
    if kind == 3:
        return out
    room = target if rng.random() < recipe.target_room_share else _recording_room(rng)
    dims = np.array(room["dims"], float)
    distance, around = rng.uniform(0.2, 0.6), rng.uniform(-0.6, 0.6)
    margin = np.minimum(0.8, 0.3 * dims[:2])
    mouth = np.array([*rng.uniform(margin, dims[:2] - margin), min(rng.uniform(1.0, 1.6), dims[2] - 0.15)])
    capsule = mouth + distance * np.array([0.995, 0.0, -0.1])
    out |= {
        "room": room,
        "mouth": mouth,
        "facing": np.array([np.cos(around), np.sin(around), -0.1]) / np.hypot(1, 0.1),
        "capsule": np.clip(capsule, 0.05, dims - 0.05),
        "noise_db": rng.uniform(32, 50) if kind == 1 else rng.uniform(25, 42),
        "band": [rng.uniform(20, 60), 20000.0]
        if kind == 1
        else [rng.uniform(80, 220), rng.uniform(5500, 8000)],
        "agc": 0.0 if kind == 1 else rng.uniform(0.1, 0.6),
    }
    return out


def _recording_room(rng: np.random.Generator) -> dict:
    """A furnished room of the attacker's victim, of no environment."""
    dims = (rng.uniform(2.5, 5.0), rng.uniform(3.0, 6.0), rng.uniform(2.3, 3.0))
    shares = WALL_SHAPES[rng.integers(0, len(WALL_SHAPES), 6)] * rng.uniform(0.5, 1.5, (6, 1))
    walls, rt60 = tilted_walls(dims, rng.uniform(0.2, 0.6), shares)
    return {
        "id": "recorder",
        "kind": "shoebox",
        "dims": list(dims),
        "absorption": walls,
        "rt60": rt60,
        "temperature": 21.0,
        "tail_db": 0.0,
    }
