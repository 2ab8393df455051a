"""int8 LSTM .tflite files, ours and other converters', read into a QGraph.

Reads a path or bytes; what a QGraph cannot carry exactly is refused, with every reason at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import Stream
from edge_lstm.importers import metadata
from edge_lstm.importers.flatbuffer import MAX_FILE_BYTES, Network, Tensor, read_network
from edge_lstm.importers.tflite_layers import Layout, check_last_row, read_dense, read_lstm
from edge_lstm.naming import identifier
from edge_lstm.qgraph import QGraph, QLayer

LSTM, DENSE, SLICE = "UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED", "STRIDED_SLICE"
MAX_VALUES = 1 << 24  # inputs of one invocation
REQUANTIZE = "keep the float model and quantize it with this toolkit"
ADVICE = {
    "WHILE": f"the LSTM is written as a loop, as Keras 3 does: {REQUANTIZE}",
    "REVERSE_V2": "it reads the window backwards (bidirectional or go_backwards), but a stream has no end: "
    "train a forward LSTM",
    "CONCATENATION": "it joins branches, as of a bidirectional LSTM: train a forward LSTM",
    "RESHAPE": "it flattens the time steps: let the dense layer read the last step, or every step",
    "SOFTMAX": "remove the activation from the model; the largest code stays the largest",
    "QUANTIZE": "the input is not int8: convert with inference_input_type = tf.int8",
    "DEQUANTIZE": "the output is not int8: convert with inference_output_type = tf.int8",
}


def read_tflite(source: str | Path | bytes) -> QGraph:
    """Read an int8 LSTM file.

    Files of this toolkit give the identical QGraph.  Others get the channels ch0, ch1 ..., the profile
    ``tflm`` and the file's name.  A batch-major file must have batch 1; a time-major one of batch n has
    n lanes.  Raises ModelError for a damaged or foreign file, UnsupportedModel with all reasons.
    """
    content, where, stem = _load(source)
    with _naming(where):
        network = read_network(content, metadata.NAME)
        description = None if network.metadata is None else metadata.decode(network.metadata)
    reading = _Reading(network, None if description is None else description.layers)
    raise_all(UnsupportedModel, where, reading.problems)
    with _naming(where):
        return reading.qgraph(identifier(stem), description)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Put the file's name in front of every ModelError."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{where}: {error}") from error


def _load(source: str | Path | bytes) -> tuple[bytes, str, str]:
    """Content, what messages call it, and the stem of its name."""
    if isinstance(source, bytes):
        return source, "the .tflite content", "model"
    path = Path(source)
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1), str(path), path.stem
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; give the path of a .tflite file") from error


class _Reading:
    """One network, read once: its layers, or every problem.

    names: of the layers, from our own description; None for other people's files.
    """

    def __init__(self, network: Network, names: tuple[str, ...] | None) -> None:
        self.network = network
        self.problems: list[str] = []
        self.layers: list[QLayer] = []
        self.last_only = False
        self.layout = Layout(1, 1, False)
        self.check_operators()
        if self.check_interface():
            self.read_layers(self.layer_names(names))
            if not network.others:
                self.check_chain()

    def qgraph(self, name: str, description: metadata.Description | None) -> QGraph:
        """The network with its description; ``name`` and default channels without one."""
        layers, layout = tuple(self.layers), self.layout
        if description is None:
            stream = Stream.unnamed(layers[0].features)
            description = metadata.Description(name, (), stream, "tflm", None, {})
        return QGraph(
            name=description.name,
            layers=layers,
            stream=description.stream,
            profile=description.profile,
            timesteps=layout.timesteps,
            last_only=self.last_only,
            lanes=layout.lanes,
            detector=description.detector,
            made=description.made,
        )

    def check_operators(self) -> None:
        """Name the operators that are not read, each with what to do about it."""
        kinds = dict.fromkeys(operator.kind for operator in self.network.operators)
        others = dict(self.network.others)
        if self.network.subgraphs > 1:
            self.problems.append(f"it has {self.network.subgraphs} subgraphs, expected 1")
        for kind in [kind for kind in ADVICE if kind in others and (LSTM in kinds or kind == "WHILE")]:
            self.problems.append(f"operator {kind} is not supported: {ADVICE[kind]}")
            del others[kind]
        if LSTM not in kinds:
            self.problems.append(
                f"it has no {LSTM}, only {', '.join([*others, *kinds]) or 'nothing'}; an LSTM that was "
                f"unrolled or written as a loop cannot be recognized: {REQUANTIZE}"
            )
        elif others:
            self.problems.append(
                f"not supported: {', '.join(others)}; only forward LSTM and dense layers are read"
            )

    def check_interface(self) -> bool:
        """Check the one int8 input and take the layout from it; False where there is nothing to follow."""
        before = len(self.problems)
        for what, tensors in (("inputs", self.network.inputs), ("outputs", self.network.outputs)):
            if len(tensors) != 1:
                self.problems.append(f"it has {len(tensors)} {what}, expected 1")
        lstms = [operator for operator in self.network.operators if operator.kind == LSTM]
        first = self.network.inputs[0] if self.network.inputs else None
        if first is not None and first.kind != "INT8":
            self.problems.append(_kind_problem(first.kind, [t for op in lstms for t in op.inputs[1:9]]))
        if first is None or not lstms or len(self.problems) > before:
            return False
        if len(first.shape) != 3 or min(first.shape) < 1 or math.prod(first.shape) > MAX_VALUES:
            self.problems.append(
                f"its input is {list(first.shape)}, expected [1, timesteps, features] with at most "
                f"{MAX_VALUES} values"
            )
            return False
        time_major = bool(lstms[0].options.get("TimeMajor"))
        timesteps, lanes = first.shape[:2] if time_major else first.shape[1::-1]
        self.layout = Layout(timesteps, lanes, time_major)
        if lanes > 1 and not time_major:
            self.problems.append(
                f"batch {lanes}, expected 1: convert again with batch 1 (a time-major file may have more)"
            )
        return True

    def layer_names(self, names: tuple[str, ...] | None) -> list[str]:
        """A name for every LSTM and dense operator, in order."""
        kinds = [operator.kind for operator in self.network.operators if operator.kind != SLICE]
        if names is not None and len(names) != len(kinds):
            self.problems.append(
                f"its description names {len(names)} layers, but it has {len(kinds)}; write the file again"
            )
        elif names is not None:
            return list(names)
        word = {LSTM: "lstm", DENSE: "dense"}
        return [f"{word[kind]}_{kinds[: index + 1].count(kind)}" for index, kind in enumerate(kinds)]

    def read_layers(self, names: list[str]) -> None:
        """Read every operator.  Dense layers only in a chain: elsewhere their rows are unknown."""
        waiting = iter(names)
        for operator in self.network.operators:
            layer: QLayer | None = None
            if operator.kind == SLICE:
                self.problems += [] if self.network.others else check_last_row(operator, self.layout)
                self.last_only = True
                continue
            name = next(waiting)
            if operator.kind == LSTM:
                layer, problems = read_lstm(operator, name, self.layout)
                self.problems += problems
            elif not self.network.others:
                rows = self.layout.lanes * (1 if self.last_only else self.layout.timesteps)
                layer, problems = read_dense(operator, name, rows)
                self.problems += problems
            if layer is not None:
                self.layers.append(layer)

    def check_chain(self) -> None:
        """Each operator must read its predecessor's output alone, and no LSTM shares its state."""
        value: Tensor | None = self.network.inputs[0]
        states: list[int] = []
        for operator in self.network.operators:
            if not operator.inputs or operator.inputs[0] is not value or value is None:
                self.problems.append(
                    f"operator {operator.kind} does not read the output of the one before it; only a chain "
                    "of layers is supported"
                )
                return
            value = operator.outputs[0] if operator.outputs else None
            states += [t.index for t in operator.inputs if t is not None and t.variable]
        if value is None or value is not self.network.outputs[0]:
            self.problems.append("the output of its last operator is not the model's output")
        if len(states) != len(set(states)):
            self.problems.append("two of its layers share a state tensor, expected one each")


def _kind_problem(kind: str, weights: list[Tensor | None]) -> str:
    """Why a network whose input is not int8 is refused."""
    hybrid = kind == "FLOAT32" and any(t is not None and t.kind == "INT8" for t in weights)
    what = "int8 weights but FLOAT32 activations (dynamic range)" if hybrid else f"{kind} activations"
    return (
        f"it has {what}, expected INT8: {REQUANTIZE}, or convert it to full integers with "
        "inference_input_type = inference_output_type = tf.int8"
    )
