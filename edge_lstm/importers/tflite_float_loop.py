"""A WHILE operator that runs a recurrent cell over the rows of a window, as Keras 3 writes LSTM, GRU and RNN.

Reads the loop's condition and body operator by operator; writes the cell, or says what else the loop does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.flatbuffer import Operator, Subgraph, Tensor
from edge_lstm.importers.tflite_float_axes import FEATURES, ONE, ROWS, STREAMS, Form, Rows, Sizes
from edge_lstm.importers.tflite_float_cells import Cell, Found, find_cells, step
from edge_lstm.importers.tflite_float_constants import Constants, described, integers
from edge_lstm.importers.tflite_float_forms import KINDS, Forms
from edge_lstm.importers.tflite_float_symbols import Symbols


@dataclass(frozen=True)
class Slot:
    """A float that the loop carries from one round to the next."""

    place: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Counter:
    """An integer that the loop carries, ``plus`` some rounds."""

    place: int
    plus: int = 0


@dataclass(frozen=True)
class Corner:
    """A place in a stack of rows: a counter in front, then constants."""

    counter: Counter
    rest: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """The rows of a stack before a counter, or from it on."""

    place: int
    counter: Counter
    head: bool


@dataclass(frozen=True)
class Stacked:
    """A stack whose row at a counter was replaced."""

    place: int
    counter: Counter
    row: Form


Value = Slot | Counter | Corner | Piece | Stacked | Form | Rows | Tensor | None


@dataclass(frozen=True)
class Loop:
    """A recognized loop.  window: the place of the rows; state: the places of h (and c).

    last, stacks: the places that hold the last hidden vector or those of all rows when it ends.
    """

    symbols: Symbols
    cell: Cell
    window: int
    state: tuple[int, ...]
    last: tuple[int, ...]
    stacks: tuple[int, ...]


def read_loop(
    condition: Subgraph, body: Subgraph, values: Sequence[Value], sizes: Sizes, constants: Constants
) -> Loop:
    """Recognize a loop.  values: of the operator's inputs.  Raises UnsupportedModel for any other loop."""
    if not len(values) == len(body.inputs) == len(body.outputs) == len(condition.inputs):
        raise ModelError("the loop's body and condition carry other values than the loop; convert it again")
    return _Body(body, values, sizes, constants).loop(_rounds(condition, values))


def _rounds(condition: Subgraph, values: Sequence[Value]) -> dict[int, int]:
    """Counter -> the number that it must stay below."""
    limits: dict[int, dict[int, int]] = {}  # tensor -> the counters that it compares
    places = {tensor.index: place for place, tensor in enumerate(condition.inputs) if tensor is not None}
    for operator in condition.operators:
        read = [None if tensor is None else tensor.index for tensor in operator.inputs]
        written = [-1 if tensor is None else tensor.index for tensor in operator.outputs]
        if len(read) != 2 or len(written) != 1:
            break
        if operator.kind == "LESS" and read[0] in places:
            place, limit = places[read[0]], operator.inputs[1]
            constant = values[places[read[1]]] if read[1] in places else limit
            bound = integers(constant if isinstance(constant, Tensor) else None)
            limits[written[0]] = {place: (*bound, 0)[0]}
        elif operator.kind == "LOGICAL_AND" and read[0] in limits and read[1] in limits:
            limits[written[0]] = {**limits[read[0]], **limits[read[1]]}
        else:
            break
    else:
        ends = condition.outputs[0] if len(condition.outputs) == 1 else None
        if ends is not None and ends.index in limits:
            return limits[ends.index]
    raise UnsupportedModel("the loop's condition is not that of a counter below a constant")


