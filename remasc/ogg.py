"""An OGG file's pages, proved before anything is decoded.

Every page carries a CRC-32 and a number, but decoders pass over a damaged or missing page without a word: the
recording would come out shorter, or with other sound in it. Here such a file is refused.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_HEAD = struct.Struct("<4sBBqIIIB")  # name, version, flags, granule, stream, number, CRC, segments
_FIRST, _LAST = 2, 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def prove(file: BinaryIO) -> None:
    """Walk through an open OGG file. Raises ValueError with the reason alone; the caller adds the name."""
    file.seek(0)
    expected, stream, flags = 0, None, 0
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            raise ValueError(f"it ends inside of page {expected}")
        name, _, flags, _, serial, number, crc, count = _HEAD.unpack(head)
        sizes = file.read(count)
        body = file.read(sum(sizes))
        if name != b"OggS" or len(sizes) < count or len(body) < sum(sizes):
            raise ValueError(f"it is cut short or damaged at page {expected}")
        if page_crc(head[:22] + bytes(4) + head[26:] + sizes + body) != crc:
            raise ValueError(f"its page {expected} is damaged (the checksum differs)")
        if stream not in (None, serial) or bool(flags & _FIRST) != (expected == 0):
            raise ValueError("it holds more than one stream, or not the beginning of one")
        if number != expected:
            raise ValueError(f"its page {expected} is missing")
        stream, expected = serial, expected + 1
        if flags & _LAST:
            break
    if not flags & _LAST:
        raise ValueError("its end is missing")
    if file.read(1):
        raise ValueError("something follows its last page")


def page_crc(page: bytes) -> int:
    """The CRC of a page whose own CRC field is zero: polynomial 0x04C11DB7, highest bit first, from zero.

    zlib computes the same polynomial lowest bit first, so bytes go in mirrored and the result comes out so.
    """
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
