"""Laws of the acoustic cues: known sounds give known values, and what must not matter does not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from detector.source.cues import CUES, NAMES, ODD, cues_of, decay, distortion, harmonicity, pauses, pitch
from detector.source.cues.clip import RATE, hear
from detector.source.cues.coherence import share_along
from detector.source.cues.direction import coherent_to_diffuse, plane_wave
from detector.source.cues.residual import prediction, residual_of
from remasc import get_array
from remasc.arrays import tdoa

RNG = np.random.default_rng(0)


def tone(hertz: float, seconds: float = 1.5, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def pulses(periods: np.ndarray, heights: np.ndarray | float = 1.0) -> np.ndarray:
    """Band-limited pulses at the running sum of `periods` (samples, fractional)."""
    at = 100 + np.cumsum(periods)
    x = np.zeros(int(at[-1]) + 200)
    heights = np.broadcast_to(heights, at.shape)
    near = np.arange(-40, 41)
    for place, height in zip(at, heights, strict=True):
        n = int(place) + near
        x[n] += height * np.sinc((n - place) / 4) * np.hanning(83)[1:-1]
    return x.astype(np.float32)


def voice(seconds: float = 2.4, rate: int = RATE, mics: int = 1, seed: int = 1) -> np.ndarray:
    """Something like speech: syllables of a pulsed source through two resonances, with pauses, over soft noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    f0 = 130 + 15 * np.sin(2 * np.pi * 0.7 * t)
    source = sum(np.cos(2 * np.pi * k * np.cumsum(f0) / rate) / k for k in range(1, 25))
    gate = (np.sin(2 * np.pi * 1.3 * t - 1) > -0.2) * (t > 0.3) * (t < seconds - 0.3)
    gate = np.convolve(gate, np.hanning(rate // 50) / np.hanning(rate // 50).sum(), "same")
    shaped = sosfilt(butter(2, [300, 2500], "bandpass", fs=rate, output="sos"), source * gate)
    noise = 0.004 * rng.normal(size=(mics, len(t)))
    return (0.2 * shaped / (np.abs(shaped).max() + 1e-9) + noise).astype(np.float32)


def arriving(array, x: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """A plane wave (M, T) from a direction in radians."""
    delays = tdoa(array, azimuth, elevation)[:, 0]
    spectrum = np.fft.rfft(x, 2 * len(x))
    hertz = np.fft.rfftfreq(2 * len(x), 1 / RATE)
    waves = np.fft.irfft(spectrum * np.exp(-2j * np.pi * hertz * delays[:, None]), axis=1)[:, : len(x)]
    return waves.astype(np.float32)


def test_a_pulse_train_has_its_pitch_and_no_perturbation():
    clip = hear(pulses(np.full(200, RATE / 125.0))[None], RATE)
    found = pitch.measure(clip, pitch.pitch_track(clip))
    assert found["f0_median"] == pytest.approx(125, rel=0.01)
    assert found["f0_spread"] < 0.2
    assert found["jitter"] < 0.1
    assert found["shimmer"] < 1.0


@pytest.mark.parametrize("share", [0.01, 0.02])
def test_jitter_of_periods_that_alternate(share):
    periods = RATE / 125.0 * (1 + share * np.where(np.arange(200) % 2, 1, -1))
    clip = hear(pulses(periods)[None], RATE)
    assert pitch.measure(clip, pitch.pitch_track(clip))["jitter"] == pytest.approx(200 * share, rel=0.1)


def test_shimmer_of_heights_that_alternate():
    heights = 1 + 0.1 * np.where(np.arange(200) % 2, 1, -1)
    clip = hear(pulses(np.full(200, RATE / 125.0), heights)[None], RATE)
    assert pitch.measure(clip, pitch.pitch_track(clip))["shimmer"] == pytest.approx(20, rel=0.15)


@pytest.mark.parametrize("snr", [5.0, 15.0])
def test_harmonics_to_noise_is_the_ratio_that_was_mixed(snr):
    x = pulses(np.full(300, 128.0)).astype(float)
    noise = np.random.default_rng(2).normal(size=len(x)) * x.std() * 10 ** (-snr / 20)
    frames, lags = harmonicity.voiced_frames(x + noise, np.full(len(x) // 160, 125.0))
    found = harmonicity.harmonics_to_noise(frames[5:-5], lags[5:-5], [(0.0, 8001.0)])
    assert found.mean() == pytest.approx(snr, abs=1.0)


def test_a_pure_tone_has_no_distortion_and_a_clipped_one_its_own():
    frames = tone(250.0)[: 1024 * 20].reshape(20, 1024)
    assert distortion.harmonic_distortion(frames, np.full(20, 250.0)).max() < 1e-3
    clipped = np.clip(frames, -0.5, 0.5)
    series = np.abs(np.fft.rfft(np.clip(np.sin(2 * np.pi * np.arange(4096) / 4096), -0.5, 0.5)))
    known = np.sqrt(np.square(series[2:6]).sum()) / series[1]
    assert distortion.harmonic_distortion(clipped, np.full(20, 250.0)) == pytest.approx(known, rel=0.03)


def test_even_distortion_leaves_the_squared_voice_in_the_lows():
    x = voice()[0].astype(float)
    x = sosfilt(butter(4, 200, "highpass", fs=RATE, output="sos"), x)
    assert distortion.squared_envelope(x + 2 * x**2) > 0.9
    assert abs(distortion.squared_envelope(x)) < 0.3


def test_low_passed_noise_has_its_edge_and_roll_off():
    noise = np.random.default_rng(3).normal(size=4 * RATE)
    x = sosfilt(butter(12, 2000, fs=RATE, output="sos"), noise)
    cues = cues_of(x, RATE)
    assert cues["upper_edge"] == pytest.approx(2400, rel=0.1)  # 20 dB down: 2000 * 99^(1/24)
    assert cues["rolloff_95"] == pytest.approx(0.95 * 2000, rel=0.05)
    assert cues["rolloff_85"] == pytest.approx(0.85 * 2000, rel=0.05)
    assert cues["lower_edge"] != cues["lower_edge"]  # it has none
    assert cues["flatness"] < -10


def test_white_noise_accumulates_along_a_line():
    cues = cues_of(np.random.default_rng(4).normal(size=4 * RATE), RATE)
    assert cues["void_line"] == pytest.approx(1, abs=0.001)
    assert cues["void_bend"] == pytest.approx(0, abs=0.03)
    assert abs(cues["middle_slope"]) < 0.5
    assert cues["prediction_gain"] < 1.0
    assert cues["residual_kurtosis"] == pytest.approx(3, abs=0.3)
    assert np.isnan(cues["pause_level"])
    assert np.isnan(cues["f0_median"])


def test_linear_prediction_finds_the_filter():
    noise = np.random.default_rng(5).normal(size=(50, 2000))
    true = np.array([1.0, -1.3, 0.7])
    x = np.stack([sosfilt([[1, 0, 0, *true]], row) for row in noise])
    filters = prediction(x, 2)
    assert filters.mean(axis=0) == pytest.approx(true, abs=0.02)
    assert residual_of(x, np.tile(true, (50, 1))) == pytest.approx(noise[:, 2:], abs=1e-9)


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_mains_hum_is_found_in_the_pauses_and_a_low_voice_is_none(mains):
    noise = 0.05 * np.random.default_rng(6).normal(size=3 * RATE)
    lines = sum(tone(mains * h, 3.0) for h in (1, 2, 3, 5, 7))
    pause = np.arange(3 * RATE // 160 + 1) % 100 < 50
    spoken = np.repeat(np.abs(np.arange(len(pause)) % 100 - 75) < 20, 160)[: 3 * RATE]
    quiet = pauses.hum(noise, pause)
    assert pauses.hum(noise + 0.02 * lines, pause) > quiet + 6
    assert pauses.hum(noise + 10 * lines * spoken, pause) == pytest.approx(quiet, abs=0.1)
    assert np.isnan(pauses.hum(noise, pause & (np.arange(len(pause)) < 30)))


@pytest.mark.parametrize("rt60", [0.3, 0.8])
def test_a_decay_has_its_reverberation_time(rt60):
    t = np.arange(RATE) / RATE
    rng = np.random.default_rng(7)
    bursts = [np.where(t < 0.1, 1.0, 10 ** (-3 * (t - 0.1) / rt60)) * rng.normal(size=RATE) for _ in range(4)]
    cues = cues_of(np.concatenate(bursts), RATE)
    for name in ("decay_low", "decay_middle", "decay_high"):
        assert cues[name] == pytest.approx(rt60, rel=0.2)
    assert cues["decay_bend"] == pytest.approx(1, abs=0.35)


def test_a_decay_in_two_steps_bends():
    level = np.concatenate([np.full(20, -80.0), -1.0 * np.arange(20), -20 - 3.0 * np.arange(1, 18)])
    times, bends = decay.decays(level)
    assert len(times) == 1
    assert bends[0] > 1.5


@pytest.mark.parametrize(
    ("hertz", "name"), [(2.5, "modulation_2"), (6, "modulation_6"), (20, "modulation_24")]
)
def test_modulation_lies_where_it_was_made(hertz, name):
    t = np.arange(3 * RATE) / RATE
    x = (1 + 0.9 * np.sin(2 * np.pi * hertz * t)) * np.random.default_rng(8).normal(size=len(t))
    cues = cues_of(x, RATE)
    shares = {key: cues[key] for key in cues if key.startswith("modulation_") and "depth" not in key}
    assert max(shares, key=shares.get) == name


@pytest.mark.parametrize("name", ["D2", "D3", "D4"])
def test_the_direction_of_a_plane_wave(name):
    array = get_array(name)
    x = arriving(array, voice(3.0)[0], np.radians(30), 0.0)
    x += 1e-3 * np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    cues = cues_of(x, RATE, array)
    assert cues["azimuth"] == pytest.approx(30, abs=3)
    assert cues["direction_spread"] < 3
    assert cues["width"] < 5
    assert cues["tdoa_spread"] < 5
    still, moving = cues, arriving(array, voice(3.0)[0], np.radians(-20), 0.0)
    moving[:, : 3 * RATE // 2] = x[:, : 3 * RATE // 2]
    moved = cues_of(moving, RATE, array)
    assert moved["direction_drift"] > 5 * still["direction_drift"]
    assert moved["tdoa_spread"] > still["tdoa_spread"]


def test_a_plane_wave_is_recovered_from_its_delays():
    array = get_array("D4")
    rows, columns = np.triu_indices(7, 1)
    found, missed = plane_wave(array, tdoa(array, 0.5, -0.3)[rows, columns])
    known = [np.sin(0.5) * np.cos(0.3), -np.sin(0.3), np.cos(0.5) * np.cos(0.3)]
    assert found == pytest.approx(known, abs=1e-9)
    assert np.abs(missed).max() < 1e-12


def test_coherent_to_diffuse_ratio_of_known_mixtures():
    diffuse, ratio = np.array([0.3, -0.1, 0.6]), np.array([0.0, 0.5, 4.0])[:, None]
    mixed = (ratio * np.exp(0.9j) + diffuse) / (ratio + 1)
    assert coherent_to_diffuse(mixed, diffuse) == pytest.approx(np.broadcast_to(ratio, (3, 3)), abs=1e-4)


def test_noise_of_each_microphone_is_no_wave_and_one_source_is():
    rng = np.random.default_rng(10)
    vectors = rng.normal(size=(3, 7)) + 1j * rng.normal(size=(3, 7))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alone = vectors[:, :, None] * vectors[:, None].conj()
    assert share_along(vectors, alone) == pytest.approx(1)
    assert share_along(vectors, np.tile(np.eye(7), (3, 1, 1))) == pytest.approx(0, abs=1e-12)


def test_hiss_from_the_source_is_told_from_hiss_of_the_room():
    array, rng = get_array("D4"), np.random.default_rng(11)
    clean = voice(3.0)[0]
    room = arriving(array, clean, 0.3, 0.1)
    hiss = 0.01 * rng.normal(size=clean.shape).astype(np.float32)
    own = room + arriving(array, hiss, 0.3, 0.1)
    other = room + 0.01 * rng.normal(size=room.shape).astype(np.float32)
    name = "pause_from_source_high"
    assert cues_of(own, RATE, array)[name] > 0.6
    assert cues_of(other, RATE, array)[name] < 0.3


@pytest.fixture(scope="module", params=[8000, 16000, 44100, 48000])
def known(request) -> dict:
    """Cues at a rate of a tone, the tone clipped at half its height, and a pulse train."""
    rate = request.param
    sine = tone(200, 1.5, rate).astype(float)
    train = (np.arange(len(sine)) % round(rate / 125) == 0).astype(float)
    sounds = {"tone": sine, "clipped": np.clip(sine, -0.5, 0.5), "pulses": train}
    return {"rate": rate} | {name: cues_of(x, rate) for name, x in sounds.items()}


def wide(value: float, known: dict):
    """The value, or undefined where the rate is too low for it."""
    return pytest.approx(np.nan, nan_ok=True) if known["rate"] < RATE else value


def test_a_tone_at_any_rate(known):
    cues = known["tone"]
    assert cues["f0_median"] == pytest.approx(200, rel=0.01)
    assert cues["voiced_share"] == 1
    assert cues["jitter"] < 0.05
    assert cues["shimmer"] < 0.2
    assert cues["hnr_low"] > 35
    assert cues["thd_loud"] < 0.1
    assert cues["skewness"] == pytest.approx(0, abs=0.01)
    assert cues["pop"] < 1  # neither the lows nor the cut ends are puffs
    assert cues["centroid"] == wide(pytest.approx(200, abs=4), known)
    assert cues["rolloff_95"] == wide(pytest.approx(200, abs=8), known)
    assert cues["crest"] == wide(pytest.approx(3.01, abs=0.05), known)
    assert cues["saturation"] == wide(pytest.approx(100 * 2 / np.pi * np.arccos(0.98), rel=0.05), known)
    nothing = {"lower_edge", "upper_edge", "decay_high", "modulation_depth_high", "pause_share", "hum"}
    assert not nothing & defined(cues)  # there is no voice band, no decay, no pause


def test_a_clipped_tone_at_any_rate(known):
    cues, turn = known["clipped"], np.sin(2 * np.pi * np.arange(4096) / 4096)
    series = np.abs(np.fft.rfft(np.clip(turn, -0.5, 0.5)))
    thd = np.sqrt(np.square(series[2:6]).sum()) / series[1]
    assert cues["thd_loud"] == pytest.approx(100 * thd, rel=0.03)
    assert cues["harmonics"] == pytest.approx(20 * np.log10(thd), abs=0.2)
    assert cues["harmonics_rise"] == pytest.approx(0, abs=0.1)
    rms = np.sqrt(np.square(np.clip(turn, -0.5, 0.5)).mean()) / 0.5
    assert cues["crest"] == wide(pytest.approx(-20 * np.log10(rms), abs=0.15), known)
    assert cues["saturation"] == wide(pytest.approx(100 * 2 / 3, abs=3), known)


def test_a_pulse_train_at_any_rate(known):
    cues, period = known["pulses"], round(known["rate"] / 125) / known["rate"]
    assert cues["f0_median"] == pytest.approx(1 / period, rel=0.01)
    assert cues["jitter"] < 0.1
    assert cues["shimmer"] < 0.5
    assert cues["hnr_low"] > 25
    assert cues["hnr_high"] > 30
    assert cues["hnr"] == wide(pytest.approx(40, abs=15), known)
    assert cues["middle_slope"] == pytest.approx(0, abs=1.5)
    assert cues["skewness"] > 3
    assert cues["residual_skewness"] == wide(pytest.approx(10, abs=5), known)
    if known["rate"] >= RATE:
        assert cues["residual_kurtosis"] > 30


@pytest.mark.parametrize("edges", [(300, 3400), (150, 2000)])
def test_a_band_has_its_edges(edges):
    noise = np.random.default_rng(12).normal(size=4 * RATE)
    cues = cues_of(sosfilt(butter(12, edges, "bandpass", fs=RATE, output="sos"), noise), RATE)
    assert cues["lower_edge"] == pytest.approx(0.85 * edges[0], rel=0.15)
    assert cues["upper_edge"] == pytest.approx(1.15 * edges[1], rel=0.15)


def test_second_order_intermodulation_has_the_sign_of_the_distortion():
    t = np.arange(2 * RATE) / RATE
    pair = np.sin(2 * np.pi * 700 * t) + np.sin(2 * np.pi * 737 * t)
    rng = np.random.default_rng(13)
    for amount, low, high in ((0.1, 0.95, 1), (-0.1, -1, -0.95), (0.0, -0.3, 0.3)):
        x = pair + amount * pair**2 + 1e-3 * rng.normal(size=len(t))
        assert low <= distortion.squared_envelope(x - x.mean()) <= high


@pytest.mark.parametrize("gain", [20.0, 30.0])
def test_a_puff_stands_out_by_its_level(gain):
    rng, t = np.random.default_rng(14), np.arange(3 * RATE) / RATE
    bed = 1e-3 * rng.normal(size=len(t))
    lows = np.mean(np.square(sosfilt(butter(4, [20, 90], "bandpass", fs=RATE, output="sos"), bed)))
    puff = np.sqrt(2 * lows) * 10 ** (gain / 20) * np.sin(2 * np.pi * 50 * t) * ((t > 1.5) & (t < 2.0))
    assert cues_of(bed + puff, RATE)["pop"] == pytest.approx(gain, abs=3)
    assert cues_of(bed, RATE)["pop"] < 6


@pytest.mark.parametrize("hiss", [-30.0, -50.0])
def test_hiss_in_the_pauses_is_its_level_against_the_speech(hiss):
    rng = np.random.default_rng(15)
    gate = np.repeat([0, 1, 0, 1, 0, 1, 0], RATE // 2)
    speech, noise = rng.normal(size=(2, len(gate)))
    cues = cues_of(gate * speech + 10 ** (hiss / 20) * noise, RATE)
    assert cues["pause_level"] == pytest.approx(hiss, abs=1)
    shares = {"hiss_low": 900 / 3500, "hiss_middle": 3000 / 3500, "hiss_high": 3200 / 3500}
    for name, share in shares.items():
        assert cues[name] == pytest.approx(hiss + 10 * np.log10(share), abs=1.2), name
    assert cues["pause_share"] == pytest.approx(4 / 7, abs=0.12)
    assert cues["pause_slope"] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("ratio", [-5.0, 5.0])
def test_direct_against_diffuse_sound_is_the_ratio_that_was_mixed(ratio):
    array, rng = get_array("D3"), np.random.default_rng(16)
    length = 2 * RATE
    waves = [
        arriving(array, rng.normal(size=length), rng.uniform(-np.pi, np.pi), np.arcsin(rng.uniform(-1, 1)))
        for _ in range(48)
    ]
    diffuse = np.sum(waves, axis=0) / np.sqrt(len(waves))
    direct = arriving(array, rng.normal(size=length), 0.4, 0.1)
    cues = cues_of(direct * 10 ** (ratio / 20) + diffuse, RATE, array)
    for name in ("drr_middle", "drr_high"):
        assert cues[name] == pytest.approx(ratio, abs=2.5), name


@pytest.mark.parametrize("offset", [0.3, 0.003])
def test_an_offset_changes_nothing_with_silence_before_or_after_it(offset):
    x = voice(mics=4)
    known, around = cues_of(x, RATE, "D2"), [(0, 0), (RATE // 3, RATE // 4)]
    same(known, cues_of(np.pad(x + offset, around), RATE, "D2"), 1e-2)
    same(known, cues_of(np.pad(x, around) + offset, RATE, "D2"), 1e-2)


def test_polarity_turns_what_leans_and_nothing_else():
    x = voice(mics=4)
    turned = cues_of(-x, RATE, "D2")
    same(cues_of(x, RATE, "D2"), turned | {name: -turned[name] for name in ODD}, 1e-3)


def test_the_order_of_the_other_microphones_does_not_matter():
    array, order = get_array("D4"), [0, 3, 1, 6, 5, 2, 4]
    x = arriving(array, voice(2.0)[0], 0.3, 0.2)
    x += 1e-3 * np.random.default_rng(17).normal(size=x.shape).astype(np.float32)
    other = cues_of(x[order], RATE, replace(array, positions=array.positions[order]))
    same(cues_of(x, RATE, array), other, 1e-3)


def test_a_dead_first_microphone_says_nothing():
    x = voice(mics=4)
    x[0] = 0
    assert not defined(cues_of(x, RATE, "D2"))


def test_digital_silence_inside_is_neither_decay_nor_puff():
    x = np.where(np.arange(2 * RATE) % 9600 < 4000, voice(2.0)[0], 0)
    cues = cues_of(x, RATE)
    assert cues["pop"] < 40
    assert np.isnan(cues["decay_low"]) or cues["decay_low"] > 0.1


@pytest.mark.parametrize("gain", [1e-3, 0.5, 10.0])
def test_gain_changes_nothing(gain):
    x = voice(mics=4)
    same(cues_of(x, RATE, "D2"), cues_of(gain * x, RATE, "D2"), 1e-2)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_silence_around_changes_nothing(rate):
    x = voice(rate=rate, mics=4)
    padded = np.pad(x, [(0, 0), (rate // 3, rate // 4)])
    same(cues_of(x, rate, "D2"), cues_of(padded, rate, "D2"), 1e-4)


def same(one: dict, other: dict, relative: float) -> None:
    for name in NAMES:
        assert one[name] == pytest.approx(other[name], rel=relative, abs=relative, nan_ok=True), name


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 48000])
def test_any_rate_gives_the_same_or_nothing(rate):
    array = get_array("D2")
    known = cues_of(voice(mics=4), RATE, array)
    found = cues_of(voice(rate=rate, mics=4), rate, array)
    for name in ("f0_median", "low_370", "low_530"):
        assert found[name] == pytest.approx(known[name], rel=0.1, abs=1.5), name
    for name, cue in CUES.items():
        assert np.isnan(found[name]) or cue.reach <= 0.45 * rate, name  # nothing up there was recorded
    if rate == 8000:
        assert not {"lfcc1_mean", "hiss_high", "drr_high", "decay_high", "rolloff_85"} & defined(found)
        assert {"jitter", "hnr_low", "lower_slope", "hiss_low", "drr_middle", "decay_low"} <= defined(found)


def defined(cues: dict) -> set[str]:
    return {name for name, value in cues.items() if np.isfinite(value)}


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, RATE)),
        np.zeros((2, 0)),
        np.full((2, RATE), 0.3),
        1e-3 * RNG.normal(size=(2, 1000)),
        RNG.normal(size=(7, RATE)),
        np.eye(2, 3000),
        voice(1.0, mics=2),
        np.where(np.arange(RATE) % 4000 < 2000, voice(1.0, mics=2), 0),
    ],
    ids=["silence", "nothing", "constant", "62 ms", "noise", "clicks", "one second", "gated"],
)
def test_every_sound_gives_every_name_and_finite_values_or_none(x):
    cues = cues_of(x, RATE)
    assert tuple(cues) == NAMES
    assert not np.isinf(list(cues.values())).any()
    if not x.any() or np.ptp(x) == 0 or x.shape[1] < RATE / 10:
        assert np.isnan(list(cues.values())).all()  # undefined, not zero


def test_one_microphone_has_no_cues_of_space():
    cues = cues_of(voice(), RATE)
    for name, cue in CUES.items():
        if cue.group in ("coherence", "direction", "extent", "direct sound"):
            assert np.isnan(cues[name]), name
    assert np.isfinite(cues["f0_median"])


def test_what_is_no_recording_is_refused():
    with pytest.raises(ValueError, match="finite"):
        cues_of(np.full((2, 100), np.nan), RATE)
    with pytest.raises(ValueError, match="channels"):
        cues_of(np.zeros((3, RATE)), RATE, "D4")
    with pytest.raises(ValueError, match="sample rate"):
        cues_of(np.zeros((1, RATE)), 100)


def test_every_cue_can_be_said():
    for name, cue in CUES.items():
        assert cue.name == name
        assert "{" not in cue.say(1.5)
