"""Laws of a simulated corpus on disk: true columns, disjoint partitions, equal laws, same bytes."""

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from detector.config import TrainConfig
from detector.loading import training_parts
from remasc import ARRAYS, Corpus, Label, read_audio
from remasc.audio import write_wav
from remasc.parallel import on_cluster
from remasc.protocol import partitions
from remasc.simulate import Recipe, generate, load_recipe, scene_rng, shipped_recipes
from remasc.simulate.generate import VERSION
from remasc.simulate.geometries import array_of
from remasc.simulate.layout import by_file, read_scenes, scene_of
from remasc.simulate.scenes import cast_of, draw_scenes
from remasc.simulate.speech import (
    active_stretch,
    build_command,
    choose_command,
    coloured,
    describe_sources,
    scan_speech,
    without_rumble,
)

TINY = Recipe(
    name="tiny",
    pairs={"train": 2, "dev": 2, "eval": 4},
    rooms={"train": 2, "dev": 2, "eval": 2},
    devices={"train": 2, "dev": 2, "eval": 2},
    random_rooms=0.5,
)


NO_NOISE = {p: [] for p in ("train", "dev", "eval")}


def drawn(recipe: Recipe, name: str, speech: Path) -> list[dict]:
    """The scenes of a recipe without background clips."""
    return draw_scenes(recipe, name, cast_of(recipe, speech, scan_speech(speech), NO_NOISE)[0])


