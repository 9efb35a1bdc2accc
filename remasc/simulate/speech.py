"""Where the words come from: folders of clean speech and of noise, their speakers, and commands made of them.

A command is one clip, cut at pauses where it is long, or two to four one-word clips of one speaker joined.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import textwrap
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from scipy import fft as sfft
from scipy import signal

from remasc.audio import AudioInfo, audio_info, read_audio, resample, sound_files_below
from remasc.protocol import PARTITIONS
from remasc.sentences import counted, is_name, quoted, reason

RUMBLE_HZ = 75.0  # the lowest voices begin above it
WORD_SECONDS = 1.35  # a labelled clip no longer than this is a single word
LOWEST_RATE = 16_000  # Hz, of speech: both chains reach 7.5 kHz, and so must the talker
MOST_SAMPLES = 24_000_000  # frames x channels of a clip, which is read whole: up to 24 bytes for each
KEPT_BYTES = 64_000_000  # of clips that may be wanted again, in each process
_ENDS = 1 << 16  # bytes: how much of a file's beginning and of its end is looked at to know it again
_LICENCES = re.compile(r"\bCC0\b|\bCC[ -]BY\b|Apache-2|\bMIT\b|\bBSD\b|GPL|[Pp]ublic domain|PUBLIC DOMAIN")


@dataclass(frozen=True)
class Clip:
    """One speech file; `group` is the speaker where known, otherwise the set that must stay in one partition."""

    path: str  # below the speech folder, with forward slashes: a corpus does not depend on where that lies
    group: str
    labelled: bool
    partition: str | None = None  # where the set itself says it


def speaker_of(group: str) -> str:
    """The speaker's own label, without the set that it was found in."""
    return group.partition(":")[2] or group


@dataclass(frozen=True)
class Folders:
    """Where this machine keeps what the scenes name: clean speech, and background clips (None without any)."""

    speech: Path
    noise: Path | None = None


def audio_files(folder: Path) -> list[Path]:
    """All sound files below a folder, sorted; ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder; expected a folder of wav, flac or ogg files")
    found = sorted(sound_files_below(folder), key=lambda p: p.relative_to(folder).as_posix())
    if not found:
        raise ValueError(f"{folder}: no wav, flac or ogg file in it; give a folder of clean speech or noise")
    return found


def scan_speech(folder: Path) -> list[Clip]:
    """The clips of a folder. Each metadata.csv with columns file and speaker labels the files beside it (and says
    their partition, where it has such a column); in such a set a file without a label is left out, for it may be
    anybody's. The others are grouped by the folder directly below their set."""
    files = audio_files(folder)
    labels: dict[Path, str] = {}
    homes: dict[str, str] = {}
    sets: list[Path] = []
    there = set(files)
    for table in sorted(folder.rglob("metadata.csv")):
        if (told := _speakers(table)) is not None:
            sets.append(table.parent)
            speakers, partitions = told
            if speakers and not any(table.parent / file in there for file in speakers):
                raise ValueError(
                    f"{table}: names {counted(len(speakers), 'file')} and none is there (the first: "
                    f"{quoted(next(iter(speakers)))}); expected in the column file the paths of wav, flac or ogg "
                    "files as seen from the table, like a/b.wav"
                )
            labels |= {table.parent / file: f"{table.parent.name}:{who}" for file, who in speakers.items()}
            homes |= {f"{table.parent.name}:{who}": home for who, home in partitions.items()}
    partly = {s for s in sets if any(path.is_relative_to(s) for path in labels)}
    clips = []
    for path in files:
        home = next((s for s in sets if path.is_relative_to(s)), None)
        if home in partly and path not in labels:
            continue
        if path in labels:
            group = labels[path]
        elif home is not None:  # a described set without speakers: nobody knows who shares a voice
            group = home.name
        else:
            below = path.relative_to(folder).parts
            group = below[0] if len(below) > 1 else folder.name
        clips.append(Clip(path.relative_to(folder).as_posix(), group, path in labels, homes.get(group)))
    return clips


