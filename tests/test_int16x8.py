"""LSTMs of 16-bit codes with 8-bit weights: the codes of TensorFlow Lite Micro, in NumPy and in C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from platform import machine
from typing import Any

import numpy as np
import pytest

from conftest import missing
from edge_lstm.emit.tflite_file import pack
from edge_lstm.emit.tflite_model import emit_tflite, file_spec
from edge_lstm.errors import ConfigError, ModelError, RuntimeFailure, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.tflite_runtimes import TfliteExecutor, open_runtime
from edge_lstm.fixedpoint import quantize_multiplier, scale_wide, short_multiplier
from edge_lstm.graph import Graph, Stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.layer_types import Dense, Lstm
from edge_lstm.lower import lower
from edge_lstm.lstm_operators import QLstm
from edge_lstm.operators import Quantization
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from random_lstms import alone, lstm_codes, random_lstm
from test_lstm_variants import assert_same, assert_same_layer

MODELS, COMPILED = 120, 25


def tflm(qgraph: QGraph, model: bytes | None = None) -> TfliteExecutor:
    if sys.version_info[:2] != (3, 11) or (sys.platform, machine()) != ("linux", "x86_64"):
        missing("TensorFlow Lite Micro's interpreter, which is built for Python 3.11 on x86-64 Linux alone,")
    return open_runtime("tflm", qgraph, model)


def wide_lstm(seed: int, **options: Any) -> QLstm:
    return random_lstm(seed, bits=16, **options)


def float_graph(seed: int, units: int = 16, features: int = 3) -> Graph:
    """An LSTM with a dense head."""
    rng = np.random.default_rng(seed)
    lstm = Lstm(
        "lstm", rng.normal(0, 1 / np.sqrt(features), (features, 4 * units)),
        rng.normal(0, 1 / np.sqrt(units), (units, 4 * units)), rng.normal(0, 0.3, 4 * units),
    )  # fmt: skip
    dense = Dense("dense", rng.normal(0, 0.4, (units, 2)), rng.normal(0, 0.2, 2))
    return Graph("wide", (lstm, dense), Stream.unnamed(features))


# --- the same codes ---------------------------------------------------------------------------------


def test_the_wide_scaling_is_that_of_tflite_for_every_sum_that_is_let_through() -> None:
    """Against the C++ of MultiplyByQuantizedMultiplier(int64_t), in whole numbers."""
    rng = np.random.default_rng(0)
    for _ in range(4000):
        real = float(2.0 ** rng.uniform(-40, 7))
        multiplier, shift = quantize_multiplier(real)
        reduced = (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF
        acc = int(rng.integers(-(2**47) + 1, 2**47)) >> int(rng.integers(0, 47))
        expected = (acc * reduced + (1 << (14 - shift))) >> (15 - shift)
        assert int(scale_wide(acc, *short_multiplier(real))) == expected


def test_numpy_equals_tflm_on_120_random_models() -> None:
    saturated = 0
    for seed in range(MODELS):
        layer = wide_lstm(seed)
        qgraph = alone(layer, f"model_{seed}", "tflm", seed % 20 + 1)
        codes = lstm_codes(
            seed, layer, 2 * qgraph.timesteps
        )  # the second call goes on from the first's state
        expected = NumpyExecutor(qgraph).run(codes)
        assert_same(tflm(qgraph).run(codes), expected, f"seed {seed}")
        saturated += int((np.abs(expected.astype(int)) >= 32767).sum())
    assert saturated > 100


def test_host_and_emulated_m4_equal_numpy() -> None:
    graphs = [alone(wide_lstm(seed), f"model_{seed}", "tflm") for seed in range(300, 300 + COMPILED)]
    library, image = load_library(graphs), build_machine(graphs, core_named("cortex-m4"), detect=False)
    for seed, qgraph in enumerate(graphs):
        layer = qgraph.layers[0]
        assert isinstance(layer, QLstm)
        codes = lstm_codes(seed, layer, 20)
        expected = NumpyExecutor(qgraph).run(codes)
        host = HostExecutor(qgraph, library=library)
        assert_same(host.run(codes), expected, f"host, {qgraph.name}")
        host.reset()
        assert_same(np.stack([host.step(row) for row in codes]), expected, f"host by steps, {qgraph.name}")
        emulated = EmulatedExecutor(qgraph, "cortex-m4", machine=image)
        assert_same(emulated.run(codes), expected, f"cortex-m4, {qgraph.name}")


def test_a_long_row_is_summed_in_parts_in_c() -> None:
    layer = wide_lstm(2, units=3)
    kernel = np.random.default_rng(0).choice([-127, 127], (4, 3, 1500))
    layer = replace(layer, kernel=kernel, kernel_scales=np.full(4, 1e-5))
    qgraph = alone(layer, "long_row", "tflm")
    rails = np.where(kernel[0, 0] > 0, 32767, -32768)
    codes = np.stack([rails, -1 - rails, rails // 3]).astype(np.int16)
    assert np.abs(kernel.astype(np.int64) @ codes.T).max() > 2**31
    assert_same(HostExecutor(qgraph).run(codes), NumpyExecutor(qgraph).run(codes), "host")


def test_a_quantized_network_has_the_codes_of_tflm_and_lies_closer_to_float_than_int8() -> None:
    for seed in range(3):
        graph = float_graph(seed)
        x = np.random.default_rng(seed).normal(0, 1, (700, 3)).clip(-3, 3)
        expected = floating.run(graph, x[None])[0][0]
        noise = {}
        for scheme in ("int8", "int16x8"):
            qgraph = quantize(graph, x, QuantizeConfig(scheme=scheme))
            found = qgraph.output.decode(NumpyExecutor(qgraph).run(qgraph.input.encode(x)))
            noise[scheme] = 10 * np.log10((expected**2).mean() / ((found - expected) ** 2).mean())
        assert noise["int16x8"] > 38 and noise["int16x8"] > noise["int8"] + 3
    codes = qgraph.input.encode(x[:60])
    reference = NumpyExecutor(qgraph).run(codes)
    assert reference.dtype == np.int16
    assert_same(tflm(qgraph).run(codes), reference, "tflm")
    assert_same(HostExecutor(qgraph).run(codes), reference, "host")


def test_small_signals_survive_16_bits_and_not_8() -> None:
    """A sine of 1/300 of the range, under a large one that comes once: int8 has one code for all of it."""
    graph = float_graph(7)
    t = np.arange(800)
    x = np.repeat(0.01 * np.sin(t / 9)[:, None], 3, axis=1)
    x[400:410] = 3.0
    expected = floating.run(graph, x[None])[0][0][200:400]
    lost = {}
    for scheme in ("int8", "int16x8"):
        qgraph = quantize(graph, x, QuantizeConfig(scheme=scheme, ranges="minmax"))
        found = qgraph.output.decode(NumpyExecutor(qgraph).run(qgraph.input.encode(x)))[200:400]
        lost[scheme] = float(np.std(found - expected, axis=0).max() / np.std(expected, axis=0).max())
    assert lost["int8"] > 0.9 and lost["int16x8"] < 0.1, lost


# --- files and refusals -------------------------------------------------------------------------------


def test_a_file_gives_back_the_network_that_was_written() -> None:
    for seed in range(10):
        layer = wide_lstm(seed)
        qgraph = alone(layer, "model", "tflm", 3)
        found = read_tflite(emit_tflite(qgraph))
        assert_same_layer(found.layers[0], layer)
        spec = file_spec(qgraph)
        spec.metadata.clear()
        foreign = read_tflite(pack(spec))
        assert foreign.profile == "tflm" and foreign.input == layer.input
        assert_same_layer(replace(foreign.layers[0], name=layer.name), layer)


def test_litert_has_no_such_operator_and_says_so() -> None:
    qgraph = alone(wide_lstm(1), "model", "tflm")
    with pytest.raises(ConfigError, match="litert cannot run model 'model': it has no LSTM with int16"):
        open_runtime("litert", qgraph)
    with pytest.raises(ModelError, match="profile 'litert' does not compute its layers, only tflm do"):
        qgraph.with_profile("litert")
    with pytest.raises(RuntimeFailure, match="litert refuses model 'plain'"):
        open_runtime("litert", alone(random_lstm(1), "plain", "litert"), emit_tflite(qgraph))


def test_biases_of_32_bits_are_refused_because_tflm_reads_them_as_64() -> None:
    spec = file_spec(alone(wide_lstm(1), "model", "tflm"))
    spec.metadata.clear()
    [index] = [i for i, tensor in enumerate(spec.tensors) if tensor.name.endswith("/bias_f")]
    bias = spec.tensors[index]
    assert bias.data is not None
    spec.tensors[index] = replace(bias, kind=2, data=bias.data.astype(np.int32))
    with pytest.raises(UnsupportedModel, match="its bias_f is INT32, expected INT64"):
        read_tflite(pack(spec))


LAYER = wide_lstm(1)
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: replace(LAYER, hidden=Quantization(2.0**-15, 5, 16)), "its 16-bit codes have a zero point"),
    (lambda: replace(LAYER, input=Quantization(2.0**-12, -3, 16)), "resets its state to code 0"),
    (lambda: replace(LAYER, hidden=Quantization(2.0**-7)), "it reads 16 and writes 8 bits"),
    (
        lambda: lower(alone(replace(LAYER, bias=np.full(LAYER.bias.shape, 2**47)), "m", "tflm")),
        r"gate i: the input accumulator can reach \d+ \(limit \d+\)",
    ),
    (
        lambda: lower(alone(replace(LAYER, recurrent_scales=np.full(4, 1e9)), "m", "tflm")),
        "gate o: the recurrent accumulator can reach",
    ),
    (
        lambda: quantize(float_graph(0), np.ones((9, 3)), QuantizeConfig(profile="litert", scheme="int16x8")),
        "only TensorFlow Lite Micro computes an LSTM in 16 bits; quantize with --profile tflm",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_tflm_would_compute_wrongly_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()
