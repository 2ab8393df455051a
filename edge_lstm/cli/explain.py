"""edge-lstm explain"""

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


@verb("explain")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("--reference", type=FILE, default=None, help="The float model, for its alarms beside int8.")
@click.option("-o", "--out", type=FILE, default=None, help="HTML page to write; by default none.")
@stream_options
@json_option
def command(
    model: Path, data: Path, reference: Path | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Say what MODEL (.tflite) rests on, what its forecast leaves and why its alarms rise.

    On the test part of the CSV DATA: how far one channel at one lag moves the int8 forecast, attention
    weights, distribution and memory of the errors, precision and recall by threshold, and the channels
    behind each alarm.
    """
    from edge_lstm.verbs.explain import explain

    with progress(as_json) as show:
        result = explain(model, data, out, reference, take_stream(options), show)
    if as_json:
        print_json(result.to_json())
        return
    print_notes(result.data.notes)
    print_explanation(result)


def print_explanation(result: Any) -> None:
    """Channels by what they move, errors, and the whole in words."""
    found = result.findings
    if found.sensitivity is not None:
        sensitivity, table = found.sensitivity, []
        for place in (-sensitivity.shares).argsort(kind="stable"):
            by_lag = sensitivity.by_lag[place]
            table.append(
                [found.inputs[place], f"{sensitivity.shares[place]:.1%}",
                 float(sensitivity.whole[place].mean()), float(by_lag.max()),
                 sensitivity.lags[int(by_lag.argmax())]]
            )  # fmt: skip
        columns = ["channel", "share", "change, whole", "largest, one row", "at lag"]
        print_table(f"{result.model}: change of the forecast, spreads", columns, table)
    if found.residuals:
        rows = [
            [r.name, r.rows, r.spread, r.excess_kurtosis, r.normal_p, r.ljung_box_p,
             f"{r.memory[1]:.2f} at {r.memory[0]}" if r.memory[0] else None]
            for r in found.residuals
        ]  # fmt: skip
        columns = ["channel", "rows", "spread", "kurtosis", "p normal", "p independent", "autocorrelation"]
        print_table(f"{result.model}: errors of the forecast, network units", columns, rows)
    for sentence in found.sentences:
        click.echo(f"- {sentence}")
    if result.page:
        click.echo(f"{result.page}: open it in a browser")
