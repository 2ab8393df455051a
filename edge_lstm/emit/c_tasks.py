"""Program -> tasks: a flat list of the operators that run code, and the values that they write.

Operators that only pass rows on (a slice, one row, a reversal, a repetition) leave no task: what reads them
reads what they pass on.  The body of a scan stands in the list where the scan stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from edge_lstm.emit.c_tables import layer_symbols
from edge_lstm.program import LstmProgram, NativeLstmProgram, Program, ScanProgram, SoftmaxProgram
from edge_lstm.qgraph import QConstant, QDelay, QRepeat, QReverse, QRow, QSlice, QSumRows

LSTMS = (LstmProgram, NativeLstmProgram)
INPUT = 0  # the value that holds the network's codes


class Rows(NamedTuple):
    """Row t of a value is row ``first + step * t`` of the value ``root``, from its feature ``offset`` on."""

    root: int
    offset: int = 0
    first: int = 0
    step: int = 1


@dataclass(frozen=True)
class Place:
    """Where rows lie in C: row t begins at ``base + offset + stride * t`` and has ``width`` codes."""

    base: str
    width: int
    bits: int
    offset: int = 0
    stride: int = 0

    def at(self, t: str | int) -> str:
        """The C expression that points to row ``t``."""
        offset = self.offset + (self.stride * t if isinstance(t, int) else 0)
        text = self.base + (f" + {offset}" if offset else "")
        if isinstance(t, str) and self.stride:
            size = "" if abs(self.stride) == 1 else f"{abs(self.stride)} * "
            text += f" {'+' if self.stride > 0 else '-'} {size}{t}"
        return text

    def moved(self, codes: int) -> Place:
        """The place ``codes`` codes behind this one."""
        return replace(self, offset=self.offset + codes)


class Copy(NamedTuple):
    """The operator that copies a row."""

    name: str


@dataclass(eq=False)
class Value:
    """What a task writes.  sequence: one row a time step of a window.  rows: what it stands for.

    place: None until it is known.  whole: all rows of a window are kept, not only the one at hand.
    first, last: the tasks from and up to which its memory is taken.
    """

    width: int
    bits: int
    sequence: bool
    rows: Rows
    place: Place | None = None
    whole: bool = False
    first: int = 0
    last: int = 0


@dataclass(eq=False)
class Task:
    """One operator that runs code.  reads, value: indices of values.  unit: index of the network's layer.

    loops: it runs once a row of the window.  backwards: from the last to the first; None: in any order.
    nested: it is part of a scan's body.
    """

    layer: Any
    symbol: str
    reads: tuple[int, ...]
    value: int
    unit: int
    loops: bool
    backwards: bool | None
    nested: bool = False


class Tasks:
    """The tasks of a program.  constants: (symbol, operator) of the values that never change."""

    def __init__(self, program: Program) -> None:
        self.window = program.window
        self.values: list[Value] = []
        self.tasks: list[Task] = []
        self.constants: list[tuple[str, QConstant]] = []
        self.producers: dict[int, Task] = {}  # of values, but for the states of scans
        symbols, width, bits = iter(layer_symbols(program)), program.features, program.input.bits
        self._value(width, bits, True, Place("x", width, bits, 0, width if program.window else 0))
        written: list[int] = []
        for unit, (layer, sources) in enumerate(zip(program.layers, program.sources, strict=True)):
            reads = [written[source] if source >= 0 else INPUT for source in sources]
            symbol, made = next(symbols), program.values[unit]
            if isinstance(layer, ScanProgram):
                written.append(self._add_scan(layer, reads[0], unit, made.sequence, symbols))
            else:
                index = self._value(made.width, made.quantization.bits, made.sequence)
                written.append(self._add(layer, symbol, reads, index, unit))
        self._write_output(written[-1], len(program.layers))

    def _value(self, width: int, bits: int, sequence: bool, place: Place | None = None) -> int:
        self.values.append(Value(width, bits, sequence, Rows(len(self.values)), place))
        return len(self.values) - 1

    def _add(
        self, layer: Any, symbol: str, reads: Sequence[int], index: int, unit: int,
        scan: ScanProgram | None = None,
    ) -> int:  # fmt: skip
        """Append the task that writes the value ``index``, or let it stand for what ``layer`` passes on."""
        value = self.values[index]
        if isinstance(layer, QConstant):
            value.place = Place(f"{symbol}_codes", value.width, value.bits)
            self.constants.append((symbol, layer))
            return index
        first = self.values[reads[0]]
        height = self.window if self.window and first.sequence else 1
        passed = passed_rows(layer, first.rows, height, scan is not None)
        if passed is not None:
            value.rows = passed
            return index
        loops = bool(self.window) and value.sequence and (scan is not None or not reads_windows(layer))
        backwards = False if isinstance(layer, QDelay) else getattr(scan or layer, "backwards", None)
        task = Task(layer, symbol, tuple(reads), index, unit, loops, backwards, scan is not None)
        self.tasks.append(task)
        self.producers[index] = task
        return index

    def _add_scan(
        self, scan: ScanProgram, source: int, unit: int, sequence: bool, symbols: Iterator[str]
    ) -> int:
        """Append a scan's body, then what copies the next states; returns the value of its result."""
        names = [next(symbols) for _ in scan.body]
        loops = bool(self.window) and sequence
        given = [source]
        for state in scan.states:
            symbol = next(symbols)
            member = Place(f"state->{symbol}_last", state.width, state.bits)
            given.append(self._value(state.width, state.bits, False, member))
            self.tasks.append(Task(state, symbol, (), given[-1], unit, loops, scan.backwards, True))
        written: list[int] = []
        for layer, symbol, sources, made in zip(scan.body, names, scan.sources, scan.values, strict=True):
            reads = [written[source] if source >= 0 else given[-1 - source] for source in sources]
            index = self._value(made.width, made.quantization.bits, sequence)
            written.append(self._add(layer, symbol, reads, index, unit, scan))
        result, *nexts = (
            self._kept(written[index], given[1:], scan, unit) for index in (scan.result, *scan.next)
        )
        for state_value, value in zip(given[1:], nexts, strict=True):
            copy = Task(Copy(scan.name), "", (value,), state_value, unit, loops, scan.backwards, True)
            self.tasks.append(copy)
        return result

    def _kept(self, index: int, states: Sequence[int], scan: ScanProgram, unit: int) -> int:
        """The value, or a copy of it where it is part of a state, which changes before it is read."""
        value = self.values[index]
        if value.rows.root not in states:
            return index
        copied = self._value(value.width, value.bits, value.sequence)
        return self._add(Copy(scan.name), "", [index], copied, unit, scan)

    def _write_output(self, index: int, unit: int) -> None:
        """Let the last task write to y where it can, or copy what it wrote."""
        value = self.values[index]
        loops = bool(self.window) and value.sequence
        place = Place("y", value.width, value.bits, 0, value.width if loops else 0)
        producer = self.producers.get(value.rows.root)
        if value.rows == Rows(index) and producer is not None and not isinstance(producer.layer, LSTMS):
            value.place = place
            return
        output = self._value(value.width, value.bits, value.sequence, place)
        self.tasks.append(Task(Copy("output"), "", (index,), output, unit, loops, None))


def reads_windows(layer: Any) -> bool:
    """Whether ``layer`` reads all rows of a window before it writes."""
    return isinstance(layer, QSumRows) or (isinstance(layer, SoftmaxProgram) and layer.axis == "time")


def passed_rows(layer: Any, rows: Rows, height: int, nested: bool) -> Rows | None:
    """The rows that ``layer`` only passes on; None where it computes.

    rows: what it reads.  height: number of these rows.  nested: it is part of a scan's body, which has one.
    """
    if isinstance(layer, QSlice):
        return rows._replace(offset=rows.offset + layer.start)
    if isinstance(layer, QDelay) and layer.size == 1:
        return rows
    if not isinstance(layer, (QRow, QReverse, QRepeat)):
        return None
    if nested:
        return rows
    if isinstance(layer, QReverse):
        return rows._replace(first=rows.first + rows.step * (height - 1), step=-rows.step)
    index = layer.index % height if isinstance(layer, QRow) else 0
    return rows._replace(first=rows.first + rows.step * index, step=0)
