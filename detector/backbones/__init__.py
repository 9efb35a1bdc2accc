"""Backbones: planes (B, C, K, N) in, one vector per frame (B, D, N') out."""
