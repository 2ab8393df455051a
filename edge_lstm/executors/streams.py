"""Seeded streams of codes that drive a network hard: for proofs and for counting instructions."""

from __future__ import annotations

import numpy as np

from edge_lstm.qgraph import CodeArray


def mixed_stream(features: int, steps: int, seed: int = 0, bits: int = 8) -> CodeArray:
    """Codes (steps, features) of ``bits`` bits: walks, uniform noise, both ends of the range, held values.

    The kinds alternate in stretches of 16 to 63 rows, so that every state is left in every way.
    """
    rng = np.random.default_rng(seed)
    codes = np.empty((steps, features), dtype=np.int8 if bits == 8 else np.int16)
    start = 0
    while start < steps:
        stop = min(steps, start + int(rng.integers(16, 64)))
        codes[start:stop] = _stretch(rng, stop - start, features, 1 << (bits - 1))
        start = stop
    return codes


def _stretch(rng: np.random.Generator, rows: int, features: int, limit: int) -> CodeArray:
    """One kind of signal with codes -limit .. limit - 1."""
    kind = rng.integers(4)
    if kind == 0:
        start = rng.integers(-limit, limit, features)
        walk = start + np.cumsum(rng.normal(0, 6 * limit / 128, (rows, features)), axis=0)
        return np.clip(np.rint(walk), -limit, limit - 1).astype(np.int64)
    if kind == 1:
        return rng.integers(-limit, limit, (rows, features))
    if kind == 2:
        return rng.choice(np.array([-limit, limit - 1]), (rows, features))
    return np.repeat(rng.integers(-limit, limit, (1, features)), rows, axis=0)
