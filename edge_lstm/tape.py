"""Operators in the order in which a recipe writes them, each under the codes of what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.layer_types import Function
from edge_lstm.operators import (
    LOOKUP_INPUT,
    Q15,
    QAdd,
    QConstant,
    QDense,
    QLookup,
    QMul,
    QRecode,
    QRelu,
    Quantization,
    wide,
)
from edge_lstm.placing_operators import (
    QSlice,
)
from edge_lstm.scales import (
    QuantizeConfig,
    best_rows,
    dense_storage,
    lowest_scales,
    quantize_bias,
    quantize_rows,
    quantize_weights,
    wide_power,
)


class Tape:
    """Operators and their sources while a network or the body of a scan is written.

    given: the quantizations of the sources -1, -2, ...
    """

    def __init__(self, given: Sequence[Quantization], config: QuantizeConfig) -> None:
        self.given = tuple(given)
        self.config = config
        self.layers: list[Any] = []
        self.sources: list[tuple[int, ...]] = []
        self._recoded: dict[tuple[int, Quantization], int] = {}

    def add(self, operator: Any, *sources: int) -> int:
        """Append an operator; returns its index."""
        self.layers.append(operator)
        self.sources.append(sources)
        return len(self.layers) - 1

    def quantization(self, source: int) -> Quantization:
        found: Quantization = self.layers[source].output if source >= 0 else self.given[-1 - source]
        return found

    def recode(self, source: int, output: Quantization) -> int:
        """``source`` in the codes of ``output``."""
        found = self.quantization(source)
        if found == output:
            return source
        if (source, output) not in self._recoded:
            name = self.layers[source].name if source >= 0 else "input"
            number = sum(1 for key in self._recoded if key[0] == source)
            step = QRecode(f"{name}/recode_{output.bits}" + (f"_{number}" if number else ""), found, output)
            self._recoded[source, output] = self.add(step, source)
        return self._recoded[source, output]

    def widened(self, source: int) -> int:
        """``source`` in 16 bits with a power-of-two scale that loses nothing."""
        found = self.quantization(source)
        if found.bits == 16:
            return source
        reach = max(found.high - found.zero_point, found.zero_point - found.low) * found.scale
        return self.recode(source, wide(wide_power(np.array([reach / 1.25]))))

    def dense(
        self,
        name: str,
        source: int,
        kernel: FloatArray,
        bias: FloatArray,
        output: Quantization,
        relu: bool = False,
    ) -> int:
        """A dense layer in the bits of its source.  kernel: (features, outputs)."""
        given = self.quantization(source)
        storage = "int8"
        if self.config.profile == "native" and given.bits == 16:
            codes, scales, _ = best_rows(
                kernel.T, np.ones(len(kernel)), lowest_scales(bias, given.scale), self.config.weights
            )
            storage = dense_storage(codes, self.config)
        elif given.bits == 16:
            codes, scales = quantize_rows(kernel.T)
        else:
            codes, scale = quantize_weights(kernel.T, self.config.portable)
            scales = np.array([scale])
        steps = scales.astype(np.float64) * given.scale
        return self.add(
            QDense(
                name,
                codes,
                quantize_bias(f"dense '{name}'", bias, steps, given.bits),
                scales,
                given,
                output,
                relu,
                storage,
            ),
            source,
        )

    def total(self, name: str, left: int, right: int, output: Quantization, subtract: bool = False) -> int:
        operator = QAdd(name, self.quantization(left), self.quantization(right), output, subtract)
        return self.add(operator, left, right)

    def product(self, name: str, left: int, right: int, output: Quantization) -> int:
        return self.add(QMul(name, self.quantization(left), self.quantization(right), output), left, right)

    def part(self, name: str, source: int, start: int, stop: int) -> int:
        return self.add(QSlice(name, self.quantization(source), start, stop), source)

    def constant(self, name: str, value: float) -> int:
        """A number below 1 in Q0.15."""
        return self.add(QConstant(name, np.array([round(value * 32768)], np.int16), Q15))

    def function(self, name: str, source: int, function: Function) -> int:
        """An element-wise function of a 16-bit value whose scale is the one that it reads."""
        if function.kind == "linear":
            return source
        if function.kind in LOOKUP_INPUT:
            return self.add(QLookup(name, function.kind), source)
        if function.kind == "hard_sigmoid":  # Q0.15 saturates at 1, the ReLU cuts at 0
            slope = self.constant(f"{name}/slope", function.alpha or 0.0)
            offset = self.constant(f"{name}/offset", function.beta or 0.0)
            line = self.product(f"{name}/line", source, slope, self.quantization(source))
            return self.add(QRelu(name, Q15), self.total(f"{name}/raised", line, offset, Q15))
        slope = round((function.alpha or 0.0) * 32768) if function.kind == "leaky_relu" else 0
        return self.add(QRelu(name, self.quantization(source), slope), source)


def reads(function: Function, values: FloatArray) -> Quantization:
    """The 16-bit quantization in which ``function`` reads ``values``."""
    return LOOKUP_INPUT.get(function.kind) or wide(wide_power(values))


def function_problems(where: str, *functions: Function) -> list[str]:
    """Functions that have no integer form."""
    known = ("linear", "relu", "leaky_relu", "hard_sigmoid", *LOOKUP_INPUT)
    return [
        f"{where}: activation {function.kind}({function.alpha}, {function.beta}) has no integer form; "
        f"train with one of {', '.join(known)}, their parameters in 0 .. 1"
        for function in functions
        if function.kind not in known
        or any(
            value is not None and not 0 <= round(value * 32768) <= 32767
            for value in (function.alpha, function.beta)
        )
    ]
