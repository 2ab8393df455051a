"""edge-lstm features"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edge_lstm.cli.common import FILE, Verb, json_option, print_json, print_notes, progress
from edge_lstm.cli.config import read_toml


@click.command("features", cls=Verb)
@click.argument("data", type=FILE)
@click.option("--config", type=FILE, required=True, help="TOML file of the stage: name, rate, hop, channels.")
@click.option("-o", "--out", type=FILE, required=True, help="CSV of integer rows to write.")
@click.option("--c", "c", type=FILE, default=None, help="Folder to write the stage's C into.")
@click.option(
    "--time",
    default=None,
    help="Time column; empty for none, as where stamps are coarser than samples; by default found by itself.",
)
@click.option(
    "--label", default=None, help="Label column (0/1); empty for none; by default found by its name."
)
@json_option
def command(
    data: Path, config: Path, out: Path, c: Path | None, time: str | None, label: str | None, as_json: bool
) -> None:
    """Turn the samples of the CSV DATA into rows of features, in the integers of the device.

    The rows are what train, quantize and verify take; the C computes the same rows from the same samples.
    """
    from edge_lstm.extraction.config import FeatureConfig
    from edge_lstm.verbs.features import features

    stage = FeatureConfig.from_mapping(read_toml(config), str(config))
    with progress(as_json) as report:
        result = features(data, stage, out, c, time, label, report)
    print_notes(result.notes)
    if as_json:
        print_json(asdict(result))
        return
    click.echo(
        f"{result.out}: {result.rows:,} rows of {len(result.columns)} columns from {result.samples:,} samples"
    )
    if result.left_over:
        click.echo(f"{result.left_over:,} samples at the ends of {result.segments} segments fill no row")
    if c is not None:
        click.echo(f"{c}: {', '.join(result.c_files)}")
