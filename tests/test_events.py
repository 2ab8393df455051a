"""Alarms as events: rows, stamps, peak and contributions, as they happen and as JSON."""

from __future__ import annotations

import json

import numpy as np

from edge_lstm.detection.events import EventStream, events, in_spreads
from edge_lstm.detection.floating import FloatDetection

# --- events --------------------------------------------------------------------------------------


def three_alarms():
    score = np.array([0, 8, 18, 2, 0, 8, 0, 0, 32.0])
    alarm = np.array([0, 1, 1, 1, 0, 1, 0, 0, 1], dtype=np.uint8)
    contributions = np.array(
        [[0, 0], [4, 4], [0, 18], [1, 1], [0, 0], [4, 4], [0, 0], [0, 0], [16, 16.0]]
    )  # fmt: skip
    return FloatDetection(score, alarm, np.full(9, 4.5), contributions)


def test_events_have_their_rows_stamps_peak_and_contributions():
    stamps = [f"2026-01-01T00:00:0{second}" for second in range(9)]
    first, second, third = events(three_alarms(), ["flow", "pressure"], stamps)
    assert (first.start_row, first.stop_row, first.peak_row) == (1, 4, 2)
    assert (first.start, first.stop) == (stamps[1], stamps[4])
    assert (first.peak_score, first.threshold) == (3.0, 1.5)  # sqrt(18 / 2), sqrt(4.5 / 2)
    assert first.contributions == {"flow": 0.0, "pressure": 1.0}
    assert first.leading == "pressure"
    assert (second.start_row, second.stop_row) == (5, 6)
    assert (third.start_row, third.stop_row, third.stop) == (8, None, None)
    assert third.contributions == {"flow": 0.5, "pressure": 0.5}


def test_a_missing_channel_contributes_nothing():
    present = np.ones((9, 2), dtype=bool)
    present[8, 0] = False
    assert events(three_alarms(), ["flow", "pressure"], present=present)[2].contributions["flow"] == 0.0


def test_an_event_stream_tells_the_start_at_once_and_the_end_with_the_peak():
    detection, stream = three_alarms(), EventStream(["flow", "pressure"])
    told = [
        stream.push(detection.score[t], detection.alarm[t], 4.5, detection.contributions[t]) for t in range(9)
    ]
    assert [event and event.to_dict()["event"] for event in told] == [
        None, "alarm", None, None, "clear", "alarm", "clear", None, "alarm",
    ]  # fmt: skip
    assert (told[1].peak_score, told[4].peak_score) == (2.0, 3.0)
    assert stream.close() == told[8]
    assert stream.close() is None


def test_an_event_is_one_json_line_of_plain_values():
    line = json.dumps(events(three_alarms(), ["flow", "pressure"])[0].to_dict())
    assert "\n" not in line
    assert json.loads(line) == {
        "event": "clear", "start_row": 1, "stop_row": 4, "start": None, "stop": None, "peak_row": 2,
        "peak_score": 3.0, "threshold": 1.5, "contributions": {"flow": 0.0, "pressure": 1.0},
    }  # fmt: skip


def test_people_see_scores_as_the_root_mean_square_of_the_channels():
    assert in_spreads(36.0, 4) == 3.0
    assert in_spreads(-1e-12, 4) == 0.0