def doubts(folder: Path) -> str:
    """What in the tables of a folder may be why speakers are missing, to be said in brackets; "" without any."""
    there, found = set(audio_files(folder)), []
    for table in sorted(folder.rglob("metadata.csv")):
        if (told := _speakers(table)) is None:
            with table.open(encoding="utf-8-sig", errors="replace") as handle:
                found.append(f"{table} has the header {quoted(handle.readline(200).strip())}")
        elif missing := [file for file in told[0] if table.parent / file not in there]:
            found.append(
                f"{counted(len(missing), 'row')} of {table} without a sound file, the first {quoted(missing[0])}"
            )
    more = [f"and {len(found) - 3} more tables"] if len(found) > 3 else []
    return f" ({'; '.join(found[:3] + more)})" if found else ""


def _speakers(table: Path) -> tuple[dict[str, str], dict[str, str]] | None:
    """File -> speaker of a metadata.csv, where a speaker is known, and speaker -> partition, where it is told;
    None where it has no columns file and speaker."""
    speakers: dict[str, str] = {}
    partitions: dict[str, str] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            rows = csv.DictReader(handle)
            if not {"file", "speaker"} <= set(rows.fieldnames or ()):
                header = ",".join(rows.fieldnames or ())
                if {"file", "speaker"} <= {word.strip().lower() for word in re.split(r"[,;|\t]", header)}:
                    raise ValueError(f"its header is {quoted(header)}")
                return None
            for row in rows:
                file, speaker = (row["file"] or "").strip(), (row["speaker"] or "").strip()
                if not speaker:
                    continue
                if not is_name(speaker) or speakers.setdefault(file, speaker) != speaker:
                    raise ValueError(
                        f"line {rows.line_num}: {quoted(file)} is said to be of {quoted(speaker)}"
                    )
                home = (row.get("partition") or "").strip()
                if home and (home not in PARTITIONS or partitions.setdefault(speaker, home) != home):
                    raise ValueError(
                        f"line {rows.line_num}: {quoted(speaker)} is said to be in {quoted(home)}"
                    )
    except (csv.Error, ValueError) as error:
        raise ValueError(
            f"{table}: not readable ({reason(error)}); expected CSV with commas and the columns file and speaker, "
            "each file once, and each speaker in one partition (train, dev or eval) where such a column is there"
        ) from None
    return speakers, partitions


def describe_sources(folder: Path | None) -> list[dict[str, str]]:
    """Sources and licences of a folder's sets, from ORIGIN.md: its title line, and its sentence that says
    "licence", or else the first that names one."""
    if folder is None:
        return []
    found = []
    for origin in sorted(folder.rglob("ORIGIN.md")):
        text = origin.read_text(encoding="utf-8", errors="replace")
        title = text.splitlines()[0].lstrip("# ").strip() if text.strip() else origin.parent.name
        told = text.partition("\n")[2].replace("\n", " ")
        sentences = re.split(r"(?<=\.)\s", told)
        about = [p for p in sentences if "icence" in p] or [p for p in sentences if _LICENCES.search(p)]
        licence = about[0].strip().removeprefix("Licence: ").rstrip(".") if about else "not stated"
        found.append({"source": title, "licence": textwrap.shorten(licence, 300, placeholder=" ...")})
    return found or [{"source": folder.name, "licence": "not stated by the folder"}]


def checked_clip(path: Path) -> AudioInfo:
    """What the header of a clip of speech or noise says; ValueError where it is broken, or too long to be read."""
    info = audio_info(path)
    if info.frames * info.channels > MOST_SAMPLES:
        most = MOST_SAMPLES / info.channels / info.sample_rate
        raise ValueError(
            f"{path}: lasts {info.seconds / 60:.1f} minutes, too long to be read whole; cut it into pieces of at "
            f"most {most / 60:.1f} minutes (with fewer channels they may be longer; only the first is heard)"
        )
    return info


def check_speech(folder: Path, clips: Iterable[Clip]) -> None:
    """ValueError that names the first clip whose header is broken, or says that it is no speech for here."""
    for clip in clips:
        info = checked_clip(folder / clip.path)
        if info.sample_rate < LOWEST_RATE:
            raise ValueError(
                f"{folder / clip.path}: has a sample rate of {info.sample_rate} Hz; expected speech of "
                f"{LOWEST_RATE} Hz or more, for talkers are heard up to 7.5 kHz; leave it out"
            )


