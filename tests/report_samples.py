"""Data for the report's tests: a pump with everything, and the awkward cases."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from edge_lstm.datasets.pump import NAMES, UNITS, make_pump
from edge_lstm.graph import Channel
from edge_lstm.reporting.data import (
    Agreement,
    CoreCost,
    DetectorTrace,
    Event,
    ReportData,
    TensorRange,
    spans,
)

Array = np.ndarray[Any, Any]
PUMP = tuple(Channel(name, unit) for name, unit in zip(NAMES, UNITS, strict=True))


def forecast_of(values: Array, label: Array) -> Array:
    """Each row from the two before it by least squares over the normal rows; NaN where they are missing."""
    held = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))[:, None]), axis=0)
    filled = np.take_along_axis(values, held, axis=0)
    before = np.hstack([filled[1:-1], filled[:-2], np.ones((len(values) - 2, 1))])
    normal = (label[2:] == 0) & np.isfinite(values).all(axis=1)[2:]
    weights = np.linalg.lstsq(before[normal], filled[2:][normal], rcond=None)[0]
    forecast = np.full_like(values, np.nan)
    forecast[2:] = before @ weights
    return forecast


def detect(values: Array, forecast: Array, label: Array) -> DetectorTrace:
    """A plain stand-in for a detector: smoothed squares of the residuals against a quantile."""
    residual = np.nan_to_num(values - forecast)
    normal = residual[label == 0]
    smooth = 0.8 ** np.arange(40) * 0.2
    scaled = residual / np.maximum(normal.std(axis=0), 1e-9)
    score = np.sum([np.convolve(column, smooth)[: len(values)] ** 2 for column in scaled.T], axis=0)
    score[: min(16, len(score))] = 0
    threshold = np.full(len(score), np.quantile(score[label == 0], 0.998))
    return DetectorTrace(score, threshold, score > threshold)


def make_tensors() -> list[TensorRange]:
    rng = np.random.default_rng(3)
    names = [f"lstm_1/{part}" for part in ("input", "kernel i", "recurrent_kernel f", "cell", "hidden")]
    names += ["head/kernel", "head/output"]
    tensors = []
    for index, name in enumerate(names):
        low, high = -rng.uniform(0.4, 2), rng.uniform(0.4, 2)
        reach = max(-low, high) if "kernel" in name else max(-low, high) * rng.uniform(0.8, 1.3)
        kind = "weight" if "kernel" in name else "activation"
        clipped = 37 * int(reach < max(-low, high))
        noise = None if index == 4 else rng.uniform(28, 45)
        tensors.append(TensorRange(name, kind, low, high, -reach, reach, noise, clipped, 20_000))
    return tensors


@cache
def make_data(steps: int = 20_000, seed: int = 7) -> ReportData:
    """A complete report of a pump; forecasts and detector are stand-ins, the other figures are plausible."""
    pump = make_pump(max(steps, 2000), seed)
    values, label = pump.values[-steps:].copy(), pump.label[-steps:]
    values[steps // 10 : steps // 10 + steps // 40, 2] = np.nan
    forecast = forecast_of(values, label)
    code = np.nanstd(values, axis=0) / 20
    forecast_int8 = np.round(forecast / code) * code
    int8, floating = detect(values, forecast_int8, label), detect(values, forecast, label)
    parts = {"vibration": 5.0, "flow": 2.0, "pressure": 1.0, "temperature": 0.2}
    events = [
        Event(start, stop, float(int8.score[start:stop].max()), f"2026-01-05T06:{start // 400:02d}:00", parts)
        for start, stop in spans(int8.alarm)
    ]
    epochs = np.arange(25)
    return ReportData(
        name="pump", channels=PUMP, values=values, time_s=np.arange(steps, dtype=float), label=label,
        detection_int8=int8, detection_float=floating, forecast_float=forecast, forecast_int8=forecast_int8,
        tensors=make_tensors(), events=events,
        quality={
            "LSTM float": {"R2": 0.9812, "RMSE": 0.1312, "AUC-PR": 0.842, "false per 1000": 0.12},
            "LSTM int8": {"R2": 0.9790, "RMSE": 0.1334, "AUC-PR": 0.839, "false per 1000": 0.12},
            "z-score": {"R2": None, "RMSE": None, "AUC-PR": 0.61, "false per 1000": 0.8},
            "VAR(5)": {"R2": 0.975, "RMSE": 0.14, "AUC-PR": 0.86, "false per 1000": 0.05},
        },
        cores=[
            CoreCost("cortex-m0", {"mean": 35277.4, "min": 35100, "max": 35402}, 4212, 1024, 2208, 556, 312),
            CoreCost("cortex-m4", {"mean": 14379.2, "min": 13210, "max": 14655}, 3704, 1024, 2208, 556, 288),
        ],
        agreement=[
            Agreement("numpy", "tflm", 100_000, 0), Agreement("litert", "litert", 100_000, 0),
            Agreement("host", "tflm", 100_000, 0), Agreement("cortex-m4", "tflm", 100_000, 3, 2),
        ],
        history={"loss": 0.4 * 0.8**epochs + 0.01, "val_loss": 0.5 * 0.8**epochs + 0.013,
                 "learning_rate": 1e-3 * 0.5 ** (epochs // 5)},
        notes=["The two numerics profiles differ in 412 of 100,000 codes, by at most 1."],
        made={"command": "edge-lstm demo", "training": {"units": 16, "layers": [16]}, "data": "pump.csv"},
    )  # fmt: skip


def many_channels() -> ReportData:
    """38 channels with names of all lengths, as a server or a plant has."""
    data = make_data(3000)
    rng = np.random.default_rng(1)
    mix = rng.uniform(-1, 1, (5, 38)) / np.nanstd(data.values, axis=0)[:, None]
    values, forecast = data.values @ mix, np.asarray(data.forecast_float) @ mix
    names = [f"sensor {number}" + " of the cooling loop" * (number % 3) for number in range(38)]
    parts = {names[20]: 3.0, names[3]: 1.0}
    return replace(
        data, name="plant", channels=[Channel(name, "V") for name in names], values=values,
        forecast_float=forecast, forecast_int8=np.round(forecast, 1),
        events=[replace(event, contributions=parts) for event in data.events],
    )  # fmt: skip


def one_channel() -> ReportData:
    """One unlabelled channel without a unit or a clock and without any alarm."""
    data = make_data(3000)
    columns = {name: getattr(data, name)[:, :1] for name in ("values", "forecast_float", "forecast_int8")}
    quiet = DetectorTrace(np.full(3000, 0.5), np.full(3000, 2.0), np.zeros(3000))
    return replace(data, name="one", channels=[Channel("ecg")], time_s=None, label=None, events=(),
                   detection_int8=quiet, detection_float=None, cores=data.cores[:1], **columns)  # fmt: skip


def bare() -> ReportData:
    """Fifty rows of two channels and nothing else: the least that a page can be made of."""
    return ReportData("bare", PUMP[:2], make_data(50).values[:, :2])


def short() -> ReportData:
    """Everything, in fifty rows."""
    return make_data(50)


def gaps() -> ReportData:
    """A dead channel, a constant one, and one that is mostly missing."""
    data = make_data(3000)
    values = data.values.copy()
    values[:, 1], values[:, 3] = np.nan, 4.2
    values[np.arange(3000) % 7 > 0, 4] = np.nan
    return replace(data, values=values)


HOSTILE = (
    "<b>x</b>",
    '"><script>document.title="owned"</script>',
    "cost in $ and $",
    "温度\n\x07",
    "x" * 300,
)


def hostile() -> ReportData:
    """Names that are markup, mathematics, control characters, another script, and far too long."""
    data = make_data(500)
    event = Event(10, 20, 9.0, HOSTILE[0], dict.fromkeys(HOSTILE, 1.0))
    return replace(
        data, name=HOSTILE[1], channels=[Channel(name, "<i>") for name in HOSTILE], events=[event],
        quality={HOSTILE[0]: {HOSTILE[1]: 1.0}, HOSTILE[4]: {}}, notes=HOSTILE,
        made={HOSTILE[1]: {HOSTILE[0]: HOSTILE}}, history={name: [2.0, 1.0] for name in HOSTILE},
        tensors=[TensorRange(name, HOSTILE[1], -1, 1, -1, 1, 30.0) for name in HOSTILE],
        cores=[replace(data.cores[0], core=name) for name in HOSTILE],
        agreement=[Agreement(name, name, 10, 0) for name in HOSTILE],
    )  # fmt: skip
