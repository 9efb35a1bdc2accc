"""What was exported judges as what it was exported from, and without torch."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import detector
from detector.frontends.planes import CovariancePlanes
from detector.frontends.portable import SCALE, planes
from detector.runtime import FORMAT, MANIFEST, MOVED, NETWORK, Looks, OnnxDetector, is_exported, seal
from remasc import read_audio
from streaming import StreamingDetector, listen
from streaming.sources import ArraySource

onnx = pytest.importorskip("onnx", reason="needs the extra `export`: onnx, onnxscript, onnxruntime")
pytest.importorskip("onnxruntime", reason="needs the extra `export`: onnx, onnxscript, onnxruntime")
ROOT = Path(__file__).parent.parent


def command(seed=0, mics=7, seconds=1.5, rate=16000, noise=2e-3):
    g = np.random.default_rng(seed)
    n = round(seconds * rate)
    voice = np.convolve(g.standard_normal(n), [1, 0.9, 0.5], "same")
    voice *= np.clip(np.sin(np.linspace(0, 2 * np.pi * 2.5, n)), 0, 1) * (np.arange(n) > 0.2 * rate)
    x = 0.05 * np.stack([np.roll(voice, m % 3) for m in range(mics)]) + noise * g.standard_normal((mics, n))
    return x.astype(np.float32)


def stream(mics=7, rate=16000):
    pause = 2e-3 * np.random.default_rng(9).standard_normal((mics, 2 * rate)).astype(np.float32)
    return np.concatenate(
        [pause, command(1, mics, rate=rate), pause, command(2, mics, rate=rate), pause], axis=1
    )


def mean_network():
    """As small as can be: ten times the mean of all planes so far. It keeps their sum, and every frame."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("ReduceSum", ["planes", "axes"], ["added"], keepdims=0),
        helper.make_node("Unsqueeze", ["added", "last"], ["more"]),
        helper.make_node("Add", ["state", "more"], ["next"]),
        helper.make_node("Squeeze", ["next", "last"], ["sum"]),
        helper.make_node("Cast", ["lengths"], ["count"], to=kinds.FLOAT),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Mul", ["mean", "scale"], ["score"]),
        helper.make_node("Add", ["lengths", "zero"], ["kept"]),
    ]
    given = [("planes", kinds.FLOAT, ["B", 6, 40, "n"]), ("lengths", kinds.INT64, ["B"]),
             ("frames", kinds.INT64, ["B"]), ("state", kinds.FLOAT, ["B", 1])]  # fmt: skip
    made = [("score", kinds.FLOAT, ["B"]), ("kept", kinds.INT64, ["B"]), ("next", kinds.FLOAT, ["B", 1])]
    constants = [("axes", kinds.INT64, [3], [1, 2, 3]), ("last", kinds.INT64, [1], [1]),
                 ("scale", kinds.FLOAT, [], [10 / 240]), ("zero", kinds.INT64, [1], [0])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "mean", [helper.make_tensor_value_info(*one) for one in given],
        [helper.make_tensor_value_info(*one) for one in made], [helper.make_tensor(*one) for one in constants],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()


def write_export(folder, **changes):
    """An export by hand, sealed as it should be, with some entries changed."""
    import hashlib

    content = changes.pop("network", None) or mean_network()
    manifest = {
        "format": FORMAT,
        "precision": "float32",
        "specification": {"system": "compact", "sample_rate": 16000, "arrays": ["D4"], "max_mics": 16},
        "planes": CovariancePlanes.settings(),
        "run": {"threshold": {"score": 0.5, "p_fa": 0.05}, "calibration": {"slope": 1.0, "offset": 0.0}},
        "sha256": hashlib.sha256(content).hexdigest(),
    } | changes
    manifest = {"seal": seal(manifest)} | manifest
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("export") / "small")


def test_an_export_is_a_detector_like_any_other(small):
    assert is_exported(small)
    loaded = detector.load(small)
    assert isinstance(loaded, OnnxDetector)
    judged = loaded.judge(command(), 16000, "D4")
    heard = CovariancePlanes()(torch.from_numpy(command())[None])
    assert judged.score == pytest.approx(10 * float(heard.mean()), abs=1e-4)
    assert judged.llr == pytest.approx(judged.score)
    assert judged.decision == ("genuine" if judged.score >= 0.5 else "replay")
    assert loaded.judge(np.zeros((7, 16000)), 16000, "D4").reason == "silent"
    assert loaded.judge(command(mics=2), 16000, "D4").reason == "channels"


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_stream_ends_with_what_offline_says(small, rate):
    loaded = detector.load(small)
    x = stream(rate=rate)
    finals = [d for d in listen(ArraySource(x, rate), StreamingDetector(loaded, "D4", rate)) if d.final]
    assert len(finals) == 2
    for d in finals:
        offline = loaded.judge(x[:, round(d.start * rate) : round(d.end * rate)], rate, "D4")
        assert abs(d.score - offline.score) <= 1e-5 * max(1, abs(offline.score))


