"""int8 keeps the quality of float, and what the verbs say of it is what the arrays hold."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.detection import floating
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.scaling import counts_of
from edge_lstm.verbs import streams
from edge_lstm.verbs.detect import detect
from edge_lstm.verbs.evaluate import Evaluation, evaluate
from edge_lstm.verbs.quantize import quantize

R2_LOSS = 0.01  # relative, as the README promises by its table
AUC_LOSS = 0.01


@pytest.fixture(scope="module")
def evaluation(pump_tflite: Path, pump_csv: Path, pump_keras: Path) -> Evaluation:
    return evaluate(pump_tflite, pump_csv, pump_keras, costs=False)


def test_int8_keeps_the_forecast_and_the_alarms_of_float(evaluation: Evaluation) -> None:
    int8, real = evaluation.int8, evaluation.real
    assert real
    assert int8.forecast and real.forecast and int8.alarms and real.alarms
    assert int8.forecast.r2 is not None and real.forecast.r2 is not None
    assert int8.forecast.r2 >= real.forecast.r2 * (1 - R2_LOSS)
    assert int8.alarms.auc_pr is not None and real.alarms.auc_pr is not None
    assert int8.alarms.auc_pr >= real.alarms.auc_pr - AUC_LOSS


def test_the_rows_to_learn_from_hold_no_test_row_no_fault_and_no_row_after_one(
    evaluation: Evaluation,
) -> None:
    rows = evaluation.rows
    label = rows.dataset.label
    assert label is not None
    assert not (rows.learn & rows.test).any()
    for row in np.flatnonzero(label):
        assert not rows.learn[row : row + streams.RECOVERY_ROWS + 1].any()


def test_evaluate_detect_and_the_executor_agree_on_every_score(
    evaluation: Evaluation, pump_tflite: Path, pump_csv: Path
) -> None:
    found = detect(pump_tflite, pump_csv, on="host").detection
    expected = evaluation.int8.detection
    assert (found.score == expected.score).all() and (found.alarm == expected.alarm).all()
    with NumpyExecutor(read_tflite(pump_tflite)) as executor:
        raw = counts_of(executor.qgraph.stream, evaluation.rows.dataset.values)
        again = floating.from_fixed(executor.detect(raw))  # no gap: one segment
    assert (again.score == expected.score).all() and (again.threshold == expected.threshold).all()


def test_a_gap_resets_the_device_and_missing_samples_are_held(
    tmp_path: Path, pump_tflite: Path, pump_csv: Path
) -> None:
    """An hour without rows after row 300, and a channel that is silent for 20 rows."""
    lines = pump_csv.read_text().splitlines()
    shifted = [line.replace("2026-01-05T06", "2026-01-05T16", 1) for line in lines[301:601]]
    silent = [",".join([*line.split(",")[:2], "", *line.split(",")[3:]]) for line in lines[101:121]]
    kept = [lines[0], *lines[1:101], *silent, *lines[121:301], *shifted]
    (tmp_path / "gap.csv").write_text("\n".join(kept) + "\n")
    found = detect(pump_tflite, tmp_path / "gap.csv")
    assert any("gap" in note for note in found.notes), found.notes
    score = found.detection.score
    warmup = read_tflite(pump_tflite).detector.warmup  # type: ignore[union-attr]
    assert (score[300 : 300 + warmup] == 0).all() and (score[300 + warmup + 1 :] > 0).any()
    whole = detect(pump_tflite, pump_csv).detection.score
    assert (score[:100] == whole[:100]).all() and (score[100:120] != whole[100:120]).any()


def test_a_keras_model_of_someone_else_is_quantized_on_the_columns_of_the_csv(
    tmp_path: Path, pump_csv: Path
) -> None:
    from edge_lstm.training.config import TrainConfig
    from edge_lstm.training.model import build

    with warnings.catch_warnings():  # Keras 3.15 reads its variables as NumPy 2 warns not to
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        build(TrainConfig(units=(6,)), 5).save(tmp_path / "theirs.keras")
        build(TrainConfig(units=(6,)), 4).save(tmp_path / "narrow.keras")
    result = quantize(tmp_path / "theirs.keras", pump_csv, tmp_path / "theirs.tflite")
    assert result.qgraph.stream.names == ("vibration", "pressure", "flow", "current", "temperature")
    assert result.qgraph.stream.channels[1].unit == "bar"
    assert read_tflite(tmp_path / "theirs.tflite").detector is not None
    with pytest.raises(ModelError, match=r"the model has 4 channels .* gives 5 .*--channels"):
        quantize(tmp_path / "narrow.keras", pump_csv, tmp_path / "narrow.tflite")
    assert not (tmp_path / "narrow.tflite").exists()
