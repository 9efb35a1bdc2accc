"""How fast a scene is simulated, and how near its rooms come to the full image method, in the same run.

    python -m eval.benchmarks.simulation [--repeats 3] [--measured FOLDER] [--results eval/results/simulation]

Speed: a replay of 3 s in a room of RT60 0.5 s, two drivers and a recording room of its own, on all four arrays (19
channels), rendered with the simulator's responses (early images and a matched diffuse tail) and with those of
pyroomacoustics' image method at full order (every image that arrives before the decay ends). One thread, processor
time: who else uses the machine does not count. Memory: the largest that a process which renders it ever was.
Likeness: see eval/benchmarks/responses.py, also for the folder of measured responses; exit 1 where the simulator is
farther from its references than the tolerances of eval/benchmarks/response_figures.py. Writes responses.md and
responses.png where --results says.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from eval.benchmarks.response_figures import differences, draw, table, within
from eval.benchmarks.responses import PLACES, RT60, full_order, likeness, measured_rows
from remasc import ARRAYS
from remasc.atomic import whole_file, write_text
from remasc.audio import write_wav
from remasc.identity import scene_rng
from remasc.simulate import Recipe, render
from remasc.simulate.generate import VERSION
from remasc.simulate.places import tilted_walls
from remasc.simulate.rooms import BANDS
from remasc.simulate.scenes import CONTENT_RATE, cast_of, draw_scenes
from remasc.simulate.speech import Folders, scan_speech

NAMES = tuple(ARRAYS)
COMMAND = "python -m eval.benchmarks.simulation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measured", type=Path, default=None)
    parser.add_argument("--results", type=Path, default=None)
    options = parser.parse_args()
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(1):
            report = {
                "speed": speed(options.repeats),
                "likeness": [row for rt60 in RT60 for row in likeness(rt60)],
                "measured": measured_rows(options.measured) if options.measured is not None else [],
            }
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(json.dumps(short(report), indent=1))
    if options.results is not None:
        written(report, options.results)
    held = within(report["likeness"])
    print("\n".join(_verdict(name, *each) for name, each in held.items()))
    sys.exit(int(any(found > allowed for found, allowed in held.values())))


def _verdict(name: str, found: float, allowed: float) -> str:
    return f"{name}: {found:.2g} at worst, {allowed:g} allowed: {'held' if found <= allowed else 'NOT HELD'}"


def short(report: dict) -> dict:
    """The report without its curves."""
    if isinstance(report, dict):
        return {k: short(v) for k, v in report.items() if k not in ("decay", "coherence")}
    return [short(v) for v in report] if isinstance(report, list) else report


def speed(repeats: int) -> dict[str, float]:
    """Median seconds of one core for one scene with either kind of responses, scenes per second, and the ratio."""
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
        "MiB of a worker": worker_memory(),
    }


def worker_memory() -> float:
    """The largest that a process of its own was (MiB) which rendered the scene twice."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_rendered).result()


def _rendered() -> float:
    with tempfile.TemporaryDirectory() as folder:
        scene, folders = busy_scene(Path(folder))
        for _ in range(2):
            render.render_scene(scene, "benchmark", NAMES, folders)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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


def written(report: dict, folder: Path) -> None:
    """responses.md and responses.png, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    speed_of = report["speed"]
    lines = [
        "# Room responses of the simulator (simulated)",
        "",
        f"Simulator {VERSION}; written by `{COMMAND}`. Two microphones 9.3 cm apart, {PLACES} places a row, "
        "omnidirectional source, walls alike.",
        "",
        *table(report["likeness"], "full image method"),
        "",
        differences(report["likeness"]),
        "",
        "A shoebox without scattering decays more slowly than its walls' RT60: paths that meet few walls stay. "
        "The full image method keeps that; the simulator's tail is diffuse and keeps the RT60 that was asked, as "
        "rooms with furniture do, and as pyroomacoustics' traced rays do once walls scatter a little of them.",
        "",
        f"Speed, one thread, processor time: {speed_of['scenes a second and core']:.1f} scenes a second of 3 s on "
        f"19 channels (two drivers, a recording room), {speed_of['ratio']:.0f} times the full image method's; "
        f"{speed_of['MiB of a worker']:.0f} MiB at most.",
        "",
        *(f"- {_verdict(name, *each)}" for name, each in within(report["likeness"]).items()),
    ]
    if report["measured"]:
        lines += ["", "## Measured responses", "", *table(report["measured"], "measured")]
    lines += ["", "![Figures of merit, decay and coherence](responses.png)"]
    with whole_file(folder / "responses.png") as temporary:
        temporary.write_bytes(draw(report["likeness"], report["measured"]))
    write_text(folder / "responses.md", "\n".join(lines) + "\n")


def _median(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
