"""edge-lstm bench"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import (
    FILE,
    Names,
    json_option,
    print_json,
    print_notes,
    print_table,
    progress,
    verb,
)
from edge_lstm.verbs.bench import (
    DEFAULT_CORES,
    MAX_RISE,
    MEASURES,
    TIMED,
    Benchmark,
    Change,
    bench,
    compare,
    read_benchmark,
)
from firmware_tools.build import OPTIMIZE
from firmware_tools.phases import PHASES


@verb("bench")
@click.argument("model", type=FILE)
@click.option(
    "--on",
    type=Names(),
    default=",".join(DEFAULT_CORES),
    show_default=True,
    help=f"Cores: {', '.join(MEASURES)}; {' or '.join(TIMED)}: the C here against LiteRT, timed.",
)
@click.option("--steps", default=200, show_default=True, help="Steps whose instructions are counted.")
@click.option("--seed", default=0, show_default=True)
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@click.option(
    "--optimize",
    type=click.Choice(list(OPTIMIZE)),
    default="speed",
    show_default=True,
    help=f"For what the compiler optimizes: {', '.join(f'{k} ({v})' for k, v in OPTIMIZE.items())}.",
)
@click.option(
    "--compare",
    "old",
    type=FILE,
    help=f"Output of --json, saved before; exit 1 when a figure rose by more than {MAX_RISE:.0%}.",
)
@json_option
def command(as_json: bool, old: Path | None, **options: Any) -> None:
    """Link MODEL (.tflite) for each core: instructions per step and phase, flash, RAM and stack.

    Instructions are counted one by one in the emulator, sizes come from the linked ELF, the stack from a
    painted stack. The counts repeat exactly. A MAC is a product of a weight in an LSTM or dense layer.
    """
    before = read_benchmark(old) if old else None
    with progress(as_json) as show:
        result = bench(progress=show, **options)
    after = result.to_json()
    changes = compare(before, after) if before else []
    if as_json:
        print_json(after)
    else:
        print_bench(result)
        if before:
            print_changes(result.model, changes, before, after)
    risen = [str(change) for change in changes if change.rose]
    if risen:
        click.echo(f"edge-lstm bench: more than {MAX_RISE:.0%} above {old}: {'; '.join(risen)}", err=True)
        click.get_current_context().exit(1)


def print_bench(result: Benchmark) -> None:
    """Costs by core, and the throughput where it was timed."""
    if result.cores:
        print_cores(result)
    if result.throughput is not None:
        rows = [
            [what, f"{microseconds:.3f}", times] for what, microseconds, times in result.throughput.rows()
        ]
        print_table(
            f"{result.model}: one step of one stream, timed on this machine, one core",
            ["what ran", "microseconds", "times LiteRT"],
            rows,
        )


def print_cores(result: Benchmark) -> None:
    """Instructions, their phases, then sizes."""
    counts, shares, sizes = [], [], []
    for core, m in result.cores.items():
        step, detect = m.instructions_per_step, m.detect_instructions_per_step
        whole = [round(step["mean"]), step["min"], step["max"], round(detect["mean"]) if detect else None]
        counts.append([core, *whole, result.instructions_per_mac(core)])
        if m.phases is not None:
            total = sum(m.phases.values())
            shares.append([core, *(f"{100 * m.phases[phase] / total:.1f} %" for phase in PHASES)])
        flash = m.code_bytes + m.table_bytes + m.weight_bytes
        sizes.append([core, flash, m.code_bytes, m.table_bytes, m.weight_bytes, m.ram_bytes, m.stack_bytes])
    print_table(
        f"{result.model}: instructions of one step over {result.steps} steps, {result.macs:,} MACs each",
        ["core", "mean", "min", "max", "mean with detector", "a MAC"],
        counts,
    )
    if shares:
        print_table(f"{result.model}: share of each phase", ["core", *PHASES], shares)
    print_table(
        f"{result.model}: bytes",
        ["core", "flash", "code", "tables", "weights", "RAM", "stack"],
        sizes,
    )
    for core, m in result.cores.items():
        click.echo(f"{core}: {m.compiler} {' '.join(m.flags)}")


def print_changes(
    model: str, changes: list[Change], before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> None:
    """Old and new figures by core, and what else differs between the two measurements."""
    rows = [
        [c.core, c.figure, round(c.old), round(c.new), "-" if c.percent is None else f"{c.percent:+.2f} %"]
        for c in changes
    ]
    print_table(f"{model}: change", ["core", "figure", "old", "new", "change"], rows)
    for core in dict.fromkeys(change.core for change in changes):
        was, now = (
            f"{entry[core]['compiler']} {' '.join(entry[core]['flags'])}" for entry in (before, after)
        )
        if was != now:
            print_notes([f"{core}: the old figures were measured with {was}"])
