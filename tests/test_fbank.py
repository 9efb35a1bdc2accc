"""The filter bank: equal to torchaudio's Kaldi one, batched, the same where it is trainable."""

from __future__ import annotations

import pytest
import torch
from torchaudio.compliance import kaldi

from detector.frontends.fbank import FilterBank, fit_frames, normalised


def published(x: torch.Tensor, rate: int, mels: int) -> torch.Tensor:
    """One clip (T,) through torchaudio, with the settings of the published code."""
    return kaldi.fbank(
        x[None], htk_compat=True, sample_frequency=rate, use_energy=False, window_type="hanning",
        num_mel_bins=mels, dither=0.0, frame_shift=10,
    )  # fmt: skip


def sound(kind: str, rate: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(rate, generator=generator)
    if kind == "noise":
        return noise * 0.1
    if kind == "quiet":
        return (noise * 3).round() / 2**15 + 0.01
    if kind == "silence":
        return torch.zeros(rate)
    time = torch.arange(rate) / rate
    return 0.5 * torch.sin(2 * torch.pi * (200 * time + 900 * time**2)) + 1e-3 * noise


@pytest.mark.parametrize("kind", ["noise", "quiet", "sweep", "silence"])
@pytest.mark.parametrize(("rate", "mels"), [(16000, 128), (16000, 40), (44100, 128), (8000, 64)])
def test_it_is_kaldis(kind, rate, mels):
    x = sound(kind, rate)
    ours = FilterBank(mels, rate)(x)
    torch.testing.assert_close(ours, published(x, rate, mels), rtol=1e-4, atol=1e-4)


def test_the_mean_of_a_clip_says_nothing():
    x = sound("noise", 16000)
    bank = FilterBank()
    torch.testing.assert_close(bank(x + 0.3), bank(x), rtol=1e-3, atol=1e-3)


def test_a_batch_is_its_clips_and_frames_are_counted():
    x = torch.randn(2, 3, 5000) * 0.1
    bank = FilterBank(64)
    together = bank(x)
    assert together.shape == (2, 3, bank.count(5000), 64)
    torch.testing.assert_close(together[1, 2], bank(x[1, 2]))
    assert torch.equal(bank.count(torch.tensor([400, 559, 560])), torch.tensor([1, 1, 2]))


def test_trainable_starts_as_the_fixed_one_and_learns():
    x = sound("sweep", 16000)
    fixed, trainable = FilterBank(64), FilterBank(64, trainable=True)
    assert not list(fixed.parameters())
    assert not fixed.state_dict()
    torch.testing.assert_close(
        trainable(x), fixed(x), rtol=1e-3, atol=1e-2
    )  # sums of 400 products, not an FFT
    trainable(x).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in trainable.parameters())


def test_frames_are_cut_or_padded_with_zeros_before_normalising():
    x = torch.randn(2, 50, 8)
    assert torch.equal(fit_frames(x, 20), x[:, :20])
    longer = fit_frames(x, 70)
    assert torch.equal(longer[:, :50], x)
    assert not longer[:, 50:].any()
    y = normalised(x, -4.0, 2.0)
    torch.testing.assert_close(y * 4 - 4, x)


def test_what_cannot_be_is_one_sentence():
    with pytest.raises(ValueError, match="hold no frame of 400"):
        FilterBank()(torch.zeros(1, 399))
    with pytest.raises(ValueError, match="at least 4"):
        FilterBank(2)
    with pytest.raises(ValueError, match="above zero"):
        normalised(torch.zeros(1, 2, 3), 0.0, 0.0)
