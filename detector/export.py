"""The compact detector as ONNX, for machines without torch; `detector.runtime` hears with it.

The network goes from a chunk of planes and its state to the score so far (`detector.chunked`); the planes are made
by NumPy (`detector.frontends.portable`), so that one file serves any number of microphones. Before anything is
written the export must agree with the detector, in one chunk and in many.
Shapes: B batch, K bands, N frames.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detector.backbones.cnn import CNN
from detector.batch import judge_all
from detector.chunked import STEP, Chunked
from detector.frontends.portable import PlaneSettings, planes
from detector.model import CompactDetector
from detector.runtime import FORMAT, MANIFEST, NETWORK, OnnxDetector, Stream, _session, seal
from detector.score import Detector, load
from detector.shipped import DETECTOR, DevScores
from remasc import Corpus, Label, Recording
from remasc.audio import resample
from remasc.protocol import partitions

OPSET = 20
TOLERANCE = 1e-5  # |a - b| <= TOLERANCE max(1, |b|)
LEFT_OUT = ("curves", "checksums")  # of run.json: how it was trained, not what it does
CLIPS = 200  # recordings of train that show int8 how large the numbers are


def export(
    detector: str | Path, out: str | Path, *, int8: str | Path | None = None, progress: bool = True
) -> Path:
    """Write the export of a compact detector into the folder `out`; returns it.

    With `int8`, the root of a corpus, weights and activations have 8 bits: their ranges are measured on its train
    recordings, threshold and calibration are fitted anew on its dev, and both error rates are kept in the manifest.
    """
    loaded, out = load(detector), Path(out)
    network = _compact(loaded)
    if out.exists() and (not out.is_dir() or ({p.name for p in out.iterdir()} - {MANIFEST, NETWORK})):
        raise ValueError(f"{out} holds something else; give a new folder, or that of an earlier export")
    content = network_onnx(network)
    manifest = _manifest(loaded, network)
    manifest["parity"] = parity(network, content)
    if int8 is not None:
        content, manifest = _quantised(content, manifest, str(detector), Path(int8), out, progress)
    _write(out, content, manifest)
    return out


def network_onnx(network: nn.Module) -> bytes:
    """The network behind the planes as an ONNX file, any batch and any number of frames that `STEP` divides."""
    exporter = _exporter()
    chunked = Chunked(network).eval()
    planes = torch.randn(2, network.front.count, network.front.bands, 8 * STEP)
    example = (planes, torch.tensor([8 * STEP, 30]), torch.tensor([0, 0]), torch.zeros(2, chunked.size))
    batch, quarters = torch.export.Dim("batch", max=4096), torch.export.Dim("quarters", min=1, max=2**20)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = exporter(
            chunked, example, dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["planes", "lengths", "frames", "state"], output_names=["score", "kept", "next"],
            dynamic_shapes=({0: batch, 3: STEP * quarters}, {0: batch}, {0: batch}, {0: batch}),
        )  # fmt: skip
    made = program.model_proto
    for node in (*made.graph.node, *(node for function in made.functions for node in function.node)):
        del node.metadata_props[:]  # where in this machine's folders each came from
        node.doc_string = ""
    return made.SerializeToString()


def parity(network: nn.Module, content: bytes, seeds: Iterable[int] = range(8)) -> dict[str, float]:
    """The largest |onnx - torch| / max(1, |torch|) over random recordings of 1 to 8 microphones: of the network on
    the same planes, in one chunk and in many, and of the whole way, each with its own planes. RuntimeError where
    one is too large.

    The planes' own difference is float32's: in a recording almost without noise what a single source leaves is a
    small difference of large numbers.
    """
    session, settings = _session(content), PlaneSettings(**network.front.settings())
    worst = {"network": 0.0, "chunks": 0.0, "whole": 0.0}
    for seed in seeds:
        x = _recording(seed)
        heard = planes(x, settings)
        whole, chunks = Stream(session).feed(heard), _in_chunks(session, heard, seed)
        with torch.inference_mode():
            logits = network.logits(torch.from_numpy(heard)[None])[0]
            alone, with_its_own = float(logits[0] - logits[1]), float(network(torch.from_numpy(x)[None])[0])
        for name, got, want in (
            ("network", whole, alone), ("chunks", chunks, alone), ("whole", whole, with_its_own)
        ):  # fmt: skip
            worst[name] = max(worst[name], abs(got - want) / max(1.0, abs(want)))
    if not max(worst.values()) <= TOLERANCE:
        raise RuntimeError(f"the export differs from the detector ({worst}); nothing was written")
    return worst


def _in_chunks(session: Any, planes: np.ndarray, seed: int) -> float:
    """The last score of planes that come in chunks of 1 to 40 frames."""
    cuts = np.random.default_rng(seed).integers(1, 40, planes.shape[-1]).cumsum()
    stream = Stream(session)
    return [stream.feed(part) for part in np.split(planes, cuts[cuts < planes.shape[-1]], axis=-1)][-1]


def _recording(seed: int) -> np.ndarray:
    """A source with the microphones' own noise 20 dB below it, (M, T) float32."""
    g = np.random.default_rng(seed)
    samples = int(g.integers(1000, 60000))
    source = g.standard_normal(samples) * np.abs(np.sin(np.arange(samples) / 3000))
    x = np.stack([np.roll(source, m) for m in range(seed % 8 + 1)])
    return (0.1 * x + 0.01 * g.standard_normal(x.shape)).astype(np.float32)


