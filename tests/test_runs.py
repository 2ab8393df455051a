"""The registry: what every artefact carries, what `runs` makes of it, and that the same comes out again."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli import main
from edge_lstm.emit.onnx_model import emit_onnx
from edge_lstm.errors import ConfigError, DataError, MissingTool, ModelError, OutputError, RuntimeFailure
from edge_lstm.graph import Dense, Graph, Stream
from edge_lstm.registry.artefacts import read_artefact, read_folder
from edge_lstm.registry.comparison import compare_artefacts
from edge_lstm.registry.manifest import MANIFEST
from edge_lstm.registry.record import FileRecord, Step, content_sha256, lineage, with_step
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.verbs.convert import convert
from edge_lstm.verbs.finetune import finetune
from edge_lstm.verbs.prune import prune
from edge_lstm.verbs.quantize import quantize
from edge_lstm.verbs.reproduce import reproduce
from edge_lstm.verbs.runs import Run, changed_options, compare, export_runs, runs
from edge_lstm.verbs.train import train

SMALL = TrainConfig(units=(4,), epochs=1, updates=2, timesteps=16, batch_size=8)


def edge_lstm(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["runs", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def models(pump_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with every verb that makes another file of it, and a simple method beside it."""
    folder = tmp_path_factory.mktemp("models")
    train(pump_csv, folder / "float.keras", SMALL)
    prune(folder / "float.keras", pump_csv, folder / "cut.keras", PruneConfig(epochs=0))
    finetune(folder / "cut.keras", pump_csv, folder / "tuned.keras", None, FinetuneConfig(epochs=0))
    quantize(folder / "tuned.keras", pump_csv, folder / "pump.tflite")
    convert(folder / "pump.tflite", folder / "c")
    convert(folder / "pump.tflite", folder / "windows.tflite", timesteps=8)
    convert(folder / "float.keras", folder / "float.onnx")
    train(pump_csv, folder / "line.keras", TrainConfig(method="linear"))
    quantize(folder / "line.keras", pump_csv, folder / "line.tflite", resolution=["flow=0.5"])
    return folder


def by_path(folder: Path) -> dict[str, Run]:
    return {run.path: run for run in runs(folder).runs}


def test_every_artefact_says_what_made_it_and_from_what(models: Path, pump_csv: Path) -> None:
    found = by_path(models)
    verbs = {path: (run.depth, run.verb) for path, run in found.items()}
    assert verbs == {
        "float.keras": (0, "train"), "cut.keras": (1, "prune"), "tuned.keras": (2, "finetune"),
        "pump.tflite": (3, "quantize"), "c/made.json": (4, "convert"), "windows.tflite": (4, "convert"),
        "float.onnx": (1, "convert"), "line.keras": (0, "train"), "line.tflite": (1, "quantize"),
    }  # fmt: skip
    assert [*found].index("cut.keras") < [*found].index("pump.tflite") < [*found].index("line.keras")
    first = found["float.keras"]
    assert first.options == {"units": [4], "epochs": 1, "updates": 2, "timesteps": 16, "batch_size": 8}
    assert first.seed == 7 and first.data is not None and first.parent is None
    assert first.data["file"] == "pump.csv" and first.data["rows"] == 4000
    assert set(first.versions) == {"edge_lstm", "python", "numpy", "keras", "tensorflow"}
    assert set(first.figures) == {"r2", "mse", "loss"}
    assert found["cut.keras"].parent == {"file": "float.keras", "sha256": first.sha256}
    assert found["line.tflite"].options == {"resolution": ["flow=0.5"]}
    assert found["windows.tflite"].options == {"timesteps": 8, "to": "tflite"}
    assert str(pump_csv.parent) not in json.dumps(runs(models).to_json()["runs"])


def test_a_file_that_comes_out_as_it_went_in_gets_no_step(models: Path, tmp_path: Path) -> None:
    convert(models / "pump.tflite", tmp_path / "copy.tflite")
    assert (tmp_path / "copy.tflite").read_bytes() == (models / "pump.tflite").read_bytes()


def test_the_chain_is_made_again_from_the_recording_alone(
    models: Path, pump_csv: Path, tmp_path: Path
) -> None:
    """Trained, pruned, fine-tuned and quantized again: each file is the same, the last one byte for byte."""
    recording = shutil.copy(pump_csv, tmp_path / "renamed.csv")
    result = reproduce(models / "pump.tflite", [Path(recording)], tmp_path / "again.tflite")
    steps = [(step.verb, step.file, step.same, step.taken) for step in result.steps]
    assert steps == [
        ("train", "float.keras", True, False), ("prune", "cut.keras", True, False),
        ("finetune", "tuned.keras", True, False), ("quantize", "pump.tflite", True, False),
    ]  # fmt: skip
    assert result.comparison.same_content and result.versions == {}
    assert (tmp_path / "again.tflite").read_bytes() == (models / "pump.tflite").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.tflite", "renamed.csv"]


