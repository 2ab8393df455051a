"""How good scores and alarms are: points, events, ranges, delay, and whether the LSTM earns its flash.

Reads a score, an alarm and a label a row; writes plain figures, None where a figure is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError, raise_all
from edge_lstm.evaluation.metrics_affiliation import affiliation
from edge_lstm.evaluation.metrics_alarms import nab_score, point_adjusted_f1_inflated, range_based
from edge_lstm.evaluation.metrics_runs import BoolArray, Flags, as_flags, harmonic, merged, ratio, runs
from edge_lstm.evaluation.metrics_volume import auc_pr, vus_pr
from edge_lstm.evaluation.period import DEFAULT_PERIOD

MARGIN = 0.02  # of AUC-PR or event F1: less is no difference between two methods
DAY_S = 86_400


@dataclass(frozen=True)
class Metrics:
    """Figures of one detector on one labelled stream; None where undefined (no fault, no alarm).

    Of the score:
    vus_pr: volume under the range precision-recall surface, buffers up to one period.
    auc_pr: average precision.

    Of alarms as events; an event is a run of labelled rows, found when an alarm starts inside it; alarms
    at most 10 rows apart are one:
    event_precision: alarms that start inside an event, of all alarms.  event_recall: events found.
    false_alarms: alarms that start outside; for each 1,000 normal rows, and for each day of normal rows.
    delay_rows, delay_s: median over found events, from the event's first row to the alarm.

    Of alarm rows as they are:
    precision, recall, f1: of single rows.
    range_*: ranges of alarms and events by the share that they cover of each other.
    affiliation_*: distance of alarms and events, against an alarm anywhere.
    nab_score: NAB's standard profile; 100 = every event at its first row, 0 = no alarm, unbounded below.
    point_adjusted_f1_inflated: credits all of an event for one row; random scores excel; compare nothing.
    """

    rows: int
    anomaly_rows: int
    events: int
    alarms: int
    found: int
    false_alarms: int
    vus_pr: float | None
    auc_pr: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    event_precision: float | None
    event_recall: float | None
    event_f1: float | None
    range_precision: float | None
    range_recall: float | None
    range_f1: float | None
    affiliation_precision: float | None
    affiliation_recall: float | None
    affiliation_f1: float | None
    nab_score: float | None
    point_adjusted_f1_inflated: float | None
    false_alarms_per_1000: float | None
    false_alarms_per_day: float | None
    delay_rows: float | None
    delay_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def evaluate_stream(
    score: FloatArray, alarm: Flags, label: Flags, *, window: int = DEFAULT_PERIOD, period_s: float = 0.0
) -> Metrics:
    """Figures of scores, 0/1 alarms and 0/1 labels, each (steps,).

    Give the test rows only; scores need no common unit with the threshold.
    window: rows of the widest VUS-PR buffer, the ``period`` of the recording.
    period_s: seconds from row to row, 0 where not known.
    """
    score, alarm, label = np.asarray(score), as_flags(alarm), as_flags(label)
    problems = []
    if not (score.ndim == 1 and score.shape == alarm.shape == label.shape and len(score) > 0):
        problems.append(
            f"score {score.shape}, alarm {alarm.shape}, label {label.shape}: expected (steps,) each"
        )
    if not np.isfinite(score).all():
        problems.append("the score holds NaN or infinity; a row without a score has score 0")
    if not (np.isfinite(period_s) and period_s >= 0):
        problems.append(f"period_s is {period_s}, expected seconds of 0 or more")
    raise_all(DataError, "evaluation", problems)
    ranges, near = range_based(alarm, label), affiliation(alarm, label)
    return Metrics(
        rows=len(label),
        anomaly_rows=int(label.sum()),
        vus_pr=vus_pr(score, label, window),
        auc_pr=auc_pr(score, label),
        range_precision=ranges.precision,
        range_recall=ranges.recall,
        range_f1=ranges.f1,
        affiliation_precision=near.precision,
        affiliation_recall=near.recall,
        affiliation_f1=near.f1,
        nab_score=nab_score(alarm, label),
        point_adjusted_f1_inflated=point_adjusted_f1_inflated(alarm, label),
        **_point_figures(alarm, label),
        **_event_figures(alarm, label, period_s),
    )


def _point_figures(alarm: BoolArray, label: BoolArray) -> dict[str, Any]:
    """Of single rows."""
    hits, positives, raised = int((alarm & label).sum()), int(label.sum()), int(alarm.sum())
    return {
        "precision": ratio(hits, raised),
        "recall": ratio(hits, positives),
        "f1": ratio(2 * hits, raised + positives) if positives else None,
    }


def _event_figures(alarm: BoolArray, label: BoolArray, period_s: float) -> dict[str, Any]:
    """Of alarms that start inside an event or outside."""
    first, stop = np.array(runs(label), dtype=np.int64).reshape(-1, 2).T
    starts = np.array([start for start, _ in merged(runs(alarm))], dtype=np.int64)
    true = int(label[starts].sum())
    next_alarm = np.searchsorted(starts, first)
    found = next_alarm < np.searchsorted(starts, stop)
    delays = starts[next_alarm[found]] - first[found]
    precision, recall = ratio(true, len(starts)), ratio(len(delays), len(first))
    false, normal_rows = len(starts) - true, int((~label).sum())
    delay = float(np.median(delays)) if len(delays) else None
    return {
        "events": len(first),
        "alarms": len(starts),
        "found": len(delays),
        "false_alarms": false,
        "event_precision": precision,
        "event_recall": recall,
        "event_f1": harmonic(precision, recall),
        "false_alarms_per_1000": ratio(1000 * false, normal_rows),
        "false_alarms_per_day": ratio(DAY_S * false, normal_rows * period_s),
        "delay_rows": delay,
        "delay_s": delay * period_s if delay is not None and period_s else None,
    }


@dataclass(frozen=True)
class Verdict:
    """sentence: whether the LSTM earns its flash.  ship: the simple method to ship instead, "" for none."""

    sentence: str
    ship: str = ""


def verdict(lstm: Metrics, baselines: Mapping[str, Metrics]) -> Verdict:
    """Does the LSTM earn its flash against the best of the simple methods?

    It does when it leads in AUC-PR or event F1 by more than 0.02 and does not trail in the other.
    """
    if not baselines:
        return Verdict("Cannot tell: no baseline was run.")
    if lstm.auc_pr is None or lstm.event_f1 is None:
        return Verdict("Cannot tell: the test rows hold no labelled fault.")
    scores = {name: metrics.auc_pr or 0.0 for name, metrics in baselines.items()}
    alarms = {name: metrics.event_f1 or 0.0 for name, metrics in baselines.items()}
    leads = (lstm.auc_pr - max(scores.values()), lstm.event_f1 - max(alarms.values()))
    best_score, best_alarm = max(scores, key=scores.__getitem__), max(alarms, key=alarms.__getitem__)
    figures = (
        f"AUC-PR {lstm.auc_pr:.2f} against {scores[best_score]:.2f} of {best_score}, "
        f"event F1 {lstm.event_f1:.2f} against {alarms[best_alarm]:.2f} of {best_alarm}"
    )
    ahead, behind = max(leads) > MARGIN, min(leads) < -MARGIN
    if ahead and not behind:
        return Verdict(f"Yes, the LSTM earns its flash: {figures}.")
    if ahead:
        return Verdict(f"Undecided: the LSTM leads in one figure and trails in the other: {figures}.")
    simple = best_score if leads[0] <= leads[1] else best_alarm
    if behind:
        return Verdict(f"No, ship {simple} instead: the LSTM has {figures}.", simple)
    return Verdict(f"No, the LSTM is only level with simpler methods, ship {simple}: {figures}.", simple)
