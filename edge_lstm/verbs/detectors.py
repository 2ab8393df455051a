"""Detectors over whole recordings: forecast errors, fitting, the real-valued and the integer detector.

Reads networks and Rows; used by quantize and evaluate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection import fixed, floating, linear, methods
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import FLOOR, fit_detector, quantize_detector
from edge_lstm.detection.floating import Detector
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Graph
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.scaling import QScaling
from edge_lstm.verbs.streams import Rows, fine_of, float_forecasts, int8_forecasts, join, scaling_for


def expectations(
    predictor: LinearPredictor, rows: Rows, x: FloatArray, outputs: FloatArray, ahead: int = 1
) -> FloatArray:
    """What is expected OF the rows of x (steps, channels), reset at gaps; of rows without data x itself."""
    expected = np.array(x, dtype=np.float64)
    for part in rows.segments:
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        expected[taken] = floating.expectations(predictor, x[taken], outputs[taken], ahead)
    return expected


def held_out_errors(
    predictor: LinearPredictor, rows: Rows, x: FloatArray, outputs: FloatArray, ahead: int = 1
) -> FloatArray:
    """Errors of the forecasts (steps, channels); of rows to learn from as if the line had not seen them."""
    error = x - expectations(predictor, rows, x, outputs, ahead)
    if predictor.method != "none":
        learnt, steps = linear.Rows.of(x, rows.present, rows.gap, rows.learn)
        whole = methods.expectations(predictor, learnt)
        own = predictor.lags - max(ahead - 1, 0)
        unseen = methods.fit_method(predictor.method, learnt, own, ahead, rows.scored)[1]
        error[steps] += np.where(linear.clean(learnt, predictor.lags)[:, None], whole - unseen, 0.0)
    return error


def _fitted(
    predictor: LinearPredictor,
    rows: Rows,
    x: FloatArray,
    outputs: FloatArray,
    config: DetectorConfig,
    ahead: int,
    floor: float = FLOOR,
) -> Detector:
    """The detector of a network's own errors; it warms up, and learns, where the rows are forecast."""
    config = methods.method_config(predictor.method, config, predictor.channels)
    config = replace(config, warmup=max(config.warmup, predictor.lags, ahead))
    learn = rows.learn & _known(rows, predictor.lags, ahead).any(axis=1)
    error = held_out_errors(predictor, rows, x, outputs, ahead)
    return fit_detector(error, x, rows.present, learn, config, floor, rows.scored)


def float_detection(
    graph: Graph, rows: Rows, config: DetectorConfig
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The real-valued detector, fitted and run; the forecasts OF each row, and where there are any.

    A row that is rebuilt, not forecast, has none.
    """
    predictor = graph.predictor or LinearPredictor.none(graph.features)
    return _float_detection(predictor, float_forecasts(graph, rows), rows, config, graph.ahead)


def linear_detection(
    predictor: LinearPredictor, rows: Rows, config: DetectorConfig, ahead: int = 1
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The same without a network."""
    return _float_detection(predictor, np.zeros_like(rows.x), rows, config, ahead)


def _float_detection(
    predictor: LinearPredictor, outputs: FloatArray, rows: Rows, config: DetectorConfig, ahead: int
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    detector = _fitted(predictor, rows, rows.x, outputs, config, ahead)
    expected = expectations(predictor, rows, rows.x, outputs, ahead)
    parts = [
        floating.scan(detector, (rows.x - expected)[part], rows.x[part], rows.present[part])
        for part in rows.segments
    ]
    known = _known(rows, predictor.lags, ahead) & (predictor.contemporaneous is None)
    return join(parts), expected, known


def _known(rows: Rows, lags: int, ahead: int) -> BoolArray:
    """Samples (steps, channels) of which something is expected: those behind ``lags`` and ``ahead`` rows."""
    known = np.zeros_like(rows.present)
    for part in rows.segments:
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        known[taken[max(ahead, lags) :]] = True
    return known & rows.present & rows.scored


def _run(qgraph: QGraph, rows: Rows, executor: Executor | None) -> tuple[QScaling, IntArray, CodeArray]:
    """A recording's scaling, its fine codes, and the network's output codes, both (steps, channels)."""
    scaling = scaling_for(qgraph, rows)
    fine = fine_of(scaling, rows)
    return scaling, fine, int8_forecasts(executor or NumpyExecutor(qgraph), scaling.narrow(fine), rows)


def with_detector(
    qgraph: QGraph, graph: Graph, rows: Rows, config: DetectorConfig, executor: Executor | None = None
) -> QGraph:
    """Fit the integer detector on the integer network's own errors of the rows to learn from.

    graph: the float network.  executor: with the integer network loaded; None: NumPy.
    """
    predictor = graph.predictor or LinearPredictor.none(graph.features)
    scaling, fine, codes = _run(qgraph, rows, executor)
    x = scaling.unit * (fine - scaling.start)
    step = max(scaling.unit, float((qgraph.output.scale * predictor.spread[rows.scored]).max()))
    outputs, floor = qgraph.output.decode(codes), max(FLOOR, step / 2)
    detector = _fitted(predictor, rows, x, outputs, config, graph.ahead, floor)
    return replace(
        qgraph, detector=quantize_detector(detector, predictor, scaling, qgraph.output, graph.ahead)
    )


def int8_detection(
    qgraph: QGraph, rows: Rows, executor: Executor | None = None
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The integer detector over the recording, the forecasts OF each row, and where there are any.

    executor: with the network loaded; None: NumPy.
    """
    detector = qgraph.detector
    if detector is None:
        raise ModelError(f"model '{qgraph.name}' carries no detector; quantize it with --data")
    scaling, fine, outputs = _run(qgraph, rows, executor)
    expected = scaling.unit * (fine - scaling.start)
    parts = []
    for part in rows.segments:
        parts.append(fixed.detect(detector, fine[part], outputs[part], rows.present[part])[0])
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        expected[taken] -= scaling.unit * fixed.errors(detector, fine[taken], outputs[taken])
    known = _known(rows, detector.lags, detector.ahead) & forecasts(detector)
    return floating.from_fixed(join(parts)), expected, known


def forecasts(detector: fixed.QDetector) -> bool:
    """Whether the forms leave the present row as it is: else they rebuild it."""
    if detector.forms is None:
        return True
    identity = np.eye(detector.channels, dtype=np.int64) << detector.forms_shift
    return np.array_equal(detector.forms[:, : detector.channels], identity)
