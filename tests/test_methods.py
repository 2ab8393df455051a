"""Simple methods as models: the same files, verbs and integers in C, and the advice to ship them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.decomposition import PCA

from edge_lstm.cli import main
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.detection.linear import Rows as LearningRows
from edge_lstm.detection.methods import METHODS, REBUILT, WINDOW, expectations, fit_method, method_config
from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import MissingTool, ModelError
from edge_lstm.evaluation.baselines import default_baselines
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.scaling import scaling_of
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs import costs
from edge_lstm.verbs.bench import bench_graph
from edge_lstm.verbs.costs import Cost, cost_of
from edge_lstm.verbs.evaluate import Evaluation, Method, baseline_methods, int8_method, with_costs
from edge_lstm.verbs.finetune import finetune
from edge_lstm.verbs.quantize import quantize
from edge_lstm.verbs.streams import Rows, StreamOptions, counts_of, network_rows, read_stream
from edge_lstm.verbs.train import train
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.executors import open_executor
from firmware_tools.host import HostExecutor, load_library

CONFIG = DetectorConfig()
# of VUS-PR and AUC-PR: a file's method learns from the rows right after a fault too, and it is rounded
AGREEMENT = 0.02


@pytest.fixture(scope="module")
def models(pump_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The int8 file of every method, beside its float one."""
    folder, found = tmp_path_factory.mktemp("methods"), {}
    for method in METHODS:
        path = folder / f"{method}.keras"
        train(pump_csv, path, TrainConfig(method=method))
        found[method] = path.with_suffix(".tflite")
        quantize(path, pump_csv, found[method])
    return found


@pytest.fixture(scope="module")
def rows(pump_csv: Path, models: dict[str, Path]) -> Rows:
    stream = read_tflite(models["var"]).stream
    return network_rows(read_stream(pump_csv, StreamOptions(), stream), stream, TrainConfig())


