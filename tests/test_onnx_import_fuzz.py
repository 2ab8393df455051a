"""Hostile ONNX files: whatever the bytes are, a network or a stated error, in little time and memory."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_lstm.errors import EdgeLstmError
from edge_lstm.importers.onnx_constants import FOLDS
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.importers.onnx_nodes import CONVERTERS
from onnx_import_models import UNITS, Operator, built, chain

LIMIT_S = 2.0  # of processor time, for any file
MAX_GROWTH_KB = 1 << 20
NUMBERS = (0, 1, -1, 2, 3, 7, 100, 1 << 31, 1 << 40, -(1 << 62), (1 << 63) - 1)
OPERATORS = sorted({*CONVERTERS, *FOLDS})
# fmt: off
ATTRIBUTES = ("axis", "perm", "axes", "clip", "layout", "direction", "keepdims", "to", "pads", "group",
              "dilations", "value", "transA", "activations", "activation_alpha", "split", "hidden_size")
# fmt: on
WIDE: list[Operator] = [
    ("Transpose", ["x"], ["xt"], {"perm": [1, 0, 2]}),
    ("Shape", ["xt"], ["s"], {}),
    ("Gather", ["s", "i1"], ["b"], {}),
    ("Concat", ["i2", "b", "i4"], ["hs"], {"axis": 0}),
    ("ConstantOfShape", ["hs"], ["h0"], {}),
    (
        "LSTM",
        ["xt", "lw", "lr", "", "", "h0", "h0"],
        ["Y", "h", "c"],
        {"hidden_size": UNITS, "direction": "bidirectional", "activations": ["Sigmoid", "Tanh", "Elu"] * 2},
    ),
    ("Transpose", ["Y"], ["t"], {"perm": [2, 0, 1, 3]}),
    ("Reshape", ["t", "join"], ["j"], {}),
    ("MatMul", ["j", "score8"], ["e"], {}),
    ("Softmax", ["e"], ["a"], {"axis": 1}),
    ("Mul", ["a", "j"], ["m"], {}),
    ("ReduceSum", ["m", "i1"], ["y"], {"keepdims": 0}),
]  # fmt: skip
TCN = chain(
    ("Transpose", [], {"perm": [0, 2, 1]}), ("Pad", ["pads"], {}), ("Conv", ["kernel", "bias"], {}),
    ("Relu", [], {}), ("Add", ["row"], {}),
)  # fmt: skip
rng = np.random.default_rng(9)
SEEDS = [
    built(WIDE, more={"lw": rng.normal(size=(2, 16, 3)), "lr": rng.normal(size=(2, 16, 4)),
                      "join": np.array([0, 0, -1]), "score8": rng.normal(size=(8, 1))}),
    built(TCN, ("batch", "rows", 3), {"pads": np.array([0, 0, 2, 0, 0, 0]), "row": np.ones((4, 1))}),
    built(chain(("MatMul", ["dense"], {}), ("Add", ["bias"], {}), ("Tanh", [], {}),
                ("Split", [], {"axis": 2}))),
]  # fmt: skip


def opened(content: bytes) -> None:
    """Read ``content``; a network or a stated error is right, in the time that any file may take."""
    start = time.process_time()
    try:
        read_onnx(content)
    except EdgeLstmError as error:
        assert str(error)
    assert time.process_time() - start < LIMIT_S


@pytest.fixture(autouse=True)
def _memory_stays_small() -> object:
    """No test of this file makes the process grow by 1 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KB


def test_the_seeds_are_sound() -> None:
    assert [len(read_onnx(content).layers) > 2 for content in SEEDS[:1]] == [True]
    assert all(isinstance(read_onnx(content).name, str) for content in SEEDS[1:])


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_every_truncation_is_stated(seed: int) -> None:
    content = SEEDS[seed]
    for end in range(0, len(content), 7):
        opened(content[:end])


