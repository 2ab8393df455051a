"""The constants of a program as C: static const tables with their layout and the structs that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_lstm.detection.fixed import QDetector
from edge_lstm.fixedpoint import IntArray
from edge_lstm.lower_lstm import largest_acc
from edge_lstm.program import GATES, DenseProgram, LstmProgram, Program, Requantizer, ScanProgram
from edge_lstm.qgraph import QConstant

LINE = 110  # characters
# what each layer's name is followed by in the C
SUFFIXES = (
    "layer", "kernel", "recurrent_kernel", "bias", "input_bias", "recurrent_bias", "requantizers", "cell",
    "hidden", "codes", "last", "past", "oldest", "significands", "exponents", "exponential", "reciprocal",
    "peephole", "normalization", "normal_bias", "projection",
    "projection_bias", "gates", "weights", "places", "multipliers", "shifts",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One static const array."""

    comment: str
    type: str
    symbol: str
    length: int
    rows: str
    aligned: bool = False  # to words


@dataclass(frozen=True)
class Constant:
    """One static const struct of the runtime and the arrays it points to."""

    tables: list[Table]
    type: str
    symbol: str
    members: dict[str, str | int]


def one_line(text: str) -> str:
    """``text`` as one line that cannot end the comment it stands in."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?").rstrip("\\ ")


def layer_names(program: Program) -> list[str]:
    """The name of every layer, those of a scan's operators and states behind the scan's own."""
    names = []
    for layer in program.layers:
        names.append(layer.name)
        for inner in (*layer.body, *layer.states) if isinstance(layer, ScanProgram) else ():
            own = inner.name.startswith(f"{layer.name}/")
            names.append(inner.name if own else f"{layer.name}/{inner.name}")
    return names


def layer_symbols(program: Program) -> list[str]:
    """A C name for each of ``layer_names``: it where all are sound and distinct, else layer_0, layer_1 ..."""
    names = [re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") for name in layer_names(program)]
    taken = {f"{name}_{suffix}" for name in names for suffix in SUFFIXES}
    sound = all(re.match("[A-Za-z]", name) and name != "detector" for name in names)
    if sound and len(taken) == len(names) * len(SUFFIXES):
        return names
    return [f"layer_{index}" for index in range(len(names))]


def requantizer_text(requantizer: Requantizer, row: int = 0, largest: int = 0) -> str:
    """The initializer of an elstm_requantizer_t; largest: bound of what it multiplies, 0 for unknown."""
    return f"{{{int(requantizer.multiplier[row])}, {int(requantizer.shift[row])}, {largest.bit_length()}}}"


def _real_scales(requantizer: Requantizer) -> Iterable[float]:
    pairs = zip(requantizer.multiplier.tolist(), requantizer.shift.tolist(), strict=True)
    return (multiplier * 2.0 ** (shift - 31) for multiplier, shift in pairs)


def rows_of_four(kernel: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """(4, columns) as ``elstm_four_rows`` reads it: blocks of 4 columns row by row, then single columns."""
    whole = kernel.shape[1] // 4 * 4
    blocks = kernel[:, :whole].reshape(4, -1, 4).swapaxes(0, 1)
    return np.concatenate([blocks.ravel(), kernel[:, whole:].T.ravel()])


def lstm_constant(layer: LstmProgram, symbol: str) -> Constant:
    """All of an LSTM's integers; ``symbol`` begins each of their names."""
    name = one_line(layer.name)
    scales = "".join(
        f"\n * scale times the {term}'s: "
        + ", ".join(f"{gate} {scale / 4096:.9g}" for gate, scale in zip(GATES, _real_scales(r), strict=True))
        for term, r in (("input", layer.input_requantizer), ("recurrent", layer.recurrent_requantizer))
    )
    weights = [
        rows_of_four(kernel[:, unit])
        for unit in range(layer.units)
        for kernel in (layer.kernel, layer.recurrent_kernel)
    ]
    size = layer.features + layer.units
    tables = [
        Table(
            f"{name}/weights: int8[{layer.units} units], gates i, f, g, o over {layer.features} features, "
            f"then over {layer.units} units, zero point 0;\n * order: see elstm_four_rows{scales}",
            "int8_t", f"{symbol}_weights", 4 * layer.units * size,
            rows_text(np.concatenate(weights), 4 * size, 4), aligned=True,
        ),
        Table(
            f"{name}/bias: int32[{layer.units} units][gate i, f, g, o of input, then recurrent term]"
            "\n * the zero points of input and hidden codes folded in; scales as above",
            "int32_t", f"{symbol}_bias", 8 * layer.units,
            rows_text(np.concatenate([layer.input_bias, layer.recurrent_bias]).T, 8),
        ),
    ]  # fmt: skip
    members: dict[str, str | int] = {
        "weights": f"{symbol}_weights",
        "bias": f"{symbol}_bias",
        "input": _gate_requantizers(layer.input_requantizer, layer.input_bias, layer.kernel),
        "recurrent": _gate_requantizers(
            layer.recurrent_requantizer, layer.recurrent_bias, layer.recurrent_kernel
        ),
        "hidden": requantizer_text(layer.hidden_requantizer, 0, 1 << 30),
        "features": layer.features,
        "units": layer.units,
        "cell_clip": layer.cell_clip,
        "cell_power": layer.cell_power,
        "hidden_zero_point": layer.inner_zero_point,
    }
    return Constant(tables, "elstm_lstm_t", f"{symbol}_layer", members)


