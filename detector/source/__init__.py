"""Which source a command came from, a person or a device, decided by cues that a person can check."""
