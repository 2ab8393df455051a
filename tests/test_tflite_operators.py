"""Networks of every kind in .tflite files: each runtime returns the codes of NumPy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tflite

from edge_lstm.emit import tflite_file
from edge_lstm.emit.tflite_model import emit_tflite, file_spec
from edge_lstm.emit.tflite_operators import NATIVE_LSTM
from edge_lstm.errors import ConfigError, EdgeLstmError, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.refusals import refusal
from edge_lstm.executors.tflite_runtimes import RUNTIMES, open_runtime
from edge_lstm.graph import Stream
from edge_lstm.operators import LOOKUP_INPUT, Q15, QState, wide
from edge_lstm.qgraph import (
    CodeArray,
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QDense,
    QGraph,
    QLookup,
    QMul,
    QRecode,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QScan,
    QSlice,
    QSoftmax,
    QSumRows,
    Quantization,
)
from edge_lstm.quantizer import QuantizeConfig, quantize
from random_graphs import KINDS, random_graph, random_input
from random_operators import KINDS as OPERATOR_KINDS
from random_operators import operator_codes, random_operator_graph
from test_tflite_runtimes import NAMES, assert_codes

SEEDS = range(3)
W = wide(-12)
Q8 = Quantization(0.03125, -9)
EVERY_CODE = np.arange(-32768, 32768).astype(np.int16)


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def assert_agrees(runtime: str, qgraph: QGraph, codes: CodeArray, executor: Any = None) -> None:
    """The runtime returns the reference's codes, and so it does in two calls of whole invocations."""
    executor = executor or open_runtime(runtime, qgraph)
    reference = NumpyExecutor(qgraph.with_profile(RUNTIMES[runtime].profile))
    half = len(codes) // qgraph.timesteps // 2 * qgraph.timesteps
    parts = [part for part in (codes[:half], codes[half:]) if len(part)]
    found = np.concatenate([executor.run(part) for part in parts])
    assert_codes(found, reference.run(codes), f"{runtime}, {qgraph.name}")


def chain(*layers: Any, features: int, window: int = 0, **fields: Any) -> QGraph:
    """A network of layers that read one another; the first reads the input."""
    return QGraph("net", layers, Stream.unnamed(features), window=window, **fields)


def noise(qgraph: QGraph, invocations: int, seed: int = 0) -> CodeArray:
    return operator_codes(qgraph, invocations * qgraph.timesteps, seed)


# --- random networks --------------------------------------------------------------------------------


@cache
def quantized(kind: str, **config: str) -> list[tuple[QGraph, CodeArray]]:
    """Networks of a kind with some windows, or a stream, of codes."""
    found = []
    for seed in SEEDS:
        graph = random_graph(seed, kind, units=1 + seed)
        graph = replace(graph, window=min(graph.window, 8 + seed))
        x = random_input(seed, graph, steps=40, streams=5).reshape(-1, graph.features)
        try:
            qgraph = quantize(graph, x, QuantizeConfig(**config))
        except UnsupportedModel:
            continue
        values = np.random.default_rng(seed).normal(0, 1.2, (5 * (qgraph.window or 6), graph.features))
        found.append((qgraph, qgraph.input.encode(values)))
    return found


@cache
def operator_graphs(kind: str) -> list[QGraph]:
    """Networks whose 16-bit values have no zero point: no runtime takes one."""
    graphs = [random_operator_graph(seed, kind) for seed in range(20)]
    return [graph for graph in graphs if is_symmetric(graph.layers)]


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
@pytest.mark.parametrize("kind", KINDS)
def test_random_networks_of_a_kind_have_the_same_codes(runtime: str, kind: str, scheme: str) -> None:
    for qgraph, codes in quantized(kind, scheme=scheme):
        if refusal(runtime, qgraph) is None:
            assert_agrees(runtime, qgraph, codes)


def is_symmetric(layers: Any) -> bool:
    """No 16-bit value has a zero point."""
    for layer in layers:
        values = [value for value in vars(layer).values() if isinstance(value, Quantization)]
        values += [state.quantization for state in getattr(layer, "states", ())]
        if any(value.bits == 16 and value.zero_point for value in values):
            return False
        if not is_symmetric(getattr(layer, "body", ())):
            return False
    return True


