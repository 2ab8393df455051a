"""What a report shows: plain arrays and figures, checked when built; filled by verbs, read by the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import DataError, raise_all
from edge_lstm.graph import Channel

BoolArray = npt.NDArray[np.bool_]


def _finite(array: npt.ArrayLike) -> FloatArray:
    """A read-only float64 copy with infinity as NaN: neither can be drawn."""
    real = np.asarray(array, dtype=np.float64)
    return frozen(np.where(np.isfinite(real), real, np.nan), np.float64)


@dataclass(frozen=True, eq=False)
class DetectorTrace:
    """A detector row by row: score, threshold and alarm (above 0 is on), each (steps,); NaN where unknown."""

    score: FloatArray
    threshold: FloatArray
    alarm: FloatArray

    def __post_init__(self) -> None:
        for name in ("score", "threshold", "alarm"):
            object.__setattr__(self, name, _finite(getattr(self, name)))


@dataclass(frozen=True)
class TensorRange:
    """One quantized tensor: the range that was seen, the range that its codes reach, and the loss.

    kind: weight, activation, state ...  snr_db: signal to quantization noise; None where not measured,
    infinite where nothing was lost.  saturated: values of ``count`` that were clipped to the code's ends.
    """

    name: str
    kind: str
    low: float
    high: float
    representable_low: float
    representable_high: float
    snr_db: float | None = None
    saturated: int = 0
    count: int = 0


@dataclass(frozen=True)
class CoreCost:
    """What one step costs on one core; ``instructions_per_step`` has mean, min and max."""

    core: str
    instructions_per_step: Mapping[str, float]
    code_bytes: int
    table_bytes: int
    weight_bytes: int
    ram_bytes: int
    stack_bytes: int

    @property
    def flash_bytes(self) -> int:
        return self.code_bytes + self.table_bytes + self.weight_bytes


@dataclass(frozen=True)
class Agreement:
    """How many of an executor's codes differ from the reference of its numerics profile."""

    executor: str
    profile: str
    codes: int
    differing: int
    max_difference: int = 0


