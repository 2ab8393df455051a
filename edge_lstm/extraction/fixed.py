"""A feature stage in integers: samples -> rows of int32, the same integers as the C.

Reads int16 samples of fast channels and int32 values of slow ones, in chunks of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import frozen
from edge_lstm.detection.fixed import INT32_MAX, MISSING
from edge_lstm.errors import ConfigError, DataError, raise_all
from edge_lstm.extraction import history, moments
from edge_lstm.extraction.bands import OUTPUT_FRACTION, BandState, QBand, design_band, filter_band
from edge_lstm.extraction.config import BAND, ChannelFeatures, Feature, FeatureConfig
from edge_lstm.fixedpoint import IntArray

assert OUTPUT_FRACTION == 4  # as that of every moment: columns of one channel have one unit


@dataclass(frozen=True)
class QFeatures:
    """The integers of a stage.

    bands: those of each fast channel, in the order of its columns.
    depth: rows that each slow channel keeps, the present one included.
    """

    config: FeatureConfig
    bands: tuple[tuple[QBand, ...], ...]
    depth: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FeatureState:
    """What is kept between chunks.

    samples: int64 (k, fast), those since the last row.  filtered: int64 (k, bands), Q.4.
    bands: of each band of each channel.  latest: int64 (k, slow), values since the last row.
    past: of each slow channel its last rows, oldest first.
    """

    samples: IntArray
    filtered: IntArray
    bands: tuple[BandState, ...]
    latest: IntArray
    past: tuple[IntArray, ...]


def quantize_features(config: FeatureConfig) -> QFeatures:
    """The integers of ``config``; ConfigError with every band that cannot be filtered."""
    bands = _design_bands(config)
    depth = tuple(max(_width(*found) for found in rows_back(channel)) for channel in config.slow)
    return QFeatures(config, bands, depth)


def _design_bands(config: FeatureConfig) -> tuple[tuple[QBand, ...], ...]:
    """The bands of each fast channel."""
    problems, bands = [], []
    for channel in config.fast:
        designed = []
        for feature in _bands(channel):
            low_hz, high_hz = feature.arguments
            try:
                designed.append(design_band(low_hz, high_hz, config.rate_hz))
            except ConfigError as error:
                problems.append(f"fast.{channel.name}: {error}")
        bands.append(tuple(designed))
    raise_all(ConfigError, f"features '{config.name}'", problems)
    return tuple(bands)


def _bands(channel: ChannelFeatures) -> list[Feature]:
    return [feature for feature in channel.features if feature.kind == BAND]


def rows_back(channel: ChannelFeatures) -> list[tuple[str, int]]:
    """Kind of each feature of a slow channel and its number of rows; 1 for the value alone."""
    return [
        (feature.kind, int(feature.arguments[0]) if feature.arguments else 1) for feature in channel.features
    ]


def _width(kind: str, rows: int) -> int:
    """Rows that a feature sees, the present one included."""
    return rows + 1 if kind in ("difference", "lag") else rows


def reset(features: QFeatures) -> FeatureState:
    """The state after power-on, and after samples were lost."""
    bands = sum(len(found) for found in features.bands)
    return FeatureState(
        np.zeros((0, len(features.config.fast)), dtype=np.int64),
        np.zeros((0, bands), dtype=np.int64),
        (BandState(),) * bands,
        np.zeros((0, len(features.config.slow)), dtype=np.int64),
        tuple(frozen(np.full(depth - 1, MISSING), np.int64) for depth in features.depth),
    )


def extract(
    features: QFeatures,
    samples: npt.ArrayLike | None = None,
    slow: npt.ArrayLike | None = None,
    state: FeatureState | None = None,
) -> tuple[npt.NDArray[np.int32], FeatureState]:
    """Rows int32 (rows, columns) of samples, from ``state`` (None: from reset), and the state after them.

    samples: int16 (n, fast), None without fast channels.  slow: int32 (n, slow), MISSING where a sample
    brings no value; None where none does.  Chunks give the rows of the whole.
    """
    state = state or reset(features)
    x, values = _checked(features, samples, slow)
    filtered, bands = _filter(features, x, state)
    x, values = np.vstack([state.samples, x]), np.vstack([state.latest, values])
    z = np.vstack([state.filtered, filtered])
    hop = features.config.hop
    rows = len(values) // hop
    used = rows * hop
    columns: list[IntArray] = []
    bands_before = 0
    for index, channel in enumerate(features.config.fast):
        own = z[:used, bands_before : bands_before + len(features.bands[index])]
        columns += _fast_columns(
            channel, x[:used, index].reshape(rows, hop), own.reshape(rows, hop, own.shape[1])
        )
        bands_before += own.shape[1]
    past = []
    for index, channel in enumerate(features.config.slow):
        taken = history.last_present(values[:used, index].reshape(rows, hop))
        columns += _slow_columns(channel, state.past[index], taken)
        past.append(np.concatenate([state.past[index], taken])[rows:])
    after = FeatureState(x[used:].copy(), z[used:].copy(), bands, values[used:].copy(), tuple(past))
    return np.stack(columns, axis=1).astype(np.int32), after


def _checked(
    features: QFeatures, samples: npt.ArrayLike | None, slow: npt.ArrayLike | None
) -> tuple[IntArray, IntArray]:
    """Both arrays as int64; DataError for other shapes and for samples beyond int16."""
    fast_channels, slow_channels = len(features.config.fast), len(features.config.slow)
    given = samples if samples is not None else slow
    count = 0 if given is None else len(np.asarray(given))
    x = np.asarray(np.zeros((count, 0)) if samples is None else samples, dtype=np.int64)
    values = np.asarray(np.full((count, slow_channels), MISSING) if slow is None else slow, dtype=np.int64)
    problems = []
    if x.shape != (count, fast_channels):
        problems.append(f"samples are {x.shape}, expected ({count}, {fast_channels})")
    if values.shape != (count, slow_channels):
        problems.append(f"slow values are {values.shape}, expected ({count}, {slow_channels})")
    if x.size and not -32768 <= x.min() <= x.max() <= 32767:
        problems.append(f"samples reach from {x.min()} to {x.max()}, expected int16")
    if values.size and not MISSING <= values.min() <= values.max() <= INT32_MAX:
        problems.append(f"slow values reach from {values.min()} to {values.max()}, expected int32")
    raise_all(DataError, f"features '{features.config.name}'", problems)
    return x, values


def _filter(features: QFeatures, x: IntArray, state: FeatureState) -> tuple[IntArray, tuple[BandState, ...]]:
    """Filtered samples Q.4 (n, bands) and the state of each band."""
    columns, states = np.zeros((len(x), len(state.bands)), dtype=np.int64), list(state.bands)
    place = 0
    for index, bands in enumerate(features.bands):
        for band in bands:
            columns[:, place], states[place] = filter_band(band, x[:, index], states[place])
            place += 1
    return columns, tuple(states)


def _fast_columns(channel: ChannelFeatures, x: IntArray, z: IntArray) -> list[IntArray]:
    """One array (rows,) for each feature; x: (rows, hop), z: (rows, hop, bands)."""
    found, columns, band = moments.moments_of(x), [], 0
    for feature in channel.features:
        if feature.kind == BAND:
            squares = (z[:, :, band] ** 2).sum(axis=1)  # below 2**62
            columns.append(moments.square_root(squares // found.hop))
            band += 1
        else:
            columns.append(_FAST[feature.kind](found))
    return columns


_FAST = {
    "value": lambda found: found.samples[:, -1],
    "mean": lambda found: found.mean,
    "rms": moments.rms,
    "std": moments.std,
    "peak": moments.peak,
    "peak_to_peak": lambda found: found.high - found.low,
    "crest": moments.crest,
    "kurtosis": moments.kurtosis,
}


def _slow_columns(channel: ChannelFeatures, past: IntArray, taken: IntArray) -> list[IntArray]:
    """One array (rows,) for each feature of the values ``taken`` (rows,) after those of ``past``."""
    columns = []
    for kind, rows in rows_back(channel):
        columns.append(_SLOW[kind](history.windows(past, taken, _width(kind, rows))))
    return columns


_SLOW = {
    "value": lambda near: near[:, -1],
    "difference": lambda near: history.difference(near[:, -1], near[:, 0]),
    "lag": lambda near: near[:, 0],
    "rolling_mean": history.rolling_mean,
    "rolling_std": history.rolling_std,
}
