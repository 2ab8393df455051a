"""The networks whose cost tests/benchmarks.json records: streaming, seeded, quantized by this package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import fit_detector, quantize_detector
from edge_lstm.detection.linear import Rows, fit_predictor
from edge_lstm.graph import Graph, Stream
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.scaling import scaling_of

# name -> inputs, units of each LSTM, outputs of the dense layer (0: none)
RESOLUTION = 0.005  # of a raw integer; the signals are some 8 wide: about that of an ADC of 10 bits
SHAPES = {"D": (8, (16,), 8), "L32": (8, (32,), 0), "B": (3, (32,), 3), "C": (8, (16, 16), 8)}


def benchmark_graph(name: str) -> Graph:
    """The float network of a shape."""
    features, units, outputs = SHAPES[name]
    rng = np.random.default_rng(0)
    layers: list[Lstm | Dense] = []
    inputs = features
    for index, n in enumerate(units):
        spread = 1.5 / np.sqrt(inputs + n)
        bias = rng.normal(0, 0.3, 4 * n)
        bias[n : 2 * n] += 1
        kernels = (rng.normal(0, spread, (rows, 4 * n)) for rows in (inputs, n))
        layers.append(Lstm(f"lstm_{index}", *kernels, bias))
        inputs = n
    if outputs:
        kernel = rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs))
        layers.append(Dense("dense", kernel, rng.normal(0, 0.1, outputs)))
    return Graph("m", tuple(layers), Stream.unnamed(features))


def benchmark_model(name: str, detector: bool = False, config: QuantizeConfig | None = None) -> QGraph:
    """The integer network of a shape; detector: with one of every default option, fitted on noise."""
    rows = np.random.default_rng(5).normal(0, 1, (600, SHAPES[name][0]))
    qgraph = quantize(benchmark_graph(name), rows, config)
    if not detector:
        return qgraph
    channels = tuple(replace(channel, resolution=RESOLUTION) for channel in qgraph.stream.channels)
    qgraph = replace(qgraph, stream=replace(qgraph.stream, channels=channels))
    everything = np.ones(rows.shape, dtype=bool)
    learnt, _ = Rows.of(rows, everything, np.zeros(len(rows), dtype=bool), everything[:, 0])
    predictor, forecasts = fit_predictor(learnt)
    fitted = fit_detector(rows - forecasts, rows, everything, everything[:, 0], DetectorConfig())
    scaling = scaling_of(qgraph.stream, qgraph.input)
    assert scaling is not None
    return replace(qgraph, detector=quantize_detector(fitted, predictor, scaling, qgraph.output))