def _compact(loaded: Detector) -> nn.Module:
    network = getattr(loaded, "network", None)
    if not isinstance(network, CompactDetector) or not isinstance(network.backbone, CNN):
        raise ValueError(
            f"{loaded.specification.system} is not exported, or is an export already; give a checkpoint of the "
            "compact detector with its own CNN"
        )
    return network.cpu().eval()


def _exporter() -> Any:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"exporting needs {', '.join(missing)}; install what is missing by `pip install replayguard[export]`"
        )
    return torch.onnx.export


def _manifest(loaded: Detector, network: nn.Module) -> dict[str, Any]:
    run = {name: value for name, value in loaded.run.items() if name not in LEFT_OUT}
    return {
        "format": FORMAT,
        "precision": "float32",
        "specification": loaded.specification.as_dict(),
        "training": loaded.config.get("training", {}),
        "planes": network.front.settings(),
        "run": run,
        "of": loaded.run.get("checksums", {}),
    }


def _write(out: Path, content: bytes, manifest: dict[str, Any]) -> None:
    """The folder appears whole; an older export is replaced, its manifest last."""
    manifest = manifest | {"sha256": hashlib.sha256(content).hexdigest()}
    manifest["seal"] = seal(manifest)
    OnnxDetector(content, manifest)  # what does not open is not written
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        temporary.chmod(0o755)
        (temporary / NETWORK).write_bytes(content)
        (temporary / MANIFEST).write_text(
            json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        if out.exists():
            for name in (NETWORK, MANIFEST):
                os.replace(temporary / name, out / name)
        else:
            os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _quantised(
    content: bytes, manifest: dict[str, Any], detector: str, corpus: Path, out: Path, progress: bool
) -> tuple[bytes, dict[str, Any]]:
    """The network with 8 bits, and a manifest with its own threshold, calibration and dev EER."""
    parts = _partitions(manifest, corpus)
    settings = PlaneSettings(**manifest["planes"])
    content = int8_onnx(content, _spread(parts["train"], CLIPS), settings)
    manifest = manifest | {"precision": "int8"}
    run = dict(manifest["run"])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".judging.", suffix=".partial", dir=out.parent) as scratch:
        _write(Path(scratch) / "int8", content, manifest)
        before = _dev_scores(detector, parts["dev"])
        after = _dev_scores(str(Path(scratch) / "int8"), parts["dev"])
    calibration, p_fa = after.calibration(), (run.get("threshold") or {}).get("p_fa")
    threshold = None if p_fa is None else after.threshold(p_fa)
    run["calibration"] = None if calibration is None else calibration.as_dict()
    run["threshold"] = None if threshold is None else {"score": threshold, "p_fa": p_fa}
    run["dev_eer_shipped"] = after.eer()
    told = {"corpus": corpus.name, "dev_trials": len(parts["dev"]), "dev_eer_float32": before.eer(),
            "dev_eer_int8": after.eer(), "clips": min(CLIPS, len(parts["train"]))}  # fmt: skip
    return content, manifest | {"run": run, "int8": told}


def int8_onnx(content: bytes, recordings: list[Recording], settings: PlaneSettings) -> bytes:
    """Convolutions and matrix products with 8-bit weights (per output channel) and activations; ranges are those
    that the recordings show."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    beginning = Stream(_session(content))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(recordings)

        def get_next(self) -> dict[str, np.ndarray] | None:
            from remasc import read_audio

            recording = next(self.left, None)
            if recording is None:
                return None
            waveform, rate = read_audio(recording.path, seconds=4.0)
            heard = planes(resample(waveform, rate, settings.sample_rate), settings)
            return beginning.inputs(heard)

    with tempfile.TemporaryDirectory(prefix="replayguard-") as scratch, _no_advice():
        target = Path(scratch) / NETWORK
        quantize_static(
            onnx.load_from_string(content), target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"], activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
        return target.read_bytes()


@contextmanager
def _no_advice() -> Iterator[None]:
    """onnxruntime advises a preparation by warnings; the network has had it (shapes known, batch norm folded)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _partitions(manifest: dict[str, Any], root: Path) -> dict[str, Corpus]:
    """Parted as for the detector's training, so that dev is what it did not learn from."""
    training = manifest["training"]
    return partitions(
        Corpus.from_meta(root),
        dev_share=float(training.get("dev_share", 0.2)),
        seed=int(training.get("protocol_seed", 0)),
    )


def _spread(recordings: Corpus, count: int) -> list[Recording]:
    """`count` of the recordings, evenly over the list."""
    if not len(recordings):
        raise ValueError(
            "the corpus has no train recordings to measure ranges on; give the one it was trained on"
        )
    return [recordings[int(i)] for i in np.linspace(0, len(recordings) - 1, min(count, len(recordings)))]


def _dev_scores(detector: str, recordings: Corpus) -> DevScores:
    jobs = [(r.trial_id, str(r.path), r.array) for r in recordings]
    found = list(judge_all(detector, jobs, options={"threshold": 0.0}))
    scores = np.array([np.nan if one.score is None else one.score for one in found], dtype=np.float64)
    genuine = np.array([r.label is Label.GENUINE for r in recordings])
    return DevScores(scores, genuine, tuple(one.reason for one in found), DETECTOR)
