"""The simulator's room responses beside the full image method's, and beside measured ones where somebody has them.

The full image method knows mirrors alone: paths that meet few walls outlive all others. Walls with some scattering
(image method for the early part, traced rays behind it) are the second reference, for the decay. What the rays
carry depends on how large their receiver is, so its ratios of energies are none.
Decay (T20 at 500 to 1000 Hz), clarity C50, direct-to-reverberant ratio, and coherence between two microphones of
what comes 50 ms after the direct sound. Shapes: M microphones, L taps, S emitters.

Measured array responses: a folder of sound files (M, T), one source each, and `measured.json` in it:
{"hall.wav": {"distance": 2.0, "rt60": 0.6, "dims": [8, 6, 3], "positions": [[-0.02, 0, 0], [0.02, 0, 0]]}, ...};
distance (m) and RT60 (s) of every file, the room's dimensions and the microphones' positions (m) where known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from remasc.audio import read_audio, resample
from remasc.identity import scene_rng
from remasc.sentences import quoted
from remasc.simulate.measures import EARLY_S, clarity, decay_curve, direct_to_reverberant, reverberation_time
from remasc.simulate.places import draw_room, tilted_walls
from remasc.simulate.rooms import BANDS, PRE, Emitter, Room, omni, responses, room_of
from remasc.simulate.scenes import CONTENT_RATE

RT60 = (0.2, 0.35, 0.5, 0.8)
DISTANCES = (1.0, 2.5)
PLACES = 3  # in each room and at each distance
SCATTERING, RAYS, RECEIVER_M = 0.3, 20_000, 0.3  # of the walls' reflections; traced rays and who catches them
ARRAY = np.array([[-0.0465, 0.0, 0.0], [0.0465, 0.0, 0.0]])  # opposite microphones of D3
PLAN = "measured.json"


def full_order(
    room: Room,
    emitters: list[Emitter],
    mics: np.ndarray,
    rate: int,
    rng: object = None,
    centre: object = None,
) -> np.ndarray:
    """`responses` by pyroomacoustics' image method: (S, M, L), time zero at sample PRE; emitters radiate evenly."""
    order = int(np.ceil(room.speed_of_sound * max(room.rt60) / min(room.dims)))
    return _computed(_box(room, rate, max_order=order), emitters, mics)


def scattered(room: Room, emitter: Emitter, mics: np.ndarray, rate: int) -> np.ndarray:
    """(M, L), time zero at sample PRE: images of up to three walls, and traced rays, of which walls scatter
    `SCATTERING`. Rays are drawn by pyroomacoustics: figures differ by some percent from run to run."""
    box = _box(room, rate, SCATTERING, max_order=3, ray_tracing=True)
    box.set_ray_tracing(n_rays=RAYS, receiver_radius=RECEIVER_M)
    return _computed(box, [emitter], mics)[0]


def _box(room: Room, rate: int, scattering: float | None = None, **how: Any) -> Any:
    import pyroomacoustics as pra

    pra.constants.set("num_threads", 1)  # threads of its own, which no pool's limit reaches
    walls = [
        pra.Material({"coeffs": list(a), "center_freqs": BANDS.tolist()}, scattering) for a in room.absorption
    ]
    sides = dict(zip(("west", "east", "south", "north", "floor", "ceiling"), walls, strict=True))
    return pra.ShoeBox(
        room.dims,
        fs=rate,
        materials=sides,
        air_absorption=True,
        temperature=room.temperature,
        humidity=50,
        **how,
    )


def _computed(box: Any, emitters: list[Emitter], mics: np.ndarray) -> np.ndarray:
    """Responses (S, M, L) of pyroomacoustics' room, time zero at sample PRE."""
    import pyroomacoustics as pra

    for emitter in emitters:
        box.add_source(emitter.position)
    box.add_microphone_array(mics.T)
    box.compute_rir()
    late = pra.constants.get("frac_delay_length") // 2  # its responses begin so many samples late
    longest = max(len(h) for of_mic in box.rir for h in of_mic)
    out = np.zeros((len(emitters), len(mics), longest + PRE), np.float32)
    for m, of_mic in enumerate(box.rir):
        for s, h in enumerate(of_mic):
            cut = h[late - PRE :]
            out[s, m, : len(cut)] = cut
    return out


def even_room(rt60: float, dims: tuple[float, ...]) -> Room:
    """A room of these dimensions whose walls are all alike."""
    walls, decays = tilted_walls(dims, rt60, np.ones((6, len(BANDS))))
    return Room(f"room-{rt60}", "shoebox", tuple(dims), tuple(map(tuple, walls)), tuple(decays), 20.0)


def place(
    room: Room, distance: float, array: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Emitter]:
    """Microphones (M, 3) somewhere in the room and a source at that distance, at least 0.3 m from any wall."""
    inside = np.array(room.dims)
    for _ in range(10_000):
        stand = rng.uniform(0.3, inside - 0.3)
        towards = rng.standard_normal(3) * [1, 1, 0.2]
        source = stand + distance * towards / np.linalg.norm(towards)
        if ((source > 0.3) & (source < inside - 0.3)).all():
            return stand + array, Emitter(source, -towards / np.linalg.norm(towards), omni)
    raise ValueError(
        f"a source {distance:g} m from the microphones does not fit into a room of "
        f"{' x '.join(f'{d:g}' for d in room.dims)} m; give the true dims in {PLAN}"
    )


