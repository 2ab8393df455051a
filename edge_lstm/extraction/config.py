"""What a feature stage computes: channels, rate and features, as a TOML file states them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from edge_lstm.errors import ConfigError, raise_all

MOMENTS = ("value", "mean", "rms", "std", "peak", "peak_to_peak", "crest", "kurtosis")
BAND = "band"
HISTORY = {"difference": (1, 4095), "lag": (1, 4095), "rolling_mean": (2, 4096), "rolling_std": (2, 4096)}
MAX_HOP = 65_535
MAX_COLUMNS = 127  # of a row: the detector's limit
CALL = re.compile(r"([a-z_]+)\s*(?:\(([^()]*)\))?")
NAME = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True)
class Feature:
    """One column of a row: its kind and arguments (edges of a band in Hz, or rows of a history)."""

    kind: str
    arguments: tuple[float, ...] = ()

    @property
    def suffix(self) -> str:
        """The end of the column's name.

        >>> Feature("band", (50.0, 312.5)).suffix
        'band_50_312p5'
        """
        words = (f"{value:g}".replace(".", "p").replace("+", "") for value in self.arguments)
        return "_".join((self.kind, *words))


@dataclass(frozen=True)
class ChannelFeatures:
    """One channel of samples and its columns.

    resolution, zero: a value v of a recording is the raw integer ``round((v - zero) / resolution)``.
    """

    name: str
    features: tuple[Feature, ...]
    resolution: float = 1.0
    zero: float = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{feature.suffix}" for feature in self.features)


@dataclass(frozen=True)
class FeatureConfig:
    """A feature stage; every ``hop`` samples become one row of int32.

    name: of the stage in C.  rate_hz: samples a second.
    fast: channels of int16 samples, none missing: moments over the hop and bands.
    slow: channels of int32 values, of which a sample may lack any: a row takes the last one since the row
        before; features are those of the last rows.
    """

    name: str
    rate_hz: float
    hop: int
    fast: tuple[ChannelFeatures, ...] = ()
    slow: tuple[ChannelFeatures, ...] = ()

    def __post_init__(self) -> None:
        """Raises ConfigError that lists everything out of its range."""
        raise_all(ConfigError, "features", self._problems())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a row's columns: the fast channels', then the slow ones'."""
        return tuple(column for channel in (*self.fast, *self.slow) for column in channel.columns)

    @property
    def channels(self) -> tuple[ChannelFeatures, ...]:
        return (*self.fast, *self.slow)

    def _problems(self) -> list[str]:
        problems = []
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            problems.append(f"name is {self.name!r}, expected letters, digits and _, a letter first")
        if not (_is_real(self.rate_hz) and self.rate_hz > 0):
            problems.append(f"rate_hz is {self.rate_hz!r}, expected samples a second, above 0")
        if not (_is_whole(self.hop) and 1 <= self.hop <= MAX_HOP):
            problems.append(f"hop is {self.hop!r}, expected 1 .. {MAX_HOP} samples a row")
        if not self.channels:
            problems.append("no channel; add a table [fast.NAME] or [slow.NAME]")
        for channel in self.channels:
            problems += _channel_problems(channel)
        for channel in self.fast:
            problems += self._fast_problems(channel)
        for channel in self.slow:
            problems += _slow_problems(channel)
        columns = self.columns
        if len(columns) > MAX_COLUMNS:
            problems.append(f"{len(columns)} columns, expected at most {MAX_COLUMNS}")
        twice = sorted({column for column in columns if columns.count(column) > 1})
        return problems + [f"column '{column}' comes twice; name each feature once" for column in twice]

    def _fast_problems(self, channel: ChannelFeatures) -> list[str]:
        problems = []
        for feature in channel.features:
            where = f"fast.{channel.name}: {feature.kind}"
            if feature.kind == BAND:
                problems += self._band_problems(where, feature.arguments)
            elif feature.kind not in MOMENTS:
                known = [*MOMENTS, f"{BAND}(low_hz, high_hz)"]
                problems.append(f"{where} is no feature of a fast channel{_hint(feature.kind, known)}")
            elif feature.arguments:
                problems.append(f"{where} takes no argument")
        return problems

    def _band_problems(self, where: str, edges: tuple[float, ...]) -> list[str]:
        if len(edges) != 2:
            return [f"{where} has {len(edges)} arguments, expected band(low_hz, high_hz)"]
        if not _is_real(self.rate_hz) or 0 < edges[0] < edges[1] < self.rate_hz / 2:
            return []
        low, high, most = (f"{value:g}" for value in (*edges, self.rate_hz / 2))
        return [f"{where}({low}, {high}): expected 0 < low < high < {most} Hz, half of rate_hz"]

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], where: str = "features") -> FeatureConfig:
        """A stage from the content of a TOML file; ConfigError with every unknown name and bad value."""
        known = [field.name for field in fields(cls)]
        problems = [f"'{key}' is unknown{_hint(key, known)}" for key in content if key not in known]
        problems += [f"'{key}' is missing" for key in ("name", "rate_hz", "hop") if key not in content]
        channels = {}
        for kind in ("fast", "slow"):
            table = content.get(kind, {})
            if not isinstance(table, Mapping):
                problems.append(f"{kind} is {table!r}, expected a table [{kind}.NAME] for each channel")
                continue
            channels[kind] = tuple(
                _channel(f"{kind}.{name}", str(name), options, problems) for name, options in table.items()
            )
        raise_all(ConfigError, where, problems)
        try:
            return cls(content["name"], content["rate_hz"], content["hop"], **channels)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error


