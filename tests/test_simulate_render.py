"""Laws of a whole chain: drivers interfere as computed, hiss lies where described, SNR is the one drawn."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import fft as sfft

from remasc import ARRAYS
from remasc.simulate import Recipe, render, scene_rng
from remasc.simulate.background import background
from remasc.simulate.layout import sample_count
from remasc.simulate.noise import band_power, speech_band
from remasc.simulate.playback import magnitude, make_device
from remasc.simulate.render import microphones, mix, played
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
