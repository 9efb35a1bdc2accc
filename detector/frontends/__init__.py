"""What a network sees of a waveform: `spectral` (how it sounds) and `spatial` (how it radiates)."""