@pytest.fixture(scope="module")
def judged(rows: Rows) -> dict[str, Method]:
    """The baselines of the table that have C, by the name of their option."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "edge_lstm.verbs.evaluate.default_baselines",
            lambda learning: [baseline for baseline in default_baselines(learning) if baseline.method],
        )
        return {method.option: method for method in baseline_methods(rows, CONFIG).values()}


# --- the models ----------------------------------------------------------------------------------


def test_host_and_cortex_m4_compute_the_numpy_alarms_from_raw_integers(
    models: dict[str, Path], rows: Rows
) -> None:
    qgraphs = [read_tflite(path) for path in models.values()]
    raw = counts_of(qgraphs[0].stream, rows.dataset.values)[2500:3500]
    raw[100:105, 1] = raw[200] = -(2**31)
    library, machine = load_library(qgraphs), build_machine(qgraphs, core_named("cortex-m4"))
    for qgraph in qgraphs:
        with NumpyExecutor(qgraph) as executor:
            expected = executor.detect(raw)
        assert expected.score[-1] > 0, qgraph.name
        with HostExecutor(qgraph, library=library) as executor:
            host = executor.detect(raw)
        with EmulatedExecutor(qgraph, "cortex-m4", machine=machine) as executor:
            core = executor.detect(raw)
        for found in (host, core):
            assert (found.score == expected.score).all(), qgraph.name
            assert (found.alarm == expected.alarm).all(), qgraph.name


@pytest.mark.parametrize("method", list(METHODS))
def test_a_file_alarms_as_the_baseline_of_the_table(
    method: str, models: dict[str, Path], rows: Rows, judged: dict[str, Method]
) -> None:
    found = int8_method(read_tflite(models[method]), rows).alarms
    if method == "linear":  # its detector is the LSTM's: no baseline of the table but this
        assert found and found.auc_pr
        return
    expected = judged[method].alarms
    assert found and expected
    assert found.vus_pr == pytest.approx(expected.vus_pr, abs=AGREEMENT)
    assert found.auc_pr == pytest.approx(expected.auc_pr, abs=AGREEMENT)


@pytest.mark.parametrize("method", ["var", "pca"])
def test_litert_reads_the_file_and_its_network_adds_nothing(method: str, models: dict[str, Path]) -> None:
    qgraph = read_tflite(models[method])
    codes = np.random.default_rng(0).integers(-128, 128, (50, qgraph.features)).astype(np.int8)
    with open_executor("litert", qgraph, models[method].read_bytes()) as executor:
        assert (executor.run(codes) == qgraph.output.zero_point).all()


def test_the_c_of_a_detector_leaves_a_network_out_that_adds_nothing(
    models: dict[str, Path], pump_tflite: Path
) -> None:
    def detector_of(path: Path) -> str:
        qgraph = read_tflite(path)
        text = emit_c(lower(qgraph), scaling=scaling_of(qgraph.stream, qgraph.input))[f"{qgraph.name}.c"]
        return text[text.index("_detect(") :]

    assert "_step(state, x" in detector_of(pump_tflite)
    assert "_step(state, x" not in detector_of(models["ewma"])


def test_what_rebuilds_a_row_is_not_judged_as_a_forecast(models: dict[str, Path], rows: Rows) -> None:
    assert int8_method(read_tflite(models["pca"]), rows).forecast is None
    assert int8_method(read_tflite(models["persistence"]), rows).forecast is not None


def test_one_channel_is_rebuilt_amid_a_window() -> None:
    t = np.arange(1500)
    x = (np.sin(t / 7) + 0.1 * np.random.default_rng(0).normal(size=1500))[:, None]
    everywhere, never = np.ones(x.shape, dtype=bool), np.zeros(1500, dtype=bool)
    learning = LearningRows(x, everywhere, never, ~never)
    predictor, _ = fit_method("pca", learning)
    assert predictor.lags == WINDOW - 1
    windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], WINDOW)[:, ::-1]
    pca = PCA(0.9, svd_solver="full").fit(windows)
    left = windows - pca.inverse_transform(pca.transform(windows))
    found = x - expectations(predictor, learning)
    np.testing.assert_allclose(found[WINDOW - 1 :, 0], left[:, REBUILT], atol=1e-9)
    assert method_config("pca", CONFIG, 1).smoothing == "square"


def test_a_network_that_adds_nothing_is_not_trained_on(
    models: dict[str, Path], pump_csv: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.keras"
    with pytest.raises(ModelError, match="its method is ewma, its network adds nothing"):
        finetune(models["ewma"].with_suffix(".keras"), pump_csv, out)
    assert not out.exists()


# --- costs and advice ----------------------------------------------------------------------------


def evaluation(
    rows: Rows, judged: dict[str, Method], auc: dict[str, float], pump_csv: Path, **changes: Cost
) -> Evaluation:
    """Methods with AUC-PR and event F1 as given; those that are none of METHODS have no C."""
    some = judged["ewma"]
    assert some.alarms
    methods = {}
    for name, value in auc.items():
        option = name if name in METHODS else ""
        alarms = replace(some.alarms, auc_pr=value, event_f1=value)
        methods[METHODS.get(name, name)] = replace(some, alarms=alarms, option=option, cost=changes.get(name))
    own = replace(methods.pop("LSTM"), cost=changes.get("LSTM"))
    return Evaluation("pump", "LSTM", rows, {"LSTM int8": own} | methods, (), str(pump_csv))


def test_the_advice_is_a_command_that_makes_the_better_model(
    rows: Rows, judged: dict[str, Method], pump_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = {"LSTM": Cost(5000.0, 9000, 400), "ewma": Cost(260.4, 1100, 80)}
    text = evaluation(rows, judged, {"LSTM": 0.5, "ewma": 0.9, "pca": 0.7}, pump_csv, **price).verdict
    assert text.startswith("No, ship EWMA chart instead: the LSTM has AUC-PR 0.50 against 0.90 of EWMA chart")
    assert "takes 260 instructions a row and 1,100 bytes of flash, the LSTM 5,000 and 9,000." in text
    program, *command = shlex.split(text.split("To ship it: ")[1])
    assert program == "edge-lstm"
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    quantized = ["quantize", "pump_ewma.keras", "--data", str(pump_csv), "-o", "pump.tflite"]
    assert CliRunner().invoke(main, quantized, catch_exceptions=False).exit_code == 0
    qgraph = read_tflite(tmp_path / "pump.tflite")
    assert qgraph.detector and qgraph.detector.energy_gain == 0 and not qgraph.detector.output_weight.any()


def test_a_better_method_without_c_is_named_and_the_best_one_with_c_is_advised(
    rows: Rows, judged: dict[str, Method], pump_csv: Path
) -> None:
    text = evaluation(rows, judged, {"LSTM": 0.5, "forest": 0.9, "var": 0.7}, pump_csv).verdict
    assert "ship forest instead" in text and "forest, as it is judged here, has no C." in text
    assert text.endswith("-o pump_var.keras --method var")
    text = evaluation(rows, judged, {"LSTM": 0.5, "forest": 0.9, "var": 0.3}, pump_csv).verdict
    assert "Among the methods that have: Yes, the LSTM earns its flash" in text and "To ship" not in text


def test_costs_are_those_that_bench_counts(
    rows: Rows, judged: dict[str, Method], pump_csv: Path, pump_tflite: Path, models: dict[str, Path]
) -> None:
    qgraph = read_tflite(pump_tflite)
    found = with_costs(evaluation(rows, judged, {"LSTM": 0.5, "ewma": 0.9, "forest": 0.7}, pump_csv), qgraph,
                       CONFIG)  # fmt: skip
    cost, own = found.methods["EWMA chart"].cost, found.int8.cost
    assert cost and own and found.methods["forest"].cost is None and not found.notes
    measured = bench_graph(qgraph, ("cortex-m4",), costs.STEPS).cores["cortex-m4"]
    assert measured.detect_instructions_per_step
    assert own.instructions == measured.detect_instructions_per_step["mean"]
    assert own.ram_bytes == measured.ram_bytes
    # the shipped file's: its constants differ by the rows after faults, its code does not
    assert cost.flash_bytes == cost_of(read_tflite(models["ewma"])).flash_bytes
    assert cost.instructions < 0.2 * own.instructions and cost.flash_bytes < own.flash_bytes


def test_without_an_emulator_the_costs_are_missing_and_a_note_says_why(
    rows: Rows, judged: dict[str, Method], pump_csv: Path, pump_tflite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(qgraph: QGraph) -> Cost:
        raise MissingTool("arm-none-eabi-gcc is not on PATH")

    monkeypatch.setattr("edge_lstm.verbs.evaluate.cost_of", missing)
    plain = evaluation(rows, judged, {"LSTM": 0.5, "ewma": 0.9}, pump_csv)
    found = with_costs(plain, read_tflite(pump_tflite), CONFIG)
    assert found.notes == ("no instructions, flash and RAM: arm-none-eabi-gcc is not on PATH",)
    assert all(method.cost is None for method in found.methods.values())


def test_a_model_that_is_a_simple_method_is_called_by_its_name(
    models: dict[str, Path], pump_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm.verbs.evaluate.default_baselines", lambda learning: [])
    command = ["evaluate", str(models["pca"]), str(pump_csv), "--no-costs"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "PCA int8" in result.output and "instr." not in result.output
    assert "Nothing to decide: the model is itself a simple method, PCA." in result.output
