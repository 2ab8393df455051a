"""evaluate --suite: every network and method on a small folder, and going on where it was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.verbs import suite as suite_module
from edge_lstm.verbs.suite import NETWORKS, SuiteConfig, SuiteEvaluation, evaluate_suite

SIMPLE = {
    "linear", "z-score", "EWMA chart", "persistence", "seasonal naive", "AR or VAR", "PCA",
    "isolation forest", "dense autoencoder",
}  # fmt: skip
CONFIG = SuiteConfig(
    seeds=(0, 1),
    train=TrainConfig(units=(4,), timesteps=24, epochs=2, updates=4),
    finetune=FinetuneConfig(epochs=1),
    prune=PruneConfig(epochs=2, steps=1),
)


def write_recording(path: Path, seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    phase = 0.2 * np.arange(700) + rng.uniform(0, 6)
    x = np.stack([np.sin(phase + c) for c in range(channels)], axis=1) + rng.normal(0, 0.1, (700, channels))
    label = np.zeros(700, dtype=int)
    label[500:540] = 1
    x[500:540, 0] += 3
    head = ["t", *(f"c{c}" for c in range(channels)), "label"]
    lines = [",".join(head)]
    lines += [
        ",".join([str(t), *(f"{v:.4f}" for v in row), str(flag)])
        for t, (row, flag) in enumerate(zip(x, label, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite")
    (root / "a").mkdir()
    (root / "b").mkdir()
    write_recording(root / "a" / "one.csv", 1, 2)
    write_recording(root / "b" / "two.csv", 2, 1)
    (root / "index.csv").write_text(
        "dataset,series,train_end\na,one,400\nb,two,400\na,missing,400\n", encoding="utf-8"
    )
    return root


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> SuiteEvaluation:
    return evaluate_suite(folder, CONFIG, folder / "store.jsonl")


def test_every_method_is_judged_on_every_recording(evaluation: SuiteEvaluation) -> None:
    assert set(evaluation.summaries) == {*NETWORKS, *SIMPLE}
    for method, results in evaluation.results.items():
        places = {(r.dataset, r.series, r.seed) for r in results}
        seeds = CONFIG.seeds if method in NETWORKS else (0,)
        assert places == {(d, s, seed) for d, s in (("a", "one"), ("b", "two")) for seed in seeds}
    linear, lstm = (evaluation.summaries[name].mean for name in ("linear", "LSTM int8"))
    assert (linear["vus_pr"] or 0) > 0.8 and (lstm["vus_pr"] or 0) > 0.8  # a step of thirty spreads
    assert lstm["event_recall"] == 1.0
    assert any("missing" in note for note in evaluation.notes)
    assert json.loads(json.dumps(evaluation.to_json()))["verdict"] == evaluation.verdict


def test_a_finished_suite_is_read_and_an_interrupted_one_goes_on(
    folder: Path, evaluation: SuiteEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("trained again")

    store = folder / "store.jsonl"
    monkeypatch.setattr(suite_module, "fit_many", never)
    again = evaluate_suite(folder, CONFIG, store)
    assert again.summaries == evaluation.summaries
    cut = folder / "cut.jsonl"
    lines = store.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["dataset"] == "a" or "LSTM" not in line]
    cut.write_text("\n".join(kept) + '\n{"key": "to', encoding="utf-8")  # torn while it was written
    monkeypatch.undo()
    trained: list[int] = []
    fit_many = suite_module.fit_many
    monkeypatch.setattr(
        suite_module, "fit_many", lambda tasks, *rest: trained.append(len(tasks)) or fit_many(tasks, *rest)
    )
    resumed = evaluate_suite(folder, CONFIG, cut)
    assert trained == [2]  # the two seeds of b
    assert resumed.summaries == evaluation.summaries
    assert evaluate_suite(folder, CONFIG, cut).summaries == evaluation.summaries and trained == [2]


def test_the_command_refuses_a_mixture_and_a_folder_without_an_index(tmp_path: Path) -> None:
    for arguments, words in (
        ([], "give MODEL and DATA, or --suite"),
        (["m.tflite", "--suite", str(tmp_path)], "--suite takes no MODEL"),
        (["--suite", str(tmp_path)], "index.csv"),
    ):
        result = CliRunner().invoke(main, ["evaluate", *arguments])
        assert result.exit_code == 1
        assert words in result.output and "Traceback" not in result.output
