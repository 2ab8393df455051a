"""An integer network as a function of windows, for what its forecast rests on and what it attends to.

Reads QGraphs and Rows; writes sensitivities and attention weights.
"""

from __future__ import annotations

import numpy as np

from edge_lstm.analysis.sensitivity import Forecast, Sensitivity, read_sensitivity
from edge_lstm.arrays import FloatArray
from edge_lstm.detection import fixed
from edge_lstm.errors import DataError
from edge_lstm.fixedpoint import IntArray
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph, QSoftmax
from edge_lstm.reference import integer
from edge_lstm.verbs.detectors import forecasts
from edge_lstm.verbs.streams import Rows, fine_of, scaling_for

LAGS = 24  # rows that are replaced one by one
WARM = 40  # rows before them, that the state settles in
WINDOWS = 32
ATTENDED = 200  # windows that attention is averaged over


def sensitivity(qgraph: QGraph, rows: Rows, lags: int = LAGS) -> Sensitivity:
    """Of normal rows of the test part.  With a detector: of the forecasts, its line included, in spreads.

    Without one of the network's outputs, in their own spreads.
    Raises DataError where there are no two windows of normal rows.
    """
    detector = qgraph.detector
    ahead = reach(qgraph)
    windows = normal_windows(qgraph, rows, ahead, WINDOWS)
    if detector is None:
        outputs = _outputs(qgraph, rows)
        spread = outputs(windows).std(axis=0)
    else:
        outputs = forecast(qgraph, detector, rows)
        spread = rows.x[rows.learn][:, rows.scored].std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return read_sensitivity(windows, lambda tried: outputs(tried) / spread, lags, ahead)


def normal_windows(qgraph: QGraph, rows: Rows, ahead: int, most: int) -> IntArray:
    """Fine codes (windows, rows, channels), spread evenly over the normal rows of the test part.

    Where that has no two windows of normal rows, over those of the whole recording.
    """
    lags = 0 if qgraph.detector is None else qgraph.detector.lags
    size = qgraph.window or max(WARM + LAGS, lags + ahead + LAGS)
    good = rows.dataset.normal & ~rows.gap
    for usable in (good & rows.test, good):
        broken = np.concatenate([[0], np.cumsum(~usable)])
        starts = np.flatnonzero(broken[size + ahead :] == broken[: max(len(broken) - size - ahead, 0)])
        if len(starts) > 1:
            chosen = starts[np.unique(np.linspace(0, len(starts) - 1, most).round().astype(np.int64))]
            fine = fine_of(scaling_for(qgraph, rows), rows)
            windows: IntArray = fine[chosen[:, None] + np.arange(size)]
            return windows
    raise DataError(
        f"the recording has no two stretches of {size + ahead} normal rows without a gap, which explaining "
        f"model '{qgraph.name}' takes; give a longer recording"
    )


def _outputs(qgraph: QGraph, rows: Rows) -> Forecast:
    """The network's outputs after a window's last row, real values."""
    program, scaling = lower(qgraph), scaling_for(qgraph, rows)

    def run(windows: IntArray) -> FloatArray:
        codes = integer.run(program, scaling.narrow(windows))[0][:, -1]
        return qgraph.output.decode(codes)

    return run


def reach(qgraph: QGraph) -> int:
    """Rows from the last one read to the one that is forecast; 0 where that row itself is rebuilt."""
    detector = qgraph.detector
    return detector.ahead if detector is not None and forecasts(detector) else 0


def forecast(qgraph: QGraph, detector: fixed.QDetector, rows: Rows) -> Forecast:
    """What the detector expects ``reach`` rows after a window's last row, of channels that are scored."""
    program, scaling, ahead = lower(qgraph), scaling_for(qgraph, rows), reach(qgraph)

    def run(windows: IntArray) -> FloatArray:
        codes = integer.run(program, scaling.narrow(windows))[0]
        after = ((0, 0), (0, ahead), (0, 0))  # rows that the forecast does not read
        fine = np.pad(windows, after, mode="edge")
        count, steps = fine.shape[:2]
        flat = fine.reshape(count * steps, -1)
        padded = np.pad(codes, after, mode="edge").reshape(count * steps, -1)
        error = fixed.errors(detector, flat, padded)
        expected = scaling.unit * (flat - scaling.start - error).reshape(count, steps, -1)[:, -1]
        found: FloatArray = expected[:, rows.scored]
        return found

    return run


def attention(qgraph: QGraph, rows: Rows) -> dict[str, FloatArray]:
    """Mean weights (heads, window) that each softmax over time gives to the rows of normal windows."""
    places = [
        place
        for place, layer in enumerate(qgraph.layers)
        if isinstance(layer, QSoftmax) and layer.axis == "time"
    ]
    if not places:
        return {}
    windows = scaling_for(qgraph, rows).narrow(normal_windows(qgraph, rows, 0, ATTENDED))
    signals = integer.run_signals(lower(qgraph), windows)[0]
    return {
        qgraph.layers[place].name: qgraph.values[place].quantization.decode(signals[place].output).mean(0).T
        for place in places
    }
