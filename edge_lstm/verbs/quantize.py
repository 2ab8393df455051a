"""quantize: a float model and a recording become an int8 .tflite with its detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from edge_lstm import __version__
from edge_lstm.datasets.resolution import state_resolution, with_resolution
from edge_lstm.detection.fit import DetectorConfig
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import DataError
from edge_lstm.evaluation.quantization import QuantizationFigures, compare
from edge_lstm.files import write_bytes
from edge_lstm.graph import Graph
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.quantizer import quantize as quantize_graph
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


def quantize_rows(
    graph: Graph, rows: Rows, config: QuantizeConfig, detector: DetectorConfig
) -> tuple[QGraph, QuantizationFigures]:
    """Quantize a graph that is in memory on the rows to learn from; see ``quantize``."""
    graph = replace(graph, stream=with_resolution(graph.stream, rows.dataset.values[~rows.test]))
    calibration = rows.x[rows.learn & rows.present.any(axis=1)]
    if len(calibration) < 2:
        raise DataError("calibration: no normal rows before the test part; check the label column")
    qgraph = quantize_graph(graph, calibration, config)
    figures = compare(graph, qgraph, calibration)
    if graph.outputs == graph.features and not graph.window and qgraph.input.bits == 8:
        qgraph = with_detector(qgraph, graph.predictor, rows, detector)
    made = {
        **graph.made,
        "quantize": asdict(config),
        "detector": asdict(detector),
        "calibration_rows": len(calibration),
        "edge_lstm": __version__,
    }
    return replace(qgraph, made=made), figures


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
    graph = read_graph(model)
    dataset = read_stream(data, options or StreamOptions(), graph.stream)
    graph = replace(graph, stream=state_resolution(adopt(graph.stream, dataset), resolution))
    rows = network_rows(dataset, graph.stream, train_config(graph.made))
    qgraph, figures = quantize_rows(graph, rows, config or QuantizeConfig(), detector or DetectorConfig())
    content = emit_tflite(qgraph)
    write_bytes(Path(out), content)
    missing = int((~np.asarray(rows.present)).sum())
    notes = (*dataset.notes, *figures.notes, *([f"{missing} missing samples were held"] if missing else []))
    return Quantized(str(out), len(content), qgraph, figures, notes)