@dataclass(frozen=True)
class Event:
    """One alarm of the int8 detector, rows ``start_row`` to before ``stop_row``.

    start: its stamp as text, empty where the stream has none.  contributions: share of the score by
    channel name, any positive scale.
    """

    start_row: int
    stop_row: int
    peak_score: float
    start: str = ""
    contributions: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything a report may show; parts that are absent are left out of the page and named there.

    values: real units (steps, channels), NaN where missing.  time_s: seconds (steps,), not decreasing.
    label: 0/1 (steps,), 1 in a labelled fault.  forecast_float, forecast_int8: real units, same shape as
    values; row t is the forecast OF row t, NaN where there is none.
    quality: figures by method, ``{"LSTM int8": {"R2": 0.98, ...}, "z-score": {...}}``.
    history: one value an epoch by curve; ``val_x`` is drawn with ``x``.
    verdict: the headline; built from the figures where empty.  made: how the model was made, JSON values.
    """

    name: str
    channels: Sequence[Channel]
    values: FloatArray
    time_s: FloatArray | None = None
    label: npt.NDArray[Any] | None = None
    detection_int8: DetectorTrace | None = None
    detection_float: DetectorTrace | None = None
    forecast_float: FloatArray | None = None
    forecast_int8: FloatArray | None = None
    tensors: Sequence[TensorRange] = ()
    quality: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    cores: Sequence[CoreCost] = ()
    agreement: Sequence[Agreement] = ()
    events: Sequence[Event] = ()
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _finite(self.values))
        for name in ("forecast_float", "forecast_int8"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _finite(getattr(self, name)))
        if self.time_s is not None:
            object.__setattr__(self, "time_s", frozen(self.time_s, np.float64))
        if self.label is not None:
            object.__setattr__(self, "label", frozen(np.asarray(self.label) > 0, np.bool_))
        problems = self._stream_problems() or [*self._trace_problems(), *self._table_problems()]
        raise_all(DataError, f"report '{self.name}'", problems)

    @property
    def steps(self) -> int:
        return len(self.values)

    def _stream_problems(self) -> list[str]:
        wanted = len(self.channels)
        if self.values.ndim != 2 or self.values.shape[1] != wanted or self.values.size == 0:
            return [f"values are {self.values.shape}, expected (steps, {wanted}) with at least one of each"]
        return []

    def _trace_problems(self) -> list[str]:
        arrays: list[tuple[str, npt.NDArray[Any] | None, tuple[int, ...]]] = [
            ("time_s", self.time_s, (self.steps,)),
            ("label", self.label, (self.steps,)),
            ("forecast_float", self.forecast_float, self.values.shape),
            ("forecast_int8", self.forecast_int8, self.values.shape),
        ]
        for name in ("detection_int8", "detection_float"):
            trace = getattr(self, name)
            parts = ("score", "threshold", "alarm") if trace is not None else ()
            arrays += [(f"{name}.{part}", getattr(trace, part), (self.steps,)) for part in parts]
        problems = [
            f"{name} is {array.shape}, expected {shape} as the values have"
            for name, array, shape in arrays
            if array is not None and array.shape != shape
        ]
        if self.time_s is not None and not (
            np.isfinite(self.time_s).all() and (np.diff(self.time_s) >= 0).all()
        ):
            problems.append("time_s decreases or is not finite; sort the rows by time")
        return problems

    def _table_problems(self) -> list[str]:
        problems = [
            f"event {number} has rows {event.start_row} .. {event.stop_row}, "
            f"expected a range within 0 .. {self.steps}"
            for number, event in enumerate(self.events, 1)
            if not 0 <= event.start_row < event.stop_row <= self.steps
        ]
        for tensor in self.tensors:
            ends = (tensor.low, tensor.high, tensor.representable_low, tensor.representable_high)
            ordered = ends[0] <= ends[1] and ends[2] < ends[3]
            if not (ordered and np.isfinite(ends).all()):
                problems.append(
                    f"tensor '{tensor.name}' has range {ends[0]} .. {ends[1]} of {ends[2]} .. {ends[3]}, "
                    "expected finite ranges with low below high"
                )
        for core in self.cores:
            missing = [key for key in ("mean", "min", "max") if key not in core.instructions_per_step]
            if missing:
                problems.append(f"core '{core.core}' has no {', '.join(missing)} of instructions_per_step")
        return problems


def spans(mask: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Runs of true entries as (first, one past last).

    >>> spans(np.array([0, 1, 1, 0, 1]))
    [(1, 3), (4, 5)]
    """
    padded = np.concatenate([[0], (np.asarray(mask) > 0).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(padded))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def alarm_spans(data: ReportData) -> list[tuple[int, int]]:
    """Alarms as row ranges: the events, or the int8 detector's alarm where no event is listed."""
    if data.events:
        return [(event.start_row, event.stop_row) for event in data.events]
    return spans(data.detection_int8.alarm) if data.detection_int8 is not None else []


def ranked(data: ReportData) -> list[int]:
    """Channel numbers, the largest contributions to alarms first, otherwise in their order."""
    weight = dict.fromkeys((channel.name for channel in data.channels), 0.0)
    for event in data.events:
        for name, share in shares(event.contributions):
            weight[name] = weight.get(name, 0.0) + share
    return sorted(range(len(data.channels)), key=lambda channel: -weight[data.channels[channel].name])


def shares(contributions: Mapping[str, float]) -> list[tuple[str, float]]:
    """Contributions as shares of 1, largest first."""
    known = {name: max(float(value), 0.0) for name, value in contributions.items() if np.isfinite(value)}
    total = sum(known.values()) or 1.0
    return sorted(((name, value / total) for name, value in known.items()), key=lambda item: -item[1])


def verdict(data: ReportData) -> str:
    """The headline: the one that was given, or a sentence from the figures that are there."""
    if data.verdict:
        return data.verdict
    parts = []
    if data.agreement:
        differing = sum(row.differing for row in data.agreement)
        codes = sum(row.codes for row in data.agreement)
        parts.append(f"{differing:,} of {codes:,} codes differ on {_count(len(data.agreement), 'executor')}")
    if data.detection_int8 is not None or data.events:
        parts.append(_alarm_sentence(data))
    if data.cores:
        core = data.cores[0]
        parts.append(
            f"one model takes {core.flash_bytes:,} bytes of flash and "
            f"{core.ram_bytes + core.stack_bytes:,} of RAM on {core.core}"
        )
    if not parts:
        parts.append(f"{_count(data.steps, 'row')} of {_count(len(data.channels), 'channel')}")
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def _alarm_sentence(data: ReportData) -> str:
    alarms = alarm_spans(data)
    sentence = f"{_count(len(alarms), 'alarm')} in {_count(data.steps, 'row')}"
    if data.label is None:
        return sentence
    alarmed = np.zeros(data.steps, dtype=np.bool_)
    for start, stop in alarms:
        alarmed[start:stop] = True
    faults = spans(data.label)
    if not faults:
        return f"{sentence}, none of them labelled a fault"
    seen = sum(bool(alarmed[start:stop].any()) for start, stop in faults)
    outside = sum(not data.label[start:stop].any() for start, stop in alarms)
    return f"{sentence}, on in {seen} of {_count(len(faults), 'labelled fault')}, {outside} outside them"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
