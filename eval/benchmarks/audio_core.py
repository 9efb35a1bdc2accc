"""The audio-classification core on ten keywords of Speech Commands: what each of its parts is worth.

    python -m eval.benchmarks.audio_core --data ../shared/data --work FOLDER [--seeds 0 1 ...] [--arms NAME ...]

Speaker-disjoint 60 : 20 : 20, the same for all seeds. Every (arm, seed) runs in a process of its own, so that its
memory is its own, in WORK/runs, and leaves WORK/records/ARM-SEED.json; started again the script goes on with what
is missing, within a run too. OUT/table.md and OUT/table.json are written anew after every run, from all records.
Some arms need others of the same seed (a teacher, a pretrained network); these are run first. With --jobs 2 two
seeds run beside each other, as fits two cores.
"""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.classes import speaker_interval
from eval.masked import write_masked
from remasc.atomic import write_text
from remasc.audio import SUFFIXES

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SPEECH = "speech/speech_commands_test"
OTHERS = ("speech/mycroft_wakewords", "speech/picovoice_wakeword", "speech/picovoice_commands", "noise")
SPECAUGMENT = {"freq_mask": 24, "time_mask": 20}
PSLA = {"backbone": "psla"}
PRETRAINED = {"base": "ssast"}  # the arm whose folder it is
ALL = {"balanced": True, "mixup": 0.5, **SPECAUGMENT}
FEW = {"labels": 0.1, "batch_size": 8}  # smaller batches, else there would be three steps in an epoch
# keys of an arm that name another one; `first_member` is the run that an ensemble's first member would repeat
NEEDS = ("base", "teacher", "label_teacher", "first_member")
# arm -> what differs from the default config
ARMS: dict[str, dict[str, Any]] = {
    "efficientnet-b0": PSLA,
    "ast-tiny": {},
    "b0 mean pooling": PSLA | {"heads": 0},
    "b0 + balanced": PSLA | {"balanced": True},
    "b0 + specaugment": PSLA | SPECAUGMENT,
    "b0 + mixup": PSLA | {"mixup": 0.5},
    "b0 + label enhancement": PSLA | {"label_teacher": "efficientnet-b0"},
    "b0 + weight averaging": PSLA | {"average": -4},  # of the last quarter of the epochs
    "b0 + all of these": PSLA | ALL | {"label_teacher": "efficientnet-b0", "average": -4},
    "b0 + all, ensemble of 3": PSLA
    | ALL
    | {"label_teacher": "efficientnet-b0", "average": -4, "ensemble": 3, "first_member": "b0 + all of these"},
    "ssast": {"job": "pretrain"},
    "ssast, fine-tuned": PRETRAINED | {"job": "adapt", "method": "full"},
    "ast-tiny, 10 % of the labels": FEW,
    "ssast, fine-tuned, 10 % of the labels": PRETRAINED | FEW | {"job": "adapt", "method": "full"},
    "ast-tiny taught by b0": {"job": "distill", "teacher": "efficientnet-b0"},
    "b0 taught by ast-tiny": PSLA | {"job": "distill", "teacher": "ast-tiny"},
    "ssast, linear probe": PRETRAINED | {"job": "adapt", "method": "probe"},
    "ssast, BitFit": PRETRAINED | {"job": "adapt", "method": "bitfit"},
    "ssast, prompts": PRETRAINED | {"job": "adapt", "method": "prompt"},
    "ssast, LoRA": PRETRAINED | {"job": "adapt", "method": "lora"},
    "ssast, Houlsby adapters": PRETRAINED | {"job": "adapt", "method": "serial", "places": "houlsby"},
    "ssast, Pfeiffer adapters": PRETRAINED | {"job": "adapt", "method": "serial"},
    "ssast, parallel adapters": PRETRAINED | {"job": "adapt", "method": "parallel"},
}
# glibc gives large tensors back after every step, and the system clears them anew for the next: a fifth of the time
# of an EfficientNet's step; so what a run has, it keeps
KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
LEAST_SEEDS = 3  # below, no claim: one lucky start is no method
FEW_GAIN = ("ssast, fine-tuned, 10 % of the labels", "ast-tiny, 10 % of the labels")
# claim of the literature -> arms that should be better together, than which
CLAIMS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("each part of the PSLA recipe helps: attention pooling", ("efficientnet-b0",), ("b0 mean pooling",)),
    *(
        (f"each part of the PSLA recipe helps: {name.removeprefix('b0 + ')}", (name,), ("efficientnet-b0",))
        for name in ARMS
        if name.startswith("b0 + ") and "all" not in name
    ),
    ("the PSLA recipe helps as a whole", ("b0 + all of these",), ("efficientnet-b0",)),
    ("ensembling helps", ("b0 + all, ensemble of 3",), ("b0 + all of these",)),
    ("self-supervision helps", ("ssast, fine-tuned",), ("ast-tiny",)),
    ("... with few labels", FEW_GAIN[:1], FEW_GAIN[1:]),
    ("... more than with all of them", (FEW_GAIN[0], "ast-tiny"), (FEW_GAIN[1], "ssast, fine-tuned")),
    ("distillation helps an AST taught by a CNN", ("ast-tiny taught by b0",), ("ast-tiny",)),
    ("distillation helps a CNN taught by an AST", ("b0 taught by ast-tiny",), ("efficientnet-b0",)),
    *(
        (f"adapters beat {name.removeprefix('ssast, ')}", ("ssast, Houlsby adapters",), (name,))
        for name in ("ssast, linear probe", "ssast, BitFit", "ssast, prompts", "ssast, LoRA")
    ),
    ("adapters beat full fine-tuning", ("ssast, Houlsby adapters",), ("ssast, fine-tuned",)),
)


