"""What grows is judged as the whole of it: in any parts, after each of them, and each frame is heard once."""

import numpy as np
import pytest
import torch

import detector
from detector import quality
from detector.frontends import portable
from detector.frontends.growing import GrowingPlanes
from detector.frontends.planes import CovariancePlanes, Frames
from detector.growing import growing
from remasc.resampling import Resampler, resample

RATE = 16000


def recording(mics, samples, seed=0, noise=1e-2):
    """A source in syllables, later at each microphone, and the microphones' own noise."""
    g = np.random.default_rng([seed, mics])
    source = np.convolve(g.standard_normal(samples), [1, 0.9, 0.5], "same")
    source *= np.clip(np.sin(np.arange(samples) / 2500), 0, 1)
    x = 0.05 * np.stack([np.roll(source, 2 * m) for m in range(mics)])
    return (x + noise * g.standard_normal(x.shape)).astype(np.float32)


def cuts(g, samples, longest):
    """Ends of parts of 1 to `longest` samples."""
    ends = g.integers(1, longest + 1, samples).cumsum()
    return [*ends[ends < samples].tolist(), samples]


@pytest.mark.parametrize(
    ("one", "other"), [(44100, RATE), (48000, RATE), (8000, RATE), (RATE, RATE), (44101, RATE)]
)
@pytest.mark.parametrize("longest", [50, 3000, 100_000])
def test_resampling_in_parts_is_resampling(one, other, longest):
    x = recording(2, 12_000)
    resampler, made, here = Resampler(2, one, other), [], 0
    for end in cuts(np.random.default_rng(longest), x.shape[1], longest):
        certain, rest = resampler.feed(x[:, here:end])
        made, here = [*made, certain], end
        want = resample(x[:, :end], one, other)
        got = np.concatenate([*made, rest], axis=1)
        assert np.array_equal(got, want)


class Counting(Frames):
    """Counts the frames whose covariances are computed."""

    frames = 0

    def covariances(self, samples):
        found = super().covariances(samples)
        self.frames += found.shape[-1]
        return found


@pytest.mark.parametrize("mics", [1, 2, 7])
@pytest.mark.parametrize("longest", [300, 5000, 60_000])
def test_planes_in_parts_are_those_of_the_whole(mics, longest):
    """After every part, with samples at the end that are not certain yet; and each frame costs once."""
    x, front, g = recording(mics, 40_000, noise=3e-2), CovariancePlanes(), np.random.default_rng(longest)
    counting = Counting(front)
    growing_planes, certain, looks = GrowingPlanes(counting, mics), 0, 0
    for end in cuts(g, x.shape[1], longest)[:: 1 + 3000 // longest]:
        before, certain = certain, max(certain, end - int(g.integers(0, 200)))
        got = growing_planes.heard(x[:, before:certain], x[:, certain:end])
        want = front(torch.from_numpy(x[:, :end])[None])[0].numpy()
        looks += 1
        assert got.shape == want.shape
        gap = np.abs(got - want).max(axis=(1, 2))
        gap[2] /= 100  # what a nearly perfect source leaves is a small difference of large numbers
        assert gap.max() < 1e-5, (end, gap)
    assert counting.frames <= x.shape[1] // front.hop + 1 + looks * (200 // front.hop + 3 + front.min_frames)


@pytest.mark.parametrize("mics", [1, 2, 3, 8])
def test_planes_of_exports_are_those_of_the_whole_to_the_last_bit(mics):
    """For an export of 8 bits makes another score of another last digit."""
    settings = portable.PlaneSettings(**CovariancePlanes.settings())
    for seed in range(6):
        g = np.random.default_rng([seed, mics])
        x, here = recording(mics, int(g.integers(8000, 40_000)), seed, noise=1e-3), 0
        parts = GrowingPlanes(portable.Frames(settings), mics)
        for end in cuts(g, x.shape[1], 12_000):
            got, here = parts.heard(x[:, here:end], x[:, :0]), end
        assert np.array_equal(got, portable.planes(x, settings))


@pytest.mark.parametrize("gain", [1e-6, 0.1, 1.0])
def test_a_late_peak_moves_nothing(gain):
    """The whole is divided by its peak, which comes last."""
    x = recording(3, 30_000) * np.geomspace(gain, 1, 30_000, dtype=np.float32)
    front, parts = CovariancePlanes(), GrowingPlanes(Frames(CovariancePlanes()), 3)
    for start in range(0, 30_000, 6000):
        got = parts.heard(x[:, start : start + 6000], x[:, :0])
    want = front(torch.from_numpy(x)[None])[0].numpy()
    assert np.abs(got - want)[[0, 1, 3, 4, 5]].max() < 1e-5


@pytest.mark.parametrize("samples", [1, 4000, 40_000])
def test_silence_is_finite(samples):
    for mics in (1, 3):
        x = np.zeros((mics, samples), np.float32)
        got = GrowingPlanes(Frames(CovariancePlanes()), mics).heard(x, x[:, :0])
        assert np.abs(got - CovariancePlanes()(torch.from_numpy(x)[None])[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("name", ["edge", "default"])
@pytest.mark.parametrize(("mics", "rate"), [(7, 44100), (2, 48000), (1, RATE)])
def test_a_growing_command_is_judged_as_offline(name, mics, rate):
    offline = detector.load(name)
    one, x = growing(offline), recording(mics, 2 * rate)
    assert one is not offline
    for end in (rate // 3, rate, rate + 1, round(1.7 * rate), 2 * rate):
        got, want = one.judge(x[:, :end], rate), offline.judge(x[:, :end], rate)
        assert abs(got.score - want.score) <= 1e-5 * max(1, abs(want.score)), end
        assert (got.decision, got.reason) == (want.decision, want.reason)


def test_what_hears_no_planes_is_given_back():
    from tests.test_online import Cheap

    class Another(detector.Detector):
        """Judges in a way of its own."""

    edge = detector.load("edge")
    watched = detector.load("edge")
    watched.judge = lambda *recording, **options: edge.judge(*recording, **options)
    for other in (Cheap(), None, Another(edge.network, edge.config, edge.run), watched):
        assert growing(other) is other


@pytest.mark.parametrize(
    "fault", ["", "clipped", "copied", "gated", "dead", "silent", "click", "narrow", "long"]
)
def test_faults_are_found_in_parts_as_in_the_whole(fault):
    x, rate, g = recording(3, 2 * RATE, noise=2e-3), RATE, np.random.default_rng(len(fault))
    if fault == "clipped":
        x[1] = np.clip(60 * x[1], -1, 1)
    elif fault == "copied":
        x[2] = x[0]
    elif fault == "gated":
        x[:, 9000:9700] = 0
    elif fault == "dead":
        x[1] = 0.25
    elif fault == "silent":
        x *= 1e-5
    elif fault == "click":
        x[:, 12_000:12_100] *= 1e4
        x /= np.abs(x).max()
    elif fault == "narrow":
        rate = 8000
    elif fault == "long":
        x = np.tile(x, 16)
    faults, here, said = quality.Faults(3, rate), 0, set()
    for end in cuts(g, x.shape[1], 9000):
        faults.feed(x[:, here:end])
        here = end
        said.add(quality.fault(x[:, :end], rate))
        assert faults.first() == quality.fault(x[:, :end], rate), end
    assert (fault == "") == (faults.first() is None), said
    assert faults.first(4) == "channels"
