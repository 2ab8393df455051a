"""A synthetic centrifugal pump with five sensors and labelled faults: the embedded default recording.

Reads a number of rows and a seed; writes the same CSV for the same two on every machine (NumPy only).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.files import write_text

START = "2026-01-05T06:00:00"
PERIOD_S = 1.0
NAMES = ("vibration", "pressure", "flow", "current", "temperature")
UNITS = ("mm/s", "bar", "l/min", "A", "degC")
DECIMALS = (3, 3, 1, 2, 2)  # resolution of each sensor
NOISE = (0.025, 0.035, 2.0, 0.05, 0.12)  # standard deviation of each sensor's own noise

KINDS = ("spike", "drift", "stuck", "level_shift", "lost_correlation", "bearing_tone")
LENGTHS = {"spike": (10, 25)}  # rows; the other kinds:
LENGTH = (40, 150)
CHANNELS = {"stuck": (0, 1, 2, 3), "lost_correlation": (1, 2, 3), "bearing_tone": (0,)}  # the others: any
MIN_ROWS = 2000  # below, six faults take more than 8 % of the rows or get too short to be seen
FAULTS_FROM = 0.6  # of the rows: what is before is normal, for training
FAULT_SHARE = 0.06  # of the rows, aimed at
FAULT_MEAN = 70  # rows
SETTLE_ROWS = 1500  # until the temperature has forgotten its start

# hydraulics: head in bar, flow in l/min, speed as a fraction of nominal
HEAD_SHUTOFF, HEAD_FALL = 6.0, 6.5e-5  # pump curve: head = 6 n^2 - 6.5e-5 q^2
HEAD_STATIC, SYSTEM = 0.9, 5.5e-5  # system curve: head = 0.9 + 5.5e-5 q^2 / valve^2


class Fault(NamedTuple):
    """Rows ``start`` to ``stop`` (not included) of one channel that are labelled 1."""

    kind: str
    channel: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Pump:
    """values, healthy: float64 (rows, 5) with and without the faults, in UNITS, rounded as the sensors do.

    label: uint8 (rows,), 1 in the rows of a fault.  faults: in time order.
    """

    values: FloatArray
    healthy: FloatArray
    label: npt.NDArray[np.uint8]
    faults: tuple[Fault, ...]

    def dataset(self) -> Dataset:
        """The rows as ``read_csv`` reads them from the written file."""
        rows = len(self.values)
        return Dataset(
            names=NAMES,
            units=UNITS,
            values=self.values,
            present=np.ones(self.values.shape, dtype=np.bool_),
            gap=np.zeros(rows, dtype=np.bool_),
            label=self.label,
            time_s=np.arange(rows) * PERIOD_S,
            start=START,
            period_s=PERIOD_S,
        )


def write_pump(path: Path | str, rows: int = 20000, seed: int = 7) -> Pump:
    """Write ``make_pump(rows, seed)`` as a CSV with time stamps and label; returns what it wrote."""
    pump = make_pump(rows, seed)
    stamps = np.datetime64(START) + np.arange(rows) * np.timedelta64(int(PERIOD_S), "s")
    header = ",".join(
        ("time", *(f"{name} [{unit}]" for name, unit in zip(NAMES, UNITS, strict=True)), "label")
    )
    form = ",".join(("{}", *(f"{{:.{decimals}f}}" for decimals in DECIMALS), "{}"))
    columns = (np.datetime_as_string(stamps).tolist(), *pump.values.T.tolist(), pump.label.tolist())
    lines = [form.format(*row) for row in zip(*columns, strict=True)]
    write_text(Path(path), "\n".join((header, *lines, "")))
    return pump


def make_pump(rows: int = 20000, seed: int = 7) -> Pump:
    """Simulate ``rows`` seconds of a pump: every seed is another load profile with other faults.

    The faults lie in the last 40 % of the rows, of all six KINDS in turn.
    Raises ConfigError below MIN_ROWS rows or on a negative seed.
    """
    problems = []
    if rows < MIN_ROWS:
        problems.append(
            f"{rows} rows asked for, expected at least {MIN_ROWS}: six kinds of faults and a normal training "
            "part need them"
        )
    if seed < 0:
        problems.append(f"seed {seed}, expected 0 or more")
    raise_all(ConfigError, "pump", problems)
    clean = _simulate(rows, seed)
    noise = np.random.default_rng([seed, 1]).standard_normal(clean.shape) * NOISE
    healthy = clean + noise
    faults = _place_faults(rows, np.random.default_rng([seed, 2]))
    values, label = healthy.copy(), np.zeros(rows, dtype=np.uint8)
    spread = healthy[: int(rows * FAULTS_FROM)].std(axis=0)
    rng = np.random.default_rng([seed, 3])
    for fault in faults:
        channel = NAMES.index(fault.channel)
        part = slice(fault.start, fault.stop)
        values[part, channel] = _disturb(fault, healthy[:, channel], float(spread[channel]), rng)
        label[part] = 1
    return Pump(_digitize(values), _digitize(healthy), label, faults)


def _digitize(values: FloatArray) -> FloatArray:
    """Round to the sensors' resolution; none reads below 0."""
    columns = [np.round(values[:, place], decimals) for place, decimals in enumerate(DECIMALS)]
    return np.maximum(np.stack(columns, axis=1), 0.0) + 0.0  # + 0.0: no negative zero in the file


