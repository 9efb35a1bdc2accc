"""From a recipe to a corpus on disk in ReMASC's layout; resumable, and the same bytes from any number of workers.

Order of writing: scenes.jsonl and partitions.tsv (nothing heard yet), the sound files, each whole under its
own name, then meta.csv and corpus.json: a folder with meta.csv is a whole corpus.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from remasc.arrays import ARRAYS
from remasc.audio import write_wav
from remasc.simulate.identity import scene_rng
from remasc.simulate.layout import is_done, sound_path, write_plan, write_tables
from remasc.simulate.recipes import PARTITIONS, Recipe, load_recipe
from remasc.simulate.scenes import draw_scenes
from remasc.simulate.speech import Clip, Folders, audio_files, describe_sources, scan_speech
from remasc.simulate.voices import make_voices

VERSION = 2  # of the simulator: raised whenever the same recipe would give other bytes (2: no rumble)


def generate(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    speech: Path | None = None,
    noise: Path | None = None,
    arrays: Sequence[str] = ("D1", "D2", "D3", "D4"),
    workers: int | None = None,
    scale: float = 1.0,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> Path:
    """Simulate the corpus of a recipe (a shipped name, a TOML file or a `Recipe`) into `out`; returns its root.

    speech: a folder of clean speech, with a metadata.csv (file, speaker) where speakers are known; without it
    the embedded synthesiser speaks. noise: a folder of background clips. arrays: which of D1..D4 to render.
    workers: processes (all cores by default). scale: more or fewer pairs than the recipe says. resume: keep
    sound files that an interrupted run of the same corpus left; a folder holding another corpus is refused.
    """
    plan = load_recipe(recipe).scaled(scale)
    out, names = Path(out), _array_names(arrays)
    corpus_name = f"{plan.name}-v{plan.version}-s{seed}"
    _check_target(out, speech)
    out.mkdir(parents=True, exist_ok=True)
    with _bar(progress) as show:
        folders = Folders(
            Path(speech) if speech is not None else _voices(plan, out, corpus_name),
            None if noise is None else Path(noise),
        )
        clips = scan_speech(folders.speech)
        noise_clips = _noise_by_partition(noise, corpus_name)
        scenes, speakers = draw_scenes(plan, corpus_name, folders.speech, clips, noise_clips, show)
        card = _card(plan, corpus_name, seed, names, clips, speakers, folders)
        write_plan(out, scenes, {"name": corpus_name, "version": VERSION}, names, resume)
        _render_all(scenes, corpus_name, names, folders, out, workers, show)
    write_tables(out, scenes, card, names)
    return out


def _array_names(arrays: Sequence[str]) -> tuple[str, ...]:
    wanted = {str(a).upper() for a in ([arrays] if isinstance(arrays, str) else arrays)}
    if unknown := sorted(wanted - set(ARRAYS)):
        raise ValueError(
            f"array {unknown[0]!r} cannot be simulated in ReMASC's layout; expected {', '.join(ARRAYS)}"
        )
    if not wanted:
        raise ValueError("no array is named; expected one or more of " + ", ".join(ARRAYS))
    return tuple(name for name in ARRAYS if name in wanted)


def _check_target(out: Path, speech: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; expected a folder for the corpus")
    if speech is not None and out.resolve().is_relative_to(Path(speech).resolve()):
        raise ValueError(
            f"{out}: lies in the speech folder and would become speech itself; choose another --out"
        )


def _voices(plan: Recipe, out: Path, corpus_name: str) -> Path:
    """The stand-in speech folder below `out`, with enough voices for every partition that is wanted."""
    count = sum(plan.voices.get(p, 0) for p in PARTITIONS if plan.pairs.get(p, 0))
    return make_voices(out / "voices", corpus_name, max(count, 4))


def _noise_by_partition(noise: Path | None, corpus_name: str) -> dict[str, list[str]]:
    """Noise clips, each in one partition only; with fewer than three clips all share them."""
    if noise is None:
        return {p: [] for p in PARTITIONS}
    files = [p.relative_to(noise).as_posix() for p in audio_files(Path(noise))]
    order = scene_rng(corpus_name, "noise", "split").permutation(len(files))
    if len(files) < 3:
        return dict.fromkeys(PARTITIONS, files)
    parts: dict[str, list[str]] = {p: [] for p in PARTITIONS}
    for rank, index in enumerate(order):
        parts[("train", "eval", "train", "dev", "train")[rank % 5] if rank >= 3 else PARTITIONS[rank]].append(
            files[index]
        )
    return {p: sorted(found) for p, found in parts.items()}


def _card(
    plan: Recipe,
    corpus_name: str,
    seed: int,
    arrays: tuple[str, ...],
    clips: list[Clip],
    speakers: dict[str, dict],
    folders: Folders,
) -> dict:
    return {
        "name": corpus_name,
        "simulated": True,
        "version": VERSION,
        "seed": seed,
        "recipe": plan.to_dict(),
        "arrays": list(arrays),
        "speech": describe_sources(folders.speech),
        "noise": describe_sources(folders.noise),
        "clips": len(clips),
        "speakers": speakers,
        "content_below_hz": 7500,
    }


def render_batch(
    scenes: list[dict], corpus_name: str, arrays: tuple[str, ...], folders: Folders, out: Path
) -> int:
    """Render and write some scenes in this process with one thread; the number of scenes done."""
    from threadpoolctl import threadpool_limits

    from remasc.simulate.render import render_scene

    with threadpool_limits(1):
        for scene in scenes:
            sounds = render_scene(scene, corpus_name, arrays, folders)
            for array, (waveform, rate, subtype) in sounds.items():
                write_wav(sound_path(out, scene, array), waveform, rate, subtype)
    return len(scenes)


def _render_all(
    scenes: list[dict],
    corpus_name: str,
    arrays: tuple[str, ...],
    folders: Folders,
    out: Path,
    workers: int | None,
    show: Callable[[str, int, int], None],
) -> None:
    todo = [scene for scene in scenes if not is_done(scene, arrays, out)]
    done = len(scenes) - len(todo)
    show("rendering", done, len(scenes))
    workers = min(workers or os.cpu_count() or 1, max(1, len(todo)))
    size = max(1, min(8, len(todo) // (4 * workers)))
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    if workers == 1:
        for batch in batches:
            done += render_batch(batch, corpus_name, arrays, folders, out)
            show("rendering", done, len(scenes))
        return
    from joblib import Parallel, delayed

    jobs = (delayed(render_batch)(batch, corpus_name, arrays, folders, out) for batch in batches)
    for count in Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
        done += count
        show("rendering", done, len(scenes))


@contextmanager
def _bar(progress: bool) -> Iterator:
    """A function show(what, done, total) that draws a bar with the time left, or does nothing."""
    if not progress:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task("simulating", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
