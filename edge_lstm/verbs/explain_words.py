"""An explanation in plain words."""

from __future__ import annotations

import numpy as np

from edge_lstm.analysis.memory import LEVEL
from edge_lstm.analysis.sensitivity import Sensitivity
from edge_lstm.reporting.explain import Findings

NAMED = 3  # channels in a sentence
MOST = 0.8  # of the change, for the number of lags
HEAVY = 1.0  # excess kurtosis, from which on tails are called heavy


def sentences(found: Findings) -> tuple[str, ...]:
    """What the findings say, the most important first."""
    said = []
    if found.sensitivity is not None:
        said.append(_rests_on(found, found.sensitivity))
    if found.residuals:
        said += _left(found)
    if "int8" in found.curves:
        said.append(_alarms(found))
    if found.events:
        said.append(_contributions(found))
    return tuple(said) or ("Nothing can be said: the recording has no normal rows to look at.",)


def _rests_on(found: Findings, sensitivity: Sensitivity) -> str:
    """Which channels and lags move the forecast."""
    shares, by_lag = sensitivity.shares, sensitivity.by_lag.sum(axis=0)
    what = "forecast" if found.residuals else "output"
    if not by_lag.any():
        return f"No channel moves the {what}: it is constant on these rows."
    order = np.argsort(-shares, kind="stable")[:NAMED]
    named = ", ".join(f"{found.inputs[place]} ({shares[place]:.0%})" for place in order)
    carried = np.cumsum(by_lag) / by_lag.sum()
    lags = int(np.searchsorted(carried, MOST)) + 1
    rows = "row it reads carries" if lags == 1 else f"{lags} rows it reads carry"
    tried = len(sensitivity.lags)
    return f"The {what} rests on {named}; the last {rows} {carried[lags - 1]:.0%} of what {tried} rows do."


def _left(found: Findings) -> list[str]:
    """Whether the errors hold something to learn, and whether they are normal."""
    remembering = [r for r in found.residuals if r.memory[0]]
    total = len(found.residuals)
    said = []
    if remembering:
        worst = max(remembering, key=lambda r: r.remembered)
        said.append(
            f"The errors of {len(remembering)} of {total} channels remember, most in {worst.name} "
            f"(autocorrelation {worst.memory[1]:.2f} at lag {worst.memory[0]}): something is left to learn."
        )
    else:
        said.append(f"The errors of all {total} channels remember next to nothing.")
    heavy = [
        r.name
        for r in found.residuals
        if (r.excess_kurtosis or 0.0) > HEAVY and r.normal_p is not None and r.normal_p < LEVEL
    ]
    if heavy:
        said.append(
            f"Errors of {len(heavy)} of {total} channels have heavier tails than normal ones "
            f"({', '.join(heavy[:NAMED])}): k sigma is exceeded more often than a normal table says."
        )
    return said


def _alarms(found: Findings) -> str:
    curves = found.curves["int8"]
    (_, false), (missed, true) = curves.confusion
    return (
        f"{true:,} of {true + missed:,} labelled rows are in alarm, and {false:,} normal ones; the best "
        f"F1 of rows, {curves.best_f1:.2f}, lies at {curves.best_ratio:.2f} times the threshold."
    )


def _contributions(found: Findings) -> str:
    leading = [event.leading for event in found.events]
    first = max(dict.fromkeys(leading), key=leading.count)
    count = "the only alarm" if len(leading) == 1 else f"{leading.count(first)} of {len(leading)} alarms"
    return f"{first} leads {count}."
