"""One scene, drawn on paper, becomes the sound files of the arrays that stood in it.

Everything up to the microphones' own noise is computed as spectra at 16 kHz content (speech of 16 kHz
sources ends at 7.5 kHz), circularly, so that hiss and background are already there when the file begins.
The 44.1 kHz files are the same spectra transformed back on a finer grid: exact, and without a resampler.
Shapes: R = 1 + M channels, the first one a perfect microphone at the stand (level and SNR are measured
there, whatever arrays are asked for); F frequencies; N samples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import fft as sfft

from remasc.identity import scene_rng
from remasc.simulate import noise as noises
from remasc.simulate.background import background
from remasc.simulate.capsules import tolerances
from remasc.simulate.codecs import coded
from remasc.simulate.geometries import array_of
from remasc.simulate.layout import SUBTYPES
from remasc.simulate.noise import rms, speech_band
from remasc.simulate.playback import (
    apply_magnitude,
    distort,
    driver_emitters,
    driver_spectra,
    inverse_magnitude,
    magnitude,
    make_device,
    slow_gain,
    with_one_driver,
)
from remasc.simulate.rooms import PRE, Emitter, omni, responses, room_of, transfer
from remasc.simulate.scenes import CONTENT_RATE
from remasc.simulate.speech import Folders, build_command
from remasc.simulate.talkers import fades, head_path, mouth

# where each array sits on the stand: (right, up, forward) metres
ON_STAND = {
    "D1": (0.0, 0.09, 0.0),
    "D2": (0.0, -0.09, 0.0),
    "D3": (-0.065, 0.0, 0.0),
    "D4": (0.065, 0.0, 0.0),
    "RANDOM": (0.0, 0.0, 0.0),
}
STEP = 160  # samples at 16 kHz; 441 at 44.1 kHz: lengths are multiples of it so that both grids fit
CUT = (7200.0, 7600.0)  # Hz: both chains end here


def microphones(scene: dict, arrays: tuple[str, ...]) -> np.ndarray:
    """Nominal positions (1 + M, 3) in the room: the reference at the stand, then the arrays' channels."""
    stand, forward = np.array(scene["stand"]), np.array(scene["forward"])
    frame = np.stack([[forward[1], -forward[0], 0.0], [0.0, 0.0, 1.0], forward])  # right, up, forward
    places = [np.zeros((1, 3)), *(array_of(scene, a).positions + ON_STAND[a] for a in arrays)]
    return stand + np.concatenate(places) @ frame


def recorded(
    x: np.ndarray, mask: np.ndarray, recorder: dict, rng: np.random.Generator, late_down_db: float = 0.0
) -> np.ndarray:
    """What the attacker holds of the utterance `x` (N,): recorded in another room by another device, its
    reverberation after 30 ms turned down by `late_down_db`, stored."""
    out = x
    if recorder["kind"] != 3:
        room = room_of(recorder["room"])
        emitter = Emitter(np.array(recorder["mouth"]), np.array(recorder["facing"]), mouth)
        capsule = np.array([recorder["capsule"]])
        taps = responses(room, [emitter], capsule, CONTENT_RATE, rng)[0, 0]
        delay = np.linalg.norm(capsule[0] - emitter.position) / room.speed_of_sound
        taps[PRE + round((delay + 0.03) * CONTENT_RATE) :] *= 10 ** (-late_down_db / 20)
        response = transfer(taps, len(x))
        f = np.linspace(0, CONTENT_RATE / 2, len(response))
        low, high = recorder["band"]
        # the file is cut where the utterance begins, so the way to the recorder leaves no delay
        heard = sfft.rfft(x) * response * np.exp(2j * np.pi * f * delay)
        heard = apply_magnitude(
            heard, CONTENT_RATE, lambda g: (g / np.hypot(g, low)) ** 2 / np.sqrt(1 + (g / high) ** 8)
        )
        out = sfft.irfft(heard, len(x))
        out = out.astype(np.float32) / rms(out[mask])
        hiss = noises.coloured(f, 1.5, 100.0) * sfft.rfft(noises.white(rng, 1, len(x))[0])
        hiss = sfft.irfft(hiss, len(x))
        out = out + hiss.astype(np.float32) / rms(hiss) * 10 ** (-recorder["noise_db"] / 20)
        if recorder["agc"]:
            out = slow_gain(out, CONTENT_RATE, recorder["agc"])
    if recorder["codec"] is not None:
        out = coded(out, CONTENT_RATE, **recorder["codec"])
    return (out / rms(out[mask])).astype(np.float32)


