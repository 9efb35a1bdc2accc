"""Every reader under damaged files: a sentence or a correct result, never another exception, a hang, a flood of
memory, or a replay that becomes genuine. Counts are printed; REPLAYGUARD_FUZZ=20 makes twenty times as many.

What is promised of a recording that the detector takes for a replay:
- WAV: one damaged bit, byte or field of the header, or a cut anywhere, never makes it genuine. Several fields that
  were changed so that they agree (another rate with its byte rate, say) are another, consistent file: anybody with
  an editor makes one, and nothing in it tells. The same holds for a file whose sizes a streaming writer left open.
  Damaged samples are other samples: there is a finite score for them, and no more than that can be promised.
- FLAC and OGG carry checksums: damaged anywhere they are refused, or heard exactly as before.
- A file whose rate is not its array's is accepted: people resample their recordings, and a detector brings every
  rate to its own. `replayguard corpus check` reports it, where meta.csv says which array recorded the file.
- Checkpoints, caches, and the partial files of scoring carry checksums: damaged by accident they are refused (or
  made again). Whoever writes the checksums too owns the detector's decisions, but gets no crash and no NaN.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import math
import random
import re
import shutil
import struct
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import soundfile as sf
import torch
from fuzzing import FLOATS, INTEGERS, Law, damaged_bytes, damaged_table, damaged_tree, json_bytes, toml_bytes
from safetensors.torch import save

import detector
import replayguard
from detector import batch
from detector import checkpoint as checkpoints
from detector.batch import score_corpus
from detector.checkpoint import CONFIG, RUN, WEIGHTS, load_checkpoint, save_checkpoint
from detector.config import TrainConfig
from detector.state import STATE, Best, Position, copy_weights, load_state, save_state
from detector.systems import build_network
from eval.scores import ScoreTable, read_scores, write_scores
from remasc import ARRAYS, Corpus, get_array, ogg, read_audio
from remasc.audio import audio_info, write_wav
from remasc.cache import PreparedCache
from remasc.protocol import PARTITIONS, partitions, write_protocol
from remasc.shards import sealed
from remasc.simulate.recipes import SHIPPED, Recipe, load_recipe
from remasc.simulate.scenes import cast_of, draw_scenes
from remasc.simulate.speech import scan_speech
from tests.test_score import checkpoint, description, speech
from tests.tiny_corpus import make_corpus

RATE = 16000
WAV_FIELDS = ((4, "<I"), (16, "<I"), (20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"))
EXTENSIBLE_FIELDS = (*WAV_FIELDS, (36, "<H"), (38, "<H"), (40, "<I"), (44, "<H"), (46, "<I"))
FLAC_FIELDS = ((8, ">H"), (10, ">H"), (18, ">I"), (20, ">H"), (21, ">I"), (26, ">I"), (4, ">I"))
OGG_FIELDS = ((4, "<H"), (6, "<q"), (14, "<I"), (18, "<I"), (22, "<I"), (35, "<I"), (39, "<H"), (40, "<I"))


@pytest.fixture(scope="module")
def law(request):
    held = Law()
    yield held
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{held.table()}")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- sound files -----------------------------------------------------------------------------------------------


def encoded(kind: str, waveform: np.ndarray) -> tuple[bytes, tuple[tuple[int, str], ...], int]:
    """A sound file of (M, T), the fields of its header, and where its samples begin."""
    if kind == "bare float":  # the fmt chunk lacks its extension, as in older copies of ReMASC
        mics = len(waveform)
        fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, mics, RATE, 4 * mics * RATE, 4 * mics, 32)
        data = waveform.T.astype("<f4").tobytes()
        body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(data)) + data
        return struct.pack("<4sI", b"RIFF", len(body)) + body, (*WAV_FIELDS, (40, "<I")), 44
    container, subtype = {
        "PCM_16": ("WAV", "PCM_16"), "PCM_24": ("WAV", "PCM_24"), "PCM_32": ("WAV", "PCM_32"),
        "FLOAT": ("WAV", "FLOAT"), "extensible": ("WAVEX", "PCM_24"), "extensible float": ("WAVEX", "FLOAT"),
        "FLAC": ("FLAC", "PCM_16"), "OGG": ("OGG", "VORBIS"),
    }[kind]  # fmt: skip
    whole = io.BytesIO()
    sf.write(whole, waveform.T, RATE, format=container, subtype=subtype)
    data = whole.getvalue()
    if container in ("FLAC", "OGG"):
        return data, FLAC_FIELDS if container == "FLAC" else OGG_FIELDS, 120
    start = data.index(b"data") + 8
    fields = EXTENSIBLE_FIELDS if container == "WAVEX" else WAV_FIELDS
    return data, (*fields, (start - 4, "<I")), start


WAV_KINDS = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "bare float", "extensible", "extensible float")


def hear(path: Path):
    waveform, rate = read_audio(path)
    return waveform, rate, audio_info(path), read_audio(path, seconds=0.05)[0]


def sane(path: Path, heard) -> None:
    waveform, rate, info, beginning = heard
    assert waveform.dtype == np.float32
    assert waveform.ndim == 2
    assert 1 <= len(waveform) <= 64
    assert np.isfinite(waveform).all()
    assert np.abs(waveform).max() <= 1
    assert 4000 <= rate <= 384000
    assert (info.sample_rate, info.channels, info.frames) == (rate, *waveform.shape)
    assert np.array_equal(beginning, waveform[:, : beginning.shape[1]])
    assert waveform.size <= 2 * path.stat().st_size or path.suffix != ".wav"


@pytest.mark.parametrize("kind", WAV_KINDS)
def test_wav(law, tmp_path, kind):
    data, fields, start = encoded(kind, speech(3, 0.25))
    path = tmp_path / "a.wav"

    def prepare(rng: random.Random) -> Path:
        reach = start if rng.random() < 0.7 else None
        return written(path, damaged_bytes(data, rng, fields=fields, reach=reach))

    law.hold(f"WAV {kind}", 60, prepare, hear, sane, names=str(path))


@pytest.mark.parametrize("kind", ["FLAC", "OGG"])
def test_checksummed_sound_is_heard_as_before_or_refused(law, tmp_path, kind):
    data, fields, start = encoded(kind, speech(3, 0.25))
    path = written(tmp_path / "a.any", data)
    healthy = read_audio(path)[0]

    def prepare(rng: random.Random) -> Path:
        reach = start if rng.random() < 0.5 else None
        return written(path, damaged_bytes(data, rng, fields=fields, reach=reach))

    def check(path: Path, heard) -> None:
        sane(path, heard)
        unproved = kind == "FLAC" and not any(path.read_bytes()[26:42])  # some writers leave the MD5 open
        kept = heard[0].shape[1] if unproved else healthy.shape[1]
        assert heard[1] == RATE
        assert np.array_equal(heard[0], healthy[:, :kept])

    law.hold(kind, 100, prepare, hear, check, names=str(path), healthy=lambda: written(path, data))


def test_ogg_whose_checksums_were_made_anew(law, tmp_path):
    data, fields, _ = encoded("OGG", speech(3, 0.25))
    path = tmp_path / "a.any"

    def prepare(rng: random.Random) -> Path:
        pages = damaged_bytes(data, rng, fields=fields, reach=rng.choice((60, None))).split(b"OggS")
        pages = [b"OggS" + page[:18] + bytes(4) + page[22:] for page in pages[1:]]
        pages = [page[:22] + ogg.page_crc(page).to_bytes(4, "little") + page[26:] for page in pages]
        return written(path, b"".join(pages))

    law.hold("OGG, resealed", 60, prepare, hear, sane, names=str(path))


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("fuzz") / "detector")


@pytest.mark.parametrize("kind", [*WAV_KINDS, "FLAC", "OGG"])
def test_one_damage_to_header_or_length_never_makes_a_replay_genuine(law, tmp_path, checkpoint_folder, kind):
    data, fields, start = encoded(kind, speech(7, 0.5))
    path = written(tmp_path / "a.any", data)
    loaded = detector.load(checkpoint_folder)
    threshold = math.nextafter(loaded.judge_file(path, "D4").score, math.inf)

    def prepare(rng: random.Random) -> Path:
        content = bytearray(data)
        match rng.randrange(4):
            case 0:
                content[rng.randrange(start)] ^= 1 << rng.randrange(8)
            case 1:
                content[rng.randrange(start)] = rng.choice((0, 1, 3, 127, 128, 254, 255))
            case 2:
                offset, form = rng.choice(fields)
                size = struct.calcsize(form)
                number = rng.choice(INTEGERS) % 256**size
                content[offset : offset + size] = number.to_bytes(size, "big" if form[0] == ">" else "little")
            case _:
                del content[rng.randrange(len(content)) :]
        return written(path, bytes(content))

    def judge(path: Path):
        return loaded.judge_file(path, "D4", threshold=threshold)

    def check(path: Path, judged) -> str | None:
        assert judged.decision in ("replay", "undecided")
        assert judged.score is None or math.isfinite(judged.score)
        assert fuzzing.is_sentence(judged.reason or "none")
        return fuzzing.REFUSED if judged.score is None else None

    law.hold("decision, one damage", 25, prepare, judge, check)


def test_other_samples_have_a_finite_score(law, tmp_path, checkpoint_folder):
    files = {kind: encoded(kind, speech(7, 0.4)) for kind in ("PCM_16", "FLOAT", "FLAC")}
    loaded = detector.load(checkpoint_folder)

    def prepare(rng: random.Random) -> Path:
        data, _, start = files[rng.choice(list(files))]
        head, body = data[:start], bytearray(data[start:])
        for _ in range(rng.randint(1, 200)):
            at = rng.randrange(len(body) - 4)
            body[at : at + 4] = (
                struct.pack("<f", rng.choice(FLOATS)) if rng.random() < 0.2 else rng.randbytes(4)
            )
        return written(tmp_path / "a.any", head + bytes(body))

    def check(path: Path, judged) -> str | None:
        assert judged.decision in ("genuine", "replay", "undecided")
        assert (judged.score is None) == (judged.decision == "undecided" and bool(judged.reason))
        assert judged.score is None or all(map(math.isfinite, (judged.score, judged.llr, judged.probability)))
        assert fuzzing.is_sentence(judged.reason or "none")
        return fuzzing.REFUSED if judged.score is None else None

    law.hold("decision, other samples", 60, prepare, lambda path: loaded.judge_file(path, "D4"), check)


# --- corpora ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A tiny corpus with its own partitions; the tests put every file back."""
    found = make_corpus(tmp_path_factory.mktemp("fuzz") / "corpus", clips=16, seconds=0.8)
    lines = [
        f"{r.trial_id}\t{'eval' if r.subset == 'eval' else 'dev' if r.speaker > 1 else 'train'}"
        for r in found
    ]
    (found.root / "partitions.tsv").write_text("\n".join(["trial\tpartition", *lines]) + "\n")
    card = {
        "name": "tiny",
        "simulated": True,
        "recipe": {"pairs": 3},
        "speech": [{"source": "x", "licence": "y"}],
    }
    (found.root / "corpus.json").write_text(json.dumps(card))
    return Corpus.from_meta(found.root)


