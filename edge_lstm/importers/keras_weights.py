"""The arrays of each layer of a Keras file, checked by name and shape.

Reads the HDF5 group with the weights; writes float arrays.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError
from edge_lstm.importers.keras_config import LayerConfig, ModelConfig, Nth
from edge_lstm.importers.keras_file import KerasFile
from edge_lstm.importers.keras_hdf5 import Hdf5Error, Node, texts_of

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell", "ConvLSTM1D")
# a .keras file keeps the weights of these in a group 'cell'
WITH_CELL = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D")
MAX_WEIGHTS = 1 << 24  # of a network
OLD_CONTAINER = "_layer_checkpoint_dependencies"  # 'layers' in .keras files of Keras 2.12 to 2.14


@dataclass(frozen=True)
class Names:
    """The weights of a layer: those that training changes, and the others."""

    trained: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[str, ...]:
        return self.trained + self.kept


def names_of(layer: LayerConfig) -> Names:
    """The names of the weights of the layer itself, in the order of the file."""
    kind, options = layer.kind, layer.options
    bias = ("bias",) if layer.options.get("use_bias", True) else ()
    if layer.custom or layer.operation:
        return Names()
    if kind in RECURRENT:
        return Names(("kernel", "recurrent_kernel", *bias))
    if kind in ("Dense", "Conv1D"):
        return Names(("kernel", *bias))
    if kind == "BatchNormalization":
        scale = ("gamma",) if options.get("scale", True) else ()
        center = ("beta",) if options.get("center", True) else ()
        return Names(scale + center, ("moving_mean", "moving_variance"))
    if kind == "Normalization" and options.get("mean") is None:
        return Names((), ("mean", "variance", "count"))
    if kind in ("Attention", "AdditiveAttention"):
        scale = ("scale",) if options.get("use_scale") else ()
        return Names((*scale, "concat_score_weight") if options.get("score_mode") == "concat" else scale)
    return Names()


@dataclass
class Weights:
    """Gives every layer its arrays.

    used: numbers given away so far.  damage: what is wrong with them.  order: where a weight lies in an .h5
    file, its group and its place there; sizes: arrays in each of these groups.  numbered: the groups of a
    class in a container of a .keras file.
    """

    file: KerasFile
    model: ModelConfig
    used: int = 0
    damage: list[str] = field(default_factory=list)
    order: dict[str, tuple[str, int]] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    numbered: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file.whole:
            for layer in self.model.layers.values():
                for number, key in enumerate([*trained(layer), *kept(layer)]):
                    self.order[key] = (layer.name, number)
                    self.sizes[layer.name] += 1

    def load(self, layer: LayerConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
        """The arrays of ``layer`` by name; ones where the file has no sound one, which ``damage`` tells.

        shapes: the expected ones, for the names that are wanted.  Raises ModelError where the network has too
        many weights.
        """
        found: dict[str, FloatArray] = {}
        for name, shape in shapes.items():
            self.claim(math.prod(shape))
            try:
                found[name] = self._array(layer, name, shape)
            except Hdf5Error as error:
                self.damage.append(f"no sound weights for {layer.where}: {error}; save the model again")
                found[name] = np.ones(shape, np.float32)
        return found

    def _array(self, layer: LayerConfig, name: str, shape: tuple[int, ...]) -> FloatArray:
        node = self._in_list(layer, name) if self.file.whole else self._in_tree(layer, name)
        if node.array_shape != shape:
            raise Hdf5Error(f"{name} is {node.array_shape}, expected {shape}")
        array = node.array()
        if array.dtype.kind != "f":
            raise Hdf5Error(f"{name} is {array.dtype}, expected floats")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise Hdf5Error(f"{name} holds NaN or infinity, the training diverged")
        return array

    def claim(self, count: int) -> None:
        """Count ``count`` weights before they are allocated; raises ModelError where they are too many."""
        self.used += count
        if self.used > MAX_WEIGHTS:
            raise ModelError(f"it has more than {MAX_WEIGHTS} weights, expected a small network")

    def _in_tree(self, layer: LayerConfig, name: str) -> Node:
        node = self.file.weights
        cell = ("cell",) if layer.kind in WITH_CELL else ()
        for step in (*layer.place, *cell, "vars"):
            node = self._nth(node, step) if isinstance(step, Nth) else _step(node, step)
        owner = node.attributes["name"].texts() if "name" in node.attributes else []
        if owner and not cell and isinstance(layer.place[-1], Nth) and owner != [layer.name]:
            raise Hdf5Error(f"{node.name} holds those of '{owner[0]}'")
        return node.open(str(names_of(layer).every.index(name)))

    def _nth(self, node: Node, step: Nth) -> Node:
        key = (node.address, step.kind)
        if key not in self.numbered:
            self.numbered[key] = _numbered(node, step.kind)
        names = self.numbered[key]
        if step.number >= len(names):
            raise Hdf5Error(f"{node.name} has {len(names)} groups for layers of class {step.kind}")
        return node.open(names[step.number])

    def _in_list(self, layer: LayerConfig, name: str) -> Node:
        group, number = self.order[f"{id(layer)}/{name}"]
        node = self.file.weights.open(group)
        names = texts_of(node, "weight_names")
        if len(names) != self.sizes[group]:
            raise Hdf5Error(f"{node.name} has {len(names)} arrays, expected {self.sizes[group]}")
        if not re.fullmatch(rf"(.*/)?{name}(_\d+)?(:\d+)?", names[number]):
            raise Hdf5Error(f"{node.name} has '{names[number]}', expected its {name}")
        return node.open(names[number])


def _step(node: Node, name: str) -> Node:
    old = name == "layers" and name not in node.members and OLD_CONTAINER in node.members
    return node.open(OLD_CONTAINER if old else name)


def _numbered(node: Node, kind: str) -> list[str]:
    """Keras calls the second LSTM of a container lstm_1; early Keras 2 may count in twos."""
    pattern = re.compile("|".join(rf"{re.escape(name)}(?:_(\d{{1,6}}))?" for name in snake_cases(kind)))
    found = {}
    for name in node.members:
        match = pattern.fullmatch(name)
        if match:
            found[int(next((digits for digits in match.groups() if digits), 0))] = name
    return [name for _, name in sorted(found.items())]


def snake_cases(kind: str) -> Sequence[str]:
    """As Keras 3 and as Keras 2 write the name of a class: conv_lstm1d, conv_lst_m1d."""
    plain = re.sub(r"\W+", "", kind)
    names = [re.sub(pattern, r"\1_\2", plain) for pattern in ("(.)([A-Z][a-z]+)", "(.)([A-Z][a-z0-9]+)")]
    return list(dict.fromkeys(re.sub("([a-z])([A-Z])", r"\1_\2", name).lower() for name in names))


def trained(layer: LayerConfig) -> Iterator[str]:
    """Keys of the weights that training changes, in the order of an .h5 file."""
    if layer.options.get("trainable", True):
        yield from (f"{id(layer)}/{name}" for name in names_of(layer).trained)
        for part in layer.parts:
            yield from trained(part)


def kept(layer: LayerConfig) -> Iterator[str]:
    """Keys of the weights that training keeps: all of a frozen layer."""
    frozen = not layer.options.get("trainable", True)
    names = names_of(layer)
    yield from (f"{id(layer)}/{name}" for name in (names.every if frozen else names.kept))
    for part in layer.parts:
        if frozen:
            yield from trained(part)
        yield from kept(part)
