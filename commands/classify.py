"""`replayguard classify`: sound classifiers trained, distilled, pretrained, adapted and used."""

import sys
from dataclasses import replace
from pathlib import Path

from commands import AsJson, Files, Folder, configured_by


@configured_by("detector.classify.config:ClassifyConfig")
def train(config) -> None:
    """Train a classifier (AST or PSLA) on labelled sound, with the PSLA recipe as switches."""
    _finish(config)


@configured_by("detector.classify.config:DistillConfig")
def distill(config) -> None:
    """Train a classifier by labels and by another classifier (CMKD): either backbone teaches the other."""
    _finish(config)


@configured_by("detector.classify.config:AdaptConfig")
def adapt(config) -> None:
    """Train few parameters on a frozen pretrained AST: LoRA, adapters, prompts, BitFit, linear probe."""
    _finish(config)


def _finish(config) -> None:
    """Train, write the report, say the accuracy."""
    from detector.classify.train import train_classifier

    result = train_classifier(config, progress=True)
    for split in ("dev", "eval"):
        if (accuracy := result.run.get(f"{split}_accuracy")) is not None:
            print(f"{split} accuracy {100 * accuracy:.1f} %, {result.run['clips'][split]:,} clips")
    if (result.folder / "predictions.csv").exists() and any(result.run["clips"][s] for s in ("dev", "eval")):
        from eval.classes_page import write_report

        print(f"Report: {write_report(result.folder).resolve()}")
    print(result.folder)


def pretrain(
    data: tuple[Path, ...],
    out: Path,
    size: str = "tiny",
    frames: int = 100,
    patch: tuple[int, int] = (16, 16),
    share: float = 400 / 512,
    clusters: bool = True,
    epochs: int = 10,
    batch_size: int = 24,
    learning_rate: float = 1e-4,
    seconds: float = 30.0,
    speaker_pattern: str = "",
    split_seed: int = 0,
    seed: int = 0,
    device: str = "auto",
    resume: bool = True,
) -> None:
    """Pretrain an AST on sound without labels (SSAST): hidden patches are told apart and rebuilt.

    Of a CSV or a folder per class the clips of dev and eval are left out, so that what is fine-tuned on the same
    list (and --split-seed) has not heard them. Any other folder or sound file is taken whole: give none that
    holds clips of the same speakers.

    Args:
        data: CSVs (file[,label,split,speaker]), folders per class, or any folders and sound files.
        out: Folder of the run; an interrupted run goes on there.
        size: tiny, small or base.
        frames: Frames of 10 ms; longer clips are cut at a new place in each epoch.
        patch: Bands and frames of a patch: 16 16, or 128 2 for whole frames.
        share: Share of the patches that is hidden.
        clusters: Hide them in clusters; single ones with --no-clusters.
        epochs: Passes over the clips.
        batch_size: Clips per step.
        learning_rate: Its peak.
        seconds: First seconds that are read of a file.
        speaker_pattern: Regular expression whose first group is the speaker in a file's name.
        split_seed: Draws the splits where none are given, as in `classify train`.
        seed: Draws the initial weights, the order of the clips and the masks.
        device: auto, cpu, cuda or mps.
        resume: Go on where an interrupted run stopped; --no-resume throws its state away.
    """
    from detector.classify.data import unheard
    from detector.pretrain.clips import FilterBankClips
    from detector.pretrain.masking import SIDES
    from detector.pretrain.run import PretrainConfig, pretrain
    from eval.masked import write_masked

    paths = unheard(data, speaker_pattern, split_seed)
    print(f"{len(paths):,} clips to learn from", file=sys.stderr)
    config = PretrainConfig(
        size=size,
        frames=frames,
        patch=patch,
        share=share,
        sides=SIDES if clusters and patch[0] < 128 else None,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
    )
    clips = FilterBankClips(paths, seconds=seconds)
    network = pretrain(clips, out, config, resume=resume, progress=True)
    print(f"Picture: {write_masked(network, clips[0], config, out)}")
    print(out)


def predict(
    model: Folder,
    files: Files = (),
    also: tuple[Path, ...] = (),
    data: Path | None = None,
    out: Path | None = None,
    base: Path | None = None,
    batch_size: int = 32,
    device: str = "auto",
    as_json: AsJson = False,
) -> int:
    """Classify sound files, one line each: class, probability, file.

    A file that cannot be read is said on stderr (with --json also as a line with its `error`), the others are
    classified; exit 1 then.

    Args:
        model: The classifier's folder.
        files: Sound files, folders or glob patterns.
        also: Folders of further classifiers of the same classes: their mean decides.
        data: A CSV or folder per class instead of files; where it has labels a report is made (needs --out).
        out: Folder for predictions.csv, and for the report where there are labels.
        base: Where the base of an adapted classifier lies now.
        batch_size: Files at a time.
        device: auto, cpu, cuda or mps.
        as_json: One JSON object a line, with the probability of each class.
    """
    from detector.classify.predict import predict_files, write_predictions

    if (data is None) == (not files):
        raise ValueError("give either FILES or --data")
    clips = _clips(files, data)
    models = [model, *also]
    rows, classes = predict_files(
        models,
        [clip.path for clip in clips],
        base=base,
        batch_size=batch_size,
        device=device,
        progress=sys.stderr.isatty(),
    )
    rows = [
        replace(row, file=clip.name, label=clip.label, split=clip.split, speaker=clip.speaker)
        for row, clip in zip(rows, clips, strict=True)
    ]
    for row in rows:
        _say(row, classes, as_json)
    failed = sum(bool(row.fault) for row in rows)
    if failed:
        print(f"{failed:,} of {len(rows):,} files could not be read and have no prediction", file=sys.stderr)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(out / "predictions.csv", rows, classes)
        if any(row.label and not row.fault for row in rows):
            from eval.classes_page import write_report

            print(f"Report: {write_report(out).resolve()}", file=sys.stderr)
    return 1 if failed else 0


def _clips(files, data):
    from detector.classify.data import Clip, read_clips
    from remasc.files import sound_files

    if data is not None:
        return read_clips(data)
    return [Clip(path, str(path)) for path in sound_files(files)]


def _say(row, classes, as_json: bool) -> None:
    if row.fault:
        from remasc.sentences import plain

        print(plain(row.fault), file=sys.stderr)
    if as_json or not row.fault:
        print(_line(row, classes, as_json))


def _line(row, classes, as_json: bool) -> str:
    import json

    from remasc.sentences import plain

    if row.fault:
        return json.dumps({"file": row.file, "error": row.fault})
    best = int(row.probabilities.argmax())
    if as_json:
        numbers = {name: round(float(p), 6) for name, p in zip(classes, row.probabilities, strict=True)}
        return json.dumps({"file": row.file, "class": classes[best], "probabilities": numbers})
    return f"{classes[best]}\t{row.probabilities[best]:.3f}\t{plain(row.file)}"
