"""Networks of PyTorch, written by both of its ONNX exporters, compute what they compute in PyTorch."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Graph
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.reference.floating import run
from onnx_import_models import assert_close

ROWS, FEATURES, UNITS = 6, 3, 4
NOISE = (  # of the exporters themselves
    "You are using the legacy TorchScript-based ONNX export",
    "The feature will be removed",
    "Converting a tensor to a Python boolean",
    "Exporting a model to ONNX with a batch_size",
    "The tensor attributes",
    "The .grad attribute of a Tensor",
    "_check_is_size will be removed",
)


class Network(nn.Module):
    """The given layers and what ``does`` does with them."""

    def __init__(self, does: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.does = does
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor, *states: torch.Tensor) -> Any:
        return self.does(self, x, *states)


def recurrent(kind: str, **options: Any) -> nn.Module:
    layer: nn.Module = getattr(nn, kind)(FEATURES, UNITS, batch_first=True, **options)
    return layer


def exported(
    network: nn.Module, inputs: Sequence[torch.Tensor], dynamo: bool, open_rows: bool = False
) -> bytes:
    """The file of one of the two exporters.  open_rows: the first two axes of x have no fixed size."""
    network.eval()
    content = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        if dynamo:
            torch.ops.aten.lstm.input._dispatch_cache.clear()  # else an earlier export fixes the rows
            free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
            shapes = (free, tuple({} for _ in inputs[1:]))[: len(inputs)] if open_rows else None
            program = torch.onnx.export(network, tuple(inputs), dynamo=True, dynamic_shapes=shapes)
            assert program is not None
            file: bytes = program.model_proto.SerializeToString()
            return file
        axes = {"x": {0: "batch", 1: "rows"}} if open_rows else None
        torch.onnx.export(network, tuple(inputs), content, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return content.getvalue()


def imported(
    network: nn.Module, dynamo: bool, states: Sequence[torch.Tensor] = (), open_rows: bool = False
) -> Graph:
    """Export, import, and compare what PyTorch and the float reference make of new rows."""
    torch.manual_seed(1)
    example = torch.randn(2 if open_rows and not states else 1, ROWS, FEATURES)
    graph = read_onnx(exported(network, [example, *states], dynamo, open_rows))
    x = 2 * torch.randn(1, ROWS, FEATURES)
    with torch.no_grad():
        found = network(x, *states)
    want = (found[0] if isinstance(found, tuple) else found).numpy().reshape(1, -1, graph.outputs)
    assert_close(run(graph, x.numpy())[0][:, -want.shape[1] :], want)
    return graph


def last_step(net: Any, x: torch.Tensor) -> Any:
    return net.fc(net.rnn(x)[0][:, -1])


def every_step(net: Any, x: torch.Tensor) -> Any:
    return torch.sigmoid(net.fc(net.rnn(x)[0]))


def last_states(net: Any, x: torch.Tensor) -> Any:
    states = net.rnn(x)[1]
    return net.fc(torch.cat([states[-2], states[-1]], dim=1))


def autoencoder(net: Any, x: torch.Tensor) -> Any:
    code = net.rnn(x)[1][0][-1]
    return net.fc(net.decoder(code.unsqueeze(1).repeat(1, x.shape[1], 1))[0])


def dot_attention(net: Any, x: torch.Tensor) -> Any:
    rows, last = net.rnn(x)
    scores = torch.bmm(rows, last[-1].unsqueeze(2)).squeeze(2) / 2.0
    return net.fc(torch.bmm(torch.softmax(scores, dim=1).unsqueeze(1), rows).squeeze(1))


def additive_attention(net: Any, x: torch.Tensor) -> Any:
    rows, last = net.rnn(x)
    scores = net.score(torch.tanh(net.query(last[-1]).unsqueeze(1) + net.key(rows)))
    weights = torch.softmax(scores, dim=1)
    return net.fc(torch.cat([(weights * rows).sum(dim=1), last[-1]], dim=-1)), weights


def temporal_block(net: Any, x: torch.Tensor) -> Any:
    features = x.transpose(1, 2)
    chopped = net.conv(features)[:, :, :-4].contiguous()
    block = torch.relu(torch.relu(net.norm(chopped)) + net.down(features))
    return net.fc(net.rnn(block.transpose(1, 2))[0])


def streaming(net: Any, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
    rows, (h, c) = net.rnn(x, (h, c))
    return net.fc(rows), h, c


def temporal_layers() -> dict[str, nn.Module]:
    norm = nn.BatchNorm1d(UNITS)
    norm.running_mean, norm.running_var = torch.tensor([0.5, -1, 0, 2]), torch.tensor([0.5, 1, 2, 3])
    return {
        "conv": nn.Conv1d(FEATURES, UNITS, 3, padding=4, dilation=2),
        "norm": norm,
        "down": nn.Conv1d(FEATURES, UNITS, 1),
        "rnn": nn.GRU(UNITS, UNITS, batch_first=True),
        "fc": nn.Linear(UNITS, 2),
    }


# what it does, its layers, kinds of the layers of the network, rows of its window
Made = tuple[Callable[..., Any], Callable[[], dict[str, nn.Module]], str, int]
NETWORKS: dict[str, Made] = {
    "stacked LSTM, last step": (
        last_step, lambda: {"rnn": recurrent("LSTM", num_layers=2), "fc": nn.Linear(UNITS, 2)},
        "Lstm Lstm Dense", 0,
    ),
    "bidirectional GRU, last states": (
        last_states, lambda: {"rnn": recurrent("GRU", bidirectional=True), "fc": nn.Linear(2 * UNITS, 2)},
        "Gru Gru Row Row Merge Dense", ROWS,
    ),
    "bidirectional LSTM, every step": (
        every_step, lambda: {"rnn": recurrent("LSTM", bidirectional=True), "fc": nn.Linear(2 * UNITS, 2)},
        "Lstm Lstm Merge Dense Activation", ROWS,
    ),
    "additive attention": (
        additive_attention,
        lambda: {"rnn": recurrent("GRU"), "query": nn.Linear(UNITS, 5), "key": nn.Linear(UNITS, 5),
                 "score": nn.Linear(5, 1), "fc": nn.Linear(2 * UNITS, 2)},
        "Gru Row Dense Dense Merge Activation Dense Softmax Attend Merge Dense", ROWS,
    ),
    "autoencoder": (
        autoencoder,
        lambda: {"rnn": recurrent("LSTM"), "decoder": nn.LSTM(UNITS, UNITS, batch_first=True),
                 "fc": nn.Linear(UNITS, FEATURES)},
        "Lstm Row Repeat Lstm Dense", ROWS,
    ),
    "dot attention": (
        dot_attention, lambda: {"rnn": recurrent("GRU"), "fc": nn.Linear(UNITS, 2)},
        "Gru Row Merge Dense Softmax Attend Dense", ROWS,
    ),
    "temporal block": (
        temporal_block, temporal_layers, "Conv1d Activation Conv1d Merge Activation Gru Dense", 0,
    ),
    "simple RNN": (
        every_step, lambda: {"rnn": recurrent("RNN", nonlinearity="relu"), "fc": nn.Linear(UNITS, 2)},
        "Rnn Dense Activation", 0,
    ),
}  # fmt: skip
OF_BOTH = list(NETWORKS)[:2]  # the newer exporter takes seconds for each


@pytest.mark.parametrize(
    ("name", "dynamo"), [*((name, False) for name in NETWORKS), *((name, True) for name in OF_BOTH)]
)
def test_a_network_of_pytorch_computes_the_same(name: str, dynamo: bool) -> None:
    does, layers, kinds, window = NETWORKS[name]
    torch.manual_seed(0)
    graph = imported(Network(does, **layers()), dynamo)
    assert " ".join(type(layer).__name__ for layer in graph.layers) == kinds and graph.window == window


@pytest.mark.parametrize("dynamo", [False, True])
def test_states_that_are_inputs_and_outputs_stream(dynamo: bool) -> None:
    torch.manual_seed(0)
    network = Network(streaming, rnn=recurrent("LSTM", num_layers=2), fc=nn.Linear(UNITS, 2))
    states = [torch.zeros(2, 1, UNITS), torch.zeros(2, 1, UNITS)]
    graph = imported(network, dynamo, states, open_rows=not dynamo)
    assert graph.window == 0 and len(graph.made["states"]) == 2


@pytest.mark.parametrize("dynamo", [False, True])
def test_an_open_number_of_streams_and_rows_is_a_streaming_network(dynamo: bool) -> None:
    torch.manual_seed(0)
    network = Network(every_step, rnn=recurrent("LSTM"), fc=nn.Linear(UNITS, 2))
    assert imported(network, dynamo, open_rows=True).window == 0


def test_the_attention_weights_can_be_read_at_their_layer() -> None:
    does, layers, _, _ = NETWORKS["additive attention"]
    graph = imported(Network(does, **layers()), False)
    assert len(graph.made["inner_outputs"]) == 1 and "softmax" in [layer.name for layer in graph.layers]


def test_what_the_newer_exporter_writes_wrongly_or_unrolled_is_refused_with_the_way_round() -> None:
    example = [torch.randn(1, ROWS, FEATURES)]
    projected = Network(every_step, rnn=recurrent("LSTM", proj_size=2), fc=nn.Linear(2, 2))
    with pytest.raises(ModelError, match="proj_size, which ONNX does not have: give the weights as"):
        read_onnx(exported(projected, example, True))
    unrolled = Network(every_step, rnn=recurrent("RNN"), fc=nn.Linear(UNITS, 2))
    with pytest.raises(UnsupportedModel, match=r"exporter unrolls nn.RNN: export it with dynamo=False"):
        read_onnx(exported(unrolled, example, True))


def test_networks_that_gather_a_window_need_its_length() -> None:
    does, layers, _, _ = NETWORKS["dot attention"]
    with pytest.raises(ModelError, match="gathers a window, but its length is unknown; save the model with"):
        imported(Network(does, **layers()), False, open_rows=True)


def test_rows_one_by_one_are_the_rows_of_the_whole_sequence() -> None:
    torch.manual_seed(0)
    graph = imported(Network(every_step, rnn=recurrent("GRU"), fc=nn.Linear(UNITS, 2)), False)
    x = np.random.default_rng(0).normal(size=(1, ROWS, FEATURES))
    whole, state, rows = run(graph, x)[0], None, []
    for row in range(ROWS):
        output, state = run(graph, x[:, [row]], state)
        rows.append(output)
    assert np.abs(np.concatenate(rows, axis=1) - whole).max() < 1e-12  # of float64
