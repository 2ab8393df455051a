"""Which of a file's outputs is the network's, which are states, and whether states come out as they go in.

Reads the meaning of every tensor; writes the layers that the network's output needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_lstm.errors import UnsupportedModel
from edge_lstm.graph import INPUT
from edge_lstm.importers.onnx_file import OnnxFile
from edge_lstm.importers.onnx_flow import CELL, TIME, Flow, InnerRow, Network, Part
from edge_lstm.importers.onnx_node import Refused
from edge_lstm.importers.onnx_run import Meaning, Problem
from edge_lstm.layer_types import Conv1d, Gru, Lstm, Rnn


@dataclass
class Result:
    """output: the layer that writes the network's output.  made: what to tell about the other outputs."""

    output: int = INPUT
    made: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, words: str) -> None:
        self.problems.append(Problem(False, words))


def result_of(file: OnnxFile, net: Network, found: Mapping[str, Meaning]) -> Result:
    """Choose the network's output among the file's; then leave only the layers that it needs in the draft."""
    result = Result()
    flows: dict[str, Flow] = {}
    for info in file.outputs:
        value = found.get(info.name, Refused(f"output '{info.name}' is an input that nothing reads"))
        if isinstance(value, Flow):
            flows[info.name] = value
        elif isinstance(value, Refused) and value.reason:
            result.refuse(value.reason)
        elif not isinstance(value, Refused):
            result.refuse(f"output '{info.name}' is a constant; leave it out")
    if len(flows) < len({info.name for info in file.outputs}):
        return result
    states = [name for name, flow in flows.items() if _is_state(net, flow)]
    hidden = [name for name in states if not flows[name].parts[0].state and not flows[name].pad]
    main = next((name for name in [*flows, *hidden] if name not in states or name in hidden[:1]), None)
    if main is None:
        result.refuse("its outputs are states only; the network needs an output Y or Y_h")
        return result
    net.label = "output"
    try:
        result.output = net.one(net.aligned(flows[main]))
    except UnsupportedModel as error:
        result.refuse(f"output '{main}': {error}")
        return result
    if result.output == INPUT:
        result.refuse(f"output '{main}' is the input itself")
    _tell_others(net, result, {name: flow for name, flow in flows.items() if name != main}, states)
    _check_states(net, result, flows)
    if not result.problems:
        _settle(net, result)
    return result


def _is_state(net: Network, flow: Flow) -> bool:
    """Whether it is what layers keep at the end of a window, and nothing else."""
    return bool(_rows_of(net, flow)) or all(_last_of(net, part) for part in flow.parts)


def _rows_of(net: Network, flow: Flow) -> str:
    """The state input whose rows after the window these are, "" for others."""
    if flow.extra or (flow.pad, 0) not in net.fed:
        return ""
    layer = net.draft.layers[net.fed[flow.pad, 0][0]]
    if not isinstance(layer, Conv1d):
        return ""
    return flow.pad if net.size(flow, TIME) == (layer.size - 1) * layer.dilation else ""


def _last_of(net: Network, part: Part) -> str:
    """The state that a part is the last value of: "cell", "hidden", or "" for another value."""
    if part.state or part.layer == INPUT:
        return part.state if part.state == CELL else ""
    layer = net.draft.layers[part.layer]
    if not isinstance(layer, (Lstm, Gru, Rnn)):
        return ""
    return "hidden" if part.row == (None if net.rows == 1 else 0 if layer.backwards else net.rows - 1) else ""


def _ancestors(net: Network, output: int) -> set[int]:
    """The layers that ``output`` needs, itself among them."""
    needed, stack = {INPUT}, [output]
    while stack:
        index = stack.pop()
        if index not in needed:
            needed.add(index)
            stack += net.draft.sources[index]
    return needed


def _tell_others(net: Network, result: Result, others: Mapping[str, Flow], states: Sequence[str]) -> None:
    """Further outputs: states, and values inside of the network, are named; others are refused."""
    needed = _ancestors(net, result.output)
    inner = [
        name for name, flow in others.items()
        if name not in states and all(part.layer in needed and not part.state for part in flow.parts)
    ]  # fmt: skip
    for key, names in (("states", [name for name in others if name in states]), ("inner_outputs", inner)):
        if names:
            result.made[key] = names
    foreign = [f"'{name}'" for name in others if name not in states and name not in inner]
    if foreign:
        result.refuse(
            f"further outputs {', '.join(foreign)}; a network has one: export one model for each output"
        )


def _check_states(net: Network, result: Result, flows: Mapping[str, Flow]) -> None:
    """Every input that is a state needs an output that is the same state afterwards, entry by entry."""
    needed = _ancestors(net, result.output)
    inputs: dict[str, list[tuple[int, str]]] = {}
    for (name, _), entry in sorted(net.fed.items()):
        inputs.setdefault(name, []).append(entry)
    given = [[(part.layer, _last_of(net, part)) for part in flow.parts] for flow in flows.values()]
    rows = {_rows_of(net, flow) for flow in flows.values()}
    for name, expected in inputs.items():
        if name not in rows and expected not in given and expected[0][0] in needed:
            layer = net.draft.layers[expected[0][0]].name
            result.refuse(
                f"input '{name}' is the initial state of '{layer}', but no output is that state afterwards; "
                "leave the input out (it starts at 0), or make the last state an output"
            )


def _settle(net: Network, result: Result) -> None:
    """Leave the needed layers; refuse rows of the window that are neither its first nor its last."""
    draft, needed = net.draft, sorted(_ancestors(net, result.output) - {INPUT})
    places = {INPUT: INPUT} | {index: place for place, index in enumerate(needed)}
    draft.layers = [draft.layers[index] for index in needed]
    draft.sources = [tuple(places[source] for source in draft.sources[index]) for index in needed]
    result.output = places[result.output]
    rows = [layer.name for layer in draft.layers if isinstance(layer, InnerRow)]
    if rows:
        result.refuse(
            f"it reads single rows of the window ({', '.join(rows[:3])}), expected the first or the last; "
            "is a layer unrolled? PyTorch's newer exporter unrolls nn.RNN: export it with dynamo=False"
        )
