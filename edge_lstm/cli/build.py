"""edge-lstm build"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edge_lstm.cli.common import FILE, json_option, print_json, print_table, verb
from edge_lstm.verbs.build import build


@verb("build")
@click.argument("model", type=FILE)
@click.option("--board", required=True, help="A name of 'edge-lstm boards', or the path of a record.")
@click.option("-o", "--out", type=FILE, required=True, help="The firmware: NAME.elf, .hex, .bin or .uf2.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@click.option("--mlperf", is_flag=True, help="Answer the runner of MLCommons Tiny, not the other verbs.")
@json_option
def command(model: Path, board: str, out: Path, profile: str | None, mlperf: bool, as_json: bool) -> None:
    """Build the firmware of MODEL (.tflite) for a board and print what it takes of flash and RAM.

    A firmware that does not fit is refused with its figures, and nothing is written.
    """
    result = build(model, out, board, profile, mlperf)
    if as_json:
        print_json(asdict(result))
        return
    rows: list[list[object]] = [
        [size.what, size.flash, size.ram] for size in (*result.sizes, result.total, result.available)
    ]
    note = "stack: the deepest chain of calls and an interrupt, from the compiler's frames"
    print_table(f"{result.path}: firmware for {result.title}, bytes", ["", "flash", "RAM"], rows, note)
