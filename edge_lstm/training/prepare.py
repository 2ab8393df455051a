"""What a network learns: the error that the linear predictor leaves, or the row itself, in spreads.

Reads a Dataset; writes the scaling, the predictor and Samples for training and validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.datasets.clock import NAMES, is_clock
from edge_lstm.datasets.dataset import Dataset, Splits, split
from edge_lstm.datasets.scaling import fit_scaler
from edge_lstm.detection.linear import Rows, clean, fit_predictor
from edge_lstm.errors import ConfigError, DataError, raise_all
from edge_lstm.graph import Stream
from edge_lstm.predictor import LinearPredictor
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.samples import Samples

CHANNELS_A_CODE = 4  # of an autoencoder's narrow layer, as the dense autoencoder among the baselines
SHORTEST = 8  # timesteps of a window, at least, where gaps are frequent


@dataclass(frozen=True, eq=False)
class Prepared:
    """The parts of a dataset, and what of them is learnt and judged, in network units.

    stream: with the channels that are context marked.
    """

    parts: Splits
    stream: Stream
    predictor: LinearPredictor
    train: Samples
    validation: Samples


def prepare(
    dataset: Dataset,
    config: TrainConfig,
    stream: Stream | None = None,
    predictor: LinearPredictor | None = None,
) -> Prepared:
    """Split in time order, scale by the normal training rows, forecast by a line, cut windows.

    stream, predictor: of a network that is trained on; by default they are fitted, the line (where
    ``config.linear``) on all normal rows before the test part.
    Raises ConfigError for a context that is not in the dataset or leaves no channel, DataError where no
    window has a row to learn from or to judge by.
    """
    _check_stream(config, dataset.names)
    parts, stream, rows, steps = learning_rows(dataset, config, stream)
    if predictor is None:
        predictor = LinearPredictor.none(dataset.channels)
        if config.linear and config.ahead:
            predictor = fit_predictor(rows, None, config.ahead, stream.scored)[0]
    targets, weights = _targets(rows, predictor, config.ahead)
    target_rows = np.append(steps[config.ahead :], [dataset.rows] * config.ahead)
    early = target_rows < parts.train.rows
    train, validation = _both(rows, targets, weights & stream.scored, early, config)
    return Prepared(parts, stream, predictor, train, validation)


def _check_stream(config: TrainConfig, names: Sequence[str]) -> None:
    """ConfigError where the options do not suit these channels."""
    unknown = [name for name in config.context if name not in names]
    problems = [f"context '{name}' is no channel; expected one of {', '.join(names)}" for name in unknown]
    scored = len(set(names) - {*config.context, *(NAMES if config.clock else ())})
    if not scored:
        problems.append("every channel is context; leave one to forecast")
    if not config.ahead and scored == 1:
        problems.append(
            "ahead is 0 with one channel: an autoencoder that reads row by row would copy it; "
            "forecast it, or give more channels"
        )
    elif not config.ahead and config.bottleneck >= scored > 0:
        problems.append(
            f"bottleneck is {config.bottleneck}, expected below the {scored} channels of the autoencoder, or "
            "it copies them"
        )
    raise_all(ConfigError, "training options", problems)


def bottleneck_of(config: TrainConfig, scored: int) -> int:
    """Size of the narrow layer of a network for ``scored`` channels, 0 for none."""
    return config.bottleneck or (0 if config.ahead else max(1, scored // CHANNELS_A_CODE))


def learning_rows(
    dataset: Dataset, config: TrainConfig, stream: Stream | None = None
) -> tuple[Splits, Stream, Rows, Any]:
    """The parts, the scaling, and what is known before the test part, with its steps in the recording."""
    parts = split(dataset, config.train_fraction, config.validation_fraction)
    if stream is None:
        fitted = fit_scaler(parts.train, config.scaler)
        marked = (replace(c, context=c.name in config.context or is_clock(c)) for c in fitted.channels)
        stream = replace(fitted, channels=tuple(marked))
    known = dataset.slice(0, parts.train.rows + parts.validation.rows)
    scaled = np.nan_to_num(stream.to_network(known.values))
    return parts, stream, *Rows.of(scaled, known.present, known.gap, known.normal)


def _both(
    rows: Rows, targets: FloatArray, weights: BoolArray, early: BoolArray, config: TrainConfig
) -> tuple[Samples, Samples]:
    """Samples of training (``early``) and validation; windows get shorter where gaps leave no room."""
    learnt, judged = weights & early[:, None], weights & ~early[:, None]
    timesteps = config.timesteps
    while True:
        burn_in = config.burn_in if timesteps == config.timesteps else min(config.burn_in, timesteps // 4)
        try:
            return (
                _samples(rows, targets, learnt, timesteps, burn_in, config.stride, "training"),
                _samples(rows, targets, judged, timesteps, burn_in, timesteps - burn_in, "validation"),
            )
        except DataError:
            if timesteps <= SHORTEST:
                raise
            timesteps = max(timesteps // 2, SHORTEST)


def _targets(rows: Rows, predictor: LinearPredictor, ahead: int) -> tuple[FloatArray, BoolArray]:
    """What the network should say after each row (rows, channels), and where it is known."""
    expected = np.vstack([predictor.forecast(rows.x[part]) for part in rows.segments])
    error = (rows.x - expected) / predictor.spread
    learnt = clean(rows, max(predictor.lags, ahead))[:, None] & rows.present
    none = np.zeros((ahead, error.shape[1]))
    return np.vstack([error[ahead:], none]), np.vstack([learnt[ahead:], none > 0])


def _samples(
    rows: Rows, targets: FloatArray, weights: BoolArray, timesteps: int, burn_in: int, stride: int, name: str
) -> Samples:
    """Windows that weigh something behind their burn-in; the last one of a segment ends it."""
    counts = np.concatenate([[0], np.cumsum(weights.any(axis=1))])
    starts = [np.zeros(0, dtype=np.int64)]
    for part in rows.segments:
        last = part.stop - timesteps
        if last < part.start:
            continue
        found = np.unique(np.append(np.arange(part.start, last, stride), last))
        starts.append(found[counts[found + timesteps] > counts[found + burn_in]])
    chosen = np.concatenate(starts)
    if not len(chosen):
        raise DataError(
            f"the {name} part: no window of {timesteps} rows has a normal row behind the first {burn_in}; "
            "give more normal rows without gaps"
        )
    return Samples(rows.x, targets, weights.astype(np.float32), chosen, timesteps, burn_in)
