"""edge-lstm evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from edge_lstm.verbs.suite_result import SuiteEvaluation


@verb("evaluate")
@click.argument("model", type=FILE, required=False)
@click.argument("data", type=FILE, required=False)
@click.option("--reference", type=FILE, default=None, help="The .keras model, for the float rows.")
@click.option("--suite", type=FILE, default=None, help="A folder with an index.csv, instead of both.")
@click.option("--store", type=FILE, default=None, help="With --suite: results so far, so that it can go on.")
@click.option("--seeds", default=3, show_default=True, help="With --suite: networks for each recording.")
@click.option("--limit", default=0, show_default=True, help="With --suite: recordings a data set; 0 for all.")
@click.option(
    "--costs/--no-costs",
    default=True,
    show_default=True,
    help="Count instructions, flash and RAM on a Cortex-M4 of every method that has C.",
)
@click.option("-o", "--out", type=FILE, default=None, help="With --suite: an HTML page, too.")
@stream_options
@json_option
def command(
    model: Path | None, data: Path | None, reference: Path | None, suite: Path | None, store: Path | None,
    seeds: int, limit: int, out: Path | None, costs: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Judge MODEL (.tflite) on the test part of the CSV DATA, beside float and beside simple methods.

    The test part is what training and thresholds have not seen. Says plainly whether the LSTM earns its
    flash, and else which simple method to ship and how.  With --suite every kind of network is trained on
    every recording of a folder, and judged; with --store an interrupted run goes on where it was.
    """
    if suite is not None:
        _suite(suite, store, seeds, limit, out, as_json, [model, data, reference])
        return
    if model is None or data is None or store is not None or out is not None:
        raise ConfigError("evaluate: give MODEL and DATA, or --suite with a folder (and --store, -o)")
    with progress(as_json) as show:
        result = evaluate(model, data, reference, take_stream(options), costs, show)
    if as_json:
        print_json(result.to_json())
    else:
        print_notes(result.notes)
        print_evaluation(result)


def _suite(
    folder: Path,
    store: Path | None,
    seeds: int,
    limit: int,
    out: Path | None,
    as_json: bool,
    others: list[Path | None],
) -> None:
    from edge_lstm.verbs.suite import evaluate_suite
    from edge_lstm.verbs.suite_networks import SuiteConfig
    from edge_lstm.verbs.suite_result import check_page, write_page

    if any(others) or seeds < 1 or limit < 0:
        raise ConfigError("evaluate: --suite takes no MODEL, DATA or --reference, and 1 seed or more")
    if out is not None:
        check_page(out)  # before the work of an hour
    with progress(as_json) as show:
        result = evaluate_suite(folder, SuiteConfig(seeds=tuple(range(seeds)), limit=limit), store, show)
    if out is not None:
        write_page(result, out)
    if as_json:
        print_json(result.to_json())
    else:
        print_notes(result.notes)
        print_suite(result)


def print_suite(result: SuiteEvaluation) -> None:
    """VUS-PR and event F1 of every method by data set, where a simple one is ahead, and the verdict."""
    for figure, title in (("vus_pr", "VUS-PR"), ("event_f1", "event F1")):
        rows = []
        for name, s in result.summaries.items():
            figures = [*(s.datasets.get(d, {}).get(figure) for d in result.datasets), s.mean[figure]]
            rows.append([name, *("-" if f is None else f"{f:.3f}" for f in (*figures, s.spread[figure]))])
        print_table(
            f"{result.folder}: {title} on the test rows, mean over series and {len(result.seeds)} seeds",
            ["method", *result.datasets, "mean", "spread"],
            rows,
        )
    for sentence in result.shortfalls:
        click.echo(sentence)
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
        f"{result.model}: forecast of {tested:,} test rows, normal ones, in network units",
        ["method", "R2", "MSE", "RMSE", "MAE"],
        forecasts,
    )
    _print_alarms(result)
    click.echo(result.verdict)


def _print_alarms(result: Evaluation) -> None:
    """Quality and cost of every method side by side."""
    costs = any(method.cost for method in result.methods.values())
    alarms = []
    for name, method in result.methods.items():
        a, cost = method.alarms, method.cost
        if a is not None or cost is not None:
            quality: list[Any] = [None] * 6
            if a is not None:
                found = f"{a.found} of {a.events}"
                quality = [a.vus_pr, a.auc_pr, a.event_f1, found, a.false_alarms_per_1000, a.delay_rows]
            price = [round(cost.instructions), cost.flash_bytes, cost.ram_bytes] if cost else [None] * 3
            alarms.append([name, *quality, *(price if costs else [])])
    if alarms:
        title = f"{result.model}: anomalies in the test rows; false alarms per 1,000 normal rows, delay"
        if costs:
            title += ";\ninstructions a row on a Cortex-M4, bytes of flash and of RAM without stack"
        columns = ["method", "VUS-PR", "AUC-PR", "event F1", "found", "false", "delay"]
        print_table(title, [*columns, *(["instr.", "flash", "RAM"] if costs else [])], alarms)
