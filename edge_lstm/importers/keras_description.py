"""The description in a Keras file -> ModelConfig: Sequential and functional models of Keras 2 and 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edge_lstm.importers.keras_config import MAX_RANK, MODELS, Call, LayerConfig, ModelConfig, Nth, Ref, refs

MAX_LAYERS = 2000  # and tensors that they read: a network of a microcontroller has some dozens
MAX_DEPTH = 20  # of models in models
MAX_NAME = 500  # letters

# functions of TensorFlow in a Keras 2 file -> the operation of Keras 3 that does the same
TENSORFLOW = {
    "__operators__.add": "Add", "__operators__.getitem": "GetItem", "compat.v1.squeeze": "Squeeze",
    "compat.v1.transpose": "Transpose", "concat": "Concatenate", "expand_dims": "ExpandDims",
    "linalg.matmul": "Matmul", "math.add": "Add", "math.divide": "Divide", "math.multiply": "Multiply",
    "math.negative": "Negative", "math.reduce_mean": "Mean", "math.reduce_sum": "Sum",
    "math.sigmoid": "Sigmoid", "math.subtract": "Subtract", "math.tanh": "Tanh",
    "math.truediv": "TrueDivide", "nn.elu": "Elu", "nn.leaky_relu": "LeakyRelu", "nn.relu": "Relu",
    "nn.sigmoid": "Sigmoid", "nn.silu": "Silu", "nn.softmax": "Softmax", "nn.tanh": "Tanh",
    "reshape": "Reshape", "reverse": "Flip", "squeeze": "Squeeze", "transpose": "Transpose",
}  # fmt: skip
TENSORFLOW_OPERANDS = ("y", "b", "slice_spec")  # their second operand, which Keras 3 passes by place
TENSORFLOW_OPTIONS = {"shape": "newshape", "perm": "axes", "alpha": "negative_slope"}


def read_model(entry: Mapping[str, Any], legacy: bool) -> ModelConfig:
    """The model of a file.  Raises what DAMAGE in keras_file lists for a description that is not one."""
    return _Reader(legacy).model(entry, (), 0)


def is_custom(entry: Mapping[str, Any]) -> bool:
    """Whether a class is not one of Keras: then only its author's code says what it does."""
    registered = entry.get("registered_name")
    return str(entry.get("module", "keras")).split(".")[0] not in ("keras", "tf_keras") or ">" in str(
        f"{registered}{entry['class_name']}"
    )


