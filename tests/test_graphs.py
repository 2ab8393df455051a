"""The two graphs refuse what is inconsistent, naming every problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.errors import DataError, ModelError, raise_all
from edge_lstm.graph import Channel, Dense, Graph, Lstm, Stream
from edge_lstm.naming import identifier
from edge_lstm.operators import QState, wide
from edge_lstm.placing_operators import QConcat, QRepeat, QRow
from edge_lstm.qgraph import QDense, QGraph, QLstm, Quantization
from test_reference import one_unit


def test_every_problem_of_a_model_is_listed() -> None:
    with pytest.raises(DataError, match="here: 2 problems\n  - first\n  - second"):
        raise_all(DataError, "here", ["first", "second"])
    with pytest.raises(DataError, match="^here: only$"):
        raise_all(DataError, "here", ["only"])
    raise_all(DataError, "here", [])


def test_a_layer_with_the_wrong_shape_names_found_and_expected() -> None:
    with pytest.raises(ModelError, match=r"recurrent_kernel is \(3, 10\), expected \(3, 12\)"):
        Lstm("l", np.zeros((2, 12)), np.zeros((3, 10)), np.zeros(12))
    with pytest.raises(ModelError, match=r"kernel is \(2,\), expected \('any', 12\)"):
        Lstm("l", np.zeros(2), np.zeros((3, 12)), np.zeros(12))
    with pytest.raises(ModelError, match="NaN or infinity; the training diverged"):
        Lstm("l", np.full((2, 12), np.nan), np.zeros((3, 12)), np.zeros(12))
    with pytest.raises(ModelError, match=r"kernel is \(2, 0\)"):
        Lstm("l", np.zeros((2, 0)), np.zeros((0, 0)), np.zeros(0))
    with pytest.raises(ModelError, match=r"kernel is \(3, 2\), expected \('any', 3\)"):
        Dense("d", np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ModelError, match=r"kernel is \(0, 2\), expected"):
        Dense("d", np.zeros((0, 2)), np.zeros(2))
    with pytest.raises(ModelError, match="kernel holds NaN"):
        Dense("d", np.full((3, 2), np.inf), np.zeros(2))


def test_layers_that_do_not_fit_each_other_are_refused() -> None:
    lstm = Lstm("l", np.zeros((2, 12)), np.zeros((3, 12)), np.zeros(12))
    with pytest.raises(ModelError, match="'d' takes 4 features, but what it reads has 3"):
        Graph("g", (lstm, Dense("d", np.zeros((4, 2)), np.zeros(2))), Stream.unnamed(2))
    with pytest.raises(ModelError, match="takes 2 features, but what it reads has 5"):
        Graph("g", (lstm,), Stream.unnamed(5))
    with pytest.raises(ModelError, match="it has no layers"):
        Graph("g", (), Stream.unnamed(4))


def test_a_channel_needs_a_positive_scale() -> None:
    with pytest.raises(ModelError, match="channel 'flow': center 0.0 and scale 0.0"):
        Channel("flow", scale=0.0)


def test_weights_are_read_only() -> None:
    layer = one_unit()
    with pytest.raises(ValueError, match="read-only"):
        layer.kernel[0, 0, 0] = 1


def test_quantization_is_a_float32_scale_and_an_int8_zero_point() -> None:
    with pytest.raises(ModelError, match=r"scale 0.1 is not a positive float32"):
        Quantization(0.1, 0)
    with pytest.raises(ModelError, match="zero point 128 is not an int8"):
        Quantization(0.5, 128)


def test_codes_saturate_round_to_nearest_and_replace_nan_by_the_zero_point() -> None:
    q = Quantization(0.5, 3)
    assert q.encode(np.array([0.0, 0.24, 0.26, -1.0, 1e9, -1e9, np.nan])).tolist() == [
        3,
        3,
        4,
        1,
        127,
        -128,
        3,
    ]
    assert q.decode(np.array([4, -128])).tolist() == [0.5, -65.5]


def test_a_quantized_layer_refuses_scales_and_cells_that_runtimes_compute_wrongly() -> None:
    with pytest.raises(ModelError, match=r"2\*\*-17, expected 2\*\*-15 .. 2\*\*-9; LiteRT computes garbage"):
        one_unit(cell_power=-17)
    with pytest.raises(ModelError, match="kernel_scales holds a scale that is not above 0"):
        one_unit(kernel_scales=np.array([1, 1, 0, 1]))
    with pytest.raises(ModelError, match=r"recurrent_scales is \(3,\)"):
        one_unit(recurrent_scales=np.ones(3))
    with pytest.raises(ModelError, match=r"bias is \(4, 2\), expected \(4, 1\)"):
        one_unit(bias=np.zeros((4, 2)))
    with pytest.raises(ModelError, match=r"recurrent_kernel is \(4, 1, 2\)"):
        one_unit(recurrent_kernel=np.zeros((4, 1, 2)))
    with pytest.raises(ModelError, match=r"kernel is \(3, 1, 1\)"):
        one_unit(kernel=np.zeros((3, 1, 1)))
    with pytest.raises(ModelError, match="cell_clip is -1.0"):
        one_unit(cell_clip=-1.0)
    q = Quantization(0.5, 0)
    with pytest.raises(ModelError, match=r"kernel is \(3,\)"):
        QDense("d", np.zeros(3), np.zeros(3), np.ones(1), q, q)
    with pytest.raises(ModelError, match=r"bias is \(2,\), expected \(3,\)"):
        QDense("d", np.zeros((3, 2)), np.zeros(2), np.ones(1), q, q)


def test_a_quantized_graph_lists_name_profile_and_scale_breaks_together() -> None:
    other = Quantization(0.25, 1)
    dense = QDense("d", np.zeros((1, 1)), np.zeros(1), np.ones(1), other, other)
    with pytest.raises(ModelError) as caught:
        QGraph("1 pump", (one_unit(), dense), Stream.unnamed(1), "cmsis", timesteps=0)
    message = str(caught.value)
    for part in (
        "the name '1 pump' is none for C; choose 'model_1_pump'",
        "profile 'cmsis' is unknown",
        "timesteps 0",
        "'d' reads",
    ):
        assert part in message
    with pytest.raises(ModelError, match="it has no layers"):
        QGraph("m", (), Stream.unnamed(1))


def test_with_profile_keeps_every_code() -> None:
    qgraph = QGraph("one", (one_unit(),), Stream.unnamed(1))
    assert qgraph.with_profile("tflm") is qgraph
    changed = qgraph.with_profile("litert")
    assert changed.profile == "litert" and changed.layers is qgraph.layers
    assert replace(changed, profile="tflm").layers is qgraph.layers
    assert isinstance(changed.layers[0], QLstm)


def test_scaling_to_the_network_and_back_is_the_identity() -> None:
    stream = Stream((Channel("a", "bar", 3.0, 2.0), Channel("b", "A", -1.0, 0.5)), 1.0)
    real = np.array([[1.0, 2.0], [np.nan, -7.0]])
    assert np.allclose(stream.to_real(stream.to_network(real)), real, equal_nan=True)
    assert stream.names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pump", "pump"), ("pump-v2.1", "pump_v2_1"), ("3 pumps", "model_3_pumps"), ("", "model"),
        ("---", "model"), ("_", "model"), ("math", "model_math"), ("String", "model_String"),
        ("int", "model_int"), ("Register", "model_Register"), ("elstm", "model_elstm"), ("__x__", "x"),
        ("größe", "gr_e"), ("日本", "model"),
    ],
)  # fmt: skip
def test_any_text_becomes_a_c_identifier(text: str, name: str) -> None:
    assert identifier(text) == name
    assert name.isidentifier() and name.isascii()


def test_operators_that_do_not_fit_the_rows_of_a_window_are_refused_together() -> None:
    value = wide(-12)
    layers = (QRow("last", value), QConcat("both", value), QRepeat("again", value))
    with pytest.raises(ModelError) as caught:
        QGraph(
            "m",
            layers,
            Stream.unnamed(2),
            window=4,
            last_only=True,
            sources=((-1,), (-1, 0), (1,)),
            input=value,
        )
    for part in (
        "'both' joins rows of a window with a vector",
        "'again' repeats the rows",
        "last_only beside a window",
    ):
        assert part in str(caught.value)
    with pytest.raises(
        ModelError, match=r"state 's': 3 codes that begin as 40000, expected 1 or more codes of 16"
    ):
        QState("s", 3, value, 40000)
