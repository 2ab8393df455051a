"""The quantized network as a file stores it: operators with their codes and scales, checked when built.

``lower.py`` turns it into the integers of a numerics profile, which leave nothing to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edge_lstm.detection.fixed import QDetector
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.graph import INPUT, Stream, chain
from edge_lstm.lstm_operators import CELL_POWERS, QLstm, QNativeLstm
from edge_lstm.naming import identifier
from edge_lstm.operators import (
    CodeArray,
    Int8Array,
    QAdd,
    QConstant,
    QDense,
    QLookup,
    QMul,
    QRecode,
    QRelu,
    QScan,
    QSoftmax,
    Quantization,
)
from edge_lstm.placing_operators import (
    QConcat,
    QDelay,
    QRepeat,
    QReverse,
    QRow,
    QSlice,
    QSumRows,
)

__all__ = [
    "CELL_POWERS", "PROFILES", "CodeArray", "Int8Array", "QAdd", "QConcat", "QConstant", "QDelay", "QDense",
    "QGraph", "QLayer", "QLookup", "QLstm", "QMul", "QNativeLstm", "QRecode", "QRelu", "QRepeat", "QReverse",
    "QRow", "QScan", "QSlice", "QSoftmax", "QSumRows", "QValue", "Quantization", "written_values",
]  # fmt: skip

PROFILES = ("tflm", "litert", "tflite", "native")  # NUMERICS.md, 1

QLayer = (
    QLstm | QNativeLstm | QDense | QRecode | QAdd | QMul | QLookup | QRelu | QSoftmax | QConcat | QSlice
    | QRow | QReverse | QRepeat | QSumRows | QDelay | QConstant | QScan
)  # fmt: skip
GATHERING = (QRow, QReverse, QRepeat, QSumRows)


class QValue(NamedTuple):
    """What an operator writes; sequence: one row a time step, else one a window."""

    width: int
    sequence: bool
    quantization: Quantization


def _read(layer: QLayer, index: int) -> Quantization | None:
    """The quantization that ``layer`` expects of its ``index``-th source; None: any."""
    if isinstance(layer, (QAdd, QMul)):
        return layer.left if index == 0 else layer.right
    if isinstance(layer, (QConcat, QSlice, QRow, QReverse, QRepeat, QSumRows, QDelay)):
        return layer.output
    return getattr(layer, "input", None)


def _width(layer: QLayer, values: Sequence[QValue], problems: list[str]) -> int:
    if isinstance(layer, QConstant):
        return layer.width
    first = values[0].width
    if isinstance(layer, (QLstm, QNativeLstm, QDense)):
        if first != layer.features:
            problems.append(f"'{layer.name}' takes {layer.features} features, but what it reads has {first}")
        return layer.outputs
    if isinstance(layer, QConcat):
        return sum(value.width for value in values)
    if isinstance(layer, QSlice):
        if not 0 <= layer.start < layer.stop <= first:
            problems.append(f"'{layer.name}' keeps {layer.start} .. {layer.stop} of {first} features")
        return max(layer.stop - layer.start, 1)
    if isinstance(layer, QDelay):
        return layer.size * first
    if isinstance(layer, QScan):
        return _scan_width(layer, first, problems)
    if len({value.width for value in values} - {1}) > 1:
        problems.append(f"'{layer.name}' joins widths {[value.width for value in values]}")
    return max(value.width for value in values)


def _scan_width(scan: QScan, features: int, problems: list[str]) -> int:
    """The width of a scan's rows; checks its body as a network of single rows."""
    given = [
        QValue(features, False, scan.input),
        *(QValue(state.width, False, state.quantization) for state in scan.states),
    ]
    values, found = written_values(scan.body, scan.sources, given)
    problems += [f"scan '{scan.name}': {problem}" for problem in found]
    if found:
        return 1
    for state, index in zip(scan.states, scan.next, strict=True):
        if values[index][:3:2] != (state.width, state.quantization):
            problems.append(f"scan '{scan.name}': state '{state.name}' is written as {values[index]}")
    return values[scan.result].width


def _written(layer: QLayer, values: Sequence[QValue], problems: list[str]) -> QValue:
    for index, value in enumerate(values):
        expected = _read(layer, index)
        if expected is not None and value.quantization != expected:
            problems.append(f"'{layer.name}' reads {expected}, but its source writes {value.quantization}")
    wanted = 2 if isinstance(layer, (QAdd, QMul)) else 0 if isinstance(layer, QConstant) else 1
    if len(values) != wanted and not (isinstance(layer, QConcat) and len(values) >= 2):
        problems.append(f"'{layer.name}' reads {len(values)} values, expected {wanted}")
    if isinstance(layer, QRepeat) and values[0].sequence:
        problems.append(f"'{layer.name}' repeats the rows of a window, expected a vector")
    sequence = isinstance(layer, QRepeat) or any(value.sequence for value in values)
    if isinstance(layer, (QRow, QSumRows)):
        sequence = False
    return QValue(_width(layer, values, problems), sequence, layer.output)


def written_values(
    layers: Sequence[QLayer], sources: Sequence[Sequence[int]], given: Sequence[QValue]
) -> tuple[list[QValue], list[str]]:
    """What every operator writes, and every problem of the wiring; source -1 is ``given[0]``, -2 the next."""
    problems: list[str] = []
    values: list[QValue] = []
    if len(sources) != len(layers):
        return values, [f"{len(layers)} layers have {len(sources)} lists of sources, expected one a layer"]
    for index, (layer, reads) in enumerate(zip(layers, sources, strict=True)):
        if not all(-len(given) <= source < index for source in reads) or (
            not reads and not isinstance(layer, QConstant)
        ):
            return values, [f"'{layer.name}' reads {list(reads)}, expected earlier layers"]
        read = [values[source] if source >= 0 else given[-1 - source] for source in reads]
        values.append(_written(layer, read, problems))
    return values, problems


