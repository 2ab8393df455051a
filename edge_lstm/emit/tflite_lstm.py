"""The fused LSTM operator of a .tflite file.  Spec: NUMERICS.md, 8; gate order i, f, g, o as ours."""

from __future__ import annotations

import numpy as np
import tflite

from edge_lstm.emit.tflite_file import FLOAT32, INT8, INT16, FileSpec, OperatorSpec, TensorSpec
from edge_lstm.lstm_operators import QLstm, Variant
from edge_lstm.program import GATES

LSTM_INPUTS = 24
# Places of the fused operator's inputs; every other one is optional and absent.
KERNELS, RECURRENT_KERNELS, BIASES, HIDDEN_STATE, CELL_STATE = 1, 5, 12, 18, 19
PEEPHOLES, PROJECTION, PROJECTION_BIAS, NORMALIZATIONS = 9, 16, 17, 20
VERSIONS = {8: 1, 16: 5}  # of the operator, by the bits of its codes; LiteRT has no version 5


def add_lstm(spec: FileSpec, value: int, layer: QLstm, time_major: bool) -> int:
    """One LSTM layer that reads tensor ``value``; returns its output.  TFLite's gate order is ours."""
    shape, variant = spec.tensors[value].shape, layer.variant
    inputs = [-1] * LSTM_INPUTS
    inputs[0] = value
    coupled = variant is not None and variant.coupled
    bias_scales = layer.kernel_scales * np.float32(layer.input.scale)
    if variant is not None and variant.normalization_scales is not None:
        bias_scales = variant.normalization_scales * np.float32(2.0**-10)
    for place, name, data, scales in (
        (KERNELS, "kernel", layer.kernel, layer.kernel_scales),
        (RECURRENT_KERNELS, "recurrent_kernel", layer.recurrent_kernel, layer.recurrent_scales),
        (BIASES, "bias", layer.bias, bias_scales),
    ):
        for gate, letter in enumerate(GATES):
            if gate or not coupled:
                inputs[place + gate] = spec.constant(
                    f"{layer.name}/{name}_{letter}", data[gate], scales[gate]
                )
    if variant is not None:
        _add_variant(spec, layer, variant, inputs)
    inputs[HIDDEN_STATE], inputs[CELL_STATE] = _add_state(spec, layer, shape[1 if time_major else 0])
    intermediates = _add_intermediates(spec, layer)
    output = spec.activation(layer.name, (*shape[:2], layer.outputs), layer.output)
    options = {
        "FusedActivationFunction": tflite.ActivationFunctionType.TANH,
        "CellClip": layer.cell_clip,
        "ProjClip": 0.0 if variant is None else variant.projection_clip,
        "TimeMajor": time_major,
    }
    kind, table = "UNIDIRECTIONAL_SEQUENCE_LSTM", "UnidirectionalSequenceLSTMOptions"
    version = VERSIONS[layer.input.bits]
    spec.append(OperatorSpec(kind, version, inputs, [output], table, options, intermediates))
    return output


def _add_variant(spec: FileSpec, layer: QLstm, variant: Variant, inputs: list[int]) -> None:
    """The constants of what the plain LSTM does not have, at their places among ``inputs``."""
    if variant.peephole is not None and variant.peephole_scales is not None:
        for row, letter in enumerate("ifo"):
            if row or not variant.coupled:
                name, scale = f"{layer.name}/peephole_{letter}", variant.peephole_scales[row]
                inputs[PEEPHOLES + row] = spec.constant(name, variant.peephole[row], scale)
    if variant.normalization is not None and variant.normalization_scales is not None:
        for gate, letter in enumerate(GATES):
            if gate or not variant.coupled:
                name, scale = f"{layer.name}/normalization_{letter}", variant.normalization_scales[gate]
                inputs[NORMALIZATIONS + gate] = spec.constant(name, variant.normalization[gate], scale)
    if variant.projection is not None:
        scale = np.float32(variant.projection_scale)
        inputs[PROJECTION] = spec.constant(f"{layer.name}/projection", variant.projection, scale)
        if variant.projection_bias is not None:
            scale = scale * np.float32((layer.inner or layer.hidden).scale)
            name = f"{layer.name}/projection_bias"
            inputs[PROJECTION_BIAS] = spec.constant(name, variant.projection_bias, scale)


def _add_state(spec: FileSpec, layer: QLstm, lanes: int) -> tuple[int, int]:
    """The variable tensors; rank 2, because TensorFlow Lite Micro reads two dimensions."""
    hidden, name = layer.hidden, f"{layer.name}/hidden_state"
    kind, shape = INT8 if hidden.bits == 8 else INT16, (lanes, layer.outputs)
    first = spec.add(TensorSpec(name, shape, kind, hidden.scale, hidden.zero_point, variable=True))
    name, shape, scale = f"{layer.name}/cell_state", (lanes, layer.units), 2.0**layer.cell_power
    return first, spec.add(TensorSpec(name, shape, INT16, scale, variable=True))


def _add_intermediates(spec: FileSpec, layer: QLstm) -> list[int]:
    """Five tensors without content; LiteRT reads the scales of the last one and, to normalize, of all."""
    scales = None if layer.variant is None else layer.variant.gate_scales
    if scales is None:
        gates = [TensorSpec(f"{layer.name}/unused_{index}", (0,), FLOAT32) for index in range(4)]
    else:
        gates = [
            TensorSpec(f"{layer.name}/gate_{letter}", (0,), INT16, scale)
            for letter, scale in zip(GATES, scales, strict=True)
        ]
    inner = layer.inner or layer.hidden
    return [*(spec.add(gate) for gate in gates), spec.activation(f"{layer.name}/hidden", (0,), inner)]
