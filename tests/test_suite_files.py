"""A folder of recordings as a suite: what is used, what is left out, and one clear error."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from edge_lstm.datasets.suite import FaultyChannels, faulty_channels, load, read_suite
from edge_lstm.errors import DataError

HEADER = "dataset,series,rows,train_end,fs,anomaly_rows"


def write_index(folder: Path, *lines: str, header: str = HEADER) -> Path:
    (folder / "index.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def write_series(folder: Path, name: str, rows: int = 20, fault: int = 0, time: str = "row") -> Path:
    """Channels a and b, the last ``fault`` rows labelled."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    lines = [f"{row},{np.sin(row):.3f},{row % 3},{int(row >= rows - fault)}" for row in range(rows)]
    text = "\n".join([f"{time},a,b,label", *lines]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_recordings_come_in_the_order_of_the_index_plain_or_gzip(tmp_path):
    plain, packed = write_series(tmp_path, "rig/run_2.csv", fault=3), write_series(tmp_path, "lab/b.csv.gz")
    suite = read_suite(write_index(tmp_path, "rig,run_2,20,8,1 Hz,3", "lab,b,20,12,,0"))
    first, second = suite.recordings
    assert (first.dataset, first.series, first.path, first.train_end) == ("rig", "run_2", plain, 8)
    assert (first.fs, second.path, second.fs, suite.notes) == ("1 Hz", packed, "", ())
    loaded = load(first)
    assert loaded.train.tolist() == [True] * 8 + [False] * 12
    assert loaded.dataset.label.tolist() == [0] * 17 + [1] * 3
    assert (loaded.dataset.names, loaded.dataset.rows, load(second).train.sum()) == (("a", "b"), 20, 12)


def test_the_least_index_has_three_columns_in_any_order(tmp_path):
    write_series(tmp_path, "rig/a.csv")
    suite = read_suite(write_index(tmp_path, "a,8,rig,", "", header="series,train_end,dataset,more"))
    assert [(r.dataset, r.series, r.train_end, r.fs) for r in suite.recordings] == [("rig", "a", 8, "")]


def test_missing_files_and_series_without_a_test_part_are_notes(tmp_path):
    write_series(tmp_path, "rig/a.csv")
    write_series(tmp_path, "rig/normal.csv")
    index = ("rig,a,20,8,,0", "rig,gone,20,8,,0", "rig,normal,20,20,,0", "sea,x,20,8,,0", "rig,lost,9,4,,0")
    suite = read_suite(write_index(tmp_path, *index))
    assert [recording.series for recording in suite.recordings] == ["a"]
    assert suite.notes == (
        "rig: left out gone, lost: there is no such .csv or .csv.gz",
        "sea: left out x: there is no such .csv or .csv.gz",
        "rig: left out normal: no row is left to test after train_end",
    )


def test_series_with_train_end_0_are_trained_on_the_first_normal_one(tmp_path):
    for name, fault in (("d00", 0), ("d00_te", 0), ("d01_te", 5)):
        write_series(tmp_path, f"tep/{name}.csv", fault=fault)
    index = ("tep,d01_te,20,0,1/180 Hz (3 min),5", "tep,d00,20,0,1/180 Hz,0", "tep,d00_te,20,0,1/180 Hz,0")
    suite = read_suite(write_index(tmp_path, *index))
    assert [recording.series for recording in suite.recordings] == ["d01_te", "d00_te"]
    assert suite.notes == ("tep: series with train_end 0 are trained on d00",)
    loaded = load(suite.recordings[0])
    dataset = loaded.dataset
    assert (dataset.rows, int(loaded.train.sum()), dataset.period_s) == (40, 20, 180.0)
    assert np.flatnonzero(dataset.gap).tolist() == [20]
    assert np.flatnonzero(dataset.label).tolist() == list(range(35, 40))
    assert (np.diff(dataset.time_s) == 180).all()
    assert (dataset.values[20:] == dataset.values[:20]).all()


def test_series_with_train_end_0_and_no_normal_one_are_left_out(tmp_path):
    write_series(tmp_path, "tep/d01.csv", fault=5)
    write_series(tmp_path, "rig/a.csv")
    suite = read_suite(write_index(tmp_path, "tep,d01,20,0,,5", "rig,a,20,8,,0"))
    assert [recording.dataset for recording in suite.recordings] == ["rig"]
    assert suite.notes == (
        "tep: left out d01: train_end is 0, and no such series of the data set has anomaly_rows 0",
    )


def test_a_normal_recording_with_other_columns_is_refused(tmp_path):
    write_series(tmp_path, "tep/d01.csv", fault=5)
    (tmp_path / "tep/d00.csv").write_text(
        "row,a,label\n" + "".join(f"{row},{row % 5},0\n" for row in range(9))
    )
    suite = read_suite(write_index(tmp_path, "tep,d00,9,0,,0", "tep,d01,20,0,,5"))
    with pytest.raises(DataError, match=r"d01.csv: the columns are not those .* trained on: a, b against a"):
        load(suite.recordings[0])


def test_constant_channels_and_missing_values_stay(tmp_path):
    (tmp_path / "rig").mkdir()
    cells = ["0,5,1", "1,5,", "2,5,3", *(f"{row},5,{row % 4}" for row in range(3, 12))]
    (tmp_path / "rig/a.csv").write_text("\n".join(["row,dead,x,label", *(f"{cell},0" for cell in cells)]))
    dataset = load(read_suite(write_index(tmp_path, "rig,a,12,6,,0")).recordings[0]).dataset
    assert dataset.names == ("dead", "x")
    assert np.isnan(dataset.values[1, 1]) and dataset.present.sum() == 23


def test_merged_stamps_never_move_test_rows_into_training(tmp_path):
    (tmp_path / "rig").mkdir()
    seconds = [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 8, 9]  # one is double before row 6, one after it
    lines = [f"2024-01-01 00:00:{second:02d},{second % 4},0" for second in seconds]
    (tmp_path / "rig/a.csv").write_text("\n".join(["time,x,label", *lines, ""]))
    loaded = load(read_suite(write_index(tmp_path, "rig,a,12,6,,0")).recordings[0])
    assert (loaded.dataset.rows, int(loaded.train.sum())) == (10, 4)
    assert loaded.dataset.time_s[loaded.train].max() < seconds[6]


@pytest.mark.parametrize(
    ("fs", "period_s"), [("360 Hz", 1 / 360), ("1/60 Hz (1 min)", 60.0), ("not stated", 0.0), ("0 Hz", 0.0)]
)
def test_the_sampling_of_the_index_times_counted_rows(tmp_path, fs, period_s):
    write_series(tmp_path, "rig/a.csv")
    dataset = load(read_suite(write_index(tmp_path, f"rig,a,20,8,{fs},0")).recordings[0]).dataset
    assert dataset.period_s == period_s
    assert dataset.time_s[-1] == pytest.approx(19 * (period_s or 1.0))


def test_the_time_of_a_file_is_not_replaced(tmp_path):
    write_series(tmp_path, "rig/a.csv", time="time [min]")
    recording = read_suite(write_index(tmp_path, "rig,a,20,8,1 Hz,0")).recordings[0]
    assert load(recording).dataset.period_s == 60.0


# --- errors ----------------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        read_suite(folder)
    return str(error.value)


def test_a_folder_without_an_index_is_refused(tmp_path):
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path / 'index.csv'}: there is no such file; a suite is a folder with")


