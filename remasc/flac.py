"""What a FLAC file's header says, held against its first frame and against the checksum of its sound.

libFLAC proves every frame by a CRC, but nothing proves the header, where one wrong bit makes another sample
rate or a shorter recording of the same frames. The frames repeat the rate, and the header holds an MD5 of
all samples.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

MAX_BLOCKS = 1000
_RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)


@dataclass(frozen=True)
class FlacHeader:
    """STREAMINFO: rate in Hz, bits per sample, frames, MD5 of the samples (zeros where the writer left it)."""

    sample_rate: int
    bits: int
    frames: int
    md5: bytes

    def proves(self, samples: np.ndarray) -> bool:
        """Whether all samples (T, M) float32 are those that were encoded; True where it cannot be told."""
        if not any(self.md5) or self.bits > 24 or len(samples) != self.frames:
            return True
        width = -(-self.bits // 8)
        steps = np.rint(samples * np.float32(2 ** (self.bits - 1))).astype("<i4")
        stored = steps.view(np.uint8).reshape(*steps.shape, 4)[..., :width]
        return hashlib.md5(np.ascontiguousarray(stored), usedforsecurity=False).digest() == self.md5


def inspect(file: BinaryIO) -> FlacHeader:
    """The header of an open FLAC file. Raises ValueError with the reason alone; the caller adds the name."""
    end = file.seek(0, os.SEEK_END)
    position, header = 4, b""
    for _ in range(MAX_BLOCKS):
        file.seek(position)
        block = file.read(4)
        position += 4 + int.from_bytes(block[1:4], "big")
        if len(block) < 4 or position > end:
            raise ValueError("it ends inside of its header")
        if not header:
            header = file.read(34)
        if block[0] & 0x80:
            break
    fields = int.from_bytes(header[10:18], "big")  # 20 bits rate, 3 channels, 5 bits per sample, 36 frames
    rate = fields >> 44
    file.seek(position)
    if (told := _frame_rate(file.read(16))) not in (0, rate):
        raise ValueError(f"its header says {rate} Hz, its first frame {told}")
    return FlacHeader(rate, (fields >> 36 & 31) + 1, fields & (2**36 - 1), header[18:34])


def _frame_rate(frame: bytes) -> int:
    """The rate that a frame's header repeats; 0 where it refers to the file's header."""
    if len(frame) < 16 or frame[0] != 0xFF or frame[1] & 0xFE != 0xF8:
        raise ValueError("no frame follows its header")
    size_code, code = frame[2] >> 4, frame[2] & 15
    if code < len(_RATES):
        return _RATES[code]
    number = next((ones for ones in range(8) if not frame[4] << ones & 0x80), 8)  # UTF-8 like: leading ones
    place = 4 + max(number, 1) + {6: 1, 7: 2}.get(size_code, 0)
    two = int.from_bytes(frame[place : place + 2], "big")
    return {12: frame[place] * 1000, 13: two, 14: two * 10}.get(code, -1)
