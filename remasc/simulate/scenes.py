"""All scenes of a corpus, drawn before any audio exists and written as plain JSON.

A genuine scene and its replayed sibling share utterance, room, place, height and facing; everything that is
not the chain (level, SNR, silences, noise, jitter of the place) comes from one law for both classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from remasc.identity import scene_rng
from remasc.parallel import tracked
from remasc.protocol import PARTITIONS
from remasc.simulate.codecs import CODECS
from remasc.simulate.places import (
    WALL_SHAPES,
    draw_geometry,
    draw_place,
    draw_room,
    point_place,
    rounded,
    tilted_walls,
)
from remasc.simulate.recipes import Recipe
from remasc.simulate.speech import Clip, choose_command, speaker_of
from remasc.simulate.split import split

CONTENT_RATE = 16000  # everything before the microphones' noise is computed at this rate


def _noise(recipe: Recipe, environment: int, place: dict, clips: list[str], rng: np.random.Generator) -> dict:
    """What is heard in the background: kind of field, real clip or not, SNR (dB, speech-active, 200 to 7000 Hz)."""
    low, high = recipe.snr_db[str(environment)]
    clip = str(rng.choice(clips)) if clips and rng.random() < recipe.real_noise_share else None
    out = {
        "snr_db": rng.uniform(low, high),
        "clip": clip,
        "point_share": 0.0,
        "point": None,
        "wind_share": 0.0,
        "speed": 0.0,
        "self_dbfs": rng.uniform(-84, -72),
        "slope_db": rng.uniform(2.0, 5.0),
        "babble_share": rng.uniform(0, 0.8) if environment == 1 else 0.0,
    }
    if environment == 1:
        out["wind_share"] = rng.uniform(0, 0.9)
    elif environment == 4:
        out["speed"] = rng.uniform(0.1, 1.0) if place["moving"] else 0.0
        out["rpm"] = rng.uniform(1300, 2600) if place["moving"] else rng.uniform(650, 900)
    elif environment == 3:
        out["point_share"] = rng.uniform(0.7, 0.98)
    elif rng.random() < 0.6:
        out["point_share"] = rng.uniform(0.1, 0.65)
    if clip is not None:  # a dog barks in one place
        out["point_share"] = rng.uniform(0.4, 0.95)
    return out


def _codec(rng: np.random.Generator) -> dict:
    name = str(rng.choice(sorted(CODECS)))
    return {"name": name, "compression": rng.uniform(*CODECS[name][2])}


def _attack(recipe: Recipe, rng: np.random.Generator) -> dict:
    """What the attacker does beyond playing the recording."""
    use = rng.random(3) < [recipe.equaliser_share, recipe.dereverberated_share, recipe.near_person_share]
    error, late_db = rng.normal(0, 1.0, 36), rng.uniform(6, 18)
    aside, breath_db = rng.uniform(0.25, 0.6), rng.uniform(28, 45)
    around = rng.uniform(0, 2 * np.pi)
    return {
        "equaliser_error_db": error if use[0] else None,
        "late_down_db": late_db if use[1] else 0.0,
        "person": {"offset": [aside * np.cos(around), aside * np.sin(around), 0.0], "breath_db": breath_db}
        if use[2]
        else None,
    }


def _recorder(recipe: Recipe, rng: np.random.Generator, seconds: float) -> dict:
    """How the attacker got the utterance: 1 professional recorder, 2 phone, 3 no recorder (speech synthesis)."""
    kinds = sorted(recipe.source_recorders)
    shares = np.array([recipe.source_recorders[k] for k in kinds])
    kind = int(rng.choice(kinds, p=shares / shares.sum()))
    out: dict[str, Any] = {
        "kind": kind,
        "codec": _codec(rng) if rng.random() < recipe.codec_share else None,
    }
    if kind == 3:
        return out
    dims = (rng.uniform(2.5, 5.0), rng.uniform(3.0, 6.0), rng.uniform(2.3, 3.0))
    shares = WALL_SHAPES[rng.integers(0, len(WALL_SHAPES), 6)] * rng.uniform(0.5, 1.5, (6, 1))
    walls, rt60 = tilted_walls(dims, rng.uniform(0.2, 0.6), shares)
    distance, around = rng.uniform(0.2, 0.6), rng.uniform(-0.6, 0.6)
    mouth = np.array(
        [rng.uniform(0.8, dims[0] - 0.8), rng.uniform(0.8, dims[1] - 0.8), rng.uniform(1.0, 1.6)]
    )
    out |= {
        "room": {
            "id": "recorder",
            "kind": "shoebox",
            "dims": list(dims),
            "absorption": walls,
            "rt60": rt60,
            "temperature": 21.0,
            "tail_db": 0.0,
        },
        "mouth": mouth,
        "facing": np.array([np.cos(around), np.sin(around), -0.1]) / np.hypot(1, 0.1),
        "capsule": mouth + distance * np.array([0.995, 0.0, -0.1]),
        "noise_db": rng.uniform(32, 50) if kind == 1 else rng.uniform(25, 42),
        "band": [rng.uniform(20, 60), 20000.0]
        if kind == 1
        else [rng.uniform(80, 220), rng.uniform(5500, 8000)],
        "agc": 0.0 if kind == 1 else rng.uniform(0.1, 0.6),
    }
    return out


@dataclass(frozen=True)
class Cast:
    """Who may speak in one partition, and what may be heard behind them."""

    partition: str
    speech: Path
    clips: dict[str, list[Clip]]  # by speaker or unlabelled set
    names: list[str]  # of this partition
    weights: np.ndarray  # how often each of them speaks, summing to one
    ids: dict[str, int]
    noise: list[str]

    def draw(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.names, p=self.weights))


def split_speakers(clips: list[Clip], recipe: Recipe) -> tuple[dict[str, list[str]], bool]:
    """Speakers (or unlabelled sets) by partition, disjoint, and whether each has the home of its own name.

    A set that names partitions itself is taken at its word. A set without speakers stays whole and is heard in
    train alone: who knows which voices it shares with another. ValueError where a partition would stay empty.
    """
    wanted = [p for p in PARTITIONS if recipe.pairs.get(p, 0)]
    told = {c.group: c.partition for c in clips if c.partition}
    labelled = sorted({c.group for c in clips if c.labelled} - set(told))
    loose = sorted({c.group for c in clips if not c.labelled} - set(labelled))
    parts = {p: sorted(name for name, home in told.items() if home == p) for p in wanted}
    own = True
    if not all(parts.values()):
        if len(wanted) == 1 and not labelled:
            labelled, loose = loose, []
        if len(labelled) < len(wanted):  # folders are no speakers: they may be words, or days
            raise ValueError(
                f"the speech folder names {len(labelled)} speakers for {len(wanted)} partitions that share none; "
                "add a metadata.csv with the columns file,speaker"
            )
        dealt, own = split(labelled, recipe.speaker_share, wanted, key=speaker_of)
        parts = {p: sorted([*parts[p], *dealt[p]]) for p in wanted}
    if "train" in parts:
        parts["train"] += loose
    return parts, own


def _weights(names: list[str], by_group: dict[str, list[Clip]], unlabelled_share: float) -> np.ndarray:
    """How often each speaks: every speaker alike, a set without speakers by its number of clips."""
    labelled = np.array([by_group[n][0].labelled for n in names])
    sizes = np.array([len(by_group[n]) for n in names], float) * ~labelled
    loose = unlabelled_share if labelled.any() else 1.0
    share = sizes / max(sizes.sum(), 1.0) * (loose if sizes.any() else 0.0)
    return share + labelled * (1 - share.sum()) / max(labelled.sum(), 1)


def _environments(recipe: Recipe, count: int) -> list[int]:
    """The environment of each of `count` pairs, by the recipe's shares, interleaved."""
    keys = sorted(k for k, share in recipe.environments.items() if share > 0)
    shares = np.array([recipe.environments[k] for k in keys])
    ideal = shares / shares.sum()
    given = np.zeros(len(keys))
    out = []
    for i in range(count):
        pick = int(np.argmax(ideal * (i + 1) - given))
        given[pick] += 1
        out.append(int(keys[pick]))
    return out


