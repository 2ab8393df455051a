"""Profile native: it loses less than tflm, and its C reads packed weights, code by code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edge_lstm.emit.c_code import runtime_text
from edge_lstm.emit.c_native import (
    SHARED_BLOCKS,
    rows_of_blocks,
    rows_of_bytes,
    rows_of_nibbles,
    rows_of_shared_blocks,
    storage_of_lstm,
)
from edge_lstm.errors import ConfigError, ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Graph, Stream
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.lower import lower
from edge_lstm.operators import STORAGES, QDense, shared_blocks, wide
from edge_lstm.program import NativeLstmProgram
from edge_lstm.qgraph import QGraph, QNativeLstm, QScan
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference.native_lstm import sigmoid_native, tanh_native, tanh_table
from edge_lstm.scales import compensated_codes
from edge_lstm.training.removal import block_mask
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from firmware_tools.measure import measure
from random_graphs import random_graph
from test_recipes import both, snr_db, stream

KINDS = {
    "lstm": 3,
    "stacked": 2,
    "cell_clip": 1,
    "gru_after": 1,
    "rnn": 1,
    "bidirectional_concat": 1,
    "autoencoder": 1,
    "tcn": 1,
    "conv": 1,
}  # seeds of each
CORES = ("cortex-m4", "cortex-m0", "cortex-m3")
NATIVE = QuantizeConfig(profile="native")
INT4 = QuantizeConfig(profile="native", weights="int4")


def sparse(graph: Graph, seed: int) -> Graph:
    """The same network with four of five blocks of weights 0, of an LSTM in all gates of a unit."""
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
            gates = 4 if isinstance(layer, Lstm) else 1
            for row in range(0, len(kernel), 4):
                kernel[row : row + 4, np.tile(rng.random(kernel.shape[1] // gates) < 0.8, gates)] = 0.0
            layer = replace(layer, **{name: kernel})  # type: ignore[arg-type]
        layers.append(layer)
    return replace(graph, layers=tuple(layers))


def networks() -> list[QGraph]:
    """Every kind in int8, int4 and, where its weights are, in blocks; odd sizes."""
    found = []
    for kind, seeds in KINDS.items():
        for seed in range(seeds):
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
    found = [storages(qgraph) for qgraph in qgraphs]
    assert {"int8"} in found and {"int4"} in found and sum("blocks" in names for names in found) >= 6


def assert_same_codes_everywhere(qgraphs: list[QGraph], cores: Sequence[str]) -> None:
    """On the host; every second network on the first of the emulated cores, every fifth on the others."""
    library = load_library(qgraphs)
    machines = {}
    for core in cores:
        chosen = qgraphs[:: 2 if core == cores[0] else 5]
        machine = build_machine(chosen, core_named(core))
        machines |= {(core, qgraph.name): machine for qgraph in chosen}
    for seed, qgraph in enumerate(qgraphs):
        codes = mixed_stream(qgraph.features, 2 * (qgraph.window or 20), seed, qgraph.input.bits)
        expected = NumpyExecutor(qgraph).run(codes)
        assert (HostExecutor(qgraph, library=library).run(codes) == expected).all(), qgraph.name
        for core in cores:
            if (core, qgraph.name) in machines:
                emulated = EmulatedExecutor(qgraph, core, machine=machines[core, qgraph.name])
                assert (emulated.run(codes) == expected).all(), f"{core} {qgraph.name}"


def test_the_c_on_host_and_emulated_cores_equals_numpy(qgraphs: list[QGraph]) -> None:
    assert_same_codes_everywhere(qgraphs, CORES)


def extreme(seed: int) -> QGraph:
    """One native LSTM and a dense layer of any storage, with the largest weights, scales and codes."""
    rng = np.random.default_rng(seed)
    features, units = rng.integers(1, 18, 2).tolist()
    storage = STORAGES[seed % 3]
    limit = 7 if storage == "int4" else 128

    def kernel(*shape: int) -> npt.NDArray[np.int8]:
        codes = rng.choice([-limit, 1 - limit, -1, 0, 1, min(limit, 127)], shape)
        if storage == "blocks":
            places = rng.random((*shape[-2:-1], -(-shape[-1] // 4))) < 0.4  # shared by the gates
            codes = codes * np.repeat(places, 4, axis=-1)[..., : shape[-1]]
        return codes.astype(np.int8)

    power = int(rng.integers(-15, -8))
    largest = rng.choice([2.0**-24, 1e-3, 0.02, 0.1]) * 2.0 ** (-9 - power)
    lstm = QNativeLstm(
        "lstm", kernel(4, units, features), kernel(4, units, units),
        rng.integers(-(2**26), 2**26, (4, units)),
        (largest * rng.uniform(0.01, 1, (4, units))).astype(np.float32), wide(-12), wide(power),
        int(rng.integers(-15, -8)), float(rng.choice([0.0, 0.01])), storage=storage,
    )  # fmt: skip
    outputs = int(rng.integers(1, 11))
    scales = rng.choice([2.0**-12, 2.0**-28, 1.0]) * rng.uniform(0.5, 1, outputs) * 2.0 ** (-12 - power)
    dense = QDense(
        "dense", kernel(outputs, units), rng.integers(-(2**26), 2**26, outputs), scales.astype(np.float32),
        wide(power), wide(-12), bool(rng.integers(2)), storage,
    )  # fmt: skip
    layers = (lstm, dense)
    return QGraph(f"extreme_{seed}", layers, Stream.unnamed(features), "native", input=wide(-12))


def test_the_largest_weights_scales_and_codes_of_every_storage_equal_numpy() -> None:
    qgraphs = [extreme(seed) for seed in range(18)]
    layers = [layer for qgraph in qgraphs for layer in lower(qgraph).layers]
    lstms = [layer for layer in layers if isinstance(layer, NativeLstmProgram)]
    assert {lstm.acc_shift > 0 for lstm in lstms} == {True, False}
    kernels = [(k, lstm.storage) for lstm in lstms for k in (lstm.kernel, lstm.recurrent_kernel)]
    shared = [k for k, storage in kernels if storage_of_lstm(k, storage) is SHARED_BLOCKS]
    assert {k.shape[2] % 4 > 0 for k in shared} == {True, False}
    lists = [rows_of_shared_blocks(k[:, unit]).places for k in shared for unit in range(k.shape[1])]
    assert {0, 1, 2} <= {places[0] for places in lists} and any((places[1:] > 1).any() for places in lists)
    assert_same_codes_everywhere(qgraphs, CORES)


@pytest.mark.parametrize("core", CORES)
def test_blocks_make_the_gates_cheaper(core: str) -> None:
    """A quarter of the blocks of a unit take at most half of the instructions of all of them."""
    rng = np.random.default_rng(0)
    places = np.zeros((32, 8), bool)
    places.ravel()[rng.permutation(places.size)[: places.size // 4]] = True
    kernel = (rng.integers(1, 100, (4, 32, 32)) * np.repeat(places, 4, axis=1)).astype(np.int8)
    gates = {}
    for storage in ("int8", "blocks"):
        lstm = QNativeLstm(
            "lstm", kernel, kernel, np.zeros((4, 32), np.int32), np.full((4, 32), 1e-3, np.float32),
            wide(-12), wide(-12), -12, 0.0, storage=storage,
        )  # fmt: skip
        qgraph = QGraph(storage, (lstm,), Stream.unnamed(32), "native", input=wide(-12))
        phases = measure(qgraph, core, mixed_stream(32, 3, 0, 16)).phases
        assert phases is not None
        gates[storage] = phases["gates"]
    assert gates["blocks"] <= 0.5 * gates["int8"], gates


def test_the_table_in_the_c_is_that_of_numpy() -> None:
    text = runtime_text("elstm_native.c").split("{")[1].split("}")[0]
    assert [int(entry) for entry in text.replace(",", " ").split()] == tanh_table().tolist()


def test_activations_are_as_near_as_the_specification_says() -> None:
    z = np.arange(-(2**17), 2**17)
    assert np.abs(sigmoid_native(z) - 32768 / (1 + np.exp(-z / 12288))).max() < 1.1
    error = np.abs(tanh_native(z) - 32768 * np.tanh(z / 12288))
    assert error[2**16 : -(2**16)].max() < 1.5 and error.max() <= 2


def test_native_loses_less_than_tflm() -> None:
    """In none of these networks does it lose more; in the median it gains more than a decibel."""
    gains = []
    for kind in ("lstm", "stacked", "bidirectional_concat", "autoencoder"):
        for seed in range(5):
            graph = random_graph(seed, kind, units=8)
            x = stream(seed, graph)
            errors = [
                snr_db(*both(graph, quantize(graph, x, config), x)) for config in (QuantizeConfig(), NATIVE)
            ]
            gains.append(errors[1] - errors[0])
    assert np.median(gains) > 1.0 and min(gains) >= 0, gains


def test_packed_rows_are_what_the_header_says() -> None:
    kernel = np.array([[1, -2, 7], [3, 4, -5], [0, -7, 6], [-1, 2, -3]], np.int8)
    stored = rows_of_bytes(kernel).weights.tolist()
    assert stored == [1 - 128, 3, -2 + 128, 4, -128, -1, -7 + 128, 2, 7 - 128, -5, 6 - 128, -3]
    nibbles = rows_of_nibbles(kernel).weights.tolist()
    columns = [(9 + 16 * 11, 8 + 16 * 7), (6 + 16 * 12, 1 + 16 * 10), (15 + 16 * 3, 14 + 16 * 5)]
    assert [value & 255 for value in nibbles] == [byte for column in columns for byte in column] + [0, 0]
    blocks = np.zeros((4, 9), np.int8)
    blocks[1, 4:8], blocks[3], blocks[2, 8] = [5, 6, 7, 8], 1, 9
    found = rows_of_blocks(blocks)
    assert found.places.tolist() == [128, 129, 128, 0, 129]
    assert found.weights.tolist() == [0] * 4 + [5, 7, 6, 8] + [0] * 4 + [1] * 8 + [0, 0, 9, 1]
    rows = np.zeros((4, 14), np.int8)
    rows[0, 8:12], rows[1, 8:12], rows[2, 10], rows[3, 8:12] = [1, 2, 3, -4], [5, 6, 7, 8], -9, -1
    rows[2, 12], rows[3, 13] = -128, 2
    shared = rows_of_shared_blocks(rows)
    assert shared.places.tolist() == [1, 2]
    block = [1, 5, 2, 6, 0, -1, 0, -1, 3, 7, -4, 8, -9, -1, 0, -1]
    assert shared.weights.tolist() == [*block, -128, 0, -128, 0, 0, 0, -128, 2]
    rows[1, 0] = 1
    assert rows_of_shared_blocks(rows).places.tolist() == [2, 0, 2]
    assert rows_of_shared_blocks(0 * rows).places.tolist() == [0]


def test_compensation_leaves_weights_of_zero_at_zero() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 20)) * (rng.random((12, 20)) < 0.5)
    samples = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 20))  # strongly correlated columns
    scales = np.abs(weights).max(axis=1) / 7
    codes = compensated_codes(weights, scales, samples.T @ samples / 200, "int4")
    assert (codes[weights == 0] == 0).all() and (codes != np.rint(weights / scales[:, None])).any()


def test_a_pruned_network_is_stored_in_shared_blocks() -> None:
    """Masks of method block, through the quantizer."""
    graph = random_graph(3, "lstm", units=12)
    layers = list(graph.layers)
    for index, layer in enumerate(layers):
        if isinstance(layer, Lstm):
            kernels = {
                name: getattr(layer, name) * block_mask(getattr(layer, name), 0.75, 4)
                for name in ("kernel", "recurrent_kernel")
            }
            layers[index] = replace(layer, **kernels)
    pruned = replace(graph, layers=tuple(layers))
    qgraph = quantize(pruned, stream(3, pruned), NATIVE)
    lstms = [layer for layer in qgraph.layers if isinstance(layer, QNativeLstm)]
    assert [layer.storage for layer in lstms] == ["blocks"]
    assert storage_of_lstm(lstms[0].recurrent_kernel, "blocks") is SHARED_BLOCKS
    assert shared_blocks(lstms[0].recurrent_kernel).mean() <= 0.26


def test_four_bits_are_for_native_only_and_are_checked() -> None:
    with pytest.raises(ConfigError, match="weights is 'int4' in profile tflm, expected profile native"):
        QuantizeConfig(weights="int4")
    value = wide(-12)
    with pytest.raises(ModelError, match=r"a weight lies outside -7 \.\. 7"):
        QDense("d", np.full((1, 1), 8), np.zeros(1), np.ones(1), value, value, storage="int4")
    with pytest.raises(ModelError, match="storage is 'int2', expected one of int8, int4, blocks"):
        QDense("d", np.full((1, 1), 8), np.zeros(1), np.ones(1), value, value, storage="int2")
