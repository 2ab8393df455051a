"""What an integer .tflite file of another converter may not be: one odd operator at a time, then damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.emit.tflite_file import FLOAT32, FileSpec, TensorSpec, pack
from edge_lstm.emit.tflite_lstm import add_lstm
from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import Quantization
from foreign_models import foreign_file
from test_foreign_files import H, X, numbers, plain_lstm, started
from test_tflite_refusals import damaged, read_or_refuse

Y = Quantization(0.03125, 17)
Form = Callable[[FileSpec, int], int]  # appends operators to the LSTM's output [1, 6, 3]; returns the output


def operate(
    spec: FileSpec, kind: str, reads: list[int], shape: tuple[int, ...], quantization: Quantization = H,
    table: str | None = None, **options: Any,
) -> int:  # fmt: skip
    words = "".join(word.capitalize() for word in kind.split("_"))
    output = spec.activation(kind, shape, quantization)
    return spec.operate(kind, 1, reads, [output], f"{words}Options" if table is None else table, **options)


def gather(*indices: int, axis: int = 1, batch: int = 0, shape: tuple[int, ...] = (1, 1, 3)) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        return operate(spec, "GATHER", [value, numbers(spec, *indices)], shape, Axis=axis, BatchDims=batch)

    return form


def reverse(*axes: int) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        return operate(spec, "REVERSE_V2", [value, numbers(spec, *axes)], (1, 6, 3), table="")

    return form


def reshape(*sizes: int, shape: tuple[int, ...] | None = None) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        return operate(spec, "RESHAPE", [value, numbers(spec, *sizes)], shape or sizes)

    return form


def transpose(*order: int) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        return operate(spec, "TRANSPOSE", [value, numbers(spec, *order)], (1, 3, 6))

    return form


def join(other: Form, axis: int = -1, shape: tuple[int, ...] = (1, 6, 6), **options: Any) -> Form:
    """Concatenate the LSTM's output with what ``other`` makes of it."""

    def form(spec: FileSpec, value: int) -> int:
        reads = [value, other(spec, value)]
        return operate(spec, "CONCATENATION", reads, shape, Axis=axis, **options)

    return form


def itself(spec: FileSpec, value: int) -> int:
    return value


def constant(spec: FileSpec, value: int) -> int:
    return spec.constant("rows", np.zeros((1, 6, 3), np.int8), H.scale, H.zero_point)


def dense(outputs: int, features: int, quantization: Quantization = Y) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        kernel = spec.constant("kernel", np.ones((outputs, features), np.int8), 0.5)
        shape = (*spec.tensors[value].shape[:-1], outputs)
        reads = [value, kernel]
        return operate(spec, "FULLY_CONNECTED", reads, shape, quantization, "FullyConnectedOptions")

    return form


def unary(kind: str, quantization: Quantization, **options: Any) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        shape, table = spec.tensors[value].shape, "" if kind == "RELU" else None
        return operate(spec, kind, [value], shape, quantization, table, **options)

    return form


def then(*forms: Form) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        for part in forms:
            value = part(spec, value)
        return value

    return form


def second_lstm(spec: FileSpec, value: int) -> int:
    """An LSTM over one row, as if it were a sequence of one."""
    return add_lstm(spec, value, plain_lstm(features=3, source=H), False)


def turned_lstm(spec: FileSpec, value: int) -> int:
    return add_lstm(spec, value, plain_lstm(features=3, source=H), True)


def without_options(kind: str, *numbers_read: int) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        reads = [value, numbers(spec, *numbers_read)] if numbers_read else [value, value]
        return operate(spec, kind, reads, (1, 6, 3), table="")

    return form


def lacking(kind: str) -> Form:
    def form(spec: FileSpec, value: int) -> int:
        return operate(spec, kind, [value] * 3, (1, 6, 3), table="")

    return form


def unread(spec: FileSpec, value: int) -> int:
    dense(2, 3)(spec, value)
    return reverse(1)(spec, value)


