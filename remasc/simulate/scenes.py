"""All scenes of a corpus, drawn before any audio exists and written as plain JSON.

A genuine scene and its replayed sibling share utterance, room, place, height and facing; everything that is
not the chain (level, SNR, silences, noise, jitter of the place) comes from one law for both classes.
Room coordinates: metres, z up. The stand's `forward` is horizontal; the arrays' own frame is (right, up,
forward) as in `remasc.arrays`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from remasc.simulate.identity import scene_rng
from remasc.simulate.recipes import PARTITIONS, Recipe
from remasc.simulate.rooms import BANDS, walls_for
from remasc.simulate.speech import Clip, choose_command

CONTENT_RATE = 16000  # everything before the microphones' noise is computed at this rate
SEATS = {1: (0.36, 1.0), 2: (1.04, 1.0), 3: (0.36, 1.75), 4: (1.04, 1.75), 5: (0.36, 2.45), 6: (1.04, 2.45)}
# indoor-1: the used part is 3.0 x 5.4 m; placements of the array and places of the talker in it
PLACEMENTS = {1: (0.35, 0.35), 2: (1.5, 0.3), 3: (1.5, 2.7)}
PLACES = {1: (0.8, 1.2), 2: (2.3, 1.2), 3: (0.8, 3.4), 4: (2.3, 3.4), 5: (0.9, 4.8), 6: (2.2, 4.8)}
# how absorption is spread over the octaves, relative to 1 kHz: bare, panelled, carpeted, curtained
_SHAPES = np.array(
    [
        [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3],
        [2.2, 1.8, 1.3, 1.0, 0.9, 0.9, 0.9],
        [0.3, 0.4, 0.7, 1.0, 1.3, 1.5, 1.6],
        [0.4, 0.7, 0.9, 1.0, 1.1, 1.1, 1.1],
    ]
)


def _rounded(value: Any, digits: int = 5) -> Any:
    """Plain numbers for JSON, short enough to read."""
    if isinstance(value, dict):
        return {k: _rounded(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(v, digits) for v in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), digits)
    return int(value) if isinstance(value, np.integer) else value


def draw_room(corpus_name: str, room_id: str, environment: int, random: bool = False) -> dict:
    """The room with this identity: dimensions, walls, RT60 by octave, temperature."""
    rng = scene_rng(corpus_name, room_id, "room")
    temperature = rng.uniform(18, 24)
    if environment == 1:
        ground = np.clip(rng.uniform(0.03, 0.35) * _SHAPES[rng.choice([0, 2])], 0.02, 0.7)
        walls = np.zeros((6, len(BANDS)))
        walls[4] = ground
        rt60 = rng.uniform(0.4, 1.0) * np.array([1.1, 1.1, 1.0, 1.0, 0.9, 0.8, 0.6])
        tail_db = rng.uniform(-22, -10)
        return _rounded(
            {
                "id": room_id,
                "kind": "outdoor",
                "dims": [40, 40, 20],
                "absorption": walls,
                "rt60": rt60,
                "temperature": temperature,
                "tail_db": tail_db,
            }
        )
    if random:
        volume = np.exp(rng.uniform(np.log(15), np.log(300)))
        height = rng.uniform(2.3, 2.6) * (volume / 30) ** 0.18
        aspect = rng.uniform(1.0, 1.8)
        dims = (np.sqrt(volume / height / aspect), np.sqrt(volume / height * aspect), height)
        middle = np.exp(rng.uniform(np.log(max(0.1, 0.035 * volume**0.4)), np.log(1.0)))
    elif environment == 2:
        dims = (rng.uniform(4.2, 4.8), rng.uniform(6.5, 7.5), rng.uniform(2.5, 3.1))
        middle = rng.uniform(0.3, 0.6)
    elif environment == 3:
        dims = (rng.uniform(4.0, 4.4), rng.uniform(5.9, 6.5), rng.uniform(2.4, 3.0))
        middle = rng.uniform(0.4, 0.8)
    else:
        dims = (rng.uniform(1.35, 1.5), rng.uniform(2.7, 2.95), rng.uniform(1.15, 1.3))
        middle = rng.uniform(0.05, 0.1)
    kinds = rng.integers(0, len(_SHAPES), 6)
    shares = _SHAPES[kinds] * rng.uniform(0.5, 1.5, (6, 1))
    walls, rt60 = _tilted(dims, middle, shares)
    return _rounded(
        {
            "id": room_id,
            "kind": "shoebox",
            "dims": list(dims),
            "absorption": walls,
            "rt60": rt60,
            "temperature": temperature,
            "tail_db": 0.0,
        }
    )


def _tilted(dims: tuple, middle: float, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walls and RT60 by octave where the whole surface follows its own shape through `middle` s at 1 kHz."""
    x, y, z = dims
    areas = np.array([y * z, y * z, x * z, x * z, x * y, x * y])
    whole = areas @ shares
    rt60 = np.clip(middle * whole[3] / whole, 0.6 * middle, 1.7 * middle)
    return walls_for(dims, rt60, shares), rt60


