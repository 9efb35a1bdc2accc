"""Attacks that source identification must face: `python -m eval.benchmarks.source_attacks --speech DIR --out OUT`.

Each attack is a small corpus made with the simulator's own building blocks (recipes with one thing changed), of
one partition's speakers, devices and rooms; its replays must be refused. A person before a playing television must
pass. Writes attacks.json and table.md; the sound stays in --work and is rendered once. Everything is SIMULATED.
"""

from __future__ import annotations

import csv
import functools
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.stats import binomtest

from detector.frontends.cepstral import linear_bands
from detector.score import Detector
from detector.source.backbone import backbone
from detector.source.model import SourceJudgement, SourceModel, load_source
from eval import words
from remasc import Corpus, Label, Recording
from remasc.atomic import write_text
from remasc.audio import read_audio, write_wav
from remasc.parallel import ordered, tracked
from remasc.simulate.casts import split_speakers
from remasc.simulate.generate import generate
from remasc.simulate.recipes import Recipe, load_recipe
from remasc.simulate.speech import scan_speech

PLAIN = {
    "equaliser_share": 0.0,
    "dereverberated_share": 0.0,
    "target_room_share": 0.0,
    "bystander_share": 0.0,
}
CHUNK = 8  # recordings that a process judges at once
RECORDED, CLEAN = {"1": 0.5, "2": 0.5, "3": 0.0}, {"1": 0.0, "2": 0.0, "3": 1.0}


@dataclass(frozen=True)
class Attack:
    """`recipe` is what differs from the bundled corpus's; `speech` says where the words come from ("clean",
    "synthetic" or "hidden"); of a trial of `label` it is asked how often it passes as a person."""

    recipe: dict[str, Any] = field(default_factory=dict)
    speech: str = "clean"
    label: Label = Label.REPLAY


ATTACKS: dict[str, Attack] = {
    "replayed": Attack({**PLAIN, "source_recorders": RECORDED}),
    "synthesised, then played": Attack({**PLAIN, "source_recorders": CLEAN}, "synthetic"),
    "equaliser-compensated": Attack({**PLAIN, "source_recorders": RECORDED, "equaliser_share": 1.0}),
    "hidden command": Attack({**PLAIN, "source_recorders": CLEAN}, "hidden"),
    "near a silent person": Attack({**PLAIN, "source_recorders": RECORDED, "bystander_share": 1.0}),
    "a person before a television": Attack(
        {**PLAIN, "environments": {"3": 1.0}, "real_noise_share": 0.0}, label=Label.GENUINE
    ),
    "a person (for comparison)": Attack(PLAIN, label=Label.GENUINE),
}


def main(
    speech: Path,
    out: Path,
    noise: Path | None = None,
    work: Path | None = None,
    pairs: int = 40,
    array: str = "D4",
    partition: str = "dev",
    model: str = "default",
    detector: str = "none",
    workers: int | None = None,
    only: tuple[str, ...] = (),
) -> None:
    """Render, judge, tabulate.

    Args:
        speech: Folder of clean speech, as for `replayguard simulate`.
        out: Folder for attacks.json and table.md.
        noise: Folder of background clips.
        work: Where the sound is kept; default: a temporary folder.
        pairs: Trials of each attack.
        array: The array that hears them.
        partition: Whose speakers, rooms and devices: dev, or eval for a final figure.
        model: Source model.
        detector: Replay detector to be joined with, or none.
        workers: Processes for the simulation.
        only: Names of attacks, for a part of the table; default: all.
    """
    if unknown := set(only) - set(ATTACKS):
        raise ValueError(f"no attack {sorted(unknown)[0]!r}; expected some of: {'; '.join(ATTACKS)}")
    _judges(model, detector)  # what is wrong with them is said before anything is rendered
    with tempfile.TemporaryDirectory() as temporary:
        place = work or Path(temporary)
        rows = {}
        for name in only or ATTACKS:
            attack = ATTACKS[name]
            folder = place / short(name)
            words_from = _speech(attack.speech, speech, place, partition)
            generate(
                recipe_of(name, attack, partition, pairs),
                folder,
                speech=words_from,
                noise=noise,
                arrays=(array,),
                workers=workers,
            )
            rows[name] = judged(folder, attack, model, detector, workers)
    figures = {"simulated": True, "array": array, "partition": partition, "pairs": pairs, "attacks": rows}
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "attacks.json", json.dumps(figures, indent=1) + "\n")
    write_text(out / "table.md", markdown(figures))
    print(markdown(figures))


def recipe_of(name: str, attack: Attack, partition: str, pairs: int) -> Recipe:
    """The bundled corpus's recipe with one partition, so many pairs, and what the attack changes."""
    counts = {key: pairs if key == partition else 0 for key in ("train", "dev", "eval")}
    return replace(load_recipe("bundle"), name=f"source-{short(name)}", pairs=counts, **attack.recipe)


def short(name: str) -> str:
    """An attack's name as a folder's: "a person (for comparison)" -> "a-person-for-comparison"."""
    return "-".join(re.findall("[a-z]+", name))


def _speech(kind: str, speech: Path, place: Path, partition: str) -> Path | None:
    if kind == "synthetic":
        return None  # the simulator's embedded synthesiser speaks
    return speech if kind == "clean" else hidden_speech(speech, place / "hidden-speech", partition)


