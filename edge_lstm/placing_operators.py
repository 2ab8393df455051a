"""The integer operators that place codes without changing them, and the sum over rows."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm.errors import ModelError, raise_all
from edge_lstm.operators import Quantization, wide_problems


@dataclass(frozen=True)
class QConcat:
    """The features of several values side by side; all have one quantization."""

    name: str
    output: Quantization


@dataclass(frozen=True)
class QSlice:
    """The features ``start`` .. ``stop - 1``."""

    name: str
    output: Quantization
    start: int
    stop: int


@dataclass(frozen=True)
class QRow:
    """One row of a window as a vector: 0 is the first, -1 the last."""

    name: str
    output: Quantization
    index: int = -1


@dataclass(frozen=True)
class QReverse:
    """The rows of a window from last to first."""

    name: str
    output: Quantization


@dataclass(frozen=True)
class QRepeat:
    """A vector as every row of a window."""

    name: str
    output: Quantization


@dataclass(frozen=True)
class QSumRows:
    """The sum of the rows of a window as a vector, saturated; the quantization stays."""

    name: str
    output: Quantization

    def __post_init__(self) -> None:
        raise_all(ModelError, f"sum '{self.name}'", wide_problems(output=self.output))


@dataclass(frozen=True)
class QDelay:
    """The rows t - (size - 1) * dilation, ..., t - dilation, t side by side; rows before the first are 0."""

    name: str
    output: Quantization
    size: int
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.dilation < 1 or self.output.zero_point:
            raise ModelError(
                f"delay '{self.name}': size {self.size}, dilation {self.dilation} and zero point "
                f"{self.output.zero_point}, expected 1 or more, 1 or more and 0"
            )