def _channel(where: str, name: str, options: Any, problems: list[str]) -> ChannelFeatures:
    """One table of a channel; what it cannot hold is added to ``problems``."""
    if not isinstance(options, Mapping):
        problems.append(f"{where} is {options!r}, expected a table with features = [...]")
        return ChannelFeatures(name, ())
    known = [field.name for field in fields(ChannelFeatures) if field.name != "name"]
    problems += [f"{where}: '{key}' is unknown{_hint(key, known)}" for key in options if key not in known]
    texts = options.get("features", ())
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        problems.append(f"{where}: features is {texts!r}, expected a list such as ['rms', 'band(50, 200)']")
        texts = ()
    found = [_feature(where, text, problems) for text in texts]
    rest = {key: options[key] for key in ("resolution", "zero") if key in options}
    return ChannelFeatures(name, tuple(feature for feature in found if feature), **rest)


def _feature(where: str, text: Any, problems: list[str]) -> Feature | None:
    """``kind`` or ``kind(number, ...)``."""
    match = CALL.fullmatch(text.strip()) if isinstance(text, str) else None
    try:
        if match:
            arguments = tuple(float(part) for part in (match[2] or "").split(",") if part.strip())
            return Feature(match[1], arguments)
    except ValueError:
        pass
    problems.append(f"{where}: {text!r} is not a feature such as 'rms' or 'band(50, 200)'")
    return None


def _channel_problems(channel: ChannelFeatures) -> list[str]:
    problems = []
    if not channel.features:
        problems.append(f"channel '{channel.name}' has no features; list some, or remove it")
    if not (_is_real(channel.resolution) and channel.resolution > 0):
        problems.append(
            f"channel '{channel.name}': resolution is {channel.resolution!r}, expected a number above 0"
        )
    if not _is_real(channel.zero):
        problems.append(f"channel '{channel.name}': zero is {channel.zero!r}, expected a number")
    return problems


def _slow_problems(channel: ChannelFeatures) -> list[str]:
    problems = []
    for feature in channel.features:
        where = f"slow.{channel.name}: {feature.kind}"
        if feature.kind in HISTORY:
            low, high = HISTORY[feature.kind]
            whole = len(feature.arguments) == 1 and feature.arguments[0].is_integer()
            if not whole or not low <= feature.arguments[0] <= high:
                problems.append(
                    f"{where} takes one number of rows, {low} .. {high}, as {feature.kind}({low})"
                )
        elif feature.kind != "value":
            known = ["value", *(f"{kind}(rows)" for kind in HISTORY)]
            problems.append(f"{where} is no feature of a slow channel{_hint(feature.kind, known)}")
        elif feature.arguments:
            problems.append(f"{where} takes no argument")
    return problems


def _hint(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; expected one of {', '.join(known)}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
