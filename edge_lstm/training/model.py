"""The Keras forecaster: built from a configuration or a Graph, read back into a Graph, saved.

Reads configurations and Graphs; writes ``.keras`` files that carry their sensor stream.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.errors import OutputError, RuntimeFailure, UnsupportedModel, raise_all
from edge_lstm.files import replacing
from edge_lstm.graph import Dense, Graph, Lstm, Stream, chain
from edge_lstm.importers.keras_model import DESCRIPTION, FORMAT
from edge_lstm.optional import require
from edge_lstm.predictor import LinearPredictor
from edge_lstm.training.config import TrainConfig

PlainLayer = Lstm | Dense
THREADS = 2  # of these small matrices; more threads only wait for each other


@cache
def load_keras() -> Any:
    """The keras module on TensorFlow: on the CPU, deterministic, without start-up messages.

    Takes seconds at the first call.  Raises MissingTool without TensorFlow, RuntimeFailure where this
    process already runs Keras on something else.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its sums depend on the machine
    with _silent_start(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf: Any = require("tensorflow", "train")
        keras: Any = require("keras", "train")
    if keras.backend.backend() != "tensorflow":
        raise RuntimeFailure(
            f"Keras runs on '{keras.backend.backend()}' in this process, training needs TensorFlow; "
            "start it with KERAS_BACKEND=tensorflow"
        )
    # RuntimeError: the caller's own program has started TensorFlow already; then its devices stay
    with contextlib.suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")  # slower than the CPU at these sizes, and not exact
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    tf.config.experimental.enable_op_determinism()
    return keras


def load_tensorflow() -> Any:
    """The tensorflow module, set up as ``load_keras`` does."""
    load_keras()
    return require("tensorflow", "train")


@contextlib.contextmanager
def _silent_start() -> Iterator[None]:
    """Keep what TensorFlow's libraries print before they read their log level off the terminal."""
    try:
        saved = os.dup(2)
    except OSError:  # a service without a standard error has nothing to silence
        yield
        return
    sys.stderr.flush()
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def build(config: TrainConfig, features: int, outputs: int | None = None) -> Any:
    """A fresh Keras network: inputs (batch, steps, features) -> outputs (None: features) at each step.

    Seeds every generator of this process with ``config.seed``.
    """
    keras = load_keras()
    keras.utils.set_random_seed(config.seed)
    stack = [_lstm(f"lstm_{n}", units, config) for n, units in enumerate(config.units, start=1)]
    if config.bottleneck:
        stack.append(_dense("bottleneck", config.bottleneck))
    return _sequential(features, [*stack, _dense("dense", outputs or features)])


def from_graph(graph: Graph, config: TrainConfig) -> Any:
    """A Keras model with the layers and weights of ``graph``, to be trained on.

    Seeds every generator of this process with ``config.seed``.
    """
    keras = load_keras()
    keras.utils.set_random_seed(config.seed)
    layers = [
        _lstm(layer.name, layer.units, config)
        if isinstance(layer, Lstm)
        else _dense(layer.name, layer.outputs)
        for layer in plain_layers(graph)
    ]
    model = _sequential(graph.features, layers)
    set_weights(model, [weight for layer in plain_layers(graph) for weight in layer_weights(layer)])
    return model


def plain_layers(graph: Graph) -> tuple[PlainLayer, ...]:
    """The layers of a streaming stack of plain LSTM and dense layers: what is trained and pruned here.

    Raises UnsupportedModel with every reason for other networks.
    """
    problems = []
    if graph.window or graph.sources != chain(graph.layers):
        problems.append("it gathers a window or has branches")
    layers: list[PlainLayer] = []
    for layer in graph.layers:
        if isinstance(layer, Lstm) and (layer.variants or layer.backwards):
            problems.append(f"lstm '{layer.name}' has {', '.join(layer.variants) or 'go_backwards'}")
        elif isinstance(layer, (Lstm, Dense)):
            layers.append(layer)
        else:
            problems.append(f"layer '{layer.name}' is a {type(layer).__name__}")
    advice = [
        f"{problem}; only stacks of plain LSTM and dense layers are trained here" for problem in problems
    ]
    raise_all(UnsupportedModel, f"model '{graph.name}'", advice)
    return tuple(layers)


def to_graph(model: Any, name: str, stream: Stream, made: Mapping[str, Any]) -> Graph:
    """The Graph of a model that ``build`` or ``from_graph`` made."""
    weights = iter(get_weights(model))
    layers: list[PlainLayer] = []
    for layer in model.layers:
        kind = Lstm if len(layer.trainable_variables) == 3 else Dense
        layers.append(kind(layer.name, *(next(weights) for _ in layer.trainable_variables)))
    return Graph(name, tuple(layers), stream, made)


def layer_weights(layer: PlainLayer) -> tuple[Any, ...]:
    """The arrays of one layer in Keras' order."""
    if isinstance(layer, Lstm):
        return layer.kernel, layer.recurrent_kernel, layer.bias
    return layer.kernel, layer.bias


def get_weights(model: Any) -> list[Any]:
    """Copies of the trainable arrays in layer order, float32."""
    return [np.array(variable.value.numpy()) for variable in model.trainable_variables]


def set_weights(model: Any, weights: Sequence[Any]) -> None:
    """Overwrite the trainable arrays in layer order."""
    for variable, weight in zip(model.trainable_variables, weights, strict=True):
        variable.assign(np.array(weight))


def save(
    model: Any,
    stream: Stream,
    made: Mapping[str, Any],
    path: Path,
    predictor: LinearPredictor | None = None,
    ahead: int = 1,
) -> None:
    """Write a ``.keras`` file that Keras itself opens; a member of its own has what Keras does not know.

    made: plain JSON values.  predictor, ahead: of the Graph.  Raises OutputError; then nothing is written.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise OutputError(
            f"cannot write {path}: a trained model is a .keras file; choose -o {path.stem}.keras"
        )
    with replacing(path) as temporary:
        with warnings.catch_warnings():  # Keras 3.15 reads its variables as NumPy 2 warns not to
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(zipfile.ZipInfo(DESCRIPTION), _describe(stream, made, predictor, ahead))


def _describe(stream: Stream, made: Mapping[str, Any], predictor: LinearPredictor | None, ahead: int) -> str:
    channels = [
        {
            "name": c.name, "unit": c.unit, "center": c.center, "scale": c.scale,
            **({"context": True} if c.context else {}),
        }
        for c in stream.channels
    ]  # fmt: skip
    beside: dict[str, Any] | None = None
    if predictor is not None:
        arrays = {name: getattr(predictor, name) for name in ("kernel", "bias", "spread", "contemporaneous")}
        beside = {name: None if array is None else array.tolist() for name, array in arrays.items()}
        beside["method"] = predictor.method
    content = {
        "format": FORMAT,
        "predictor": beside,
        "ahead": ahead,
        "stream": {"period_s": stream.period_s, "channels": channels},
        "made": dict(made),
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False)


def _lstm(name: str, units: int, config: TrainConfig) -> Any:
    return load_keras().layers.LSTM(
        units,
        return_sequences=True,
        dropout=config.dropout,
        recurrent_dropout=config.recurrent_dropout,
        use_cudnn=False,
        dtype="float32",
        name=name,
    )


def _dense(name: str, outputs: int) -> Any:
    return load_keras().layers.Dense(outputs, dtype="float32", name=name)


def _sequential(features: int, layers: Sequence[Any]) -> Any:
    keras = load_keras()
    return keras.Sequential(
        [keras.layers.Input((None, features), name="sensor_stream"), *layers], name="forecaster"
    )
