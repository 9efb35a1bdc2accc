"""The replay chain: source recorder, codec, and a playback device with its response, faults and drivers.

A device instance is drawn once from its identity and stays the same in every scene that plays it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import fft as sfft
from scipy import signal, special

from remasc.identity import scene_rng
from remasc.simulate.rooms import BANDS, Emitter
from remasc.simulate.talkers import GRID, look_up

FAMILIES = {1: "headphone", 2: "phone", 3: "small-speaker", 4: "stereo-speaker", 5: "vehicle"}
# high-pass corner (Hz), its order, low-pass corner, THD (%), hiss below the speech (dB), enclosure half-width (m)
_LAWS: dict[int, tuple] = {
    1: ((120, 350), (2, 2), (12000, 20000), (0.3, 1.5), (48, 65), 0.05),
    2: ((400, 800), (2, 4), (7000, 16000), (1.5, 8.0), (38, 55), 0.035),
    3: ((80, 130), (3, 4), (9000, 18000), (0.5, 4.0), (40, 58), 0.05),
    4: ((60, 85), (3, 4), (10000, 20000), (0.3, 3.0), (42, 60), 0.10),
    5: ((50, 120), (2, 3), (6000, 18000), (0.5, 3.0), (38, 55), 0.30),
}


@dataclass(frozen=True)
class Driver:
    """One loudspeaker: offset (3,) from the device's middle (right, forward, up; metres), turn of its axis
    about the vertical (rad), piston radius (m), pass band (Hz), delay (s), gain."""

    offset: tuple[float, float, float]
    turn: float
    radius: float
    band: tuple[float, float]
    delay: float
    gain: float


@dataclass(frozen=True)
class Device:
    """A playback-device instance. `ripple` and `peaks` shape the response in dB over log frequency."""

    device_id: str
    family: int
    high_pass: tuple[float, int]
    low_pass: float
    ripple: tuple[float, ...]  # dB at quarter octaves from 50 Hz
    peaks: tuple[tuple[float, float, float], ...]  # (Hz, dB, octaves)
    odd: float  # third-order distortion: share of the fundamental at the speech's level
    even: float
    hiss_db: float  # below the speech
    hum_hz: float
    hum_db: float
    half_width: float
    baffle_db: float  # what the lows lose on the axis: makers make up for some of it
    drivers: tuple[Driver, ...]


def _drivers(family: int, rng: np.random.Generator) -> tuple[Driver, ...]:
    full = (0.0, 30000.0)

    def gain() -> float:
        return float(10 ** (rng.uniform(-1, 1) / 20))

    if family == 1:
        half = rng.uniform(0.075, 0.10)
        turn = rng.uniform(0.9, 1.57)
        return tuple(Driver((s * half, 0, 0), -s * turn, 0.0265, full, 0.0, gain()) for s in (-1, 1))
    if family == 2:
        down = Driver(
            (0, rng.uniform(0, 0.01), -0.06), rng.uniform(-1.2, 1.2), rng.uniform(0.005, 0.009), full, 0, 1
        )
        if rng.random() < 0.6:
            return (down,)
        up = Driver(
            (0, 0, rng.uniform(0.05, 0.07)),
            rng.uniform(-0.3, 0.3),
            0.005,
            (900.0, 30000.0),
            0.0,
            0.5 * gain(),
        )
        return (down, up)
    if family == 3:
        side = rng.uniform(0.035, 0.05)
        main = Driver((0, side, 0), rng.uniform(-0.3, 0.3), rng.uniform(0.018, 0.026), full, 0.0, 1.0)
        passive = [Driver((s * side, 0, 0), -s * np.pi / 2, 0.03, (0.0, 220.0), 0.0, 0.5) for s in (-1, 1)]
        return (main, *passive)
    if family == 4:
        half = rng.uniform(0.06, 0.10)
        cross = rng.uniform(180, 400)
        pair = [
            Driver((s * half, 0.02, 0), 0.0, rng.uniform(0.016, 0.022), (cross, 30000.0), 0.0, gain())
            for s in (-1, 1)
        ]
        return (*pair, Driver((0, 0.02, -0.02), 0.0, 0.035, (0.0, cross), 0.0, gain()))
    count = int(rng.integers(4, 7))
    # fractions of the cabin (width, length, height): front doors, rear doors, dashboard or tail
    places = [
        (0.03, 0.25, 0.3),
        (0.97, 0.25, 0.3),
        (0.03, 0.65, 0.35),
        (0.97, 0.65, 0.35),
        (0.5, 0.04, 0.65),
        (0.5, 0.95, 0.6),
    ]
    out = []
    for i in range(count):
        place = np.clip(np.array(places[i]) + rng.uniform(-0.03, 0.03, 3), 0.02, 0.98)
        delay = rng.uniform(0, 0.004) if rng.random() < 0.5 else 0.0
        out.append(
            Driver(tuple(float(p) for p in place), 0.0, rng.uniform(0.03, 0.08), full, float(delay), gain())
        )
    return tuple(out)


def make_device(corpus_name: str, device_id: str, family: int) -> Device:
    """The instance with this identity: the same numbers wherever it is asked for."""
    rng = scene_rng(corpus_name, device_id, "device")
    high, orders, low, thd, hiss, half_width = _LAWS[family]
    sigma = rng.uniform(0.7, 1.8)
    peaks = [
        (
            float(np.exp(rng.uniform(np.log(200), np.log(7000)))),
            float(rng.choice([-1, 1]) * rng.uniform(3, 7)),
            float(rng.uniform(0.1, 0.4)),
        )
        for _ in range(rng.integers(2, 6))
    ]
    total = np.exp(rng.uniform(*np.log(thd))) / 100
    split = rng.uniform(0.3, 0.9)
    return Device(
        device_id,
        family,
        (float(rng.uniform(*high)), int(rng.integers(orders[0], orders[1] + 1))),
        float(rng.uniform(*low)),
        tuple(float(v) for v in rng.normal(0, sigma, 36)),
        tuple(peaks),
        float(total * split),
        float(total * np.sqrt(1 - split**2)),
        float(rng.uniform(*hiss)),
        float(rng.choice([50.0, 60.0])),
        float(rng.uniform(55, 80)),
        float(half_width * rng.uniform(0.8, 1.2)),
        float(rng.uniform(0, 4)),
        _drivers(family, rng),
    )


def with_one_driver(device: Device) -> Device:
    """The device playing everything through its first driver, put in its middle: a source without extent."""
    middle = (0.5, 0.04, 0.65) if device.family == 5 else (0.0, 0.0, 0.0)
    only = replace(device.drivers[0], offset=middle, turn=0.0, band=(0.0, 30000.0), delay=0.0, gain=1.0)
    return replace(device, drivers=(only,))


def magnitude(device: Device, frequencies: np.ndarray) -> np.ndarray:
    """|H| (F,) of the device's electro-acoustic response on its axis, apart from its drivers' crossovers."""
    f = np.maximum(frequencies, 10.0)
    corner, order = device.high_pass
    out = 1 / np.sqrt(1 + (corner / f) ** (2 * order)) / np.sqrt(1 + (f / device.low_pass) ** 6)
    octave = np.log2(f / 50.0)
    db = np.interp(octave, np.arange(len(device.ripple)) / 4, device.ripple)
    for centre, height, width in device.peaks:
        db = db + height * np.exp(-0.5 * (np.log2(f / centre) / width) ** 2)
    # baffle step: the lows go all around and lose on the axis
    step = device.baffle_db / (1 + (f * device.half_width / 80) ** 2)
    return out * 10 ** ((db - step) / 20)


EQUALISER_DB = 15.0  # the most that an attacker lifts or lowers: beyond it drivers give up


def inverse_magnitude(device: Device, frequencies: np.ndarray, error_db: np.ndarray) -> np.ndarray:
    """|H| (F,) of the attacker's equaliser: the device's response turned round within `EQUALISER_DB`, as measured
    with an error in dB at quarter octaves from 50 Hz. (The "modulated replay" of Wang et al., ACM CCS 2020.)"""
    gains = -20 * np.log10(np.maximum(magnitude(device, frequencies), 1e-6))
    gains -= np.median(gains[(frequencies > 300) & (frequencies < 4000)])
    octave = np.log2(np.maximum(frequencies, 10.0) / 50.0)
    error = np.interp(octave, np.arange(len(error_db)) / 4, error_db)
    return 10 ** (np.clip(gains + error, -EQUALISER_DB, EQUALISER_DB) / 20)


def minimum_phase(gains: np.ndarray) -> np.ndarray:
    """Complex spectrum (F,) of minimum phase with the given magnitudes on an even grid 0..Nyquist."""
    cepstrum = sfft.irfft(np.log(np.maximum(gains, 1e-5)))
    n = len(cepstrum)
    cepstrum[1 : n // 2] *= 2
    cepstrum[n // 2 + 1 :] = 0
    return np.exp(sfft.rfft(cepstrum))


def apply_magnitude(spectrum: np.ndarray, rate: int, gains_of: object) -> np.ndarray:
    """A spectrum (F,) filtered by a minimum-phase response of the magnitude function `gains_of(frequencies)`."""
    grid = 4096
    taps = sfft.irfft(minimum_phase(gains_of(np.fft.rfftfreq(grid, 1 / rate))))[: grid // 2]
    padded = np.zeros(2 * (len(spectrum) - 1), np.float32)
    padded[: len(taps)] = taps
    return spectrum * sfft.rfft(padded)


def _bent(x: np.ndarray, slope: float, bias: float) -> np.ndarray:
    """tanh around a bias, of slope one at zero: it bends the peaks, the bias adds the even part."""
    middle = np.tanh(slope * bias)
    return (np.tanh(slope * (x + bias)) - middle) / (slope * (1 - middle**2))


@lru_cache(maxsize=512)
def _bend(odd: float, even: float) -> tuple[float, float]:
    """Slope and bias of `_bent` whose third and second harmonic of a sine of amplitude sqrt(2) are these shares.

    From the first-order formulas (third k^2 A^2 / 12, second k^2 b A / 2) to the exact shares by correcting each.
    """
    sine = np.sqrt(2) * np.sin(2 * np.pi * np.arange(256) / 256)
    slope = np.sqrt(6 * odd)
    bias = np.sqrt(2) * even / slope**2
    for _ in range(60):
        harmonics = np.abs(sfft.rfft(_bent(sine, slope, bias)))
        second, third = harmonics[2] / harmonics[1], harmonics[3] / harmonics[1]
        slope *= np.sqrt(odd / third)
        bias *= even * odd / (second * third) if second > 1e-12 else 1.0
        bias = min(bias, 0.6 / slope)  # beyond it the third harmonic vanishes
    return float(slope), float(bias)


def distort(x: np.ndarray, odd: float, even: float) -> np.ndarray:
    """A memoryless saturation with the given third and second harmonic shares for a sine of amplitude sqrt(2).

    Twice oversampled: what lands above the old Nyquist frequency is removed instead of folded back.
    """
    spectrum = sfft.rfft(x)
    fine = 2 * sfft.irfft(np.concatenate([spectrum, np.zeros(len(spectrum) - 1, spectrum.dtype)]), 2 * len(x))
    bent = _bent(fine, *_bend(odd, even))
    return sfft.irfft(sfft.rfft(bent)[: len(spectrum)], len(x)).astype(np.float32) / 2


def piston_table(radius: float, half_width: float) -> np.ndarray:
    """Gain (B, 181) over cosines -1..1: 2 J1(x) / x in front, falling behind the enclosure, 1 on the axis."""
    wavenumber = 2 * np.pi * np.minimum(BANDS, 7500.0)[:, None] / 343.0
    sine = np.sqrt(1 - GRID**2)
    x = np.maximum(wavenumber * radius * sine, 1e-6)
    beam = np.abs(2 * special.j1(x) / x)
    # behind the baffle a wave short against the enclosure is shadowed by up to about 15 dB
    shadow = (wavenumber * half_width) ** 2 / (1 + (wavenumber * half_width) ** 2)
    front = (1 + GRID) / 2
    return np.sqrt(beam**2 * 0.97 + 0.03) * (1 - shadow * 0.82 * (1 - front) ** 1.0)


def driver_emitters(
    device: Device, position: np.ndarray, facing: np.ndarray, cabin: np.ndarray | None
) -> list[Emitter]:
    """The drivers as emitters: around the device's middle, or around the `cabin` (its dims) of a vehicle."""
    right = np.array([facing[1], -facing[0], 0.0])
    right /= max(np.linalg.norm(right), 1e-9)
    ahead = np.array([-right[1], right[0], 0.0])
    out = []
    for driver in device.drivers:
        table = piston_table(driver.radius, device.half_width)
        if cabin is not None:
            place = np.array(driver.offset) * cabin
            axis = cabin / 2 - place
            axis = axis / np.linalg.norm(axis)
        else:
            place = (
                position
                + driver.offset[0] * right
                + driver.offset[1] * ahead
                + np.array([0, 0, driver.offset[2]])
            )
            cos, sin = np.cos(driver.turn), np.sin(driver.turn)
            axis = np.array([cos * facing[0] - sin * facing[1], sin * facing[0] + cos * facing[1], facing[2]])
        out.append(Emitter(place, axis, lambda cosines, table=table: look_up(table, cosines)))
    return out


