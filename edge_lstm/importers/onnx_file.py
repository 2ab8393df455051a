"""An .onnx file as plain values: nodes in the order in which they run, constants, inputs, outputs, metadata.

Reads bytes; writes an OnnxFile.  Nothing is executed and no other file is opened.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.errors import ModelError
from edge_lstm.importers import onnx_wire as wire
from edge_lstm.importers.onnx_node import Array, Node, Refused, Subgraph, needed

MAX_FILE_BYTES = 1 << 26
MAX_NODES = 10_000
MAX_ELEMENTS = 1 << 24  # numbers in all constants together
MAX_RANK = 8
OPSETS = (7, 28)  # the versions of ONNX's operators whose meaning is known here
OWN_DOMAINS = ("", "ai.onnx")
KINDS = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8",
         12: "<u4", 13: "<u8", 16: "<u2"}  # fmt: skip
BFLOAT16 = 16
FLOATS = (1, 10, 11, BFLOAT16)
EXTERNAL_HINT = (
    "weights of {names} lie in another file, which is not opened; save the model as one file "
    "(torch.onnx.export(..., external_data=False), or onnx.save of what onnx.load has read)"
)


class Info(NamedTuple):
    """An input or an output.  shape: sizes, names of open sizes and "" for unnamed ones; None if unknown."""

    name: str
    kind: int
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """nodes: those that the outputs need, each after what it reads.  constants: values by tensor name.

    problems: why the file as a whole cannot be carried, sentences.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Info, ...]
    outputs: tuple[Info, ...]
    constants: Mapping[str, Array | Refused]
    opset: int
    producer: str
    problems: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


class _Parser:
    """Reads messages; counts what constants hold; gathers what is sound but not carried."""

    def __init__(self) -> None:
        self.reader = wire.Reader()
        self.left = MAX_ELEMENTS
        self.external: list[str] = []

    def tensor(self, message: wire.Message) -> Array | Refused:
        """A constant: floats as float32 or float64, integers as int64, or why it is not read."""
        name, kind = wire.text(message, 8), wire.number(message, 2)
        shape = tuple(wire.integers(message.get(1, [])).tolist())
        if wire.number(message, 14) == 1 or 13 in message:
            self.external.append(f"'{name}'")
            return Refused()
        if kind not in KINDS:
            return Refused(f"constant '{name}' has data type {kind}, expected floats or integers")
        count = math.prod(shape)
        if len(shape) > MAX_RANK or min(shape, default=1) < 0 or count > self.left:
            raise ModelError(
                f"constant '{name}' claims the shape {shape[:MAX_RANK]}, expected a small network of at most "
                f"{MAX_ELEMENTS} numbers"
            )
        self.left -= count
        values = _numbers(message, kind)
        if values.size != count:
            raise ModelError(
                f"constant '{name}' holds {values.size} numbers, its shape {shape} needs {count}"
            )
        return values.reshape(shape)

    def node(self, message: wire.Message) -> Node:
        inputs = tuple(wire.as_text(value) for value in message.get(1, []))
        outputs = tuple(wire.as_text(value) for value in message.get(2, []))
        name = wire.text(message, 3) or next((output for output in outputs if output), "")
        domain = wire.text(message, 7)
        attributes = dict(self.attribute(given) for given in self.reader.messages(message.get(5, [])))
        return Node(
            wire.text(message, 4), name, "" if domain in OWN_DOMAINS else domain, inputs, outputs, attributes
        )

    def attribute(self, message: wire.Message) -> tuple[str, Any]:
        """Name and value: int, float, str, array, or a list of the first three."""
        name, kind = wire.text(message, 1), wire.number(message, 20)
        if not kind:  # files of the first versions do not name it
            kind = next((known for known, number in _ATTRIBUTES.items() if number in message), 0)
        number = _ATTRIBUTES.get(kind, 0)
        value: Any = Subgraph()
        if kind == 1:
            value = wire.real(message, number)
        elif kind == 2:
            value = wire.number(message, number)
        elif kind == 3:
            value = wire.text(message, number)
        elif kind == 4:
            value = self.tensor(self.reader.message(wire.view(message[number][-1])))
        elif kind == 6:
            value = [float(real) for real in wire.reals(message[number], "<f4")] if number in message else []
        elif kind == 7:
            value = wire.integers(message.get(number, [])).tolist()
        elif kind == 8:
            value = [wire.as_text(given) for given in message.get(number, [])]
        return name, value

    def info(self, message: wire.Message) -> Info:
        kind, shape = 0, None
        for type_message in self.reader.messages(message.get(2, [])):
            for tensor in self.reader.messages(type_message.get(1, [])):
                kind = wire.number(tensor, 1)
                for given in self.reader.messages(tensor.get(2, [])):
                    dims = self.reader.messages(given.get(1, []))
                    shape = tuple(wire.number(dim, 1) if 1 in dim else wire.text(dim, 2) for dim in dims)
        return Info(wire.text(message, 1), kind, shape)

    def pairs(self, values: list[Any]) -> dict[str, str]:
        return {wire.text(pair, 1): wire.text(pair, 2) for pair in self.reader.messages(values)}


