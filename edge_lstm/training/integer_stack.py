"""Integer networks of one shape as TensorFlow operations: the codes of the NumPy reference, and a gradient.

The codes are exact: sums of products are float64 below 2**53, all else is int64.  The gradient is that of the
float network at the values that the codes stand for; it stops where a code saturates.  Spec: NUMERICS.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edge_lstm.fixedpoint import IntArray, sigmoid_lookup, tanh_lookup
from edge_lstm.qgraph import CELL_POWERS
from edge_lstm.reference.native_lstm import sigmoid_native, tanh_native
from edge_lstm.training.model import load_tensorflow
from edge_lstm.training.stack import Trace, dense_gradient, lstm_gradient, scan

Constants = Mapping[str, Any]
Pull = Callable[[Any], tuple[Any, list[Any]]]  # gradient of outputs -> of inputs, and of the layer's weights


@dataclass(frozen=True)
class IntegerLayer:
    """kind: lstm, native, dense or recode.  bits: of its output.  limit: of its weights' codes."""

    kind: str
    bits: int
    limit: int = 127

    @property
    def arrays(self) -> int:
        """How many weight arrays it has."""
        return {"lstm": 3, "native": 3, "dense": 2, "recode": 0}[self.kind]


@dataclass(frozen=True)
class IntegerStack:
    """The arithmetic of one numerics profile; see ``trainer.Arithmetic``."""

    profile: str
    layers: tuple[IntegerLayer, ...]

    def codes(self, weights: Any, constants: Any, x: Any) -> tuple[list[Any], list[Pull]]:
        """The codes of every layer and what their gradients become.  x: codes of the input."""
        tf = load_tensorflow()
        codes, pulls, rest = tf.cast(x, tf.int64), [], iter(weights)
        written = []
        for index, (layer, own) in enumerate(zip(self.layers, constants, strict=True)):
            arrays = [next(rest) for _ in range(layer.arrays)]
            below = any(lower.arrays for lower in self.layers[:index])
            if layer.kind in ("lstm", "native"):
                codes, pull = run_lstm(self.profile, layer, own, arrays, codes, below)
            elif layer.kind == "dense":
                codes, pull = run_dense(self.profile, layer, own, arrays, codes)
            else:
                codes, pull = recode(layer, own, codes)
            written.append(codes)
            pulls.append(pull)
        return written, pulls

    def run(self, weights: Any, constants: Any, x: Any, masks: Any) -> tuple[Any, Callable[[Any], list[Any]]]:
        """Real values of the output codes, and their gradient; there is no dropout."""
        written, pulls = self.codes(weights, constants, x)

        def pull_all(upstream: Any) -> list[Any]:
            found: list[Any] = []
            for pull in reversed(pulls):
                if upstream is not None:
                    upstream, own = pull(upstream)
                    found = own + found
            return found

        return real(written[-1], constants[-1]["output_zero"], constants[-1]["output_scale"]), pull_all


# --- the primitives of fixedpoint.py ---------------------------------------------------------------


def left_shift(x: Any, places: Any) -> Any:
    return load_tensorflow().bitwise.left_shift(*_both(x, places))


def right_shift(x: Any, places: Any) -> Any:
    """Toward minus infinity."""
    return load_tensorflow().bitwise.right_shift(*_both(x, places))


def _both(x: Any, places: Any) -> tuple[Any, Any]:
    tf = load_tensorflow()
    return tf.convert_to_tensor(x, tf.int64), tf.convert_to_tensor(places, tf.int64)


def rounding_shift(x: Any, places: Any) -> Any:
    """Divide by ``2**places``, ties away from zero."""
    tf = load_tensorflow()
    below = left_shift(1, places) - 1
    threshold = right_shift(below, 1) + tf.cast(x < 0, tf.int64)
    return right_shift(x, places) + tf.cast(tf.bitwise.bitwise_and(x, below) > threshold, tf.int64)


def requantize(acc: Any, multiplier: Any, shift: Any, ties_up: bool = False) -> Any:
    """See fixedpoint.requantize; lower() has proven that the left shift fits 32 bits."""
    tf = load_tensorflow()
    high = right_shift(left_shift(acc, tf.maximum(shift, 0)) * multiplier + (1 << 30), 31)
    right = tf.maximum(-shift, 0)
    return (
        right_shift(high + right_shift(left_shift(1, right), 1), right)
        if ties_up
        else rounding_shift(high, right)
    )


def scale_wide(acc: Any, multiplier: Any, shift: Any) -> Any:
    """See fixedpoint.scale_wide."""
    right = 15 - shift
    return right_shift(acc * multiplier + left_shift(1, right - 1), right)


def saturate(x: Any, bits: int, low: Any = None) -> tuple[Any, Any]:
    """Clamped codes, and 1 where nothing was clamped, float32.  low: another least code."""
    tf = load_tensorflow()
    top = 1 << (bits - 1)
    clamped = tf.clip_by_value(x, tf.constant(-top, tf.int64) if low is None else low, top - 1)
    return clamped, tf.cast(tf.equal(clamped, x), tf.float32)