@pytest.mark.parametrize("name", ["windows.tflite", "float.onnx", "line.tflite"])
def test_a_parent_that_is_there_is_taken(name: str, models: Path, pump_csv: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    result = edge_lstm("reproduce", models / name, "--data", pump_csv, "-o", out, "--parents", models)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the same content") == 3 and ": found, the same content" in result.stdout
    assert out.read_bytes() == (models / name).read_bytes()


def test_another_version_and_another_number_are_told_apart(
    models: Path, pump_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_lstm.registry.record.__version__", "9.9.9")
    arguments = ("reproduce", models / "line.tflite", "--data", pump_csv, "-o", tmp_path / "a.tflite")
    found = json.loads(edge_lstm(*arguments, "--parents", models, "--json").stdout)
    assert found["verdict"] == "the same numbers, with another record"
    assert found["versions"]["edge_lstm"][1] == "9.9.9" and found["steps"][-1]["same"] is False
    shown = edge_lstm(*arguments, "--parents", models).stdout
    assert "edge_lstm was 0" in shown and "another content" in shown

    one = read_artefact(models / "line.keras")
    assert isinstance(one.network, Graph) and one.network.predictor is not None
    kernel = np.array(one.network.predictor.kernel)
    kernel.flat[0] += 0.5
    other = replace(one.network, predictor=replace(one.network.predictor, kernel=kernel))
    result = compare_artefacts(one, replace(one, sha256="0" * 64, network=other))
    assert result.numbers == (f"predictor.kernel: 1 of {kernel.size} differ, by 0.5 at most",)
    assert result.verdict == "the numbers differ" and result.differences == ()


def test_compare_shows_the_options_data_and_figures_that_differ(models: Path, tmp_path: Path) -> None:
    result = compare(models / "float.keras", models / "line.keras")
    differences = {name: (here, there) for name, here, there in result.differences}
    assert differences["train config.method"] == ("lstm", "linear")
    assert differences["train config.units"] == ([4], [16])
    assert differences["train figures.loss"][1] is None and "train config.seed" not in differences
    assert "train data.sha256" not in differences and "train versions.numpy" not in differences
    assert result.numbers[0].startswith("another structure")
    shown = edge_lstm("compare", models / "pump.tflite", models / "windows.tflite")
    assert "train > prune > finetune > quantize > convert" in shown.stdout
    assert "the same numbers, with another record" in shown.stdout
    kinds = json.loads(edge_lstm("compare", models / "float.keras", models / "pump.tflite", "--json").stdout)
    assert kinds["numbers"][0].startswith("another kind") and kinds["same_content"] is False
    convert(models / "line.tflite", tmp_path / "c")
    exports = compare(models / "c" / MANIFEST, tmp_path / "c" / MANIFEST)
    assert "line.c: another file" in exports.numbers and "elstm.c: another file" not in exports.numbers
    assert compare(models / "c" / MANIFEST, models / "c" / MANIFEST).verdict == "the same content"


def test_the_date_in_a_keras_file_is_not_its_content(models: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(models / "float.keras") as source:
        members = {name: source.read(name) for name in source.namelist()}
    for name, changed in (("metadata.json", b"{}"), ("config.json", None)):
        with zipfile.ZipFile(tmp_path / name, "w") as target:
            for member, content in reversed(members.items()):
                target.writestr(member, content if member != name else changed or content.replace(b"4", b"5"))
    same = content_sha256(models / "float.keras")
    assert content_sha256(tmp_path / "metadata.json") == same != content_sha256(tmp_path / "config.json")


def test_damaged_and_foreign_files_are_listed_with_their_reason(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "c", tmp_path / "c")
    with (tmp_path / "c" / "elstm.c").open("a") as file:
        file.write("\n")
    (tmp_path / "c" / "elstm.h").unlink()
    (tmp_path / "cut.tflite").write_bytes((models / "pump.tflite").read_bytes()[:500])
    (tmp_path / "empty.keras").touch()
    (tmp_path / "zip.keras").write_bytes(b"PK\x03\x04" + bytes(50))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / MANIFEST).write_text('{"format": 7}')
    (tmp_path / ".hidden").mkdir()
    shutil.copy(models / "pump.tflite", tmp_path / ".hidden")
    layer = Dense("d", np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    graph = Graph("m", (layer,), Stream.unnamed(2), {})
    (tmp_path / "foreign.onnx").write_bytes(emit_onnx(graph))
    (tmp_path / "hostile.onnx").write_bytes(emit_onnx(replace(graph, made={"lineage": [{"verb": 3}]})))
    found = runs(tmp_path)
    assert {run.path: run.notes for run in found.runs} == {
        "c/made.json": ("changed or missing since: elstm.c, elstm.h",),
        "foreign.onnx": ("no record of how it was made",),
    }
    assert set(found.refused) == {"cut.tflite", "empty.keras", "zip.keras", "sub/made.json", "hostile.onnx"}
    assert "its format is 7" in found.refused["sub/made.json"]
    assert "record of how it was made is damaged" in found.refused["hostile.onnx"]
    shown = edge_lstm(tmp_path)
    assert shown.exit_code == 0 and "foreign.onnx  unknown | no record" in shown.stdout
    assert "made from pump.tflite, which is not here" in " ".join(shown.stdout.split())
    assert json.loads(edge_lstm("--json", tmp_path).stdout)["refused"] == dict(found.refused)


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"file": "../up.csv", "sha256": "0" * 64}},
        {"data": {"file": "a.csv", "sha256": "x" * 64}},
        {"parent": {"file": "..", "sha256": "0" * 64}},
        {"versions": {"numpy": 2}},
        {"figures": {"r2": "much"}},
        {"options": []},
    ],
)
def test_a_damaged_record_is_refused(values: dict[str, Any]) -> None:
    step = Step("train", {"config": {}}, {}, FileRecord("a.csv", "0" * 64, 5), seed=3).to_mapping()
    assert lineage({"lineage": [step]})[0].to_mapping() == step
    with pytest.raises(ModelError, match="record of how it was made is damaged"):
        lineage({"lineage": [step | values]})


