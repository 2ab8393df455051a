"""Which channels say the same: correlation, lead and lag, principal components, mutual information.

Reads channels in spreads without missing values; writes pairs and shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.optional import require

SAME = 0.9999  # correlation from which on two channels are one
MOST_LAG = 50  # rows that a channel may lead another by
NAMED = 0.3  # a weaker pair is not listed
PAIRS = 10  # listed
EXPLAINED = 0.95  # of the variance, for the number of components
MUTUAL_ROWS, MUTUAL_CHANNELS = 1_000, 12
NEIGHBOURS = 3


@dataclass(frozen=True)
class Pair:
    """Two channels.  correlation: of the same rows.  best: the strongest, at ``lag``.

    lag: rows that ``second`` comes later than ``first``.
    """

    first: str
    second: str
    correlation: float
    best: float
    lag: int


@dataclass(frozen=True)
class Redundancy:
    """correlation: (channels, channels) of the named channels.  pairs: the strongest.

    duplicates: channel by the earlier one that it repeats.  components: that hold 95 % of the variance.
    curved: pairs that depend on each other more than a line can say: (first, second, mutual information in
    nats, correlation).
    """

    names: tuple[str, ...]
    correlation: tuple[tuple[float, ...], ...]
    pairs: tuple[Pair, ...]
    duplicates: dict[str, str]
    components: int
    curved: tuple[tuple[str, str, float, float], ...]


def read_redundancy(x: FloatArray, names: list[str]) -> Redundancy:
    """Of channels x (rows, channels) that all change."""
    if len(names) < 2:
        return Redundancy(tuple(names), ((1.0,),) * len(names), (), {}, len(names), ())
    correlation = np.atleast_2d(np.corrcoef(x, rowvar=False))
    duplicates: dict[str, str] = {}
    for late in range(len(names)):
        same = [e for e in range(late) if abs(correlation[late, e]) >= SAME and names[e] not in duplicates]
        if same:
            duplicates[names[late]] = names[same[0]]
    variance = require("sklearn.decomposition", "data").PCA().fit(x).explained_variance_ratio_
    return Redundancy(
        names=tuple(names),
        correlation=tuple(tuple(row) for row in correlation.tolist()),
        pairs=_pairs(x, names, correlation),
        duplicates=duplicates,
        components=int(np.searchsorted(np.cumsum(variance), EXPLAINED)) + 1,
        curved=_curved(x, names, correlation),
    )


def _pairs(x: FloatArray, names: list[str], correlation: FloatArray) -> tuple[Pair, ...]:
    """The strongest pairs at any lag up to MOST_LAG, by SciPy's Fourier transform."""
    fft = require("scipy.fft", "data")
    size, reach = fft.next_fast_len(2 * len(x), real=True), min(MOST_LAG, len(x) // 4)
    lags = np.arange(-reach, reach + 1)
    centred = x - x.mean(axis=0)
    spectra = fft.rfft(centred / np.linalg.norm(centred, axis=0), size, axis=0)
    found = []
    for a in range(len(names)):
        shifted = fft.irfft(spectra[:, a + 1 :] * spectra[:, a : a + 1].conj(), size, axis=0)[lags]
        for b, column in enumerate(shifted.T, a + 1):
            place = int(np.abs(column).argmax())
            found.append(
                Pair(names[a], names[b], float(correlation[a, b]), float(column[place]), int(lags[place]))
            )
    strong = sorted(found, key=lambda pair: -abs(pair.best))
    return tuple(pair for pair in strong[:PAIRS] if abs(pair.best) >= NAMED)


def _curved(
    x: FloatArray, names: list[str], correlation: FloatArray
) -> tuple[tuple[str, str, float, float], ...]:
    """Pairs whose mutual information says more than twice what their correlation does.

    A line of correlation r has -log(1 - r^2) / 2 nats.
    """
    select = require("sklearn.feature_selection", "data")
    chosen = np.argsort(-np.abs(correlation).sum(axis=0), kind="stable")[:MUTUAL_CHANNELS]
    part = x[:: max(1, len(x) // MUTUAL_ROWS)][:MUTUAL_ROWS]
    found = []
    for order, a in enumerate(chosen[1:], 1):
        others = chosen[:order]
        nats = select.mutual_info_regression(
            part[:, others], part[:, a], n_neighbors=NEIGHBOURS, random_state=0
        )
        for b, information in zip(others.tolist(), nats.tolist(), strict=True):
            straight = -0.5 * np.log(max(1e-9, 1 - correlation[a, b] ** 2))
            if information > 2 * straight + 0.1 and abs(correlation[a, b]) < NAMED:
                found.append((names[b], names[a], information, float(correlation[a, b])))
    return tuple(sorted(found, key=lambda pair: -pair[2])[:PAIRS])
