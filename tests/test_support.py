"""What ``edge-lstm layers`` and the README promise holds: every sample runs where the table says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from conftest import ROOT, missing
from edge_lstm.cli import main
from edge_lstm.cli.layers import markdown_table
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import MissingTool, ModelError, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.importers.any_model import kind_of
from edge_lstm.importers.draft import Affine, Draft
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.layer_types import TANH, Activation
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating
from edge_lstm.verbs.convert import convert
from edge_lstm.verbs.inspect import inspect
from edge_lstm.verbs.layer_samples import SAMPLES
from edge_lstm.verbs.layers import Support, layers
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.executors import open_executor
from firmware_tools.host import HostExecutor, load_library


@pytest.fixture(scope="module")
def support() -> Support:
    return layers()


def test_the_readme_shows_the_table_of_the_code(support: Support) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- edge-lstm layers --markdown -->\n")[1].split("\n<!-- end -->")[0]
    assert shown == markdown_table(support)


def quantized(support: Support) -> list[tuple[QGraph, tuple[str, ...]]]:
    """Every sample in every form that the table promises, with the runtimes that it names."""
    found = []
    for row in support.layers:
        graph = SAMPLES[row.layer]
        x = np.random.default_rng(0).normal(0, 1, (max(40, 4 * graph.window), graph.features))
        profile = row.integers.split(", ")[0]
        runtimes = tuple(row.tflite.split(", ")) if row.tflite != "no" else ()
        number = len(found)
        found.append((quantize(graph, x, QuantizeConfig(profile=profile)), runtimes))
        if row.int16x8 == "yes":
            found.append((quantize(graph, x, QuantizeConfig(scheme="int16x8")), ()))
        if row.native == "yes":
            found.append((quantize(graph, x, QuantizeConfig(profile="native")), ()))
        for index in range(number, len(found)):
            found[index] = (replace(found[index][0], name=f"sample_{index}"), found[index][1])
    return found


def test_every_sample_returns_the_reference_codes_in_c_and_on_the_runtimes_of_its_row(
    support: Support,
) -> None:
    networks = quantized(support)
    assert len(networks) > 60
    qgraphs = [qgraph for qgraph, _ in networks]
    library, machine = load_library(qgraphs), build_machine(qgraphs, core_named("cortex-m4"))
    for qgraph, runtimes in networks:
        codes = mixed_stream(qgraph.features, 3 * (qgraph.window or 8), 1, qgraph.input.bits)
        expected = NumpyExecutor(qgraph).run(codes)
        host = HostExecutor(qgraph, library=library)
        emulated = EmulatedExecutor(qgraph, "cortex-m4", machine=machine)
        assert (host.run(codes) == expected).all() and (emulated.run(codes) == expected).all(), qgraph.name
        for name in runtimes:
            if name == "tflite-runtime":
                continue  # needs NumPy 1: test_tflite_runtimes.py runs it in an environment of its own
            try:
                executor = open_executor(name, qgraph)
            except MissingTool as error:
                missing(str(error))
                raise
            with executor:
                reference = NumpyExecutor(qgraph.with_profile(executor.profile)).run(codes)
                assert (executor.run(codes) == reference).all(), f"{name} {qgraph.name}"


def test_every_file_of_a_sample_is_read_back_as_it_was_and_can_be_inspected(
    support: Support, tmp_path: Path
) -> None:
    for number, (qgraph, _) in enumerate(quantized(support)):
        path = tmp_path / f"m{number}.tflite"
        path.write_bytes(emit_tflite(qgraph))
        again = read_tflite(path)
        assert emit_tflite(again) == path.read_bytes() and again.layers[-1].name == qgraph.layers[-1].name
        found = inspect(path)
        assert found.window == qgraph.window and len(found.layers) == len(qgraph.layers)
        assert found.layers[-1].shape[1] == qgraph.outputs


def test_layers_prints_json_and_the_table() -> None:
    result = CliRunner().invoke(main, ["layers", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["layers"][0]["layer"] == "LSTM"
    assert "GRU, reset after" in CliRunner().invoke(main, ["layers"]).stdout


def test_inspect_prints_layers_scales_and_channels_of_any_file(pump_keras: Path, pump_tflite: Path) -> None:
    for path in (pump_keras, pump_tflite):
        result = CliRunner().invoke(main, ["inspect", str(path)])
        assert result.exit_code == 0, result.output
        for part in ("parameters", "pressure", "bar"):
            assert part in result.output, result.output
    assert (
        "profile tflm" in result.output and "detector: yes" in result.output and "zero point" in result.output
    )
    described = json.loads(CliRunner().invoke(main, ["inspect", str(pump_keras), "--json"]).stdout)
    assert described["numbers"] == "float" and described["layers"][0]["kind"] == "Lstm"


def test_float_becomes_onnx_and_integers_become_onnx_too(
    pump_keras: Path, pump_tflite: Path, tmp_path: Path
) -> None:
    convert(pump_keras, tmp_path / "float.onnx")
    convert(pump_tflite, tmp_path / "int8.onnx")
    found = inspect(tmp_path / "float.onnx")
    assert found.kind == "ONNX (.onnx)" and found.channels[1]["unit"] == "bar"
    assert kind_of(tmp_path / "int8.onnx") == "onnx"
    result = CliRunner().invoke(main, ["convert", str(pump_keras), "-o", str(tmp_path / "c")])
    assert result.exit_code == 1 and "quantize it first: edge-lstm quantize" in result.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x80\x04\x95abc", "a pickle or a NumPy array, which is never loaded as a model"),
        (b"\x93NUMPY\x01\x00", "a pickle or a NumPy array"),
        (b"\xff\xfe" * 40, "none of the known kinds by its first bytes"),
    ],
)
def test_a_file_of_no_known_kind_is_named_by_its_content(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        kind_of(path)
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert result.exit_code == 1 and result.output.count("\n") == 1


def test_normalization_that_no_layer_can_take_in_becomes_a_diagonal_dense_layer() -> None:
    draft = Draft()
    draft.add(Activation("bend", TANH), -1)
    draft.add(Affine("norm", np.array([2.0, -0.5]), np.array([0.25, 1.0])))
    draft.add(Activation("again", TANH))
    graph = draft.graph("m", None, 2, 0, {})
    x = np.random.default_rng(1).normal(0, 1, (1, 7, 2))
    expected = np.tanh(np.tanh(x) * [2.0, -0.5] + [0.25, 1.0])
    assert np.abs(floating.run(graph, x)[0] - expected).max() < 1e-12
    wide_draft = Draft()
    wide_draft.add(Activation("bend", TANH), -1)
    wide_draft.add(Affine("norm", np.ones(5000), np.ones(5000)))
    wide_draft.add(Activation("again", TANH))
    with pytest.raises(
        UnsupportedModel, match="normalization 'norm' of 5000 features stands beside no layer"
    ):
        wide_draft.graph("m", None, 5000, 0, {})
