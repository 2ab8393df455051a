"""QGraph -> Program: the integers of one numerics profile; reference and C read nothing else.

Spec: NUMERICS.md, 5 and 6.  Refuses what could overflow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_lstm.arrays import frozen
from edge_lstm.errors import ModelError, raise_all
from edge_lstm.fixedpoint import BY_TABLE, IntArray, float_scale, short_multiplier
from edge_lstm.lower_lstm import (
    combine_headroom,
    largest_acc,
    lower_lstm,
    lower_native,
    lstm_overflow,
    native_overflow,
)
from edge_lstm.program import (
    DenseProgram,
    LstmProgram,
    NativeLstmProgram,
    Program,
    RecodeProgram,
    Requantizer,
    ScanProgram,
    SoftmaxProgram,
    StateProgram,
    Step,
)
from edge_lstm.qgraph import (
    QAdd,
    QDense,
    QGraph,
    QLayer,
    QLstm,
    QMul,
    QNativeLstm,
    QRecode,
    QScan,
    QSoftmax,
    QValue,
    written_values,
)
from edge_lstm.softmax import fixed_scale, float_table, most_entries, softmax_tables, table_scale

__all__ = ["combine_headroom", "lower"]


def lower(qgraph: QGraph) -> Program:
    """Compute the integers of ``qgraph`` under its profile; raise ModelError on any possible overflow."""
    problems: list[str] = []
    given = [QValue(qgraph.features, True, qgraph.input)]
    layers = _lower_all(qgraph.layers, qgraph.sources, given, qgraph.profile, problems)
    problems += _softmax_problems(qgraph)
    raise_all(ModelError, f"model '{qgraph.name}'", problems)
    return Program(
        qgraph.name, qgraph.profile, layers, qgraph.sources, qgraph.values, qgraph.input, qgraph.features,
        qgraph.timesteps, qgraph.window, qgraph.last_only, qgraph.detector,
    )  # fmt: skip


def _lower_all(
    layers: Sequence[QLayer],
    sources: Sequence[Sequence[int]],
    given: Sequence[QValue],
    profile: str,
    problems: list[str],
) -> tuple[Step, ...]:
    values, _ = written_values(layers, sources, given)
    steps: list[Step] = []
    for layer, reads in zip(layers, sources, strict=True):
        step: Step
        if isinstance(layer, QLstm):
            step = lower_lstm(layer, profile)
        elif isinstance(layer, QNativeLstm):
            step = lower_native(layer)
        elif isinstance(layer, QDense):
            step = _lower_dense(layer, profile)
        elif isinstance(layer, QRecode):
            step = _lower_recode(layer)
        elif isinstance(layer, QSoftmax):
            step = _lower_softmax(layer, profile)
        elif isinstance(layer, QScan):
            source = values[reads[0]] if reads[0] >= 0 else given[-1 - reads[0]]
            step = _lower_scan(layer, profile, source.width, problems)
        else:
            step = layer
        problems += overflow_problems(step, profile)
        steps.append(step)
    return tuple(steps)


def _lower_dense(layer: QDense, profile: str) -> DenseProgram:
    scales = np.broadcast_to(layer.kernel_scales, (layer.outputs,))
    if layer.input.bits == 16:
        reals = [layer.input.scale * float(s) / layer.output.scale for s in scales]
        requantizer = Requantizer.of(reals, short_multiplier)
    elif profile == "litert":
        input_scale, output_scale = np.float32(layer.input.scale), np.float32(layer.output.scale)
        requantizer = Requantizer.of([float(input_scale * s / output_scale) for s in scales], float_scale)
    else:
        requantizer = Requantizer.of([_dense_scale(layer, s, profile) for s in scales])
    sums = layer.kernel.astype(np.int64).sum(axis=1)
    return DenseProgram(
        layer.name,
        layer.kernel,
        frozen(layer.bias - layer.input.zero_point * sums, np.int64),
        requantizer,
        layer.output.zero_point,
        layer.output.zero_point if layer.relu else layer.output.low,
        layer.input.bits,
        layer.storage,
    )


def _lower_recode(layer: QRecode) -> RecodeProgram:
    return RecodeProgram(
        layer.name,
        Requantizer.of([layer.input.scale / layer.output.scale]),
        layer.input.zero_point,
        layer.output.zero_point,
        layer.input.bits,
        layer.output.bits,
    )


def _lower_softmax(layer: QSoftmax, profile: str) -> SoftmaxProgram:
    scale, lowest = layer.input.scale, 0
    multiplier = shift = 0
    tables: tuple[IntArray, ...] = ()
    if layer.input.bits == 16:
        (multiplier, shift), tables = table_scale(scale), softmax_tables(profile)
    elif profile in BY_TABLE:
        multiplier, shift, lowest = fixed_scale(scale)
    else:
        tables = float_table(scale)
    requantizer = Requantizer(frozen([multiplier], np.int64), frozen([shift], np.int64))
    return SoftmaxProgram(layer.name, layer.axis, layer.input.bits, requantizer, lowest, tables)


def _softmax_problems(qgraph: QGraph) -> list[str]:
    """Sums and scales that would leave the 32 bits of the runtimes themselves."""
    problems = []
    for layer, value in zip(qgraph.layers, qgraph.values, strict=True):
        if not isinstance(layer, QSoftmax):
            continue
        entries = qgraph.window if layer.axis == "time" else value.width
        most = most_entries(qgraph.profile, layer.input.bits)
        if entries > most:
            problems.append(
                f"softmax '{layer.name}': it sums {entries} codes, at most {most} in profile {qgraph.profile}"
            )
        low, high = (0.0, 5.0) if layer.input.bits == 16 else (2.0**-26, np.inf)
        if not low < layer.input.scale < high:
            problems.append(
                f"softmax '{layer.name}': its input scale is {layer.input.scale:.6g}, expected more than "
                f"{low:.6g} and less than {high}; quantize again"
            )
    return problems


def _lower_scan(layer: QScan, profile: str, features: int, problems: list[str]) -> ScanProgram:
    given = [
        QValue(features, False, layer.input),
        *(QValue(state.width, False, state.quantization) for state in layer.states),
    ]
    values, _ = written_values(layer.body, layer.sources, given)
    steps = _lower_all(layer.body, layer.sources, given, profile, problems)
    states = tuple(
        StateProgram(state.name, state.width, state.quantization.bits, state.initial)
        for state in layer.states
    )
    return ScanProgram(
        layer.name, steps, layer.sources, tuple(values), states, layer.next, layer.result, layer.backwards,
        features, layer.output.bits,
    )  # fmt: skip


def _dense_scale(layer: QDense, weight_scale: np.float32, profile: str) -> float:
    """TFLM (since 2026-10-14) multiplies in float64, TFLite in float32 for one scale a tensor."""
    product = layer.input.scale * float(weight_scale)
    if profile == "tflite" and len(layer.kernel_scales) == 1:
        product = float(np.float32(product))
    return product / layer.output.scale


def _dense_overflow(layer: DenseProgram, profile: str) -> list[str]:
    if layer.bits == 16:
        bound = largest_acc(layer.bias, layer.kernel, 32768)
        shift = layer.requantizer.shift
        bad = (bound >= 2**47) | (shift > 7) | (shift < -40)
    elif profile == "litert":
        bound = largest_acc(layer.bias, layer.kernel)
        shift = layer.requantizer.shift
        bad = (bound >= 2**31) | (shift > -16) | (shift < -62)  # LiteRT refuses scales from 256 up
    else:
        bound = largest_acc(layer.bias, layer.kernel)
        bad = bound << np.maximum(layer.requantizer.shift, 0) >= 2**31
    return [
        f"dense '{layer.name}', output {row}: the accumulator can overflow or its scale is out of range"
        for row in np.flatnonzero(bad)
    ]


def overflow_problems(layer: Step, profile: str) -> list[str]:
    """Every accumulator that could leave its bits, before or after the requantizer's left shift."""
    if isinstance(layer, DenseProgram):
        return _dense_overflow(layer, profile)
    if isinstance(layer, NativeLstmProgram):
        return native_overflow(layer)
    if isinstance(layer, (QAdd, QMul, RecodeProgram)):
        return _shift_problems(layer)
    return lstm_overflow(layer) if isinstance(layer, LstmProgram) else []


def _shift_problems(layer: QAdd | QMul | RecodeProgram) -> list[str]:
    """Scales that lie so far apart that 32 bits cannot hold the sum or the shifted code."""
    if isinstance(layer, RecodeProgram):
        return (
            [f"'{layer.name}': its scales lie too far apart; quantize again"]
            if layer.requantizer.shift[0] > 31 - layer.input_bits - 1
            else []
        )
    left, right, output = (int(q.power or 0) for q in (layer.left, layer.right, layer.output))
    if isinstance(layer, QAdd):
        lowest = min(left, right, output)
        fits = max(left, right, output) - lowest <= 13
    else:
        fits = 0 <= output - left - right <= 31
    return [] if fits else [f"'{layer.name}': its scales lie too far apart; quantize again"]
