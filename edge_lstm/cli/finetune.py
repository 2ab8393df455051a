"""edge-lstm finetune"""

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
    progress,
    stream_options,
    take,
    take_stream,
    verb,
)
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import FinetuneConfig


@verb("finetune")
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, required=True, help="The CSV the model was trained on.")
@click.option("-o", "--out", type=FILE, required=True, help="The .keras file to write.")
@options_of(FinetuneConfig)
@options_of(QuantizeConfig)
@stream_options
@json_option
def command(model: Path, data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Train MODEL (.keras) on with the integers of its quantization (QAT).

    Give quantize the same options afterwards: --profile, --scheme, --weights and the rest.
    """
    from edge_lstm.verbs.finetune import finetune

    config, quantizer = take(FinetuneConfig, options), take(QuantizeConfig, options)
    with progress(as_json) as show:
        result = finetune(model, data, out, quantizer, config, take_stream(options), show)
    print_notes(result.notes)
    losses = dict(result.finetuned.losses)
    if as_json:
        print_json({"path": result.path, "losses": losses, "notes": list(result.notes)})
        return
    click.echo(
        f"{result.path}: validation loss of the integers {losses['before']:.4g} before, "
        f"{losses['after']:.4g} after; next: edge-lstm quantize with --profile {quantizer.profile} "
        f"--scheme {quantizer.scheme} --weights {quantizer.weights}"
    )
