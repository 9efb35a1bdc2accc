"""What the header of a WAV file says, judged before anything is decoded or allocated.

`inspect` walks the chunks itself, so that a damaged header is refused with its reason, and the known
harmless defects are mended: IEEE float whose `fmt ` chunk lacks its extension (MATLAB 2018 wrote ReMASC so),
WAVE_FORMAT_EXTENSIBLE with a short or oddly sized `fmt ` chunk, a missing pad byte, the sizes 0 and
0xFFFFFFFF that streaming writers leave. The decoder then only ever sees a header that `WavFormat.header`
wrote.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

PCM, FLOAT, EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
STREAMING_SIZES = (0, 0xFFFFFFFF)
MAX_CHUNKS = 1000
_COMMON = (b"data", b"fact", b"fmt ", b"LIST")
_SUBTYPE = {
    (PCM, 1): "PCM_U8",
    (PCM, 2): "PCM_16",
    (PCM, 3): "PCM_24",
    (PCM, 4): "PCM_32",
    (FLOAT, 4): "FLOAT",
    (FLOAT, 8): "DOUBLE",
}


@dataclass(frozen=True)
class WavFormat:
    """A WAV file's samples: how they are coded and where they lie (`start`, a byte offset)."""

    sample_rate: int
    channels: int
    frames: int
    subtype: str  # soundfile's word
    bytes_per_frame: int
    start: int

    def header(self, frames: int) -> bytes:
        """A faultless header for `frames` frames of this coding."""
        tag = FLOAT if self.subtype in ("FLOAT", "DOUBLE") else PCM
        bits = 8 * self.bytes_per_frame // self.channels
        byte_rate = self.sample_rate * self.bytes_per_frame
        fmt = struct.pack(
            "<HHIIHHH", tag, self.channels, self.sample_rate, byte_rate, self.bytes_per_frame, bits, 0
        )
        size = frames * self.bytes_per_frame
        riff = struct.pack("<4sI4s4sI", b"RIFF", 4 + 8 + len(fmt) + 8 + size, b"WAVE", b"fmt ", len(fmt))
        return riff + fmt + struct.pack("<4sI", b"data", size)


