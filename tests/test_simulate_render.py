"""Laws of a whole chain: drivers interfere as computed, hiss lies where described, SNR is the one drawn."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import fft as sfft

from remasc import ARRAYS
from remasc.simulate import Recipe, render, scene_rng
from remasc.simulate.background import background
from remasc.simulate.capsules import tolerances
from remasc.simulate.layout import sample_count
from remasc.simulate.noise import band_power, diffuse_coherence, rms, speech_band
from remasc.simulate.places import draw_room
from remasc.simulate.playback import EQUALISER_DB, FAMILIES, inverse_magnitude, magnitude, make_device
from remasc.simulate.render import microphones, mix, played, recorded
from remasc.simulate.rooms import Emitter, Room, omni, responses, room_of, transfer
from remasc.simulate.scenes import CONTENT_RATE, cast_of, draw_scenes
from remasc.simulate.speech import Folders, build_command, scan_speech
from tests.test_simulate_corpus import NO_NOISE, speech  # noqa: F401 (a fixture)

DEAF = Room(
    "free", "outdoor", (40.0, 40.0, 20.0), ((0.0,) * 7,) * 4 + ((0.999,) * 7,) * 2, (0.4,) * 7, 20.0, -120.0
)


@pytest.mark.parametrize("apart", [0.12, 0.3])
def test_two_coherent_drivers_interfere_as_computed(apart):
    """In the open, over a ground that swallows all, the sum of two equal drivers is |sum exp(-jkr) / r|."""
    mic = np.array([[20.0, 20.0, 10.0]])
    places = [np.array([21.2, 20.4 + side * apart / 2, 10.0]) for side in (-1, 1)]
    emitters = [Emitter(p, np.array([-1.0, 0.0, 0.0]), omni) for p in places]
    length = 4096
    both = transfer(responses(DEAF, emitters, mic, CONTENT_RATE, scene_rng("law", "two")), length).sum(
        axis=0
    )[0]
    f = np.fft.rfftfreq(length, 1 / CONTENT_RATE)
    distances = [np.linalg.norm(p - mic[0]) for p in places]
    wave = sum(np.exp(-2j * np.pi * f * d / DEAF.speed_of_sound) / d for d in distances)
    kept = (f > 200) & (f < 6500) & (np.abs(wave) > 0.15)
    assert np.abs(20 * np.log10(np.abs(both[kept]) / np.abs(wave[kept]))).max() < 0.5


def scenes_of(speech: Path, **changes) -> tuple[list[dict], Folders]:  # noqa: F811
    recipe = dataclasses.replace(Recipe("laws", pairs={"eval": 12}), **changes)
    casts, _ = cast_of(recipe, speech, scan_speech(speech), NO_NOISE)
    return draw_scenes(recipe, "laws", casts), Folders(speech)


def device_scene(family: int, **device) -> dict:
    """A device that plays in the open through one driver, without noise of its own unless `device` says so."""
    fields = {"id": f"chain-{family}", "family": family, "drive_db": 0.0, "hiss": False, "one_driver": True}
    return {
        "device": {**fields, "built_in": False, **device},
        "attack": {"equaliser_error_db": None, "late_down_db": 0.0},
        "source": [20.0, 20.0, 1.5],
        "facing": [1.0, 0.0, 0.0],
        "room": {"dims": [40.0, 40.0, 20.0]},
    }


def radiated(x: np.ndarray, scene: dict) -> np.ndarray:
    """Magnitudes (F,) of what the device of a scene radiates of `x` (N,)."""
    return np.abs(played(x, np.ones(len(x), bool), scene, "laws", scene_rng("law", "chain"))[1].sum(axis=0))


@pytest.mark.parametrize("family", [1, 2, 3, 4, 5])
def test_a_sweep_through_the_chain_finds_the_response_described(family):
    """Played softly, within half a decibel of it; its level apart, for what is played is of power one."""
    n = 65536
    t = np.arange(n) / CONTENT_RATE
    rate = np.log(7900 / 80) / t[-1]
    sweep = np.sin(2 * np.pi * 80 * np.expm1(rate * t) / rate).astype(np.float32)
    f = np.linspace(0, CONTENT_RATE / 2, n // 2 + 1)
    kept = (f > 150) & (f < 7000)
    found = radiated(sweep, device_scene(family, drive_db=-50.0))[kept] / np.abs(sfft.rfft(sweep))[kept]
    error_db = 20 * np.log10(found / magnitude(make_device("laws", f"chain-{family}", family), f[kept]))
    assert np.abs(error_db - np.median(error_db)).max() < 0.5


@pytest.mark.parametrize("family", [1, 2, 3, 4, 5])
def test_a_sine_through_the_chain_finds_the_distortion_described(family):
    """Its harmonics, seen through the response that comes after the distortion."""
    tone, n = 1000, 16000
    x = (np.sqrt(2) * np.sin(2 * np.pi * tone * np.arange(n) / CONTENT_RATE)).astype(np.float32)
    device = make_device("laws", f"chain-{family}", family)
    heard = radiated(x, device_scene(family)) / np.maximum(magnitude(device, np.arange(n // 2 + 1.0)), 1e-9)
    assert heard[3 * tone] / heard[tone] == pytest.approx(device.odd, rel=0.03)
    assert heard[2 * tone] / heard[tone] == pytest.approx(device.even, rel=0.03)
    louder = radiated(x, device_scene(family, drive_db=5.0))
    assert louder[3 * tone] / louder[tone] > 1.5 * heard[3 * tone] / heard[tone] * (
        magnitude(device, np.array([3.0 * tone]))[0] / magnitude(device, np.array([1.0 * tone]))[0]
    )


def test_hiss_and_hum_lie_as_far_below_the_speech_as_described(speech):  # noqa: F811
    """What a device radiates with its noise on, less the same without: its response times noise of that power."""
    scenes, _ = scenes_of(speech, built_in_share=0.0, equaliser_share=0.0)
    rng = scene_rng("law", "hiss")
    x = rng.standard_normal(32000).astype(np.float32)
    for scene in [s for s in scenes if s["device"]][:4]:
        quiet = {**scene, "device": {**scene["device"], "hiss": False}}
        noisy = {**quiet, "device": {**scene["device"], "hiss": True}}
        mask = np.ones(len(x), bool)
        with_noise, without = (
            played(x, mask, s, "laws", scene_rng("law", "same"))[1] for s in (noisy, quiet)
        )
        device = make_device("laws", scene["device"]["id"], scene["device"]["family"])
        f = np.linspace(0, CONTENT_RATE / 2, with_noise.shape[1])
        gain = np.abs(without).sum(axis=0) / np.maximum(np.abs(sfft.rfft(x)), 1e-9)
        kept = (f > 1000) & (f < 6000) & (gain > np.median(gain) / 30)
        added = np.square(np.abs((with_noise - without).sum(axis=0)[kept])).mean()
        speech_there = np.square(np.abs(without.sum(axis=0)[kept])).mean()
        assert 10 * np.log10(added / speech_there) == pytest.approx(-device.hiss_db, abs=2.0)


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_a_device_that_plays_nothing_hums_at_multiples_of_its_mains(mains):
    """Five lines, the n-th of 1 / n the amplitude described, through its response, and no others; without noise of
    its own, nothing."""
    found = [(make_device("laws", f"hum-{i}", family), family) for i in range(40) for family in FAMILIES]
    humming = (pair for pair in found if pair[0].hum_hz == mains)
    device, family = min(humming, key=lambda pair: pair[0].hum_db - pair[0].hiss_db)
    silence = np.zeros(8 * CONTENT_RATE, np.float32)
    heard = radiated(silence, device_scene(family, id=device.device_id, hiss=True))
    lines = np.arange(1, 13) * mains
    amplitude = heard[(8 * lines).astype(int)] / magnitude(device, lines) / (len(silence) / 2)
    level_db = 20 * np.log10(amplitude * np.arange(1, 13)) + device.hum_db
    hum = np.isin(np.arange(1, 13), (1, 2, 3, 5, 7))
    assert level_db[hum] == pytest.approx(0, abs=1.0)
    assert level_db[~hum].max() < -10
    assert radiated(silence, device_scene(family, id=device.device_id)).max() < 1e-4 * heard.max()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_equaliser_leaves_of_the_response_what_it_measured_wrong(family):
    """What a device radiates of white noise is flat but for the error; without the equaliser it is not."""
    x = scene_rng("law", "equaliser").standard_normal(65536).astype(np.float32)
    f = np.linspace(0, CONTENT_RATE / 2, len(x) // 2 + 1)
    error_db = scene_rng("law", "error").normal(0, 2.0, 36)
    device = make_device("laws", f"chain-{family}", family)
    gains_db = 20 * np.log10(inverse_magnitude(device, f, error_db))
    kept = (f > 700) & (f < 6000) & (np.abs(gains_db) < EQUALISER_DB - 0.5)
    assert kept.sum() > 0.6 * ((f > 700) & (f < 6000)).sum()

    def response_db(equaliser_error_db: list | None) -> np.ndarray:
        scene = device_scene(family, drive_db=-50.0)
        scene["attack"] = {**scene["attack"], "equaliser_error_db": equaliser_error_db}
        return 20 * np.log10(radiated(x, scene)[kept] / np.abs(sfft.rfft(x))[kept])

    stated = np.interp(np.log2(f[kept] / 50), np.arange(36) / 4, error_db)
    left = response_db(list(error_db)) - stated
    assert np.abs(left - np.median(left)).max() < 0.5
    assert response_db([0.0] * 36).std() < 0.2 < 1.0 < response_db(None).std()


HARSH = {"name": "mp3", "compression": 0.9}


def phone(**changes) -> dict:
    """A recorder half a metre before a mouth in the open, that adds nothing of its own unless `changes` say so."""
    mouth = np.array([20.0, 20.0, 1.5])
    plain = {"kind": 2, "codec": None, "noise_db": 140.0, "band": [20.0, 50000.0], "agc": 0.0}
    where = {"mouth": mouth, "facing": [1.0, 0.0, 0.0], "capsule": mouth + [0.5, 0.0, 0.0]}
    return {**plain, **where, "room": dataclasses.asdict(DEAF) | {"id": DEAF.room_id}, **changes}


def kept_by(recorder: dict, x: np.ndarray, mask: np.ndarray | None = None, **late) -> np.ndarray:
    mask = np.ones(len(x), bool) if mask is None else mask
    return recorded(x, mask, recorder, scene_rng("law", "recorder"), **late)


@pytest.mark.parametrize("agc", [0.2, 0.5])
def test_automatic_gain_evens_the_levels_of_what_is_recorded(agc):
    """What was 8 dB softer is softer by the share that the gain leaves; without it by all."""
    x = scene_rng("law", "agc").standard_normal(4 * CONTENT_RATE).astype(np.float32)
    x[2 * CONTENT_RATE :] *= 10 ** (-8 / 20)
    loud, soft = slice(16000, 30000), slice(48000, 62000)  # after the gain has come to rest

    def fall_db(y: np.ndarray) -> float:
        return 20 * np.log10(rms(y[loud]) / rms(y[soft]))

    assert fall_db(kept_by(phone(), x)) == pytest.approx(8, abs=0.2)
    assert fall_db(kept_by(phone(agc=agc), x)) == pytest.approx(8 * (1 - agc), abs=0.4)


def test_a_recorder_hisses_as_far_below_the_speech_as_described():
    """In the pause after it."""
    x = scene_rng("law", "said").standard_normal(2 * CONTENT_RATE).astype(np.float32)
    mask = np.arange(len(x)) < CONTENT_RATE
    x[~mask] = 0
    for noise_db in (25.0, 45.0):
        pause = kept_by(phone(noise_db=noise_db), x, mask)[22000:30000]
        assert 20 * np.log10(rms(pause)) == pytest.approx(-noise_db, abs=0.5)
        power, f = np.square(np.abs(sfft.rfft(pause))), sfft.rfftfreq(len(pause), 1 / CONTENT_RATE)
        fall = power[(f > 350) & (f < 700)].mean() / power[(f > 3500) & (f < 7000)].mean()
        assert 10 * np.log10(fall) == pytest.approx(1.5 * np.log2(10), abs=1.0)  # 1.5 dB per octave


def test_a_recorder_keeps_its_band_and_the_utterance_its_place():
    """Second order below, fourth above, 3 dB each at their corners; as heard, but for the way to the recorder."""
    x = scene_rng("law", "band").standard_normal(65536).astype(np.float32)
    f = np.linspace(0, CONTENT_RATE / 2, len(x) // 2 + 1)
    wide, narrow = (sfft.rfft(kept_by(phone(**band), x)) for band in ({}, {"band": [200.0, 5500.0]}))
    lost_db = 20 * np.log10(np.abs(narrow) / np.abs(wide))
    wanted = -10 * np.log10((1 + (200 / np.maximum(f, 1)) ** 2) ** 2 * (1 + (f / 5500) ** 8))
    seen = (f > 150) & (f < 7500)
    error = (lost_db - wanted)[seen]
    assert np.abs(error - np.median(error)).max() < 0.5
    assert np.abs(np.angle(wide / sfft.rfft(x))[(f > 1000) & (f < 6000)]).max() < 0.1


@pytest.mark.parametrize("kind", [2, 3])
def test_what_is_stored_went_through_its_codec(kind):
    x = scene_rng("law", "codec").standard_normal(2 * CONTENT_RATE).astype(np.float32)
    raw, stored = (kept_by(phone(kind=kind, codec=codec), x) for codec in (None, HARSH))
    alike = float(raw @ stored) / np.linalg.norm(raw) / np.linalg.norm(stored)
    assert 0.3 < alike < 0.98


def test_a_recorder_behind_the_head_hears_less_treble():
    x = scene_rng("law", "behind").standard_normal(65536).astype(np.float32)
    before, behind = (
        np.square(np.abs(sfft.rfft(kept_by(phone(facing=[ahead, 0.0, 0.0]), x)))) for ahead in (1.0, -1.0)
    )
    f = np.linspace(0, CONTENT_RATE / 2, len(before))
    bass, treble = (f > 150) & (f < 300), (f > 4000) & (f < 7000)
    lost = behind[bass].sum() / behind[treble].sum() * before[treble].sum() / before[bass].sum()
    assert 10 * np.log10(lost) > 6


def test_dereverberation_turns_down_what_comes_30_ms_after_the_direct_sound():
    """By what it says, and nothing before. (A click in the recorder's own room.)"""
    room = dataclasses.asdict(room_of(draw_room("laws", "attic", 2)))
    there = {"mouth": [1.5, 2.0, 1.4], "capsule": [2.0, 2.0, 1.4], "room": room | {"id": "attic"}}
    click = np.eye(1, 2 * CONTENT_RATE, 4000, dtype=np.float32)[0]
    whole, mended = (kept_by(phone(**there), click, late_down_db=down) for down in (0.0, 12.0))
    early, late = slice(3900, 4400), slice(5000, 8000)  # the recorder's band smears some milliseconds
    assert rms(whole[late]) / rms(whole[early]) > 0.02
    lost = rms(mended[late]) / rms(mended[early]) * rms(whole[early]) / rms(whole[late])
    assert 20 * np.log10(lost) == pytest.approx(-12, abs=0.5)


def test_a_vehicles_own_loudspeakers_play_from_all_around_the_cabin():
    """Four to six of them, apart from each other, each within its walls and about as loud as the others; a device
    that was carried in plays from where it is."""
    x = scene_rng("law", "cabin").standard_normal(8000).astype(np.float32)
    cabin = np.array([1.4, 2.8, 1.2])
    for number in range(6):
        scene = device_scene(5, id=f"car-{number}", one_driver=False, built_in=True)
        scene |= {"source": [0.4, 1.0, 0.8], "room": {"dims": cabin}}
        emitters, spectra = played(x, np.ones(len(x), bool), scene, "laws", scene_rng("law", "chain"))
        places = np.array([emitter.position for emitter in emitters])
        assert 4 <= len(places) == len(spectra) <= 6
        assert (places > 0).all()
        assert (places < cabin).all()
        apart = np.linalg.norm(places[:, None] - places, axis=-1)[np.triu_indices(len(places), 1)]
        assert apart.min() > 0.4
        assert apart.max() > cabin[0]
        powers = np.square(np.abs(spectra)).sum(axis=1)
        assert powers.max() / powers.min() < 10 ** (2.1 / 10)  # gains within a decibel
        delays = [driver.delay for driver in make_device("laws", f"car-{number}", 5).drivers]
        turned = np.angle(spectra[:, 100:600] / spectra[:1, 100:600])
        f = np.linspace(0, CONTENT_RATE / 2, spectra.shape[1])[100:600]
        late = np.exp(-2j * np.pi * f * (np.array(delays) - delays[0])[:, None])
        assert np.abs(np.exp(1j * turned) - late).max() < 1e-2
    carried = device_scene(4, one_driver=False) | {"source": [0.4, 1.0, 0.8], "room": {"dims": cabin}}
    emitters, _ = played(x, np.ones(len(x), bool), carried, "laws", scene_rng("law", "chain"))
    assert max(np.linalg.norm(e.position - carried["source"]) for e in emitters) < 0.15


AROUND = 16 * CONTENT_RATE
F_AROUND = np.linspace(0, CONTENT_RATE / 2, AROUND // 2 + 1)


def around(environment: int = 1, speech: Path = Path(), **noise) -> np.ndarray:  # noqa: F811
    """The background (1 + 4, F) at D2 in the open: a flat diffuse bed, and what `noise` adds to it."""
    plain = {"clip": None, "slope_db": 0.0, "babble_share": 0.0, "point_share": 0.0, "point": None}
    scene = {
        "scene_id": "around",
        "environment": environment,
        "stand": [20.0, 20.0, 1.5],
        "forward": [0.0, 1.0, 0.0],
        "noise": {**plain, "wind_share": 0.0, "speed": 0.0, "rpm": 800.0, **noise},
    }
    places = microphones(scene, ("D2",))
    return background(scene, "laws", ("D2",), places, DEAF, Folders(speech), AROUND)


def added(whole: np.ndarray, bed: np.ndarray) -> np.ndarray:
    """What `whole` has beyond the `bed`, in its measure: they are alike above 5 kHz, where neither has more."""
    high = F_AROUND > 5000
    return whole * (np.vdot(whole[0, high], bed[0, high]) / np.vdot(whole[0, high], whole[0, high])) - bed


def coherence(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Real part of the coherence (R, R) of spectra (R, F) from `low` to `high` Hz."""
    x = x[:, (low < F_AROUND) & (high > F_AROUND)].astype(np.complex128)
    cross = (x @ x.conj().T).real
    return cross / np.sqrt(np.outer(np.diag(cross), np.diag(cross)))


def level_of(spectrum: np.ndarray) -> float:
    """Effective value of a spectrum's sound."""
    return rms(sfft.irfft(spectrum, AROUND))


def test_every_microphone_has_its_own_wind():
    """In the bass a still day is alike at all microphones of an array and a windy one is not; the gusts are as
    strong as drawn, come at once, and lie below 300 Hz."""
    still, windy = around(), around(wind_share=0.8)
    others = ~np.eye(4, dtype=bool)
    assert coherence(still[1:], 20, 100)[others].min() > 0.9
    assert np.abs(coherence(windy[1:], 20, 100)[others]).max() < 0.15
    gusts = added(windy, still)
    assert level_of(gusts[0]) == pytest.approx(2 * 0.8, rel=0.02)
    for one in gusts[1:]:
        assert level_of(one) == pytest.approx(2 * 0.8, rel=0.2)
        assert level_of(one * (F_AROUND > 300)) < 0.1 * level_of(one)
    swells = np.square(sfft.irfft(gusts[1:], AROUND)).reshape(4, -1, CONTENT_RATE // 4).mean(axis=2)
    assert np.corrcoef(np.log(swells))[others].min() > 0.5


def test_the_bed_and_the_road_are_diffuse():
    """Coherent between microphones as sinc(2 f d / c); the road as strong as the speed, below 500 Hz."""
    still, fast = around(), around(speed=0.6)
    positions = ARRAYS["D2"].positions
    for low, high in ((40, 150), (900, 1100), (2000, 2300), (3500, 4000)):
        wanted = diffuse_coherence(positions, np.linspace(low, high, 50)).mean(axis=0)
        assert np.abs(coherence(still[1:], low, high) - wanted).max() < 0.1, low
    road = added(fast, still)
    assert level_of(road[0]) == pytest.approx(1.5 * 0.6, rel=0.05)
    assert level_of(road[1] * (F_AROUND > 500)) < 0.2 * level_of(road[1])
    assert coherence(road[1:], 40, 150).min() > 0.9


@pytest.mark.parametrize("rpm", [760.0, 2400.0])
def test_an_engine_is_heard_at_multiples_of_half_its_speed(rpm):
    """In a cabin, parked or moving, and nowhere else: from its speed to its twelvefold, most at whole multiples,
    the same at all microphones of an array."""
    engine = added(around(4, rpm=rpm), around(1, slope_db=6.0))
    assert level_of(engine[0]) == pytest.approx(1.2, rel=0.02)
    assert np.abs(engine[1:] - engine[0]).max() < 1e-3 * np.abs(engine[0]).max()
    order = F_AROUND / (rpm / 120)
    power = np.square(np.abs(engine[0]))
    inside = (order > 1.8) & (order < 25.4)
    assert power[inside].sum() > 0.99 * power.sum()
    low = (order > 1.5) & (order < 6.5)
    near = np.abs(order - np.round(order)) < 0.3
    assert power[low & near].sum() > 0.98 * power[low].sum()
    lines = [power[np.abs(order - n) < 0.3].sum() for n in range(2, 7)]
    assert min(lines) > 1e-3 * power.sum()
    assert sum(lines[::2]) > 2 * sum(lines[1::2])  # whole turns are louder


def test_chatter_has_the_bands_of_speech_and_its_share_of_the_power():
    plain, chatter = around(), around(babble_share=0.7)
    f = F_AROUND

    def share(x: np.ndarray) -> float:
        return band_power(x[0] * (f > 4000), f, AROUND) / band_power(x[0], f, AROUND)

    assert share(chatter) / share(plain) == pytest.approx(0.3, abs=0.03)  # the bed's own part of it
    assert coherence(chatter[1:], 200, 400).min() > 0.8


def test_a_point_of_noise_comes_from_its_place():
    """Its share of the power, with the delays and levels of a point in the open."""
    point = np.array([23.0, 21.0, 1.0])
    one = around(point_share=0.9999, point=point)
    places = microphones({"stand": [20.0, 20.0, 1.5], "forward": [0.0, 1.0, 0.0]}, ("D2",))
    away = np.linalg.norm(places - point, axis=1)
    f = F_AROUND
    wave = np.exp(-2j * np.pi * f * away[:, None] / DEAF.speed_of_sound) / away[:, None]
    kept = (f > 300) & (f < 3000)
    ratio = (one / wave)[:, kept]
    source = ratio.mean(axis=0)
    assert np.square(np.abs(ratio - source)).sum() < 0.02 * np.square(np.abs(ratio)).sum()
    half = around(point_share=0.5, point=point, slope_db=3.0)
    assert 0.3 < coherence(half * np.exp(2j * np.pi * f * away[:, None] / 343.4), 3000, 6000)[1, 4] < 0.8


def test_a_lounges_television_says_what_was_drawn_and_else_there_is_music(speech):  # noqa: F811
    """Its command found again in the background, as often as it fits; music is of notes, and says nothing."""
    scenes, _ = scenes_of(speech, environments={"3": 1.0})
    lounges = [scene["noise"] for scene in scenes]
    talks = [noise for noise in lounges if "television" in noise]
    assert 0 < len(talks) < len(lounges)
    in_band = speech_band(F_AROUND)

    def from_there(**noise) -> np.ndarray:
        return around(3, speech, point_share=0.97, point=[23.0, 21.0, 1.0], **noise)[0] * in_band

    music = from_there()
    said = build_command(speech, talks[0]["television"], CONTENT_RATE)[0]
    voice = sfft.irfft(sfft.rfft(np.pad(said, (0, AROUND - len(said)))) * in_band)
    alike = []
    for heard in (from_there(television=talks[0]["television"]), music):
        sums = np.cumsum(np.tile(np.square(sfft.irfft(heard, AROUND)), 2))
        beside = np.sqrt((sums[len(said) :] - sums[: -len(said)])[:AROUND])
        found = np.abs(sfft.irfft(heard * sfft.rfft(voice).conj(), AROUND))
        alike.append((found / np.roll(beside, 1)).max() / np.linalg.norm(voice))
    assert alike[0] > 0.9
    assert alike[1] < 0.5
    power = np.square(np.abs(music))[(F_AROUND > 200) & (F_AROUND < 2000)]
    assert np.sort(power)[-len(power) // 20 :].sum() > 0.7 * power.sum()  # a fan: 0.2


def a_mouth_in_the_open(speech: Path, **changes) -> tuple[dict, Folders]:  # noqa: F811
    """A talker two metres before the stand who neither sways nor is disturbed."""
    scenes, folders = scenes_of(speech, movement=False, bystander_share=0.0)
    scene = next(s for s in scenes if s["chain"] == "mouth") | {
        "room": dataclasses.asdict(DEAF) | {"id": "free"},
        "stand": [20.0, 20.0, 10.0],
        "source": [22.0, 20.0, 10.0],
        "facing": [-1.0, 0.0, 0.0],
        "distance": 2.0,
    }
    scene["noise"] = scene["noise"] | {"snr_db": 140.0, "point_share": 0.0}
    return scene | changes, folders


def test_channels_of_a_file_differ_by_their_capsules(speech):  # noqa: F811
    """Beside 1 / distance, by the gains and phases that the scene's tolerances say."""
    scene, folders = a_mouth_in_the_open(speech)
    total, _, _ = mix(scene, "laws", ("D2",), folders)
    f = np.linspace(0, CONTENT_RATE / 2, total.shape[1])
    kept = (f > 300) & (f < 6500) & (np.abs(total[0]) > np.median(np.abs(total[0])))
    moved, heard_by = tolerances(scene, "laws", ("D2",), f)
    away = np.linalg.norm(microphones(scene, ("D2",)) + moved - scene["source"], axis=1)
    wave = np.exp(-2j * np.pi * f * away[:, None] / DEAF.speed_of_sound) / away[:, None]
    found = total[:, kept] / total[0, kept] / wave[:, kept] * wave[0, kept]
    off = np.abs(found / heard_by[:, kept] - 1)[:, f[kept] > 3000]  # half a millimetre is 3 degrees at 6 kHz
    assert np.median(off, axis=1).max() < 0.01
    assert np.abs(np.median(20 * np.log10(np.abs(found)), axis=1)).max() > 0.2


def test_effort_and_colour_are_heard(speech):  # noqa: F811
    plain, folders = a_mouth_in_the_open(speech, effort_db=0.0, colour_db=[0.0] * 9)
    colour_db = [0.0, 0.0, 3.0, -2.0, 4.0, -3.0, 0.0, 2.0, 0.0]
    before, after = (
        np.abs(mix(scene, "laws", ("D1",), folders)[0][0])
        for scene in (plain, plain | {"effort_db": -2.0, "colour_db": colour_db})
    )
    f = np.linspace(0, CONTENT_RATE / 2, len(before))
    kept = (f > 250) & (f < 6000) & (before > np.median(before))
    wanted = -2.0 * np.log2(f[kept] / 1000) + np.interp(np.log2(f[kept] / 50), np.arange(9), colour_db)
    error = 20 * np.log10(after[kept] / before[kept]) - wanted
    assert np.median(np.abs(error - np.median(error))) < 0.2


def test_a_swaying_mouth_is_heard_to_come_nearer(speech):  # noqa: F811
    """Two centimetres along the way to the stand, from its first words to its last: 0.9 sample."""
    still, folders = a_mouth_in_the_open(speech)
    length = round(still["seconds"] * CONTENT_RATE)
    here, there = (
        sfft.irfft(total[0], size)[:length]
        for total, size, _ in (
            mix(scene, "laws", ("D1",), folders) for scene in (still, still | {"sway": [-0.02, 0.0, 0.0]})
        )
    )
    first, last = (round(t * CONTENT_RATE) for t in (still["lead"], still["seconds"] - still["trail"]))
    delays = []
    for piece in (slice(first, first + 8000), slice(last - 8000, last)):
        a, b = (sfft.rfft(x[piece] * np.hanning(8000)) for x in (here, there))
        turn = 2 * np.pi * np.arange(len(a)) / 8000
        weight = np.abs(a * b) * turn * (turn > 0.1) * (turn < 2)
        delays.append(-(weight * np.angle(b * a.conj())).sum() / (weight * turn).sum())
    assert delays[0] == pytest.approx(0.46, abs=0.015)
    assert delays[1] == pytest.approx(-0.46, abs=0.015)


def test_a_turning_mouth_takes_its_treble_away(speech):  # noqa: F811
    """From towards the stand to nearly away from it."""
    still, folders = a_mouth_in_the_open(speech)
    turning = still | {"facing": [-np.cos(1.2), -np.sin(1.2), 0.0], "turn": 2.4}
    first, last = (round(t * CONTENT_RATE) for t in (still["lead"], still["seconds"] - still["trail"]))
    treble = []
    for scene in (still, turning):
        total, length, _ = mix(scene, "laws", ("D1",), folders)
        heard = sfft.irfft(total[0] * (np.linspace(0, 8000, total.shape[1]) > 3000), length)
        treble.append([rms(heard[first : first + 5000]), rms(heard[last - 5000 : last])])
    (begins, ends), (begun, ended) = treble
    lost_db = 20 * np.log10(ends / begins * begun / ended)
    assert lost_db > 6


def test_files_begin_at_55_hz_and_end_at_7_4_khz(speech):  # noqa: F811
    """6 dB down at either end, whatever is heard: the background in a file beside the one that came to it."""
    scene, folders = a_mouth_in_the_open(speech)
    scene["noise"] = scene["noise"] | {"snr_db": -140.0}
    total, length, _ = mix(scene, "laws", ("D1",), folders)
    places = microphones(scene, ("D1",))
    came = background(scene, "laws", ("D1",), places, room_of(scene["room"]), folders, length)
    f = np.linspace(0, CONTENT_RATE / 2, len(came[0]))
    passed = np.abs(total[0, 1:] / came[0, 1:])
    passed = np.interp([10.0, 55.0, 1000.0, 6500.0, 7400.0, 7700.0], f[1:], passed / np.median(passed))
    wanted = [10**2 / (10**2 + 55**2), 0.5, 1.0, 1.0, 0.5, 0.0]
    assert passed == pytest.approx(wanted, abs=0.02)


def test_microphones_hiss_as_described(speech):  # noqa: F811
    """Above the speech of a file of 44.1 kHz there is nothing else."""
    scene, folders = a_mouth_in_the_open(speech)
    waveform, rate, _ = render.render_scene(scene, "laws", ("D1",), folders)["D1"]
    power = np.square(np.abs(sfft.rfft(waveform * np.hanning(waveform.shape[1])))).T
    f = sfft.rfftfreq(waveform.shape[1], 1 / rate)
    density = power[(f > 10000) & (f < 20000)].mean() / (0.375 * waveform.shape[1])
    assert 10 * np.log10(density) == pytest.approx(scene["noise"]["self_dbfs"], abs=0.2)


def test_with_directivity_switched_off_a_mouth_is_heard_alike_wherever_it_faces(speech):  # noqa: F811
    """In the open, to the stand and away from it; switched on, its treble goes where it faces."""
    scene, folders = a_mouth_in_the_open(speech)

    def treble_db(directivity: bool, ahead: float) -> float:
        there = {"directivity": directivity, "facing": [ahead, 0.0, 0.0]}
        power = np.square(np.abs(mix(scene | there, "laws", ("D1",), folders)[0][0]))
        f = np.linspace(0, CONTENT_RATE / 2, len(power))
        return 10 * np.log10(power[f > 3000].sum() / power[(f > 100) & (f < 500)].sum())

    assert treble_db(False, 1.0) == pytest.approx(treble_db(False, -1.0), abs=0.01)
    assert treble_db(True, 1.0) < treble_db(True, -1.0) - 5


@pytest.mark.parametrize("chain", ["mouth", "device"])
def test_whoever_stands_by_breathes_as_softly_as_drawn_and_nobody_else_does(speech, chain):  # noqa: F811
    """In the open without any noise pauses are silent; what a bystander adds lies below the speech by `breath_db`,
    less what the way to the breath is shorter."""
    scenes, folders = scenes_of(speech, movement=False, device_noise=False, source_recorders={"3": 1.0})
    scene = next(s for s in scenes if s["chain"] == chain)
    scene |= {
        "room": dataclasses.asdict(DEAF) | {"id": "free"},
        "stand": [20.0, 20.0, 10.0],
        "source": [22.0, 20.0, 10.0],
        "facing": [-1.0, 0.0, 0.0],
        "distance": 2.0,
        "noise": scene["noise"] | {"snr_db": 140.0, "point_share": 0.0},
    }
    if chain == "device":
        scene["recorder"] = scene["recorder"] | {"codec": None}
        scene["device"] = scene["device"] | {"built_in": False}

    def heard(bystander: dict | None) -> np.ndarray:
        total, length, _ = mix(scene | {"bystander": bystander}, "laws", ("D1",), folders)
        return sfft.irfft(total[0], length)

    alone = heard(None)
    _, active = build_command(
        speech, scene["utterance"], CONTENT_RATE, scene["effort_db"], scene["colour_db"]
    )
    first = round((scene["lead"] + 2.0 / DEAF.speed_of_sound) * CONTENT_RATE)
    spoken = rms(alone[first : first + len(active)][active])
    pauses = np.delete(alone, np.arange(first - 1600, first + len(active) + 8000))
    assert 20 * np.log10(rms(pauses) / spoken) < -60
    for breath_db in (28.0, 40.0):
        person = {"place": [20.8, 20.6, 10.0], "breath_db": breath_db}  # one metre from the stand
        both = heard(person)
        breath = both * (both @ alone) / (both @ both) - alone
        level_db = 20 * np.log10(rms(breath) / spoken)
        assert level_db == pytest.approx(-breath_db + 20 * np.log10(2.0 / 1.0), abs=1.0)


def test_the_background_is_of_power_one_before_it_is_turned_down(speech):  # noqa: F811
    """At the reference, 200 to 7000 Hz."""
    scenes, folders = scenes_of(speech)
    for scene in scenes[:6]:
        length, place = 40000, microphones(scene, ("D2",))
        noise = background(scene, "laws", ("D2",), place, room_of(scene["room"]), folders, length)
        f = np.linspace(0, CONTENT_RATE / 2, noise.shape[1])
        assert band_power(noise[0], f, length) == pytest.approx(1, rel=1e-4)


def test_the_ratio_of_speech_to_background_follows_the_snr(speech):  # noqa: F811
    """A mix is a part speech and a part background; 10 dB more SNR turns the parts' ratio by 10 dB."""
    scenes, folders = scenes_of(speech)
    for scene in scenes[:4]:

        def reference(snr_db: float, scene: dict = scene) -> np.ndarray:
            noise = {**scene["noise"], "snr_db": snr_db}
            return mix({**scene, "noise": noise}, "laws", ("D2",), folders)[0][0].astype(np.complex128)

        parts = np.stack([reference(100.0), reference(-100.0)], axis=1)  # speech alone, background alone
        found = [np.linalg.lstsq(parts, reference(snr), rcond=None)[0] for snr in (5.0, 15.0)]
        ratios = [20 * np.log10(np.abs(shares[0] / shares[1])) for shares in found]
        assert ratios[1] - ratios[0] == pytest.approx(10, abs=0.05)


def test_level_and_ratio_at_the_stand_are_those_drawn_in_either_class(speech):  # noqa: F811
    """Of the whole file; and of the speech while it is spoken to the background, 200 to 7000 Hz."""
    scenes, folders = scenes_of(speech)
    for scene in scenes[2:6]:

        def reference(snr_db: float, scene: dict = scene) -> tuple[np.ndarray, int, int]:
            changed = {**scene, "noise": {**scene["noise"], "snr_db": snr_db}}
            total, length, samples = mix(changed, "laws", ("D4",), folders)
            return total[0].astype(np.complex128), length, samples

        heard, length, samples = reference(scene["noise"]["snr_db"])
        level = 10 * np.log10(np.square(sfft.irfft(heard, length)[:samples]).mean())
        assert level == pytest.approx(scene["level_dbfs"], abs=0.01)
        f = np.linspace(0, CONTENT_RATE / 2, len(heard))
        band = speech_band(f)
        parts = np.stack([reference(100.0)[0], reference(-100.0)[0]], axis=1)
        shares = np.linalg.lstsq(parts[band], heard[band], rcond=None)[0]
        edges = np.where(band, render._edges(f), 1)  # ratios are drawn before the files' common pass band
        speech_alone, background_alone = (parts * shares / edges[:, None] * band[:, None]).T
        _, active = build_command(
            speech, scene["utterance"], CONTENT_RATE, scene["effort_db"], scene["colour_db"]
        )
        flight = scene["distance"] / room_of(scene["room"]).speed_of_sound
        first = round(scene["lead"] * CONTENT_RATE) + round(flight * CONTENT_RATE)
        spoken = sfft.irfft(speech_alone, length)[first : first + len(active)][active]
        ratio = np.square(spoken).mean() / band_power(background_alone, f, length)
        assert 10 * np.log10(ratio) == pytest.approx(scene["noise"]["snr_db"], abs=0.1), scene["scene_id"]


@pytest.mark.parametrize("array", ["D1", "D2", "D3", "D4"])
def test_a_file_has_the_delays_that_its_array_has_from_there(speech, monkeypatch, array):  # noqa: F811
    """In the open, to the right of the stand and above it, without tolerances: within 0.05 sample of the file's."""
    scenes, folders = scenes_of(speech, movement=False, directivity=False, bystander_share=0.0)
    monkeypatch.setattr(
        render, "tolerances", lambda s, c, a, f: (0.0, np.ones((1 + ARRAYS[a[0]].num_mics, len(f))))
    )
    there, ahead = np.array([0.7, 0.25, 0.9]), 0.4  # metres: right, up, forward; turn of the stand
    forward = np.array([np.cos(ahead), np.sin(ahead), 0.0])
    stand = np.array([20.0, 20.0, 10.0])
    right = np.array([forward[1], -forward[0], 0.0])
    room = {**dataclasses.asdict(DEAF), "id": "free"}
    scene = next(s for s in scenes if s["chain"] == "mouth") | {
        "room": room,
        "stand": stand,
        "forward": forward,
        "source": stand + there @ np.stack([right, [0.0, 0.0, 1.0], forward]),
        "distance": float(np.linalg.norm(there)),
    }
    quiet = {"snr_db": 120.0, "self_dbfs": -200.0, "point_share": 0.0, "wind_share": 0.0}
    scene["noise"] = {**scene["noise"], **quiet}
    waveform, rate, _ = render.render_scene(scene, "laws", (array,), folders)[array]
    away = np.linalg.norm(ARRAYS[array].positions + np.array(render.ON_STAND[array]) - there, axis=1)
    wanted = (away - away[0]) / DEAF.speed_of_sound * rate
    spectra = sfft.rfft(waveform.astype(float) * np.hanning(waveform.shape[1]))
    turn = 2 * np.pi * np.arange(spectra.shape[1]) / waveform.shape[1]
    kept = (turn * rate > 2 * np.pi * 300) & (turn * rate < 2 * np.pi * 6000)
    for channel, delay in zip(spectra, wanted, strict=True):
        cross = channel * spectra[0].conj() * np.exp(1j * turn * delay)
        weight = np.abs(cross[kept]) * turn[kept]
        error = -(weight * np.angle(cross[kept])).sum() / (weight * turn[kept]).sum()
        assert abs(error) < 0.05


@pytest.mark.parametrize("array", ["D1", "D4"])
def test_a_file_is_as_long_as_its_scene(speech, array):  # noqa: F811
    scenes, folders = scenes_of(speech)
    for scene in scenes[:3]:
        (waveform, _, _) = render.render_scene(scene, "laws", (array,), folders)[array]
        assert waveform.shape[1] == sample_count(scene, array)
        assert np.isfinite(waveform).all()
