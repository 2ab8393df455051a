"""Seeded int8 streams that drive a network hard: for proofs and for counting instructions."""

from __future__ import annotations

import numpy as np

from edge_lstm.qgraph import Int8Array


def mixed_stream(features: int, steps: int, seed: int = 0) -> Int8Array:
    """Codes (steps, features): smooth walks, uniform noise, both ends of the range, held values.

    The kinds alternate in stretches of 16 to 63 rows, so that every state is left in every way.
    """
    rng = np.random.default_rng(seed)
    codes = np.empty((steps, features), dtype=np.int8)
    start = 0
    while start < steps:
        stop = min(steps, start + int(rng.integers(16, 64)))
        codes[start:stop] = _stretch(rng, stop - start, features)
        start = stop
    return codes


def _stretch(rng: np.random.Generator, rows: int, features: int) -> Int8Array:
    kind = rng.integers(4)
    if kind == 0:
        walk = rng.integers(-128, 128, features) + np.cumsum(rng.normal(0, 6, (rows, features)), axis=0)
        return np.clip(np.rint(walk), -128, 127).astype(np.int8)
    if kind == 1:
        return rng.integers(-128, 128, (rows, features)).astype(np.int8)
    if kind == 2:
        return rng.choice(np.array([-128, 127], dtype=np.int8), (rows, features))
    return np.repeat(rng.integers(-128, 128, (1, features)), rows, axis=0).astype(np.int8)
