"""`replayguard devices`: the sound inputs, and which microphone array each may be."""

import json
import sys

from commands import AsJson


def devices(as_json: AsJson = False) -> int:
    """List the sound inputs with their channels and rates, and guess the microphone array by its name.

    Exit code: 0 when there is an input, 1 when there is none.

    Args:
        as_json: One JSON object a line.
    """
    from streaming.devices import guess, inputs

    found = inputs()
    for one in found:
        if as_json:
            print(json.dumps(one.as_dict(), allow_nan=False))
            continue
        rates = ", ".join(map(str, one.rates)) or str(one.default_rate)
        print(f"{one.index:>3}{'*' if one.default else ' '} {one.name}: {one.channels} channels; {rates} Hz")
        board = guess(one.name)
        if board is not None:
            options = [f"--array {board.array}"] * bool(board.array)
            options += [f"--channels {board.channels}"] * bool(board.channels)
            told = [board.name, " ".join(options), board.note]
            print(f"      looks like {'; '.join(filter(None, told))}")
    if not found:
        print("replayguard devices: no sound input was found", file=sys.stderr)
    elif not as_json:
        print(
            "(* the default input; `replayguard live --device NAME` takes a name, a part of it or a number)"
        )
    return int(not found)