def _speed_demand(rows: int, rng: np.random.Generator) -> FloatArray:
    """Speed asked for (rows,), 0.73 .. 0.93 of nominal: levels held for minutes and a slow demand curve."""
    demand = np.empty(rows)
    row = 0
    while row < rows:
        held = int(rng.integers(150, 600))
        demand[row : row + held] = rng.uniform(0.77, 0.89)
        row += held
    t = np.arange(rows)
    first, second = rng.uniform(0.0, 2 * pi, size=2)
    demand += 0.02 * np.sin(2 * pi * t / 900 + first) + 0.01 * np.sin(2 * pi * t / 140 + second)
    return demand


def _simulate(rows: int, seed: int) -> FloatArray:
    """The true values (rows, 5), one second a row, after SETTLE_ROWS to warm up."""
    rows += SETTLE_ROWS
    rng = np.random.default_rng([seed, 0])
    demand = _speed_demand(rows, rng).tolist()
    shock = rng.standard_normal((rows, 4)).tolist()
    phase = float(rng.uniform(0.0, 2 * pi))
    speed, flow, current, ambient, slow = demand[0], 150.0, 9.0, 0.0, 0.0
    hunt, hunt_before, beat, beat_before = 0.0, 0.0, 0.0, 0.0
    temperature = 24.0 + 0.16 * current**2
    values = np.empty((rows, 5))
    for t in range(rows):
        # the drive follows the demand at 0.4 % of nominal speed a second
        speed += min(max((demand[t] - speed) / 6.0, -0.004), 0.004)
        # the pressure controller hunts: a lightly damped loop that is faster at higher speed
        hunt, hunt_before = _resonator(hunt, hunt_before, 11.0 - 4.0 * speed, 0.985, shock[t][0]), hunt
        slow += -slow / 150.0 + 0.010 * shock[t][1]
        valve = min(max(1.0 + 0.16 * hunt + slow, 0.5), 1.5)
        head_needed = HEAD_SHUTOFF * speed**2 - HEAD_STATIC
        steady_flow = sqrt(max(head_needed, 0.05) / (HEAD_FALL + SYSTEM / valve**2))
        flow += (steady_flow - flow) / 1.8
        head = HEAD_SHUTOFF * speed**2 - HEAD_FALL * flow**2
        shaft_kw = 0.0095 * speed**2 * (flow - 70.0)
        current += (sqrt(3.0**2 + (6.0 * shaft_kw) ** 2) - current) / 1.5
        ambient += -ambient / 1500.0 + 0.02 * shock[t][2]
        room = 24.0 + 0.8 * sin(2 * pi * t / 7200 + phase) + ambient
        temperature += (room + 0.16 * current**2 - temperature) / 240.0
        # vibration: imbalance with speed^2, a structural resonance at 82 %, a beat with the neighbour pump
        resonance = 1.0 / (1.0 + ((speed - 0.82) / 0.04) ** 2)
        beat, beat_before = _resonator(beat, beat_before, 16.0 - 10.0 * speed, 0.98, shock[t][3]), beat
        vibration = 0.6 + 1.5 * speed**2 + 0.35 * resonance + 0.09 * beat * (0.6 + resonance) + 0.03 * hunt
        values[t] = vibration, head, flow, current, temperature
    return values[SETTLE_ROWS:]


