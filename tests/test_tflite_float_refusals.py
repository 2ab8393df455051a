"""What a float .tflite file may not be: one changed thing at a time, then hostile sizes."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tflite

from edge_lstm.emit.tflite_file import OperatorSpec
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers import flatbuffer, tflite_float_builder, tflite_float_constants
from edge_lstm.importers.tflite_float import read_float_tflite
from test_tflite_float import INT8, PLAIN, RELU, File, add_lstm, branches, flattened, last_row, outcome

Change = Callable[[File], Any]


def tensor(file: File, index: int, **fields: Any) -> None:
    file.spec.tensors[index] = dataclasses.replace(file.spec.tensors[index], **fields)


def operator(file: File, place: int, **fields: Any) -> None:
    file.spec.operators[place] = dataclasses.replace(file.spec.operators[place], **fields)


def option(place: int, **fields: Any) -> Change:
    def change(file: File) -> None:
        operator(file, place, options={**file.spec.operators[place].options, **fields})

    return change


def operand(place: int, position: int, index: int) -> Change:
    """Let input ``position`` of operator ``place`` be another tensor."""

    def change(file: File) -> None:
        inputs = list(file.spec.operators[place].inputs)
        inputs[position] = index
        operator(file, place, inputs=inputs)

    return change


def weight(place: int, position: int, **fields: Any) -> Change:
    """Change the tensor that is input ``position`` of operator ``place``."""
    return lambda file: tensor(file, file.spec.operators[place].inputs[position], **fields)


def run(kind: str, shape: tuple[int, ...], *values: Any, table: str = "", **options: Any) -> Change:
    """An operator after the LSTM; values: its other inputs, integers or an array of float32."""

    def change(file: File) -> None:
        others = [
            file.spec.constant("n", v) if isinstance(v, np.ndarray) else file.numbers(*v) for v in values
        ]
        file.run(kind, shape, *others, table=table, **options)

    return change


def dense(inputs: int, shape: tuple[int, ...], **options: Any) -> Change:
    return lambda file: file.dense(inputs, 2, shape, **options)


def bounds(begin: tuple[int, ...], end: tuple[int, ...], strides: tuple[int, ...], **options: Any) -> Change:
    shape = tuple(b - a for a, b in zip(begin, end, strict=True))
    return run("STRIDED_SLICE", shape, begin, end, strides, table="StridedSliceOptions", **options)


def both(*changes: Change) -> Change:
    def change(file: File) -> None:
        for one in changes:
            one(file)

    return change


def row(index: int = -1) -> Change:
    return lambda file: last_row(file, (1, 4), index)


def refused(file: File, message: str, kind: type[ModelError] = ModelError) -> None:
    with pytest.raises(kind, match=message):
        read_float_tflite(file.bytes())


# --- the fused operator -----------------------------------------------------------------------------

LSTM_CHANGES: list[tuple[Change, str]] = [
    (option(0, FusedActivationFunction=0), "its fused activation is NONE, which LiteRT does not compute"),
    (option(0, FusedActivationFunction=2), "its fused activation is RELU_N1_TO_1, expected NONE, RELU"),
    (option(0, FusedActivationFunction=99), "its fused activation is number 99"),
    (option(0, FusedActivationFunction=3), "its fused activation is RELU6, expected RELU or TANH"),
    (option(0, DiagonalRecurrentTensors=True), "its recurrent kernels are diagonal, expected full matrices"),
    (option(0, CellClip=-1.0), "cell_clip is -1.0, expected 0"),
    (option(0, TimeMajor=True), r"it reads \['', 'rows', 'features'\], but takes rows and streams as"),
    (lambda f: operator(f, 0, inputs=f.spec.operators[0].inputs[:19]), "it has 19 inputs, expected 20 or 24"),
    (lambda f: operator(f, 0, table="", options={}), "expected 20 or 24 with options"),
    (operand(0, 2, -1), r"its kernels are incomplete: inputs \[1, 3, 4\]"),
    (operand(0, 8, -1), "its recurrent kernel of gate o is an absent tensor, expected a matrix"),
    (lambda f: [operand(0, 12 + gate, -1)(f) for gate in range(4)], "its biases are absent"),
    (operand(0, 9, 2), r"its peephole weights are incomplete: inputs \[9\]"),
    (operand(0, 20, 2), r"its layer normalization coefficients are incomplete: inputs \[20\]"),
    (operand(0, 18, -1), "its state is an absent tensor, expected a variable that starts at 0"),
    (weight(0, 18, variable=False, data=np.zeros(4, np.float32)), "its state is tensor 'state' .*, expec"),
    (weight(0, 19, shape=(1, 5)), r"its state is FLOAT32 \[1, 5\], expected FLOAT32 \[1, 4\]"),
    (weight(0, 1, shape=(3, 4)), r"tensor 'weights' \[3, 4\] should be \[4, 3\]"),
    (weight(0, 1, data=np.zeros(3, np.float32)), "has 12 bytes, expected 48"),
    (weight(0, 1, data=np.full((4, 3), np.nan, np.float32)), "kernel holds NaN or infinity"),
    (weight(0, 1, kind=tflite.TensorType.INT16), "is INT16, expected dense FLOAT32, FLOAT16 or INT8 weights"),
    (weight(0, 1, variable=True), "is not a constant, expected weights"),
    (weight(0, 1, kind=INT8, data=np.zeros((4, 3), np.int8)), "has 0 scales, expected 1 or 4"),
    (lambda f: tensor(f, f.value, shape=(1, 6, 5)), r"it writes tensor 'value' \[1, 6, 5\], expected \[1, 6"),
    (both(lambda f: add_lstm(f, PLAIN), lambda f: operand(1, 18, f.spec.operators[0].inputs[18])(f)),
     "operator 1 UNIDIRECTIONAL_SEQUENCE_LSTM: it shares its state with another layer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), LSTM_CHANGES)
def test_a_fused_lstm_with_one_thing_changed_is_refused(change: Change, message: str) -> None:
    file = File()
    add_lstm(file, PLAIN)
    change(file)
    refused(file, message)


BIDIRECTIONAL_CHANGES: list[tuple[Change, str]] = [
    (operand(0, 39, 0), "it has an auxiliary input; join the inputs in front of it"),
    (lambda f: operator(f, 0, inputs=f.spec.operators[0].inputs[:47]), "it has 47 inputs, expected 48"),
]


@pytest.mark.parametrize(("change", "message"), BIDIRECTIONAL_CHANGES)
def test_a_bidirectional_lstm_with_one_thing_changed_is_refused(change: Change, message: str) -> None:
    file = File()
    add_lstm(file, PLAIN, merged=True)
    change(file)
    refused(file, message)


def test_a_batch_whose_states_litert_mixes_is_refused() -> None:
    file = File((3, 6, 3))
    add_lstm(file, {**PLAIN, "streams": 3}, merged=True)
    refused(file, "it has batch 3 and merged outputs, where LiteRT mixes the states")


# --- layers around it -------------------------------------------------------------------------------

VALUE = np.ones(4, np.float32)
LAYER_CHANGES: list[tuple[Change, str]] = [
    (run("RESHAPE", (24,), (-1, -1)), r"it reshapes to \[-1, -1\]"),
    (run("RESHAPE", (1, 4, 6), (1, 4, 6)), r"it reshapes \[1, 6, 4\] to \[1, 4, 6\], which mixes streams"),
    (run("TRANSPOSE", (1, 6, 4), (0, 1, 1)), r"its permutation is \[0, 1, 1\], expected one of 3 axes"),
    (run("EXPAND_DIMS", (1, 1, 6, 4), (5,)), "its axis is 5, but its input has 4 axes"),
    (run("REVERSE_V2", (1, 6, 4), (2,)), "it reverses features, expected rows"),
    (run("REVERSE_V2", (1, 6, 4), VALUE), r"tensor 'n' \[4\] is not a constant of integers"),
    (run("REVERSE_V2", (1, 6, 4), range(300)), "has 300 entries, at most 256 are read"),
    (bounds((0, 0, 0), (1, 6, 4), (1, 2, 1)), r"it slices with strides \[1, 2, 1\], expected 1 for each"),
    (bounds((0, 0, 0), (1, 6, 4), (1, 1, 1), NewAxisMask=1), "it slices with an ellipsis, a new axis or"),
    (bounds((0, 7, 0), (1, 8, 4), (1, 1, 1)), "it slices 7:8 of an axis of size 6"),
    (bounds((0, 2, 0), (1, 4, 4), (1, 1, 1)), "it takes 2 to 4 of 6 rows"),
    (lambda f: f.run("STRIDED_SLICE", (1, 6, 4), table="StridedSliceOptions"), "it has 1 inputs, expected 4"),
    (row(2), "it reads row 2 of 6, expected the first, the last or every row"),
    (both(row(), run("SPLIT", (1, 2), (0,), table="SplitOptions")), "it splits what is no vector"),
    (run("SPLIT", (1, 6, 2), (2,), table="SplitOptions"), "it works on whole windows here, expected single"),
    (run("SOFTMAX", (1, 6, 4), table="SoftmaxOptions", Beta=2.0), "its beta is 2.0, expected 1"),
    (both(run("TRANSPOSE", (1, 4, 6), (0, 2, 1)),
          run("SOFTMAX", (1, 4, 6), table="SoftmaxOptions", Beta=1.0)),
     "it runs over rows, expected features or rows"),
    (run("UNPACK", (1, 6), table="UnpackOptions", Axis=2), "it unpacks features, expected rows"),
    (run("UNPACK", (1, 4), table="UnpackOptions", Axis=1), "it has 1 outputs, expected 6"),
    (run("PACK", (1, 1, 6, 4), table="PackOptions"), "it packs 1 values, expected 6 rows of a window"),
    (run("TILE", (1, 12, 4), (1, 2, 1)), r"it repeats \[1, 6, 4\] to \[1, 12, 4\], expected a vector for 6"),
    (run("TILE", (6, 6, 4), (6, 1, 1)), "it repeats the rows of a window, expected a vector"),
    (run("CONCATENATION", (1, 6, 8), VALUE, table="ConcatenationOptions", Axis=2), "it joins a constant"),
    (lambda f: f.run("CONCATENATION", (1, 12, 4), f.value, table="ConcatenationOptions", Axis=1),
     "it joins values along another axis than their features"),
    (lambda f: f.run("ADD", (1, 6, 4), f.value, f.value, table="AddOptions"), "it has 3 inputs, expected 2"),
    (run("ADD", (1, 6, 4), np.ones((6, 1), np.float32) * np.arange(6, dtype=np.float32)[:, None],
         table="AddOptions"), "it combines 4 features with tensor 'n' .6, 1., other in each row"),
    (run("ADD", (1, 6, 4), np.ones(3, np.float32), table="AddOptions"), "it combines 4 features with tensor"),
    (both(run("TRANSPOSE", (1, 4, 6), (0, 2, 1)), run("ADD", (1, 4, 6), VALUE, table="AddOptions")),
     "it combines rows of one input with features of the other"),
    (run("DIV", (1, 6, 4), VALUE * 0, table="DivOptions"), "it divides by what a layer writes, or by 0"),
    (lambda f: f.run("DIV", (1, 6, 4), f.value, table="DivOptions"), "it divides by what a layer writes"),
    (run("MUL", (1, 6, 4), VALUE, table="MulOptions", FusedActivationFunction=5), "activation is SIGN_BIT"),
    (dense(5, (1, 6, 2)), "its weights take 5 numbers, but the last axis of what it reads is features .4"),
    (dense(24, (1, 6, 2), KeepNumDims=True), r"its weights take 24 features, but it reads \['', 'rows', "),
    (dense(4, (1, 6, 2), WeightsFormat=1), "its weights are shuffled"),
    (both(dense(4, (6, 2)), operand(1, 1, -1)), "its weights are an absent tensor, expected a constant"),
    (both(row(), dense(5, (1, 2))), "its weights take 5 features, but it reads 4"),
    (both(row(), run("ADD", (1, 4), np.ones(3, np.float32), table="AddOptions")), "it combines 4 features"),
    (both(row(), lambda f: f.run("ADD", (1, 4), -1, table="AddOptions")), "it computes with an absent"),
    (both(row(), lambda f: f.run("ADD", (1, 4), f.value, f.value, table="AddOptions")), "it has 3 inputs"),
    (both(row(), lambda f: f.spec.operate("TANH", 1, [f.value], [f.tensor(1, 4), f.tensor(1, 4)])),
     "operator 2 TANH: it has 2 outputs, expected 1"),
    (both(row(), lambda f: f.run("ADD", (1, 4), f.dense(4, 3, (1, 3)), table="AddOptions"),
          lambda f: operand(-1, 0, f.spec.operators[1].outputs[0])(f)), "it combines 4 with 3 features"),
    (both(row(), lambda f: f.run("SPLIT", (1, 2), table="SplitOptions"),
          lambda f: operator(f, -1, inputs=[f.numbers(1), f.spec.operators[1].outputs[0]])),
     "it splits 4 features along axis 1 in 1"),
    (both(row(), lambda f: f.run("SPLIT", (1, 2), table="SplitOptions", NumSplits=2),
          lambda f: operator(f, -1, inputs=[f.numbers(1), f.spec.operators[1].outputs[0]],
                             outputs=[f.tensor(1, 2), f.tensor(1, 2)])),
     "it splits features that no weights wrote"),
    (both(run("REVERSE_V2", (1, 6, 4), (1,))), "its output rows lie in reverse order"),
    (lambda f: (f.run("REVERSE_V2", (1, 6, 4), f.numbers(1)),
                f.run("ADD", (1, 6, 4), f.spec.operators[0].outputs[0], table="AddOptions")),
     "it joins rows with rows in reverse order"),
    (both(flattened, run("MEAN", (1, 2), (1,))), r"1 operator\(s\) MEAN are not supported: an average over"),
    (lambda f: f.spec.operators.append(OperatorSpec("CUSTOM", 1, [f.value], [f.tensor(1)], custom="FlexAny")),
     r"CUSTOM FlexAny are not supported: convert with a fixed batch of 1 and without SELECT_TF_OPS"),
    (lambda f: f.spec.operators.reverse() or (f.run("TANH", (1, 6, 4)) and f.spec.operators.reverse()),
     "is read before it is computed; convert the model again"),
    (lambda f: f.spec.operators.append(f.spec.operators[0]), "shares its state|is written twice"),
    (lambda f: f.spec.operate("TANH", 1, [f.value], [f.value]), "is written twice; convert the model again"),
    (lambda f: setattr(f, "value", f.input), "it has 1 outputs, expected one that a layer writes"),
    (lambda f: f.spec.operate("TANH", 1, [f.spec.operators[0].inputs[18]], [f.tensor(1, 4)]),
     "it reads a variable tensor"),
    (lambda f: f.spec.operate("TANH", 1, [f.numbers(1.0, kind=np.float32)], [f.tensor(1)]),
     r"it computes with tensor 'numbers' \[1\], expected what a layer writes"),
    (lambda f: f.spec.operate("ADD", 1, [f.numbers(1)] * 2, [f.tensor(1)], "AddOptions"),
     "it computes with constants alone"),
    (lambda f: f.spec.operate("WHILE", 1, [f.value], [f.tensor(1)], "WhileOptions", BodySubgraphIndex=0),
     "its CondSubgraphIndex is 0 of 1; convert the model again"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), LAYER_CHANGES)
def test_a_layer_that_cannot_be_carried_is_refused(change: Change, message: str) -> None:
    file = File()
    add_lstm(file, PLAIN)
    change(file)
    refused(file, message)


def test_all_reasons_are_told_at_once() -> None:
    file = File()
    add_lstm(file, {**PLAIN, "activation": 0})
    file.value = file.input
    file.run("SOFTMAX", (1, 6, 3), table="SoftmaxOptions", Beta=3.0)
    file.run("CONV_2D", (1, 6, 3))
    with pytest.raises(UnsupportedModel, match="it cannot be carried: 3 problems") as caught:
        read_float_tflite(file.bytes())
    for reason in ("CONV_2D are not supported: a convolution", "activation is NONE", "its beta is 3.0"):
        assert reason in str(caught.value)


def test_streams_and_rows_in_one_axis_are_refused() -> None:
    file = File((3, 6, 3))
    add_lstm(file, {**PLAIN, "streams": 3})
    dense(4, (18, 2))(file)
    refused(file, "it joins streams and rows in one axis; convert with batch 1")


def test_axes_that_differ_are_refused() -> None:
    file = File((1, 6, 1))
    first = file.run("RESHAPE", (6, 1), file.numbers(6, 1))
    file.value = file.input
    file.run("RESHAPE", (1, 6), file.numbers(1, 6))
    file.run("ADD", (6, 6), first, table="AddOptions")
    refused(file, "it combines inputs whose axes differ")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["TANH", "TANH", "LOGISTIC"], "it computes its rows in different ways"),
        (["TANH", "TANH", "ADD"], "its rows are not all computed in one way, nor are they an LSTM or a GRU"),
    ],
)
def test_rows_that_are_computed_in_different_ways_are_refused(kinds: list[str], message: str) -> None:
    file = File((1, 3, 4))
    rows = [file.tensor(1, 4) for _ in kinds]
    file.spec.operate("UNPACK", 1, [file.input], rows.copy(), "UnpackOptions", Axis=1, Num=3)
    for place, kind in enumerate(kinds):
        written = file.tensor(1, 4)
        inputs = [rows[place]] if kind != "ADD" else [rows[place], file.weights(4)]
        file.spec.operate(kind, 1, inputs, [written], "AddOptions" if kind == "ADD" else "")
        rows[place] = written
    file.value = file.tensor(3, 1, 4)
    file.spec.operate("PACK", 1, rows, [file.value], "PackOptions", ValuesCount=3)
    refused(file, message)


def test_a_part_of_the_streams_is_refused() -> None:
    file = File((3, 6, 3))
    add_lstm(file, {**PLAIN, "streams": 3})
    last_row(file, (3, 4))
    bounds((1, 0), (2, 4), (1, 1))(file)
    refused(file, "it takes some of the streams only")


def test_two_inputs_and_other_ranks_are_refused() -> None:
    file = File()
    add_lstm(file, PLAIN)
    file.spec.inputs["second"] = file.tensor(1, 6, 3)
    refused(file, r"it has 2 inputs, the first tensor 'x' \[1, 6, 3\], expected one \[batch, timesteps")
    refused(File((1, 1, 6, 3)), r"tensor 'x' \[1, 1, 6, 3\], expected one")
    refused(File((1, 1 << 20, 1 << 10)), "of at most 16777216 values")


# --- hostile sizes ----------------------------------------------------------------------------------


def chain(kind: str, count: int, start: Change, **options: Any) -> File:
    """An operator that reads its predecessor's output, again and again."""
    file = File()
    start(file)
    shape = file.spec.tensors[file.value].shape
    for _ in range(count):
        others = [file.value] if kind == "ADD" else []
        file.run(kind, shape, *others, **options)
    return file


