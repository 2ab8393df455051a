"""quantize: a float model and a recording become an int8 .tflite with its detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm import __version__
from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.clock import RESOLUTION, is_clock
from edge_lstm.datasets.resolution import state_resolution, with_resolution
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import DataError
from edge_lstm.evaluation.quantization import QuantizationFigures, compare
from edge_lstm.executors.protocol import Executor
from edge_lstm.files import write_bytes
from edge_lstm.graph import Graph
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.quantizer import quantize as quantize_graph
from edge_lstm.registry.record import Step, data_record, parent_record, versions, with_step
from edge_lstm.verbs.detectors import with_detector
from edge_lstm.verbs.streams import (
    Rows,
    StreamOptions,
    adopt,
    network_rows,
    read_graph,
    read_stream,
    train_config,
)


@dataclass(frozen=True)
class Quantized:
    """The written file and what quantization did to each tensor."""

    path: str
    size_bytes: int
    qgraph: QGraph
    figures: QuantizationFigures
    notes: tuple[str, ...]


def quantize_network(graph: Graph, rows: Rows, config: QuantizeConfig) -> tuple[Graph, QGraph]:
    """Quantize a graph that is in memory on the rows to learn from, without a detector; the graph states
    the resolution of its channels."""
    graph = replace(graph, stream=with_resolution(graph.stream, rows.dataset.values[~rows.test]))
    calibration = calibration_rows(rows)
    qgraph = quantize_graph(graph, calibration, config)
    return graph, replace(qgraph, made=quantized_made(graph, config, len(calibration)))


def quantized_made(graph: Graph, config: QuantizeConfig, calibration_rows: int) -> dict[str, Any]:
    """What made a quantized network, plain JSON values."""
    return {
        **graph.made,
        "quantize": asdict(config),
        "calibration_rows": calibration_rows,
        "edge_lstm": __version__,
    }


def with_stated(graph: Graph, resolution: Sequence[str] = ()) -> Graph:
    """A graph whose channels have the resolutions that are known: the clock's, and those of ``quantize``."""
    known = [f"{channel.name}={RESOLUTION}" for channel in graph.stream.channels if is_clock(channel)]
    return replace(graph, stream=state_resolution(graph.stream, [*known, *resolution]))


def calibration_rows(rows: Rows) -> FloatArray:
    """Network inputs (steps, channels) to calibrate on; DataError where there are none."""
    found: FloatArray = rows.x[rows.learn & rows.present.any(axis=1)]
    if len(found) < 2:
        raise DataError("calibration: no normal rows before the test part; check the label column")
    return found


def detecting(
    qgraph: QGraph, graph: Graph, rows: Rows, detector: DetectorConfig, executor: Executor | None = None
) -> QGraph:
    """A quantized network with its detector fitted on the rows to learn from; see ``with_detector``."""
    fitted = with_detector(qgraph, graph, rows, detector, executor)
    return replace(fitted, made={**qgraph.made, "detector": asdict(detector)})


def quantize_rows(
    graph: Graph, rows: Rows, config: QuantizeConfig, detector: DetectorConfig
) -> tuple[QGraph, QuantizationFigures]:
    """Quantize a graph that is in memory on the rows to learn from; see ``quantize``."""
    graph, qgraph = quantize_network(graph, rows, config)
    figures = compare(graph, qgraph, calibration_rows(rows))
    if graph.outputs == graph.features and not graph.window:
        qgraph = detecting(qgraph, graph, rows, detector)
    return replace(qgraph, made={**qgraph.made, "detector": asdict(detector)}), figures


def quantize(
    model: Path,
    data: Path,
    out: Path,
    config: QuantizeConfig | None = None,
    detector: DetectorConfig | None = None,
    options: StreamOptions | None = None,
    resolution: Sequence[str] = (),
) -> Quantized:
    """Quantize a float ``model`` of any kind on the normal rows of ``data`` before its test part.

    Writes a .tflite.  The detector is fitted on the integer network's residuals of the same rows.  A network
    that takes windows or forecasts other channels than it reads gets none.
    resolution: NAME=STEP or NAME=STEP@ZERO, what the sensor's raw integers stand for; of other channels it is
    found in the rows before the test part.
    """
    config, detector = config or QuantizeConfig(), detector or DetectorConfig()
    graph, parent, options = read_graph(model), parent_record(model), options or StreamOptions()
    dataset = read_stream(data, options, graph.stream)
    graph = with_stated(replace(graph, stream=adopt(graph.stream, dataset)), resolution)
    rows = network_rows(dataset, graph.stream, train_config(graph.made))
    qgraph, figures = quantize_rows(graph, rows, config, detector)
    tables = {
        "config": asdict(config),
        "detector": asdict(detector),
        "stream": options.to_mapping(),
        "resolution": list(resolution),
    }
    found = {"output_snr_db": figures.tensors[-1].snr_db}
    step = Step("quantize", tables, versions(), data_record(data, dataset.rows), parent, figures=found)
    qgraph = replace(qgraph, made=with_step(qgraph.made, step))
    content = emit_tflite(qgraph)
    write_bytes(Path(out), content)
    missing = int((~np.asarray(rows.present)).sum())
    notes = (*dataset.notes, *figures.notes, *([f"{missing} missing samples were held"] if missing else []))
    return Quantized(str(out), len(content), qgraph, figures, notes)
