"""The classifier: splits keep speakers apart, a killed run goes on to the same result, checkpoints say what was
trained, and padding or batch mates change nothing."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import replayguard
from detector.classify import train as training
from detector.classify.augment import mixed, rolled, spec_augment
from detector.classify.config import AdaptConfig, ClassifyConfig, DistillConfig
from detector.classify.data import SPLITS, Clip, fewer, read_clips, split_clips, table, unheard
from detector.classify.network import Architecture, Classifier, build
from detector.classify.predict import predict_files
from detector.classify.store import begin, load_classifier
from detector.classify.train import train_classifier
from detector.fitting import Interrupted
from remasc.audio import write_wav

CLASSES = {"low": 300, "mid": 1200, "tall": 4000}
SPEAKERS = 6
FAST = {"frames": 32, "stride": 16, "epochs": 2, "batch_size": 8, "device": "cpu", "learning_rate": 1e-3}
RECIPE = {"balanced": True, "freq_mask": 10, "time_mask": 5, "roll": 3, "mixup": 0.5, "average": 2}


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A CSV of 36 clips of 0.35 s: three pitches, six speakers, twice each."""
    root = tmp_path_factory.mktemp("tones")
    rng, rows = np.random.default_rng(0), []
    for label, pitch in CLASSES.items():
        for speaker in range(SPEAKERS):
            for take in range(2):
                t = np.arange(5600) / 16000
                x = 0.3 * np.sin(2 * np.pi * pitch * (1 + 0.02 * speaker) * t + take) * np.ones((1, 1))
                name = f"{label}/s{speaker}_{take}.wav"
                (root / label).mkdir(exist_ok=True)
                noise = 0.01 * rng.standard_normal(x.shape)
                write_wav(root / name, (x + noise).astype(np.float32), 16000)
                rows.append((name, label, f"s{speaker}"))
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "speaker"), *rows])
    return root / "list.csv"


@pytest.fixture(scope="module")
def learnt(tones, tmp_path_factory):
    """A finished AST on the tones."""
    out = tmp_path_factory.mktemp("learnt") / "ast"
    return train_classifier(ClassifyConfig(data=tones, out=out, **FAST | {"epochs": 10, "batch_size": 4}))


def made_up(count=200, speakers=40, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Clip(None, f"{n}.wav", f"c{rng.integers(classes)}", "", f"s{rng.integers(speakers)}")
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_speaker_has_one_split_whatever_the_order(seed):
    clips = made_up(seed=seed)
    parts = split_clips(clips, seed)
    homes = {split: {clip.speaker for clip in parts[split]} for split in SPLITS}
    assert not homes["train"] & homes["dev"]
    assert not (homes["train"] | homes["dev"]) & homes["eval"]
    assert [len(parts[s]) / len(clips) for s in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.05)
    assert table(split_clips(clips[::-1], seed)) == table(parts)


def test_three_speakers_fill_three_splits_and_two_are_refused():
    clips = [Clip(None, f"{s}{c}", c, "", s) for s in "abc" for c in "xy"]
    assert all(len(part) == 2 for part in split_clips(clips).values())
    with pytest.raises(ValueError, match="2 speakers cannot be dealt"):
        split_clips(clips[:4])


def test_without_speakers_every_class_is_dealt_alike():
    clips = [Clip(None, f"{label}{n}", label) for label in "xyz" for n in range(20)]
    parts = split_clips(clips)
    for split, count in zip(SPLITS, (12, 4, 4), strict=True):
        assert Counter(clip.label for clip in parts[split]) == dict.fromkeys("xyz", count)


def test_a_smaller_share_of_labels_lies_within_a_larger():
    clips = made_up()
    few, more = fewer(clips, 0.1), fewer(clips, 0.5)
    assert set(few) <= set(more) <= set(clips)
    assert {clip.label for clip in few} == {clip.label for clip in clips}
    assert fewer(clips, 1.0) == clips


def test_folders_and_a_list_say_the_same(tones):
    listed = [(c.path, c.label) for c in read_clips(tones)]
    walked = [(c.path, c.label) for c in read_clips(tones.parent)]
    assert sorted(listed) == sorted(walked)
    named = read_clips(tones.parent, r"^(s\d)_")
    assert {c.path: c.speaker for c in named} == {c.path: c.speaker for c in read_clips(tones)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("label\nx\n", "no column 'file'"),
        ("file,lable\nlow/s0_0.wav,x\n", "did you mean 'label'"),
        ("file,label\nlow/s0_0.wav,x\nlow/s0_0.wav,y\n", "listed twice"),
        ("file,label\nlow/none.wav,x\n", "1 of 1 files are not there"),
        ("file,label,split\nlow/s0_0.wav,x,tset\n", "split 'tset'"),
        ("file,label\n", "lists no file"),
        ("file,label\nlow/s0_0.wav,x,y\n", "one value for each column"),
    ],
)
def test_a_wrong_list_is_one_sentence(tones, text, sentence):
    path = tones.parent / "wrong.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        read_clips(path)


