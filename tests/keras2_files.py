"""Files in the formats of Keras 2, written from files of Keras 3 by JSON and HDF5 alone.

What differs was seen in files of Keras 2.13.1 (of TensorFlow 2.13) and of tf_keras 2.21; both open what is
written here and compute the same.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py

FUNCTIONS = {
    "Add": "__operators__.add", "Multiply": "math.multiply", "Sum": "math.reduce_sum", "Tanh": "math.tanh",
    "Flip": "reverse", "Subtract": "math.subtract",
}  # fmt: skip
OLD, NEW = "2.13.1", "2.21.0"
MODULES = {OLD: "keras.src", NEW: "tf_keras.src"}
WITHOUT = (
    "seed", "zero_output_for_mask", "quantization_config", "optional", "build_input_shape", "synchronized",
    "renorm", "renorm_clipping", "renorm_momentum", "backward_layer",
)  # fmt: skip


def keras2_config(entry: dict[str, Any], version: str, whole: bool) -> dict[str, Any]:
    """The description of a model or layer.  whole: for an .h5 file, which names no modules."""
    kind, options = entry["class_name"], entry["config"]
    if str(entry["module"]).startswith("keras.src.ops"):
        return _operation(entry, version, whole)
    options = {
        key: value
        for key, value in options.items()
        if key not in WITHOUT and not key.endswith("_initializer")
    }
    if "batch_shape" in options:
        options["batch_input_shape"] = options.pop("batch_shape")
    if "return_sequences" in options:
        options.update(time_major=False, implementation=2)
    if kind == "LeakyReLU":
        options["alpha"] = options.pop("negative_slope")
    if kind == "BatchNormalization":
        options["axis"] = [len(entry["build_config"]["input_shape"]) - 1]
    if kind in ("Bidirectional", "TimeDistributed"):
        options["layer"] = keras2_config(options["layer"], version, whole)
    if kind in ("Sequential", "Functional"):
        options.pop("dtype", None)
        options = _model_config(options, version, whole)
    else:
        options["dtype"] = "float32"
    modules: dict[str, dict[str, Any]] = {
        "Sequential": {"module": "keras", "registered_name": None},
        "Functional": {"module": f"{MODULES[version]}.engine.functional", "registered_name": "Functional"},
    }
    module = modules.get(kind, {"module": "keras.layers", "registered_name": None})
    return {**({} if whole else module), "class_name": kind, "config": options}


def _model_config(options: dict[str, Any], version: str, whole: bool) -> dict[str, Any]:
    entries = options["layers"]
    layers = [keras2_config(layer, version, whole) for layer in entries]
    if "output_layers" not in options:
        return {"name": options["name"], "layers": layers}
    models = {layer["name"] for layer in entries if layer["class_name"] in ("Sequential", "Functional")}
    for old, new in zip(entries, layers, strict=True):
        new["name"] = old["name"]
        new["inbound_nodes"] = [_node(old, call, models) for call in old["inbound_nodes"]]
    name, call, output = options["output_layers"]
    counted = [layer["name"] for layer in entries if layer["class_name"] == "Functional"]  # by Keras 3 too
    call += (name in models) - (name in counted)
    ends = {"input_layers": [options["input_layers"]], "output_layers": [[name, call, output]]}
    return {**options, **ends, "layers": layers}


def _operation(entry: dict[str, Any], version: str, whole: bool) -> dict[str, Any]:
    name, function = entry["name"], FUNCTIONS.get(entry["class_name"], "__operators__.getitem")
    options = {"name": name, "trainable": True, "dtype": "float32", "function": function}
    kind = "TFOpLambda" if entry["class_name"] in FUNCTIONS else "SlicingOpLambda"
    module = {"module": f"{MODULES[version]}.layers.core.tf_op_layer", "registered_name": kind}
    return {**({} if whole else module), "class_name": kind, "config": options}


def _ref(tensor: dict[str, Any], models: set[str]) -> list[Any]:
    name, call, output = tensor["config"]["keras_history"]
    return [name, call + (name in models), output]  # a model in a model counts its calls from 1


def _node(entry: dict[str, Any], call: dict[str, Any], models: set[str]) -> list[Any]:
    """One call: [[name, call, output, options], ...]; of an operation: [name, call, output, options]."""
    first, *more = call["args"]
    if not str(entry["module"]).startswith("keras.src.ops"):
        tensors = first if isinstance(first, list) else [first]
        return [[*_ref(tensor, models), {}] for tensor in tensors]
    options = {key: value for key, value in entry["config"].items() if key != "name"}
    if entry["class_name"] == "Flip":
        options["axis"] = [options["axis"]]
    if entry["class_name"] == "GetItem":
        options["slice_spec"] = [part["config"] if isinstance(part, dict) else part for part in more[0]]
    elif more:
        options["y"] = _ref(more[0], models) if isinstance(more[0], dict) else more[0]
    if isinstance(first, dict):
        return [*_ref(first, models), options]
    return ["_CONSTANT_VALUE", -1, first, options]


def write_keras2(source: Path, target: Path, version: str) -> Path:
    """Write the .keras file ``source`` of Keras 3 as a .keras file of Keras 2."""
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version, "date_saved": ""}))
        archive.writestr("config.json", json.dumps(keras2_config(config, version, whole=False)))
        archive.writestr("model.weights.h5", _renamed_weights(weights, version == OLD))
    return target


def _renamed_weights(content: bytes, old: bool) -> bytes:
    """Without the names of the layers; old: in another container, which counts layers with weights twice."""
    memory = io.BytesIO()
    with h5py.File(io.BytesIO(content)) as source, h5py.File(memory, "w") as target:

        def copy(path: str, node: Any) -> None:
            if old:
                path = re.sub(r"(^|/)layers(/|$)", r"\1_layer_checkpoint_dependencies\2", path)
                path = re.sub(r"(dependencies/(?:dense|lstm|gru))_(\d+)", _doubled, path)
            if isinstance(node, h5py.Dataset):
                target[path] = node[()]
            else:
                target.require_group(path)

        source.visititems(copy)
    return memory.getvalue()


def _doubled(match: re.Match[str]) -> str:
    return f"{match[1]}_{2 * int(match[2])}"


def write_keras2_h5(source: Path, whole: Path, target: Path, version: str) -> Path:
    """Write a model of Keras 3 as an .h5 file of Keras 2.  source: its .keras file.  whole: its .h5 file."""
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read("config.json"))
    with h5py.File(whole) as old, h5py.File(target, "w") as new:
        weights = new.create_group("model_weights")
        for group in (new, weights):
            group.attrs["keras_version"], group.attrs["backend"] = version.encode(), b"tensorflow"
        new.attrs["model_config"] = json.dumps(keras2_config(config, version, whole=True)).encode()
        weights.attrs["layer_names"] = [name.encode() for name in old["model_weights"].attrs["layer_names"]]
        for name, group in old["model_weights"].items():
            layer, names = weights.create_group(name), []
            for path in group.attrs["weight_names"]:
                names.append("/".join(path.split("/")[-3:]) + ":0")
                layer[names[-1]] = group[path][()]
            layer.attrs["weight_names"] = [path.encode() for path in names]
    return target
