"""LSTMs with coupled gates, peepholes, a projection or layer normalization: the same codes everywhere.

The oracle of the codes is LiteRT, that of the accuracy the float network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.emit.tflite_file import FileSpec, TensorSpec, pack
from edge_lstm.emit.tflite_lstm import add_lstm
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, ModelError, RuntimeFailure, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.tflite_runtimes import open_runtime
from edge_lstm.graph import Graph, Stream
from edge_lstm.importers.flatbuffer import read_network
from edge_lstm.importers.tflite_layers import Layout
from edge_lstm.importers.tflite_lstm import read_lstm
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.layer_types import RELU, Dense, Lstm, Merge
from edge_lstm.lower import lower
from edge_lstm.lower_lstm import lower_lstm
from edge_lstm.lstm_operators import QLstm, Variant
from edge_lstm.operators import Quantization
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating
from edge_lstm.reference.integer_lstm import initial_state, run_lstm
from edge_lstm.reference.lstm_variants import inverse_square_root
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor, load_library
from random_lstms import PARTS, alone, lstm_codes, random_lstm, random_parts

MODELS = 100  # of each kind, against LiteRT
COMPILED = 4  # of each kind and profile, in C
KINDS: dict[str, Callable[[int], QLstm]] = {
    **{part: lambda seed, part=part: random_lstm(seed, part) for part in PARTS},  # type: ignore[misc]
    "combined": lambda seed: random_lstm(seed, *random_parts(seed)),
}
WIDE = [random_lstm(seed, "peephole", units=16 + seed) for seed in range(20)]  # whole blocks of 16, and more


def assert_same(found: Any, expected: Any, what: str) -> None:
    assert found.shape == expected.shape, what
    wrong = np.argwhere(found != expected)
    if len(wrong):
        at = tuple(wrong[0])
        pytest.fail(f"{what}, at {at}: got {found[at]}, want {expected[at]} ({len(wrong)} differ)")


def assert_same_layer(found: Any, expected: Any) -> None:
    """Equal in every field, arrays with their types."""
    assert type(found) is type(expected)
    for entry in dataclasses.fields(expected):
        one, other = getattr(found, entry.name), getattr(expected, entry.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other), entry.name
        elif dataclasses.is_dataclass(other):
            assert_same_layer(one, other)
        else:
            assert one == other, entry.name


# --- the same codes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_equals_litert_on_100_random_models(kind: str) -> None:
    for seed in range(MODELS):
        layer = KINDS[kind](seed)
        qgraph = alone(layer, f"model_{seed}", "litert", seed % 20 + 1)
        codes = lstm_codes(
            seed, layer, 2 * qgraph.timesteps
        )  # the second call goes on from the first's state
        with open_runtime("litert", qgraph) as executor:
            assert_same(executor.run(codes), NumpyExecutor(qgraph).run(codes), f"{kind}, seed {seed}")


@pytest.mark.parametrize("profile", ["litert", "tflite"])
def test_host_and_emulated_m4_equal_numpy(profile: str) -> None:
    graphs = [
        alone(make(seed), f"{kind}_{seed}", profile)
        for kind, make in KINDS.items()
        for seed in range(200, 200 + COMPILED)
    ]
    graphs += [alone(layer, f"wide_{index}", profile) for index, layer in enumerate(WIDE[:3])]
    library = load_library(graphs)
    machine = build_machine(graphs, core_named("cortex-m4"), detect=False)
    for qgraph in graphs:
        layer = qgraph.layers[0]
        assert isinstance(layer, QLstm)
        codes = lstm_codes(5, layer, 15)
        expected = NumpyExecutor(qgraph).run(codes)
        host = HostExecutor(qgraph, library=library)
        assert_same(host.run(codes), expected, f"host, {qgraph.name}")
        host.reset()
        assert_same(np.stack([host.step(row) for row in codes]), expected, f"host by steps, {qgraph.name}")
        emulated = EmulatedExecutor(qgraph, "cortex-m4", machine=machine)
        assert_same(emulated.run(codes), expected, f"cortex-m4, {qgraph.name}")


def test_litert_and_tflite_round_the_peephole_of_whole_blocks_of_16_cells_differently() -> None:
    different = 0
    for seed, layer in enumerate(WIDE):
        codes = lstm_codes(seed, layer, 40)
        runs = [NumpyExecutor(alone(layer, "m", profile)).run(codes) for profile in ("litert", "tflite")]
        different += int((runs[0] != runs[1]).sum())
    assert different > 0
    fewer = replace(WIDE[3], variant=None)
    assert_same_runs(fewer, 30)


def assert_same_runs(layer: QLstm, steps: int) -> None:
    codes = lstm_codes(1, layer, steps)
    one, other = (NumpyExecutor(alone(layer, "m", profile)).run(codes) for profile in ("litert", "tflite"))
    assert_same(one, other, "profiles litert and tflite")


def test_the_inverse_square_root_is_right_to_a_millionth() -> None:
    value = np.unique(np.geomspace(2, 2**31 - 1, 20_000).astype(np.int64))
    multiplier, shift = inverse_square_root(value)
    real = multiplier * 2.0 ** (shift - 31.0)
    assert np.abs(real * np.sqrt(value) - 1).max() < 4e-6
    assert (multiplier >= 0).all() and (multiplier < 2**31).all()
    ones = inverse_square_root(np.array([0, 1]))
    assert [int(entry) for entry in ones[0]] == [2**31 - 1] * 2 and not ones[1].any()


def test_a_window_with_a_backward_variant_runs_in_c(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    layers = [float_lstm(rng, part, 6, 3) for part in ("peephole", "normalization")]
    layers[1] = replace(layers[1], name="backward", backwards=True)
    dense = Dense("dense", rng.normal(0, 0.3, (12, 2)), rng.normal(0, 0.1, 2))
    graph = Graph(
        "both", (*layers, Merge("merge", "concat"), dense), Stream.unnamed(3), {},
        ((-1,), (-1,), (0, 1), (2,)), 9,
    )  # fmt: skip
    qgraph = quantize(graph, rng.normal(0, 1, (180, 3)), QuantizeConfig(profile="litert"))
    codes = rng.integers(-128, 128, (27, 3)).astype(np.int8)
    expected = NumpyExecutor(qgraph).run(codes)
    assert_same(HostExecutor(qgraph).run(codes), expected, "host")
    with open_runtime("litert", qgraph) as executor:
        assert_same(executor.run(codes), expected, "litert")


# --- files ------------------------------------------------------------------------------------------


def one_operator(layer: QLstm, lanes: int = 1, timesteps: int = 3, change: Change | None = None) -> bytes:
    """A file of another maker: the operator alone, without our description."""
    spec = FileSpec("foreign")
    x = spec.activation("x", (lanes, timesteps, layer.features), layer.input)
    spec.inputs = {"x": x}
    spec.outputs = {"y": add_lstm(spec, x, layer, False)}
    if change is not None:
        change(spec)
    return pack(spec)


Change = Callable[[FileSpec], None]


def read_one(content: bytes, lanes: int = 1, timesteps: int = 3) -> tuple[QLstm | None, list[str]]:
    operator = read_network(content, "edge_lstm").operators[0]
    return read_lstm(operator, operator.outputs[0].name, Layout(timesteps, lanes, False))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_back_the_operator_that_was_written(kind: str) -> None:
    for seed in range(12):
        layer = KINDS[kind](seed)
        own = read_tflite(emit_tflite(alone(layer, "model", "tflite")))
        assert own.profile == "tflite"
        assert_same_layer(own.layers[0], layer)
        found, problems = read_one(one_operator(layer, lanes=2), lanes=2)
        assert problems == []
        assert_same_layer(found, layer)
        foreign = read_tflite(one_operator(layer))
        assert foreign.profile == "litert"
        assert_same_layer(replace(foreign.layers[0], name=layer.name), layer)


def test_the_bidirectional_file_of_a_converter_is_exact_in_its_own_scales(shared_data: Path) -> None:
    """State, intermediate 4 and output have three quantizations; LiteRT and TFLM read different ones."""
    network = read_network((shared_data / "models" / "keras2_bidir_int8.tflite").read_bytes(), "edge_lstm")
    operators = [operator for operator in network.operators if operator.kind.endswith("LSTM")]
    for operator in operators:
        x = operator.inputs[0]
        assert x is not None
        layer, problems = read_lstm(operator, "lstm", Layout(x.shape[1], 1, False))
        assert layer is not None and problems == []
        assert layer.inner is not None and layer.written is not None
        assert len({layer.hidden, layer.inner, layer.written}) == 3
        codes = np.random.default_rng(3).integers(-128, 128, (10 * x.shape[1], x.shape[2])).astype(np.int8)
        for profile in ("litert", "tflm"):
            qgraph = alone(layer, "m", profile, x.shape[1])
            with open_runtime(profile, qgraph) as executor:
                assert_same(executor.run(codes), NumpyExecutor(qgraph).run(codes), profile)
        assert_same(HostExecutor(qgraph).run(codes), NumpyExecutor(qgraph).run(codes), "host")


def test_tflm_refuses_a_variant_before_and_after_it_is_opened() -> None:
    layer = random_lstm(3, "coupled")
    with pytest.raises(ConfigError, match="tflm cannot run model 'm': it rejects LSTMs with peepholes"):
        open_runtime("tflm", alone(layer, "m", "litert"))
    plain = alone(replace(layer, variant=None), "m", "litert")
    with pytest.raises(RuntimeFailure, match="tflm refuses model 'm'"):
        open_runtime("tflm", plain, one_operator(layer, timesteps=1))
    with pytest.raises(
        ModelError, match="profile 'tflm' does not compute its layers, only litert and tflite"
    ):
        alone(layer, "m", "tflm")


def tensor(name: str, **fields: Any) -> Change:
    def change(spec: FileSpec) -> None:
        [index] = [i for i, found in enumerate(spec.tensors) if found.name.endswith(f"/{name}")]
        spec.tensors[index] = replace(spec.tensors[index], **fields)

    return change


def option(**fields: Any) -> Change:
    def change(spec: FileSpec) -> None:
        operator = spec.operators[0]
        spec.operators[0] = replace(operator, options={**operator.options, **fields})

    return change


def operand(position: int, tensor: TensorSpec | int) -> Change:
    """Let input ``position`` be another tensor, -1 for none."""

    def change(spec: FileSpec) -> None:
        index = tensor if isinstance(tensor, int) else spec.add(tensor)
        list(spec.operators[0].inputs)
        spec.operators[0].inputs[position] = index  # type: ignore[index]

    return change


VECTOR = TensorSpec("other", (5,), 7, 1.0, data=np.ones(5, np.int16))
REFUSED: list[tuple[tuple[str, ...], Change, str]] = [
    (PARTS, tensor("gate_i", scales=()), "its intermediate 0 has no scale, without which LiteRT"),
    (PARTS, tensor("gate_o", scales=[0.0]), "its intermediate 3 has no scale"),
    (PARTS, tensor("peephole_f", kind=9), "its peephole_f is INT8, expected INT16"),
    (PARTS, tensor("peephole_f", scales=()), "its peephole_f has 0 scales"),
    (PARTS, tensor("normalization_g", shape=(4,)), r"its normalization_g is \[4\], expected \[5\]"),
    (PARTS, tensor("normalization_g", scales=[-1.0]), "normalization_scales holds a scale that is not"),
    (PARTS, tensor("projection", zero_point=2), "its projection has a zero point other than 0"),
    (PARTS, tensor("projection_bias", kind=7), "its projection_bias is INT16, expected INT32"),
    (PARTS, operand(9, VECTOR), r"its gates are coupled \(CIFG\), but it has a peephole_i"),
    (PARTS, operand(20, VECTOR), r"its gates are coupled \(CIFG\), but it has a normalization_i"),
    (PARTS, operand(10, -1), "its peephole_f is absent"),
    (PARTS, operand(21, -1), "its normalization_f is absent"),
    (PARTS, option(ProjClip=0.5), "its projection_clip is 0.5, which LiteRT takes around code 0"),
    (PARTS, tensor("hidden_state", shape=(1, 4)), r"its hidden state is \[1, 4\], expected \[1, 5\]"),
    (PARTS, tensor("cell_state", shape=(1, 4)), r"its cell state is \[1, 4\], expected \[1, 5\]"),
    (("projection",), operand(2, -1), "its kernel_f is absent"),
    (("coupled",), operand(17, VECTOR), "it has a projection's bias without the projection"),
    (("coupled",), option(ProjClip=0.5), "its proj_clip is 0.5, expected 0: it has no projection"),
    (("coupled",), operand(2, -1), "its kernel_f is absent"),
    ((), operand(1, -1), "its kernel_i is absent"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "change", "message"), REFUSED)
def test_a_file_that_litert_would_compute_wrongly_is_refused(
    parts: tuple[str, ...], change: Change, message: str
) -> None:
    layer = random_lstm(4, *parts, units=5)
    if layer.variant is not None and "projection" in parts:
        bias = np.ones(layer.outputs, np.int32)
        layer = replace(layer, variant=replace(layer.variant, projection_bias=bias))
    found, problems = read_one(one_operator(layer, change=change))
    assert found is None
    with pytest.raises(UnsupportedModel, match=message):
        read_tflite(one_operator(layer, change=change))
    assert problems


# --- what is no layer, and what could overflow --------------------------------------------------------


def changed(layer: QLstm, **fields: Any) -> QLstm:
    """The layer with other fields, of its own or of its variant."""
    own = {name: value for name, value in fields.items() if name not in Variant.__dataclass_fields__}
    other = {name: value for name, value in fields.items() if name not in own}
    assert layer.variant is not None
    return replace(layer, variant=replace(layer.variant, **other), **own)


ALL = random_lstm(1, *PARTS, units=4)
PROJECTED = random_lstm(1, "projection", units=4)
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: replace(ALL, variant=Variant()), "its variant has no parts"),
    (lambda: changed(ALL, peephole=np.ones((2, 4))), r"peephole is \(2, 4\), expected \(3, 4\)"),
    (lambda: changed(ALL, peephole=None), "peephole_scales must be given with peephole, and only then"),
    (lambda: changed(ALL, gate_scales=None), "gate_scales must be given with normalization, and only then"),
    (lambda: changed(ALL, gate_scales=np.ones(3)), r"gate_scales is \(3,\), expected one of \[\(4,\)\]"),
    (lambda: changed(ALL, projection_scale=0.0), "projection_scale is 0.0, expected above 0"),
    (lambda: changed(ALL, projection_clip=-1.0), "projection_clip is -1.0, expected 0"),
    (lambda: changed(ALL, projection=np.ones((4, 3))), r"projection is \(4, 3\), expected \(4, 4\)"),
    (lambda: changed(ALL, kernel=np.ones(ALL.kernel.shape)), "its gates are coupled, but gate i has codes"),
    (
        lambda: replace(ALL, variant=Variant(True, projection_bias=np.ones(4, np.int32))),
        "it has a bias or a clip of a projection, but no projection",
    ),
    (
        lambda: replace(
            PROJECTED, recurrent_kernel=PROJECTED.recurrent_kernel[:, :, :2],
            variant=Variant(
                peephole=np.ones((3, 4), np.int16), peephole_scales=np.ones(3, np.float32),
                projection=np.ones((2, 4), np.int8),
            ),
        ),
        "it has 4 units with peephole weights and a projection to 2 outputs, but LiteRT reads as many",
    ),
    (
        lambda: replace(
            ALL, bias=ALL.bias, input=Quantization(0.5, 0, 16), hidden=Quantization(0.5, 0, 16), inner=None
        ),
        r"no runtime computes coupled gates \(CIFG\), peephole weights, a projection, layer normalization in",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_is_wrong_with_an_operator_is_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


OVERFLOWING: list[tuple[QLstm, str]] = [
    (changed(ALL, peephole_scales=np.array([1, 1e6, 1e6])), "the term of its peephole weights can overflow"),
    (changed(ALL, projection_bias=np.full(4, 2**31 - 1)), "the accumulator of its projection can overflow"),
    (changed(ALL, normalization_scales=np.array([1, 1e3, 1e3, 1e3])), "its layer normalization can overflow"),
    (replace(PROJECTED, kernel_scales=np.full(4, 3e38)), "the input accumulator can reach"),
    (changed(PROJECTED, projection_scale=3e38), "the accumulator of its projection can overflow"),
]


@pytest.mark.parametrize(("layer", "message"), OVERFLOWING)
def test_sums_that_could_overflow_are_refused(layer: QLstm, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        lower(alone(layer, "m", "litert"))


# --- quantization of float networks -------------------------------------------------------------------


def float_lstm(rng: np.random.Generator, kind: str, units: int = 20, features: int = 4) -> Lstm:
    """A stable LSTM of a kind of ``KINDS``, or "plain"."""
    parts = PARTS if kind == "combined" else (kind,)
    outputs = units // 2 if parts == ("projection",) else units
    fields: dict[str, Any] = {"coupled": "coupled" in parts}
    if "peephole" in parts:
        fields["peephole"] = rng.normal(-0.2, 0.2, (3, units))
    if "normalization" in parts:
        fields["normalization"] = rng.normal(1, 0.2, (4, units))
    if "projection" in parts:
        fields["projection"] = rng.normal(0, 1 / np.sqrt(units), (units, outputs))
        fields["projection_bias"] = rng.normal(0, 0.1, outputs)
    kernel = rng.normal(0, 1 / np.sqrt(features), (features, 4 * units))
    recurrent = rng.normal(0, 1 / np.sqrt(outputs), (outputs, 4 * units))
    return Lstm("lstm", kernel, recurrent, rng.normal(0, 0.3, 4 * units), **fields)


def signal_to_noise(graph: Graph, qgraph: QGraph, x: np.ndarray) -> float:
    """In dB, over a stream that calibration did not see."""
    expected = floating.run(graph, x[None])[0][0]
    found = qgraph.output.decode(NumpyExecutor(qgraph).run(qgraph.input.encode(x)))
    return float(10 * np.log10((expected**2).mean() / ((found - expected) ** 2).mean()))


@pytest.mark.parametrize("kind", [*KINDS, "clipped"])
def test_every_variant_keeps_32_db_in_int8(kind: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        layer = float_lstm(rng, "projection" if kind == "clipped" else kind)
        if kind == "clipped":
            layer = replace(layer, projection_clip=0.4)
        graph = Graph("m", (layer,), Stream.unnamed(4))
        x = rng.normal(0, 1, (800, 4)).clip(-3, 3)
        qgraph = quantize(graph, x[:600], QuantizeConfig(profile="litert"))
        assert signal_to_noise(graph, qgraph, x[600:]) > 32
        lstm = qgraph.layers[0]
        assert isinstance(lstm, QLstm)
        if lstm.inner is not None:
            assert lstm.inner.zero_point == 0  # LiteRT mirrors its range around it


CANNOT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"profile": "tflm"}, "it has layer normalization, which profile tflm does not compute"),
    ({}, {"profile": "native"}, "which profile native does not compute"),
    ({}, {"profile": "litert", "scheme": "int16x8"}, "no runtime computes layer normalization in 16 bits"),
    ({"activation": RELU}, {"profile": "litert"}, "it has layer normalization beside other activations"),
    (
        {
            "peephole": np.ones((3, 20)), "projection": np.ones((20, 9)),
            "recurrent_kernel": np.ones((9, 80)),
        },
        {"profile": "tflite"},
        "it has peephole weights of 20 units and 9 outputs, but LiteRT reads as many of them as outputs",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "config", "message"), CANNOT)
def test_what_no_runtime_of_the_profile_computes_is_refused(
    fields: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    layer = replace(float_lstm(np.random.default_rng(0), "normalization"), **fields)
    graph = Graph("m", (layer,), Stream.unnamed(4))
    with pytest.raises(UnsupportedModel, match=message):
        quantize(graph, np.ones((10, 4)), QuantizeConfig(**config))


def test_gates_far_from_0_are_refused_where_litert_loses_their_variance() -> None:
    rng = np.random.default_rng(1)
    layer = float_lstm(rng, "normalization", units=100, features=2)
    offset = np.zeros((2, 400), np.float32)
    offset[1] = 30.0  # the second input, always 1, moves all gates alike
    x = np.column_stack([rng.normal(0, 1, 50), np.ones(50)])
    graph = Graph("m", (replace(layer, kernel=layer.kernel * [[1], [0]] + offset),), Stream.unnamed(2))
    with pytest.raises(ModelError, match=r"layer normalization over 100 units misses their variance by \d+%"):
        quantize(graph, x, QuantizeConfig(profile="litert"))


def test_the_state_after_a_reset_is_the_zero_point_of_the_hidden_codes() -> None:
    layer = random_lstm(5, "projection")
    program = lower_lstm(layer, "litert")
    state = initial_state(program, 2)
    assert state.hidden.shape == (2, layer.outputs) and state.cell.shape == (2, layer.units)
    assert (state.hidden == layer.hidden.zero_point).all()
    signals, after = run_lstm(program, "litert", np.zeros((2, 3, layer.features), np.int64), state)
    assert signals.output.shape == (2, 3, layer.outputs)
    assert signals.cell is not None and signals.cell.shape == (2, 3, layer.units)
    assert_same(after.hidden, signals.output[:, -1], "last state")
