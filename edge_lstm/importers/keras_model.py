"""Keras files -> Graph: Sequential and functional models of Keras 2 and 3, read as data.

Reads files of this toolkit, with their sensor stream, and those of others; refuses what it cannot carry.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import INPUT, Channel, Graph, Stream
from edge_lstm.importers.draft import Draft
from edge_lstm.importers.keras_config import MODELS, ModelConfig
from edge_lstm.importers.keras_description import read_model
from edge_lstm.importers.keras_file import DAMAGE, DESCRIPTION, KerasFile, open_keras
from edge_lstm.importers.keras_network import Walk
from edge_lstm.importers.keras_options import model_problems
from edge_lstm.importers.keras_values import MAX_WIDTH, TIME, Network, Value, features
from edge_lstm.importers.keras_weights import Weights
from edge_lstm.naming import identifier
from edge_lstm.predictor import MAX_AHEAD, LinearPredictor

__all__ = ["DESCRIPTION", "FORMAT", "read_keras"]

FORMAT = 3  # of the member DESCRIPTION; those of format 2 look 1 row ahead
OLDEST_FORMAT = 2


def read_keras(path: Path) -> Graph:
    """Read a ``.keras`` or ``.h5`` file with a whole model of Keras 2 or 3.

    The kind of the file is seen from its content.  ``made["keras"]`` is the version of Keras;
    ``made["last_only"]`` is True where the model returns only its last row: step by step it is the same
    network.  ``made["expanded"]`` names layers that became wider ones.  A file without this toolkit's member
    gets the stream of ``Stream.unnamed``.
    Raises ModelError for a file that is damaged or no model of Keras, UnsupportedModel with every reason for
    a model that cannot be carried.
    """
    path = Path(path)
    file = open_keras(path)
    try:
        if file.config["class_name"] not in MODELS:
            raise UnsupportedModel(
                f"model '{path.name}': it is of the class '{file.config['class_name']}', expected Sequential "
                "or Functional; code of a file is never run: build the model of Keras' own layers"
            )
        return _graph(file, read_model(file.config, file.legacy))
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path}: its description is no model of Keras ({type(error).__name__}: {reason}); save it again"
        ) from error


def _graph(file: KerasFile, model: ModelConfig) -> Graph:
    """Raises what ``read_keras`` raises."""
    where = f"model '{file.path.name}'"
    net = Network(Draft(), Weights(file, model), _window(model), file.legacy)
    start = net.known(INPUT, Value(INPUT, (TIME, *model.shape[1:]) if model.shape[1:] else model.shape, True))
    problems, walk, ends = model_problems(model) + _input_problems(model), Walk(net), [start]
    if len(model.inputs) == len(model.outputs) == 1 and not _input_problems(model):
        ends = [end for end in walk.run(model, (start,)) if end is not None]
        problems += walk.problems + [problem for end in ends for problem in _output_problems(net, end)]
    raise_all(UnsupportedModel, where, list(dict.fromkeys(problems)))
    raise_all(ModelError, str(file.path), list(dict.fromkeys(net.weights.damage + walk.damage)))
    (end,), draft = ends, net.draft
    del draft.layers[end.index + 1 :], draft.sources[end.index + 1 :]
    stream, made, predictor, ahead = _description(file, start.width)
    if net.expanded:
        made = {**made, "expanded": net.expanded}
    graph = draft.graph(identifier(file.path.stem), stream, start.width, net.window, made)
    graph = replace(graph, predictor=predictor, ahead=ahead)
    raise_all(UnsupportedModel, where, _state_problems(model, graph.window))
    return graph


def _window(model: ModelConfig) -> int:
    """Rows of the input; a sample without time steps is one row."""
    return (model.shape[0] or 0) if len(model.shape) > 1 else 1


def _input_problems(model: ModelConfig) -> list[str]:
    shape = model.shape
    sizes = shape[1:] or shape
    layer = model.layers[model.inputs[0]]
    if not shape or None in sizes:
        return [
            f"{layer.where} takes samples of shape {shape}, expected (timesteps, features) with a fixed "
            "number of features; save the model with keras.Input((timesteps, features)) in front"
        ]
    if features(sizes) > MAX_WIDTH:
        return [f"{layer.where} takes {features(sizes)} features, expected at most {MAX_WIDTH}"]
    return []


def _output_problems(net: Network, end: Value) -> list[str]:
    if end.trouble:
        return [f"the output: {end.trouble}"]
    if end.padded or end.flat:
        return ["the output: it ends in a ZeroPadding1D or Flatten; leave that out"]
    if end.flipped and end.rows and net.window != 1:
        return [
            "the output: its rows come in reverse (go_backwards with return_sequences); wrap the layer in "
            "Bidirectional, or turn the rows back with keras.ops.flip(x, axis=1)"
        ]
    if TIME in end.axes[1:] and end.width > 1:
        return [f"the output: it is {end}, expected the time steps first"]
    return []


def _state_problems(model: ModelConfig, window: int) -> list[str]:
    """A network with a window starts each from zero; a stateful layer would go on."""
    return [
        f"{layer.where} is stateful, but the network gathers a window of {window} rows and starts each from "
        "zero; save it with stateful=False"
        for layer in model.every_layer()
        if window and layer.options.get("stateful")
    ]


Description = tuple[Stream | None, dict[str, Any], LinearPredictor | None, int]


def _description(file: KerasFile, features: int) -> Description:
    """The stream of this toolkit's member, how the model was made, what forecasts beside it, rows ahead."""
    if file.description is None:
        return None, {"importer": "keras", "keras": file.version}, None, 1
    stream, made, predictor, ahead = read_description(file.path, file.description)
    found = {len(stream.channels), features if predictor is None else predictor.channels}
    if found != {features}:
        raise ModelError(
            f"{file.path}: the model takes {features} features, but its {DESCRIPTION} describes "
            f"{', '.join(map(str, sorted(found)))} channels; save the model again"
        )
    return stream, made, predictor, ahead