@pytest.mark.parametrize("kind", OPERATOR_KINDS)
def test_random_networks_of_operators_have_the_same_codes(runtime: str, kind: str) -> None:
    graphs = [graph for graph in operator_graphs(kind) if refusal(runtime, graph) is None]
    assert len(graphs) >= 5
    for qgraph in graphs:
        assert_agrees(runtime, qgraph, noise(qgraph, 5 if qgraph.window else 18))


# --- every code, every pair of scales ---------------------------------------------------------------


def assert_every_code(runtime: str, layer: Any) -> None:
    """One invocation over all codes that ``layer`` can read."""
    bits = layer.input.bits
    codes = (
        EVERY_CODE.reshape(64, 1024) if bits == 16 else EVERY_CODE[32640:32896].astype(np.int8).reshape(4, 64)
    )
    assert_agrees(runtime, chain(layer, features=codes.shape[1], window=len(codes)), codes)


@pytest.mark.parametrize("slope", [0, 1, 3, 327, 3277, 8192, 9830, 16384, 20000, 29491, 32767])
def test_a_relu_rounds_every_code_alike(runtime: str, slope: int) -> None:
    assert_every_code(runtime, QRelu("relu", W, slope))


@pytest.mark.parametrize("function", LOOKUP_INPUT)
def test_a_lookup_gives_every_code_alike(runtime: str, function: str) -> None:
    assert_every_code(runtime, QLookup("lookup", function))


