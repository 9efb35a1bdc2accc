"""The planes of a machine without torch are the planes the detector learnt from."""

import numpy as np
import pytest
import torch

from detector.frontends import planes as taught
from detector.frontends import portable, spatial, spectral
from detector.frontends.planes import CovariancePlanes
from detector.frontends.portable import PlaneSettings, planes

SETTINGS = PlaneSettings(**CovariancePlanes.settings())


def recording(mics, samples, seed=0):
    g = np.random.default_rng([seed, mics, samples])
    source = g.standard_normal(samples) * (1 + np.sin(np.arange(samples) / 900))
    x = 0.2 * np.stack([np.roll(source, m) for m in range(mics)]) + 0.02 * g.standard_normal((mics, samples))
    return x.astype(np.float32)


def both(x):
    return planes(x, SETTINGS), CovariancePlanes()(torch.from_numpy(x)[None])[0].numpy()


def test_the_constants_are_the_same():
    assert (portable.SHIFT, portable.SCALE) == (taught.SHIFT, taught.SCALE)
    assert (portable.EPS, portable.FLOOR) == (spatial.EPS, spatial.FLOOR)
    assert CovariancePlanes.version == portable.VERSION
    ours = portable.mel_bands(40, 512, 16000, *portable.BAND_HZ)
    assert np.abs(ours - CovariancePlanes().filters.numpy()).max() < 1e-6
    assert np.abs(ours - spectral.mel_bands(40, 512, 16000, 60.0, 7200.0).numpy()).max() < 1e-6


@pytest.mark.parametrize("mics", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("samples", [1, 4000, 12345, 30000])
def test_planes_equal_those_of_torch(mics, samples):
    got, want = both(recording(mics, samples))
    assert (got.shape, got.dtype) == (want.shape, np.float32)
    gap = np.abs(got - want).max(axis=(1, 2))
    gap[2] /= 100  # what a nearly perfect source leaves is a small difference of large numbers
    assert gap.max() <= 3e-5, gap


def test_silence_and_one_sample_are_finite():
    for x in (np.zeros((3, 8000)), np.zeros((1, 10)), np.eye(3, 8000)):
        got, want = both(x.astype(np.float32))
        assert np.isfinite(got).all()
        assert np.abs(got - want).max() < 1e-3


def test_blocks_change_nothing(monkeypatch):
    x = recording(4, 30000)
    whole = planes(x, SETTINGS)
    monkeypatch.setattr(portable, "BLOCK", 1)
    assert np.abs(planes(x, SETTINGS) - whole).max() < 1e-6


@pytest.mark.parametrize(
    "change", [{"hop": 0}, {"n_fft": 2.0}, {"bands": 10**6}, {"smooth": True}, {"version": 1}]
)
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="anew"):
        PlaneSettings(**(CovariancePlanes.settings() | change))
