"""inspect: what is in a model file of any kind that is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.graph import INPUT, Graph, Value
from edge_lstm.importers.any_model import KINDS, kind_of, read_model
from edge_lstm.layer_types import Lstm
from edge_lstm.lstm_operators import Variant
from edge_lstm.operators import QScan, Quantization
from edge_lstm.qgraph import QGraph, QLstm, QValue


@dataclass(frozen=True)
class InspectedLayer:
    """reads: names of what it reads.  shape: (rows of a window or "steps", width).

    parameters: numbers that it holds.  quantization: of its value.  details: its options in words.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int | str, int]
    parameters: int
    quantization: str
    details: str


@dataclass(frozen=True)
class Inspection:
    """kind: of the file.  numbers: "float" or the bits of the codes and the numerics profile."""

    path: str
    kind: str
    name: str
    numbers: str
    window: int
    input: str
    channels: tuple[dict[str, Any], ...]
    period_s: float
    layers: tuple[InspectedLayer, ...]
    parameters: int
    detector: bool
    made: Mapping[str, Any]


def inspect(model: Path) -> Inspection:
    """Read ``model`` and describe its layers; raises with every reason for a file that is not read."""
    path = Path(model)
    found = read_model(path)
    integer = isinstance(found, QGraph)
    layers = _layers(found)
    channels = tuple(
        {
            "name": c.name, "unit": c.unit, "center": c.center, "scale": c.scale,
            "resolution": c.resolution, "zero": c.zero,
        }
        for c in found.stream.channels
    )  # fmt: skip
    return Inspection(
        path=str(path),
        kind=KINDS[kind_of(path)],
        name=found.name,
        numbers=f"int{found.input.bits}, profile {found.profile}" if isinstance(found, QGraph) else "float",
        window=found.window,
        input=_words(found.input) if isinstance(found, QGraph) else "",
        channels=channels,
        period_s=found.stream.period_s,
        layers=layers,
        parameters=sum(layer.parameters for layer in layers),
        detector=integer and getattr(found, "detector", None) is not None,
        made=found.made,
    )


def _layers(network: Graph | QGraph) -> tuple[InspectedLayer, ...]:
    rows: list[InspectedLayer] = []
    values: Sequence[Value | QValue] = network.values
    for layer, sources, value in zip(network.layers, network.sources, values, strict=True):
        reads = tuple("input" if s == INPUT else network.layers[s].name for s in sources)
        steps: int | str = network.window or "steps"
        quantization = value.quantization if isinstance(value, QValue) else None
        rows.append(
            InspectedLayer(
                layer.name,
                _kind(layer),
                reads,
                (steps if value.sequence else 1, value.width),
                count_parameters(layer),
                _words(quantization) if quantization is not None else "",
                _details(layer),
            )
        )
    return tuple(rows)


def _kind(layer: object) -> str:
    name = type(layer).__name__
    return name[1:] if name[0] == "Q" and name[1].isupper() else name


def count_parameters(layer: Any) -> int:
    """Numbers in the arrays of a layer; those of a scan are in its body."""
    if isinstance(layer, QScan):
        return sum(count_parameters(operator) for operator in layer.body)
    counted = 0
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, np.ndarray) and not field.name.endswith("scales"):
            counted += int(value.size)
        elif isinstance(value, Variant):
            counted += count_parameters(value)
    return counted


def _words(quantization: Quantization) -> str:
    power = quantization.power
    scale = f"{quantization.scale:.6g}" if power is None else f"2**{power}"
    return f"int{quantization.bits}, scale {scale}, zero point {quantization.zero_point}"


def _details(layer: Any) -> str:
    """Options that are not the usual ones."""
    found = list(layer.variants) if isinstance(layer, Lstm) else []
    if isinstance(layer, QLstm) and layer.variant is not None:
        found += layer.variant.parts
    if isinstance(layer, QScan):
        found.append(", ".join(f"{operator.name.rsplit('/', 1)[-1]}" for operator in layer.body))
    if getattr(layer, "backwards", False):
        found.append("backwards")
    for name in ("mode", "axis", "dilation", "size", "reset_after", "relu", "index", "function", "cell_clip"):
        value = getattr(layer, name, None)
        if value is None or value is False or (name == "cell_clip" and not value):
            continue
        found.append(f"{name} {getattr(value, 'kind', value)}")
    return ", ".join(found)