SHARE = Quantization(1 / 256, -128)
FORMS: list[tuple[str, Form, str]] = [
    ("two indices", gather(1, 2), "operator GATHER: it gathers 2 indices, expected 1"),
    ("outside", gather(6), "operator GATHER: it skips, adds or oversteps indices, expected one time step or"),
    ("far outside", gather(-7), "operator GATHER: it skips, adds or oversteps indices"),
    ("batches", gather(1, batch=1), "it gathers along axis 1 of 3 in batches of 1 axes, expected one axis"),
    ("no axis", gather(1, axis=3), "it gathers along axis 3 of 3 in batches of 0 axes"),
    ("wrong shape", gather(1, shape=(1, 3)), r"GATHER: its output is \[1, 3\], expected \[1, 1, 3\]"),
    ("gather, bare", without_options("GATHER", 1), "operator GATHER: it lacks options"),
    ("gather, odd", lacking("GATHER"), "operator GATHER: it lacks options, inputs or an output"),
    ("features", reverse(2), r"REVERSE_V2: it reverses axes \[2\] of \[1, 6, 3\], expected the time steps"),
    ("two axes", reverse(0, 1), r"REVERSE_V2: it reverses axes \[0, 1\] of \[1, 6, 3\]"),
    ("no such axis", reverse(-4), r"REVERSE_V2: it reverses axes \[-4\] of"),
    ("cut", reshape(2, 9), r"RESHAPE: it makes \[2, 9\] of \[1, 6, 3\], which cuts rows apart"),
    ("other size", reshape(1, 6, 4), r"RESHAPE: it makes \[1, 6, 4\] of \[1, 6, 3\]"),
    ("guessed", reshape(-1, 0, shape=(18, 1)), r"RESHAPE: it makes \[-1, 0\] of \[1, 6, 3\]"),
    ("declared", reshape(1, 18, shape=(18, 1)), r"RESHAPE: its output is \[18, 1\], expected \[1, 18\]"),
    ("order", transpose(0, 2, 2), r"TRANSPOSE: its order is \[0, 2, 2\], expected each of \[0, 1, 2\] once"),
    ("turned end", transpose(0, 2, 1), r"its output \[1, 3, 6\] runs along feature, time, its input along"),
    ("turned dense", then(transpose(0, 2, 1), dense(2, 6)), "the last axis of its input .* does not hold"),
    ("turned shares", then(transpose(0, 2, 1), unary("SOFTMAX", SHARE, Beta=1.0)), "softmax 'softmax_1': th"),
    ("joined time", join(itself, 1, (1, 12, 3)), r"it joins along axis 1 of \[1, 6, 3\], expected the feat"),
    ("joined nothing", join(itself, 5), r"it joins along axis 5 of \[1, 6, 3\], expected the features"),
    ("joined row", join(gather(1)), "it joins what is not all rows, or not all vectors, of the network"),
    ("joined codes", join(dense(3, 3)), "it joins values of different quantizations, which the runtimes ref"),
    ("joined constant", join(constant), "operator CONCATENATION: its input has constant content, expected"),
    ("joined relu", join(itself, FusedActivationFunction=1), "CONCATENATION: its activation is RELU, exp"),
    ("joined, bare", without_options("CONCATENATION"), "operator CONCATENATION: it lacks options"),
    ("beta", unary("SOFTMAX", SHARE, Beta=2.0), "softmax 'softmax_1': its beta is 2.0, expected 1; put the"),
    ("share", unary("SOFTMAX", H, Beta=1.0), "softmax 'softmax_1' writes .* over features, expected"),
    ("relu", unary("RELU", Y), "relu 'relu_1': it changes the quantization, where the runtimes round diff"),
    ("relu, odd", lacking("RELU"), "relu 'relu_1': it lacks its input or its output"),
    ("lstm of a row", then(gather(1), second_lstm), "lstm 'lstm_2': it reads one row a window, expected the"),
    ("lstm turned", turned_lstm, r"lstm 'lstm_2': it maps \[1, 6, 3\] to \[1, 6, 3\], expected \(6, 1\) r"),
    ("unread", unread, "nothing reads what layer dense_1 writes; remove it from the model"),
    ("kernel", dense(2, 4), r"dense 'dense_1': its kernel is 2 x 4, but its input \[1, 6, 3\]"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "message"), [pytest.param(f, m, id=name) for name, f, m in FORMS])
def test_an_odd_operator_is_refused_by_name(form: Form, message: str) -> None:
    spec, value = started()
    spec.outputs = {"y": form(spec, value)}
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read_tflite(pack(spec))
    assert str(caught.value).startswith("the .tflite content: ")


def test_rows_of_a_long_window_are_not_laid_end_to_end() -> None:
    spec, value = started(steps=257)
    spec.outputs = {"y": then(reshape(1, 257 * 3), dense(2, 257 * 3))(spec, value)}
    with pytest.raises(UnsupportedModel, match="dense_1.: it reads 257 time steps at once, at most 256 are"):
        read_tflite(pack(spec))