def test_missing_and_repeated_columns_are_refused_together(tmp_path):
    message = refused(write_index(tmp_path, header="dataset,fs,rows,fs"))
    assert "index.csv: 3 problems" in message
    assert "column 'series' appears 0 times among dataset, fs, rows, fs, expected once" in message
    assert "column 'train_end' appears 0 times" in message
    assert "column 'fs' appears 2 times" in message


def test_every_bad_line_is_named(tmp_path):
    index = ("rig,a,20,8,,0", "rig,b", "rig,c,20,-3,,0", "..,d,20,8,,0", "rig,x/y,x,8,,0", "rig,a,20,9,,0")
    message = refused(write_index(tmp_path, *index))
    for problem in (
        "index.csv: 6 problems",
        "line 3 has 2 fields, expected 6 as in the header",
        "line 4: train_end is '-3', expected a whole number of rows, 0 or more",
        "line 5: dataset is '..', expected the name of a folder",
        "line 6: series is 'x/y', expected the name of a file in it without .csv",
        "line 6: rows is 'x', expected a whole number of rows",
        "series 'a' of data set 'rig' appears 2 times",
    ):
        assert problem in message


@pytest.mark.parametrize(
    "content", [b"dataset,series\xff,train_end\n", b'dataset,series,train_end\n"a,b,1\n']
)
def test_a_torn_index_is_refused(tmp_path, content):
    (tmp_path / "index.csv").write_bytes(content)
    assert "index.csv: cannot be read as CSV: " in refused(tmp_path)