def syllables(rng: np.random.Generator, seconds: float, rate: int = 16000) -> np.ndarray:
    """Something like speech: a few voiced bursts between silences."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 220)
    voiced = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 30))
    envelope = np.clip(np.sin(2 * np.pi * (t - 0.1) / 0.4), 0, 1) * (t > 0.1) * (t < seconds - 0.15)
    return (0.1 * voiced * envelope + 1e-4 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    """Eight speakers with five clips each, labelled, and some that nobody labelled."""
    root = tmp_path_factory.mktemp("speech")
    rows = ["file,speaker"]
    for s in range(8):
        for n in range(5):
            path = root / "set" / f"s{s}-{n}.wav"
            path.parent.mkdir(exist_ok=True)
            write_wav(path, syllables(scene_rng("speech", f"{s}-{n}"), 1.0)[None], 16000)
            rows.append(f"{path.name},speaker{s}")
    (root / "set" / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "set" / "ORIGIN.md").write_text("# made up\nLicence: none needed.\n")
    for n in range(3):
        (root / "crowd").mkdir(exist_ok=True)
        write_wav(root / "crowd" / f"{n}.wav", syllables(scene_rng("crowd", str(n)), 6.0)[None], 16000)
    return root


@pytest.fixture(scope="session")
def corpus_root(speech, tmp_path_factory):
    return generate(TINY, tmp_path_factory.mktemp("corpus") / "one", speech=speech, workers=1, progress=False)


def digest(root) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def scenes_of(root) -> list[dict]:
    return [json.loads(line) for line in (root / "scenes.jsonl").read_text().splitlines()]


def test_layout_is_remasc_and_the_columns_are_true(corpus_root):
    corpus = Corpus.from_meta(corpus_root)
    scenes = {f"{1000000 + s['index']}": s for s in scenes_of(corpus_root)}
    assert corpus.simulated
    assert len(corpus) == 4 * len(scenes) == 4 * 16
    for r in corpus:
        scene, array = scenes[r.file_id[:-1]], ARRAYS[r.array]
        waveform, rate = read_audio(r.path)
        assert rate == array.sample_rate == (16000 if r.array == "D4" else 44100)
        assert waveform.shape[0] == array.num_mics
        assert waveform.shape[1] / rate == pytest.approx(r.seconds, abs=1e-6)
        assert r.subset == ("eval" if scene["partition"] == "eval" else "core")
        assert r.environment == scene["environment"]
        assert (r.label is Label.GENUINE) == (scene["label"] == "genuine")
        if r.label is Label.GENUINE:
            assert r.playback_device is None
            assert r.source_recorder is None
            assert r.speaker == scene["speaker"] > 0
        else:
            assert r.playback_device == scene["device"]["family"]
            assert r.source_recorder == scene["recorder"]["kind"]
            assert (r.speaker == 0) == (r.source_recorder == 3)
            assert (r.playback_device == 5) == scene["device"]["built_in"]
        assert 0 < np.abs(waveform).max() < 1
        assert not (waveform == 0).all(axis=1).any()


def test_depth_is_16_bit_and_32_for_d3(corpus_root):
    import soundfile

    for r in Corpus.from_meta(corpus_root):
        assert soundfile.info(r.path).subtype == ("PCM_32" if r.array == "D3" else "PCM_16")


def test_partitions_share_no_speaker_room_or_device(corpus_root):
    parts = partitions(Corpus.from_meta(corpus_root))
    assert {k: len(v) for k, v in parts.items()} == {"train": 16, "dev": 16, "eval": 32}
    seen: dict[str, set] = {}
    for scene in scenes_of(corpus_root):
        names = {("voice", scene["voice"]), ("room", scene["room"]["id"])}
        if scene["device"]:
            names.add(("device", scene["device"]["id"]))
        seen.setdefault(scene["partition"], set()).update(names)
    assert not seen["train"] & seen["dev"]
    assert not seen["train"] & seen["eval"]
    assert not seen["dev"] & seen["eval"]


def test_closed_protocol_shares_rooms_and_devices_but_no_speaker(speech):
    recipe = dataclasses.replace(load_recipe("closed"), pairs={"train": 40, "dev": 20, "eval": 40})
    scenes = drawn(recipe, "closed", speech)

    def names(partition, key):
        return {key(s) for s in scenes if s["partition"] == partition and key(s)}

    def device(s):
        return s["device"] and s["device"]["id"]

    assert names("eval", device) == names("train", device)
    assert len(names("train", device)) == 5
    assert names("eval", lambda s: s["room"]["id"]) <= names("train", lambda s: s["room"]["id"])
    assert not names("eval", lambda s: s["voice"]) & names("train", lambda s: s["voice"])


def test_file_ids_tell_neither_class_nor_partition(speech, corpus_root):
    recipe = dataclasses.replace(TINY, pairs={"train": 200, "dev": 50, "eval": 150})
    scenes = drawn(recipe, "ids", speech)
    assert sorted(s["index"] for s in scenes) == list(range(800))
    replayed = np.array([s["label"] == "replay" for s in sorted(scenes, key=lambda s: s["index"])])
    assert abs(replayed[::2].mean() - 0.5) < 0.1
    assert abs(np.mean(replayed[1:] == replayed[:-1]) - 0.5) < 0.1
    rows = [int(row.split(",")[0]) for row in (corpus_root / "core/meta.csv").read_text().splitlines()]
    assert rows == sorted(rows)  # the tables' order says no more than the ids
    late = np.mean([s["index"] for s in scenes if s["partition"] == "eval"])
    assert abs(late / 400 - 1) < 0.15


def test_a_speaker_has_one_home_in_every_corpus(speech):
    """What else lies in the folder, the corpus's name and the partitions asked for change no speaker's home."""
    from remasc.simulate.casts import split_speakers
    from remasc.simulate.speech import Clip

    crowd = [Clip(f"{n}.wav", f"set:person{n}", True) for n in range(60)]
    everybody, own = split_speakers(crowd, TINY)
    assert own
    some, own = split_speakers([replace_group(c, "other") for c in crowd[::2]], TINY)
    assert own
    alone, own = split_speakers(crowd, dataclasses.replace(TINY, pairs={"eval": 4}))
    assert own
    assert alone["eval"] == everybody["eval"]
    for partition, names in some.items():
        assert {n.split(":")[1] for n in names} <= {n.split(":")[1] for n in everybody[partition]}
    shares = {p: len(names) / 60 for p, names in everybody.items()}
    assert shares == pytest.approx({"train": 0.6, "dev": 0.15, "eval": 0.25}, abs=0.15)
    few, own = split_speakers(crowd[:3], TINY)
    assert not own
    assert sorted(map(len, few.values())) == [1, 1, 1]


def replace_group(clip, folder):
    return dataclasses.replace(clip, group=f"{folder}:{clip.group.split(':')[1]}")


def test_a_set_may_say_its_partitions_itself(speech, tmp_path):
    import shutil

    from remasc.simulate.casts import split_speakers

    shutil.copytree(speech, tmp_path / "speech")
    table = tmp_path / "speech" / "set" / "metadata.csv"
    homes = ["eval", "dev", "train", "train", "eval", "dev", "train", "train"]
    rows = table.read_text().splitlines()
    told = [f"{row},{homes[int(row[-1])]}" for row in rows[1:]]
    table.write_text("\n".join(["file,speaker,partition", *told]) + "\n")
    parts, own = split_speakers(scan_speech(tmp_path / "speech"), TINY)
    assert own
    assert parts["eval"] == ["set:speaker0", "set:speaker4"]
    assert parts["dev"] == ["set:speaker1", "set:speaker5"]
    assert parts["train"][-1] == "crowd"
    table.write_text(table.read_text().replace("speaker0,eval", "speaker0,test"))
    with pytest.raises(ValueError, match="said to be in 'test'"):
        scan_speech(tmp_path / "speech")


def test_commands_are_as_long_as_the_recipe_says(speech):
    recipe = dataclasses.replace(TINY, pairs={"train": 60, "dev": 10, "eval": 20}, unlabelled_share=0.5)
    scenes = drawn(recipe, "long", speech)
    for scene in scenes:
        assert 1.0 <= scene["seconds"] - scene["lead"] - scene["trail"] <= 4.0 + 1e-6
    crowd = np.mean([s["voice"] == "crowd" for s in scenes if s["partition"] == "train"])
    assert 0.3 < crowd < 0.7


def test_outdoor_distances_are_from_mouth_to_stand(speech):
    recipe = dataclasses.replace(TINY, pairs={"eval": 40}, environments={"1": 1.0})
    scenes = drawn(recipe, "far", speech)
    for scene in scenes:
        assert scene["distance"] == pytest.approx({1: 0.5, 2: 1.5}[scene["position"]], abs=0.2)


def test_siblings_share_what_they_must(corpus_root):
    by_pair: dict[str, list[dict]] = {}
    for scene in scenes_of(corpus_root):
        by_pair.setdefault(scene["pair"], []).append(scene)
    for genuine, replay in by_pair.values():
        assert (genuine["label"], replay["label"]) == ("genuine", "replay")
        for key in ("utterance", "environment", "room", "voice", "partition"):
            assert genuine[key] == replay[key]
        assert np.linalg.norm(np.subtract(genuine["source"], replay["source"])) < 0.15
        assert genuine["scene_id"] != replay["scene_id"]


@pytest.fixture(scope="module")
def many_scenes(speech):
    recipe = dataclasses.replace(load_recipe("small"), pairs={"train": 300, "dev": 0, "eval": 100})
    return drawn(recipe, "laws", speech)


def from_the_stand(scene: dict) -> np.ndarray:
    """Where the source is, to the right and ahead of the stand, as a unit vector."""
    ahead, aside = scene["forward"][:2], (scene["forward"][1], -scene["forward"][0])
    away = np.subtract(scene["source"], scene["stand"])[:2]
    return np.array([away @ aside, away @ ahead]) / np.linalg.norm(away)


LAWS = {
    "source height": lambda s: s["source"][2],
    "source to the right": lambda s: from_the_stand(s)[0],
    "source ahead": lambda s: from_the_stand(s)[1],
    "facing": lambda s: -np.dot(s["facing"], np.subtract(s["source"], s["stand"])) / s["distance"],
    "stand height": lambda s: s["stand"][2],
    "point beside the source": lambda s: (
        np.linalg.norm(np.subtract(s["noise"]["point"], s["source"])) if s["noise"]["point"] else 0.0
    ),
    "breath": lambda s: s["bystander"]["breath_db"] if s["bystander"] else 0.0,
    "television": lambda s: float("television" in s["noise"]),
}
LAWS |= {key: lambda s, key=key: s[key] for key in ("level_dbfs", "lead", "trail", "seconds", "distance")}
LAWS |= {
    key: lambda s, key=key: s["noise"].get(key, 0.0)
    for key in (
        "snr_db",
        "self_dbfs",
        "slope_db",
        "point_share",
        "wind_share",
        "babble_share",
        "speed",
        "rpm",
    )
}


@pytest.mark.parametrize("law", LAWS)
def test_both_classes_follow_one_law(many_scenes, law):
    """Two-sample Kolmogorov-Smirnov tests on the scenes as drawn, at a fixed seed."""
    from scipy import stats

    classes = [[LAWS[law](s) for s in many_scenes if s["label"] == label] for label in ("genuine", "replay")]
    assert len(set(classes[0])) > 1
    assert stats.ks_2samp(*classes).pvalue > 0.01


def test_neither_headers_nor_times_of_files_tell_the_class(corpus_root):
    """An array's files begin alike but for their lengths; siblings are written in the order of their numbers."""
    corpus, scenes = Corpus.from_meta(corpus_root), by_file(read_scenes(corpus_root))
    for array in ARRAYS:
        heads = set()
        for recording in corpus.filter(array=array):
            head, _, _ = recording.path.read_bytes()[:200].partition(b"data")
            heads.add(head[:4] + head[8:])  # between them the file's length
        assert len(heads) == 1
    written: dict[str, list[tuple[int, int]]] = {}
    for recording in corpus.filter(array="D4"):
        scene = scene_of(recording.file_id, scenes)
        when = recording.path.stat().st_mtime_ns
        written.setdefault(scene["pair"], []).append((when, scene["index"]))
    orders = [[index for _, index in sorted(pair)] for pair in written.values()]
    assert all(order == sorted(order) for order in orders)


