"""edge-lstm export"""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.common import FILE, verb
from edge_lstm.verbs.export import export
from firmware_tools.export import FORMATS


@verb("export")
@click.argument("model", type=FILE)
@click.option("--format", "package_format", type=click.Choice(list(FORMATS)), required=True)
@click.option("-o", "--out", type=FILE, required=True, help="Folder, .zip, or .pack for cmsis-pack.")
def command(model: Path, package_format: str, out: Path) -> None:
    """Write MODEL as a library of the ecosystem that your project lives in.

    The package holds the model's C, its runtime, what the ecosystem's tools ask for, and an example that
    turns sensor values into codes, steps the network and prints. The same MODEL gives the same bytes.
    """
    done = export(model, out, package_format)
    size = sum(done.files.values())
    click.echo(
        f"{done.out}: {package_format} package, {len(done.files)} files, {size:,} bytes; see README.md in it"
    )
