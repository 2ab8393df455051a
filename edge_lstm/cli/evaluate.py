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
    progress,
    stream_options,
    take_stream,
    verb,
)
from edge_lstm.errors import ConfigError
from edge_lstm.verbs.evaluate import Evaluation, evaluate


@verb("evaluate")
@click.argument("model", type=FILE, required=False)
@click.argument("data", type=FILE, required=False)
@click.option("--reference", type=FILE, default=None, help="The .keras model, for the float rows.")
@click.option("--suite", type=FILE, default=None, help="A folder with an index.csv, instead of both.")
@click.option("--store", type=FILE, default=None, help="With --suite: results so far, so that it can go on.")
@click.option("--seeds", default=3, show_default=True, help="With --suite: networks for each recording.")
@click.option("--limit", default=0, show_default=True, help="With --suite: recordings a data set; 0 for all.")
@stream_options
@json_option
def command(
    model: Path | None, data: Path | None, reference: Path | None, suite: Path | None, store: Path | None,
    seeds: int, limit: int, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Judge MODEL (.tflite) on the test part of the CSV DATA, beside float and beside simple methods.

    The test part is what training and thresholds have not seen. Says plainly whether the LSTM earns its
    flash.  With --suite every kind of network is trained on every recording of a folder, and judged.
    """
    if suite is not None:
        _suite(suite, store, seeds, limit, as_json, [model, data, reference])
        return
    if model is None or data is None or store is not None:
        raise ConfigError("evaluate: give MODEL and DATA, or --suite with a folder (and --store)")
    result = evaluate(model, data, reference, take_stream(options))
    if as_json:
        print_json(result.to_json())
    else:
        print_notes(result.notes)
        print_evaluation(result)


def _suite(
    folder: Path, store: Path | None, seeds: int, limit: int, as_json: bool, others: list[Path | None]
) -> None:
    from edge_lstm.verbs.suite import SuiteConfig, evaluate_suite

    if any(others) or seeds < 1 or limit < 0:
        raise ConfigError("evaluate: --suite takes no MODEL, DATA or --reference, and 1 seed or more")
    with progress(as_json) as show:
        result = evaluate_suite(folder, SuiteConfig(seeds=tuple(range(seeds)), limit=limit), store, show)
    if as_json:
        print_json(result.to_json())
        return
    print_notes(result.notes)
    datasets = list(next(iter(result.summaries.values())).datasets)
    for figure, title in (("vus_pr", "VUS-PR"), ("event_f1", "event F1")):
        rows = [
            [name, *(s.datasets.get(d, {}).get(figure) for d in datasets), s.mean[figure], s.spread[figure]]
            for name, s in result.summaries.items()
        ]
        print_table(
            f"{folder}: {title} on the test rows, mean over series and {seeds} seeds",
            ["method", *datasets, "mean", "spread"],
            rows,
        )
    click.echo(result.verdict)


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
