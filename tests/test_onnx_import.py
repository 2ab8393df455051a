"""The recurrent operators of ONNX: random models against ONNX Runtime, and what of them is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.importers.onnx_recurrent import gru_gates, lstm_gates, peepholes
from edge_lstm.layer_types import Function, Gru, Lstm, Merge, Rnn, Row
from edge_lstm.reference.floating import run
from onnx_import_models import assert_close, model, runtime

MODELS = 120  # random models of each operator
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
GATE_NAMES = {"LSTM": ("f", "g", "h"), "GRU": ("f", "g"), "RNN": ("f",)}
INPUTS = ("W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
PARAMETERS = {"ScaledTanh": "ab", "HardSigmoid": "ab", "Affine": "ab", "LeakyRelu": "a",
              "ThresholdedRelu": "a", "Elu": "a"}  # fmt: skip
BOUNDED = ("Tanh", "Sigmoid", "Softsign", "ScaledTanh", "HardSigmoid")
FUNCTIONS = (*BOUNDED, "Relu", "Softplus", "Affine", "LeakyRelu", "ThresholdedRelu", "Elu")
SHORT = 6  # rows over which functions without bound do not grow out of float32's precision


def activations(rng: np.random.Generator, op: str, directions: int, rows: int) -> dict[str, Any]:
    """Random functions, other ones for each direction, with random alpha and beta."""
    choices = FUNCTIONS if rows <= SHORT else BOUNDED
    names = [str(name) for name in rng.choice(choices, directions * len(GATE_NAMES[op]))]
    if op == "GRU" and rows > SHORT:  # its gate z weighs the last state against the new one: 0 .. 1
        names[::2] = [str(name) for name in rng.choice(["Sigmoid", "HardSigmoid"], directions)]
    found: dict[str, Any] = {"activations": names}
    for letter, attribute in (("a", "activation_alpha"), ("b", "activation_beta")):
        values = [float(rng.uniform(0.1, 0.9)) for name in names if letter in PARAMETERS.get(name, "")]
        if values:
            found[attribute] = values
    return found


def random_model(op: str, seed: int) -> tuple[bytes, np.ndarray]:
    """One operator with random sizes, inputs and attributes, and a sequence (rows, 1, features)."""
    rng = np.random.default_rng(seed)
    rows, features, units = (int(rng.integers(1, top)) for top in (51, 6, 7))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count, gates, spread = 1 + (direction == "bidirectional"), GATES[op], float(rng.choice([0.3, 0.7]))

    def weights(*shape: int) -> np.ndarray:
        return rng.normal(size=(count, *shape)) * spread

    constants: dict[str, Any] = {"W": weights(gates * units, features), "R": weights(gates * units, units)}
    if rng.random() < 0.8:
        constants["B"] = weights(2 * gates * units)
    if rng.random() < 0.3:
        constants["sequence_lens"] = np.full(1, rows, np.int32)
    for name in ("initial_h", "initial_c")[: 1 + (op == "LSTM")]:
        if rng.random() < 0.5:
            constants[name] = weights(1, units)
    if op == "LSTM" and rng.random() < 0.5:
        constants["P"] = weights(3 * units)
    attributes: dict[str, Any] = {"hidden_size": units, "direction": direction}
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.uniform(0.1, 3))
    if rng.random() < 0.6:
        attributes |= activations(rng, op, count, rows)
    elif op == "LSTM" and rng.random() < 0.6:
        attributes["input_forget"] = 1
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    reads = ["x", *(name if name in constants else "" for name in INPUTS[: 7 if op == "LSTM" else 5])]
    x = rng.normal(size=(rows, 1, features)) * rng.choice([0.5, 4])
    content = model([(op, reads, ["y"], attributes)], constants, {"x": x.shape})
    return content, x.astype(np.float32)


@pytest.mark.parametrize("op", GATES)
def test_random_recurrent_operators_agree_with_onnx_runtime(op: str) -> None:
    for seed in range(MODELS):
        content, x = random_model(op, seed)
        want = runtime(content, x=x)  # (rows, directions, 1, units)
        found, _ = run(read_onnx(content), x.transpose(1, 0, 2))
        assert_close(found, want.transpose(2, 0, 1, 3).reshape(1, x.shape[0], -1))


def test_gates_are_reordered_from_i_o_f_c_to_i_f_g_o_and_kept_for_a_gru() -> None:
    rows = np.arange(8)[:, None] + np.zeros((1, 3))
    assert lstm_gates(rows)[0].tolist() == [0, 1, 4, 5, 6, 7, 2, 3]
    assert gru_gates(rows[:6])[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert peepholes(np.array([1, 2, 3])).tolist() == [[1], [3], [2]]


def weights(op: str, units: int = 3, features: int = 2, directions: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    rows = GATES[op] * units
    sizes = {"W": (rows, features), "R": (rows, units), "B": (2 * rows,)}
    return {name: rng.normal(size=(directions, *shape)) * 0.5 for name, shape in sizes.items()}


def operator(
    op: str = "LSTM",
    shape: Any = (4, 1, 2),
    reads: Any = (),
    more: Any = None,
    outputs: Any = ("y",),
    **attributes: Any,
) -> bytes:
    """One operator with constant weights.  reads: its inputs after B.  more: further constants."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    constants = {**weights(op, directions=directions), **(more or {})}
    return model(
        [(op, ["x", "W", "R", "B", *reads], outputs, attributes)], constants, {"x": shape}, outputs[-1:]
    )


def test_each_direction_has_its_own_layer_and_activations() -> None:
    graph = read_onnx(
        operator("GRU", direction="bidirectional", activations=["Sigmoid", "Relu", "HardSigmoid", "Elu"],
                 activation_alpha=[0.3, 0.7], activation_beta=[0.4])
    )  # fmt: skip
    forward, backward, merge = graph.layers
    assert isinstance(forward, Gru) and isinstance(backward, Gru) and isinstance(merge, Merge)
    assert (forward.backwards, backward.backwards, merge.mode, graph.window) == (False, True, "concat", 4)
    assert forward.activation == Function("relu")
    assert backward.recurrent_activation.kind == "hard_sigmoid"
    assert backward.recurrent_activation.alpha == pytest.approx(0.3)
    assert backward.activation.alpha == pytest.approx(0.7)


def test_the_last_hidden_state_is_the_last_row_forwards_and_the_first_row_backwards() -> None:
    forward = read_onnx(operator("RNN", outputs=("", "y")))
    assert [type(layer) for layer in forward.layers] == [Rnn]
    assert forward.made["last_only"] is True and forward.window == 0
    backward = read_onnx(operator("RNN", outputs=("", "y"), direction="reverse"))
    assert isinstance(backward.layers[1], Row) and backward.layers[1].index == 0


def test_a_layer_of_batches_first_reads_the_same_rows() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4, 2)).astype(np.float32)
    rows_first, batch_first = operator(shape=(4, 1, 2)), operator(shape=(1, 4, 2), layout=1)
    assert np.array_equal(run(read_onnx(rows_first), x)[0], run(read_onnx(batch_first), x)[0])


def test_several_streams_of_a_fixed_batch_are_the_same_network() -> None:
    graph = read_onnx(operator(shape=(4, 5, 2)))
    assert graph.features == 2 and graph.window == 0


def test_initial_states_are_constants_of_the_layer() -> None:
    h, c = np.full((1, 1, 3), 0.25), np.full((1, 1, 3), -0.5)
    layer = read_onnx(operator(reads=["", "h", "c"], more={"h": h, "c": c})).layers[0]
    assert isinstance(layer, Lstm)
    assert layer.initial_hidden is not None and layer.initial_hidden.tolist() == [0.25] * 3
    assert layer.initial_cell is not None and layer.initial_cell.tolist() == [-0.5] * 3


def test_coupled_gates_of_a_hard_sigmoid_agree_with_onnx_runtime() -> None:
    x = np.random.default_rng(3).normal(size=(4, 1, 2)).astype(np.float32)
    content = operator(
        hidden_size=3, input_forget=1, clip=0.7, activations=["HardSigmoid", "Tanh", "Tanh"],
        activation_alpha=[0.25], activation_beta=[0.5], reads=["", "", "", "P"],
        more={"P": np.linspace(-1, 1, 9)[None]},
    )  # fmt: skip
    found, _ = run(read_onnx(content), x.transpose(1, 0, 2))
    assert_close(found, runtime(content, x=x)[:, 0].transpose(1, 0, 2))


def test_clip_is_that_of_the_inputs_of_the_gates_activations() -> None:
    layer = read_onnx(operator(clip=0.5)).layers[0]
    assert isinstance(layer, Lstm) and (layer.gate_clip, layer.cell_clip) == (0.5, 0.0)