def test_given_splits_rule_and_half_given_ones_are_refused():
    clips = [Clip(None, f"{s}{c}", c, s) for s in SPLITS for c in "xy"]
    parts = split_clips(clips)
    assert {s: len(parts[s]) for s in SPLITS} == dict.fromkeys(SPLITS, 2)
    with pytest.raises(ValueError, match="has no split"):
        split_clips([*clips, Clip(None, "more", "x")])
    with pytest.raises(ValueError, match="'z' is in eval but not in train"):
        split_clips([*clips, Clip(None, "more", "z", "eval")])
    with pytest.raises(ValueError, match="train holds the class 'x' alone"):
        split_clips([clip for clip in clips if clip.label == "x"])
    with pytest.raises(ValueError, match="train holds no labelled clip"):
        split_clips([clip for clip in clips if clip.split != "train"])


def test_pretraining_hears_no_clip_of_dev_or_eval(tones):
    parts = split_clips(read_clips(tones))
    heard = unheard([tones])
    assert {path.resolve() for path in heard} == {c.path.resolve() for c in parts["train"]}
    # a clip that a second source names does not come back
    again = unheard([tones, tones.parent / "low" / "s0_0.wav", *(c.path for c in parts["eval"])])
    assert {path.resolve() for path in again} <= {c.path.resolve() for c in parts["train"]}


@pytest.mark.parametrize("backbone", ["ast", "psla"])
def test_batch_mates_and_padding_change_nothing(backbone):
    torch.manual_seed(0)
    network = Classifier(Architecture(("a", "b"), backbone, stride=(16, 16), frames=40)).eval()
    x = torch.randn(3, 6640) * 0.1
    lengths = torch.tensor([6640, 3000, 4500])
    with torch.no_grad():
        together = network(x, lengths)
        dirty = x.clone()
        dirty[1, 3000:] = 7.0
        torch.testing.assert_close(network(dirty, lengths), together, rtol=1e-4, atol=1e-5)
        for n in range(3):
            alone = network(
                torch.nn.functional.pad(x[n : n + 1, : lengths[n]], (0, 6640 - lengths[n])),
                lengths[n : n + 1],
            )
            torch.testing.assert_close(alone[0], together[n], rtol=1e-4, atol=1e-5)


def test_a_trainable_front_end_begins_as_the_filter_bank_and_learns():
    torch.manual_seed(0)
    fixed = Classifier(Architecture(("a", "b"), stride=(16, 16), frames=32))
    free = Classifier(Architecture(("a", "b"), stride=(16, 16), frames=32, frontend="trainable"))
    x = torch.randn(2, 5360) * 0.1
    torch.testing.assert_close(free.spectrograms(x)[0], fixed.spectrograms(x)[0], rtol=1e-3, atol=1e-3)
    free(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in free.front.parameters())
    assert not list(fixed.front.parameters())


def test_masks_lie_in_the_real_frames_and_no_wider_than_asked():
    x = torch.ones(50, 60, 32)
    frames = torch.full((50,), 20)
    y = spec_augment(x, frames, 5, 7, torch.Generator().manual_seed(1))
    hidden_frames = (y == 0).all(dim=2).sum(dim=1)
    hidden_bands = (y == 0).all(dim=1).sum(dim=1)
    assert hidden_frames.max() == 7
    assert hidden_bands.max() == 5
    assert not (y == 0).all(dim=2)[:, 20:].any()


