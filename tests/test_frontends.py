import numpy as np
import pytest
import torch

from detector.frontends import spatial
from detector.frontends.planes import SCALE, SHIFT, CovariancePlanes
from detector.frontends.spatial import (
    FLOOR,
    audible,
    band_covariance,
    covariance_planes,
    inner,
    packed_outer,
    principal,
    smoothed,
    squared,
    unpacked,
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


def matrices(packed):
    """Packed (M, M, ...) -> complex (..., M, M)."""
    return torch.complex(*unpacked(packed)).movedim((0, 1), (-2, -1))


def packed_of(r):
    """Complex Hermitian (..., M, M) -> packed (M, M, ...)."""
    r = r.movedim((-2, -1), (0, 1))
    upper = torch.ones(len(r), len(r)).triu().bool().view(len(r), len(r), *[1] * (r.ndim - 2))
    return torch.where(upper, r.real, r.transpose(0, 1).imag)


def hermitian(mics, rank, count=20, seed=0):
    g = np.random.default_rng(seed)
    a = g.standard_normal((count, mics, rank)) + 1j * g.standard_normal((count, mics, rank))
    return torch.from_numpy(a @ a.conj().transpose(0, 2, 1)).to(torch.complex64)


@pytest.mark.parametrize("mics", [1, 2, 5, 7])
def test_packing_keeps_all(mics):
    r = hermitian(mics, 3)
    torch.testing.assert_close(matrices(packed_of(r)), r)
    x = torch.randn(mics, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    outer = packed_outer(x.real.contiguous(), x.imag.contiguous())
    torch.testing.assert_close(matrices(outer), torch.einsum("in,jn->nij", x, x.conj()))
    form = torch.einsum("in,nij,jn->n", x.conj(), r[:6], x).real
    torch.testing.assert_close(inner(outer, packed_of(r[:6])), form, rtol=1e-5, atol=1e-5)
    a, b = squared(*unpacked(packed_of(r)))
    torch.testing.assert_close(torch.complex(a, b).movedim((0, 1), (-2, -1)), r @ r, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("mics", [1, 2, 4, 7])
def test_covariance_equals_its_definition(mics):
    g = torch.Generator().manual_seed(mics)
    x = torch.randn(1, mics, 9, 6, dtype=torch.complex64, generator=g)
    bands = torch.rand(3, 9, generator=g)
    got = matrices(band_covariance(x, bands, 3))
    for frame in range(6):
        near = [n for n in (frame - 1, frame, frame + 1) if 0 <= n < 6]
        want = sum(
            torch.einsum("kf,if,jf->kij", bands.to(x), x[0, :, :, n], x[0, :, :, n].conj()) for n in near
        )
        torch.testing.assert_close(got[0, :, frame], want / len(near), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_smoothing_is_the_mean_of_the_neighbours_that_exist(frames):
    x = torch.randn(2, frames, generator=torch.Generator().manual_seed(frames))
    for n, got in enumerate(smoothed(x, 5).T):
        torch.testing.assert_close(got, x[:, max(0, n - 2) : n + 3].mean(dim=1))


@pytest.mark.parametrize("seed", range(5))
def test_principal_is_the_largest_eigenvector(seed):
    r = hermitian(5, 3, seed=seed)
    values, vectors = torch.linalg.eigh(r)
    largest = vectors[..., -1].T
    agreement = inner(
        principal(packed_of(r), squarings=8),
        packed_outer(largest.real.contiguous(), largest.imag.contiguous()),
    )
    clear = values[:, -1] > 1.3 * values[:, -2]
    assert clear.sum() > 5, seed
    assert (agreement[clear] > 0.998).all(), seed


def reference(x):
    """The planes by their definition: complex matrices in float64, cell by cell; (M, T) -> (6, K, N)."""
    mics = len(x)
    x = np.asarray(x, dtype=np.float64) / np.abs(x).max()
    padded = np.pad(x, ((0, 0), (256, 256)))
    frames = np.stack([padded[:, n : n + 512] for n in range(0, x.shape[1] + 1, 320)])
    spectrum = np.fft.rfft(frames * np.hanning(513)[:512], axis=-1)
    bands = mel_bands(40, 512, 16000, 60.0, 7200.0).double().numpy()
    each = np.einsum("kf,nif,njf->knij", bands, spectrum, spectrum.conj(), optimize=True)
    r = np.stack([each[:, max(0, n - 2) : n + 3].mean(axis=1) for n in range(len(frames))], axis=1)
    trace = np.trace(r, axis1=-2, axis2=-1).real
    loud = np.sort(trace.sum(0))[::-1][: max(1, len(frames) // 10)].mean() / 40
    level = np.log(trace / loud + FLOOR)
    heard = np.maximum(1 - FLOOR * np.exp(-level), 0)
    planes = np.zeros((5, *trace.shape))
    planes[0] = level
    if mics > 1:
        floor = 1e-10 * trace.max() + 1e-20
        normed = r / (trace + floor)[..., None, None]

        def along(v, matrix):
            return np.einsum("...i,...ij,...j->...", v.conj(), matrix, v).real

        def longest_column(matrix):
            power = np.linalg.matrix_power(matrix / np.trace(matrix, axis1=-2, axis2=-1)[..., None, None], 32)
            column = np.linalg.norm(power, axis=-2).argmax(-1)
            v = np.take_along_axis(power, column[..., None, None], axis=-1)[..., 0]
            return v / np.linalg.norm(v, axis=-1, keepdims=True)

        first = np.clip(along(longest_column(normed), normed), 1 / mics, 1)
        rest = np.sqrt(np.maximum((np.abs(normed) ** 2).sum((-1, -2)) - first**2, 1e-8))
        whole = (normed * heard[..., None, None]).mean(axis=1, keepdims=True)
        match = np.clip(along(longest_column(whole), normed), 1e-4, 1)
        power = np.einsum("knii->kni", r).real
        spread = np.log(power + floor / mics).std(axis=-1, ddof=1)
        planes[1:] = np.log(first), np.log(rest / first), np.log(match), spread
    planes = (planes - np.array(SHIFT)[:, None, None]) / np.array(SCALE)[:, None, None]
    planes[1:] *= heard if mics > 1 else 0
    return np.concatenate([planes, np.full_like(planes[:1], 1 - 1 / mics)])


@pytest.mark.parametrize("mics", [1, 2, 3, 4, 7, 16])
def test_planes_equal_their_definition(mics):
    """Prepared planes are the detector's contract: however they are computed, they are these."""
    g = np.random.default_rng(mics)
    x = g.standard_normal((mics, 12000)) * np.geomspace(1e-4, 1, 12000)
    source = np.convolve(g.standard_normal(12000), [1, -0.9], "same") * (1 + np.sin(np.arange(12000) / 900))
    x = (0.05 * x + 0.2 * np.stack([np.roll(source, m) for m in range(mics)])).astype(np.float32)
    got = CovariancePlanes()(torch.from_numpy(x)[None])[0].numpy()
    want = reference(x)
    assert got.shape == want.shape
    for plane, name in enumerate((*spatial.PLANES, "microphones")):
        # what a nearly perfect source leaves is a small difference: float32 spectra do not hold more of it
        assert np.abs(got[plane] - want[plane]).max() < (1e-3 if name == "second" else 1e-5), name
    shares = [np.exp(planes[2] * SCALE[2]) for planes in (got, want)]
    assert np.abs(shares[0] - shares[1]).max() < 1e-5


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


def test_blocks_change_nothing(monkeypatch):
    x = torch.randn(1, 3, 60000, generator=torch.Generator().manual_seed(6))
    whole = CovariancePlanes()(x)
    monkeypatch.setattr(spatial, "BLOCK", 1)  # 32 frames
    assert torch.allclose(CovariancePlanes()(x), whole, atol=1e-6)