def first_row(file: File) -> None:
    last_row(file, (1, 3), index=0)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (lambda: chain("TANH", 600, lambda f: None), "it has more than 512 layers"),
        (lambda: chain("TANH", 100, first_row), "it computes single rows through more than 64 operators"),
        (lambda: chain("ADD", 100, first_row, table="AddOptions"), "it adds more than 64 vectors"),
        (
            lambda: chain("TANH", flatbuffer.MAX_NODES + 1, lambda f: None),
            "2049 operators or more, at most 2048",
        ),
    ],
)
def test_endless_operators_are_refused_in_time(file: Callable[[], File], message: str) -> None:
    content = file().bytes()
    assert not outcome(content)
    with pytest.raises(ModelError, match=message):
        read_float_tflite(content)


def test_an_operator_that_uses_one_tensor_without_end_is_refused() -> None:
    file = File()
    for _ in range(20):
        file.spec.operate("PACK", 1, [file.input] * 1000, [file.tensor(1)], "PackOptions")
    refused(file, "its operators use more than 10240 tensors")


def test_a_claim_of_two_gigabytes_takes_no_memory() -> None:
    file = File((1, 6, 3))
    add_lstm(file, PLAIN)
    weight(0, 1, shape=(1 << 15, 1 << 14))(file)
    tracemalloc.start()
    refused(file, r"\[32768, 16384\]")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_weights_that_are_read_again_and_again_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_float_constants, "MAX_WEIGHTS", 100)
    file = File()
    add_lstm(file, PLAIN)
    refused(file, "it has more than 100 weights")


