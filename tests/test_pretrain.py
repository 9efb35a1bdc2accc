"""The pretraining loop: interrupted anywhere it is the same run; its weights fine-tune; its picture is drawn."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.backbones import AST
from detector.fitting import Interrupted
from detector.frontends.fbank import FilterBank, normalised
from detector.pretrain.clips import FilterBankClips
from detector.pretrain.run import PretrainConfig, collate, pretrain
from detector.rundir import _locked
from eval.masked import masked_png
from remasc.audio import write_wav


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    monkeypatch.setattr("detector.backbones.transformer.DEPTH", 1)


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 32, generator=generator) for n in (40, 32, 20, 33, 50, 5, 32)]


CONFIG = PretrainConfig(
    frames=32, mels=32, share=0.5, epochs=2, batch_size=3, device="cpu", learning_rate=1e-3
)


@pytest.mark.parametrize("stops", [(1,), (4, 1)])
def test_an_interrupted_run_is_the_same_run(tmp_path, clips, stops):
    config = replace(CONFIG, checkpoint_minutes=0.0)
    whole = pretrain(clips, tmp_path / "whole", config)
    for stop in stops:
        with pytest.raises(Interrupted):
            pretrain(clips, tmp_path / "parts", config, stop_after=stop)
    parts = pretrain(clips, tmp_path / "parts", config)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]
    rows = [json.loads(line) for line in logs[0].splitlines()]
    assert [row["steps"] for row in rows] == [3, 3]
    assert all(row["loss"] == pytest.approx(row["infonce"] + 10 * row["mse"]) for row in rows)
    network = AST.from_ssast(tmp_path / "parts" / "model.safetensors", 5, 40)
    assert network.mels == 32
    again = pretrain(clips, tmp_path / "parts", config)  # finished: nothing is learnt again
    assert torch.equal(again.mask_embed, parts.mask_embed)


def test_another_run_is_not_continued(tmp_path, clips):
    pretrain(clips[:2], tmp_path, replace(CONFIG, epochs=1))
    with pytest.raises(ValueError, match=r"differs in seed \(0 there, 1 here\)"):
        pretrain(clips[:2], tmp_path, replace(CONFIG, epochs=1, seed=1))
    with pytest.raises(ValueError, match="differs in clips"):
        pretrain(clips[:3], tmp_path, replace(CONFIG, epochs=1))
    pretrain(clips[:3], tmp_path, replace(CONFIG, epochs=1), resume=False)
    with pytest.raises(ValueError, match="no clip"):
        pretrain([], tmp_path / "none", CONFIG)


def test_a_run_that_fails_before_it_learns_leaves_its_folder_free(tmp_path, clips):
    with pytest.raises(ValueError, match="share"):
        pretrain(clips, tmp_path, replace(CONFIG, share=2.0))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with (
        _locked(tmp_path),
        pytest.raises(ValueError, match="another training is at work"),
    ):
        pretrain(clips, tmp_path, CONFIG)
    refused = {"epochs": (0, "epochs is 0"), "device": ("gpu", "auto or cpu"), "schedule": ("", "cosine or")}
    for name, (value, sentence) in refused.items():
        with pytest.raises(ValueError, match=sentence):
            replace(CONFIG, **{name: value})


def test_clips_are_cut_or_padded(clips):
    x, lengths = collate(clips, 32, torch.Generator().manual_seed(1))
    assert x.shape == (7, 32, 32)
    assert lengths.tolist() == [32, 32, 20, 32, 32, 5, 32]
    assert not x[2, 20:].any()
    assert any(torch.equal(x[0], clips[0][start : start + 32]) for start in range(9))
    assert collate(clips[:2], 32)[1] is None


def test_files_become_spectrograms(tmp_path):
    waveform = (np.random.default_rng(0).standard_normal((2, 8000)) * 0.1).astype(np.float32)
    write_wav(tmp_path / "a.wav", waveform, 16000, subtype="FLOAT")
    write_wav(tmp_path / "b.wav", waveform[:, :300], 16000)
    heard = FilterBankClips([tmp_path / "a.wav"])
    torch.testing.assert_close(heard[0], normalised(FilterBank()(torch.from_numpy(waveform[0]))))
    assert heard[0] is heard[0]  # computed once
    again = FilterBankClips([tmp_path / "a.wav"], kept_bytes=1000)
    assert again[0] is not again[0]  # no room to keep it
    assert torch.equal(again[0], heard[0])
    with pytest.raises(ValueError, match=r"b\.wav: 0\.019 s hold no frame"):
        FilterBankClips([tmp_path / "a.wav", tmp_path / "b.wav"])


def test_the_picture_is_drawn():
    from matplotlib.image import imread

    true = np.random.default_rng(0).standard_normal((64, 32))
    blank = true.copy()
    blank[16:32, 16:] = np.nan
    picture = imread(io.BytesIO(masked_png(true, blank, true, title="SSAST")))
    assert picture.shape[0] > 500
    grey = np.isclose(picture[..., :3], 0.6, atol=0.01).all(axis=-1).mean()
    assert 0.01 < grey < 0.1  # one eighth of the second panel
    with pytest.raises(ValueError, match="three of one shape"):
        masked_png(true, blank[:5], true)