def played(
    x: np.ndarray, mask: np.ndarray, scene: dict, corpus_name: str, rng: np.random.Generator
) -> tuple[list[Emitter], np.ndarray]:
    """The playback device's drivers and what they radiate: emitters (S) and spectra (S, F)."""
    fields = scene["device"]
    device = make_device(corpus_name, fields["id"], fields["family"])
    if fields["one_driver"]:
        device = with_one_driver(device)
    drive = 10 ** (fields["drive_db"] / 20)
    if (error := scene["attack"]["equaliser_error_db"]) is not None:
        levelled = apply_magnitude(
            sfft.rfft(x), CONTENT_RATE, lambda g: inverse_magnitude(device, g, np.array(error))
        )
        x = sfft.irfft(levelled, len(x)).astype(np.float32)
        x /= rms(x[mask])
    y = distort(x * drive, device.odd, device.even)
    y /= rms(y[mask])
    f = np.linspace(0, CONTENT_RATE / 2, len(x) // 2 + 1)
    spectrum = sfft.rfft(y)
    if fields["hiss"]:
        spectrum += sfft.rfft(noises.white(rng, 1, len(x))[0]) * 10 ** (-device.hiss_db / 20)
        t = np.arange(len(x)) / CONTENT_RATE
        hum = sum(np.sin(2 * np.pi * device.hum_hz * h * t + h) / h for h in (1, 2, 3, 5, 7))
        spectrum += sfft.rfft(hum.astype(np.float32)) * 10 ** (-device.hum_db / 20)
    spectrum = apply_magnitude(spectrum, CONTENT_RATE, lambda g: magnitude(device, g))
    spectrum[f < 20] = 0
    cabin = np.array(scene["room"]["dims"]) if fields["built_in"] else None
    emitters = driver_emitters(device, np.array(scene["source"]), np.array(scene["facing"]), cabin)
    spectra = driver_spectra(device, spectrum, CONTENT_RATE)
    return emitters, spectra


def breath(rng: np.random.Generator, length: int, below_db: float) -> np.ndarray:
    """Spectrum (F,) of somebody breathing: soft noise that comes and goes, so much below speech of rms one."""
    swell = noises.slow_envelope(length, rng, 6.0, CONTENT_RATE)
    f = np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)
    air = sfft.irfft(noises.modulated(rng, 1, swell)[0] * noises.coloured(f, 4.0, 400.0) * (f > 150), length)
    return sfft.rfft(air * np.float32(10 ** (-below_db / 20) / rms(air)))


def _source(
    scene: dict, corpus_name: str, length: int, x: np.ndarray, mask: np.ndarray
) -> tuple[list[Emitter], np.ndarray]:
    """Emitters and their spectra (S, F) for the scene's chain; last the breath of a silent person who stands by."""
    emitters, spectra = _speaking(scene, corpus_name, length, x, mask)
    if not scene["directivity"]:
        emitters = [replace(emitter, directivity=omni) for emitter in emitters]
    if (person := scene["bystander"]) is not None:
        rng = scene_rng(corpus_name, scene["scene_id"], "bystander")
        emitters.append(Emitter(np.array(person["place"]), np.array(scene["facing"]), mouth))
        spectra = np.concatenate([spectra, breath(rng, length, person["breath_db"])[None]])
    return emitters, spectra


def _speaking(
    scene: dict, corpus_name: str, length: int, x: np.ndarray, mask: np.ndarray
) -> tuple[list[Emitter], np.ndarray]:
    """What the mouth, or each of the device's drivers, radiates."""
    if scene["chain"] == "mouth":
        emitters = head_path(
            np.array(scene["source"]), np.array(scene["facing"]), np.array(scene["sway"]), scene["turn"]
        )
        where = np.flatnonzero(mask)
        return emitters, sfft.rfft(x * fades(length, int(where[0]), int(where[-1]), len(emitters)))
    rng = scene_rng(corpus_name, scene["scene_id"], "chain")
    late_down_db = scene["attack"]["late_down_db"]
    held = recorded(x, mask, scene["recorder"], rng, late_down_db)
    return played(held, mask, scene, corpus_name, rng)


