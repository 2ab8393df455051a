"""What a search may choose, and what a choice means for training, quantizer and detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice, product
from math import prod
from typing import Any

from edge_lstm.detection.config import DetectorConfig
from edge_lstm.errors import ConfigError, raise_all
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import PruneConfig, TrainConfig

Choice = str | int | float | bool
Params = dict[str, Choice]

SCHEMES = {
    "int8": QuantizeConfig(),
    "native": QuantizeConfig(profile="native"),
    "int4": QuantizeConfig(profile="native", weights="int4"),
}
THRESHOLDS = {"sigma": "sigma", "quantile": "quantile", "pot": "risk"}  # rule -> its option
DETECTOR = ("smoothing", "alpha", "threshold")  # what no forecast error judges
INPUT = "input:"  # before a channel's name


@dataclass(frozen=True)
class SearchSpace:
    """What is tried: every field lists the choices.  Also the help of the command line: a sentence a field.

    lines: beside the network: with, without.
    layers: LSTM layers, all of the same size.
    units: of each LSTM layer before pruning.
    windows: rows of a window of training.
    sparsities: shares of the units that are pruned after training.
    schemes: int8 (profile tflm), native (8-bit weights) and int4 (4-bit weights, profile native).
    smoothings: of the detector: both, residual, square.
    alphas: weights of a row in the detector's averages.
    thresholds: rules with their option, as in sigma=15, quantile=0.999 or pot=0.0001.
    """

    lines: tuple[str, ...] = ("with", "without")
    layers: tuple[int, ...] = (1, 2)
    units: tuple[int, ...] = (4, 6, 8, 12, 16)
    windows: tuple[int, ...] = (32, 64)
    sparsities: tuple[float, ...] = (0.0, 0.25, 0.5)
    schemes: tuple[str, ...] = ("int8", "native", "int4")
    smoothings: tuple[str, ...] = ("both", "residual", "square")
    alphas: tuple[float, ...] = (0.05, 0.1, 0.2)
    thresholds: tuple[str, ...] = ("sigma=10", "sigma=15", "sigma=25", "quantile=0.999", "pot=0.0001")

    def __post_init__(self) -> None:
        """Raises ConfigError with every choice that cannot be tried."""
        problems = []
        for field in fields(self):
            choices = getattr(self, field.name)
            if not choices or len(set(choices)) < len(choices):
                problems.append(f"{field.name} is {choices!r}, expected one or more choices, each once")
        for name, known in (("lines", ("with", "without")), ("schemes", tuple(SCHEMES))):
            problems += [
                f"{name}: '{choice}' is unknown, expected some of {', '.join(known)}"
                for choice in getattr(self, name)
                if choice not in known
            ]
        problems += [
            f"layers: {n} is no number of layers, expected 1 to 4"
            for n in self.layers
            if n not in range(1, 5)
        ]
        problems += self._refused()
        raise_all(ConfigError, "search space", problems)

    def _refused(self) -> list[str]:
        """What training, pruning and detector say to single choices."""
        taken = {
            "units": self.units, "timesteps": self.windows, "sparsity": self.sparsities,
            "smoothing": self.smoothings, "alpha": self.alphas, "threshold": self.thresholds,
        }  # fmt: skip
        found = [_problem(name, choice) for name, choices in taken.items() for choice in choices]
        return [problem for problem in found if problem]

    def choices(self) -> dict[str, tuple[Choice, ...]]:
        """The choices of each parameter of a trial."""
        names = (
            "line",
            "layers",
            "units",
            "timesteps",
            "sparsity",
            "scheme",
            "smoothing",
            "alpha",
            "threshold",
        )
        return {name: getattr(self, field.name) for name, field in zip(names, fields(self), strict=True)}


def without_labels(space: SearchSpace) -> SearchSpace:
    """The same without choices of the detector, which only labelled faults can judge."""
    usual = DetectorConfig()
    return replace(
        space, smoothings=(usual.smoothing,), alphas=(usual.alpha,), thresholds=(f"sigma={usual.sigma:g}",)
    )


def points(choices: Mapping[str, tuple[Choice, ...]], seen: set[str]) -> list[Params]:
    """The first point of the grid that ``seen`` (see ``name_of``) does not hold, as a list of one or none."""
    every = (dict(zip(choices, values, strict=True)) for values in product(*choices.values()))
    return list(islice((point for point in every if name_of(point) not in seen), 1))


def default_point(choices: Mapping[str, tuple[Choice, ...]]) -> Params | None:
    """The network that ``train`` and ``quantize`` make without options, None where it is not to be tried."""
    train, detector = TrainConfig(), DetectorConfig()
    point: Params = {
        "line": "with" if train.linear else "without", "layers": len(train.units), "units": train.units[0],
        "timesteps": train.timesteps, "sparsity": 0.0, "scheme": "int8", "smoothing": detector.smoothing,
        "alpha": detector.alpha, "threshold": f"{detector.threshold}={detector.sigma:g}",
    }  # fmt: skip
    point |= {name: True for name in choices if name.startswith(INPUT)}
    return point if all(point[name] in values for name, values in choices.items()) else None


def size(choices: Mapping[str, tuple[Choice, ...]]) -> int:
    """Points of the whole grid."""
    return prod(len(values) for values in choices.values())


def name_of(params: Mapping[str, Any]) -> str:
    """One text for one point, whatever the order of its parameters."""
    return repr(sorted(params.items()))


def _problem(name: str, choice: Any) -> str:
    """Why the part that takes this choice refuses it, or ''."""
    try:
        if name == "units":
            TrainConfig(units=(choice,))
        elif name == "timesteps":
            train_config({"timesteps": choice}, TrainConfig())
        elif name == "sparsity":
            PruneConfig(sparsity=choice)
        else:
            detector_config({name: choice})
    except ConfigError as error:
        return str(error)
    return ""


def train_config(params: Mapping[str, Any], base: TrainConfig) -> TrainConfig:
    """``base`` with what a point says of the network."""
    timesteps = params.get("timesteps", base.timesteps)
    return replace(
        base,
        linear=params.get("line", "with") == "with",
        units=(params.get("units", 1),) * params.get("layers", 1),
        timesteps=timesteps,
        burn_in=min(base.burn_in, max(timesteps // 4, 0)),
    )


def detector_config(params: Mapping[str, Any]) -> DetectorConfig:
    """The detector of a point; ConfigError for a threshold that is no rule with a number."""
    usual = DetectorConfig()
    rule, _, value = str(params.get("threshold", f"sigma={usual.sigma}")).partition("=")
    if rule not in THRESHOLDS:
        raise ConfigError(
            f"threshold '{rule}' is unknown, expected some of {', '.join(THRESHOLDS)} with =NUMBER"
        )
    try:
        options: dict[str, Any] = {THRESHOLDS[rule]: float(value)}
    except ValueError as error:
        raise ConfigError(f"threshold '{rule}={value}' has no number, expected as in sigma=15") from error
    return replace(
        usual,
        smoothing=params.get("smoothing", usual.smoothing),
        alpha=params.get("alpha", usual.alpha),
        threshold=rule,
        **options,
    )


def kept_channels(params: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """The channels that a point reads; those without a choice are read."""
    return tuple(name for name in names if params.get(INPUT + name, True))


def pruned_units(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Units of each LSTM layer after pruning, as ``training.removal`` removes them."""
    units: int = params["units"]
    gone = min(round(params["sparsity"] * units), units - 1)
    layers: int = params["layers"]
    return (units - gone,) * layers
