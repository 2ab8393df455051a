"""Which PyTorch modules the tensors of a state dict belong to, by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge_lstm.arrays import FloatArray
from edge_lstm.importers.safetensors_file import SHOWN, listed

PARAMETER = re.compile(r"(?:weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l([0-9]{1,3})(?:_reverse)?")
KINDS = {4: "LSTM", 3: "GRU", 1: "RNN"}  # by the gates in the rows of a weight

Tensors = Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class Linear:
    """nn.Linear.  tensors: weight (outputs, features) and perhaps bias (outputs,)."""

    name: str
    tensors: Tensors

    @property
    def features(self) -> int:
        return int(self.tensors["weight"].shape[1])

    @property
    def outputs(self) -> int:
        return int(self.tensors["weight"].shape[0])


@dataclass(frozen=True, eq=False)
class Recurrent:
    """nn.LSTM, nn.GRU or nn.RNN.  tensors: by PyTorch's parameter names, such as weight_ih_l0_reverse."""

    name: str
    tensors: Tensors
    kind: str
    layers: int
    bidirectional: bool

    @property
    def features(self) -> int:
        return int(self.tensors["weight_ih_l0"].shape[1])

    @property
    def outputs(self) -> int:
        return int(self.tensors["weight_hh_l0"].shape[1]) * (1 + self.bidirectional)


Module = Recurrent | Linear


def modules_of(tensors: Tensors) -> tuple[list[Module], list[str], list[str]]:
    """The modules, recurrent ones first; what is damaged; and what is sound but not carried.

    A module without a prefix is called lstm, gru, rnn or linear.
    """
    recurrent: dict[str, dict[str, FloatArray]] = {}
    linear: dict[str, dict[str, FloatArray]] = {}
    damaged: list[str] = []
    foreign: list[str] = []
    for name, array in tensors.items():
        prefix, _, parameter = name.rpartition(".")
        if PARAMETER.fullmatch(parameter):
            recurrent.setdefault(prefix, {})[parameter] = array
        elif parameter in ("weight", "bias"):
            linear.setdefault(prefix, {})[parameter] = array
        else:
            foreign.append(name)
    found: list[Module | None] = [_recurrent(prefix, own, damaged) for prefix, own in recurrent.items()]
    found += [_linear(prefix, own, damaged, foreign) for prefix, own in linear.items()]
    modules = [module for module in found if module is not None]
    names = [module.name for module in modules]
    damaged += [
        f"{names.count(name)} modules are called '{name}'" for name in names if names.count(name) > 1
    ][:1]
    reasons = [
        f"{listed(foreign)} of no nn.LSTM, nn.GRU, nn.RNN or nn.Linear, which is all that weights alone can "
        "tell; export the model as ONNX, or save these modules alone"
    ]
    return modules, damaged, reasons if foreign else []


def _linear(prefix: str, tensors: Tensors, damaged: list[str], foreign: list[str]) -> Linear | None:
    """Appends to ``foreign`` the tensors of convolutions and normalizations, whose names are the same."""
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or weight.ndim != 2 or (bias is not None and bias.ndim != 1):
        foreign += [f"{prefix}.{parameter}".lstrip(".") for parameter in tensors]
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        damaged.append(
            f"nn.Linear '{prefix}': bias is {bias.shape}, expected {weight.shape[:1]}, the rows of weight"
        )
        return None
    return Linear(prefix or "linear", tensors)


def _recurrent(prefix: str, tensors: Tensors, damaged: list[str]) -> Recurrent | None:
    kernel, recurrent = tensors.get("weight_ih_l0"), tensors.get("weight_hh_l0")
    projection = tensors.get("weight_hr_l0")
    if (
        kernel is None
        or recurrent is None
        or any(array.ndim != 2 for array in (kernel, recurrent, projection) if array is not None)
    ):
        damaged.append(f"module '{prefix}': weight_ih_l0 and weight_hh_l0 are not both there as matrices")
        return None
    units = int((recurrent if projection is None else projection).shape[1])
    gates, rest = divmod(kernel.shape[0], units)
    if rest or gates not in KINDS or (projection is not None and gates != 4):
        damaged.append(
            f"module '{prefix}': weight_ih_l0 has {kernel.shape[0]} rows, expected 4 (LSTM), 3 (GRU) or 1 "
            f"(RNN) times its {units} units"
        )
        return None
    numbers = [int(match[1]) for match in map(PARAMETER.fullmatch, tensors) if match]
    kind, layers = KINDS[gates], max(numbers) + 1
    bidirectional = any(name.endswith("_reverse") for name in tensors)
    problems = _shape_problems(tensors, units, layers, bidirectional)
    damaged += [f"nn.{kind} '{prefix}': {problem}" for problem in problems]
    return None if problems else Recurrent(prefix or kind.lower(), tensors, kind, layers, bidirectional)


def _shape_problems(tensors: Tensors, units: int, layers: int, bidirectional: bool) -> list[str]:
    """What differs from the parameters that a module has whose first ones are sound."""
    rows, features = tensors["weight_ih_l0"].shape
    outputs = tensors["weight_hh_l0"].shape[1]
    biased = any(name.startswith("bias") for name in tensors)
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(layers):
        read = features if layer == 0 else outputs * (1 + bidirectional)
        for suffix in (f"l{layer}", f"l{layer}_reverse")[: 1 + bidirectional]:
            expected |= {f"weight_ih_{suffix}": (rows, read), f"weight_hh_{suffix}": (rows, outputs)}
            if "weight_hr_l0" in tensors:
                expected[f"weight_hr_{suffix}"] = (outputs, units)
            if biased:
                expected |= {f"bias_ih_{suffix}": (rows,), f"bias_hh_{suffix}": (rows,)}
    problems = []
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    if missing:
        problems.append(f"{listed(missing)} missing, expected for {layers} layers")
    if extra:
        problems.append(f"{listed(extra)} not expected beside weight_ih_l0")
    wrong = [
        f"{name} is {tensors[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    return [*problems, *wrong[:SHOWN]]