def test_level_is_the_one_drawn(corpus_root):
    """The file's level (mean over channels) is the scene's, for both classes alike."""
    for r in Corpus.from_meta(corpus_root).filter(array="D2"):
        scene = next(s for s in scenes_of(corpus_root) if r.file_id.startswith(str(1000000 + s["index"])))
        waveform, _ = read_audio(r.path)
        level = 10 * np.log10(np.square(waveform).mean())
        assert abs(level - scene["level_dbfs"]) < 4.5, scene["scene_id"]


def test_nothing_above_the_speech_band_but_the_microphones(corpus_root):
    for r in Corpus.from_meta(corpus_root).filter(array="D1"):
        waveform, rate = read_audio(r.path)
        power = np.square(np.abs(np.fft.rfft(waveform[0] * np.hanning(waveform.shape[1]))))
        f = np.fft.rfftfreq(waveform.shape[1], 1 / rate)
        low, high = power[(f > 8000) & (f < 12000)].mean(), power[(f > 14000) & (f < 20000)].mean()
        assert 0.8 < low / high < 1.25


@pytest.mark.parametrize("workers", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_same_bytes_from_several_workers(speech, corpus_root, tmp_path, workers):
    again = generate(TINY, tmp_path / "again", speech=speech, workers=workers, progress=False)
    assert digest(again) == digest(corpus_root)


def test_same_sound_in_any_order(speech):
    """What was rendered before a scene, and what that left in memory, changes no sample of it."""
    from remasc.simulate.render import render_scene
    from remasc.simulate.speech import Folders

    scenes = drawn(dataclasses.replace(TINY, pairs={"eval": 2}), "order", speech)
    there, back = (
        {s["scene_id"]: render_scene(s, "order", ("D4",), Folders(speech))["D4"][0] for s in order}
        for order in (scenes, scenes[::-1])
    )
    assert len(there) == 4
    for scene_id, waveform in there.items():
        assert np.array_equal(waveform, back[scene_id]), scene_id


@pytest.mark.slow
def test_same_bytes_from_a_cluster(speech, corpus_root, tmp_path):
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as here,
        on_cluster(here.scheduler_address) as there,
    ):
        root = generate(TINY, tmp_path / "far", speech=speech, workers=there, progress=False)
    assert digest(root) == digest(corpus_root)


