"""edge-lstm fit"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, json_option, print_json, print_table, progress, verb
from edge_lstm.verbs.fit import Fit, Largest, fit

HEADS = ["board", "core", "fits", "flash", "of", "RAM", "of"]
FACTORS = {"k": 1 << 10, "m": 1 << 20}


class Bytes(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number of bytes, as in 32768, 32k or 1m."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower().removesuffix("b")
        factor = FACTORS.get(text[-1:], 1)
        try:
            return int(float(text[:-1] if factor > 1 else text) * factor)
        except (ValueError, OverflowError):
            self.fail(f"'{value}' is no number of bytes, as in 32768, 32k or 1m", param, ctx)


@verb("fit")
@click.argument("model", type=FILE)
@click.option("--board", default=None, help="One board, by name or by the path of its record, not all.")
@click.option("--flash", type=Bytes(), default=None, help="Flash that there is, in place of the board's.")
@click.option("--ram", type=Bytes(), default=None, help="RAM that there is, in place of the board's.")
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@json_option
def command(
    model: Path, board: str | None, flash: int | None, ram: int | None, profile: str | None, as_json: bool
) -> None:
    """Print which boards take the firmware of MODEL (.tflite).

    With --board, --flash or --ram: whether it fits there, and the most units that networks of its shape may
    have. Limits without a board are tried on a Cortex-M4. Every figure is of a linked firmware.
    """
    with progress(as_json) as report:
        result = fit(model, board, flash, ram, profile, report)
    if as_json:
        print_json(asdict(result))
        return
    rows: list[list[object]] = [
        [row.board, row.core, {True: "yes", False: "no", None: "-"}[row.fits], row.flash, row.flash_size,
         row.ram, row.ram_size]
        for row in result.boards
    ]  # fmt: skip
    title = f"model '{result.model}', {_units(result.units)}: bytes of the firmware, RAM with its stack"
    print_table(title, HEADS, rows)
    for row in result.boards:
        if row.why:
            click.echo(f"{row.board}: {row.why}")
    _print_largest(result)


def _print_largest(result: Fit) -> None:
    most: Largest | None = result.largest
    if most is None:
        return
    place = f"{most.flash_size:,} bytes of flash and {most.ram_size:,} of RAM ({most.board})"
    if not most.units:
        click.echo(f"not even one unit fits {place}")
        return
    least = "at least " if most.limited else ""
    click.echo(
        f"largest that fits {place}: {least}{_units(most.units)}, "
        f"{most.flash:,} bytes of flash and {most.ram:,} of RAM"
    )


def _units(units: tuple[int, ...]) -> str:
    return f"LSTM({', '.join(str(each) for each in units)})" if units else "no LSTM"
