"""The equations of LSTM, GRU and simple RNN, built from symbols and found in symbols.

A cell that is found is built again and must give the very same symbols: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.importers.tflite_float_symbols import NO_WEIGHT, RELU6, Addend, Sum, Symbols, Weight
from edge_lstm.layer_types import LINEAR, Function, Gru, Lstm, Rnn

Layer = Lstm | Gru | Rnn


@dataclass(frozen=True)
class Gate:
    """``function(kernel @ x + recurrent @ h + bias)``."""

    function: Function
    kernel: Weight
    recurrent: Weight
    bias: tuple[Addend, ...]


@dataclass(frozen=True)
class Cell:
    """kind: "lstm" (gates i, f, g, o), "gru" (z, r, h) or "rnn" (one gate).

    squash: of the cell in an LSTM's output.  recurrent_bias: of a GRU's candidate; reset_after: of a GRU.
    """

    kind: str
    gates: tuple[Gate, ...]
    squash: Function = LINEAR
    reset_after: bool = True
    recurrent_bias: tuple[Addend, ...] = ()

    @property
    def functions(self) -> tuple[Function, ...]:
        return tuple(gate.function for gate in self.gates)


@dataclass(frozen=True)
class Found:
    """A cell with the symbols (sums) that it was found between; state: h, and c of an LSTM."""

    cell: Cell
    x: int
    state: tuple[int, ...]


# --- equations -> symbols


def _gate(symbols: Symbols, gate: Gate, x: int, h: int) -> int:
    width = gate.kernel.stop - gate.kernel.start
    total = symbols.add(symbols.weighted(x, gate.kernel), symbols.weighted(h, gate.recurrent))
    return symbols.act(gate.function, symbols.add(total, symbols.total(width, (), gate.bias)))


def step(symbols: Symbols, cell: Cell, x: int, state: tuple[int, ...]) -> tuple[int, ...]:
    """The state after one time step, as symbols."""
    h = state[0]
    if cell.kind == "rnn":
        return (_gate(symbols, cell.gates[0], x, h),)
    if cell.kind == "gru":
        return (_gru_step(symbols, cell, x, h),)
    i, f, g, o = (_gate(symbols, gate, x, h) for gate in cell.gates)
    c = symbols.add(symbols.multiply(f, state[1]), symbols.multiply(i, g))
    return symbols.multiply(o, symbols.act(cell.squash, c)), c


def _gru_step(symbols: Symbols, cell: Cell, x: int, h: int) -> int:
    z, r = (_gate(symbols, gate, x, h) for gate in cell.gates[:2])
    gate = cell.gates[2]
    width = gate.kernel.stop - gate.kernel.start
    if cell.reset_after:
        biased = symbols.total(width, (), cell.recurrent_bias)
        recurrent = symbols.multiply(r, symbols.add(symbols.weighted(h, gate.recurrent), biased))
    else:
        recurrent = symbols.weighted(symbols.multiply(r, h), gate.recurrent)
    total = symbols.add(symbols.weighted(x, gate.kernel), recurrent)
    new = symbols.act(gate.function, symbols.add(total, symbols.total(width, (), gate.bias)))
    rest = symbols.add(symbols.constant(np.ones(1, np.float32)), z, -1.0)
    return symbols.add(symbols.multiply(z, h), symbols.multiply(rest, new))


# --- symbols -> equations


def find_cells(symbols: Symbols, h_next: int) -> Iterator[Found]:
    """Every cell that may have written ``h_next``; each is to be verified with ``step``."""
    yield from _find_lstm(symbols, h_next)
    yield from _find_gru(symbols, h_next)
    yield from _find_rnn(symbols, h_next)


def _factors(symbols: Symbols, number: int) -> list[tuple[int, int]]:
    """Both orders of a product's two sums; empty for what is no product."""
    atom = symbols.atom_in(number)
    if atom is None or symbols.atom_of(atom).kind != "mul":
        return []
    first, second = symbols.atom_of(atom).parts
    return [(first, second), (second, first)]


def _activated(symbols: Symbols, number: int) -> tuple[Function, Sum]:
    """An activation and the sum inside; linear where there is none."""
    atom = symbols.atom_in(number)
    if atom is not None and symbols.atom_of(atom).kind == "act":
        function, inner = symbols.atom_of(atom).parts
        if function != RELU6:
            return function, symbols.sum_of(inner)
    return LINEAR, symbols.sum_of(number)


def _two_products(symbols: Symbols, number: int) -> list[tuple[int, int]]:
    """Both orders of a sum of two products."""
    found = symbols.sum_of(number)
    if len(found.terms) != 2 or found.addends or any(t[1:] != (NO_WEIGHT, 1.0) for t in found.terms):
        return []
    first, second = (symbols.pure(term.atom) for term in found.terms)
    if not (_factors(symbols, first) and _factors(symbols, second)):
        return []
    return [(first, second), (second, first)]


def _weights(total: Sum) -> dict[int, Weight] | None:
    """atom -> its weight; None where an atom has none or two."""
    found = {term.atom: term.weight for term in total.terms}
    return None if len(found) != len(total.terms) or NO_WEIGHT in found.values() else found