class Replaced:
    """A file that holds mutants for a while."""

    def __init__(self, path: Path):
        self.path, self.healthy = path, path.read_bytes()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.restore()

    def restore(self) -> bytes:
        return self(self.healthy)

    def __call__(self, content: bytes) -> bytes:
        self.path.write_bytes(content)
        return content


def test_meta(law, corpus):
    with Replaced(corpus.root / "core" / "meta.csv") as meta:

        def check(content: bytes, found: Corpus) -> None:
            text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
            rows = [line for line in text.split("\n") if line.strip()]
            core = found.filter(subset="core")
            assert len(core) == len(rows)
            for row, r in zip(rows, core, strict=True):
                cells = [cell.strip() for cell in row.split(",")]
                assert all(re.fullmatch("-?[0-9]{1,9}", cell) for cell in cells[1:8])
                numbers = [int(cell) for cell in cells[1:8]]
                codes = (r.source_recorder, r.playback_device, r.recording_device)
                told = (r.speech_type, r.speaker, r.environment, r.position, *(code or -1 for code in codes))
                assert numbers == list(told)
                assert r.path == corpus.root / "core" / "data" / f"{cells[0]}.wav"
                assert 0 <= r.seconds == float(cells[8])
            assert len({r.trial_id for r in found}) == len(found)

        def prepare(rng: random.Random) -> bytes:
            return meta(damaged_table(meta.healthy.decode(), rng, ","))

        law.hold(
            "meta.csv", 150, prepare, lambda _: Corpus.from_meta(corpus.root), check, names=str(meta.path)
        )


