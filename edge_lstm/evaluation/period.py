"""The period of a recording, which is the window of its VUS-PR.

Estimated as TSB-AD does (Liu and Paparrizos, NeurIPS 2024; ``find_length_rank`` with rank 1).
"""

from __future__ import annotations

import numpy as np

from edge_lstm.arrays import FloatArray

DEFAULT_PERIOD = 125  # rows, where the recording repeats nothing
COUNTED_ROWS = 20_000
MAX_LAG = 400
FIRST_LAG = 3  # correlations of neighbours say nothing of a period
HIGHEST_PEAK = 300  # counted from FIRST_LAG; a peak from 3 to there is a period


def period(x: FloatArray) -> int:
    """Rows of one period of x, (rows,) or the first channel of (rows, channels); 125 where there is none.

    The lag of the highest local maximum of the autocorrelation of the first 20,000 rows, those with a
    missing value (NaN) left out.
    """
    values = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    channel = values[~np.isnan(values).any(axis=1)][:COUNTED_ROWS, 0]
    if len(channel) < 2 or channel.min() == channel.max():
        return DEFAULT_PERIOD
    correlation = _autocorrelation(channel)[FIRST_LAG : MAX_LAG + 1]
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner > correlation[:-2]) & (inner > correlation[2:])) + 1
    if len(peaks) == 0:
        return DEFAULT_PERIOD
    highest = int(peaks[np.argmax(correlation[peaks])])
    return highest + FIRST_LAG if FIRST_LAG <= highest <= HIGHEST_PEAK else DEFAULT_PERIOD


def _autocorrelation(channel: FloatArray) -> FloatArray:
    """Of lags 0 to rows - 1, by the Fourier transform of the centred rows and as many zeros."""
    centred = channel - channel.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    covariance: FloatArray = np.fft.irfft(spectrum * spectrum.conj(), 2 * len(centred))[: len(centred)]
    covariance /= covariance[0]
    return covariance
