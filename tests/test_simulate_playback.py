"""Laws of the replay chain: an instance measures as described, and stays the same wherever it is asked for."""

import numpy as np
import pytest

from remasc.identity import scene_rng
from remasc.simulate.playback import (
    EQUALISER_DB,
    FAMILIES,
    apply_magnitude,
    crossover,
    distort,
    driver_emitters,
    driver_spectra,
    inverse_magnitude,
    magnitude,
    make_device,
    minimum_phase,
    piston_table,
    slow_gain,
    with_one_driver,
)
from remasc.simulate.render import breath
from remasc.simulate.rooms import BANDS
from remasc.simulate.talkers import GRID

RATE = 16000


@pytest.mark.parametrize("family", FAMILIES)
def test_device_belongs_to_its_identity(family):
    assert make_device("c", "d-1", family) == make_device("c", "d-1", family)
    assert make_device("c", "d-1", family) != make_device("c", "d-2", family)
    assert make_device("c", "d-1", family) != make_device("other", "d-1", family)


@pytest.mark.parametrize("family", FAMILIES)
def test_response_measures_as_described(family):
    device = make_device("c", "x", family)
    length = 32768
    impulse = np.zeros(length, np.float32)
    impulse[0] = 1
    out = apply_magnitude(np.fft.rfft(impulse), RATE, lambda f: magnitude(device, f))
    f = np.linspace(0, RATE / 2, length // 2 + 1)
    sel = (f > 150) & (f < 7500)
    error = 20 * np.log10(np.abs(out[sel]) / magnitude(device, f[sel]))
    assert np.abs(error).max() < 0.5
    tail = np.fft.irfft(out)
    assert np.square(tail[length // 2 :]).sum() < 1e-6 * np.square(tail).sum()  # nothing before time zero


@pytest.mark.parametrize(
    ("odd", "even"), [(0.01, 0.0), (0.03, 0.01), (0.05, 0.03), (0.024, 0.076), (9e-4, 3e-3)]
)
def test_distortion_measures_as_described(odd, even):
    n = 16000
    x = (np.sqrt(2) * np.sin(2 * np.pi * 500 * np.arange(n) / RATE)).astype(np.float32)
    harmonics = np.abs(np.fft.rfft(distort(x, odd, even)))[500 : 500 * 5 : 500]
    assert harmonics[2] / harmonics[0] == pytest.approx(odd, rel=0.02)
    if even:
        assert harmonics[1] / harmonics[0] == pytest.approx(even, rel=0.02)


def test_distortion_folds_nothing_back():
    n = 16000
    x = (np.sqrt(2) * np.sin(2 * np.pi * 3100 * np.arange(n) / RATE)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(distort(x, 0.05, 0.0)))
    # 3 x 3100 = 9300 would come back at 6700
    assert spectrum[6700] < 1e-3 * spectrum[3100]


def test_small_signals_pass_unbent():
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 1e-3
    assert np.allclose(distort(x, 0.02, 0.01), x, atol=2e-5)


def test_minimum_phase_keeps_the_magnitude():
    gains = np.exp(np.sin(np.linspace(0, 9, 1025)))
    assert np.allclose(np.abs(minimum_phase(gains)), gains, rtol=1e-6)


@pytest.mark.parametrize(("radius", "frequency"), [(0.03, 4000.0), (0.08, 2000.0), (0.016, 1000.0)])
def test_piston_is_rayleighs_integral_over_its_disc(radius, frequency):
    """2 J1(x) / x is the mean of a plane wave's phase over the disc; 3 % of the power go everywhere."""
    table = piston_table(radius, 1e-6)  # no enclosure, no shadow
    rings, angles = (np.arange(400) + 0.5) / 400, 2 * np.pi * np.arange(64) / 64
    across = (rings[:, None] * np.cos(angles)).ravel() * radius
    phase = 2 * np.pi * frequency / 343 * np.outer(np.sqrt(1 - GRID**2), across)
    beam = (np.cos(phase) * np.repeat(rings, 64)).sum(axis=1) / np.repeat(rings, 64).sum()
    found = table[list(BANDS).index(frequency)]
    assert np.abs(found - np.sqrt(0.97 * beam**2 + 0.03)).max() < 1e-4
    assert np.allclose(table[:, -1], 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_driver_radiates_as_its_piston_in_its_enclosure(family):
    """Wide in the bass; behind the enclosure the treble is weaker than without one by up to 15 dB."""
    device = make_device("c", "y", family)
    cabin = np.array([1.4, 2.8, 1.2]) if family == 5 else None
    emitters = driver_emitters(device, np.zeros(3), np.array([0, 1.0, 0]), cabin)
    for driver, emitter in zip(device.drivers, emitters, strict=True):
        table = emitter.directivity(GRID)
        assert np.allclose(table, piston_table(driver.radius, device.half_width))
        shadow_db = 20 * np.log10(table[:, 0] / piston_table(driver.radius, 1e-6)[:, 0])
        assert (np.diff(shadow_db) <= 0).all()
        assert shadow_db[0] > -3
        assert -15 < shadow_db[-1] < -10


@pytest.mark.parametrize("family", FAMILIES)
def test_drivers_add_up_to_the_device_in_the_middle(family):
    """Crossovers split the signal and do not change its level by more than the interference of the drivers."""
    device = make_device("c", "y", family)
    spectra = driver_spectra(device, np.ones(4097, np.complex64), RATE)
    assert len(spectra) == len(
        driver_emitters(device, np.zeros(3), np.array([0, 1.0, 0]), np.array([1.4, 2.8, 1.2]))
    )
    power = np.square(np.abs(spectra)).sum(axis=0)[512:3500]
    assert (10 * np.log10(power)).min() > -9
    assert (10 * np.log10(power)).max() < 4


def test_stereo_pair_faces_where_the_device_faces():
    device = make_device("c", "z", 4)
    facing = np.array([0.0, 1.0, 0.0])
    left, right, _ = driver_emitters(device, np.array([1.0, 1.0, 1.0]), facing, None)
    assert np.allclose(left.facing, facing)
    assert 0.12 <= np.linalg.norm(left.position - right.position) <= 0.20
    assert left.position[0] < right.position[0]  # seen from behind the device


def test_automatic_gain_lifts_the_quiet():
    rng = scene_rng("c", "s")
    x = rng.standard_normal(RATE * 2).astype(np.float32)
    x[RATE:] *= 0.1
    y = slow_gain(x, RATE, 0.5)
    assert y[RATE + 4000 :].std() / y[:RATE].std() > 0.15


@pytest.mark.parametrize("family", [1, 2, 3, 4, 5])
def test_equaliser_flattens_the_device_as_far_as_it_may(family):
    device = make_device("c", f"device-{family}", family)
    f = np.linspace(700, 6000, 500)
    played = 20 * np.log10(magnitude(device, f))
    error = np.zeros(36)
    mended = (
        played
        + 20
        * np.log10(inverse_magnitude(device, np.linspace(0, 8000, 4097), error))[
            np.searchsorted(np.linspace(0, 8000, 4097), f)
        ]
    )
    assert mended.std() < 0.35 * played.std() + 0.1
    gains = 20 * np.log10(inverse_magnitude(device, np.linspace(0, 8000, 4097), error))
    assert np.abs(gains).max() <= EQUALISER_DB + 1e-9


def test_breath_is_as_soft_as_drawn():
    sound = np.fft.irfft(breath(scene_rng("c", "breath"), 48000, 30.0), 48000)
    assert 20 * np.log10(np.sqrt(np.square(sound).mean())) == pytest.approx(-30, abs=0.01)


def test_crossover_branches_are_causal_in_phase_and_sum_to_an_all_pass():
    rate, n = 16000, 4096
    f = np.linspace(0, rate / 2, n // 2 + 1)
    low, high = crossover(f, 300.0)
    assert np.allclose(np.abs(low + high), 1, atol=1e-9)
    both = (f > 100) & (f < 900)
    assert np.abs(np.angle(low[both] / high[both])).max() < 1e-6
    at = np.argmin(np.abs(f - 300))
    assert 20 * np.log10(np.abs(low[at])) == pytest.approx(-6.0, abs=0.1)
    response = np.fft.irfft(low, n)
    assert np.square(response[n // 2 :]).sum() < 1e-5 * np.square(response).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_driver_plays_everything_from_the_middle(family):
    device = with_one_driver(make_device("law", "x", family))
    assert len(device.drivers) == 1
    white = np.ones(2049, np.complex64)
    assert np.allclose(np.abs(driver_spectra(device, white, 16000)[0])[1:1800], 1, atol=0.3)