def test_a_window_that_is_unrolled_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A simple RNN over three rows, followed for two steps only."""
    monkeypatch.setattr(tflite_float_builder, "MAX_STEPS", 2)
    file = File((1, 3, 2))
    rows = [file.tensor(1, 2) for _ in range(3)]
    file.spec.operate("UNPACK", 1, [file.input], rows, "UnpackOptions", Axis=1, Num=3)
    kernel, recurrent, hidden = file.weights(2, 2), file.weights(2, 2), -1
    for number in rows:
        file.value = number
        total = file.run("FULLY_CONNECTED", (1, 2), kernel, -1, table="FullyConnectedOptions")
        if hidden >= 0:
            file.value = hidden
            file.run("FULLY_CONNECTED", (1, 2), recurrent, -1, table="FullyConnectedOptions")
            file.run("ADD", (1, 2), total, table="AddOptions")
        hidden = file.run("TANH", (1, 2))
    refused(file, "it is unrolled over too many steps")
    monkeypatch.undo()
    assert len(read_float_tflite(file.bytes()).layers) == 1


def test_a_file_that_is_too_large_or_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="it is not a .tflite file: bytes 4 to 7 are b'else'"):
        read_float_tflite(b"someelse")
    monkeypatch.setattr(flatbuffer, "MAX_FLOAT_BYTES", 100)
    refused(File(), "a file of more than 100 is not read")


def test_relu_after_a_merge_is_a_layer_of_its_own() -> None:
    file = File()
    branches(file, "ADD", 4, "AddOptions", FusedActivationFunction=RELU)
    assert [type(layer).__name__ for layer in read_float_tflite(file.bytes()).layers][-1] == "Activation"


def test_a_tensor_that_is_no_number_is_refused() -> None:
    file = File()
    add_lstm(file, PLAIN)
    tensor(file, file.input, kind=INT8)
    refused(file, "its input is INT8, expected FLOAT32")
