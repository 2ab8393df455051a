"""edge-lstm study"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import (
    FILE,
    json_option,
    print_json,
    print_notes,
    print_table,
    progress,
    stream_options,
    take_stream,
    verb,
)


@verb("study")
@click.argument("data", type=FILE)
@click.option("-o", "--out", type=FILE, default=None, help="HTML page to write; by default none.")
@click.option("--rate-hz", type=float, default=None, help="Rows a second, where the CSV has no clock.")
@stream_options
@json_option
def command(data: Path, out: Path | None, rate_hz: float | None, as_json: bool, **options: Any) -> None:
    """Say whether an LSTM is worth trying on the CSV DATA, and how.

    Examines clock, channels, memory, redundancy and how far simple methods forecast; nothing is trained that
    is kept.  Constant channels are examined and named whatever --constant says, unless it refuses them.
    """
    from edge_lstm.verbs.study import study

    with progress(as_json) as show:
        result = study(data, out, rate_hz, take_stream(options), show)
    if as_json:
        print_json(result.to_json())
        return
    print_notes(result.notes)
    print_study(result)


def print_study(result: Any) -> None:
    """Channels, forecasts, the advice and the commands to go on with."""
    findings, forecasts = result.findings, result.findings.forecasts
    rows = []
    for channel in findings.channels:
        memory = findings.memory.get(channel.name)
        rows.append(
            [channel.name, channel.kind, f"{channel.missing:.2%}", channel.low, channel.high,
             *((memory.verdict, memory.order, memory.season or None) if memory else (None, None, None))]
        )  # fmt: skip
    columns = ["channel", "kind", "missing", "low", "high", "in time", "PACF ends", "season"]
    print_table(f"{result.data}: channels", columns, rows)
    if forecasts is not None:
        table = [[name, *(values.get(name) for values in forecasts.r2.values())] for name in forecasts.error]
        table.append(["mean", *(forecasts.mean(method) for method in forecasts.r2)])
        title = f"{result.data}: R2 of the next row on {forecasts.rows:,} rows not learnt from"
        print_table(title, ["channel", *forecasts.r2], table)
    for _, text in result.advice.sentences:
        click.echo(f"- {text}")
    click.echo(result.advice.verdict)
    for line in result.advice.commands:
        click.echo(f"  {line}")
    if result.page:
        click.echo(f"{result.page}: open it in a browser")
