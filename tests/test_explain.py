"""explain against hand-worked functions, scikit-learn, statsmodels and the stream itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn.metrics import precision_score, recall_score
from statsmodels.tsa.stattools import acf

import edge_lstm
from edge_lstm.analysis.alarms import read_alarms
from edge_lstm.analysis.residuals import read_residuals
from edge_lstm.analysis.sensitivity import read_sensitivity
from edge_lstm.cli import main
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.graph import INPUT, Attend, Channel, Dense, Graph, Softmax, Stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.quantizer import quantize
from edge_lstm.reporting.explain import moving_lags
from edge_lstm.reporting.explain_plots import draw_overview
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.detectors import int8_detection
from edge_lstm.verbs.explain import Explanation
from edge_lstm.verbs.explain_network import forecast, normal_windows
from edge_lstm.verbs.streams import (
    StreamOptions,
    fine_of,
    network_rows,
    read_stream,
    scaling_for,
    train_config,
)


@pytest.fixture(scope="module")
def pump(
    pump_csv: Path, pump_keras: Path, pump_tflite: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Explanation, str]:
    """The pump explained, and its page."""
    page = tmp_path_factory.mktemp("explain") / "pump.html"
    return edge_lstm.explain(pump_tflite, pump_csv, page, pump_keras), page.read_text(encoding="utf-8")


def test_what_moves_a_known_function_is_found_exactly() -> None:
    windows = np.random.default_rng(1).integers(-99, 100, (12, 7, 3))
    found = read_sensitivity(windows, lambda x: 2.0 * x[:, -1, :1] - x[:, -3, 1:2], lags=4, ahead=2, seed=3)
    assert (found.lags, found.windows) == ((2, 3, 4, 5), 12)
    moved = found.by_lag != 0
    assert moved.tolist() == [[True, False, False, False], [False, False, True, False], [False] * 4]
    order = np.random.default_rng(3).permutation(12)  # each window gets the value of the one before it
    chain = windows[order, -1, 0]
    assert found.by_lag[0, 0] == np.abs(2.0 * (np.roll(chain, 1) - chain)).mean()
    assert (found.whole[:, 0] == found.change[:, :, 0].sum(axis=1)).all()
    assert found.shares.sum() == pytest.approx(1) and found.shares[2] == 0


def test_a_window_is_forecast_as_the_detector_forecasts_the_stream(pump_csv: Path, pump_tflite: Path) -> None:
    qgraph = read_tflite(pump_tflite)
    assert qgraph.detector is not None
    dataset = read_stream(pump_csv, StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made)).first(90)
    fine = fine_of(scaling_for(qgraph, rows), rows)
    expected = int8_detection(qgraph, rows)[1]
    found = forecast(qgraph, qgraph.detector, rows)(np.stack([fine[:70], fine[:70]]))
    assert np.abs(found - expected[70]).max() < 1e-12  # equal integers, scaled in another order


def test_windows_are_normal_rows_of_the_test_part(pump_csv: Path, pump_tflite: Path) -> None:
    qgraph = read_tflite(pump_tflite)
    dataset = read_stream(pump_csv, StreamOptions(), qgraph.stream)
    rows = network_rows(dataset, qgraph.stream, train_config(qgraph.made))
    label, test = np.asarray(dataset.label) > 0, rows.test
    fine = fine_of(scaling_for(qgraph, rows), rows)
    for window in normal_windows(qgraph, rows, 1, 5):
        starts = np.flatnonzero((fine == window[0]).all(axis=1))
        start = next(s for s in starts if np.array_equal(fine[s : s + len(window)], window))
        part = slice(start, start + len(window) + 1)
        assert test[part].all() and not label[part].any()


def test_errors_have_the_figures_of_scipy_and_statsmodels() -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_t(4, size=600)
    walk = np.zeros(600)
    for t in range(1, 600):
        walk[t] = 0.7 * walk[t - 1] + rng.normal()
    counted = np.ones((600, 2), dtype=bool)
    counted[100, 0] = False  # the longest run of the first channel starts after it
    first, second = read_residuals(np.stack([noise, walk], axis=1), counted, ["noise", "walk"])
    assert (first.rows, first.stretch, second.stretch) == (599, 499, 600)
    assert first.excess_kurtosis == stats.kurtosis(noise[counted[:, 0]])
    assert second.normal_p == stats.normaltest(walk).pvalue
    assert first.acf == tuple(acf(noise[101:], nlags=40, fft=True))
    assert first.memory == (0, 0.0)
    assert second.memory[0] == 1 and second.memory[1] == pytest.approx(0.7, abs=0.08)
    assert second.quantiles[0] == walk.min() and second.quantiles[-1] == walk.max()


def test_channels_that_are_never_forecast_or_never_err_do_not_break() -> None:
    counted = np.array([[True, False]] * 50)
    [found] = read_residuals(np.zeros((50, 2)), counted, ["still", "absent"])
    assert (found.name, found.normal_p, found.acf, found.memory) == ("still", None, (), (0, 0.0))


def test_alarms_have_the_figures_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    label = np.arange(400) >= 300
    score, threshold = rng.gamma(2.0, 1.0, 400) + 3.0 * label, np.full(400, 4.0)
    alarm = score >= 5.0
    found = read_alarms(score, threshold, alarm, label)
    assert found is not None
    hit = int((alarm & label).sum())
    assert found.confusion == ((int((~alarm & ~label).sum()), int((alarm & ~label).sum())), (100 - hit, hit))
    assert found.alarm_precision == precision_score(label, alarm)
    assert found.alarm_recall == recall_score(label, alarm)
    for place in (0, 50, -1):  # thresholds are multiples of the one that is set, in spreads
        above = np.sqrt(score / 4.0) >= found.ratio[place]
        assert found.precision[place] == precision_score(label, above)
        assert found.recall[place] == recall_score(label, above)
    above = np.sqrt(score / 4.0) >= found.best_ratio
    assert 2 * (above & label).sum() / (above.sum() + 100) == pytest.approx(found.best_f1)


@pytest.mark.parametrize("label", [np.zeros(9, dtype=bool), np.ones(9, dtype=bool)])
def test_alarms_of_one_kind_of_rows_are_not_judged(label: Any) -> None:
    assert read_alarms(np.ones(9), np.ones(9), np.zeros(9, dtype=bool), label) is None


def test_every_finding_of_the_pump_is_there(pump: tuple[Explanation, str], pump_csv: Path) -> None:
    found = pump[0].findings
    assert found.inputs == found.outputs and len(found.residuals) == len(found.inputs)
    assert found.sensitivity is not None and found.sensitivity.lags[0] == 1
    assert set(found.curves) == {"int8", "float"} and found.r2 is not None
    confusion = np.array(found.curves["int8"].confusion)
    label = read_stream(pump_csv, StreamOptions()).label
    assert label is not None
    test = label[-pump[0].data.steps :]
    assert confusion.sum(axis=1).tolist() == [int((test == 0).sum()), int((test > 0).sum())]
    for event in found.events:
        assert event.start_row >= len(label) - len(test)
        assert sum(event.contributions.values()) == pytest.approx(1)


def test_the_words_name_what_moves_most(pump: tuple[Explanation, str]) -> None:
    found = pump[0].findings
    assert found.sensitivity is not None
    most = found.inputs[int(found.sensitivity.shares.argmax())]
    assert found.sentences[0].startswith(f"The forecast rests on {most} (")
    assert any("labelled rows are in alarm" in sentence for sentence in found.sentences)


def test_the_page_is_whole_and_asks_for_nothing(pump: tuple[Explanation, str]) -> None:
    text = pump[1]
    ids = re.findall(r'<section id="(\w+)"', text)
    assert ids[:4] == ["words", "sensitivity", "residuals", "alarms"] and ids[-2:] == ["training", "made"]
    assert re.findall(r'<li><a href="#(\w+)"', text) == ids
    assert "http:" not in text and "https:" not in text and "<script" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    found = re.findall(r' id="([^"]+)"', text)
    assert len(found) == len(set(found))
    assert "Not on this page, as there is nothing to show: Attention" in text


def test_json_is_plain_and_has_every_finding(pump: tuple[Explanation, str]) -> None:
    found = json.loads(json.dumps(pump[0].to_json(), allow_nan=False))
    assert set(found["history"]) == {"loss", "val_loss", "learning_rate"}
    assert set(found["sensitivity"]["channels"]) == set(pump[0].findings.inputs)
    assert sum(channel["share"] for channel in found["sensitivity"]["channels"].values()) == pytest.approx(1)
    assert set(found["alarms"]) == {"int8", "float"} and found["r2"] == pump[0].findings.r2


def attention_model(path: Path, sharpness: float) -> Path:
    """Windows of 6 rows of 2 channels; row t weighs exp(sharpness * its first channel); no detector."""
    f = np.float32
    layers = (
        Dense("scores", f(sharpness) * np.array([[1.0], [0.0]], f), np.zeros(1, f)),
        Softmax("weights", "time"),
        Attend("context"),
        Dense("head", np.array([[0.0], [1.0]], f), np.zeros(1, f)),
    )
    stream = Stream((Channel("key"), Channel("value")))
    graph = Graph("looker", layers, stream, {}, ((INPUT,), (0,), (1, INPUT), (2,)), 6)
    x = np.random.default_rng(5).normal(size=(600, 2))
    path.write_bytes(emit_tflite(quantize(graph, x)))
    return path


def rows_csv(path: Path) -> Path:
    """Every sixth row has a large key."""
    rng = np.random.default_rng(6)
    key = np.where(np.arange(600) % 6 == 2, 2.0, -1.0) + 0.01 * rng.normal(size=600)
    value = rng.normal(size=600)
    text = "\n".join(f"{a:.4f},{b:.4f}" for a, b in zip(key, value, strict=True))
    path.write_text(f"key,value\n{text}\n")
    return path


def test_attention_without_keys_is_even_and_lags_move_the_output_alike(tmp_path: Path) -> None:
    found = edge_lstm.explain(
        attention_model(tmp_path / "a.tflite", 0.0), rows_csv(tmp_path / "a.csv")
    ).findings
    [weights] = found.attention.values()
    assert weights.shape == (1, 6) and weights == pytest.approx(1 / 6, abs=2e-3)
    assert found.sensitivity is not None
    by_lag = found.sensitivity.by_lag
    assert found.sensitivity.lags == (0, 1, 2, 3, 4, 5) and (by_lag[0] == 0).all()
    assert by_lag[1].min() > 0.5 * by_lag[1].max() > 0
    assert found.residuals == () and found.events == ()
    assert "rests on value (100%)" in found.sentences[0]


def test_attention_and_a_model_without_detector_are_on_the_page(tmp_path: Path) -> None:
    model, data = attention_model(tmp_path / "a.tflite", 2.0), rows_csv(tmp_path / "a.csv")
    words = ["explain", str(model), str(data), "-o", str(tmp_path / "a.html")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "carries no detector and does not say what it forecasts" in result.stderr
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<section id="attention">' in text and '<section id="residuals">' not in text
    [weights] = json.loads(CliRunner().invoke(main, [*words[:3], "--json"]).stdout)["attention"].values()
    assert np.shape(weights) == (1, 6) and np.sum(weights) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.tflite", "PUMP"], "cannot read nothing.tflite"),
        (["MODEL", "nothing.csv"], "nothing.csv: there is no such file"),
        (["MODEL", "PUMP", "-o", "no/such/folder.html"], "there is no such folder"),
        (["MODEL", "PUMP", "--reference", "OTHER"], "give the --reference that it was quantized from"),
    ],
)
def test_bad_input_is_one_line_and_no_page(
    words: list[str], message: str, pump_csv: Path, pump_tflite: Path, pump_keras: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from edge_lstm.verbs import explain

    graph = explain.read_graph(pump_keras)
    channels = tuple(replace(channel, name=f"x{channel.name}") for channel in graph.stream.channels)
    monkeypatch.setattr(explain, "read_graph", lambda path: replace(graph, stream=Stream(channels)))
    files = {"MODEL": str(pump_tflite), "PUMP": str(pump_csv), "OTHER": str(pump_keras)}
    result = CliRunner().invoke(main, ["explain", *(files.get(word, word) for word in words)])
    assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_recording_too_short_to_explain_is_said_in_a_note(
    pump_csv: Path, pump_tflite: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.csv"
    short.write_text("".join(pump_csv.read_text().splitlines(keepends=True)[:61]))
    found = edge_lstm.explain(pump_tflite, short, tmp_path / "short.html")
    assert found.findings.sensitivity is None
    assert any("no two stretches of" in note for note in found.data.notes)


@pytest.mark.parametrize(
    ("method", "lag", "says"),
    [
        ("zscore", 1, "No channel moves the forecast: it is constant"),
        ("pca", 0, "the last row it reads carries 100%"),
        ("persistence", 1, "the last row it reads carries 100%"),
    ],
)
def test_a_simple_method_rests_on_what_its_name_says(
    method: str, lag: int, says: str, pump_csv: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.keras"
    edge_lstm.train(pump_csv, model, TrainConfig(method=method))
    edge_lstm.quantize(model, pump_csv, tmp_path / "m.tflite")
    found = edge_lstm.explain(tmp_path / "m.tflite", pump_csv).findings
    assert found.sensitivity is not None and found.sensitivity.lags[0] == lag
    assert says in found.sentences[0].replace("output", "forecast")
    assert (len(found.residuals) > 0) == (method != "pca")
    if method == "persistence":  # the forecast of a channel is its last value, of no other
        assert (np.count_nonzero(found.sensitivity.whole, axis=1) == 1).all()


def test_errors_of_a_forecast_further_ahead_overlap_and_that_is_no_memory() -> None:
    noise = np.random.default_rng(8).normal(size=3_000)
    error = (noise[2:] + noise[1:-1] + noise[:-2])[:, None]  # of a forecast three rows ahead of a walk
    counted = np.ones_like(error, dtype=bool)
    assert read_residuals(error, counted, ["x"])[0].memory[0] == 1
    assert read_residuals(error, counted, ["x"], ahead=3)[0].memory == (0, 0.0)


def test_the_picture_of_the_readme(pump: tuple[Explanation, str], picture: Callable[[str], Path]) -> None:
    found, path = pump[0].findings, picture("explain.png")
    assert found.sensitivity is not None
    lags = slice(0, len(moving_lags(found.sensitivity)))
    draw_overview(found.sensitivity.by_lag[:, lags], found.inputs, found.sensitivity.lags[lags],
                  found.residuals[0], found.curves, path)  # fmt: skip
    assert path.read_bytes()[:4] == b"\x89PNG" and 10_000 < path.stat().st_size < 150_000
