"""The recurrent-operator tests inside the onnx package, run by the importer and the float reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case import node as cases
from onnx.backend.test.case.node import gru, lstm, rnn

from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.reference.floating import run

TOLERANCE = 1e-5  # the expected values are float32
OPERATORS = ("LSTM", "GRU", "RNN")
NOT_CARRIED: dict[str, str] = {}  # test -> why; none is left out
# of onnx 1.23; other releases may have more, which must pass as well
KNOWN = {
    "test_gru_batchwise", "test_gru_bidirectional", "test_gru_defaults", "test_gru_reverse",
    "test_gru_seq_length", "test_gru_with_initial_bias", "test_lstm_batchwise", "test_lstm_bidirectional",
    "test_lstm_defaults", "test_lstm_reverse", "test_lstm_with_initial_bias", "test_lstm_with_peepholes",
    "test_rnn_seq_length", "test_simple_rnn_batchwise", "test_simple_rnn_bidirectional",
    "test_simple_rnn_defaults", "test_simple_rnn_reverse", "test_simple_rnn_with_initial_bias",
}  # fmt: skip
Case = tuple[onnx.NodeProto, list[np.ndarray], list[np.ndarray]]


def collected() -> dict[str, Case]:
    """Every call of the package's ``expect`` in its tests of recurrent operators, by the test's name."""
    found: dict[str, Case] = {}

    def expect(node: Any, inputs: Sequence[Any], outputs: Sequence[Any], name: str, **_: Any) -> None:
        found[name] = (node, list(inputs), list(outputs))

    with pytest.MonkeyPatch.context() as patch:
        for module, kind in ((gru, gru.GRU), (lstm, lstm.LSTM), (rnn, rnn.RNN)):
            patch.setattr(module, "expect", expect)
            for name in vars(kind):
                if name.startswith("export"):
                    getattr(kind, name)()
    return found


CASES = collected()


def as_model(node: onnx.NodeProto, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> bytes:
    """The operator alone, all of its inputs inputs of the graph, as the package's own runner has it."""
    values = [
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip([name for name in names if name], arrays, strict=True)
        ]
        for names, arrays in ((node.input, inputs), (node.output, outputs))
    ]
    graph = onnx.helper.make_graph([node], "operator", *values)
    content: bytes = onnx.helper.make_model(graph).SerializeToString()
    return content


def in_our_layout(node: onnx.NodeProto, name: str, array: np.ndarray) -> np.ndarray:
    """Y or Y_h as (streams, rows, directions * units)."""
    layout = next((attribute.i for attribute in node.attribute if attribute.name == "layout"), 0)
    if name == node.output[0]:  # (rows, directions, streams, units)
        ordered = array.transpose(0, 1, 2, 3) if layout else array.transpose(2, 0, 1, 3)
        return ordered.reshape(*ordered.shape[:2], -1)
    ordered = array if layout else array.transpose(1, 0, 2)
    return ordered.reshape(ordered.shape[0], 1, -1)


def test_the_package_has_the_tests_that_this_file_knows() -> None:
    assert set(CASES) >= KNOWN
    assert {node.op_type for node, _, _ in CASES.values()} == set(OPERATORS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_operator_test_of_the_onnx_package_passes(name: str) -> None:
    assert name not in NOT_CARRIED
    node, inputs, outputs = CASES[name]
    constants = dict(zip([given for given in node.input if given][1:], inputs[1:], strict=True))
    layout = next((attribute.i for attribute in node.attribute if attribute.name == "layout"), 0)
    x = inputs[0] if layout else inputs[0].transpose(1, 0, 2)
    for output, expected in zip([output for output in node.output if output], outputs, strict=True):
        if node.op_type == "LSTM" and len(node.output) > 2 and output == node.output[2]:
            continue  # Y_c beside Y_h: the state, which the layer keeps to itself
        one = onnx.NodeProto()
        one.CopyFrom(node)
        del one.output[:]
        one.output.extend(name if name == output else "" for name in node.output)
        graph = read_onnx(as_model(one, inputs, [expected]), constants)
        found, _ = run(graph, x)
        want = in_our_layout(node, output, expected)
        np.testing.assert_allclose(found[:, -want.shape[1] :], want, atol=TOLERANCE, rtol=0)
    whole = read_onnx(as_model(node, inputs, outputs), constants)
    assert whole.outputs in {expected.shape[-1] * len(inputs[1]) for expected in outputs}


def test_no_other_module_of_the_package_tests_recurrent_operators() -> None:
    folder = Path(cases.__file__).parent
    modules = {
        path.stem for path in folder.glob("*.py")
        if any(f'"{operator}"' in path.read_text(encoding="utf-8") for operator in OPERATORS)
    }  # fmt: skip
    assert modules == {"gru", "lstm", "rnn"}
