"""What follows from the findings, in plain sentences, each with its figure, and the commands to type.

Reads Findings; writes Advice.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from edge_lstm.analysis import facts
from edge_lstm.analysis.facts import listed, shown
from edge_lstm.analysis.findings import Findings
from edge_lstm.analysis.forecasts import CURVED, LINE, PERSISTENCE, SEASONAL, Forecasts

NOTHING = 0.05  # R2 of the best forecast below which the past does not tell the future
REMOVED = 0.05  # share of the line's squared error from which on a network is worth trying
LEVEL = 0.05  # of the test that it is more than chance
SAVED = 0.02  # share of the last value's squared error that a line must save
LEAST_WINDOW, MOST_WINDOW = 32, 256
ROWS_A_STEP = 10  # rows of the recording for each row of a window
MODELS = ("lstm", "line", "last value", "level", "none")
COARSE_STEP = 0.5  # of the forecast's error, noise of the int8 codes from which on int16x8 is named
COARSE_CHANNELS = 0.2  # share of the channels with such a step
WIDE_SCHEME = "--scheme int16x8"
METHOD = {"line": "var", "last value": "persistence", "level": "ewma"}  # of edge-lstm train
UNITS = ((2, 8), (10, 16), (math.inf, 32))  # channels up to, units of the network


@dataclass(frozen=True)
class Advice:
    """verdict: one sentence.  model: what to try first, one of MODELS.  sentences: (topic, text).

    channels: to give to the network.  dropped: why by channel.  timesteps: of a training window.
    r2: to expect of the next row on rows not seen, from the line to the trees; None where unknown.
    """

    verdict: str
    model: str
    sentences: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    channels: tuple[str, ...]
    dropped: dict[str, str]
    timesteps: int
    r2: tuple[float, float] | None


def advise(findings: Findings, data: str) -> Advice:
    """Advice on the recording in the file ``data``."""
    model, verdict = choose(findings)
    dropped = facts.dropped(findings)
    timesteps = window(findings)
    sentences = [
        *facts.sentences(findings, dropped),
        *_forecast(findings.forecasts),
        *_codes(findings),
        *_window(findings, timesteps, model),
    ]
    expected = None
    if findings.forecasts is not None and model in ("lstm", "line"):
        line, curved = findings.forecasts.mean(LINE), findings.forecasts.mean(CURVED)
        if line is not None and curved is not None:
            expected = line, max(line, curved)
    return Advice(
        verdict=verdict,
        model=model,
        sentences=tuple(sentences),
        commands=tuple(_commands(findings, data, model, timesteps, dropped)),
        channels=findings.used,
        dropped=dropped,
        timesteps=timesteps,
        r2=expected,
    )


def choose(findings: Findings) -> tuple[str, str]:
    """The model to try first, and the sentence that says why."""
    if not findings.used:
        return "none", "Nothing to learn: no channel changes other than by counting up."
    found = findings.forecasts
    if found is None:
        return "none", "Too few rows to tell: record more before choosing a model."
    line, last, curved = (found.mean(name) or 0.0 for name in (LINE, PERSISTENCE, CURVED))
    best = max(line, last, curved)
    if best < NOTHING:
        return "level", (
            f"No LSTM: there is nothing to forecast (the best method has R2 {shown(best)} on rows not seen). "
            "Watch the level: an EWMA chart or a z-score is all that this recording supports."
        )
    chance = found.removed_p < LEVEL
    if found.removed_mean >= REMOVED and chance:
        return "lstm", (
            f"Try an LSTM beside a line: the line explains {shown(line)} of the next row, and a non-linear "
            f"model on the same lags removes {found.removed_mean:.0%} of the error that it leaves "
            f"(p = {found.removed_p:.2g}), which is R2 {shown(curved)}."
        )
    why = f"a non-linear model on the same lags {_removes(found)}"
    if (1 - last) - (1 - line) < SAVED * (1 - last):
        return "last value", (
            f"No LSTM: the last value forecasts the next row as well (R2 {shown(last)}) as a line "
            f"(R2 {shown(line)}), and {why}. Ship an EWMA chart or watch the changes."
        )
    return "line", (
        f"No LSTM at first: ship {_line_name(findings)}, which explains {shown(line)} of the next row; {why}."
    )


def _removes(found: Forecasts) -> str:
    if found.removed_mean <= 0:
        return "removes none of its error"
    sure = "" if found.removed_p < LEVEL else f", which may be chance (p = {found.removed_p:.2g})"
    return f"removes only {found.removed_mean:.1%} of its error{sure}"


def _line_name(findings: Findings) -> str:
    lags = findings.forecasts.lags if findings.forecasts else 0
    return f"{'an AR' if len(findings.used) == 1 else 'a VAR'}({lags})"


def _forecast(found: Forecasts | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    parts = []
    for name in (PERSISTENCE, SEASONAL, LINE, CURVED):
        known = [value for value in found.r2.get(name, {}).values() if value is not None]
        few = f" ({len(known)} of {len(found.error)} channels have one)" if name == SEASONAL else ""
        if known:
            parts.append(f"{name} {shown(sum(known) / len(known))}{few}")
    line = {channel: value for channel, value in found.r2[LINE].items() if value is not None}
    rows = f"R2 of the next row on {found.rows:,} rows that the method has not learnt from: "
    sentences = [("forecast", rows + ", ".join(parts) + ".")]
    blind = [channel for channel, value in line.items() if value < NOTHING]
    if blind and len(blind) < len(line):
        sentences.append(
            ("forecast", f"The past says nothing of the next value of {listed(blind)}: R2 below {NOTHING}.")
        )
    left = [name for name, p in found.ljung_box_p.items() if p is not None and p < LEVEL / len(line or [1])]
    if left:
        sentences.append(
            ("forecast", f"The line of {found.lags} lags leaves errors that depend on each other (Ljung-Box) "
             f"in {len(left)} of {len(found.error)} channels: longer memory may help there.")
        )  # fmt: skip
    return sentences


def _codes(findings: Findings) -> list[tuple[str, str]]:
    """Channels whose int8 step is as coarse as the error of the forecast."""
    if findings.forecasts is None:
        return []
    coarse = []
    for channel in findings.channels:
        error = findings.forecasts.error.get(channel.name, 0.0) * channel.spread
        if error > 0 and channel.int8_step / math.sqrt(12) > COARSE_STEP * error:
            coarse.append((channel.int8_step / error, channel.name))
    if not coarse:
        return [("int8", "The step of int8 codes is fine enough beside the line's error in every channel.")]
    times, name = max(coarse)
    text = (
        f"An int8 step is {times:.2g} times the line's error in {name}, and too coarse in {len(coarse)} of "
        f"{len(findings.used)} channels"
    )
    many = len(coarse) >= COARSE_CHANNELS * len(findings.used)
    return [("int8", f"{text}: quantize with {WIDE_SCHEME}." if many else f"{text}.")]


def window(findings: Findings) -> int:
    """Timesteps of a training window: a season if it fits, else several times the partial memory.

    A tenth of the rows at most, a power of two.
    """
    orders = sorted(findings.memory[name].order for name in findings.used)
    wanted = 4 * orders[len(orders) // 2] if orders else 0
    if findings.season <= MOST_WINDOW:
        wanted = max(wanted, findings.season)
    most = max(LEAST_WINDOW, min(MOST_WINDOW, findings.clock.rows // ROWS_A_STEP))
    return int(2 ** min(math.ceil(math.log2(max(wanted, LEAST_WINDOW))), math.floor(math.log2(most))))


def _window(findings: Findings, timesteps: int, model: str) -> list[tuple[str, str]]:
    if model != "lstm":
        return []
    season = findings.season
    text = f"Train on windows of {timesteps} rows"
    if 0 < season <= timesteps:
        text += f": they hold the season of {season} rows."
    elif season > MOST_WINDOW:
        text += (
            f"; the season of {season:,} rows is longer than a window should be: average the rows "
            "(edge-lstm features), or leave it to the level."
        )
    else:
        text += ": several times what the partial autocorrelations reach back."
    return [("window", text)]


def _commands(
    findings: Findings, data: str, model: str, timesteps: int, dropped: dict[str, str]
) -> list[str]:
    if model == "none":
        return []
    file = shlex.quote(data)
    units = next(size for most, size in UNITS if len(findings.used) <= most)
    how = f"--units {units} --timesteps {timesteps}" if model == "lstm" else f"--method {METHOD[model]}"
    train = f"edge-lstm train {file} -o m.keras {how}"
    if dropped:
        train += f" --channels {shlex.quote(','.join(findings.used))}"
    coarse = any(WIDE_SCHEME in text for _, text in _codes(findings))
    scheme = f" {WIDE_SCHEME}" if coarse and model == "lstm" else ""
    return [
        train,
        f"edge-lstm quantize m.keras --data {file} -o m.tflite{scheme}",
        f"edge-lstm evaluate m.tflite {file} --reference m.keras",
    ]
