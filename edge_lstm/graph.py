"""The float network: layers that read each other's values, and the sensor stream in front of them.

Read by the float reference and the quantizer; made by importers and by training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.layer_types import (
    Activation,
    Attend,
    Conv1d,
    Dense,
    Gru,
    Layer,
    Lstm,
    Merge,
    Recurrent,
    Repeat,
    Rnn,
    Row,
    Softmax,
)
from edge_lstm.predictor import MAX_AHEAD, LinearPredictor

INPUT = -1  # the source that is the network's input

__all__ = [
    "INPUT", "Activation", "Attend", "Channel", "Conv1d", "Dense", "Graph", "Gru", "Layer", "Lstm", "Merge",
    "Recurrent", "Repeat", "Rnn", "Row", "Softmax", "Stream", "Value", "chain", "needs_window",
    "shape_values",
]  # fmt: skip


@dataclass(frozen=True)
class Channel:
    """One sensor channel; the network sees ``(real - center) / scale``.

    A raw integer of the sensor stands for ``real = zero + resolution * integer``; resolution 0: not stated.
    context: a command, a set point or a clock: it is read, but neither forecast nor scored.
    """

    name: str
    unit: str = ""
    center: float = 0.0
    scale: float = 1.0
    resolution: float = 0.0
    zero: float = 0.0
    context: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise ModelError(
                f"channel '{self.name}': center {self.center} and scale {self.scale}, expected finite "
                "numbers and a scale above 0; fit the scaler again"
            )
        if not (np.isfinite(self.zero) and np.isfinite(self.resolution) and self.resolution >= 0):
            raise ModelError(
                f"channel '{self.name}': resolution {self.resolution} and zero {self.zero}, expected finite "
                "numbers and a resolution above 0, or 0 where it is not stated; quantize the model again"
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

    @property
    def resolution(self) -> FloatArray:
        return np.array([channel.resolution for channel in self.channels])

    @property
    def zero(self) -> FloatArray:
        return np.array([channel.zero for channel in self.channels])

    @property
    def scored(self) -> BoolArray:
        """Bool (channels,): those that are no context."""
        return np.array([not channel.context for channel in self.channels])

    @property
    def raw(self) -> bool:
        """Whether every channel states what a raw integer stands for."""
        return all(channel.resolution > 0 for channel in self.channels)

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


class Value(NamedTuple):
    """What a layer writes: ``width`` features a row; sequence: one row a time step, else one a window."""

    width: int
    sequence: bool


def chain(layers: Sequence[object]) -> tuple[tuple[int, ...], ...]:
    """The sources of layers that read one another in order."""
    return tuple((index - 1,) for index in range(len(layers)))


def _merged(layer: Merge, values: Sequence[Value], problems: list[str]) -> Value:
    widths = {value.width for value in values}
    sequence = any(value.sequence for value in values)
    if layer.mode == "concat":
        if len({value.sequence for value in values}) > 1:
            problems.append(
                f"merge '{layer.name}': it joins rows of a window with a vector; repeat the vector"
            )
        return Value(sum(value.width for value in values), sequence)
    if len(widths - {1}) > 1:
        problems.append(f"merge '{layer.name}': it joins widths {sorted(widths)}, expected one width or 1")
    return Value(max(widths), sequence)


def _written(layer: Layer, values: Sequence[Value], problems: list[str]) -> Value:
    """What ``layer`` writes when it reads ``values``; appends what does not fit."""
    wanted = 2 if isinstance(layer, Attend) else 1
    if len(values) != wanted and not (isinstance(layer, Merge) and len(values) >= 2):
        problems.append(f"layer '{layer.name}' reads {len(values)} values, expected {wanted}")
    first = values[0]
    if isinstance(layer, Merge):
        return _merged(layer, values, problems)
    if isinstance(layer, (Lstm, Gru, Rnn, Dense, Conv1d)):
        if first.width != layer.features:
            problems.append(
                f"layer '{layer.name}' takes {layer.features} features, but what it reads has {first.width}"
            )
        first = Value(layer.outputs, first.sequence)
    gathers = isinstance(layer, (Lstm, Gru, Rnn, Conv1d, Row, Attend)) or getattr(layer, "axis", "") == "time"
    if gathers and not all(value.sequence for value in values):
        problems.append(f"layer '{layer.name}' reads a vector, expected the rows of a window; repeat it")
    if isinstance(layer, Repeat) and first.sequence:
        problems.append(f"layer '{layer.name}' repeats the rows of a window, expected a vector")
    if isinstance(layer, Attend) and values[0].width != 1:
        problems.append(f"layer '{layer.name}' reads weights of width {values[0].width}, expected 1")
    if isinstance(layer, Attend):
        return Value(values[-1].width, False)
    return Value(first.width, isinstance(layer, Repeat) or (first.sequence and not isinstance(layer, Row)))


def shape_values(
    layers: Sequence[Layer], sources: Sequence[Sequence[int]], features: int
) -> tuple[list[Value], list[str]]:
    """The value of every layer, and every problem of the wiring."""
    if not layers:
        return [], ["it has no layers"]
    if len(sources) != len(layers):
        return [], [f"{len(layers)} layers have {len(sources)} lists of sources, expected one a layer"]
    problems: list[str] = []
    values: list[Value] = []
    for index, (layer, reads) in enumerate(zip(layers, sources, strict=True)):
        if not reads or not all(INPUT <= source < index for source in reads):
            return values, [f"layer '{layer.name}' reads layers {list(reads)}, expected earlier ones"]
        given = [values[source] if source >= 0 else Value(features, True) for source in reads]
        values.append(_written(layer, given, problems))
    names = [layer.name for layer in layers]
    problems += [
        f"{names.count(name)} layers are called '{name}', expected distinct names"
        for name in dict.fromkeys(name for name in names if names.count(name) > 1)
    ]
    return values, problems


def needs_window(layer: Layer) -> bool:
    """Whether ``layer`` reads ahead or gathers a window, so that rows cannot stream through it."""
    if isinstance(layer, (Row, Repeat, Attend)):
        return True
    return (isinstance(layer, Softmax) and layer.axis == "time") or (
        isinstance(layer, Recurrent) and layer.backwards
    )


@dataclass(frozen=True, eq=False)
class Graph:
    """A network in real numbers.

    made: how it was made (configuration, versions, figures), plain JSON values.
    sources: for every layer the layers that it reads, INPUT for the network's input; () is a chain.
    The last layer writes the network's output.
    window: rows of a window, 0 for a streaming network, which takes one row a step for ever.  A network with
    a layer that gathers a window needs one: each of its runs takes ``window`` rows and starts from reset.
    predictor: forecasts the rows; the network's outputs are added to it.  None: they are the forecast.
    ahead: the output after row t is of row t + ahead, 0 .. 16; 0: a reconstruction of the row itself.
    """

    name: str
    layers: tuple[Layer, ...]
    stream: Stream
    made: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[tuple[int, ...], ...] = ()
    window: int = 0
    predictor: LinearPredictor | None = None
    ahead: int = 1

    def __post_init__(self) -> None:
        if not self.sources:
            object.__setattr__(self, "sources", chain(self.layers))
        values, problems = shape_values(self.layers, self.sources, len(self.stream.channels))
        gathering = [layer.name for layer in self.layers if needs_window(layer)]
        if gathering and self.window < 1:
            problems.append(
                f"layer '{gathering[0]}' gathers a window, but its length is unknown; save the model with a "
                "fixed number of timesteps"
            )
        if self.window < 0:
            problems.append(f"window is {self.window}, expected 0 (streaming) or the rows of a window")
        if not 0 <= self.ahead <= MAX_AHEAD:
            problems.append(f"ahead is {self.ahead}, expected 0 .. {MAX_AHEAD}")
        read = {source for reads in self.sources for source in reads}
        unread = [layer.name for index, layer in enumerate(self.layers[:-1]) if index not in read]
        if unread:
            problems.append(f"nothing reads {', '.join(unread)}; only the last layer may be the output")
        raise_all(ModelError, f"model '{self.name}'", problems)
        object.__setattr__(self, "values", tuple(values))

    values: tuple[Value, ...] = field(init=False, repr=False, default=())

    @property
    def features(self) -> int:
        return len(self.stream.channels)

    @property
    def outputs(self) -> int:
        return self.values[-1].width

    @property
    def rows(self) -> int:
        """Rows that one run writes: ``window`` or 1."""
        return self.window if self.window and self.values[-1].sequence else 1