def likeness(rt60: float) -> list[dict]:
    """What all methods measure in one room, a row a distance, means over places; curves with the farthest one."""
    room = even_room(rt60, room_of(draw_room("benchmark", f"room-{rt60}", 2)).dims)
    rows = []
    for distance in DISTANCES:
        found: dict[str, list[dict]] = {"simulator": [], "full": []}
        decays = []
        for number in range(PLACES):
            rng = scene_rng("benchmark", f"{rt60}-{distance}-{number}")
            mics, emitter = place(room, distance, ARRAY, rng)
            direct = PRE + distance / room.speed_of_sound * CONTENT_RATE
            ours = responses(room, [emitter], mics, CONTENT_RATE, rng)[0]
            theirs = full_order(room, [emitter], mics, CONTENT_RATE)[0]
            found["simulator"].append(describe(ours, direct, mics))
            found["full"].append(describe(theirs, direct, mics))
            rough = scattered(room, emitter, mics[:1], CONTENT_RATE)
            decays.append(reverberation_time(rough, CONTENT_RATE))
        row = {"rt60": rt60, "distance": distance, "t20_scattered": float(np.mean(decays))}
        rows.append(row | {name: mean_of(each) for name, each in found.items()})
    return rows


def describe(response: np.ndarray, direct: float, mics: np.ndarray | None) -> dict:
    """Figures and curves of responses (M, L) whose direct sound comes at sample `direct`."""
    out: dict = {
        "t20": reverberation_time(response, CONTENT_RATE),
        "c50_db": clarity(response, CONTENT_RATE, direct),
        "drr_db": direct_to_reverberant(response, CONTENT_RATE, direct),
        "decay": decay_curve(response[:, round(direct) - 20 :], CONTENT_RATE)[::160][:80].tolist(),
    }
    late = response[:, round(direct + EARLY_S * CONTENT_RATE) :]
    if mics is not None and len(mics) > 1 and late.shape[1] >= 512:
        one, other = 0, len(mics) - 1
        f, cross = signal.csd(late[one], late[other], CONTENT_RATE, nperseg=128)
        powers = [signal.welch(late[m], CONTENT_RATE, nperseg=128)[1] for m in (one, other)]
        out["cross"] = cross.real / np.sqrt(powers[0].sum() * powers[1].sum())
        out["power"] = np.sqrt(powers[0] * powers[1]) / np.sqrt(powers[0].sum() * powers[1].sum())
        out["sinc"] = np.sinc(2 * f * float(np.linalg.norm(mics[one] - mics[other])) / 343.0)
    return out


def mean_of(each: list[dict]) -> dict:
    """Figures averaged over places; coherence from cross-spectra and powers averaged over them."""
    out = {key: float(np.nanmean([d[key] for d in each])) for key in ("t20", "c50_db", "drr_db")}
    shortest = min(len(d["decay"]) for d in each)
    out["decay"] = np.mean([d["decay"][:shortest] for d in each], axis=0).tolist()
    heard = [d for d in each if "cross" in d]
    if heard:
        coherence = np.mean([d["cross"] for d in heard], axis=0) / np.mean(
            [d["power"] for d in heard], axis=0
        )
        kept = slice(2, round(5000 / (CONTENT_RATE / 128)))  # 250 to 5000 Hz
        out["coherence"] = coherence.tolist()
        out["coherence_error"] = float(np.sqrt(np.mean((coherence - heard[0]["sinc"])[kept] ** 2)))
    return out


def measured_rows(folder: Path) -> list[dict]:
    """What each measured response of a folder says, and a simulated one of the same RT60, distance and room."""
    rows = []
    for name, told in _plan(folder).items():
        waveform, rate = read_audio(folder / name)
        response = resample(waveform, rate, CONTENT_RATE)
        mics = _numbers(told, "positions", (len(response), 3), folder, name)
        dims = _numbers(told, "dims", (3,), folder, name)
        rt60, distance = float(told["rt60"]), float(told["distance"])
        room = even_room(rt60, tuple((5.0, 7.0, 2.7) if dims is None else dims))
        rng = scene_rng("measured", name)
        ours, direct = [], PRE + distance / room.speed_of_sound * CONTENT_RATE
        for _ in range(PLACES):
            array = mics - mics.mean(axis=0) if mics is not None else np.zeros((1, 3))
            places, emitter = place(room, distance, array, rng)
            ours.append(describe(responses(room, [emitter], places, CONTENT_RATE, rng)[0], direct, places))
        first = int(np.argmax(np.abs(response).max(axis=0)))  # the direct sound is the loudest
        padded = np.pad(response, ((0, 0), (PRE, 0)))
        found = mean_of([describe(padded, first + PRE, mics)])
        rows.append(
            {"file": name, "rt60": rt60, "distance": distance, "simulator": mean_of(ours), "full": found}
        )
    return rows


def _numbers(told: dict, key: str, shape: tuple[int, ...], folder: Path, name: str) -> np.ndarray | None:
    """A list of numbers of this shape that the plan says of a file, or None where it says nothing."""
    if key not in told:
        return None
    try:
        out = np.array(told[key], float)
        fits = out.shape == shape and np.isfinite(out).all() and (key != "dims" or (out > 0.7).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        rows = (
            "three numbers" if key == "dims" else f"three numbers for each of the file's {shape[0]} channels"
        )
        raise ValueError(f"{folder / PLAN}: {key} of {quoted(name)}: expected {rows}, in metres")
    return out


def _plan(folder: Path) -> dict[str, dict]:
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        fits = all(float(told["rt60"]) > 0 and float(told["distance"]) > 0 for told in plan.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not readable ({type(error).__name__}); expected a table of files with distance and rt60 each"
        ) from None
    if not plan or not fits:
        raise ValueError(f"{path}: names no file, or one without a distance and an RT60 above zero; add them")
    return plan