def draw_scenes(
    recipe: Recipe,
    corpus_name: str,
    speech: Path,
    clips: list[Clip],
    noise_clips: dict[str, list[str]],
    progress: bool = False,
) -> tuple[list[dict], dict[str, dict]]:
    """Every scene of the corpus, and the speakers: {label: {"id", "partition"}}."""
    parts, _ = split_speakers(clips, recipe)
    by_group: dict[str, list[Clip]] = {}
    for clip in clips:
        by_group.setdefault(clip.group, []).append(clip)
    homes = sorted((name, partition) for partition, names in parts.items() for name in names)
    speakers = {name: {"id": i + 1, "partition": home} for i, (name, home) in enumerate(homes)}
    ids = {name: entry["id"] for name, entry in speakers.items()}
    jobs = []
    for partition in (p for p in PARTITIONS if recipe.pairs.get(p, 0)):
        weights = _weights(parts[partition], by_group, recipe.unlabelled_share)
        cast = Cast(partition, speech, by_group, parts[partition], weights, ids, noise_clips[partition])
        for number, environment in enumerate(_environments(recipe, recipe.pairs[partition])):
            jobs.append((f"{partition}-{number:05d}", environment, cast))
    pairs = ((1, _pair(recipe, corpus_name, *job)) for job in jobs)
    drawn = tracked(pairs, "drawing pairs of scenes", len(jobs), 0, progress)
    scenes = [scene for pair in drawn for scene in pair]
    # numbers, and with them file ids, that say nothing of class or partition
    for scene, index in zip(scenes, scene_rng(corpus_name, "ids").permutation(len(scenes)), strict=True):
        scene["index"] = int(index)
    return [rounded(scene) for scene in scenes], speakers


