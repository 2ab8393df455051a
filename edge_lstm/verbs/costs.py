"""What a detector costs on a core, and what each simple method that has C would cost in its place.

Reads networks and Rows; links images and counts instructions, as bench does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows as LearningRows
from edge_lstm.detection.methods import fit_method
from edge_lstm.graph import Stream
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.fit import simple_graph
from edge_lstm.verbs.bench import bench_graph
from edge_lstm.verbs.quantize import quantize_rows
from edge_lstm.verbs.streams import Rows

CORE = "cortex-m4"
STEPS = 40


@dataclass(frozen=True)
class Cost:
    """instructions: mean of a row, from raw integers to the alarm.  flash, ram: bytes; ram without stack."""

    instructions: float
    flash_bytes: int
    ram_bytes: int


def cost_of(qgraph: QGraph, core: str = CORE, steps: int = STEPS) -> Cost:
    """Measure a network with its detector; MissingTool without compiler or emulator."""
    measured = bench_graph(qgraph, (core,), steps).cores[core]
    counted = measured.detect_instructions_per_step or measured.instructions_per_step
    flash = measured.code_bytes + measured.table_bytes + measured.weight_bytes
    return Cost(counted["mean"], flash, measured.ram_bytes)


def method_qgraph(
    method: str, rows: Rows, stream: Stream, config: DetectorConfig, profile: str = "tflm"
) -> QGraph:
    """The int8 network of a method of ``detection.methods``, with its detector, fitted on ``rows.learn``.

    Raises DataError where the rows do not suffice.
    """
    learning, _ = LearningRows.of(rows.x, rows.present, rows.gap, rows.learn)
    graph = simple_graph(fit_method(method, learning)[0], stream, method)
    graph = replace(graph, made={"train": {"method": method}})
    return quantize_rows(graph, rows, QuantizeConfig(profile=profile), config)[0]
