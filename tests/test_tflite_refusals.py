"""What a .tflite file may not be: one changed thing at a time, then damaged and hostile bytes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite

from edge_lstm.emit.tflite_file import INT16, FileSpec, TensorSpec, pack
from edge_lstm.emit.tflite_lstm import CELL_STATE, HIDDEN_STATE
from edge_lstm.emit.tflite_model import emit_tflite, file_spec
from edge_lstm.errors import EdgeLstmError, ModelError, UnsupportedModel
from edge_lstm.importers import flatbuffer, metadata
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QDense, QGraph
from test_tflite_model import H, assert_same, small_qgraph

# --- refusals, one by one: our own file with one thing changed --------------------------------------

Change = Callable[[FileSpec], None]


def tensor(name: str, **fields: Any) -> Change:
    """Change a tensor by its name."""

    def change(spec: FileSpec) -> None:
        [index] = [i for i, found in enumerate(spec.tensors) if found.name == name]
        spec.tensors[index] = dataclasses.replace(spec.tensors[index], **fields)

    return change


def option(place: int, **fields: Any) -> Change:
    """Change options of operator ``place``."""

    def change(spec: FileSpec) -> None:
        operator = spec.operators[place]
        options = {**operator.options, **fields}
        spec.operators[place] = dataclasses.replace(operator, options=options)

    return change


def operator(place: int, **fields: Any) -> Change:
    def change(spec: FileSpec) -> None:
        spec.operators[place] = dataclasses.replace(spec.operators[place], **fields)

    return change


def operand(place: int, position: int, index: int) -> Change:
    """Let input ``position`` of operator ``place`` be another tensor."""

    def change(spec: FileSpec) -> None:
        spec.operators[place].inputs[position] = index

    return change


def extra_input(spec: FileSpec) -> None:
    spec.inputs["second"] = spec.add(TensorSpec("second", (1,), INT16))


def extra_output(spec: FileSpec) -> None:
    spec.outputs["state"] = spec.operators[0].outputs[0]


def other_output(spec: FileSpec) -> None:
    spec.outputs["forecast"] = spec.operators[0].outputs[0]


def foreign_output(spec: FileSpec) -> None:
    spec.outputs["forecast"] = spec.add(TensorSpec("other", (1, 1, 2), 9, 1.0))


def written_twice(spec: FileSpec) -> None:
    spec.operators[1].outputs[0] = spec.operators[0].outputs[0]
    tensor("lstm_a", shape=(1, 1, 3))(spec)


def description(**fields: Any) -> Change:
    """Change entries of the JSON."""

    def change(spec: FileSpec) -> None:
        values = json.loads(spec.metadata[metadata.NAME])
        spec.metadata[metadata.NAME] = json.dumps({**values, **fields}).encode()

    return change


def raw_description(content: bytes) -> Change:
    return lambda spec: spec.metadata.update({metadata.NAME: content})


def several_steps(spec: FileSpec) -> None:
    tensor("last_row/begin", data=np.array([0, 2, 0], np.int32))(spec)
    tensor("last_row/end", data=np.array([0, 5, 0], np.int32))(spec)
    option(1, ShrinkAxisMask=0)(spec)


def two_axes(spec: FileSpec) -> None:
    tensor("last_row/end", data=np.array([0, 0, 2], np.int32))(spec)
    option(1, EndMask=1)(spec)
    tensor("last_row/begin", data=np.array([0, -1, 1], np.int32))(spec)
    option(1, BeginMask=1)(spec)


LSTM_CHANGES: list[tuple[Change, str]] = [
    (option(0, FusedActivationFunction=0), "lstm 'lstm_a': its activation is NONE, expected TANH"),
    (option(0, FusedActivationFunction=99), "its activation is number 99, expected TANH"),
    (option(0, ProjClip=1.5), "its proj_clip is 1.5, expected 0"),
    (option(0, DiagonalRecurrentTensors=True), "its recurrent kernels are diagonal, expected full"),
    (option(0, CellClip=-1.0), "cell_clip is -1.0, expected 0"),
    (operator(0, inputs=[0] * 20), "it has 20 inputs and 1 outputs, expected 24 and 1"),
    (operator(0, table="SoftmaxOptions", options={}), "lstm 'lstm_a': it has no options"),
    (operand(0, 1, -1), "lstm 'lstm_a': its kernel_i is absent"),
    (operand(0, 9, 2), "its peephole_i is INT8, expected INT16\n.*\n.*its peephole_f is absent"),
    (operand(0, 16, 2), r"its projection is \[3, 2\], expected \[3, 3\]"),
    (operand(0, 20, 2), "its normalization_i is INT8, expected INT16"),
    (operand(0, 13, -1), "its bias_f is absent"),
    (operand(0, HIDDEN_STATE, -1), "its hidden state is absent"),
    (operand(0, CELL_STATE, -1), "its cell state is absent"),
    (tensor("lstm_a/kernel_g", zero_point=3), "its kernel_g has a zero point other than 0, which LiteRT"),
    (tensor("lstm_a/kernel_g", scales=[1.0] * 3), r"kernel_g has 3 scales along axis 0, expected 1 "),
    (tensor("lstm_a/kernel_g", kind=INT16), "its kernel_g is INT16, expected INT8"),
    (tensor("lstm_a/kernel_g", data=None), "its kernel_g has no constant content"),
    (tensor("lstm_a/kernel_g", data=np.zeros(7, np.int8)), "its kernel_g has 7 bytes, expected 6"),
    (tensor("lstm_a/kernel_g", variable=True), "its kernel_g has no constant content"),
    (tensor("lstm_a/recurrent_kernel_o", shape=(9,)), r"recurrent_kernel_o is \[9\], expected \[3, 3\]"),
    (tensor("lstm_a/kernel_i", scales=[0.0]), "kernel_scales holds a scale that is not above 0"),
    (tensor("lstm_a/hidden_state", variable=False), "its hidden state must be a variable tensor"),
    (tensor("lstm_a/hidden_state", shape=(3,)), r"its hidden state is \[3\], expected \[1, 3\]"),
    (tensor("lstm_a/hidden_state", data=np.zeros(3, np.int8)), "its hidden state has constant content"),
    (tensor("lstm_a/hidden_state", scales=[0.5] * 2), "its hidden state has 2 scales, expected 1 scale"),
    (tensor("lstm_a/hidden", scales=[]), "its intermediate 4 has 0 scales"),
    (operator(0, intermediates=[0, 0]), "it has 2 intermediates, expected 5"),
    (tensor("lstm_a", zero_point=200), "its output: quantization: zero point 200 is not an int8"),
    (tensor("lstm_a", scales=[float("inf")]), "its output: quantization: scale inf is not a posi"),
    (tensor("lstm_a", variable=True), "its output must be not a variable tensor"),
    (tensor("lstm_a", shape=(1, 2, 3)), r"it maps \[1, 1, 2\] to \[1, 2, 3\], expected \(1, 1\) rows"),
    (tensor("lstm_a/cell_state", scales=[2.0**-12 * 1.0004]), "expected a power of two and 0: LiteRT rounds"),
    (tensor("lstm_a/cell_state", zero_point=1), "its cell state has scale 0.000244141 and zero point 1"),
    (tensor("lstm_a/cell_state", scales=[2.0**-17]), r"the cell scale is 2\*\*-17, expected 2\*\*-15"),
    (tensor("lstm_a/cell_state", scales=[]), "its cell state has 0 scales"),
    (tensor("lstm_a/cell_state", kind=9), "its cell state is INT8, expected INT16"),
    (tensor("lstm_a/cell_state", shape=(1, 4)), r"its cell state is \[1, 4\], expected \[1, 3\]"),
]  # fmt: skip
OTHER_CHANGES: list[tuple[Change, str]] = [
    (option(1, FusedActivationFunction=3), "dense 'head': its activation is RELU6, expected none or RELU"),
    (option(1, WeightsFormat=1), "dense 'head': its weights are shuffled"),
    (operator(1, table="SoftmaxOptions", options={}), "dense 'head': it lacks options, inputs or an output"),
    (operand(1, 1, -1), "its kernel is absent or not a matrix"),
    (tensor("head/kernel", shape=(3, 2)), r"its kernel has 2 scales along axis 0, expected 1 or 3"),
    (tensor("head/kernel", shape=(2, 3), data=np.zeros((1, 6), np.int8), scales=[1.0, 0.0]), "scale that is"),
    (tensor("head/kernel", shape=(-2, -3)), "its kernel is absent or not a matrix"),
    (tensor("head/kernel", zero_point=1), "its kernel has a zero point other than 0"),
    (tensor("head/kernel", scales=[0.0]), "kernel_scales holds a scale that is not above 0"),
    (tensor("head/bias", kind=INT16), "its bias is INT16, expected INT32"),
    (tensor("head", shape=(1, 1, 4)), r"dense 'head': its output is \[1, 1, 4\], expected \[1, 1, 2\]"),
    (extra_input, "it has 2 inputs, expected 1"),
    (extra_output, "it has 2 outputs, expected 1"),
    (other_output, "nothing reads what layer head writes; remove it from the model"),
    (foreign_output, "the model's output is not what one of its operators writes"),
    (operand(1, 0, 0), r"dense 'head': its kernel is 2 x 3, but its input \[1, 1, 2\]"),
    (operand(1, 0, 1), "operator FULLY_CONNECTED does not read the output of an operator before it"),
    (written_twice, "dense 'head': it writes a tensor that an operator wrote before"),
    (tensor("x", kind=INT16), "lstm 'lstm_a': its bias_o is INT32, expected INT64"),
    (tensor("x", kind=3), "it has UINT8 activations, expected INT8"),
    (tensor("x", shape=(1, 2)), r"its input is \[1, 2\], expected \[1, timesteps, features\]"),
    (tensor("x", shape=(1, 1 << 29, 2)), "with at most 16777216 values"),
    (operator(1, kind="CONV_2D"), "not supported: CONV_2D; only UNIDIRECTIONAL_SEQUENCE_LSTM, FULLY_C"),
    (operator(1, kind="ADD"), "operator ADD is not supported: it adds codes of 8 bits, which the runtimes"),
    (operator(1, kind="MUL"), "operator MUL is not supported: it multiplies codes of 8 bits"),
    (operator(1, kind="QUANTIZE"), "convert with inference_input_type = tf.int8"),
    (operator(1, kind="DEQUANTIZE"), "convert with inference_output_type = tf.int8"),
    (description(layers=["a"]), "its description names 1 layers, but it has 2; write the file again"),
    (description(format=3), "its description has format 3, this version reads 2 and older; update edge-lstm"),
    (description(profile="other"), "profile 'other' is unknown"),
    (description(name="no name"), "the name 'no name' is none for C; choose 'no_name'"),
    (description(name=7), "TypeError: 7 is not text"),
    (description(detector={"alpha": 3}), "is damaged .TypeError"),
    (description(stream={"period_s": 1, "channels": []}), "takes 2 features, but what it reads has 0"),
    (
        description(stream={"period_s": 1, "channels": [{"name": "a", "unit": "", "center": 0, "scale": 0}]}),
        "channel 'a': center 0.0 and scale 0.0",
    ),
    (raw_description(b"{"), "is damaged .JSONDecodeError"),
    (raw_description(b"\xff" * 9), "is damaged .UnicodeDecodeError"),
    (raw_description(b"[" * 100_000), "is damaged .RecursionError"),
    (raw_description(b"null"), "is damaged .TypeError"),
    (raw_description(b"x" * (metadata.MAX_BYTES + 1)), "1048577 bytes, at most 1048576 are read"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), LSTM_CHANGES + OTHER_CHANGES)
def test_one_changed_thing_is_refused_by_name(change: Change, message: str) -> None:
    spec = file_spec(small_qgraph())
    change(spec)
    with pytest.raises(ModelError, match=message) as caught:
        read_tflite(pack(spec))
    assert str(caught.value).startswith("the .tflite content: ")


OVERSTEPS = "it skips, adds or oversteps indices, expected one time step or a range of features"
SLICE_CHANGES: list[tuple[Change, str]] = [
    (tensor("last_row/begin", data=np.array([0, 6, 0], np.int32)), OVERSTEPS),
    (tensor("last_row/strides", data=np.array([1, 2, 1], np.int32)), OVERSTEPS),
    (option(1, EllipsisMask=1), OVERSTEPS),
    (option(1, NewAxisMask=1), OVERSTEPS),
    (option(1, EndMask=1), OVERSTEPS),
    (option(1, BeginMask=5, EndMask=7, ShrinkAxisMask=0), r"its output is \[1, 3\], expected \[1, 1, 3\]"),
    (several_steps, "operator STRIDED_SLICE: it keeps 3 of 6 time steps, expected one or all of them"),
    (two_axes, "operator STRIDED_SLICE: it cuts 2 axes at once, expected 1"),
    (tensor("last_row/begin", kind=9), "operator STRIDED_SLICE: its begin is INT8, expected INT32"),
    (tensor("last_row", zero_point=0), "operator STRIDED_SLICE: it changes the quantization"),
    (operator(1, inputs=[0, 1]), "operator STRIDED_SLICE: it lacks options, inputs or an output"),
    (operator(1, table="SoftmaxOptions", options={}), "operator STRIDED_SLICE: it lacks options"),
    (operand(1, 0, 1), "operator STRIDED_SLICE does not read the output of an operator before it"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), SLICE_CHANGES)
def test_a_slice_that_no_layer_stands_for_is_refused(change: Change, message: str) -> None:
    spec = file_spec(small_qgraph(timesteps=6, last_only=True))
    change(spec)
    with pytest.raises(UnsupportedModel, match=message):
        read_tflite(pack(spec))


@pytest.mark.parametrize(
    ("begin", "end", "options"),
    [
        ([0, 5, 0], [0, 0, 0], {}),
        ([7, 5, 7], [7, 6, 7], {"ShrinkAxisMask": 0}),
        ([0, -1, 0], [1, 6, 3], {"BeginMask": 0, "EndMask": 2, "ShrinkAxisMask": 0}),
        ([0, -1, 0], [1, 6, 3], {"BeginMask": 0, "EndMask": 0}),
    ],
)
def test_every_spelling_of_the_last_time_step_is_understood(
    begin: list[int], end: list[int], options: dict[str, int]
) -> None:
    qgraph = small_qgraph(timesteps=6, last_only=True)
    spec = file_spec(qgraph)
    tensor("last_row/begin", data=np.array(begin, np.int32))(spec)
    tensor("last_row/end", data=np.array(end, np.int32))(spec)
    option(1, **options)(spec)
    if options.get("ShrinkAxisMask") == 0:
        tensor("last_row", shape=(1, 1, 3))(spec)
    assert_same(read_tflite(pack(spec)), qgraph)


def test_all_problems_of_all_layers_are_listed_at_once() -> None:
    spec = file_spec(small_qgraph())
    for change in (option(0, ProjClip=1.0), option(1, WeightsFormat=1), description(layers=[])):
        change(spec)
    with pytest.raises(UnsupportedModel) as caught:
        read_tflite(pack(spec))
    message = str(caught.value)
    assert message.startswith("the .tflite content: 3 problems\n  - ")
    assert all(part in message for part in ("proj_clip", "shuffled", "names 0 layers"))


def test_layers_that_share_a_state_tensor_are_refused() -> None:
    qgraph = small_qgraph()
    lstm, head = qgraph.layers
    second = dataclasses.replace(lstm, name="b", kernel=np.ones((4, 3, 3)), input=H)
    spec = file_spec(small_qgraph(layers=(lstm, second, head), sources=()))
    spec.operators[1].inputs[HIDDEN_STATE] = spec.operators[0].inputs[HIDDEN_STATE]
    with pytest.raises(UnsupportedModel, match="two of its layers share a state tensor"):
        read_tflite(pack(spec))


def test_a_file_with_int8_weights_and_float_activations_is_called_dynamic_range() -> None:
    spec = file_spec(small_qgraph())
    tensor("x", kind=0)(spec)
    with pytest.raises(UnsupportedModel, match="int8 weights but FLOAT32 activations .dynamic range."):
        read_tflite(pack(spec))


def test_a_dense_layer_without_bias_gets_zeros() -> None:
    spec = file_spec(small_qgraph())
    spec.operators[1].inputs[2] = -1
    found = read_tflite(pack(spec)).layers[1]
    assert isinstance(found, QDense)
    assert found.bias.tolist() == [0, 0]
    spec.operators[1].inputs.pop()
    assert_same(read_tflite(pack(spec)).layers[1], found)


def test_sparse_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite.Tensor, "Sparsity", lambda self: object())
    with pytest.raises(UnsupportedModel, match="its kernel_i is sparse; convert it with dense weights"):
        read_tflite(emit_tflite(small_qgraph()))


# --- hostile bytes ----------------------------------------------------------------------------------


def test_weights_outside_the_flatbuffer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite.Buffer, "Offset", lambda self: 4096)
    with pytest.raises(ModelError, match="its weights lie outside the flatbuffer"):
        read_tflite(emit_tflite(small_qgraph()))


OTHER_KINDS = [b"", b"\x00" * 7, b"time,flow\n0,1\n1,2\n", b"PK\x03\x04" + bytes(99),
               b"\x1c\x00\x00\x00TFL2" + bytes(50)]  # fmt: skip


@pytest.mark.parametrize("content", OTHER_KINDS)
def test_a_file_of_another_kind_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="m.tflite: it is not a .tflite file: bytes 4 to 7 are") as caught:
        read_tflite(path)
    assert "\n" not in str(caught.value)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tflite", tmp_path):
        with pytest.raises(ModelError, match=f"cannot read {path}: .*; give the path of a .tflite file"):
            read_tflite(path)


def test_a_file_without_a_network_is_refused() -> None:
    import flatbuffers

    builder = flatbuffers.Builder(0)
    tflite.ModelStart(builder)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    with pytest.raises(ModelError, match="damaged or cut short .ValueError: no subgraph"):
        read_tflite(bytes(builder.Output()))
    spec = FileSpec("nothing")
    with pytest.raises(UnsupportedModel, match="it has no UNIDIRECTIONAL_SEQUENCE_LSTM, only nothing"):
        read_tflite(pack(spec))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tflite"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="a file of more than 16777216 is not read"):
        read_tflite(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (operator(0, inputs=[99] * 24), "IndexError: tensor 99 of"),
        (operator(0, inputs=[0] * 300), "300 entries of a vector, at most 256 are read"),
        (tensor("x", shape=(1,) * 300), "300 entries of a vector, at most 256 are read"),
    ],
)
def test_indices_and_lengths_are_checked_before_they_are_used(change: Change, message: str) -> None:
    spec = file_spec(small_qgraph())
    change(spec)
    with pytest.raises(ModelError, match=message):
        read_tflite(pack(spec))


def test_a_file_whose_operators_all_use_one_large_tensor_is_refused_quickly() -> None:
    spec = file_spec(small_qgraph())
    large = spec.constant("large", np.zeros(1 << 20, np.int8), 1.0)
    spec.operators[0] = dataclasses.replace(spec.operators[0], inputs=[large] * 24)
    spec.operators = spec.operators[:1] * 200
    start = time.process_time()
    with pytest.raises(ModelError, match="its tensors share their bytes too often"):
        read_tflite(pack(spec))
    assert time.process_time() - start < 2


def test_a_huge_unrolled_network_is_refused_quickly() -> None:
    spec = FileSpec("unrolled")
    one = spec.add(TensorSpec("x", (1, 1, 1), 9))
    spec.inputs, spec.outputs = {"x": one}, {"y": one}
    template = dataclasses.replace(file_spec(small_qgraph()).operators[0], inputs=[one], outputs=[one])
    kinds = ("MUL", "ADD", "TANH", "UNPACK")
    spec.operators = [dataclasses.replace(template, kind=kinds[i % 4], intermediates=()) for i in range(2000)]
    content = pack(spec)
    start = time.process_time()
    with pytest.raises(
        UnsupportedModel, match="500 TANH, 500 UNPACK; an LSTM that was unrolled or written as"
    ):
        read_tflite(content)
    assert time.process_time() - start < 2


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to five bits, bytes or whole words changed, words to values that offsets and sizes fear."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(changed)))
        kind = rng.integers(3)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at] = int(rng.integers(256))
        else:
            word = int(rng.choice([2**32 - 1, 2**31 - 1, 2**31, len(content), len(content) - 4, 0, 1, 65536]))
            changed[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
    return bytes(changed)


def read_or_refuse(content: bytes) -> bool:
    """Whether it was read; anything but a stated refusal, or two seconds, fails."""
    start = time.process_time()
    try:
        return isinstance(read_tflite(content), QGraph)
    except EdgeLstmError as error:
        assert str(error)
        return False
    finally:
        assert time.process_time() - start < 2


def files_to_damage() -> dict[str, Callable[[Path], bytes]]:
    ours = small_qgraph(timesteps=3, last_only=True, made={"seed": 7})
    return {
        "ours": lambda folder: emit_tflite(ours),
        "keras2_b1_int8": lambda folder: (folder / "models" / "keras2_b1_int8.tflite").read_bytes(),
    }


@pytest.mark.parametrize("name", files_to_damage())
def test_every_truncation_is_refused(name: str, request: pytest.FixtureRequest) -> None:
    folder = Path() if name == "ours" else request.getfixturevalue("shared_data")
    content = files_to_damage()[name](folder)
    for length in range(0, len(content) - 64, 23):
        assert not read_or_refuse(content[:length]), f"cut to {length} of {len(content)} bytes"


@pytest.mark.parametrize("name", files_to_damage())
def test_random_damage_never_gives_a_traceback(name: str, request: pytest.FixtureRequest) -> None:
    folder = Path() if name == "ours" else request.getfixturevalue("shared_data")
    content = files_to_damage()[name](folder)
    rng = np.random.default_rng(11)
    read = sum(read_or_refuse(damaged(content, rng)) for _ in range(600))
    assert 0 < read < 600  # some damage only changes a weight, some cannot be read


def test_random_bytes_are_refused() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        assert not read_or_refuse(bytes(4) + flatbuffer.IDENTIFIER + rng.bytes(int(rng.integers(500))))