def _pair(recipe: Recipe, corpus_name: str, pair: str, environment: int, cast: Cast) -> list[dict]:
    """One genuine scene and its replayed siblings."""
    rng = scene_rng(corpus_name, pair, "pair")
    partition = cast.partition
    limits = (recipe.command_seconds[0], recipe.command_seconds[1])
    for _ in range(50):
        voice = cast.draw(rng)
        parts, seconds = choose_command(cast.speech, cast.clips[voice], limits, CONTENT_RATE, rng)
        if parts and seconds >= limits[0]:
            break
    else:
        raise ValueError(
            f"the speech folder's files give no command of {limits[0]:g} s or more (the recipe's command_seconds); "
            "give a folder of clean speech, with longer clips or with speakers whose words may be joined"
        )
    shared = partition if recipe.protocol == "open" else "shared"
    random = partition == "train" and environment in (2, 3) and rng.random() < recipe.random_rooms
    rooms = recipe.rooms[partition if recipe.protocol == "open" else "train"]
    if random:
        room_id = f"{shared}-random-{int(rng.integers(max(rooms * 5, 1))):04d}"
    else:
        room_id = f"{shared}-env{environment}-{int(rng.integers(max(rooms, 1))):03d}"
    room = draw_room(corpus_name, room_id, environment, random)
    place = other = draw_place(room, environment, random, rng)
    if recipe.replay_farther:
        place, other = sorted((place, draw_place(room, environment, random, rng)), key=_distance)
    family = int(rng.integers(1, 5))
    # soft or raised voice: speech tilts by some dB per octave with vocal effort, in both siblings alike
    effort = float(np.clip(rng.normal(0, recipe.effort_db), -2 * recipe.effort_db, 2 * recipe.effort_db))
    out = []
    for sibling in range(1 + recipe.replays_per_genuine):
        scene_id = f"{pair}-{'g' if sibling == 0 else 'r' + str(sibling)}"
        own = scene_rng(corpus_name, scene_id, "scene")
        place = other if sibling else place
        geometry = draw_geometry(room, place, own)
        noise = _noise(recipe, environment, place, cast.noise, own)
        if noise["point_share"]:
            noise["point"] = point_place(room, geometry, environment, own)
            if environment == 3 and noise["clip"] is None and own.random() < 0.5:  # the television talks
                clips = cast.clips[cast.draw(own)]
                noise["television"] = choose_command(cast.speech, clips, limits, CONTENT_RATE, own)[0]
        lead, trail = own.uniform(*recipe.lead_seconds), own.uniform(*recipe.trail_seconds)
        scene: dict[str, Any] = {
            "scene_id": scene_id,
            "pair": pair,
            "partition": partition,
            "label": "genuine" if sibling == 0 else "replay",
            "environment": environment,
            "position": place["code"],
            "speaker": cast.ids[voice],
            "voice": voice,
            "utterance": parts,
            "effort_db": effort,
            "lead": lead,
            "trail": trail,
            "seconds": lead + seconds + trail,
            "level_dbfs": own.uniform(*recipe.level_dbfs),
            "room": room,
            **geometry,
            "noise": noise,
            "sway": own.normal(0, 0.008, 3).clip(-0.02, 0.02),
            "turn": own.uniform(-0.12, 0.12),
            "recorder": None,
            "device": None,
            "attack": None,
            "chain": "mouth",
        }
        if environment == 4 and sibling == 0:
            scene["position"] = (20 if place["moving"] else 10) + place["code"]
        if sibling:
            _make_replay(scene, recipe, shared, family + sibling - 1, own)
        out.append(scene)
    return out


def _distance(place: dict) -> float:
    return float(
        np.linalg.norm([*(place["source"] - place["stand"][:2]), place["height"] - place["stand"][2]])
    )


def _make_replay(scene: dict, recipe: Recipe, shared: str, turn: int, rng: np.random.Generator) -> None:
    """Turn a drawn scene into a replay: recorder, device instance, and the codes that ReMASC gives them."""
    family = (turn - 1) % 4 + 1
    built_in = scene["environment"] == 4 and rng.random() < recipe.built_in_share
    if built_in:
        family, scene["position"] = 5, 0
    count = recipe.devices[scene["partition"] if recipe.protocol == "open" else "train"]
    instance = int(rng.integers(max(count, 1)))
    scene["label"] = "replay"
    scene["recorder"] = _recorder(recipe, rng, scene["seconds"])
    if not recipe.device_noise and "noise_db" in scene["recorder"]:
        scene["recorder"]["noise_db"] = 120.0
    scene["attack"] = _attack(recipe, rng)
    scene["device"] = {
        "id": f"{shared}-device{family}-{instance:03d}",
        "family": family,
        "drive_db": rng.uniform(-4, 5),
        "hiss": recipe.device_noise,
        "built_in": built_in,
    }
    scene["chain"] = "mouth" if recipe.null else "device"
    if scene["recorder"]["kind"] == 3:
        scene["speaker"] = 0
