"""Nodes that read constants only, computed with NumPy: the shape arithmetic that exporters write.

Reads a node and arrays; writes arrays.  Sizes are checked before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError
from edge_lstm.importers.onnx_file import MAX_ELEMENTS, MAX_RANK
from edge_lstm.importers.onnx_node import Array, Node, Refused

Inputs = Sequence[Array | None]
CASTS = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64,
         9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}  # fmt: skip
MAX_LISTED = 1 << 14
INTEGER_END = 1 << 62  # further than any end of a slice


class Budget:
    """What the computed constants of one file may hold together, and how often constants may be read."""

    def __init__(self) -> None:
        self.left = 2 * MAX_ELEMENTS
        self.reads = 8 * MAX_ELEMENTS

    def read(self, arrays: Sequence[Any]) -> None:
        """Count constants that a node reads; ModelError where nodes read large ones again and again."""
        self.reads -= sum(array.size for array in arrays if isinstance(array, np.ndarray))
        if self.reads < 0:
            raise ModelError("the nodes read more constants than a small network has")

    def shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The shape of a constant to be; ModelError where it claims too much."""
        shape = tuple(int(size) for size in sizes)
        count = math.prod(max(size, 1) for size in shape)
        if len(shape) > MAX_RANK or min(shape, default=1) < 0 or count > self.left:
            raise ModelError(f"it computes a constant of shape {shape[:MAX_RANK]}, too large for a network")
        self.left -= count
        return shape


def axes_of(node: Node, inputs: Inputs, place: int, name: str = "axes") -> list[int] | None:
    """Integers that old operators have as an attribute and new ones as a constant input; None if absent."""
    given = node.numbers(name)
    array = inputs[place] if place < len(inputs) else None
    if given is None and array is not None:
        given = listed(array)
    return None if given is None else [int(value) for value in given]


def listed(array: Array) -> list[Any]:
    """The numbers of a constant that holds axes, sizes or places; ModelError where there are too many."""
    if array.size > MAX_LISTED:
        raise ModelError(f"a list of {array.size} axes, sizes or places, at most {MAX_LISTED} are read")
    return list(array.ravel().tolist())


def placed(axis: int, rank: int) -> int:
    """``axis`` counted from the front; ModelError outside of the rank."""
    if not -rank <= axis < rank:
        raise ModelError(f"axis {axis} of a tensor with {rank} axes; export the model again")
    return axis % rank


