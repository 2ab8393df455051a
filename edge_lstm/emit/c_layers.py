"""One operator -> its C: constants, members of the state, resets and calls; one small function a kind.

To add a kind: a function here, its entry in ``EMITTERS``, and what it calls in a file of the runtime
(a new file: its name in ``c_code.MORE``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_lstm.emit.c_lstm_variants import lstm_16, lstm_variant
from edge_lstm.emit.c_native import native_lstm
from edge_lstm.emit.c_softmax import softmax_constant
from edge_lstm.emit.c_step import Call, Code, Field, Step, cell_field, hidden_rows
from edge_lstm.emit.c_tables import (
    Constant,
    dense_constant,
    lstm_constant,
    requantizer_text,
)
from edge_lstm.emit.c_tasks import Copy, Place
from edge_lstm.emit.c_wide import wide_dense
from edge_lstm.fixedpoint import quantize_multiplier
from edge_lstm.program import (
    DenseProgram,
    LstmProgram,
    NativeLstmProgram,
    Program,
    RecodeProgram,
    ScanProgram,
    SoftmaxProgram,
    StateProgram,
)
from edge_lstm.qgraph import (
    QAdd,
    QConcat,
    QDelay,
    QLookup,
    QMul,
    QRelu,
    QRow,
    QSumRows,
)


def _copy(target: Place, source: Place, t: str | int, note: str = "") -> Call:
    size = source.width * source.bits // 8
    return Call("memcpy", (target.at(t), source.at(t), str(size)), note)


def _lstm(step: Step) -> Code:
    if step.layer.bits == 16:
        return lstm_16(step)
    if step.layer.variant is not None:
        return lstm_variant(step)
    fields, before, start = hidden_rows(step)
    constant, program = lstm_constant(step.layer, step.symbol), step.layer
    layer, cell = f"&{constant.symbol}", f"state->{step.symbol}_cell"
    resets = [Call("elstm_lstm_reset", (layer, start, cell))]
    if program.inner_zero_point != program.hidden_zero_point:  # a step writes others than it begins with
        resets.append(Call("memset", (start, str(program.hidden_zero_point), str(program.units))))
    function = f"elstm_lstm_step_{'tflm' if step.plan.profile == 'tflm' else 'litert'}"
    return Code(
        [constant],
        [cell_field(step), *fields],
        resets,
        [Call(function, (layer, step.x, before, step.y, cell))],
    )


def _dense(step: Step) -> Code:
    layer, profile = step.layer, step.plan.profile
    if layer.bits == 16:
        return wide_dense(step)
    constant = dense_constant(layer, step.symbol, profile)
    function = f"elstm_dense_{'tflm' if profile == 'native' else profile}"
    calls = [Call(function, (f"&{constant.symbol}", step.x, step.y))]
    if layer.minimum > -128:
        calls.append(Call("elstm_relu_8", (step.y, step.y, str(layer.outputs), str(layer.minimum))))
    return Code([constant], calls=calls)


def _recode(step: Step) -> Code:
    layer = step.layer
    members: dict[str, str | int] = {
        "scale": requantizer_text(layer.requantizer),
        "input_zero_point": layer.input_zero_point,
        "output_zero_point": layer.output_zero_point,
    }
    function = f"elstm_recode_{layer.input_bits}_to_{layer.bits}"
    return _by_row(step, function, Constant([], "elstm_recode_t", f"{step.symbol}_layer", members))


def _by_row(step: Step, function: str, constant: Constant) -> Code:
    """A call with the constants, the rows that are read, the row that is written and its width."""
    rows = (place.at(step.t) for place in step.reads)
    arguments = (f"&{constant.symbol}", *rows, step.y, str(step.writes.width))
    return Code([constant], calls=[Call(function, arguments)])


def _steps(step: Step) -> dict[str, str | int]:
    """Whether each of two operands moves along the features, or repeats its only one."""
    left, right = (int(place.width == step.writes.width) for place in step.reads)
    return {"left_step": left, "right_step": right}


def _powers(layer: QAdd | QMul) -> tuple[int, int, int]:
    left, right, output = (int(q.power or 0) for q in (layer.left, layer.right, layer.output))
    return left, right, output


def _add(step: Step) -> Code:
    left, right, output = _powers(step.layer)
    lowest = min(left, right, output)
    sign = -1 if step.layer.subtract else 1
    members: dict[str, str | int] = {
        "left": 1 << (left - lowest),
        "right": sign << (right - lowest),
        "shift": output - lowest,
    }
    constant = Constant([], "elstm_add_t", f"{step.symbol}_layer", members | _steps(step))
    return _by_row(step, "elstm_add", constant)


def _multiply(step: Step) -> Code:
    left, right, output = _powers(step.layer)
    members: dict[str, str | int] = {"shift": output - left - right}
    constant = Constant([], "elstm_mul_t", f"{step.symbol}_layer", members | _steps(step))
    return _by_row(step, "elstm_multiply", constant)


def _lookup(step: Step) -> Code:
    arguments = (step.x, step.y, str(step.writes.width))
    return Code(calls=[Call(f"elstm_{step.layer.function}", arguments, step.name)])


def _relu(step: Step) -> Code:
    layer, width = step.layer, str(step.writes.width)
    function, value = f"elstm_relu_{layer.input.bits}", str(layer.input.zero_point)
    if layer.slope:
        multiplier, shift = quantize_multiplier(layer.slope / 32768)
        function, value = "elstm_leaky_relu", f"(elstm_requantizer_t){{{multiplier}, {shift}, 0}}"
    return Code(calls=[Call(function, (step.x, step.y, width, value), step.name)])


def _softmax(step: Step) -> Code:
    x, y = step.reads[0], step.writes
    many = step.plan.values[step.task.reads[0]].sequence and not step.task.nested
    window = step.plan.window if many and step.plan.window else 1
    function, constant = softmax_constant(step.layer, step.symbol, x, y, window)
    return Code([constant], calls=[Call(function, (f"&{constant.symbol}", step.x, step.y))])


def _concat(step: Step) -> Code:
    calls, target = [], step.writes
    for source in step.reads:
        calls.append(_copy(target, source, step.t, step.name))
        target = target.moved(source.width)
    return Code(calls=calls)


def _sum_rows(step: Step) -> Code:
    source = step.reads[0]
    many = step.plan.values[step.task.reads[0]].sequence and not step.task.nested
    rows = step.plan.window if many and step.plan.window else 1
    first = source.at(step.t if step.task.nested else 0)
    arguments = (first, str(source.stride), str(rows), step.y, str(source.width))
    return Code(calls=[Call("elstm_sum_rows", arguments, step.name)])


def _delay(step: Step) -> Code:
    layer, symbol, source = step.layer, step.symbol, step.reads[0]
    rows = (layer.size - 1) * layer.dilation
    size = source.width * source.bits // 8
    past, oldest = f"state->{symbol}_past", f"state->{symbol}_oldest"
    members: dict[str, str | int] = {"bytes": size, "rows": rows, "dilation": layer.dilation}
    codes = f"{step.name}: the last {rows} rows, a ring"
    return Code(
        [Constant([], "elstm_delay_t", f"{symbol}_layer", members)],
        [
            Field(2, f"uint16_t {symbol}_oldest", f"{step.name}: the ring's oldest row"),
            Field(source.bits // 8, f"int{source.bits}_t {symbol}_past[{rows * source.width}]", codes),
        ],
        [Call("elstm_delay_reset", (f"&{symbol}_layer", past, f"&{oldest}"))],
        [Call("elstm_delay", (f"&{symbol}_layer", step.x, step.y, past, f"&{oldest}"))],
    )


def _state(step: Step) -> Code:
    layer, member = step.layer, step.writes.base
    declaration = f"int{layer.bits}_t {step.symbol}_last[{layer.width}]"
    if layer.bits == 8:
        reset = Call("memset", (member, str(layer.initial), str(layer.width)))
    else:
        reset = Call("elstm_fill_16", (member, str(layer.width), str(layer.initial)))
    return Code(fields=[Field(layer.bits // 8, declaration, f"{step.name}: codes of the last step")],
                resets=[reset])  # fmt: skip


def _copied(step: Step) -> Code:
    return Code(calls=[_copy(step.writes, step.reads[0], step.t)])


EMITTERS: dict[type, Callable[[Step], Code]] = {
    LstmProgram: _lstm,
    NativeLstmProgram: native_lstm,
    DenseProgram: _dense,
    RecodeProgram: _recode,
    QAdd: _add,
    QMul: _multiply,
    QLookup: _lookup,
    QRelu: _relu,
    SoftmaxProgram: _softmax,
    QConcat: _concat,
    QSumRows: _sum_rows,
    QDelay: _delay,
    StateProgram: _state,
    Copy: _copied,
}

LARGEST = 65535  # of a uint16_t


def refusals(program: Program) -> list[str]:
    """Every reason why the C cannot compute ``program``."""
    problems = []
    for layer, reads in zip(program.layers, program.sources, strict=True):
        rows = not reads or reads[0] < 0 or program.values[reads[0]].sequence
        problems += _refused(layer, program, program.window if rows and program.window else 1)
        for inner in layer.body if isinstance(layer, ScanProgram) else ():
            problems += _refused(inner, program, 1)
            if isinstance(inner, (LstmProgram, NativeLstmProgram, QDelay, ScanProgram)):
                problems.append(f"'{inner.name}' keeps a state of its own within scan '{layer.name}'")
    widest = max(program.window, program.features, *(value.width for value in program.values))
    if widest > LARGEST:
        problems.append(f"it has {widest} features or rows of a window, at most {LARGEST} fit")
    if program.detector is not None and program.window:
        problems.append("its detector scores row by row, but the network takes a window at a time")
    return problems


def _refused(layer: Any, program: Program, height: int) -> list[str]:
    """height: rows of what ``layer`` reads first."""
    problems = []
    if isinstance(layer, LstmProgram) and program.profile == "native":
        problems.append(f"'{layer.name}' is an LSTM of TFLite, but the profile is native")
    if isinstance(layer, QDelay) and (layer.size - 1) * layer.dilation > LARGEST // 2:
        problems.append(f"'{layer.name}' keeps more than {LARGEST // 2} rows")
    if isinstance(layer, QRow) and not -height <= layer.index < height:
        problems.append(f"'{layer.name}' reads row {layer.index} of {height}")
    return problems