@dataclass
class _Reader:
    """Reads one file.  count: layers and tensors so far."""

    legacy: bool
    count: int = 0

    def model(self, entry: Mapping[str, Any], place: tuple[str | Nth, ...], depth: int) -> ModelConfig:
        if depth > MAX_DEPTH:
            raise ValueError(f"models in models in models, {MAX_DEPTH} deep")
        config = entry["config"]
        sequential = entry["class_name"] == "Sequential"
        if isinstance(config, list):  # of Keras before 2.2.3
            config = {"name": entry["class_name"].lower(), "layers": config}
        entries = config["layers"]
        layers = {}
        seen: Counter[str] = Counter()
        for item in entries:
            kind = str(item["class_name"])
            layer = self.layer(item, (*place, "layers", Nth(kind, seen[kind])), depth)
            seen[kind] += not layer.operation or self.legacy
            if layer.name in layers:
                raise ValueError(f"two layers are called '{layer.name}'")
            layers[layer.name] = layer
        name = str(config.get("name", entry["class_name"]))
        if sequential:
            return _chain(name, layers, _input_shape(entry, config, list(layers.values())[:1]))
        calls = {
            item["name"]: tuple(
                self._call(layers, layers[item["name"]], node) for node in item["inbound_nodes"]
            )
            for item in entries
        }
        self._counted(sum(len(list(refs([one.args, one.kwargs]))) for many in calls.values() for one in many))
        outputs = tuple(self._result(layers, Ref(*ref)) for ref in _leaves(config["output_layers"]))
        inputs = tuple(str(ref[0]) for ref in _leaves(config["input_layers"]))
        if not set(inputs) <= set(layers) or not inputs or not outputs:
            raise ValueError("its inputs or outputs are not among its layers")
        shape = _input_shape(entry, {}, [layers[inputs[0]]])
        return ModelConfig(name, layers, calls, inputs, outputs, shape)

    def _counted(self, more: int) -> None:
        self.count += more
        if self.count > MAX_LAYERS:
            raise ValueError(f"it has more than {MAX_LAYERS} layers and tensors")

    def layer(self, entry: Mapping[str, Any], place: tuple[str | Nth, ...], depth: int) -> LayerConfig:
        self._counted(1)
        kind, options = str(entry["class_name"]), entry["config"]
        custom = is_custom(entry)
        if kind in MODELS and not custom:
            model = self.model(entry, place, depth + 1)
            name = _name(entry.get("name", model.name))
            given = options if isinstance(options, dict) else {}
            return LayerConfig(kind, name, given, place, tuple(model.layers.values()), model)
        name = _name(options["name"] if "name" in options else entry["name"])  # operations before Keras 3.9
        if kind in ("TFOpLambda", "SlicingOpLambda") and not custom:
            function = str(options["function"])
            return LayerConfig(TENSORFLOW.get(function, f"tf.{function}"), name, {}, place, operation=True)
        module = str(entry.get("module", ""))
        if module.startswith("keras.src.ops") or not (module or {"trainable", "dtype"} & set(options)):
            given = {key: value for key, value in options.items() if key != "name"}
            return LayerConfig(kind, name, given, place, custom=custom, operation=True)
        parts = tuple(self._parts(kind, options, place, depth)) if not custom else ()
        return LayerConfig(kind, name, options, place, parts, custom=custom)

    def _parts(
        self, kind: str, options: Mapping[str, Any], place: tuple[str | Nth, ...], depth: int
    ) -> Iterator[LayerConfig]:
        if kind == "TimeDistributed":
            yield self.layer(options["layer"], (*place, "layer"), depth)
        elif kind == "Bidirectional":
            forward = options["layer"]
            backward = options.get("backward_layer")
            if backward is None:
                turned = not forward["config"].get("go_backwards", False)
                backward = {**forward, "config": {**forward["config"], "go_backwards": turned}}
            yield self.layer(forward, (*place, "forward_layer"), depth)
            yield self.layer(backward, (*place, "backward_layer"), depth)
        elif kind == "RNN":
            yield self.layer(options["cell"], (*place, "cell"), depth)
        elif kind == "StackedRNNCells":
            seen: Counter[str] = Counter()
            for cell in options["cells"]:
                name = str(cell["class_name"])
                yield self.layer(cell, (*place, "cells", Nth(name, seen[name])), depth)
                seen[name] += 1

    def _call(self, layers: Mapping[str, LayerConfig], layer: LayerConfig, node: Any) -> Call:
        if isinstance(node, Mapping):
            args, kwargs = _tensors(node["args"]), _tensors(node["kwargs"])
            if not args:  # layer(inputs=x)
                args = [kwargs.pop(name) for name in ("inputs", "sequences") if name in kwargs]
            return Call(tuple(args), kwargs)
        single = bool(node) and isinstance(node[0], str)
        items = [node] if single else node
        kwargs = dict(items[0][3]) if items and len(items[0]) > 3 else {}
        kwargs = {key: self._legacy_value(layers, value) for key, value in kwargs.items()}
        tensors = [
            item[2] if item[0] == "_CONSTANT_VALUE" else self._legacy_ref(layers, item) for item in items
        ]
        first = tensors[0] if len(tensors) == 1 and layer.kind != "Concatenate" else tensors
        if not layer.operation:
            return Call((first,), kwargs)
        kwargs.pop("name", None)
        more = [kwargs.pop(key) for key in TENSORFLOW_OPERANDS if key in kwargs]
        renamed = {TENSORFLOW_OPTIONS.get(str(key), str(key)): value for key, value in kwargs.items()}
        return Call((first, *more), renamed)

    def _legacy_value(self, layers: Mapping[str, LayerConfig], value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) == 3 and isinstance(value[0], str) and value[0] in layers:
            return self._legacy_ref(layers, value)
        return [self._legacy_value(layers, part) for part in value]

    def _legacy_ref(self, layers: Mapping[str, LayerConfig], item: Sequence[Any]) -> Ref:
        return self._result(layers, Ref(str(item[0]), item[1], item[2]))

    def _result(self, layers: Mapping[str, LayerConfig], ref: Ref) -> Ref:
        """A model in a model counts its calls from 1: in Keras 2, and in Keras 3 where it is an output."""
        layer = layers[ref.layer]
        first = layer.parts[0].kind if layer.model and layer.parts else ""
        counts = first == "InputLayer" if self.legacy else layer.kind in ("Functional", "Model")
        return ref._replace(call=ref.call - 1) if layer.model and counts else ref


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"a layer is called {str(name)[:60]!r}")
    return name


def _tensors(value: Any) -> Any:
    """A Keras 3 argument with Refs for its tensors and slices for its slices."""
    if isinstance(value, list):
        return [_tensors(part) for part in value]
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            return Ref(*value["config"]["keras_history"])
        if value.get("class_name") == "__slice__":
            return dict(value["config"])
        return {key: _tensors(part) for key, part in value.items()}
    return value


def _leaves(value: Any) -> Iterator[Sequence[Any]]:
    """[name, call, output] in any nesting."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        yield value
    elif isinstance(value, (list, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        raise ValueError(f"{value!r} is no tensor")


def _chain(name: str, layers: dict[str, LayerConfig], shape: tuple[int | None, ...]) -> ModelConfig:
    """A Sequential model as a functional one."""
    names = list(layers)
    if not names or layers[names[0]].kind != "InputLayer":
        start = "input" if "input" not in layers else "input_of_the_model"
        layers = {start: LayerConfig("InputLayer", start, {}), **layers}
        names = [start, *names]
    calls = {names[0]: (Call(()),)}
    for before, after in pairwise(names):
        calls[after] = (Call((Ref(before, 0, 0),)),)
    return ModelConfig(name, layers, calls, (names[0],), (Ref(names[-1], 0, 0),), shape)


def _input_shape(
    entry: Mapping[str, Any], config: Mapping[str, Any], start: Sequence[LayerConfig]
) -> tuple[int | None, ...]:
    """Of one sample; () where nothing says it.  start: the first layer, where there is one."""
    first = start[0].options if start else {}
    found = [
        first.get("batch_shape"),
        first.get("batch_input_shape"),
        config.get("build_input_shape"),
        (entry.get("build_config") or {}).get("input_shape"),
    ]
    shape = next((value for value in found if value is not None), [None])
    sizes = shape[1:] if isinstance(shape, list) else [shape]
    wrong = [size for size in sizes if size is not None and (type(size) is not int or size < 1)]
    if wrong or len(sizes) > MAX_RANK:
        raise ValueError(f"its input has the shape {shape!r}")
    return tuple(sizes)