def target_shape(node: Node, sizes: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """The shape that Reshape gives a tensor of ``sizes``: 0 keeps a size, -1 is what remains."""
    copies = not node.integer("allowzero")
    shape = [
        sizes[place] if size == 0 and copies and place < len(sizes) else int(size)
        for place, size in enumerate(wanted)
    ]
    rest, count = math.prod(size for size in shape if size != -1), math.prod(sizes)
    if shape.count(-1) == 1 and rest > 0 and count % rest == 0:
        shape[shape.index(-1)] = count // rest
    if len(shape) > MAX_RANK or min(shape, default=1) < 0 or math.prod(shape) != count:
        raise ModelError(f"it reshapes {tuple(sizes)} to {tuple(wanted[:MAX_RANK])}, which does not fit")
    return tuple(shape)


def slices_of(node: Node, inputs: Inputs, sizes: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of a Slice, start and end counted from the front as Python does."""
    starts, ends = axes_of(node, inputs, 1, "starts"), axes_of(node, inputs, 2, "ends")
    if starts is None or ends is None or len(starts) != len(ends):
        raise ModelError("its starts and ends are not known constants of one length")
    axes = axes_of(node, inputs, 3)
    steps = axes_of(node, inputs, 4, "steps")
    axes, steps = list(range(len(starts))) if axes is None else axes, steps or [1] * len(starts)
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = placed(axis, len(sizes))
        bound = (min(max(start, -INTEGER_END), INTEGER_END), min(max(end, -INTEGER_END), INTEGER_END))
        first, stop, stride = slice(*bound, step).indices(sizes[place])
        found.append((place, first, stop, stride))
    return found


def split_sizes(node: Node, inputs: Inputs, size: int) -> list[int]:
    """Sizes of the parts of a Split along an axis of ``size``."""
    sizes = axes_of(node, inputs, 1, "split")
    if sizes is None:
        count = node.integer("num_outputs", len(node.outputs))
        if not 0 < count <= size:
            raise ModelError(f"it splits {size} entries into {count} parts")
        part = -(-size // count)
        sizes = [part] * (count - 1) + [size - part * (count - 1)]
    if min(sizes, default=0) < 0 or sum(sizes) != size or len(sizes) < len(node.outputs):
        raise ModelError(f"it splits {size} entries into parts of {sizes[:MAX_RANK]}")
    return sizes


def _first(node: Node, inputs: Inputs) -> Array:
    if not inputs or inputs[0] is None:
        raise ModelError("it lacks its first input; export the model again")
    return inputs[0]


def _constant(node: Node, inputs: Inputs, budget: Budget) -> Array | Refused:
    for name, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64),
                        ("value_floats", np.float32), ("value_ints", np.int64)):  # fmt: skip
        if name in node.attributes:
            value = node.attributes[name]
            if dtype is None and isinstance(value, (np.ndarray, Refused)):
                return value
            if dtype is not None and isinstance(value, (int, float, list)):
                return np.asarray(value, dtype=dtype)
    return Refused(f"{node} holds neither numbers nor a tensor")


def _filled(node: Node, inputs: Inputs, budget: Budget) -> Array:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(value, np.ndarray) or value.size != 1:
        raise ModelError("its value is no tensor of one number")
    return np.broadcast_to(value.reshape(()), budget.shape(listed(_first(node, inputs))))


def _expand(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array, wanted = _first(node, inputs), axes_of(node, inputs, 1, "shape") or []
    shape = np.broadcast_shapes(array.shape, budget.shape(wanted))
    return np.broadcast_to(array, budget.shape(shape))


def _tile(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array, repeats = _first(node, inputs), axes_of(node, inputs, 1, "repeats") or []
    budget.shape([size * max(repeat, 0) for size, repeat in zip(array.shape, repeats, strict=True)])
    return np.tile(array, repeats)


def _range(node: Node, inputs: Inputs, budget: Budget) -> Array:
    start, limit, step = (np.asarray(value).item() for value in inputs)
    budget.shape([max(0, math.ceil((limit - start) / step))])
    return np.arange(start, limit, step)


def _reshape(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array = _first(node, inputs)
    wanted = axes_of(node, inputs, 1, "shape")
    return array.reshape(target_shape(node, array.shape, wanted or []))


def _squeeze(node: Node, inputs: Inputs, budget: Budget) -> Array:
    axes = axes_of(node, inputs, 1)
    return np.squeeze(_first(node, inputs), None if axes is None else tuple(axes))


def _unsqueeze(node: Node, inputs: Inputs, budget: Budget) -> Array:
    return np.expand_dims(_first(node, inputs), tuple(axes_of(node, inputs, 1) or []))


def _slice(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array = _first(node, inputs)
    for axis, start, stop, step in slices_of(node, inputs, array.shape):
        backwards = slice(start, stop if stop >= 0 else None, step)
        array = array[(slice(None),) * axis + (backwards,)]
    return array


def _gather(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array, indices = _first(node, inputs), np.asarray(inputs[1])
    axis = placed(node.integer("axis"), array.ndim)
    budget.shape(array.shape[:axis] + indices.shape + array.shape[axis + 1 :])
    return np.asarray(np.take(array, indices.astype(np.int64), axis))


def _concat(node: Node, inputs: Inputs, budget: Budget) -> Array:
    arrays = [array for array in inputs if array is not None]
    budget.shape([sum(array.size for array in arrays)])
    return np.concatenate(arrays, placed(node.integer("axis"), _first(node, inputs).ndim))


def _cast(node: Node, inputs: Inputs, budget: Budget) -> Array:
    array = _first(node, inputs)
    dtype = CASTS[node.integer("to")]
    budget.shape(array.shape)
    narrow: Array = array.astype(dtype)
    return narrow.astype(np.int64) if narrow.dtype.kind in "iu" else narrow


def _reduced(function: Callable[..., Any]) -> Callable[[Node, Inputs, Budget], Array]:
    def fold(node: Node, inputs: Inputs, budget: Budget) -> Array:
        axes = axes_of(node, inputs, 1)
        keep = bool(node.integer("keepdims", 1))
        return np.asarray(function(_first(node, inputs), tuple(axes) if axes else None, keepdims=keep))

    return fold


def _elementwise(function: Callable[..., Any]) -> Callable[[Node, Inputs, Budget], Array]:
    def fold(node: Node, inputs: Inputs, budget: Budget) -> Array:
        arrays = [array for array in inputs if array is not None]
        budget.shape(np.broadcast_shapes(*(array.shape for array in arrays)))
        return np.asarray(function(*arrays))

    return fold


def _divided(a: Array, b: Array) -> Array:
    """Integers are divided towards 0, as ONNX does."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))
    return np.asarray(a / b)


FOLDS: dict[str, Callable[[Node, Inputs, Budget], Array | Refused]] = {
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Tile": _tile,
    "Range": _range,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "Concat": _concat,
    "Cast": _cast,
    "Transpose": lambda node, inputs, budget: np.transpose(_first(node, inputs), node.numbers("perm")),
    "Identity": lambda node, inputs, budget: _first(node, inputs),
    "Shape": lambda node, inputs, budget: shape_entries(node, _first(node, inputs).shape),
    "Size": lambda node, inputs, budget: np.asarray(_first(node, inputs).size, np.int64),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "Div": _elementwise(_divided),
    "Mod": lambda node, inputs, budget: _elementwise(np.fmod if node.integer("fmod") else np.mod)(
        node, inputs, budget
    ),
}
ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Pow": np.power, "Neg": np.negative,
    "Abs": np.abs, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal, "Exp": np.exp, "Floor": np.floor,
    "Ceil": np.ceil, "Min": lambda *arrays: np.minimum.reduce(np.broadcast_arrays(*arrays)),
    "Max": lambda *arrays: np.maximum.reduce(np.broadcast_arrays(*arrays)), "Equal": np.equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
    "Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or, "Where": np.where,
}  # fmt: skip
FOLDS |= {op: _elementwise(function) for op, function in ELEMENTWISE.items()}


def shape_entries(node: Node, shape: Sequence[int]) -> Array:
    """What the operator Shape writes of ``shape``: all sizes, or those from its start to its end."""
    end = node.integer("end", len(shape))
    return np.array(shape[node.integer("start") : end], dtype=np.int64)


def fold(node: Node, inputs: Inputs, budget: Budget) -> list[Array | Refused]:
    """The outputs of a node whose inputs are all constants.  Raises ModelError or what NumPy raises."""
    if node.op == "Split":
        array = _first(node, inputs)
        axis = placed(node.integer("axis"), array.ndim)
        ends = np.cumsum(split_sizes(node, inputs, array.shape[axis]))[:-1]
        return list(np.split(array, ends, axis))
    value = FOLDS[node.op](node, inputs, budget)
    if isinstance(value, np.ndarray):
        budget.shape([value.size])
    return [value]
