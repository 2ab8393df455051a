"""edge-lstm demo"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import FILE, Names, json_option, print_json, print_table, progress, verb
from edge_lstm.verbs.demo import Demo, demo


@verb("demo")
@click.option("-o", "--out", type=FILE, default=Path("build/demo"), show_default=True, help="Folder.")
@click.option("--rows", default=20_000, show_default=True, help="Seconds of the pump.")
@click.option("--seed", default=7, show_default=True)
@click.option("--on", type=Names(), default=None, help="Executors to verify; by default all installed.")
@json_option
def command(out: Path, rows: int, seed: int, on: tuple[str, ...] | None, as_json: bool) -> None:
    """The whole road on a synthetic pump: train, prune, quantize, convert, prove, measure, detect."""
    start = time.monotonic()
    with progress(as_json) as show:
        result = demo(out, rows, seed, on, progress=show)
    if as_json:
        print_json(summary(result))
    else:
        print_demo(result, time.monotonic() - start)
    if not result.verification.agrees:
        click.get_current_context().exit(1)


def summary(result: Demo) -> dict[str, Any]:
    """The table as one JSON document."""
    return {
        "table": {name: value for name, *value in table_rows(result)},
        "evaluation": result.evaluation.to_json(),
        "agreement": {a.executor: a.to_json() for a in result.verification.agreements},
    }


def table_rows(result: Demo) -> list[list[Any]]:
    """The one table: figure, float, int8."""
    real, int8 = result.evaluation.real, result.evaluation.int8
    assert real is not None
    rows: list[list[Any]] = [["forecast R2", *(m.forecast.r2 if m.forecast else None for m in (real, int8))]]
    for title, name in (("AUC-PR", "auc_pr"), ("alarms: event F1", "event_f1"), ("faults found", "found"),
                        ("false alarms", "false_alarms"), ("median delay, rows", "delay_rows")):  # fmt: skip
        cells = [getattr(m.alarms, name) if m.alarms else None for m in (real, int8)]
        if name == "found" and int8.alarms:
            cells = [f"{found} of {int8.alarms.events}" for found in cells]
        rows.append([title, *cells])
    for core, m in result.benchmark.cores.items():
        flash = m.code_bytes + m.table_bytes + m.weight_bytes
        rows.append([f"{core}: instructions a step", None, round(m.instructions_per_step["mean"])])
        rows.append(
            [f"{core}: flash / RAM / stack bytes", None, f"{flash:,} / {m.ram_bytes:,} / {m.stack_bytes:,}"]
        )
    rows += [
        [
            f"{a.executor} ({a.profile}): codes that differ",
            None,
            f"{a.network.differing:,} of {a.network.codes:,}",
        ]
        for a in result.verification.agreements
    ]
    return rows


def print_demo(result: Demo, seconds: float) -> None:
    """The one table, the verdict and where to look next."""
    qgraph = result.quantized.qgraph
    shape = " - ".join(str(n) for n in (qgraph.features, *(value.width for value in qgraph.values)))
    print_table(
        f"Pump, {result.written.rows:,} rows, network {shape}, {seconds:.0f} s",
        ["", "float", "int8"],
        table_rows(result),
    )
    for name, reason in result.verification.skipped.items():
        click.echo(f"not run: {name} ({reason})")
    click.echo(
        f"Compiled by {', '.join(sorted({m.compiler for m in result.benchmark.cores.values()}))}, -O2."
    )
    click.echo(result.evaluation.verdict)
    click.echo(f"Look at {result.folder / 'report.html'}; the C is in {result.folder / 'c'}.")
    click.echo(
        f"Next: edge-lstm detect {result.folder / 'model.tflite'} {result.folder / 'pump.csv'} --on cortex-m4"
    )
