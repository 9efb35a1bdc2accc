"""The folder of a training run: whose it is, whether it is finished, and what `run.json` says at the end."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detector.checkpoint import load_checkpoint
from detector.config import TrainConfig
from detector.losses import GENUINE_COLUMN
from detector.runlog import LOG
from detector.shipped import DETECTOR, JUDGED, DevScores
from detector.state import STATE
from detector.team import Team
from remasc import Corpus, Recording
from remasc.atomic import write_text
from remasc.protocol import write_protocol

if TYPE_CHECKING:
    from detector.fitting import Training

BEGUN, FINISHED, PROTOCOL, LOCK = "training.json", "run.json", "protocol.tsv", ".lock"


@dataclass(frozen=True)
class Claim:
    """`finished` is the run.json of a run that needs nothing more, else None."""

    protocol_sha256: str
    finished: dict[str, Any] | None


@contextlib.contextmanager
def claimed(
    config: TrainConfig, parts: Mapping[str, Corpus], team: Team, base: str | None = None
) -> Iterator[Claim]:
    """Take the folder for this run, or say why not: of another config, or another process is at work in it.
    `base` is the hash of the weights that the run goes on from."""
    with contextlib.ExitStack() as stack:
        claim = None
        if team.first:
            if config.out.exists() and not config.out.is_dir():
                raise ValueError(f"{config.out}: a file is in the way; give a folder with --out")
            config.out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(config.out))
            claim = _claim(config, parts, base)
        yield team.gather(claim)[0]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """An advisory lock that a killed process loses by itself."""
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder}: another training is at work here; wait, or give another --out"
            ) from None
        yield


def _claim(config: TrainConfig, parts: Mapping[str, Corpus], base: str | None) -> Claim:
    with tempfile.TemporaryDirectory() as scratch:
        protocol_sha256 = write_protocol(Path(scratch) / PROTOCOL, parts)
    wanted = {"training": config.identity(), "protocol_sha256": protocol_sha256, "base": base}
    out, recordings = config.out, fingerprint([*parts["train"], *parts["dev"]])
    if not config.resume:
        for name in (FINISHED, BEGUN, STATE, JUDGED, LOG):
            (out / name).unlink(missing_ok=True)
    finished = None
    if (out / FINISHED).exists():
        description, _, finished = load_checkpoint(out)
        there = {key: value for key, value in description.get("training", {}).items() if key != "corpus"}
        begun = {"training": there, "protocol_sha256": finished.get("protocol_sha256")}
        _refuse_other(out, begun | {"base": finished.get("base", {}).get("sha256")}, wanted)
        clean(out)
    elif (out / BEGUN).exists():
        _refuse_other(out, _read_begun(out / BEGUN), wanted | {"recordings": recordings})
        clean(out, keep=(BEGUN, STATE, JUDGED))
    else:
        (out / STATE).unlink(missing_ok=True)
        write_protocol(out / PROTOCOL, parts)
        write_text(out / BEGUN, json.dumps(wanted | {"recordings": recordings}, indent=1) + "\n")
    return Claim(protocol_sha256, finished)


def fingerprint(recordings: Iterable[Recording]) -> str:
    """Changes with the size or the time of any of the sound files, wherever they lie."""
    digest = hashlib.sha256()
    for recording in recordings:
        try:
            status = recording.path.stat()
            found = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            found = "absent"
        digest.update(f"{recording.trial_id} {found}\n".encode())
    return digest.hexdigest()


def _read_begun(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or not isinstance(values.get("training"), dict):
            raise ValueError("not a run's config")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable ({error}); start anew with --no-resume") from None
    return values


def _refuse_other(out: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """One folder, one run: name what differs and the three ways out."""
    ways = "give another --out, or the same values to go on, or --no-resume to start anew"
    old, new = there["training"], wanted["training"]
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differing:
        words = ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} here)" for key in differing[:3])
        raise ValueError(f"{out}: holds a run that differs in {words}; {ways}")
    if there.get("protocol_sha256") != wanted["protocol_sha256"]:
        raise ValueError(f"{out}: holds a run on other trials (its protocol.tsv differs); {ways}")
    if there.get("base") != wanted["base"]:
        raise ValueError(f"{out}: holds a run that went on from other weights than --base has now; {ways}")
    if there.get("recordings") != wanted.get("recordings"):
        raise ValueError(
            f"{out}: the sizes or times of the run's sound files have changed since it began; put them back as "
            "they were to go on, or give another --out, or --no-resume to start anew"
        )


def clean(out: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove the state of a run that needs it no more, and what killed runs left half-written."""
    for name in {BEGUN, STATE, JUDGED} - set(keep):
        (out / name).unlink(missing_ok=True)
    for left_over in out.glob(".*.partial*"):
        if left_over.is_dir():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)


def facts(
    config: TrainConfig,
    card: dict[str, Any],
    protocol_sha256: str,
    training: Training,
    dev: DevScores,
    team: Team,
    device: torch.device,
) -> dict[str, Any]:
    """What run.json says of a finished training. `dev_eer` and `dev_loss` are the training loop's, which chose the
    epoch; `dev_eer_shipped` is of the scores that threshold and calibration are set on."""
    best, position = training.best, training.position
    columns = {name: part.numpy() for name, part in training.columns.items()}
    calibration, threshold = dev.calibration(), dev.threshold(config.p_fa)
    return {
        "system": config.system,
        "seed": config.seed,
        "epoch": best.epoch + 1,
        "epochs": position.epoch,
        "dev_eer": best.dev_eer,
        "dev_loss": best.dev_loss,
        "dev_eer_shipped": dev.eer() if dev.scored_by == DETECTOR else None,
        "dev_scored_by": dev.scored_by,
        "dev_abstained": dev.abstained(),
        "dev_trials": _count(columns["dev"]),
        "train_trials": _count(columns["train"]),
        "calibration": None if calibration is None else calibration.as_dict(),
        "threshold": None if threshold is None else {"score": threshold, "p_fa": config.p_fa},
        "corpus": card.get("name"),
        "simulated": card.get("simulated"),
        "attribution": [*(card.get("speech") or []), *(card.get("noise") or [])],
        "protocol_sha256": protocol_sha256,
        "commit": _commit(),
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "environment": _environment(device, team),
        "wall_seconds": round(position.seconds, 1),
        "curves": position.history,
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """The two dev EERs of a run.json, told apart."""
    text = f"epoch {facts['epoch']} chosen at dev EER {100 * facts['dev_eer']:.2f} %"
    if facts.get("dev_eer_shipped") is None:
        return text
    silent = sum(sum(counts.values()) for counts in facts["dev_abstained"].values())
    text += f", {100 * facts['dev_eer_shipped']:.2f} % as the finished detector scores whole recordings"
    text += f" ({silent} of {sum(facts['dev_trials'].values())} undecided)" if silent else ""
    return text + ("" if facts["threshold"] else "; too few were decided, so it has no threshold")


def _count(columns: np.ndarray) -> dict[str, int]:
    genuine = int((columns == GENUINE_COLUMN).sum())
    return {"genuine": genuine, "replay": len(columns) - genuine}


def _environment(device: torch.device, team: Team) -> dict[str, Any]:
    names = ("replayguard", "torch", "numpy", "scipy", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": team.size,
    } | {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, "+changes" where files differ; None outside of one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30)

    try:
        head = git("rev-parse", "HEAD")
        changed = git("diff-index", "--quiet", "HEAD").returncode != 0
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if head.returncode else head.stdout.strip() + ("+changes" if changed else "")
