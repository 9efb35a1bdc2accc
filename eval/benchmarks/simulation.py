"""How fast a scene is simulated, and how near its rooms come to the full image method, in the same run.

    python -m eval.benchmarks.simulation [--repeats 3] [--figure FILE.png]

Speed: a replay of 3 s in a room of RT60 0.5 s, two drivers and a recording room of its own, on all four arrays (19
channels), rendered with the simulator's responses (early images and a matched diffuse tail) and with those of
pyroomacoustics' image method at full order (every image that arrives before the decay ends). One thread.
Likeness: decay (T20 at 500 to 1000 Hz), clarity C50, direct-to-reverberant ratio and the coherence of the late part
between two microphones, of both, in rooms of several decays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import signal

from remasc import ARRAYS
from remasc.audio import write_wav
from remasc.identity import scene_rng
from remasc.simulate import Recipe, render
from remasc.simulate.places import draw_room, tilted_walls
from remasc.simulate.rooms import BANDS, PRE, Emitter, Room, omni, responses, room_of
from remasc.simulate.scenes import CONTENT_RATE, cast_of, draw_scenes
from remasc.simulate.speech import Folders, scan_speech

RT60 = (0.2, 0.35, 0.5, 0.8)
DISTANCES = (1.0, 2.5)
NAMES = tuple(ARRAYS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        report = {
            "speed": speed(options.repeats),
            "likeness": [row for rt60 in RT60 for row in likeness(rt60)],
        }
    print(json.dumps(report, indent=1))
    if options.figure is not None:
        draw(report["likeness"], options.figure)


def full_order(
    room: Room,
    emitters: list[Emitter],
    mics: np.ndarray,
    rate: int,
    rng: object = None,
    centre: object = None,
) -> np.ndarray:
    """`responses` by pyroomacoustics' image method: (S, M, L), time zero at sample PRE; emitters radiate evenly."""
    import pyroomacoustics as pra

    pra.constants.set("num_threads", 1)  # threads of its own, which no pool's limit reaches
    walls = [pra.Material({"coeffs": list(a), "center_freqs": BANDS.tolist()}) for a in room.absorption]
    sides = dict(zip(("west", "east", "south", "north", "floor", "ceiling"), walls, strict=True))
    order = int(np.ceil(room.speed_of_sound * max(room.rt60) / min(room.dims)))
    box = pra.ShoeBox(
        room.dims, fs=rate, materials=sides, max_order=order, air_absorption=True, temperature=room.temperature,
        humidity=50,
    )  # fmt: skip
    for emitter in emitters:
        box.add_source(emitter.position)
    box.add_microphone_array(mics.T)
    box.compute_rir()
    late = pra.constants.get("frac_delay_length") // 2  # its responses begin so many samples late
    longest = max(len(h) for of_mic in box.rir for h in of_mic)
    out = np.zeros((len(emitters), len(mics), longest + PRE), np.float32)
    for m, of_mic in enumerate(box.rir):
        for s, h in enumerate(of_mic):
            # pyroomacoustics' sources radiate 1 / (4 pi distance)
            cut = h[late - PRE :]
            out[s, m, : len(cut)] = 4 * np.pi * cut
    return out


