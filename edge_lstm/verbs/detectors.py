"""Detectors over whole recordings: forecast errors, fitting, the real-valued and the integer detector.

Reads networks and Rows; used by quantize and evaluate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection import fixed, floating, linear
from edge_lstm.detection.fit import FLOOR, DetectorConfig, fit_detector, quantize_detector
from edge_lstm.detection.floating import Detector
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.fixedpoint import IntArray
from edge_lstm.graph import Graph
from edge_lstm.predictor import LinearPredictor
from edge_lstm.qgraph import CodeArray, QGraph
from edge_lstm.scaling import QScaling
from edge_lstm.verbs.streams import Rows, fine_of, float_forecasts, int8_forecasts, join, scaling_for


def expectations(predictor: LinearPredictor, rows: Rows, x: FloatArray, outputs: FloatArray) -> FloatArray:
    """Forecasts OF the rows of x (steps, channels), reset at gaps; of rows without data x itself."""
    expected = np.array(x, dtype=np.float64)
    for part in rows.segments:
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        expected[taken] = floating.expectations(predictor, x[taken], outputs[taken])
    return expected


def held_out_errors(predictor: LinearPredictor, rows: Rows, x: FloatArray, outputs: FloatArray) -> FloatArray:
    """Errors of the forecasts (steps, channels); of rows to learn from as if the line had not seen them."""
    error = x - expectations(predictor, rows, x, outputs)
    if predictor.lags:
        learnt, steps = linear.Rows.of(x, rows.present, rows.gap, rows.learn)
        whole = np.vstack([predictor.forecast(learnt.x[part]) for part in learnt.segments])
        unseen = linear.fit_predictor(learnt, predictor.lags)[1]
        error[steps] += np.where(linear.clean(learnt, predictor.lags)[:, None], whole - unseen, 0.0)
    return error


def _fitted(
    predictor: LinearPredictor,
    rows: Rows,
    x: FloatArray,
    outputs: FloatArray,
    config: DetectorConfig,
    floor: float = FLOOR,
) -> Detector:
    """The detector of a network's own errors; it warms up, and learns, where the line's lags are full."""
    config = replace(config, warmup=max(config.warmup, predictor.lags))
    learn = rows.learn & _known(rows, predictor.lags).any(axis=1)
    return fit_detector(held_out_errors(predictor, rows, x, outputs), x, rows.present, learn, config, floor)


def float_detection(
    graph: Graph, rows: Rows, config: DetectorConfig
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The real-valued detector, fitted and run; the forecasts OF each row, and where there are any."""
    predictor = graph.predictor or LinearPredictor.none(graph.features)
    return _float_detection(predictor, float_forecasts(graph, rows), rows, config)


def linear_detection(
    predictor: LinearPredictor, rows: Rows, config: DetectorConfig
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The same without a network."""
    return _float_detection(predictor, np.zeros_like(rows.x), rows, config)


def _float_detection(
    predictor: LinearPredictor, outputs: FloatArray, rows: Rows, config: DetectorConfig
) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    detector = _fitted(predictor, rows, rows.x, outputs, config)
    expected = expectations(predictor, rows, rows.x, outputs)
    parts = [
        floating.scan(detector, (rows.x - expected)[part], rows.x[part], rows.present[part])
        for part in rows.segments
    ]
    return join(parts), expected, _known(rows, predictor.lags)


def _known(rows: Rows, lags: int) -> BoolArray:
    """Samples (steps, channels) that are forecast: those behind ``lags`` rows, or one, of their segment."""
    known = np.zeros_like(rows.present)
    for part in rows.segments:
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        known[taken[max(1, lags) :]] = True
    return known & rows.present


def _run(qgraph: QGraph, rows: Rows) -> tuple[QScaling, IntArray, CodeArray]:
    """A recording's scaling, its fine codes, and the network's output codes, both (steps, channels)."""
    scaling = scaling_for(qgraph, rows)
    fine = fine_of(scaling, rows)
    with NumpyExecutor(qgraph) as executor:
        return scaling, fine, int8_forecasts(executor, scaling.narrow(fine), rows)


def with_detector(
    qgraph: QGraph, predictor: LinearPredictor | None, rows: Rows, config: DetectorConfig
) -> QGraph:
    """Fit the integer detector on the int8 network's own errors of the rows to learn from."""
    predictor = predictor or LinearPredictor.none(qgraph.features)
    scaling, fine, codes = _run(qgraph, rows)
    x = scaling.unit * (fine - scaling.start)
    step = max(scaling.unit, float((qgraph.output.scale * predictor.spread).max()))
    detector = _fitted(predictor, rows, x, qgraph.output.decode(codes), config, max(FLOOR, step / 2))
    return replace(qgraph, detector=quantize_detector(detector, predictor, scaling, qgraph.output))


def int8_detection(qgraph: QGraph, rows: Rows) -> tuple[floating.FloatDetection, FloatArray, BoolArray]:
    """The integer detector over the recording, the forecasts OF each row, and where there are any."""
    detector = qgraph.detector
    if detector is None:
        raise ModelError(f"model '{qgraph.name}' carries no detector; quantize it with --data")
    scaling, fine, outputs = _run(qgraph, rows)
    expected = scaling.unit * (fine - scaling.start)
    parts = []
    for part in rows.segments:
        parts.append(fixed.detect(detector, fine[part], outputs[part], rows.present[part])[0])
        taken = np.flatnonzero(rows.present[part].any(axis=1)) + part.start
        expected[taken] -= scaling.unit * fixed.errors(detector, fine[taken], outputs[taken])
    return floating.from_fixed(join(parts)), expected, _known(rows, detector.lags)
