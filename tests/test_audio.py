"""What is healthy loads exactly, what is harmlessly defective loads, what is damaged is refused."""

import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from tiny_corpus import outcome

from remasc.audio import audio_info, load_clip, read_audio, write_wav
from remasc.resampling import resample

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
STEP = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "FLOAT": 0, "DOUBLE": 2**-24}
DTYPE = {(1, 16): "<i2", (1, 32): "<i4", (3, 32): "<f4", (3, 64): "<f8"}


def noise(mics: int = 2, samples: int = 400, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (mics, samples)).astype(np.float32)


def encode(waveform: np.ndarray, tag: int, bits: int) -> bytes:
    steps = waveform.T * (2.0 ** (bits - 1) - 1) if tag == 1 else waveform.T
    if (tag, bits) == (1, 24):
        return b"".join(int(v).to_bytes(3, "little", signed=True) for v in steps.ravel())
    return steps.astype(DTYPE[tag, bits]).tobytes()


def fmt_chunk(
    tag: int, mics: int, rate: int, bits: int, *, size: int = 16, inner: int = 0, cb: int = 22
) -> bytes:
    """A fmt chunk of any size; from byte 16 cbSize, valid bits, channel mask and the GUID, cut or padded."""
    align = mics * bits // 8
    body = struct.pack("<HHIIHH", tag, mics, rate, rate * align, align, bits)
    body += struct.pack("<HHIH", cb, bits, 0, inner) + GUID_TAIL
    body = body[:size].ljust(size, b"\0")
    return struct.pack("<4sI", b"fmt ", size) + body


def wav_bytes(
    fmt: bytes, data: bytes, *, promised: int | None = None, before: bytes = b"", after: bytes = b""
) -> bytes:
    promised = len(data) if promised is None else promised
    body = b"WAVE" + fmt + before + struct.pack("<4sI", b"data", promised) + data + after
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def refused(path, match: str = "") -> None:
    for read in (read_audio, audio_info) if not match.startswith("samples:") else (read_audio,):
        with pytest.raises(ValueError, match=match.removeprefix("samples:") or None) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("mics", [1, 2, 7, 64])
@pytest.mark.parametrize("subtype", STEP)
def test_written_is_read_to_within_half_a_step(tmp_path, subtype, mics):
    waveform = noise(mics)
    path = tmp_path / "a.wav"
    write_wav(path, waveform, 16000, subtype)
    read, rate = read_audio(path)
    assert (rate, read.shape, read.dtype) == (16000, (mics, 400), np.float32)
    assert read.flags.c_contiguous
    assert np.abs(read - waveform).max() <= STEP[subtype]
    info = audio_info(path)
    assert (info.sample_rate, info.channels, info.frames, info.subtype) == (16000, mics, 400, subtype)
    assert info.seconds == 400 / 16000


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_read_and_written_back_is_the_same_file(tmp_path, subtype):
    write_wav(tmp_path / "a.wav", noise(), 44100, subtype)
    write_wav(tmp_path / "b.wav", read_audio(tmp_path / "a.wav")[0], 44100, subtype)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_equal_to_the_plain_decoder(tmp_path, subtype):
    for container in ("WAV", "WAVEX"):
        path = tmp_path / f"{container}.wav"
        sf.write(path, noise(4).T, 44100, subtype=subtype, format=container)
        expected, _ = sf.read(path, dtype="float32", always_2d=True)
        assert np.array_equal(read_audio(path)[0], expected.T)


@pytest.mark.parametrize(
    ("container", "subtype"), [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS")]
)
def test_compressed_containers(tmp_path, container, subtype):
    path = tmp_path / "a.any"
    sf.write(path, noise(2, 16000).T * 0.5, 16000, format=container, subtype=subtype)
    waveform, rate = read_audio(path)
    assert (rate, waveform.shape) == (16000, (2, 16000))
    assert audio_info(path).container == container
    if container == "FLAC":
        assert np.abs(waveform - noise(2, 16000) * 0.5).max() <= STEP[subtype]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [16, 17, 18, 19, 20, 40])
