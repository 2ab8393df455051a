"""Detectors over whole recordings: gaps, warm-up, forecasts of rows, errors of rows that were learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_lstm.detection import linear
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.fit import fit_detector
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.scaling import counts_of
from edge_lstm.verbs import detectors, streams
from edge_lstm.verbs.detectors import expectations, float_detection, held_out_errors, int8_detection
from edge_lstm.verbs.quantize import quantize_rows
from test_leakage import TRAIN, original, quantized

CONFIG = DetectorConfig()


def with_gaps(*rows: int) -> streams.Rows:
    """The recording with time interrupted before ``rows`` alone."""
    dataset, _, _, graph = original()
    gap = np.zeros(dataset.rows, dtype=bool)
    gap[list(rows)] = True
    return streams.network_rows(replace(dataset, gap=gap), graph.stream, TRAIN)


def test_the_integer_detector_over_a_recording_is_the_executors() -> None:
    _, _, rows, graph = original()
    qgraph = quantized(graph, rows, CONFIG)
    found = int8_detection(qgraph, rows)[0]
    raw = counts_of(qgraph.stream, rows.dataset.values)
    with NumpyExecutor(qgraph) as executor:
        for part in rows.segments:
            executor.reset()
            expected = executor.detect(raw[part])
            assert (found.score[part] == expected.score / 2.0**12).all()
            assert (found.alarm[part] == expected.alarm).all()


def test_both_detectors_warm_up_until_the_lags_are_full() -> None:
    _, _, rows, graph = original()
    assert graph.predictor is not None and graph.predictor.lags == 6
    short = replace(CONFIG, warmup=2)
    int8 = int8_detection(quantized(graph, rows, short), rows)[0]
    real = float_detection(graph, rows, short)[0]
    for detection in (int8, real):
        for start in (0, 450, 850):
            assert not detection.score[start : start + 6].any() and detection.score[start + 6] > 0


def test_a_piece_shorter_than_the_warm_up_has_no_score() -> None:
    graph, rows = original()[3], with_gaps(600, 605, 640)
    for detection in (int8_detection(quantized(graph, rows, CONFIG), rows)[0],
                      float_detection(graph, rows, CONFIG)[0]):  # fmt: skip
        assert not detection.score[600:637].any()
        assert detection.score[672:800].all()


def test_rows_whose_lags_a_gap_cuts_off_do_not_reach_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their forecast starts from rows of zeros, which is no error of the machine."""
    graph, rows = original()[3], with_gaps(300)
    taken = []

    def fit(error, x, present, learn, config, *rest):  # type: ignore[no-untyped-def]
        taken.append(learn)
        return fit_detector(error, x, present, learn, config, *rest)

    monkeypatch.setattr(detectors, "fit_detector", fit)
    float_detection(graph, rows, CONFIG)
    quantized(graph, rows, CONFIG)
    for learn in taken:
        assert not learn[:6].any() and not learn[300:306].any()
        kept = rows.learn & rows.present.any(axis=1)
        assert np.array_equal(learn[6:300], kept[6:300]) and np.array_equal(learn[306:], kept[306:])
    assert len(taken) == 2


def test_the_int8_forecast_of_a_row_is_the_same_whatever_the_row_holds() -> None:
    dataset, _, rows, graph = original()
    qgraph = quantized(graph, rows, CONFIG)
    values = dataset.values.copy()
    values[900] += 0.5 * np.nanstd(values, axis=0)
    moved = streams.network_rows(replace(dataset, values=values), graph.stream, TRAIN)
    one, other = (int8_detection(qgraph, some)[1] for some in (rows, moved))
    assert (np.abs(moved.x[900] - rows.x[900]) > 0.1).all()
    # both forms are rounded to a fine code
    np.testing.assert_allclose(one[900], other[900], rtol=0, atol=qgraph.input.scale / 64)
    assert (np.abs(one[901] - other[901]) > qgraph.input.scale).any()


def test_errors_of_rows_that_the_line_has_seen_are_cross_validated() -> None:
    _, _, rows, graph = original()
    assert graph.predictor is not None
    outputs = np.zeros_like(rows.x)
    plain = rows.x - expectations(graph.predictor, rows, rows.x, outputs)
    unseen = held_out_errors(graph.predictor, rows, rows.x, outputs)
    kept, steps = linear.Rows.of(rows.x, rows.present, rows.gap, rows.learn)
    taught = np.zeros(len(rows.x), dtype=bool)
    taught[steps] = linear.clean(kept, 6)
    np.testing.assert_array_equal(unseen[~taught], plain[~taught])
    assert (unseen[taught] != plain[taught]).any(axis=1).mean() > 0.99
    assert (unseen[taught] ** 2).mean() > (plain[taught] ** 2).mean()
    forecasts = linear.fit_predictor(kept, 6)[1]
    np.testing.assert_allclose(unseen[taught], (kept.x - forecasts)[taught[steps]], atol=1e-9)


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_a_network_that_looks_ahead_otherwise_has_both_detectors(ahead: int, scheme: str) -> None:
    _, _, rows, line = original()
    graph = replace(line, ahead=ahead, predictor=None)
    qgraph = quantize_rows(graph, rows, QuantizeConfig(scheme=scheme), replace(CONFIG, warmup=2))[0]
    assert qgraph.detector is not None
    assert (qgraph.detector.ahead, qgraph.detector.warmup) == (ahead, max(2, ahead))
    detection, expected, known = int8_detection(qgraph, rows)
    real, forecast, also = float_detection(graph, rows, replace(CONFIG, warmup=2))
    np.testing.assert_array_equal(known, also)
    part = rows.segments[1]
    assert (~known[part]).any(axis=1).sum() - (~rows.present[part]).any(axis=1).sum() <= ahead
    outputs = streams.float_forecasts(graph, rows)[part]
    np.testing.assert_array_equal(forecast[part][ahead + 40 : 90], outputs[40 : 90 - ahead])
    apart = (expected - forecast)[known.all(axis=1)].std(axis=0)  # but for the error's mean
    assert (apart < (0.006 if scheme == "int8" else 0.002)).all()  # a row off: 0.03 or more
    assert np.corrcoef(detection.score, real.score)[0, 1] > 0.9999


def test_a_model_without_a_detector_is_refused() -> None:
    _, _, rows, graph = original()
    with pytest.raises(ModelError, match="model 'leak' carries no detector; quantize it with --data"):
        int8_detection(replace(quantized(graph, rows, CONFIG), detector=None), rows)
