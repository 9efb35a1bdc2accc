"""Sound in a room: image sources for the early part, random plane waves for the matched diffuse tail.

A response is a list of waves, each with an arrival time at every microphone and a gain in seven octave
bands (walls, air and directivity depend on frequency). pyroomacoustics' builder turns the list into taps
with fractional delays. Coordinates in metres, z up. A source radiates 1 / distance on its axis.
Shapes: B bands, I images, K late waves, M microphones, S emitters, L taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft as sfft

from remasc.simulate.walls import AIR, BANDS, image_decay, splice_path

TAPS = 41  # of one fractional delay
PRE = 32  # samples before time zero, so that the interpolator of the first wave fits
# Images are all of one sign and pile up below the pitch of speech: cut off at once they would end with a thump.
BLEND = 0.005  # seconds over which tail replaces images


@dataclass(frozen=True)
class Room:
    """A shoebox, or the open air (`kind` "outdoor": ground at z = 0, far reflectors as a faint tail).

    `absorption` (6, B): energy absorbed by the walls x=0, x=X, y=0, y=Y, z=0, z=Z.
    `rt60` (B,) seconds; `tail_db`: outdoors, energy of the far reflectors relative to 1 / (1 m)^2.
    """

    room_id: str
    kind: str
    dims: tuple[float, float, float]
    absorption: tuple[tuple[float, ...], ...]
    rt60: tuple[float, ...]
    temperature: float
    tail_db: float = 0.0

    @property
    def speed_of_sound(self) -> float:
        return 331.3 + 0.606 * self.temperature

    @property
    def volume(self) -> float:
        return float(np.prod(self.dims))


def room_of(fields: dict) -> Room:
    """The room that a scene describes."""
    return Room(
        fields["id"],
        fields["kind"],
        tuple(fields["dims"]),
        tuple(tuple(w) for w in fields["absorption"]),
        tuple(fields["rt60"]),
        fields["temperature"],
        fields["tail_db"],
    )


@dataclass(frozen=True)
class Emitter:
    """Where a sound leaves: position (3,), unit vector it faces (3,), and gain (B, N) for cosines (N,)."""

    position: np.ndarray
    facing: np.ndarray
    directivity: Callable[[np.ndarray], np.ndarray]


def omni(cosines: np.ndarray) -> np.ndarray:
    """The directivity of a point source: 1 everywhere."""
    return np.ones((len(BANDS), len(cosines)))


def images(
    room: Room, source: np.ndarray, listener: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image sources within `reach` metres of the listener: positions (I, 3), wall gains (B, I), mirrors (I, 3) of
    +-1. How far an image is from the listener is how long the sound's path was.

    The closed form of Allen and Berkley for a shoebox; outdoors the source and its image in the ground.
    """
    reflect = np.sqrt(1 - np.asarray(room.absorption))
    if room.kind == "outdoor":
        mirror = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, -1.0]])
        gains = np.stack([np.ones(len(BANDS)), reflect[4]], axis=1)
        return source * mirror, gains, mirror
    per_axis = []
    for axis, length in enumerate(room.dims):
        far = int(np.ceil(reach / (2 * length))) + 1
        # both lie in the room, so no image within reach has a larger number
        n = np.repeat(np.arange(-far, far + 1), 2)
        q = np.tile([0, 1], 2 * far + 1)
        where = 2 * n * length + (1 - 2 * q) * source[axis]
        low, high = np.abs(n - q), np.abs(n)
        keep = np.abs(where - listener[axis]) <= reach
        log_gain = low * np.log(reflect[2 * axis])[:, None] + high * np.log(reflect[2 * axis + 1])[:, None]
        per_axis.append((where[keep], (1 - 2 * q)[keep], log_gain[:, keep]))
    (x, mx, gx), (y, my, gy), (z, mz, gz) = per_axis
    away = [(at - of) ** 2 for at, of in zip((x, y, z), listener, strict=True)]
    i, j, k = np.nonzero(away[0][:, None, None] + away[1][:, None] + away[2] <= reach**2)
    positions = np.stack([x[i], y[j], z[k]], axis=1)
    mirrors = np.stack([mx[i], my[j], mz[k]], axis=1).astype(float)
    return positions, np.exp(gx[:, i] + gy[:, j] + gz[:, k]), mirrors


