"""What a Keras 3 model description asks for: its chain of layers, and everything that is not implemented.

Reads the parsed ``config.json`` of a ``.keras`` file; writes LayerConfigs and sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# nothing at inference
TRAINING_ONLY = frozenset(
    {
        "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
        "SpatialDropout1D",
    }
)  # fmt: skip
FLOAT_POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16")  # variables are floats of NumPy

STREAM_HINT = "a device sees one sample at a time: give the LSTM's output at each step to a Dense layer"
SCALING_HINT = "scale the data before training: the scaling of 'edge-lstm train' travels with the model"
HINTS = {
    "GRU": "train an LSTM of as many units instead",
    "SimpleRNN": "train an LSTM of as many units instead",
    "RNN": "use the layer keras.layers.LSTM instead of cells in an RNN",
    "Bidirectional": "a stream has no future: train a forward LSTM instead",
    "Masking": "leave it out: 'edge-lstm train' gives missing values and gaps no weight",
    "BatchNormalization": SCALING_HINT,
    "LayerNormalization": SCALING_HINT,
    "Normalization": SCALING_HINT,
    "Rescaling": SCALING_HINT,
    "Lambda": "code of a file is never run: build the model without it",
    "Flatten": STREAM_HINT,
    "Reshape": STREAM_HINT,
    "RepeatVector": STREAM_HINT,
    "TimeDistributed": "only TimeDistributed(Dense) is implemented; apply the inner layer itself",
    "Functional": "take its layers into the outer model",
    "Sequential": "take its layers into the outer model",
}
OTHER_HINT = "implemented are LSTM, Dense and TimeDistributed(Dense); build and train the model of these"


@dataclass(frozen=True)
class LayerConfig:
    """One layer of the description.

    kind: its class; a TimeDistributed(Dense) is a Dense.  options: its Keras configuration.
    group: where its weights lie in the HDF5 file.  custom: the class is not one of Keras.
    """

    kind: str
    name: str
    options: Mapping[str, Any]
    group: str
    custom: bool = False

    @property
    def has_weights(self) -> bool:
        return self.kind in ("LSTM", "Dense")


def chain_of(config: Mapping[str, Any]) -> tuple[list[LayerConfig], list[str]]:
    """The layers of a Sequential or functional model from input to output, and what keeps it from a chain.

    Where something does, the layers come in the order of the file.
    """
    kind = config["class_name"]
    if _is_custom(config) or kind not in ("Sequential", "Functional"):
        return [], [
            f"the model is of the class '{kind}', expected Sequential or Functional; "
            "code of a file is never run: build the model of Keras' own layers in a chain"
        ]
    entries = config["config"]["layers"]
    layers = list(_layer_configs(entries))
    if kind == "Sequential":
        return layers, []
    sources = {layer.name: _sources(entry) for layer, entry in zip(layers, entries, strict=True)}
    problems = _topology_problems(layers, entries, sources, config["config"]["output_layers"])
    return (layers, problems) if problems else (_in_order(layers, sources), [])


def _layer_configs(entries: Sequence[Mapping[str, Any]]) -> Iterator[LayerConfig]:
    """Keras names weights by class: the second LSTM of the model lies in ``layers/lstm_1``."""
    seen: Counter[str] = Counter()
    for entry in entries:
        kind, options = str(entry["class_name"]), entry["config"]
        name, custom = str(options["name"]), _is_custom(entry)
        snake = _snake_case(kind)
        group = f"layers/{snake}_{seen[snake]}" if seen[snake] else f"layers/{snake}"
        seen[snake] += 1
        inner = options.get("layer") if kind == "TimeDistributed" and not custom else None
        if inner is not None and inner["class_name"] == "Dense":
            kind, options, group = "Dense", inner["config"], f"{group}/layer"
            custom = _is_custom(inner)
        yield LayerConfig(kind, name, options, group, custom)


def _is_custom(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("module")).split(".")[0] != "keras"


def _snake_case(name: str) -> str:
    """As Keras' own ``to_snake_case``."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _sources(entry: Mapping[str, Any]) -> list[str]:
    """Names of the layers whose outputs a layer reads."""
    return list(_tensors(entry["inbound_nodes"]))


