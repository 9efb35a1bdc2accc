"""The variants of our detector: blind to what they lack, ordinary checkpoints, and each planned as it is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from detector import load
from detector.config import TrainConfig
from detector.fitting import Interrupted
from detector.frontends.planes import CovariancePlanes
from detector.model import CompactDetector
from detector.schedule import step_generator
from eval.benchmarks.tables import ablation
from eval.benchmarks.tables import cells as cells_of
from eval.benchmarks.tables.cells import How, Scored, Training, score_folder
from eval.benchmarks.tables.options import Options
from eval.benchmarks.tables.planning import plan
from eval.benchmarks.tables.views import beginnings
from remasc import Corpus, read_audio
from remasc.audio import audio_info
from remasc.protocol import partitions
from tests.tiny_corpus import make_corpus

BLIND = {"without-space": slice(1, None), "without-spectrum": slice(0, 1)}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpora") / "tiny", clips=32, seconds=1.6).root


def planes(seed: int, frames: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, CovariancePlanes.count, CovariancePlanes.bands, frames, generator=generator)


@pytest.mark.parametrize("variant", BLIND)
def test_what_is_hidden_moves_no_score_and_the_checkpoint_is_an_ordinary_detectors(variant):
    torch.manual_seed(0)
    network = ablation.NETWORKS[variant]().eval()
    compact = CompactDetector().eval()
    compact.load_state_dict(network.as_compact(network.state_dict()))
    x, other = planes(0), planes(1)
    changed = x.clone()
    changed[:, BLIND[variant]] = other[:, BLIND[variant]]
    with torch.inference_mode():
        for one in (network, compact):
            torch.testing.assert_close(one.logits(changed), one.logits(x))
            assert not torch.allclose(one.logits(other), one.logits(x))
        torch.testing.assert_close(compact.logits(x), network.logits(x))


@pytest.mark.parametrize("variant", BLIND)
def test_a_step_teaches_nothing_of_what_is_hidden_whatever_augmentation_makes_of_it(variant):
    torch.manual_seed(0)
    network, x = ablation.NETWORKS[variant](), planes(0)
    x[:, BLIND[variant]] = float("inf")  # were it heard, nothing would be left
    x, lengths = network.augment(x, torch.tensor([60, 60, 60]), step_generator(0, 0, 0))
    network.logits(x, lengths).sum().backward()
    gradient = network.backbone.blocks[0].first.weight.grad
    assert torch.isfinite(gradient).all()
    assert not gradient[:, BLIND[variant]].any()
    assert gradient.any()


@pytest.mark.parametrize("variant", BLIND)
def test_augmentation_hardly_ever_hides_what_a_variant_still_sees(variant):
    network, blank = ablation.NETWORKS[variant](), []
    for step in range(60):
        x, lengths = network.augment(planes(step), torch.tensor([60, 50, 40]), step_generator(0, 0, step))
        assert (len(x), len(lengths)) == (3, 3)
        assert int(lengths.max()) <= x.shape[-1]
        blank += (~x.flatten(1).any(dim=1)).tolist()
    assert np.mean(blank) < 0.06  # of the whole detector's items one of eight has no level, another no space


def test_without_augmentation_the_recordings_are_learnt_as_they_are(tiny, tmp_path):
    network = ablation.WithoutAugmentation()
    x = planes(0)
    same, lengths = network.augment(x.clone(), torch.tensor([60, 50, 40]), step_generator(0, 0, 0))
    assert torch.equal(same, x)
    assert lengths.tolist() == [60, 50, 40]
    train = list(partitions(Corpus.from_meta(tiny))["train"])
    built = {
        one: one.build_examples(train, tmp_path, training=True, progress=False)
        for one in (CompactDetector, ablation.WithoutAugmentation)
    }
    plain = CompactDetector.build_examples(train, tmp_path, training=False, progress=False)
    handled, mine = built.values()
    assert all(torch.equal(one, other) for one, other in zip(mine, plain, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(handled, plain, strict=True))


def test_the_table_is_of_one_schedule_and_its_seeds(tiny, tmp_path):
    bench = plan("ablation", Options((tiny,), tmp_path, arrays=("D4",), seeds=(0, 7)))
    assert [cell.row for cell in bench.cells[:7]] == [
        "compact",
        "without space",
        "without spectrum",
        "without augmentation",
        "first second only",
        "tested on the first second",
        "edge variant",
    ]
    by_row = {cell.row: cell for cell in bench.cells if cell.training.seed == 7}
    assert len({cell.training for cell in bench.cells}) == 12
    assert by_row["compact"].training == by_row["tested on the first second"].training
    assert by_row["compact"].training in plan("peers", Options((tiny,), tmp_path, seeds=(7,))).configs
    whole = bench.configs[by_row["compact"].training].identity()
    differs = {
        row: {k: v for k, v in bench.configs[cell.training].identity().items() if v != whole[k]}
        for row, cell in by_row.items()
    }
    assert differs.pop("first second only") == {"seconds": 1.0}
    assert differs.pop("edge variant") == {"backbone": "edge"}
    assert not any(differs.values())  # what else they lack is of the network: same schedule, same seed
    assert {row: cell.test.seconds for row, cell in by_row.items() if cell.test.seconds} == {
        "first second only": 1.0,
        "tested on the first second": 1.0,
    }
    assert len({tuple(bench.trials[cell.test]) for cell in bench.cells}) == 1
    assert len({bench.scored(cell) for cell in bench.cells}) == len(bench.cells)
    with pytest.raises(ValueError, match="ablation is about compact; leave --systems out"):
        plan("ablation", Options((tiny,), tmp_path, systems=("void",)))


def test_a_beginning_is_the_first_samples_of_the_same_trials(tiny, tmp_path):
    corpus = Corpus.from_meta(tiny)
    cut = beginnings(tmp_path, corpus, "eval", "D3", 0.7)
    part = partitions(corpus)["eval"].filter(array="D3")
    assert [r.trial_id for r in partitions(cut)["eval"]] == [r.trial_id for r in part]
    assert cut.simulated is corpus.simulated
    for whole, begun in zip(part, cut, strict=True):
        waveform, rate = read_audio(whole.path)
        np.testing.assert_array_equal(read_audio(begun.path)[0], waveform[:, : round(0.7 * rate)])
        assert audio_info(begun.path).subtype == audio_info(whole.path).subtype
        assert not begun.path.is_symlink()


def config(tiny, out, variant="", **values) -> TrainConfig:
    training = Training(tiny, "compact", "all", 0, variant=variant)
    made = training.config(tiny, out, scale=1.0, quick=True, device="cpu")
    return replace(made, batch_size=16, **values)


def test_a_variant_is_trained_scored_and_opened_like_any_detector(tiny, tmp_path):
    one = config(tiny, tmp_path, "without-space")
    tests = [Scored(tiny, "D4"), Scored(tiny, "D4", seconds=1.0)]
    record = cells_of.run(one, tests, How("eval", alone=False), "without-space")
    assert (record["variant"], record["epochs"]) == ("without-space", cells_of.QUICK_EPOCHS)
    assert record["parameters"] == sum(p.numel() for p in CompactDetector().parameters())
    detector = load(one.out)
    part = list(partitions(Corpus.from_meta(tiny))["eval"].filter(array="D4"))
    for test in tests:
        lines = (score_folder(one, test, "eval") / "scores.tsv").read_text().splitlines()[1:]
        told = {line.split("\t")[0]: float(line.split("\t")[1]) for line in lines}
        assert set(told) == {r.trial_id for r in part}
        for r in part:
            waveform, rate = read_audio(r.path, seconds=test.seconds or None)
            assert told[r.trial_id] == pytest.approx(detector.score(waveform, rate, "D4"), abs=1e-4)
    assert not list(one.out.glob(".begun*"))
    before = (one.out / "model.safetensors").stat().st_mtime_ns
    assert cells_of.run(one, tests, How("eval", alone=False), "without-space") == record
    assert (one.out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds a run that differs in epochs"):
        cells_of.run(replace(one, epochs=3), tests, How("eval", alone=False), "without-space")


def test_an_interrupted_variant_ends_the_same(tiny, tmp_path, monkeypatch):
    whole, broken = (config(tiny, tmp_path / name, "without-spectrum") for name in ("whole", "broken"))
    ablation.train(whole, "without-spectrum", progress=False)
    fit = ablation.Training.fit

    def stopped(training):
        fit(training, stop_after=1)

    broken = replace(broken, checkpoint_minutes=0.0)
    monkeypatch.setattr(ablation.Training, "fit", stopped)
    with pytest.raises(Interrupted):
        ablation.train(broken, "without-spectrum", progress=False)
    monkeypatch.setattr(ablation.Training, "fit", fit)
    assert not (broken.out / "run.json").exists()
    ablation.train(broken, "without-spectrum", progress=False)
    assert (broken.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()
    told = [json.loads((one.out / "run.json").read_text()) for one in (whole, broken)]
    assert told[0]["dev_eer"] == told[1]["dev_eer"]