def test_corpus_card(law, corpus):
    with Replaced(corpus.root / "corpus.json") as card:
        tree = json.loads(card.healthy)

        def check(content: bytes, found: Corpus) -> None:
            card = json.loads(content)
            assert found.simulated is (card["simulated"] is True if "simulated" in card else None)
            assert fuzzing.is_sentence(found.name)
            assert len(found) == len(corpus)

        def prepare(rng: random.Random) -> bytes:
            return card(json_bytes(damaged_tree(tree, rng), rng))

        law.hold(
            "corpus.json", 100, prepare, lambda _: Corpus.from_meta(corpus.root), check, names=str(card.path)
        )


def test_partitions(law, corpus):
    with Replaced(corpus.root / "partitions.tsv") as listed:

        def check(content: bytes, parts: dict[str, Corpus]) -> None:
            told = dict(line.partition("\t")[::2] for line in content.decode().splitlines()[1:])
            assert list(parts) == list(PARTITIONS)
            assert sorted(r.trial_id for part in parts.values() for r in part) == sorted(
                r.trial_id for r in corpus.trials()
            )
            assert all(told[r.trial_id] == name for name, part in parts.items() for r in part)
            speakers = [{r.speaker for r in part} for part in parts.values()]
            assert not set.union(*(one & other for one, other in itertools.combinations(speakers, 2)))

        def prepare(rng: random.Random) -> bytes:
            return listed(damaged_table(listed.healthy.decode(), rng, "\t"))

        def read(_: bytes) -> dict[str, Corpus]:
            return partitions(corpus)

        law.hold("partitions.tsv", 100, prepare, read, check, names=str(corpus.root), healthy=listed.restore)