@dataclass(frozen=True, eq=False)
class QGraph:
    """A network of integer operators, with its sensor stream and its detector.

    name: one that ``naming.identifier`` accepts.
    input: of the codes that it takes; None: what its first layer reads.
    sources: for every layer the layers that it reads, INPUT for the network's codes; () is a chain.
    window: rows of a window, each run from reset; 0 for a streaming network, which keeps its state.
    timesteps: rows that one invocation of its file takes; 1 for streaming, ``window`` where there is one.
    last_only: the file returns only the output of an invocation's last row.
    lanes: independent streams that one invocation advances; batch_major: they are its first axis (time-major
    otherwise).
    detector: None where the network has none.  made: how it was made, plain JSON values.
    """

    name: str
    layers: tuple[QLayer, ...]
    stream: Stream
    profile: str = "tflm"
    timesteps: int = 1
    last_only: bool = False
    lanes: int = 1
    detector: QDetector | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[tuple[int, ...], ...] = ()
    window: int = 0
    batch_major: bool = False
    input: Quantization = None  # type: ignore[assignment]
    values: tuple[QValue, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        if not self.sources:
            object.__setattr__(self, "sources", chain(self.layers))
        if self.window:
            object.__setattr__(self, "timesteps", self.window)
        if self.input is None:
            first = next((i for i, reads in enumerate(self.sources) if INPUT in reads), None)
            found = None if first is None else _read(self.layers[first], self.sources[first].index(INPUT))
            object.__setattr__(self, "input", found or Quantization(1.0))
        raise_all(ModelError, f"model '{self.name}'", self._problems())

    def _problems(self) -> list[str]:
        if not self.layers:
            return ["it has no layers"]
        given = [QValue(len(self.stream.channels), True, self.input)]
        values, problems = written_values(self.layers, self.sources, given)
        object.__setattr__(self, "values", tuple(values))
        if identifier(self.name) != self.name:
            problems.append(f"the name '{self.name}' is none for C; choose '{identifier(self.name)}'")
        if self.profile not in PROFILES:
            problems.append(f"profile '{self.profile}' is unknown; choose one of {', '.join(PROFILES)}")
        elif self.profile not in self.profiles:
            problems.append(
                f"profile '{self.profile}' does not compute its layers, only {' and '.join(self.profiles)} do"
            )
        if self.timesteps < 1 or self.lanes < 1:
            problems.append(f"timesteps {self.timesteps} and lanes {self.lanes}, expected 1 or more")
        if self.window and self.last_only:
            problems.append("last_only beside a window; keep the last row with a layer")
        gathering = [layer.name for layer in self.layers if gathers(layer)]
        if gathering and not self.window:
            problems.append(f"layer '{gathering[0]}' gathers a window, but the network has none")
        if self.window != 1 and len(values) == len(self.layers):  # one row is a vector too
            problems += self._mixtures()
        if self.detector is not None and not problems:
            problems += self._detector_problems(self.detector)
        return problems

    def _mixtures(self) -> list[str]:
        found = []
        for layer, reads in zip(self.layers, self.sources, strict=True):
            sequences = {source == INPUT or self.values[source].sequence for source in reads}
            if isinstance(layer, QConcat) and len(sequences) > 1:
                found.append(f"'{layer.name}' joins rows of a window with a vector; repeat the vector")
        return found

    def _detector_problems(self, detector: QDetector) -> list[str]:
        problems = []
        if not detector.channels == self.features == self.outputs:
            problems.append(
                f"the detector has {detector.channels} channels, the network {self.features} inputs and "
                f"{self.outputs} outputs; a forecaster's detector needs the same number of each"
            )
        if detector.output_bits != self.output.bits:
            problems.append(
                f"the detector takes outputs of {detector.output_bits} bits, they have {self.output.bits}"
            )
        if detector.output_zero_point != self.output.zero_point:
            problems.append(
                f"the detector takes {detector.output_zero_point} for the outputs' zero point, "
                f"which is {self.output.zero_point}"
            )
        return problems

    @property
    def profiles(self) -> tuple[str, ...]:
        """The numerics profiles that compute every layer."""
        lstms = [layer for layer in self.layers if isinstance(layer, QLstm)]
        if self.profile == "native" or any(isinstance(layer, QNativeLstm) for layer in self.layers):
            return ("native",)
        if any(layer.input.bits == 16 for layer in lstms):
            return ("tflm",)  # no other runtime has an LSTM with 16-bit activations
        if any(getattr(layer, "variant", None) is not None for layer in lstms):
            return ("litert", "tflite")
        return ("tflm", "litert", "tflite")

    @property
    def features(self) -> int:
        return len(self.stream.channels)

    @property
    def outputs(self) -> int:
        return self.values[-1].width

    @property
    def output(self) -> Quantization:
        return self.values[-1].quantization

    @property
    def rows(self) -> int:
        """Rows that one invocation of the file writes."""
        whole = self.values[-1].sequence and not self.last_only
        return self.timesteps if whole else 1

    def with_profile(self, profile: str) -> QGraph:
        """The same codes under another numerics profile."""
        return self if profile == self.profile else replace(self, profile=profile)


def gathers(layer: QLayer) -> bool:
    """Whether ``layer`` needs a whole window."""
    timely = isinstance(layer, QSoftmax) and layer.axis == "time"
    return isinstance(layer, GATHERING) or timely or bool(getattr(layer, "backwards", False))
