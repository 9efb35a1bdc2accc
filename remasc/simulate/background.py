"""What is heard beside the talker or the playback device: the same law for both classes.

A diffuse bed (traffic, rooms, chatter, cabin), at most one point of noise (a real clip, music, a television,
a fan), wind on the capsules, an engine. Shapes: R channels, F frequencies, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import fft as sfft

from remasc.identity import scene_rng
from remasc.simulate import noise as noises
from remasc.simulate.geometries import array_of
from remasc.simulate.noise import band_power, band_share, rms
from remasc.simulate.rooms import Emitter, Room, omni, responses, transfer
from remasc.simulate.scenes import CONTENT_RATE
from remasc.simulate.speech import Folders, build_command, checked_clip, first_channel, load_mono

LEAST_SHARE = 0.01  # of a noise clip's power, between 200 and 7000 Hz


def check_noise(path: Path) -> None:
    """ValueError unless the noise clip can be read from end to end and be set beside speech by a ratio (SNR), which
    counts 200 to 7000 Hz alone: the rest of it comes along, however loud."""
    checked_clip(path)
    share = band_share(*first_channel(path))
    if np.isnan(share):
        raise ValueError(f"{path}: is silent; take it out of the noise folder")
    if share < LEAST_SHARE:
        raise ValueError(
            f"{path}: {share:.2%} of its power lies between 200 and 7000 Hz, all that the signal-to-noise ratio "
            f"counts; expected {LEAST_SHARE:.0%} or more, for the rest would drown the speech: filter it, or take "
            "it out"
        )


def _music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Something like music (N,): chords of decaying harmonics on a beat."""
    out = np.zeros(length)
    beat = int(CONTENT_RATE * rng.uniform(0.2, 0.45))
    t = np.arange(2 * beat) / CONTENT_RATE
    base = rng.uniform(90, 220)
    for start in range(0, length - len(t), beat):
        for step in rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16, 19], 3):
            f = base * 2 ** (step / 12)
            decay = np.exp(-t * rng.uniform(2, 8))
            tone = sum(np.sin(2 * np.pi * f * h * t) / h**1.2 for h in range(1, 9) if f * h < 7000)
            out[start : start + len(t)] += tone * decay
        hit = rng.standard_normal(600) * np.exp(-np.arange(600) / 120)
        out[start : start + 600] += 2 * rng.random() * hit
    return out.astype(np.float32)


def _point_signal(
    noise: dict, lounge: bool, length: int, rng: np.random.Generator, folders: Folders
) -> np.ndarray:
    """What the point of noise plays (N,)."""
    if noise["clip"] is not None:
        clip = load_mono(str(folders.noise / noise["clip"]), CONTENT_RATE)
        pieces = [noises.tile_clip(clip, length, int(o)) for o in rng.integers(len(clip), size=4)]
        return max(pieces, key=rms)  # a clip may be silent for seconds
    if noise.get("television"):
        voice, _ = build_command(folders.speech, noise["television"], CONTENT_RATE)
        return noises.tile_clip(voice, length, int(rng.integers(len(voice))))
    if lounge:
        return _music(length, rng)
    f = np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)
    swell = noises.slow_envelope(length, rng, 1.0, CONTENT_RATE)
    spectrum = noises.modulated(rng, 1, swell)[0] * noises.coloured(f, noise["slope_db"], 150.0)
    return sfft.irfft(spectrum, length).astype(np.float32)


@dataclass(frozen=True)
class Bed:
    """One kind of noise that fills the place: its swell (N,), its colour (F,), its amount, and whether each
    microphone hears it on its own (wind) or as a diffuse field.

    `amount` is the rms at the reference, in the speech band alone where `in_band`.
    """

    swell: np.ndarray
    colour: np.ndarray
    amount: float
    diffuse: bool = True
    in_band: bool = True


def _beds(scene: dict, length: int, rng: np.random.Generator) -> list[Bed]:
    """What fills the place of a scene, its speech-band power one before points, wind and engine come to it."""
    noise, f = scene["noise"], np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)

    def swell(depth_db: float, knots_per_second: float) -> np.ndarray:
        return noises.slow_envelope(length, rng, depth_db, int(CONTENT_RATE / knots_per_second))

    slope = 6.0 if scene["environment"] == 4 else noise["slope_db"]
    bed, chatter = 1 - noise["point_share"], noise["babble_share"]
    beds = [Bed(swell(1.0, 2), noises.coloured(f, slope), np.sqrt(bed * (1 - chatter)))]
    if chatter:
        beds.append(Bed(swell(3.0, 5), noises.babble_shape(f), np.sqrt(bed * chatter)))
    if noise["wind_share"]:  # gusts together, pressure on each capsule alone, mostly below 300 Hz
        gusts = noises.coloured(f, 9.0, 40.0)
        beds.append(Bed(swell(5.0, 3), gusts, 2 * noise["wind_share"], diffuse=False, in_band=False))
    if noise["speed"]:
        beds.append(Bed(swell(2.0, 3), noises.coloured(f, 8.0, 60.0), 1.5 * noise["speed"], in_band=False))
    return beds


def background(
    scene: dict,
    corpus_name: str,
    arrays: tuple[str, ...],
    mics: np.ndarray,
    room: Room,
    folders: Folders,
    length: int,
) -> np.ndarray:
    """The background's spectra (R, F), of power one in the speech band at the reference, `mics[0]`.

    Each array has its own random streams, so that it hears the same whatever other arrays stand beside it:
    a diffuse field is coherent within an array, and drawn anew for the next one.
    """
    noise, name = scene["noise"], (corpus_name, scene["scene_id"], "noise")
    rng = scene_rng(*name)
    f = np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)
    groups = {"stand": np.zeros((1, 3))} | {array: array_of(scene, array).positions for array in arrays}
    out = np.zeros((len(mics), len(f)), np.complex64)
    for number, bed in enumerate(_beds(scene, length, rng)):
        first, scale = 0, 0.0
        for group, positions in groups.items():
            own = scene_rng(*name, group, str(number))
            streams = noises.modulated(own, len(positions), bed.swell) * bed.colour
            if bed.diffuse:
                # nominal places: half a millimetre does not change the field, and one matrix serves every scene
                streams = noises.diffuse(positions, streams, CONTENT_RATE)
            if not first:
                power = (
                    band_power(streams[0], f, length)
                    if bed.in_band
                    else rms(sfft.irfft(streams[0], length)) ** 2
                )
                scale = bed.amount / np.sqrt(power)
            out[first : first + len(positions)] += streams * np.float32(scale)
            first += len(positions)
    if noise["point_share"]:
        emitter = Emitter(np.array(noise["point"]), np.array([1.0, 0.0, 0.0]), omni)
        response = responses(room, [emitter], mics, CONTENT_RATE, rng, centre=mics[0])[0]
        point = transfer(response, length) * sfft.rfft(
            _point_signal(noise, scene["environment"] == 3, length, rng, folders)
        )
        out += point * np.sqrt(noise["point_share"] / band_power(point[0], f, length))
    if scene["environment"] == 4:
        engine = noises.engine_orders(length, CONTENT_RATE, rng, noise["rpm"])
        # its waves are far longer than the arrays
        out += sfft.rfft(engine) * (1.2 / rms(engine))
    return out / np.sqrt(band_power(out[0], f, length))
