"""Now: from a microphone array, block by block, to decisions. Three verbs: `feed`, `flush`, `reset`."""

from streaming.ring import Ring

__all__ = ["Ring"]
