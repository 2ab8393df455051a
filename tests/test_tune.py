"""tune on a small pump: the front keeps its limits when rebuilt, dear networks are never trained."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.errors import ConfigError
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.registry.record import lineage
from edge_lstm.reporting.front import FrontPage, Point, draw_front
from edge_lstm.training.config import TrainConfig
from edge_lstm.tuning.costs import Costs, Limits, measure_costs
from edge_lstm.tuning.space import SearchSpace, default_point, detector_config, pruned_units, train_config
from edge_lstm.verbs import tune_trial
from edge_lstm.verbs.streams import read_graph
from edge_lstm.verbs.tune import TuneConfig, Tuned, tune
from firmware_tools.boards.records import find_board

BOARD = "nrf52840-dk"
LIMITS = Limits(instructions=2500)
SPACE = SearchSpace(
    lines=("with",), layers=(1,), units=(4, 32), windows=(32,), sparsities=(0.5,), schemes=("native",),
    smoothings=("both",), alphas=(0.1,), thresholds=("sigma=15",),
)  # fmt: skip
CONFIG = TuneConfig(sampler="grid", epochs=2, trials=10)


@pytest.fixture(scope="module")
def tuned(pump_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tune(pump_csv, tmp_path_factory.mktemp("tuned"), SPACE, CONFIG, BOARD, LIMITS)


def test_networks_beyond_a_limit_are_rejected_untrained_and_all_others_measured(tuned: Tuned) -> None:
    assert tuned.counts == {"measured": 1, "rejected": 1, "given_up": 0, "failed": 0}
    assert {point.params["units"] for point in tuned.front} == {4}


def test_every_point_of_the_front_keeps_the_limits_when_it_is_built_again(
    tuned: Tuned, pump_csv: Path
) -> None:
    board, folder = find_board(BOARD), Path(tuned.folder)
    assert tuned.front
    for point in tuned.front:
        qgraph = read_tflite(folder / str(point.trial) / "model.tflite")
        costs = measure_costs(qgraph, board)
        assert costs == Costs(point.flash, point.ram, point.instructions, point.network)
        assert all(share <= 0 for share in tuned.limits.excess(costs).values())
        assert set(tuned.limits.excess(costs)) == {"flash", "ram", "instructions"}
        graph = read_graph(folder / str(point.trial) / "model.keras")
        assert graph.layers[0].units == 2
        [step] = lineage(qgraph.made)
        assert [step] == list(lineage(graph.made))
        assert (step.verb, step.options["trial"], step.data.file) == ("tune", point.trial, pump_csv.name)


def test_the_front_is_written_as_table_page_and_picture(tuned: Tuned) -> None:
    folder = Path(tuned.folder)
    with (folder / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == [point.trial for point in tuned.front]
    assert [float(row["quality"]) for row in rows] == [point.quality for point in tuned.front]
    page = (folder / "front.html").read_text()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert all(f">{point.instructions:,}<" in page for point in tuned.front)
    assert (folder / "front.png").read_bytes().startswith(b"\x89PNG")
    kept = {path.name for path in folder.iterdir() if path.is_dir()}
    assert kept == {str(point.trial) for point in tuned.front}


def test_the_same_command_goes_on_and_another_one_is_refused(tuned: Tuned, pump_csv: Path) -> None:
    space = ["--lines", "with", "--layers", "1", "--units", "4,32", "--windows", "32", "--sparsities", "0.5",
             "--schemes", "native", "--smoothings", "both", "--alphas", "0.1",
             "--thresholds", "sigma=15"]  # fmt: skip
    command = ["tune", str(pump_csv), "-o", tuned.folder, "--board", BOARD, "--sampler", "grid",
               "--epochs", "2", "--trials", "20", *space, "--json"]  # fmt: skip
    again = CliRunner().invoke(main, [*command, "--instructions", "2500"])
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    assert found["counts"] == tuned.counts
    assert found["front"] == json.loads(json.dumps(tuned.to_json()["front"]))
    other = CliRunner().invoke(main, [*command, "--instructions", "2400"])
    assert other.exit_code == 1
    assert "was begun with other options (limits)" in other.stderr


@pytest.fixture
def fixed_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs without compilers, for what they do not matter to."""
    monkeypatch.setattr(tune_trial, "measure_costs", lambda qgraph, board: Costs(4000, 400, 1000, 600))