def driver_spectra(device: Device, spectrum: np.ndarray, rate: int) -> np.ndarray:
    """What each driver radiates, (drivers, F): the device's signal split by crossovers, delays and gains."""
    f = np.linspace(0, rate / 2, len(spectrum))
    out = np.empty((len(device.drivers), len(spectrum)), np.complex64)
    scale = 1 / np.sqrt(sum(d.gain**2 for d in device.drivers if d.band[1] > 2000))
    for i, driver in enumerate(device.drivers):
        low, high = driver.band
        gate = crossover(f, low)[1] * crossover(f, high)[0]
        out[i] = spectrum * gate * (scale * driver.gain) * np.exp(-2j * np.pi * f * driver.delay)
    return out


def crossover(frequencies: np.ndarray, corner: float) -> tuple[np.ndarray, np.ndarray]:
    """Low and high branch (F,) complex of a fourth-order Linkwitz-Riley crossover: causal, each 6 dB down at
    `corner` (Hz), in phase with each other, their sum an all-pass. (Linkwitz, JAES 24, 1976.)"""
    s = 1j * frequencies / max(corner, 1e-3)
    below = 1 / (1 + np.sqrt(2) * s + s**2) ** 2
    return below, s**4 * below


def slow_gain(x: np.ndarray, rate: int, amount: float) -> np.ndarray:
    """A phone's automatic gain: loud stretches turned down, quiet ones up, with about 0.15 s of memory."""
    frame = max(1, rate // 100)
    count = -(-len(x) // frame)
    power = np.square(np.pad(x, (0, count * frame - len(x))).reshape(count, frame)).mean(axis=1)
    smooth = signal.lfilter([0.065], [1, -0.935], power, zi=[0.935 * power.mean()])[0]
    level = np.sqrt(smooth / max(power.mean(), 1e-12))
    gain = np.clip(np.maximum(level, 1e-3) ** (-amount), 0.4, 3.0)
    return (x * np.interp(np.arange(len(x)), (np.arange(count) + 0.5) * frame, gain)).astype(np.float32)
