"""edge-lstm monitor"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, json_option, stream_options, take_stream, verb
from edge_lstm.errors import ConfigError
from edge_lstm.verbs.monitor import Sample, monitor

REDRAW_S = 0.1
BAR = 40  # characters, twice the threshold


@verb("monitor")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("--port", default=None, help="The board's serial port: /dev/ttyACM0, COM3, socket://HOST:PORT.")
@click.option("--on", default=None, help="Another executor than a serial port, such as qemu:mps2-an386.")
@click.option("--rate", default=0.0, help="Rows a second; 0 is as fast as the line goes.", show_default=True)
@click.option("-o", "--out", type=FILE, default=None, help="CSV of every row with score, threshold, alarm.")
@stream_options
@json_option
def command(
    model: Path,
    data: Path,
    port: str | None,
    on: str | None,
    rate: float,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Send the CSV DATA to the board that runs MODEL (.tflite), row by row, and watch it live.

    Shows each channel's value and share, the score beside its threshold, alarms and rows a second. Without a
    terminal each alarm is one line; with --json each row is one JSON line. Ctrl-C ends it and keeps the CSV.
    """
    if (port is None) == (on is None):
        raise ConfigError("give --port with the board's serial port, or --on with another executor")
    executor = on or f"serial:{port}"
    with _view(as_json) as show:
        result = monitor(model, data, executor, rate, out, take_stream(options), show)
    if not as_json:
        if result.saturated:
            click.echo(f"{result.saturated:,} values lay outside the calibrated range")
        click.echo(
            f"{result.rows:,} rows on {result.executor} in {result.seconds:.1f} s, {result.alarms} alarms"
        )


@contextmanager
def _view(as_json: bool) -> Iterator[Callable[[Sample], None]]:
    if as_json:
        yield lambda sample: click.echo(json.dumps(asdict(sample)))
    elif not sys.stdout.isatty():
        yield _Lines()
    else:
        from rich.live import Live

        with Live(refresh_per_second=1 / REDRAW_S) as live:
            drawn = 0.0

            def draw(sample: Sample) -> None:
                nonlocal drawn
                if time.monotonic() - drawn > REDRAW_S:
                    drawn = time.monotonic()
                    live.update(live_table(sample))

            yield draw


class _Lines:
    """One line as an alarm starts, one as it ends."""

    def __init__(self) -> None:
        self._alarm = False

    def __call__(self, sample: Sample) -> None:
        if sample.alarm != self._alarm:
            self._alarm = sample.alarm
            leading = max(sample.contributions, key=lambda name: sample.contributions[name])
            what = f"ALARM  score {sample.score:.2f} over {sample.threshold:.2f}, led by {leading}"
            click.echo(f"{sample.time}  {what if sample.alarm else 'clear'}")


def live_table(sample: Sample) -> Any:
    """A rich table: channels with value and share of the score, then the score against its threshold."""
    from rich.table import Table

    state = "[bold red]ALARM[/]" if sample.alarm else "[green]normal[/]"
    table = Table(title=f"{sample.time}   {state}   {sample.rate:,.0f} rows/s", title_justify="left")
    for column in ("channel", "value", "share of the score"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, value in sample.values.items():
        share = sample.contributions[name]
        shown = "missing" if value is None else f"{value:.5g}"
        table.add_row(name, shown, f"{'█' * round(share * BAR / 2):<{BAR // 2}} {share:4.0%}")
    if sample.saturated:
        table.caption = f"{sample.saturated:,} values so far outside the calibrated range"
    reach = sample.score / sample.threshold if sample.threshold else 0.0
    filled = min(round(reach * BAR / 2), BAR)
    bar = "█" * filled + "·" * (BAR - filled)
    table.add_section()
    table.add_row(
        "score", f"{sample.score:.2f}", f"{bar[: BAR // 2]}|{bar[BAR // 2 :]} of {sample.threshold:.2f}"
    )
    return table