def _tensors(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield str(value["config"]["keras_history"][0])
        else:
            for part in value.values():
                yield from _tensors(part)
    elif isinstance(value, list):
        for part in value:
            yield from _tensors(part)


def _topology_problems(
    layers: Sequence[LayerConfig],
    entries: Sequence[Mapping[str, Any]],
    sources: Mapping[str, list[str]],
    outputs: Any,
) -> list[str]:
    problems = []
    inputs = [layer.name for layer in layers if layer.kind == "InputLayer"]
    if len(inputs) != 1:
        problems.append(f"it has {len(inputs)} inputs ({', '.join(inputs)}), expected 1: join the channels")
    heads = list(_outputs(outputs))
    if len(heads) != 1:
        problems.append(f"it has {len(heads)} outputs ({', '.join(heads)}), expected 1; train one model each")
    for layer, entry in zip(layers, entries, strict=True):
        problems += _call_problems(layer, entry["inbound_nodes"], sources[layer.name])
    readers: dict[str, list[str]] = {}
    for reader, read in sources.items():
        for name in read:
            readers.setdefault(name, []).append(reader)
    for name, found in readers.items():
        if len(found) > 1:
            problems.append(
                f"the output of '{name}' is read {len(found)} times ({', '.join(found)}): branches are not "
                "implemented; build a chain"
            )
        elif name in heads:
            problems.append(
                f"the model's output '{name}' is read by '{found[0]}'; let the chain end in the output"
            )
    return problems


def _outputs(value: Any) -> Iterator[str]:
    """Names in ``output_layers``: one [name, node, tensor], or any nesting of those."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        yield value[0]
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _outputs(part)


def _call_problems(layer: LayerConfig, nodes: Sequence[Any], read: Sequence[str]) -> list[str]:
    """How a layer is called: once, with one tensor and nothing else."""
    where = f"layer '{layer.name}' ({layer.kind})"
    if layer.kind == "InputLayer":
        return []
    if len(nodes) != 1:
        return [f"{where} is used {len(nodes)} times, expected once: give each place a layer of its own"]
    if len(read) != 1:
        return [f"{where} reads {len(read)} tensors ({', '.join(read)}), expected 1; build a chain"]
    extra = {f"argument {number}": value for number, value in enumerate(nodes[0]["args"][1:], start=2)}
    return [
        f"{where} is called with {name}={value!r}, which is not implemented; call it with its input only"
        for name, value in {**extra, **nodes[0]["kwargs"]}.items()
        if value is not None and value is not False
    ]


def _in_order(layers: Sequence[LayerConfig], sources: Mapping[str, list[str]]) -> list[LayerConfig]:
    """Follow a chain without branches from its input; a cycle leaves layers out."""
    reader = {read[0]: name for name, read in sources.items() if read}
    named = {layer.name: layer for layer in layers}
    chain = [next(layer for layer in layers if layer.kind == "InputLayer")]
    while chain[-1].name in reader:
        chain.append(named[reader[chain[-1].name]])
    if len(chain) != len(layers):
        raise ValueError("layers that no input reaches")
    return chain


def layer_problems(layer: LayerConfig) -> list[str]:
    """Every reason why one layer cannot be carried."""
    where = f"layer '{layer.name}' ({layer.kind})"
    if layer.custom:
        return [f"{where} is a class of its author: {HINTS['Lambda']}"]
    if layer.kind in TRAINING_ONLY:
        return []
    if layer.kind == "InputLayer":
        shape = layer.options["batch_shape"]
        if len(shape) != 3:
            return [f"{where} takes samples of shape {tuple(shape[1:])}, expected (steps, channels)"]
        return []
    if layer.kind == "Activation":
        return _option_problems(where, layer.options, {"activation": "linear"})
    if not layer.has_weights:
        return [f"{where} is not implemented; {HINTS.get(layer.kind, OTHER_HINT)}"]
    if layer.kind == "Dense":
        problems = _option_problems(where, layer.options, {"activation": "linear"})
    else:
        problems = _option_problems(where, layer.options, LSTM_OPTIONS)
    return problems + _policy_problems(where, layer.options.get("dtype"))


LSTM_OPTIONS = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "go_backwards": False,
    "return_state": False,
}
OPTION_HINTS = {
    "activation": "train it with that activation",
    "recurrent_activation": "train it with that activation",
    "go_backwards": "reverse the windows of the training data instead",
    "return_state": "a device keeps the state by itself; return the outputs only",
}


def _option_problems(where: str, options: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    return [
        f"{where} has {name}={_shown(options[name])}, expected {value}; {OPTION_HINTS[name]}"
        for name, value in expected.items()
        if options[name] != value
    ]


def _shown(value: Any) -> str:
    """A custom function by its name, not with its code."""
    if isinstance(value, Mapping):
        return str(value.get("registered_name") or value.get("class_name") or "a custom function")
    return str(value)


def _policy_problems(where: str, policy: Any) -> list[str]:
    if isinstance(policy, Mapping):
        policy = policy["config"].get("name") or policy["class_name"]
    if policy in FLOAT_POLICIES or policy is None:
        return []
    return [f"{where} has dtype {policy}, expected float32; quantize the float model with this toolkit"]


def sequence_problems(chain: Sequence[LayerConfig]) -> list[str]:
    """An LSTM that returns only its last step must be the last LSTM."""
    lstms = [layer for layer in chain if layer.kind == "LSTM"]
    if not lstms:
        return ["it has no LSTM layer; this toolkit is for LSTMs"]
    return [
        f"layer '{layer.name}' (LSTM) returns only its last step, but '{after.name}' needs all of them; "
        "set return_sequences=True"
        for layer, after in pairwise(lstms)
        if not layer.options["return_sequences"]
    ]
