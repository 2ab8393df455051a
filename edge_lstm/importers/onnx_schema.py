"""How many inputs and which attributes each operator has; a file that gives others is not understood.

The union of ONNX's versions 7 to 28, so that nothing that a file asks for is passed over.
"""

from __future__ import annotations

from edge_lstm.errors import ModelError
from edge_lstm.importers.onnx_node import Node

ANY = 0  # number of inputs
_CONSTANT = "sparse_value value value_float value_floats value_int value_ints value_string value_strings"
_RECURRENT = "activation_alpha activation_beta activations clip direction hidden_size layout"
# (inputs at most, attributes) -> operators
_SCHEMAS = {
    (1, ""): (
        "Abs Ceil Exp Floor GlobalAveragePool Identity Neg Not Reciprocal Relu Sigmoid Size Softplus "
        "Softsign Sqrt Tanh"
    ),
    (
        2,
        "",
    ): "Add And Div Equal Expand Greater GreaterOrEqual Less LessOrEqual MatMul Mul Or PRelu Pow Sub Tile",
    (5, "epsilon momentum spatial training_mode"): "BatchNormalization",
    (1, "round_mode saturate to"): "Cast",
    (3, "max min"): "Clip",
    (ANY, "axis"): "Concat",
    (
        ANY,
        "sparse_value value value_float value_floats value_int value_ints value_string value_strings",
    ): "Constant",
    (1, "value"): "ConstantOfShape",
    (3, "auto_pad dilations group kernel_shape pads strides"): "Conv",
    (3, "ratio seed"): "Dropout",
    (1, "alpha"): "Elu LeakyRelu ThresholdedRelu",
    (1, "axis"): "Flatten Softmax",
    (6, f"{_RECURRENT} linear_before_reset"): "GRU",
    (2, "axis"): "Gather",
    (3, "alpha beta transA transB"): "Gemm",
    (1, "alpha beta"): "HardSigmoid",
    (8, f"{_RECURRENT} input_forget"): "LSTM",
    (ANY, ""): "Max Mean Min Sum",
    (2, "fmod"): "Mod",
    (4, "mode pads value"): "Pad",
    (6, _RECURRENT): "RNN",
    (3, "stash_type"): "Range",
    (2, "axes keepdims noop_with_empty_axes"): "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum",
    (2, "allowzero"): "Reshape",
    (1, "end start"): "Shape",
    (5, "axes ends starts"): "Slice",
    (2, "axis num_outputs split"): "Split",
    (2, "axes"): "Squeeze Unsqueeze",
    (1, "perm"): "Transpose",
    (3, ""): "Where",
}
SCHEMAS = {
    op: (inputs, set(names.split())) for (inputs, names), ops in _SCHEMAS.items() for op in ops.split()
}


def check(node: Node) -> None:
    """Raise ModelError where ``node`` has more inputs or other attributes than its operator."""
    inputs, known = SCHEMAS[node.op]
    odd = sorted(set(node.attributes) - known)
    if odd:
        raise ModelError(f"it has no attribute {', '.join(odd)}; export the model again")
    if inputs != ANY and len(node.inputs) > inputs:
        raise ModelError(f"{len(node.inputs)} inputs, expected at most {inputs}")
