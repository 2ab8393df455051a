"""Profile native: it loses less than tflm, and its C reads packed weights, code by code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.emit.c_code import emit_c
from edge_lstm.emit.c_native import packed
from edge_lstm.errors import ConfigError, ModelError, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Graph, Stream
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.lower import lower
from edge_lstm.operators import QDense, wide
from edge_lstm.qgraph import QGraph, QNativeLstm, QScan
from edge_lstm.quantizer import QuantizeConfig, quantize
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from random_graphs import random_graph
from test_recipes import both, snr_db, stream

KINDS = (
    "lstm",
    "stacked",
    "cell_clip",
    "gru_after",
    "rnn",
    "bidirectional_concat",
    "autoencoder",
    "tcn",
    "conv",
)
NATIVE = QuantizeConfig(profile="native")
INT4 = QuantizeConfig(profile="native", weights="int4")


def sparse(graph: Graph, seed: int) -> Graph:
    """The same network with three of four blocks of weights 0."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in graph.layers:
        names = [
            name
            for name in ("kernel", "recurrent_kernel")
            if isinstance(layer, (Lstm, Dense)) and hasattr(layer, name)
        ]
        for name in names:
            kernel = np.array(getattr(layer, name))
            for row in range(0, len(kernel), 4):
                kernel[row : row + 4, rng.random(kernel.shape[1]) < 0.8] = 0.0
            layer = replace(layer, **{name: kernel})  # type: ignore[arg-type]
        layers.append(layer)
    return replace(graph, layers=tuple(layers))


def networks() -> list[QGraph]:
    """Every kind in int8, int4 and, where its weights are, in blocks; odd sizes."""
    found = []
    for kind in KINDS:
        for seed in range(4):
            graph = random_graph(seed, kind, units=int(np.random.default_rng(seed).integers(1, 12)))
            x = stream(seed, graph)
            for name, network, config in (
                ("int8", graph, NATIVE),
                ("int4", graph, INT4),
                ("blocks", sparse(graph, seed), NATIVE),
            ):
                qgraph = quantize(network, x, config)
                found.append(replace(qgraph, name=f"{kind}_{seed}_{name}"))
    return found


@pytest.fixture(scope="module")
def qgraphs() -> list[QGraph]:
    return networks()


def storages(qgraph: QGraph) -> set[str]:
    operators = [*qgraph.layers]
    for layer in qgraph.layers:
        operators += layer.body if isinstance(layer, QScan) else ()
    return {layer.storage for layer in operators if isinstance(layer, (QNativeLstm, QDense))}


def test_the_networks_store_weights_in_all_three_ways(qgraphs: list[QGraph]) -> None:
    assert len(qgraphs) >= 100
    assert {"int8"} in [storages(q) for q in qgraphs] and {"int4"} in [storages(q) for q in qgraphs]
    assert sum("blocks" in storages(q) for q in qgraphs) >= 10


def test_the_c_on_host_and_emulated_m4_equals_numpy(qgraphs: list[QGraph]) -> None:
    library, machine = load_library(qgraphs), build_machine(qgraphs, core_named("cortex-m4"))
    for seed, qgraph in enumerate(qgraphs):
        codes = mixed_stream(qgraph.features, 2 * (qgraph.window or 20), seed, qgraph.input.bits)
        expected = NumpyExecutor(qgraph).run(codes)
        for executor in (
            HostExecutor(qgraph, library=library),
            EmulatedExecutor(qgraph, "cortex-m4", machine=machine),
        ):
            assert (executor.run(codes) == expected).all(), f"{executor.name} {qgraph.name}"


def test_native_loses_less_than_tflm() -> None:
    """In none of these networks does it lose more; in the median it gains more than a decibel."""
    gains = []
    for kind in ("lstm", "stacked", "bidirectional_concat", "autoencoder"):
        for seed in range(8):
            graph = random_graph(seed, kind, units=8)
            x = stream(seed, graph)
            errors = [
                snr_db(*both(graph, quantize(graph, x, config), x)) for config in (QuantizeConfig(), NATIVE)
            ]
            gains.append(errors[1] - errors[0])
    assert np.median(gains) > 1.0 and min(gains) >= 0, gains


def test_packed_rows_are_what_the_header_says() -> None:
    assert packed(np.array([1, -2, 7], np.int8), "int4") == [
        1 | 14 << 4 if 14 < 8 else (1 | 14 << 4) - 256,
        7,
    ]
    row = np.array([0, 0, 0, 0, 5, 0, 0, -1, 0, 3], np.int8)
    assert packed(row, "blocks") == [2, 1, 5, 0, 0, -1, 2, 0, 3]
    assert packed(row, "int8") == row.tolist()


def test_four_bits_are_for_native_only_and_are_checked() -> None:
    with pytest.raises(ConfigError, match="weights is 'int4' in profile tflm, expected profile native"):
        QuantizeConfig(weights="int4")
    value = wide(-12)
    with pytest.raises(ModelError, match=r"a weight lies outside -7 \.\. 7"):
        QDense("d", np.full((1, 1), 8), np.zeros(1), np.ones(1), value, value, storage="int4")
    with pytest.raises(ModelError, match="storage is 'int2', expected one of int8, int4, blocks"):
        QDense("d", np.full((1, 1), 8), np.zeros(1), np.ones(1), value, value, storage="int2")


def test_packed_weights_whose_sums_leave_32_bits_have_no_c() -> None:
    value = wide(-12)
    dense = QDense(
        "d", np.full((1, 3), 7), np.full(1, 2**40), np.full(1, 2.0**-20), value, wide(-10), storage="int4"
    )
    with pytest.raises(UnsupportedModel, match="'d' stores its weights as int4, but its sums leave 32 bits"):
        emit_c(lower(QGraph("m", (dense,), Stream.unnamed(3), "native")))
