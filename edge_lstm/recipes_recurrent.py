"""What recurrent layers become: TFLite's fused LSTM, the native one, or a scan of simple operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edge_lstm.errors import ModelError
from edge_lstm.layer_types import Gru, Lstm, Rnn
from edge_lstm.operators import LOOKUP_INPUT, Q15, QScan, QState, wide
from edge_lstm.recipes_lstm import quantize_lstm
from edge_lstm.recipes_native import native_lstm
from edge_lstm.reference.floating import Signals
from edge_lstm.scales import wide_power
from edge_lstm.tape import Tape, reads


def _recurrence(
    tape: Tape,
    layer: Lstm | Gru | Rnn,
    source: int,
    states: Sequence[QState],
    body: Callable[[Tape, str], tuple[tuple[int, ...], int]],
) -> int:
    """Add a scan over ``body``, which writes (the next states, the result)."""
    source = tape.widened(source)
    inner = Tape([tape.quantization(source), *(state.quantization for state in states)], tape.config)
    following, result = body(inner, layer.name)
    scan = QScan(
        layer.name, tape.quantization(source), tuple(inner.layers), tuple(inner.sources), tuple(states),
        following, result, layer.backwards,
    )  # fmt: skip
    return tape.add(scan, source)


def gru(tape: Tape, layer: Gru, signals: Signals, source: int) -> int:
    """h' = c + z * (h - c) with the candidate c."""
    n, inner, hidden = layer.units, signals.inner, wide(wide_power(signals.output))
    if layer.activation.kind == "tanh":
        hidden = Q15
    kernels, biases = np.split(layer.recurrent_kernel, 3, axis=1), np.split(layer.recurrent_bias, 3)
    gates = wide(wide_power(inner["input"]))
    squash = reads(layer.recurrent_activation, inner["candidate"])
    last = reads(layer.activation, inner["candidate"])
    recurrent = wide(wide_power(np.concatenate([inner["recurrent"], inner["recurrent_gates"]], axis=-1)))

    def body(t: Tape, name: str) -> tuple[tuple[int, ...], int]:
        a = t.dense(f"{name}/input", -1, layer.kernel, layer.bias, gates)
        b = t.dense(
            f"{name}/hidden", -2, np.concatenate(kernels[:2], axis=1), np.concatenate(biases[:2]), recurrent
        )
        zr = t.total(f"{name}/gates", t.part(f"{name}/input_gates", a, 0, 2 * n), b, squash)
        zr = t.function(f"{name}/squashed", zr, layer.recurrent_activation)
        z, r = t.part(f"{name}/z", zr, 0, n), t.part(f"{name}/r", zr, n, 2 * n)
        if layer.reset_after:
            kept = t.product(
                f"{name}/reset",
                r,
                t.dense(f"{name}/recurrent", -2, kernels[2], biases[2], recurrent),
                recurrent,
            )
        else:
            kept = t.dense(
                f"{name}/recurrent",
                t.product(f"{name}/reset", r, -2, hidden),
                kernels[2],
                biases[2],
                recurrent,
            )
        candidate = t.total(
            f"{name}/candidate", t.part(f"{name}/input_candidate", a, 2 * n, 3 * n), kept, last
        )
        new = t.function(f"{name}/new", candidate, layer.activation)
        apart = wide(1 + max(int(t.quantization(new).power or 0), int(hidden.power or 0)))
        step = t.product(
            f"{name}/update", z, t.total(f"{name}/difference", -2, new, apart, subtract=True), apart
        )
        following = t.total(f"{name}/next", new, step, hidden)
        return (following,), following

    return _recurrence(tape, layer, source, [QState(f"{layer.name}/state", n, hidden)], body)


def rnn(tape: Tape, layer: Rnn, signals: Signals, source: int) -> int:
    """h' = activation(kernel x + recurrent_kernel h + bias)."""
    before = reads(layer.activation, signals.inner["sum"])
    hidden = Q15 if layer.activation.kind in (*LOOKUP_INPUT, "hard_sigmoid") else before
    part = wide(wide_power(np.concatenate([signals.inner["input"], signals.inner["recurrent"]], axis=-1)))

    def body(t: Tape, name: str) -> tuple[tuple[int, ...], int]:
        a = t.dense(f"{name}/input", -1, layer.kernel, layer.bias, part)
        b = t.dense(f"{name}/hidden", -2, layer.recurrent_kernel, np.zeros(layer.units), part)
        following = t.function(f"{name}/next", t.total(f"{name}/sum", a, b, before), layer.activation)
        return (following,), following

    return _recurrence(tape, layer, source, [QState(f"{layer.name}/state", layer.units, hidden)], body)


def _lstm_scan(tape: Tape, layer: Lstm, signals: Signals, source: int) -> int:
    """An LSTM whose activations the fused operator does not have."""
    n, inner = layer.units, signals.inner
    cell, raw = wide(wide_power(inner["cell"])), inner["raw_gates"]
    hidden = wide(wide_power(signals.output))
    part = wide(wide_power(np.concatenate([inner["input"].ravel(), raw.ravel()])))
    squash, g_in = reads(layer.recurrent_activation, raw), reads(layer.activation, raw)
    t_in = reads(layer.cell_activation, inner["cell"])

    def body(t: Tape, name: str) -> tuple[tuple[int, ...], int]:
        a = t.dense(f"{name}/input", -1, layer.kernel, layer.bias, part)
        b = t.dense(f"{name}/hidden", -2, layer.recurrent_kernel, np.zeros(4 * n), part)
        gates = []
        for index, letter in enumerate("ifgo"):
            function, into = (
                (layer.activation, g_in) if letter == "g" else (layer.recurrent_activation, squash)
            )
            ends = (index * n, (index + 1) * n)
            left, right = t.part(f"{name}/x_{letter}", a, *ends), t.part(f"{name}/h_{letter}", b, *ends)
            gates.append(
                t.function(f"{name}/{letter}", t.total(f"{name}/z_{letter}", left, right, into), function)
            )
        i, f, g, o = gates
        kept, fresh = t.product(f"{name}/kept", f, -3, cell), t.product(f"{name}/fresh", i, g, cell)
        c = t.total(f"{name}/cell", kept, fresh, cell)
        squashed = t.function(f"{name}/squashed", t.recode(c, t_in), layer.cell_activation)
        h = t.product(f"{name}/output", o, squashed, hidden)
        return (h, c), h

    states = [QState(f"{layer.name}/hidden_state", n, hidden), QState(f"{layer.name}/cell_state", n, cell)]
    return _recurrence(tape, layer, source, states, body)


def lstm(tape: Tape, layer: Lstm, signals: Signals, source: int) -> int:
    functions = (layer.recurrent_activation, layer.activation, layer.cell_activation)
    if [function.kind for function in functions] != ["sigmoid", "tanh", "tanh"]:
        return _lstm_scan(tape, layer, signals, source)
    if tape.config.profile == "native":
        source = tape.widened(source)
        return tape.add(native_lstm(layer, signals, tape.quantization(source), tape.config), source)
    if tape.config.scheme == "int16x8":
        source = tape.widened(source)
    elif tape.quantization(source).bits == 16:
        raise ModelError(f"lstm '{layer.name}': its input has 16 bits")  # quantize narrows it before
    return tape.add(quantize_lstm(layer, signals, tape.quantization(source), tape.config), source)