def _sphere(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unit vectors (count, 3), uniform on the sphere."""
    v = rng.standard_normal((count, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def blend(times: np.ndarray, mix: float) -> np.ndarray:
    """How far tail has replaced images at `times`: 0 before the blend around `mix`, 1 after it."""
    return np.clip((times - mix) / BLEND + 0.5, 0, 1)


@dataclass(frozen=True)
class Tail:
    """Late waves: times (K,) at the reference points, where they come from and leave to (K, 3), gains (B, K)."""

    times: np.ndarray
    come_from: np.ndarray
    leave_to: np.ndarray
    gains: np.ndarray


def draw_tail(room: Room, rng: np.random.Generator, mix: float, count: int) -> Tail:
    """Random plane waves that replace the images around `mix` seconds and decay as the room's RT60 says.

    Images of a source in a room of volume V arrive with the energy density 4 pi c / V per second times the
    decay; K waves at density rho(t) carry that density divided by rho(t) each.
    """
    rt60, start = np.asarray(room.rt60), mix - BLEND / 2
    end = start + 0.9 * float(rt60.max())
    rate = 6.9 / float(rt60.max())  # more waves where there is more energy to carry
    total = 1 - np.exp(-rate * (end - start))
    # stratified, so that no hole opens in the tail
    u = (np.arange(count) + rng.random(count)) / count
    times = start - np.log1p(-u * total) / rate
    density = count * rate * np.exp(-rate * (times - start)) / total
    if room.kind == "outdoor":
        energy = 10 ** (room.tail_db / 10) * 13.8 / rt60
    else:
        left = image_decay(room.dims, room.absorption, mix * room.speed_of_sound)
        energy = 4 * np.pi * room.speed_of_sound / room.volume * left
    decay = np.exp(-13.8 * (times - mix) / rt60[:, None])
    gains = np.sqrt(energy[:, None] * decay / density) * rng.choice([-1.0, 1.0], count)
    gains *= np.sin(np.pi / 2 * blend(times, mix))
    return Tail(times, _sphere(rng, count), _sphere(rng, count), gains)


@lru_cache(maxsize=8)
def band_weights(length: int, rate: int) -> np.ndarray:
    """Weights (B, length // 2 + 1) that sum to one: hats over log frequency around the octave centres."""
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / rate), 1.0) / BANDS[0])
    octave = np.clip(octave, 0, len(BANDS) - 1)
    hats = np.clip(1 - np.abs(octave - np.arange(len(BANDS))[:, None]), 0, 1)
    weights = (np.sin(np.pi / 2 * hats) ** 2).astype(np.float32)
    weights.setflags(write=False)
    return weights


def _waves(
    room: Room,
    emitter: Emitter,
    tail: Tail,
    mics: np.ndarray,
    centres: tuple[np.ndarray, np.ndarray],
    mix: float,
) -> tuple[np.ndarray, np.ndarray]:
    """All waves from one emitter: times (M, I + K) in seconds and gains (B, M, I + K)."""
    c = room.speed_of_sound
    source_centre, mic_centre = centres
    positions, wall, mirrors = images(room, emitter.position, mic_centre, (mix + BLEND / 2) * c)
    ray = mics[:, None, :] - positions
    distance = np.linalg.norm(ray, axis=-1)
    # an image's directivity is that of the real source towards the mirrored ray, the same for all microphones
    towards = (mic_centre - positions) * mirrors
    far = np.linalg.norm(towards, axis=1)
    towards /= far[:, None]
    early = wall * emitter.directivity(towards @ emitter.facing)
    if room.kind != "outdoor":  # the ground's image has no successor in the tail
        early *= np.cos(np.pi / 2 * blend(far / c, mix))
    air = np.exp(-AIR[:, None] / 2 * far)
    early = (early * air)[:, None, :] / distance
    late_times = (
        tail.times
        - (mics - mic_centre) @ tail.come_from.T / c
        - (tail.leave_to @ (emitter.position - source_centre)) / c
    )
    late = tail.gains * emitter.directivity(tail.leave_to @ emitter.facing)
    late = np.broadcast_to(late[:, None, :], (len(BANDS), len(mics), late.shape[1]))
    return np.concatenate([distance / c, late_times], axis=1), np.concatenate([early, late], axis=2)