def _place(room: dict, environment: int, random: bool, rng: np.random.Generator) -> dict:
    """Where stand and source are for one pair: stand (3,), floor point of the source (2,), height, facing, code."""
    dims = np.array(room["dims"])
    height = rng.uniform(0.8, 1.6)
    code, moving = -1, False
    if environment == 1:
        code = int(rng.integers(1, 3))
        distance = (0.5, 1.5)[code - 1] * rng.uniform(0.9, 1.1)
        stand = np.array([20.0, 20.0, rng.uniform(0.9, 1.4)])
        around = rng.uniform(0, 2 * np.pi)
        source = stand[:2] + distance * np.array([np.cos(around), np.sin(around)])
    elif random:
        for _ in range(200):
            stand = np.array([*rng.uniform(0.3, dims[:2] - 0.3), rng.uniform(0.6, 1.4)])
            source = rng.uniform(0.4, dims[:2] - 0.4)
            if 0.5 <= np.linalg.norm(source - stand[:2]) <= 4.0:
                break
    elif environment == 2:
        placement, place = int(rng.integers(1, 4)), int(rng.integers(1, 7))
        code = 10 * placement + place
        corner = (dims[:2] - np.array([3.0, 5.4])) * np.array([0.15, 0.15])
        stand = np.array([*(corner + PLACEMENTS[placement]), rng.uniform(0.7, 1.2)])
        source = corner + PLACES[place] + rng.uniform(-0.15, 0.15, 2)
    elif environment == 3:
        stand = np.array([dims[0] / 2 + rng.uniform(-0.15, 0.15), 0.3, rng.uniform(0.7, 1.2)])
        aside = rng.uniform(-0.35, 0.35)
        source = stand[:2] + 2.5 * rng.uniform(0.92, 1.08) * np.array([np.sin(aside), np.cos(aside)])
    else:
        seat, moving = int(rng.integers(1, 7)), bool(rng.random() < 0.5)
        code = seat
        stand = np.array([dims[0] / 2 + rng.uniform(-0.05, 0.05), 0.55, rng.uniform(0.5, 0.65)])
        source = np.array(SEATS[seat]) + rng.uniform(-0.08, 0.08, 2)
        height = rng.uniform(0.65, 0.95)
    height = min(height, dims[2] - 0.15)
    yaw = rng.uniform(-0.9, 0.9)
    return {
        "stand": stand,
        "source": source,
        "height": height,
        "facing": [rng.uniform(-np.pi / 4, np.pi / 4), rng.uniform(-0.15, 0.15)],
        "yaw": yaw,
        "code": code,
        "moving": moving,
    }


def _geometry(room: dict, place: dict, rng: np.random.Generator) -> dict:
    """The scene's own geometry: the pair's place with a few centimetres of its own, as vectors."""
    dims = np.array(room["dims"])
    stand = np.array(place["stand"])
    source = np.array([*place["source"], place["height"]]) + rng.uniform(-0.04, 0.04, 3)
    source = np.clip(source, 0.12, dims - 0.12)
    towards = source - stand
    azimuth = np.arctan2(towards[1], towards[0]) + place["yaw"]
    back = -towards / np.linalg.norm(towards)
    turn = np.arctan2(back[1], back[0]) + place["facing"][0] + rng.uniform(-0.05, 0.05)
    tilt = np.clip(np.arcsin(back[2]), -0.5, 0.5) + place["facing"][1]
    facing = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    return {
        "stand": stand,
        "forward": [np.cos(azimuth), np.sin(azimuth), 0.0],
        "source": source,
        "facing": facing,
        "distance": float(np.linalg.norm(towards)),
    }


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


