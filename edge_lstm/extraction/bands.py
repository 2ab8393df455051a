"""Band-pass filters in integers: two sections of second order; mirrored in c_runtime/elstm_features.c.

Reads edges in Hz; writes QBands.  The filter is scipy's Butterworth band-pass of order 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ConfigError
from edge_lstm.fixedpoint import IntArray
from edge_lstm.optional import require

COEFFICIENT_BITS = 30
MAX_FRACTION, MIN_FRACTION = 12, 10  # bits below the point of a section's output
OUTPUT_LIMIT = 1 << 29  # |output| is below: no sum of products leaves 62 bits
OUTPUT_FRACTION = 4  # of the filtered samples that are squared
SAMPLE_LIMIT = 1 << 15
DECAY = 30.0  # time constants after which a response is over: exp(-30) is 1e-13
LONGEST = 1 << 20  # samples of a response that is looked at
MAX_ERROR = 0.25  # raw units that rounding may add


@dataclass(frozen=True)
class Section:
    """``y = gain * (x - x two samples ago) + back[0] * y1 + back[1] * y2``; all Q30, int32."""

    gain: int
    back: tuple[int, int]


@dataclass(frozen=True)
class QBand:
    """Two sections, one after the other, whose outputs have ``fraction`` bits below the point, 10 .. 12.

    Each sum is cut down to ``fraction`` bits and what is cut off is added to the next sum, so that rounding
    has no part at low frequencies.  error: raw units that it can add to an output, at most.
    """

    sections: tuple[Section, Section]
    fraction: int
    error: float


@dataclass(frozen=True)
class BandState:
    """Of each section its last two outputs and what was cut off; the last two samples."""

    outputs: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    rest: tuple[int, int] = (0, 0)
    past: tuple[int, int] | None = None


def filter_band(band: QBand, x: npt.NDArray[np.int64], state: BandState) -> tuple[IntArray, BandState]:
    """Filtered samples Q.4 (samples,) of int16 ``x`` (samples,), and the state after them.

    The first sample after a reset counts as what came before it, so that a constant gives 0.
    """
    if not len(x):
        return np.zeros(0, dtype=np.int64), state
    first = int(x[0])
    past = state.past or (first, first)
    series = np.concatenate([[past[1], past[0]], x])
    steps: list[int] = ((series[2:] - series[:-2]) << band.fraction).tolist()
    outputs, rest = [], []
    for section, history, left in zip(band.sections, state.outputs, state.rest, strict=True):
        found, left = _run_section(section, steps, history, left)
        outputs.append((found[-1], found[-2]))
        rest.append(left)
        steps = [now - before for now, before in zip(found[2:], found, strict=False)]
    y = np.array(found[2:], dtype=np.int64)
    down = band.fraction - OUTPUT_FRACTION
    after = BandState((outputs[0], outputs[1]), (rest[0], rest[1]), (int(series[-1]), int(series[-2])))
    return (y + (1 << (down - 1))) >> down, after


def _run_section(
    section: Section, steps: list[int], history: tuple[int, int], rest: int
) -> tuple[list[int], int]:
    """Outputs, the two of ``history`` (last, the one before) first; and what was cut off last."""
    gain, (one, two), mask = section.gain, section.back, (1 << COEFFICIENT_BITS) - 1
    y1, y2 = history
    outputs = [y2, y1]
    for step in steps:
        acc = gain * step + one * y1 + two * y2 + rest
        y1, y2, rest = acc >> COEFFICIENT_BITS, y1, acc & mask
        outputs.append(y1)
    return outputs, rest


def design_band(low_hz: float, high_hz: float, rate_hz: float) -> QBand:
    """The integers of a band-pass from ``low_hz`` to ``high_hz``, where its gain is 1/sqrt(2).

    Raises ConfigError for a band that 32 bits cannot filter: too narrow, or too near 0 or half the rate.
    """
    signal = require("scipy.signal", "data")
    _, poles, gain = signal.butter(2, (low_hz, high_hz), "bandpass", fs=rate_hz, output="zpk")
    upper = sorted((pole for pole in poles if pole.imag > 0), key=abs)
    what = f"band({low_hz:g}, {high_hz:g}) at {rate_hz:g} Hz"
    if len(upper) != 2 or DECAY / (1 - abs(upper[1])) > LONGEST:
        raise ConfigError(f"{what} is too narrow for integers; widen it, or lower the rate")
    first_gain = max(_unit_gain(signal, upper[0]), float(gain))  # so that the second one is at most 1
    first = _quantized(upper[0], first_gain)
    second = _quantized(upper[1], float(gain) / first_gain)
    band = _with_bounds(signal, (first, second), round(DECAY / (1 - abs(upper[1]))))
    if band is None:
        raise ConfigError(
            f"{what} cannot be filtered in 32 bits; widen it, or move it away from 0 and half the rate"
        )
    return band


def _unit_gain(signal: Any, pole: complex) -> float:
    """The gain with which a section's largest amplitude response is 1."""
    frequencies = np.linspace(0, np.pi, 4097)[1:-1]
    points = np.append(frequencies, abs(np.angle(pole)))
    response = signal.freqz([1, 0, -1], [1, -2 * pole.real, abs(pole) ** 2], points)[1]
    return float(1 / np.abs(response).max())


def _quantized(pole: complex, gain: float) -> Section:
    unit = 2**COEFFICIENT_BITS
    return Section(round(gain * unit), (round(2 * pole.real * unit), round(-(abs(pole) ** 2) * unit)))


def is_stable(section: Section) -> bool:
    """Whether the section's poles lie within the unit circle, by its integers."""
    one, two = section.back
    unit = 1 << COEFFICIENT_BITS
    return -unit < two and abs(one) < unit - two


def _with_bounds(signal: Any, sections: tuple[Section, Section], samples: int) -> QBand | None:
    """The band with the most fraction bits that no samples overflow; None where there is none.

    Bounds are sums of absolute impulse responses: of the signal to each output, and of what is cut off.
    """
    unit = 2.0**COEFFICIENT_BITS
    if not all(is_stable(section) and 0 < section.gain <= unit for section in sections):
        return None
    impulse = np.zeros(samples)
    impulse[0] = 1.0
    forward = [np.array([1.0, 0.0, -1.0]) * section.gain / unit for section in sections]
    back = [np.array([1.0, *(-value / unit for value in section.back)]) for section in sections]
    first = signal.lfilter(forward[0], back[0], impulse)
    second = signal.lfilter(forward[1], back[1], first)
    cut = [signal.lfilter([1.0, -1.0], coefficients, impulse) for coefficients in back]
    errors = _total(cut[0]), _total(signal.lfilter(forward[1], back[1], cut[0])) + _total(cut[1])
    for fraction in range(MAX_FRACTION, MIN_FRACTION - 1, -1):
        scale = SAMPLE_LIMIT * 2.0**fraction
        largest = max(
            _total(response) * scale + error for response, error in zip((first, second), errors, strict=True)
        )
        error = errors[1] / 2.0**fraction
        if largest < OUTPUT_LIMIT and error <= MAX_ERROR:
            return QBand(sections, fraction, error)
    return None


def _total(response: FloatArray) -> float:
    return float(np.abs(response).sum())
