"""Goes through the nodes of an ONNX graph once: constants are computed, everything else becomes layers.

Reads an OnnxFile; writes the meaning of every tensor, and sentences about what cannot be carried.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.onnx_constants import FOLDS, Budget, fold
from edge_lstm.importers.onnx_file import OnnxFile
from edge_lstm.importers.onnx_flow import Flow, Network, WrongAxes
from edge_lstm.importers.onnx_node import Array, Node, Refused
from edge_lstm.importers.onnx_nodes import CONVERTERS, converted
from edge_lstm.importers.onnx_schema import SCHEMAS, check

Meaning = Flow | Array | Refused
# what Python and NumPy raise on senseless sizes and numbers
DAMAGE = (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError, MemoryError)

LOOP_HINT = (
    "networks in loops are not read; export a recurrent layer as one operator (tf2onnx writes Keras' GRU and "
    "SimpleRNN as loops: give the .keras file itself)"
)
INTEGER_HINT = "this is an integer model; give the float model, it is quantized here"
HINTS = {
    **dict.fromkeys(("Loop", "Scan"), LOOP_HINT),
    "If": "networks with branches are not read; export with fixed sizes",
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM",
         "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd",
         "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"), INTEGER_HINT,
    ),
    "LogSoftmax": "give Softmax; the logarithm can be taken where the output is used",
    "LayerNormalization": "train without it, or with batch normalization",
    "InstanceNormalization": "train without it, or with batch normalization",
    "MaxPool": "a device sees one row at a time; use the last row",
    "AveragePool": "a device sees one row at a time; use the last row",
    "ReverseSequence": "export the layer with direction 'reverse' or 'bidirectional'",
    "Einsum": "write it as bmm or matmul",
    **dict.fromkeys(("Selu", "Gelu", "Swish", "HardSwish", "Mish", "Celu", "Erf"), "use relu, elu or tanh"),
}  # fmt: skip
OTHER_HINT = "'edge-lstm layers' names what is carried"


class Problem(NamedTuple):
    """damaged: the file breaks ONNX's rules; otherwise it is sound, but not carried."""

    damaged: bool
    words: str
    axes: bool = False  # perhaps only because the input's axes mean something else


def operator_problems(file: OnnxFile) -> list[Problem]:
    """One sentence for each kind of operator that is not carried."""
    counts = Counter(
        (node.domain, node.op) for node in file.nodes
        if node.domain or not (node.op in CONVERTERS or node.op in FOLDS)
    )  # fmt: skip
    problems = []
    for (domain, op), count in counts.items():
        name = f"{domain}.{op}" if domain else op
        times = "" if count == 1 else f" ({count} times)"
        problems.append(
            Problem(False, f"operator {name}{times} is not supported; {HINTS.get(op, OTHER_HINT)}")
        )
    return problems


def label_of(node: Node) -> str:
    """A name for the layers of a node: the module that an exporter names, else the operator's.

    >>> label_of(Node("Gemm", "/head/fc/Gemm", "", (), (), {}))
    'fc'
    """
    path = [part for part in node.name.split("/") if part and part != "Tensordot"]
    name = path[-2] if len(path) > 1 else re.sub(r"^node_|[_:.]*\d*$", "", node.name) or node.op
    name = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:64]
    return (name if name != node.op else name.lower()) or "layer"


def meanings(
    file: OnnxFile, net: Network, known: Mapping[str, Meaning]
) -> tuple[dict[str, Meaning], list[Problem]]:
    """The meaning of every tensor.  known: those of inputs and constants."""
    found: dict[str, Meaning] = dict(known)
    problems: list[Problem] = []
    budget = Budget()
    for node in file.nodes:
        try:
            written = _written(net, node, found, budget)
        except UnsupportedModel as error:
            problems.append(Problem(False, f"{node}: {error}", isinstance(error, WrongAxes)))
            written = [Refused()]
        except ModelError as error:
            problems.append(Problem(True, f"{node}: {error}"))
            written = [Refused()]
        except DAMAGE as error:
            words = " ".join(str(error).split())[:100]
            problems.append(Problem(True, f"{node}: its attributes and inputs do not fit together ({words})"))
            written = [Refused()]
        problems += [
            Problem(False, value.reason) for value in written if isinstance(value, Refused) and value.reason
        ]
        rest = Refused() if any(isinstance(value, Refused) for value in written) else None
        for place, output in enumerate(node.outputs):
            if place < len(written) and not isinstance(written[place], Refused):
                found[output] = written[place]
            else:
                found[output] = rest or Refused(f"output {place} of {node} is used, which is not carried")
    return found, problems


def _written(net: Network, node: Node, found: Mapping[str, Meaning], budget: Budget) -> list[Meaning]:
    """What a node writes; a Refused without words where the reason is told elsewhere."""
    inputs = [found[name] if name else None for name in node.inputs]
    budget.read(inputs)
    refused = [value for value in inputs if isinstance(value, Refused)]
    if refused or node.domain:
        return [next((value for value in refused if value.reason), Refused())]
    if node.op in SCHEMAS:
        check(node)
    constant = not any(isinstance(value, Flow) for value in inputs)
    if (constant and node.op in FOLDS) or (node.op == "Split" and constant):
        return list(fold(node, [value for value in inputs if not isinstance(value, (Flow, Refused))], budget))
    if node.op not in CONVERTERS:
        if node.op in FOLDS:
            raise UnsupportedModel("it works on values of the network, expected constants only")
        return [Refused()]
    if constant:
        raise UnsupportedModel(
            "it reads constants only; let the exporter fold them (do_constant_folding), or simplify the file"
        )
    net.label = label_of(node)
    return list(converted(net, node, [value for value in inputs if not isinstance(value, Refused)]))