WITHOUT_TORCH = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchaudio", "scipy", "onnx", "sklearn", "librosa"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import json, numpy as np
from streaming import StreamingDetector
rate = 44100
ears = StreamingDetector(sys.argv[1], "D4", rate)
x, finals = np.load(sys.argv[2]), []
for start in range(0, x.shape[1], 441):
    finals += [d.as_dict() for d in ears.feed(x[:, start : start + 441]) if d.final]
finals += [d.as_dict() for d in ears.flush()]
held = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"finals": finals, "mib": int(held.split()[1]) / 1024}))
"""


def without_torch(folder, tmp_path):
    x = stream(rate=44100)
    np.save(tmp_path / "x.npy", x)
    call = [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(tmp_path / "x.npy")]
    out = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)
    assert out.returncode == 0, out.stderr
    return x, json.loads(out.stdout)


def test_it_hears_without_torch(small, tmp_path):
    x, told = without_torch(small, tmp_path)
    loaded = detector.load(small)
    assert len(told["finals"]) == 2
    for d in told["finals"]:
        want = loaded.score(x[:, round(d["start"] * 44100) : round(d["end"] * 44100)], 44100, "D4")
        assert abs(d["score"] - want) <= 1e-5 * max(1, abs(want))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 9}, "format 9"),
        ({"format": 1}, "format 1; this version reads 2, export the detector anew"),
        ({"seal": "0"}, "altered"),
        ({"sha256": "0"}, "not the file"),
        ({"planes": CovariancePlanes.settings() | {"version": 99}}, "version 99"),
        ({"planes": {}}, "does not fit"),
        ({"planes": CovariancePlanes.settings() | {"sample_rate": 8000}}, "another sample rate"),
        ({"network": b"no network"}, "onnxruntime cannot open"),
        ({"specification": {}}, "specification"),
        ({"run": {"threshold": {"score": "x", "p_fa": 0}}}, "threshold"),
        ({"run": []}, "does not fit"),
    ],
)
def test_what_is_damaged_is_one_sentence(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        detector.load(write_export(tmp_path / "x", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', "[" * 100_000])
def test_a_manifest_that_is_none_is_one_sentence(tmp_path, text):
    folder = write_export(tmp_path / "x")
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match="anew"):
        detector.load(folder)


def test_a_half_copied_export_is_one_sentence(tmp_path):
    folder = write_export(tmp_path / "x")
    (folder / NETWORK).unlink()
    with pytest.raises(ValueError, match="not there"):
        detector.load(folder)


def test_the_command_refuses_what_cannot_be(small, tmp_path, capsys):
    import replayguard

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for arguments, words in (
        (["--out", str(tmp_path / "a"), "--int8"], "--corpus"),
        (["--out", str(tmp_path / "a"), "--corpus", str(tmp_path)], "--int8"),
        (["--out", str(tmp_path / "full")], "something else"),
        (["--out", str(tmp_path / "a"), "--detector", str(small)], "an export already"),
    ):
        assert replayguard.main(["export", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


class Adding:
    """In the place of `Stream`: the mean of all planes; counts the frames that it was given."""

    def __init__(self, given):
        self.given, self.sum, self.count = given, 0.0, 0

    def feed(self, planes):
        self.given.append(planes.shape[-1])
        self.sum, self.count = self.sum + planes.sum(), self.count + planes[0].size
        return self.sum / self.count

    def score(self, rest):
        self.given.append(rest.shape[-1])
        return (self.sum + rest.sum()) / (self.count + rest[0].size)


def test_looks_go_on_where_the_last_one_ended():
    """Each frame is heard a few times in all, however many looks there are."""
    heard, given = np.random.default_rng(0).standard_normal((6, 40, 1500)).astype(np.float32), []
    looks = Looks(SimpleNamespace(stream=lambda: Adding(given)))
    for end in range(60, 1500, 20):
        got = looks.score(heard[..., :end], end - 3)
        assert got == pytest.approx(heard[..., :end].sum() / heard[0, :, :end].size, abs=1e-5)
    assert sum(given) < 5 * 1500


@pytest.mark.parametrize(("step", "anew"), [(0.01, False), (1.5 * MOVED, True)])
def test_looks_hear_all_anew_where_the_level_has_moved(step, anew):
    heard, given = np.random.default_rng(1).standard_normal((6, 40, 200)).astype(np.float32), []
    looks = Looks(SimpleNamespace(stream=lambda: Adding(given)))
    looks.score(heard[..., :150], 147)
    moved = heard.copy()
    moved[0] -= step / SCALE[0]
    got, given[:] = looks.score(moved, 197), given[2:]
    assert sum(given) == (200 if anew else 53)
    gap = abs(got - moved.sum() / moved[0].size)
    assert gap < (1e-6 if anew else step / SCALE[0])


# ---- the real network: torch.onnx takes its time


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("onnxscript", reason="needs the extra `export`: onnx, onnxscript, onnxruntime")
    from detector.export import export

    return export("default", tmp_path_factory.mktemp("exported") / "default", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("mics", [1, 2, 4, 7, 16])
def test_the_bundled_detector_is_exported_as_it_is(exported, mics):
    one, other = detector.load(exported), detector.load("default")
    assert (one.threshold, one.calibration) == (other.threshold, other.calibration)
    assert one.specification == other.specification
    for seed in range(4):
        # almost without noise float32 itself holds no more of what a single source leaves
        for noise, tolerance in ((1e-2, 1e-5), (2e-3, 1e-4)):
            x = command(seed, mics, 0.7 + seed, noise=noise)
            got, want = one.judge(x, 16000), other.judge(x, 16000)
            assert abs(got.score - want.score) <= tolerance * max(1, abs(want.score)), (mics, seed, noise)
            assert got.decision == want.decision


@pytest.mark.slow
def test_a_batch_is_its_items(exported):
    beginning = detector.load(exported).stream()
    heard, lengths = np.random.default_rng(0).standard_normal((3, 6, 40, 92)).astype(np.float32), (92, 40, 17)
    alone = [beginning.inputs(item[..., :length]) for item, length in zip(heard, lengths, strict=True)]
    together = {name: np.concatenate([one[name] for one in alone]) for name in ("lengths", "frames", "state")}
    names, session = ["score", "kept", "next"], detector.load(exported).session
    found = session.run(names, together | {"planes": heard})
    for item, one in enumerate(alone):
        for all_of_it, part in zip(found, session.run(names, one), strict=True):
            assert np.abs(all_of_it[item] - part[0]).max() < 1e-4, item


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_a_growing_command_is_scored_as_all_of_it(exported, seed):
    """After every chunk, of any size; what is kept has one size."""
    network, loaded = detector.load("default").network, detector.load(exported)
    g = np.random.default_rng(seed)
    heard = planes(command(seed, 1 + seed, 1 + seed, noise=1e-2), loaded.planes)
    growing, at, sizes = loaded.stream(), 0, set()
    while at < heard.shape[-1]:
        size = int(g.integers(1, (2, 9, 40, 1000)[seed % 4]))
        score, at = growing.feed(heard[..., at : at + size]), min(at + size, heard.shape[-1])
        sizes.add(growing.state.size)
        assert growing.waiting.shape[-1] < 4
        if at >= 16:
            with torch.inference_mode():
                logits = network.logits(torch.from_numpy(heard[None, ..., :at]))[0].tolist()
            assert abs(score - (logits[0] - logits[1])) <= 1e-5 * max(1, abs(logits[0] - logits[1])), (
                seed,
                at,
            )
    assert len(sizes) == 1


@pytest.mark.slow
def test_an_export_streams_as_it_judges(exported):
    """Final decisions are offline's; looks are near them, and know nothing of what follows."""
    loaded, x = detector.load(exported), stream(rate=44100)
    said = list(listen(ArraySource(x, 44100), StreamingDetector(loaded, "D4", 44100)))
    assert [d.final for d in said].count(True) == 2
    assert len(said) > 2
    for d in said:
        offline = loaded.judge(x[:, round(d.start * 44100) : round(d.end * 44100)], 44100, "D4")
        assert abs(d.score - offline.score) <= (1e-5 if d.final else 0.5) * max(1, abs(offline.score))
        assert d.final or d.genuine is None


