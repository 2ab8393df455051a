"""What a Keras file says of a network: layers with their options, and who calls whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MODELS = ("Sequential", "Functional", "Model")
MAX_RANK = 16  # axes of a tensor


class Ref(NamedTuple):
    """A tensor: an output of a call of a layer."""

    layer: str
    call: int
    output: int


@dataclass(frozen=True)
class Call:
    """One use of a layer: its arguments, with Refs for tensors."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Nth(NamedTuple):
    """Where weights lie in a .keras file: in the ``number``-th group of a class in a container."""

    kind: str
    number: int


@dataclass(frozen=True, eq=False)
class LayerConfig:
    """One layer.

    kind: its class, or the operation of Keras 3.  options: its configuration.  place: the groups of a .keras
    file that lead to its weights.  parts: the layers in it, in the order of their weights.  model: of a
    Sequential or functional model.  custom: the class is not one of Keras.
    """

    kind: str
    name: str
    options: Mapping[str, Any]
    place: tuple[str | Nth, ...] = ()
    parts: tuple[LayerConfig, ...] = ()
    model: ModelConfig | None = None
    custom: bool = False
    operation: bool = False

    @property
    def where(self) -> str:
        return f"{'operation' if self.operation else 'layer'} '{self.name}' ({self.kind})"

    def count(self, option: str) -> int:
        """A whole number above 0; ValueError for anything else.  Keras writes (3,) for 3 where it may."""
        value = self.options[option]
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{option} of '{self.name}' is {value!r}, expected a number above 0")
        return value

    def flag(self, option: str, default: bool = False) -> bool:
        value = self.options.get(option, default)
        if not isinstance(value, bool):
            raise ValueError(f"{option} of '{self.name}' is {value!r}, expected true or false")
        return value


@dataclass(frozen=True, eq=False)
class ModelConfig:
    """Layers by name in the order of the file, the calls of each, and the tensors at the ends.

    shape: of one sample, None where a size is open; () where the file does not say.
    """

    name: str
    layers: Mapping[str, LayerConfig]
    calls: Mapping[str, tuple[Call, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[Ref, ...]
    shape: tuple[int | None, ...]

    def every_layer(self) -> Iterator[LayerConfig]:
        """All layers, also those in other layers."""
        waiting = list(self.layers.values())[::-1]
        while waiting:
            layer = waiting.pop()
            yield layer
            waiting += reversed(layer.parts)


def refs(value: Any) -> Iterator[Ref]:
    """Every tensor in an argument, in order."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from refs(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from refs(part)
