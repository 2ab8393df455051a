"""Options of training and pruning; the command line and the TOML file use these names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from edge_lstm.datasets.scaling import SCALERS
from edge_lstm.detection.methods import METHODS as SIMPLE
from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.predictor import MAX_AHEAD

LSTM = "lstm"
SCHEDULES = ("constant", "cosine", "plateau")
LOSSES = ("mse", "huber")
METHODS = ("element", "block", "units")
PRUNE_SCHEDULES = ("polynomial", "constant")

C = TypeVar("C", "TrainConfig", "PruneConfig", "FinetuneConfig")


@dataclass(frozen=True)
class TrainConfig:
    """How a forecaster is built and trained.  Also the help of the command line: a sentence a field.

    method: ``lstm``, or one that learns at once: ``linear`` (the line beside the LSTM, without it), ``var``,
        ``persistence``, ``ewma``, ``zscore`` or ``pca``; these read only scaler and fractions of the others.
    units: size of each stacked LSTM layer.
    timesteps: rows of a window of truncated backpropagation.
    ahead: rows from the last one read to the one that is forecast; 0 makes an autoencoder, which rebuilds the
        last row through its narrow middle.
    context: channels (commands, set points, time of day) that are read, but neither forecast nor scored.
    clock: whether the time of day is context too: channels day_sin and day_cos, made from the stamps.
    linear: whether a line (VAR) forecasts beside the network, which then learns the error that it leaves;
        an autoencoder has none.
    bottleneck: size of a dense layer between LSTM and output; 0: none, of an autoencoder a quarter of the
        channels.
    stride: rows between the starts of two windows.
    burn_in: first steps of a window without weight in the loss; its state starts at zero there.
    epochs: of ``updates`` each, at most.
    updates: steps of the optimizer an epoch, on windows drawn at random; 0: one pass over all windows.
    batch_size: windows a step of the optimizer.
    learning_rate: of AdamW, at the start.
    schedule: ``constant``, ``cosine`` (falls to a hundredth in the last epoch) or ``plateau`` (halved
        after 3 epochs without a better validation loss).
    dropout: share of the inputs of each LSTM layer that is left out, another one in each window.
    recurrent_dropout: the same for the state of each LSTM layer.
    clip_norm: largest norm of the whole gradient; 0 for none.
    patience: epochs without a better validation loss before training stops; 0 never stops early.
    weight_decay: of AdamW, on all but the biases.
    loss: ``mse`` or ``huber`` (grows linearly beyond an error of 1 in network units).
    scaler: ``standard``, ``minmax`` or ``robust``, fitted on the normal training rows.
    train_fraction: share of the rows, from the first on, to learn from.
    validation_fraction: share of the rows after those, to choose the best epoch by; the rest is the test.
    seed: of the weights, the order of the windows and dropout; equal seeds give equal networks.
    """

    method: str = "lstm"
    units: tuple[int, ...] = (16,)
    ahead: int = 1
    context: tuple[str, ...] = ()
    clock: bool = False
    linear: bool = True
    bottleneck: int = 0
    timesteps: int = 64
    stride: int = 4
    burn_in: int = 8
    epochs: int = 40
    updates: int = 20
    batch_size: int = 32
    learning_rate: float = 0.005
    schedule: str = "cosine"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    clip_norm: float = 1.0
    patience: int = 10
    weight_decay: float = 0.0
    loss: str = "huber"
    scaler: str = "standard"
    train_fraction: float = 0.6
    validation_fraction: float = 0.2
    seed: int = 7

    def __post_init__(self) -> None:
        """Raises ConfigError that lists every option out of its range."""
        for name in ("units", "context"):
            if isinstance(getattr(self, name), list):  # TOML and JSON have no tuples
                object.__setattr__(self, name, tuple(getattr(self, name)))
        raise_all(ConfigError, "training options", self._problems())

    def _problems(self) -> list[str]:
        problems = []
        if not (isinstance(self.units, tuple) and self.units and all(_is_whole(u, 1) for u in self.units)):
            problems.append(
                f"units is {self.units!r}, expected one whole number of 1 or more for each layer, "
                "as in units = [16] or [24, 12]"
            )
        for name, low in (
            ("timesteps", 1), ("stride", 1), ("burn_in", 0), ("epochs", 1), ("batch_size", 1),
            ("patience", 0), ("updates", 0), ("bottleneck", 0),
        ):  # fmt: skip
            problems += _whole_problems(name, getattr(self, name), low)
        if not problems and self.burn_in >= self.timesteps:
            problems.append(
                f"burn_in is {self.burn_in}, expected less than timesteps ({self.timesteps}), "
                "or no step of a window is learnt from"
            )
        problems += self._stream_problems()
        problems += _seed_problems(self.seed) + _above_problems("learning_rate", self.learning_rate)
        for name in ("clip_norm", "weight_decay"):
            problems += _range_problems(name, getattr(self, name), math.inf)
        for name in ("dropout", "recurrent_dropout"):
            problems += _range_problems(name, getattr(self, name), 1.0)
        problems += _choice_problems("method", self.method, (LSTM, *SIMPLE))
        problems += _choice_problems("schedule", self.schedule, SCHEDULES)
        problems += _choice_problems("loss", self.loss, LOSSES)
        problems += _choice_problems("scaler", self.scaler, SCALERS)
        return problems + self._fraction_problems()

    def _stream_problems(self) -> list[str]:
        problems = []
        if not (_is_whole(self.ahead, 0) and self.ahead <= MAX_AHEAD):
            problems.append(f"ahead is {self.ahead!r}, expected a whole number from 0 to {MAX_AHEAD}")
        context = self.context
        if not (isinstance(context, tuple) and all(isinstance(name, str) and name for name in context)):
            problems.append(f"context is {context!r}, expected names of channels")
        if self.method != LSTM and not problems and (self.ahead != 1 or context or self.clock):
            problems.append(
                f"method {self.method} forecasts the next row of every channel: ahead, context and clock are "
                "options of method lstm"
            )
        return problems

    def _fraction_problems(self) -> list[str]:
        train, validation = self.train_fraction, self.validation_fraction
        if not (_is_real(train) and _is_real(validation) and train > 0 < validation):
            return [
                f"train_fraction is {train!r} and validation_fraction {validation!r}, "
                "expected two numbers above 0"
            ]
        if train + validation >= 1 - 1e-9:  # 0.7 + 0.3 is not exactly 1 in binary
            return [
                f"train_fraction {train} and validation_fraction {validation} leave no rows for the test, "
                "expected a sum below 1"
            ]
        return []

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], where: str = "") -> TrainConfig:
        """Options of a TOML table or of a saved model; ConfigError on unknown names and bad values."""
        return _from_mapping(cls, options, where)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values that ``from_mapping`` takes."""
        return {**asdict(self), "units": list(self.units), "context": list(self.context)}