@dataclass(frozen=True)
class Options:
    """What a benchmark is run with.

    Args:
        data: Folder with speech/ and noise/.
        work: Folder of runs and records; the next start goes on there.
        out: Folder of the table.
        seeds: Which seeds.
        arms: Which arms; default: all of them.
        epochs: Of every training.
        pretrain_epochs: Of the pretraining.
        frames: Of 10 ms.
        stride: Of the AST's patches.
        threads: Of every run.
        jobs: So many seeds at a time.
        minutes: Start no further run after so many; 0 = go to the end.
        device: auto, cpu or cuda.
        one: Run this arm alone, for the first seed, in this process.
    """

    data: Path
    work: Path
    out: Path = Path("eval/results/audio_core")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    arms: tuple[str, ...] = ()
    epochs: int = 30
    pretrain_epochs: int = 40
    frames: int = 100
    stride: int = 10
    threads: int = 1
    jobs: int = 1
    minutes: float = 0.0
    device: str = "auto"
    one: str = ""

    def settings(self) -> dict[str, Any]:
        """What decides the figures of the table."""
        return {name: getattr(self, name) for name in ("epochs", "pretrain_epochs", "frames", "stride")}

    def settings_of(self, arm: str) -> dict[str, Any]:
        """What decides the figures of an arm: no stride where no AST is in it, no pretraining where it has none."""
        names = {"frames"}
        for one in _ordered((arm,)):
            if ARMS[one].get("job") == "pretrain":
                names.add("pretrain_epochs")
            else:
                names |= {"epochs"} if ARMS[one].get("backbone") == "psla" else {"epochs", "stride"}
        return {name: value for name, value in self.settings().items() if name in names}


def main(options: Options) -> None:
    """Run what is missing, write the table after each."""
    if unknown := set(options.arms) - set(ARMS):
        raise ValueError(f"no arm {sorted(unknown)[0]!r}; expected some of: {', '.join(ARMS)}")
    options.work.mkdir(parents=True, exist_ok=True)
    keyword_list(options)
    if options.one:
        run_one(options, options.one, options.seeds[0])
        return
    stop = time.monotonic() + 60 * options.minutes if options.minutes else math.inf
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for done in [pool.submit(_run_seed, options, seed, stop) for seed in options.seeds]:
                done.result()
        except BaseException:  # an interrupt, too, begins no further seed
            pool.shutdown(cancel_futures=True)
            raise
    write_table(options)


def _run_seed(options: Options, seed: int, stop: float) -> None:
    """The missing arms of one seed, none begun after `stop`."""
    for arm in _ordered(options.arms or tuple(ARMS)):
        if _record(options, arm, seed) is None and time.monotonic() < stop:
            print(f"{time.strftime('%H:%M')} {arm}, seed {seed}", file=sys.stderr, flush=True)
            # threads that wait for each other in turns cost minutes where another process has their core
            environment = KEEPING | os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            subprocess.run(_command(options, arm, seed), check=True, env=environment)
            write_table(options)


def _ordered(arms: tuple[str, ...]) -> list[str]:
    """The arms behind those that they need."""
    found: dict[str, None] = {}
    for arm in arms:
        needed = tuple(value for key, value in ARMS[arm].items() if key in NEEDS)
        found.update(dict.fromkeys([*_ordered(needed), arm]))
    return list(found)


