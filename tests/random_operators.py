"""Seeded random networks of integer operators, and codes that drive them into their corners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError
from edge_lstm.graph import Stream
from edge_lstm.lower import lower
from edge_lstm.operators import LOOKUP_INPUT, QState, renamed, wide
from edge_lstm.qgraph import (
    CodeArray,
    QAdd,
    QConcat,
    QConstant,
    QDelay,
    QDense,
    QGraph,
    QLookup,
    QLstm,
    QMul,
    QRecode,
    QRelu,
    QRepeat,
    QReverse,
    QRow,
    QScan,
    QSlice,
    QSumRows,
    Quantization,
    QValue,
    written_values,
)
from random_models import _lstm, _weights

KINDS = ("dense", "elementwise", "placement", "delay", "scan", "lstm", "mixed")
PROFILES = ("tflm", "litert", "tflite", "native")


def narrow(rng: np.random.Generator) -> Quantization:
    """8-bit codes of any scale and zero point."""
    scale = float(np.float32(2.0 ** rng.uniform(-9, -4)))
    return Quantization(scale, int(rng.choice([-128, 127, 0, *rng.integers(-100, 100, 3)])))


def power(rng: np.random.Generator) -> Quantization:
    """16-bit codes as operators read them."""
    return wide(int(rng.integers(-15, -8)))


def some(rng: np.random.Generator) -> Quantization:
    """Any quantization: of 8 bits, of 16, or of 16 bits with a zero point and a scale of any kind."""
    kind = rng.integers(5)
    if kind == 0:
        scale = float(np.float32(2.0 ** rng.uniform(-15, -8)))
        return Quantization(scale, int(rng.choice([-32768, 32767, 1000, -3])), 16)
    return narrow(rng) if kind < 3 else power(rng)


@dataclass
class Draft:
    """Operators so far, whose names begin with ``name``.  given: what sources -1, -2 ... write."""

    name: str
    rng: np.random.Generator
    given: list[QValue]
    window: int
    nested: bool = False
    layers: list[Any] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    values: list[QValue] = field(default_factory=list)

    def value(self, index: int) -> QValue:
        return self.values[index] if index >= 0 else self.given[-1 - index]

    def add(self, layer: Any, *reads: int) -> int:
        self.layers.append(renamed(layer, f"{self.name}_{layer.name}_{len(self.layers)}"))
        self.sources.append(reads)
        self.values, problems = written_values(self.layers, self.sources, self.given)
        assert not problems, problems
        return len(self.layers) - 1

    def pick(self) -> int:
        """A value, rather a late one."""
        count = len(self.layers) + len(self.given)
        back = min(int(self.rng.geometric(0.5)) - 1, count - 1)
        index = len(self.layers) - 1 - back
        return index if index >= 0 else -1 - int(self.rng.integers(len(self.given)))

    def pick_rows(self) -> int:
        """A value with a row a step: in a streaming network nothing else may move a state."""
        index = self.pick()
        return index if self.window or self.value(index).sequence else -1

    def coded(self, index: int, quantization: Quantization) -> int:
        """The value in other codes."""
        found = self.value(index).quantization
        return index if found == quantization else self.add(QRecode("recode", found, quantization), index)

    def dense(self, index: int, outputs: int, output: Quantization) -> int:
        rng, source = self.rng, self.value(index)
        features, given = source.width, source.quantization
        if given.bits != output.bits:
            given = power(rng) if output.bits == 16 else narrow(rng)
            index = self.coded(index, given)
        spread = 2.0 ** (given.bits - 2)
        factor = 2.0 ** (output.bits - 8) * rng.uniform(20, 120) / (30 * spread * np.sqrt(features))
        scales = factor * output.scale / given.scale * rng.uniform(0.5, 1.5, int(rng.choice([1, outputs])))
        bias = rng.normal(0, 30, outputs) * 30 * spread / 64
        if output.bits == 16 and rng.integers(4) == 0:  # a sum that leaves 32 bits
            scales, bias = scales * 2.0**-8, rng.normal(0, 1, outputs) * 2.0**33
        return self.add(
            QDense(
                "dense", _weights(rng, (outputs, features)), np.rint(bias).astype(np.int64),
                scales.astype(np.float32), given, output, bool(rng.integers(2)),
            ),
            index,
        )  # fmt: skip

    def fitted(self, index: int, width: int, quantization: Quantization) -> int:
        """The value with another width and other codes."""
        if self.value(index).width == width and self.rng.integers(4):
            return self.coded(index, quantization)
        return self.dense(index, width, quantization)


def dense(draft: Draft) -> None:
    output = some(draft.rng)
    index = draft.pick()
    draft.dense(index, int(draft.rng.integers(1, 12)), output)


def recode(draft: Draft) -> None:
    index, output = draft.pick(), some(draft.rng)
    draft.add(QRecode("recode", draft.value(index).quantization, output), index)


def _operand(draft: Draft, width: int) -> int:
    """A 16-bit value of ``width`` or of width 1; often one that is repeated."""
    rng, index = draft.rng, draft.pick()
    if rng.integers(4) == 0:
        codes = rng.integers(-32768, 32768, int(rng.choice([1, width])))
        return draft.add(QConstant("constant", codes, power(rng)))
    value = draft.value(index)
    if value.width not in (1, width):
        if value.width < width or rng.integers(2):
            start = int(rng.integers(0, value.width))
            index = draft.add(QSlice("slice", value.quantization, start, start + 1), index)
        else:
            index = draft.add(QSlice("slice", value.quantization, 0, width), index)
    if value.sequence and draft.window and not draft.nested and rng.integers(4) == 0:
        index = draft.add(QRow("row", value.quantization, int(rng.integers(-1, draft.window))), index)
    return draft.coded(index, power(rng))


def arithmetic(draft: Draft) -> None:
    rng = draft.rng
    first = draft.coded(draft.pick(), power(rng))
    pair = [first, _operand(draft, draft.value(first).width)]
    rng.shuffle(pair)
    left, right = (draft.value(index).quantization for index in pair)
    if rng.integers(2):
        draft.add(QAdd("add", left, right, power(rng), bool(rng.integers(2))), *pair)
    else:
        draft.add(QMul("mul", left, right, power(rng)), *pair)


def lookup(draft: Draft) -> None:
    function = str(draft.rng.choice(["sigmoid", "tanh"]))
    index = draft.coded(draft.pick(), LOOKUP_INPUT[function])
    draft.add(QLookup("lookup", function), index)


def relu(draft: Draft) -> None:
    index = draft.pick()
    quantization = draft.value(index).quantization
    slope = int(draft.rng.choice([0, 1, 9830, 32767])) if quantization.bits == 16 else 0
    draft.add(QRelu("relu", quantization, slope), index)


def concat(draft: Draft) -> None:
    first = draft.pick()
    value = draft.value(first)
    candidates = [
        index for index in range(-len(draft.given), len(draft.layers))
        if draft.value(index).sequence == value.sequence
    ]  # fmt: skip
    others = draft.rng.choice(candidates, int(draft.rng.integers(1, 4))).tolist()
    parts = [first, *(draft.coded(index, value.quantization) for index in others)]
    if sum(draft.value(index).width for index in parts) <= 40:
        draft.add(QConcat("concat", value.quantization), *parts)


def cut(draft: Draft) -> None:
    index = draft.pick()
    value = draft.value(index)
    start, stop = np.sort(draft.rng.choice(value.width + 1, 2, replace=False)).tolist()
    draft.add(QSlice("slice", value.quantization, start, stop), index)


def gather(draft: Draft) -> None:
    """A row, a reversal, a repetition or a sum of rows."""
    rng, index = draft.rng, draft.pick()
    value = draft.value(index)
    if not (draft.window or draft.nested):
        return
    if draft.nested and rng.integers(2):
        draft.add(QReverse("reverse", value.quantization), index)
    elif draft.nested:
        draft.add(QRow("row", value.quantization, -int(rng.integers(2))), index)
    elif not value.sequence:
        draft.add(QRepeat("repeat", value.quantization), index)
    elif rng.integers(2):
        draft.add(QReverse("reverse", value.quantization), index)
    elif rng.integers(2):
        row = (0, -1, int(rng.integers(draft.window)))[int(rng.integers(3))]
        draft.add(QRow("row", value.quantization, row), index)
    else:
        index = draft.coded(index, power(rng))
        draft.add(QSumRows("sum", draft.value(index).quantization), index)


def constant(draft: Draft) -> None:
    quantization = some(draft.rng)
    codes = draft.rng.integers(quantization.low, quantization.high + 1, int(draft.rng.integers(1, 9)))
    draft.add(QConstant("constant", codes, quantization))


def delay(draft: Draft) -> None:
    index = draft.pick_rows()
    quantization = power(draft.rng) if draft.rng.integers(2) else replace(narrow(draft.rng), zero_point=0)
    size, dilation = int(draft.rng.integers(1, 5)), int(draft.rng.choice([1, 1, 2, 3, 5]))
    if draft.value(index).width * size <= 40:
        draft.add(QDelay("delay", quantization, size, dilation), draft.coded(index, quantization))


def lstm(draft: Draft) -> None:
    index = draft.pick_rows()
    value = draft.value(index)
    if not value.sequence and draft.window and draft.rng.integers(2):
        index = draft.add(QRepeat("repeat", value.quantization), index)
    index = draft.coded(index, narrow(draft.rng))
    source, width = draft.value(index).quantization, draft.value(index).width
    built = _lstm(
        draft.rng, "lstm", source, width, int(draft.rng.integers(1, 9)), bool(draft.rng.integers(2))
    )
    built = replace(built, backwards=bool(draft.window and draft.rng.integers(2)))
    assert isinstance(built, QLstm)
    index = draft.add(built, index)
    if draft.window and draft.rng.integers(2):
        last = 0 if built.backwards and draft.rng.integers(4) else -1
        draft.add(QRow("row", built.output, last), index)


def scan(draft: Draft) -> None:
    """One or two states; a body of random operators, whose last ones write the next states."""
    rng, index = draft.rng, draft.pick_rows()
    value = draft.value(index)
    states = [
        QState(f"h{k}", int(rng.integers(1, 9)), quantization, int(rng.integers(-128, 128)))
        for k, quantization in enumerate(some(rng) for _ in range(int(rng.integers(1, 3))))
    ]
    given = [value._replace(sequence=False), *(QValue(s.width, False, s.quantization) for s in states)]
    body = Draft(f"{draft.name}_{len(draft.layers)}", rng, given, draft.window, nested=True)
    pool = (dense, recode, arithmetic, lookup, relu, concat, cut, constant, gather)
    grow(body, pool, int(rng.integers(1, 7)))
    written = [body.fitted(body.pick(), s.width, s.quantization) for s in states]
    written = [k if k >= 0 else body.add(QSlice("all", s.quantization, 0, s.width), k)
               for k, s in zip(written, states, strict=True)]  # fmt: skip
    result = written[0] if rng.integers(2) else int(rng.integers(len(body.layers)))
    draft.add(
        QScan(
            "scan", value.quantization, tuple(body.layers), tuple(body.sources), tuple(states),
            tuple(written), result, bool(draft.window and rng.integers(2)),
        ),
        index,
    )  # fmt: skip


POOLS: dict[str, Sequence[Callable[[Draft], None]]] = {
    "dense": (dense,),
    "elementwise": (recode, arithmetic, lookup, relu),
    "placement": (concat, cut, gather, constant, recode, arithmetic),
    "delay": (delay, delay, dense, relu, lstm),
    "scan": (scan, scan, gather, cut),
    "lstm": (lstm, lstm, concat, dense, gather),
    "mixed": (dense, arithmetic, lookup, relu, concat, cut, gather, delay, lstm, scan),
}


def grow(draft: Draft, pool: Sequence[Callable[[Draft], None]], many: int) -> None:
    """Add operators until there are ``many`` or more."""
    while len(draft.layers) < many:
        pool[int(draft.rng.integers(len(pool)))](draft)


def random_operator_graph(seed: int, kind: str) -> QGraph:
    """A network of one of KINDS that ``lower`` accepts under every profile; window 0 or 1 .. 20."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, KINDS.index(kind), attempt])
        window = int(rng.integers(1, 21)) if rng.integers(3) else 0
        width, quantization = int(rng.integers(1, 9)), some(rng)
        draft = Draft(f"{kind}_{seed}", rng, [QValue(width, True, quantization)], window)
        try:
            grow(draft, POOLS[kind], int(rng.integers(1, 14)))
            if not (window or draft.values[-1].sequence):
                draft.dense(-1, 2, some(rng))
            qgraph = QGraph(
                f"{kind}_{seed}", tuple(draft.layers), Stream.unnamed(width), sources=tuple(draft.sources),
                window=window, input=quantization,
            )  # fmt: skip
            for profile in PROFILES:
                lower(qgraph.with_profile(profile))
        except ModelError:
            continue
        return qgraph
    raise AssertionError(f"seed {seed}: no network of kind {kind} is free of overflow")


def network(name: str, *layers: Any, window: int = 0, channels: int = 3, **options: Any) -> QGraph:
    """A network of these layers, each reading the one before it unless ``sources`` say otherwise."""
    return QGraph(name, layers, Stream.unnamed(channels), window=window, **options)


def operator_codes(qgraph: QGraph, steps: int, seed: int = 0) -> CodeArray:
    """Codes (steps, features): noise, both ends of the range, small codes, held rows."""
    rng = np.random.default_rng([seed, steps])
    q, shape = qgraph.input, (steps, qgraph.features)
    choices = np.stack([
        rng.integers(q.low, q.high + 1, shape),
        rng.choice([q.low, q.high], shape),
        np.clip(q.zero_point + rng.integers(-3, 4, shape), q.low, q.high),
        np.repeat(rng.integers(q.low, q.high + 1, (1, qgraph.features)), steps, axis=0),
    ])  # fmt: skip
    kinds = np.repeat(rng.integers(4, size=-(-steps // 6)), 6)[:steps]
    codes: CodeArray = choices[kinds, np.arange(steps)].astype(q.dtype)
    return codes
