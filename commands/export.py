"""`replayguard export`: a detector for machines without torch."""

from pathlib import Path


def export(out: Path, detector: str = "default", int8: bool = False, corpus: Path | None = None) -> None:
    """Write a compact detector as ONNX into a folder that every command takes as --detector.

    What judges with it needs onnxruntime and NumPy, not torch. The export is compared with the detector before
    anything is written.

    Args:
        out: New folder for the export, or that of an earlier one.
        detector: A bundled detector's name or a checkpoint folder.
        int8: Weights and activations of 8 bits: smaller, less exact. Threshold and calibration are fitted anew.
        corpus: The corpus that the detector was trained on; needed by --int8, which measures on its train and dev.
    """
    if int8 and corpus is None:
        raise ValueError("--int8 measures on recordings; name the corpus of the training by --corpus")
    if corpus is not None and not int8:
        raise ValueError("--corpus is for --int8 alone")
    import json

    from detector.export import export as write
    from detector.runtime import MANIFEST, NETWORK

    folder = write(detector, out, int8=corpus)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    size = (folder / NETWORK).stat().st_size / 1e6
    differs = manifest["parity"]["whole"]
    print(f"{folder}: {manifest['precision']}, {size:.2f} MB")
    print(f"With 32 bits its scores differ by {differs:.1e} at most from the detector's")
    if told := manifest.get("int8"):
        before, after = told["dev_eer_float32"], told["dev_eer_int8"]
        print(f"EER on {told['dev_trials']} dev trials: {before:.2%} with 32 bits, {after:.2%} with 8")
