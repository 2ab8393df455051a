"""What a network reaches on a long stream: one stateful run, against persistence.

Reads a Graph and a Dataset; writes figures as plain JSON values.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import BoolArray, Dataset
from edge_lstm.datasets.windows import make_windows
from edge_lstm.errors import DataError
from edge_lstm.graph import Graph
from edge_lstm.predictor import LinearPredictor
from edge_lstm.reference import floating


def forecast_figures(graph: Graph, part: Dataset, burn_in: int = 0) -> dict[str, Any]:
    """How well ``graph`` forecasts, or rebuilds, the rows of ``part``, its state kept throughout.

    As on the device the state is reset at gaps only, a row without any channel is skipped, a missing value
    is held.  Counted are normal rows with a present target, after ``burn_in`` rows from each reset, of all
    channels but context.
    mse and persistence_mse: in network units.  r2 and persistence_r2: each channel against its own mean
    over the counted rows, None where it does not vary or is context, and their means.  Persistence forecasts
    no change; beside an autoencoder it has no figures.
    Raises DataError where no row counts.
    """
    runs = [run for segment in _segments(part) if (run := _stateful_run(graph, segment, burn_in))]
    if not runs:
        raise DataError(
            f"forecast: none of the {part.rows} rows is normal and has {burn_in + graph.ahead} others before "
            "it since the last gap; give it more normal rows, or lower burn_in"
        )
    inputs, targets, forecast, counted = (np.concatenate(arrays) for arrays in zip(*runs, strict=True))
    mse, r2 = _quality(forecast, targets, counted)
    none: list[float | None] = [None] * len(part.names)
    persistence_mse, persistence_r2 = _quality(inputs, targets, counted) if graph.ahead else (None, none)
    return {
        "steps": int(counted.any(axis=1).sum()),
        "mse": mse,
        "r2": dict(zip(part.names, r2, strict=True)),
        "r2_mean": _mean_known(r2),
        "persistence_mse": persistence_mse,
        "persistence_r2": dict(zip(part.names, persistence_r2, strict=True)),
        "persistence_r2_mean": _mean_known(persistence_r2),
    }


def _segments(part: Dataset) -> list[Dataset]:
    edges = [0, *np.flatnonzero(part.gap).tolist(), part.rows]
    return [part.slice(start, stop) for start, stop in pairwise(edges)]


def _stateful_run(
    graph: Graph, segment: Dataset, burn_in: int
) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray] | None:
    """Inputs, targets, forecasts and what counts, each (steps, channels); None where nothing counts."""
    predictor = graph.predictor or LinearPredictor.none(graph.features)
    ahead, rows = graph.ahead, int(segment.present.any(axis=1).sum())
    burn_in = max(burn_in, predictor.lags - max(ahead, 1) + 1)  # so that the line's lags are full
    steps = rows - ahead
    if steps <= burn_in:
        return None
    x = graph.stream.to_network(segment.values)
    try:
        window = make_windows(x, segment.present, segment.gap, segment.normal, steps, steps, burn_in, ahead)
    except DataError:  # no row of the segment is normal
        return None
    inputs = window.inputs.astype(np.float64)
    outputs, _ = floating.run(graph, inputs)
    to_come = np.repeat(inputs[0, -1:], ahead, axis=0)  # not read: the line looks ``ahead`` rows ahead
    line = predictor.forecast(np.vstack([inputs[0], to_come]))[ahead:]
    forecast = line + predictor.spread * outputs[0]
    counted = (window.weights[0] > 0) & graph.stream.scored
    return (inputs[0], window.targets[0].astype(np.float64), forecast, counted) if counted.any() else None


def _quality(
    forecast: FloatArray, targets: FloatArray, counted: BoolArray
) -> tuple[float, list[float | None]]:
    """Mean squared error over all counted entries, R2 of each channel; all arrays (steps, channels)."""
    r2: list[float | None] = []
    squares = np.square(forecast - targets)
    for channel in range(targets.shape[1]):
        rows = counted[:, channel]
        known = targets[rows, channel]
        spread = float(np.square(known - known.mean()).sum()) if len(known) else 0.0
        r2.append(1.0 - float(squares[rows, channel].sum()) / spread if spread > 0 else None)
    return float(squares[counted].mean()), r2


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