def _command(options: Options, arm: str, seed: int) -> list[str]:
    words = [sys.executable, "-m", "eval.benchmarks.audio_core", "--one", arm, "--seeds", str(seed)]
    for name in ("data", "work", "out", "epochs", "pretrain_epochs", "frames", "stride", "threads", "device"):
        words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return words


def keyword_list(options: Options) -> Path:
    """WORK/keywords.csv with the splits: drawn once by speaker, the same for every arm and seed."""
    from detector.classify.data import read_clips, split_clips, table

    path, root = options.work / "keywords.csv", (options.data / SPEECH).resolve()
    if not path.exists():
        lines = ["file,label,speaker"]
        for word in WORDS:
            lines += [
                f"{clip},{word},{clip.name.split('_')[0]}" for clip in sorted((root / word).glob("*.*"))
            ]
        write_text(path, "\n".join(lines) + "\n")
        write_text(path, table(split_clips(read_clips(path))))
    return path


def unlabelled(options: Options) -> list[Path]:
    """All speech and noise, but no clip of a speaker of dev or eval, whatever the word."""
    with open(keyword_list(options), encoding="utf-8") as file:
        held = {row["speaker"] for row in csv.DictReader(file) if row["split"] in ("dev", "eval")}
    words = [p for p in sorted((options.data / SPEECH).rglob("*")) if p.name.split("_")[0] not in held]
    others = [path for folder in OTHERS for path in sorted((options.data / folder).rglob("*"))]
    return [path for path in (*words, *others) if path.suffix.lower() in SUFFIXES]


def folder_of(options: Options, arm: str, seed: int) -> Path:
    return options.work / "runs" / f"{_plain(arm)}-{seed}"


def _plain(arm: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in arm).replace("--", "-").replace("--", "-")


