"""Networks of PyTorch, written by both of its ONNX exporters, compute what they compute in PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Graph
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.reference.floating import run
from onnx_import_models import assert_close

ROWS = 6
PROGRAM = Path(__file__).with_name("onnx_torch_exports.py")
# file -> (kinds of the layers of the network, rows of its window)
NETWORKS = {
    "stacked_script": ("Lstm Lstm Dense", 0),
    "stacked_newer": ("Lstm Lstm Dense", 0),
    "last_states_script": ("Gru Gru Row Row Merge Dense", ROWS),
    "last_states_newer": ("Gru Gru Row Row Merge Dense", ROWS),
    "bidirectional_script": ("Lstm Lstm Merge Dense Activation", ROWS),
    "additive_script": ("Gru Row Dense Dense Merge Activation Dense Softmax Attend Merge Dense", ROWS),
    "autoencoder_script": ("Lstm Row Repeat Lstm Dense", ROWS),
    "dot_script": ("Gru Row Merge Dense Softmax Attend Dense", ROWS),
    "temporal_script": ("Conv1d Activation Conv1d Merge Activation Gru Dense", 0),
    "simple_script": ("Rnn Dense Activation", 0),
    "lstm_script_open": ("Lstm Dense Activation", 0),
    "lstm_newer_open": ("Lstm Dense Activation", 0),
    "streaming_script_open": ("Lstm Lstm Dense", 0),
    "streaming_newer": ("Lstm Lstm Dense", 0),
}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the exported networks."""
    folder = tmp_path_factory.mktemp("torch")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def imported(exports: Path, name: str) -> Graph:
    """Import a file and compare what PyTorch and the float reference make of new rows."""
    graph = read_onnx(exports / f"{name}.onnx")
    with np.load(exports / f"{name}.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    want = y.reshape(1, -1, graph.outputs)
    assert_close(run(graph, x)[0][:, -want.shape[1] :], want)
    return graph


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_pytorch_computes_the_same(exports: Path, name: str) -> None:
    graph = imported(exports, name)
    kinds, window = NETWORKS[name]
    assert " ".join(type(layer).__name__ for layer in graph.layers) == kinds and graph.window == window


@pytest.mark.parametrize("name", ["streaming_script_open", "streaming_newer"])
def test_states_that_are_inputs_and_outputs_are_named(exports: Path, name: str) -> None:
    assert len(read_onnx(exports / f"{name}.onnx").made["states"]) == 2


def test_the_attention_weights_can_be_read_at_their_layer(exports: Path) -> None:
    graph = read_onnx(exports / "additive_script.onnx")
    assert len(graph.made["inner_outputs"]) == 1 and "softmax" in [layer.name for layer in graph.layers]


def test_what_the_newer_exporter_writes_wrongly_or_unrolled_is_refused_with_the_way_round(
    exports: Path,
) -> None:
    with pytest.raises(ModelError, match="proj_size, which ONNX does not have: give the weights as"):
        read_onnx(exports / "projected_newer.onnx")
    with pytest.raises(UnsupportedModel, match=r"exporter unrolls nn.RNN: export it with dynamo=False"):
        read_onnx(exports / "simple_newer.onnx")


def test_networks_that_gather_a_window_need_its_length(exports: Path) -> None:
    with pytest.raises(ModelError, match="gathers a window, but its length is unknown; save the model with"):
        read_onnx(exports / "dot_script_open.onnx")


def test_rows_one_by_one_are_the_rows_of_the_whole_sequence(exports: Path) -> None:
    graph = imported(exports, "lstm_script_open")
    x = np.random.default_rng(0).normal(size=(1, ROWS, graph.features))
    whole, state, rows = run(graph, x)[0], None, []
    for row in range(ROWS):
        output, state = run(graph, x[:, [row]], state)
        rows.append(output)
    assert np.abs(np.concatenate(rows, axis=1) - whole).max() < 1e-12  # of float64
