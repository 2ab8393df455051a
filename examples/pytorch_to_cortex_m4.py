"""A PyTorch LSTM and a GRU, written by both of PyTorch's ONNX exporters, as C on an emulated Cortex-M4.

Needs PyTorch and onnxscript beside the extras onnx, data and emulator.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import torch

import edge_lstm

CHANNELS, UNITS = 5, 8  # the pump's sensors; state of the network


class Forecaster(torch.nn.Module):
    """The next sample of every channel after each row."""

    def __init__(self, kind: type[torch.nn.RNNBase]) -> None:
        super().__init__()
        self.recurrent = kind(CHANNELS, UNITS, batch_first=True)
        self.head = torch.nn.Linear(UNITS, CHANNELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(x)[0])


def export(model: torch.nn.Module, path: Path, dynamo: bool) -> None:
    """Write an .onnx file; the exporters' warnings are about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sample = (torch.zeros(1, 12, CHANNELS),)
        torch.onnx.export(model, sample, str(path), dynamo=dynamo, external_data=False, verbose=False)


def main() -> None:
    logging.disable(logging.WARNING)
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        edge_lstm.dataset("pump", folder / "pump.csv", rows=3000)
        for kind in (torch.nn.LSTM, torch.nn.GRU):
            model = Forecaster(kind).eval()
            for exporter in ("TorchScript", "dynamo"):
                path = folder / f"{kind.__name__.lower()}_{exporter.lower()}.onnx"
                export(model, path, dynamo=exporter == "dynamo")
                tflite = path.with_suffix(".tflite")
                edge_lstm.quantize(path, folder / "pump.csv", tflite)
                codes = edge_lstm.verify(tflite, on=("cortex-m4",), steps=500).agreements[0].network
                cost = edge_lstm.bench(tflite, on=("cortex-m4",), steps=50).cores["cortex-m4"]
                steps = f"{cost.instructions_per_step['mean']:,.0f} instructions a step"
                print(f"{path.name}: codes that differ: {codes.differing} of {codes.codes}; {steps}")


if __name__ == "__main__":
    main()
