"""The frozen integers of quantized networks for ``integer_stack``: scales, multipliers, zero points.

Reads the QGraphs of networks of one shape and the Graphs that they were made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import UnsupportedModel
from edge_lstm.graph import Graph, Lstm
from edge_lstm.lower import lower
from edge_lstm.program import (
    DenseProgram,
    LstmProgram,
    NativeLstmProgram,
    Program,
    RecodeProgram,
    Requantizer,
    Step,
)
from edge_lstm.qgraph import QDense, QGraph, QLayer, QLstm, QNativeLstm, QRecode
from edge_lstm.training.integer_stack import IntegerLayer, IntegerStack
from edge_lstm.training.model import PlainLayer, plain_layers

NO_CLIP = 32768  # of cell codes
CELL = 0.499  # of a step: how far inside the cell of its code a weight is moved

Layers = list[dict[str, Any]]


def integer_stack(qgraph: QGraph, weights: str) -> IntegerStack:
    """How networks like ``qgraph`` compute.  weights: int8 or int4, of QuantizeConfig."""
    limit = 7 if weights == "int4" else 127
    kinds: dict[type, str] = {QLstm: "lstm", QNativeLstm: "native", QDense: "dense", QRecode: "recode"}
    unknown = [layer.name for layer in qgraph.layers if type(layer) not in kinds]
    if unknown:
        raise UnsupportedModel(
            f"model '{qgraph.name}': {', '.join(unknown)} cannot be trained in integers; only stacks of "
            "plain LSTM and dense layers can"
        )
    layers = (IntegerLayer(kinds[type(layer)], layer.output.bits, limit) for layer in qgraph.layers)
    return IntegerStack(qgraph.profile, tuple(layers))


def stack_constants(stack: IntegerStack, graphs: Sequence[Graph], qgraphs: Sequence[QGraph]) -> Layers:
    """One mapping a layer; arrays (networks, 1 ..., width) that broadcast over windows."""
    each = [list(_network_constants(stack, *pair)) for pair in zip(graphs, qgraphs, strict=True)]
    return [
        {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
        for layers in zip(*each, strict=True)
    ]


def _network_constants(stack: IntegerStack, graph: Graph, qgraph: QGraph) -> Iterator[dict[str, Any]]:
    program: Program = lower(qgraph)
    trained = iter(plain_layers(graph))
    for kind, layer, step in zip(stack.layers, qgraph.layers, program.layers, strict=True):
        own = None if isinstance(layer, QRecode) else next(trained)
        yield _layer_constants(layer, step, own, kind.limit)


def _layer_constants(layer: QLayer, step: Step, own: PlainLayer | None, limit: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "output_zero": _codes(layer.output.zero_point),
        "output_scale": _scale(layer.output.scale),
    }
    if isinstance(step, RecodeProgram):
        return found | {"input_zero": _codes(step.input_zero_point), **_requantizer("", step.requantizer)}
    if isinstance(layer, QDense) and isinstance(step, DenseProgram) and own is not None:
        return found | _reads(layer) | _dense(layer, step, own, limit)
    if isinstance(own, Lstm) and isinstance(layer, (QLstm, QNativeLstm)):
        found |= _reads(layer) | _lstm(layer, own, limit)
        if isinstance(step, LstmProgram):
            return found | _fused(step)
        if isinstance(step, NativeLstmProgram):
            return found | _native(step)
    raise TypeError(f"{type(layer).__name__} is not trained in integers")


def _reads(layer: QLstm | QNativeLstm | QDense) -> dict[str, Any]:
    return {"input_zero": _codes(layer.input.zero_point), "input_scale": _scale(layer.input.scale)}


def _codes(value: int) -> npt.NDArray[np.int64]:
    return np.full((1, 1), value, np.int64)


def _scale(value: float) -> npt.NDArray[np.float32]:
    return np.full((1, 1), value, np.float32)


def _requantizer(name: str, requantizer: Requantizer, repeats: int = 1) -> dict[str, Any]:
    """Rows of one entry a column."""
    return {
        f"{name}multiplier": np.repeat(requantizer.multiplier, repeats)[None],
        f"{name}shift": np.repeat(requantizer.shift, repeats)[None],
    }


def _moved(weights: FloatArray, codes: npt.NDArray[np.int8], scale: FloatArray, limit: int) -> FloatArray:
    """What is added to the weights so that rounding gives ``codes``; 0 where it does so already.

    The quantizer of profile native rounds some weights the other way, to make up for the error of others.
    """
    steps = weights.astype(np.float64) / scale
    wanted = codes.astype(np.float64)
    agrees = np.clip(np.rint(steps), -limit, limit) == wanted
    inside = np.clip(steps, wanted - CELL, wanted + CELL)
    moved: FloatArray = np.where(agrees, 0.0, (inside - steps) * scale)
    return moved


def _columns(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """(4, units, inputs) as Keras has them: (inputs, 4 * units)."""
    columns: npt.NDArray[np.int8] = codes.transpose(2, 0, 1).reshape(codes.shape[2], -1)
    return columns


def _lstm(layer: QLstm | QNativeLstm, own: Lstm, limit: int) -> dict[str, Any]:
    """Weights and their scales, as columns of all gates."""
    if isinstance(layer, QNativeLstm):
        recurrent = layer.row_scales.astype(np.float64).reshape(1, -1)
        steps = recurrent * layer.hidden.scale
        kernel = steps / layer.input.scale
    else:
        kernel, recurrent = (
            np.repeat(scales.astype(np.float64), layer.units)[None]
            for scales in (layer.kernel_scales, layer.recurrent_scales)
        )
        steps = kernel * layer.input.scale
    return {
        "kernel_scale": kernel,
        "kernel_moved": _moved(own.kernel, _columns(layer.kernel), kernel, limit),
        "recurrent_scale": recurrent,
        "recurrent_moved": _moved(own.recurrent_kernel, _columns(layer.recurrent_kernel), recurrent, limit),
        "bias_step": steps[0],
        "hidden_zero": _codes(layer.hidden.zero_point),
        "hidden_scale": _scale(layer.hidden.scale),
        "cell_power": _codes(layer.cell_power),
        "cell_scale": _scale(2.0**layer.cell_power),
    }


def _fused(step: LstmProgram) -> dict[str, Any]:
    return {
        **_requantizer("input_", step.input_requantizer, step.units),
        **_requantizer("recurrent_", step.recurrent_requantizer, step.units),
        **_requantizer("hidden_", step.hidden_requantizer),
        "cell_clip": _codes(step.cell_clip or NO_CLIP),
    }


def _native(step: NativeLstmProgram) -> dict[str, Any]:
    return {
        "multiplier": step.multiplier.reshape(1, -1),
        "acc_shift": _codes(step.acc_shift),
        "hidden_shift": _codes(step.hidden_shift),
        "cell_clip": _codes(step.cell_clip or NO_CLIP),
    }


def _dense(layer: QDense, step: DenseProgram, own: PlainLayer, limit: int) -> dict[str, Any]:
    scales = np.broadcast_to(layer.kernel_scales.astype(np.float64), (layer.outputs,))
    rows = np.zeros(layer.outputs, np.int64)
    requantizer = Requantizer(step.requantizer.multiplier + rows, step.requantizer.shift + rows)
    found = {
        "kernel_scale": scales[None],
        "kernel_moved": _moved(own.kernel, layer.kernel.T, scales[None], limit),
        "bias_step": scales * layer.input.scale,
        "minimum": _codes(step.minimum),
        **_requantizer("", requantizer),
    }
    # of profile litert, where the multiplier is the significand of a float32
    return found | {
        "float_scale": np.ldexp(found["multiplier"].astype(np.float64), found["shift"]).astype(np.float32)
    }
