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
from edge_lstm.detection.methods import METHODS
from edge_lstm.training.config import LSTM, TrainConfig
from edge_lstm.verbs.train import TrainResult


@verb("train")
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="The .keras file to write.")
@options_of(TrainConfig)
@stream_options
@json_option
def command(data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train an LSTM forecaster, with --ahead 0 an autoencoder, or a simple method, on a CSV's normal rows."""
    from edge_lstm.verbs.train import train

    config = take(TrainConfig, options)
    with progress(as_json) as show:
        result = train(data, out, config, take_stream(options), show)
    print_notes(result.notes)
    if as_json:
        print_json(
            {"path": result.path, "figures": dict(result.trained.figures), "notes": list(result.notes)}
        )
    else:
        print_trained(result)


def print_trained(result: TrainResult) -> None:
    """How well the model forecasts its validation rows, if it forecasts."""
    trained = result.trained
    figures, method = trained.figures.get("validation"), trained.config.method
    name = "LSTM" if method == LSTM else METHODS[method]
    if figures is None:
        click.echo(f"{result.path}: {name}, which rebuilds rows and forecasts none; next: edge-lstm quantize")
        return
    r2, reference = figures["r2"], figures["persistence_r2"]
    rows = [[channel, r2[channel], reference[channel]] for channel in trained.stream.names]
    rows.append(["mean", figures["r2_mean"], figures["persistence_r2_mean"]])
    ahead = trained.config.ahead
    what = f"the forecast {ahead} rows ahead" if ahead > 1 else "the forecast" if ahead else "what is rebuilt"
    epochs = f"{len(trained.history['loss'])} epochs, " if trained.history else ""
    print_table(
        f"{result.path}: R2 of {what} on {figures['steps']:,} validation rows, state kept throughout",
        ["channel", name, "persistence"],
        rows,
        f"{epochs}MSE {figures['mse']:.4g}; next: edge-lstm quantize",
    )