def test_a_shift_loses_nothing():
    x = torch.randn(8, 30, 4)
    y = rolled(x, 6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(y.sort(dim=1).values, x.sort(dim=1).values)
    assert not torch.equal(x, y)


def test_a_mixture_mixes_sound_and_label_alike():
    x = torch.eye(6)  # each item's sound says who it is
    y, lengths, targets = mixed(x, torch.arange(6) + 1, torch.eye(6), 0.5, 3)
    torch.testing.assert_close(y, targets)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    changed = (y != x).any(1)
    assert 0 < changed.sum() < 6
    assert torch.equal(lengths[~changed], (torch.arange(6) + 1)[~changed])
    same, _, _ = mixed(x, torch.arange(6), torch.eye(6), 0.0, 3)
    assert torch.equal(same, x)


def test_tones_are_learnt_and_the_checkpoint_says_what_the_run_said(learnt, tones):
    assert learnt.run["eval_accuracy"] > 0.9
    assert learnt.run["split_by"] == "speaker"
    assert learnt.run["speakers_shared"] == 0
    with open(learnt.folder / "predictions.csv", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    found, classes = predict_files(
        learnt.folder, [tones.parent / name for name in rows], device="cpu", batch_size=3
    )
    assert classes == tuple(CLASSES)
    for prediction, row in zip(found, rows.values(), strict=True):
        expected = [float(row[f"p:{name}"]) for name in classes]
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)


def test_a_file_that_cannot_be_read_costs_no_other_its_class(learnt, tones, tmp_path, capsys):
    clips = sorted((tones.parent / "low").iterdir())[:2]
    broken, empty = tmp_path / "broken.wav", tmp_path / "empty.wav"
    broken.write_bytes(b"RIFF no sound")
    write_wav(empty, np.zeros((1, 0), dtype=np.float32), 16000)
    files = [broken, clips[0], tmp_path / "none.wav", clips[1], empty]
    found, _ = predict_files(learnt.folder, files, device="cpu")
    alone, _ = predict_files(learnt.folder, clips, device="cpu")
    assert [bool(row.fault) for row in found] == [True, False, True, False, True]
    for one, other in zip((found[1], found[3]), alone, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    out = tmp_path / "out"
    words = [
        "classify",
        "predict",
        str(learnt.folder),
        *map(str, files),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    assert replayguard.main(words) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert all(str(path) in said.err for path in (broken, empty, tmp_path / "none.wav"))
    assert "3 of 5 files" in said.err
    assert len((out / "predictions.csv").read_text().splitlines()) == 3


def test_what_a_config_refuses_is_one_sentence_at_the_front_door(tones, tmp_path, capsys):
    for words, sentence in (
        ("adapt", "nothing to adapt"),
        ("train --mixup 2", "mixup is 2.0; expected 0 to 1"),
    ):
        place = ["--data", str(tones), "--out", str(tmp_path / "run")]
        assert replayguard.main(["classify", *words.split(), *place]) == 2
        said = capsys.readouterr()
        assert sentence in said.err
        assert len(said.err.splitlines()) == 1


def test_a_base_says_its_shape_and_another_is_refused(learnt, tones, tmp_path):
    base, plain = learnt.folder, {"data": tones, "base": learnt.folder}
    architecture = Architecture(tuple(CLASSES), stride=(10, 10), frames=32, frontend="trainable")
    network = begin(architecture, base)
    assert network.architecture.stride == (16, 16)  # the base's
    assert network.architecture.frontend == "trainable"
    fixed, x = load_classifier(base).network, torch.randn(2, network.samples) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), fixed(x), rtol=1e-3, atol=1e-3)
    for number, wrong in enumerate(({"stride": 10}, {"size": "small"})):
        config = ClassifyConfig(out=tmp_path / str(number), epochs=1, device="cpu", **plain, **wrong)
        with pytest.raises(ValueError, match=f"its {next(iter(wrong))} is"):
            train_classifier(config)
    with pytest.raises(ValueError, match="freezes the front end"):
        AdaptConfig(out=tmp_path / "few", frontend="trainable", **plain)


@pytest.mark.parametrize("stop", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_result(tones, tmp_path, stop):
    one, other = (
        ClassifyConfig(data=tones, out=tmp_path / name, checkpoint_minutes=0, **FAST, **RECIPE)
        for name in "ab"
    )
    whole = train_classifier(one)
    with pytest.raises(Interrupted):
        train_classifier(other, stop_after=stop)
    again = train_classifier(other)
    first, second = (load_file(run.folder / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in r.history] for r in (whole, again)
    ]
    assert timeless[0] == timeless[1]
    assert train_classifier(other).already_finished
    with pytest.raises(ValueError, match="differs in seed"):
        train_classifier(ClassifyConfig(data=tones, out=tmp_path / "b", seed=1, **FAST, **RECIPE))


@pytest.mark.slow
def test_a_run_that_never_began_leaves_its_folder_free(tones, tmp_path):
    broken = tones.parent / "broken.wav"
    broken.write_bytes(b"no sound")
    learnt_from = split_clips(read_clips(tones))["train"][0].name
    (tones.parent / "broken.csv").write_text(tones.read_text().replace(learnt_from, "broken.wav"))
    out = tmp_path / "run"
    settings = FAST | {"epochs": 1, "frames": None}
    with pytest.raises(ValueError, match=r"broken\.wav"):
        train_classifier(ClassifyConfig(data=tones.parent / "broken.csv", out=out, **settings))
    assert not [path.name for path in out.iterdir() if path.name != ".lock"]
    with pytest.raises(Interrupted):  # what was begun is not thrown away
        train_classifier(ClassifyConfig(data=tones, out=out, **settings), stop_after=1)
    assert (out / "training.json").exists()


def test_clips_that_cannot_be_decoded_are_told_before_training(tones, tmp_path):
    """Also those of eval, which else would be heard for the first time after the last epoch."""
    parts = split_clips(read_clips(tones))
    lines = ["file,label,split"]
    for split, clips in parts.items():
        lines += [f"{clip.path.resolve()},{clip.label},{split}" for clip in clips]
    for number in range(2):  # the header of a FLAC says its length, the frames behind it are none
        broken = tmp_path / f"broken{number}.flac"
        soundfile.write(broken, np.random.default_rng(0).uniform(-0.5, 0.5, 5600), 16000)
        data = bytearray(broken.read_bytes())
        data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
        broken.write_bytes(data)
        lines.append(f"{broken.name},low,eval")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=rf"2 of {len(lines) - 1} files .*broken0\.flac"):
        train_classifier(ClassifyConfig(data=tmp_path / "list.csv", out=out, **FAST), stop_after=0)
    assert not [path.name for path in out.iterdir() if path.name != ".lock"]


def test_what_is_no_classifier_yet_is_one_sentence(tmp_path):
    for names, sentence in (
        (("model.safetensors", "run.json"), "is a pretraining"),
        (("training.json", "state.safetensors"), "not finished"),
    ):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / name).write_text("{}")
        with pytest.raises(ValueError, match=sentence):
            load_classifier(folder)


