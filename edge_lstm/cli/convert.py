"""edge-lstm convert"""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.common import FILE, verb
from edge_lstm.verbs.convert import TARGETS, convert


@verb("convert")
@click.argument("model", type=FILE)
@click.option("--to", type=click.Choice(TARGETS), default=None, help="By default as the suffix of -o says.")
@click.option("-o", "--out", type=FILE, required=True, help="Folder for C, else a .tflite or .onnx file.")
@click.option("--timesteps", type=int, default=None, help="Rows an invocation of the .tflite takes.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
def command(model: Path, to: str | None, out: Path, timesteps: int | None, profile: str | None) -> None:
    """Write MODEL as C99 source with its runtime, as .tflite or as .onnx.

    A float MODEL (Keras, ONNX, .safetensors, float .tflite) becomes .onnx; C and .tflite hold integers:
    quantize it first. The C needs no heap, no libc but string.h and no float; the same MODEL gives the
    same bytes.
    """
    for path, size in convert(model, out, to, timesteps, profile).files.items():
        click.echo(f"{path}: {size:,} bytes")