def fingerprint(folder: Path, names: Iterable[str]) -> list[str]:
    """Two hashes of files below a folder: of their names, and of what they hold, by their sizes, beginnings and
    ends. Copies have the same."""
    ordered = sorted(set(names))
    sound = hashlib.sha256()
    for name in ordered:
        with (folder / name).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            sound.update(size.to_bytes(8, "big"))
            for start in (0, max(0, size - _ENDS)):
                file.seek(start)
                sound.update(file.read(_ENDS))
    told = "\0".join(ordered).encode("utf-8", "surrogateescape")
    return [hashlib.sha256(told).hexdigest(), sound.hexdigest()]


def sources_of(scenes: Iterable[dict], folders: Folders) -> dict[str, list[str]]:
    """Fingerprints of the speech and of the noise that is heard in the scenes."""
    speech: set[str] = set()
    noise: set[str] = set()
    for scene in scenes:
        parts = [*scene["utterance"], *(scene["noise"].get("television") or ())]
        speech |= {part["file"] for part in parts}
        noise |= {scene["noise"]["clip"]} - {None}
    found = {"speech": fingerprint(folders.speech, speech)}
    return found if folders.noise is None else found | {"noise": fingerprint(folders.noise, noise)}


class _Recent:
    """The sounds that were asked for last, at most so many bytes of them (but always the last one)."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._sounds: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple) -> np.ndarray | None:
        with self._lock:
            if key in self._sounds:
                self._sounds.move_to_end(key)
            return self._sounds.get(key)

    def keep(self, key: tuple, sound: np.ndarray) -> None:
        with self._lock:
            if key not in self._sounds:
                self._sounds[key] = sound
                self.bytes += sound.nbytes
            while self.bytes > self.most_bytes and len(self._sounds) > 1:
                self.bytes -= self._sounds.popitem(last=False)[1].nbytes


_recent = _Recent(KEPT_BYTES)


def load_mono(path: str, rate: int) -> np.ndarray:
    """Channel 1 of a file at `rate`, float32, without its mean."""
    now = os.stat(path)
    key = (path, rate, now.st_size, now.st_mtime_ns)
    if (sound := _recent.get(key)) is None:
        mono, own = first_channel(path)
        if own != rate:
            mono = np.asarray(resample(mono[None], own, rate))[0]
        sound = (mono - mono.mean()).astype(np.float32, copy=False)
        _recent.keep(key, sound)
    return sound


def first_channel(path: str | Path) -> tuple[np.ndarray, int]:
    """The first channel (T,) float32 of a file, and its rate in Hz; the others are not held."""
    waveform, rate = read_audio(path)
    return (waveform[0] if len(waveform) == 1 else waveform[0].copy()), rate


def active_stretch(x: np.ndarray, rate: int) -> tuple[int, int, np.ndarray]:
    """Where somebody speaks: first and last sample, and the frames (10 ms) that are active.

    A frame is active above the larger of 30 dB below the loud frames and a third of the way (in dB) up
    from the floor.
    """
    hop = rate // 100
    count = max(1, len(x) // hop)
    frames = x[: count * hop].reshape(count, -1) if len(x) >= hop else x[None]
    db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
    top, floor = np.percentile(db, 95), np.percentile(db, 5)
    active = db > max(top - 30, floor + 0.4 * (top - floor))
    # a click of one frame is not a word
    run = np.convolve(active, np.ones(5), "same")
    active &= run >= 3
    where = np.flatnonzero(active)
    if not len(where):
        return 0, len(x), np.ones(count, bool)
    first = max(0, int(where[0]) * hop - int(0.06 * rate))
    last = min(len(x), (int(where[-1]) + 1) * hop + int(0.09 * rate))
    return first, last, active


def choose_command(
    folder: Path, clips: list[Clip], limits: tuple[float, float], rate: int, rng: np.random.Generator
) -> tuple[list[dict], float]:
    """Parts of one command by one speaker and its seconds: each part a file with start, stop and pause after it."""
    order = rng.permutation(len(clips))
    wanted = int(rng.integers(2, 5))
    parts: list[dict] = []
    seconds = 0.0
    for index in order:
        clip = clips[index]
        x = load_mono(str(folder / clip.path), rate)
        first, last, active = active_stretch(x, rate)
        if active.sum() < 8 or np.abs(x[first:last]).max() < 0.003:
            continue  # nobody speaks in it
        length = (last - first) / rate
        word = clip.labelled and len(x) / rate <= WORD_SECONDS
        if not word and parts:
            continue
        if length > limits[1]:
            first, last = cut_at_pause(active, first, rate, limits, rng)
            length = (last - first) / rate
        if seconds + length > limits[1]:
            break
        parts.append({"file": clip.path, "start": first / rate, "stop": last / rate, "pause": 0.0})
        seconds += length
        if not word and seconds >= limits[0] * 0.6:
            break
        if word and len(parts) >= wanted and seconds >= limits[0]:
            break
        pause = float(rng.uniform(0.04, 0.25))
        parts[-1]["pause"] = pause
        seconds += pause
    if parts:
        seconds -= parts[-1]["pause"]
        parts[-1]["pause"] = 0.0
    return parts, seconds


def cut_at_pause(
    active: np.ndarray, first: int, rate: int, limits: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int]:
    """A stretch of at most `limits[1]` seconds of a long clip that begins and ends in pauses where it can."""
    hop = rate // 100
    begins = np.flatnonzero(active & ~np.concatenate([[False], active[:-1]]))
    ends = np.flatnonzero(active & ~np.concatenate([active[1:], [False]])) + 1
    enough = begins[begins <= ends[-1] - int(limits[0] * 100)]
    start = int(rng.choice(enough if len(enough) else begins[:1]))
    most = start + int(limits[1] * 100) - 16
    fitting = ends[(ends > start + int(limits[0] * 50)) & (ends <= most)]
    stop = int(fitting[-1]) if len(fitting) else min(most, len(active))
    return max(0, start * hop - int(0.06 * rate)), min(len(active) * hop, stop * hop + int(0.09 * rate))


def build_command(
    folder: Path,
    parts: list[dict],
    rate: int,
    effort_db: float = 0.0,
    colour_db: Sequence[float] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """The dry command (N,) and where it is active (N,) bool: parts at equal level, faded, gated in between,
    tilted by `effort_db` per octave and coloured by `colour_db` at octaves from 50 Hz."""
    pieces, masks = [], []
    for part in parts:
        x = load_mono(str(folder / part["file"]), rate)
        piece = x[round(part["start"] * rate) : round(part["stop"] * rate)].copy()
        _, _, frames = active_stretch(piece, rate)
        mask = np.repeat(frames, rate // 100)[: len(piece)]
        mask = np.pad(mask, (0, len(piece) - len(mask)))
        piece /= np.sqrt(np.square(piece[mask]).mean()) + 1e-9
        fade = min(len(piece) // 2, int(0.03 * rate))
        ramp = np.sin(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
        gap = round(part["pause"] * rate)
        pieces += [piece, np.zeros(gap, np.float32)]
        masks += [mask, np.zeros(gap, bool)]
    dry = without_rumble(np.concatenate(pieces), rate)
    return coloured(dry, rate, effort_db, colour_db), np.concatenate(masks)


def coloured(dry: np.ndarray, rate: int, effort_db: float, colour_db: Sequence[float] = ()) -> np.ndarray:
    """The command (N,) with its spectrum tilted by `effort_db` per octave around 1 kHz, from 100 Hz to 8 kHz, and
    lifted by `colour_db` at octaves from 50 Hz (straight lines between them), zero phase."""
    size = sfft.next_fast_len(len(dry) + rate // 50, real=True)
    f = np.clip(np.fft.rfftfreq(size, 1 / rate), 50.0, 8000.0)
    gain_db = effort_db * np.log2(np.maximum(f, 100.0) / 1000.0)
    if len(colour_db):
        gain_db += np.interp(np.log2(f / 50.0), np.arange(len(colour_db)), colour_db)
    return sfft.irfft(sfft.rfft(dry, size) * 10 ** (gain_db / 20), size)[: len(dry)].astype(np.float32)


def without_rumble(dry: np.ndarray, rate: int) -> np.ndarray:
    """The command (N,) without what lies below speech, zero phase.

    A crowd's microphones recorded their desks and mains too. A mouth would radiate that rumble and no loudspeaker
    does, so it would tell the classes although no talker made it.
    """
    sections = signal.butter(4, RUMBLE_HZ, "highpass", fs=rate, output="sos")
    return signal.sosfiltfilt(sections, dry).astype(np.float32)
