"""edge-lstm detect"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, json_option, print_notes, stream_options, take_stream, verb
from edge_lstm.detection.events import Event
from edge_lstm.errors import ConfigError
from edge_lstm.verbs.detect import Detected, detect, detect_files


@verb("detect")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--on", default="numpy", show_default=True, help="Executor that computes network and scores.")
@click.option("-o", "--out", type=FILE, default=None, help="CSV with score, threshold, alarm of every row.")
@stream_options
@json_option
def command(
    model: Path, data: tuple[Path, ...], on: str, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Score the CSV DATA row by row with the detector of MODEL (.tflite); print alarms as they happen.

    A score is in spreads of normal rows: the root of its mean over channels. With --json each event is one
    JSON line. Of several CSVs, or of those in a folder, one line each is printed, or one JSON line with all
    events.
    """
    if len(data) > 1 or data[0].is_dir():
        if out is not None:
            raise ConfigError("--out takes the rows of one CSV; give DATA a single file, or leave --out away")
        for file, found in detect_files(model, data, on, take_stream(options)):
            print_notes(tuple(f"{file}: {note}" for note in found.notes))
            click.echo(json.dumps(_summary(file, found)) if as_json else f"{file}: {_counts(found)}")
        return

    def show(event: Event) -> None:
        click.echo(json.dumps(event.to_dict()) if as_json else _line(event))

    result = detect(model, data[0], on, out, take_stream(options), show)
    print_notes(result.notes)
    if not as_json:
        click.echo(_counts(result))


def _counts(found: Detected) -> str:
    return (
        f"{found.rows:,} rows on {found.executor}: {len(found.events)} alarms, "
        f"{int(found.detection.alarm.sum()):,} rows in alarm"
    )


def _summary(file: Path, found: Detected) -> dict[str, Any]:
    alarm_rows = int(found.detection.alarm.sum())
    events = [event.to_dict() for event in found.events]
    return {"file": str(file), "rows": found.rows, "alarm_rows": alarm_rows, "events": events}


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
