"""The only file that opens sound files.

Shapes: M microphones, T samples; a waveform is (M, T) float32 in [-1, 1], also with one microphone.
Everything decodes through libsndfile (soundfile). A file is refused, with one sentence, when it is truncated,
empty, not finite, or says something absurd about itself; nothing is allocated on a header's word alone.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf

from remasc import flac, ogg, riff
from remasc.atomic import whole_file
from remasc.resampling import resample
from remasc.sentences import quoted

SUFFIXES = frozenset({".wav", ".flac", ".ogg"})  # what a folder of recordings is searched for
MAX_CHANNELS = 64
MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_SAMPLES = 2**28  # frames x channels of one read: 1 GiB as float32, 14 minutes of 7 channels at 44.1 kHz
MAX_PEAK = 8.0  # float files may overshoot a little; 18 dB over full scale is another unit
_BLOCK = 1 << 16


def sound_files_below(folder: Path) -> list[Path]:
    """Sound files in the folder and in those inside of it, sorted; no hidden ones (half written, `._` of macOS)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file's header says, after the checks that `read_audio` makes on it."""

    sample_rate: int
    channels: int
    frames: int
    container: str  # "WAV", "FLAC", "OGG", ...
    subtype: str  # soundfile's word: "PCM_16", "FLOAT", ...

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def audio_info(path: str | Path) -> AudioInfo:
    """Rate, channels, length and coding, without decoding. Raises ValueError as `read_audio` does."""
    with _open(path) as file:
        header = _header(path, file)
        if isinstance(header, riff.WavFormat):
            return _checked_wav(path, header)
        with _decoder(path, file) as sound:
            return _checked(path, sound)


def read_audio(path: str | Path, *, seconds: float | None = None) -> tuple[np.ndarray, int]:
    """A sound file as (waveform (M, T) float32 in [-1, 1], sample rate in Hz).

    `seconds` keeps the first so many (the whole file where it is shorter). Float samples beyond full scale
    are limited to it, as a converter would. Raises ValueError where the file cannot be trusted.
    """
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"cannot read the first {seconds} seconds; give a positive number or leave it out")
    with _open(path) as file:
        header = _header(path, file)
        if isinstance(header, riff.WavFormat):
            samples, rate = _read_wav(path, file, header, seconds)
        else:
            samples, rate = _read_other(path, file, seconds)
            if header is not None and not header.proves(samples):
                raise ValueError(f"{path}: its sound is not what its checksum says; copy or save it again")
    return _sane(path, samples), rate


def load_clip(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    seconds: float | None = None,
    channels: Sequence[int] | None = None,
) -> np.ndarray:
    """The first `seconds` of some channels (from 0, repeats allowed) at `sample_rate`: (M, T) float32.

    T is the real length, at most round(seconds sample_rate). A cut clip equals the whole file resampled and
    then cut: a little more is read, so that the filter meets the true samples at the edge.
    """
    check_clip(sample_rate=sample_rate, seconds=seconds, channels=channels)
    margin = 0.02 if sample_rate is None else 0.02 + 40 / sample_rate
    waveform, rate = read_audio(path, seconds=None if seconds is None else seconds + margin)
    if channels is not None:
        if max(channels) >= len(waveform):
            raise ValueError(
                f"{path}: channel {max(channels) + 1} is wanted, the file has {len(waveform)}; "
                "name channels that every file of the array has"
            )
        waveform = waveform[list(channels)]
    wanted = rate if sample_rate is None else int(sample_rate)
    waveform = resample(waveform, rate, wanted)
    return waveform if seconds is None else waveform[:, : max(1, round(seconds * wanted))]