@pytest.mark.parametrize("seed", range(12))
def test_codes_of_other_scales_are_rounded_alike(runtime: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (
        Quantization(float(np.float32(2.0 ** rng.uniform(-9, 0))), int(rng.integers(-128, 128))) for _ in "ab"
    )
    sixteen, finer = wide(int(rng.integers(-18, -5))), wide(int(rng.integers(-18, -3)))
    for read, written in ((one, other), (one, sixteen), (sixteen, other), (sixteen, finer), (one, one)):
        assert_every_code(runtime, QRecode("recode", read, written))


@pytest.mark.parametrize("gap", range(14))
def test_sums_of_scales_that_lie_apart_are_rounded_alike(runtime: str, gap: int) -> None:
    for power in (-12 - gap, -12 - gap // 2, -12, min(-12 - gap + 13, -5)):
        for left, right in ((W, wide(-12 - gap)), (wide(-12 - gap), W)):
            layers = (
                QRecode("other", left, right),
                QAdd("sum", left, right, wide(power)),
                QAdd("difference", left, wide(power), wide(power), subtract=True),
            )
            sources = ((-1,), (-1, 0), (-1, 1))
            qgraph = chain(*layers, features=64, window=4, sources=sources, input=left)
            assert_agrees(runtime, qgraph, noise(qgraph, 4))


@pytest.mark.parametrize("shift", [0, 1, 2, 5, 14, 15, 16, 24, 31])
def test_products_are_rounded_alike(runtime: str, shift: int) -> None:
    layers = (QReverse("turned", W), QMul("product", W, W, wide(shift - 24)))
    qgraph = chain(*layers, features=64, window=9, sources=((-1,), (-1, 0)), input=W)
    assert_agrees(runtime, qgraph, noise(qgraph, 4))


@pytest.mark.parametrize("rows", [1, 10, 11, 37])
def test_a_vector_is_repeated_and_summed_over_any_number_of_rows(runtime: str, rows: int) -> None:
    layers = (
        QSumRows("sum", W), QRepeat("repeat", W), QAdd("add", W, W, wide(-11)),
        QSoftmax("weights", wide(-11), Q15, "time"), QSoftmax("shares", Q15, Q15),
    )  # fmt: skip
    sources = ((-1,), (0,), (1, -1), (2,), (3,))
    qgraph = chain(*layers, features=5, window=rows, sources=sources, input=W)
    assert_agrees(runtime, qgraph, noise(qgraph, 4))


@pytest.mark.parametrize("zero_point", [-128, -9, 127])
def test_8_bit_codes_are_placed_and_shared_out_alike(runtime: str, zero_point: int) -> None:
    q = Quantization(0.03125, zero_point)
    layers = (
        QReverse("turned", q), QConcat("pair", q), QSlice("some", q, 3, 9), QRow("last", q),
        QRow("first", q, 0), QRepeat("again", q), QConcat("all", q), QRelu("relu", q),
        QSoftmax("shares", q, Quantization(1 / 256, -128)),
    )  # fmt: skip
    sources = ((-1,), (-1, 0), (1,), (2,), (0,), (3,), (5, 2), (6,), (7,))
    qgraph = chain(*layers, features=6, window=13, sources=sources, input=q)
    assert_agrees(runtime, qgraph, noise(qgraph, 4))


# --- states -----------------------------------------------------------------------------------------


def small_scan(name: str, q: Quantization, initial: int, features: int = 3) -> QScan:
    """h' = dense(x beside h)."""
    rng = np.random.default_rng(abs(initial))
    scale = rng.uniform(0.002, 0.008, 3).astype(np.float32)
    kernel, bias = rng.integers(-127, 128, (3, features + 3)), rng.integers(-99, 99, 3)
    body = (QConcat("both", q), QDense(f"{name}/dense", kernel, bias, scale, q, q))
    return QScan(name, q, body, ((-1, -2), (0,)), (QState("h", 3, q, initial),), (1,), 1)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("timesteps", [1, 4])
@pytest.mark.parametrize("last_only", [False, True])
def test_a_stream_keeps_its_states_between_invocations_until_it_is_reset(
    runtime: str, bits: int, timesteps: int, last_only: bool
) -> None:
    q = W if bits == 16 else Quantization(0.03125)
    layers = (small_scan("a", q, 77), QDelay("rows", q, 3, 2), small_scan("a", q, -5, 9))
    qgraph = chain(*layers, features=3, timesteps=timesteps, last_only=last_only)
    codes, executor = noise(qgraph, 24), open_runtime(runtime, qgraph)
    assert_agrees(runtime, qgraph, codes, executor)
    executor.reset()
    assert_agrees(runtime, qgraph, codes, executor)
    windows = codes[: 8 * timesteps].reshape(2, -1, 3)
    expected = NumpyExecutor(qgraph.with_profile(executor.profile)).run_windows(windows)
    assert_codes(executor.run_windows(windows), expected, runtime)


@pytest.mark.parametrize("kind", ["gru_after", "rnn", "conv", "tcn", "stacked"])
def test_invocations_of_several_rows_give_the_codes_of_single_rows(runtime: str, kind: str) -> None:
    for qgraph, codes in quantized(kind):
        assert_agrees(runtime, replace(qgraph, timesteps=5), codes)


@pytest.mark.parametrize("kind", ["bidirectional_concat", "autoencoder", "attention_dot", "last_row"])
def test_windows_know_nothing_of_each_other(runtime: str, kind: str) -> None:
    for qgraph, codes in quantized(kind):
        executor = open_runtime(runtime, qgraph)
        windows = codes.reshape(-1, qgraph.window, qgraph.features)
        together = executor.run(codes).reshape(len(windows), qgraph.rows, qgraph.outputs)
        assert_codes(executor.run_windows(windows[::-1])[::-1], together, f"{runtime}, {qgraph.name}")
        assert_codes(executor.run(windows[2]), together[2], f"{runtime}, {qgraph.name}, one window")


@pytest.mark.parametrize("batch_major", [False, True])
@pytest.mark.parametrize("kind", ["bidirectional_mul", "attention_additive", "gru_before", "stacked"])
def test_lanes_are_independent(runtime: str, kind: str, batch_major: bool) -> None:
    for qgraph, codes in quantized(kind):
        lanes = replace(qgraph, lanes=3, batch_major=batch_major, timesteps=2)
        windows = codes[: len(codes) // 5 * 5].reshape(5, -1, qgraph.features)[:, : qgraph.window or 4]
        expected = open_runtime(runtime, qgraph).run_windows(windows)
        assert_codes(open_runtime(runtime, lanes).run_windows(windows), expected, f"{runtime}, {qgraph.name}")


# --- what a file is made of -------------------------------------------------------------------------


def kinds_of(content: bytes, subgraph: int = 0) -> list[str]:
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(subgraph)
    codes = [model.OperatorCodes(graph.Operators(i).OpcodeIndex()) for i in range(graph.OperatorsLength())]
    assert all(code.DeprecatedBuiltinCode() == min(code.BuiltinCode(), 127) for code in codes)
    return [tflite.opcode2name(code.BuiltinCode()) for code in codes]


def test_the_first_invocation_of_a_stream_gives_its_variables_their_content() -> None:
    qgraph = chain(small_scan("a", W, 5), features=3)
    assert kinds_of(emit_tflite(qgraph)) == [
        "CALL_ONCE", "RESHAPE", "VAR_HANDLE", "READ_VARIABLE", "CONCATENATION", "CONV_2D", "ASSIGN_VARIABLE",
        "RESHAPE",
    ]  # fmt: skip
    assert kinds_of(emit_tflite(qgraph), 1) == ["VAR_HANDLE", "ASSIGN_VARIABLE"]
    assert tflite.Model.GetRootAs(emit_tflite(replace(qgraph, window=7)), 0).SubgraphsLength() == 1


def test_a_recurrence_shares_its_weights_between_its_rows() -> None:
    spec = file_spec(chain(small_scan("a", W, 5), features=3, window=40))
    assert [
        tensor.name for tensor in spec.tensors if tensor.data is not None and tensor.data.dtype == np.int64
    ] == ["a/dense/bias"]
    assert sum(operator.kind == "CONV_2D" for operator in spec.operators) == 40
    assert max(len(operator.inputs) for operator in spec.operators) <= 10  # what TFLM can concatenate


def test_a_constant_feeds_sums_and_windows(runtime: str) -> None:
    layers = (
        QConstant("k", np.arange(-3, 4), W),
        QAdd("add", W, W, W),
        QRepeat("rows", W),
        QConcat("both", W),
    )
    for lanes in (1, 2):
        qgraph = chain(
            *layers, features=7, window=5, sources=((), (-1, 0), (0,), (2, 1)), input=W, lanes=lanes
        )
        assert_agrees(runtime, qgraph, noise(qgraph, 3))


def test_one_file_carries_a_network_of_profile_native_which_runtimes_refuse(runtime: str) -> None:
    qgraph = quantized("stacked", profile="native")[0][0]
    spec = file_spec(qgraph)
    [custom, *_] = [operator for operator in spec.operators if operator.custom]
    assert custom.custom == NATIVE_LSTM
    held = [spec.tensors[index].data for index in custom.inputs[1:]]
    lstm = next(layer for layer in qgraph.layers if hasattr(layer, "row_scales"))
    for found, expected in zip(
        held, (lstm.kernel, lstm.recurrent_kernel, lstm.bias, lstm.row_scales), strict=True
    ):
        assert found is not None and (found == expected).all()
    with pytest.raises(
        ConfigError, match=rf"^{runtime} cannot run model 'stacked_0': profile native .*; choose ano"
    ):
        open_runtime(runtime, qgraph)


def test_a_network_that_unrolls_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    qgraph = chain(small_scan("a", W, 5), features=3, window=50)
    monkeypatch.setattr(tflite_file, "MAX_OPERATORS", 100)
    with pytest.raises(
        UnsupportedModel, match=r"edge_lstm: net: it unrolls to more than 100 operators; use a sh"
    ):
        emit_tflite(qgraph)
    monkeypatch.setattr(tflite_file, "MAX_OPERATORS", 40)
    with pytest.raises(UnsupportedModel, match=r"it unrolls to more than 40 operators"):
        emit_tflite(qgraph)


def test_constants_that_no_file_can_hold_are_refused_before_they_are_made() -> None:
    qgraph = chain(QDelay("far", W, 2, 1 << 40), features=3)
    with pytest.raises(
        UnsupportedModel, match=r"its constants have more than 12582912 bytes.*use fewer units"
    ):
        emit_tflite(qgraph)


def test_a_runtime_that_has_no_16_bit_lstm_is_named(runtime: str) -> None:
    qgraph = quantized("lstm", scheme="int16x8")[0][0]
    if runtime == "tflm":
        open_runtime(runtime, qgraph)
        return
    with pytest.raises(
        EdgeLstmError, match=rf"{runtime} cannot run model 'lstm_0': it has no LSTM with int16"
    ):
        open_runtime(runtime, qgraph)
