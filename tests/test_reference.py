"""The references against golden vectors of LiteRT and TFLM and against hand-worked cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import ModelError
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.lower import combine_headroom, lower
from edge_lstm.program import LstmProgram
from edge_lstm.qgraph import QDense, QGraph, QLstm, Quantization
from edge_lstm.reference import floating, integer
from edge_lstm.reference.integer_operators import run_dense


def golden_lstm(model: dict[str, Any]) -> QLstm:
    def gates(prefix: str) -> np.ndarray:
        return np.stack([np.array(model[prefix + gate]) for gate in "ifco"])

    return QLstm(
        name="golden",
        kernel=gates("W"),
        recurrent_kernel=gates("R"),
        bias=gates("b"),
        kernel_scales=gates("sW"),
        recurrent_scales=gates("sR"),
        input=Quantization(float(np.float32(model["sx"])), model["zx"]),
        hidden=Quantization(float(np.float32(model["sh"])), model["zh"]),
        cell_power=model["cell_pow"],
        cell_clip=model["cell_clip"],
    )


@pytest.mark.parametrize(
    ("profile", "outputs", "cells"), [("tflm", "Y_tflm", "c_tflm"), ("litert", "Y_tflite", "c_tflite")]
)
def test_integer_reference_returns_the_golden_vectors(
    shared_data: Path, profile: str, outputs: str, cells: str
) -> None:
    models = json.loads((shared_data / "golden" / "integer_lstm.json").read_text())["models"]
    assert len(models) == 4
    for model in models:
        layer = golden_lstm(model)
        program = lower(QGraph("golden", (layer,), Stream.unnamed(layer.features), profile))
        codes, state = integer.run(program, np.array(model["X"]))
        assert codes.tolist() == model[outputs]
        assert state[0].cell.tolist() == model[cells]


def test_lowering_gives_the_golden_multipliers(shared_data: Path) -> None:
    for model in json.loads((shared_data / "golden" / "integer_lstm.json").read_text())["models"]:
        layer = golden_lstm(model)
        qgraph = QGraph("golden", (layer,), Stream.unnamed(layer.features))
        for profile, products, hidden in (
            ("tflm", "multipliers_f64product", "hidden_mult_tflm"),
            ("litert", "multipliers_f32product", "hidden_mult_tflite"),
        ):
            lowered = lower(qgraph.with_profile(profile)).layers[0]
            assert isinstance(lowered, LstmProgram)
            for index, gate in enumerate("ifco"):
                for part in ("input", "recurrent"):
                    r = getattr(lowered, f"{part}_requantizer")
                    found = [int(r.multiplier[index]), int(r.shift[index])]
                    assert found == model[products][gate][part]
            h = lowered.hidden_requantizer
            assert [int(h.multiplier[0]), int(h.shift[0])] == model[hidden]


def one_unit(**changes: Any) -> QLstm:
    """One unit, one feature: small enough to work by hand."""
    layer = QLstm(
        name="one",
        kernel=np.array([[[64]], [[0]], [[127]], [[0]]]),
        recurrent_kernel=np.zeros((4, 1, 1)),
        bias=np.zeros((4, 1)),
        kernel_scales=np.full(4, 2.0**-6),
        recurrent_scales=np.ones(4),
        input=Quantization(2.0**-5, 0),
        hidden=Quantization(2.0**-7, 0),
        cell_power=-12,
    )
    return replace(layer, **changes)


def test_one_unit_worked_by_hand_from_the_sampled_table() -> None:
    """x = 32 is 1.0: z_i = 1.0, z_f = z_o = 0, z_g = 127/64.  tflm: i = 23956, f = o = 16384, all Q0.15."""
    program = lower(QGraph("one", (one_unit(),), Stream.unnamed(1)))
    codes, state = integer.run(program, np.array([[[32]]]))
    i = 32768 / (1 + np.exp(-1.0))
    g = 32768 * np.tanh(127 / 64)
    cell = i * g / 2**18
    assert abs(int(state[0].cell[0, 0]) - cell) <= 1
    assert int(codes[0, 0, 0]) == round(0.5 * np.tanh(cell / 4096) * 128)


def test_gates_read_the_hidden_state_of_the_step_before() -> None:
    layer = one_unit(
        recurrent_kernel=np.array([[[0]], [[0]], [[0]], [[127]]]), recurrent_scales=np.full(4, 0.5)
    )
    program = lower(QGraph("one", (layer,), Stream.unnamed(1)))
    first, _ = integer.run(program, np.array([[[32]]]))
    both, _ = integer.run(program, np.array([[[32], [32]]]))
    assert both[0, 0, 0] == first[0, 0, 0]
    plain, _ = integer.run(lower(QGraph("one", (one_unit(),), Stream.unnamed(1))), np.array([[[32], [32]]]))
    assert both[0, 1, 0] > plain[0, 1, 0]  # o is open in the second step only


def test_state_carries_over_calls_and_streams_do_not_mix() -> None:
    rng = np.random.default_rng(3)
    layer = QLstm(
        "l", rng.integers(-127, 128, (4, 5, 3)), rng.integers(-127, 128, (4, 5, 5)),
        rng.integers(-3000, 3000, (4, 5)), np.full(4, 0.01), np.full(4, 0.008),
        Quantization(0.03125, 7), Quantization(0.0078125, -3), -13,
    )  # fmt: skip
    codes = rng.integers(-128, 128, (4, 20, 3))
    for profile in ("tflm", "litert"):
        program = lower(QGraph("l", (layer,), Stream.unnamed(3), profile))
        whole, last = integer.run(program, codes)
        first, state = integer.run(program, codes[:, :7])
        second, state = integer.run(program, codes[:, 7:], state)
        assert (np.concatenate([first, second], axis=1) == whole).all()
        assert (state[0].cell == last[0].cell).all()
        for stream in range(4):
            alone, _ = integer.run(program, codes[stream : stream + 1])
            assert (alone[0] == whole[stream]).all()


def test_dense_layer_equals_exact_arithmetic_in_both_profiles() -> None:
    rng = np.random.default_rng(5)
    source, target = Quantization(float(np.float32(0.017)), -9), Quantization(float(np.float32(0.05)), 11)
    scales = rng.uniform(0.001, 0.02, 6).astype(np.float32)
    dense = QDense("d", rng.integers(-128, 128, (6, 9)), rng.integers(-2000, 2000, 6), scales, source, target)
    lstm = one_unit(hidden=source)
    wide = replace(
        lstm, kernel=np.repeat(lstm.kernel, 9, axis=1), recurrent_kernel=np.zeros((4, 9, 9)),
        bias=np.zeros((4, 9)),
    )  # fmt: skip
    x = rng.integers(-128, 128, (50, 9))
    exact = ((x - source.zero_point) * 1.0) @ dense.kernel.astype(float).T + dense.bias
    exact = exact * (source.scale * scales.astype(float) / target.scale) + target.zero_point
    for profile in ("tflm", "litert"):
        program = lower(QGraph("d", (wide, dense), Stream.unnamed(1), profile))
        codes = run_dense(program.layers[1], profile, x)  # type: ignore[arg-type]
        assert np.abs(codes - np.clip(exact, -128, 127)).max() <= 0.5001


def test_a_network_that_could_overflow_is_refused_with_the_gate() -> None:
    bias = np.zeros((4, 1))
    bias[2, 0] = 2**31 - 1000
    with pytest.raises(ModelError, match="gate g: the input accumulator can reach 8589995616"):
        lower(QGraph("one", (one_unit(bias=bias),), Stream.unnamed(1)))


def test_combine_headroom_is_the_reach_of_the_recurrent_term() -> None:
    layer = one_unit(
        recurrent_kernel=np.array([[[127]], [[0]], [[0]], [[0]]]), recurrent_scales=np.full(4, 0.125)
    )
    lowered = lower(QGraph("one", (layer,), Stream.unnamed(1))).layers[0]
    assert isinstance(lowered, LstmProgram)
    assert combine_headroom(lowered) == pytest.approx(127 * 0.125 * 128 / 128 / 8, rel=1e-3)


def test_float_reference_equals_the_textbook_equations() -> None:
    rng = np.random.default_rng(1)
    lstm = Lstm("l", rng.normal(size=(2, 12)), rng.normal(size=(3, 12)), rng.normal(size=12))
    dense = Dense("d", rng.normal(size=(3, 2)), rng.normal(size=2))
    graph = Graph("g", (lstm, dense), Stream.unnamed(2))
    x = rng.normal(size=(1, 4, 2))
    h, c = np.zeros(3), np.zeros(3)
    for t in range(4):
        z = x[0, t] @ lstm.kernel + h @ lstm.recurrent_kernel + lstm.bias
        i, f, g, o = z[:3], z[3:6], z[6:9], z[9:]
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    outputs, _ = floating.run(graph, x)
    assert np.allclose(outputs[0, -1], h @ dense.kernel + dense.bias, atol=1e-6)