def test_rows_of_the_test_part_change_nothing(
    tuned: Tuned, fixed_costs: None, pump_csv: Path, tmp_path: Path
) -> None:
    lines = pump_csv.read_text().splitlines()
    spoilt = [line.rsplit(",", 1)[0] + ",0" for line in lines[3300:]]
    other = tmp_path / "pump.csv"
    other.write_text("\n".join([*lines[:3300], *spoilt, ""]))
    again = tune(other, tmp_path / "out", SPACE, replace(CONFIG, trials=1), BOARD, LIMITS)
    assert [point.figures for point in again.front] == [point.figures for point in tuned.front]


def test_without_labels_the_forecast_is_the_quality(
    fixed_costs: None, pump_csv: Path, tmp_path: Path
) -> None:
    lines = [line.rsplit(",", 1)[0] for line in pump_csv.read_text().splitlines()]
    plain = tmp_path / "plain.csv"
    plain.write_text("\n".join([*lines, ""]))
    result = tune(plain, tmp_path / "out", SPACE, replace(CONFIG, trials=1))
    [point] = result.front
    assert result.judged == "R2 of the forecast on the normal validation rows"
    assert point.quality == point.figures["r2"]
    assert 0.3 < point.quality < 1
    with pytest.raises(ConfigError, match="--drop-inputs needs labelled faults"):
        tune(plain, tmp_path / "none", SPACE, TuneConfig(drop_inputs=True))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "anneal", "--trials", "0"], "2 problems"),
        (["--objectives", "flash"], "objectives are flash, expected quality and others"),
        (["--units", "0", "--schemes", "int2", "--thresholds", "sigma"], "search space: 3 problems"),
        (["--alphas", "2,0.1,0.1"], "each once"),
        (["--flash", "32k", "--instructions", "0"], "--instructions is 0, expected 1 or more"),
        (["--board", "arduino-mega"], "no emulated core counts the instructions of board 'arduino-mega'"),
        (["--board", "toaster"], "board 'toaster' is unknown"),
        (["--storage", "tune.db"], "expected an Optuna URL"),
    ],
)
def test_bad_options_are_told_plainly(
    arguments: list[str], message: str, pump_csv: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, ["tune", str(pump_csv), "-o", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_default_network_is_in_the_default_space() -> None:
    point = default_point(SearchSpace().choices())
    assert point is not None
    assert train_config(point, TrainConfig()) == TrainConfig()
    assert detector_config(point) == DetectorConfig()
    assert default_point(SPACE.choices()) is None


def test_an_untrained_network_has_the_units_that_pruning_leaves() -> None:
    assert pruned_units({"units": 6, "layers": 2, "sparsity": 0.25}) == (4, 4)
    assert pruned_units({"units": 1, "layers": 1, "sparsity": 0.5}) == (1,)


# of the 20,000-row pump, by the first 11 trials of: edge-lstm tune pump.csv --board nrf52840-dk --epochs 16
MEASURED = (  # trial, quality, instructions of a sample, of the network, flash, RAM
    (0, 0.748, 4720, 3402, 6849, 827),
    (1, 0.723, 4414, 3072, 8630, 863),
    (2, 0.746, 3029, 1678, 6781, 811),
    (3, 0.745, 2924, 1588, 6245, 803),
    (4, 0.780, 2703, 1406, 6803, 803),
    (5, 0.708, 2525, 1221, 6875, 803),
    (6, 0.649, 3183, 1889, 6825, 819),
    (7, 0.758, 6847, 5544, 8489, 915),
    (8, 0.760, 2519, 1222, 6871, 803),
    (9, 0.745, 2200, 858, 6289, 787),
)


def test_the_picture_of_the_readme_is_drawn(picture: Callable[[str], Path]) -> None:
    measured = [
        Point(trial, quality, flash, ram, instructions, network)
        for trial, quality, instructions, network, flash, ram in MEASURED
    ]
    front = [point for point in measured if point.trial in (9, 8, 4)]
    counts = {"measured": len(measured), "rejected": 0, "given_up": 1, "failed": 0}
    page = FrontPage("nRF52840-DK", "on the validation rows", front, measured, counts, {}, ())
    path = picture("tune.png")
    path.write_bytes(draw_front(page))
    assert 10_000 < path.stat().st_size < 150_000
    assert draw_front(page) == path.read_bytes()