def check_clip(
    *, sample_rate: int | None = None, seconds: float | None = None, channels: Sequence[int] | None = None
) -> None:
    """ValueError unless these can be asked of `load_clip`: before a file is opened, or a cache begun."""
    if seconds is not None and not (_is_number(seconds) and 0 < seconds < math.inf):
        raise ValueError(f"seconds is {quoted(seconds)}; expected a positive number, or leave it out for all")
    if sample_rate is not None and not (
        _is_number(sample_rate) and MIN_RATE <= sample_rate <= MAX_RATE and sample_rate == int(sample_rate)
    ):
        raise ValueError(
            f"sample_rate is {quoted(sample_rate)}; expected {MIN_RATE} to {MAX_RATE} Hz, or leave it out for "
            "the file's own"
        )
    if channels is not None and not (
        len(channels) > 0 and all(isinstance(c, Integral) and 0 <= c < MAX_CHANNELS for c in channels)
    ):
        raise ValueError(
            f"channels are {quoted(channels)}; expected at least one number from 0 to {MAX_CHANNELS - 1}, or "
            "leave them out for all"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def write_wav(path: str | Path, waveform: np.ndarray, sample_rate: int, subtype: str = "PCM_16") -> None:
    """Write a waveform (M, T) in [-1, 1] whole or not at all; `subtype` is soundfile's word.

    PCM rounds to the nearest step and saturates, so a file read with `read_audio` and written back in its own
    subtype is the same file.
    """
    waveform = np.atleast_2d(np.asarray(waveform))
    if waveform.ndim != 2 or not 1 <= len(waveform) <= MAX_CHANNELS:
        raise ValueError(f"{path}: cannot write shape {waveform.shape}; expected (microphones, samples)")
    if not np.isfinite(waveform).all():
        raise ValueError(f"{path}: cannot write samples that are NaN or infinite")
    with whole_file(path) as temporary:
        sf.write(temporary, _quantised(waveform, subtype).T, int(sample_rate), subtype=subtype, format="WAV")


def _open(path: str | Path) -> BinaryIO:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
        raise ValueError(f"{path}: not a file; expected a WAV, FLAC or OGG file")
    return open(path, "rb")


def _header(path: str | Path, file: BinaryIO) -> riff.WavFormat | flac.FlacHeader | None:
    """By the file's content, whatever its name; None for OGG, whose pages are proved here."""
    head = file.read(12)
    try:
        if riff.is_wav(head):
            return riff.inspect(file)
        if head[:4] == b"fLaC":
            return flac.inspect(file)
        if head[:4] == b"OggS":
            ogg.prove(file)
            return None
    except ValueError as error:
        raise ValueError(f"{path}: not a readable sound file: {error}; copy or save it again") from None
    finally:
        file.seek(0)
    raise ValueError(f"{path}: not a sound file that is read here; expected WAV, FLAC or OGG")


def _checked_wav(path: str | Path, wav: riff.WavFormat) -> AudioInfo:
    info = AudioInfo(wav.sample_rate, wav.channels, wav.frames, "WAV", wav.subtype)
    return _plausible(path, info)


def _checked(path: str | Path, sound: sf.SoundFile) -> AudioInfo:
    return _plausible(
        path, AudioInfo(sound.samplerate, sound.channels, sound.frames, sound.format, sound.subtype)
    )


def _plausible(path: str | Path, info: AudioInfo) -> AudioInfo:
    if info.frames <= 0:
        raise ValueError(f"{path}: holds no samples; expected a recording")
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise ValueError(f"{path}: says it has {info.channels} channels; expected 1 to {MAX_CHANNELS}")
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise ValueError(
            f"{path}: says its sample rate is {info.sample_rate} Hz; expected {MIN_RATE} to {MAX_RATE}"
        )
    return info


def _wanted(path: str | Path, info: AudioInfo, seconds: float | None) -> int:
    """The frames to read, checked against memory before anything is allocated."""
    frames = info.frames if seconds is None else min(info.frames, math.ceil(seconds * info.sample_rate))
    if frames * info.channels > MAX_SAMPLES:
        raise ValueError(
            f"{path}: {frames} frames of {info.channels} channels are too long for one piece "
            f"(limit {MAX_SAMPLES} samples); cut the recording into commands"
        )
    return frames


def _read_wav(
    path: str | Path, file: BinaryIO, wav: riff.WavFormat, seconds: float | None
) -> tuple[np.ndarray, int]:
    frames = _wanted(path, _checked_wav(path, wav), seconds)
    file.seek(wav.start)
    data = file.read(frames * wav.bytes_per_frame)
    mended = io.BytesIO(wav.header(frames) + data)
    with _decoder(path, mended) as sound:
        return _decode(path, sound, frames), wav.sample_rate


def _read_other(path: str | Path, file: BinaryIO, seconds: float | None) -> tuple[np.ndarray, int]:
    with _decoder(path, file) as sound:
        info = _checked(path, sound)
        return _decode(path, sound, _wanted(path, info, seconds)), info.sample_rate


def _decoder(path: str | Path, file: BinaryIO) -> sf.SoundFile:
    try:
        return sf.SoundFile(_Nameless(file) if hasattr(file, "name") else file)
    except (sf.LibsndfileError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable sound file ({_reason(error)}); expected WAV, FLAC or OGG"
        ) from None


class _Nameless:
    """A file without its name: soundfile would otherwise take `.raw` or `.pcm` as the format's word.

    Damaged files make libsndfile seek to before the beginning; what a file object raises there, soundfile can
    only print. So such a seek stays where it is, which libsndfile takes for the failure it is.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read, self.readinto, self.tell = file.read, file.readinto, file.tell
        self._end = os.fstat(file.fileno()).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + (0, self._file.tell(), self._end)[whence]
        return self._file.seek(target) if 0 <= target < 2**62 else self._file.tell()


def _decode(path: str | Path, sound: sf.SoundFile, frames: int) -> np.ndarray:
    """(T, M) float32, block by block: a compressed file's promised length is believed only as it comes."""
    blocks, done = [], 0
    try:
        while done < frames:
            block = sound.read(min(_BLOCK, frames - done), dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(block)
            done += len(block)
    except (sf.LibsndfileError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged after {done} frames ({_reason(error)}); copy or save it again"
        ) from None
    if done < frames:
        raise ValueError(f"{path}: ends after {done} of {sound.frames} frames; copy or save it again")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _reason(error: Exception) -> str:
    return str(error).rstrip(". ").split(": ")[-1]


def _sane(path: str | Path, samples: np.ndarray) -> np.ndarray:
    """(T, M) as decoded -> (M, T) in [-1, 1]; max and min propagate NaN, so one pass finds all."""
    waveform = np.ascontiguousarray(samples.T)
    peak = max(waveform.max(), -waveform.min())
    if not np.isfinite(peak):
        raise ValueError(f"{path}: holds samples that are NaN or infinite; save it again")
    if peak > MAX_PEAK:
        raise ValueError(f"{path}: samples reach {peak:.4g}; expected -1 to 1, so divide by full scale first")
    return np.clip(waveform, -1.0, 1.0, out=waveform) if peak > 1 else waveform


def _quantised(waveform: np.ndarray, subtype: str) -> np.ndarray:
    """Rounded here, because how libsndfile rounds floats depends on its build."""
    bits = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32}.get(subtype)
    if bits is None:
        return np.asarray(waveform, np.float64 if subtype == "DOUBLE" else np.float32)
    full = 2.0 ** (bits - 1)
    steps = np.clip(np.rint(np.asarray(waveform, np.float64) * full), -full, full - 1)
    if bits == 16:
        return steps.astype(np.int16)
    return steps.astype(np.int64).astype(np.int32) << (32 - bits)
