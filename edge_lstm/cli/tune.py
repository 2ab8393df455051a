"""edge-lstm tune"""

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
from edge_lstm.cli.fit import Bytes
from edge_lstm.tuning.costs import Limits
from edge_lstm.tuning.space import SearchSpace
from edge_lstm.verbs.tune import TuneConfig, Tuned, tune


@verb("tune")
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="The folder to write, or to go on in.")
@click.option(
    "--board", default=None, help="A board, by name or by the path of its record; by default an M4."
)
@click.option("--flash", type=Bytes(), default=None, help="Most bytes of flash, as in 32k.")
@click.option("--ram", type=Bytes(), default=None, help="Most bytes of RAM with its stack, as in 2k.")
@click.option("--instructions", type=int, default=None, help="Most instructions of a sample, raw to alarm.")
@options_of(TuneConfig)
@options_of(SearchSpace)
@stream_options
@json_option
def command(
    data: Path, out: Path, board: str | None, flash: int | None, ram: int | None,
    instructions: int | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Search networks for the CSV DATA that keep limits; write those that no other beats.

    Costs are of the linked firmware and of the emulated core. A network that breaks a limit is not trained.
    Judged on the validation rows: by their labelled faults, or by the forecast where they have none. The
    same command goes on with a search that was interrupted.
    """
    search, config = take(SearchSpace, options), take(TuneConfig, options)
    limits = Limits(flash, ram, instructions)
    try:
        with progress(as_json) as show:
            result = tune(data, out, search, config, board, limits, take_stream(options), show)
    except KeyboardInterrupt:
        click.echo(f"edge-lstm tune: interrupted; the same command goes on with {out}", err=True)
        click.get_current_context().exit(130)
    if as_json:
        print_json(result.to_json())
        return
    print_notes(result.notes)
    _print(result)


def _print(result: Tuned) -> None:
    rows = [
        [str(point.trial), point.quality, point.figures.get("vus_pr"), point.figures.get("event_f1"),
         point.instructions, point.network, point.flash, point.ram, _words(point.params)]
        for point in result.front
    ]  # fmt: skip
    print_table(
        f"{result.folder}: networks for {result.board} that no other beats; quality: {result.judged}",
        ["trial", "quality", "VUS-PR", "event F1", "instr.", "network", "flash", "RAM", "choice"],
        rows,
    )
    counts = result.counts
    click.echo(
        f"{counts['measured']} networks measured, {counts['rejected']} beyond a limit, "
        f"{counts['given_up']} given up in training, {counts['failed']} failed"
    )
    if result.front:
        click.echo(f"models: {result.folder}/TRIAL/model.tflite; table and page: front.csv, front.html")
    else:
        click.echo("no network that was measured keeps the limits; allow more, or try smaller units")


def _words(params: Any) -> str:
    """A point in few words, as in 2x8 line int4 -25%."""
    size = f"{params['layers']}x{params['units']}" if params["layers"] > 1 else str(params["units"])
    parts = [size, "line" if params["line"] == "with" else "", params["scheme"],
             f"-{100 * params['sparsity']:.0f}%" if params["sparsity"] else "",
             *(f"no {name.split(':')[1]}" for name, kept in params.items() if kept is False)]  # fmt: skip
    return " ".join(part for part in parts if part)
