"""Rewrite tests/benchmarks.json, the committed cost of four networks: python tests/benchmarks.py

A commit that lets a figure rise by more than 1 % rewrites the file and says in its message why.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from benchmark_models import SHAPES, benchmark_model
from edge_lstm.verbs.bench import Benchmark, bench_graph, figures

RECORD = Path(__file__).with_suffix(".json")
COMMAND = "python tests/benchmarks.py"
STEPS = 60  # more than the detector's warm-up
CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m55")
# name, core, optimize, detector; a detector needs as many outputs as inputs
CASES = [
    *((name, core, "speed", False) for name in SHAPES for core in CORES),
    *((name, "cortex-m4", "size", True) for name in SHAPES if name != "L32"),
]


@cache
def measured(name: str, core: str, optimize: str = "speed", detector: bool = False) -> Benchmark:
    """One network on one core."""
    return bench_graph(benchmark_model(name, detector), [core], STEPS, optimize=optimize)


def case_name(name: str, core: str, optimize: str, detector: bool) -> str:
    return f"{name}{' with detector' if detector else ''}, {core}, {optimize}"


def measured_figures(*case: Any) -> dict[str, float]:
    """What the record says of a case."""
    (entry,) = measured(*case).to_json().values()
    return {figure: round(value, 1) for figure, value in figures(entry).items()}


def main() -> None:
    compilers = {m.compiler for case in CASES for m in measured(*case).cores.values()}
    if len(compilers) != 1 or "gcc" not in "".join(compilers):
        sys.exit(f"the record is of one arm-none-eabi-gcc, this machine has {', '.join(sorted(compilers))}")
    record = {
        "rewrite": COMMAND,
        "compiler": compilers.pop(),
        "figures": {case_name(*case): measured_figures(*case) for case in CASES},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