def _gate_requantizers(requantizer: Requantizer, bias: IntArray, kernel: npt.NDArray[np.int8]) -> str:
    largest = largest_acc(bias, kernel).max(axis=1).tolist()
    return "{" + ", ".join(requantizer_text(requantizer, gate, largest[gate]) for gate in range(4)) + "}"


def dense_constant(layer: DenseProgram, symbol: str, profile: str) -> Constant:
    """All integers of a dense layer of 8-bit codes; ``symbol`` begins each of their names."""
    r = layer.requantizer
    per_row = bool(len(set(r.multiplier.tolist())) > 1 or len(set(r.shift.tolist())) > 1)
    rows = range(layer.outputs if per_row else 1)
    largest = int(largest_acc(layer.bias, layer.kernel).max()) if layer.bits == 8 else 0
    name, power = one_line(layer.name), "shift" if profile == "litert" else "(shift - 31)"
    fours = layer.outputs // 4
    groups = [rows_of_four(layer.kernel[4 * group : 4 * group + 4]) for group in range(fours)]
    order = "; four rows at a time, see elstm_four_rows" if fours else ""
    tables = [
        Table(
            f"{name}/weights: int8[{layer.outputs} outputs][{layer.features} features], zero point 0{order}",
            "int8_t", f"{symbol}_weights", layer.kernel.size,
            rows_text(np.concatenate([*groups, layer.kernel[4 * fours :].ravel()]), layer.features),
            aligned=True,
        ),
        Table(
            f"{name}/bias: int32[{layer.outputs} outputs], the input zero point folded in",
            "int32_t", f"{symbol}_bias", layer.outputs, rows_text(layer.bias, layer.outputs),
        ),
        Table(
            f"{name}/requantizers: {'one an output' if per_row else 'one for all outputs'}, "
            f"multiplier * 2**{power}",
            "elstm_requantizer_t", f"{symbol}_requantizers", len(rows),
            "\n".join(f"    {requantizer_text(r, row, largest)}," for row in rows),
        ),
    ]  # fmt: skip
    members: dict[str, str | int] = {
        "weights": f"{symbol}_weights",
        "bias": f"{symbol}_bias",
        "requantizers": f"{symbol}_requantizers",
        "features": layer.features,
        "outputs": layer.outputs,
        "per_row": int(per_row),
        "output_zero_point": layer.output_zero_point,
    }
    return Constant(tables, "elstm_dense_t", f"{symbol}_layer", members)


def codes_table(layer: QConstant, symbol: str) -> Table:
    """The codes of a value that never changes."""
    bits = layer.output.bits
    return Table(
        f"{one_line(layer.name)}: int{bits}[{layer.width}], scale {layer.output.scale:.9g}, "
        f"zero point {layer.output.zero_point}",
        f"int{bits}_t", f"{symbol}_codes", layer.width, rows_text(layer.codes, layer.width),
    )  # fmt: skip


def detector_constant(detector: QDetector) -> Constant:
    """All of the detector's integers."""
    tables = [
        Table(
            f"detector/{name}: int32[{len(values)}]",
            "int32_t", f"detector_{name}", len(values), rows_text(values, detector.channels),
        )
        for name in ("residual_weight", "output_weight", "offset")
        for values in [getattr(detector, name)]
    ]  # fmt: skip
    members: dict[str, str | int] = {table.symbol.removeprefix("detector_"): table.symbol for table in tables}
    for name, shift in (("forms", detector.forms_shift), ("whitening", detector.whitening_shift)):
        matrix = getattr(detector, name)
        members[name] = "NULL" if matrix is None else f"detector_{name}"
        if matrix is not None:
            tables.append(
                Table(
                    f"detector/{name}: int16[{len(matrix)} rows][{matrix.shape[1]}], scale 2**-{shift}",
                    "int16_t", f"detector_{name}", matrix.size, rows_text(matrix, matrix.shape[1]),
                )
            )  # fmt: skip
    for name in (
        "base", "excess", "gain", "warmup", "alpha", "smoothed_gain", "energy_gain", "clear", "level_limit",
        "start", "channels", "rows", "lags", "forms_shift", "shift", "whitening_shift", "rate", "debounce",
        "output_zero_point", "output_bits", "ahead",
    ):  # fmt: skip
        members[name] = int(getattr(detector, name))
    members["context"] = int((~detector.scored).sum())
    return Constant(tables, "elstm_detector_t", "detector", members)


def rows_text(values: npt.ArrayLike, break_after: int, group: int = 1) -> str:
    """Integers as the lines of an initializer; a line ends after ``break_after`` values or when full."""
    flat = [str(value) for value in np.asarray(values).ravel().tolist()]
    width = max(len(value) for value in flat) + 1
    a_line = max((LINE - 4) // (width * group + 1 + (group > 1)), 1) * group
    lines = []
    for start in range(0, len(flat), break_after):
        block = flat[start : start + break_after]
        for at in range(0, len(block), a_line):
            cells = [f"{value:>{width - 1}}," for value in block[at : at + a_line]]
            groups = [" ".join(cells[k : k + group]) for k in range(0, len(cells), group)]
            lines.append("    " + ("  " if group > 1 else " ").join(groups))
    return "\n".join(lines)
