"""What a forecaster learns: the error that the linear predictor leaves, row by row, in spreads.

Reads a Dataset; writes the scaling, the predictor and Samples for training and validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.datasets.dataset import Dataset, Splits, split
from edge_lstm.datasets.scaling import fit_scaler
from edge_lstm.detection.linear import Rows, clean, fit_predictor
from edge_lstm.errors import DataError
from edge_lstm.graph import Stream
from edge_lstm.predictor import LinearPredictor
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.samples import Samples

SHORTEST = 8  # timesteps of a window, at least, where gaps are frequent


@dataclass(frozen=True, eq=False)
class Prepared:
    """The parts of a dataset, and what of them is learnt and judged, in network units."""

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
    Raises DataError where no window has a row to learn from or to judge by.
    """
    parts = split(dataset, config.train_fraction, config.validation_fraction)
    stream = fit_scaler(parts.train, config.scaler) if stream is None else stream
    known = dataset.slice(0, parts.train.rows + parts.validation.rows)
    rows, steps = Rows.of(
        np.nan_to_num(stream.to_network(known.values)), known.present, known.gap, known.normal
    )
    if predictor is None:
        predictor = fit_predictor(rows)[0] if config.linear else LinearPredictor.none(dataset.channels)
    early = np.append(steps[1:], dataset.rows) < parts.train.rows  # of the row that is forecast
    train, validation = _both(rows, predictor, early, config)
    return Prepared(parts, stream, predictor, train, validation)


def _both(
    rows: Rows, predictor: LinearPredictor, early: BoolArray, config: TrainConfig
) -> tuple[Samples, Samples]:
    """Samples of training (``early``) and validation; windows get shorter where gaps leave no room."""
    targets, weights = _targets(rows, predictor)
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


def _targets(rows: Rows, predictor: LinearPredictor) -> tuple[FloatArray, BoolArray]:
    """What the network should say after each row (rows, channels), and where it is known."""
    expected = np.vstack([predictor.forecast(rows.x[part]) for part in rows.segments])
    error = (rows.x - expected) / predictor.spread
    learnt = clean(rows, max(predictor.lags, 1))[:, None] & rows.present
    last = np.zeros((1, error.shape[1]))
    return np.vstack([error[1:], last]), np.vstack([learnt[1:], last > 0])


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
