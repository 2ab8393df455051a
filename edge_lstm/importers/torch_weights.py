"""PyTorch weights alone (.safetensors of a state dict) -> Graph; neither torch nor safetensors is needed.

Reads the parameters of nn.LSTM, nn.GRU, nn.RNN and nn.Linear under any prefix; refuses all others by name.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import Graph
from edge_lstm.importers.draft import Draft
from edge_lstm.importers.safetensors_file import read_tensors, shown
from edge_lstm.importers.torch_modules import Linear, Module, Recurrent, modules_of
from edge_lstm.layer_types import (
    Activation,
    Dense,
    Function,
    Gru,
    Layer,
    Lstm,
    Merge,
    Repeat,
    Rnn,
    Row,
    Softmax,
)
from edge_lstm.naming import identifier

# words between modules; the functions with PyTorch's default parameters
FUNCTIONS = ("relu", "tanh", "sigmoid", "leaky_relu", "elu", "softplus", "softsign")
WORDS = (*FUNCTIONS, "softmax", "last", "repeat")
NONLINEARITIES = ("tanh", "relu")
MAX_STEPS = 1000
MAX_TRIED = 6  # modules of which all orders are tried

Step = Module | str


@dataclass(eq=False)
class Plan:
    """How the file's modules follow one another, as far as weights and metadata tell."""

    steps: Sequence[Step] = ()
    window: int = 0
    nonlinearity: str = "tanh"
    assumed: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)


