import numpy as np
import pytest
import torch

from detector.frontends.planes import CovariancePlanes
from detector.frontends.spatial import (
    BLOCK,
    FLOOR,
    audible,
    band_covariance,
    covariance_planes,
    long_covariance,
    principal,
)
from detector.frontends.spectral import mel_bands, stft


@pytest.mark.parametrize("samples", [1, 319, 320, 4801])
def test_frames_are_counted(samples):
    assert stft(torch.zeros(2, samples), 512, 320).shape == (2, 257, samples // 320 + 1)


def test_stft_gives_a_tone_its_bin():
    t = torch.arange(16000) / 16000
    power = stft(torch.sin(2 * torch.pi * 1000 * t), 512, 320).abs()[:, 25]
    assert power.argmax() == 32  # 1000 Hz / (16000 / 512)


def test_mel_bands_cover_the_range_and_sum_to_one():
    bands = mel_bands(40, 512, 16000, 60.0, 7200.0)
    assert torch.allclose(bands.sum(1), torch.ones(40))
    hertz = torch.arange(257) * 16000 / 512
    centre = bands @ hertz
    assert (centre.diff() > 0).all()
    assert (bands[:, hertz > 7250] == 0).all()


@pytest.mark.parametrize("mics", [1, 2, 4, 7])
def test_covariance_equals_its_definition(mics):
    g = torch.Generator().manual_seed(mics)
    x = torch.randn(1, mics, 9, 6, dtype=torch.complex64, generator=g)
    bands = torch.rand(3, 9, generator=g)
    got = band_covariance(x, bands, 3)
    for frame in range(6):
        near = [n for n in (frame - 1, frame, frame + 1) if 0 <= n < 6]
        want = sum(
            torch.einsum("kf,if,jf->kij", bands.to(x), x[0, :, :, n], x[0, :, :, n].conj()) for n in near
        )
        torch.testing.assert_close(got[0, :, frame], want / len(near), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_principal_is_the_largest_eigenvector(seed):
    g = np.random.default_rng(seed)
    a = g.standard_normal((20, 5, 3)) + 1j * g.standard_normal((20, 5, 3))
    r = torch.from_numpy(a @ a.conj().transpose(0, 2, 1)).to(torch.complex64)
    values, vectors = torch.linalg.eigh(r)
    agreement = (principal(r, squarings=8).conj() * vectors[..., -1]).sum(-1).abs()
    clear = values[:, -1] > 1.3 * values[:, -2]
    assert clear.sum() > 5, seed
    assert (agreement[clear] > 0.999).all(), seed


def covariance_of(x):
    return band_covariance(stft(x, 512, 320), mel_bands(40, 512, 16000, 60.0, 7200.0), 5)


def test_one_source_is_rank_one_and_diffuse_noise_is_not():
    g = torch.Generator().manual_seed(0)
    source = torch.randn(1, 1, 16000, generator=g)
    gains = torch.tensor([1.0, 0.8, 1.2, 0.9])[None, :, None]
    planes = covariance_planes(covariance_of(source * gains))
    assert planes[:, 1].min() > -1e-3  # principal share 1
    assert planes[:, 2].max() < -4  # nothing beside it
    assert planes[:, 3].min() > -1e-3  # always the same direction
    noise = covariance_planes(covariance_of(torch.randn(1, 4, 16000, generator=g)))
    assert noise[:, 1].mean() < -0.3
    assert noise[:, 3].mean() < -0.8


def test_planes_are_finite_on_silence_and_on_one_sample():
    for x in (torch.zeros(1, 3, 8000), torch.zeros(1, 1, 8000), torch.eye(3, 8000)[None]):
        assert torch.isfinite(covariance_planes(covariance_of(x))).all()


def test_padding_says_nothing():
    """Spatial planes of padded cells are neutral, and those of the recording do not move."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(1, 3, 16000, generator=g) + torch.randn(1, 1, 16000, generator=g)
    front = CovariancePlanes()
    alone = front(x)
    silent = torch.nn.functional.pad(x, (0, 16000))
    dithered = silent + 1e-5 * torch.randn(silent.shape, generator=g)
    for later in (silent, dithered):
        planes = front(later)
        assert planes[:, 1:5, :, 56:].abs().max() < 0.05
        assert (planes[:, 1:5, :, 5:45] - alone[:, 1:5, :, 5:45]).abs().max() < 0.2


def test_audible_is_one_half_at_the_floor():
    relative = torch.tensor([1.0, FLOOR, 0.0])
    assert torch.allclose(audible(torch.log(relative + FLOOR)), torch.tensor([1.0, 0.5, 0.0]), atol=1e-6)


def test_blocks_change_nothing():
    g = torch.Generator().manual_seed(6)
    for frames in (BLOCK - 1, BLOCK + 5, 3 * BLOCK, 3 * BLOCK + 1):
        spectrum = torch.randn(1, 3, 257, frames, generator=g, dtype=torch.complex64)
        bands = mel_bands(8, 512, 16000, 60.0, 7200.0)
        whole, parts = band_covariance(spectrum, bands, 5), long_covariance(spectrum, bands, 5)
        assert whole.shape == parts.shape
        assert torch.allclose(whole, parts, atol=1e-6)
