"""From a recipe to a corpus on disk in ReMASC's layout; resumable, and the same bytes from any number of workers.

Order of writing: scenes.jsonl and partitions.tsv (nothing heard yet), the sound files, each whole under its
own name, then meta.csv and corpus.json: a folder with meta.csv is a whole corpus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from remasc.arrays import ARRAYS
from remasc.audio import write_wav
from remasc.parallel import checked_workers, tracked, unordered
from remasc.protocol import PARTITIONS
from remasc.schema import RecordingDevice
from remasc.sentences import quoted
from remasc.simulate.background import check_noise
from remasc.simulate.casts import split_speakers
from remasc.simulate.layout import (
    PLAN,
    VOICES,
    arrays_of,
    check_place,
    check_room,
    is_done,
    sound_path,
    write_plan,
    write_tables,
)
from remasc.simulate.recipes import Recipe, load_recipe
from remasc.simulate.scenes import cast_of, draw_scenes
from remasc.simulate.speech import (
    Clip,
    Folders,
    audio_files,
    check_speech,
    describe_sources,
    doubts,
    scan_speech,
    sources_of,
)
from remasc.simulate.split import split
from remasc.simulate.template import draw_rows, template_rows
from remasc.simulate.voices import make_voices

VERSION = 6  # of the simulator: raised whenever the same recipe would give other bytes
STAND_INS = {
    "source_recorder 3": "the clean utterance itself, played without a recorder; no synthesiser spoke it",
    "random rooms": "train only; their environment is that whose background they have, their position is -1",
}
NOISE_SHARE = {"train": 0.5, "dev": 0.2, "eval": 0.3}  # of the noise clips


def generate(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    speech: Path | None = None,
    noise: Path | None = None,
    template: Path | None = None,
    arrays: Sequence[str] = ("D1", "D2", "D3", "D4"),
    workers: int | None = None,
    scale: float = 1.0,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> Path:
    """Simulate the corpus of a recipe (a shipped name, a TOML file or a `Recipe`) into `out`; returns its root.

    speech: a folder of clean speech, with a metadata.csv (file, speaker) where speakers are known; without it
    the embedded synthesiser speaks. noise: a folder of background clips. template: for recipes that follow a real
    meta.csv, the folder that holds core/ and eval/, or one of their meta.csv. arrays: which of D1..D4 to render.
    workers: processes (all cores by default). scale: more or fewer pairs than the recipe says. resume: keep
    sound files that an interrupted run of the same corpus left; a folder holding another corpus is refused.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise ValueError(f"seed is {quoted(seed)}; expected an integer")
    plan, template = load_recipe(recipe), _template_root(template)
    _check_template(plan, template, scale)
    plan = plan if plan.template else plan.scaled(scale)
    out, names = Path(out), _array_names(plan, arrays)
    seed = int(seed)
    corpus_name = f"{plan.name}-v{plan.version}-s{seed}"
    _check_target(out, speech=speech, noise=noise)
    workers = checked_workers(workers)
    stamp = {"name": corpus_name, "version": VERSION, "arrays": list(names)}
    check_place(out, stamp, resume)
    if resume and speech is None and (out / PLAN).is_file() and not (out / VOICES).is_dir():
        raise ValueError(f"{out}: its corpus was made of a folder of speech; name it again with --speech")
    noise_clips, apart = _noise_by_partition(None if noise is None else Path(noise), progress)
    folders = Folders(
        Path(speech) if speech is not None else _voices(plan, out, corpus_name),
        None if noise is None else Path(noise),
    )
    clips = scan_speech(folders.speech)
    check_speech(folders.speech, clips)
    _check_speakers(plan, folders.speech, clips)
    casts, speakers = cast_of(plan, folders.speech, clips, noise_clips)
    if template is None:
        scenes = draw_scenes(plan, corpus_name, casts, progress)
    else:
        rows = [row for row in template_rows(template, scale) if row.array in names]
        if not rows:
            raise ValueError(
                f"{scale:g} of the template's rows holds none of {', '.join(names)}; raise --scale, or name more "
                "arrays"
            )
        scenes = draw_rows(plan, corpus_name, casts, rows, progress)
    card = _card(plan, corpus_name, seed, names, clips, speakers, folders)
    card |= {"noise_disjoint": apart, "speakers_by_label": split_speakers(clips, plan)[1]}
    stamp |= _sources(out, scenes, folders, resume)
    check_room(out, scenes, names)
    out.mkdir(parents=True, exist_ok=True)  # not before: what is refused leaves no folder
    write_plan(out, scenes, stamp, names, resume)
    _render_all(scenes, corpus_name, names, folders, out, workers, progress)
    write_tables(out, scenes, card, names)
    return out


def _array_names(plan: Recipe, arrays: Sequence[str]) -> tuple[str, ...]:
    if plan.random_arrays:  # of the recipe's own making, whatever is asked for
        return (RecordingDevice.RANDOM.name,)
    wanted = {str(a).upper() for a in ([arrays] if isinstance(arrays, str) else arrays)}
    if unknown := sorted(wanted - set(ARRAYS)):
        raise ValueError(
            f"array {unknown[0]!r} cannot be simulated in ReMASC's layout; expected {', '.join(ARRAYS)}"
        )
    if not wanted:
        raise ValueError("no array is named; expected one or more of " + ", ".join(ARRAYS))
    return tuple(name for name in ARRAYS if name in wanted)