def real(codes: Any, zero_point: Any, scale: Any) -> Any:
    """float32 values of codes."""
    tf = load_tensorflow()
    return tf.cast(codes - zero_point, tf.float32) * scale


def product(x: Any, kernel: Any) -> Any:
    """Exact integer sums.  x: int64 (..., networks, windows, features); kernel: float64 codes."""
    tf = load_tensorflow()
    return tf.cast(tf.matmul(tf.cast(x, tf.float64), kernel), tf.int64)


def weight_codes(weights: Any, scale: Any, moved: Any, limit: int) -> tuple[Any, Any]:
    """Codes of real weights, float64, and the float32 weights that they stand for.

    moved: added first; it makes the rounding agree with what the quantizer chose for the weights that the
    constants were computed from.
    """
    tf = load_tensorflow()
    codes = tf.round((tf.cast(weights, tf.float64) + moved) / scale)
    codes = tf.clip_by_value(codes, tf.constant(-limit, tf.float64), tf.constant(limit, tf.float64))
    return codes, tf.cast(codes * scale, tf.float32)


# --- layers ----------------------------------------------------------------------------------------


def recode(layer: IntegerLayer, own: Constants, x: Any) -> tuple[Any, Pull]:
    """The same reals in other codes."""
    scaled = requantize(x - own["input_zero"], own["multiplier"], own["shift"]) + own["output_zero"]
    codes, is_open = saturate(scaled, layer.bits)
    return codes, lambda upstream: (upstream * is_open, [])


def run_dense(
    profile: str, layer: IntegerLayer, own: Constants, arrays: list[Any], x: Any
) -> tuple[Any, Pull]:
    """x: codes (steps, networks, windows, features)."""
    tf = load_tensorflow()
    kernel, used = weight_codes(arrays[0], own["kernel_scale"], own["kernel_moved"], layer.limit)
    bias = _bias_codes(arrays[1], own)
    centered = x - own["input_zero"]
    acc = product(centered, kernel) + bias
    if layer.bits == 16:
        scaled = scale_wide(acc, own["multiplier"], own["shift"])
    elif profile == "litert":  # as XNNPACK: in float32, ties to even
        scaled = tf.cast(tf.round(tf.cast(acc, tf.float32) * own["float_scale"]), tf.int64)
    else:
        scaled = requantize(acc, own["multiplier"], own["shift"], ties_up=profile == "tflite")
    codes, is_open = saturate(scaled + own["output_zero"], layer.bits, own["minimum"])
    seen = real(x, own["input_zero"], own["input_scale"])
    return codes, lambda upstream: dense_gradient(seen, used, upstream * is_open)


def _bias_codes(bias: Any, own: Constants) -> Any:
    """int64 (networks, 1, width)."""
    tf = load_tensorflow()
    return tf.cast(tf.round(tf.cast(bias, tf.float64) / own["bias_step"]), tf.int64)[:, None]


def run_lstm(
    profile: str, layer: IntegerLayer, own: Constants, arrays: list[Any], x: Any, below: bool
) -> tuple[Any, Pull]:
    """All steps from reset.  x: codes (steps, networks, windows, features).  below: see lstm_gradient."""
    tf = load_tensorflow()
    kernel, used = weight_codes(arrays[0], own["kernel_scale"], own["kernel_moved"], layer.limit)
    recurrent, used_r = weight_codes(arrays[1], own["recurrent_scale"], own["recurrent_moved"], layer.limit)
    bias = _bias_codes(arrays[2], own)
    steps, networks, windows, _ = x.shape
    units = recurrent.shape[1]
    step = _native_step if layer.kind == "native" else _fused_step

    def body(t: Any, hidden: Any, cell: Any) -> Any:
        gates, kept, squashed, following = step(
            profile, layer, own, product(x[t] - own["input_zero"], kernel) + bias,
            product(hidden - own["hidden_zero"], recurrent), cell,
        )  # fmt: skip
        cell, cell_open = saturate(kept, 16)
        cell = tf.clip_by_value(cell, -own["cell_clip"], own["cell_clip"])
        cell_open *= tf.cast(tf.abs(cell) < own["cell_clip"], tf.float32)
        squashed = squashed(cell)
        hidden, hidden_open = following(gates[..., 3 * units :], squashed)
        written = gates, cell, squashed, hidden, cell_open, hidden_open
        return (hidden, cell), [tf.cast(value, tf.float32) for value in written]

    zeros = tf.zeros((networks, windows, units), tf.int64)
    widths = [4 * units, *[units] * 5]
    shapes = [((networks, windows, width), tf.float32) for width in widths]
    _, written = scan(body, (zeros + own["hidden_zero"], zeros), steps, shapes)
    gates, cell, squashed, hidden, cell_open, hidden_open = written
    codes = tf.cast(hidden, tf.int64)
    trace = Trace(
        real(x, own["input_zero"], own["input_scale"]), gates / 32768.0, cell * own["cell_scale"],
        squashed / 32768.0, real(codes, own["hidden_zero"], own["hidden_scale"]), None, hidden_open,
        cell_open,
    )  # fmt: skip
    return codes, lambda upstream: lstm_gradient(trace, used, used_r, upstream, below)


