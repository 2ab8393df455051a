"""Training: options, weighted loss, reproducible weights, and figures of a long stateful run."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from edge_lstm.datasets.dataset import Dataset, split
from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.graph import Channel, Dense, Graph, Lstm, Stream
from edge_lstm.reference import floating
from edge_lstm.training import model as model_module
from edge_lstm.training import trainer as trainer_module
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.training.figures import forecast_figures
from edge_lstm.training.fit import Prepared, Trained, fit, fresh_graph, prepare, scheduled_rate
from edge_lstm.training.model import get_weights, load_keras
from edge_lstm.training.optimise import optimise
from edge_lstm.training.samples import Samples
from edge_lstm.training.trainer import Trainer

TINY = TrainConfig(
    linear=False,
    updates=0,
    loss="mse",
    units=(4,),
    timesteps=16,
    stride=8,
    burn_in=2,
    epochs=15,
    batch_size=8,
    learning_rate=0.03,
    patience=0,
)


def waves(rows: int = 600, seed: int = 0) -> Dataset:
    """Two channels, one a lagged copy of the other, with missing values, a gap and a labelled fault."""
    rng = np.random.default_rng(seed)
    phase = np.cumsum(0.3 + 0.1 * rng.random(rows))
    values = np.stack([10 + 3 * np.sin(phase), -2 + np.sin(phase - 0.7)], axis=1)
    values += rng.normal(0, 0.05, values.shape)
    label = np.zeros(rows, np.uint8)
    label[100:110] = 1
    values[100:110] += 40
    values[rng.random(values.shape) < 0.02] = np.nan
    gap = np.zeros(rows, np.bool_)
    gap[rows // 3] = gap[rows * 7 // 10] = True
    return Dataset(
        ("a", "b"), ("bar", ""), values, ~np.isnan(values), gap, label, np.arange(rows) * 2.0, period_s=2.0
    )


@pytest.fixture(scope="module")
def trained() -> Trained:
    return fit(waves(), TINY, name="waves")


def test_equal_input_gives_equal_weights_and_another_seed_does_not(trained: Trained) -> None:
    again = fit(waves(), TINY, name="waves")
    assert all(
        (a == b).all() for a, b in zip(get_weights(trained.model), get_weights(again.model), strict=True)
    )
    assert again.graph.made == trained.graph.made
    other = fit(waves(), replace(TINY, epochs=1, seed=8))
    assert (get_weights(trained.model)[0] != get_weights(other.model)[0]).any()


def test_dropout_is_reproducible_and_off_after_training() -> None:
    config = replace(TINY, epochs=1, dropout=0.3, recurrent_dropout=0.3)
    first, second = fit(waves(300), config), fit(waves(300), config)
    assert (get_weights(first.model)[1] == get_weights(second.model)[1]).all()
    assert first.history == second.history
    x = np.random.default_rng(0).normal(size=(1, 20, 2)).astype(np.float32)
    ours, _ = floating.run(first.graph, x)
    np.testing.assert_allclose(ours, first.model(x, training=False).numpy(), atol=1e-5)
    assert np.abs(ours - first.model(x, training=True).numpy()).max() > 0.01


def test_training_beats_persistence_and_says_how_it_was_made(trained: Trained) -> None:
    figures = trained.figures["validation"]
    assert figures["r2_mean"] > figures["persistence_r2_mean"]
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    assert [len(series) for series in trained.history.values()] == [TINY.epochs] * 3
    made = trained.graph.made
    assert set(made) == {"train", "data", "versions", "history", "figures"}
    assert TrainConfig.from_mapping(made["train"]) == TINY
    assert made["data"]["rows"] == 600 and made["data"]["normal_train_rows"] == 350
    assert made["versions"]["keras"] == load_keras().__version__
    assert trained.stream.names == ("a", "b") and trained.stream.period_s == 2.0
    assert trained.graph.name == "waves"


def test_the_scaling_knows_only_normal_training_rows() -> None:
    dataset = waves()
    seen = split(dataset, TINY.train_fraction, TINY.validation_fraction).train
    expected = np.nanmean(seen.values[seen.normal], axis=0)
    stream = prepare(dataset, TINY).stream
    np.testing.assert_allclose(stream.center, expected)
    assert stream.center[0] < 11  # the fault of +40 is not in it


def test_a_given_stream_is_not_fitted_again() -> None:
    stream = Stream((Channel("a", "", 1.0, 2.0), Channel("b", "", 3.0, 4.0)))
    assert prepare(waves(), TINY, stream).stream is stream


def one_trainer(config: TrainConfig, prepared: Prepared, train: Samples | None = None) -> Trainer:
    """A fresh network and its windows."""
    graph = fresh_graph(config, prepared.stream, 2)
    parts = train or prepared.train, prepared.validation
    return Trainer([graph], [parts[0]], [parts[1]], config, [config.seed])


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_the_loss_is_the_exact_mean_over_weighted_entries(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "VALIDATION_WINDOWS", 3)  # the last part is smaller
    config = replace(TINY, loss=kind)
    prepared = prepare(waves(), config)
    trainer = one_trainer(config, prepared)
    windows = prepared.validation
    rows = windows.starts[:, None] + np.arange(windows.timesteps)
    weights = windows.weights[rows] * (np.arange(windows.timesteps) >= windows.burn_in)[:, None]
    assert windows.count % 3 and (weights == 0).any()
    forecast, _ = floating.run(trainer.graph(0), windows.inputs[rows])
    error = np.abs(forecast - windows.targets[rows])
    loss = error**2 if kind == "mse" else np.where(error <= 1, error**2 / 2, error - 0.5)
    expected = loss[weights > 0].mean()
    assert trainer.validate()[0] == pytest.approx(expected, rel=1e-5)


def test_entries_without_weight_do_not_move_the_weights() -> None:
    config = replace(TINY, epochs=1)
    prepared = prepare(waves(), config)
    train = prepared.train
    spoilt = replace(train, targets=np.where(train.weights > 0, train.targets, 1e6))
    results = []
    for part in (train, spoilt):
        trainer = one_trainer(config, prepared, part)
        trainer.epoch(np.array([0.01]))
        results.append(trainer.weights)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(*results, strict=True))


def largest_move(before: list[Any], after: list[Any]) -> float:
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(before, after, strict=True))


def test_the_gradient_is_clipped_and_the_learning_rate_is_the_one_asked_for() -> None:
    config = replace(TINY, clip_norm=1e-12, batch_size=1000)
    prepared = prepare(waves(), config)
    trainer = one_trainer(config, prepared)
    before = trainer.weights
    trainer.epoch(np.array([0.01]))  # one step; Adam's epsilon of 1e-7 swallows a gradient of norm 1e-12
    assert largest_move(before, trainer.weights) < 1e-6
    free = one_trainer(replace(config, clip_norm=0.0), prepared)
    free.epoch(np.array([0.01]))
    moved = largest_move(before, free.weights)
    assert moved == pytest.approx(0.01, rel=1e-2)  # Adam's first step is the learning rate


class Script:
    """A trainer that returns prepared losses, a list a network, and counts epochs in its one weight."""

    def __init__(self, *losses: list[float]) -> None:
        self.losses, self.rates = np.array(losses), list[Any]()
        self.weights = [np.zeros((len(losses), 1))]

    @property
    def count(self) -> int:
        return len(self.losses)

    def epoch(self, rates: Any) -> Any:
        self.rates.append(rates)
        self.weights = [np.full((self.count, 1), float(len(self.rates)))]
        return np.ones(self.count)

    def validate(self) -> Any:
        return self.losses[:, len(self.rates) - 1]


def run_script(
    script: Script, **options: Any
) -> tuple[float, dict[str, list[float]], list[tuple[int, int, str]]]:
    shown: list[tuple[int, int, str]] = []
    [history] = optimise(
        script, script.losses.shape[1], lambda *_: 0.1, progress=lambda *line: shown.append(line), **options
    )
    return float(script.weights[0][0, 0]), history, shown


def test_the_weights_of_the_best_validation_loss_are_restored() -> None:
    kept, history, shown = run_script(Script([3.0, 1.0, 2.0, 2.5]))
    assert kept == 2 and history["validation_loss"] == [3.0, 1.0, 2.0, 2.5]
    assert shown[1] == (2, 4, "loss 1 validation 1")


def test_training_stops_early_and_fills_the_bar() -> None:
    kept, history, shown = run_script(Script([3.0, 1.0, 2.0, 2.0, 0.5, 0.1]), patience=2)
    assert kept == 2 and len(history["loss"]) == 4
    assert shown[-1] == (6, 6, "loss 1 validation 2 stopped early")


def test_only_settled_epochs_are_kept() -> None:
    kept, _, _ = run_script(Script([0.1, 0.2, 0.9, 0.8]), settled=2)
    assert kept == 4


@pytest.mark.parametrize("losses", [[1.0, math.nan], [1.0, math.inf]])
def test_a_diverged_training_says_what_to_do(losses: list[float]) -> None:
    with pytest.raises(
        RuntimeFailure, match=r"diverged in epoch 2: loss 1.0, .*lower learning_rate, or set clip_norm"
    ):
        run_script(Script(losses))


def test_a_real_training_that_diverges_is_a_stated_failure() -> None:
    with pytest.raises(RuntimeFailure, match="the training diverged"):
        fit(waves(300), replace(TINY, learning_rate=1e38, clip_norm=0.0))


def test_ctrl_c_in_an_epoch_goes_through() -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(waves(300), TINY, interrupt)


def test_the_schedules_of_the_learning_rate() -> None:
    cosine = replace(TINY, schedule="cosine", learning_rate=1.0, epochs=11)
    assert scheduled_rate(cosine, 0, []) == 1.0
    assert scheduled_rate(cosine, 5, []) == pytest.approx(0.505)
    assert scheduled_rate(cosine, 10, []) == pytest.approx(0.01)
    assert scheduled_rate(replace(cosine, epochs=1), 0, []) == 1.0
    plateau = replace(cosine, schedule="plateau")
    losses = [3.0, 2.0, 2.0, 2.1, 1.9, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    rates = [scheduled_rate(plateau, epoch, losses[:epoch]) for epoch in range(len(losses) + 1)]
    assert rates == [1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert scheduled_rate(replace(cosine, schedule="constant"), 7, losses) == 1.0


def test_too_few_rows_are_named_with_their_part() -> None:
    faulty = np.zeros(80, np.uint8)
    faulty[48:64] = 1
    with pytest.raises(DataError, match="the validation part: no window of 8 rows has a normal row behind"):
        fit(replace(waves(80), label=faulty), TINY)


def small_graph(outputs: int = 2, seed: int = 3) -> Graph:
    rng = np.random.default_rng(seed)
    lstm = Lstm("lstm_1", rng.normal(0, 0.5, (2, 12)), rng.normal(0, 0.5, (3, 12)), rng.normal(0, 0.5, 12))
    dense = Dense("dense", rng.normal(0, 0.5, (3, outputs)), rng.normal(0, 0.5, outputs))
    return Graph("small", (lstm, dense), Stream((Channel("a", "", 10.0, 2.0), Channel("b", "", -2.0, 0.7))))


def test_forecast_figures_follow_the_device_row_by_row() -> None:
    graph, part, burn_in = small_graph(), waves(200), 5
    state, age, held = floating.reset(graph), 0, np.zeros(2)
    forecast: np.ndarray[Any, Any] | None = None
    errors, changes, targets, usable = [], [], [], False
    for row in range(part.rows):
        if part.gap[row]:
            state, age, held, forecast = floating.reset(graph), 0, np.zeros(2), None
        if not part.present[row].any():
            continue
        x = (part.values[row] - graph.stream.center) / graph.stream.scale
        for channel in np.flatnonzero(part.present[row]):
            if forecast is not None and age > burn_in and usable and part.normal[row]:
                errors.append((channel, x[channel] - forecast[channel]))
                changes.append((channel, x[channel] - held[channel]))
                targets.append((channel, x[channel]))
        held = np.where(part.present[row], np.nan_to_num(x), held)
        out, state = floating.run(graph, held[None, None], state)
        forecast, usable, age = out[0, 0], bool(part.normal[row]), age + 1
    figures = forecast_figures(graph, part, burn_in)
    assert figures["mse"] == pytest.approx(np.mean([e**2 for _, e in errors]), rel=1e-5)
    assert figures["persistence_mse"] == pytest.approx(np.mean([e**2 for _, e in changes]), rel=1e-5)
    for channel, name in enumerate(part.names):
        spread = np.var([x for c, x in targets if c == channel])
        mse = np.mean([e**2 for c, e in errors if c == channel])
        assert figures["r2"][name] == pytest.approx(1 - mse / spread, rel=1e-4)
    assert figures["r2_mean"] == pytest.approx(np.mean(list(figures["r2"].values())))


def test_a_channel_that_does_not_vary_has_no_r2() -> None:
    part = waves(200)
    values = part.values.copy()
    values[:, 1] = np.where(part.present[:, 1], -2.0, np.nan)
    figures = forecast_figures(small_graph(), replace(part, values=values))
    assert figures["r2"]["b"] is None and figures["r2_mean"] == figures["r2"]["a"]


def test_figures_of_rows_that_do_not_count_are_refused() -> None:
    part = waves(200).slice(100, 110)
    with pytest.raises(DataError, match="none of the 10 rows is normal and has 3 others before it"):
        forecast_figures(small_graph(), part, 2)


WRONG: list[tuple[str, Any, str]] = [
    ("units", (), "units is ()"), ("units", [4, 0], "units is (4, 0)"), ("units", 16, "units is 16"),
    ("timesteps", 0, "timesteps is 0, expected a whole number of 1 or more"),
    ("stride", 1.5, "stride is 1.5"), ("burn_in", -1, "burn_in is -1"),
    ("burn_in", 64, "burn_in is 64, expected less than timesteps (64)"),
    ("epochs", True, "epochs is True"), ("batch_size", "8", "batch_size is '8'"),
    ("patience", None, "patience is None"),
    ("learning_rate", 0.0, "learning_rate is 0.0, expected a number above 0"),
    ("learning_rate", math.nan, "learning_rate is nan"),
    ("schedule", "linear", "schedule is 'linear', expected one of constant, cosine, plateau"),
    ("dropout", 1.0, "dropout is 1.0, expected a number of 0 or more and below 1"),
    ("recurrent_dropout", -0.1, "recurrent_dropout is -0.1"), ("clip_norm", -1, "clip_norm is -1"),
    ("weight_decay", math.inf, "weight_decay is inf"), ("loss", "mae", "loss is 'mae'"),
    ("scaler", "log", "scaler is 'log'"),
    ("train_fraction", 0, "train_fraction is 0"), ("validation_fraction", "x", "validation_fraction 'x'"),
    ("validation_fraction", 0.4, "leave no rows for the test, expected a sum below 1"),
    ("seed", 2**32, "seed is 4294967296, expected a whole number from 0 to 2**32 - 1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_an_option_out_of_its_range_is_named_with_what_was_found(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_mapping({name: value})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_all_wrong_options_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"training options: 4 problems(\n  - .*){4}$"):
        TrainConfig(epochs=0, loss="mae", dropout=2.0, seed=-1)


def test_an_unknown_option_gets_a_hint() -> None:
    with pytest.raises(
        ConfigError, match="train.toml: option 'time_steps' is unknown; did you mean 'timesteps'"
    ):
        TrainConfig.from_mapping({"time_steps": 3}, "train.toml")
    with pytest.raises(
        ConfigError, match="option 'x' is unknown; expected one of method, units, ahead, context"
    ):
        TrainConfig.from_mapping({"x": 3})
    with pytest.raises(ConfigError, match=r"^found \[1\], expected a table"):
        TrainConfig.from_mapping([1])  # type: ignore[arg-type]


def test_options_survive_json_and_every_one_is_explained() -> None:
    config = TrainConfig(units=(3, 4), dropout=0.25)
    assert TrainConfig.from_mapping(config.to_mapping()) == config
    assert PruneConfig.from_mapping(PruneConfig(steps=2).to_mapping()) == PruneConfig(steps=2)
    for kind in (TrainConfig, PruneConfig):
        missing = [
            field.name for field in fields(kind) if f"\n    {field.name}: " not in (kind.__doc__ or "")
        ]
        assert missing == []


def test_a_missing_tensorflow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> Any:
        raise MissingTool(f"'{module}' is not installed; pip install 'edge-lstm[{extra}]'")

    monkeypatch.setattr(model_module, "require", absent)
    with pytest.raises(MissingTool, match=r"'tensorflow' is not installed; pip install 'edge-lstm\[train\]'"):
        load_keras.__wrapped__()


def test_keras_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_keras().backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeFailure, match="Keras runs on 'jax' in this process.*KERAS_BACKEND=tensorflow"):
        load_keras.__wrapped__()


def test_silence_ends_with_the_import(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with model_module._silent_start():
        os.write(2, b"noise")
    os.write(2, b"signal")
    assert capfd.readouterr().err == "signal"
