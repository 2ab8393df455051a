"""The float network: Keras layout, gates in the order i, f, g, o.

Read by the float reference and the quantizer; made by importers and by training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError, raise_all

FloatArray = npt.NDArray[np.floating[Any]]


def frozen(array: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a read-only copy of ``array`` with ``dtype``."""
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True)
class Channel:
    """One sensor channel; the network sees ``(real - center) / scale``."""

    name: str
    unit: str = ""
    center: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise ModelError(
                f"channel '{self.name}': center {self.center} and scale {self.scale}, expected finite "
                "numbers and a scale above 0; fit the scaler again"
            )


@dataclass(frozen=True)
class Stream:
    """The sensor side of a network: its channels in order and the time between rows.

    period_s: seconds between two rows, 0 where the stream has no time column.
    """

    channels: tuple[Channel, ...]
    period_s: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.channels)

    @property
    def center(self) -> FloatArray:
        return np.array([channel.center for channel in self.channels])

    @property
    def scale(self) -> FloatArray:
        return np.array([channel.scale for channel in self.channels])

    def to_network(self, real: FloatArray) -> FloatArray:
        """Scale sensor values ``(..., channels)`` in real units to network inputs; NaN stays NaN."""
        scaled: FloatArray = (np.asarray(real, dtype=np.float64) - self.center) / self.scale
        return scaled

    def to_real(self, scaled: FloatArray) -> FloatArray:
        """Undo ``to_network``."""
        real: FloatArray = np.asarray(scaled, dtype=np.float64) * self.scale + self.center
        return real

    @staticmethod
    def unnamed(channels: int) -> Stream:
        """A stream of a network that carries no sensor description: names ch0, ch1 ..., no scaling."""
        return Stream(tuple(Channel(f"ch{index}") for index in range(channels)))


@dataclass(frozen=True, eq=False)
class Lstm:
    """One LSTM layer.

    kernel: (features, 4 * units).  recurrent_kernel: (units, 4 * units).  bias: (4 * units,).
    cell_clip: the cell state is clamped to +-cell_clip; 0 means no clip.
    """

    name: str
    kernel: FloatArray
    recurrent_kernel: FloatArray
    bias: FloatArray
    cell_clip: float = 0.0

    def __post_init__(self) -> None:
        for attribute in ("kernel", "recurrent_kernel", "bias"):
            object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float32))
        raise_all(ModelError, f"lstm '{self.name}'", self._problems())

    def _problems(self) -> list[str]:
        if self.kernel.ndim != 2 or self.recurrent_kernel.ndim != 2:
            return [
                f"kernel has {self.kernel.ndim} and recurrent_kernel {self.recurrent_kernel.ndim} "
                "dimensions, expected 2 and 2"
            ]
        units = self.recurrent_kernel.shape[0]
        problems = []
        if units == 0 or self.kernel.shape[0] == 0:
            problems.append("it has no units or no features; train it with at least one of each")
        for attribute, expected in (
            ("kernel", (self.kernel.shape[0], 4 * units)),
            ("recurrent_kernel", (units, 4 * units)),
            ("bias", (4 * units,)),
        ):
            array = getattr(self, attribute)
            if array.shape != expected:
                problems.append(
                    f"{attribute} is {array.shape}, expected {expected} (4 * units = {4 * units} columns); "
                    "was the layer saved with another number of units?"
                )
            if not np.isfinite(array).all():
                problems.append(f"{attribute} holds NaN or infinity; the training diverged")
        return problems

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def units(self) -> int:
        return int(self.recurrent_kernel.shape[0])

    outputs = units


@dataclass(frozen=True, eq=False)
class Dense:
    """One dense layer without activation.  kernel: (features, outputs).  bias: (outputs,)."""

    name: str
    kernel: FloatArray
    bias: FloatArray

    def __post_init__(self) -> None:
        for attribute in ("kernel", "bias"):
            object.__setattr__(self, attribute, frozen(getattr(self, attribute), np.float32))
        problems = []
        if self.kernel.ndim != 2 or self.kernel.size == 0:
            problems.append(f"kernel is {self.kernel.shape}, expected (features, outputs)")
        elif self.bias.shape != (self.kernel.shape[1],):
            problems.append(f"bias is {self.bias.shape}, expected ({self.kernel.shape[1]},)")
        if not (np.isfinite(self.kernel).all() and np.isfinite(self.bias).all()):
            problems.append("weights hold NaN or infinity; the training diverged")
        raise_all(ModelError, f"dense '{self.name}'", problems)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[0])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[1])


Layer = Lstm | Dense


def chain_problems(name: str, layers: tuple[Any, ...], stream: Stream) -> list[str]:
    """What is wrong with the order and the sizes of ``layers``, which have features and outputs."""
    if not layers:
        return ["it has no layers"]
    problems = []
    if layers[0].features != len(stream.channels):
        problems.append(
            f"layer '{layers[0].name}' takes {layers[0].features} features, "
            f"but the stream has {len(stream.channels)} channels"
        )
    for before, after in pairwise(layers):
        if before.outputs != after.features:
            problems.append(
                f"layer '{after.name}' takes {after.features} features, "
                f"but '{before.name}' gives {before.outputs}"
            )
    return problems


@dataclass(frozen=True, eq=False)
class Graph:
    """A stack of LSTM layers with an optional dense head, in real numbers.

    made: how it was made (configuration, versions, figures), plain JSON values.
    """

    name: str
    layers: tuple[Layer, ...]
    stream: Stream
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = chain_problems(self.name, self.layers, self.stream)
        if not any(isinstance(layer, Lstm) for layer in self.layers):
            problems.append("it has no LSTM layer; this toolkit is for LSTMs")
        raise_all(ModelError, f"model '{self.name}'", problems)

    @property
    def features(self) -> int:
        return self.layers[0].features

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs
