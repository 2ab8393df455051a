"""What Keras 3 converts to: WHILE loops and unrolled windows, against LiteRT; then loops that differ."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Activation, Dense, Gru, Lstm, Merge, Repeat, Rnn, Row
from edge_lstm.importers import tflite_float
from edge_lstm.importers.tflite_float import read_float_tflite
from test_tflite_float import TOLERANCE, difference, outcome

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def convert(layers: list[Any], steps: int, features: int, batch: int = 1, half: bool = False) -> bytes:
    """A Keras model with random weights as TensorFlow's converter writes it."""
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(steps)
    first = value = keras.Input((steps, features), batch_size=batch)
    for layer in layers:
        value = layer(value)
    model = keras.Model(first, value)
    for weight in model.weights:
        values = rng.normal(0, 0.4, weight.shape)
        weight.assign(np.abs(values) + 0.2 if "variance" in weight.path else values)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Four models that hold every kind of layer, and a plain LSTM."""
    import keras.layers as kl

    both = kl.Bidirectional(kl.LSTM(5, return_sequences=True), merge_mode="ave")
    unrolled = kl.LSTM(3, unroll=True, return_sequences=True, go_backwards=True)
    encoder = kl.SimpleRNN(5, return_sequences=True)
    heads = [kl.TimeDistributed(kl.Dense(4, activation="tanh")), kl.TimeDistributed(kl.Dense(2))]
    relu = kl.LSTM(
        4, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False, go_backwards=True
    )
    return {
        "loops": convert(
            [kl.BatchNormalization(), both, kl.GRU(4, reset_after=False), kl.Dense(3, activation="softmax")],
            7, 3,
        ),
        "unrolled": convert([unrolled, kl.GRU(4, unroll=True, reset_after=True), kl.Dense(2)], 4, 2, batch=3),
        "autoencoder": convert(
            [encoder, kl.LSTM(4), kl.RepeatVector(5), kl.GRU(5, return_sequences=True), *heads], 5, 3,
            half=True,
        ),
        "relu": convert([relu, kl.Dense(2, activation="hard_sigmoid")], 4, 1, batch=3),
        "plain": convert([kl.LSTM(3, return_sequences=True)], 4, 2),
    }  # fmt: skip


KINDS: dict[str, tuple[int, list[type]]] = {
    "loops": (7, [Lstm, Lstm, Merge, Gru, Row, Dense]),
    "unrolled": (4, [Lstm, Gru, Row, Dense]),
    "autoencoder": (5, [Rnn, Lstm, Row, Repeat, Gru, Dense, Activation, Dense]),
    "relu": (4, [Lstm, Row, Dense, Activation]),
    "plain": (0, [Lstm]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_converted_keras_model_computes_what_litert_computes(files: dict[str, bytes], name: str) -> None:
    graph, worst = difference(files[name])
    window, kinds = KINDS[name]
    assert worst < TOLERANCE
    assert (graph.window, [type(layer) for layer in graph.layers[: len(kinds)]]) == (window, kinds)
    half = "its weights were float16 in the file and are read as float32" if name == "autoencoder" else None
    assert graph.made.get("note") == half


def test_the_activations_of_a_loop_are_seen(files: dict[str, bytes]) -> None:
    layer = read_float_tflite(files["relu"]).layers[0]
    assert isinstance(layer, Lstm) and layer.backwards
    functions = (layer.activation, layer.recurrent_activation, layer.cell_activation)
    assert [function.kind for function in functions] == ["relu", "hard_sigmoid", "relu"]


def test_loops_that_share_one_body_without_end_are_refused(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite_float, "MAX_LOOP_OPERATORS", 60)
    assert not outcome(files["loops"])
    with pytest.raises(UnsupportedModel, match="its loops have more than 60 operators"):
        read_float_tflite(files["loops"])


def test_damaged_loops_are_read_or_refused(files: dict[str, bytes]) -> None:
    rng = np.random.default_rng(2)
    for content in files.values():
        for size in rng.integers(0, len(content), 10):
            assert not outcome(content[:size])
        for _ in range(25):
            damaged = bytearray(content)
            for place in rng.integers(0, len(damaged), 3):
                damaged[place] ^= 1 << int(rng.integers(8))
            outcome(bytes(damaged))


# --- the plain loop with one thing changed ----------------------------------------------------------


class Model:
    """The plain loop as objects that can be changed.  body and condition: subgraphs."""

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.schema = schema
        self.model = copy.deepcopy(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)))
        self.main, self.condition, self.body = self.model.subgraphs
        self.loop = self.operators("WHILE", self.main)[0]

    def bytes(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def code(self, kind: str) -> int:
        """The place of an operator's code, added where the file has none."""
        number = getattr(self.schema.BuiltinOperator, kind)
        for place, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                return place
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def operators(self, kind: str, graph: Any = None) -> list[Any]:
        place = self.code(kind)
        return [operator for operator in (graph or self.body).operators if operator.opcodeIndex == place]

    def constant(self, graph: Any, values: np.ndarray) -> int:
        """A new constant of a subgraph."""
        buffer, tensor = self.schema.BufferT(), self.schema.TensorT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        kinds = {"int32": self.schema.TensorType.INT32, "float32": self.schema.TensorType.FLOAT32}
        tensor.shape, tensor.type = list(values.shape), kinds[values.dtype.name]
        tensor.buffer, tensor.name = len(self.model.buffers) - 1, b"constant"
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def add(self, kind: str, inputs: list[int], like: int, graph: Any = None) -> int:
        """A new operator at the end of a subgraph; its output is a tensor as ``like`` is."""
        graph = graph or self.body
        graph.tensors.append(copy.deepcopy(graph.tensors[like]))
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs = self.code(kind), inputs
        operator.outputs = [len(graph.tensors) - 1]
        graph.operators.append(operator)
        return len(graph.tensors) - 1


def other_kind(kind: str, place: int, new: str) -> Callable[[Model], None]:
    """Let an operator of the body be of another kind."""

    def change(m: Model) -> None:
        m.operators(kind)[place].opcodeIndex = m.code(new)

    return change


def carried(place: int, values: Any) -> Callable[[Model], None]:
    """Let the loop start from a constant."""

    def change(m: Model) -> None:
        m.loop.inputs[place] = m.constant(m.main, np.asarray(values))

    return change


def operand(kind: str, number: int, place: int, values: Any) -> Callable[[Model], None]:
    """Let an operator of the body read a constant."""

    def change(m: Model) -> None:
        m.operators(kind)[number].inputs[place] = m.constant(m.body, np.asarray(values, np.int32))

    return change


def fewer_rounds(m: Model) -> None:
    for operator in m.operators("LESS", m.condition):
        operator.inputs[1] = m.constant(m.condition, np.array(3, np.int32))


def other_condition(m: Model) -> None:
    m.operators("LESS", m.condition)[0].opcodeIndex = m.code("GREATER")


def dead_operator(m: Model) -> None:
    m.add("TANH", [m.body.inputs[3]], m.body.inputs[3])


def last_state_is_output(m: Model) -> None:
    m.main.outputs = [m.loop.outputs[4]]


def computed_start(m: Model) -> None:
    m.loop.inputs[3] = m.add("TANH", [m.main.inputs[0]], m.main.inputs[0], m.main)
    m.main.operators.insert(0, m.main.operators.pop())


def gathered_axis(m: Model) -> None:
    m.operators("GATHER")[0].builtinOptions.axis = 1


def gathered_later(m: Model) -> None:
    gather = m.operators("GATHER")[0]
    gather.inputs[1] = m.operators("ADD")[1].outputs[0]


def gathered_twice(m: Model) -> None:
    m.operators("GATHER")[0].outputs = [*m.operators("GATHER")[0].outputs, m.body.outputs[1]]


def written_twice(m: Model) -> None:
    m.operators("TANH")[0].outputs = [m.body.inputs[3]]


def stacks_the_cell(m: Model) -> None:
    stack = m.operators("CONCATENATION")[-1]
    [reshape] = [op for op in m.operators("RESHAPE") if op.outputs[0] == stack.inputs[1]]
    reshape.inputs[0] = m.body.outputs[4]


def fewer_values(m: Model) -> None:
    m.body.outputs = m.body.outputs[:-1]


def unknown_tensor(m: Model) -> None:
    m.body.operators.append(m.body.operators.pop(0))
    m.operators("GATHER")[0].inputs[1] = m.body.operators[-1].outputs[0]


