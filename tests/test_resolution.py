"""What a raw integer stands for: found in a recording, stated on the command line, carried by the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.datasets.resolution import find_resolution, state_resolution, with_resolution
from edge_lstm.detection.fixed import MISSING
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, ModelError
from edge_lstm.graph import Channel, Stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.scaling import counts_of
from edge_lstm.verbs.detect import detect, saturation_notes
from edge_lstm.verbs.inspect import inspect
from edge_lstm.verbs.quantize import quantize

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("values", "resolution"),
    [
        ([0, 1, 1023], 1.0),
        ([-5.0, np.nan, 4e6], 1.0),
        ([0.1, 0.2, 0.3, 1e3], 0.1),
        ([20.25, 20.5, 21.0], 0.01),
        ([1.0001, 2.0], 1e-4),
        ([0.0, 1e-7, 7e-7], 1e-7),
        ([5.0, 5.0], 1.0),
        ([np.nan, np.nan], 1.0),
        ([0.0, 3e7], 100.0),  # 30 million counts of 1 are more than 2**24
        ([0.0, 1 / 3, 1.0], 1e-5),  # no power of ten: 1 / 65536 and finer
        ([0.0, 1e-12], 1e-17),
        ([np.pi, np.pi], 1e-5),
    ],
)
def test_the_resolution_is_the_coarsest_power_of_ten_that_gives_all_values(
    values: list[float], resolution: float
) -> None:
    found, zero = find_resolution(np.array(values))
    assert found == pytest.approx(resolution, rel=1e-12)
    assert zero == 0.0


def test_values_far_from_zero_are_counted_from_the_lowest() -> None:
    values = 1.7e9 + np.arange(100) * 0.001
    resolution, zero = find_resolution(values)
    assert resolution == 0.001 and abs(zero - 1.7e9) < 1e-6
    stream = Stream((Channel("t", resolution=resolution, zero=zero),))
    assert counts_of(stream, values[:, None]).ravel().tolist() == list(range(100))


def test_counts_are_rounded_clipped_and_missing_where_there_is_no_value() -> None:
    stream = Stream((Channel("a", resolution=0.5, zero=10.0), Channel("b", resolution=1e-9)))
    values = np.array([[10.0, 1e-9], [11.1, np.nan], [np.nan, 5.0], [9.0, -5.0]])
    expected = [[0, 1], [2, MISSING], [MISSING, 2**31 - 1], [-2, -(2**31) + 1]]
    assert counts_of(stream, values).tolist() == expected


def test_a_stated_resolution_stays_and_others_are_found() -> None:
    stream = Stream((Channel("a=b", "bar"), Channel("c")))
    stated = state_resolution(stream, ["a=b=0.25@-7"])
    assert stated.channels == (replace(stream.channels[0], resolution=0.25, zero=-7.0), stream.channels[1])
    found = with_resolution(stated, np.array([[1.0, 0.1], [2.0, 0.2]]))
    assert found.resolution.tolist() == [0.25, 0.1] and found.zero.tolist() == [-7.0, 0.0]
    assert found.raw and not stated.raw


def test_all_that_is_wrong_with_stated_resolutions_is_said_at_once() -> None:
    texts = ["a", "a=zero", "a=-1", "a=1@x", "a=inf", "d=1", "a=1", "a=2"]
    with pytest.raises(ConfigError) as refused:
        state_resolution(Stream((Channel("a"), Channel("b"))), texts)
    text = str(refused.value)
    for wrong in texts[:5]:
        assert f"'{wrong}' is not NAME=STEP or NAME=STEP@ZERO with a step above 0" in text
    assert "'d' is no channel, expected one of a, b" in text
    assert "'a' is stated twice" in text


@pytest.fixture(scope="module")
def stated(pump_keras: Path, pump_csv: Path) -> Path:
    """The pump with a stated resolution of one channel."""
    path = pump_csv.with_name("stated.tflite")
    command = ["quantize", str(pump_keras), "--data", str(pump_csv), "-o", str(path)]
    done = CliRunner().invoke(main, [*command, "--resolution", "flow=0.25@-7"])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(main, [*command, "--resolution", "flow", "--resolution", "nothing=1"])
    assert wrong.exit_code == 1 and "'flow' is not NAME=STEP" in wrong.output
    assert "'nothing' is no channel" in wrong.output
    return path


def test_the_file_carries_the_resolution_and_inspect_shows_it(stated: Path, pump_csv: Path) -> None:
    channels = {channel["name"]: channel for channel in inspect(stated).channels}
    assert (channels["flow"]["resolution"], channels["flow"]["zero"]) == (0.25, -7.0)
    assert all(0 < c["resolution"] < 1 for name, c in channels.items() if name != "flow")
    shown = CliRunner().invoke(main, ["inspect", str(stated)]).output
    assert "raw step" in shown and "raw zero" in shown and "-7" in shown
    qgraph = read_tflite(stated)
    assert emit_tflite(qgraph) == stated.read_bytes()


def test_a_file_of_an_older_version_states_no_resolution(
    stated: Path, pump_keras: Path, pump_csv: Path, tmp_path: Path
) -> None:
    qgraph = read_tflite(stated)
    channels = tuple(replace(c, resolution=0.0, zero=0.0) for c in qgraph.stream.channels)
    old = tmp_path / "old.tflite"
    old.write_bytes(emit_tflite(replace(qgraph, stream=replace(qgraph.stream, channels=channels))))
    with pytest.raises(ModelError, match=r"old\.tflite: does not state the resolution of its channels"):
        detect(old, pump_csv)


def test_adc_counts_of_a_csv_give_the_alarms_of_the_real_values(
    pump_keras: Path, pump_csv: Path, pump_tflite: Path, tmp_path: Path
) -> None:
    """A coarser ADC is still a forecast's worth: the detector sees the counts that it was made from."""
    result = quantize(pump_keras, pump_csv, tmp_path / "adc.tflite", resolution=["flow=0.001"])
    assert result.qgraph.stream.channels[result.qgraph.stream.names.index("flow")].resolution == 0.001
    assert (
        detect(pump_tflite, pump_csv, "host").detection.score == detect(pump_tflite, pump_csv).detection.score
    ).all()


def test_values_outside_the_calibrated_range_give_one_note(
    pump_tflite: Path, pump_csv: Path, tmp_path: Path
) -> None:
    lines = pump_csv.read_text().splitlines()
    for row in (50, 60, 70):
        cells = lines[row].split(",")
        lines[row] = ",".join([cells[0], "99999", *cells[2:]])
    (tmp_path / "high.csv").write_text("\n".join(lines[:400]) + "\n")
    notes = detect(pump_tflite, tmp_path / "high.csv").notes
    assert "3 of 1,995 values lay outside the calibrated range" in notes
    assert saturation_notes(0, 5) == ()
