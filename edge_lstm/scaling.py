"""Raw integers of the sensors -> input codes; mirrored in c_runtime/elstm.c.  Spec: NUMERICS.md, 7.

Reads a Stream and the network's input quantization; writes a QScaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection.fixed import INT32_MAX, MISSING
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import IntArray, quantize_multiplier, rounding_shift, saturate
from edge_lstm.graph import Channel, Stream
from edge_lstm.operators import CodeArray, Quantization

FINE_BITS = 6  # below the point of an int8 code: int16 reaches four times beyond its range
RAW_LIMIT = 1 << 30  # raw integers beyond +-2**30 count as that
FINE_LIMIT = 1 << 15


@dataclass(frozen=True, eq=False)
class QScaling:
    """Integers of every channel; arrays have one entry a channel.

    fine = sat16((clamp(raw, low, high) * multiplier + bias) >> shift); the code is fine, or where it has 8
    bits sat8(rounding_shift(fine, FINE_BITS)).
    multiplier: 2**30 .. 2**31 - 1.  bias: int64, the rounding within.  shift: 15 .. 47.
    low, high: within +-2**30, where fine saturates.
    Error of fine: at most 1/2 + 2**-14 steps of the exact real value.
    """

    channels: tuple[Channel, ...]
    input: Quantization
    multiplier: IntArray
    bias: IntArray
    shift: IntArray
    low: IntArray
    high: IntArray

    @property
    def fine_bits(self) -> int:
        return FINE_BITS if self.input.bits == 8 else 0

    @property
    def start(self) -> int:
        """The fine code of a network input of 0."""
        return self.input.zero_point << self.fine_bits

    @property
    def unit(self) -> float:
        """One fine code in network units."""
        return float(np.ldexp(self.input.scale, -self.fine_bits))

    @property
    def integers(self) -> tuple[IntArray, ...]:
        """All that decides the codes."""
        return self.bias, self.multiplier, self.low, self.high, self.shift

    def fine(self, raw: npt.ArrayLike) -> IntArray:
        """Fine codes (..., channels), int64 within int16, of raw integers; without meaning where MISSING."""
        return saturate(self._scaled(raw), 16)

    def _scaled(self, raw: npt.ArrayLike) -> IntArray:
        near = np.clip(np.asarray(raw, dtype=np.int64), self.low, self.high)
        scaled: IntArray = (near * self.multiplier + self.bias) >> self.shift  # |sums| < 2**63
        return scaled

    def narrow(self, fine: IntArray) -> CodeArray:
        """The input codes of fine codes."""
        codes: CodeArray = saturate(self._rounded(fine), self.input.bits).astype(self.input.dtype)
        return codes

    def codes(self, raw: npt.ArrayLike) -> CodeArray:
        """Input codes (..., channels) of raw integers; the zero point where MISSING."""
        codes: CodeArray = np.where(
            np.asarray(raw) == MISSING, self.input.zero_point, self.narrow(self.fine(raw))
        ).astype(self.input.dtype)
        return codes

    def saturated(self, raw: npt.ArrayLike) -> int:
        """How many present raw integers lie outside the range of the codes."""
        return int(self.outside(raw).sum())

    def outside(self, raw: npt.ArrayLike) -> BoolArray:
        """Which raw integers (..., channels) are present and lie outside the range of the codes."""
        rounded = self._rounded(self._scaled(raw))
        outside = (rounded < self.input.low) | (rounded > self.input.high)
        present: BoolArray = outside & (np.asarray(raw) != MISSING)
        return present

    def counts(self, codes: CodeArray) -> npt.NDArray[np.int32]:
        """Raw integers near the middle of ``codes`` (..., channels): a stream of codes as sensors give it."""
        fine = np.ldexp(codes * 2.0**self.fine_bits + 0.5, self.shift)  # half a step is within the bias
        raw = np.rint((fine - self.bias) / self.multiplier)
        counts: npt.NDArray[np.int32] = np.clip(raw, self.low, self.high).astype(np.int32)
        return counts

    def _rounded(self, fine: IntArray) -> IntArray:
        return rounding_shift(fine, self.fine_bits)


def counts_of(stream: Stream, values: FloatArray) -> npt.NDArray[np.int32]:
    """Real values (rows, channels) as the raw integers that the sensors give; NaN: MISSING."""
    counts = np.rint((np.asarray(values, dtype=np.float64) - stream.zero) / stream.resolution)
    counts = np.clip(counts, -INT32_MAX, INT32_MAX)
    return np.where(np.isnan(counts), MISSING, np.nan_to_num(counts)).astype(np.int32)


def scaling_of(stream: Stream, input: Quantization) -> QScaling | None:
    """The integers that scale raw values of ``stream``; None where a channel states no resolution.

    Raises ModelError, naming every channel, where a resolution does not fit the calibrated range.
    """
    if not stream.raw:
        return None
    unit = 2.0**FINE_BITS if input.bits == 8 else 1.0
    gain = unit * stream.resolution / (stream.scale * input.scale)
    start = unit * (input.zero_point + (stream.zero - stream.center) / (stream.scale * input.scale))
    ends = (np.array([[input.low], [input.high]]) * unit - start) / gain
    problems = []
    for channel, step, end in zip(stream.channels, gain, np.abs(ends).max(axis=0), strict=True):
        what = f"channel '{channel.name}': a resolution of {channel.resolution:.4g}"
        if not step < 2 * FINE_LIMIT:
            problems.append(f"{what} is wider than the calibrated range; state a finer one")
        elif not end <= RAW_LIMIT:
            problems.append(
                f"{what} from {channel.zero:.4g} takes integers beyond 30 bits; state a coarser one, or a "
                "zero within the range"
            )
    raise_all(ModelError, "scaling", problems)
    offset, reach = np.rint(-start / gain), np.ceil(2 * FINE_LIMIT / gain)
    factors = np.array([quantize_multiplier(float(step)) for step in gain], dtype=np.int64)
    multiplier, shift = factors[:, 0], 31 - factors[:, 1]
    rest = np.rint(np.ldexp(start + gain * offset, shift)).astype(np.int64)  # below a count: < 2**31
    half = np.int64(1) << (shift - 1)
    return QScaling(
        channels=stream.channels,
        input=input,
        multiplier=multiplier,
        bias=rest + half - offset.astype(np.int64) * multiplier,
        shift=shift,
        low=np.maximum(offset - reach, -RAW_LIMIT).astype(np.int64),
        high=np.minimum(offset + reach, RAW_LIMIT).astype(np.int64),
    )
