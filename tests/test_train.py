"""Training: dev chooses, nothing depends on when it was interrupted, one folder is one run."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from detector.checkpoint import load_checkpoint
from detector.config import TrainConfig
from detector.fitting import Interrupted
from detector.loading import build_examples, collate, training_parts
from detector.losses import class_weights, columns_of, weighted_cross_entropy
from detector.schedule import epoch_batches, learning_rate, step_generator
from detector.state import STATE
from detector.systems import build_network, specify
from detector.team import Team
from detector.train import run, train
from eval.metrics import eer
from remasc import ARRAYS, Corpus, Label, Recording
from remasc.schema import Environment, PlaybackDevice, RecordingDevice, SourceRecorder, SpeechType

ROOT = Path(__file__).parent.parent


class Planes:
    """Random planes (6, 40, N) of the compact detector, in which the classes differ a little."""

    def __init__(self, count: int, seed: int, first: int = 0, speaker: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.labels = (np.arange(count) % 3 == 0).astype(np.int64)
        self.recordings = [recording(first + n, bool(label), speaker) for n, label in enumerate(self.labels)]
        lengths = rng.integers(30, 50, count)
        self.items = [
            torch.from_numpy((rng.standard_normal((6, 40, n)) + 0.3 * label).astype(np.float32))
            for n, label in zip(lengths, self.labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.items[index]


def recording(number: int, genuine: bool, speaker: int) -> Recording:
    return Recording(
        str(1000000 + number),
        SpeechType.GENUINE if genuine else SpeechType.REPLAY,
        speaker,
        Environment.INDOOR_1,
        11,
        None if genuine else SourceRecorder.IPOD,
        None if genuine else PlaybackDevice.PHONE,
        RecordingDevice.D4,
        1.0,
        Path(f"{1000000 + number}.wav"),
        "core",
    )


@pytest.fixture
def examples() -> dict[str, Planes]:
    return {"train": Planes(21, 0), "dev": Planes(12, 1, first=100, speaker=2)}


def config(out: Path, **values) -> TrainConfig:
    defaults = {"system": "compact", "epochs": 3, "batch_size": 6, "device": "cpu"}
    return TrainConfig(out / "none", out, **defaults | values)


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def curves(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_dev_chooses_and_the_checkpoint_is_what_dev_chose(tmp_path, examples):
    result = train(config(tmp_path), examples=examples, progress=False)
    best = min(result.history, key=lambda row: (row["dev_eer"], row["dev_loss"]))
    assert (result.epoch, result.dev_eer) == (best["epoch"], best["dev_eer"])
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    description, state, run_facts = load_checkpoint(tmp_path)
    network = build_network(description).eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        logits = torch.cat([network.logits(x[None]) for x in examples["dev"].items])
    scores, genuine = (logits[:, 0] - logits[:, 1]).numpy(), examples["dev"].labels == 1
    assert eer(scores[genuine], scores[~genuine])[0] == pytest.approx(result.dev_eer)
    assert run_facts["dev_trials"] == {"genuine": 4, "replay": 8}
    assert run_facts["calibration"]["slope"] >= 0
    assert (
        run_facts["dev_scored_by"] == "training loop"
    )  # these examples have no files to ask the detector about
    assert run_facts["dev_eer_shipped"] is result.dev_eer_shipped is None
    accepted = scores[~genuine] >= run_facts["threshold"]["score"] + 1e-4  # alone and in a batch round apart
    assert accepted.mean() <= run_facts["threshold"]["p_fa"]
    assert not (tmp_path / STATE).exists()
    protocol = (tmp_path / "protocol.tsv").read_text().splitlines()
    assert len(protocol) == 1 + 21 + 12
    assert str(tmp_path) not in (tmp_path / "config.json").read_text() + (tmp_path / "run.json").read_text()


@pytest.mark.parametrize("stops", [[1], [4], [3, 2], [1, 1, 1, 1, 1], [7]])
def test_an_interrupted_run_ends_bit_equal(tmp_path, examples, stops):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config(whole), examples=examples, progress=False)
    for steps in stops:  # 4 steps an epoch: some stop within one, some between two
        with pytest.raises(Interrupted):
            run(
                config(parts, checkpoint_minutes=0.0),
                examples,
                Team(),
                torch.device("cpu"),
                False,
                stop_after=steps,
            )
        torch.manual_seed(steps)  # what happens between two calls is no part of a run
    train(config(parts, workers=1), examples=examples, progress=False)
    assert weights_of(parts) == weights_of(whole)
    assert curves(parts) == curves(whole)


def test_the_callers_random_numbers_stay_his(tmp_path, examples):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    train(config(tmp_path, epochs=1), examples=examples, progress=False)
    assert torch.equal(torch.rand(3), wanted)


def test_another_seed_is_another_run(tmp_path, examples):
    for seed in (0, 1):
        train(config(tmp_path / str(seed), seed=seed, epochs=1), examples=examples, progress=False)
    assert weights_of(tmp_path / "0") != weights_of(tmp_path / "1")


def test_one_folder_is_one_run(tmp_path, examples):
    first = train(config(tmp_path, epochs=1), examples=examples, progress=False)
    before = weights_of(tmp_path)
    again = train(config(tmp_path, epochs=1), examples=examples, progress=False)
    assert again.already_finished
    assert not first.already_finished
    assert (again.dev_eer, again.epoch, again.history) == (first.dev_eer, first.epoch, first.history)
    with pytest.raises(ValueError, match=r"differs in epochs \(1 there, 2 here\); give another --out"):
        train(config(tmp_path, epochs=2), examples=examples, progress=False)
    others = {"train": Planes(21, 0, first=500), "dev": examples["dev"]}
    with pytest.raises(ValueError, match="other trials"):
        train(config(tmp_path, epochs=1), examples=others, progress=False)
    assert weights_of(tmp_path) == before
    anew = train(config(tmp_path, epochs=2, resume=False), examples=examples, progress=False)
    assert anew.epochs == 2


def test_another_config_is_refused_while_unfinished(tmp_path, examples):
    with pytest.raises(Interrupted):
        run(config(tmp_path), examples, Team(), torch.device("cpu"), False, stop_after=5)
    with pytest.raises(ValueError, match="differs in seed"):
        train(config(tmp_path, seed=1), examples=examples, progress=False)
    assert train(config(tmp_path), examples=examples, progress=False).epochs == 3


@pytest.mark.parametrize("part", ["train", "dev"])
def test_changed_sound_is_noticed_before_going_on(tmp_path, part):
    examples = {"train": Planes(21, 0), "dev": Planes(12, 1, first=100, speaker=2)}
    for name, planes in examples.items():
        files = [tmp_path / f"{name}-{r.file_id}.wav" for r in planes.recordings]
        planes.recordings = [
            dataclasses.replace(r, path=path) for r, path in zip(planes.recordings, files, strict=True)
        ]
        for path in files:
            path.write_bytes(b"sound")
    out, changed = tmp_path / "out", examples[part].recordings[4].path
    with pytest.raises(Interrupted):
        run(config(out), examples, Team(), torch.device("cpu"), False, stop_after=5)
    was = changed.stat()
    for content in (b"other", b"longer", None):
        changed.unlink() if content is None else changed.write_bytes(content)
        with pytest.raises(ValueError, match="sound files have changed since it began") as caught:
            train(config(out), examples=examples, progress=False)
        assert "\n" not in str(caught.value)
    changed.write_bytes(b"sound")
    os.utime(changed, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert train(config(out), examples=examples, progress=False).epochs == 3


def test_a_folder_in_use_and_a_file_in_the_way(tmp_path, examples):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another training is at work"):
            train(config(tmp_path), examples=examples, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="a file is in the way"):
        train(config(tmp_path / "file"), examples=examples, progress=False)


def test_a_damaged_state_is_one_sentence(tmp_path, examples):
    with pytest.raises(Interrupted):
        run(config(tmp_path), examples, Team(), torch.device("cpu"), False, stop_after=5)
    whole = (tmp_path / STATE).read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"\xff" * 64):
        (tmp_path / STATE).write_bytes(damaged)
        with pytest.raises(ValueError, match="--no-resume") as caught:
            train(config(tmp_path), examples=examples, progress=False)
        assert "\n" not in str(caught.value)


def test_early_stop_waits_for_the_eer(tmp_path, examples):
    result = train(
        config(tmp_path, epochs=9, patience=2, learning_rate=1e-12, schedule="constant"),
        examples=examples,
        progress=False,
    )
    eers = [row["dev_eer"] for row in result.history]
    last_better = max(i for i in range(len(eers)) if i == 0 or eers[i] < min(eers[:i]))
    assert result.epochs == last_better + 1 + 2 < 9


def test_a_partition_of_one_class_is_refused(tmp_path, examples):
    examples["dev"].labels[:] = int(Label.REPLAY)
    with pytest.raises(ValueError, match="dev partition holds 0 genuine and 12 replayed"):
        train(config(tmp_path), examples=examples, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, examples):
    examples["train"].items[3][:] = float("nan")
    with pytest.raises(ValueError, match="the loss is nan in epoch 1"):
        train(config(tmp_path), examples=examples, progress=False)


def test_polarity_is_turned_once():
    columns = columns_of(torch.tensor([int(Label.GENUINE), int(Label.REPLAY)]))
    assert columns.tolist() == [0, 1]  # the published order [genuine, replay]
    weights = class_weights(torch.tensor([0, 1, 1, 1]))
    torch.testing.assert_close(weights, torch.tensor([0.75, 0.25]))


def test_weighted_loss_is_torchs_and_adds_up_over_processes():
    g = torch.Generator().manual_seed(0)
    logits, columns = torch.randn(11, 2, generator=g), torch.randint(0, 2, (11,), generator=g)
    weights = torch.tensor([0.8, 0.2])
    whole = weighted_cross_entropy(logits, columns, weights)
    torch.testing.assert_close(whole, F.cross_entropy(logits, columns, weight=weights))
    total = weights[columns].sum() / 3
    parts = [weighted_cross_entropy(logits[r::3], columns[r::3], weights, total) for r in range(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_published_schedule():
    c = config(Path("o"), system="nn-single", array="D1", epochs=100)
    rates = [learning_rate(c, epoch) for epoch in (0, 10, 20, 39.9, 40, 60, 99)]
    assert rates == pytest.approx([1e-5, 5.5e-5, 1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5])


def test_cosine_schedule_rises_falls_and_ends_low():
    c = config(Path("o"), epochs=10, learning_rate=1e-3)
    rates = [learning_rate(c, t / 10) for t in range(101)]
    assert np.argmax(rates) == 10
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(1e-5)
    assert learning_rate(config(Path("o"), epochs=1, learning_rate=1e-3), 0.5) < 1e-3


@pytest.mark.parametrize(("count", "size"), [(1, 4), (21, 6), (24, 6), (5, 100)])
def test_every_clip_once_an_epoch(count, size):
    batches = epoch_batches(count, size, seed=3, epoch=2)
    assert sorted(np.concatenate(batches)) == list(range(count))
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    again = epoch_batches(count, size, seed=3, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    if count > 4:
        assert not np.array_equal(np.concatenate(batches), np.concatenate(epoch_batches(count, size, 3, 3)))


def test_every_step_has_its_own_random_numbers():
    draws = {
        tuple(torch.rand(2, generator=step_generator(0, e, s)).tolist()) for e in range(4) for s in range(4)
    }
    assert len(draws) == 16


def test_collate_pads_and_tells_the_lengths():
    items = [(7, torch.ones(2, 5)), (3, torch.ones(2, 9))]
    features, lengths, numbers = collate(items)
    assert features.shape == (2, 2, 9)
    assert features.sum() == 2 * 14
    assert lengths.tolist() == [5, 9]
    assert numbers.tolist() == [7, 3]


# --- a corpus on disk -----------------------------------------------------------------------------------------


def write_corpus(root: Path, array: str, per_speaker: int = 6, seconds: float = 1.0) -> None:
    """A corpus of noise in ReMASC's layout; genuine clips carry a tone."""
    rng, mics, number = np.random.default_rng(0), ARRAYS[array], 0
    for subset, speakers in (("core", (1, 2, 3, 4)), ("eval", (5, 6))):
        (root / subset / "data").mkdir(parents=True)
        rows = []
        for speaker in speakers:
            for k in range(per_speaker):
                number += 1
                genuine = k % 3 == 0
                samples = int((seconds + rng.uniform(-0.3, 0.3)) * mics.sample_rate)
                x = 0.05 * rng.standard_normal((samples, mics.num_mics))
                x += 0.2 * genuine * np.sin(0.05 * np.arange(samples))[:, None]
                file_id = 1000000 + number
                soundfile.write(root / subset / "data" / f"{file_id}.wav", x, mics.sample_rate, "PCM_16")
                codes = (file_id, 2 if genuine else 3, speaker, 2, 11, -1 if genuine else 2)
                codes += (-1 if genuine else 2, int(array[1]), f"{samples / mics.sample_rate:.4f}")
                rows.append(",".join(f"{code:>12}" for code in codes))
        (root / subset / "meta.csv").write_text("\n".join(rows) + "\n")
    card = {"name": "noise", "simulated": True, "speech": [{"source": "nobody", "licence": "CC0"}]}
    (root / "corpus.json").write_text(json.dumps(card))