def read_safetensors(path: Path) -> Graph:
    """Read the weights of one nn.LSTM, nn.GRU or nn.RNN, perhaps with one nn.Linear behind it for every row.

    Weights do not show how a model's code uses them.  What the code does beyond this stands in the file's
    metadata, ``save_file(model.state_dict(), path, metadata={...})``, as texts:

    modules: the modules in the order of use, and between them ``relu``, ``tanh``, ``sigmoid``,
    ``leaky_relu``, ``elu``, ``softplus``, ``softsign``, ``softmax``, ``last`` (``x[:, -1]``) and ``repeat``
    (a vector as every row): ``"encoder, last, repeat, decoder, head"``.
    window: rows of a window, which bidirectional layers and ``repeat`` need.
    nonlinearity: ``tanh`` or ``relu`` of nn.RNN; relu cannot be seen from weights.

    Without ``modules`` nothing stands between the two modules, without ``nonlinearity`` it is tanh, PyTorch's
    default; ``made["assumed"]`` says so.  Bidirectional layers give every row, forward and backward side by
    side.
    Raises ModelError where the file or its metadata are damaged, UnsupportedModel with every reason for
    weights of other modules, and for several modules without ``modules``.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    modules, damaged, foreign = modules_of(tensors)
    plan = Plan(damaged=damaged, unclear=foreign)
    if not damaged:
        _read_steps(plan, modules, metadata)
        _read_nonlinearity(plan, modules, metadata)
        _read_window(plan, modules, metadata)
    kind = ModelError if plan.damaged else UnsupportedModel
    raise_all(kind, str(path), [*plan.damaged, *plan.unclear])
    draft = Draft()
    for step in plan.steps:
        _add(draft, step, Function(plan.nonlinearity))
    names = [step if isinstance(step, str) else step.name for step in plan.steps]
    made: dict[str, Any] = {"importer": "torch_weights", "modules": ", ".join(names)}
    if plan.assumed:
        made["assumed"] = plan.assumed
    first = next(step for step in plan.steps if not isinstance(step, str))
    return draft.graph(identifier(path.stem), None, first.features, plan.window, made)


def _read_steps(plan: Plan, modules: Sequence[Module], metadata: dict[str, str]) -> None:
    if "modules" in metadata:
        _read_named_steps(plan, modules, metadata["modules"])
        return
    kinds = [type(module) for module in modules]
    if Recurrent not in kinds:
        plan.unclear.append("it holds no weights of nn.LSTM, nn.GRU or nn.RNN")
    elif kinds not in ([Recurrent], [Recurrent, Linear]) or not _fits(modules):
        names = ", ".join(module.name for module in _by_sizes(modules))
        plan.unclear.append(
            f"weights do not show how {len(modules)} modules follow one another, nor what stands between; "
            f'save them with metadata={{"modules": "{names}"}} in the order of use, with '
            f"{', '.join(WORDS)} where the code has them"
        )
    else:
        plan.steps = modules
        plan.assumed.append(
            "no activation stands between or behind the modules (metadata 'modules' names it)"
        )


def _fits(modules: Sequence[Module]) -> bool:
    """Whether each takes what the one before it writes."""
    return all(one.outputs == after.features for one, after in itertools.pairwise(modules))


def _by_sizes(modules: Sequence[Module]) -> Sequence[Module]:
    """An order that fits, recurrent modules as early as that allows; the given one where there is none."""
    orders = itertools.permutations(modules) if len(modules) <= MAX_TRIED else iter(())
    fitting = (order for order in orders if _fits(order))
    return min(fitting, key=lambda order: [isinstance(module, Linear) for module in order], default=modules)


def _read_named_steps(plan: Plan, modules: Sequence[Module], text: str) -> None:
    named = {module.name: module for module in modules}
    names = [name.strip() for name in text.split(",")]
    plan.steps = [named.get(name, name) for name in names[:MAX_STEPS]]
    unknown = [step for step in plan.steps if isinstance(step, str) and step not in WORDS]
    if unknown or len(names) > MAX_STEPS:
        plan.damaged.append(
            f"metadata 'modules' names {unknown[0][:40] if unknown else len(names)!r}, expected "
            f"{shown(list(named))} or at most {MAX_STEPS} of {', '.join(WORDS)}"
        )
    wrong = [name for name in named if names.count(name) != 1]
    if wrong:
        plan.damaged.append(f"metadata 'modules' must name each of {shown(wrong)} once")


def _read_nonlinearity(plan: Plan, modules: Sequence[Module], metadata: dict[str, str]) -> None:
    plain = [module for module in modules if isinstance(module, Recurrent) and module.kind == "RNN"]
    found = metadata.get("nonlinearity")
    if found is None:
        plan.assumed += [
            f"nn.RNN '{module.name}' has tanh: weights do not show relu (metadata 'nonlinearity' names it)"
            for module in plain
        ]
    elif found not in NONLINEARITIES or not plain:
        plan.damaged.append(
            f"metadata 'nonlinearity' is {found[:40]!r}, expected tanh or relu, beside weights of nn.RNN"
        )
    else:
        plan.nonlinearity = found


def _read_window(plan: Plan, modules: Sequence[Module], metadata: dict[str, str]) -> None:
    found = metadata.get("window", "0")
    if not re.fullmatch(r"[0-9]{1,5}", found):
        plan.damaged.append(f"metadata 'window' is {found[:40]!r}, expected the rows of a window, 1 .. 99999")
        return
    plan.window = int(found)
    readers = [
        f"nn.{module.kind} '{module.name}' is bidirectional"
        for module in modules
        if isinstance(module, Recurrent) and module.bidirectional
    ]
    readers += ["'repeat' fills a window" for step in plan.steps if step == "repeat"]
    if readers and not plan.window:
        plan.unclear.append(
            f"{readers[0]}, so its window must be known, which weights do not show; save them with "
            'metadata={"window": "64"}, or as many rows as it has'
        )


def _add(draft: Draft, step: Step, nonlinearity: Function) -> None:
    """Append what ``step`` is; it reads the last layer of ``draft``."""
    if isinstance(step, Recurrent):
        _add_recurrent(draft, step, nonlinearity)
    elif isinstance(step, Linear):
        bias = step.tensors.get("bias", np.zeros(step.outputs, np.float32))
        draft.add(Dense(identifier(step.name), step.tensors["weight"].T, bias))
    elif step in FUNCTIONS:
        draft.add(Activation(step, Function(step)))
    else:
        others: dict[str, Layer] = {"softmax": Softmax(step), "last": Row(step), "repeat": Repeat(step)}
        draft.add(others[step])


def _add_recurrent(draft: Draft, module: Recurrent, nonlinearity: Function) -> None:
    for number in range(module.layers):
        name = identifier(module.name) + (f"_l{number}" if module.layers > 1 else "")
        source = len(draft.layers) - 1
        forward = draft.add(_cell(module, f"l{number}", name, False, nonlinearity), source)
        if module.bidirectional:
            backward = _cell(module, f"l{number}_reverse", f"{name}_reverse", True, nonlinearity)
            draft.add(Merge(f"{name}_concat", "concat"), forward, draft.add(backward, source))


def _cell(module: Recurrent, suffix: str, name: str, backwards: bool, nonlinearity: Function) -> Layer:
    """One direction of one layer.  suffix: of its parameters, such as l0_reverse."""
    tensors = module.tensors
    kernel, recurrent = tensors[f"weight_ih_{suffix}"].T, tensors[f"weight_hh_{suffix}"].T
    none = np.zeros(kernel.shape[1], np.float32)
    bias, recurrent_bias = tensors.get(f"bias_ih_{suffix}", none), tensors.get(f"bias_hh_{suffix}", none)
    if module.kind == "GRU":
        kernel, recurrent, bias, recurrent_bias = (
            gru_gates(array) for array in (kernel, recurrent, bias, recurrent_bias)
        )
        return Gru(name, kernel, recurrent, bias, recurrent_bias, backwards=backwards)
    with np.errstate(over="ignore"):  # infinity is refused by the layer
        bias = bias + recurrent_bias
    if module.kind == "RNN":
        return Rnn(name, kernel, recurrent, bias, nonlinearity, backwards=backwards)
    projection = tensors.get(f"weight_hr_{suffix}")
    # PyTorch's gates are i, f, g, o, as ours
    return Lstm(
        name, kernel, recurrent, bias, backwards=backwards,
        projection=None if projection is None else projection.T,
    )  # fmt: skip


def gru_gates(columns: FloatArray) -> FloatArray:
    """PyTorch's (..., 3 * units) of the gates r, z, n as our z, r, h.

    ``n = tanh(W x + b + r * (U h + c))`` and ``h' = (1 - z) * n + z * h``: our layer with ``reset_after``.
    """
    r, z, n = np.split(columns, 3, axis=-1)
    return np.concatenate([z, r, n], axis=-1)