def hidden_speech(speech: Path, folder: Path, partition: str) -> Path:
    """The partition's clips as hidden commands: still words to a recogniser, noise to a person."""
    done = folder / "metadata.csv"
    if done.is_file():
        return folder
    clips = scan_speech(speech)
    voices = split_speakers(clips, load_recipe("bundle"))[0][partition]
    rows = []
    for number, clip in enumerate(c for c in clips if c.group in voices and c.labelled):
        x, rate = read_audio(speech / clip.path)
        name = f"{number:05d}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        write_wav(folder / name, hidden(x[0], rate, np.random.default_rng(number))[None], rate)
        rows.append((name, clip.group.partition(":")[2] or clip.group, partition))
    if not rows:
        raise ValueError(
            f"{speech}: no labelled speaker falls to {partition}; give the bundled corpus's speech"
        )
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".partial", delete=False, newline="") as handle:
        csv.writer(handle).writerows([("file", "speaker", "partition"), *rows])
    Path(handle.name).replace(done)
    return folder


def hidden(
    x: np.ndarray, rate: int, rng: np.random.Generator, faster: float = 1.4, bands: int = 16
) -> np.ndarray:
    """Speech (T,) said faster and with its fine structure replaced by noise: (T / faster,) of the same level.

    Time is stretched by a phase vocoder; then the energy of 16 bands in each frame of 32 ms is given to noise
    (a noise vocoder, Shannon et al. 1995: what remains is understood, but is no voice).
    """
    import librosa

    quick = librosa.effects.time_stretch(x.astype(np.float32), rate=faster)
    size = 512
    bank = linear_bands(bands, size, rate, 0.0, rate / 2)
    heard = np.abs(librosa.stft(quick, n_fft=size, hop_length=size // 4)) ** 2
    envelope = (bank / bank.sum(axis=1, keepdims=True)) @ heard
    gains = np.sqrt(bank.T @ envelope)
    hiss = librosa.stft(rng.normal(size=len(quick)).astype(np.float32), n_fft=size, hop_length=size // 4)
    out = librosa.istft(hiss * gains, hop_length=size // 4, length=len(quick))
    return (
        (out * np.sqrt(np.square(x).mean() / max(np.square(out).mean(), 1e-12)))
        .clip(-1, 1)
        .astype(np.float32)
    )


@functools.lru_cache(maxsize=1)
def _judges(model: str, detector: str) -> tuple[SourceModel, Detector | None]:
    loaded = load_source(model)
    known = loaded.run["fusion"]["detector"] if loaded.fusion else None
    return loaded, None if detector == "none" else backbone(detector, known)


def _judge(model: str, detector: str, recordings: Sequence[Recording]) -> list[SourceJudgement]:
    from threadpoolctl import threadpool_limits

    loaded, joined = _judges(model, detector)
    with threadpool_limits(1):
        return [loaded.judge_file(r.path, r.array, detector=joined, most=1) for r in recordings]


def judged(
    folder: Path, attack: Attack, model: str, detector: str = "none", workers: int | None = None
) -> dict[str, Any]:
    """How many of an attack's trials pass as a person, by the cues and, with a detector, by both together."""
    trials = list(Corpus.from_meta(folder).filter(label=attack.label))
    jobs = [(model, detector, trials[i : i + CHUNK]) for i in range(0, len(trials), CHUNK)]
    done = ((len(ones), ones) for ones in ordered(_judge, jobs, workers))
    found = [one for ones in tracked(done, "judging", len(trials), 0, True) for one in ones]
    run = _judges(model, detector)[0].run
    decided = [one for one in found if one.llr is not None and not one.reason]
    out: dict[str, Any] = {
        "must_pass": attack.label is Label.GENUINE,
        "trials": len(found),
        "undecided": len(found) - len(decided),
        **_passed([one.llr for one in decided], run["threshold"]["llr"], len(found)),
        "llr_median": float(np.median([one.llr for one in decided])) if decided else None,
    }
    if fused := [one.fused_llr for one in decided if one.fused_llr is not None]:
        told = _passed(fused, run["fusion"]["threshold"], len(found))
        out |= {f"fused_{name}": share for name, share in told.items()}
    return out


def _passed(llrs: Sequence[float], threshold: float, trials: int) -> dict[str, float | list[float]]:
    """Shares of all trials that reach the threshold and zero, each with its 95 % interval (Wilson 1927)."""
    out: dict[str, float | list[float]] = {}
    for name, limit in (("threshold", threshold), ("zero", 0.0)):
        interval = binomtest(sum(llr >= limit for llr in llrs), trials).proportion_ci(method="wilson")
        out[f"passed_at_{name}"] = sum(llr >= limit for llr in llrs) / trials
        out[f"passed_at_{name}_95"] = [float(interval.low), float(interval.high)]
    return out


def markdown(figures: dict[str, Any]) -> str:
    """The attacks as a table."""
    head = "| what | must | trials | undecided | passes at llr 0 | passes at the threshold | median llr |"
    lines = [f"Attacks on source identification (SIMULATED), {figures['array']}:", "", head]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    for name, row in figures["attacks"].items():
        median = "" if row["llr_median"] is None else f"{row['llr_median']:+.2f}"
        lines.append(
            f"| {name} | {'pass' if row['must_pass'] else 'be refused'} | {row['trials']} | {row['undecided']} | "
            f"{_share(row, 'passed_at_zero')} | {_share(row, 'passed_at_threshold')} | {median} |"
        )
        if "fused_passed_at_zero" in row:
            lines.append(
                f"| ... with the replay detector | | | | {_share(row, 'fused_passed_at_zero')} | "
                f"{_share(row, 'fused_passed_at_threshold')} | |"
            )
    return "\n".join(lines) + "\n"


def _share(row: dict[str, Any], name: str) -> str:
    return f"{words.rate(row[name])} {words.interval(*row[f'{name}_95'])}"


if __name__ == "__main__":
    # by its own name, so that other processes find what they are to call
    from eval.benchmarks import source_attacks

    try:
        tyro.cli(source_attacks.main)
    except (ValueError, OSError) as error:
        sys.exit(f"source_attacks: {error}")