def stack_as_state(m: Model) -> None:
    m.operators("TANH")[0].inputs = [m.body.inputs[2]]


def counter_as_number(m: Model) -> None:
    m.operators("TANH")[0].inputs = [m.body.inputs[0]]


def constant_as_vector(m: Model) -> None:
    m.operators("TANH")[0].inputs = [m.constant(m.body, np.ones((1, 3), np.float32))]


def own_body(m: Model) -> None:
    m.loop.builtinOptions.bodySubgraphIndex = 0


def two_streams_differ(m: Model) -> None:
    carried(4, np.ones((1, 3, 1), np.float32))(m)


def more_state(m: Model) -> None:
    """The stack's place carries what nobody stacks."""
    stack = m.operators("CONCATENATION")[-1]
    stack.inputs, stack.opcodeIndex = [m.body.outputs[3]], m.code("TANH")
    m.body.tensors[m.body.outputs[2]].shape = [1, 3]
    for _ in range(4):  # what fed the stack is read by nobody
        read = {*m.body.outputs, *(index for operator in m.body.operators for index in operator.inputs)}
        m.body.operators = [operator for operator in m.body.operators if operator.outputs[0] in read]


def gathered_state(m: Model) -> None:
    m.operators("GATHER")[0].inputs[0] = m.body.inputs[2]


def other_window(m: Model) -> None:
    """The window reaches the loop with its axes exchanged."""
    m.loop.inputs[5] = m.main.inputs[0]


LOOPS: list[tuple[Callable[[Model], None], str]] = [
    (fewer_rounds, "it makes 3 rounds over 1 inputs, expected 4 rounds over the rows of one"),
    (carried(1, np.int32(1)), r"its counter \(value 1\) does not count from 0 by 1"),
    (operand("ADD", 0, 1, 2), "operator 0 ADD: it does not count by 1"),
    (other_kind("LOGISTIC", 0, "TANH"), "its body is not the cell of an LSTM, a GRU or a simple RNN"),
    (other_kind("MUL", 0, "ADD"), "its body is not the cell of an LSTM"),
    (other_kind("TANH", 0, "SIN"), "SIN: a recurrent cell of Keras has no such operator"),
    (dead_operator, "in its body, nothing reads what TANH computes"),
    (
        last_state_is_output,
        "its output is a counter, a cell state or an input of a loop after its last round",
    ),
    (computed_start, r"the loop starts from a state that other layers compute \(value 3\)"),
    (gathered_axis, "GATHER: it gathers along another axis than the first"),
    (gathered_later, "GATHER: it does not gather the row of this round"),
    (gathered_state, "GATHER: it does not gather the row of this round"),
    (other_window, "GATHER: it does not gather from the rows of a window"),
    (gathered_twice, "GATHER has 2 outputs, expected 1"),
    (operand("SLICE", 0, 1, [1, 0, 0]), "SLICE: it does not part the rows of an output at a counter"),
    (operand("CONCATENATION", 0, 0, [1]), "CONCATENATION: it joins what is no output of the window"),
    (written_twice, "is written twice; convert the model again"),
    (stacks_the_cell, r"it stacks something else than its hidden state \(value 2\)"),
    (more_state, r"it carries more than the state of a cell \(value 2\)"),
    (fewer_values, "the loop's body and condition carry other values than the loop"),
    (unknown_tensor, "is read before it is computed; convert the model again"),
    (stack_as_state, r"TANH: it computes with a state of shape \[4, 1, 3\]"),
    (counter_as_number, "TANH: it computes with a counter of the loop"),
    (constant_as_vector, r"TANH: it computes with tensor 'constant' \[1, 3\], expected a vector"),
    (other_condition, "the loop's condition is not that of a counter below a constant"),
    (own_body, "its BodySubgraphIndex is 0 of 3; convert the model again"),
    (two_streams_differ, r"the loop starts each stream from another state \(value 4\)"),
]


@pytest.mark.parametrize(("change", "message"), LOOPS)
def test_a_loop_that_is_no_cell_is_refused(
    files: dict[str, bytes], change: Callable[[Model], None], message: str
) -> None:
    model = Model(files["plain"])
    change(model)
    with pytest.raises(ModelError, match=message):
        read_float_tflite(model.bytes())
