import numpy as np
import pytest
import torch
from tiny_corpus import make_corpus, meta_row
from torch.utils.data import DataLoader

from remasc import ARRAYS, Corpus, read_audio
from remasc.audio import write_wav
from remasc.cache import PreparedCache
from remasc.dataset import Batch, Example, RecordingDataset, channels_of, collate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), clips=16)


@pytest.fixture(scope="module")
def cache(corpus, tmp_path_factory) -> PreparedCache:
    folder = tmp_path_factory.mktemp("cache")
    return PreparedCache.build(corpus, folder, sample_rate=16000, seconds=0.2, workers=1, progress=False)


def test_an_example_is_the_file(corpus):
    for array in ARRAYS:
        part = corpus.filter(array=array)
        for number, example in enumerate(RecordingDataset(part)):
            waveform, _ = read_audio(part[number].path)
            assert np.array_equal(example.waveform.numpy(), waveform)
            assert (example.number, example.label) == (number, int(part[number].label))
            assert example.waveform.dtype == torch.float32


def test_recordings_of_several_rates_need_one_named(corpus, tmp_path):
    both = corpus.filter(array=("D3", "D4"))
    with pytest.raises(ValueError, match=r"44100 Hz and core/\d+ at 16000 Hz; name a sample_rate") as error:
        RecordingDataset(both)
    assert "\n" not in str(error.value)
    cache = PreparedCache.build(both, tmp_path, sample_rate=None, seconds=0.2, workers=1, progress=False)
    with pytest.raises(ValueError, match="name a sample_rate"):
        RecordingDataset(both, seconds=0.2, cache=cache)
    assert len(RecordingDataset(both, sample_rate=16000)) == len(both)
    assert len(RecordingDataset(corpus.filter(array=("D1", "D2", "D3")))) == 18


def test_a_file_that_is_not_at_its_arrays_rate_does_not_mix_rates(tmp_path):
    corpus = make_corpus(tmp_path, clips=8).filter(array="D4")
    write_wav(corpus[0].path, np.zeros((7, 48000)), 48000)
    assert RecordingDataset(corpus)[0].waveform.shape == (7, 16000)


@pytest.mark.parametrize("array", ARRAYS)
def test_channels_come_in_the_order_of_the_paper(corpus, array):
    part = corpus.filter(array=array)
    waveform, _ = read_audio(part[0].path)
    order = ARRAYS[array].channel_order
    for count in range(1, len(order) + 1):
        taken = RecordingDataset(part, channels=count)[0].waveform.numpy()
        assert np.array_equal(taken, waveform[list(order[:count])])
        dummy = RecordingDataset(part, channels=count, dummy=True)[0].waveform.numpy()
        assert np.array_equal(dummy, np.repeat(waveform[:1], count, axis=0))
    assert len(RecordingDataset(part, dummy=True)[0].waveform) == len(order)
    named = RecordingDataset(part, channels=(1, 0))[0].waveform.numpy()
    assert np.array_equal(named, waveform[[1, 0]])


@pytest.mark.parametrize("channels", [None, 1, 2, (1, 0)])
@pytest.mark.parametrize("seconds", [0.1, 0.2])
@pytest.mark.parametrize("dummy", [False, True])
def test_the_cache_gives_what_decoding_gives(corpus, cache, channels, seconds, dummy):
    for part in (corpus, corpus.filter(subset="eval", array="D2")):
        options = {"sample_rate": 16000, "seconds": seconds, "channels": channels, "dummy": dummy}
        decoded = RecordingDataset(part, **options)
        cached = RecordingDataset(part, cache=cache, **options)
        for one, other in zip(decoded, cached, strict=True):
            assert one.label == other.label
            assert one.waveform.shape == other.waveform.shape
            assert torch.allclose(one.waveform, other.waveform, atol=1e-6)


