"""edge-lstm flash"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edge_lstm.cli.common import FILE, json_option, print_json, verb
from edge_lstm.verbs.flash import flash


@verb("flash")
@click.argument("model", type=FILE)
@click.option("--board", required=True, help="A board of 'edge-lstm boards', or a record NAME.toml.")
@click.option("--port", default=None, help="Serial port, for tools that need one.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@json_option
def command(model: Path, board: str, port: str | None, profile: str | None, as_json: bool) -> None:
    """Build the firmware of MODEL (.tflite) and write it to a board with the board's own tool."""
    result = flash(model, board, port, profile)
    if as_json:
        print_json(asdict(result))
        return
    total = result.built.total
    click.echo(f"{result.built.title}: {total.flash:,} bytes of flash, {total.ram:,} of RAM, written by")
    click.echo(f"  {result.command}")