def test_same_bytes_after_an_interruption(speech, corpus_root, tmp_path):
    copy = tmp_path / "resumed"
    shutil.copytree(corpus_root, copy)
    for path in (copy / "core" / "meta.csv", copy / "eval" / "meta.csv", copy / "corpus.json"):
        path.unlink()
    for path in sorted((copy / "core" / "data").glob("*.wav"))[::3]:
        path.unlink()
    half = sorted((copy / "eval" / "data").glob("*.wav"))[0]
    half.write_bytes(half.read_bytes()[:1000])  # as a full disk would leave it
    (copy / "eval" / "data" / ".10000001.abc.partial.wav").write_bytes(b"RIFF")
    generate(TINY, copy, speech=speech, workers=1, progress=False)
    assert digest(copy) == digest(corpus_root)


@pytest.mark.slow
def test_same_bytes_after_kill_9(speech, corpus_root, tmp_path):
    out = tmp_path / "killed"
    code = (
        "from pathlib import Path; from tests.test_simulate_corpus import TINY; "
        "from remasc.simulate import generate; "
        f"generate(TINY, Path({str(out)!r}), speech=Path({str(speech)!r}), workers=1, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.getcwd()})
    while not list(out.glob("*/data/*.wav")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "core" / "meta.csv").exists()
    generate(TINY, out, speech=speech, workers=1, progress=False)
    assert digest(out) == digest(corpus_root)


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        generate("small", tmp_path / "corpus", speech=tmp_path / "nowhere")
    assert not (tmp_path / "corpus").exists()


def test_a_folder_with_another_corpus_is_refused(speech, corpus_root, tmp_path):
    with pytest.raises(ValueError, match="another simulated corpus"):
        generate(TINY, corpus_root, speech=speech, seed=1, progress=False)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "meta.csv").write_text("real\n")
    with pytest.raises(ValueError, match="not simulated here"):
        generate(TINY, tmp_path, speech=speech, progress=False)


def test_refusals_come_before_anything_is_drawn(speech, corpus_root, tmp_path, monkeypatch):
    before = digest(corpus_root)
    monkeypatch.setattr(sys.modules["remasc.simulate.generate"], "cast_of", None)  # it comes after
    with pytest.raises(ValueError, match="another simulated corpus"):
        generate(TINY, corpus_root, speech=speech, seed=1, progress=False)
    with pytest.raises(ValueError, match="name it again with --speech"):
        generate(TINY, corpus_root, progress=False)
    with pytest.raises(ValueError, match="workers is -1"):
        generate(TINY, tmp_path / "none", speech=speech, workers=-1, progress=False)
    assert digest(corpus_root) == before
    assert not (tmp_path / "none").exists()