def _point_place(room: dict, geometry: dict, environment: int, rng: np.random.Generator) -> list[float]:
    """Where a point of noise stands: in the lounge 0.6 m beside the talker and a little before them."""
    dims = np.array(room["dims"])
    if environment == 3:
        back = np.array(geometry["stand"][:2]) - np.array(geometry["source"][:2])
        back /= np.linalg.norm(back)
        side = np.array([-back[1], back[0]]) * rng.choice([-1, 1])
        where = np.array(geometry["source"][:2]) + 0.6 * side + 0.2 * back
        return [*np.clip(where, 0.15, dims[:2] - 0.15), float(rng.uniform(0.5, 1.2))]
    stand = np.array(geometry["stand"])
    if environment == 1:
        around, away = rng.uniform(0, 2 * np.pi), rng.uniform(2.0, 12.0)
        return [
            *(stand[:2] + away * np.array([np.cos(around), np.sin(around)])),
            float(rng.uniform(0.3, 3.0)),
        ]
    apart = 0.35 if environment == 4 else 0.8
    for _ in range(100):
        where = rng.uniform(0.12, dims - 0.12)
        if np.linalg.norm(where - stand) > apart:
            break
    return list(where)


def _recorder(recipe: Recipe, rng: np.random.Generator, seconds: float) -> dict:
    """How the attacker got the utterance: 1 professional recorder, 2 phone, 3 no recorder (speech synthesis)."""
    kinds = sorted(recipe.source_recorders)
    shares = np.array([recipe.source_recorders[k] for k in kinds])
    kind = int(rng.choice(kinds, p=shares / shares.sum()))
    out: dict[str, Any] = {
        "kind": kind,
        "codec": rng.uniform(0, 1) if rng.random() < recipe.codec_share else None,
    }
    if kind == 3:
        return out
    dims = (rng.uniform(2.5, 5.0), rng.uniform(3.0, 6.0), rng.uniform(2.3, 3.0))
    shares = _SHAPES[rng.integers(0, len(_SHAPES), 6)] * rng.uniform(0.5, 1.5, (6, 1))
    walls, rt60 = _tilted(dims, rng.uniform(0.2, 0.6), shares)
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
        "facing": [np.cos(around), np.sin(around), -0.1],
        "capsule": mouth + distance * np.array([0.995, 0.0, -0.1]),
        "noise_db": rng.uniform(32, 50) if kind == 1 else rng.uniform(25, 42),
        "band": [rng.uniform(20, 60), 20000.0]
        if kind == 1
        else [rng.uniform(80, 220), rng.uniform(5500, 8000)],
        "agc": 0.0 if kind == 1 else rng.uniform(0.1, 0.6),
    }
    return out


def split_groups(clips: list[Clip], recipe: Recipe, corpus_name: str) -> dict[str, list[str]]:
    """Speakers (or unlabelled sets) by partition, disjoint: shares of speakers; unlabelled sets go to train
    where labelled speakers can fill dev and eval. ValueError where a wanted partition would stay empty."""
    wanted = [p for p in PARTITIONS if recipe.pairs.get(p, 0)]
    labelled = sorted({c.group for c in clips if c.labelled})
    loose = sorted({c.group for c in clips if not c.labelled} - set(labelled))
    rng = scene_rng(corpus_name, "speakers", "split")
    if len(labelled) < len(wanted):  # groups stand for speakers
        labelled, loose = [*labelled, *loose], []
    if len(labelled) < len(wanted):
        raise ValueError(
            f"the speech folder has {len(labelled)} speakers or groups for {len(wanted)} partitions that share "
            "none; give each speaker a folder, or a metadata.csv with columns file,speaker"
        )
    order = [labelled[i] for i in rng.permutation(len(labelled))]
    weights = np.array([recipe.speaker_share.get(p, 0.01) for p in wanted])
    free = len(order) - len(wanted)
    counts = 1 + np.floor(weights / weights.sum() * free).astype(int)
    counts[0] += len(order) - counts.sum()
    parts, start = {}, 0
    for partition, count in zip(wanted, counts, strict=True):
        parts[partition] = sorted(order[start : start + count])
        start += count
    if loose:
        home = wanted[0] if len(wanted) > 1 else wanted[-1]
        parts[home] = parts[home] + loose
    return parts


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
    recipe: Recipe, corpus_name: str, speech: Path, clips: list[Clip], noise_clips: dict[str, list[str]]
) -> tuple[list[dict], dict[str, dict]]:
    """Every scene of the corpus, in order, and the speakers: {label: {"id", "partition"}}."""
    parts = split_groups(clips, recipe, corpus_name)
    by_group: dict[str, list[Clip]] = {}
    for clip in clips:
        by_group.setdefault(clip.group, []).append(clip)
    speakers = {
        label: {"id": i + 1, "partition": partition}
        for i, (label, partition) in enumerate(sorted((g, p) for p, groups in parts.items() for g in groups))
    }
    scenes: list[dict] = []
    for partition in PARTITIONS:
        for number, environment in enumerate(_environments(recipe, recipe.pairs.get(partition, 0))):
            pair = f"{partition}-{number:05d}"
            groups = _weighted(parts[partition], by_group)
            scenes += _pair(
                recipe,
                corpus_name,
                pair,
                partition,
                environment,
                groups,
                speech,
                by_group,
                speakers,
                noise_clips[partition],
            )
    for index, scene in enumerate(scenes):
        scene["index"] = index
    return [_rounded(scene) for scene in scenes], speakers


