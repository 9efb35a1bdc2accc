"""How a process that listens for days keeps its memory."""

from __future__ import annotations

import os

# of torch's convolutions on CPUs: 1024 prepared ones are kept, each for one length of sound, and hardly two
# commands are of one length; without them judging takes no longer. torch crashes where the first is 0
KEPT = {"LRU_CACHE_CAPACITY": "8", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0"}


def keep_no_lengths() -> None:
    """Have torch forget how it judged sound of one length. It asks when it is imported, not later; what the user
    has set stays."""
    for name, value in KEPT.items():
        os.environ.setdefault(name, value)
