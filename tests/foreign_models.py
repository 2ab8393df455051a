"""Seeded int8 .tflite files as other converters write them: branches, reversals, slices, reshapes, softmax.

content, windows = foreign_file(7)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_lstm.emit.tflite_file import FileSpec, TensorSpec, pack
from edge_lstm.emit.tflite_lstm import add_lstm
from edge_lstm.qgraph import Int8Array, QLstm, Quantization

SHARES = Quantization(1 / 256, -128)


class ForeignWriter:
    """One file.  Tensors are named by what runs along their axes: "B" lanes, "T" time steps, "F" features."""

    def __init__(self, seed: int, axes: str, lanes: int, steps: int, features: int) -> None:
        self.rng = np.random.default_rng([seed, 21])
        self.spec = FileSpec("foreign")
        self.axes: dict[int, str] = {}
        self.codes: dict[int, Quantization] = {}
        shape = tuple({"B": lanes, "T": steps, "F": features}[axis] for axis in axes)
        self.start = self.activation(shape, axes, self.quantization(0.005, 0.05))

    def quantization(self, low: float, high: float) -> Quantization:
        return Quantization(float(np.float32(self.rng.uniform(low, high))), int(self.rng.integers(-128, 128)))

    def tensor(self, value: int) -> TensorSpec:
        return self.spec.tensors[value]

    def operate(
        self, kind: str, reads: Sequence[int], shape: tuple[int, ...], axes: str,
        quantization: Quantization | None = None, version: int = 2, **options: Any,
    ) -> int:  # fmt: skip
        """Append an operator with one output, which keeps the codes of its first input or has its own."""
        quantization = quantization or self.codes[reads[0]]
        table = {"RELU": "", "REVERSE_V2": "ReverseV2Options", "CONCATENATION": "ConcatenationOptions"}
        words = "".join(word.capitalize() for word in kind.split("_"))
        output = self.activation(shape, axes, quantization)
        self.spec.operate(kind, version, reads, [output], table.get(kind, f"{words}Options"), **options)
        return output

    def activation(self, shape: tuple[int, ...], axes: str, quantization: Quantization) -> int:
        output = self.spec.activation(axes, shape, quantization)
        self.axes[output], self.codes[output] = axes, quantization
        return output

    def numbers(self, numbers: Any) -> int:
        return self.spec.add(TensorSpec("numbers", np.shape(numbers), 2, data=np.array(numbers, np.int32)))

    def reverse(self, value: int) -> int:
        axes = self.axes[value]
        axis = self.numbers([axes.index("T") - (len(axes) if self.rng.random() < 0.3 else 0)])
        return self.operate("REVERSE_V2", [value, axis], self.tensor(value).shape, axes, version=3)

    def turn(self, value: int) -> int:
        """Swap lanes and time steps."""
        shape, axes = self.tensor(value).shape, self.axes[value]
        turned = (shape[1], shape[0], shape[2])
        if 1 in turned[:2] and self.rng.random() < 0.5:
            return self.reshape(value, turned, axes[1] + axes[0] + "F")
        return self.operate("TRANSPOSE", [value, self.numbers([1, 0, 2])], turned, axes[1] + axes[0] + "F")

    def reshape(self, value: int, shape: tuple[int, ...], axes: str) -> int:
        sizes = list(shape)
        if self.rng.random() < 0.5:
            sizes[int(self.rng.integers(len(sizes)))] = -1
        return self.operate("RESHAPE", [value, self.numbers(sizes)], shape, axes, version=1)

    def row(self, value: int, index: int, gone: bool) -> int:
        """One time step, whose axis goes away or stays with size 1."""
        shape, axes = self.tensor(value).shape, self.axes[value]
        axis = axes.index("T")
        rest = shape[:axis] + (() if gone else (1,)) + shape[axis + 1 :]
        kept = axes.replace("T", "" if gone else "1")
        if self.rng.random() < 0.4:
            indices = self.numbers(index % shape[axis] if gone else [index % shape[axis]])
            return self.operate(
                "GATHER", [value, indices], rest, kept, Axis=axis - 3 * int(gone), BatchDims=0
            )
        begin, end = [0, 0, 0], list(shape)
        begin[axis], end[axis] = index, index % shape[axis] + 1
        masks = {"ShrinkAxisMask": 1 << axis} if gone else {}
        return self.slice(value, begin, end, [1, 1, 1], rest, kept, **masks)

    def slice(
        self, value: int, begin: list[int], end: list[int], strides: list[int], shape: tuple[int, ...],
        axes: str, **masks: int,
    ) -> int:  # fmt: skip
        vectors = [self.numbers(vector) for vector in (begin, end, strides)]
        return self.operate("STRIDED_SLICE", [value, *vectors], shape, axes, **masks)

    def half(self, value: int) -> int:
        """Some of the features."""
        shape = self.tensor(value).shape
        start = int(self.rng.integers(shape[-1]))
        stop = int(self.rng.integers(start + 1, shape[-1] + 1))
        begin, end = [0] * len(shape), list(shape)
        begin[-1], end[-1] = start, stop
        return self.slice(value, begin, end, [1] * len(shape), (*shape[:-1], stop - start), self.axes[value])

    def lstm(self, value: int, units: int, written: Quantization) -> int:
        """A fused LSTM; of most the state, what is written into it and the output have codes of their own."""
        rng, x, features = self.rng, self.codes[value], self.tensor(value).shape[-1]
        own = rng.random() < 0.6
        hidden, inner = ((self.quantization(0.004, 0.008) if own else written) for _ in range(2))
        scales = rng.uniform(1, 4, (2, 4)) / (2000 * np.array([[x.scale], [hidden.scale]]))
        scales = scales.astype(np.float32)
        bias = np.rint(rng.normal(0, 1, (4, units)) / (scales[0][:, None] * x.scale))
        layer = QLstm(
            "lstm", rng.integers(-127, 128, (4, units, features)), rng.integers(-90, 91, (4, units, units)),
            bias, *scales, x, hidden, int(rng.integers(-15, -8)), float(rng.choice([0, 10])), inner=inner,
            written=written,
        )  # fmt: skip
        axes = self.axes[value]
        output = add_lstm(self.spec, value, layer, axes[0] == "T")
        self.axes[output], self.codes[output] = axes, written
        return output

    def dense(self, value: int, outputs: int, rows: tuple[int, ...], keep: bool = True) -> int:
        """A dense layer over ``rows`` rows; it may take several of the tensor's rows as one."""
        rng, x, shape = self.rng, self.codes[value].scale, self.tensor(value).shape
        features = int(np.prod(shape) // np.prod(rows))
        output = self.quantization(0.02, 0.1)
        scales = rng.uniform(0.5, 2, outputs if rng.random() < 0.5 else 1) * output.scale / (x * 300)
        scales = scales.astype(np.float32)
        kernel = rng.integers(-127, 128, (outputs, features)).astype(np.int8)
        reads = [value, self.spec.constant("kernel", kernel, scales)]
        if rng.random() < 0.7:
            bias = np.rint(rng.normal(0, 1, outputs) / (scales * x)).astype(np.int32)
            reads.append(self.spec.constant("bias", np.resize(bias, outputs), scales * np.float32(x)))
        axes = self.axes[value] if keep else "rF"
        options = {"KeepNumDims": keep, "FusedActivationFunction": int(rng.random() < 0.4)}
        return self.operate("FULLY_CONNECTED", reads, (*rows, outputs), axes, output, 4, **options)

    def relu(self, value: int) -> int:
        return self.operate("RELU", [value], self.tensor(value).shape, self.axes[value])

    def softmax(self, value: int) -> int:
        shape, axes = self.tensor(value).shape, self.axes[value]
        return self.operate("SOFTMAX", [value], shape, axes, SHARES, Beta=1.0)

    def concat(self, values: Sequence[int]) -> int:
        shapes, axes = [self.tensor(value).shape for value in values], self.axes[values[0]]
        shape = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
        axis = len(shape) - 1 if self.rng.random() < 0.5 else -1
        return self.operate("CONCATENATION", values, shape, axes, Axis=axis)

    def finish(self, value: int) -> bytes:
        self.spec.inputs, self.spec.outputs = {"x": self.start}, {"y": value}
        return pack(self.spec)


def _branch(w: ForeignWriter, value: int, written: Quantization, backwards: bool) -> int:
    """An LSTM over ``value``, one that reads and returns the rows in reverse, in the order of its input."""
    turned = w.rng.random() < 0.3
    value = w.turn(value) if turned else value
    value = w.reverse(value) if backwards else value
    value = w.lstm(value, int(w.rng.integers(1, 8)), written)
    value = w.reverse(value) if backwards and w.rng.random() < 0.7 else value
    return w.turn(value) if turned else value


def _flat(w: ForeignWriter, value: int) -> int:
    """Two dense layers, the first over all rows of a window, with or without a reshape before it."""
    value = w.turn(value) if w.axes[value][0] == "T" else value
    lanes, steps, features = w.tensor(value).shape
    if w.rng.random() < 0.7:
        value = w.reshape(value, (lanes, steps * features), "BF")
    value = w.dense(value, int(w.rng.integers(1, 6)), (lanes,), False)
    return w.dense(value, 2, (lanes,), False)


def _every(w: ForeignWriter, value: int) -> int:
    """A dense layer for every row, whose tensor may become a matrix and a sequence again."""
    shape, axes = w.tensor(value).shape, w.axes[value]
    if w.rng.random() < 0.5:
        return w.dense(value, int(w.rng.integers(1, 6)), shape[:-1])
    value = w.reshape(value, (shape[0] * shape[1], shape[2]), "rF")
    value = w.dense(value, 3, (shape[0] * shape[1],), False)
    return w.reshape(value, (*shape[:2], 3), axes)


def foreign_file(seed: int) -> tuple[bytes, Int8Array]:
    """A file and windows (windows, steps, features) for it: random and extreme codes."""
    rng = np.random.default_rng([seed, 20])
    lanes, steps, features = int(rng.choice([1, 1, 1, 3])), int(rng.integers(1, 9)), int(rng.integers(1, 6))
    w = ForeignWriter(seed, "BTF" if rng.random() < 0.7 else "TBF", lanes, steps, features)
    written = w.quantization(0.004, 0.008)
    values = [_branch(w, w.start, written, bool(rng.random() < 0.5)) for _ in range(int(rng.integers(1, 4)))]
    form = str(rng.choice(["last", "rows", "flat", "every"]))
    if form in ("last", "rows"):
        gone = bool(rng.random() < 0.7)
        indices = [-1 if form == "last" else int(rng.integers(-steps, steps)) for _ in values]
        values = [w.row(value, index, gone) for value, index in zip(values, indices, strict=True)]
    values = [w.half(value) if rng.random() < 0.2 else value for value in values]
    value = values[0] if len(values) == 1 else w.concat(values)
    if form in ("flat", "every"):
        value = _flat(w, value) if form == "flat" else _every(w, value)
    else:
        value = w.dense(value, int(rng.integers(1, 6)), w.tensor(value).shape[:-1])
    value = w.relu(value) if rng.random() < 0.3 else value
    value = w.softmax(value) if rng.random() < 0.4 else value
    windows = rng.integers(-128, 128, (2 * lanes + 1, steps, features))
    windows[0] = rng.choice([-128, 127])
    return w.finish(value), windows.astype(np.int8)
