"""Planes of a recording that becomes longer: the covariance of each frame is computed once.

What is relative to the clip (its loudest frames, its floor, its principal directions) is made of the covariances
that are kept, whenever planes are asked for: they are those of the recording so far, whatever parts it came in.
Shapes: M microphones, t samples, K bands, N frames. A front's own arrays (A) have frames among their axes.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import numpy as np

A = TypeVar("A")


class Front(Protocol[A]):
    """What makes the planes, of torch (`planes.Frames`) or of NumPy (`portable.Frames`)."""

    n_fft: int
    hop: int
    smooth: int
    min_frames: int

    def covariances(self, samples: np.ndarray) -> A:
        """Of the frames that lie wholly within (M, t) samples, not smoothed."""

    def smoothed(self, covariances: A) -> A: ...
    def shares(self, covariances: A) -> A:
        """What costs much and is each cell's own."""

    def joined(self, parts: list[A]) -> A: ...
    def cut(self, whole: A, start: int, stop: int) -> A: ...
    def planes(self, covariances: A, shares: A, least: float) -> np.ndarray:
        """(6, K, N) float32; `least` is the power that is none."""


class GrowingPlanes(Generic[A]):
    """`heard` takes the samples (M, t) that are new, at the planes' rate, and gives the planes of all of them.

    It keeps 50 frames a second, each of M x M numbers per band: 12 MB for 30 s of 7 microphones.
    """

    def __init__(self, front: Front[A], mics: int):
        self._front = front
        self._samples = np.zeros((mics, front.n_fft // 2), np.float32)  # that frames to come will need
        self._peak = 0.0
        self._fed = 0
        self._frames = 0  # that lie within what was fed
        self.certain = 0  # of those: frames whose covariances will stay
        self._begun: list[A] = []  # covariances not smoothed yet, and those before that smoothing takes in
        self._cells: list[tuple[A, A]] = []  # smoothed covariances and their shares

    def heard(self, samples: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(6, K, N) of a recording that so far ends with `samples` and then `rest`, (M, t) each.

        Samples stay what they are; the rest is heard in this place only, and said anew the next time.
        """
        front, reach = self._front, self._front.smooth // 2
        self._fed += samples.shape[1]
        missing = max(0, front.min_frames * front.hop - self._fed - rest.shape[1])
        end = np.zeros((len(rest), missing + front.n_fft // 2), np.float32)
        known = self._samples.shape[1] + samples.shape[1]
        samples = np.concatenate([self._samples, samples, rest, end], axis=1)
        count, certain = (max(0, (t - front.n_fft) // front.hop + 1) for t in (samples.shape[1], known))
        found = front.covariances(samples[:, : (count - 1) * front.hop + front.n_fft])
        begun = front.joined([*self._begun, found])

        smooth, frames = self.certain, self._frames + certain
        first = max(0, smooth - reach)  # the frame that `begun` begins with
        self.certain = max(0, frames - reach)
        covariances = front.cut(front.smoothed(begun), smooth - first, self._frames + count - first)
        shares = front.shares(covariances)
        made = [front.joined(list(parts)) for parts in zip(*self._cells, (covariances, shares), strict=True)]

        new = self.certain - smooth
        self._cells.append((front.cut(covariances, 0, new), front.cut(shares, 0, new)))
        self._begun = [front.cut(begun, max(0, self.certain - reach) - first, frames - first)]
        self._samples, self._frames = samples[:, certain * front.hop : known], frames
        self._peak = max(self._peak, float(np.abs(samples[:, :known]).max(initial=0.0)))
        peak = max(self._peak, float(np.abs(rest).max(initial=0.0)), 1e-9)
        return front.planes(*made, 1e-20 * 4.0 ** int(np.frexp(peak)[1]))
