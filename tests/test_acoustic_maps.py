"""Acoustic maps: equal to the plain quadratic form, a peak where the source stands, blind to level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detector.published import AcousticMaps
from detector.published.acoustic_maps import AZIMUTHS, BANDS_HZ, ELEVATIONS, directions
from detector.systems import build_network, specify
from remasc import ARRAYS, MicArray
from remasc.arrays import tdoa

RNG = np.random.default_rng(3)
WEDGE = MicArray("wedge", np.array([[0.0, 0, 0], [0.05, 0, 0], [0.01, 0.04, 0.02]]), 16000)


@pytest.fixture(scope="module")
def network() -> AcousticMaps:
    torch.manual_seed(0)
    return AcousticMaps(WEDGE).eval()


def from_direction(array: MicArray, azimuth: float, elevation: float, samples: int = 8192) -> np.ndarray:
    """White noise (1, M, T) from far away, delayed exactly (in a circle)."""
    delay = tdoa(array, azimuth, elevation)[:, 0]
    spectrum = np.fft.rfft(RNG.standard_normal(samples))
    omega = 2 * np.pi * np.fft.rfftfreq(samples, 1 / array.sample_rate)
    return np.fft.irfft(spectrum * np.exp(-1j * omega * delay[:, None]), samples)[None].astype(np.float32)


def plainly(array: MicArray, x: np.ndarray) -> np.ndarray:
    """The maps of x (M, T) by a^H R a / a^H a, bin by bin and direction by direction."""
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), 2048, axis=-1)[:, ::1024]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    s = np.fft.rfft(frames * hann)  # (M, N, F)
    frequency = np.arange(1025) * array.sample_rate / 2048
    maps = []
    for low, high in BANDS_HZ:
        power = np.zeros(ELEVATIONS * AZIMUTHS)
        for k in np.flatnonzero((frequency >= low) & (frequency < min(high, array.sample_rate / 2))):
            r = s[:, :, k] @ s[:, :, k].conj().T
            a = np.exp(2j * np.pi * frequency[k] * array.positions @ directions().T / 343.0)
            power += np.einsum("md,mn,nd->d", a.conj(), r, a).real / len(x)
        span = np.ptp(power)
        maps.append((power - power.min()) / span if span else power)
    return np.stack(maps).reshape(len(BANDS_HZ), ELEVATIONS, AZIMUTHS)


def test_maps_are_the_plain_quadratic_form(network):
    x = RNG.standard_normal((3, 6000)).astype(np.float32)
    found = network.prepare(x[None])[0].numpy()
    np.testing.assert_allclose(found, plainly(WEDGE, x), atol=1e-4)


def test_maps_at_a_high_rate_are_the_plain_quadratic_form_too():
    """Above 22,050 Hz there is no band, so that nothing is steered there."""
    array = MicArray("wedge", WEDGE.positions, 96000)
    x = RNG.standard_normal((3, 6000)).astype(np.float32)
    found = AcousticMaps(array).prepare(x[None])[0].numpy()
    np.testing.assert_allclose(found, plainly(array, x), atol=1e-4)


def test_sixteen_microphones_at_a_high_rate_are_taken():
    positions = RNG.uniform(-0.07, 0.07, (16, 3))
    network = AcousticMaps(MicArray("cloud", positions, 96000)).eval()
    assert torch.isfinite(network(RNG.standard_normal((1, 16, 30000)))).all()


@pytest.mark.parametrize(("row", "column"), [(20, 45), (5, 30), (30, 70)])
def test_the_peak_is_where_the_source_stands(network, row, column):
    azimuth, elevation = np.radians(-90 + 2.0 * column), np.radians(-90 + 4.5 * row)
    maps = network.prepare(from_direction(WEDGE, azimuth, elevation))[0]
    peak = divmod(int(maps[2].argmax()), AZIMUTHS)
    # two degrees to a column, four and a half to a row
    assert (
        np.arccos(directions().reshape(41, 91, 3)[peak] @ directions().reshape(41, 91, 3)[row, column]) < 0.1
    )


def test_each_map_spans_zero_to_one_and_a_band_out_of_reach_is_empty(network):
    maps = network.prepare(RNG.standard_normal((2, 3, 5000)))
    assert maps.shape == (2, 4, ELEVATIONS, AZIMUTHS)
    torch.testing.assert_close(maps[:, :3].amin(dim=(2, 3)), torch.zeros(2, 3))
    torch.testing.assert_close(maps[:, :3].amax(dim=(2, 3)), torch.ones(2, 3))
    assert not maps[:, 3].any()  # 8 kHz and above at 16 kHz


def test_level_and_neighbours_say_nothing(network):
    x = torch.from_numpy(RNG.standard_normal((2, 3, 5000)).astype(np.float32))
    maps = network.prepare(x)
    torch.testing.assert_close(network.prepare(1e-4 * x), maps, atol=1e-4, rtol=0)
    torch.testing.assert_close(network.prepare(x[1:])[0], maps[1], atol=1e-5, rtol=0)
    with torch.inference_mode():
        logits = network.logits(maps)
        torch.testing.assert_close(network(x), logits[:, 0] - logits[:, 1])


@pytest.mark.parametrize("samples", [0, 1, 500, 2048])
def test_silence_and_short_clips_are_finite(network, samples):
    assert not network.prepare(torch.zeros(1, 3, samples)).any()
    x = torch.from_numpy(RNG.standard_normal((1, 3, samples)).astype(np.float32))
    assert torch.isfinite(network(x)).all()


def test_one_microphone_hears_no_direction():
    mono = AcousticMaps(MicArray("mono", np.zeros((1, 3)), 16000))
    assert not mono.prepare(RNG.standard_normal((1, 1, 5000))).any()


def test_it_is_small(network):
    assert sum(p.numel() for p in network.parameters()) == 5702
    assert not any(name in network.state_dict() for name in ("phases", "directions"))


def test_a_checkpoint_keeps_the_geometry():
    specification = specify("acoustic-maps", (ARRAYS["D1"],))
    assert specification.seconds is None
    first = build_network({"specification": specification.as_dict(), "network": {}})
    assert np.array_equal(first.array.positions, ARRAYS["D1"].positions)
    moved = {"positions": [[0, 0, 0], [0, 0.03, 0]]}
    again = build_network({"specification": specification.as_dict(), "network": moved})
    assert again.arguments == moved
    with pytest.raises(ValueError, match="2 channels at 44100 Hz; the array D1 has 3"):
        build_network({"specification": specification.as_dict(), "network": {"positions": [[0, 0, 0]] * 3}})


def test_what_does_not_fit_is_one_sentence(network):
    with pytest.raises(ValueError, match="3 channels at 16000 Hz"):
        network.prepare(torch.zeros(1, 2, 5000))
    with pytest.raises(ValueError, match=r"expected maps \(B, 4, 41, 91\)"):
        network.logits(torch.zeros(1, 3, 5000))
    with pytest.raises(ValueError, match="choose fewer or closer microphones"):
        AcousticMaps(MicArray("wide", RNG.uniform(0, 10, (8, 3)), 48000))