def read_description(
    path: Path, content: bytes
) -> tuple[Stream, dict[str, Any], LinearPredictor | None, int]:
    """Stream, how the model was made, linear predictor, rows ahead, of the member that training writes.

    Raises ModelError.
    """
    try:
        described = json.loads(content)
        if described["format"] not in range(OLDEST_FORMAT, FORMAT + 1):
            raise ModelError(
                f"it has format {described['format']}, this version reads {OLDEST_FORMAT} .. {FORMAT}; "
                "update edge-lstm"
            )
        stream = described["stream"]
        channels = tuple(
            Channel(
                str(c["name"]),
                str(c["unit"]),
                float(c["center"]),
                float(c["scale"]),
                context=c.get("context") is True,
            )
            for c in stream["channels"]
        )
        period_s = float(stream["period_s"])
        if not 0 <= period_s < float("inf"):
            raise ModelError(f"period_s is {period_s}, expected 0 or more; save the model again")
        ahead = int(described["ahead"]) if described["format"] == FORMAT else 1
        if not 0 <= ahead <= MAX_AHEAD:
            raise ModelError(f"ahead is {ahead}, expected 0 .. {MAX_AHEAD}; save the model again")
        predictor = _predictor(described["predictor"])
        return Stream(channels, period_s), dict(described["made"]), predictor, ahead
    except ModelError as error:
        raise ModelError(f"{path}: its {DESCRIPTION}: {error}") from error
    except DAMAGE as error:
        raise ModelError(f"{path}: its {DESCRIPTION} is damaged; train or save the model again") from error


def _predictor(values: dict[str, Any] | None) -> LinearPredictor | None:
    if values is None:
        return None
    kernel, bias, spread = (np.array(values[name], dtype=np.float64) for name in ("kernel", "bias", "spread"))
    rebuilt = values["contemporaneous"]
    return LinearPredictor(
        kernel.reshape(-1, bias.size, bias.size), bias, spread, str(values["method"]),
        None if rebuilt is None else np.array(rebuilt, dtype=np.float64),
    )  # fmt: skip
