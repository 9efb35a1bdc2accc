"""`replayguard live`: commands judged while they are heard."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from commands import AsJson


def live(
    source: Annotated[Path, tyro.conf.arg(name="from")],
    array: str | None = None,
    detector: str = "default",
    as_json: AsJson = False,
    threshold: float | None = None,
    margin: float | None = None,
) -> int:
    """Find the commands in a long recording and judge each, block by block, as a live microphone would be heard.

    Exit code: 0 when every command was decided, 1 when one was not or none was heard, 2 on bad arguments.

    Args:
        source: The sound file to listen to.
        array: The array that recorded it: D1, D2, D3, D4 or an array file (TOML/JSON).
        detector: A bundled detector's name or a checkpoint folder.
        as_json: One JSON object a line, also of commands that still grow (kind "provisional" or "early").
        threshold: Accept at or above this score; default: the detector's own.
        margin: Decide early when the llr is so far from the threshold; default: at the end of a command alone.
    """
    from streaming import Settings, StreamingDetector, listen
    from streaming.sources import FileSource

    sound = FileSource(source)
    ears = StreamingDetector(
        detector, array, sound.sample_rate, settings=Settings(threshold=threshold, margin=margin)
    )
    undecided, finals = 0, 0
    for decision in listen(sound, ears):
        finals += decision.final
        undecided += decision.final and decision.genuine is None
        if as_json:
            print(decision.as_json(), flush=True)
        elif decision.genuine is not None or decision.final:
            print(decision.sentence, flush=True)
    if not finals:
        print(f"replayguard live: {source}: no command was heard", file=sys.stderr)
    return int(undecided > 0 or not finals)