@pytest.fixture
def corpus(tmp_path) -> Path:
    write_corpus(tmp_path / "corpus", "D4")
    return tmp_path / "corpus"


def test_clips_are_cut_prepared_and_repeated(tmp_path, corpus):
    windows = {}
    for system in ("nn-single", "nn-dummy", "nn-multichannel"):
        c = TrainConfig(corpus, tmp_path / system, system, "D4", cache=tmp_path / "cache")
        parts = training_parts(c, Corpus.from_meta(corpus))
        specification = specify(system, (ARRAYS["D4"],))
        network = build_network({"specification": specification.as_dict(), "network": {}})
        found = build_examples(c, parts, network, specification, progress=False)
        assert len(found["train"]) + len(found["dev"]) == 24
        speakers = [{r.speaker for r in found[name].recordings} for name in ("train", "dev")]
        assert not speakers[0] & speakers[1]
        windows[system] = torch.stack([found["train"][i] for i in range(len(found["train"]))])
        torch.testing.assert_close(windows[system].abs().amax(dim=(1, 2)), torch.ones(len(found["train"])))
    assert windows["nn-single"].shape[1:] == (1, 16000)
    assert windows["nn-multichannel"].shape[1:] == (7, 16000)
    assert torch.equal(windows["nn-dummy"], windows["nn-single"].expand(-1, 7, -1))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the three share one cache


