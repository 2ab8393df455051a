"""layers: what is supported, found out by running a small network of every kind through every back end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge_lstm.emit.c_code import emit_c
from edge_lstm.emit.onnx_integers import emit_qdq
from edge_lstm.emit.onnx_model import emit_onnx
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import EdgeLstmError
from edge_lstm.executors.refusals import PROFILE_OF, refusal
from edge_lstm.graph import Graph
from edge_lstm.lower import lower
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.verbs.layer_samples import SAMPLES

ROWS = 24  # of the stream that calibrates a sample


@dataclass(frozen=True)
class LayerSupport:
    """One row of the table; an entry is "yes", what it is restricted to, or "no".

    integers: profiles whose codes NumPy and the C compute with int8 activations.  int16x8: with int16 ones.
    tflite: the runtimes that run the int8 file.  onnx: float.  qdq: int8 .onnx.
    takes: "rows" for a streaming network, "window".  refused: every reason, by column.
    """

    layer: str
    takes: str
    integers: str
    int16x8: str
    native: str
    tflite: str
    onnx: str
    qdq: str
    refused: dict[str, str]


@dataclass(frozen=True)
class Support:
    """layers: the table.  importers: kind of file -> names of the layers or operators that are read."""

    layers: tuple[LayerSupport, ...]
    importers: dict[str, tuple[str, ...]]


def layers() -> Support:
    """Run every sample through the quantizer and the exporters; nothing is written."""
    return Support(tuple(_support(name, graph) for name, graph in SAMPLES.items()), read_names())


def _support(name: str, graph: Graph) -> LayerSupport:
    refused: dict[str, str] = {}

    def tried(column: str, make: Callable[[], str]) -> str:
        try:
            return make()
        except EdgeLstmError as error:
            refused[column] = str(error)
            return "no"

    return LayerSupport(
        layer=name,
        takes="window" if graph.window else "rows",
        integers=tried("integers", lambda: _integers(graph)),
        int16x8=tried("int16x8", lambda: _compiled(graph, QuantizeConfig(scheme="int16x8"))),
        native=tried("native", lambda: _compiled(graph, QuantizeConfig(profile="native"))),
        tflite=tried("tflite", lambda: _runtimes(graph)),
        onnx=tried("onnx", lambda: "yes" if emit_onnx(graph) else "no"),
        qdq=tried("qdq", lambda: "yes" if emit_qdq(quantize(graph, _stream(graph), _int8(graph))) else "no"),
        refused=refused,
    )


def _stream(graph: Graph) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (max(ROWS, 2 * graph.window), graph.features))


def _int8(graph: Graph) -> QuantizeConfig:
    """int8 in the first profile that carries the network."""
    try:
        quantize(graph, _stream(graph), QuantizeConfig())
    except EdgeLstmError:
        return QuantizeConfig(profile="litert")
    return QuantizeConfig()


def _integers(graph: Graph) -> str:
    qgraph = quantize(graph, _stream(graph), _int8(graph))
    for profile in qgraph.profiles:
        emit_c(lower(replace(qgraph, profile=profile)))
    return ", ".join(qgraph.profiles)


def _compiled(graph: Graph, config: QuantizeConfig) -> str:
    qgraph = quantize(graph, _stream(graph), config)
    emit_c(lower(qgraph))
    return "yes"


def _runtimes(graph: Graph) -> str:
    qgraph = quantize(graph, _stream(graph), _int8(graph))
    emit_tflite(qgraph)
    return ", ".join(name for name in PROFILE_OF if refusal(name, qgraph) is None)


def read_names() -> dict[str, tuple[str, ...]]:
    """What each importer reads, from its own table of converters."""
    from edge_lstm.importers import keras_network, onnx_nodes, tflite_float, tflite_model, torch_modules

    modules = [f"nn.{kind}" for kind in torch_modules.KINDS.values()]
    return {
        "Keras 2 and 3 layers": tuple(sorted(keras_network.CONVERTERS)),
        "ONNX operators": tuple(sorted(onnx_nodes.CONVERTERS)),
        "float .tflite operators": tuple(sorted(tflite_float.SUPPORTED)),
        "int8 .tflite operators": tuple(sorted(tflite_model.READ)),
        "PyTorch modules (.safetensors)": (*modules, "nn.Linear"),
    }