@pytest.mark.parametrize("cb", [0, 22])
def test_float_whose_fmt_chunk_lacks_its_extension(tmp_path, bits, size, cb):
    """The MATLAB 2018 defect of ReMASC: tag 3 and no cbSize, no fact chunk; and its neighbours in size."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(fmt_chunk(3, 2, 44100, bits, size=size, cb=cb), encode(noise(), 3, bits)))
    waveform, rate = read_audio(path)
    assert rate == 44100
    assert np.array_equal(waveform, noise())


@pytest.mark.parametrize(("inner", "bits"), [(1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
@pytest.mark.parametrize("size", [16, 18, 22, 25, 26, 39, 40, 41, 48])
@pytest.mark.parametrize("padded", [True, False])
def test_extensible_with_a_short_or_odd_fmt_chunk(tmp_path, inner, bits, size, padded):
    """Where the GUID is cut off, the coding is told from the width and from the samples."""
    path = tmp_path / "a.wav"
    fmt = fmt_chunk(0xFFFE, 2, 44100, bits, size=size, inner=inner)
    fmt += b"\0" if size % 2 and padded else b""
    path.write_bytes(wav_bytes(fmt, encode(noise() * 0.3, inner, bits)))
    assert np.abs(read_audio(path)[0] - noise() * 0.3).max() <= 2.0 ** (2 - bits) + 2**-24


def test_chunks_around_the_samples_are_passed_over(tmp_path):
    path = tmp_path / "a.wav"
    junk = struct.pack("<4sI", b"LIST", 5) + b"INFO\1\0" + struct.pack("<4sI", b"fact", 4) + bytes(4)
    fmt = fmt_chunk(1, 2, 16000, 16)
    path.write_bytes(wav_bytes(fmt, encode(noise(), 1, 16), before=junk, after=junk))
    assert read_audio(path)[0].shape == (2, 400)


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF])
def test_streaming_sizes_mean_to_the_end(tmp_path, promised):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(fmt_chunk(1, 2, 16000, 16), encode(noise(), 1, 16), promised=promised))
    assert read_audio(path)[0].shape == (2, 400)


def test_truncated_files_are_refused_at_every_length(tmp_path):
    for container in ("WAV", "FLAC"):
        whole = io.BytesIO()
        sf.write(whole, noise(2, 3000).T, 16000, format=container)
        data = whole.getvalue()
        path = tmp_path / f"a.{container.lower()}"
        for length in np.linspace(0, len(data) - 1, 40, dtype=int):
            path.write_bytes(data[:length])
            with pytest.raises(ValueError, match=str(path)):
                read_audio(path)
    path.write_bytes(data)
    read_audio(path)


@pytest.mark.parametrize(
    ("fmt", "match"),
    [
        (fmt_chunk(1, 0, 16000, 16), "0 channels"),
        (fmt_chunk(1, 65, 16000, 16), "65 channels"),
        (fmt_chunk(1, 2, 0, 16), "0 Hz"),
        (fmt_chunk(1, 2, 1, 16), "1 Hz"),
        (fmt_chunk(1, 2, 4_000_000, 16), "4000000 Hz"),
        (fmt_chunk(2, 2, 16000, 16), "tag 2"),
        (fmt_chunk(1, 2, 16000, 64), "neither PCM"),
        (fmt_chunk(3, 2, 16000, 16), "neither PCM"),
        (fmt_chunk(0xFFFE, 2, 16000, 16, size=40, inner=7), "tag 7"),
        (fmt_chunk(1, 2, 16000, 16, size=14), "14 bytes"),
        (fmt_chunk(1, 2, 16000, 16)[:-2] + b"\x11\0", "17 bits"),
        (
            fmt_chunk(1, 2, 16000, 16)[:12] + struct.pack("<I", 44100) + fmt_chunk(1, 2, 16000, 16)[16:],
            "contradicts",
        ),
        (struct.pack("<4sI", b"fmt ", 2**31) + bytes(16), "promises"),
        (b"", "before any fmt"),
    ],
)
def test_absurd_headers_are_refused(tmp_path, fmt, match):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(fmt, encode(noise(), 1, 16)))
    refused(path, match)


def test_empty_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.wav"
    for promised, data, after in ((0, b"", b""), (0, b"", b"LIST\4\0\0\0INFO"), (4, b"abcd", b"")):
        fmt = fmt_chunk(1, 4, 16000, 16)
        path.write_bytes(wav_bytes(fmt, data, promised=promised, after=after))
        refused(path, "no samples")
    for text in (b"", b"RIFF", b"not a sound at all", b"RIFF\4\0\0\0WAVE", os.urandom(4000)):
        path.write_bytes(text)
        refused(path)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a file")  # and does not wait for a writer
    refused(tmp_path, "not a file")
    with pytest.raises(FileNotFoundError):
        read_audio(tmp_path / "gone.wav")


def test_a_name_decides_nothing(tmp_path):
    for name in ("a.raw", "b.pcm", "c.flac", "d", "e.wav.bak"):
        write_wav(tmp_path / "a.wav", noise(), 16000)
        os.replace(tmp_path / "a.wav", tmp_path / name)
        assert read_audio(tmp_path / name)[0].shape == (2, 400)
        (tmp_path / name).write_bytes(b"noise")
        refused(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path, value):
    waveform = noise()
    waveform[1, 17] = value
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(fmt_chunk(3, 2, 16000, 32), encode(waveform, 3, 32)))
    refused(path, "samples:NaN or infinite")
    with pytest.raises(ValueError, match="NaN"):
        write_wav(tmp_path / "b.wav", waveform, 16000)


def test_float_files_beyond_full_scale(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, noise() * 1.5, 16000, "FLOAT")
    assert np.array_equal(read_audio(path)[0], np.clip(noise() * np.float32(1.5), -1, 1))
    write_wav(path, noise() * 20000, 16000, "FLOAT")
    refused(path, "samples:divide by full scale")


def test_a_long_promise_is_not_allocated(tmp_path):
    """A sparse file that really is 6 GB long, and a FLAC header that promises 2^35 samples."""
    path = tmp_path / "long.wav"
    with open(path, "wb") as file:
        file.write(wav_bytes(fmt_chunk(1, 64, 16000, 16), b"", promised=3 * 2**30))
        file.truncate(3 * 2**30 + 100)
    flac = tmp_path / "long.flac"
    sf.write(flac, noise(1, 5000).T, 16000)
    data = bytearray(flac.read_bytes())
    data[21] |= 0x0F
    flac.write_bytes(data)
    tracemalloc.start()
    refused(path, "samples:too long")
    assert read_audio(path, seconds=0.1)[0].shape == (64, 1600)
    with pytest.raises(ValueError, match=str(flac)):
        read_audio(flac)
    with pytest.raises(ValueError, match=str(flac)):
        read_audio(flac, seconds=10.0)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_mutated_headers_never_change_what_is_heard(tmp_path):
    """One wrong byte in a plain WAV header: an error, or the same samples."""
    path = tmp_path / "a.wav"
    write_wav(path, noise(3, 300), 16000)
    healthy = path.read_bytes()
    expected = read_audio(path)[0]
    for place in range(44):
        for value in range(0, 256, 15):
            data = bytearray(healthy)
            data[place] = value
            path.write_bytes(data)
            try:
                waveform, rate = read_audio(path)
            except ValueError:
                continue
            assert rate == 16000, (place, value)
            kept = waveform.shape[1]
            assert np.array_equal(waveform, expected[:, :kept]), (place, value)
            assert kept == 300, (place, value)


@pytest.mark.parametrize(
    ("rate", "bits"),
    [
        (8000, "PCM_16"),
        (16000, "PCM_S8"),
        (44100, "PCM_24"),
        (12000, "PCM_16"),
        (13333, "PCM_24"),
        (96010, "PCM_16"),
    ],
)
def test_one_wrong_bit_in_a_flac_header_never_changes_what_is_heard(tmp_path, rate, bits):
    path = tmp_path / "a.flac"
    sf.write(path, noise(3, 5000).T, rate, subtype=bits)
    healthy = path.read_bytes()
    expected, told = read_audio(path)
    assert told == rate
    for place in range(42):
        for bit in range(8):
            data = bytearray(healthy)
            data[place] ^= 1 << bit
            path.write_bytes(data)
            result, _ = outcome(read_audio, path)
            if result is not None:
                assert result[1] == rate, (place, bit)
                kept = result[0].shape[1]
                assert np.array_equal(result[0], expected[:, :kept]), (place, bit)
                assert kept == 5000, (place, bit)


def test_first_seconds_are_the_beginning(tmp_path):
    for container in ("WAV", "FLAC"):
        path = tmp_path / "a.any"
        sf.write(path, noise(2, 1000).T, 8000, format=container)
        whole = read_audio(path)[0]
        for seconds in (1e-9, 0.01, 0.0625, 0.125, 1.0):
            frames = min(1000, int(np.ceil(seconds * 8000)))
            assert np.array_equal(read_audio(path, seconds=seconds)[0], whole[:, :frames])
    for seconds in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive"):
            read_audio(path, seconds=seconds)


@pytest.mark.parametrize("shape", [(65, 10), (2, 3, 4), (0, 10)])
def test_only_waveforms_are_written(tmp_path, shape):
    with pytest.raises(ValueError, match="shape"):
        write_wav(tmp_path / "a.wav", np.zeros(shape), 16000)


def test_pcm_saturates_instead_of_wrapping(tmp_path):
    for subtype in ("PCM_16", "PCM_24", "PCM_32"):
        write_wav(tmp_path / "a.wav", np.array([[1.0, -1.0, 1.7, -1.7]]), 16000, subtype)
        assert read_audio(tmp_path / "a.wav")[0][0] == pytest.approx([1, -1, 1, -1], abs=2**-14)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, noise(), 16000)
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_wav(path, noise(), 16000, "NO_SUCH_CODING")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_clip_is_the_resampled_whole_cut(tmp_path, rate):
    path = tmp_path / "a.wav"
    write_wav(path, noise(4, 30000), 44100)
    whole = resample(read_audio(path)[0], 44100, rate)
    clip = load_clip(path, sample_rate=rate, seconds=0.25, channels=(3, 0, 0))
    assert clip.shape == (3, round(0.25 * rate))
    assert clip == pytest.approx(whole[[3, 0, 0], : round(0.25 * rate)], abs=1e-6)
    assert load_clip(path, sample_rate=rate, seconds=9).shape == whole.shape
    with pytest.raises(ValueError, match="channel 5"):
        load_clip(path, channels=(0, 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"seconds": s}, "seconds is") for s in (0, -1, -0.01, np.nan, np.inf, "1", True)),
        *(({"sample_rate": r}, "sample_rate is") for r in (0, -16000, np.nan, 100, 16000.5, 10**9, "16000")),
        *(({"channels": c}, "channels are") for c in ((), (-1,), (0, -1), (1.5,), ("a",), (64,), "ab")),
        ({"channels": (0, 2)}, "channel 3 is wanted, the file has 2"),
    ],
)
def test_what_no_clip_can_be_is_one_sentence(tmp_path, options, said):
    path = tmp_path / "a.wav"
    write_wav(path, noise(2, 4000), 16000)
    with pytest.raises(ValueError, match=said) as error:
        load_clip(path, **options)
    assert str(error.value).isprintable()
    whole = load_clip(path, sample_rate=np.int64(16000), seconds=np.float32(0.1), channels=np.array([1, 0]))
    assert np.array_equal(whole, read_audio(path)[0][::-1, :1600])
