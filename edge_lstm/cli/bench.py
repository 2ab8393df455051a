"""edge-lstm bench"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edge_lstm.cli.common import FILE, Names, json_option, print_json, print_table, progress, verb
from edge_lstm.verbs.bench import DEFAULT_CORES, Benchmark, bench


@verb("bench")
@click.argument("model", type=FILE)
@click.option("--on", type=Names(), default=",".join(DEFAULT_CORES), show_default=True, help="Cores.")
@click.option("--steps", default=200, show_default=True, help="Steps whose instructions are counted.")
@click.option("--seed", default=0, show_default=True)
@click.option("--profile", default=None, help="Numerics profile (tflm, litert, tflite), not the file's.")
@json_option
def command(
    model: Path, on: tuple[str, ...], steps: int, seed: int, profile: str | None, as_json: bool
) -> None:
    """Link MODEL (.tflite) for each core: instructions per step, flash, RAM and stack.

    Instructions are counted one by one in the emulator, sizes come from the linked ELF, the stack from a
    painted stack. The counts repeat exactly.
    """
    with progress(as_json) as show:
        result = bench(model, on, steps, seed, profile, show)
    if as_json:
        print_json({core: asdict(measured) for core, measured in result.cores.items()})
    else:
        print_bench(result)


def print_bench(result: Benchmark) -> None:
    """Costs by core: instructions, then sizes."""
    counts, sizes = [], []
    for core, m in result.cores.items():
        step, detect = m.instructions_per_step, m.detect_instructions_per_step
        counts.append([core, step["mean"], step["min"], step["max"], detect["mean"] if detect else None])
        flash = m.code_bytes + m.table_bytes + m.weight_bytes
        sizes.append([core, flash, m.code_bytes, m.table_bytes, m.weight_bytes, m.ram_bytes, m.stack_bytes])
    print_table(
        f"{result.model}: instructions of one step over {result.steps} steps",
        ["core", "mean", "min", "max", "mean with detector"],
        counts,
    )
    print_table(
        f"{result.model}: bytes",
        ["core", "flash", "code", "tables", "weights", "RAM", "stack"],
        sizes,
    )
    for core, m in result.cores.items():
        click.echo(f"{core}: {m.compiler} {' '.join(m.flags)}")
