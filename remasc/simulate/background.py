"""What is heard beside the talker or the playback device: the same law for both classes.

A diffuse bed (traffic, rooms, chatter, cabin), at most one point of noise (a real clip, music, a television,
a fan), wind on the capsules, an engine. Shapes: R channels, F frequencies, N samples.
"""

from __future__ import annotations

import numpy as np
from scipy import fft as sfft

from remasc.simulate import noise as noises
from remasc.simulate.identity import scene_rng
from remasc.simulate.noise import band_power, rms
from remasc.simulate.rooms import Emitter, Room, omni, responses, transfer
from remasc.simulate.scenes import CONTENT_RATE
from remasc.simulate.speech import Folders, build_command, load_mono


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
    spectrum = noises.modulated(rng, 1, length, 1.0, CONTENT_RATE)[0] * noises.coloured(
        f, noise["slope_db"], 150.0
    )
    return sfft.irfft(spectrum, length).astype(np.float32)


def background(
    scene: dict, corpus_name: str, mics: np.ndarray, length: int, room: Room, folders: Folders
) -> np.ndarray:
    """The background's spectra (R, F), of power one in the speech band at the reference."""
    noise, rng = scene["noise"], scene_rng(corpus_name, scene["scene_id"], "noise")
    f = np.linspace(0, CONTENT_RATE / 2, length // 2 + 1)
    count = len(mics)
    streams = noises.modulated(rng, count, length, 1.0, CONTENT_RATE // 2)
    streams *= noises.coloured(f, 6.0 if scene["environment"] == 4 else noise["slope_db"])
    if noise["babble_share"]:
        streams /= np.sqrt(band_power(streams[0], f, length))
        chatter = noises.modulated(rng, count, length, 3.0, CONTENT_RATE // 5) * noises.babble_shape(f)
        share = noise["babble_share"]
        chatter *= np.sqrt(share / band_power(chatter[0], f, length))
        streams = streams * np.sqrt(1 - share) + chatter
    # nominal places: half a millimetre does not change a diffuse field, and one matrix serves every scene
    out = noises.diffuse(mics, streams, CONTENT_RATE)
    out *= np.sqrt((1 - noise["point_share"]) / band_power(out[0], f, length))
    if noise["point_share"]:
        emitter = Emitter(np.array(noise["point"]), np.array([1.0, 0.0, 0.0]), omni)
        response = responses(room, [emitter], mics, CONTENT_RATE, rng)[0]
        point = transfer(response, length) * sfft.rfft(
            _point_signal(noise, scene["environment"] == 3, length, rng, folders)
        )
        out += point * np.sqrt(noise["point_share"] / band_power(point[0], f, length))
    if noise["wind_share"]:
        gusts = noises.wind(rng, count, length, CONTENT_RATE)
        out += gusts * (2 * noise["wind_share"] / rms(sfft.irfft(gusts[0], length)))
    if scene["environment"] == 4:
        engine = sfft.rfft(noises.engine_orders(length, CONTENT_RATE, rng, noise["rpm"]))
        out += engine * (1.2 / rms(sfft.irfft(engine, length)))  # far below the arrays' size in wavelengths
        if noise["speed"]:
            gusts = noises.modulated(rng, count, length, 2.0, CONTENT_RATE // 3) * noises.coloured(
                f, 8.0, 60.0
            )
            out += noises.diffuse(mics, gusts, CONTENT_RATE) * (
                1.5 * noise["speed"] / rms(sfft.irfft(gusts[0], length))
            )
    return out / np.sqrt(band_power(out[0], f, length))
