"""The calls of a Keras model, one after another, as layers of a Draft.

Reads a ModelConfig and its weights; writes the value of the model's output and every problem on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edge_lstm.errors import ModelError
from edge_lstm.importers import keras_layers as simple
from edge_lstm.importers.keras_attention import attend, dot, global_average
from edge_lstm.importers.keras_config import Call, LayerConfig, ModelConfig, Ref, refs
from edge_lstm.importers.keras_operations import operation
from edge_lstm.importers.keras_options import TRAINING_ONLY, layer_problems
from edge_lstm.importers.keras_recurrent import bidirectional, recurrent
from edge_lstm.importers.keras_values import TIME, Network, Refused, Value, readable

Results = tuple[Value, ...] | None  # None where a problem was reported already
Converter = Callable[[Network, LayerConfig, Sequence[Value]], Value | tuple[Value, ...]]
CONVERTERS: dict[str, Converter] = {
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D"), recurrent),
    **dict.fromkeys(("LeakyReLU", "ReLU", "ELU", "ThresholdedReLU"), simple.activation_layer),
    **dict.fromkeys(("Add", "Average", "Multiply", "Subtract"), simple.merge_layer),
    **dict.fromkeys(TRAINING_ONLY, simple.same),
    "Bidirectional": bidirectional, "Conv1D": simple.conv1d, "ZeroPadding1D": simple.zero_padding,
    "Dense": simple.dense, "Activation": simple.activation, "Softmax": simple.softmax_layer,
    "Normalization": simple.normalization, "Rescaling": simple.rescaling,
    "BatchNormalization": simple.batch_norm, "RepeatVector": simple.repeat_vector, "Flatten": simple.flatten,
    "Reshape": simple.reshape, "Permute": simple.permute, "Concatenate": simple.concatenate, "Dot": dot,
    "GlobalAveragePooling1D": global_average,
}  # fmt: skip
ATTENTION = ("Attention", "AdditiveAttention")
OWN_CHECK = ("Conv1D", "Dense", *TRAINING_ONLY)  # may read what others may not
MAX_CALLS = 1000  # also of models that are used several times


@dataclass
class Walk:
    """Adds the layers of a model to ``net``.

    problems: why it cannot be carried.  damage: what is wrong with its weights.  calls: so far.
    """

    net: Network
    problems: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    calls: int = 0

    def run(self, model: ModelConfig, inputs: Sequence[Value]) -> tuple[Value | None, ...]:
        """The outputs of a model, which may stand in another; None where a problem was reported.

        Raises ValueError for calls that form a circle or do not exist.
        """
        done: dict[tuple[str, int], Results] = {
            (name, 0): (value,) for name, value in zip(model.inputs, inputs, strict=True)
        }
        waiting = [(ref.layer, ref.call) for ref in reversed(model.outputs)]
        started: set[tuple[str, int]] = set()
        while waiting:
            key = waiting[-1]
            if key in done:
                waiting.pop()
                continue
            call = _call_of(model, key)
            missing = [(ref.layer, ref.call) for ref in refs([call.args, call.kwargs])]
            missing = [other for other in dict.fromkeys(missing) if other not in done]
            if missing and key in started:
                raise ValueError(f"the calls of '{key[0]}' form a circle")
            started.add(key)
            waiting += missing
            if not missing:
                done[key] = self._call(model.layers[key[0]], call, done)
        ends = [(done[ref.layer, ref.call], ref.output) for ref in model.outputs]
        return tuple(found[output] if found else None for found, output in ends)

    def _call(self, layer: LayerConfig, call: Call, done: Mapping[tuple[str, int], Results]) -> Results:
        """One use of a layer."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise ValueError(f"it has more than {MAX_CALLS} calls")
        known = all(done[ref.layer, ref.call] is not None for ref in refs([call.args, call.kwargs]))
        if not known or not call.args or (layer_problems(layer) and not layer.model):
            return None
        try:
            args = [_with_values(argument, done) for argument in call.args]
            if layer.operation:
                return (operation(self.net, layer, args, {**layer.options, **call.kwargs}),)
            return self._convert(layer, args[0] if isinstance(args[0], list) else [args[0]], call.kwargs)
        except Refused as refusal:
            self.problems.append(f"{layer.where}: {refusal}")
        except ModelError as error:
            self.damage.append(str(error))
        return None

    def _convert(self, layer: LayerConfig, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Results:
        if not inputs or not all(isinstance(value, Value) for value in inputs):
            raise Refused("it reads a constant, expected a tensor")
        if layer.kind not in OWN_CHECK:
            inputs = [readable(value) for value in inputs]
        if layer.model:
            found = self.run(layer.model, inputs)
            values = tuple(value for value in found if value is not None)
            return values if len(values) == len(found) else None
        if layer.kind == "TimeDistributed":
            return self._each_row(layer, inputs)
        if layer.kind in ATTENTION:
            return attend(self.net, layer, inputs, kwargs)
        if layer.kind not in CONVERTERS:
            raise Refused("it is called by itself; cells belong into an RNN layer")
        made = CONVERTERS[layer.kind](self.net, layer, inputs)
        return made if isinstance(made, tuple) else (made,)

    def _each_row(self, layer: LayerConfig, inputs: Sequence[Value]) -> Results:
        """TimeDistributed: the layer in it sees a row without the axis of the rows."""
        (x,) = inputs
        (inner,) = layer.parts
        if len(x.axes) < 2 or x.axes[0] not in (TIME, 1):
            raise Refused(f"it reads {x}, expected (timesteps, features)")
        if layer_problems(inner) and not inner.model:
            return None
        self.net.inside += 1
        try:
            found = self._convert(inner, [replace(x, axes=x.axes[1:])], {})
        finally:
            self.net.inside -= 1
        return found and tuple(replace(value, axes=(x.axes[0], *value.axes)) for value in found)


def _call_of(model: ModelConfig, key: tuple[str, int]) -> Call:
    name, number = key
    if not 0 <= number < len(model.calls[name]):
        raise ValueError(f"call {number} of '{name}' does not exist")
    return model.calls[name][number]


def _with_values(value: Any, done: Mapping[tuple[str, int], Results]) -> Any:
    """An argument with Values for its tensors."""
    if isinstance(value, Ref):
        result = (done[value.layer, value.call] or ())[value.output]
        return result if result.padded or result.flat else readable(result)
    return [_with_values(part, done) for part in value] if isinstance(value, list) else value