def test_an_lstm_without_outputs_and_one_of_the_other_order_are_refused() -> None:
    spec, value = started(steps=6, lanes=6)
    spec.outputs = {"y": turned_lstm(spec, value)}
    with pytest.raises(
        UnsupportedModel, match=r"lstm 'lstm_2': its input \[6, 6, 3\] is not time-major, as its"
    ):
        read_tflite(pack(spec))
    spec, value = started()
    spec.operators[0] = replace(spec.operators[0], outputs=[])
    spec.outputs = {"y": value}
    with pytest.raises(UnsupportedModel, match="lstm 'lstm_1': it has 24 inputs and 0 outputs, expected 24"):
        read_tflite(pack(spec))


def test_an_operator_with_two_outputs_is_refused() -> None:
    spec, value = started()
    spec.outputs = {"y": reverse(1)(spec, value)}
    spec.operators[1] = replace(spec.operators[1], outputs=[value + 1, value + 2])
    with pytest.raises(UnsupportedModel, match="operator REVERSE_V2: it lacks options, inputs or an output"):
        read_tflite(pack(spec))


@pytest.mark.parametrize("kind", ["QUANTIZE", "DEQUANTIZE"])
def test_a_border_inside_the_network_is_refused(kind: str) -> None:
    spec, value = started()
    spec.outputs = {"y": operate(spec, kind, [value], (1, 6, 3), Y)}
    with pytest.raises(
        UnsupportedModel, match=f"operator {kind} is not supported: .* convert with inference_"
    ):
        read_tflite(pack(spec))


def test_a_float_input_that_two_operators_read_is_refused() -> None:
    spec = FileSpec("wrapped")
    start = spec.add(TensorSpec("x", (1, 6, 2), FLOAT32))
    codes = [spec.activation("codes", (1, 6, 2), X) for _ in range(2)]
    for value in codes:
        spec.operate("QUANTIZE", 1, [start], [value], "QuantizeOptions")
    spec.inputs, spec.outputs = {"x": start}, {"y": add_lstm(spec, codes[0], plain_lstm(), False)}
    with pytest.raises(
        UnsupportedModel, match="operator QUANTIZE is not supported: inside the network the"
    ) as c:
        read_tflite(pack(spec))
    assert "it has int8 weights but FLOAT32 activations (dynamic range)" in str(c.value)


def test_every_reason_of_a_network_of_several_layers_is_listed() -> None:
    spec, value = started()
    spec.outputs = {"y": then(dense(2, 3), unary("RELU", X), unary("SOFTMAX", H, Beta=3.0))(spec, value)}
    spec.operators[0].options["CellClip"] = -1.0  # type: ignore[index]
    with pytest.raises(UnsupportedModel) as caught:
        read_tflite(pack(spec))
    message = str(caught.value)
    assert message.startswith("the .tflite content: 3 problems\n  - ")
    assert all(part in message for part in ("cell_clip is -1.0", "changes the quantization", "beta is 3.0"))


# --- damage -----------------------------------------------------------------------------------------

HOSTILE = ["keras2_bidir_int8", "mnist_lstm_int8", "keras2_unrolled_int8"]


@pytest.mark.parametrize("name", HOSTILE)
def test_damage_to_a_shared_file_never_gives_a_traceback(shared_data: Path, name: str) -> None:
    content = (shared_data / "models" / f"{name}.tflite").read_bytes()
    rng = np.random.default_rng(17)
    for _ in range(100):
        read_or_refuse(damaged(content, rng))
    for length in rng.integers(0, len(content), 40).tolist():
        assert not read_or_refuse(content[:length]) or len(content) - length < 64


def test_damage_to_random_files_never_gives_a_traceback() -> None:
    rng = np.random.default_rng(23)
    read = 0
    for seed in range(40):
        content, _ = foreign_file(seed)
        read += sum(read_or_refuse(damaged(content, rng)) for _ in range(10))
    assert 0 < read < 400


@pytest.mark.parametrize("sizes", [(2**31 - 1, 2**31 - 1), (-1, -1), (0, 0), (-(2**31), 1), (2**30, 2**30)])
def test_numbers_that_claim_huge_shapes_are_refused_before_anything_is_made(sizes: tuple[int, int]) -> None:
    for form in (reshape(*sizes, shape=(1, 18)), gather(*sizes[:1]), reverse(*sizes[:1])):
        spec, value = started()
        spec.outputs = {"y": form(spec, value)}
        read_or_refuse(pack(spec))
    spec, value = started()
    vectors = [numbers(spec, *([size] * 3)) for size in (sizes[0], sizes[1], 1)]
    output = spec.activation("slice", (1, 6, 3), H)
    spec.operate("STRIDED_SLICE", 2, [value, *vectors], [output], "StridedSliceOptions")
    spec.outputs = {"y": output}
    read_or_refuse(pack(spec))
