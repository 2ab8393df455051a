"""Parts of a long recording that the tests look at: one stretch in full, or pieces from all over it.

Reads a Dataset; writes arrays without missing values and one note for each cut.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray, hold_since_gap
from edge_lstm.datasets.dataset import Dataset

IndexArray = npt.NDArray[np.int64]

STRETCH = 8_192  # rows that short memory is measured on
PIECES, PIECE = 5, 2_400  # of a long recording: pieces of time that forecasts are judged on, and their rows
COARSE = 2_000  # means of blocks that stationarity is tested on


def held(dataset: Dataset) -> FloatArray:
    """The recording as deviations from each channel's mean in spreads, missing values held.

    A value that is missing before the first is the channel's mean, that is 0.
    """
    mean, spread = np.nanmean(dataset.values, axis=0), np.nanstd(dataset.values, axis=0)
    scaled = (np.nan_to_num(dataset.values) - mean) / np.where(spread > 0, spread, 1.0)
    return hold_since_gap(scaled, dataset.present, dataset.gap)


def longest_stretch(gap: BoolArray) -> slice:
    """The most rows without a gap."""
    edges = [0, *(row for row in np.flatnonzero(gap).tolist() if row), len(gap)]
    start, stop = max(pairwise(edges), key=lambda edge: edge[1] - edge[0])
    return slice(start, stop)


def coarse(x: FloatArray) -> FloatArray:
    """Means of equal blocks of x (rows, channels), COARSE of them or the rows themselves."""
    size = -(-len(x) // COARSE)
    whole = len(x) // size * size
    means: FloatArray = x[:whole].reshape(-1, size, x.shape[1]).mean(axis=1)
    return means


def pieces(gap: BoolArray) -> tuple[IndexArray, BoolArray]:
    """Rows of PIECES evenly spread pieces (or all rows), and gaps with one at the start of each piece."""
    rows = len(gap)
    if rows <= PIECES * PIECE:
        return np.arange(rows), gap
    starts = np.linspace(0, rows - PIECE, PIECES).round().astype(np.int64)
    taken = (starts[:, None] + np.arange(PIECE)).ravel()
    cut = gap[taken]
    cut[PIECE::PIECE] = True
    cut[0] = False
    return taken, cut


def cut_notes(dataset: Dataset) -> list[str]:
    """What of the recording the tests do not see."""
    stretch, notes = longest_stretch(dataset.gap), []
    length = stretch.stop - stretch.start
    if min(length, STRETCH) < dataset.rows:
        notes.append(
            f"ACF and PACF are those of {min(length, STRETCH):,} rows without a gap, "
            f"from row {stretch.start:,}"
        )
    if length > COARSE:
        notes.append(f"stationarity is tested on means of {-(-length // COARSE)} rows each")
    if dataset.rows > PIECES * PIECE:
        notes.append(f"forecasts are judged on {PIECES} pieces of {PIECE:,} rows, evenly spread")
    return notes
