"""Which layers of Keras are read, which options of each, and in words why not the others.

Reads LayerConfigs; writes sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_lstm.importers.keras_config import LayerConfig, ModelConfig, refs

# nothing at inference
TRAINING_ONLY = (
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
    "SpatialDropout1D",
)  # fmt: skip
POLICIES = ("float16", "float32", "float64", "mixed_float16", "mixed_bfloat16")  # NumPy reads their variables

CELL = ("units", "activation", "recurrent_activation", "use_bias", "reset_after")
ROWS = ("return_sequences", "return_state", "go_backwards", "stateful")
CONVOLUTION = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias")
# layer -> options that its converter reads
READ: dict[str, tuple[str, ...]] = {
    "LSTM": (*CELL, *ROWS), "GRU": (*CELL, *ROWS), "SimpleRNN": (*CELL, *ROWS),
    "LSTMCell": CELL, "GRUCell": CELL, "SimpleRNNCell": CELL, "StackedRNNCells": ("cells",),
    "RNN": ("cell", *ROWS), "Bidirectional": ("layer", "backward_layer", "merge_mode"),
    "ConvLSTM1D": (*CONVOLUTION, *ROWS, "recurrent_activation"), "Conv1D": (*CONVOLUTION, "groups"),
    "ZeroPadding1D": ("padding",), "Dense": ("units", "activation", "use_bias"),
    "TimeDistributed": ("layer",), "Activation": ("activation",), "LeakyReLU": ("negative_slope", "alpha"),
    "ELU": ("alpha",),
    "ReLU": ("max_value", "negative_slope", "threshold"), "ThresholdedReLU": ("theta",), "Softmax": ("axis",),
    "Normalization": ("axis", "mean", "variance", "invert"), "Rescaling": ("scale", "offset"),
    "BatchNormalization": ("axis", "epsilon", "center", "scale"), "RepeatVector": ("n",), "Flatten": (),
    "Reshape": ("target_shape",), "Permute": ("dims",), "Add": (), "Average": (), "Multiply": (),
    "Subtract": (), "Concatenate": ("axis",), "Dot": ("axes", "normalize"),
    "GlobalAveragePooling1D": ("keepdims",),
    "Attention": ("use_scale", "score_mode"), "AdditiveAttention": ("use_scale",), "InputLayer": (),
}  # fmt: skip
# what no converter reads and what changes nothing at inference, or nothing at all
WITHOUT_EFFECT = frozenset(
    {
        "batch_input_shape", "batch_shape", "dropout", "dtype", "fused", "implementation", "momentum", "name",
        "noise_shape", "recurrent_dropout", "renorm_momentum", "seed", "synchronized", "trainable",
        "unit_forget_bias", "unroll", "use_cudnn", "zero_output_for_mask",
    }
)  # fmt: skip
SUFFIXES = ("_initializer", "_regularizer", "_constraint")
EXPECTED = {"data_format": "channels_last", "time_major": False}  # options with one value that is carried
ARGUMENTS = {  # of a call, besides the input
    "Attention": ("return_attention_scores", "use_causal_mask"),
    "AdditiveAttention": ("return_attention_scores", "use_causal_mask"),
}

MASK_HINT = (
    "leave the missing rows out, and save the model without it: 'edge-lstm train' gives missing values and "
    "gaps no weight"
)
SCALING_HINT = "scale the data before training, or use Normalization or BatchNormalization"
POOL_HINT = "use a causal Conv1D, a GlobalAveragePooling1D or the last row of a recurrent layer"
IMAGE_HINT = "a window of a sensor is (timesteps, features): use Conv1D or ConvLSTM1D"
HINTS = {
    "Masking": MASK_HINT,
    "Embedding": "the input is a sensor stream: give numbers, not words",
    "Lambda": "code of a file is never run: write the step with Keras' own layers or keras.ops",
    "MultiHeadAttention": "use Attention or AdditiveAttention with one query for each window",
    "GroupQueryAttention": "use Attention or AdditiveAttention with one query for each window",
    "LayerNormalization": SCALING_HINT, "UnitNormalization": SCALING_HINT, "GroupNormalization": SCALING_HINT,
    "MaxPooling1D": POOL_HINT, "AveragePooling1D": POOL_HINT, "GlobalMaxPooling1D": POOL_HINT,
    "Cropping1D": POOL_HINT, "UpSampling1D": POOL_HINT,
    "Conv2D": IMAGE_HINT, "ConvLSTM2D": IMAGE_HINT, "ConvLSTM3D": IMAGE_HINT, "Conv3D": IMAGE_HINT,
    "SeparableConv1D": "use Conv1D", "DepthwiseConv1D": "use Conv1D with groups",
    "PReLU": "use LeakyReLU", "CuDNNLSTM": "build the model with LSTM and load the weights into it",
    "CuDNNGRU": "build the model with GRU(reset_after=True) and load the weights into it",
    "Minimum": "use Add, Average or Multiply", "Maximum": "use Add, Average or Multiply",
}  # fmt: skip
OPTION_HINTS = {
    "data_format": "put the channels last",
    "time_major": "put the batch first",
    "lora_rank": "merge the low-rank weights before saving",
    "quantization_config": "quantize the float model with this toolkit",
    "renorm": "train with the plain batch normalization",
    "sparse": "give dense rows",
    "ragged": "give windows of one length",
    "optional": "give the input always",
}
CALL_HINTS = {
    "mask": MASK_HINT,
    "initial_state": "let it start from zero: a device keeps the state by itself",
    "training": "call it without training=True",
}


def model_problems(model: ModelConfig) -> list[str]:
    """Every reason why a model cannot be carried that its layers and calls show by themselves."""
    problems = []
    if len(model.inputs) != 1:
        names = ", ".join(model.inputs)
        problems.append(f"it has {len(model.inputs)} inputs ({names}), expected 1: join the channels")
    if len(model.outputs) != 1:
        names = ", ".join(ref.layer for ref in model.outputs)
        problems.append(f"it has {len(model.outputs)} outputs ({names}), expected 1; train one model each")
    for layer in model.every_layer():
        problems += layer_problems(layer)
    models = [model, *(layer.model for layer in model.every_layer() if layer.model)]
    for one in models:
        for name, calls in one.calls.items():
            layer = one.layers[name]
            if not layer.operation and not layer.custom:
                problems += [
                    problem for call in calls for problem in call_problems(layer, call.args, call.kwargs)
                ]
    return list(dict.fromkeys(problems))


def layer_problems(layer: LayerConfig) -> list[str]:
    """Every reason that the configuration of one layer shows by itself."""
    where, kind = layer.where, layer.kind
    if layer.custom:
        return [f"{where} is a class of its author: {HINTS['Lambda']}"]
    if layer.operation:
        return []
    problems = _policy_problems(where, layer.options.get("dtype"))
    if kind in TRAINING_ONLY or layer.model:
        return problems
    if kind not in READ:
        hint = HINTS.get(kind, "see 'edge-lstm layers' for those that are, and build the model of these")
        return [f"{where} is not implemented; {hint}", *problems]
    for name, value in layer.options.items():
        if name in READ[kind] or name in WITHOUT_EFFECT or name.endswith(SUFFIXES):
            continue
        expected = EXPECTED.get(name)
        if value is None or value == expected or (value is False and expected is None):
            continue
        hint = OPTION_HINTS.get(name, "this version does not know that option")
        problems.append(f"{where} has {name}={_short(value)}, expected {expected}; {hint}")
    return problems


def call_problems(layer: LayerConfig, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """A layer is called with its input, and what else its converter reads."""
    extra = {f"argument {number}": value for number, value in enumerate(args[1:], start=2)}
    known = ARGUMENTS.get(layer.kind, ())
    return [
        f"{layer.where} is called with {name}={_short(value)}, which is not implemented; "
        + CALL_HINTS.get(name, "call it with its input only")
        for name, value in {**extra, **kwargs}.items()
        if name not in known and not _empty(value)
    ]


def _empty(value: Any) -> bool:
    """None, False, or a list of them."""
    return value is None or value is False or (isinstance(value, list) and all(map(_empty, value)))


def _short(value: Any) -> str:
    found = list(refs(value))
    return f"the output of '{found[0].layer}'" if found else f"{value!r}"[:60]


def _policy_problems(where: str, policy: Any) -> list[str]:
    if isinstance(policy, Mapping):
        policy = policy["config"].get("name") or policy["class_name"]
    if policy in POLICIES or policy is None:
        return []
    return [f"{where} has dtype {policy}, expected float32; quantize the float model with this toolkit"]
