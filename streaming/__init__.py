"""Now: from a microphone array, block by block, to decisions. Three verbs: `feed`, `flush`, `reset`.

`StreamingDetector(detector, array, sample_rate).feed(block)` is the short way in.
"""

from __future__ import annotations

from streaming.ring import Ring

__all__ = ["Decision", "Ring", "Settings", "StreamingDetector", "listen"]


def __getattr__(name: str):
    # torch is imported when a detector is first asked for, not when the package is named
    if name == "Decision":
        from streaming.decision import Decision

        return Decision
    if name in __all__:
        from streaming import online

        return getattr(online, name)
    raise AttributeError(f"module 'streaming' has no attribute {name!r}")