def test_what_cannot_be_made_again_says_why_before_the_work(
    models: Path, pump_csv: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.tflite"
    (tmp_path / "other.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="train, prune, finetune, quantize read pump.csv, 4,000 rows"):
        reproduce(models / "pump.tflite", [tmp_path / "other.csv"], out)
    with pytest.raises(OutputError, match=r"choose -o out\.keras"):
        reproduce(models / "float.keras", [pump_csv], out)
    with pytest.raises(OutputError, match="no such folder"):
        reproduce(models / "pump.tflite", [pump_csv], tmp_path / "none" / "out.tflite")
    with pytest.raises(ConfigError, match="an export is made again from its model"):
        reproduce(models / "c" / MANIFEST, [pump_csv], out)
    network = read_artefact(models / "float.onnx").network
    assert isinstance(network, Graph)
    record = FileRecord("theirs.h5", "a" * 64)
    made = {
        "none": {},
        "foreign": with_step({}, Step("quantize", {}, {}, parent=record)),
        "tuned": with_step({}, Step("tune", {}, {})),
        "newer": with_step({}, Step("train", {"config": {"wings": 2}, "stream": {}}, {"edge_lstm": "7.0"})),
    }
    messages = {
        "none": "has no record of how it was made",
        "foreign": "made from theirs.h5 .SHA-256 aaaaaaaaaaaa., which was not trained here; give --parents",
        "tuned": "'tune' cannot be run again",
        "newer": "its options are not of this version .*wings.*; use edge_lstm 7.0",
    }
    for name, message in messages.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(emit_onnx(replace(network, made=made[name])))
        with pytest.raises(ModelError, match=message):
            reproduce(path, [pump_csv], tmp_path / "out.onnx")
    assert not out.exists() and not (tmp_path / "out.onnx").exists()
    result = edge_lstm(tmp_path / "nowhere")
    assert result.exit_code == 1 and "not a folder" in result.stderr


def test_options_of_a_step_are_those_that_differ_from_the_defaults() -> None:
    step = Step("train", {"config": {**SMALL.to_mapping(), "wings": 2}}, {})
    assert changed_options(step)["wings"] == 2 and "seed" not in changed_options(step)


def test_mlflow_gets_one_run_an_artefact_below_its_parent(models: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    result = edge_lstm("export", models, "--mlflow", uri, "--experiment", "pumps", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["written"]) == 9
    again = export_runs(models, uri, "pumps")
    assert again.written == () and len(again.known) == 9

    import warnings

    import mlflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name("pumps")
        found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    first, cut = found["float.keras"], found["cut.keras"]
    assert first.data.params["units"] == "[4]" and first.data.params["seed"] == "7"
    assert first.data.metrics == dict(by_path(models)["float.keras"].figures)
    assert cut.data.tags["mlflow.parentRunId"] == first.info.run_id
    assert first.data.tags["edge_lstm.data.file"] == "pump.csv" and first.info.status == "FINISHED"
    assert "mlflow.parentRunId" not in first.data.tags


def test_a_store_that_cannot_be_written_and_mlflow_that_is_missing_are_told(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeFailure, match="give --mlflow a store that can be written"):
        export_runs(models, "carrier-pigeon://x")
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(MissingTool, match=r"edge-lstm\[mlflow\]"):
        export_runs(models, f"sqlite:///{tmp_path / 'x.db'}")


def test_of_two_files_with_one_content_the_first_is_the_parent(models: Path, tmp_path: Path) -> None:
    for name in ("a.tflite", "b.tflite"):
        shutil.copy(models / "pump.tflite", tmp_path / name)
    shutil.copy(models / "windows.tflite", tmp_path)
    tree = [(depth, artefact.path.name) for depth, artefact in read_folder(tmp_path).tree()]
    assert tree == [(0, "a.tflite"), (1, "windows.tflite"), (0, "b.tflite")]
