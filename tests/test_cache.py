import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_corpus import make_corpus, outcome

import remasc.cache
from remasc import Corpus
from remasc.audio import load_clip, read_audio, write_wav
from remasc.cache import PreparedCache

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), clips=24)


@pytest.fixture
def small_shards(monkeypatch):
    for module in (remasc.cache, remasc.shards):
        monkeypatch.setattr(module, "SHARD", 5)


def build(corpus, folder, **changes) -> PreparedCache:
    options = {"sample_rate": None, "seconds": 0.2, "workers": 1, "progress": False, **changes}
    return PreparedCache.build(corpus, folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("rate", [None, 16000])
@pytest.mark.parametrize("seconds", [0.2, None])
@pytest.mark.parametrize("channels", [None, (0,), (1, 0, 0)])
def test_a_cached_clip_is_the_decoded_clip_bit_for_bit(corpus, tmp_path, rate, seconds, channels):
    cache = build(corpus, tmp_path / "cache", sample_rate=rate, seconds=seconds, channels=channels)
    assert len(cache) == len(corpus)
    for recording, clip, length in zip(corpus, cache, cache.lengths, strict=True):
        expected = load_clip(recording.path, sample_rate=rate, seconds=seconds, channels=channels)
        assert clip.dtype == np.float32
        assert np.array_equal(clip, expected)
        assert length == clip.shape[1]
    assert cache.channels.tolist() == [len(clip) for clip in cache]
    cache.verify()


def test_sixteen_bit_sound_takes_two_bytes_a_sample(corpus, tmp_path):
    d1 = build(corpus.filter(array="D1"), tmp_path / "d1")
    d3 = build(corpus.filter(array="D3"), tmp_path / "d3")
    for cache, width in ((d1, 2), (d3, 4)):
        samples = int((cache.channels * cache.lengths).sum())
        assert os.path.getsize(cache.folder / "shard-00000.bin") == pytest.approx(width * samples, abs=64)


def test_full_scale_and_silence_survive(tmp_path):
    waveform = np.array([[1.0, -1.0, 0.0, 2**-15], [0, 0, 0, 0]], np.float32)
    corpus = make_corpus(tmp_path, clips=4)[:1]
    for subtype in ("FLOAT", "PCM_16"):
        write_wav(corpus[0].path, np.tile(waveform, 1000), 44100, subtype)
        clip = build(corpus, tmp_path / subtype)[0]
        assert np.array_equal(clip, read_audio(corpus[0].path, seconds=0.2)[0])


def test_indexing_is_that_of_a_sequence(corpus, tmp_path):
    cache = build(corpus, tmp_path / "cache")
    assert np.array_equal(cache[-1], cache[len(cache) - 1])
    cache[0][:] = 7  # a copy, never the file
    assert cache[0].max() < 1
    for number in (len(cache), -len(cache) - 1):
        with pytest.raises(IndexError):
            cache[number]
    assert [cache.number(r.trial_id) for r in corpus] == list(range(len(corpus)))
    with pytest.raises(ValueError, match="core/404"):
        cache.number("core/404")


@pytest.mark.usefixtures("small_shards")
def test_workers_and_resumption_give_the_same_bytes(corpus, tmp_path):
    build(corpus, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert len([name for name in whole if name.endswith(".bin")]) == 8
    build(corpus, tmp_path / "interrupted")
    for name in ("shard-00002.bin", "shard-00005.json"):
        (tmp_path / "interrupted" / name).unlink()
    (tmp_path / "interrupted" / "shard-00006.bin").write_bytes(b"half")
    damaged = bytearray(whole["shard-00001.bin"])
    damaged[100] ^= 1  # the size is right, the checksum is not
    (tmp_path / "interrupted" / "shard-00001.bin").write_bytes(damaged)
    (tmp_path / "interrupted" / ".shard-00003.xyz.partial.bin").write_bytes(b"left over")
    build(corpus, tmp_path / "interrupted")
    assert contents(tmp_path / "interrupted") == whole


def test_several_processes_give_the_same_bytes(corpus, tmp_path, monkeypatch):
    build(corpus, tmp_path / "one")
    build(corpus, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.usefixtures("small_shards")
def test_a_finished_cache_is_not_built_again_until_a_source_changes(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=16)
    cache = build(corpus, tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in cache.folder.glob("shard*")}
    build(corpus, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in cache.folder.glob("shard*")} == before
    write_wav(corpus[7].path, np.zeros((7, 900)), 16000)
    cache = build(corpus, tmp_path / "cache")
    changed = {p.name for p, time_ns in before.items() if p.stat().st_mtime_ns != time_ns}
    assert changed == {"shard-00001.bin", "shard-00001.json"}
    assert not cache[7].any()


def test_a_finished_cache_needs_no_corpus(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=8)
    cache = build(corpus, tmp_path / "cache")
    expected = list(cache)
    shutil.rmtree(tmp_path / "corpus")
    again = PreparedCache.open(tmp_path / "cache", recordings=corpus, seconds=0.2)
    assert all(np.array_equal(*pair) for pair in zip(again, expected, strict=True))
    build(corpus, tmp_path / "cache")


@pytest.mark.usefixtures("small_shards")
def test_audio_that_changed_behind_a_finished_cache_is_noticed(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=16)
    build(corpus, tmp_path / "cache")
    cache = PreparedCache.open(tmp_path / "cache", recordings=corpus)
    data, status = corpus[7].path.read_bytes(), corpus[7].path.stat()
    corpus[2].path.unlink()  # a missing neighbour hides nothing
    for change in (
        lambda: write_wav(corpus[7].path, np.zeros((7, 900)), 16000),  # another size
        lambda: (corpus[7].path.write_bytes(data[:-2] + b"\1\1"), os.utime(corpus[7].path)),  # another time
    ):
        change()
        for attempt in (
            lambda: PreparedCache.open(tmp_path / "cache", recordings=corpus),
            lambda: cache.check_sources(corpus[5:9]),
        ):
            with pytest.raises(ValueError, match=f"{corpus[7].file_id}.wav: changed since") as error:
                attempt()
            assert "\n" not in str(error.value)
    PreparedCache.open(tmp_path / "cache")  # who gives no recordings asks for none to be compared
    corpus[7].path.write_bytes(data)
    os.utime(corpus[7].path, ns=(status.st_atime_ns, status.st_mtime_ns))
    PreparedCache.open(tmp_path / "cache", recordings=corpus)


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_clip_is_noticed_when_it_is_read(corpus, tmp_path):
    cache = build(corpus, tmp_path / "cache")
    expected = list(cache)
    path = tmp_path / "cache" / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    cache = PreparedCache.open(tmp_path / "cache", recordings=corpus)
    found = [number for number in range(len(cache)) if outcome(cache.__getitem__, number)[1]]
    assert len(found) == 1
    assert 5 <= found[0] < 10
    for attempt in (lambda: cache[found[0]], lambda: cache.batch([0, found[0]]), cache.verify):
        with pytest.raises(ValueError, match=f"shard-00001.bin: damaged.*{corpus[found[0]].trial_id}"):
            attempt()
    path.unlink()  # as the sentence says
    assert all(np.array_equal(*pair) for pair in zip(build(corpus, cache.folder), expected, strict=True))


@pytest.mark.parametrize(
    "change", [{"sample_rate": 8000}, {"seconds": 0.1}, {"channels": (0,)}, {"seconds": None}]
)
def test_other_parameters_are_an_error(corpus, tmp_path, change):
    build(corpus, tmp_path / "cache")
    key = next(iter(change))
    for attempt in (
        lambda: build(corpus, tmp_path / "cache", **change),
        lambda: PreparedCache.open(tmp_path / "cache", **change),
    ):
        with pytest.raises(ValueError, match=f"prepared with {key}"):
            attempt()
    PreparedCache.open(tmp_path / "cache", sample_rate=None, seconds=0.2, channels=None)


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": -1}, {"seconds": np.nan}, {"sample_rate": 0}, {"channels": ()}, {"channels": ("x",)}],
)
def test_impossible_parameters_leave_nothing_behind(corpus, tmp_path, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} (is|are) .*; expected"):
        build(corpus, tmp_path / "cache", **wrong)
    assert not (tmp_path / "cache").exists()


def test_a_batch_is_its_clips_padded_with_zeros(corpus, tmp_path):
    cache = build(corpus, tmp_path / "cache")
    numbers = [5, 2, 3, 3]
    batch = cache.batch(numbers)
    assert batch.shape == (4, cache.channels[numbers].max(), cache.lengths[numbers].max())
    buffer = np.full((4, 9, 10_000), 5, np.float32)
    assert cache.batch(numbers, out=buffer) is buffer
    for n, row, wide in zip(numbers, batch, buffer, strict=True):
        mics, samples = cache[n].shape
        for padded in (row, wide):
            assert np.array_equal(padded[:mics, :samples], cache[n])
            assert np.count_nonzero(padded) == np.count_nonzero(cache[n])
    with pytest.raises(ValueError):
        cache.batch(numbers, out=buffer[:2])


def test_other_recordings_are_an_error(corpus, tmp_path):
    build(corpus, tmp_path / "cache")
    for other in (corpus[:-1], corpus.replace(reversed(corpus.recordings))):
        with pytest.raises(ValueError, match="prepared with"):
            PreparedCache.open(tmp_path / "cache", recordings=other)
    with pytest.raises(ValueError, match="at least one"):
        build([], tmp_path / "nothing")


def test_a_bad_file_is_named_and_the_rest_is_kept(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=8)
    healthy = corpus[5].path.read_bytes()
    corpus[5].path.write_bytes(healthy[:100])
    with pytest.raises(ValueError, match=corpus[5].file_id):
        build(corpus, tmp_path / "cache")
    with pytest.raises(ValueError, match="not finished"):
        PreparedCache.open(tmp_path / "cache")
    corpus[5].path.write_bytes(healthy)
    assert len(build(corpus, tmp_path / "cache")) == len(corpus)


def test_opening_what_is_no_cache(tmp_path):
    with pytest.raises(ValueError, match="no prepared cache"):
        PreparedCache.open(tmp_path)


def test_a_cache_travels_to_other_processes(corpus, tmp_path):
    cache = build(corpus, tmp_path / "cache")
    expected = cache[3]  # its shard is mapped now
    data = pickle.dumps(cache)
    assert len(data) < 20_000
    assert np.array_equal(pickle.loads(data)[3], expected)


def test_reading_needs_no_more_memory_than_what_is_read(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=60, seconds=1.0)
    cache = build(corpus, tmp_path / "cache", seconds=1.0)
    largest = max(clip.nbytes for clip in cache)
    size = sum(path.stat().st_size for path in cache.folder.glob("*.bin"))
    cache = PreparedCache.open(cache.folder)
    tracemalloc.start()
    for number in np.random.default_rng(0).permutation(len(cache)):
        cache[int(number)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * largest + 100_000 < size


KILLED = """
import sys
import remasc.cache, remasc.shards
remasc.cache.SHARD = remasc.shards.SHARD = 2
from remasc import Corpus
from remasc.cache import PreparedCache
corpus = Corpus.from_meta(sys.argv[1])
print("started", flush=True)
PreparedCache.build(corpus, sys.argv[2], sample_rate=16000, seconds=0.4, workers=1, progress=False)
print("finished", flush=True)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards")
def test_killed_at_any_moment_and_built_again_is_the_same(tmp_path, monkeypatch):
    for module in (remasc.cache, remasc.shards):
        monkeypatch.setattr(module, "SHARD", 2)
    corpus = make_corpus(tmp_path / "corpus", clips=40, seconds=0.6)
    options = {"sample_rate": 16000, "seconds": 0.4, "workers": 1, "progress": False}
    PreparedCache.build(corpus, tmp_path / "whole", **options)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4)))
    command = [sys.executable, "-c", KILLED, str(corpus.root), str(tmp_path / "killed")]
    kills = 0
    for _ in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout.readline() == "started\n"
            time.sleep(rng.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
            kills += process.stdout.read() != "finished\n"
        for path in (tmp_path / "killed").glob("[!.]*.json"):  # nothing under its final name is half written
            json.loads(path.read_text())
    assert kills
    PreparedCache.build(corpus, tmp_path / "killed", **options).verify()
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