# what a step gives: gates, the cell before saturation, tanh of the saturated cell, the hidden codes
Parts = tuple[Any, Any, Callable[[Any], Any], Callable[[Any, Any], tuple[Any, Any]]]


def _fused_step(profile: str, layer: IntegerLayer, own: Constants, a: Any, b: Any, cell: Any) -> Parts:
    """integer_lstm.lstm_step.  a, b: accumulators of the input and of the state."""
    tf = load_tensorflow()
    scale = scale_wide if layer.bits == 16 else requantize
    a = saturate(scale(a, own["input_multiplier"], own["input_shift"]), 16)[0]
    b = scale(b, own["recurrent_multiplier"], own["recurrent_shift"])
    b = saturate(b, 16)[0] if profile == "tflm" else b
    z = saturate(a + b, 16)[0] + 32768
    units = z.shape[-1] // 4
    tables, tanh = fused_tables(profile)
    place = z + np.repeat(np.array([0, 0, 65536, 0], np.int64), units)
    gates = tf.cast(tf.gather(tf.constant(tables), place), tf.int64)
    i, f, g, _ = tf.split(gates, 4, -1)
    if profile == "tflm":
        kept = saturate(requantize(f * cell, np.int64(1 << 30), np.int64(-14)), 16)[0]
        fresh = saturate(requantize(i * g, np.int64(1 << 30), -29 - own["cell_power"]), 16)[0]
    else:
        kept, fresh = rounding_shift(f * cell, 15), rounding_shift(i * g, 30 + own["cell_power"])
    first = (own["cell_power"] - CELL_POWERS.start) * 65536 + 32768

    def hidden(o: Any, squashed: Any) -> tuple[Any, Any]:
        scaled = requantize(o * squashed, own["hidden_multiplier"], own["hidden_shift"])
        return saturate(scaled + own["hidden_zero"], layer.bits)

    return gates, kept + fresh, lambda c: tf.cast(tf.gather(tf.constant(tanh), c + first), tf.int64), hidden


def _native_step(profile: str, layer: IntegerLayer, own: Constants, a: Any, b: Any, cell: Any) -> Parts:
    """native_lstm.native_step."""
    tf = load_tensorflow()
    table = tf.constant(native_table())
    shifted = left_shift(a + b, own["acc_shift"])
    z = right_shift(shifted * own["multiplier"] + (1 << 31), 32)
    units = z.shape[-1] // 4
    reach = np.repeat(np.array([1 << 17, 1 << 17, 1 << 16, 1 << 17], np.int64), units)
    first = np.repeat(np.array([0, 0, 1 << 18, 0], np.int64), units)
    gates = tf.cast(tf.gather(table, tf.clip_by_value(z, -reach, reach - 1) + reach + first), tf.int64)
    i, f, g, _ = tf.split(gates, 4, -1)
    fresh = right_shift(i * g, 15 + own["cell_power"])
    kept = right_shift(f * cell + fresh + (1 << 14), 15)
    up, down = tf.maximum(12 + own["cell_power"], 0), tf.maximum(-12 - own["cell_power"], 0)

    def tanh(c: Any) -> Any:
        place = right_shift(left_shift(3 * c, up) + right_shift(left_shift(1, down), 1), down)
        return tf.cast(tf.gather(table, saturate(place, 17)[0] + (1 << 18) + (1 << 16)), tf.int64)

    def hidden(o: Any, squashed: Any) -> tuple[Any, Any]:
        half = left_shift(1, own["hidden_shift"] - 1)
        codes = right_shift(o * squashed + half, own["hidden_shift"])
        return codes, tf.ones_like(codes, tf.float32)  # |o * tanh(c)| < 1 has a code

    return gates, kept, tanh, hidden


@cache
def fused_tables(profile: str) -> tuple[IntArray, IntArray]:
    """int32: sigmoid then tanh of a gate's sum; tanh of the cell at every scale, one after another."""
    gates = [sigmoid_lookup(profile), tanh_lookup(profile, -12)]
    cells = [tanh_lookup(profile, power) for power in CELL_POWERS]
    return np.concatenate(gates).astype(np.int32), np.concatenate(cells).astype(np.int32)


@cache
def native_table() -> IntArray:
    """int32: sigmoid of 18 bits, then tanh of 17."""
    functions = ((sigmoid_native, 17), (tanh_native, 16))
    return np.concatenate([f(np.arange(-(1 << n), 1 << n)) for f, n in functions]).astype(np.int32)
