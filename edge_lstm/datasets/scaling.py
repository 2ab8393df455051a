"""Scaling fitted on the normal part of the training rows only; writes the Stream of the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError, DataError, raise_all
from edge_lstm.graph import Channel, Stream
from edge_lstm.optional import require

SCALERS = ("standard", "minmax", "robust")


def fit_scaler(train: Dataset, kind: str = "standard") -> Stream:
    """Center and scale of every channel from rows that are labelled normal, missing values left out.

    kind: ``standard`` (mean, standard deviation), ``minmax`` (the range becomes -1 .. 1) or ``robust``
    (median, interquartile range; where that is 0, the standard deviation).
    A channel that is constant in those rows becomes 0 at its value, with scale 1.
    Raises ConfigError on another kind, DataError where a channel has no normal value.
    """
    if kind not in SCALERS:
        raise ConfigError(f"scaler '{kind}' is not known, expected one of {', '.join(SCALERS)}")
    values = train.values[train.normal]
    if not len(values):
        raise DataError(
            f"scaler: none of the {train.rows} training rows is labelled normal; "
            "train on an earlier part, or on more rows"
        )
    empty = np.isnan(values).all(axis=0)
    raise_all(
        DataError, "scaler",
        [f"channel '{train.names[index]}' has no value in the {len(values)} normal training rows; "
         "leave it out or train on more rows" for index in np.flatnonzero(empty)],
    )  # fmt: skip
    center, scale = _fit(values, kind)
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    center, scale = np.where(low == high, low, center), np.where(low == high, 1.0, scale)
    channels = (
        Channel(name, unit, float(c), float(s))
        for name, unit, c, s in zip(train.names, train.units, center, scale, strict=True)
    )
    return Stream(tuple(channels), train.period_s)


def _fit(values: FloatArray, kind: str) -> tuple[FloatArray, FloatArray]:
    """Center and scale (channels,) of values (rows, channels), NaN where missing."""
    preprocessing: Any = require("sklearn.preprocessing", "data")
    if kind == "minmax":
        fitted = preprocessing.MinMaxScaler(feature_range=(-1.0, 1.0)).fit(values)
        return -fitted.min_ / fitted.scale_, 1.0 / fitted.scale_
    standard = preprocessing.StandardScaler().fit(values)
    if kind == "standard":
        return standard.mean_, standard.scale_
    robust = preprocessing.RobustScaler().fit(values)
    quartiles = np.nanpercentile(values, (25.0, 75.0), axis=0)
    flat = quartiles[0] == quartiles[1]
    return robust.center_, np.where(flat, standard.scale_, robust.scale_)
