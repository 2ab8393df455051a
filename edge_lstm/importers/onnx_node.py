"""One operator of an ONNX graph, and the order in which operators run.

Reads names and attributes; writes plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from edge_lstm.errors import ModelError

Array = npt.NDArray[Any]


class Refused(NamedTuple):
    """A value that cannot be carried.  reason: a sentence, "" where it has been told."""

    reason: str = ""


class Subgraph(NamedTuple):
    """An attribute that is a graph of its own; it is not read."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operator.  domain: "" for ONNX's own.  inputs: "" where an optional one is absent."""

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.op} '{self.name}'"

    def _typed(self, name: str, kinds: type | tuple[type, ...], default: Any, words: str) -> Any:
        value = self.attributes.get(name, default)
        if value is not default and not isinstance(value, kinds):
            raise ModelError(f"its attribute '{name}' is no {words}; export the model again")
        return value

    def integer(self, name: str, default: int = 0) -> int:
        return int(self._typed(name, int, default, "integer"))

    def real(self, name: str, default: float) -> float:
        value = float(self._typed(name, (int, float), default, "number"))
        if not math.isfinite(value):
            raise ModelError(f"its attribute '{name}' is {value}, expected a finite number")
        return value

    def text(self, name: str, default: str = "") -> str:
        return str(self._typed(name, str, default, "text"))

    def numbers(self, name: str) -> list[Any] | None:
        """A list of integers, reals or texts; None where it is absent."""
        value = self._typed(name, list, None, "list")
        return None if value is None else list(value)


def needed(nodes: list[Node], outputs: list[str], known: set[str]) -> tuple[Node, ...]:
    """The nodes that ``outputs`` need, each after those that it reads.

    Raises ModelError for tensors that nobody writes, that two nodes write, and for cycles.
    """
    writer: dict[str, Node] = {}
    for node in nodes:
        for output in node.outputs:
            if output and (output in writer or output in known):
                raise ModelError(f"tensor '{output}' is written twice; export the model again")
            writer[output] = node
    if not outputs:
        raise ModelError("it has no outputs")
    ordered: dict[int, Node] = {}
    stack = [(name, False) for name in reversed(outputs)]
    open_nodes: set[int] = set()
    while stack:
        name, read = stack.pop()
        if name in known or not name:
            continue
        if name not in writer:
            raise ModelError(f"nothing writes tensor '{name}', which is read; export the model again")
        node = writer[name]
        if id(node) in ordered:
            continue
        if read:
            ordered[id(node)] = node
            open_nodes.discard(id(node))
        elif id(node) in open_nodes:
            raise ModelError(f"{node} reads what it writes: the nodes form a cycle; export the model again")
        else:
            open_nodes.add(id(node))
            stack.append((name, True))
            stack += [(given, False) for given in reversed(node.inputs)]
    return tuple(ordered.values())