def mixing_time(room: Room, source: np.ndarray, mic_centre: np.ndarray) -> float:
    """Seconds after which the images give way to the diffuse tail: where their number stops mattering."""
    c = room.speed_of_sound
    direct = float(np.linalg.norm(source - mic_centre)) / c
    if room.kind == "outdoor":
        return direct + 0.015
    return splice_path(room.volume, room.rt60, direct * c) / c


def tail_count(room: Room) -> int:
    """How many late waves: enough for a dense tail, fewer in a short one."""
    return 400 if room.kind == "outdoor" else int(np.clip(2600 * max(room.rt60), 350, 1500))


def responses(
    room: Room,
    emitters: list[Emitter],
    mics: np.ndarray,
    rate: int,
    rng: np.random.Generator,
    centre: np.ndarray | None = None,
) -> np.ndarray:
    """Impulse responses (S, M, L) float32 at `rate`, time zero at sample PRE.

    `centre` (3,), the middle of `mics` by default, is where the tail is drawn for and what images face: with one
    centre a microphone hears the same whatever others are asked for.

    All emitters share one tail, shifted by their places: two drivers of one device excite the same
    reverberation, coherent at low and incoherent at high frequencies, as two real ones do.
    """
    from pyroomacoustics import libroom

    mic_centre = mics.mean(axis=0) if centre is None else centre
    source_centre = np.mean([e.position for e in emitters], axis=0)
    farthest = max(float(np.linalg.norm(e.position - mic_centre)) for e in emitters) / room.speed_of_sound
    mix = max(
        mixing_time(room, source_centre, mic_centre), farthest + 0.004
    )  # no driver loses its direct path
    tail = draw_tail(room, rng, mix, tail_count(room))
    spread = max(float(np.linalg.norm(e.position - source_centre)) for e in emitters) / room.speed_of_sound
    length = sfft.next_fast_len(int((tail.times.max() + spread + 0.004) * rate) + PRE + TAPS)
    weights = band_weights(length, rate)
    out = np.empty((len(emitters), len(mics), length), np.float32)
    bands = np.zeros((len(BANDS), length), np.float32)
    for s, emitter in enumerate(emitters):
        times, gains = _waves(room, emitter, tail, mics, (source_centre, mic_centre), mix)
        times = (np.maximum(times, 0) + PRE / rate).astype(np.float32)
        gains = gains.astype(np.float32)
        for m in range(len(mics)):
            bands[:] = 0
            for b in range(len(BANDS)):
                libroom.rir_builder(bands[b], times[m], gains[b, m], rate, TAPS, 20, 1)
            out[s, m] = sfft.irfft((sfft.rfft(bands) * weights).sum(axis=0), length)
    return out


def transfer(response: np.ndarray, length: int) -> np.ndarray:
    """Spectra (..., length // 2 + 1) of responses (..., L) with their time zero moved to sample 0 (circular)."""
    padded = np.zeros((*response.shape[:-1], length), np.float32)
    keep = min(response.shape[-1] - PRE, length - PRE)
    padded[..., :keep] = response[..., PRE : PRE + keep]
    padded[..., -PRE:] = response[..., :PRE]
    return sfft.rfft(padded)
