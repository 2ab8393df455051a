"""What differs between two artefacts: options, data, versions, figures, and the numbers themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.graph import Graph
from edge_lstm.qgraph import QGraph
from edge_lstm.registry.artefacts import Artefact, flat
from edge_lstm.registry.record import Step

Difference = tuple[str, Any, Any]  # what, here, there; None where it is absent


@dataclass(frozen=True)
class Comparison:
    """same_content: byte for byte, but for the dates in .keras files.  differences: of the records.

    numbers: what differs in weights and codes, in words; () where they are equal.
    """

    first: str
    second: str
    same_content: bool
    differences: tuple[Difference, ...]
    numbers: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.same_content:
            return "the same content"
        return "the numbers differ" if self.numbers else "the same numbers, with another record"


def compare_artefacts(first: Artefact, second: Artefact) -> Comparison:
    """Compare two artefacts, and the steps of how they were made that both have."""
    common = _named(first).keys() & _named(second).keys()
    here, there = _facts(first, common), _facts(second, common)
    names = [*here, *(name for name in there if name not in here)]
    differences = tuple(
        (name, here.get(name), there.get(name)) for name in names if here.get(name) != there.get(name)
    )
    same = first.sha256 == second.sha256
    numbers = () if same else tuple(_number_differences(first, second))
    return Comparison(str(first.path), str(second.path), same, differences, numbers)


def _named(artefact: Artefact) -> dict[str, Step]:
    """Its steps by verb; a verb that is run again gets a number."""
    seen: Counter[str] = Counter()
    named = {}
    for step in artefact.steps:
        seen[step.verb] += 1
        named[step.verb if seen[step.verb] == 1 else f"{step.verb} {seen[step.verb]}"] = step
    return named


def _facts(artefact: Artefact, common: Collection[str]) -> dict[str, Any]:
    """Name -> value of all that the record says of ``common`` steps, the ones that both artefacts have.

    Parents are told by the steps before them.
    """
    facts: dict[str, Any] = {"steps": " > ".join(step.verb for step in artefact.steps) or None}
    for index, (name, step) in enumerate(_named(artefact).items()):
        if name not in common:
            continue
        facts |= flat(step.options, f"{name} ")
        facts |= flat(step.versions, f"{name} versions.")
        facts |= flat(step.figures, f"{name} figures.")
        if step.data is not None:
            facts |= flat(step.data.to_mapping(), f"{name} data.")
        if step.parent is not None and index == 0:
            facts |= flat(step.parent.to_mapping(), f"{name} parent.")
    return facts


def _number_differences(first: Artefact, second: Artefact) -> Iterator[str]:
    a, b = first.network, second.network
    if a is None and b is None:
        for name in sorted({*first.files, *second.files}):
            if first.files.get(name) != second.files.get(name):
                yield f"{name}: another file"
        return
    if a is None or b is None or type(a) is not type(b):
        yield "another kind: of real weights, integers and C they have not the same"
        return
    here, there = dict(_numbers(a)), dict(_numbers(b))
    if here.keys() != there.keys() or any(here[name].shape != there[name].shape for name in here):
        yield f"another structure: {_sizes(here)} against {_sizes(there)}"
        return
    for name, array in here.items():
        if not np.array_equal(array, there[name]):
            wrong = int((array != there[name]).sum())
            largest = np.abs(array.astype(np.float64) - there[name].astype(np.float64)).max()
            yield f"{name}: {wrong} of {array.size} differ, by {largest:.3g} at most"


def _sizes(arrays: dict[str, npt.NDArray[Any]]) -> str:
    return f"{len(arrays)} arrays of {sum(array.size for array in arrays.values())} numbers"


def _numbers(network: Graph | QGraph) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Arrays and single numbers of the layers, of the line beside them and of the detector, by name."""
    for index, layer in enumerate(network.layers):
        yield from _arrays(f"{index} {layer.name}", layer)
    for part in ("predictor", "detector"):
        if (value := getattr(network, part, None)) is not None:
            yield from _arrays(part, value)


def _arrays(name: str, value: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    if isinstance(value, (np.ndarray, np.generic, int, float)):
        yield name, np.asarray(value)
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from _arrays(f"{name}[{index}]", part)
    elif hasattr(value, "__dataclass_fields__"):
        for field in fields(value):
            yield from _arrays(f"{name}.{field.name}", getattr(value, field.name))
