"""Networks with a window, and of 16-bit codes, in the compiled executors; what has no C is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import ConfigError, DataError, RuntimeFailure, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.lower import lower
from edge_lstm.operators import wide
from edge_lstm.qgraph import (
    QDelay,
    QDense,
    QGraph,
    QLookup,
    QLstm,
    QRecode,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QScan,
    QSlice,
    Quantization,
)
from firmware_tools import emulator
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.host import HostExecutor
from firmware_tools.measure import measure
from random_models import random_codes, random_detector, random_qgraph
from random_operators import network, operator_codes
from test_c_code import WARNINGS, run, write
from test_host_and_cores import assert_same_codes

Q8 = Quantization(1 / 64, 3)


def bidirectional(name: str = "both", window: int = 7) -> QGraph:
    """Two LSTMs over a window, in both directions, and the rows that they compute last."""
    forward = random_qgraph(3, layers=1, units=4, features=3, dense=False).layers[0]
    assert isinstance(forward, QLstm)
    backward = replace(forward, name="backward", backwards=True, kernel=forward.kernel[:, ::-1])
    rows = (QRow("f", forward.hidden, -1), QRow("b", forward.hidden, 0))
    into = (QRecode("f8", forward.hidden, Q8), QRecode("b16", forward.hidden, wide(-12)))
    return network(
        name, forward, backward, *rows, *into, QRelu("relu", wide(-12)),
        sources=((-1,), (-1,), (0,), (1,), (2,), (3,), (5,)), window=window,
    )  # fmt: skip


@pytest.fixture(scope="module")
def machine() -> emulator.Machine:
    return build_machine([bidirectional()], core_named("cortex-m4"))


@pytest.mark.parametrize("where", ["host", "cortex-m4"])
def test_a_window_starts_from_reset_whatever_came_before(where: str, machine: emulator.Machine) -> None:
    qgraph = bidirectional()
    codes = operator_codes(qgraph, 5 * 7)
    executor: Any = (
        HostExecutor(qgraph) if where == "host" else EmulatedExecutor(qgraph, where, machine=machine)
    )
    expected = NumpyExecutor(qgraph).run(codes)
    assert expected.dtype == np.int16 and expected.shape == (5, 4)
    assert_same_codes(executor.run(codes), expected, "five at once")
    assert_same_codes(executor.run(codes[7:14]), expected[1:2], "one in between")
    windows = codes.reshape(5, 7, 3)
    assert_same_codes(executor.run_windows(windows), expected[:, None], "run_windows")


def test_the_last_rows_of_two_directions_take_two_rows_of_memory_each() -> None:
    header = emit_c(lower(bidirectional(window=60)))["both.h"]
    assert "int8_t lstm_0_hidden[2][4]; /* lstm_0: hidden codes of two rows in turn */" in header
    assert "int8_t backward_hidden[2][4];" in header
    text = emit_c(lower(bidirectional(window=60)))["both.c"]
    assert "elstm_lstm_reset(&backward_layer, state->backward_hidden[1], state->backward_cell);" in text
    assert "const uint16_t t = (uint16_t)(BOTH_WINDOW - 1 - row);" in text
    assert "state->lstm_0_hidden[0], state->" in text  # after an even number of rows


def test_rows_that_are_no_whole_windows_are_refused() -> None:
    with pytest.raises(DataError, match="model 'both' takes windows of 7 rows, got 9 rows; give a multiple"):
        HostExecutor(bidirectional()).run(np.zeros((9, 3), np.int8))


def test_codes_of_eight_bits_are_taken_by_a_network_of_sixteen() -> None:
    qgraph = network("n", QRelu("relu", wide(-12)))
    executor = HostExecutor(qgraph)
    assert executor.run(np.array([[-3, 0, 100]], np.int8)).tolist() == [[0, 0, 100]]
    assert executor.step(np.array([-32768, 5, 32767])).tolist() == [0, 5, 32767]
    with pytest.raises(DataError, match=r"codes are int64 \(1, 3\), expected int16 \(steps, 3\)"):
        executor.run(np.zeros((1, 3), np.int64))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_windows_run_on_a_core_in_batches_of_any_size(
    size: int, machine: emulator.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    qgraph = bidirectional()
    codes = operator_codes(qgraph, 10 * 7)
    monkeypatch.setattr(emulator, "BUFFER_BYTES", 30 * size)  # 21 bytes in, 8 out
    executor = EmulatedExecutor(qgraph, "cortex-m4", machine=machine)
    assert_same_codes(executor.run(codes), NumpyExecutor(qgraph).run(codes), "batches")


def test_a_window_that_no_core_can_hold_is_refused(
    machine: emulator.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "BUFFER_BYTES", 29)
    executor = EmulatedExecutor(bidirectional(), "cortex-m4", machine=machine)
    message = "model 'both': 7 rows and their outputs take 29 bytes, fewer than 29 fit an emulated core"
    with pytest.raises(DataError, match=message):
        executor.run(np.zeros((7, 3), np.int8))


def test_a_measurement_counts_whole_windows() -> None:
    qgraph = bidirectional()
    codes = random_codes(6, 40, 3)
    found = measure(qgraph, "cortex-m4", codes)
    longer = measure(bidirectional(window=14), "cortex-m4", codes)
    spread = found.instructions_per_step
    assert 14 * 500 < spread["min"] <= spread["mean"] <= spread["max"] < 14 * 2000
    assert 1.9 < longer.instructions_per_step["mean"] / spread["mean"] < 2.1
    assert longer.ram_bytes == found.ram_bytes
    with pytest.raises(DataError, match=r"codes are \(6, 3\), expected \(7 or more steps, 3\)"):
        measure(qgraph, "cortex-m4", codes[:6])


def test_a_measurement_takes_codes_of_the_networks_own_bits() -> None:
    qgraph = network("n", QLookup("squash", "tanh"))
    wide_codes = operator_codes(qgraph, 5)
    assert measure(qgraph, "cortex-m0", wide_codes).table_bytes == 2 * 513


# --- what costs nothing -----------------------------------------------------------------------------


def statements(qgraph: QGraph) -> list[str]:
    """The calls in the body of NAME_step or NAME_window."""
    text = emit_c(lower(qgraph))[f"{qgraph.name}.c"]
    body = text[text.index(f"void {qgraph.name}_{'window' if qgraph.window else 'step'}") :]
    return re.findall(r"^ +(\w+)\(", body[body.index("{") :], re.MULTILINE)


def test_operators_that_only_place_rows_cost_nothing() -> None:
    moves = (QReverse("back", Q8), QSlice("part", Q8, 1, 3), QReverse("forth", Q8), QRow("row", Q8, 2))
    chain = network("n", *moves, QRepeat("all", Q8), QRelu("relu", Q8), window=5)
    assert statements(chain) == ["elstm_relu_8"]
    assert "elstm_relu_8(x + 7, y + 2 * t, 2, 3);" in emit_c(lower(chain))["n.c"]
    assert_same_codes(
        HostExecutor(chain).run(operator_codes(chain, 10)),
        NumpyExecutor(chain).run(operator_codes(chain, 10)),
        "n",
    )
    backwards = network("n", QReverse("back", Q8), QRelu("relu", Q8), window=5)
    assert "elstm_relu_8(x + 12 - 3 * t, y + 3 * t, 3, 3);" in emit_c(lower(backwards))["n.c"]


def dense(name: str, outputs: int, features: int, seed: int = 0) -> QDense:
    kernel = np.random.default_rng(seed).integers(-127, 128, (outputs, features)).astype(np.int8)
    scales = np.array([0.004], np.float32)
    return QDense(name, kernel, np.arange(outputs) - 7, scales, Q8, Q8)


def test_layers_share_their_memory_and_keep_one_row_of_a_window() -> None:
    sizes = (3, 20, 5, 30, 4)
    layers = [dense(f"d{k}", n, m) for k, (m, n) in enumerate(pairwise(sizes))]
    for window in (0, 50):
        qgraph = network("n", *layers, window=window)
        assert "int8_t scratch8[35];" in emit_c(lower(qgraph))["n.h"]  # 5 and 30 at once
        assert statements(qgraph) == ["elstm_dense_tflm"] * 4


def test_rows_are_kept_where_something_reads_them_in_another_order() -> None:
    layers = (dense("d0", 4, 3), QReverse("back", Q8), dense("d1", 2, 4))
    header = emit_c(lower(network("n", *layers, window=9)))["n.h"]
    assert "int8_t scratch8[36];" in header
    last = (dense("d0", 4, 3), QRow("last", Q8), dense("d1", 2, 4))
    assert "int8_t scratch8[4];" in emit_c(lower(network("n", *last, window=9)))["n.h"]


def test_a_network_that_keeps_nothing_is_valid_c(tmp_path: Path) -> None:
    """Its layer is called as a variable of the function is."""
    for window in (0, 4):
        qgraph = network("n", QRelu("state", Q8), window=window)
        write(qgraph, tmp_path)
        run("gcc", *WARNINGS, "-c", tmp_path / "n.c", "-o", tmp_path / "n.o")
        assert_same_codes(
            HostExecutor(qgraph).run(operator_codes(qgraph, 8)), np.maximum(operator_codes(qgraph, 8), 3), "n"
        )


# --- exported C in a folder -------------------------------------------------------------------------


def export(qgraph: QGraph, folder: Path) -> None:
    for file, text in emit_c(lower(qgraph)).items():
        (folder / file).write_text(text)


def test_a_folder_without_the_operators_is_refused(tmp_path: Path) -> None:
    qgraph = bidirectional()
    export(qgraph, tmp_path)
    assert HostExecutor(qgraph, tmp_path).run(np.zeros((7, 3), np.int8)).shape == (1, 4)
    for file in tmp_path.glob("elstm_*"):
        file.unlink()
    message = (
        "has no elstm_fixed.h, .*, elstm_operators.h, elstm_operators.c, elstm_rows.h, .*; export the model"
    )
    with pytest.raises(ConfigError, match=message):
        HostExecutor(qgraph, tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        network("n", QRelu("relu", Q8), window=4),
        network("n", QRelu("relu", Q8)),
        network("n", QRelu("relu", Q8), QRow("last", Q8), window=5),
        network("n", QRecode("wide", Q8, wide(-12)), QRelu("relu", wide(-12)), window=5),
    ],
    ids=["rows", "streaming", "outputs", "bits"],
)
def test_exported_c_of_another_window_is_refused(other: QGraph, tmp_path: Path) -> None:
    export(other, tmp_path)
    with pytest.raises(RuntimeFailure, match="n.h is of another network; export this one again"):
        HostExecutor(network("n", QRelu("relu", Q8), window=5), tmp_path)


def test_a_runtime_of_another_version_is_refused(tmp_path: Path) -> None:
    qgraph = network("n", QRelu("relu", Q8))
    export(qgraph, tmp_path)
    header = tmp_path / "elstm.h"
    header.write_text(header.read_text().replace("_API_VERSION 4", "_API_VERSION 5"))
    (tmp_path / "n.h").write_text(
        (tmp_path / "n.h").read_text().replace("_API_VERSION != 4", "_API_VERSION != 5")
    )
    (tmp_path / "elstm.c").write_text("")
    with pytest.raises(RuntimeFailure, match="copy every elstm file from the same export"):
        HostExecutor(qgraph, tmp_path)


# --- refusals ---------------------------------------------------------------------------------------


def scan_over(operator: Any) -> QScan:
    return QScan("scan", operator.output, (operator,), ((-1,),), (), (), 0)


LSTM = random_qgraph(3, layers=1, units=4, features=3, dense=False).layers[0]


@pytest.mark.parametrize(
    ("qgraph", "message"),
    [
        (network("n", LSTM, profile="native"), "'lstm_0' is an LSTM of TFLite, but the profile is native"),
        (
            network("n", scan_over(QDelay("delay", wide(-12), 2))),
            "'delay' keeps a state of its own within scan 'scan'",
        ),
        (network("n", QDelay("delay", wide(-12), 3, 20000)), "'delay' keeps more than 32767 rows"),
        (network("n", QRow("row", Q8, 5), window=5), "'row' reads row 5 of 5"),
        (network("n", QRow("row", Q8, -6), window=5), "'row' reads row -6 of 5"),
        (
            network("n", QDelay("delay", wide(-12), 21846, 1)),
            "it has 65538 features or rows of a window, at most 65535 fit",
        ),
        (
            network("n", QReverse("r", Q8), window=65536),
            "it has 65536 features or rows of a window, at most 65535 fit",
        ),
    ],
)  # fmt: skip
def test_what_has_no_c_is_refused_with_the_layer_and_the_reason(qgraph: QGraph, message: str) -> None:
    with pytest.raises(UnsupportedModel, match="^model 'n' has no C: .*" + message):
        emit_c(lower(qgraph))


def test_a_detector_needs_a_network_that_streams() -> None:
    detector = random_detector(np.random.default_rng(0), 3, 192, 3)
    with pytest.raises(
        UnsupportedModel, match="its detector scores row by row, but the network takes a window"
    ):
        emit_c(lower(network("n", QRelu("r", Q8), window=4, detector=detector)))


def test_all_reasons_are_given_at_once() -> None:
    layers = (QRow("first", Q8, 9), QRow("second", Q8, 8))
    with pytest.raises(UnsupportedModel, match=r"(?s)2 problems.*'first' reads row 9.*'second' reads row 8"):
        emit_c(lower(network("n", *layers, window=5)))
