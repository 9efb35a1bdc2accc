"""An exported detector: ONNX for the network, NumPy for what comes before it; torch is not imported.

An export is a folder: `detector.json` (specification, planes, calibration, threshold, provenance, the SHA-256 of
the other file) and `network.onnx`. `detector.export` writes it, `detector.load` opens it, and what judges is the
same `Detector.judge`.

The network takes a chunk of a command's planes and what it kept of those before (`detector.chunked`): planes
(B, 6, K, n), lengths (B,), frames (B,), state (B, S) -> score (B,), kept (B,), next (B, S). A whole command is one
chunk. Shapes: K bands, n frames, S numbers of state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detector.calibration import Calibration
from detector.frontends.portable import SCALE, PlaneSettings, planes
from detector.score import Detector, _threshold
from detector.systems import Specification
from remasc.audio import resample
from remasc.sentences import quoted, reason

FORMAT = 2  # 1 had no state
MANIFEST, NETWORK = "detector.json", "network.onnx"
MAX_BYTES = {MANIFEST: 2**20, NETWORK: 2**28}
STEP = 4  # a chunk's frames are a multiple of it
MOVED = 0.1  # natural logarithm of power, 0.4 dB


class OnnxDetector(Detector):
    """`Detector` on onnxruntime, of what `network.onnx` and `detector.json` hold."""

    def __init__(self, network: bytes, manifest: dict[str, Any]):
        self.config = {"specification": manifest["specification"], "training": manifest.get("training", {})}
        self.run = manifest["run"]
        self.specification = Specification.from_dict(manifest["specification"])
        calibration = self.run.get("calibration")
        self.calibration = None if calibration is None else Calibration(**calibration)
        self.threshold = _threshold(self.run.get("threshold"))
        self.planes = PlaneSettings(**manifest["planes"])
        if self.planes.sample_rate != self.specification.sample_rate:
            raise ValueError("its planes have another sample rate than its specification")
        self.precision = manifest["precision"]
        self.sha256 = hashlib.sha256(network).hexdigest()
        self.session = _session(network)
        self.stream()  # what does not fit is said now

    def stream(self) -> Stream:
        """Scores one command's planes, in whatever chunks they come."""
        return Stream(self.session)

    def weights(self) -> Iterator[tuple[str, bytes]]:
        yield NETWORK, self.sha256.encode()

    def _logit(self, waveform: np.ndarray, sample_rate: int) -> float:
        waveform = resample(waveform, sample_rate, self.specification.sample_rate)
        heard = planes(self.specification.channels_of(np.ascontiguousarray(waveform)), self.planes)
        return self.stream().feed(heard)


class Stream:
    """The scores of a command that grows; what is kept of it has one size, however long it becomes."""

    def __init__(self, session: Any):
        shapes = {given.name: given.shape for given in session.get_inputs()}
        self._session = session
        self.waiting = np.zeros((*shapes["planes"][1:3], 0), np.float32)  # fewer than STEP frames
        self.state = np.zeros((1, shapes["state"][1]), np.float32)
        self.kept = 0

    def feed(self, planes: np.ndarray) -> float:
        """The next planes (6, K, n) -> the score of all so far: that of the same planes in one chunk."""
        heard = np.concatenate([self.waiting, planes], axis=-1)
        score, kept, self.state = self._session.run(["score", "kept", "next"], self.inputs(heard))
        self.waiting = heard[..., int(kept[0]) - self.kept :]
        self.kept = int(kept[0])
        return float(score[0])

    def score(self, rest: np.ndarray) -> float:
        """What `feed` would give for these planes; nothing is kept of them."""
        heard = np.concatenate([self.waiting, rest], axis=-1)
        return float(self._session.run(["score"], self.inputs(heard))[0][0])

    def inputs(self, planes: np.ndarray) -> dict[str, np.ndarray]:
        """What the network takes, for planes (6, K, n) that follow those it has kept."""
        frames = planes.shape[-1]
        return {
            "planes": np.pad(planes, ((0, 0), (0, 0), (0, -frames % STEP)))[None],
            "lengths": np.array([self.kept + frames], np.int64),
            "frames": np.array([self.kept], np.int64),
            "state": self.state,
        }


class Looks:
    """The scores of a growing command's planes, each look from the state of the one before.

    Planes are relative to the command so far, so all of them move a little when it becomes longer. Here those of
    the past stay as they were heard first, until their level has moved by `MOVED` or the command is twice as long:
    then all of it is heard anew. So the score of a look is near that of the whole, and costs no more in a long
    command.
    """

    def __init__(self, detector: OnnxDetector):
        self._detector = detector
        self._stream: Stream | None = None
        self._heard = self._begun = 0
        self._mark, self._level = (0, 0), 0.0

    def score(self, planes: np.ndarray, certain: int) -> float:
        """Of planes (6, K, N); more sound will not change the first `certain` frames, but for moving them."""
        level, frames = planes[0], planes.shape[-1]
        moved = self._stream is None or abs(float(level[self._mark]) - self._level) * SCALE[0] > MOVED
        if self._stream is None or moved or frames >= 2 * self._begun:
            self._stream, self._heard, self._begun = self._detector.stream(), 0, frames
            band, frame = np.unravel_index(int(level[:, :certain].argmax()), level[:, :certain].shape)
            self._mark = int(band), int(frame)
            self._level = float(level[self._mark])
        if certain > self._heard:
            self._stream.feed(planes[..., self._heard : certain])
            self._heard = certain
        return self._stream.score(planes[..., certain:])


def is_exported(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def open_exported(folder: Path) -> OnnxDetector:
    """The detector of an export's folder; ValueError of one sentence where it is not sound."""
    content = _read(folder / MANIFEST)
    try:
        manifest = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
        if not isinstance(manifest, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder / MANIFEST}: not readable as JSON ({reason(error)}); export it anew"
        ) from None
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{folder / MANIFEST}: format {quoted(manifest.get('format'))}; this version reads {FORMAT}, export "
            "the detector anew"
        )
    if manifest.get("seal") != seal(manifest):
        raise ValueError(
            f"{folder / MANIFEST}: altered since it was written (its checksum differs); export it anew"
        )
    network = _read(folder / NETWORK)
    if hashlib.sha256(network).hexdigest() != manifest["sha256"]:
        raise ValueError(
            f"{folder / NETWORK}: not the file that {MANIFEST} was written with; copy the whole folder"
        )
    try:
        return OnnxDetector(network, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder}: the export does not fit its own {MANIFEST} ({reason(error)}); export it anew"
        ) from None


def seal(manifest: dict[str, Any]) -> str:
    """The SHA-256 of a manifest's content without its own seal."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _session(network: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"an exported detector runs on onnxruntime, which is not here ({reason(error)}); install it by "
            "`pip install onnxruntime`"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # it is small: more would only wait
    options.enable_cpu_mem_arena = False  # memory is given back: commands have many lengths
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception of its own for each kind of damage
        raise ValueError(
            f"{NETWORK}: onnxruntime cannot open it ({reason(error)}); export the detector anew"
        ) from None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES[path.name]:
            raise ValueError(f"{path}: larger than any such file; expected an exported detector")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ValueError(f"{path}: not there; an export holds {MANIFEST} and {NETWORK}") from None


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no finite number")
