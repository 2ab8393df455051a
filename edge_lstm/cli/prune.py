"""edge-lstm prune"""

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
from edge_lstm.training.config import PruneConfig


@verb("prune")
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, required=True, help="The CSV the model was trained on.")
@click.option("-o", "--out", type=FILE, required=True, help="The .keras file to write.")
@options_of(PruneConfig)
@stream_options
@json_option
def command(model: Path, data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Prune MODEL (.keras) and train it on with the removed weights held at zero.

    element removes single weights, block all gates' weights of 4 neighbouring inputs of a unit, units
    whole LSTM units: the matrices shrink.
    """
    from edge_lstm.verbs.prune import prune

    config = take(PruneConfig, options)
    with progress(as_json) as show:
        result = prune(model, data, out, config, take_stream(options), show)
    print_notes(result.notes)
    report = result.pruned.report
    if as_json:
        print_json({"path": result.path, **report.to_mapping()})
        return
    print_table(
        f"{result.path}: pruned by {config.method}",
        ["layer", "sparsity", "parameters", "after", "bytes", "after"],
        [
            [part.name, part.sparsity, part.parameters_before, part.parameters_after, part.bytes_before,
             part.bytes_after]
            for part in (*report.layers, report.total)
        ],
    )  # fmt: skip
    click.echo(
        f"validation loss {report.loss_before:.4g} before, {report.loss_pruned:.4g} when cut, "
        f"{report.loss_after:.4g} after training on; next: edge-lstm quantize"
    )
