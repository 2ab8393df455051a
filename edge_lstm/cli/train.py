"""edge-lstm train"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import (
    FILE,
    json_option,
    options_of,
    print_json,
    print_notes,
    print_table,
    progress,
    stream_options,
    take,
    take_stream,
    verb,
)
from edge_lstm.training.config import TrainConfig


@verb("train")
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="The .keras file to write.")
@options_of(TrainConfig)
@stream_options
@json_option
def command(data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train an LSTM forecaster of the next sample on the normal rows of the CSV DATA."""
    from edge_lstm.verbs.train import train

    config = take(TrainConfig, options)
    with progress(as_json) as show:
        result = train(data, out, config, take_stream(options), show)
    print_notes(result.notes)
    figures = result.trained.figures["validation"]
    if as_json:
        print_json(
            {"path": result.path, "figures": dict(result.trained.figures), "notes": list(result.notes)}
        )
        return
    rows = [
        [name, figures["r2"][name], figures["persistence_r2"][name]] for name in result.trained.stream.names
    ]
    rows.append(["mean", figures["r2_mean"], figures["persistence_r2_mean"]])
    print_table(
        f"{result.path}: R2 of the forecast on {figures['steps']:,} validation rows, state kept throughout",
        ["channel", "LSTM", "persistence"],
        rows,
        f"{len(result.trained.history['loss'])} epochs, MSE {figures['mse']:.4g}; next: edge-lstm quantize",
    )
