"""Operators of an integer .tflite file that only move codes: slices, reversals, joins, other arrangements.

Each function reads one operator into a Wiring, or notes what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edge_lstm.importers.flatbuffer import Operator, Tensor
from edge_lstm.importers.tflite_axes import FEATURE, TIME, Dims, Value, kept_ranges
from edge_lstm.importers.tflite_layers import Findings, activation_name
from edge_lstm.importers.tflite_wiring import Wiring
from edge_lstm.qgraph import QConcat, QReverse, QRow, QSlice, Quantization


def _same_codes(operator: Operator, found: Findings, inputs: int) -> Quantization | None:
    """The one quantization of the first input and the output; a problem where they differ."""
    if len(operator.inputs) != inputs or len(operator.outputs) != 1:
        found.add("it lacks options, inputs or an output")
        return None
    before = found.activation(operator.inputs[0], "input")
    after = found.activation(operator.outputs[0], "output")
    if before is None or after is None:
        return None
    return before if found.expect(before == after, "it changes the quantization") else None


def _indices(found: Findings, tensor: Tensor | None, role: str, count: int | None = None) -> list[int]:
    """The int32 numbers of a constant vector, of ``count`` entries where that is given, or of a scalar.

    Empty, with a problem, where it is anything else.
    """
    shape = (count,) if count is not None else (1,) if tensor is None else tensor.shape or (1,)
    if tensor is not None and not tensor.shape and count is None:
        tensor = replace(tensor, shape=shape)
    content = found.constant(tensor, role, "INT32", shape)
    return [] if content is None else [int(number) for number in content.ravel()]


def read_slice(net: Wiring, operator: Operator, x: Value) -> None:
    """STRIDED_SLICE: one time step, all of them in reverse, or a range of features."""
    found, options = Findings("operator STRIDED_SLICE"), operator.options
    quantization = _same_codes(operator, found, 4)
    if quantization is not None and found.expect(bool(options), "it lacks options"):
        rank = len(x.dims)
        vectors = [
            _indices(found, tensor, role, rank)
            for tensor, role in zip(operator.inputs[1:], ("begin", "end", "strides"), strict=True)
        ]
        if not found.problems:
            shrunk = [place for place in range(rank) if options["ShrinkAxisMask"] >> place & 1]
            kept = kept_ranges(x.shape, vectors, options)
            _keep(net, operator, found, x, quantization, kept, shrunk)
    net.problems += found.problems


def read_gather(net: Wiring, operator: Operator, x: Value) -> None:
    """GATHER of one index."""
    found, options = Findings("operator GATHER"), operator.options
    quantization = _same_codes(operator, found, 2)
    if quantization is not None and found.expect(bool(options), "it lacks options"):
        tensor, axis, rank = operator.inputs[1], options["Axis"], len(x.dims)
        indices = _indices(found, tensor, "indices")
        found.expect(
            -rank <= axis < rank and not options["BatchDims"],
            f"it gathers along axis {axis} of {rank} in batches of {options['BatchDims']} axes, expected one "
            "axis and no batches",
        )
        found.expect(len(indices) < 2, f"it gathers {len(indices)} indices, expected 1")
        if not found.problems:
            axis %= rank
            start = indices[0] + (x.shape[axis] if indices[0] < 0 else 0)
            kept = [range(size) for size in x.shape]
            kept[axis] = range(start, start + 1)
            shrunk = [axis] if tensor is not None and not tensor.shape else []
            _keep(net, operator, found, x, quantization, kept, shrunk)
    net.problems += found.problems


def _keep(
    net: Wiring, operator: Operator, found: Findings, x: Value, quantization: Quantization,
    kept: Sequence[range] | None, shrunk: Sequence[int],
) -> None:  # fmt: skip
    """Add the layer that keeps the ranges ``kept`` of the axes of ``x``; ``shrunk`` ones go away."""
    whole = [range(size) for size in x.shape]
    if kept is None or any(
        not len(part) or not all(0 <= end < size for end in (part[0], part[-1]))
        for part, size in zip(kept, x.shape, strict=True)
    ):
        found.add("it skips, adds or oversteps indices, expected one time step or a range of features")
        return
    touched = [place for place, part in enumerate(kept) if part != whole[place]]
    touched += [
        place for place in shrunk if place not in touched and TIME in x.dims[place] and x.sequence
    ]  # the one row of a file with one time step
    if len(touched) > 1:
        found.add(f"it cuts {len(touched)} axes at once, expected 1")
        return
    value = x
    for place in touched:
        made = _part(net, found, x, quantization, place, kept[place])
        if made is None:
            return
        value = made
    dims = tuple(dim for place, dim in enumerate(value.dims) if place not in shrunk)
    net.put(operator, found.where, value.moved(dims))


def _part(
    net: Wiring, found: Findings, x: Value, quantization: Quantization, place: int, part: range
) -> Value | None:
    """The value of the layer that keeps ``part`` of one axis."""
    size, along = x.shape[place], x.along(place)
    dims: Dims = tuple(() if index == place else dim for index, dim in enumerate(x.dims))
    if along == (TIME,) or (not along and x.size(TIME) == 1 and TIME in x.dims[place]):
        if part == range(size - 1, -1, -1) and size > 1:
            layer = net.add(QReverse(net.name("reverse"), quantization), [x.layer])
            return x.moved(x.dims, layer=layer)
        if len(part) == 1:
            index = -1 if part[0] == size - 1 else part[0]
            layer = net.add(QRow(net.name("row"), quantization, index), [x.layer])
            return x.moved(dims, layer=layer, sequence=False)
        found.add(f"it keeps {len(part)} of {size} time steps, expected one or all of them")
        return None
    if along == (FEATURE,) and part.step == 1:
        layer = net.add(QSlice(net.name("slice"), quantization, part[0], part[-1] + 1), [x.layer])
        return x.moved(x.dims, layer=layer, width=len(part))
    what = " and ".join(along) or "nothing"
    found.add(f"it keeps {len(part)} of {size} entries of axis {place}, along which {what} runs")
    return None


def read_reverse(net: Wiring, operator: Operator, x: Value) -> None:
    """REVERSE_V2 of the time steps."""
    found = Findings("operator REVERSE_V2")
    quantization = _same_codes(operator, found, 2)
    if quantization is not None:
        axes, rank = _indices(found, operator.inputs[1], "axis"), len(x.dims)
        along = [x.along(axis) if -rank <= axis < rank else ("no axis",) for axis in axes]
        for runs in along[:1]:
            reverses = len(along) == 1 and runs in ((TIME,), ())
            found.expect(reverses, f"it reverses axes {axes} of {list(x.shape)}, expected the time steps")
        if not found.problems:
            layer = x.layer
            if along[0]:
                layer = net.add(QReverse(net.name("reverse"), quantization), [x.layer])
            net.put(operator, found.where, x.moved(x.dims, layer=layer))
    net.problems += found.problems


def read_reshape(net: Wiring, operator: Operator, x: Value) -> None:
    """RESHAPE that keeps rows whole, or lays all rows of a window end to end."""
    found = Findings("operator RESHAPE")
    quantization = _same_codes(operator, found, 2 if len(operator.inputs) == 2 else 1)
    if quantization is not None:
        sizes = list(operator.options.get("NewShape", ()))
        if len(operator.inputs) == 2:
            sizes = _indices(found, operator.inputs[1], "shape")
        known = math.prod(size for size in sizes if size != -1)
        shape = [math.prod(x.shape) // known if size == -1 and known else size for size in sizes]
        value = x.reshaped(shape)
        if value is not None:
            net.put(operator, found.where, value)
        elif not found.problems:
            found.add(f"it makes {shape} of {list(x.shape)}, which cuts rows apart")
    net.problems += found.problems


def read_transpose(net: Wiring, operator: Operator, x: Value) -> None:
    """TRANSPOSE: the same rows, arranged otherwise."""
    found = Findings("operator TRANSPOSE")
    if _same_codes(operator, found, 2) is not None:
        order, axes = _indices(found, operator.inputs[1], "order", len(x.dims)), list(range(len(x.dims)))
        if not found.problems and found.expect(
            sorted(order) == axes, f"its order is {order}, expected each of {axes} once"
        ):
            net.put(operator, found.where, x.moved(tuple(x.dims[place] for place in order)))
    net.problems += found.problems


def _has_features(value: Value, axis: int) -> bool:
    """Whether nothing but all features runs along ``axis``; a single one runs along every axis of size 1."""
    rank = len(value.dims)
    return -rank <= axis < rank and value.along(axis) == ((FEATURE,) if value.width > 1 else ())


def _around(value: Value, axis: int) -> tuple[object, ...]:
    """What must be the same for values that are joined along ``axis``; of one time step it may be a row."""
    rank = len(value.dims)
    return (
        value.sequence and value.layout.timesteps > 1,
        *(value.along(place) for place in range(rank) if place != axis % rank),
    )


def read_concatenation(net: Wiring, operator: Operator, x: Value) -> None:
    """CONCATENATION of features.  x: the value of the first input."""
    found, options = Findings("operator CONCATENATION"), operator.options
    output = found.activation(operator.outputs[0] if operator.outputs else None, "output")
    inputs = [found.activation(tensor, "input") for tensor in operator.inputs]
    if output is not None and found.expect(bool(options), "it lacks options"):
        activation = activation_name(options["FusedActivationFunction"])
        found.expect(activation == "NONE", f"its activation is {activation}, expected none")
        found.expect(len(inputs) > 1, f"it has {len(inputs)} inputs, expected 2 or more")
        axis, rank = options["Axis"], len(x.dims)
        values = [value for value in map(net.value, operator.inputs) if value is not None]
        if found.expect(
            -rank <= axis < rank and all(_has_features(value, axis) for value in values),
            f"it joins along axis {axis} of {list(x.shape)}, expected the features",
        ):
            alike = [value for value in values if _around(value, axis) == _around(x, axis)]
            found.expect(
                len(alike) == len(inputs), "it joins what is not all rows, or not all vectors, of the network"
            )
        found.expect(
            all(quantization == output for quantization in inputs),
            "it joins values of different quantizations, which the runtimes refuse: convert again, or "
            "quantize the float model with this toolkit",
        )
        if not found.problems:
            layer = net.add(QConcat(net.name("concat"), output), [value.layer for value in values])
            width = sum(value.width for value in values)
            sequence = any(value.sequence for value in values)
            net.put(operator, found.where, x.computed(layer, width, axis, sequence=sequence))
    net.problems += found.problems
