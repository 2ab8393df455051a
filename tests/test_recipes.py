"""Every float layer as integer operators: how near they stay, what they are made of, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Graph, Stream
from edge_lstm.layer_types import RELU, Activation, Dense, Function, Gru, Lstm
from edge_lstm.qgraph import QDense, QGraph, QNativeLstm, QScan
from edge_lstm.quantizer import QuantizeConfig, calibration_windows, quantize
from edge_lstm.reference import floating
from random_graphs import random_graph

# Signal-to-noise in decibels that every one of the random networks of a kind keeps: (int8, int16x8, native).
FLOORS = {
    "lstm": (36, 40, 34),
    "stacked": (38, 42, 38),
    "cell_clip": (36, 40, 36),
    "gru_after": (38, 42, 38),
    "gru_before": (38, 41, 38),
    "rnn": (36, 40, 36),
    "bidirectional_concat": (36, 40, 33),
    "bidirectional_sum": (35, 39, 34),
    "bidirectional_mean": (36, 40, 35),
    "bidirectional_mul": (30, 38, 30),
    "bidirectional_last": (34, 38, 34),
    "autoencoder": (32, 36, 31),
    "attention_dot": (30, 33, 30),
    "attention_additive": (30, 33, 30),
    "conv": (36, 40, 36),
    "tcn": (28, 30, 28),
    "merges": (32, 36, 32),
    "softmax": (26, 30, 26),
    "last_row": (36, 40, 36),
}
SEEDS = range(6)
CONFIGS = (QuantizeConfig(), QuantizeConfig(scheme="int16x8"), QuantizeConfig(profile="native"))


def stream(seed: int, graph: Graph) -> FloatArray:
    """Smooth waves with noise, long enough for eight windows."""
    rng = np.random.default_rng(seed)
    t = np.arange(max(400, 8 * graph.window))[:, None]
    features = graph.features
    waves = np.sin(t / rng.uniform(5, 60, features) + rng.uniform(0, 6, features))
    return waves + rng.normal(0, 0.2, (len(t), features))


def both(graph: Graph, qgraph: QGraph, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What float and integers return for the same rows, in real numbers."""
    windows = calibration_windows(graph, x)
    real, _ = floating.run(graph, windows)
    codes = NumpyExecutor(qgraph).run(qgraph.input.encode(windows.reshape(-1, graph.features)))
    return real, qgraph.output.decode(codes).reshape(real.shape)


def snr_db(real: FloatArray, found: FloatArray) -> float:
    return float(10 * np.log10((real**2).mean() / max(((real - found) ** 2).mean(), 1e-15)))


@pytest.mark.parametrize("kind", FLOORS)
def test_integers_stay_near_the_float_network(kind: str) -> None:
    for seed in SEEDS:
        graph = random_graph(seed, kind)
        x = stream(seed, graph)
        for config, floor in zip(CONFIGS, FLOORS[kind], strict=True):
            qgraph = quantize(graph, x, config)
            found = snr_db(*both(graph, qgraph, x))
            assert found >= floor, f"{graph.name} {config.profile} {config.scheme}: {found:.1f} dB"
            bits = 16 if config.scheme == "int16x8" else 8
            assert (qgraph.input.bits, qgraph.output.bits) == (bits, bits)
            assert qgraph.window == graph.window and qgraph.rows == graph.rows


def gru(features: int, units: int) -> Gru:
    rng = np.random.default_rng(4)
    kernels = rng.normal(0, 0.4, (features, 3 * units)), rng.normal(0, 0.4, (units, 3 * units))
    return Gru("gru", *kernels, rng.normal(0, 0.3, 3 * units), rng.normal(0, 0.3, 3 * units))


def lstm(units: int, **options: object) -> Lstm:
    rng = np.random.default_rng(5)
    kernels = rng.normal(0, 0.4, (2, 4 * units)), rng.normal(0, 0.4, (units, 4 * units))
    return Lstm("lstm", *kernels, rng.normal(0, 0.3, 4 * units), **options)  # type: ignore[arg-type]


