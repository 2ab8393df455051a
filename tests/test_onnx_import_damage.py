"""What in an ONNX file breaks its rules, or asks for what only its words can tell: every message is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_model import read_onnx
from onnx_import_models import DENSE, FEATURES, ROWS, Operator, W, X, built, chain, rows

TURN: Any = ("Transpose", [], {"perm": [0, 2, 1]})
GRU: Operator = ("GRU", ["x", "w", "r"], ["Y", "h"], {"hidden_size": 4})
STACK: Operator = (
    "GRU",
    ["x", "gru_w", "gru_r"],
    ["Y", "h"],
    {"hidden_size": 4, "direction": "bidirectional"},
)
TWO = helper.make_tensor("two", 1, [2], [1, 2])
LARGE = np.broadcast_to(np.float32(1), (1 << 12, 1 << 11))
# operators, what is said, further constants
Case = tuple[list[Operator], str, dict[str, Any]]

BROKEN: dict[str, Case] = {
    "one axis twice": (rows(("Unsqueeze", ["axes"], {})), "axes [0, 0] name one twice",
        {"axes": np.array([0, 0])}),
    "repeats": (rows(("Tile", ["i2"], {})), "1 repeats for 3 axes", {}),
    "an empty cut": (rows(("Slice", ["i2", "i1", "i1"], {})),
        "it cuts entries 2 to 1 of 7, which are none", {}),
    "an entry too far": (rows(("Gather", ["far"], {"axis": 1})), "it takes entries [70] of an axis with 7",
                         {"far": np.array(70)}),
    "a wrong width": (rows(("Expand", ["shape"], {})), "it widens axis 1 from 7 to 5",
        {"shape": np.array([1, 5, 1])}),
    "a long list": (rows(("Squeeze", ["long"], {})),
        "a list of 16385 axes, sizes or places, at most 16384 are read",
                    {"long": np.zeros(16385, np.int64)}),
    "starts without ends": (rows(("Slice", ["i1", "two"], {})),
        "its starts and ends are not known constants of one",
                            {"two": np.array([1, 2])}),
    "parts that do not fit": (rows(("Split", ["i3"], {"axis": 1})),
        "it splits 7 entries into parts of [3]", {}),
    "no parts": (rows(("Split", [], {"axis": 1, "num_outputs": 9})), "it splits 7 entries into 9 parts", {}),
    "no input": ([("Transpose", [], ["t"], {}), ("Add", ["x", "t"], ["y"], {})],
        "it lacks its first input", {}),
    "a filling of two": ([("ConstantOfShape", ["i1"], ["c"], {"value": TWO}),
                          ("Add", ["x", "c"], ["y"], {})], "its value is no tensor of one number", {}),
    "a constant of 1 TB": ([("Expand", ["half", "s"], ["c"], {}), ("Add", ["x", "c"], ["y"], {})],
                           "it computes a constant of shape (1099511627776,), too large for a network",
                           {"s": np.array([1 << 40])}),
    "constants again and again": (
        [*[("ReduceSum", ["large"], [f"r{n}"], {}) for n in range(20)],
         ("Sum", ["x", *(f"r{n}" for n in range(20))], ["y"], {})],
        "the nodes read more constants than a small network has", {"large": LARGE},
    ),
    "a kernel beyond the window": (chain(TURN, ("Conv", ["wide"], {})),
        "its kernel covers 9 rows, the window has fewer",
                                   {"wide": np.ones((1, FEATURES, 9))}),
    "negative pads": (chain(TURN, ("Conv", ["kernel"], {"pads": [-1, 0]})), "expected positive numbers", {}),
    "groups": (chain(TURN, ("Conv", ["kernel"], {"group": 2})),
        "its kernel is (4, 3, 3) in 2 groups, expected 3", {}),
    "an integer that is text": (rows(("Concat", ["x"], {"axis": "two"})),
        "its attribute 'axis' is no integer", {}),
    "an infinite number": (rows(("Elu", [], {"alpha": float("inf")})),
        "its attribute 'alpha' is inf, expected", {}),
    "shapes that do not fit": (rows(("Add", ["i1"], {}), ("Mul", ["five"], {})),
                               "its attributes and inputs do not fit together", {"five": np.ones(5)}),
    "a repeated size of 0": (rows(("Add", ["empty"], {})), "its attributes and inputs do not fit",
        {"empty": np.ones(0)}),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_rules_is_named_with_its_node(name: str) -> None:
    operators, words, more = BROKEN[name]
    with pytest.raises(ModelError) as caught:
        read_onnx(built(operators, more=more))
    assert words in str(caught.value) and "'" in str(caught.value)
    assert not isinstance(caught.value, UnsupportedModel)


ASKED: dict[str, Case] = {
    "a vector of one axis": ([("Gather", ["x", "zero"], ["a"], {"axis": 1}), ("Squeeze", ["a",
        "i0"], ["b"], {}),
                              ("MatMul", ["b", "b"], ["y"], {})], "it multiplies a value without columns",
                             {"zero": np.array(0)}),
    "a constant in front": ([("Transpose", ["x"], ["t"], {}), ("Concat", ["t", "half3",
        "t"], ["y"], {"axis": 0})],
                            "its input 1 is a constant, expected values of the network",
                            {"half3": np.ones((1, ROWS, 1))}),
    "squeezed rows": (rows(("Squeeze", ["i1"], {})), "it squeezes axis 1, which runs over rows", {}),
    "uneven halves": ([DENSE, ("MatMul", ["x", "two"], ["e"], {}), ("Concat", ["d", "e"], ["c"], {"axis": 2}),
                       ("Reshape", ["c", "shape"], ["y"], {})],
                      "it splits features into parts that are not those that were joined",
                      {"two": np.ones((FEATURES, 2)), "shape": np.array([1, ROWS, 2, 3])}),
    "a computed shape": ([DENSE, ("Expand", ["d", "d"], ["y"], {})], "its shape is not a constant", {}),
    "a computed place": ([DENSE, ("Gather", ["d", "d"], ["y"], {})],
        "which entries it takes is not a constant", {}),
    "picked features": ([("Gather", ["x", "order"], ["a"], {"axis": 2}), ("Gather", ["a",
        "order"], ["y"], {"axis": 2})],
                        "it picks more features than a small network has",
                        {"order": np.arange(3000)[::-1].copy()}),
    "computed pads": ([DENSE, ("Pad", ["d", "d"], ["y"], {})],
        "its pads are no constant with two numbers an axis", {}),
    "a computed kernel": (chain(TURN, ("Conv", ["x"], {})),
        "its kernel is no constant with as many axes", {}),
    "streams behind features": ([("Transpose", ["x"], ["t"], {"perm": [2, 0, 1]}), ("Conv", ["t",
        "one"], ["y"], {})],
                                "it takes axis 1 as the features, but this is", {"one": np.ones((1, 1, 1))}),
    "pads twice": (chain(TURN, ("Conv", ["kernel"], {}), ("Conv", ["square1"], {"pads": [1, 0]})),
        "it pads once more",
                   {"square1": np.ones((4, 4, 2))}),
    "large groups": (chain(TURN, ("Conv", ["groups"], {"group": 4200})), "its groups need more weights than",
                     {"groups": np.ones((4200, 1, 1))}),
    "many values": ([("Concat", ["x"] * 257, ["y"], {"axis": 2})],
        "257 values in one tensor, at most 256 are read", {}),
    "a row outside": (chain(TURN, ("Conv", ["kernel"], {"pads": [2, 2]}), ("Gather", ["last"], {"axis": 2})),
                      "it reads one row outside of the window", {}),
    "a constant vector": ([("MatMul", ["vector", "x"], ["y"], {})],
        "it multiplies a vector that is a constant", {}),
    "an input that is absent": ([("Add", ["x", ""], ["y"], {})],
        "it lacks an input; export the model again", {}),
    "a matrix for each row": ([("MatMul", ["x", "many"], ["y"], {})], "expected one for all streams and rows",
                              {"many": np.ones((2, FEATURES, 4))}),
    "a computed matrix": ([("Gemm", ["x", "x"], ["y"], {})],
        "its matrix and its offset are no constants", {}),
    "a constant sequence": ([("GRU", ["still", "w", "r"], ["Y"], {}), ("Add", ["x", "Y"], ["y"], {})],
                            "it reads constants only", {"still": np.ones((7, 1, 3))}),
    "a sequence in place of weights": ([("GRU", ["still", "x", "r"], ["y"], {})],
        "its sequence X is a constant",
                                       {"still": np.ones((7, 1, 3))}),
    "an exponent of values": (chain(("Exp", [], {})),
        "it works on values of the network, expected constants only", {}),
    "features that differ": (
        [("Tanh", ["x"], ["t"], {}), ("Relu", ["t"], ["u"], {}), ("Mul", ["u", "big"], ["m"], {}),
         ("Tanh", ["m"], ["y"], {})], "of 5000 features stands beside no layer", {},
    ),
}  # fmt: skip
SHAPES = {"picked features": (1, 7, 3000), "large groups": (1, 7, 4200), "features that differ": (1, 7, 5000)}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_for_and_not_carried_is_named_with_its_node(name: str) -> None:
    operators, words, more = ASKED[name]
    weights = {"w": W["gru_w"][:1], "r": W["gru_r"][:1]}
    if name == "features that differ":
        more = {"big": np.arange(5000.0)}
    with pytest.raises(UnsupportedModel) as caught:
        read_onnx(built(operators, SHAPES.get(name, X.shape), {**weights, **more}))
    assert words in str(caught.value)


STACKED: dict[str, tuple[list[Operator], str]] = {
    "a stack and a value": ([("Sum", ["Y", "s"], ["y"], {})], "it joins a stack of values with one value"),
    "a convolution of a stack": (
        [("Squeeze", ["Y", "i2"], ["z"], {}), ("Transpose", ["z"], ["t"], {"perm": [1, 2, 0]}),
         ("Conv", ["t", "point"], ["y"], {})], "it takes axis 0 as streams, but this is stacked values",
    ),
    "the cell": ([("Relu", ["c"], ["y"], {})], "it reads the cell state (Y_c) of 'Y'"),
    "a row by itself": ([("Gather", ["Y", "i0"], ["v"], {}), ("Squeeze", ["v", "i1"], ["z"], {}),
                         ("LSTM", ["z", "lw", "lr"], ["y"], {})],
                        "it runs over one row of a window, expected all of them"),
}  # fmt: skip


@pytest.mark.parametrize("name", STACKED)
def test_what_is_done_with_the_outputs_of_a_layer_is_named(name: str) -> None:
    operators, words = STACKED[name]
    lstm: Operator = ("LSTM", ["x", "w", "r"], ["Y", "h", "c"], {"hidden_size": 4})
    first: list[Operator] = [STACK, ("ReduceSum", ["Y", "i1"], ["s"], {})] if "stack" in name else [lstm]
    more = {
        "w": np.ones((1, 16, FEATURES)),
        "r": np.ones((1, 16, 4)),
        "lw": np.ones((1, 16, 4)),
        "lr": np.ones((1, 16, 4)),
        "point": np.ones((2, 4, 1)),
    }
    with pytest.raises(UnsupportedModel) as caught:
        read_onnx(built([*first, *operators], (ROWS, 1, FEATURES), more))
    assert words in str(caught.value)


def test_state_inputs_of_many_layers_are_refused() -> None:
    stated: Operator = ("GRU", ["x", "w", "r", "", "", "h0"], ["Y", "h"], {"hidden_size": 4})
    more = {"w": W["gru_w"][:1], "r": W["gru_r"][:1]}
    content = built([stated, ("Squeeze", ["Y", "i1"], ["y"], {})], (ROWS, 1, FEATURES), more,
                    inputs={"h0": (500, 1, 4)})  # fmt: skip
    with pytest.raises(UnsupportedModel, match="input 'h0': 500 values in one tensor, at most 256 are read"):
        read_onnx(content)


def varint(number: int) -> bytes:
    low = [(number >> shift) & 127 | 128 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*low[:-1], low[-1] & 127])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def constant(*parts: bytes) -> bytes:
    """A model with one node and a constant of ``parts``."""
    node = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu"))
    return field(7, node + field(5, b"".join(parts) + field(8, b"c")))


ONE = field(1, 1)  # the shape (1,)
WIRES = {
    "a number as text": (field(7, 5), "the number 5, expected text, numbers or a message"),
    "text as a number": (constant(ONE, field(2, b"float")), "bytes in field 2, expected an integer"),
    "half a float": (
        field(
            7, field(1, field(4, b"Elu") + field(5, field(1, b"alpha") + field(20, 1) + field(2, b"\0\0")))
        ),
        "2 bytes in field 2, expected a float of 4",
    ),
    "lists in pieces": (
        constant(ONE, field(2, 7), field(7, b"\1"), field(7, b"\1")),
        "integers in several pieces",
    ),
    "a long list": (
        constant(ONE, field(2, 7), field(7, b"\1" * (1 << 22 | 1))),
        "4194305 bytes of integers, at most",
    ),
    "a list without end": (constant(ONE, field(2, 7), field(7, b"\xff")), "a list of integers without end"),
    "an integer without end": (
        constant(ONE, field(2, 7), field(7, b"\xff" * 11 + b"\1")),
        "an integer without end in",
    ),
    "half floats": (
        constant(ONE, field(2, 1), field(4, b"\0\0\0")),
        "3 bytes of floats, expected a multiple of 4",
    ),
    "raw halves": (constant(ONE, field(2, 1), field(9, b"\0\0\0")), "constant 'c' ends within a number"),
    "no text": (field(7, field(1, field(1, b"\xff\xfe"))), "a name that is no UTF-8 text"),
}


@pytest.mark.parametrize("name", WIRES)
def test_damaged_bytes_are_told_by_what_is_wrong_with_them(name: str) -> None:
    content, words = WIRES[name]
    with pytest.raises(ModelError) as caught:
        read_onnx(content)
    assert words in str(caught.value) and str(caught.value).endswith("is it an ONNX model, and whole?")


def test_attributes_of_the_first_files_need_no_type() -> None:
    model = onnx.load_model_from_string(built(chain(("Elu", [], {"alpha": 0.5}), ("MatMul", ["dense"], {}))))
    model.graph.node[0].attribute[0].ClearField("type")
    layer = read_onnx(model.SerializeToString()).layers[0]
    assert layer.function.alpha == 0.5
