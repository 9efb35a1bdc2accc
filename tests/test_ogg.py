"""An OGG file is read whole or refused: no page may be damaged, missing, foreign or one too many."""

import io

import numpy as np
import pytest
import soundfile as sf

from remasc import ogg
from remasc.audio import audio_info, read_audio


@pytest.fixture(scope="module")
def pages():
    whole = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, (40000, 2))
    sf.write(whole, noise, 16000, format="OGG", subtype="VORBIS")
    return [b"OggS" + page for page in whole.getvalue().split(b"OggS")[1:]]


def slow_crc(data: bytes) -> int:
    """Bit by bit, as RFC 3533 has it."""
    register = 0
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


def test_the_checksum_is_that_of_the_format(pages):
    for page in (b"", b"\1", bytes(range(256)), pages[0][:22] + bytes(4) + pages[0][26:]):
        assert ogg.page_crc(page) == slow_crc(page)
    assert ogg.page_crc(pages[0][:22] + bytes(4) + pages[0][26:]).to_bytes(4, "little") == pages[0][22:26]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda p: p[:-1], "its end is missing"),
        (lambda p: [*p[:3], *p[4:]], "page 3 is missing"),
        (lambda p: [*p[:3], p[4], p[3], *p[5:]], "page 3 is missing"),
        (lambda p: p[1:], "not the beginning"),
        (lambda p: [*p, b"more"], "something follows"),
        (lambda p: [*p, *p], "something follows"),
        (lambda p: [*p[:-1], p[-1][:-5]], "cut short"),
        (lambda p: [*p[:-1], p[-1][:-5] + b"12345"], "damaged"),
        (lambda p: [b"OggS"], "inside of page 0"),
    ],
)
def test_a_page_too_few_or_too_many_is_refused(tmp_path, pages, change, fact):
    assert len(pages) > 5
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(pages))
    assert read_audio(path)[0].shape == (2, 40000)
    path.write_bytes(b"".join(change(pages)))
    for read in (read_audio, audio_info):
        with pytest.raises(ValueError, match=fact) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
