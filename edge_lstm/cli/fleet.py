"""edge-lstm fleet"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edge_lstm.cli.common import (
    FILE,
    figure,
    json_option,
    options_of,
    print_json,
    print_table,
    progress,
    stream_options,
    take,
    take_stream,
    verb,
)
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.fleet import Fleet, FleetConfig

WORST = 10  # assets that are printed; the page has all


@verb("fleet")
@click.argument("manifest", type=FILE)
@click.option("-o", "--out", type=FILE, required=True, help="The folder to write, or to go on in.")
@click.option("--base", type=FILE, default=None, help="A .keras file of this toolkit to start each from.")
@click.option("--address", default=None, help="A Ray cluster that shares these files; by default none.")
@options_of(FleetConfig)
@options_of(TrainConfig)
@options_of(QuantizeConfig)
@options_of(DetectorConfig)
@stream_options
@json_option
def command(
    manifest: Path, out: Path, base: Path | None, address: str | None, as_json: bool, **options: Any
) -> None:  # fmt: skip
    """Train, quantize and verify a model for each asset of the CSV MANIFEST (columns asset,data).

    Writes ASSET/model.keras and ASSET/model.tflite, fleet.jsonl with a line an asset, and the page
    fleet.html. An asset that fails stops no other; the exit code is then 1. The same command goes on with
    what is left or has changed.
    """
    from edge_lstm.verbs.fleet import fleet

    ctx = click.get_current_context()
    train = _training(ctx, options, base)
    config, quantizer = take(FleetConfig, options), take(QuantizeConfig, options)
    detector, stream = take(DetectorConfig, options), take_stream(options)
    try:
        with progress(as_json) as show:
            result = fleet(manifest, out, config, train, quantizer, detector, stream, base, address, show)
    except KeyboardInterrupt:
        click.echo(f"edge-lstm fleet: interrupted; the same command goes on with {out}", err=True)
        ctx.exit(130)
    if as_json:
        print_json(result.to_json())
    else:
        print_fleet(result)
    ctx.exit(1 if result.failed else 0)


def _training(ctx: click.Context, options: dict[str, Any], base: Path | None) -> TrainConfig | None:
    """The options of training; None beside a base where none was given."""
    names = [name for name in TrainConfig.__dataclass_fields__ if name in options]
    given = any(ctx.get_parameter_source(name) is not ParameterSource.DEFAULT for name in names)
    config = take(TrainConfig, options)
    return config if base is None or given else None


def print_fleet(result: Fleet) -> None:
    """Failures, the worst assets, and what all of them came to."""
    from edge_lstm.reporting.fleet import COLUMNS, judged_by, middle, worst_first

    failed = [r for r in result.results if r["error"] is not None]
    for one in failed:
        click.echo(f"failed: {one['asset']}: {one['error']}", err=True)
    trained = worst_first([r for r in result.results if r["error"] is None])
    shown = ("vus_pr", "event_f1", "r2", "alarms", "false_alarms", "size_bytes")
    if trained:
        middles = [middle(trained, name) for name in shown]
        rows = [[one["asset"], *(one[name] for name in shown)] for one in trained[:WORST]]
        print_table(
            f"{result.folder}: worst of {len(trained):,} assets by {COLUMNS[judged_by(trained)]}; medians",
            ["asset", *(COLUMNS[name] for name in shown)],
            [*rows, ["median", *middles]],
        )
    click.echo(
        f"{len(trained):,} assets trained ({result.done_before:,} of them before), {len(failed):,} failed"
        + (f"; {figure(result.seconds_each)} s an asset" if result.seconds_each is not None else "")
    )
    click.echo(f"{result.page}: open it in a browser")