def _check_template(plan: Recipe, template: Path | None, scale: float) -> None:
    if plan.template and template is None:
        raise ValueError(
            f"the recipe {plan.name} follows a real meta.csv; give --template ROOT, a folder with core/meta.csv "
            "and eval/meta.csv (the sound is not needed)"
        )
    if template is not None and not plan.template:
        raise ValueError(
            f"the recipe {plan.name} follows no template; leave --template out, or choose remasc-sim"
        )
    if plan.template and not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}; expected a share of the template's rows, above 0 and up to 1")


def _template_root(template: Path | None) -> Path | None:
    """ROOT, also where ROOT/core/meta.csv or ROOT/eval/meta.csv is given."""
    if template is None:
        return None
    path = Path(template)
    if path.name == "meta.csv" and path.is_file() and path.absolute().parent.name in ("core", "eval"):
        return path.absolute().parent.parent
    return path


def _check_speakers(plan: Recipe, speech: Path, clips: list[Clip]) -> None:
    """ValueError where there are too few speakers, with what the folder's tables say that helps nobody."""
    try:
        split_speakers(clips, plan)
    except ValueError as error:
        raise ValueError(f"{error}{doubts(speech)}") from None


def _sources(out: Path, scenes: list[dict], folders: Folders, resume: bool) -> dict:
    """The fingerprint of all that is heard in the scenes, for the stamp. ValueError where the corpus that is gone
    on with was begun with other sound under the same names; one begun before this was kept goes on without."""
    now, mark = sources_of(scenes, folders), out / PLAN
    if not resume or not mark.is_file():
        return {"sources": now}
    kept = json.loads(mark.read_text(encoding="utf-8"))  # which `check_place` has read
    if "sources" not in kept:
        return {}
    there = kept["sources"] if isinstance(kept["sources"], dict) else {}
    for kind, (names, sound) in now.items():
        if isinstance(then := there.get(kind), list) and then[:1] == [names] and then != [names, sound]:
            raise ValueError(
                f"{out}: was begun with other {kind} files of the same names, which have changed since; put those "
                "back, choose another --out, or start afresh with --no-resume"
            )
    return {"sources": now}


def _check_target(out: Path, **sources: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; expected a folder for the corpus")
    for kind, folder in sources.items():
        if folder is not None and out.resolve().is_relative_to(Path(folder).resolve()):
            raise ValueError(
                f"{out}: lies in the {kind} folder and would become {kind} itself; choose another --out"
            )


def _voices(plan: Recipe, out: Path, corpus_name: str) -> Path:
    """The stand-in speech folder below `out`, with voices for every partition that is wanted."""
    counts = {p: max(plan.voices.get(p, 0), 2) for p in PARTITIONS if plan.pairs.get(p, 0)}
    return make_voices(out / VOICES, corpus_name, counts)


def _noise_by_partition(noise: Path | None, progress: bool) -> tuple[dict[str, list[str]], bool]:
    """Noise clips by partition, each in one only, and whether that holds: fewer than three clips are shared."""
    if noise is None:
        return {p: [] for p in PARTITIONS}, True
    found = audio_files(noise)
    heard = ((1, check_noise(path)) for path in found)  # what is wrong is said now, not when a scene draws it
    for _ in tracked(heard, "hearing noise clips", len(found), 0, progress):
        pass
    files = [path.relative_to(noise).as_posix() for path in found]
    if len(files) < len(PARTITIONS):
        return dict.fromkeys(PARTITIONS, files), False
    return split(files, NOISE_SHARE, PARTITIONS, key=lambda name: Path(name).name)[0], True


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
        "recipe_sha256": plan.sha256,
        "arrays": list(arrays),
        "speech": describe_sources(folders.speech),
        "noise": describe_sources(folders.noise),
        "clips": len(clips),
        "speakers": speakers,
        "content_below_hz": 7500,
        "stand_ins": STAND_INS,
    }


def render_batch(
    scenes: list[dict], corpus_name: str, arrays: tuple[str, ...], folders: Folders, out: Path
) -> int:
    """Render and write some scenes in this process with one thread; the number of scenes done."""
    from threadpoolctl import threadpool_limits

    from remasc.simulate.render import render_scene

    with threadpool_limits(1):
        for scene in scenes:
            sounds = render_scene(scene, corpus_name, arrays_of(scene, arrays), folders)
            for array, (waveform, rate, subtype) in sounds.items():
                write_wav(sound_path(out, scene, array), waveform, rate, subtype)
    return len(scenes)


def _render_all(
    scenes: list[dict],
    corpus_name: str,
    arrays: tuple[str, ...],
    folders: Folders,
    out: Path,
    workers: int,
    progress: bool,
) -> None:
    # siblings beside each other, for they say the same, but in the order of their numbers: the times at which files
    # were written tell no class
    ordered = sorted(scenes, key=lambda scene: (scene["pair"], scene["index"]))
    todo = [scene for scene in ordered if not is_done(scene, arrays, out)]
    workers = min(workers, max(1, len(todo)))
    size = max(1, min(8, len(todo) // (4 * workers)))
    jobs = [(todo[i : i + size], corpus_name, arrays, folders, out) for i in range(0, len(todo), size)]
    done = ((count, count) for count in unordered(render_batch, jobs, workers))
    for _ in tracked(done, "rendering scenes", len(scenes), len(scenes) - len(todo), progress):
        pass
