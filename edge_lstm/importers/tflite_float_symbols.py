"""Vectors that primitive operators compute, as symbols: equal computations get equal numbers.

A sum is ``weights @ atom + ... + constants``; an atom is an input, an activation of a sum, or the product
of two sums.  Reads constants; writes numbers that only this table understands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.flatbuffer import Tensor
from edge_lstm.importers.tflite_float_constants import Constants
from edge_lstm.layer_types import Function

MAX_TERMS = 64  # of a sum; their number doubles where a vector is added to itself
IDENTITY, SCALAR = -1, -1  # in place of a matrix, of a vector
SIXTH = 1.0 / 6.0


class Weight(NamedTuple):
    """Rows ``start`` to ``stop`` of a matrix (outputs, inputs), or IDENTITY."""

    matrix: int
    start: int
    stop: int


class Term(NamedTuple):
    """``scale * (weight @ atom)``; scale other than 1 only with IDENTITY."""

    atom: int
    weight: Weight
    scale: float


class Addend(NamedTuple):
    """``scale`` times a constant vector, or ``scale`` itself for SCALAR."""

    vector: int
    scale: float


class Sum(NamedTuple):
    """terms, addends: sorted, so that equal sums are equal."""

    width: int
    terms: tuple[Term, ...]
    addends: tuple[Addend, ...]


class Atom(NamedTuple):
    """kind: "input", "act", "mul" or "sum".  parts: a key, (function, sum), two sums, or one sum."""

    kind: str
    width: int
    parts: tuple[Any, ...]


NO_WEIGHT = Weight(IDENTITY, 0, 0)


class Symbols:
    """Every sum and every atom of one computation."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.items: list[Sum | Atom] = []
        self.numbers: dict[Sum | Atom, int] = {}
        self.matrices: list[Tensor] = []
        self.read: dict[int, FloatArray] = {}
        self.places: dict[tuple[Any, ...], int] = {}
        self.vectors: list[FloatArray] = []
        self.contents: dict[bytes, int] = {}

    def _number(self, item: Sum | Atom) -> int:
        if item not in self.numbers:
            self.numbers[item] = len(self.items)
            self.items.append(item)
        return self.numbers[item]

    def sum_of(self, number: int) -> Sum:
        item = self.items[number]
        assert isinstance(item, Sum)
        return item

    def atom_of(self, number: int) -> Atom:
        item = self.items[number]
        assert isinstance(item, Atom)
        return item

    # --- constants

    def matrix(self, tensor: Tensor) -> int:
        """The number of a constant matrix; the same buffer seen the same way is the same matrix."""
        key = (
            tensor.buffer,
            tensor.shape,
            tensor.kind,
            tensor.scales.tobytes(),
            tensor.zero_points.tobytes(),
        )
        if key not in self.places:
            self.places[key] = len(self.matrices)
            self.matrices.append(tensor)
        return self.places[key]

    def kernel(self, weight: Weight) -> FloatArray:
        """(inputs, outputs), as Keras keeps it."""
        if weight.matrix not in self.read:
            self.read[weight.matrix] = self.constants.numbers(self.matrices[weight.matrix])
        kernel: FloatArray = self.read[weight.matrix][weight.start : weight.stop].T
        return kernel

    def _addend(self, values: FloatArray, scale: float) -> Addend:
        if values.size == 1:
            return Addend(SCALAR, float(values[0]) * scale)
        content = np.asarray(values, dtype=np.float32).tobytes()
        if content not in self.contents:
            self.constants.count(values.size)
            self.contents[content] = len(self.vectors)
            self.vectors.append(values)
        return Addend(self.contents[content], scale)

    def bias(self, addends: Iterable[Addend], width: int) -> FloatArray:
        """The addends as one vector."""
        total: FloatArray = np.zeros(width)
        for vector, scale in addends:
            total = total + (scale if vector == SCALAR else self.vectors[vector].astype(np.float64) * scale)
        return total

    # --- sums

    def total(self, width: int, terms: Iterable[Term] = (), addends: Iterable[Addend] = ()) -> int:
        found = Sum(width, tuple(sorted(terms)), tuple(sorted(addends)))
        if len(found.terms) + len(found.addends) > MAX_TERMS:
            raise UnsupportedModel(f"it adds more than {MAX_TERMS} vectors")
        return self._number(found)

    def pure(self, atom: int) -> int:
        """The atom itself as a sum."""
        return self.total(self.atom_of(atom).width, [Term(atom, NO_WEIGHT, 1.0)])

    def input(self, key: Any, width: int) -> int:
        return self.pure(self._number(Atom("input", width, (key,))))

    def constant(self, values: FloatArray) -> int:
        flat = values.reshape(-1)
        return self.total(flat.size, (), [self._addend(flat, 1.0)])

    def atom_in(self, number: int) -> int | None:
        """The atom that a sum consists of, None where there is more in it."""
        found = self.sum_of(number)
        if len(found.terms) == 1 and not found.addends and found.terms[0][1:] == (NO_WEIGHT, 1.0):
            return found.terms[0].atom
        return None

    def is_zero(self, number: int) -> bool:
        found = self.sum_of(number)
        return not found.terms and not found.addends

    def scalar_in(self, number: int) -> float | None:
        """The value of a sum that is one number for every feature."""
        found = self.sum_of(number)
        if found.terms or len(found.addends) != 1 or found.addends[0].vector != SCALAR:
            return None
        return found.addends[0].scale

    def weighted(self, number: int, weight: Weight) -> int:
        """``weight @ sum``."""
        width = weight.stop - weight.start
        if self.is_zero(number):
            return self.total(width)
        return self.total(width, [Term(self.carrier(number), weight, 1.0)])

    def carrier(self, number: int) -> int:
        """The atom that stands for a sum where it is weighted."""
        atom = self.atom_in(number)
        return self._number(Atom("sum", self.sum_of(number).width, (number,))) if atom is None else atom

    def carried(self, atom: int) -> int:
        """The sum that an atom stands for."""
        kind, _, parts = self.atom_of(atom)
        return int(parts[0]) if kind == "sum" else self.pure(atom)

    def add(self, first: int, second: int, sign: float = 1.0) -> int:
        """``first + sign * second``; a sum of scalars alone takes the width of the other."""
        a, b = self.sum_of(first), self.sum_of(self.scaled(second, sign))
        return self.total(self._common(a, b), a.terms + b.terms, a.addends + b.addends)

    def _common(self, a: Sum, b: Sum) -> int:
        scalars = [not s.terms and all(addend.vector == SCALAR for addend in s.addends) for s in (a, b)]
        if a.width == b.width or (b.width == 1 and scalars[1]):
            return a.width
        if a.width == 1 and scalars[0]:
            return b.width
        raise UnsupportedModel(f"it combines {a.width} with {b.width} features")

    def scaled(self, number: int, factor: float) -> int:
        """``factor * sum``; a relu6 of a sixth of the input is a hard sigmoid."""
        if factor == 1.0:
            return number
        found, atom = self.sum_of(number), self.atom_in(number)
        if atom is not None and abs(factor - SIXTH) < 1e-7:
            kind, _, parts = self.atom_of(atom)
            if kind == "act" and parts[0] == RELU6:
                return self._hard_sigmoid(parts[1])
        if any(term.weight != NO_WEIGHT for term in found.terms):
            return self.total(found.width, [Term(self.carrier(number), NO_WEIGHT, factor)])
        terms = [Term(term.atom, NO_WEIGHT, term.scale * factor) for term in found.terms]
        return self.total(found.width, terms, [Addend(v, scale * factor) for v, scale in found.addends])

    def _hard_sigmoid(self, inner: int) -> int:
        """``relu6(x + 3) / 6``, with the 3 taken out of the sum."""
        found = self.sum_of(inner)
        three = Addend(SCALAR, 3.0)
        if three not in found.addends:
            return self.act(Function("hard_sigmoid", SIXTH, 0.0), inner)
        addends = list(found.addends)
        addends.remove(three)
        return self.act(Function("hard_sigmoid", SIXTH, 0.5), self.total(found.width, found.terms, addends))

    def act(self, function: Function | str, number: int) -> int:
        """An activation; ``function`` may be RELU6, which is no layer."""
        if function == Function("linear"):
            return number
        return self.pure(self._number(Atom("act", self.sum_of(number).width, (function, number))))

    def multiply(self, first: int, second: int) -> int:
        for one, other in ((first, second), (second, first)):
            factor = self.scalar_in(one)
            if factor is not None:
                return self.scaled(other, factor)
        width = self._common(self.sum_of(first), self.sum_of(second))
        if self.is_zero(first) or self.is_zero(second):
            return self.total(width)
        parts = (min(first, second), max(first, second))
        return self.pure(self._number(Atom("mul", width, parts)))

    def part(self, number: int, start: int, stop: int) -> int:
        """Features ``start`` to ``stop``."""
        found = self.sum_of(number)
        if (start, stop) == (0, found.width):
            return number
        if any(term.weight == NO_WEIGHT for term in found.terms):
            raise UnsupportedModel("it splits features that no weights wrote")
        terms = [
            Term(atom, Weight(weight.matrix, weight.start + start, weight.start + stop), scale)
            for atom, weight, scale in found.terms
        ]
        addends = [
            addend
            if addend.vector == SCALAR
            else self._addend(self.vectors[addend.vector][start:stop], addend.scale)
            for addend in found.addends
        ]
        return self.total(stop - start, terms, addends)


RELU6 = "relu6"
