"""One thread writes, another reads: nothing is lost unsaid, nothing is torn."""

import threading
import time

import numpy as np
import pytest

from streaming.capture import Capture


def counted(start, size, channels=2):
    """Samples that tell their own number, in every channel."""
    return np.repeat(np.arange(start, start + size, dtype=np.float32)[:, None], channels, axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_is_what_was_written(seed):
    g = np.random.default_rng(seed)
    capture, written, read = Capture(2, 1000), 0, []
    for _ in range(200):
        size = int(g.integers(0, 100))
        capture.write(counted(written, size))
        written += size
        if g.uniform() < 0.6 or written - sum(map(len, read)) > 800:
            block = capture.read()
            if block is not None:
                assert block.lost == 0
                read.append(block.samples[0])
    block = capture.read()
    read += [block.samples[0]] if block is not None else []
    assert capture.read() is None
    np.testing.assert_array_equal(np.concatenate(read), np.arange(written))


def test_a_loss_stands_where_it_happened():
    capture = Capture(2, 1000)
    capture.write(counted(0, 10))
    capture.write(counted(10, 10), lost=True)
    capture.write(counted(20, 10))
    capture.write(counted(30, 10), lost=True)
    blocks = [capture.read() for _ in range(3)]
    assert [(b.samples[0, 0], b.samples.shape[1], b.lost > 0) for b in blocks] == [
        (0, 10, False), (10, 20, True), (30, 10, True),
    ]  # fmt: skip
    assert capture.read() is None
    assert capture.overflows == 2


def test_a_loss_before_the_first_sample_is_told_with_it():
    capture = Capture(1, 100)
    capture.write(counted(0, 0, 1), lost=True)
    assert capture.read() is None
    capture.write(counted(0, 5, 1))
    assert capture.read().lost > 0
    capture.write(counted(5, 5, 1))
    assert capture.read().lost == 0


def test_who_reads_too_late_is_told_how_much_is_gone():
    capture = Capture(1, 100)
    capture.write(counted(0, 60, 1))
    capture.write(counted(60, 60, 1))
    gone = capture.read()
    assert (gone.samples.shape[1], gone.lost) == (0, 70)
    rest = capture.read()
    assert (rest.samples[0].tolist(), rest.lost) == (list(range(70, 120)), 0)
    assert capture.behind == 70


def test_two_threads():
    """Whatever the order of the threads: each block is in order, and the gaps between blocks are those told."""
    capture, total, size = Capture(2, 2000), 200_000, 50

    def write():
        for start in range(0, total, size):
            capture.write(counted(start, size))
            if start % 5000 == 0:
                time.sleep(0)

    writer, expected = threading.Thread(target=write), 0
    writer.start()
    while expected < total:
        block = capture.read()
        if block is None:
            continue
        expected += block.lost
        samples = block.samples
        np.testing.assert_array_equal(samples[0], np.arange(expected, expected + samples.shape[1]))
        np.testing.assert_array_equal(samples[0], samples[1])
        expected += samples.shape[1]
    writer.join()
    assert capture.read() is None