def _read_gate(symbols: Symbols, number: int, x: int, h: int) -> Gate | None:
    """A gate over the atoms x and h."""
    function, total = _activated(symbols, number)
    weights = _weights(total)
    if weights is None or set(weights) != {x, h}:
        return None
    return Gate(function, weights[x], weights[h], total.addends)


def _atom_pairs(symbols: Symbols, number: int) -> list[tuple[int, int]]:
    """Both orders of the two atoms that a gate reads."""
    weights = _weights(_activated(symbols, number)[1])
    if weights is None or len(weights) != 2:
        return []
    first, second = weights
    return [(first, second), (second, first)]


def _find_lstm(symbols: Symbols, h_next: int) -> Iterator[Found]:
    for output, squashed in _factors(symbols, h_next):
        atom = symbols.atom_in(squashed)
        squash, c_next = LINEAR, squashed
        if atom is not None and symbols.atom_of(atom).kind == "act":
            squash, c_next = symbols.atom_of(atom).parts
        if isinstance(squash, str):
            continue
        for kept, new in _two_products(symbols, c_next):
            for f, c in _factors(symbols, kept):
                for i, g in _factors(symbols, new):
                    for x, h in _atom_pairs(symbols, output):
                        gates = [_read_gate(symbols, number, x, h) for number in (i, f, g, output)]
                        cell = _lstm_of(gates, squash)
                        if cell is not None:
                            yield Found(cell, symbols.carried(x), (symbols.carried(h), c))


def _lstm_of(gates: list[Gate | None], squash: Function) -> Cell | None:
    found = tuple(gate for gate in gates if gate is not None)
    if len(found) != 4 or len({found[0].function, found[1].function, found[3].function}) != 1:
        return None
    return Cell("lstm", found, squash)


def _find_gru(symbols: Symbols, h_next: int) -> Iterator[Found]:
    for kept, new in _two_products(symbols, h_next):
        for z, h_sum in _factors(symbols, kept):
            h = symbols.carrier(h_sum)
            others = [x for x, other in _atom_pairs(symbols, z) if other == h]
            if not others:
                continue
            x = others[0]
            update = _read_gate(symbols, z, x, h)
            for _, candidate in _factors(symbols, new):
                for reset, gate, after, bias in _candidates(symbols, candidate, x, h):
                    reading = _read_gate(symbols, reset, x, h)
                    if update is not None and reading is not None and update.function == reading.function:
                        cell = Cell("gru", (update, reading, gate), LINEAR, after, bias)
                        yield Found(cell, symbols.carried(x), (h_sum,))


def _candidates(
    symbols: Symbols, number: int, x: int, h: int
) -> Iterator[tuple[int, Gate, bool, tuple[Addend, ...]]]:
    """The reset gate (a sum), the candidate's gate, whether it resets after the product, recurrent bias."""
    function, total = _activated(symbols, number)
    own = [term for term in total.terms if term.atom == x]
    rest = [term for term in total.terms if term.atom != x]
    if len(own) != 1 or own[0].weight == NO_WEIGHT or len(rest) != 1:
        return
    for r, other in _factors(symbols, symbols.pure(rest[0].atom)):
        inner = symbols.sum_of(other)
        if rest[0].weight != NO_WEIGHT and other == symbols.carried(h):
            yield r, Gate(function, own[0].weight, rest[0].weight, total.addends), False, ()
        elif rest[0].weight == NO_WEIGHT and [term.atom for term in inner.terms] == [h]:
            gate = Gate(function, own[0].weight, inner.terms[0].weight, total.addends)
            if gate.recurrent != NO_WEIGHT:
                yield r, gate, True, inner.addends


def _find_rnn(symbols: Symbols, h_next: int) -> Iterator[Found]:
    for x, h in _atom_pairs(symbols, h_next):
        gate = _read_gate(symbols, h_next, x, h)
        if gate is not None:
            yield Found(Cell("rnn", (gate,)), symbols.carried(x), (symbols.carried(h),))


# --- equations -> layer


def layer_of(symbols: Symbols, cell: Cell, initial: tuple[FloatArray | None, ...], backwards: bool) -> Layer:
    """The layer with the cell's weights; initial: of h, and of c."""
    kernel = np.concatenate([symbols.kernel(gate.kernel) for gate in cell.gates], axis=1)
    recurrent = np.concatenate([symbols.kernel(gate.recurrent) for gate in cell.gates], axis=1)
    units = recurrent.shape[1] // len(cell.gates)
    bias = np.concatenate([symbols.bias(gate.bias, units) for gate in cell.gates])
    functions = cell.functions
    if cell.kind == "rnn":
        return Rnn("rnn", kernel, recurrent, bias, functions[0], 0.0, initial[0], backwards)
    if cell.kind == "gru":
        recurrent_bias = np.zeros(3 * units)
        recurrent_bias[2 * units :] = symbols.bias(cell.recurrent_bias, units)
        return Gru(
            "gru", kernel, recurrent, bias, recurrent_bias, cell.reset_after, functions[2], functions[0],
            initial_hidden=initial[0], backwards=backwards,
        )  # fmt: skip
    return Lstm(
        "lstm", kernel, recurrent, bias, activation=functions[2], recurrent_activation=functions[0],
        cell_activation=cell.squash, initial_hidden=initial[0], initial_cell=initial[1], backwards=backwards,
    )  # fmt: skip