_ATTRIBUTES = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 10: 11}  # type -> field of its value


def _numbers(message: wire.Message, kind: int) -> Array:
    dtype = KINDS[kind]
    if 9 in message:
        content = wire.view(message[9][-1])
        if len(content) % np.dtype(dtype).itemsize:
            raise ModelError(f"constant '{wire.text(message, 8)}' ends within a number")
        values: Array = np.frombuffer(content, dtype)
    elif kind == 1:
        values = wire.reals(message[4], "<f4") if 4 in message else np.zeros(0, np.float32)
    elif kind == 11:
        values = wire.reals(message[10], "<f8") if 10 in message else np.zeros(0, np.float64)
    else:
        values = wire.integers(message.get(7 if kind == 7 else 11 if kind in (12, 13) else 5, []))
        if kind in (10, BFLOAT16):
            values = values.astype(np.uint16).view(dtype)
    if kind == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    if kind in FLOATS:
        return values.astype(np.float64 if kind == 11 else np.float32)
    return values.astype(bool if kind == 9 else np.int64)


def is_onnx(content: bytes) -> bool:
    """Whether the bytes are a message with a graph, as every ONNX model is; it may still be damaged."""
    try:
        return 7 in wire.Reader().message(memoryview(content))
    except ModelError:
        return False


def parse(content: bytes, given: Mapping[str, Array]) -> OnnxFile:
    """Read a model.  given: values of graph inputs that the caller has.

    Raises ModelError where the bytes are damaged or no ONNX model.
    """
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(f"larger than {MAX_FILE_BYTES >> 20} MiB, expected a small network")
    parser = _Parser()
    model = parser.reader.message(memoryview(content))
    graphs = parser.reader.messages(model.get(7, []))
    if len(graphs) != 1 or not graphs[0].get(1):
        raise ModelError("it holds no graph of operators, so it is no ONNX model")
    graph = graphs[0]
    if len(graph[1]) > MAX_NODES:
        raise ModelError(f"{len(graph[1])} nodes, at most {MAX_NODES} are read")
    nodes = [parser.node(message) for message in parser.reader.messages(graph[1])]
    constants = {
        wire.text(message, 8): parser.tensor(message) for message in parser.reader.messages(graph.get(5, []))
    }
    opset = max(
        (wire.number(given, 2) for given in parser.reader.messages(model.get(8, []))
         if wire.text(given, 1) in OWN_DOMAINS), default=1,
    )  # fmt: skip
    inputs = tuple(parser.info(message) for message in parser.reader.messages(graph.get(11, [])))
    taken = {info.name for info in inputs}
    inputs = tuple(info for info in inputs if info.name not in constants and info.name not in given)
    outputs = tuple(parser.info(message) for message in parser.reader.messages(graph.get(12, [])))
    known = {info.name for info in inputs} | set(constants) | set(given)
    return OnnxFile(
        name=wire.text(graph, 2),
        nodes=needed(nodes, [info.name for info in outputs], known),
        inputs=inputs,
        outputs=outputs,
        constants=constants,
        opset=opset,
        problems=[*_file_problems(parser.external, opset, 15 in graph), *_given_problems(given, taken)],
        producer=f"{wire.text(model, 2)} {wire.text(model, 3)}".strip(),
        metadata=parser.pairs(model.get(14, [])),
    )


def _given_problems(given: Mapping[str, Array], inputs: Container[str]) -> list[str]:
    """What is wrong with the constants that the caller gave."""
    return [
        f"a constant is given for '{name}', which is no input" for name in given if name not in inputs
    ] + [
        f"the constant given for '{name}' holds no numbers ({values.dtype})"
        for name, values in given.items()
        if values.dtype.kind not in "fiub"
    ]


def _file_problems(external: list[str], opset: int, sparse: bool) -> list[str]:
    problems = []
    if external:
        names = ", ".join(external[:3]) + (f" and {len(external) - 3} more" if len(external) > 3 else "")
        problems.append(EXTERNAL_HINT.format(names=names))
    if not OPSETS[0] <= opset <= OPSETS[1]:
        problems.append(
            f"operators of version {opset}, expected {OPSETS[0]} to {OPSETS[1]}; convert it with "
            "onnx.version_converter, or export it with another opset_version"
        )
    if sparse:
        problems.append("its constants are sparse tensors; save them dense")
    return problems
