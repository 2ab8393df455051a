"""Detectors of recordings with networks of random weights, and their C against the NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.datasets.scaling import fit_scaler
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows as LearningRows
from edge_lstm.detection.linear import fit_predictor
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import quantize
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.detectors import with_detector
from edge_lstm.verbs.streams import counts_of, network_rows

UNITS = 3
FITTED = 400  # rows that the detectors are fitted on


def random_graph(rng: np.random.Generator, stream: Stream, channels: int, name: str) -> Graph:
    def draw(*shape: int) -> FloatArray:
        return rng.normal(0, 0.6, shape)

    return Graph(
        name,
        (
            Lstm("lstm", draw(channels, 4 * UNITS), draw(UNITS, 4 * UNITS), draw(4 * UNITS)),
            Dense("dense", draw(UNITS, channels), draw(channels)),
        ),
        stream,
    )


def twin(dataset: Dataset, train_rows: int, name: str, seed: int) -> QGraph:
    """An int8 network of random weights with the detector of its own errors on the last rows of training.

    Its scores are small numbers of spreads, its threshold low, so that there are alarms.
    """
    rng = np.random.default_rng(seed)
    learnt = dataset.slice(max(0, train_rows - FITTED), train_rows)
    stream = with_resolution(fit_scaler(learnt), learnt.values)
    rows = network_rows(learnt, stream, TrainConfig(train_fraction=0.6, validation_fraction=0.39))
    predictor, _ = fit_predictor(LearningRows.of(rows.x, rows.present, rows.gap, rows.learn)[0])
    graph = replace(random_graph(rng, stream, dataset.channels, name), predictor=predictor)
    qgraph = quantize(graph, rows.x[rows.learn & rows.present.any(axis=1)])
    config = DetectorConfig(sigma=3.0, level=float(2 * (seed % 2)))
    return with_detector(qgraph, graph, rows, config)


def counts(qgraph: QGraph, dataset: Dataset) -> IntArray:
    """The raw integers that the sensors give, a missing sample as the device is told of it."""
    return counts_of(qgraph.stream, np.where(dataset.present, dataset.values, np.nan))


def reference(qgraph: QGraph, dataset: Dataset) -> IntArray:
    return detected(NumpyExecutor(qgraph), dataset)


def detected(executor: Executor, dataset: Dataset) -> IntArray:
    """Score, alarm, threshold and contributions of every row, reset at gaps; raw integers to alarm."""
    raw = counts(executor.qgraph, dataset)
    found = []
    for part in np.split(raw, np.flatnonzero(dataset.gap)):
        executor.reset()
        if len(part):
            d = executor.detect(part)
            found.append(np.column_stack([d.score, d.alarm, d.threshold, d.contributions]))
    return np.vstack(found).astype(np.int64)


def differing(
    executors: Sequence[Executor], datasets: Sequence[Dataset], expected: Sequence[IntArray]
) -> int:
    """How many integers of the executors are not the expected ones."""
    pairs = zip(executors, datasets, expected, strict=True)
    return sum(int((detected(executor, dataset) != known).sum()) for executor, dataset, known in pairs)
