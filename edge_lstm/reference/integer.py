"""The integer network in NumPy: every exact executor must return these codes.  Spec: NUMERICS.md, 5, 6.

Reads a Program and codes; writes codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.errors import DataError
from edge_lstm.fixedpoint import IntArray
from edge_lstm.program import LstmProgram, NativeLstmProgram, Program, ScanProgram, Step
from edge_lstm.qgraph import QConstant, QDelay
from edge_lstm.reference.integer_lstm import LstmState, Signals, initial_state, run_lstm
from edge_lstm.reference.integer_operators import run_operator

# What a layer keeps between two rows: an LstmState, a scan's states and those of its body, a delay's rows.
State = tuple[Any, ...]

__all__ = ["LstmState", "Signals", "State", "reset", "run", "run_signals"]


def _reset(layers: Sequence[Step], widths: Sequence[int], streams: int) -> State:
    """widths: of what each layer reads first."""
    states: list[Any] = []
    for layer, width in zip(layers, widths, strict=True):
        if isinstance(layer, (LstmProgram, NativeLstmProgram)):
            states.append(initial_state(layer, streams))
        elif isinstance(layer, QDelay):
            rows = (layer.size - 1) * layer.dilation
            states.append(np.zeros((streams, rows, width), dtype=np.int64))
        elif isinstance(layer, ScanProgram):
            kept = [np.full((streams, 1, s.width), s.initial, dtype=np.int64) for s in layer.states]
            states.append(tuple(kept))
        else:
            states.append(None)
    return tuple(states)


def reset(program: Program, streams: int = 1) -> State:
    """The state after power-on, one entry a layer."""
    widths = [
        program.features if not reads or reads[0] < 0 else program.values[reads[0]].width
        for reads in program.sources
    ]
    return _reset(program.layers, widths, streams)


def _run_scan(scan: ScanProgram, profile: str, x: IntArray, state: State) -> tuple[IntArray, State]:
    rows: dict[int, IntArray] = {}
    times = range(x.shape[1])
    for t in reversed(times) if scan.backwards else times:
        written: list[IntArray] = []
        for layer, reads in zip(scan.body, scan.sources, strict=True):
            given = (x[:, [t]], *state)
            values = [written[source] if source >= 0 else given[-1 - source] for source in reads]
            written.append(run_operator(layer, profile, values, x.shape[0], 1))
        state = tuple(written[index] for index in scan.next)
        rows[t] = written[scan.result]
    return np.concatenate([rows[t] for t in times], axis=1), state


def _run_delay(layer: QDelay, x: IntArray, state: IntArray) -> tuple[IntArray, IntArray]:
    padded = np.concatenate([state, x], axis=1)
    starts = range(0, layer.size * layer.dilation, layer.dilation)
    output = np.concatenate([padded[:, start : start + x.shape[1]] for start in starts], axis=2)
    return output, padded[:, padded.shape[1] - state.shape[1] :]


def run_signals(
    program: Program, codes: npt.ArrayLike, state: State | None = None
) -> tuple[list[Signals], State]:
    """Run the network over codes (streams, steps, features); return the codes of every layer.

    A network with a window starts from reset.  Raises DataError where it gets another number of rows.
    """
    first: IntArray = np.asarray(codes, dtype=np.int64)
    if program.window and first.shape[1] != program.window:
        raise DataError(
            f"model '{program.name}' takes windows of {program.window} rows, got {first.shape[1]}"
        )
    before = reset(program, first.shape[0]) if state is None or program.window else state
    signals: list[Signals] = []
    after: list[Any] = []
    for layer, reads, own in zip(program.layers, program.sources, before, strict=True):
        values = [signals[source].output if source >= 0 else first for source in reads]
        if isinstance(layer, (LstmProgram, NativeLstmProgram)):
            signal, own = run_lstm(layer, program.profile, values[0], own)
        elif isinstance(layer, ScanProgram):
            output, own = _run_scan(layer, program.profile, values[0], own)
            signal = Signals(output, None)
        elif isinstance(layer, QDelay):
            output, own = _run_delay(layer, values[0], own)
            signal = Signals(output, None)
        else:
            rows = 1 if isinstance(layer, QConstant) else program.window
            signal = Signals(run_operator(layer, program.profile, values, first.shape[0], rows), None)
        signals.append(signal)
        after.append(own)
    return signals, tuple(after)


def run(program: Program, codes: npt.ArrayLike, state: State | None = None) -> tuple[npt.NDArray[Any], State]:
    """Run the network over codes (streams, steps, features) from ``state`` (None: from reset).

    Returns codes (streams, rows, outputs), of every step or one row a window, and the state after the last.
    """
    signals, after = run_signals(program, codes, state)
    return signals[-1].output.astype(program.output.dtype), after