def _weighted(names: list[str], by_group: dict[str, list[Clip]]) -> tuple[list[str], np.ndarray]:
    """Groups with the weight at which they are drawn: a speaker counts once, a set by its clips (10 a voice)."""
    weights = np.array([1.0 if by_group[g][0].labelled else max(1.0, len(by_group[g]) / 10) for g in names])
    return names, weights / weights.sum()


def _pair(
    recipe: Recipe,
    corpus_name: str,
    pair: str,
    partition: str,
    environment: int,
    groups: tuple[list[str], np.ndarray],
    speech: Path,
    by_group: dict[str, list[Clip]],
    speakers: dict[str, dict],
    noise_clips: list[str],
) -> list[dict]:
    """One genuine scene and its replayed siblings."""
    rng = scene_rng(corpus_name, pair, "pair")
    limits = (recipe.command_seconds[0], recipe.command_seconds[1])
    for _ in range(50):
        group = str(rng.choice(groups[0], p=groups[1]))
        parts, seconds = choose_command(speech, by_group[group], limits, CONTENT_RATE, rng)
        if parts and seconds >= 0.5 * limits[0]:
            break
    else:
        raise ValueError("no speech was found in the speech folder's files; give a folder of clean speech")
    shared = partition if recipe.protocol == "open" else "shared"
    random = partition == "train" and environment in (2, 3) and rng.random() < recipe.random_rooms
    rooms = recipe.rooms[partition if recipe.protocol == "open" else "train"]
    if random:
        room_id = f"{shared}-random-{int(rng.integers(max(rooms * 5, 1))):04d}"
    else:
        room_id = f"{shared}-env{environment}-{int(rng.integers(max(rooms, 1))):03d}"
    room = draw_room(corpus_name, room_id, environment, random)
    place = _place(room, environment, random, rng)
    family = int(rng.integers(1, 5))
    out = []
    for sibling in range(1 + recipe.replays_per_genuine):
        scene_id = f"{pair}-{'g' if sibling == 0 else 'r' + str(sibling)}"
        own = scene_rng(corpus_name, scene_id, "scene")
        geometry = _geometry(room, place, own)
        noise = _noise(recipe, environment, place, noise_clips, own)
        if noise["point_share"]:
            noise["point"] = _point_place(room, geometry, environment, own)
            if environment == 3 and noise["clip"] is None and own.random() < 0.5:  # the television talks
                talker = str(own.choice(groups[0], p=groups[1]))
                noise["television"] = choose_command(speech, by_group[talker], limits, CONTENT_RATE, own)[0]
        lead, trail = own.uniform(*recipe.lead_seconds), own.uniform(*recipe.trail_seconds)
        scene: dict[str, Any] = {
            "scene_id": scene_id,
            "pair": pair,
            "partition": partition,
            "label": "genuine" if sibling == 0 else "replay",
            "environment": environment,
            "position": place["code"],
            "speaker": speakers[group]["id"],
            "voice": group,
            "utterance": parts,
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
            "chain": "mouth",
        }
        if environment == 4 and sibling == 0:
            scene["position"] = (20 if place["moving"] else 10) + place["code"]
        if sibling:
            _make_replay(scene, recipe, shared, family + sibling - 1, own)
        out.append(scene)
    return out


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