@pytest.mark.slow
def test_the_exported_detector_needs_little_memory(exported, tmp_path):
    _, told = without_torch(exported, tmp_path)
    assert len(told["finals"]) == 2
    assert told["mib"] <= 150


@pytest.mark.slow
def test_an_export_may_be_written_again(exported, tmp_path):
    import shutil

    from detector.export import export

    folder = tmp_path / "again"
    shutil.copytree(exported, folder)
    (folder / NETWORK).write_bytes(b"torn")
    export("default", folder, progress=False)
    assert detector.load(folder).sha256 == detector.load(exported).sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again"]


@pytest.mark.slow
def test_eight_bits_have_a_threshold_of_their_own(tmp_path):
    from detector.export import export
    from tests.tiny_corpus import make_corpus

    corpus = make_corpus(tmp_path / "corpus", clips=32, seconds=1.2)
    folder = export("default", tmp_path / "int8", int8=corpus.root, progress=False)
    manifest = json.loads((folder / MANIFEST).read_text())
    plain = detector.load("default")
    assert manifest["precision"] == "int8"
    assert (folder / NETWORK).stat().st_size < 0.5e6
    assert 0 <= manifest["int8"]["dev_eer_int8"] <= 1
    assert 0 <= manifest["int8"]["dev_eer_float32"] <= 1
    one, gaps = detector.load(folder), []
    for recording in corpus.trials():
        waveform, rate = read_audio(recording.path)
        gaps.append(one.score(waveform, rate) - plain.score(waveform, rate))
    assert np.median(np.abs(gaps)) < 1.0
    assert one.threshold != plain.threshold