@dataclass(frozen=True)
class PruneConfig:
    """How a trained forecaster is pruned and trained on.  Also the help of the command line.

    method: ``element`` (single weights), ``block`` (4 neighbouring inputs of a unit, of an LSTM's in all its
        gates) or ``units`` (whole LSTM units, so that the matrices shrink).
    sparsity: share of each weight matrix, or of the units of each LSTM layer, that goes.
    schedule: ``polynomial`` removes less and less before each of the first epochs, ``constant`` all at once.
    steps: epochs over which ``polynomial`` removes.
    epochs: of fine-tuning with the removed weights held at 0; 0 leaves the network as cut.
    learning_rate: of the fine-tuning.
    seed: of the order of the windows and dropout; equal seeds give equal networks.
    """

    method: str = "units"
    sparsity: float = 0.5
    schedule: str = "polynomial"
    steps: int = 8
    epochs: int = 20
    learning_rate: float = 0.01
    seed: int = 7

    def __post_init__(self) -> None:
        """Raises ConfigError that lists every option out of its range."""
        problems = _choice_problems("method", self.method, METHODS)
        problems += _choice_problems("schedule", self.schedule, PRUNE_SCHEDULES)
        problems += _range_problems("sparsity", self.sparsity, 1.0)
        counts: list[str] = []
        for name, low in (("steps", 1), ("epochs", 0)):
            counts += _whole_problems(name, getattr(self, name), low)
        if not counts and self.schedule == "polynomial" and 0 < self.epochs < self.steps:
            counts.append(
                f"steps is {self.steps} and epochs {self.epochs}: the weights would never all be removed; "
                "raise epochs or lower steps"
            )
        problems += counts + _seed_problems(self.seed)
        problems += _above_problems("learning_rate", self.learning_rate)
        raise_all(ConfigError, "pruning options", problems)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], where: str = "") -> PruneConfig:
        """Options of a TOML table; ConfigError on unknown names and bad values."""
        return _from_mapping(cls, options, where)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values that ``from_mapping`` takes."""
        return asdict(self)


@dataclass(frozen=True)
class FinetuneConfig:
    """How a trained network is trained on in integers.  Also the help of the command line.

    epochs: passes over the training windows, at most; 0 keeps the network as it is.
    learning_rate: at the start; falls to a hundredth along a cosine.
    patience: epochs without a better validation loss before training stops; 0 never stops early.
    seed: of the order of the windows; equal seeds give equal networks.
    """

    epochs: int = 10
    learning_rate: float = 0.0005
    patience: int = 5
    seed: int = 7

    def __post_init__(self) -> None:
        """Raises ConfigError that lists every option out of its range."""
        problems = _whole_problems("epochs", self.epochs, 0) + _whole_problems("patience", self.patience, 0)
        problems += _above_problems("learning_rate", self.learning_rate) + _seed_problems(self.seed)
        raise_all(ConfigError, "fine-tuning options", problems)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], where: str = "") -> FinetuneConfig:
        """Options of a TOML table; ConfigError on unknown names and bad values."""
        return _from_mapping(cls, options, where)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values that ``from_mapping`` takes."""
        return asdict(self)


