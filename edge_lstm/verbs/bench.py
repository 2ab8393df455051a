"""bench: what one step costs on a core: counted instructions, linked sizes, painted stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import ConfigError
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QGraph
from firmware_tools.executors import CORES
from firmware_tools.measure import Measurement, measure

DEFAULT_CORES = ("cortex-m0", "cortex-m4")


@dataclass(frozen=True)
class Benchmark:
    """Measurements by core."""

    model: str
    steps: int
    cores: dict[str, Measurement]


def bench_graph(
    qgraph: QGraph,
    on: Sequence[str] = DEFAULT_CORES,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Benchmark:
    """Measure a network that is in memory; see ``bench``."""
    unknown = [name for name in on if name not in CORES]
    if unknown:
        raise ConfigError(
            f"--on: {', '.join(unknown)} cannot count instructions; choose from {', '.join(CORES)}"
        )
    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected 1 or more")
    codes = mixed_stream(qgraph.features, steps, seed)
    cores = {}
    for index, name in enumerate(on):
        if progress:
            progress(index, len(on), name)
        cores[name] = measure(qgraph, name, codes, what="detect" if qgraph.detector else "step")
    if progress:
        progress(len(on), len(on), "done")
    return Benchmark(qgraph.name, steps, cores)


def bench(
    model: Path,
    on: Sequence[str] = DEFAULT_CORES,
    steps: int = 200,
    seed: int = 0,
    profile: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Benchmark:
    """Link the model for each core, count the instructions of ``steps`` steps and read the sizes.

    Raises ModelError for a file that cannot be read, MissingTool without compiler or emulator.
    """
    qgraph = read_tflite(Path(model))
    return bench_graph(qgraph.with_profile(profile) if profile else qgraph, on, steps, seed, progress)
