"""All scenes of a corpus, drawn before any audio exists and written as plain JSON.

A genuine scene and its replayed sibling share utterance, room, place, height and facing; everything that is
not the chain (level, SNR, silences, noise, jitter of the place) comes from one law for both classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from remasc.arrays import ARRAYS
from remasc.identity import scene_rng
from remasc.parallel import tracked
from remasc.protocol import PARTITIONS
from remasc.simulate.attacks import add_replay
from remasc.simulate.casts import Cast, split_speakers, weights_of
from remasc.simulate.geometries import drawn_array
from remasc.simulate.places import PLACEMENTS, draw_geometry, draw_place, draw_room, point_place, rounded
from remasc.simulate.recipes import Recipe
from remasc.simulate.speech import Clip, choose_command

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


def draw_command(
    cast: Cast, limits: tuple[float, float], rng: np.random.Generator, voice: str | None = None
) -> tuple[str, list[dict], float]:
    """Who says what: the voice, the parts of the utterance and its seconds, within `limits`.

    A voice is asked several times before another is drawn: many clips of a set are too short, and whoever is
    seldom lucky would be seldom heard. `voice` is never replaced. ValueError where there is no command so long.
    """
    for _ in range(20):
        name = cast.draw(rng) if voice is None else voice
        for _ in range(10):
            parts, seconds = choose_command(cast.speech, cast.clips[name], limits, CONTENT_RATE, rng)
            if parts and seconds >= limits[0]:
                return name, parts, seconds
    raise ValueError(
        f"the speech folder's files give no command of {limits[0]:g} s or more (the recipe's command_seconds); "
        "give a folder of clean speech, with longer clips or with speakers whose words may be joined"
    )


def draw_voice(recipe: Recipe, rng: np.random.Generator) -> dict:
    """How the utterance sounds before it reaches mouth or recorder, the same for both siblings: soft or raised
    (speech tilts by some dB per octave with vocal effort) and coloured, a curve in dB at octaves from 50 Hz.

    The clips of a speech folder are few and so are the microphones that took them; the world's are not.
    """
    effort = np.clip(rng.normal(0, recipe.effort_db), -2 * recipe.effort_db, 2 * recipe.effort_db)
    return {"effort_db": float(effort), "colour_db": rng.normal(0, recipe.colour_db, 9).tolist()}


def draw_bystander(recipe: Recipe, room: dict, geometry: dict, rng: np.random.Generator) -> dict | None:
    """Somebody who says nothing and breathes, beside whatever speaks, in either class; None where nobody is.

    With the attacker's option of playing while a person is near (detectors of breath and presence then hear one)
    goes the friend who stands beside a talker: the bystander alone must not tell.
    """
    here, aside = rng.random() < recipe.bystander_share, rng.uniform(0.25, 0.6)
    around, breath_db = rng.uniform(0, 2 * np.pi), rng.uniform(28, 45)
    if not here:
        return None
    stand, source = np.array(geometry["stand"]), np.array(geometry["source"])
    place = source + aside * np.array([np.cos(around), np.sin(around), 0.0])
    place = np.clip(place, 0.12, np.array(room["dims"]) - 0.12)
    if np.linalg.norm(place - stand) < 0.4:  # nobody breathes into the microphones
        place = source + aside * (source - stand) / np.linalg.norm(source - stand)
        place = np.clip(place, 0.12, np.array(room["dims"]) - 0.12)
    return {"place": place, "breath_db": breath_db}


def draw_stage(
    recipe: Recipe, corpus_name: str, partition: str, environment: int, rng: np.random.Generator
) -> tuple[dict, bool]:
    """The room that the environment has this time, and whether it is a random one."""
    shared = recipe.home(partition)
    count = max(recipe.rooms[recipe.source_of(partition)], 1)
    random = partition == "train" and environment in (2, 3) and rng.random() < recipe.random_rooms
    if random:
        room_id = f"{shared}-random-{int(rng.integers(count * 5)):04d}"
    else:
        room_id = f"{shared}-env{environment}-{int(rng.integers(count)):03d}"
    return draw_room(corpus_name, room_id, environment, random), random


def set_scene(
    recipe: Recipe,
    cast: Cast,
    environment: int,
    room: dict,
    place: dict,
    said: dict,
    rng: np.random.Generator,
) -> dict:
    """A genuine scene: the talker at the place, in the room, with its own background, level and silences."""
    geometry = draw_geometry(room, place, rng)
    noise = _noise(recipe, environment, place, cast.noise, rng)
    if noise["point_share"]:
        noise["point"] = point_place(room, geometry, environment, rng)
        if environment == 3 and noise["clip"] is None and rng.random() < 0.5:  # the television talks
            limits = (recipe.command_seconds[0], recipe.command_seconds[1])
            clips = cast.clips[cast.draw(rng)]
            noise["television"] = choose_command(cast.speech, clips, limits, CONTENT_RATE, rng)[0]
    lead, trail = rng.uniform(*recipe.lead_seconds), rng.uniform(*recipe.trail_seconds)
    return {
        "partition": cast.partition,
        "label": "genuine",
        "environment": environment,
        "position": (20 if place["moving"] else 10) + place["code"] if environment == 4 else place["code"],
        "speaker": cast.ids[said["voice"]],
        "voice": said["voice"],
        "utterance": said["utterance"],
        "effort_db": said["effort_db"],
        "colour_db": said["colour_db"],
        "lead": lead,
        "trail": trail,
        "seconds": lead + said["spoken"] + trail,
        "level_dbfs": rng.uniform(*recipe.level_dbfs),
        "room": room,
        **geometry,
        "noise": noise,
        "bystander": draw_bystander(recipe, room, geometry, rng),
        "sway": rng.normal(0, 0.008 * recipe.movement, 3).clip(-0.02, 0.02),
        "turn": rng.uniform(-0.12, 0.12) * recipe.movement,
        "directivity": recipe.directivity,
        **({"array": drawn_array(rng)} if recipe.random_arrays else {}),
        "recorder": None,
        "device": None,
        "attack": None,
        "chain": "mouth",
    }


def _environments(recipe: Recipe, partition: str, count: int) -> list[int]:
    """The environment of each of `count` pairs, by the recipe's shares, interleaved."""
    keys = [k for k in recipe.environments_of(partition) if recipe.environments[str(k)] > 0]
    if not recipe.allowed(
        "playback_device", partition, (1, 2, 3, 4)
    ):  # its own loudspeakers play in a vehicle
        keys = [4]
    shares = np.array([recipe.environments[str(k)] for k in keys])
    ideal = shares / shares.sum()
    given = np.zeros(len(keys))
    out = []
    for i in range(count):
        pick = int(np.argmax(ideal * (i + 1) - given))
        given[pick] += 1
        out.append(keys[pick])
    return out