def test_the_mean_of_the_last_epochs_is_their_mean(tones, tmp_path, monkeypatch):
    seen = []
    plain = training.Fitting._average

    def spy(self, count):
        seen.append({k: v.clone() for k, v in self.network.state_dict().items()})
        plain(self, count)

    monkeypatch.setattr(training.Fitting, "_average", spy)
    config = ClassifyConfig(data=tones, out=tmp_path / "a", average=2, **FAST | {"epochs": 3})
    shipped = load_file(train_classifier(config).folder / "model.safetensors")
    assert len(seen) == 2
    for name, value in shipped.items():
        torch.testing.assert_close(value, (seen[0][name] + seen[1][name]) / 2)


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members(tones, tmp_path):
    config = ClassifyConfig(data=tones, out=tmp_path / "e", ensemble=2, **FAST | {"epochs": 1})
    run = train_classifier(config)
    files = [clip.path for clip in read_clips(tones)][:5]
    whole, _ = predict_files(run.folder, files, device="cpu")
    members = [tmp_path / "e" / f"member-{n}" for n in (1, 2)]
    apart, _ = predict_files(members, files, device="cpu")
    for one, other in zip(whole, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    one, other = (load_classifier(member).run["seed"] for member in members)
    assert (one, other) == (0, 1)


def test_a_teacher_softens_the_labels(tones, learnt, tmp_path):
    config = ClassifyConfig(
        data=tones, out=tmp_path / "s", label_teacher=learnt.folder, label_share=0.25, **FAST
    )
    parts = split_clips(read_clips(tones))
    run = training._Run(config, parts, False, training.Progress(False))
    targets = run._targets()
    hard = torch.nn.functional.one_hot(torch.from_numpy(run.parts["train"].numbers), 3).float()
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    assert ((targets - 0.75 * hard) >= 0).all()
    assert not torch.equal(targets, hard)


@pytest.mark.parametrize(
    "direction", [("ast", "psla"), pytest.param(("psla", "ast"), marks=pytest.mark.slow)]
)
def test_either_backbone_teaches_the_other(tones, learnt, tmp_path, direction):
    teacher, student = direction
    folder = learnt.folder
    if teacher == "psla":
        config = ClassifyConfig(data=tones, out=tmp_path / "t", backbone="psla", **FAST | {"epochs": 1})
        folder = train_classifier(config).folder
    config = DistillConfig(
        data=tones,
        out=tmp_path / "s",
        backbone=student,
        teacher=folder,
        temperature=2.0,
        **FAST | {"epochs": 1},
    )
    before = load_file(folder / "model.safetensors")
    run = train_classifier(config)
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_classifier(run.folder).network.architecture.backbone == student


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("serial", "parallel", "bitfit", "probe")]


