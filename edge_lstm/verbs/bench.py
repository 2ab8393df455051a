"""bench: what one step costs on a core: counted instructions, their phases, linked sizes, painted stack."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import ConfigError
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.qgraph import QDense, QGraph, QLayer, QLstm, QNativeLstm, QScan
from firmware_tools import qemu
from firmware_tools.build import OPTIMIZE
from firmware_tools.executors import CORES, QEMU_CORES
from firmware_tools.measure import Measurement, measure
from firmware_tools.throughput import Throughput, throughput

DEFAULT_CORES = ("cortex-m0", "cortex-m4")
# core -> what measures on it: (qgraph, core, codes, what=, optimize=) as firmware_tools.measure.measure
MEASURES: dict[str, Callable[..., Measurement]] = {
    **dict.fromkeys(CORES, measure),
    **dict.fromkeys(QEMU_CORES, qemu.measure),
}
TIMED = ("host", "litert")  # timed in one run, as ratios: wall time repeats on no machine
MAX_RISE = 0.01  # of a figure, in a comparison


@dataclass(frozen=True)
class Benchmark:
    """Measurements by core.  macs: see ``count_macs``.  throughput: None where no name of TIMED was given."""

    model: str
    steps: int
    macs: int
    cores: dict[str, Measurement]
    throughput: Throughput | None = None

    def instructions_per_mac(self, core: str) -> float | None:
        """Instructions of a step, without detector, over its products; None where it has none."""
        mean = self.cores[core].instructions_per_step["mean"]
        return mean / self.macs if self.macs else None

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Every figure by core, plain JSON values; the throughput stands under its own name."""
        found = {
            core: asdict(measured)
            | {"macs": self.macs, "instructions_per_mac": self.instructions_per_mac(core)}
            for core, measured in self.cores.items()
        }
        return found if self.throughput is None else found | {"throughput": asdict(self.throughput)}


@dataclass(frozen=True)
class Change:
    """One figure of one core, in an earlier measurement and in this one."""

    core: str
    figure: str
    old: float
    new: float

    @property
    def percent(self) -> float | None:
        """The change, None from 0."""
        return 100 * (self.new - self.old) / self.old if self.old else None

    @property
    def rose(self) -> bool:
        """Whether it grew by more than MAX_RISE."""
        return self.new > self.old * (1 + MAX_RISE)

    def __str__(self) -> str:
        percent = "" if self.percent is None else f" ({self.percent:+.1f} %)"
        return f"{self.core} {self.figure}: {self.old:,.0f} -> {self.new:,.0f}{percent}"


def bench_graph(
    qgraph: QGraph,
    on: Sequence[str] = DEFAULT_CORES,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    optimize: str = "speed",
) -> Benchmark:
    """Measure a network that is in memory; see ``bench``."""
    choices = ", ".join((*MEASURES, *TIMED))
    unknown = [name for name in on if name not in (*MEASURES, *TIMED)]
    if unknown:
        raise ConfigError(f"--on: {', '.join(unknown)} cannot be measured; choose from {choices}")
    if not on:
        raise ConfigError(f"--on names no core; choose from {choices}")
    if optimize not in OPTIMIZE:
        raise ConfigError(f"--optimize is '{optimize}', expected one of {', '.join(OPTIMIZE)}")
    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected 1 or more")
    codes = mixed_stream(qgraph.features, steps, seed, qgraph.input.bits)
    what = "detect" if qgraph.detector else "step"
    cores = {}
    for index, name in enumerate(name for name in on if name in MEASURES):
        if progress:
            progress(index, len(on), name)
        cores[name] = MEASURES[name](qgraph, name, codes, what=what, optimize=optimize)
    timed = throughput(qgraph) if set(on) & set(TIMED) else None
    if progress:
        progress(len(on), len(on), "done")
    return Benchmark(qgraph.name, steps, count_macs(qgraph), cores, timed)


def bench(
    model: Path,
    on: Sequence[str] = DEFAULT_CORES,
    steps: int = 200,
    seed: int = 0,
    profile: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    optimize: str = "speed",
) -> Benchmark:
    """Link the model for each core, count the instructions of ``steps`` steps and read the sizes.

    optimize: "speed" (-O2) or "size" (-Os).
    Raises ModelError for a file that cannot be read, MissingTool without compiler or emulator.
    """
    qgraph = read_tflite(Path(model))
    chosen = qgraph.with_profile(profile) if profile else qgraph
    return bench_graph(chosen, on, steps, seed, progress, optimize)


def count_macs(qgraph: QGraph) -> int:
    """Products of weights in the LSTM and dense layers of one step, or of one whole window."""
    total = 0
    for layer, sources in zip(qgraph.layers, qgraph.sources, strict=True):
        repeated = any(source < 0 or qgraph.values[source].sequence for source in sources)
        total += _layer_macs(layer) * ((qgraph.window or 1) if repeated else 1)
    return total


def _layer_macs(layer: QLayer) -> int:
    """Products of one layer for one row."""
    if isinstance(layer, QScan):
        return sum(_layer_macs(inner) for inner in layer.body)
    if isinstance(layer, QDense):
        return layer.kernel.size
    if not isinstance(layer, (QLstm, QNativeLstm)):
        return 0
    variant = layer.variant if isinstance(layer, QLstm) else None
    projection = variant.projection if variant else None
    return layer.kernel.size + layer.recurrent_kernel.size + (0 if projection is None else projection.size)


def figures(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one core's JSON that are compared: instructions and bytes."""
    found = {"instructions": entry["instructions_per_step"]["mean"]}
    if entry["detect_instructions_per_step"] is not None:
        found["instructions with detector"] = entry["detect_instructions_per_step"]["mean"]
    flash = sum(entry[f"{kind}_bytes"] for kind in ("code", "table", "weight"))
    return {
        **found,
        "flash bytes": flash,
        "RAM bytes": entry["ram_bytes"],
        "stack bytes": entry["stack_bytes"],
    }


def compare(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """The change of every figure of the cores that both JSON documents have.

    Raises ConfigError where they have none in common or are of different networks.
    """
    common = [core for core in new if core in old and core != "throughput"]
    if not common:
        raise ConfigError(
            f"--compare: it has {', '.join(old)}, none of {', '.join(new)}; measure one of them"
        )
    for core in common:
        if old[core]["macs"] != new[core]["macs"]:
            raise ConfigError(
                f"--compare: it is of another network: {old[core]['macs']:,} products of weights a step, "
                f"this one has {new[core]['macs']:,}"
            )
    changes = []
    for core in common:
        before, after = figures(old[core]), figures(new[core])
        changes += [Change(core, name, before[name], after[name]) for name in after if name in before]
    return changes


def read_benchmark(path: Path) -> dict[str, dict[str, Any]]:
    """The JSON that ``edge-lstm bench --json`` printed; ConfigError for anything else."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
        for core, entry in found.items():
            if core != "throughput":
                figures(entry)
                entry["macs"], entry["compiler"], entry["flags"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"'{path}' is not what bench prints; write it with: edge-lstm bench MODEL.tflite --json > {path}"
        ) from error
    return found
