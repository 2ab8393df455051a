"""edge-lstm report"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, progress, stream_options, take_stream, verb
from edge_lstm.verbs.report import report


@verb("report")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, default=Path("report.html"), show_default=True)
@click.option("--reference", type=FILE, default=None, help="The .keras model, for what quantization did.")
@stream_options
def command(model: Path, data: Path, out: Path, reference: Path | None, **options: Any) -> None:
    """Evaluate, verify and measure MODEL (.tflite) on the CSV DATA; write one self-contained HTML page."""
    with progress() as show:
        written = report(model, data, out, reference, take_stream(options), show)
    click.echo(f"{written.path}: {written.size_bytes:,} bytes; open it in a browser")