def _resonator(value: float, before: float, period: float, damping: float, shock: float) -> float:
    """Next value of a noise-driven oscillation; variance about 1 at any period and damping below 1."""
    gain = sqrt((1.0 - damping**2) * ((1.0 + damping**2) ** 2 - (2.0 * damping * cos(2 * pi / period)) ** 2)
                / (1.0 + damping**2))  # fmt: skip
    return 2.0 * damping * cos(2 * pi / period) * value - damping**2 * before + gain * shock


def _place_faults(rows: int, rng: np.random.Generator) -> tuple[Fault, ...]:
    """All kinds in shuffled turns, each somewhere in its own slot of the last rows."""
    turns = max(1, round(rows * FAULT_SHARE / (FAULT_MEAN * len(KINDS))))
    kinds = [kind for _ in range(turns) for kind in rng.permutation(KINDS).tolist()]
    drawn = np.array([rng.integers(*LENGTHS.get(kind, LENGTH), endpoint=True) for kind in kinds])
    short = np.array([kind in LENGTHS for kind in kinds])
    stretch = (rows * FAULT_SHARE - drawn[short].sum()) / drawn[~short].sum()
    lengths = np.where(short, drawn, np.clip(np.round(drawn * stretch), 10, 150)).astype(int).tolist()
    edges = np.linspace(rows * FAULTS_FROM, rows, len(kinds) + 1).astype(int).tolist()
    faults = []
    for kind, length, left, right in zip(kinds, lengths, edges[:-1], edges[1:], strict=True):
        margin = (right - left - length) // 4  # rows without a fault on both sides of each
        start = int(rng.integers(left + margin, right - margin - length, endpoint=True))
        channel = int(rng.choice(CHANNELS.get(kind, tuple(range(len(NAMES))))))
        faults.append(Fault(kind, NAMES[channel], start, start + length))
    return tuple(faults)


def _disturb(fault: Fault, healthy: FloatArray, spread: float, rng: np.random.Generator) -> FloatArray:
    """The channel's values in the rows of a fault; healthy: (rows,); spread: its standard deviation."""
    true = healthy[fault.start : fault.stop]
    count = len(true)
    t = np.arange(count)
    if fault.kind == "stuck":
        return np.full(count, true[0])
    if fault.kind == "lost_correlation":  # the sensor shows what it saw long ago
        past = int(rng.integers(0, int(len(healthy) * FAULTS_FROM) - count))
        return healthy[past : past + count]
    size = spread * rng.uniform(3.0, 5.0)
    if fault.kind == "bearing_tone":  # a rising tone, and more vibration on average
        rise = np.expm1(2.0 * (t + 1) / count) / np.expm1(2.0)
        shape = rise * (np.sin(2 * pi * t / rng.uniform(2.3, 3.7)) + 0.6)
    else:
        shape = (
            rng.choice((-1.0, 1.0))
            * {
                "spike": np.exp(-(t % 5) / 1.5),  # a loose contact: pulses that fade
                "drift": (t + 1) / count,
                "level_shift": np.ones(count),
            }[fault.kind]
        )
    disturbed: FloatArray = true + size * shape
    return disturbed