def _from_mapping(kind: type[C], options: Mapping[str, Any], where: str) -> C:
    place = f"{where}: " if where else ""
    if not isinstance(options, Mapping):
        raise ConfigError(f"{place}found {options!r}, expected a table of names and values")
    known = [field.name for field in fields(kind)]
    unknown = []
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
            unknown.append(f"option '{name}' is unknown; {hint}")
    raise_all(ConfigError, where or "options", unknown)
    try:
        return kind(**options)
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from error


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole_problems(name: str, value: object, low: int) -> list[str]:
    return [] if _is_whole(value, low) else [f"{name} is {value!r}, expected a whole number of {low} or more"]


def _seed_problems(value: Any) -> list[str]:
    if _is_whole(value, 0) and value < 2**32:
        return []
    return [f"seed is {value!r}, expected a whole number from 0 to 2**32 - 1"]


def _above_problems(name: str, value: Any) -> list[str]:
    good = _is_real(value) and value > 0
    return [] if good else [f"{name} is {value!r}, expected a number above 0"]


def _range_problems(name: str, value: Any, high: float) -> list[str]:
    """0 is in, ``high`` is out."""
    if _is_real(value) and 0 <= value < high:
        return []
    below = "" if math.isinf(high) else f" and below {high:g}"
    return [f"{name} is {value!r}, expected a number of 0 or more{below}"]


def _choice_problems(name: str, value: object, choices: tuple[str, ...]) -> list[str]:
    return [] if value in choices else [f"{name} is {value!r}, expected one of {', '.join(choices)}"]
