"""Writes networks of PyTorch with both of its ONNX exporters: NAME.onnx, and x and y in NAME.npz.

A program of its own: PyTorch's newer exporter crashes in a process that has loaded TensorFlow.
Usage: python onnx_torch_exports.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROWS, FEATURES, UNITS = 6, 3, 4


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


def linear(inputs: int = UNITS, outputs: int = 2) -> nn.Module:
    return nn.Linear(inputs, outputs)


NETWORKS: dict[str, Callable[[], Network]] = {
    "stacked": lambda: Network(last_step, rnn=recurrent("LSTM", num_layers=2), fc=linear()),
    "last_states": lambda: Network(
        last_states, rnn=recurrent("GRU", bidirectional=True), fc=linear(2 * UNITS)
    ),
    "bidirectional": lambda: Network(
        every_step, rnn=recurrent("LSTM", bidirectional=True), fc=linear(2 * UNITS)
    ),
    "additive": lambda: Network(
        additive_attention, rnn=recurrent("GRU"), query=linear(UNITS, 5), key=linear(UNITS, 5),
        score=linear(5, 1), fc=linear(2 * UNITS),
    ),
    "autoencoder": lambda: Network(
        autoencoder, rnn=recurrent("LSTM"), decoder=nn.LSTM(UNITS, UNITS, batch_first=True),
        fc=linear(UNITS, FEATURES),
    ),
    "dot": lambda: Network(dot_attention, rnn=recurrent("GRU"), fc=linear()),
    "temporal": lambda: Network(temporal_block, **temporal_layers()),
    "simple": lambda: Network(every_step, rnn=recurrent("RNN", nonlinearity="relu"), fc=linear()),
    "lstm": lambda: Network(every_step, rnn=recurrent("LSTM"), fc=linear()),
    "streaming": lambda: Network(streaming, rnn=recurrent("LSTM", num_layers=2), fc=linear()),
    "projected": lambda: Network(every_step, rnn=recurrent("LSTM", proj_size=2), fc=linear(2)),
}  # fmt: skip
# what is exported: (network, newer exporter, open numbers of streams and rows).  An open number of rows is
# first: the newer exporter keeps the rows of an earlier export.
EXPORTS = [
    ("lstm", True, True), ("stacked", True, False), ("last_states", True, False), ("streaming", True, False),
    ("simple", True, False), ("projected", True, False), ("lstm", False, True), ("streaming", False, True),
    ("dot", False, True), *((name, False, False) for name in list(NETWORKS)[:8]),
]  # fmt: skip


def export(network: Network, inputs: Sequence[torch.Tensor], path: Path, newer: bool, is_open: bool) -> None:
    if newer:
        free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        shapes = (free, tuple({} for _ in inputs[1:]))[: len(inputs)] if is_open else None
        program = torch.onnx.export(network, tuple(inputs), dynamo=True, dynamic_shapes=shapes)
        assert program is not None
        path.write_bytes(program.model_proto.SerializeToString())
        return
    axes = {"x": {0: "batch", 1: "rows"}} if is_open else None
    torch.onnx.export(network, tuple(inputs), path, dynamo=False, input_names=["x"], dynamic_axes=axes)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name, newer, is_open in EXPORTS:
        torch.manual_seed(0)
        network = NETWORKS[name]().eval()
        states = [torch.zeros(2, 1, UNITS)] * 2 if name == "streaming" else []
        example = torch.randn(2 if is_open and not states else 1, ROWS, FEATURES)
        path = folder / f"{name}_{'newer' if newer else 'script'}{'_open' if is_open else ''}.onnx"
        export(network, [example, *states], path, newer, is_open)
        x = 2 * torch.randn(1, ROWS, FEATURES)
        with torch.no_grad():
            found = network(x, *states)
        y = found[0] if isinstance(found, tuple) else found
        np.savez(path.with_suffix(".npz"), x=x.numpy(), y=y.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
