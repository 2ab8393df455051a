"""Integer ONNX, one operator at a time: what only places codes is exact, the rest rounds as it must."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edge_lstm.emit.onnx_integers import emit_qdq, states
from edge_lstm.graph import Stream
from edge_lstm.operators import LOOKUP_INPUT, Q15, QScan, QState, wide
from edge_lstm.qgraph import (
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QGraph,
    QLookup,
    QMul,
    QRecode,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QSlice,
    QSoftmax,
    QSumRows,
)
from qdq_runs import IN8, OUT8, codes_by_onnx, codes_by_reference, dense, every_code, narrow, single

EXACT: dict[str, QGraph] = {
    "slice": single(QSlice("part", IN8, 1, 3), IN8),
    "first row": single(QRow("row", IN8, 0), IN8, window=5),
    "inner row": single(QRow("row", wide(-9), 2), wide(-9), window=5),
    "last row": single(QRow("row", IN8, -1), IN8, window=5),
    "reverse": single(QReverse("back", wide(-9)), wide(-9), window=5),
    "concat": single(QConcat("join", wide(-9)), wide(-9), reads=3),
    "sum of rows": single(QSumRows("sum", wide(-9)), wide(-9), window=5),
    "delay": single(QDelay("late/rows", wide(-9), 3, 2), wide(-9)),
    "delay of 8 bits": single(QDelay("late", narrow(0.03), 2), narrow(0.03)),
    "delay in a window": single(QDelay("late", wide(-9), 3, 2), wide(-9), window=3),
    "delay of one row": single(QDelay("late", wide(-9), 1), wide(-9)),
    "relu": single(QRelu("relu", IN8), IN8),
    "repeat": QGraph(
        "repeat", (QRow("row", IN8), QRepeat("all", IN8)), Stream.unnamed(3), window=6, input=IN8
    ),
    "constant": QGraph(
        "constant",
        (QConstant("half", np.array([16384, -3, 7]), Q15), QConcat("join", Q15)),
        Stream.unnamed(3), sources=((), (0, 0)), window=2, input=Q15,
    ),
}  # fmt: skip

# at most so many steps of the output: ties, and tables of sigmoid, tanh and exp
ROUNDED: dict[str, tuple[float, QGraph]] = {
    "recode": (1, single(QRecode("recode", IN8, OUT8), IN8)),
    "recode to 16 bits": (1, single(QRecode("recode", IN8, wide(-12)), IN8)),
    "recode to 8 bits": (1, single(QRecode("recode", wide(-12), OUT8), wide(-12))),
    "add": (1, single(QAdd("add", wide(-10), wide(-10), wide(-9)), wide(-10), reads=2)),
    "subtract": (1, single(QAdd("sub", wide(-10), wide(-10), wide(-9), True), wide(-10), reads=2)),
    "multiply": (1, single(QMul("mul", wide(-12), wide(-12), wide(-10)), wide(-12), reads=2)),
    "sigmoid": (2, single(QLookup("sigmoid", "sigmoid"), LOOKUP_INPUT["sigmoid"])),
    "tanh": (3, single(QLookup("tanh", "tanh"), LOOKUP_INPUT["tanh"])),
    "leaky relu": (1, single(QRelu("relu", wide(-9), 9830), wide(-9))),
    "softmax": (1, single(QSoftmax("max", IN8, narrow(1 / 256, -128)), IN8)),
    "softmax of 16 bits": (4, single(QSoftmax("max", wide(-12), Q15), wide(-12))),
    "softmax over time": (10, single(QSoftmax("max", wide(-12), Q15, "time"), wide(-12), window=5)),
    "dense": (1, single(dense(IN8, OUT8, 1, False), IN8)),
    "dense by row with relu": (1, single(dense(IN8, OUT8, 3, True), IN8)),
    "dense of 16 bits": (1, single(dense(wide(-12), wide(-10), 3, False), wide(-12))),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_operators_that_place_codes_are_exact(name: str) -> None:
    qgraph = EXACT[name]
    x = every_code(qgraph)
    assert (codes_by_onnx(qgraph, x) == codes_by_reference(qgraph, x)).all()


@pytest.mark.parametrize("name", ROUNDED)
def test_every_operator_alone_is_within_its_rounding(name: str) -> None:
    limit, qgraph = ROUNDED[name]
    x = every_code(qgraph)
    steps = np.abs(codes_by_onnx(qgraph, x) - codes_by_reference(qgraph, x))
    assert steps.max() <= limit and np.median(steps) <= 1


def test_one_row_or_one_feature_is_repeated() -> None:
    parts = QSlice("narrow", Q15, 1, 2), QRow("row", Q15, 0)
    layers = (*parts, QMul("mul", Q15, Q15, Q15), QAdd("add", Q15, Q15, Q15))
    qgraph = QGraph(
        "wide", layers, Stream.unnamed(4), sources=((-1,), (-1,), (-1, 0), (2, 1)), window=5, input=Q15
    )
    x = every_code(qgraph)
    assert np.abs(codes_by_onnx(qgraph, x) - codes_by_reference(qgraph, x)).max() <= 2


def test_a_bias_that_32_bits_do_not_hold_stays_exact() -> None:
    operator = dense(wide(-12), wide(-10), 1, False)
    large = np.array([2**40, -(2**33), 5])
    operator = replace(operator, bias=large, kernel_scales=np.array([2.0**-24]))
    qgraph = single(operator, wide(-12))
    x = every_code(qgraph)
    assert np.abs(codes_by_onnx(qgraph, x) - codes_by_reference(qgraph, x)).max() <= 1
    assert codes_by_reference(qgraph, x)[:, :2].any()


def test_a_scan_begins_from_its_own_codes() -> None:
    """A state that is not 0 after reset, in a stream and from the end of a window."""
    body = (QAdd("add", wide(-10), wide(-12), wide(-10)), QRecode("next", wide(-10), wide(-12)))
    scan = QScan("scan", wide(-10), body, ((-1, -2), (0,)), (QState("scan/sum", 4, wide(-12), 99),), (1,), 0)
    qgraph = single(scan, wide(-10))
    (state,) = states(qgraph)
    assert (state.name, state.shape) == ("scan_sum", (1, 1, 4))
    assert (state.initial == np.float32(99 / 4096)).all()
    described = onnx.load_from_string(emit_qdq(qgraph)).metadata_props
    assert json.loads({prop.key: prop.value for prop in described}["edge_lstm_states"]) == {
        "scan_sum": {"initial": [99 / 4096] * 4, "shape": [1, 1, 4]}
    }
    for network_ in (qgraph, single(replace(scan, backwards=True), wide(-10), window=6)):
        x = every_code(network_)
        assert np.abs(codes_by_onnx(network_, x) - codes_by_reference(network_, x)).max() <= 1
