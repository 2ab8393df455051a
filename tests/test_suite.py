"""evaluate --suite: every network and method on a small folder, and going on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.evaluation.metrics_summary import Result, summarize
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.verbs import suite as suite_module
from edge_lstm.verbs import suite_networks
from edge_lstm.verbs.suite import evaluate_suite
from edge_lstm.verbs.suite_networks import NETWORKS, SuiteConfig, groups
from edge_lstm.verbs.suite_result import SuiteEvaluation, write_page

SIMPLE = {
    "linear", "z-score", "EWMA chart", "persistence", "seasonal naive", "AR or VAR", "PCA",
    "isolation forest", "dense autoencoder", "ARIMA(2,1,1)",
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
    write_recording(root / "a" / "one.csv", 1, 1)
    write_recording(root / "b" / "two.csv", 2, 1)
    (root / "index.csv").write_text(
        "dataset,series,train_end\na,one,400\nb,two,400\na,missing,400\n", encoding="utf-8"
    )
    return root


class Here:
    """Runs what is submitted at once, in this process."""

    def submit(self, job: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(job(*arguments))
        return done


@contextmanager
def here(_: int) -> Iterator[Here]:
    yield Here()


@pytest.fixture(scope="module", autouse=True)
def few_networks() -> Iterator[None]:
    """Compiling takes longest: one kind of each way to make a network is enough."""
    whole = dict(NETWORKS)
    for name in ("LSTM int16x8", "LSTM int4", "LSTM int4 QAT"):
        del NETWORKS[name]
    yield
    NETWORKS.clear()
    NETWORKS.update(whole)


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
    monkeypatch.setattr(suite_networks, "fit_many", never)
    again = evaluate_suite(folder, CONFIG, store)
    assert again.summaries == evaluation.summaries
    cut = folder / "cut.jsonl"
    lines = store.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "half the units" not in line]
    cut.write_text("\n".join(kept) + '\n{"key": "to', encoding="utf-8")  # torn while it was written
    monkeypatch.undo()
    monkeypatch.setattr(suite_module, "_processes", here)
    trained: list[int] = []
    fit_many = suite_networks.fit_many
    monkeypatch.setattr(
        suite_networks, "fit_many", lambda tasks, *rest: trained.append(len(tasks)) or fit_many(tasks, *rest)
    )
    resumed = evaluate_suite(folder, CONFIG, cut)
    assert trained == [4]  # two seeds of two recordings
    assert resumed.summaries == evaluation.summaries
    assert evaluate_suite(folder, CONFIG, cut).summaries == evaluation.summaries and trained == [4]


def test_a_recording_that_is_too_short_is_told(folder: Path, evaluation: SuiteEvaluation) -> None:
    (folder / "b" / "short.csv").write_text("t,c0,label\n" + "".join(f"{t},{t},0\n" for t in range(40)))
    index = folder / "index.csv"
    text = index.read_text(encoding="utf-8")
    index.write_text(text + "b,short,20\n", encoding="utf-8")
    found = evaluate_suite(folder, CONFIG, folder / "store.jsonl")
    index.write_text(text, encoding="utf-8")
    assert found.summaries == evaluation.summaries
    assert any(note.startswith("b short: left out: ") for note in found.notes)


def test_the_page_holds_every_method_and_loads_nothing(evaluation: SuiteEvaluation, tmp_path: Path) -> None:
    path = tmp_path / "suite.html"
    write_page(evaluation, path)
    page = path.read_text(encoding="utf-8")
    for text in (*evaluation.summaries, evaluation.verdict, "a (1 recording)", "missing"):
        assert text in unescape(page)
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert page.count("<svg viewBox") > 4


def test_groups_have_one_width_and_a_bounded_size() -> None:
    def item(width: int, timesteps: int, rows: int) -> Any:
        prepared = SimpleNamespace(train=SimpleNamespace(timesteps=timesteps))
        return SimpleNamespace(width=width, prepared=prepared, calibration=np.zeros((rows, width)))

    items = [item(1, 64, 300_000), item(1, 64, 10), item(2, 64, 10), item(1, 16, 10), item(1, 64, 200_000)]
    found = groups(items, seeds=3)
    sizes = [[(i.width, i.prepared.train.timesteps, len(i.calibration)) for i in group] for group in found]
    assert sizes == [
        [(1, 64, 10)], [(1, 64, 200_000)], [(1, 64, 300_000)], [(2, 64, 10)], [(1, 16, 10)],
    ]  # fmt: skip


def test_where_a_simple_method_is_ahead_is_told_in_words() -> None:
    figures = {"LSTM int8": (0.5, 0.6), "z-score": (0.7, 0.61), "PCA": (0.6, 0.7)}
    results = {
        name: [Result("pump", "one", 0, {"vus_pr": vus, "event_f1": f1})]
        for name, (vus, f1) in figures.items()
    }
    summaries = {name: summarize(found) for name, found in results.items()}
    found = SuiteEvaluation("folder", (0,), summaries, results, (), 0.0)
    assert found.shortfalls == (
        "pump: z-score is ahead in VUS-PR, 0.700 against 0.500 and PCA is ahead in event F1, 0.700 against "
        "0.600.",
    )
    assert found.verdict == (
        "LSTM int8: VUS-PR 0.500 is not above z-score's 0.700; event F1 0.600 is not above PCA's 0.700."
    )


def test_a_store_or_a_page_in_no_folder_and_a_store_of_other_content_are_refused_first(folder: Path) -> None:
    other = folder / "other.jsonl"
    other.write_text("{}\n", encoding="utf-8")
    for options, words in (
        (["--store", str(folder / "no" / "s.jsonl")], "there is no such folder"),
        (["-o", str(folder / "no" / "s.html")], "there is no such folder"),
        (["--store", str(other)], "line 1 is no result of a suite"),
    ):
        result = CliRunner().invoke(main, ["evaluate", "--suite", str(folder), *options])
        assert result.exit_code == 1 and words in result.output and "Traceback" not in result.output


def test_the_command_refuses_a_mixture_and_a_folder_without_an_index(tmp_path: Path) -> None:
    for arguments, words in (
        ([], "give MODEL and DATA, or --suite"),
        (["m.tflite", "--suite", str(tmp_path)], "--suite takes no MODEL"),
        (["--suite", str(tmp_path)], "index.csv"),
    ):
        result = CliRunner().invoke(main, ["evaluate", *arguments])
        assert result.exit_code == 1
        assert words in result.output and "Traceback" not in result.output