@pytest.mark.parametrize("method", ["lora", "prompt", *SLOWER])
def test_an_adapted_checkpoint_keeps_the_few_and_refers_to_its_base(tones, learnt, tmp_path, method):
    config = AdaptConfig(
        data=tones, out=tmp_path / "a", base=learnt.folder, method=method, rank=4, **FAST | {"epochs": 1}
    )
    run = train_classifier(config)
    loaded = load_classifier(run.folder)
    kept = load_file(run.folder / "model.safetensors")
    assert sum(value.numel() for value in kept.values()) == run.run["trained_parameters"]
    assert run.run["trained_parameters"] < 0.1 * run.run["parameters"]
    base = load_classifier(learnt.folder).network.state_dict()
    whole = loaded.network.state_dict()
    assert all(torch.equal(whole[name], base[name]) for name in base if name not in kept)
    with open(run.folder / "predictions.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:4]
    found, _ = predict_files(run.folder, [tones.parent / row["file"] for row in rows], device="cpu")
    for prediction, row in zip(found, rows, strict=True):
        expected = [float(row[f"p:{name}"]) for name in CLASSES]
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)


def test_another_base_is_refused(tones, learnt, tmp_path):
    config = AdaptConfig(
        data=tones, out=tmp_path / "a", base=learnt.folder, method="probe", **FAST | {"epochs": 1}
    )
    folder = train_classifier(config).folder
    other = train_classifier(ClassifyConfig(data=tones, out=tmp_path / "o", seed=5, **FAST | {"epochs": 1}))
    with pytest.raises(ValueError, match="not the base that it was trained on"):
        load_classifier(folder, base=other.folder)


def test_a_network_is_what_its_architecture_says():
    a = Architecture(("x", "y"), "ast", stride=(16, 16), frames=32, members=2, loss="bce")
    assert Architecture.from_dict(a.as_dict()) == a
    network = build(a).eval()
    x = torch.randn(2, 5360) * 0.1
    with torch.no_grad():
        mean = torch.stack([m.probabilities(m(x)) for m in network.members]).mean(0)
        torch.testing.assert_close(network.probabilities(network(x)), mean, rtol=1e-4, atol=1e-5)
    for wrong in ({"classes": ["x"]}, {"classes": ["x", "x"]}, {"backbone": "cnn"}, {"members": 0}):
        with pytest.raises(ValueError, match="architecture"):
            Architecture.from_dict(a.as_dict() | wrong)


def test_settings_out_of_range_are_one_sentence(tmp_path):
    place = {"data": tmp_path, "out": tmp_path / "o"}
    for wrong, word in (
        ({"mixup": 1.5}, "mixup"),
        ({"average": 3, "patience": 2}, "average"),
        ({"average": 31}, "average"),
        ({"backbone": "cnn"}, "backbone"),
        ({"labels": 0}, "labels"),
    ):
        with pytest.raises(ValueError, match=word):
            ClassifyConfig(**place, **wrong)
    with pytest.raises(ValueError, match="nothing to adapt"):
        AdaptConfig(**place)
