"""The quantized network as a file stores it: codes, scales and zero points, checked when built.

``lower.py`` turns it into the integers of a numerics profile, which leave nothing to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.detection.fixed import QDetector
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.graph import FloatArray, Stream, chain_problems, frozen
from edge_lstm.naming import identifier

PROFILES = ("tflm", "litert", "tflite")  # NUMERICS.md, 1
CELL_POWERS = range(-15, -8)  # log2 of the cell scale that every profile can compute

Int8Array = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (code - zero_point)``; scale is a float32, zero_point an int8."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0 and float(np.float32(self.scale)) == self.scale):
            raise ModelError(f"scale {self.scale!r} is not a positive float32")
        if not -128 <= self.zero_point <= 127:
            raise ModelError(f"zero point {self.zero_point} is not an int8")

    def encode(self, real: FloatArray) -> Int8Array:
        """Round reals to int8 codes, saturating; NaN becomes the zero point."""
        rounded = np.rint(np.asarray(real, dtype=np.float64) / self.scale) + self.zero_point
        codes: Int8Array = np.clip(np.nan_to_num(rounded, nan=self.zero_point), -128, 127).astype(np.int8)
        return codes

    def decode(self, codes: npt.ArrayLike) -> FloatArray:
        """Reals of int8 codes, float64."""
        real: FloatArray = (np.asarray(codes, dtype=np.float64) - self.zero_point) * self.scale
        return real


def _scale_problems(name: str, scales: npt.NDArray[np.float32], lengths: tuple[int, ...]) -> list[str]:
    if scales.ndim != 1 or len(scales) not in lengths:
        return [f"{name} is {scales.shape}, expected one of {[(n,) for n in lengths]}"]
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        return [f"{name} holds a scale that is not above 0"]
    return []


@dataclass(frozen=True, eq=False)
class QLstm:
    """One int8 LSTM layer, gates in the order i, f, g, o.

    kernel: int8 (4, units, features).  recurrent_kernel: int8 (4, units, units).  bias: int32 (4, units)
    with scale kernel_scales * input.scale.  kernel_scales, recurrent_scales: float32 (4,).
    hidden: of the state and of the output.  cell_power: log2 of the cell scale, -15 .. -9.
    cell_clip: real, 0 means none.
    """

    name: str
    kernel: Int8Array
    recurrent_kernel: Int8Array
    bias: npt.NDArray[np.int32]
    kernel_scales: npt.NDArray[np.float32]
    recurrent_scales: npt.NDArray[np.float32]
    input: Quantization
    hidden: Quantization
    cell_power: int
    cell_clip: float = 0.0

    def __post_init__(self) -> None:
        _freeze(self, kernel=np.int8, recurrent_kernel=np.int8, bias=np.int32)
        _freeze(self, kernel_scales=np.float32, recurrent_scales=np.float32)
        object.__setattr__(self, "cell_clip", float(np.float32(self.cell_clip)))  # as a file holds it
        raise_all(ModelError, f"lstm '{self.name}'", self._problems())

    def _problems(self) -> list[str]:
        if self.kernel.ndim != 3 or self.kernel.shape[0] != 4 or self.kernel.size == 0:
            return [f"kernel is {self.kernel.shape}, expected (4, units, features)"]
        units = self.kernel.shape[1]
        problems = []
        if self.recurrent_kernel.shape != (4, units, units):
            problems.append(
                f"recurrent_kernel is {self.recurrent_kernel.shape}, expected {(4, units, units)}"
            )
        if self.bias.shape != (4, units):
            problems.append(f"bias is {self.bias.shape}, expected {(4, units)}")
        problems += _scale_problems("kernel_scales", self.kernel_scales, (4,))
        problems += _scale_problems("recurrent_scales", self.recurrent_scales, (4,))
        if self.cell_power not in CELL_POWERS:
            problems.append(
                f"the cell scale is 2**{self.cell_power}, expected 2**-15 .. 2**-9; LiteRT computes garbage "
                "outside that range: quantize again with this toolkit"
            )
        if not (np.isfinite(self.cell_clip) and self.cell_clip >= 0):
            problems.append(f"cell_clip is {self.cell_clip}, expected 0 (none) or a positive number")
        return problems

    @property
    def features(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])

    outputs = units

    @property
    def output(self) -> Quantization:
        return self.hidden


@dataclass(frozen=True, eq=False)
class QDense:
    """One int8 dense layer without activation.

    kernel: int8 (outputs, features).  bias: int32 (outputs,).
    kernel_scales: float32 (1,) or, one a row, (outputs,).
    """

    name: str
    kernel: Int8Array
    bias: npt.NDArray[np.int32]
    kernel_scales: npt.NDArray[np.float32]
    input: Quantization
    output: Quantization

    def __post_init__(self) -> None:
        _freeze(self, kernel=np.int8, bias=np.int32, kernel_scales=np.float32)
        problems = []
        if self.kernel.ndim != 2 or self.kernel.size == 0:
            problems.append(f"kernel is {self.kernel.shape}, expected (outputs, features)")
        else:
            outputs = self.kernel.shape[0]
            if self.bias.shape != (outputs,):
                problems.append(f"bias is {self.bias.shape}, expected ({outputs},)")
            problems += _scale_problems("kernel_scales", self.kernel_scales, (1, outputs))
        raise_all(ModelError, f"dense '{self.name}'", problems)

    @property
    def features(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.kernel.shape[0])


def _freeze(layer: Any, **dtypes: npt.DTypeLike) -> None:
    for attribute, dtype in dtypes.items():
        object.__setattr__(layer, attribute, frozen(getattr(layer, attribute), dtype))


QLayer = QLstm | QDense


@dataclass(frozen=True, eq=False)
class QGraph:
    """A stack of int8 layers, with its sensor stream and its detector.

    name: one that ``naming.identifier`` accepts.
    timesteps: rows that one invocation of its file takes; 1 for streaming.
    last_only: the file returns only the output of an invocation's last row.
    lanes: independent streams that one invocation advances (a time-major file of batch n); 1 otherwise.
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

    def __post_init__(self) -> None:
        problems = chain_problems(self.name, self.layers, self.stream)
        if identifier(self.name) != self.name:
            problems.append(f"the name '{self.name}' is none for C; choose '{identifier(self.name)}'")
        if self.profile not in PROFILES:
            problems.append(f"profile '{self.profile}' is unknown; choose one of {', '.join(PROFILES)}")
        if self.timesteps < 1 or self.lanes < 1:
            problems.append(f"timesteps {self.timesteps} and lanes {self.lanes}, expected 1 or more")
        if not any(isinstance(layer, QLstm) for layer in self.layers):
            problems.append("it has no LSTM layer; this toolkit is for LSTMs")
        for before, after in pairwise(self.layers):
            if before.output != after.input:
                problems.append(
                    f"'{after.name}' reads {after.input}, but '{before.name}' writes {before.output}"
                )
        if self.detector is not None:
            problems += self._detector_problems(self.detector)
        raise_all(ModelError, f"model '{self.name}'", problems)

    def _detector_problems(self, detector: QDetector) -> list[str]:
        problems = []
        if not detector.channels == self.features == self.outputs:
            problems.append(
                f"the detector has {detector.channels} channels, the network {self.features} inputs and "
                f"{self.outputs} outputs; a forecaster's detector needs the same number of each"
            )
        found = (detector.input_zero_point, detector.output_zero_point)
        expected = (self.input.zero_point, self.output.zero_point)
        if found != expected:
            problems.append(f"the detector's zero points are {found}, the network's {expected}")
        return problems

    @property
    def features(self) -> int:
        return self.layers[0].features

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs

    @property
    def input(self) -> Quantization:
        return self.layers[0].input

    @property
    def output(self) -> Quantization:
        return self.layers[-1].output

    def with_profile(self, profile: str) -> QGraph:
        """The same codes under another numerics profile."""
        return self if profile == self.profile else replace(self, profile=profile)
