"""Laws of a whole chain: drivers interfere as computed, hiss lies where described, SNR is the one drawn."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import fft as sfft

from remasc.simulate import Recipe, render, scene_rng
from remasc.simulate.background import background
from remasc.simulate.layout import sample_count
from remasc.simulate.noise import band_power
from remasc.simulate.playback import make_device
from remasc.simulate.render import microphones, mix, played
from remasc.simulate.rooms import Emitter, Room, omni, responses, room_of, transfer
from remasc.simulate.scenes import CONTENT_RATE, cast_of, draw_scenes
from remasc.simulate.speech import Folders, scan_speech
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


@pytest.mark.parametrize("array", ["D1", "D4"])
def test_a_file_is_as_long_as_its_scene(speech, array):  # noqa: F811
    scenes, folders = scenes_of(speech)
    for scene in scenes[:3]:
        (waveform, _, _) = render.render_scene(scene, "laws", (array,), folders)[array]
        assert waveform.shape[1] == sample_count(scene, array)
        assert np.isfinite(waveform).all()
