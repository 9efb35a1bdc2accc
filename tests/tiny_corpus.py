"""A corpus of noise in ReMASC's layout for the tests of everything that reads one, and the real meta files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remasc import ARRAYS, Corpus
from remasc.audio import write_wav

SUBTYPE = {"D1": "PCM_16", "D2": "PCM_16", "D3": "PCM_32", "D4": "PCM_16"}


def meta_row(
    file_id: int,
    kind: int = 2,
    speaker: int = 1,
    environment: int = 2,
    position: int = 11,
    device: int = 1,
    seconds: float = 1.0,
    recorder: int | None = None,
    playback: int | None = None,
) -> str:
    recorder = (1 if kind == 3 else -1) if recorder is None else recorder
    playback = (3 if kind == 3 else -1) if playback is None else playback
    cells = (file_id, kind, speaker, environment, position, recorder, playback, device)
    return ",".join(f"{cell:>10}" for cell in cells) + f",{seconds:e}"


def make_corpus(root: Path, *, clips: int = 16, seconds: float = 0.3, seed: int = 0) -> Corpus:
    """`clips` trials in core (speakers 1 to 4) and half as many in eval (5 and 6), over the four arrays."""
    for subset, count, speakers, first in (("core", clips, (1, 2, 3, 4), 1), ("eval", clips // 2, (5, 6), 5)):
        folder = root / subset / "data"
        folder.mkdir(parents=True)
        rows = []
        for n in range(count):
            array = ARRAYS[f"D{n % 4 + 1}"]
            file_id = 1000000 * first + n
            rng = np.random.default_rng([seed, file_id])
            frames = round(seconds * (0.5 + n / count) * array.sample_rate)
            noise = np.clip(rng.normal(0, 0.1, (array.num_mics, frames)), -1, 1)
            write_wav(folder / f"{file_id}.wav", noise, array.sample_rate, SUBTYPE[array.name])
            rows.append(
                meta_row(
                    file_id,
                    kind=2 + n // 4 % 2,
                    speaker=speakers[n // 8 % len(speakers)],
                    device=n % 4 + 1,
                    seconds=frames / array.sample_rate,
                )
            )
        (root / subset / "meta.csv").write_text("\n".join(rows) + "\n")
    return Corpus.from_meta(root)


def real_root() -> Path:
    """The folder of ReMASC's real meta files (no audio)."""
    shared = os.environ.get("REPLAYGUARD_SHARED")
    if not shared or not (Path(shared) / "data" / "remasc").is_dir():
        pytest.skip("needs ReMASC's meta files (REPLAYGUARD_SHARED)")
    return Path(shared) / "data" / "remasc"


def real_corpus() -> Corpus:
    return Corpus.from_meta(real_root())


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, str | None]:
    """(result, None), or (None, the words of its ValueError); any other exception passes."""
    try:
        return function(*args), None
    except ValueError as error:
        return None, str(error)