def test_a_cache_that_cannot_give_what_is_wanted_is_refused(corpus, cache, tmp_path):
    for options, match in (
        ({"sample_rate": 44100, "seconds": 0.2}, "16000 Hz"),
        ({"sample_rate": 16000, "seconds": 0.5}, r"first 0\.2 s"),
        ({"sample_rate": 16000}, "longer cache"),
    ):
        with pytest.raises(ValueError, match=match):
            RecordingDataset(corpus, cache=cache, **options)
    one = PreparedCache.build(
        corpus[:2], tmp_path, sample_rate=None, seconds=None, channels=(0,), workers=1, progress=False
    )
    with pytest.raises(ValueError, match="all channels"):
        RecordingDataset(corpus[:2], channels=1, cache=one)
    with pytest.raises(ValueError, match=corpus[2].trial_id):
        RecordingDataset(corpus[:3], cache=one)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": np.nan}, "seconds is nan"),
        ({"seconds": -1}, "seconds is -1"),
        ({"channels": ()}, "channels are"),
        ({"channels": (0, -1)}, "channels are"),
        ({"channels": 0}, "0 cannot be taken"),
        ({"channels": (0, 2)}, "channel 3 is wanted"),
    ],
)
def test_what_no_clip_can_be_is_one_sentence_with_and_without_a_cache(corpus, cache, options, said):
    for source in (None, cache):
        options = {"sample_rate": 16000, "seconds": 0.1, **options}
        with pytest.raises(ValueError, match=said) as error:
            RecordingDataset(corpus.filter(array="D1"), cache=source, **options)[0]
        assert str(error.value).isprintable()


def test_a_cache_of_other_audio_is_refused(tmp_path):
    corpus = make_corpus(tmp_path / "corpus", clips=4)
    options = {"sample_rate": 16000, "seconds": 0.2}
    cache = PreparedCache.build(corpus, tmp_path / "cache", **options, workers=1, progress=False)
    write_wav(corpus[1].path, np.zeros((4, 9000)), 44100)
    with pytest.raises(ValueError, match=f"{corpus[1].file_id}.wav: changed since"):
        RecordingDataset(corpus, cache=cache, **options)
    RecordingDataset(corpus[2:], cache=cache, **options)


def test_collating_pads_time_and_microphones_and_loses_nothing(corpus):
    examples = list(RecordingDataset(corpus, sample_rate=16000))
    batch = collate(examples)
    assert len(batch) == len(examples)
    assert batch.waveform.shape == (len(examples), 7, max(e.waveform.shape[1] for e in examples))
    for row, example in enumerate(examples):
        mics, samples = example.waveform.shape
        assert torch.equal(batch.waveform[row, :mics, :samples], example.waveform)
        assert batch.waveform[row].count_nonzero() == example.waveform.count_nonzero()
        assert batch.microphones[row].tolist() == [True] * mics + [False] * (7 - mics)
        assert batch.lengths[row] == samples
    assert batch.labels.tolist() == [int(r.label) for r in corpus]
    assert batch.numbers.tolist() == list(range(len(corpus)))


def test_equal_shapes_need_no_padding():
    examples = [Example(torch.randn(3, 50), n % 2, n) for n in range(4)]
    batch = collate(examples)
    assert torch.equal(batch.waveform, torch.stack([e.waveform for e in examples]))
    assert batch.microphones.all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_visits_every_recording_once(corpus, cache, workers):
    dataset = RecordingDataset(corpus, sample_rate=16000, seconds=0.2, cache=cache)
    loader = DataLoader(dataset, batch_size=5, shuffle=True, collate_fn=collate, num_workers=workers)
    batches = list(loader)
    assert sorted(n for batch in batches for n in batch.numbers.tolist()) == list(range(len(corpus)))
    assert all(isinstance(batch.to("cpu"), Batch) for batch in batches)


def test_labels_need_no_file(tmp_path):
    rows = [meta_row(1, kind=1, device=-1), meta_row(2, kind=2), meta_row(3, kind=3)]
    (tmp_path / "meta.csv").write_text("\n".join(rows))
    corpus = Corpus.from_meta(tmp_path)
    assert RecordingDataset(corpus, sample_rate=16000).labels().tolist() == [-1, 1, 0]
    with pytest.raises(ValueError, match="rate of a source recording"):
        RecordingDataset(corpus)
    with pytest.raises(ValueError, match="no array"):
        channels_of(corpus[0], 2)
