"""Integer LSTM .tflite files, ours and other converters', read into a QGraph.

Reads a path or bytes; what a QGraph cannot carry exactly is refused, with every reason at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import INPUT, Stream, chain
from edge_lstm.importers import metadata
from edge_lstm.importers.flatbuffer import MAX_FILE_BYTES, Network, Operator, Tensor, read_network
from edge_lstm.importers.tflite_axes import Layout, Value
from edge_lstm.importers.tflite_moves import (
    read_concatenation,
    read_gather,
    read_reshape,
    read_reverse,
    read_slice,
    read_transpose,
)
from edge_lstm.importers.tflite_own import read_own
from edge_lstm.importers.tflite_wiring import (
    Wiring,
    end_problems,
    state_problems,
    wire_dense,
    wire_lstm,
    wire_rows,
)
from edge_lstm.naming import identifier
from edge_lstm.qgraph import QGraph, QLayer, QLstm, QRow, gathers

LSTM, DENSE = "UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED"
MAX_VALUES = 1 << 24  # inputs of one invocation
CODES = ("INT8", "INT16")
REQUANTIZE = "keep the float model and quantize it with this toolkit"
ADVICE = {
    "WHILE": f"the LSTM is written as a loop, as Keras 3 does: {REQUANTIZE}",
    "ADD": f"it adds codes of 8 bits, which the runtimes round differently: {REQUANTIZE}",
    "MUL": f"it multiplies codes of 8 bits, which the runtimes round differently: {REQUANTIZE}",
    "QUANTIZE": "inside the network the runtimes round it differently, and only one may turn a float input "
    f"into codes: convert with inference_input_type = tf.int8, or {REQUANTIZE}",
    "DEQUANTIZE": "only one may turn the last codes into a float output: convert with "
    f"inference_output_type = tf.int8, or {REQUANTIZE}",
}
MOVES: dict[str, Callable[[Wiring, Operator, Value], None]] = {
    "STRIDED_SLICE": read_slice,
    "GATHER": read_gather,
    "REVERSE_V2": read_reverse,
    "RESHAPE": read_reshape,
    "TRANSPOSE": read_transpose,
    "CONCATENATION": read_concatenation,
}
READ = (LSTM, DENSE, "SOFTMAX", "RELU", *MOVES)


def read_tflite(source: str | Path | bytes) -> QGraph:
    """Read an int8 LSTM file, or one with 16-bit activations.

    Files of this toolkit give the identical QGraph.  Others get the channels ch0, ch1 ..., the file's name
    and the profile ``tflm``, or ``litert`` where that alone computes them.  A batch of n becomes n lanes.  A
    chain that returns the last row stays a streaming network; one that reverses or gathers rows has a window.
    Raises ModelError for a damaged or foreign file, UnsupportedModel with all reasons.
    """
    content, where, stem = _load(source)
    with _naming(where):
        own = read_own(content) if len(content) <= MAX_FILE_BYTES else None
        if own is not None:
            return own
        network = read_network(content, metadata.NAME)
        description = None if network.metadata is None else metadata.decode(network.metadata)
    names = None if description is None else description.layers
    reading = _Reading(network, names)
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
        self.operators = list(network.operators)
        self.problems: list[str] = []
        self.lstms = [operator for operator in self.operators if operator.kind == LSTM]
        self.input, self.output = self.interface()
        self.check_operators()
        self.check_names(names)
        self.net = Wiring(Layout(1, 1, False), ())
        if self.input is not None and self.lstms:
            self.read(names or ())

    def interface(self) -> tuple[Tensor | None, Tensor | None]:
        """The tensors of the network's first and last codes: None where there is nothing to follow."""
        found = []
        for what, tensors, kind in (
            ("inputs", self.network.inputs, "QUANTIZE"),
            ("outputs", self.network.outputs, "DEQUANTIZE"),
        ):
            if len(tensors) != 1:
                self.problems.append(f"it has {len(tensors)} {what}, expected 1")
            found.append(self.without_border(tensors[0], kind) if len(tensors) == 1 else None)
        first, last = found
        if first is not None and first.kind not in CODES:
            weights = [tensor for operator in self.lstms for tensor in operator.inputs[1:9]]
            self.problems.append(_kind_problem(first.kind, weights))
            return None, last
        if first is not None and (len(first.shape) != 3 or not 1 <= _size(first) <= MAX_VALUES):
            self.problems.append(
                f"its input is {list(first.shape)}, expected [1, timesteps, features] with at most "
                f"{MAX_VALUES} values"
            )
            return None, last
        return first, last

    def without_border(self, tensor: Tensor | None, kind: str) -> Tensor | None:
        """The codes behind a float input or in front of a float output, whose operator is done with here."""
        if tensor is None or tensor.kind != "FLOAT32":
            return tensor
        for operator in self.operators:
            ends = (operator.inputs, operator.outputs)
            outer, inner = ends if kind == "QUANTIZE" else ends[::-1]
            alone = sum(tensor in other.inputs for other in self.operators) == (kind == "QUANTIZE")
            if operator.kind == kind and alone and outer == (tensor,) and len(inner) == 1:
                self.operators.remove(operator)
                return inner[0]
        return tensor

    def check_operators(self) -> None:
        """Name the operators that are not read, each with what to do about it."""
        kinds = Counter(operator.kind for operator in self.operators)
        others = Counter(self.network.others) + Counter(
            {kind: count for kind, count in kinds.items() if kind not in READ}
        )
        if self.network.subgraphs > 1:
            self.problems.append(f"it has {self.network.subgraphs} subgraphs, expected 1")
        if LSTM not in kinds:
            self.problems.append(_no_lstm(Counter(self.network.others) + kinds))
            others = Counter({kind: others[kind] for kind in ("WHILE",) if kind in others})
        for kind in [kind for kind in ADVICE if kind in others]:
            self.problems.append(f"operator {kind} is not supported: {ADVICE[kind]}")
            del others[kind]
        if others:
            self.problems.append(f"not supported: {', '.join(others)}; only {', '.join(READ)} are read")

    def check_names(self, names: tuple[str, ...] | None) -> None:
        """Our own description names every LSTM and dense layer."""
        named = [operator for operator in self.operators if operator.kind in (LSTM, DENSE)]
        if names is not None and len(names) != len(named):
            self.problems.append(
                f"its description names {len(names)} layers, but it has {len(named)}; write the file again"
            )

    def read(self, names: Sequence[str]) -> None:
        """Read every operator, with the axes of the input as the first LSTM takes them."""
        major = bool(self.lstms[0].options.get("TimeMajor"))
        self.net = self.wired(names, major)
        if self.net.problems:  # a file may swap its axes before the first LSTM
            other = self.wired(names, not major)
            self.net = self.net if other.problems else other
        self.problems += self.net.problems

    def wired(self, names: Sequence[str], time_major: bool) -> Wiring:
        """The layers where the input's first axis is the time, or the second."""
        assert self.input is not None
        timesteps, lanes = self.input.shape[:2] if time_major else self.input.shape[1::-1]
        net = Wiring(Layout(timesteps, lanes, time_major), names)
        net.tensors[self.input.index] = Value(INPUT, self.input.shape[2], True, net.layout.dims, net.layout)
        for operator in self.operators:
            if operator.kind in READ:
                self.read_operator(net, operator)
        complete = not self.network.others and not net.problems
        net.problems += state_problems(self.lstms)
        net.problems += end_problems(net, self.output) if complete else []
        return net

    def read_operator(self, net: Wiring, operator: Operator) -> None:
        x = net.value(operator.inputs[0] if operator.inputs else None)
        complete = not self.problems and not net.problems
        if x is None and complete:
            net.problems.append(
                f"operator {operator.kind} does not read the output of an operator before it; the file's "
                "order is not that of its layers"
            )
        if operator.kind == LSTM:
            wire_lstm(net, operator, x)
        elif operator.kind == DENSE:
            wire_dense(net, operator, x)
        elif operator.kind in ("SOFTMAX", "RELU"):
            wire_rows(net, operator, x)
        elif x is not None:
            MOVES[operator.kind](net, operator, x)

    def qgraph(self, name: str, description: metadata.Description | None) -> QGraph:
        """The network with its description; ``name`` and default channels without one."""
        net = self.net
        layers, sources = list(net.layers), net.sources
        gathering = [index for index, layer in enumerate(layers) if gathers(layer)]
        last_only = tuple(sources) == chain(layers) and len(gathering) == 1 and _is_last(layers[gathering[0]])
        if last_only:
            del layers[gathering[0]]
            sources, gathering = list(chain(layers)), []
        if description is None:
            stream = Stream.unnamed(self.input.shape[2] if self.input is not None else 0)
            varied = any(isinstance(layer, QLstm) and layer.variant is not None for layer in layers)
            profile = "litert" if varied else "tflm"
            description = metadata.Description(name, (), stream, profile, None, {})
        return QGraph(
            name=description.name,
            layers=tuple(layers),
            stream=description.stream,
            profile=description.profile,
            timesteps=net.layout.timesteps,
            last_only=last_only,
            lanes=net.layout.lanes,
            detector=description.detector,
            made=description.made,
            sources=tuple(sources),
            window=net.layout.timesteps if gathering else 0,
            batch_major=net.layout.lanes > 1 and not net.layout.time_major,
        )


def _is_last(layer: QLayer) -> bool:
    return isinstance(layer, QRow) and layer.index == -1


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) if min(tensor.shape, default=0) > 0 else 0


def _no_lstm(kinds: Counter[str]) -> str:
    """Why a network without the fused operator is refused."""
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return (
        f"it has no {LSTM}, only {counts or 'nothing'}; an LSTM that was unrolled or written as a loop "
        f"cannot be recognized in its codes: convert it again with unroll=False, or {REQUANTIZE}"
    )


def _kind_problem(kind: str, weights: list[Tensor | None]) -> str:
    """Why a network whose input is not in codes is refused."""
    hybrid = kind == "FLOAT32" and any(t is not None and t.kind == "INT8" for t in weights)
    what = "int8 weights but FLOAT32 activations (dynamic range)" if hybrid else f"{kind} activations"
    return (
        f"it has {what}, expected INT8: {REQUANTIZE}, or convert it to full integers with "
        "inference_input_type = inference_output_type = tf.int8"
    )