class _Body:
    def __init__(self, body: Subgraph, values: Sequence[Value], sizes: Sizes, constants: Constants) -> None:
        self.body, self.outer, self.sizes = body, values, sizes
        self.symbols = Symbols(constants)
        self.forms = Forms(self.symbols, sizes)
        self.env: dict[int, Value] = {}
        self.windows: set[int] = set()  # places of what is gathered from
        self.counters: set[int] = set()  # places of what is counted with
        self.states: dict[int, int] = {}  # place -> the symbol of the state that the body reads
        for place, (tensor, value) in enumerate(zip(body.inputs, values, strict=True)):
            if tensor is not None:
                self.env[tensor.index] = self.entering(place, tensor, value)
        for number, operator in enumerate(body.operators):
            self.run(number, operator)
        self.check_all_read()

    def entering(self, place: int, tensor: Tensor, value: Value) -> Value:
        """What a carried value is inside the body."""
        if self.body.outputs[place] is tensor:
            return value if isinstance(value, (Rows, Tensor)) else None
        return Counter(place) if tensor.kind in ("INT32", "INT64") else Slot(place, tensor.shape)

    def check_all_read(self) -> None:
        """An operator that computes for nobody is no part of a cell."""
        read = {tensor.index for operator in self.body.operators for tensor in operator.inputs if tensor}
        read |= {tensor.index for tensor in self.body.outputs if tensor}
        for operator in self.body.operators:
            if not any(tensor is not None and tensor.index in read for tensor in operator.outputs):
                raise UnsupportedModel(f"in its body, nothing reads what {operator.kind} computes")

    # --- the body, operator by operator

    def value(self, tensor: Tensor | None) -> Value:
        if tensor is None or tensor.data is not None:
            return tensor
        if tensor.index not in self.env:
            raise ModelError(f"{described(tensor)} is read before it is computed; convert the model again")
        return self.env[tensor.index]

    def run(self, number: int, operator: Operator) -> None:
        values = [self.value(tensor) for tensor in operator.inputs]
        constants = [v if isinstance(v, Tensor) else t for t, v in zip(operator.inputs, values, strict=True)]
        operator = replace(operator, inputs=tuple(constants))
        try:
            found = self.results(operator, values)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"in its body, operator {number} {operator.kind}: {error}") from error
        if len(found) != len(operator.outputs):
            raise ModelError(f"{operator.kind} has {len(operator.outputs)} outputs, expected {len(found)}")
        for tensor, value in zip(operator.outputs, found, strict=True):
            if tensor is not None and tensor.index in self.env:
                raise ModelError(f"{described(tensor)} is written twice; convert the model again")
            if tensor is not None:
                self.env[tensor.index] = value

    def results(self, operator: Operator, values: Sequence[Value]) -> Sequence[Value]:
        """What one operator computes."""
        first = values[0] if values else None
        if operator.kind == "GATHER":
            return [self.gathered(operator, values)]
        if operator.kind == "ADD" and isinstance(first, Counter):
            return [self.counted(first, values)]
        if (operator.kind, type(first)) in (("RESHAPE", Counter), ("DEQUANTIZE", Tensor)):
            return [first]
        if operator.kind == "SLICE":
            return [self.piece(values)]
        if operator.kind == "CONCATENATION":
            return [self.joined(operator, values)]
        if operator.kind in KINDS:
            return self.forms.run(operator, [self.vector(value) for value in values])
        raise UnsupportedModel("a recurrent cell of Keras has no such operator")

    def vector(self, value: Value) -> Form | Tensor | None:
        """A value that primitive operators compute with."""
        if isinstance(value, Slot):
            return self.state(value)
        if value is None or isinstance(value, (Form, Tensor)):
            return value
        raise UnsupportedModel(f"it computes with a {type(value).__name__.lower()} of the loop")

    def state(self, slot: Slot) -> Form:
        width = slot.shape[-1] if slot.shape else 0
        axes = self.sizes.named((STREAMS, FEATURES), width)
        if slot.shape != (self.sizes.streams, width) or width < 1:
            raise UnsupportedModel(f"it computes with a state of shape {list(slot.shape)}")
        form = self.forms.input(("state", slot.place), axes, width)
        self.states[slot.place] = form.sum
        return form

    def gathered(self, operator: Operator, values: Sequence[Value]) -> Form:
        """Row ``counter`` of the window."""
        window = values[0] if len(values) == 2 else None
        if not isinstance(window, Rows) or not isinstance(values[1], Counter) or values[1].plus:
            raise UnsupportedModel("it does not gather the row of this round")
        if operator.options.get("Axis", 0) != 0 or operator.options.get("BatchDims", 0) != 0:
            raise UnsupportedModel("it gathers along another axis than the first")
        if not window.sequence or window.axes != window_axes(self.sizes, window.width):
            raise UnsupportedModel("it does not gather from the rows of a window")
        place = next(place for place, value in enumerate(self.outer) if value is window)
        self.windows.add(place)
        self.counters.add(values[1].place)
        return self.forms.input(("row", place, values[1].place), (STREAMS, FEATURES), window.width)

    def counted(self, counter: Counter, values: Sequence[Value]) -> Counter:
        one = values[1] if len(values) == 2 and isinstance(values[1], Tensor) else None
        if integers(one) != (1,):
            raise UnsupportedModel("it does not count by 1")
        return Counter(counter.place, counter.plus + 1)

    def piece(self, values: Sequence[Value]) -> Piece:
        """SLICE of a stack: the rows before the counter, or those after it."""
        stack, begin, size = values if len(values) == 3 else (None, None, None)
        corner, other = (size, begin) if isinstance(size, Corner) else (begin, size)
        if isinstance(stack, Slot) and isinstance(corner, Corner) and isinstance(other, Tensor):
            head = corner is size  # from 0 with a size of -1, or from the corner with one
            if (set(integers(other)), set(corner.rest)) == (({0}, {-1}) if head else ({-1}, {0})):
                return Piece(stack.place, corner.counter, head)
        raise UnsupportedModel("it does not part the rows of an output at a counter")

    def joined(self, operator: Operator, values: Sequence[Value]) -> Value:
        """CONCATENATION: a corner of a stack, or a stack with another row at the counter."""
        if operator.options.get("Axis", 0) == 0 and operator.options.get("FusedActivationFunction", 0) == 0:
            if len(values) == 2 and isinstance(values[0], Counter) and isinstance(values[1], Tensor):
                return Corner(values[0], integers(values[1]))
            head, row, tail = values if len(values) == 3 else (None, None, None)
            if isinstance(head, Piece) and isinstance(row, Form) and isinstance(tail, Piece):
                after = Counter(head.counter.place, head.counter.plus + 1)
                if head.head and not tail.head and head.place == tail.place and tail.counter == after:
                    self.counters.add(head.counter.place)
                    return Stacked(head.place, head.counter, row)
        raise UnsupportedModel("it joins what is no output of the window")

    # --- what the body computes

    def loop(self, limits: dict[int, int]) -> Loop:
        results = [self.value(tensor) for tensor in self.body.outputs]
        self.check_counters(limits, results)
        found, state = self.cell(results)
        last, stacks = [], []
        hidden = results[state[0]]
        for place, result in enumerate(results):
            if isinstance(result, Stacked):
                self.check_stack(place, result, hidden)
                stacks.append(place)
            elif isinstance(result, Form) and isinstance(hidden, Form) and place not in state[1:]:
                if result.sum != hidden.sum:
                    raise UnsupportedModel(f"it carries more than the state of a cell (value {place})")
                last.append(place)
        return Loop(self.symbols, found.cell, next(iter(self.windows)), state, tuple(last), tuple(stacks))

    def check_counters(self, limits: dict[int, int], results: Sequence[Value]) -> None:
        """Every counter runs from 0 by 1, and the loop ends after the window's last row."""
        for place, result in enumerate(results):
            value = self.outer[place]
            if isinstance(result, Counter) or place in limits or place in self.counters:
                start = integers(value) if isinstance(value, Tensor) else (1,)
                if result != Counter(place, 1) or start != (0,):
                    raise UnsupportedModel(f"its counter (value {place}) does not count from 0 by 1")
        if min(limits.values()) != self.sizes.window or len(self.windows) != 1:
            raise UnsupportedModel(
                f"it makes {min(limits.values())} rounds over {len(self.windows)} inputs, expected "
                f"{self.sizes.window} rounds over the rows of one"
            )

    def check_stack(self, place: int, result: Stacked, hidden: Value) -> None:
        slot = self.body.inputs[place]
        row = hidden if isinstance(hidden, Form) else None
        axes = (ONE, *self.sizes.named((STREAMS, FEATURES), result.row.width))
        width = result.row.width
        if (
            row is None or result.row.sum != row.sum or result.row.axes != axes or result.place != place
            or result.counter.plus or slot is None
            or slot.shape != (self.sizes.window, self.sizes.streams, width)
        ):  # fmt: skip
            raise UnsupportedModel(f"it stacks something else than its hidden state (value {place})")

    def cell(self, results: Sequence[Value]) -> tuple[Found, tuple[int, ...]]:
        """The cell that gives exactly these results, and the places of its state."""
        for place in self.states:
            result = results[place]
            if not isinstance(result, Form):
                continue
            for found in find_cells(self.symbols, result.sum):
                state = tuple(p for number in found.state for p, own in self.states.items() if own == number)
                if set(state) != set(self.states) or len(state) != len(found.state) or state[0] != place:
                    continue
                after = step(self.symbols, found.cell, found.x, found.state)
                wanted = tuple(r.sum for r in (results[p] for p in state) if isinstance(r, Form))
                if after == wanted and found.x in self.rows():
                    return found, state
        raise UnsupportedModel("its body is not the cell of an LSTM, a GRU or a simple RNN")

    def rows(self) -> set[int]:
        """The symbols of the rows that the body gathers."""
        return {
            self.symbols.pure(number)
            for number, item in enumerate(self.symbols.items)
            if item[0] == "input" and item[2][0][0] == "row"
        }


def window_axes(sizes: Sizes, width: int) -> tuple[str, ...]:
    """The axes of a sequence that a loop reads or writes."""
    return sizes.named((ROWS, STREAMS, FEATURES), width)
