"""A fleet: a detector for each asset, whatever becomes of the others and of the workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.errors import ConfigError
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.registry.record import data_record, lineage
from edge_lstm.training.config import TrainConfig
from edge_lstm.verbs.dataset import dataset
from edge_lstm.verbs.fleet import Fleet, FleetConfig, fleet
from edge_lstm.verbs.fleet_pool import session
from edge_lstm.verbs.verify import verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TRAIN = TrainConfig(units=(4,), timesteps=16, burn_in=4, epochs=2, updates=3)
CONFIG = FleetConfig(batch=4, workers=1, steps=64)
GOOD = ("pump_a", "pump_b", "pump_c", "pump_d")


def workers_of_this_process() -> list[int]:
    """Ray's processes at work on a batch that descend from this process."""
    parents, titles = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_bytes()

    def descends(pid: int) -> bool:
        return pid == os.getpid() or (pid > 1 and descends(parents.get(pid, 0)))

    return [pid for pid, title in titles.items() if title.startswith(b"ray::run_batch") and descends(pid)]


@dataclass
class Killer:
    """Progress that kills the worker of the batch after the first one, once."""

    killed: list[int] = field(default_factory=list)

    def __call__(self, done: int, total: int, text: str) -> None:
        while done and not self.killed:
            for pid in workers_of_this_process():
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)


@dataclass(frozen=True)
class Made:
    result: Fleet
    killed: list[int]
    manifest: Path
    out: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Four pumps, a recording of another kind of damage between each; a worker is killed on the way."""
    folder = tmp_path_factory.mktemp("fleet")
    for seed, name in enumerate(GOOD):
        dataset("pump", folder / f"{name}.csv", rows=2000, seed=seed)
    (folder / "torn.csv").write_text((folder / "pump_a.csv").read_text()[:37])
    (folder / "empty.csv").write_text("time,a,b\n" + "".join(f"{t},nan,nan\n" for t in range(400)))
    names = ["torn", "pump_a", "empty", "pump_b", "pump_c", "gone", "pump_d"]
    manifest = folder / "fleet.csv"
    manifest.write_text("asset,data\n" + "".join(f"{name},{name}.csv\n" for name in names))
    with session(1, None):
        killer = Killer()
        result = fleet(manifest, folder / "out", CONFIG, TRAIN, progress=killer)
        yield Made(result, killer.killed, manifest, folder / "out")


def by_name(result: Fleet) -> dict[str, dict]:
    return {one["asset"]: one for one in result.results}


def test_a_fleet_survives_a_killed_worker_and_reports_every_asset(made):
    assert len(made.killed) == 1
    assert [one["asset"] for one in made.result.results] == [
        "torn", "pump_a", "empty", "pump_b", "pump_c", "gone", "pump_d",
    ]  # fmt: skip
    found = by_name(made.result)
    assert {name for name, one in found.items() if one["error"] is None} == set(GOOD)
    for name in GOOD:
        assert (found[name]["differing"], found[name]["test_rows"], found[name]["epochs"]) == (0, 400, 2)
        assert found[name]["verified_codes"] == 64 * 5
        model = Path(found[name]["model"])
        assert model.stat().st_size == found[name]["size_bytes"]
        [step] = lineage(read_tflite(model).made)
        assert (step.verb, step.seed) == ("fleet", TRAIN.seed)
        assert step.data == data_record(made.manifest.parent / f"{name}.csv", 2000)
        assert step.options["config"] == TRAIN.to_mapping()
    assert made.result.failed == 3
    assert made.result.seconds_each > 0


def test_a_bad_recording_fails_alone_with_one_line_and_writes_nothing(made):
    found = by_name(made.result)
    assert "gone.csv: No such file" in found["gone"]["error"]
    for name in ("torn", "empty", "gone"):
        assert found[name]["error"]
        assert "\n" not in found[name]["error"]
        assert "report it" not in found[name]["error"]
        assert not (made.out / name).exists()


def test_the_model_of_an_asset_is_whole_and_its_detector_agrees_too(made):
    checked = verify(made.out / "pump_d" / "model.tflite", on=("host",), steps=200)
    assert checked.agrees
    assert checked.agreements[0].detector is not None


def test_the_same_command_tries_only_what_failed_and_the_exit_code_says_so(made):
    before = (made.out / "pump_a" / "model.tflite").stat().st_mtime_ns
    options = "--units 4 --timesteps 16 --burn-in 4 --epochs 2 --updates 3 --batch 4 --steps 64"
    call = ["fleet", str(made.manifest), "-o", str(made.out), "--workers", "1", *options.split()]
    run = CliRunner().invoke(main, [*call, "--json"])
    assert run.exit_code == 1, run.output
    told = json.loads(run.stdout)
    assert (told["assets"], told["failed"], told["done_before"]) == (7, 3, 4)
    assert (made.out / "pump_a" / "model.tflite").stat().st_mtime_ns == before
    run = CliRunner().invoke(main, call)
    assert "4 assets trained (4 of them before), 3 failed" in run.stdout
    assert "failed: gone: " in run.stderr
    assert "pump_b" in run.stdout


def test_a_base_is_trained_on_for_each_asset(made, tmp_path):
    base = made.out / "pump_a" / "model.keras"
    few = tmp_path / "few.csv"
    few.write_text(f"asset,data\nb,{made.manifest.parent / 'pump_b.csv'}\n")
    config = FleetConfig(batch=1, workers=1, steps=64, base_epochs=1)
    result = fleet(few, tmp_path / "out", config, base=base)
    [one] = result.results
    assert (one["error"], one["epochs"], one["differing"]) == (None, 1, 0)
    with pytest.raises(ConfigError, match="--base brings its own options"):
        fleet(few, tmp_path / "out", config, TRAIN, base=base)


def test_options_out_of_range_are_told_together():
    with pytest.raises(ConfigError) as caught:
        FleetConfig(batch=0, workers=-1, steps=0)
    for name in ("batch is 0", "workers is -1", "steps is 0"):
        assert name in str(caught.value)


def test_a_fleet_is_of_networks(tmp_path):
    (tmp_path / "m.csv").write_text("asset,data\na,a.csv\n")
    with pytest.raises(ConfigError, match="method is pca, expected lstm"):
        fleet(tmp_path / "m.csv", tmp_path / "out", train=TrainConfig(method="pca"))
