"""One shard of a prepared cache: the samples of up to `SHARD` clips, and the entry that says where they lie.

`shard-00012.bin` holds (M, T) after (M, T), int16 or float32, each from an offset that four divides;
`shard-00012.json` its trials, clips [offset, M, T, 1 where int16], size, CRC-32, and the sizes and times of
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


def _sources(part: Sequence[Recording]) -> list[list[int]] | None:
    """Size and time of every source file; None where one is not there (a finished cache lives without)."""
    try:
        found = [recording.path.stat() for recording in part]
    except OSError:
        return None
    return [[stat.st_size, stat.st_mtime_ns] for stat in found]


def is_whole(folder: Path, shard: int, part: Sequence[Recording], *, checksum: bool) -> bool:
    """Whether the shard is there, complete, of these recordings, and younger than their files."""
    try:
        entry = read_entry(folder, shard)
        same = entry["trials"] == [recording.trial_id for recording in part]
        sources = _sources(part)
        same = same and (sources is None or sources == entry["sources"])
        return same and (not checksum or crc32(samples_path(folder, shard)) == entry["crc32"])
    except (ValueError, OSError):
        return False


def read_entry(folder: Path, shard: int) -> dict[str, Any]:
    """One shard's entry, its clips proved to lie inside of the file."""
    path = samples_path(folder, shard)
    try:
        entry = unsealed(path.with_suffix(".json").read_text(encoding="utf-8"))
        size = path.stat().st_size
        plain = all(type(n) is int for clip in entry["clips"] for n in clip)
        plain = plain and all(isinstance(trial, str) for trial in entry["trials"])
        clips = np.array(entry["clips"], dtype=np.int64).reshape(-1, 4)
        ends = clips[:, 0] + clips[:, 1] * clips[:, 2] * np.where(clips[:, 3] == 1, 2, 4)
        sound = (
            plain
            and len(clips) == len(entry["trials"]) == len(entry["clips"])
            and size == entry["bytes"]
            and int(entry["crc32"]) >= 0
        )
        sound = sound and (clips[:, :3] >= [0, 1, 1]).all() and (clips[:, 3] <= 1).all()
        sound = (
            sound and (clips[:, 0] <= size).all() and (ends <= size).all()
        )  # far offsets would wrap around
        sound = sound and (clips[:, 1] <= MAX_CHANNELS).all() and (clips[:, 2] < 2**32).all()
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
    sources = _sources(part)  # before reading: a file changed meanwhile is then found changed
    clips, offset, crc = [], 0, 0
    path = samples_path(folder, shard)
    path.with_suffix(".json").unlink(missing_ok=True)
    with whole_file(path) as temporary, open(temporary, "wb") as out:
        for recording in part:
            clip = load_clip(recording.path, sample_rate=sample_rate, seconds=seconds, channels=channels)
            stored = _stored(clip)
            data = stored.tobytes()
            crc = zlib.crc32(data, crc)
            out.write(data)
            clips.append([offset, len(clip), clip.shape[1], int(stored.dtype == np.int16)])
            offset += len(data)
            if padding := -offset % 4:  # float32 must start aligned
                crc = zlib.crc32(bytes(padding), crc)
                out.write(bytes(padding))
                offset += padding
    entry = {
        "trials": [recording.trial_id for recording in part],
        "clips": clips,
        "bytes": offset,
        "crc32": crc,
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


def crc32(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