def _edges(f: np.ndarray) -> np.ndarray:
    """The common pass band (F,): capsules from 55 Hz (no DC), everything ends at 7.5 kHz."""
    low = (1j * f / (1j * f + 55.0)) ** 2
    ramp = np.clip((f - CUT[0]) / (CUT[1] - CUT[0]), 0, 1)
    return (low * np.cos(np.pi / 2 * ramp) ** 2).astype(np.complex64)


def mix(
    scene: dict, corpus_name: str, arrays: tuple[str, ...], folders: Folders
) -> tuple[np.ndarray, int, int]:
    """Spectra (R, F) of speech and background at the microphones, scaled to the file's level; the length they
    stand for and the length of the file, both in samples at 16 kHz."""
    room = room_of(scene["room"])
    nominal = microphones(scene, arrays)
    dry, active = build_command(
        folders.speech, scene["utterance"], CONTENT_RATE, scene["effort_db"], scene["colour_db"]
    )
    samples = round(scene["seconds"] * CONTENT_RATE)
    # room for the tails of this room and of a recorder's, so that no echo comes round to the beginning
    longest = int((0.9 * max(scene["room"]["rt60"]) + 0.45) * CONTENT_RATE)
    length = STEP * sfft.next_fast_len(-(-(samples + longest) // STEP))
    f = np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)
    moved, heard_by = tolerances(scene, corpus_name, arrays, f)
    places = nominal + moved
    start = round(scene["lead"] * CONTENT_RATE)
    x, mask = np.zeros(length, np.float32), np.zeros(length, bool)
    x[start : start + len(dry)], mask[start : start + len(dry)] = dry, active
    x /= rms(x[mask])
    emitters, spectra = _source(scene, corpus_name, length, x, mask)
    rng = scene_rng(corpus_name, scene["scene_id"], "tail")
    response = responses(room, emitters, places, CONTENT_RATE, rng, centre=nominal[0])
    speech = np.zeros((len(places), length // 2 + 1), np.complex64)
    for one, spectrum in zip(response, spectra, strict=True):
        speech += transfer(one, length) * spectrum.astype(np.complex64)
    heard = sfft.irfft(speech[0] * speech_band(f), length)
    late = np.roll(mask, round(scene["distance"] / room.speed_of_sound * CONTENT_RATE))
    power = rms(heard[late]) ** 2
    speech /= np.float32(np.sqrt(power))
    noise = background(scene, corpus_name, arrays, nominal, room, folders, length)
    total = (speech + noise * np.float32(10 ** (-scene["noise"]["snr_db"] / 20))) * _edges(f)
    level = rms(sfft.irfft(total[0], length)[:samples])
    total *= heard_by * np.float32(10 ** (scene["level_dbfs"] / 20) / level)
    return total, length, samples


def render_scene(
    scene: dict, corpus_name: str, arrays: tuple[str, ...], folders: Folders
) -> dict[str, tuple[np.ndarray, int, str]]:
    """{"D1": (waveform (M, T) float32, sample rate, subtype), ...} of one scene.

    An array's sound does not depend on which other arrays are asked for (but for the last bit of the sums).
    """
    total, length, samples = mix(scene, corpus_name, arrays, folders)
    out = {}
    first = 1
    for name in arrays:
        array = array_of(scene, name)
        spectra = total[first : first + array.num_mics]
        first += array.num_mics
        fine = length // STEP * (array.sample_rate // 100)
        waveform = sfft.irfft(spectra, fine)[:, : round(samples * array.sample_rate / CONTENT_RATE)]
        waveform *= fine / length
        rng = scene_rng(corpus_name, scene["scene_id"], "self-noise", name)
        waveform += noises.white(rng, *waveform.shape) * np.float32(10 ** (scene["noise"]["self_dbfs"] / 20))
        waveform *= np.float32(0.97 / max(0.97, float(np.abs(waveform).max())))  # turned down before it clips
        out[name] = (waveform, array.sample_rate, SUBTYPES[name])
    return out