def run_one(options: Options, arm: str, seed: int) -> None:
    """Train one arm (or go on with it), measure it, write its record."""
    import torch

    torch.set_num_threads(options.threads)
    changes = dict(ARMS[arm])
    job, out = changes.pop("job", "train"), folder_of(options, arm, seed)
    pretraining = job == "pretrain"
    facts = _pretrain(options, seed, out) if pretraining else _train(options, job, changes, seed, out)
    facts |= {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    facts |= {"arm": arm, "seed": seed, "settings": options.settings(), "threads": options.threads}
    records = options.work / "records"
    records.mkdir(exist_ok=True)
    write_text(records / f"{_plain(arm)}-{seed}.json", json.dumps(facts, indent=1) + "\n")


def _pretrain(options: Options, seed: int, out: Path) -> dict[str, Any]:
    from detector.pretrain.clips import FilterBankClips
    from detector.pretrain.run import PretrainConfig, pretrain

    paths = unlabelled(options)
    config = PretrainConfig(
        frames=options.frames, epochs=options.pretrain_epochs, seed=seed, device=options.device
    )
    clips = FilterBankClips(paths, seconds=10.0)
    network = pretrain(clips, out, config, progress=sys.stderr.isatty())
    write_masked(network, clips[0], config, out)
    curve = json.loads((out / "run.json").read_text("utf-8"))["curves"]
    keys = ("epoch", "infonce", "mse")
    ends = [{key: row[key] for key in keys} for row in (curve[0], curve[-1])]
    return {"clips": len(paths), "parameters": sum(p.numel() for p in network.parameters()), "curve": ends}


def _train(options: Options, job: str, changes: dict[str, Any], seed: int, out: Path) -> dict[str, Any]:
    from detector.classify.config import AdaptConfig, ClassifyConfig, DistillConfig
    from detector.classify.train import train_classifier

    for key in NEEDS:
        if key in changes:
            changes[key] = folder_of(options, changes[key], seed)
    if (member := changes.pop("first_member", None)) is not None:
        _copied(member, out / "member-1")
    if changes.get("average", 0) < 0:
        changes["average"] = max(2, options.epochs // -changes["average"])
    kind = {"train": ClassifyConfig, "distill": DistillConfig, "adapt": AdaptConfig}[job]
    out.parent.mkdir(parents=True, exist_ok=True)
    common = {"frames": options.frames, "stride": options.stride, "epochs": options.epochs, "roll": 10}
    config = kind(
        data=keyword_list(options),
        out=out,
        seed=seed,
        device=options.device,
        checkpoint_minutes=2,
        **common | changes,
    )
    run = train_classifier(config, progress=sys.stderr.isatty()).run
    with open(out / "predictions.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "eval"]
    kept = ("dev_accuracy", "eval_accuracy", "epoch", "parameters", "trained_parameters", "clips", "commit")
    facts = {key: run[key] for key in kept} | {"wall_seconds": run["wall_seconds"]}
    named = [("/".join(Path(row["file"]).parts[-2:]), row) for row in rows]  # no machine's own folders
    facts["right"] = {name: [row["speaker"], int(row["label"] == row["predicted"])] for name, row in named}
    facts["dev_curve"] = [row["dev_accuracy"] for row in run["curves"]]
    facts["classes_predicted"] = len({row["predicted"] for row in rows})
    return facts | milliseconds(out, options.device)


def _copied(run: Path, place: Path) -> None:
    """A finished run's checkpoint as an ensemble's member, whole or not at all."""
    if not place.exists():
        half = place.with_name(f".{place.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "run.json", "log.jsonl"):
            shutil.copyfile(run / name, half / name)
        half.rename(place)


def milliseconds(folder: Path, device: str, repeats: int = 7) -> dict[str, float]:
    """Median time for one clip, alone and in a batch of 16, from waveform to logits."""
    import torch

    from detector.classify.store import load_classifier
    from detector.team import pick_device

    where = pick_device(device)
    network = load_classifier(folder).network.to(where)
    found = {}
    for batch in (1, 16):
        x, times = torch.randn(batch, network.samples, device=where) * 0.1, []
        for _ in range(repeats):
            start = time.perf_counter()
            with torch.inference_mode():
                network(x).cpu()
            times.append(1000 * (time.perf_counter() - start) / batch)
        found[f"ms_batch_{batch}"] = float(np.median(times[2:]))
    return found


def _record(options: Options, arm: str, seed: int) -> dict[str, Any] | None:
    path = options.work / "records" / f"{_plain(arm)}-{seed}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    wanted = options.settings_of(arm)
    if (made := {name: record["settings"].get(name) for name in wanted}) != wanted:
        raise ValueError(f"{path}: made with {made}; give these again, or another --work")
    return record


def write_table(options: Options) -> None:
    """OUT/table.md and OUT/table.json of all records."""
    found = {arm: [r for seed in range(100) if (r := _record(options, arm, seed))] for arm in ARMS}
    trained = {arm: records for arm, records in found.items() if records and "right" in records[0]}
    if not trained:
        return
    rows = [_row(arm, records) for arm, records in trained.items()]
    claims = [
        _claim(words, [trained[arm] for arm in better], [trained[arm] for arm in worse])
        for words, better, worse in CLAIMS
        if {*better, *worse} <= set(trained)
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    whole = {"settings": options.settings(), "rows": rows, "claims": [c for c in claims if c]}
    whole["pretraining"] = [{k: r[k] for k in ("seed", "clips", "curve")} for r in found["ssast"]]
    write_text(options.out / "table.json", json.dumps(whole, indent=1) + "\n")
    most = max((records[0] for records in trained.values()), key=lambda record: record["clips"]["train"])
    write_text(options.out / "table.md", markdown(whole, most))


def _row(arm: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    accuracy = [record["eval_accuracy"] for record in records]
    right, speakers = _right(records)
    low, high = speaker_interval(right, speakers)
    row = {
        "arm": arm,
        "seeds": [r["seed"] for r in records],
        "accuracy": float(np.mean(accuracy)),
        "low": low,
    }
    row |= {"high": high, "by_seed": accuracy, "dev": float(np.mean([r["dev_accuracy"] for r in records]))}
    row |= {key: records[0][key] for key in ("parameters", "trained_parameters", "commit")}
    for key in ("ms_batch_1", "ms_batch_16", "peak_mib", "wall_seconds"):
        row[key] = float(np.median([record[key] for record in records]))
    row["epochs_chosen"] = [record["epoch"] for record in records]
    row["undertrained"] = undertrained(records)
    return row


def undertrained(records: list[dict[str, Any]]) -> bool:
    """Whether there were fewer epochs than planned (of the arm, or of the pretraining that it builds on), or the
    last fifth of them still brought a point of dev accuracy, on average over the seeds."""
    settings, pretrained = records[0]["settings"], "base" in ARMS.get(records[0]["arm"], {})
    if settings["epochs"] < Options.epochs or (
        pretrained and settings["pretrain_epochs"] < Options.pretrain_epochs
    ):
        return True
    curves = [record["dev_curve"] for record in records]
    return float(np.mean([max(c) - max(c[: math.ceil(0.8 * len(c))]) for c in curves])) > 0.01


def _right(records: list[dict[str, Any]]) -> tuple[np.ndarray, list[str]]:
    """Which eval clips each seed got right (S, n), and the clips' speakers."""
    files = sorted(records[0]["right"])
    right = np.array([[record["right"][file][1] for file in files] for record in records], dtype=float)
    return right, [records[0]["right"][file][0] for file in files]


def _claim(words: str, better: list[list[dict]], worse: list[list[dict]]) -> dict[str, Any] | None:
    """The sum of some arms less that of others, seed by seed, over the seeds that all of them have.

    The interval is a bootstrap over seeds and eval speakers: it holds what another start and other voices change.
    """
    arms = [*better, *worse]
    seeds = sorted(set.intersection(*({record["seed"] for record in records} for records in arms)))
    if not seeds:
        return None
    by_seed = [{record["seed"]: record for record in records} for records in arms]
    parts = [_right([records[seed] for seed in seeds]) for records in by_seed]
    signs = [1] * len(better) + [-1] * len(worse)
    difference = np.sum([sign * right for sign, (right, _) in zip(signs, parts, strict=True)], axis=0)
    low, high = speaker_interval(difference, parts[0][1])
    verdict = "confirmed" if low > 0 else "refuted" if high < 0 else "undecided"
    if any(undertrained(records) for records in arms):
        verdict = "none: undertrained"
    elif len(seeds) < LEAST_SEEDS:
        verdict = f"none: fewer than {LEAST_SEEDS} seeds"
    return {
        "claim": words,
        "better": " and ".join(records[0]["arm"] for records in better),
        "worse": " and ".join(records[0]["arm"] for records in worse),
        "seeds": seeds,
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "verdict": verdict,
    }


def markdown(whole: dict[str, Any], record: dict[str, Any]) -> str:
    """The tables as Markdown."""
    settings, clips = whole["settings"], record["clips"]
    head = "| arm | seeds | accuracy | 95 % | dev | trained | of parameters | ms alone | ms in 16 | MiB |"
    lines = [
        "# Ten keywords of Speech Commands",
        "",
        f"{clips['train']:,} clips to train, {clips['dev']:,} dev, {clips['eval']:,} eval, no speaker in two of "
        f"them; {settings['epochs']} epochs, {settings['frames']} frames of 10 ms, AST patches at stride "
        f"{settings['stride']}. Intervals: bootstrap over eval speakers and seeds of the mean. Milliseconds for "
        f"one clip of a second on {record['threads']} thread, MiB: peak of the whole training process. "
        f"* is undertrained and supports no claim: less than {Options.epochs} epochs, or {Options.pretrain_epochs} "
        "of its pretraining, or dev still rose by a point in the last fifth of them; nor is there a claim from "
        f"fewer than {LEAST_SEEDS} seeds.",
        "",
        head,
        "|---|---:|---:|---|" + "---:|" * 6,
    ]
    for row in whole["rows"]:
        cells = (
            row["arm"] + " *" * row["undertrained"],
            f"{len(row['seeds'])}",
            f"**{100 * row['accuracy']:.1f} %**",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            f"{100 * row['dev']:.1f} %",
            f"{row['trained_parameters']:,}",
            f"{row['parameters']:,}",
            f"{row['ms_batch_1']:.1f}",
            f"{row['ms_batch_16']:.1f}",
            f"{row['peak_mib']:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## Published claims on this data", "", "| claim | seeds | difference | 95 % | verdict |"]
    lines.append("|---|---:|---:|---|---|")
    for claim in whole["claims"]:
        lines.append(
            f"| {claim['claim']} | {len(claim['seeds'])} | {100 * claim['difference']:+.1f} | "
            f"{100 * claim['low']:+.1f} to {100 * claim['high']:+.1f} | {claim['verdict']} |"
        )
    for run in whole["pretraining"]:
        first, last = run["curve"]
        lines += [
            "",
            f"Pretraining, seed {run['seed']}: {run['clips']:,} clips, InfoNCE {first['infonce']:.3f} -> "
            f"{last['infonce']:.3f}, MSE {first['mse']:.3f} -> {last['mse']:.3f} in {last['epoch']} epochs.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import tyro

    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"audio_core: {error}")
