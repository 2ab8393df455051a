"""edge-lstm detect"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, json_option, print_notes, stream_options, take_stream, verb
from edge_lstm.detection.events import Event
from edge_lstm.verbs.detect import detect


@verb("detect")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("--on", default="numpy", show_default=True, help="Executor that computes network and scores.")
@click.option("-o", "--out", type=FILE, default=None, help="CSV with score, threshold, alarm of every row.")
@stream_options
@json_option
def command(model: Path, data: Path, on: str, out: Path | None, as_json: bool, **options: Any) -> None:
    """Score the CSV DATA row by row with the detector of MODEL (.tflite); print alarms as they happen.

    A score is the root mean square over channels of the smoothed, standardized forecast error. With --json
    each event is one JSON line.
    """

    def show(event: Event) -> None:
        click.echo(json.dumps(event.to_dict()) if as_json else _line(event))

    result = detect(model, data, on, out, take_stream(options), show)
    print_notes(result.notes)
    if not as_json:
        alarm_rows = int(result.detection.alarm.sum())
        click.echo(
            f"{result.rows:,} rows on {result.executor}: {len(result.events)} alarms, "
            f"{alarm_rows:,} rows in alarm"
        )


def _line(event: Event) -> str:
    when = event.start or f"row {event.start_row}"
    if event.stop_row is None:
        return (
            f"{when}  ALARM  score {event.peak_score:.2f} over {event.threshold:.2f}, led by {event.leading}"
        )
    shares = ", ".join(
        f"{name} {share:.0%}"
        for name, share in sorted(event.contributions.items(), key=lambda item: -item[1])[:3]
    )
    until = event.stop or f"row {event.stop_row}"
    return f"{when}  clear  at {until}, peak {event.peak_score:.2f}: {shares}"
