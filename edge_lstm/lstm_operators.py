"""The integer LSTM operators of a QGraph: TFLite's fused one, and the native one of this toolkit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import ModelError, raise_all
from edge_lstm.operators import (
    Int8Array,
    Quantization,
    freeze,
    scale_problems,
    storage_problems,
    wide_problems,
)

CELL_POWERS = range(-15, -8)  # log2 of the cell scale that every profile can compute


@dataclass(frozen=True, eq=False)
class Variant:
    """What an LSTM has beyond the plain one; LiteRT and tflite-runtime alone compute it.  None: absent.

    coupled: the input gate is 1 - f; the codes of gate i are 0 everywhere, its scales 1.
    peephole: int16 (3, units), the cell's weights in the gates i, f and o.
    projection: int8 (outputs, units); its bias int32 (outputs,) with scale projection_scale * inner.scale.
    projection_clip: real, of the output, 0 for none; LiteRT clips around code 0.
    normalization: int16 (4, units), coefficients of the layer normalization; the layer's bias then has the
    scales normalization_scales * 2**-10.  gate_scales: float32 (4,), of what is normalized.
    """

    coupled: bool = False
    peephole: npt.NDArray[np.int16] | None = None
    peephole_scales: npt.NDArray[np.float32] | None = None
    projection: Int8Array | None = None
    projection_bias: npt.NDArray[np.int32] | None = None
    projection_scale: float = 1.0
    projection_clip: float = 0.0
    normalization: npt.NDArray[np.int16] | None = None
    normalization_scales: npt.NDArray[np.float32] | None = None
    gate_scales: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        freeze(
            self, peephole=np.int16, peephole_scales=np.float32, projection=np.int8, projection_bias=np.int32
        )
        freeze(self, normalization=np.int16, normalization_scales=np.float32, gate_scales=np.float32)
        object.__setattr__(self, "projection_clip", float(np.float32(self.projection_clip)))

    @property
    def parts(self) -> tuple[str, ...]:
        """Its parts in words."""
        found = (
            ("coupled gates (CIFG)", self.coupled),
            ("peephole weights", self.peephole is not None),
            ("a projection", self.projection is not None),
            ("layer normalization", self.normalization is not None),
        )
        return tuple(words for words, present in found if present)

    def problems(self, units: int, outputs: int) -> list[str]:
        """What is wrong with it beside a layer of ``units`` cells and ``outputs`` outputs."""
        problems = [] if self.parts else ["its variant has no parts"]
        for part, shape in (
            ("peephole", (3, units)),
            ("projection", (outputs, units)),
            ("projection_bias", (outputs,)),
            ("normalization", (4, units)),
        ):
            found = getattr(self, part)
            if found is not None and found.shape != shape:
                problems.append(f"{part} is {found.shape}, expected {shape}")
        for part, scales, count in (
            ("peephole", "peephole_scales", 3),
            ("normalization", "normalization_scales", 4),
            ("normalization", "gate_scales", 4),
        ):
            present, found = getattr(self, part) is not None, getattr(self, scales)
            if present != (found is not None):
                problems.append(f"{scales} must be given with {part}, and only then")
            elif found is not None:
                problems += scale_problems(scales, found, (count,))
        return problems + self._projection_problems(units, outputs)

    def _projection_problems(self, units: int, outputs: int) -> list[str]:
        problems = []
        if self.projection is None and (self.projection_bias is not None or self.projection_clip):
            problems.append("it has a bias or a clip of a projection, but no projection")
        if not (np.isfinite(self.projection_scale) and self.projection_scale > 0):
            problems.append(f"projection_scale is {self.projection_scale}, expected above 0")
        if not (np.isfinite(self.projection_clip) and self.projection_clip >= 0):
            problems.append(f"projection_clip is {self.projection_clip}, expected 0 (none) or more")
        if self.peephole is not None and outputs != units:
            problems.append(
                f"it has {units} units with peephole weights and a projection to {outputs} outputs, but "
                "LiteRT reads as many peephole weights as outputs: train with as many, or without one of both"
            )
        return problems


@dataclass(frozen=True, eq=False)
class QLstm:
    """One fused LSTM layer of TFLite, gates in the order i, f, g, o; input and output have 8 or both 16 bits.

    kernel: int8 (4, units, features).  recurrent_kernel: int8 (4, units, outputs), where a layer without a
    projection has as many outputs as units.  bias: int32 (4, units), int64 for 16 bits, with scale
    kernel_scales * input.scale, or that of the normalization.  kernel_scales, recurrent_scales: float32 (4,).
    hidden: of the state (tensor 18).  inner: of o * tanh(c) (intermediate 4), which LiteRT reads and TFLM
    does not; written: of the output as its readers see it.  None: as hidden; only files of other converters
    differ, and those with a projection, whose inner values are not projected yet.
    cell_power: log2 of the cell scale, -15 .. -9.  cell_clip: real, 0 means none.
    backwards: the window is read from its last row to its first.  variant: None for the plain LSTM.
    16 bits have zero points 0 and no variant: TensorFlow Lite Micro alone runs them.
    """

    name: str
    kernel: Int8Array
    recurrent_kernel: Int8Array
    bias: npt.NDArray[np.int32] | npt.NDArray[np.int64]
    kernel_scales: npt.NDArray[np.float32]
    recurrent_scales: npt.NDArray[np.float32]
    input: Quantization
    hidden: Quantization
    cell_power: int
    cell_clip: float = 0.0
    backwards: bool = False
    inner: Quantization | None = None
    written: Quantization | None = None
    variant: Variant | None = None

    def __post_init__(self) -> None:
        bias = np.int64 if self.input.bits == 16 else np.int32
        freeze(self, kernel=np.int8, recurrent_kernel=np.int8, bias=bias)
        freeze(self, kernel_scales=np.float32, recurrent_scales=np.float32)
        object.__setattr__(self, "cell_clip", float(np.float32(self.cell_clip)))  # as a file holds it
        raise_all(ModelError, f"lstm '{self.name}'", self._problems())

    def _problems(self) -> list[str]:
        if self.kernel.ndim != 3 or self.kernel.shape[0] != 4 or self.kernel.size == 0:
            return [f"kernel is {self.kernel.shape}, expected (4, units, features)"]
        units, projection = self.units, None if self.variant is None else self.variant.projection
        outputs = units if projection is None or projection.ndim != 2 else projection.shape[0]
        problems = []
        for attribute, shape in (("recurrent_kernel", (4, units, outputs)), ("bias", (4, units))):
            found = getattr(self, attribute).shape
            if found != shape or 0 in shape:
                problems.append(f"{attribute} is {found}, expected {shape}")
        problems += scale_problems("kernel_scales", self.kernel_scales, (4,))
        problems += scale_problems("recurrent_scales", self.recurrent_scales, (4,))
        if self.cell_power not in CELL_POWERS:
            problems.append(
                f"the cell scale is 2**{self.cell_power}, expected 2**-15 .. 2**-9; LiteRT computes garbage "
                "outside that range: quantize again with this toolkit"
            )
        if not (np.isfinite(self.cell_clip) and self.cell_clip >= 0):
            problems.append(f"cell_clip is {self.cell_clip}, expected 0 (none) or a positive number")
        if self.variant is not None:
            problems += self.variant.problems(units, outputs)
        return problems + self._value_problems() + (self._variant_problems() if not problems else [])

    def _value_problems(self) -> list[str]:
        """Problems of the codes that it reads and writes."""
        values = [self.input, self.hidden, self.inner or self.hidden, self.output]
        if len({value.bits for value in values}) > 1:
            return [f"it reads {self.input.bits} and writes {self.output.bits} bits, expected the same"]
        if self.input.bits == 16 and any(value.zero_point for value in values):
            return [
                "its 16-bit codes have a zero point other than 0, but TensorFlow Lite Micro resets its state "
                "to code 0: quantize again with this toolkit"
            ]
        return []

    def _variant_problems(self) -> list[str]:
        variant = self.variant
        if variant is None:
            return []
        problems = []
        if self.input.bits == 16:
            problems.append(
                f"no runtime computes {', '.join(variant.parts)} in 16 bits; quantize it to 8 bits"
            )
        codes = (self.kernel, self.recurrent_kernel, self.bias, variant.peephole, variant.normalization)
        scales = (
            self.kernel_scales, self.recurrent_scales, variant.peephole_scales, variant.normalization_scales,
        )  # fmt: skip
        if variant.coupled and (
            any(part is not None and part[0].any() for part in codes)
            or any(part is not None and part[0] != 1 for part in scales)
        ):
            problems.append("its gates are coupled, but gate i has codes or scales; expected zeros and ones")
        clip = np.float32(variant.projection_clip)
        if clip and (self.hidden.zero_point or self.output != self.hidden or clip < self.output.scale):
            problems.append(
                f"its projection_clip is {float(clip):g}, which LiteRT takes around code 0 in steps of the "
                "output; expected a step or more, and one scale and zero point 0 for state and output: "
                "remove the clip"
            )
        return problems

    @property
    def features(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def units(self) -> int:
        return int(self.kernel.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.recurrent_kernel.shape[2])

    @property
    def output(self) -> Quantization:
        return self.written or self.hidden


@dataclass(frozen=True, eq=False)
class QNativeLstm:
    """One LSTM layer of profile native: one accumulator a gate, a weight scale a row, 16-bit activations.

    kernel: int8 (4, units, features).  recurrent_kernel: int8 (4, units, units).  bias: int32 (4, units) with
    the scale of the accumulator: row_scales * hidden.scale.  The kernel's codes have the scale
    row_scales * hidden.scale / input.scale, the recurrent kernel's row_scales: float32 (4, units).
    cell_power: log2 of the cell scale, -15 .. -9.  cell_clip: real, 0 means none.
    storage: of both kernels in the C, one of STORAGES.
    """

    name: str
    kernel: Int8Array
    recurrent_kernel: Int8Array
    bias: npt.NDArray[np.int32]
    row_scales: npt.NDArray[np.float32]
    input: Quantization
    hidden: Quantization
    cell_power: int
    cell_clip: float = 0.0
    backwards: bool = False
    storage: str = "int8"

    def __post_init__(self) -> None:
        freeze(self, kernel=np.int8, recurrent_kernel=np.int8, bias=np.int32, row_scales=np.float32)
        problems = wide_problems(input=self.input, hidden=self.hidden)
        problems += storage_problems(self.storage, self.kernel, self.recurrent_kernel)
        units = self.kernel.shape[1] if self.kernel.ndim == 3 else 0
        for attribute, shape in (
            ("kernel", (4, units, self.kernel.shape[-1])),
            ("recurrent_kernel", (4, units, units)),
            ("bias", (4, units)),
            ("row_scales", (4, units)),
        ):
            found = getattr(self, attribute).shape
            if found != shape or 0 in shape:
                problems.append(f"{attribute} is {found}, expected {shape}")
        if not (np.isfinite(self.row_scales).all() and (self.row_scales > 0).all()):
            problems.append("row_scales holds a scale that is not above 0")
        if self.cell_power not in CELL_POWERS:
            problems.append(f"the cell scale is 2**{self.cell_power}, expected 2**-15 .. 2**-9")
        raise_all(ModelError, f"lstm '{self.name}'", problems)

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