def speed(repeats: int) -> dict[str, float]:
    """Median seconds of one scene with either kind of responses, scenes per second, and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        scene, folders = busy_scene(Path(folder))
        ours = lambda: render.render_scene(scene, "benchmark", NAMES, folders)  # noqa: E731
        ours()
        fast = _median(ours, repeats)
        own = render.responses
        try:
            render.responses = full_order
            slow = _median(ours, 1)
        finally:
            render.responses = own
    return {
        "seconds a scene": fast,
        "scenes a second and core": 1 / fast,
        "seconds with the full image method": slow,
        "ratio": slow / fast,
    }


def busy_scene(folder: Path) -> tuple[dict, Folders]:
    """The scene of the speed test, of made-up syllables."""
    rng, t = scene_rng("benchmark", "voice"), np.arange(int(1.2 * CONTENT_RATE)) / CONTENT_RATE
    rows = ["file,speaker"]
    for name in range(12):
        pitch = rng.uniform(90, 200)
        voice = sum(np.sin(2 * np.pi * pitch * h * t + h) / h for h in range(1, 40))
        voice = voice * np.clip(np.sin(2 * np.pi * 2.5 * (t - 0.1)), 0, 1) * 0.1
        write_wav(folder / f"{name}.wav", voice[None].astype(np.float32), CONTENT_RATE)
        rows.append(f"{name}.wav,speaker{name % 3}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    recipe = Recipe("benchmark", pairs={"eval": 60}, environments={"2": 1.0})
    casts, _ = cast_of(recipe, folder, scan_speech(folder), {"train": [], "dev": [], "eval": []})
    for scene in draw_scenes(recipe, "benchmark", casts):
        two = scene["device"] and scene["device"]["family"] == 1  # a headphone: two drivers
        if two and scene["recorder"]["kind"] != 3 and not scene["noise"]["point_share"]:
            walls, rt60 = tilted_walls(tuple(scene["room"]["dims"]), 0.5, np.ones((6, len(BANDS))))
            scene["room"] |= {"absorption": walls.tolist(), "rt60": rt60.tolist()}
            scene["seconds"] = 3.0
            return scene, Folders(folder)
    raise AssertionError("no such scene was drawn")


def likeness(rt60: float) -> list[dict]:
    """Decay, clarity, direct-to-reverberant ratio and late coherence in one room at some distances, both ways."""
    room = room_of(draw_room("benchmark", f"room-{rt60}", 2))
    walls, decays = tilted_walls(room.dims, rt60, np.ones((6, len(BANDS))))
    room = Room(room.room_id, room.kind, room.dims, tuple(map(tuple, walls)), tuple(decays), 20.0)
    rows = []
    for distance in DISTANCES:
        stand = np.array([0.42 * room.dims[0], 0.2 * room.dims[1], 1.2])
        mics = stand + ARRAYS["D3"].positions[:, [0, 2, 1]]
        emitter = Emitter(stand + distance * np.array([0.2, 0.97, 0.1]), np.array([0.0, -1.0, 0.0]), omni)
        rng = scene_rng("benchmark", f"{rt60}-{distance}")
        found = {
            "ours": responses(room, [emitter], mics, CONTENT_RATE, rng)[0],
            "full": full_order(room, [emitter], mics, CONTENT_RATE)[0],
        }
        row: dict = {"rt60": rt60, "distance": distance}
        for name, response in found.items():
            first = PRE + distance / room.speed_of_sound * CONTENT_RATE
            row[name] = describe(response, round(first), mics)
        rows.append(row)
    return rows


def describe(response: np.ndarray, direct: int, mics: np.ndarray) -> dict[str, float]:
    """Of responses (M, L) whose direct sound comes at sample `direct`: means over the microphones."""
    sections = signal.butter(3, [355, 1410], "bandpass", fs=CONTENT_RATE, output="sos")
    energy = np.square(signal.sosfilt(sections, response, axis=1)).mean(axis=0)
    curve = 10 * np.log10(np.cumsum(energy[::-1])[::-1] / energy.sum() + 1e-12)
    inside = np.flatnonzero((curve < -5) & (curve > -25))
    slope = np.polyfit(inside / CONTENT_RATE, curve[inside], 1)[0]
    whole = np.square(response).sum(axis=1)
    window = round(0.0025 * CONTENT_RATE)
    own = np.square(response[:, max(0, direct - window) : direct + window]).sum(axis=1)
    early = np.square(response[:, : direct + round(0.05 * CONTENT_RATE)]).sum(axis=1)
    late = response[:, direct + round(0.05 * CONTENT_RATE) :]
    f, cross = signal.csd(late[0], late[3], CONTENT_RATE, nperseg=256)
    powers = [signal.welch(late[m], CONTENT_RATE, nperseg=256)[1] for m in (0, 3)]
    coherence = cross.real / np.sqrt(powers[0] * powers[1])
    expected = np.sinc(2 * f * np.linalg.norm(mics[0] - mics[3]) / 343.0)
    kept = (f > 200) & (f < 5000)
    return {
        "t20": float(-60 / slope),
        "c50_db": float(np.mean(10 * np.log10(early / np.maximum(whole - early, 1e-12)))),
        "drr_db": float(np.mean(10 * np.log10(own / np.maximum(whole - own, 1e-12)))),
        "coherence_error": float(np.sqrt(np.mean((coherence - expected)[kept] ** 2))),
    }


def draw(rows: list[dict], path: Path) -> None:
    """One panel a figure of merit: ours against the full image method, room by room."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for panel, (key, title) in zip(
        panels,
        (("t20", "T20 (s)"), ("c50_db", "C50 (dB)"), ("drr_db", "direct / reverberant (dB)")),
        strict=True,
    ):
        for distance in DISTANCES:
            chosen = [row for row in rows if row["distance"] == distance]
            x, y = ([row[name][key] for row in chosen] for name in ("full", "ours"))
            panel.plot(x, y, "o", label=f"{distance:g} m")
        ends = [min(panel.get_xlim()[0], panel.get_ylim()[0]), max(panel.get_xlim()[1], panel.get_ylim()[1])]
        panel.plot(ends, ends, "-", color="0.7", zorder=0)
        panel.set(title=title, xlabel="full image method", ylabel="simulator")
    panels[0].legend(title="distance")
    figure.savefig(path, dpi=110)


def _median(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