DESK = {
    "name": "desk", "sample_rate": 16000, "positions": [[0.0, 0, 0], [0.05, 0, 0], [0, 0.05, 0.01]],
    "description": "three on a desk", "channel_order": [0, 2, 1],
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_array_files(law, tmp_path, suffix):
    path = tmp_path / f"desk.{suffix}"
    text = {"toml": toml_bytes, "json": json_bytes}[suffix]

    def check(content: bytes, array) -> None:
        assert array.positions.shape == (array.num_mics, 3)
        assert np.isfinite(array.positions).all()
        assert 8000 <= array.sample_rate <= 192000
        assert sorted(array.channel_order) == list(range(array.num_mics))
        assert fuzzing.is_sentence(array.name)

    law.hold(
        f"array file, {suffix}",
        150,
        lambda rng: written(path, text(damaged_tree(DESK, rng), rng)).read_bytes(),
        lambda _: get_array(path),
        check,
        names="desk",
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("fuzz") / "cache"
    PreparedCache.build(corpus, folder, sample_rate=8000, seconds=0.1, workers=1, progress=False)
    return folder


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.json", "shard-00000.bin"])
def test_cache(law, cache, name):
    healthy = list(PreparedCache.open(cache))

    def read(_: bytes) -> list[np.ndarray]:
        opened = PreparedCache.open(cache, sample_rate=8000, seconds=0.1)
        opened.verify()
        return list(opened)

    def check(_: bytes, clips: list[np.ndarray]) -> None:
        assert all(np.array_equal(one, other) for one, other in zip(clips, healthy, strict=True))

    with Replaced(cache / name) as file:

        def prepare(rng: random.Random) -> bytes:
            return file(damaged_bytes(file.healthy, rng))

        law.hold(f"cache, {name}", 50, prepare, read, check, names=str(cache), healthy=file.restore)


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.json"])
def test_cache_whose_checksums_were_made_anew(law, cache, name):
    """Other entries may be told, but clips lie inside of the file and have the shape that they claim."""

    def read(_: bytes) -> list[np.ndarray]:
        opened = PreparedCache.open(cache)
        return [opened[i] for i in range(len(opened))]

    def check(_: bytes, clips: list[np.ndarray]) -> None:
        assert len(clips) == 24
        assert all(clip.ndim == 2 and clip.size and clip.dtype == np.float32 for clip in clips)

    with Replaced(cache / name) as file:
        tree = json.loads(file.healthy)
        del tree["checksum"]

        def prepare(rng: random.Random) -> bytes:
            mutant = damaged_tree(tree, rng)
            return file(sealed(mutant).encode() if isinstance(mutant, dict) else b"[]")

        law.hold(f"cache, {name} resealed", 100, prepare, read, check, names=str(cache))


# --- detectors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, RUN])
def test_checkpoint(law, checkpoint_folder, tmp_path, name):
    folder = shutil.copytree(checkpoint_folder, tmp_path / "copy")
    whole = load_checkpoint(folder)

    def check(_: bytes, found) -> None:
        assert found[0] == whole[0]
        assert found[2] == whole[2]
        assert all(torch.equal(found[1][key], whole[1][key]) for key in whole[1])

    with Replaced(folder / name) as file:
        healthy = file.healthy

        def prepare(rng: random.Random) -> bytes:
            if name != WEIGHTS and rng.random() < 0.5:
                return file(json_bytes(damaged_tree(json.loads(healthy), rng), rng))
            return file(damaged_bytes(healthy, rng, fields=((0, "<Q"),), reach=rng.choice((200, None))))

        def read(_: bytes):
            return load_checkpoint(folder)

        law.hold(f"checkpoint, {name}", 60, prepare, read, check, names=str(folder), healthy=file.restore)


def resealed(folder: Path, config: bytes, weights: bytes, run: bytes) -> Path:
    """A checkpoint by somebody who knows how its checksums are made."""
    try:
        tree = json.loads(run)
        sums = {CONFIG: checkpoints._sha256(config), WEIGHTS: checkpoints._sha256(weights)}
        run = checkpoints._sealed(tree | {"checksums": sums}).encode()
    except (ValueError, TypeError, RecursionError):
        pass
    for name, content in ((CONFIG, config), (WEIGHTS, weights), (RUN, run)):
        (folder / name).write_bytes(content)
    return folder


def damaged_weights(state: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    state = {name: value.clone() for name, value in state.items()}
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(state))
        value = state[name]
        match rng.randrange(7):
            case 0 if value.is_floating_point() and value.numel():
                value.view(-1)[rng.randrange(value.numel())] = rng.choice(FLOATS)
            case 1 if value.is_floating_point():
                value.fill_(rng.choice(FLOATS))
            case 2:
                kinds = (
                    torch.float64,
                    torch.int8,
                    torch.bfloat16,
                    torch.float16,
                    torch.bool,
                    torch.complex64,
                )
                state[name] = value.nan_to_num(0, 0, 0).to(rng.choice((*kinds, torch.float8_e4m3fn)))
            case 3:
                state[name] = value.reshape(-1) if rng.random() < 0.5 else value[None]
            case 4:
                del state[name]
            case 5:
                state[rng.choice((name + "x", "module." + name, ""))] = value.clone()
            case _:
                state[name] = (-1e3 * value.float()).to(value.dtype) if value.is_floating_point() else -value
    return state


def judged_by(folder: Path, sound: Path):
    loaded = detector.load(folder)
    return loaded, loaded.judge_file(sound, "D4")


def decides_as_it_says(_: Path, found) -> None:
    loaded, judged = found
    assert fuzzing.is_sentence(judged.reason or "none")
    assert loaded.threshold is None or math.isfinite(loaded.threshold)
    if judged.score is None:
        assert judged.decision == "undecided"
        assert judged.reason
        return
    numbers = [judged.score] if loaded.calibration is None else [judged.score, judged.llr, judged.probability]
    assert all(type(number) is float and math.isfinite(number) for number in numbers)
    decided = {True: "genuine", False: "replay", None: "undecided"}
    wanted = None if loaded.threshold is None else judged.score >= loaded.threshold
    assert judged.decision == ("undecided" if judged.reason else decided[wanted])
    assert 0 <= (loaded.run.get("threshold") or {}).get("p_fa", 0) < 1


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("fuzz") / "a.wav", encoded("PCM_16", speech(7, 0.4))[0])


@pytest.mark.parametrize(
    ("system", "what", "cases"),
    [
        ("compact", "config", 60),
        ("compact", "run", 60),
        ("compact", "weights", 60),
        ("compact", "weights file", 30),
        ("nn-single", "config", 3),
        ("nn-single", "weights", 2),
    ],
)
def test_detector_whose_checksums_were_made_anew(law, tmp_path, sound_file, system, what, cases):
    """A random network, so the published one may be of two filters: the law is about what is said of it."""
    config = description(system, "D1") | {"network": {"filters": 2} if system == "nn-single" else {}}
    run = {
        "calibration": {"slope": 2.0, "offset": -0.5},
        "threshold": {"score": 0.0, "p_fa": 0.05},
        "dev_eer": 0.2,
    }
    folder = save_checkpoint(tmp_path / "healthy", build_network(config), config, run)
    config_bytes, weights, run_bytes = ((folder / name).read_bytes() for name in (CONFIG, WEIGHTS, RUN))
    state = load_checkpoint(folder)[1]

    def prepare(rng: random.Random) -> Path:
        parts = {"config": config_bytes, "weights": weights, "run": run_bytes}
        if what == "weights":
            parts["weights"] = save(damaged_weights(state, rng))
        elif what == "weights file":
            parts["weights"] = damaged_bytes(
                weights, rng, fields=((0, "<Q"),), reach=rng.choice((1500, None))
            )
        else:
            parts[what] = json_bytes(damaged_tree(json.loads(parts[what]), rng), rng)
        return resealed(folder, **parts)

    def read(folder: Path):
        return judged_by(folder, sound_file)

    def healthy() -> Path:
        return resealed(folder, config_bytes, weights, run_bytes)

    reader = f"detector {what}, resealed"
    law.hold(reader, cases, prepare, read, decides_as_it_says, names=str(folder), healthy=healthy)


def test_training_state(law, tmp_path):
    def begun():
        network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 4), torch.nn.BatchNorm1d(3))
        return network, torch.optim.AdamW(network.parameters()), torch.amp.GradScaler("cpu", enabled=False)

    torch.manual_seed(0)
    network, optimizer, scaler = begun()
    network(torch.randn(5, 2, 9)).sum().backward()
    optimizer.step()
    best = Best(1, 1, 0.25, 0.5, copy_weights(network), torch.arange(3.0, dtype=torch.float64))
    save_state(tmp_path, Position(2, 3, history=[{"epoch": 1}]), best, network, optimizer, scaler)
    path = tmp_path / STATE
    data = path.read_bytes()

    def read(_: Path):
        other = begun()
        return other, load_state(tmp_path, *other)

    def check(_: Path, found) -> None:
        (other, stepped, _), (position, chosen) = found
        assert (position.epoch, position.step, chosen.dev_eer) == (2, 3, 0.25)
        assert torch.equal(chosen.scores, best.scores)
        for one, same in ((network, other.state_dict()), (network, chosen.weights)):
            assert all(torch.equal(value, same[name]) for name, value in one.state_dict().items())
        moments = zip(optimizer.state.values(), stepped.state.values(), strict=True)
        assert all(torch.equal(one[name], two[name]) for one, two in moments for name in one)

    def prepare(rng: random.Random) -> Path:
        return written(path, damaged_bytes(data, rng, fields=((0, "<Q"),), reach=rng.choice((900, None))))

    names = str(path)
    law.hold("training state", 50, prepare, read, check, names=names, healthy=lambda: written(path, data))


