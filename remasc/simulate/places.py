"""Rooms of the four environments, and where stand and source are in them: one law for both classes.

Room coordinates: metres, z up. The stand's `forward` is horizontal; the arrays' own frame is (right, up,
forward) as in `remasc.arrays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from remasc.identity import scene_rng
from remasc.simulate.walls import BANDS, walls_for

HEIGHTS, SEATED = (0.8, 1.6), (0.65, 0.95)  # metres of the source above the floor; in a vehicle
SEATS = {1: (0.36, 1.0), 2: (1.04, 1.0), 3: (0.36, 1.75), 4: (1.04, 1.75), 5: (0.36, 2.45), 6: (1.04, 2.45)}
# indoor-1: the used part is 3.0 x 5.4 m; placements of the array and places of the talker in it
PLACEMENTS = {1: (0.35, 0.35), 2: (1.5, 0.3), 3: (1.5, 2.7)}
PLACES = {1: (0.8, 1.2), 2: (2.3, 1.2), 3: (0.8, 3.4), 4: (2.3, 3.4), 5: (0.9, 4.8), 6: (2.2, 4.8)}
# how absorption is spread over the octaves, relative to 1 kHz: bare, panelled, carpeted, curtained
WALL_SHAPES = np.array(
    [
        [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3],
        [2.2, 1.8, 1.3, 1.0, 0.9, 0.9, 0.9],
        [0.3, 0.4, 0.7, 1.0, 1.3, 1.5, 1.6],
        [0.4, 0.7, 0.9, 1.0, 1.1, 1.1, 1.1],
    ]
)


def rounded(value: Any, digits: int = 5) -> Any:
    """Plain numbers for JSON, short enough to read."""
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [rounded(v, digits) for v in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), digits)
    return int(value) if isinstance(value, np.integer) else value


def draw_room(corpus_name: str, room_id: str, environment: int, random: bool = False) -> dict:
    """The room with this identity: dimensions, walls, RT60 by octave, temperature."""
    rng = scene_rng(corpus_name, room_id, "room")
    temperature = rng.uniform(18, 24)
    if environment == 1:
        ground = np.clip(rng.uniform(0.03, 0.35) * WALL_SHAPES[rng.choice([0, 2])], 0.02, 0.7)
        walls = np.zeros((6, len(BANDS)))
        walls[4] = ground
        rt60 = rng.uniform(0.4, 1.0) * np.array([1.1, 1.1, 1.0, 1.0, 0.9, 0.8, 0.6])
        tail_db = rng.uniform(-22, -10)
        return rounded(
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
    kinds = rng.integers(0, len(WALL_SHAPES), 6)
    shares = WALL_SHAPES[kinds] * rng.uniform(0.5, 1.5, (6, 1))
    walls, rt60 = tilted_walls(dims, middle, shares)
    return rounded(
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


def tilted_walls(dims: tuple, middle: float, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walls and RT60 by octave where the whole surface follows its own shape through `middle` s at 1 kHz."""
    x, y, z = dims
    areas = np.array([y * z, y * z, x * z, x * z, x * y, x * y])
    whole = areas @ shares
    rt60 = np.clip(middle * whole[3] / whole, 0.6 * middle, 1.7 * middle)
    return walls_for(dims, rt60, shares), rt60


def draw_place(
    room: dict,
    environment: int,
    random: bool,
    rng: np.random.Generator,
    position: int = -1,
    thirds: Sequence[int] = (1, 2, 3),
) -> dict:
    """Where stand and source are for one pair: stand (3,), floor point of the source (2,), height, facing, code.

    `position` is ReMASC's code (data/README.md) where the place is known; what it does not tell is drawn.
    `thirds` are those of the heights that the source may have.
    """
    dims = np.array(room["dims"])
    height = _height(HEIGHTS, thirds, rng)
    code, moving = -1, False
    if environment == 1:
        code = int(rng.integers(1, 3))
        code = position if position in (1, 2) else code
        distance = (0.5, 1.5)[code - 1] * rng.uniform(0.9, 1.1)
        # a stand near the mouth's height, so that 0.5 m is 0.5 m from mouth to microphones
        drop = rng.uniform(-0.25, 0.25)
        stand = np.array([20.0, 20.0, height + drop])
        around = rng.uniform(0, 2 * np.pi)
        along = np.sqrt(distance**2 - drop**2)
        source = stand[:2] + along * np.array([np.cos(around), np.sin(around)])
    elif random:
        for _ in range(200):
            stand = np.array([*rng.uniform(0.3, dims[:2] - 0.3), rng.uniform(0.6, 1.4)])
            source = rng.uniform(0.4, dims[:2] - 0.4)
            if 0.5 <= np.linalg.norm(source - stand[:2]) <= 4.0:
                break
    elif environment == 2:
        placement, place = int(rng.integers(1, 4)), int(rng.integers(1, 7))
        if position // 10 in PLACEMENTS and position % 10 in PLACES:
            placement, place = divmod(position, 10)
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
        if position // 10 in (1, 2):
            moving = position // 10 == 2
        if position >= 0 and position % 10 in SEATS:
            seat = position % 10
        code = seat
        stand = np.array([dims[0] / 2 + rng.uniform(-0.05, 0.05), 0.55, rng.uniform(0.5, 0.65)])
        source = np.array(SEATS[seat]) + rng.uniform(-0.08, 0.08, 2)
        height = _height(SEATED, thirds, rng)
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


def _height(limits: tuple[float, float], thirds: Sequence[int], rng: np.random.Generator) -> float:
    """Uniform over some of the thirds between two limits, in metres."""
    if len(thirds) == 3:
        return rng.uniform(*limits)
    edges = np.linspace(*limits, 4)
    third = int(rng.choice(list(thirds)))
    return rng.uniform(edges[third - 1], edges[third])


def draw_geometry(room: dict, place: dict, rng: np.random.Generator) -> dict:
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


def point_place(room: dict, geometry: dict, environment: int, rng: np.random.Generator) -> list[float]:
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
