import pytest
import torch

from detector import examples
from detector.examples import PlaneExamples
from detector.frontends.planes import CovariancePlanes
from remasc import read_audio
from remasc.audio import resample
from tests.tiny_corpus import make_corpus


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return list(make_corpus(tmp_path_factory.mktemp("corpus"), clips=12, seconds=0.6).trials())


def build(recordings, folder, **options):
    return PlaneExamples.build(recordings, folder, workers=1, progress=False, **options)


def test_an_example_is_the_front_end_of_its_recording(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "SHARD", 5)
    prepared = build(recordings, tmp_path, seconds=0.5)
    assert len(prepared) == len(recordings)
    assert prepared.labels.tolist() == [int(r.label) for r in recordings]
    for i in (0, 4, 5, len(recordings) - 1):
        waveform, rate = read_audio(recordings[i].path, seconds=0.5)
        planes = CovariancePlanes()(torch.from_numpy(resample(waveform, rate, 16000))[None])[0]
        torch.testing.assert_close(prepared[i], planes, rtol=1e-3, atol=5e-3)  # kept as float16
    with pytest.raises(IndexError):
        prepared[len(prepared)]


def test_what_is_prepared_is_not_prepared_again(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "SHARD", 5)
    first = [build(recordings, tmp_path)[i] for i in range(len(recordings))]
    folder = next(tmp_path.iterdir())
    (folder / "0000005.json").unlink()  # as if killed before the second shard was complete
    built = []
    monkeypatch.setattr(examples, "_build_shard", lambda *job: built.append(job[-1]) or original(*job))
    again = build(recordings, tmp_path)
    assert built == [5]
    assert all(torch.equal(a, again[i]) for i, a in enumerate(first))


@pytest.mark.parametrize(
    "damage", [b"", b"[1, 2", b"[" * 50_000, b"{}", b"7", b'["a"]', b"[1]", b"\xff", b"\x93NUMPY\1\0"]
)
@pytest.mark.parametrize("name", ["0000000.json", "0000000.npy"])
def test_a_damaged_shard_is_made_again(recordings, tmp_path, damage, name):
    first = build(recordings[:3], tmp_path)[2]
    (next(tmp_path.iterdir()) / name).write_bytes(damage)
    assert torch.equal(build(recordings[:3], tmp_path)[2], first)


original = examples._build_shard


def test_other_files_and_other_settings_are_prepared_apart(recordings, tmp_path):
    build(recordings, tmp_path)
    build(recordings, tmp_path, seconds=0.4)
    build(recordings[1:], tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_callers_threads_stay_his(recordings, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        build(recordings, tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