REFUSALS: dict[str, tuple[bytes, str]] = {
    "no clip": (operator(clip=0.0), "its clip is 0.0, expected a number above 0"),
    "unknown activation": (operator(activations=["Sigmoid", "Tanh", "Gelu"]), "activation 'Gelu' is unknown"),
    "unsettled default": (
        operator("RNN", activations=["ThresholdedRelu"]),
        "activation 'ThresholdedRelu' without activation_alpha or activation_beta, whose defaults differ",
    ),
    "too many alphas": (
        operator("RNN", activations=["Elu"], activation_alpha=[0.5, 0.5]),
        "2 values of activation_alpha for 1 activations that take one",
    ),
    "coupled tanh": (
        operator(input_forget=1, activations=["Tanh", "Tanh", "Tanh"]),
        r"input_forget with 'tanh', where 1 - f\(z\) is not f\(-z\); use Sigmoid",
    ),
    "short sequences": (
        operator(reads=["lengths"], more={"lengths": np.array([3], np.int32)}),
        r"its sequence_lens are \[3\], expected all 4 rows; .*leave sequence_lens out",
    ),
    "states by stream": (
        operator("GRU", (4, 2, 2), ["", "h"], {"h": np.array([[[1.0, 0, 0], [2.0, 0, 0]]])}),
        "its initial hidden state differs from stream to stream",
    ),
    "cell as output": (operator(outputs=("", "", "y")), "its outputs are states only; the network needs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_an_operator_asks_for_and_no_layer_has_is_refused_by_name(name: str) -> None:
    content, words = REFUSALS[name]
    with pytest.raises(UnsupportedModel, match=words):
        read_onnx(content)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "direction": (
        operator(direction="sideways"),
        "direction 'sideways', expected one of forward, reverse, bidirectional",
    ),
    "attribute": (operator(hidden=3), "it has no attribute hidden; export the model again"),
    "number of activations": (operator(activations=["Tanh"]), "1 activations, expected 3"),
    "bias": (operator(more={"B": np.zeros((1, 9))}), r"its B is \(1, 9\), expected \(1, 24\)"),
    "weights": (operator(more={"W": np.zeros((12, 2))}), "its weights W and R are not constants with 3 axes"),
    "features": (operator(shape=(4, 1, 3)), "its W takes 2 features, but its sequence has 3"),
    "axes": (
        model([("Unsqueeze", ["x", "a"], ["z"], {}), ("LSTM", ["z", "W", "R"], ["y"], {})],
              {**weights("LSTM"), "a": np.array([0])}, {"x": (4, 1, 2)}),
        "its sequence X has 4 axes, expected 3",
    ),
    "state": (
        operator("GRU", reads=["", "h"], more={"h": np.zeros((1, 1, 5))}),
        r"its initial hidden state is \(1, 1, 5\), expected \(directions, batch, 3\)",
    ),
    "projection": (
        operator(hidden_size=2),
        r"hidden_size is 2 and R \(1, 12, 3\), expected .*proj_size, which ONNX does not have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_breaks_the_rules_of_an_operator_is_named(name: str) -> None:
    content, words = DAMAGED[name]
    with pytest.raises(ModelError, match=words):
        read_onnx(content)


def test_inputs_of_the_graph_can_be_given_as_constants() -> None:
    shapes = {"x": (4, 1, 2), "W": (1, 12, 2), "R": (1, 12, 3)}
    content = model([("LSTM", ["x", "W", "R"], ["y"], {})], {}, shapes)
    with pytest.raises(
        UnsupportedModel, match="its W is the input 'W' of the graph, expected a constant; give its values"
    ):
        read_onnx(content)
    given = {name: array.astype(np.float32) for name, array in weights("LSTM").items() if name != "B"}
    assert read_onnx(content, given).outputs == 3
    with pytest.raises(UnsupportedModel, match="a constant is given for 'Q', which is no input"):
        read_onnx(content, {**given, "Q": np.ones(1)})
    with pytest.raises(ModelError, match="the constant given for 'W' holds no numbers"):
        read_onnx(content, {**given, "W": np.array(["a"])})


def test_weights_that_are_computed_from_the_input_are_refused() -> None:
    content = model(
        [("Mul", ["x", "W"], ["v"], {}), ("LSTM", ["x", "v", "R"], ["y"], {})],
        {"W": np.ones((1, 1, 2)), "R": np.ones((1, 12, 3))}, {"x": (4, 1, 2)},
    )  # fmt: skip
    with pytest.raises(
        UnsupportedModel, match="its W is computed from the network's input, expected a constant"
    ):
        read_onnx(content)