def test_training_config(law, tmp_path):
    healthy = TrainConfig(corpus=tmp_path, out=tmp_path / "out", workers=0, cache=tmp_path).to_dict()

    def check(_: dict, config: TrainConfig) -> None:
        assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config
        assert config.epochs >= 1
        assert config.batch_size >= 1
        assert 0 < config.dev_share < 1
        assert set(config.arrays) <= set(ARRAYS)

    law.hold("training config", 200, lambda rng: damaged_tree(healthy, rng), TrainConfig.from_dict, check)


# --- scores ----------------------------------------------------------------------------------------------------


def scored(count: int = 12) -> ScoreTable:
    g = np.random.default_rng(0)
    score = np.concatenate([g.normal(1, 1, count // 2), g.normal(-1, 1, count - count // 2)])
    return ScoreTable(
        trial=[f"eval/{i}" for i in range(count)],
        score=score,
        llr=2 * score,
        label=["genuine"] * (count // 2) + ["replay"] * (count - count // 2),
        flag=["", "", "clipped"] * (count // 3),
        conditions={
            "array": ["D1", "D2"] * (count // 2),
            "playback_device": ["-", "phone", "x"] * (count // 3),
        },
    )


def check_scores(content: bytes, table: ScoreTable) -> None:
    assert np.isfinite(table.score).all()
    assert len(set(table.trial.tolist())) == len(table) > 0
    assert set(table.label.tolist()) <= {"genuine", "replay", ""}
    header, *rows = [line.split("\t") for line in content.decode("utf-8-sig").split("\n") if line.strip("\r")]
    names = [name.strip() for name in header]
    told = {row[names.index("trial")].strip(): row for row in rows}
    assert list(told) == table.trial.tolist()
    for trial, score, llr in zip(table.trial.tolist(), table.score, table.llr, strict=True):
        assert float(told[trial][names.index("score")]) == score
        word = told[trial][names.index("llr")].strip() if "llr" in names else ""
        assert np.isnan(llr) if not word else float(word) == llr


def test_scores(law, tmp_path):
    path = tmp_path / "scores.tsv"
    write_scores(path, scored())
    healthy = path.read_text()

    def prepare(rng: random.Random) -> bytes:
        return written(path, damaged_table(healthy, rng, "\t")).read_bytes()

    law.hold("scores.tsv", 150, prepare, lambda _: read_scores(path), check_scores, names=str(path))


def test_protocol(law, tmp_path, corpus):
    part = corpus.filter(subset="eval").trials()
    scores, path = tmp_path / "scores.tsv", tmp_path / "protocol.tsv"
    write_scores(scores, ScoreTable(trial=[r.trial_id for r in part], score=np.arange(len(part))))
    write_protocol(path, {"eval": part, "dev": corpus.filter(subset="core").trials()})
    healthy = path.read_text()

    def check(content: bytes, table: ScoreTable) -> None:
        header, *rows = [
            line.rstrip("\r").split("\t") for line in content.decode("utf-8-sig").split("\n") if line
        ]
        names = [name.strip() for name in header]
        told = {row[names.index("trial")].strip(): row for row in rows}
        assert table.trial.tolist() == [r.trial_id for r in part]
        for trial, label in zip(table.trial.tolist(), table.label.tolist(), strict=True):
            assert label == (told[trial][names.index("label")].strip() if "label" in names else "")

    def prepare(rng: random.Random) -> bytes:
        return written(path, damaged_table(healthy, rng, "\t")).read_bytes()

    law.hold(
        "protocol.tsv", 150, prepare, lambda _: read_scores(scores, protocol=path), check, names=str(tmp_path)
    )


def test_partial_scores(law, tmp_path, corpus, checkpoint_folder, monkeypatch):
    """An interrupted scoring goes on to the same bytes, whatever became of its partial file, or refuses."""
    name, out = str(checkpoint_folder), tmp_path / "out"
    judge_all, judged, stop = batch.judge_all, {}, [5]

    def remembered(detector, jobs, **options):
        for count, job in enumerate(jobs):
            if count == stop[0]:
                raise KeyboardInterrupt
            if job[0] not in judged:
                judged[job[0]] = next(judge_all(detector, [job], workers=1))
            yield judged[job[0]]

    monkeypatch.setattr(batch, "judge_all", remembered)
    monkeypatch.setattr(batch, "load", functools.lru_cache(batch.load))
    with pytest.raises(KeyboardInterrupt):
        score_corpus(name, corpus, out, progress=False)
    stop[0] = -1
    partial = out / "scores.tsv.partial"
    healthy = partial.read_bytes()
    whole = score_corpus(name, corpus, out, progress=False).read_bytes()

    def prepare(rng: random.Random) -> bytes:
        lines = healthy.decode().split("\n")
        at = rng.randrange(len(lines) - 1)
        tree = damaged_tree(json.loads(lines[at]), rng)
        kind = rng.randrange(3)
        if kind == 0:
            lines[at] = json_bytes(tree, rng).decode(errors="replace")
        elif kind == 1:
            lines[at] = sealed(tree) if isinstance(tree, dict) and "trial" not in tree else lines[at] * 2
        content = "\n".join(lines).encode()
        (out / "scores.tsv").unlink(missing_ok=True)  # finished scores are never scored again
        return written(partial, damaged_bytes(content, rng) if kind == 2 else content).read_bytes()

    def check(_: bytes, path: Path) -> None:
        assert path.read_bytes() == whole
        assert not partial.exists()

    def read(_: bytes) -> Path:
        return score_corpus(name, corpus, out, progress=False)

    law.hold("scores.tsv.partial", 100, prepare, read, check, names=str(partial))


# --- the simulator's inputs ------------------------------------------------------------------------------------


def test_recipes(law, tmp_path):
    path = tmp_path / "mine.toml"
    healthy = Recipe("mine").to_dict() | {"pairs": {"train": 2, "dev": 1, "eval": 1}}
    shipped = [path.read_bytes() for path in sorted(SHIPPED.glob("*.toml"))]

    def prepare(rng: random.Random) -> bytes:
        if rng.random() < 0.2:
            return written(path, damaged_bytes(rng.choice(shipped), rng)).read_bytes()
        return written(path, toml_bytes(damaged_tree(healthy, rng), rng)).read_bytes()

    def check(_: bytes, recipe: Recipe) -> None:
        assert fuzzing.is_sentence(recipe.name)
        json.dumps(recipe.to_dict(), allow_nan=False)
        assert sum(recipe.pairs.values()) >= 1
        for name in ("pairs", "rooms", "devices", "voices"):
            assert all(type(n) is int and 0 <= n <= 10**6 for n in getattr(recipe, name).values())
        for name in ("environments", "source_recorders", "speaker_share"):
            assert all(0 <= share < 1e6 for share in getattr(recipe, name).values())
        for name in ("level_dbfs", "lead_seconds", "trail_seconds", "command_seconds"):
            assert all(type(n) in (int, float) for n in getattr(recipe, name))
            low, high = getattr(recipe, name)
            assert low <= high
        for name in ("random_rooms", "codec_share", "built_in_share", "real_noise_share"):
            assert 0 <= getattr(recipe, name) <= 1
        assert all(low <= high for low, high in recipe.snr_db.values())
        assert type(recipe.device_noise) is type(recipe.null) is bool

    talkers = tmp_path / "speech"
    for n in range(4):
        (talkers / str(n)).mkdir(parents=True)
        write_wav(talkers / str(n) / "a.wav", speech(1, 2.0, seed=n), RATE)
    clips, silence = scan_speech(talkers), {partition: [] for partition in PARTITIONS}

    def read(_: bytes) -> Recipe:
        recipe = load_recipe(path)
        few = dataclasses.replace(recipe, pairs={key: min(n, 1) for key, n in recipe.pairs.items()})
        draw_scenes(few, "fuzz", cast_of(few, talkers, clips, silence)[0])
        return recipe

    law.hold("recipe", 100, prepare, read, check)


def test_speech_labels(law, tmp_path):
    root = tmp_path / "speech"
    names = [f"one/{i}.wav" for i in range(6)] + ["two/a/x.wav"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    path = root / "one" / "metadata.csv"
    healthy = "file,speaker,word\n" + "".join(f"{i}.wav,s{i % 3},word\n" for i in range(6))

    def check(_: bytes, clips) -> None:
        found = [clip.path for clip in clips]
        inside = [clip for clip in clips if clip.path.startswith("one/")]
        assert found == sorted(set(found) & set(names))
        assert "two/a/x.wav" in found
        # a set has labels for all that is taken of it, or for none
        assert len({clip.labelled for clip in inside}) == 1
        assert inside[0].labelled or len(inside) == 6
        assert all(fuzzing.is_sentence(clip.group) for clip in clips)

    def prepare(rng: random.Random) -> bytes:
        return written(path, damaged_table(healthy, rng, ",")).read_bytes()

    law.hold("metadata.csv", 150, prepare, lambda _: scan_speech(root), check, names=str(path))


# --- the front door --------------------------------------------------------------------------------------------


def front_door(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = replayguard.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def speaks(arguments, said) -> str | None:
    """Exit code 0, 1 or 2; with 2 one sentence on stderr and nothing else; never a number that is none."""
    code, out, err = said
    assert code in (0, 1, 2)
    if code == 2:
        assert err.startswith("replayguard ")
        assert fuzzing.is_sentence(err.removesuffix("\n"))
        return fuzzing.REFUSED
    assert err == ""
    rows = out.splitlines()
    if "--json" in arguments:
        for row in [out] if arguments[0] == "corpus" else rows:
            json.loads(row, parse_constant=pytest.fail)
    elif "--tsv" in arguments:
        numbers = [row.split("\t")[1:4] for row in rows[1:]]
        assert all(cell == "" or math.isfinite(float(cell)) for cells in numbers for cell in cells)
        assert {row.count("\t") for row in rows} == {6}
    elif arguments[0] == "score":
        assert not re.search(r"(?m)(^|P\(live\)) *[-+]?(nan|inf)", out)
        assert all(row.isprintable() for row in rows)
    return None


def test_front_door_score(law, tmp_path, capsys, checkpoint_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = {kind: encoded(kind, speech(7, 0.4)) for kind in ("PCM_16", "FLOAT", "FLAC", "OGG")}
    listing, desk = tmp_path / "list.txt", tmp_path / "desk.toml"
    healthy = DESK | {"positions": ARRAYS["D4"].positions.tolist(), "channel_order": list(range(7))}

    def prepare(rng: random.Random) -> tuple[str, ...]:
        data, fields, start = kinds[rng.choice(list(kinds))]
        sound = written(
            tmp_path / "a.wav", damaged_bytes(data, rng, fields=fields, reach=rng.choice((start, None)))
        )
        lines = damaged_table("a.wav\n./*.wav\ngone.wav\n", rng, ".").replace(
            b"/", b"_"
        )  # nobody walks through /
        written(listing, lines)
        written(desk, toml_bytes(damaged_tree(healthy, rng), rng))
        files = rng.choice(((sound,), ("--list", listing), (tmp_path,)))
        array = rng.choice(("D4", "D1", desk, None))
        form = rng.choice(((), ("--json",), ("--tsv",)))
        return (
            "score",
            *files,
            *(() if array is None else ("--array", array)),
            *form,
            "--detector",
            checkpoint_folder,
        )

    law.hold("`score`", 40, prepare, lambda arguments: front_door(capsys, *arguments), speaks)


def test_front_door_detector(law, tmp_path, capsys, sound_file, checkpoint_folder):
    folder = shutil.copytree(checkpoint_folder, tmp_path / "copy")
    parts = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS, RUN)}

    def prepare(rng: random.Random) -> tuple:
        config, run = (json_bytes(damaged_tree(json.loads(parts[name]), rng), rng) for name in (CONFIG, RUN))
        pick = rng.randrange(3)
        resealed(folder, config if pick == 0 else parts[CONFIG], parts[WEIGHTS], run if pick else parts[RUN])
        return (
            "score",
            sound_file,
            "--array",
            "D4",
            "--detector",
            folder,
            *rng.choice(((), ("--json",), ("--tsv",))),
        )

    law.hold("`score`, resealed detector", 40, prepare, lambda words: front_door(capsys, *words), speaks)


def test_front_door_corpus(law, capsys, tmp_path, corpus, checkpoint_folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = shutil.copytree(corpus.root, tmp_path / "corpus")
    files = [root / name for name in ("core/meta.csv", "eval/meta.csv", "corpus.json", "partitions.tsv")]
    files += sorted((root / "eval" / "data").iterdir())
    healthy = {path: path.read_bytes() for path in files}

    def prepare(rng: random.Random) -> tuple:
        for path, content in healthy.items():
            path.write_bytes(content)
        path = rng.choice(files[: rng.choice((4, len(files)))])
        if path.suffix == ".wav":
            written(path, damaged_bytes(healthy[path], rng, fields=WAV_FIELDS, reach=rng.choice((44, None))))
        elif path.suffix == ".json":
            written(path, json_bytes(damaged_tree(json.loads(healthy[path]), rng), rng))
        else:
            separator = "\t" if path.suffix == ".tsv" else ","
            written(path, damaged_table(healthy[path].decode(), rng, separator))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        scoring = ("score", "--corpus", root, "--out", tmp_path / "out", "--detector", checkpoint_folder)
        check = ("corpus", "check", root, "--workers", "1", "--json")
        return rng.choice((("corpus", "summary", root), check, check, scoring))

    def check(words, said) -> str | None:
        scores = tmp_path / "out" / "scores.tsv"
        assert scores.exists() == (words[0] == "score" and said[0] == 0)
        if scores.exists():
            read_scores(scores)
        if words[0] == "score":  # it shows its progress
            said = said[0], said[1], said[2].split("\n")[-2] + "\n" if said[0] == 2 else ""
        if "--json" in words and said[0] < 2:
            assert json.loads(said[1])["ok"] is (said[0] == 0)
        return speaks(words, said)

    law.hold("`corpus`, `score --corpus`", 40, prepare, lambda words: front_door(capsys, *words), check)


def test_front_door_evaluate(law, capsys, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    scores, record = folder / "scores.tsv", folder / "run.json"
    write_scores(scores, scored(60))
    healthy = scores.read_text()
    facts = {
        "name": "compact (x)", "corpus": "tiny", "simulated": True, "partition": "eval", "run": {"commit": "x"},
        "threshold": {"score": 0.1, "p_fa": 0.05, "origin": "set on dev"},
    }  # fmt: skip

    def prepare(rng: random.Random) -> tuple:
        table = rng.random() < 0.7
        written(scores, damaged_table(healthy, rng, "\t") if table else healthy.encode())
        written(record, json_bytes(facts if table else damaged_tree(facts, rng), rng))
        return "evaluate", scores, "--bootstrap", "5"

    def check(words, said) -> str | None:
        if said[0] == 0:
            json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)
        return speaks(words, said)

    law.hold("`evaluate`", 8, prepare, lambda words: front_door(capsys, *words), check)