def cast_of(
    recipe: Recipe, speech: Path, clips: list[Clip], noise_clips: dict[str, list[str]]
) -> tuple[dict[str, Cast], dict[str, dict]]:
    """The cast of each partition, and the speakers: {label: {"id", "partition"}}."""
    parts, _ = split_speakers(clips, recipe)
    by_group: dict[str, list[Clip]] = {}
    for clip in clips:
        by_group.setdefault(clip.group, []).append(clip)
    homes = sorted((name, partition) for partition, names in parts.items() for name in names)
    speakers = {name: {"id": i + 1, "partition": home} for i, (name, home) in enumerate(homes)}
    ids = {name: entry["id"] for name, entry in speakers.items()}
    casts = {}
    for partition, names in parts.items():
        weights = weights_of(names, by_group, recipe.unlabelled_share)
        casts[partition] = Cast(partition, speech, by_group, names, weights, ids, noise_clips[partition])
    return casts, speakers


def draw_scenes(
    recipe: Recipe, corpus_name: str, casts: dict[str, Cast], progress: bool = False
) -> list[dict]:
    """Every scene of the corpus, pair by pair."""
    jobs = []
    for partition in (p for p in PARTITIONS if recipe.pairs.get(p, 0)):
        for number, environment in enumerate(_environments(recipe, partition, recipe.pairs[partition])):
            jobs.append((f"{partition}-{number:05d}", environment, casts[partition]))
    pairs = ((1, _pair(recipe, corpus_name, *job)) for job in jobs)
    drawn = tracked(pairs, "drawing pairs of scenes", len(jobs), 0, progress)
    scenes = [scene for pair in drawn for scene in pair]
    # numbers, and with them file ids, that say nothing of class or partition
    for scene, index in zip(scenes, scene_rng(corpus_name, "ids").permutation(len(scenes)), strict=True):
        scene["index"] = int(index)
    return [rounded(scene) for scene in scenes]


def _pair(recipe: Recipe, corpus_name: str, pair: str, environment: int, cast: Cast) -> list[dict]:
    """One genuine scene and its replayed siblings."""
    rng = scene_rng(corpus_name, pair, "pair")
    voice, parts, spoken = draw_command(cast, (recipe.command_seconds[0], recipe.command_seconds[1]), rng)
    room, random = draw_stage(recipe, corpus_name, cast.partition, environment, rng)
    known = _known_position(recipe, cast.partition, environment, rng)
    thirds = recipe.allowed("height", cast.partition, (1, 2, 3))
    place = other = draw_place(room, environment, random, rng, known, thirds)
    if recipe.replay_farther:
        place, other = sorted(
            (place, draw_place(room, environment, random, rng, known, thirds)), key=_distance
        )
    family = int(rng.integers(1, 5))
    heard = {}
    if cast.partition in recipe.one_array:  # of its own stream: what is said does not depend on who hears it
        heard = {"arrays": [str(scene_rng(corpus_name, pair, "array").choice(list(ARRAYS)))]}
    # both siblings say the same in the same voice
    said = {"voice": voice, "utterance": parts, "spoken": spoken, **draw_voice(recipe, rng)}
    out = []
    for sibling in range(1 + recipe.replays_per_genuine):
        scene_id = f"{pair}-{'g' if sibling == 0 else 'r' + str(sibling)}"
        own = scene_rng(corpus_name, scene_id, "scene")
        scene = {"scene_id": scene_id, "pair": pair, **heard}
        scene |= set_scene(recipe, cast, environment, room, other if sibling else place, said, own)
        if sibling:
            add_replay(scene, recipe, own, turn=family + sibling - 1)
        out.append(scene)
    return out


def _known_position(recipe: Recipe, partition: str, environment: int, rng: np.random.Generator) -> int:
    """ReMASC's code of a position that the partition may hold, where positions are held out; else -1: any."""
    if "position" not in recipe.held_out:
        return -1
    place = int(rng.choice(recipe.places_of(partition, environment)))
    return 10 * int(rng.integers(1, len(PLACEMENTS) + 1)) + place if environment == 2 else place


def _distance(place: dict) -> float:
    return float(
        np.linalg.norm([*(place["source"] - place["stand"][:2]), place["height"] - place["stand"][2]])
    )