def flipped(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    if dice.random() < 0.1:
        place = dice.randrange(len(changed))
        changed[place:place] = bytes(dice.randrange(256) for _ in range(9))
    return bytes(changed)


def _wrong_attribute(model: onnx.ModelProto, dice: random.Random) -> None:
    values = [dice.choice(NUMBERS), [dice.choice(NUMBERS) for _ in range(dice.randint(1, 4))], "abc", 1e38]
    node = dice.choice(model.graph.node)
    node.attribute.append(helper.make_attribute(dice.choice(ATTRIBUTES), dice.choice(values)))


def _wrong_operator(model: onnx.ModelProto, dice: random.Random) -> None:
    dice.choice(model.graph.node).op_type = dice.choice(OPERATORS)


def _wrong_input(model: onnx.ModelProto, dice: random.Random) -> None:
    names = [name for node in model.graph.node for name in (*node.output, *node.input)]
    node = dice.choice([node for node in model.graph.node if node.input])
    node.input[dice.randrange(len(node.input))] = dice.choice(names)


def _wrong_size(model: onnx.ModelProto, dice: random.Random) -> None:
    dims = dice.choice(model.graph.input).type.tensor_type.shape.dim
    dice.choice(dims).dim_value = dice.choice(NUMBERS)


def _wrong_constant(model: onnx.ModelProto, dice: random.Random) -> None:
    tensor = dice.choice(model.graph.initializer)
    array = np.atleast_1d(numpy_helper.to_array(tensor))
    changed = [array.T, array[None], array[..., :0], array[..., :1]]
    changed += [np.full(array.shape, dice.choice(NUMBERS)), np.full(array.shape, dice.choice((np.nan, 1e38)))]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(dice.choice(changed)), tensor.name))


def _one_more_node(model: onnx.ModelProto, dice: random.Random) -> None:
    node = dice.choice([node for node in model.graph.node if node.input])
    more = helper.make_node(
        dice.choice(OPERATORS), [node.input[0], *node.input[1 : dice.randint(1, 3)]], ["more"]
    )
    node.input[0] = "more"
    model.graph.node.insert(0, more)


CHANGES: list[Callable[[onnx.ModelProto, random.Random], None]] = [
    _wrong_attribute, _wrong_operator, _wrong_input, _wrong_size, _wrong_constant, _one_more_node,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_flipped_bits_are_stated(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(400):
        opened(flipped(SEEDS[seed], dice))


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_sound_files_of_senseless_graphs_are_stated(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(500):
        model = onnx.load_model_from_string(SEEDS[seed])
        for _ in range(dice.randint(1, 3)):
            dice.choice(CHANGES)(model, dice)
        opened(model.SerializeToString())


COUNT = 9990
LARGE = np.broadcast_to(np.float32(1), (1 << 12, 1 << 11))
HOSTILE: dict[str, Callable[[], bytes]] = {
    "many layers": lambda: built(chain(*[("Relu", [], {})] * COUNT)),
    "many transposes": lambda: built(chain(*[("Transpose", [], {"perm": [0, 1, 2]})] * COUNT), ("b", "t", 3)),
    "doubled joins": lambda: built(
        [("Relu", ["x"], ["c0"], {}),
         *(("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], {"axis": 2}) for n in range(60))], outputs=["c60"],
    ),
    "one large matrix again and again": lambda: built(
        chain(*[("Gemm", ["m"], {"transB": n % 2}) for n in range(200)]), (1, 1 << 12), {"m": LARGE}
    ),
    "a large constant read again and again": lambda: built(
        [*[("ReduceSum", ["m"], [f"r{n}"], {}) for n in range(3000)],
         ("Sum", ["x", *(f"r{n}" for n in range(3000))], ["y"], {})], more={"m": LARGE},
    ),
    "sizes of 1 TB": lambda: built(
        [("Expand", ["half", "s"], ["c"], {}), ("ConstantOfShape", ["s"], ["d"], {}),
         ("Tile", ["half", "s"], ["e"], {}), ("Range", ["i0", "s", "i1"], ["f"], {}),
         ("Sum", ["x", "c", "d", "e", "f"], ["y"], {})],
        more={"s": np.array([1 << 40])},
    ),
    "a million rows unrolled": lambda: built(
        [("Split", ["x"], [f"r{n}" for n in range(900)], {"axis": 1}),
         ("Concat", [f"r{n}" for n in range(900)], ["y"], {"axis": 1})], (1, 900, 3),
    ),
    "picked features": lambda: built(
        chain(*[("Gather", ["order"], {"axis": 2})] * 50), (1, 7, 3000),
        {"order": np.arange(3000)[::-1].copy()},
    ),
    "a list of a million axes": lambda: built(
        chain(("Squeeze", ["l"], {})), more={"l": np.zeros(1 << 20, np.int64)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_ask_for_much_cost_little(name: str) -> None:
    opened(HOSTILE[name]())
