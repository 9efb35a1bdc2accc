"""What a recording means: networks from waveforms to scores, their training, and their use.

`detector.load("default").score(waveform, sample_rate, array)` is the short way in.
"""

from __future__ import annotations

__all__ = ["Detector", "Judgement", "load"]


def __getattr__(name: str):
    # torch is imported when a detector is first asked for, not when the package is named
    if name in __all__:
        from detector import score

        return getattr(score, name)
    raise AttributeError(f"module 'detector' has no attribute {name!r}")