def is_wav(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WAVE"


def inspect(file: BinaryIO) -> WavFormat:
    """The format of an open WAV file. Raises ValueError with the reason alone; the caller adds the name."""
    end = file.seek(0, os.SEEK_END)
    fmt, has_fact, position = None, False, 12
    for _ in range(MAX_CHUNKS):
        name, size = _chunk(file, position, end)
        body = position + 8
        if name == b"data":
            if fmt is None:
                raise ValueError("its data chunk comes before any fmt chunk")
            size = _data_size(file, body, size, end)
            return _resolve(file, fmt, has_fact, body, size)
        if body + size > end:
            raise ValueError(f"its {_word(name)} chunk promises {size} bytes, {max(end - body, 0)} are there")
        if name == b"fmt ":
            file.seek(body)
            fmt = file.read(min(size, 64))
        has_fact = has_fact or name == b"fact"
        position = _next(file, body + size, size)
    raise ValueError(f"it has more than {MAX_CHUNKS} chunks")


def _word(name: bytes) -> str:
    return name.decode("latin-1").strip().__repr__()


def _chunk(file: BinaryIO, position: int, end: int) -> tuple[bytes, int]:
    if position + 8 > end:
        raise ValueError("it ends before its data chunk")
    file.seek(position)
    return struct.unpack("<4sI", file.read(8))


def _next(file: BinaryIO, position: int, size: int) -> int:
    """Chunks start at even offsets, but some writers forget the pad byte after an odd size."""
    if size % 2 == 0:
        return position
    file.seek(position)
    peek = file.read(5)
    return position if _is_name(peek[:4]) and peek[1:5] not in _COMMON else position + 1


def _is_name(text: bytes) -> bool:
    return len(text) == 4 and all(32 <= byte < 127 for byte in text)


def _data_size(file: BinaryIO, body: int, size: int, end: int) -> int:
    there = end - body
    if size == 0 and _only_chunks(file, body, end):
        return 0
    if size in STREAMING_SIZES:
        return there
    if size > there:
        raise ValueError(f"its data chunk promises {size} bytes, {there} are there: the file is cut short")
    if rest := _unclaimed(file, body + size, size, end):
        raise ValueError(
            f"{rest} bytes after its data chunk are no chunk: the length of one of them is wrong"
        )
    return size


def _unclaimed(file: BinaryIO, position: int, size: int, end: int) -> int:
    """How many bytes lie behind the samples, inside of the RIFF chunk, and begin no other chunk.

    What lies behind the RIFF chunk itself is nobody's business: some writers fill up to a whole sector.
    """
    file.seek(4)
    riff_size = int.from_bytes(file.read(4), "little")
    end = end if riff_size in STREAMING_SIZES else min(end, 8 + riff_size)
    for start in {position, position + size % 2}:
        file.seek(start)
        head = file.read(8)
        if end - start < 2 or (_is_name(head[:4]) and int.from_bytes(head[4:], "little") <= end - start):
            return 0
    return end - position


def _only_chunks(file: BinaryIO, position: int, end: int) -> bool:
    """True where everything up to the end is a chain of chunks: then a size of 0 means no samples."""
    for _ in range(MAX_CHUNKS):
        if position >= end:
            return True
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or not _is_name(head[:4]):
            return False
        size = int.from_bytes(head[4:], "little")
        position += 8 + size + size % 2
        if position > end + 1:
            return False
    return False


def _resolve(file: BinaryIO, fmt: bytes, has_fact: bool, start: int, size: int) -> WavFormat:
    if len(fmt) < 16:
        raise ValueError(f"its fmt chunk has {len(fmt)} bytes, at least 16 are needed")
    tag, channels, rate, byte_rate, align, bits = struct.unpack("<HHIIHH", fmt[:16])
    if channels == 0 or align == 0 or align % channels:
        raise ValueError(f"its fmt chunk says {channels} channels in frames of {align} bytes")
    width = align // channels
    if (
        not 8 * (width - 1) < bits <= 8 * width
    ):  # looser packings differ in where the bits are: ask, not guess
        raise ValueError(f"its fmt chunk says {bits} bits in {width} bytes")
    if byte_rate not in (0, (rate * align) % 2**32):
        raise ValueError(f"its fmt chunk contradicts itself ({rate} Hz x {align} bytes is not {byte_rate})")
    if tag == EXTENSIBLE:
        tag = _extensible_tag(file, fmt, has_fact, width, start, size)
    if (tag, width) not in _SUBTYPE:
        raise ValueError(f"its coding (tag {tag}, {bits} bits) is neither PCM of 8 to 32 bits nor IEEE float")
    if (tag, width) == (PCM, 4) and _looks_like_float(file, start, size, both_signs=True):
        raise ValueError("its header says 32-bit integers, its samples are IEEE float")
    return WavFormat(rate, channels, size // align, _SUBTYPE[tag, width], align, start)


def _extensible_tag(file: BinaryIO, fmt: bytes, has_fact: bool, width: int, start: int, size: int) -> int:
    """The coding behind WAVE_FORMAT_EXTENSIBLE: from its GUID, and where that is cut off from the samples."""
    if len(fmt) >= 26:
        return int.from_bytes(fmt[24:26], "little")
    if width == 8:
        return FLOAT
    if width != 4:
        return PCM
    return FLOAT if has_fact or _looks_like_float(file, start, size) else PCM


def _looks_like_float(file: BinaryIO, start: int, size: int, *, both_signs: bool = False) -> bool:
    """32-bit integers of sound, read as floats, give NaN or 1e38 for every small negative sample.

    `both_signs` asks for positive and negative ones: then only integers that never come near zero, which no
    sound is, could be taken for floats.
    """
    file.seek(start)
    values = np.frombuffer(file.read(min(size, 1 << 20) // 4 * 4), "<f4")
    if not len(values) or (both_signs and not values.min() < 0 < values.max()):  # NaN compares false
        return False
    peak = np.abs(values).max() if np.isfinite(values).all() else np.inf
    return bool(1e-9 < peak < 64)
