"""edge-lstm run"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, stream_options, take_stream, verb
from edge_lstm.verbs.run import run


@verb("run")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help=".npy, or .csv for CSV data.")
@click.option("--on", default="numpy", show_default=True, help="Executor.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@stream_options
def command(model: Path, data: Path, out: Path, on: str, profile: str | None, **options: Any) -> None:
    """Run DATA through MODEL (.tflite) and write the outputs.

    DATA is a .npy with int8 codes (steps, channels), one stream, or (windows, timesteps, channels), each
    window from reset; or a CSV in real units.
    """
    result = run(model, data, out, on, profile, take_stream(options))
    click.echo(f"{result.path}: {result.shape} from {result.executor}, profile {result.profile}")
