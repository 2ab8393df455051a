"""run: codes or a recording through a model on one executor, outputs to a file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ConfigError, DataError
from edge_lstm.executors.protocol import Executor
from edge_lstm.files import replacing, write_text
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import CodeArray
from edge_lstm.verbs.streams import (
    StreamOptions,
    codes_of,
    int8_forecasts,
    network_rows,
    read_stream,
    train_config,
)
from firmware_tools.executors import open_executor


@dataclass(frozen=True)
class Ran:
    """shape of what was written, and where."""

    path: str
    executor: str
    profile: str
    shape: tuple[int, ...]


def read_codes(path: Path, features: int) -> CodeArray:
    """int8 codes (steps, features) or (windows, timesteps, features) of a .npy file."""
    try:
        codes = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a .npy file of numbers ({error})") from error
    if not isinstance(codes, np.ndarray) or codes.dtype != np.int8:
        kind = codes.dtype if isinstance(codes, np.ndarray) else "an archive"
        raise DataError(f"{path}: holds {kind}, expected int8 codes; give a CSV for real units")
    if codes.ndim not in (2, 3) or codes.shape[-1] != features or 0 in codes.shape:
        raise DataError(
            f"{path}: shape {codes.shape}, expected (steps, {features}) or (windows, timesteps, {features})"
        )
    return codes


def run_codes(executor: Executor, codes: CodeArray) -> CodeArray:
    """2-D codes are one stream from reset; 3-D ones windows, each from reset."""
    timesteps = executor.qgraph.timesteps
    if codes.shape[-2] % timesteps:
        raise DataError(
            f"{codes.shape[-2]} steps are no whole number of the model's windows of {timesteps} timesteps"
        )
    executor.reset()
    return executor.run(codes) if codes.ndim == 2 else executor.run_windows(codes)


def run(
    model: Path,
    data: Path,
    out: Path,
    on: str = "numpy",
    profile: str | None = None,
    options: StreamOptions | None = None,
) -> Ran:
    """Run ``data`` through ``model`` on the executor ``on`` and write the outputs to ``out``.

    data: .npy with int8 codes (steps, channels) or (windows, timesteps, channels), or a CSV in real units.
    out: .npy (codes for codes, float64 forecasts in real units for a CSV) or .csv (for a CSV).
    profile: overrides the file's for the executors that implement both.
    """
    data, out = Path(data), Path(out)
    if out.suffix not in (".npy", ".csv") or (out.suffix == ".csv" and data.suffix == ".npy"):
        raise ConfigError(f"-o {out}: expected a .npy file, or a .csv file for CSV data")
    qgraph = read_tflite(Path(model))
    if profile is not None:
        qgraph = qgraph.with_profile(profile)
    with open_executor(on, qgraph, Path(model).read_bytes()) as executor:
        outputs: npt.NDArray[Any]
        if data.suffix == ".npy":
            outputs = run_codes(executor, read_codes(data, qgraph.features))
        else:
            outputs = _run_csv(executor, data, options or StreamOptions())
        if out.suffix == ".npy":
            with replacing(out) as temporary, temporary.open("wb") as file:
                np.save(file, outputs)
        else:
            write_text(out, _csv_text(qgraph.stream.names, outputs))
        return Ran(str(out), on, executor.profile, outputs.shape)


def _run_csv(executor: Executor, data: Path, options: StreamOptions) -> FloatArray:
    """Forecasts in real units (steps, channels), row t made after row t was read."""
    qgraph = executor.qgraph
    if qgraph.outputs != qgraph.features or qgraph.timesteps != 1:
        raise DataError(
            f"model '{qgraph.name}' is no streaming forecaster of its own channels; give codes as .npy"
        )
    dataset = read_stream(data, options, qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    outputs = qgraph.output.decode(int8_forecasts(executor, codes_of(qgraph, rows), rows))
    return qgraph.stream.to_real(outputs)


def _csv_text(names: tuple[str, ...], outputs: npt.NDArray[Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{value:.9g}" for value in row] for row in outputs)
    return text.getvalue()
