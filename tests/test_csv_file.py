"""Reading CSV files: what is found by itself, what is refused, what others recorded."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.datasets import Dataset, Policy, read_csv
from edge_lstm.errors import DataError, EdgeLstmError, MissingTool

NAN = np.nan


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows_of(*rows: str, header: str = "time,a,b") -> str:
    return "\n".join((header, *rows, ""))


def seconds(count: int) -> list[str]:
    return [f"2024-03-01 10:00:{second:02d}" for second in range(count)]


def stamped(stamps: list[str], header: str = "time,a,b") -> str:
    return rows_of(*(f"{stamp},{row},{row * row % 7}" for row, stamp in enumerate(stamps)), header=header)


def dataset(
    values: list[list[float]], label: list[int] | None = None, gap: list[int] | None = None
) -> Dataset:
    array = np.array(values, dtype=float)
    rows, channels = array.shape
    return Dataset(
        names=tuple(f"c{index}" for index in range(channels)),
        units=("",) * channels,
        values=array,
        present=~np.isnan(array),
        gap=np.zeros(rows, bool) if gap is None else np.array(gap, bool),
        label=None if label is None else np.array(label, np.uint8),
        time_s=np.arange(rows, dtype=float),
        start="2024-03-01T10:00:00",
        period_s=1.0,
    )


def test_time_label_and_channels_are_found_and_units_are_taken_from_brackets(tmp_path: Path) -> None:
    text = rows_of(
        "2024-03-01 10:00:00,1.5,7,0", "2024-03-01 10:00:02,2.5,8,0", "2024-03-01 10:00:04,,9,1",
        "2024-03-01 10:00:06,4.5,10,0", header="Timestamp,pressure [bar],flow (l/min),Anomaly",
    )  # fmt: skip
    data = read_csv(write(tmp_path, text))
    assert data.names == ("pressure", "flow") and data.units == ("bar", "l/min")
    assert data.label is not None and data.label.tolist() == [0, 0, 1, 0]
    assert data.values[:, 1].tolist() == [7, 8, 9, 10]
    assert data.present.tolist() == [[True, True], [True, True], [False, True], [True, True]]
    assert data.time_s.tolist() == [0, 2, 4, 6] and data.period_s == 2
    assert data.start == "2024-03-01T10:00:00"
    assert data.notes == ("missing values: 1 of 8 (12.50%) in pressure: masked",)
    assert data.normal.tolist() == [True, True, False, True]


def test_a_unit_without_brackets_stays_in_the_name(tmp_path: Path) -> None:
    data = read_csv(write(tmp_path, stamped(seconds(5), "time,temp_C,[b]")))
    assert data.names == ("temp_C", "[b]") and data.units == ("", "")


def test_channels_that_differ_only_in_their_unit_keep_their_headers_as_names(tmp_path: Path) -> None:
    data = read_csv(write(tmp_path, stamped(seconds(5), "time,temp [K],temp [C]")))
    assert data.names == ("temp [K]", "temp [C]") and data.units == ("K", "C")


def test_named_columns_override_what_would_be_found_and_give_the_order(tmp_path: Path) -> None:
    text = rows_of(
        *(f"{i},{10 + i},{i % 2},{i * i},x" for i in range(6)), header="t,clock,label,p [bar],note"
    )
    data = read_csv(write(tmp_path, text), time="clock", channels=("p", "t"), label="")
    assert data.names == ("p", "t") and data.units == ("bar", "") and data.label is None
    assert data.values[:, 0].tolist() == [0, 1, 4, 9, 16, 25]
    by_header = read_csv(write(tmp_path, text), channels=["p [bar]"])
    assert by_header.names == ("p",) and by_header.label is not None


def test_an_empty_time_column_name_means_none(tmp_path: Path) -> None:
    data = read_csv(write(tmp_path, rows_of("5,1", "3,2", "4,4", "1,3", header="t,a")), time="")
    assert data.names == ("t", "a") and data.period_s == 0 and data.start == "" and data.stamp(1) == ""
    assert data.time_s.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    data = read_csv(write(tmp_path, stamped(seconds(6)).replace(",", separator)))
    assert data.names == ("a", "b") and data.rows == 6


@pytest.mark.parametrize("label", ["label", "is_anomaly", "FAULT", "Target", "class", "Outlier"])
def test_the_label_is_found_by_its_name_in_any_case(tmp_path: Path, label: str) -> None:
    data = read_csv(write(tmp_path, rows_of("1,0", "2,1.0", "4,0", "3,0", header=f"a,{label}")))
    assert data.names == ("a",) and data.label is not None and data.label.tolist() == [0, 1, 0, 0]


def test_true_and_false_are_labels_and_values_too(tmp_path: Path) -> None:
    text = rows_of("True,1,False", "False,2,True", ",4,False", "True,3,False", header="on,a,label")
    data = read_csv(write(tmp_path, text))
    assert data.label is not None and data.label.tolist() == [0, 1, 0, 0]
    assert data.values[:2, 0].tolist() == [1, 0] and not data.present[2, 0]


def test_a_second_label_and_row_numbers_do_not_leak_into_the_channels(tmp_path: Path) -> None:
    text = rows_of(
        *(f"{i},2024-03-01 10:00:0{i},{i * i},0,{i % 2}" for i in range(6)),
        header=",datetime,a,anomaly,changepoint",
    )
    data = read_csv(write(tmp_path, text))
    assert data.names == ("a",)
    assert data.notes == (
        "column '' counts rows: left out of the channels",
        "column 'changepoint' looks like a label: left out of the channels",
    )


def test_numbers_are_read_exactly(tmp_path: Path) -> None:
    cells = ["0.1", "1e-7", "123456789.123456789", "-4.9406564584124654e-300", "7"]
    data = read_csv(write(tmp_path, rows_of(*cells, header="a")))
    assert data.values[:, 0].tolist() == [float(cell) for cell in cells]


def test_gzip_byte_order_mark_blank_lines_and_carriage_returns_make_no_difference(tmp_path: Path) -> None:
    plain = stamped(seconds(6))
    messy = "\ufeff\n" + plain.replace("\n", "\r\n").replace("04,4", "04 , 4") + "\r\n  \r\n"
    expected = read_csv(write(tmp_path, plain))
    for path in (
        write(tmp_path, messy, "messy.csv"),
        write(tmp_path, gzip.compress(plain.encode()), "data.csv.gz"),
        write(tmp_path, plain.replace("\n", "\r"), "old.csv"),
        write(tmp_path, plain.replace(",a,", ',"a",'), "quoted.csv"),
    ):
        data = read_csv(path)
        assert data.names == expected.names and data.start == expected.start
        assert (data.values == expected.values).all() and (data.time_s == expected.time_s).all()


def test_blank_lines_of_a_single_column_are_missing_values(tmp_path: Path) -> None:
    data = read_csv(write(tmp_path, "a\n1\n\n3\n4\n\n\n"))
    assert data.present[:, 0].tolist() == [True, False, True, True]


STAMPS = {
    "zulu": ("2024-03-01T10:00:0{}Z", "2024-03-01T10:00:00+00:00", 1.0),
    "fractions in some rows": ("2024-03-01 10:00:00{}", "2024-03-01T10:00:00", 0.25),
    "day first, told by a later row": ("{}/03/2024 10:00", "2024-03-11T10:00:00", 86400.0),
    "month name": ("{} Mar 2024 6 PM", "2024-03-03T18:00:00", 86400.0),
    "compact": ("20240301T10000{}", "2024-03-01T10:00:00", 2.0),
    "time of day": ("23:59:5{}", "", 3.0),
    "hours and minutes": ("1:0{}", "", 120.0),
}
CELLS = {
    "zulu": "0123", "fractions in some rows": ("", ".25", ".5", ".75"),
    "day first, told by a later row": ("11", "12", "13", "14"), "month name": "3456", "compact": "0246",
    "time of day": "0369", "hours and minutes": "0246",
}  # fmt: skip


@pytest.mark.parametrize("form", STAMPS)
def test_stamps_of_any_format_are_read(tmp_path: Path, form: str) -> None:
    pattern, start, period_s = STAMPS[form]
    text = rows_of(
        *(f"{pattern.format(cell)},{i * i}" for i, cell in enumerate(CELLS[form])), header="when,a"
    )
    data = read_csv(write(tmp_path, text))
    assert data.names == ("a",) and data.start == start and data.period_s == period_s
    assert data.time_s.tolist() == [0, period_s, 2 * period_s, 3 * period_s]


def test_offsets_of_summer_time_are_followed(tmp_path: Path) -> None:
    stamps = ["2024-03-31T01:58:00+01:00", "2024-03-31T01:59:00+01:00", "2024-03-31T03:00:00+02:00",
              "2024-03-31T03:01:00+02:00"]  # fmt: skip
    data = read_csv(write(tmp_path, stamped(stamps)))
    assert data.start == "2024-03-31T00:58:00+00:00" and data.time_s.tolist() == [0, 60, 120, 180]
    assert data.stamp(3) == "2024-03-31T01:01:00+00:00" and data.notes == ()


@pytest.mark.parametrize(
    ("header", "cells", "start", "period_s", "time"),
    [
        ("time", "0.5 1 1.5 2", "", 0.5, [0, 0.5, 1, 1.5]),
        ("time [ms]", "10 20 30 40", "", 0.01, [0, 0.01, 0.02, 0.03]),
        ("t (min)", "1 2 3 4", "", 60, [0, 60, 120, 180]),
        ("time_s", "0 1 2 3", "", 1, [0, 1, 2, 3]),
        ("t", "0 1 2 4", "", 0, [0, 1, 2, 4]),
        ("index", "7 8 9 10", "", 0, [0, 1, 2, 3]),
        ("", "0 1 2 3", "", 0, [0, 1, 2, 3]),
        ("ts", "1.7e9 1700000060 1700000120 1700000180", "2023-11-14T22:13:20+00:00", 60, [0, 60, 120, 180]),
        ("ts", "1.7e12 1700000000500 1700000001000 1700000001500", "2023-11-14T22:13:20+00:00", 0.5,
         [0, 0.5, 1, 1.5]),
    ],
)  # fmt: skip
def test_numbers_are_seconds_epochs_or_rows(
    tmp_path: Path, header: str, cells: str, start: str, period_s: float, time: list[float]
) -> None:
    text = rows_of(*(f"{cell},{i * i}" for i, cell in enumerate(cells.split())), header=f"{header},a")
    data = read_csv(write(tmp_path, text))
    assert data.names == ("a",) and data.start == start
    assert data.time_s == pytest.approx(time, abs=1e-12) and data.period_s == pytest.approx(period_s)
    assert any("counts rows" in note for note in data.notes) == (period_s == 0)


def test_a_clock_set_back_by_one_hour_is_moved_on_and_said(tmp_path: Path) -> None:
    stamps = ["2024-10-27 02:50:00", "2024-10-27 02:55:00", "2024-10-27 02:00:00", "2024-10-27 02:05:00"]
    data = read_csv(write(tmp_path, stamped(stamps)))
    assert data.time_s.tolist() == [0, 300, 600, 900] and not data.gap.any()
    assert data.notes[0].startswith("time column 'time' goes back by one hour in line 4")


BAD_FILES = {
    "empty": ("", "the file is empty, expected a header line"),
    "blank": (" \n\n", "the file is empty"),
    "only a byte order mark": ("\ufeff", "the file is empty"),
    "header only": ("time,a,b\n", "header line only, expected at least 4 rows"),
    "no header": ("1,2\n3,4\n", "line 1 holds numbers"),
    "binary": (b"TFL3\0\1\2", "the file is binary"),
    "latin-1": ("a [°C]\n1\n".encode("latin-1"), "byte 0xb0 in line 1 is not UTF-8"),
    "damaged gzip": (gzip.compress(b"a,b\n1,2\n")[:-6], "the gzip file is damaged"),
    "short row": (rows_of("1,2,3", "4,5", "6", "7,8,9"), r"line 3 has 2 fields, expected 3 .*\(2 of 4 rows"),
    "long row": ("\n" + rows_of("1,2,3", "", "4,5,6,7"), "line 5 has 4 fields, expected 3"),
    "quote left open": (rows_of("1,2", '3,"4', header="a,b"), "is a quote left open"),
    "endless cell": (
        rows_of("1," + "x" * 200_000, header="a,b"),
        "line 2 cannot be read as CSV: field larger",
    ),
    "twice the same name": (rows_of("1,2,3", header="a,b,a"), "column names appear twice: a; rename"),
    "no name": (rows_of("1,2,3", header="a,,b"), "column 2 has no name"),
    "text": (
        rows_of("1,2", "", "3,off", "4,x", header="a,b"),
        "channel 'b' line 4 holds the text 'off'.*2 rows",
    ),
    "long text": (rows_of("1,2", "3," + "y" * 99, header="a,b"), r"line 3 holds the text 'y{37}\.\.\.'"),
    "text below a quoted line end": ('a,b\n1,"2\n"\n3,off\n', "line 4 holds the text 'off'"),
    "decimal comma": (rows_of("1;1,5", "2;2,5", header="a;b"), "line 2 holds '1,5', a decimal comma"),
    "all missing": (rows_of("1,", "2,NaN", header="a,b"), "channel 'b' holds no value at all"),
    "infinite": (
        rows_of("1,2", "3,-inf", "1,inf", header="a,b"),
        r"'b' line 3 holds an infinite value \(2 rows",
    ),
    "label of 2": (
        rows_of("1,0", "2,2", header="a,label"),
        "label column 'label' line 3 holds '2', expected 0 or 1",
    ),
    "empty label": (rows_of("1,0", "2,", header="a,label"), "label column 'label' line 3 holds nothing"),
    "text label": (rows_of("1,ok", "2,ok", header="a,class"), "label column 'class' line 2 holds 'ok'"),
    "unsorted": (
        stamped(["2024-03-01 10:00:05", "2024-03-01 10:00:06", "2024-03-01 10:00:01"]),
        "line 4 holds 2024-03-01 10:00:01 after 2024-03-01 10:00:06 .1 rows go back.; sort the file",
    ),
    "unsorted numbers": (rows_of("0,1", "2,1", "1,3", header="t,a"), "line 4 holds 1.0 after 2.0"),
    "no stamp": (rows_of("2024-01-01", "x"), "line 2 has 1 fields"),
    "unreadable stamp": (
        stamped(["2024-03-01", "2024-03-02", "soon"]),
        "line 4 holds 'soon', expected a stamp",
    ),
    "missing stamp": (stamped(["2024-03-01", ""]), "time column 'time' has no stamp in line 3"),
    "no stamps": (rows_of(",1", ",2", header="time,a"), "time column 'time' holds no stamp"),
    "infinite stamp": (rows_of("1,1", "inf,2", header="time,a"), "infinite number in line 3"),
    "true as stamp": (
        rows_of("True,1", "False,2", header="time,a"),
        "time column 'time' holds true and false",
    ),
    "unit of time": (rows_of("1,1", "2,2", header="time [ticks],a"), "time column 'time' is in 'ticks'"),
    "neither": (rows_of("20240301,1", "20240301120000,2", header="t,a"), "line 3, neither an epoch"),
    "3 rows": (stamped(seconds(3)), "3 rows remain, expected at least 4"),
    "all constant": (
        rows_of(*["7,8"] * 5, header="a,b"),
        "constant channels: a = 7, b = 8; no channel changes",
    ),
    "no channel": (rows_of(*"0123", header="time"), "no channel is left among the columns time"),
    "overwritten by duplicates": (
        rows_of(
            *(f"{stamp},,{i}" for i, stamp in enumerate(["2024-03-01", *seconds(5), seconds(5)[4]]))
        ).replace(",,5", ",9,5"),
        "no value is left of a once duplicate stamps are merged",
    ),
    "today": (stamped(["2024-03-01", "2024-03-02", "today"]), "line 4 holds 'today', expected a stamp"),
    "coarse stamps": (stamped([seconds(4)[i // 5] for i in range(20)]), "16 of 20 rows repeat the stamp"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_with_one_line_that_names_it(tmp_path: Path, kind: str) -> None:
    content, message = BAD_FILES[kind]
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as failure:
        read_csv(path)
    assert str(failure.value).startswith(f"{path}: ")
    assert "\n" not in str(failure.value)


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_csv(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a folder, expected a CSV file"):
        read_csv(tmp_path)
    with pytest.raises(DataError, match="cannot be read: "):
        read_csv(write(tmp_path, "a\n1\n") / "below_a_file.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ["a", "x"]}, "there is no channel column 'x'; the columns are: time, a, b"),
        ({"time": "x"}, "there is no time column 'x'"),
        ({"label": "x"}, "there is no label column 'x'"),
        ({"channels": ["a"], "label": "a"}, "column 'a' is asked for twice"),
        ({"channels": ["a", "a"]}, "column 'a' is asked for twice"),
        ({"channels": []}, "no channel is left among the columns"),
    ],
)
def test_columns_that_cannot_be_had_are_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    path = write(tmp_path, stamped(seconds(6)))
    with pytest.raises(DataError, match=message):
        read_csv(path, **options)  # type: ignore[arg-type]


def test_every_problem_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    text = rows_of("9,x,1,0,", "8,2,inf,3,", header="time,a,b,label,c")
    with pytest.raises(DataError) as failure:
        read_csv(write(tmp_path, text))
    for part in (
        "5 problems",
        "'time' is not sorted",
        "'label' line 3",
        "'x'",
        "infinite",
        "'c' holds no value",
    ):
        assert part in str(failure.value)
    with pytest.raises(DataError, match=r"(?s)2 problems.*channel column 'x'.*time column 'y'"):
        read_csv(write(tmp_path, text), channels=["x"], time="y")


def test_a_missing_pandas_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingTool, match=r"edge-lstm\[data\]"):
        read_csv(write(tmp_path, stamped(seconds(6))))


def test_the_room_loads_neither_pandas_nor_scikit_learn() -> None:
    program = "import sys, edge_lstm.datasets; print([m for m in ('pandas', 'sklearn') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "[]"


HOSTILE = [
    "1", "2", "-5", "", "NaN", "inf", "x", "2024-01-01", "2024-01-02 10:00", "10:00:01", "True", "1,5", '"q"',
    '"', "1e400", "1.7e9", " 4 ", "9" * 25, "-1000-01-01", "today", "12/31/2024", "NaT",
]  # fmt: skip
HEADERS = ["time", "t", "a", "label", "p [bar]", "", "date", "anomaly", "1", "time [ms]", "b"]
POLICIES = (
    Policy(), Policy("resample", "resample", "hold", "mean", "keep"), Policy(*["refuse"] * 5),
    Policy("resample", "hold", gap_factor=1.01),
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_no_file_gives_anything_but_a_dataset_or_a_stated_failure(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    read = 0
    for attempt in range(60):
        columns = int(rng.integers(1, 5))
        separator, end = rng.choice([",", ";", "\t"]), rng.choice(["\n", "\r\n", "\r"])
        hostility = 0.05 * (attempt % 3)
        lines = [separator.join(rng.choice(HEADERS, size=columns, replace=False))]
        for row in range(int(rng.integers(0, 12))):
            wild = rng.random(columns) < hostility
            cells = [rng.choice(HOSTILE) if hit else str(row * row) for hit in wild]
            lines.append(separator.join(cells))
        path = write(tmp_path, end.join([*lines, ""]))
        try:
            read += read_csv(path, policy=POLICIES[attempt % 4]).rows > 0
        except EdgeLstmError as error:
            assert str(path) in str(error)
    assert read > 2


def test_a_long_recording_is_read_in_seconds(tmp_path: Path) -> None:
    rows = 130_000
    stamps = np.datetime_as_string(np.datetime64("2024-01-01T00:00:00") + np.arange(rows).astype("m8[s]"))
    cells = np.round(np.random.default_rng(0).normal(size=(rows, 9)), 4).tolist()
    lines = [f"{stamp},{','.join(map(str, row))}" for stamp, row in zip(stamps.tolist(), cells, strict=True)]
    path = write(tmp_path, rows_of(*lines, header="time,a,b,c,d,e,f,g,h,i"))
    read_csv(write(tmp_path, stamped(seconds(4)), "warm.csv"))
    started = time.process_time()
    data = read_csv(path)
    assert data.values.shape == (rows, 9)
    assert (
        time.process_time() - started < 10.0
    )  # 0.7 s where it was written; a quadratic reader takes minutes


@pytest.mark.parametrize(
    ("name", "rows", "channels", "note"),
    [
        ("gecco2018/water_quality.csv.gz", 139566, 9, "goes back by one hour in line 126193"),
        ("nab/realKnownCause_machine_temperature_system_failure.csv", 22695, 1, "one hour in line 10151"),
        ("nab/realKnownCause_ec2_request_latency_system_failure.csv", 4021, 1, "11 rows repeat the stamp"),
        ("skab/valve1_0.csv", 1147, 8, "irregular stamps: 53 of 1146"),
        ("smd/machine-1-7.csv.gz", 47394, 34, "constant channels: m7 = 0, m26 = 0, m36 = 0, m37 = 0"),
        ("tep/d01_te.csv", 960, 52, "counts rows"),
        ("ecg/rec100_10min.csv.gz", 216000, 2, "counts rows"),
    ],
)
def test_recordings_of_others_are_read_as_they_are(
    shared_data: Path, name: str, rows: int, channels: int, note: str
) -> None:
    data = read_csv(shared_data / name)
    assert data.values.shape == (rows, channels) and data.label is not None
    assert any(note in line for line in data.notes)
