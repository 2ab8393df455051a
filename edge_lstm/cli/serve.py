"""edge-lstm serve"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, json_option, verb
from edge_lstm.verbs.serve import EXECUTORS, Ready, ServeOptions, serve

DEFAULTS = ServeOptions()


@verb("serve")
@click.argument("model", type=FILE)
@click.option(
    "--on",
    type=click.Choice(EXECUTORS),
    default=DEFAULTS.on,
    show_default=True,
    help="Executor: host is the model's C, compiled here; numpy needs no compiler and is slower.",
)
@click.option("--host", default=DEFAULTS.host, show_default=True, help="Address of HTTP.")
@click.option("--port", default=DEFAULTS.port, show_default=True, help="Port of HTTP; 0 takes a free one.")
@click.option(
    "--token-file",
    type=FILE,
    default=None,
    help="Lines name:token; HTTP and the page then ask for one. Needed on a host that others reach.",
)
@click.option("--state", type=FILE, default=None, help="File that keeps all streams; by default MODEL.state.")
@click.option("--mqtt", default=None, help="Broker: mqtt://[user@]host[:port], or mqtts:// with TLS.")
@click.option("--mqtt-password-file", type=FILE, default=None, help="File whose first line is the password.")
@click.option("--client", default=None, help="Names the broker's session; by default edge-lstm-NAME.")
@click.option("--prefix", default=DEFAULTS.prefix, show_default=True, help="Prefix of all topics.")
@click.option("--scores/--no-scores", default=DEFAULTS.scores, help="Publish every score, not only alarms.")
@click.option(
    "--gap-factor",
    default=DEFAULTS.gap_factor,
    show_default=True,
    help="Periods without a row before a stream begins anew.",
)
@click.option("--most-streams", default=DEFAULTS.most_streams, show_default=True, help="More are refused.")
@json_option
def command(model: Path, as_json: bool, **options: Any) -> None:
    """Score many streams with the detector of MODEL (.tflite): MQTT and HTTP in, alarms and a live page out.

    Rows come as JSON, {"time": seconds or ISO 8601, "values": {channel: number or null}}, to the topic
    PREFIX/STREAM/rows or to POST /streams/STREAM/rows; "raw" in place of "values" takes the sensors'
    integers, "seq" in place of "time" a running number, and a list of such rows is taken too. Alarms go to
    PREFIX/STREAM/alarm, what was wrong with a payload to PREFIX/STREAM/error. A row counts once: one whose
    time or number is not above the last is left out. Ctrl-C ends it.
    """  # fmt: skip

    def show(ready: Ready) -> None:
        if as_json:
            click.echo(json.dumps({"event": "ready", **asdict(ready)}))
        else:
            click.echo(
                f"{ready.url} serves {model.name} on {ready.executor}, {ready.streams:,} streams known"
            )

    done = serve(model, ServeOptions(**options), show)
    if as_json:
        click.echo(json.dumps({"event": "end", **asdict(done)}))
    else:
        click.echo(
            f"{done.rows:,} rows of {done.streams:,} streams, {done.alarms:,} alarms, "
            f"{done.duplicates:,} duplicate rows, {done.malformed:,} malformed payloads"
        )
