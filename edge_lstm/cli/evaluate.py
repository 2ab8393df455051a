"""edge-lstm evaluate"""

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
    stream_options,
    take_stream,
    verb,
)
from edge_lstm.verbs.evaluate import Evaluation, evaluate


@verb("evaluate")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE)
@click.option("--reference", type=FILE, default=None, help="The .keras model, for the float rows.")
@stream_options
@json_option
def command(model: Path, data: Path, reference: Path | None, as_json: bool, **options: Any) -> None:
    """Judge MODEL (.tflite) on the test part of the CSV DATA, beside float and beside simple methods.

    The test part is what training and thresholds have not seen. Says plainly whether the LSTM earns its
    flash.
    """
    result = evaluate(model, data, reference, take_stream(options))
    if as_json:
        print_json(result.to_json())
    else:
        print_notes(result.notes)
        print_evaluation(result)


def print_evaluation(result: Evaluation) -> None:
    """Forecast and alarms of every method, and the verdict."""
    tested = int(result.rows.test.sum())
    forecasts = [
        [name, f.r2, f.mse, f.rmse, f.mae]
        for name, method in result.methods.items()
        if (f := method.forecast) is not None
    ]
    print_table(
        f"{result.model}: forecast of the next sample on {tested:,} test rows, normal ones, in network units",
        ["method", "R2", "MSE", "RMSE", "MAE"],
        forecasts,
    )
    alarms = [
        [name, a.auc_pr, a.f1, a.event_precision, a.event_recall, a.event_f1, f"{a.found} of {a.events}",
         a.false_alarms_per_1000, a.delay_rows]
        for name, method in result.methods.items()
        if (a := method.alarms) is not None
    ]  # fmt: skip
    if alarms:
        print_table(
            f"{result.model}: anomalies in the test rows; delay in rows, false alarms per 1,000 normal rows",
            ["method", "AUC-PR", "point F1", "event P", "event R", "event F1", "found", "false", "delay"],
            alarms,
        )
    click.echo(result.verdict)