def test_a_dense_layer_takes_in_the_relu_that_alone_follows_it() -> None:
    rng = np.random.default_rng(1)
    dense = Dense("dense", rng.normal(0, 1, (4, 5)), rng.normal(0, 0.5, 5))
    graph = Graph("m", (lstm(4), dense, Activation("relu", RELU)), Stream.unnamed(2))
    x = stream(1, graph)
    qgraph = quantize(graph, x)
    assert [type(layer).__name__ for layer in qgraph.layers] == ["QLstm", "QDense"]
    head = qgraph.layers[1]
    assert isinstance(head, QDense) and head.relu and head.output.zero_point == -128
    real, found = both(graph, qgraph, x)
    assert found.min() == 0.0 and snr_db(real, found) > 33
    read_twice = Graph(
        "m",
        (lstm(4), dense, Activation("relu", RELU), Activation("tanh", Function("tanh"))),
        Stream.unnamed(2),
        {},
        ((-1,), (0,), (1,), (2,)),
    )
    assert quantize(read_twice, x).layers[1].relu  # type: ignore[union-attr]


def test_a_gru_is_a_scan_of_simple_operators_and_native_has_its_own_lstm() -> None:
    graph = Graph("m", (gru(2, 3),), Stream.unnamed(2))
    scan = next(layer for layer in quantize(graph, stream(2, graph)).layers if isinstance(layer, QScan))
    kinds = [type(operator).__name__ for operator in scan.body]
    assert kinds.count("QDense") == 3 and kinds.count("QLookup") == 2 and len(scan.states) == 1
    network = Graph("m", (lstm(3),), Stream.unnamed(2))
    qgraph = quantize(network, stream(3, network), QuantizeConfig(profile="native"))
    assert any(isinstance(layer, QNativeLstm) for layer in qgraph.layers)
    assert qgraph.profiles == ("native",)


def test_what_has_no_integer_form_is_refused_with_every_reason() -> None:
    layers = (
        lstm(3, gate_clip=0.5, activation=Function("softplus")),
        Gru("second", np.ones((3, 6)), np.ones((2, 6)), np.zeros(6), np.zeros(6), initial_hidden=np.ones(2)),
        Activation("bent", Function("elu")),
    )
    with pytest.raises(UnsupportedModel) as caught:
        quantize(Graph("m", layers, Stream.unnamed(2)), np.ones((9, 2)))
    message = str(caught.value)
    for part in (
        "layer 'lstm': activation softplus(None, None) has no integer form",
        "layer 'lstm': a clip of the gates (0.5) has no integer form",
        "layer 'second': it begins from a state that is not 0",
        "layer 'bent': activation elu",
        "train with one of linear, relu, leaky_relu, hard_sigmoid, sigmoid, tanh",
    ):
        assert part in message


def test_a_stream_shorter_than_the_window_is_refused() -> None:
    graph = random_graph(1, "autoencoder", window=20)
    with pytest.raises(DataError, match=r"the stream has 19 rows, the network takes windows of 20"):
        quantize(graph, np.zeros((19, graph.features)))


@pytest.mark.parametrize("kind", ["gru_after", "rnn", "tcn", "conv", "stacked"])
def test_rows_one_by_one_give_the_codes_of_one_run(kind: str) -> None:
    graph = random_graph(9, kind)
    x = stream(9, graph)
    executor = NumpyExecutor(quantize(graph, x))
    codes = executor.qgraph.input.encode(x[:60])
    whole = executor.run(codes)
    executor.reset()
    assert (np.stack([executor.step(row) for row in codes]) == whole).all()


@pytest.mark.parametrize("kind", ["bidirectional_last", "attention_dot", "autoencoder"])
def test_windows_do_not_know_of_each_other(kind: str) -> None:
    graph = random_graph(11, kind, window=9)
    executor = NumpyExecutor(quantize(graph, stream(11, graph)))
    codes = executor.qgraph.input.encode(stream(11, graph)[:27])
    together = executor.run(codes)
    alone = np.concatenate([executor.run(codes[start : start + 9]) for start in (0, 9, 18)])
    assert (together == alone).all()
