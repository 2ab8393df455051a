"""edge-lstm convert"""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.common import FILE, verb
from edge_lstm.verbs.convert import TARGETS, convert


@verb("convert")
@click.argument("model", type=FILE)
@click.option("--to", type=click.Choice(TARGETS), default="c", show_default=True)
@click.option("-o", "--out", type=FILE, required=True, help="Folder for C, file for .tflite.")
@click.option("--timesteps", type=int, default=None, help="Rows an invocation of the .tflite takes.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
def command(model: Path, to: str, out: Path, timesteps: int | None, profile: str | None) -> None:
    """Write MODEL (.tflite) as C99 source with its runtime, or as another .tflite.

    The C needs no heap, no libc but string.h and no float; the same MODEL gives the same bytes.
    """
    for path, size in convert(model, out, to, timesteps, profile).files.items():
        click.echo(f"{path}: {size:,} bytes")
