"""Layers of a float .tflite file as they are added to a draft, and rows that come one by one.

Reads values and symbols; writes layers.  An unrolled window is followed step by step and must give the very
symbols that the recurrent layer found in its last step computes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.draft import Affine, Draft
from edge_lstm.importers.tflite_float_axes import FEATURES, ROWS, STREAMS, Form, Rows, Sizes
from edge_lstm.importers.tflite_float_cells import find_cells, layer_of, step
from edge_lstm.importers.tflite_float_constants import Constants
from edge_lstm.importers.tflite_float_symbols import NO_WEIGHT, SIXTH, Atom, Sum, Symbols
from edge_lstm.layer_types import LINEAR, Activation, Dense, Function, Layer, Merge, Repeat, Row

MAX_LAYERS = 512
MAX_DEPTH = 64  # of operators between two rows
MAX_STEPS = 4000  # of unrolled cells that are followed

Sums = tuple[int, ...]


class Builder:
    """The draft of one file and the symbols of its rows."""

    def __init__(self, sizes: Sizes, constants: Constants) -> None:
        self.draft = Draft()
        self.sizes, self.constants = sizes, constants
        self.symbols = Symbols(constants)
        self.places: dict[int, tuple[Rows, int]] = {}  # symbol -> a row of a layer's output
        self.lifted: dict[Sums, Rows] = {}
        self.steps_left = MAX_STEPS

    # --- layers

    def add(self, layer: Layer | Affine, *sources: int) -> int:
        if len(self.draft.layers) >= MAX_LAYERS:
            raise UnsupportedModel(f"it has more than {MAX_LAYERS} layers")
        return self.draft.add(layer, *sources)

    def dense(self, value: Rows, kernel: FloatArray, bias: FloatArray) -> Rows:
        index = self.add(Dense("dense", kernel, bias), value.index)
        return replace(value, index=index, width=kernel.shape[1])

    def activated(self, value: Rows, function: Function | str) -> Rows:
        """``relu6(x)`` is 6 times a hard sigmoid."""
        if function == LINEAR:
            return value
        if isinstance(function, str):
            function = Function("hard_sigmoid", SIXTH, 0.0)
            index = self.add(Activation("relu6", function), value.index)
            return self.affine(replace(value, index=index), np.full(1, 6.0), np.zeros(1))
        return replace(value, index=self.add(Activation(function.kind, function), value.index))

    def affine(self, value: Rows, factor: FloatArray, offset: FloatArray) -> Rows:
        """``x * factor + offset``, one number or one a feature; joined with what stands before it."""
        factor, offset = (np.broadcast_to(v.astype(np.float64), (value.width,)) for v in (factor, offset))
        layer = self.draft.layers[value.index] if value.index >= 0 else None
        if isinstance(layer, Affine):
            offset = layer.offset * factor + offset
            factor = layer.factor * factor
            value = replace(value, index=self.draft.sources[value.index][0])
        if np.allclose(factor, 1.0, 1e-6, 0.0) and not offset.any():
            return value
        layer = self.draft.layers[value.index] if value.index >= 0 else None
        if isinstance(layer, Merge) and layer.mode == "sum" and not offset.any():
            sources = self.draft.sources[value.index]
            if np.allclose(factor, 1.0 / len(sources), 1e-6, 0.0):
                return replace(value, index=self.add(Merge("mean", "mean"), *sources))
        return replace(value, index=self.add(Affine("normalization", factor, offset), value.index))

    def merged(self, mode: str, values: list[Rows], like: Rows) -> Rows:
        """Join values in the axes of ``like``."""
        index = self.add(Merge("merge", mode), *(value.index for value in values))
        rows = [value for value in values if value.sequence]
        if len({value.backwards for value in rows}) > 1:
            raise UnsupportedModel("it joins rows with rows in reverse order; reverse one of them first")
        backwards = bool(rows) and rows[0].backwards
        return replace(like, index=index, sequence=bool(rows), backwards=backwards)

    def repeated(self, value: Rows) -> Rows:
        """A vector as every row of the window, its axes unchanged."""
        return replace(value, index=self.add(Repeat("repeat"), value.index), sequence=True)

    # --- rows one by one

    def row(self, value: Rows, place: int) -> Form:
        """Row ``place`` of a sequence as a symbol, counted in the order of the file."""
        key = (value.index, value.backwards, place)
        number, width = self.symbols.input(key, value.width), value.width
        plain = replace(value, axes=self.sizes.named((STREAMS, ROWS, FEATURES), width))
        self.places[number] = (plain, place)
        return Form(number, self.sizes.named((STREAMS, FEATURES), width), width)

    def vector(self, form: Form) -> Rows:
        """A symbol as what a layer writes."""
        return replace(self.lift((form.sum,)), axes=form.axes)

    def lift(self, sums: Sums, depth: int = 0) -> Rows:
        """The layers that compute these symbols: one vector, or one for every row of the window.

        Raises UnsupportedModel where they are neither.
        """
        if depth > MAX_DEPTH:
            raise UnsupportedModel(f"it computes single rows through more than {MAX_DEPTH} operators")
        if sums not in self.lifted:
            self.lifted[sums] = self._lift(sums, depth + 1)
        return self.lifted[sums]

    def _lift(self, sums: Sums, depth: int) -> Rows:
        if sums[-1] not in self.places:
            self._unrolled(sums[-1])
        if all(number in self.places for number in sums):
            return self._placed([self.places[number] for number in sums])
        atoms = [self.symbols.atom_in(number) for number in sums]
        found = [self.symbols.atom_of(atom) for atom in atoms if atom is not None]
        kinds = {atom.kind for atom in found}
        if len(found) == len(sums) and len(kinds) == 1 and kinds != {"input"}:
            return self._lift_atoms(kinds.pop(), found, depth)
        return self._lift_sums([self.symbols.sum_of(number) for number in sums], depth)

    def _placed(self, places: list[tuple[Rows, int]]) -> Rows:
        """Rows that are there already, in their order, or the first or the last of them."""
        value, place = places[0]
        window = self.sizes.window
        if len(places) == window > 1 and places == [(value, number) for number in range(window)]:
            return value
        if len(places) != 1 or place not in (0, window - 1):
            raise UnsupportedModel(
                f"it reads row {place} of {window}, expected the first, the last or every row"
            )
        last = (place == window - 1) != value.backwards
        index = self.add(Row("last_row" if last else "first_row", -1 if last else 0), value.index)
        return Rows(index, self.sizes.named((STREAMS, FEATURES), value.width), value.width, False)

    def _lift_atoms(self, kind: str, atoms: list[Atom], depth: int) -> Rows:
        if kind == "act":
            functions = {atom.parts[0] for atom in atoms}
            if len(functions) == 1:
                value = self.lift(tuple(atom.parts[1] for atom in atoms), depth)
                return self.activated(value, functions.pop())
        elif kind == "sum":
            return self.lift(tuple(atom.parts[0] for atom in atoms), depth)
        elif kind == "mul":
            return self._lift_product([atom.parts for atom in atoms], depth)
        raise UnsupportedModel("it computes its rows in different ways")

    def _lift_product(self, parts: list[tuple[int, int]], depth: int) -> Rows:
        sides = [tuple(pair[side] for pair in parts) for side in (0, 1)]
        for one, other in (sides, sides[::-1]):
            total = self.symbols.sum_of(one[0])
            if len(set(one)) == 1 and not total.terms:
                factor = self.symbols.bias(total.addends, total.width)
                return self.affine(self.lift(other, depth), factor, np.zeros(1))
        values = [self.lift(side, depth) for side in sides]
        return self.merged("mul", values, values[0])

    def _lift_sums(self, totals: list[Sum], depth: int) -> Rows:
        """Dense layers, identities and a bias, the same for every row."""
        first = totals[0]
        shapes = {(tuple(term[1:] for term in total.terms), total.addends) for total in totals}
        if len(shapes) != 1 or not first.terms:
            raise UnsupportedModel("its rows are not all computed in one way, nor are they an LSTM or a GRU")
        values, bias = [], self.symbols.bias(first.addends, first.width)
        alone = len(first.terms) == 1
        for position, term in enumerate(first.terms):
            atoms = tuple(self.symbols.pure(total.terms[position].atom) for total in totals)
            value = self.lift(atoms, depth)
            if term.weight != NO_WEIGHT:
                kernel = self.symbols.kernel(term.weight)
                value = self.dense(value, kernel, bias if alone else np.zeros(first.width))
            values.append((value, term.scale))
        if alone:
            scale, weighted = first.terms[0].scale, first.terms[0].weight != NO_WEIGHT
            return values[0][0] if weighted else self.affine(values[0][0], np.full(1, scale), bias)
        common = {scale for _, scale in values}
        if len(common) > 1:
            values = [(self.affine(value, np.full(1, scale), np.zeros(1)), 1.0) for value, scale in values]
        joined = self.merged("sum", [value for value, _ in values], values[0][0])
        return self.affine(joined, np.full(1, values[0][1]), bias)

    # --- unrolled windows

    def _unrolled(self, last: int) -> None:
        """Find the recurrent layer whose last step wrote this symbol; remember the symbols of its steps."""
        for found in find_cells(self.symbols, last):
            window, place = self.places.get(found.x, (None, -1))
            order = list(range(self.sizes.window))
            if place == 0:
                order.reverse()
            if window is None or place != order[-1]:
                continue
            units = self.symbols.sum_of(last).width
            state = tuple(self.symbols.total(units) for _ in found.state)
            steps = []
            for number in order:
                self.steps_left -= 1
                if self.steps_left < 0:
                    raise UnsupportedModel("it is unrolled over too many steps")
                state = step(self.symbols, found.cell, self.row(window, number).sum, state)
                steps.append(state[0])
            if steps[-1] == last:
                backwards = window.backwards != (order[0] > order[-1])
                layer = layer_of(self.symbols, found.cell, (None, None), backwards)
                axes = self.sizes.named((STREAMS, ROWS, FEATURES), units)
                index = self.add(layer, window.index)
                value = Rows(index, axes, units, True, backwards)
                self.places.update((number, (value, k)) for k, number in enumerate(steps))
                return