def test_a_broken_noise_clip_is_named_before_anything_is_drawn(speech, tmp_path):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "b.wav").write_text("hello")
    with pytest.raises(ValueError, match=r"b\.wav"):
        generate(TINY, tmp_path / "out", speech=speech, noise=tmp_path / "noise", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_noticed_before_it_is_full(speech, corpus_root, tmp_path, monkeypatch):
    written = sum(path.stat().st_size - 44 for path in corpus_root.rglob("data/*.wav"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=int(0.9 * written)))
    with pytest.raises(ValueError, match="GB are free there; choose"):
        generate(TINY, tmp_path / "large", speech=speech, workers=1, progress=False)
    assert not (tmp_path / "large").exists()
    assert generate(TINY, corpus_root, speech=speech, workers=1, progress=False)  # which is all there


def test_an_interrupted_simulation_is_called_so(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match="an interrupted simulation"):
        Corpus.from_meta(tmp_path)


def test_array_subset_makes_only_those_files(speech, tmp_path):
    recipe = dataclasses.replace(TINY, pairs={"train": 0, "dev": 0, "eval": 2})
    root = generate(recipe, tmp_path, speech=speech, arrays=["D4"], workers=1, progress=False)
    assert {r.array for r in Corpus.from_meta(root)} == {"D4"}
    assert len(list(root.rglob("*.wav"))) == 4
    with pytest.raises(ValueError, match="D7"):
        generate(recipe, tmp_path / "x", speech=speech, arrays=["D7"])


def test_an_array_sounds_the_same_whatever_stands_beside_it(speech, corpus_root, tmp_path):
    root = generate(TINY, tmp_path / "d4", speech=speech, arrays=["D4"], workers=1, progress=False)
    for alone in Corpus.from_meta(root):
        both = corpus_root / alone.path.relative_to(root)
        assert np.abs(read_audio(alone.path)[0] - read_audio(both)[0]).max() <= 1.01 / 32768, alone.file_id


GOLDEN = Path(__file__).parent / "golden" / "simulator.json"


def fingerprint(speech) -> list[list[float]]:
    """Level and a few samples of four scenes, two of each class, on D2 and D4."""
    from remasc.simulate.render import render_scene
    from remasc.simulate.speech import Folders

    recipe = dataclasses.replace(TINY, pairs={"eval": 4})
    scenes = drawn(recipe, "golden", speech)
    rows = []
    for scene in sorted(scenes, key=lambda s: s["scene_id"])[2:6]:
        for waveform, _, _ in render_scene(scene, "golden", ("D2", "D4"), Folders(speech)).values():
            rows.append([float(np.sqrt(np.square(waveform).mean())), *waveform[-1, 3000:15000:3000].tolist()])
    return rows


def test_other_bytes_need_another_version(speech):
    """A change of the simulator that can be heard raises VERSION, so that no two corpora of one name differ.

    To write the golden numbers anew after raising it: REPLAYGUARD_GOLDEN=write pytest tests/test_simulate_corpus.py
    """
    rows = fingerprint(speech)
    if os.environ.get("REPLAYGUARD_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps({"version": VERSION, "rows": rows}, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == VERSION, "write the golden numbers anew"
    assert np.allclose(rows, golden["rows"], rtol=1e-3, atol=4e-5), "the sound has changed: raise VERSION"


def test_null_recipe_has_one_chain(speech):
    recipe = dataclasses.replace(TINY, null=True)
    scenes = drawn(recipe, "n", speech)
    assert {s["chain"] for s in scenes} == {"mouth"}
    assert {s["label"] for s in scenes} == {"genuine", "replay"}


def test_unlabelled_sets_stay_whole(speech):
    clips = scan_speech(speech)
    assert {c.group for c in clips if not c.labelled} == {"crowd"}
    assert len({c.group for c in clips if c.labelled}) == 8
    casts, speakers = cast_of(TINY, speech, clips, NO_NOISE)
    scenes = draw_scenes(TINY, "w", casts)
    assert {s["partition"] for s in scenes if s["voice"] == "crowd"} <= {speakers["crowd"]["partition"]}


def test_commands_are_one_speaker_and_fit(speech):
    clips = scan_speech(speech)
    for seed in range(10):
        one = [c for c in clips if c.group == "set:speaker3"]
        parts, seconds = choose_command(speech, one, (1.0, 4.0), 16000, np.random.default_rng(seed))
        dry, active = build_command(speech, parts, 16000)
        assert len(dry) / 16000 == pytest.approx(seconds, abs=0.01)
        assert seconds <= 4.0
        assert active.any()
        crowd, length = choose_command(
            speech, [c for c in clips if not c.labelled], (1.0, 4.0), 16000, np.random.default_rng(seed)
        )
        assert len(crowd) == 1
        assert 0.5 <= length <= 4.0


def test_active_stretch_finds_the_word():
    x = np.zeros(16000, np.float32)
    x[6000:10000] = np.sin(np.arange(4000) * 0.3)
    first, last, _ = active_stretch(x + 1e-4 * np.random.default_rng(0).standard_normal(16000), 16000)
    assert 4500 < first < 6000
    assert 10000 < last < 12000


def test_too_few_speakers_is_one_sentence(tmp_path):
    for word in ("yes", "no", "stop", "go"):  # folders of words, not of speakers
        (tmp_path / "speech" / word).mkdir(parents=True)
        clip = syllables(np.random.default_rng(0), 1.5)[None]
        write_wav(tmp_path / "speech" / word / "a.wav", clip, 16000)
    with pytest.raises(ValueError, match="partitions that share none"):
        generate(TINY, tmp_path / "out", speech=tmp_path / "speech", progress=False)
    with pytest.raises(ValueError, match="lies in the speech folder"):
        generate(TINY, tmp_path / "speech" / "out", speech=tmp_path / "speech", progress=False)
    with pytest.raises(ValueError, match="lies in the noise folder"):
        generate(TINY, tmp_path / "speech" / "out", noise=tmp_path / "speech", progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no wav, flac or ogg"):
        generate(TINY, tmp_path / "out2", speech=tmp_path / "empty", progress=False)


def test_recipes_load_and_typos_are_answered(tmp_path):
    assert {"demo", "small", "closed"} <= set(shipped_recipes())
    for name in shipped_recipes():
        assert load_recipe(name).name == name
    with pytest.raises(ValueError, match="did you mean 'small'"):
        load_recipe("smal")
    bad = tmp_path / "mine.toml"
    bad.write_text("roms = {train = 1}\n")
    with pytest.raises(ValueError, match="did you mean 'rooms'"):
        load_recipe(bad)
    assert load_recipe("small").scaled(0.1).pairs["train"] == 38
    with pytest.raises(ValueError, match="scale"):
        load_recipe("small").scaled(0)


def test_seeds_come_from_identity():
    a = scene_rng("c", "s").standard_normal(3)
    assert np.array_equal(a, scene_rng("c", "s").standard_normal(3))
    assert not np.array_equal(a, scene_rng("c", "t").standard_normal(3))
    assert not np.array_equal(a, scene_rng("c", "s", "noise").standard_normal(3))


def test_embedded_voices_speak(tmp_path):
    pytest.importorskip("espeakng_loader")
    recipe = dataclasses.replace(
        TINY, pairs={"train": 0, "dev": 0, "eval": 2}, voices={"eval": 3}, command_seconds=[1.0, 4.0]
    )
    root = generate(recipe, tmp_path, arrays=["D1"], workers=1, progress=False)
    card = json.loads((root / "corpus.json").read_text())
    assert "stand-ins" in card["speech"][0]["source"]
    assert len(Corpus.from_meta(root)) == 4


@pytest.mark.parametrize("where", ["core/data/1010204.wav", "mine/kitchen.wav", "kitchen.wav"])
def test_recordings_that_were_not_simulated_here_are_never_touched(speech, tmp_path, where):
    """A download in progress has sound files and no meta.csv yet; a folder of one's own has neither."""
    path = tmp_path / "copy" / where
    path.parent.mkdir(parents=True)
    write_wav(path, np.ones((2, 100)) / 8, 16000)
    for resume in (True, False):
        with pytest.raises(ValueError, match="not simulated here"):
            generate(TINY, tmp_path / "copy", speech=speech, resume=resume, progress=False)
        assert path.is_file()


def test_the_rumble_of_dry_recordings_reaches_neither_chain():
    rate = 16000
    t = np.arange(2 * rate) / rate
    voice, rumble = np.sin(2 * np.pi * 150 * t), np.sin(2 * np.pi * 30 * t)
    assert np.abs(without_rumble(rumble, rate)[rate // 2 : -rate // 2]).max() < 0.01
    kept = without_rumble(voice + rumble, rate)[rate // 2 : -rate // 2]
    assert np.abs(kept - voice[rate // 2 : -rate // 2]).max() < 0.02


def test_effort_tilts_by_so_many_decibels_per_octave():
    rate, t = 16000, np.arange(16000) / 16000
    tones = sum(np.sin(2 * np.pi * f * t) for f in (500, 1000, 2000, 4000))
    spectrum = np.abs(np.fft.rfft(coloured(tones, rate, 2.0)))[[500, 1000, 2000, 4000]] / 8000
    assert np.allclose(20 * np.log10(spectrum), [-2, 0, 2, 4], atol=0.1)
    curve = np.zeros(9)
    curve[[4, 5]] = 3.0, -6.0  # dB at 800 and 1600 Hz
    spectrum = np.abs(
        np.fft.rfft(coloured(sum(np.sin(2 * np.pi * f * t) for f in (800, 1600)), rate, 0.0, curve))
    )
    assert np.allclose(20 * np.log10(spectrum[[800, 1600]] / 8000), [3, -6], atol=0.1)


def test_a_bystander_is_as_likely_beside_a_talker_as_beside_a_device(speech):
    recipe = Recipe("law", pairs={"eval": 300}, bystander_share=0.4)
    scenes = drawn(recipe, "bystanders", speech)
    shares = [
        np.mean([scene["bystander"] is not None for scene in scenes if scene["label"] == label])
        for label in ("genuine", "replay")
    ]
    assert np.allclose(shares, 0.4, atol=0.1)  # 3.5 standard deviations
    for scene in scenes:
        if scene["bystander"] and scene["environment"] != 4:
            away = np.linalg.norm(np.subtract(scene["bystander"]["place"], scene["stand"]))
            assert away > 0.38


def test_sets_without_speakers_are_heard_as_often_as_the_recipe_says(tmp_path):
    """Also where most of their clips are too short for a command."""
    rng = np.random.default_rng(0)
    for name, seconds in (("a", 1.6), ("b", 1.6), ("loose", 0.5), ("loose2", 2.0)):
        for i in range(12 if name.startswith("loose") else 6):
            folder = tmp_path / ("loose" if name.startswith("loose") else "named")
            folder.mkdir(exist_ok=True)
            t = np.arange(int(seconds * 16000)) / 16000
            write_wav(folder / f"{name}{i}.wav", 0.1 * rng.standard_normal((1, len(t))), 16000)
    rows = [f"{name}{i}.wav,{name}\n" for name in "ab" for i in range(6)]
    (tmp_path / "named" / "metadata.csv").write_text("file,speaker\n" + "".join(rows))
    recipe = Recipe("law", pairs={"train": 300}, unlabelled_share=0.25)
    scenes = [s for s in drawn(recipe, "shares", tmp_path) if s["label"] == "genuine"]
    share = np.mean([scene["voice"] == "loose" for scene in scenes])
    assert abs(share - 0.25) < 0.09  # 3.5 standard deviations


def test_a_share_of_the_recordings_is_taken_where_they_are_played(speech):
    recipe = Recipe("law", pairs={"eval": 200}, target_room_share=0.5)
    recorders = [
        (s["recorder"]["room"]["id"] == s["room"]["id"])
        for s in drawn(recipe, "target", speech)
        if s["recorder"] and s["recorder"]["kind"] != 3
    ]
    assert abs(np.mean(recorders) - 0.5) < 0.15


@pytest.mark.parametrize(
    "name", [n for n in shipped_recipes() if n.startswith("held-out-") and n != "held-out-height"]
)
def test_what_is_held_out_is_heard_in_eval_alone(speech, name):
    recipe = dataclasses.replace(load_recipe(name), pairs={"train": 30, "dev": 10, "eval": 40})
    scenes = drawn(recipe, name, speech)
    (condition, codes), *_ = recipe.held_out.items()

    def code(scene):
        return {
            "position": 10 * scene["environment"] + scene["position"] % 10,
            "environment": scene["environment"],
            "playback_device": (scene["device"] or {}).get("family"),
            "source_recorder": (scene["recorder"] or {}).get("kind"),
        }[condition]

    seen = {part: {code(s) for s in scenes if s["partition"] == part} - {None} for part in recipe.pairs}
    assert seen["eval"] == set(codes)
    assert not seen["train"] & set(codes)
    assert not seen["dev"] & set(codes)
    assert len(seen["train"]) > 1
    with pytest.raises(ValueError, match="held_out"):
        dataclasses.replace(recipe, held_out={"environment": [1, 2, 3, 4]})


def test_who_is_tall_is_heard_in_eval_alone(speech):
    recipe = dataclasses.replace(load_recipe("held-out-height"), pairs={"train": 60, "dev": 20, "eval": 60})
    jitter = 0.04 + 1e-5  # of either sibling, about the height of the pair
    heights = {part: [] for part in recipe.pairs}
    for scene in drawn(recipe, "tall", speech):
        low, high = (0.65, 0.95) if scene["environment"] == 4 else (0.8, 1.6)
        third = (high - low) / 3
        edge = low + 2 * third
        heights[scene["partition"]].append((scene["source"][2] - edge, third))
    assert all(above > -jitter for above, _ in heights["eval"])
    for part in ("train", "dev"):
        assert all(above < jitter for above, _ in heights[part])
        lowest = min(above / third for above, third in heights[part])
        assert lowest < -1.2  # both of the lower thirds


def test_labelled_speakers_are_heard_beside_a_set_that_names_its_partitions():
    from remasc.simulate.casts import split_speakers
    from remasc.simulate.speech import Clip

    told = [Clip(f"{p}.wav", f"a:{p}", True, p) for p in ("train", "dev", "eval")]
    others = [Clip(f"{n}.wav", f"b:person{n}", True) for n in range(50)]
    parts, own = split_speakers([*told, *others], TINY)
    assert own
    assert sum(map(len, parts.values())) == 53
    one, _ = split_speakers([*told[:2], *others[:1]], TINY)
    assert one["eval"] == ["b:person0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"environments": {"1": 1.0}, "held_out": {"environment": [4]}},
        {"environments": {"1": 1.0}, "held_out": {"playback_device": [1, 2, 3, 4]}},
        {"source_recorders": {"1": 1.0}, "held_out": {"source_recorder": [3]}},
        {"environments": {"3": 1.0}, "held_out": {"position": [12]}, "built_in_share": 0.0},
        {"held_out": {"position": [12]}, "random_rooms": 0.2, "built_in_share": 0.0},
        {"held_out": {"position": [12]}, "built_in_share": 0.3},
        {"held_out": {"position": [47]}, "built_in_share": 0.0},
    ],
)
def test_a_recipe_that_leaves_a_partition_nothing_is_one_sentence(changes):
    with pytest.raises(ValueError, match="recipe 'tiny'"):
        dataclasses.replace(TINY, **changes)


def test_other_voices_do_not_stay_under_old_names(tmp_path):
    pytest.importorskip("espeakng_loader")
    from remasc.simulate.voices import make_voices

    fresh = make_voices(tmp_path / "fresh", "two", {"eval": 2}, per_speaker=1)
    used = make_voices(tmp_path / "used", "one", {"eval": 3}, per_speaker=1)
    assert digest(make_voices(used, "two", {"eval": 2}, per_speaker=1)) == digest(fresh)


def test_every_scene_may_have_an_array_of_its_own(speech, tmp_path):
    """Channels and rate as its geometry says, read back as the array RANDOM, heard by training as "all"."""
    recipe = dataclasses.replace(TINY, name="own-arrays", random_arrays=True)
    root = generate(recipe, tmp_path / "own", speech=speech, workers=1, progress=False)
    scenes = by_file(read_scenes(root))
    corpus = Corpus.from_meta(root).trials()
    assert len(corpus) == 16
    assert {r.array for r in corpus} == {"RANDOM"}
    for recording in corpus.filter(array="RANDOM"):
        array = array_of(scene_of(recording.file_id, scenes), recording.array)
        waveform, rate = read_audio(recording.path)
        assert (len(waveform), rate) == (array.num_mics, array.sample_rate)
    assert len({scene["array"]["name"] for scene in scenes.values()}) == 16
    parts = training_parts(TrainConfig(corpus=root, out=tmp_path / "run"), Corpus.from_meta(root))
    assert sum(map(len, parts.values())) == 16


def test_a_partition_may_be_recorded_by_one_array_a_scene(speech, tmp_path):
    """Siblings by the same one, arrays about as often in every environment; the other partitions by all; and what
    an array recorded does not depend on which arrays are asked for."""
    recipe = dataclasses.replace(TINY, name="one-array", pairs={"train": 120, "eval": 2}, one_array=["train"])
    scenes = drawn(recipe, "one-array", speech)
    heard = {}
    for scene in scenes:
        assert len(scene.get("arrays", "1234")) == (1 if scene["partition"] == "train" else 4)
        if scene["partition"] == "train":
            heard.setdefault(scene["pair"], set()).add((scene["environment"], *scene["arrays"]))
    assert all(len(both) == 1 for both in heard.values())
    assert len(set().union(*heard.values())) == 16
    few = dataclasses.replace(recipe, pairs={"train": 6, "eval": 1})
    roots = {}
    for arrays in (("D2",), ("D1", "D2", "D3", "D4")):
        out = tmp_path / str(len(arrays))
        roots[arrays] = generate(few, out, speech=speech, arrays=arrays, workers=1, progress=False)
    alone, beside = (Corpus.from_meta(root) for root in roots.values())
    assert {len(part.filter(array="D2")) for part in (alone, beside)} == {len(alone)}
    assert len(beside) == 12 + 8
    with pytest.raises(ValueError, match="one_array"):
        dataclasses.replace(recipe, random_arrays=True)
    with pytest.raises(ValueError, match="one_array"):
        dataclasses.replace(recipe, one_array=["training"])


def test_a_licence_is_found_where_the_word_does_not_stand(tmp_path):
    told = {
        "a": "# rain\nForty clips, CC BY 3.0, of one author. Licence: CC0 (LICENCE.txt).\n",
        "b": "# kitchen\nTwo clips. Both CC BY 4.0. Recorded at home.\n",
        "c": "# street\nNobody knows whose.\n",
    }
    for name, text in told.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "ORIGIN.md").write_text(text, encoding="utf-8")
    found = {row["source"]: row["licence"] for row in describe_sources(tmp_path)}
    assert found == {
        "rain": "CC0 (LICENCE.txt)",
        "kitchen": "Both CC BY 4.0",
        "street": "not stated",
    }
