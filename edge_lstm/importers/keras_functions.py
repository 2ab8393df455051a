"""Activations of Keras as the functions of the network: by name, as a layer, or as several steps.

Reads the options of layers; writes Functions and adds Activation, Softmax and Merge layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.importers.keras_values import TIME, Network, Refused, Value, features, position
from edge_lstm.layer_types import LINEAR, RELU, SIGMOID, TANH, Activation, Function, Merge, Softmax

# scaled exponential linear unit: Klambauer et al. 2017
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
HARD_SIGMOID = Function("hard_sigmoid", 1 / 6, 0.5)  # of Keras 3: relu6(x + 3) / 6
HARD_SIGMOID_LEGACY = Function("hard_sigmoid", 0.2, 0.5)  # of Keras 2
NAMED = {
    "linear": LINEAR, "relu": RELU, "tanh": TANH, "sigmoid": SIGMOID, "softsign": Function("softsign"),
    "softplus": Function("softplus"), "leaky_relu": Function("leaky_relu", 0.2), "elu": Function("elu", 1.0),
}  # fmt: skip
LAYERS = ("LeakyReLU", "ReLU", "ELU", "ThresholdedReLU")
HINT = (
    "expected one of " + ", ".join([*NAMED, "hard_sigmoid"]) + " (and softmax, relu6, selu, silu, hard_silu, "
    "hard_tanh, mish outside of recurrent layers); train it with one of these"
)


@dataclass(frozen=True)
class Steps:
    """Functions one after another; gated: the input is multiplied with what comes out."""

    functions: tuple[Function, ...]
    gated: bool = False


def steps_of(name: Any, legacy: bool) -> Steps | None:
    """The steps of an activation that Keras calls by name; None for softmax and for what is not known."""
    hard = HARD_SIGMOID_LEGACY if legacy else HARD_SIGMOID
    found = {
        "hard_sigmoid": Steps((hard,)),
        "relu6": Steps(_up_to(6.0)),
        "selu": Steps((Function("elu", SELU_ALPHA), Function("affine", SELU_SCALE, 0.0))),
        "silu": Steps((SIGMOID,), gated=True),
        "hard_silu": Steps((HARD_SIGMOID,), gated=True),
        "hard_tanh": Steps((Function("hard_sigmoid", 0.5, 0.5), Function("affine", 2.0, -1.0))),
        "mish": Steps((NAMED["softplus"], TANH), gated=True),
    }
    if not isinstance(name, str | None):
        return None
    name = {"swish": "silu", "hard_swish": "hard_silu", None: "linear"}.get(name, name)
    return Steps((NAMED[name],)) if name in NAMED else found.get(name)


def _up_to(limit: float) -> tuple[Function, ...]:
    """min(max(x, 0), limit)."""
    return Function("hard_sigmoid", 1 / limit, 0.0), Function("affine", limit, 0.0)


def layer_steps(kind: str, options: Mapping[str, Any]) -> Steps:
    """The steps of an activation layer; Refused for a ReLU that no function here is."""
    if kind == "LeakyReLU":
        return Steps(
            (Function("leaky_relu", number(options, "negative_slope", number(options, "alpha", 0.3))),)
        )
    if kind == "ELU":
        return Steps((Function("elu", number(options, "alpha", 1.0)),))
    if kind == "ThresholdedReLU":
        return Steps((Function("thresholded_relu", number(options, "theta", 1.0)),))
    limit = number(options, "max_value", np.inf)
    slope, threshold = number(options, "negative_slope", 0.0), number(options, "threshold", 0.0)
    if limit == np.inf and threshold == 0:
        return Steps((RELU if slope == 0 else Function("leaky_relu", slope),))
    if limit == np.inf and slope == 0:
        return Steps((Function("thresholded_relu", threshold),))
    if limit > 0 and slope == 0 and threshold == 0:
        return Steps(_up_to(limit))
    raise Refused(
        f"it has max_value={options.get('max_value')}, negative_slope={slope} and threshold={threshold}; "
        "only one of them may be set"
    )


def number(options: Mapping[str, Any], name: str, default: float) -> float:
    """A number that may be missing, None, or wrapped as an array of NumPy."""
    value = options.get(name)
    if isinstance(value, Mapping):
        value = value["config"]["value"]
    return default if value is None else float(value)


def function_of(value: Any, legacy: bool) -> Function:
    """The activation of a gate; Refused where it is not one element-wise function."""
    steps = _steps(value, legacy)
    if steps is None or len(steps.functions) != 1 or steps.gated:
        raise Refused(f"it has the activation {named(value)}, {HINT}")
    return steps.functions[0]


def activated(net: Network, name: str, x: Value, value: Any) -> Value:
    """``x`` through the activation ``value`` of a layer; Refused where there is none like it."""
    if value == "softmax":
        return softmax(net, f"{name}_softmax", x, -1)
    steps = _steps(value, net.legacy)
    if steps is None:
        raise Refused(f"it has the activation {named(value)}, {HINT}")
    return stepped(net, name, x, steps)


def stepped(net: Network, name: str, x: Value, steps: Steps) -> Value:
    result = x
    for function in steps.functions:
        if function != LINEAR:
            result = net.put(Activation(f"{name}_{function.kind}", function), x.axes, result)
    return net.put(Merge(f"{name}_gated", "mul"), x.axes, x, result) if steps.gated else result


def _steps(value: Any, legacy: bool) -> Steps | None:
    if isinstance(value, Mapping) and value.get("class_name") in LAYERS:
        return layer_steps(value["class_name"], value["config"])
    return steps_of(value, legacy)


def named(value: Any) -> str:
    """A function by its name, not with its code."""
    if isinstance(value, Mapping):
        value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
    return f"'{value}'" if isinstance(value, str) else "'a function of its author'"


def softmax(net: Network, name: str, x: Value, axis: Any) -> Value:
    """Softmax along one Keras axis; Refused where that is a part of the features."""
    place = position(axis, len(x.axes))
    if x.axes[place] is TIME:
        return net.put(Softmax(name, "time"), x.axes, x)
    if features(x.axes) != x.axes[place]:
        raise Refused(f"it is a softmax along axis {axis} of {x}, expected all features or the time steps")
    return net.put(Softmax(name, "features"), x.axes, x)