def test_an_index_of_which_nothing_can_be_used_says_why(tmp_path):
    assert refused(write_index(tmp_path)) == f"{tmp_path}: no recording can be used: the index has no rows"
    message = refused(write_index(tmp_path, "rig,a,20,8,,0"))
    assert message.endswith("no recording can be used: rig: left out a: there is no such .csv or .csv.gz")


def test_a_recording_needs_labels_and_rows_on_both_sides(tmp_path):
    (tmp_path / "rig").mkdir()
    (tmp_path / "rig/a.csv").write_text("row,x\n" + "".join(f"{row},{row % 5}\n" for row in range(9)))
    recording = read_suite(write_index(tmp_path, "rig,a,,8,,")).recordings[0]
    with pytest.raises(DataError, match=r"a.csv: 2 problems") as error:
        load(recording)
    assert "there is no label column, expected one of 0 and 1" in str(error.value)
    assert "8 of 9 rows are for training, expected at least 4 there and after them" in str(error.value)


# --- ground truth of channels ----------------------------------------------------------------------


def test_faulty_channels_count_from_0_and_rows_from_train_end(tmp_path):
    path = write_series(tmp_path, "smd/m.csv", fault=4)
    recording = read_suite(write_index(tmp_path, "smd,m,20,8,,4")).recordings[0]
    assert faulty_channels(recording, 2) == ()
    path.with_name("m.interpretation.txt").write_text("1-3:2\n\n8-12:1,2\n")
    recording = read_suite(tmp_path).recordings[0]
    assert faulty_channels(recording, 2) == (FaultyChannels(1, 3, (1,)), FaultyChannels(8, 12, (0, 1)))


def test_every_bad_line_of_ground_truth_is_named(tmp_path):
    path = write_series(tmp_path, "smd/m.csv", fault=4)
    path.with_name("m.interpretation.txt").write_text("1-3:3\n3-1:1\nrow 8\n5-6:0\n1-2:1\n")
    with pytest.raises(DataError, match=r"interpretation.txt: 4 problems") as error:
        faulty_channels(read_suite(write_index(tmp_path, "smd,m,20,8,,4")).recordings[0], 2)
    assert "line 1 is '1-3:3', expected start-stop:channels as in 10-20:1,2 with channels 1 to 2" in str(
        error.value
    )


def test_the_shared_recordings_load(shared_data):
    suite = read_suite(shared_data)
    by_name = {(recording.dataset, recording.series): recording for recording in suite.recordings}
    assert len({dataset for dataset, _ in by_name}) == 6
    machine = by_name["smd", "machine-1-7"]
    loaded = load(machine)
    label = loaded.dataset.label[~loaded.train]
    events = faulty_channels(machine, loaded.dataset.channels)
    assert (loaded.dataset.channels, loaded.dataset.period_s, len(events)) == (38, 60.0, 13)
    for event in events:  # rows and labels agree: the files count from train_end
        assert label[event.start : event.stop].all()
        assert not label[event.start - 1] and not label[event.stop]
