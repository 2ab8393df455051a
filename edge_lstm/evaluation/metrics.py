"""How good scores and alarms are: points, events, delay, and whether the LSTM earns its flash.

Reads a score, an alarm and a label a row; writes plain figures, None where a figure is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import DataError, raise_all
from edge_lstm.optional import require

MERGE_ROWS = 10  # alarms at most this far apart are one alarm
MARGIN = 0.02  # of AUC-PR or event F1: less is no difference between two methods

Flags = npt.NDArray[Any]  # 0 or false, anything else
Runs = list[tuple[int, int]]


@dataclass(frozen=True)
class Metrics:
    """Figures of one detector on one labelled stream; None where undefined (no fault, no alarm).

    auc_pr: average precision of the score.  precision, recall, f1: of single rows.  An event (a run of
    labelled rows) is found when an alarm starts inside it; alarms at most 10 rows apart are one.
    event_precision: alarms that start inside an event, of all alarms.  event_recall: events found.
    false_alarms: alarms that start outside, and for each 1,000 normal rows.
    delay_rows: median over found events, from the event's first row to the alarm.
    """

    rows: int
    anomaly_rows: int
    events: int
    alarms: int
    found: int
    false_alarms: int
    auc_pr: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    event_precision: float | None
    event_recall: float | None
    event_f1: float | None
    false_alarms_per_1000: float | None
    delay_rows: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def runs(flag: Flags) -> Runs:
    """Runs of true rows as ``(start, stop)``, stop excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], _flags(flag), [False]])))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def merged(alarm_runs: Runs, within: int = MERGE_ROWS) -> Runs:
    """Join runs with at most ``within`` rows between them."""
    joined: Runs = []
    for start, stop in alarm_runs:
        if joined and start - joined[-1][1] <= within:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def evaluate_stream(score: FloatArray, alarm: Flags, label: Flags) -> Metrics:
    """Figures of scores, 0/1 alarms and 0/1 labels, each (steps,).

    Give the test rows only; scores need no common unit with the threshold.
    """
    score, alarm, label = np.asarray(score), _flags(alarm), _flags(label)
    problems = []
    if not (score.ndim == 1 and score.shape == alarm.shape == label.shape and len(score) > 0):
        problems.append(
            f"score {score.shape}, alarm {alarm.shape}, label {label.shape}: expected (steps,) each"
        )
    if not np.isfinite(score).all():
        problems.append("the score holds NaN or infinity; a row without a score has score 0")
    raise_all(DataError, "evaluation", problems)
    hits, positives, raised = int((alarm & label).sum()), int(label.sum()), int(alarm.sum())
    precision, recall = _ratio(hits, raised), _ratio(hits, positives)
    faults, alarm_runs = runs(label), merged(runs(alarm))
    starts = np.array([start for start, _ in alarm_runs], dtype=np.int64)
    true = int(label[starts].sum())
    inside = [starts[(starts >= first) & (starts < stop)] - first for first, stop in faults]
    delays = [int(rows[0]) for rows in inside if len(rows)]
    event_precision, event_recall = _ratio(true, len(starts)), _ratio(len(delays), len(faults))
    normal_rows = len(label) - positives
    return Metrics(
        rows=len(label),
        anomaly_rows=positives,
        events=len(faults),
        alarms=len(starts),
        found=len(delays),
        false_alarms=len(starts) - true,
        auc_pr=auc_pr(score, label),
        precision=precision,
        recall=recall,
        f1=_f1(hits, raised, positives),
        event_precision=event_precision,
        event_recall=event_recall,
        event_f1=_harmonic(event_precision, event_recall),
        false_alarms_per_1000=_ratio(1000 * (len(starts) - true), normal_rows),
        delay_rows=float(np.median(delays)) if delays else None,
    )


def auc_pr(score: FloatArray, label: Flags) -> float | None:
    """Average precision of a score (steps,) against 0/1 labels; None where no row is labelled."""
    label = _flags(label)
    if not label.any():
        return None
    return float(require("sklearn.metrics", "data").average_precision_score(label, score))


def _flags(values: Flags) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = np.asarray(values) != 0
    return flags


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _f1(hits: int, raised: int, positives: int) -> float | None:
    return 2 * hits / (raised + positives) if positives else None


def _harmonic(precision: float | None, recall: float | None) -> float | None:
    """F1 of events; 0 where there are events and no alarm, None where there are no events."""
    if recall is None:
        return None
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def verdict(lstm: Metrics, baselines: Mapping[str, Metrics]) -> str:
    """One plain sentence: does the LSTM earn its flash against the best of the simple methods?

    It does when it leads in AUC-PR or event F1 by more than 0.02 and does not trail in the other.
    """
    if not baselines:
        return "Cannot tell: no baseline was run."
    if lstm.auc_pr is None or lstm.event_f1 is None:
        return "Cannot tell: the test rows hold no labelled fault."
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
        return f"Yes, the LSTM earns its flash: {figures}."
    if ahead:
        return f"Undecided: the LSTM leads in one figure and trails in the other: {figures}."
    simple = best_score if leads[0] <= leads[1] else best_alarm
    if behind:
        return f"No, ship {simple} instead: the LSTM has {figures}."
    return f"No, the LSTM is only level with simpler methods, ship {simple}: {figures}."