def test_all_seeds_of_a_system_choose_on_the_same_dev(tmp_path, corpus):
    def dev(**seeds: int) -> set[str]:
        c = TrainConfig(corpus, tmp_path, "compact", "D4", **seeds)
        return {r.trial_id for r in training_parts(c, Corpus.from_meta(corpus))["dev"]}

    assert all(dev(seed=seed) == dev() for seed in range(1, 9))
    assert any(dev(protocol_seed=seed) != dev() for seed in range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("system", ["compact", "nn-single"])
def test_test_run_proves_the_setup(tmp_path, corpus, system):
    result = train(TrainConfig(corpus, tmp_path / "run", system, "D4", test_run=True), progress=False)
    assert result.folder == tmp_path / "run" / "test-run"
    _, _, run_facts = load_checkpoint(result.folder)
    assert run_facts["simulated"] is True
    assert run_facts["corpus"] == "noise"
    assert run_facts["attribution"] == [{"source": "nobody", "licence": "CC0"}]
    import detector

    waveform, rate = soundfile.read(corpus / "eval/data/1000025.wav", dtype="float32", always_2d=True)
    assert np.isfinite(detector.load(result.folder).score(waveform.T, rate, "D4"))


SCRIPT = """
import sys
from pathlib import Path
from detector.config import TrainConfig
from detector.train import train
corpus, out, cache, system, epochs, minutes = sys.argv[1:]
train(
    TrainConfig(Path(corpus), Path(out), system, "D4", epochs=int(epochs), batch_size=4, cache=Path(cache),
                checkpoint_minutes=float(minutes), device="cpu"),
    progress=False,
)
"""


def start(*arguments: object, launcher: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen:
    script = Path(str(arguments[1])).parent / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, script, *map(str, arguments)], env=environment, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_kill_9_at_any_moment_resumes_bit_equal(tmp_path, corpus):
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    assert start(corpus, whole, cache, "compact", 3, 0).wait() == 0
    for _ in range(3):
        process, state = start(corpus, killed, cache, "compact", 3, 0), killed / STATE
        before = state.stat().st_mtime_ns if state.exists() else 0
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))  # anywhere in a step, a save, a dev pass, the final checkpoint
        process.kill()
        process.wait()
        if (killed / "run.json").exists():
            break
    process = start(corpus, killed, cache, "compact", 3, 0)
    assert process.wait() == 0, process.stderr.read().decode()
    assert weights_of(killed) == weights_of(whole), f"seed {seed}"
    assert curves(killed) == curves(whole), f"seed {seed}"
    assert not list(killed.rglob("*.partial*"))


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, corpus):
    one, two, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    assert start(corpus, one, cache, "nn-single", 2, 9).wait() == 0
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(corpus, two, cache, "nn-single", 2, 9, launcher=torchrun)
    assert process.wait() == 0, process.stderr.read().decode()
    for alone, together in zip(curves(one), curves(two), strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        assert together["dev_loss"] == pytest.approx(alone["dev_loss"], rel=1e-4)
    _, state_one, _ = load_checkpoint(one)
    _, state_two, run_facts = load_checkpoint(two)
    assert run_facts["environment"]["processes"] == 2
    for name, value in state_one.items():
        torch.testing.assert_close(state_two[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_judge_dev_with_the_buffers_that_are_saved(tmp_path, corpus):
    """Two processes share out dev, and without SyncBatchNorm each has running statistics of its own."""
    folder, cache = tmp_path / "two", tmp_path / "cache"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(corpus, folder, cache, "compact", 2, 9, launcher=torchrun)
    assert process.wait() == 0, process.stderr.read().decode()
    description, state, run_facts = load_checkpoint(folder)
    network = build_network(description).eval()
    network.load_state_dict(state)
    c = TrainConfig(corpus, folder, "compact", "D4", cache=cache)
    parts, specification = training_parts(c, Corpus.from_meta(corpus)), specify("compact", (ARRAYS["D4"],))
    dev = build_examples(c, parts, network, specification, progress=False)["dev"]
    with torch.inference_mode():
        logits = torch.cat([network.logits(dev[i][None]) for i in range(len(dev))])
    columns = columns_of(torch.as_tensor(dev.labels))
    weights = class_weights(columns_of(torch.tensor([int(r.label) for r in parts["train"]])))
    assert run_facts["dev_loss"] == pytest.approx(
        float(weighted_cross_entropy(logits, columns, weights)), rel=1e-5
    )


def test_a_run_goes_on_from_the_weights_of_its_base(tmp_path, examples):
    first = train(config(tmp_path / "a", epochs=1), examples=examples, progress=False)
    still = {"epochs": 1, "learning_rate": 1e-9, "weight_decay": 0.0, "base": str(first.folder)}
    second = train(config(tmp_path / "b", **still), examples=examples, progress=False)
    _, there, run_facts = load_checkpoint(first.folder)
    _, here, told = load_checkpoint(second.folder)
    learnt = [name for name in here if not name.split(".")[-1].startswith(("running_", "num_batches"))]
    assert all(torch.allclose(here[name], there[name], atol=1e-6) for name in learnt)
    assert told["base"] == {"name": "a", "sha256": run_facts["checksums"]["model.safetensors"]}


def test_a_base_that_does_not_fit_or_has_changed_is_one_sentence(tmp_path, examples):
    def begin(stop_after: int | None = None, **values):
        task = config(tmp_path / "b", base=str(tmp_path / "a"), **values)
        with Team.gather_up("cpu") as (team, device):
            return run(task, examples, team, device, False, stop_after)

    train(config(tmp_path / "a", epochs=1), examples=examples, progress=False)
    with pytest.raises(ValueError, match="not of the size"):
        begin(backbone="edge")
    assert not (tmp_path / "b").exists()
    with pytest.raises(Interrupted):
        begin(stop_after=2)
    train(config(tmp_path / "a", epochs=1, seed=1, resume=False), examples=examples, progress=False)
    with pytest.raises(ValueError, match="went on from other weights"):
        begin()
    with pytest.raises(ValueError, match="has no base"):
        config(tmp_path / "c", system="void", array="D2", base="default", epochs=None, batch_size=None)
    with pytest.raises(ValueError, match="this run trains a malrad of 7"):
        train(config(tmp_path / "d", system="malrad", array="D4", base="default"), progress=False)
