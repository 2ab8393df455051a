"""edge-lstm dataset"""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.common import FILE, verb
from edge_lstm.verbs.dataset import KINDS, dataset


@verb("dataset")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("out", type=FILE)
@click.option("--rows", default=20_000, show_default=True, help="Rows, one a second.")
@click.option("--seed", default=7, show_default=True)
def command(kind: str, out: Path, rows: int, seed: int) -> None:
    """Write a labelled synthetic recording to the CSV OUT: a pump with faults of six kinds."""
    written = dataset(kind, out, rows, seed)
    kinds = ", ".join(f"{count} {name}" for name, count in written.faults.items())
    click.echo(f"{written.path}: {written.rows:,} rows, {written.fault_rows:,} in faults ({kinds})")
