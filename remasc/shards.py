"""One shard of a prepared cache: the samples of up to `SHARD` clips, and the entry that says where they lie.

`shard-00012.bin` holds (M, T) after (M, T), int16 or float32, each from an offset that four divides;
`shard-00012.json` its trials, clips [offset, M, T, 1 where int16, CRC-32], size, and the sizes and times of
the source files. The entry is written last, so that a shard counts only when it is whole.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from remasc.atomic import whole_file, write_text
from remasc.audio import MAX_CHANNELS, load_clip
from remasc.schema import Recording
from remasc.sentences import reason

SHARD = 256  # clips: 157 maps for 40,000 of them, and no worker holds more than one clip
MAX_ENTRY = 2**22  # bytes: 256 clips need a hundredth, and parsing takes many times its text in memory
FULL_SCALE = 32768.0


def sealed(fields: dict[str, Any]) -> str:
    """JSON with a checksum of itself: a damaged digit would otherwise be believed."""
    return json.dumps({**fields, "checksum": _crc32_of(fields)})


def unsealed(text: str) -> dict[str, Any]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    checksum = fields.pop("checksum", None)
    if checksum != _crc32_of(fields):
        raise ValueError("its checksum differs")
    return fields


def _crc32_of(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())


def samples_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.bin"


def source_of(recording: Recording) -> list[int] | None:
    """Size and time of a source file; None where it is not there (a finished cache lives without)."""
    try:
        found = recording.path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def is_whole(folder: Path, shard: int, part: Sequence[Recording], *, checksum: bool) -> bool:
    """Whether the shard is there, complete, of these recordings, and their files are as they were."""
    try:
        entry = read_entry(folder, shard)
        same = entry["trials"] == [recording.trial_id for recording in part]
        same = same and all(
            found in (None, known)
            for found, known in zip(map(source_of, part), entry["sources"], strict=True)
        )
        return same and (not checksum or _is_sound(samples_path(folder, shard), entry["clips"]))
    except (ValueError, OSError):
        return False


def _is_sound(path: Path, clips: list[list[int]]) -> bool:
    with open(path, "rb") as file:
        for offset, mics, frames, exact16, crc in clips:
            file.seek(offset)
            if zlib.crc32(file.read(mics * frames * (2 if exact16 else 4))) != crc:
                return False
    return True


def read_entry(folder: Path, shard: int) -> dict[str, Any]:
    """One shard's entry, its clips proved to lie inside of the file."""
    path = samples_path(folder, shard)
    try:
        listed, size = path.with_suffix(".json"), path.stat().st_size
        if listed.stat().st_size > MAX_ENTRY:
            raise ValueError(f"it has {listed.stat().st_size} bytes, an entry has less than {MAX_ENTRY}")
        entry = unsealed(listed.read_text(encoding="utf-8"))
        plain = all(type(n) is int for clip in entry["clips"] for n in clip)
        plain = plain and all(isinstance(trial, str) for trial in entry["trials"])
        clips = np.array(entry["clips"], dtype=np.int64).reshape(-1, 5)
        sources = np.array(entry["sources"], dtype=np.int64).reshape(-1, 2)
        ends = clips[:, 0] + clips[:, 1] * clips[:, 2] * np.where(clips[:, 3] == 1, 2, 4)
        sound = plain and size == entry["bytes"]
        sound = sound and len(clips) == len(entry["trials"]) == len(entry["clips"]) == len(sources)
        sound = sound and (clips >= [0, 1, 1, 0, 0]).all()
        sound = sound and (clips[:, 1:] < [MAX_CHANNELS + 1, 2**32, 2, 2**32]).all()
        sound = sound and (np.maximum(clips[:, 0], ends) <= size).all()  # ends of far offsets wrap around
    except FileNotFoundError:
        raise ValueError(f"{path}: missing, the cache is not finished; build it again to go on") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path.with_suffix('.json')}: not readable ({reason(error)}); build the cache again"
        ) from None
    if not sound:
        raise ValueError(f"{path}: not as its entry says (cut short or altered); build the cache again")
    return entry


def build_shard(
    folder: Path,
    shard: int,
    part: list[Recording],
    sample_rate: int | None,
    seconds: float | None,
    channels: Sequence[int] | None,
) -> tuple[int, int]:
    """Write one shard and its entry; returns (clips, shard)."""
    sources = [source_of(recording) for recording in part]  # first: a file changed meanwhile is found changed
    clips, offset = [], 0
    path = samples_path(folder, shard)
    path.with_suffix(".json").unlink(missing_ok=True)
    with whole_file(path) as temporary, open(temporary, "wb") as out:
        for recording in part:
            clip = load_clip(recording.path, sample_rate=sample_rate, seconds=seconds, channels=channels)
            stored = _stored(clip)
            data = stored.tobytes()
            out.write(data)
            exact16 = int(stored.dtype == np.int16)
            clips.append([offset, len(clip), clip.shape[1], exact16, zlib.crc32(data)])
            offset += len(data)
            if padding := -offset % 4:  # float32 must start aligned
                out.write(bytes(padding))
                offset += padding
    entry = {
        "trials": [recording.trial_id for recording in part],
        "clips": clips,
        "bytes": offset,
        "sources": sources,
    }
    write_text(path.with_suffix(".json"), sealed(entry))
    return len(part), shard


def _stored(clip: np.ndarray) -> np.ndarray:
    """int16 where that is exact, so also for float files of 16-bit sound; else float32 as it is."""
    steps = clip * np.float32(FULL_SCALE)  # exact: a power of two
    whole = steps.astype(np.int16) if steps.max() < FULL_SCALE else None  # +1.0 has no 16-bit value
    if whole is not None and np.array_equal(whole, steps):
        return whole.astype("<i2", copy=False)
    return clip.astype("<f4", copy=False)
