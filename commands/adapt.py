"""`replayguard adapt`: a detector for another array, from minutes of its recordings."""

import sys
from pathlib import Path


def adapt(
    recordings: Path,
    array: str,
    out: Path,
    detector: str = "default",
    way: str = "auto",
    p_miss: float | None = None,
    p_fa: float | None = None,
    speaker_pattern: str = "",
) -> None:
    """Adapt a detector to an array from labelled or genuine recordings; other arrays are judged as before.

    OUT is a whole detector: give it to every command as --detector, and name the array by --array.

    Args:
        recordings: Folder with genuine/ and perhaps replay/, or a CSV file,label[,speaker].
        array: The array that recorded them: D1, D2, D3, D4 or an array file (TOML/JSON).
        out: New folder for the adapted detector.
        detector: The detector to begin from: a bundled one's name or a checkpoint folder, adapted before or not.
        way: auto = what held-out recordings recommend; calibration = the llr moved; head = the last layer anew, if
            held-out recordings recommend it; genuine = without replays.
        p_miss: Move the scores so that the threshold rejects at most this share of the genuine recordings.
        p_fa: Move the scores so that the threshold accepts at most this share of the replayed recordings.
        speaker_pattern: Regular expression whose first group is the speaker in a file's name.
    """
    from detector.adapt import adapt

    found = adapt(
        detector,
        recordings,
        array,
        out,
        way=way,
        p_miss=p_miss,
        p_fa=p_fa,
        speaker_pattern=speaker_pattern,
        progress=sys.stderr.isatty(),
    )
    print(_words(found))
    print(out)


def _words(found) -> str:
    """What was kept, what it was measured to be worth, and what a person must know of it."""
    lines = [f"Kept: {found.way}"]
    if "base" in found.figures:
        folds = found.figures["folds"]
        lines.append(f"On held-out recordings ({folds['number']} folds, disjoint in {folds['disjoint_in']}):")
        lines += [
            f"  {name}: EER {row['eer']:.1%}, Cllr {row['cllr']:.3f}, rejected genuine "
            f"{_of(row['rejected_genuine'])}, accepted replays {_of(row['accepted_replays'])}"
            for name, row in (("base", found.figures["base"]), ("adapted", found.figures["held_out"]))
        ]
    else:
        rows = found.figures["rejected_genuine"]
        lines.append(
            f"Rejected genuine: base {_of(rows['base'])}, adapted {_of(rows['adapted'])} (the same recordings)"
        )
        if rows["adapted"][0] > rows["base"][0]:
            lines.append(
                "Note: more are rejected than before; --p-miss 0.1 lets nine of ten in, and more replays"
            )
    return "\n".join([*lines, *(f"Note: {said}" for said in found.said)])


def _of(count: list[int]) -> str:
    return f"{count[0]} of {count[1]}"
