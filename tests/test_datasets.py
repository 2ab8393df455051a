"""CSV files, policies, splits, scaling and windows."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.datasets import Dataset, Policy, fit_scaler, make_windows, read_csv, split
from edge_lstm.errors import ConfigError, DataError, EdgeLstmError, MissingTool

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


IRREGULAR = [
    "2024-03-01 10:00:00", "2024-03-01 10:00:01", "2024-03-01 10:00:02", "2024-03-01 10:00:02.4",
    "2024-03-01 10:00:03", "2024-03-01 10:00:04", "2024-03-01 10:00:07", "2024-03-01 10:00:08",
    "2024-03-01 10:00:38", "2024-03-01 10:00:39", "2024-03-01 10:00:40",
]  # fmt: skip
# values of column a are 0 .. 10; the median step is 1 s; one gap of 30 s; bin 2 holds rows 2 and 3


def irregular(folder: Path, policy: Policy) -> Dataset:
    label = [0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0]
    text = rows_of(
        *(f"{stamp},{row},{hit}" for row, (stamp, hit) in enumerate(zip(IRREGULAR, label, strict=True))),
        header="time,a,label",
    )
    return read_csv(write(folder, text), policy=policy)


def test_masked_irregular_rows_stay_as_they_come_and_gaps_are_marked(tmp_path: Path) -> None:
    data = irregular(tmp_path, Policy())
    assert data.values[:, 0].tolist() == list(range(11)) and data.period_s == 1
    assert np.flatnonzero(data.gap).tolist() == [8]
    assert data.notes == (
        "irregular stamps: 3 of 10 steps are more than 10% off the median of 1 s (0.4 to 3): "
        "kept as they come",
        "gaps: 1 steps above 5 x 1 s, the longest 30 s before line 10: no window crosses them",
    )


def test_resampled_rows_lie_on_a_grid_of_bin_means_and_hold_one_empty_bin(tmp_path: Path) -> None:
    data = irregular(tmp_path, Policy(irregular="resample"))
    expected = [0, 1, 2.5, 4, 5, 5, NAN, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(data.values[:, 0], expected)
    assert data.time_s.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 38, 39, 40]
    assert np.flatnonzero(data.gap).tolist() == [9]
    assert data.label is not None and data.label.tolist() == [0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert data.notes[0].endswith("resampled to 12 rows")


def test_resampled_gaps_are_filled_with_missing_rows(tmp_path: Path) -> None:
    stamps = [*seconds(8), "2024-03-01 10:00:14", "2024-03-01 10:00:15"]  # 7 s, then 14 s: six rows missing
    data = read_csv(write(tmp_path, stamped(stamps)), policy=Policy(gaps="resample"))
    np.testing.assert_array_equal(data.values[:, 0], [0, 1, 2, 3, 4, 5, 6, 7, *[NAN] * 6, 8, 9])
    assert data.time_s.tolist() == list(range(16)) and not data.gap.any()
    assert data.notes[0].endswith("the longest 7 s before line 10: filled with 6 missing rows")


def test_held_gaps_are_forgotten(tmp_path: Path) -> None:
    data = irregular(tmp_path, Policy(gaps="hold"))
    assert data.rows == 11 and not data.gap.any() and "ignored, the state is held" in data.notes[1]


@pytest.mark.parametrize("name", ["irregular", "gaps"])
def test_resampling_never_fills_in_more_rows_than_the_file_has(tmp_path: Path, name: str) -> None:
    stamps = [*seconds(8), "2024-03-02 10:00:00"]
    policy = Policy(**{name: "resample"}, gap_factor=1e6 if name == "irregular" else 5)  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match="fills in 86392 rows, expected at most as many as the file has .9.; choose"
    ):
        read_csv(write(tmp_path, stamped(stamps)), policy=policy)


DUPLICATES = rows_of(
    "2024-03-01,1,5,0", "2024-03-02,2,,1", "2024-03-02,4,7,0", "2024-03-02,9,,0", "2024-03-03,5,8,0",
    "2024-03-04,6,9,0", header="time,a,b,label",
)  # fmt: skip


@pytest.mark.parametrize(("choice", "second"), [("last", [9, NAN]), ("mean", [5, 7])])
def test_duplicate_stamps_become_one_row_that_is_anomalous_if_any_was(
    tmp_path: Path, choice: str, second: list[float]
) -> None:
    data = read_csv(write(tmp_path, DUPLICATES), policy=Policy(duplicates=choice))
    np.testing.assert_array_equal(data.values, [[1, 5], second, [5, 8], [6, 9]])
    assert data.label is not None and data.label.tolist() == [0, 1, 0, 0]
    done = {"last": "kept the last of each", "mean": "averaged"}[choice]
    assert (
        data.notes[0] == f"duplicate stamps: 2 rows repeat the stamp before them, the first in line 4: {done}"
    )


def test_held_values_are_held_for_some_rows_and_never_across_a_gap(tmp_path: Path) -> None:
    stamps = [*seconds(6), "2024-03-01 10:01:00", "2024-03-01 10:01:01"]
    cells = ["", "1", "", "", "", "2", "", "3"]
    text = rows_of(
        *(f"{stamp},{cell},{i}" for i, (stamp, cell) in enumerate(zip(stamps, cells, strict=True)))
    )
    data = read_csv(write(tmp_path, text), policy=Policy(missing="hold", hold_rows=2))
    np.testing.assert_array_equal(data.values[:, 0], [NAN, 1, 1, 1, NAN, 2, NAN, 3])
    assert (data.present == ~np.isnan(data.values)).all()
    assert data.notes[1] == "missing values: 5 of 16 (31.25%) in a: 2 held for up to 2 rows, 3 masked"


@pytest.mark.parametrize(("choice", "names"), [("drop", ("a",)), ("keep", ("a", "b"))])
def test_constant_channels_are_dropped_or_kept_and_named(
    tmp_path: Path, choice: str, names: tuple[str, ...]
) -> None:
    path = write(tmp_path, rows_of("1,3", "2,", "3,3", "4,3", header="a,b"))
    data = read_csv(path, policy=Policy(constant=choice))
    assert data.names == names
    assert data.notes[0].startswith(
        "constant channels: b = 3: " + ("kept" if choice == "keep" else "left out")
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("irregular", stamped(IRREGULAR), "irregular stamps: 3 of 10 steps .*; choose the policy irregular"),
        ("gaps", stamped(IRREGULAR), "gaps: 1 steps .*; choose the policy gaps"),
        ("missing", DUPLICATES, "missing values: 1 of 8 .* in b; choose the policy missing"),
        ("duplicates", DUPLICATES, "duplicate stamps: 2 rows .*; remove them"),
        ("constant", rows_of(*["1,2", "1,3"] * 3, header="a,b"), "constant channels: a = 1; leave them out"),
    ],
)
def test_each_policy_can_refuse(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(write(tmp_path, text), policy=Policy(**{name: "refuse"}))  # type: ignore[arg-type]


def test_a_policy_with_choices_that_do_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError) as failure:
        Policy("a", "b", "c", "d", "e", gap_factor=1.0, hold_rows=0)
    for part in ("7 problems", "irregular is 'a', expected one of mask, resample", "gap_factor is 1.0",
                 "hold_rows is 0"):  # fmt: skip
        assert part in str(failure.value)


def test_a_regular_complete_file_has_no_notes(tmp_path: Path) -> None:
    assert read_csv(write(tmp_path, stamped(seconds(9)))).notes == ()


def test_a_long_recording_is_read_in_about_a_second(tmp_path: Path) -> None:
    rows = 130_000
    stamps = np.datetime_as_string(np.datetime64("2024-01-01T00:00:00") + np.arange(rows).astype("m8[s]"))
    cells = np.round(np.random.default_rng(0).normal(size=(rows, 9)), 4).tolist()
    lines = [f"{stamp},{','.join(map(str, row))}" for stamp, row in zip(stamps.tolist(), cells, strict=True)]
    path = write(tmp_path, rows_of(*lines, header="time,a,b,c,d,e,f,g,h,i"))
    read_csv(write(tmp_path, stamped(seconds(4)), "warm.csv"))
    started = time.process_time()
    data = read_csv(path)
    assert data.values.shape == (rows, 9)
    assert time.process_time() - started < 3.0  # 0.7 s of processor time where it was written


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


def test_a_dataset_is_read_only_and_cuts_out_rows_with_their_time() -> None:
    data = dataset([[1], [2], [NAN], [4]], label=[0, 0, 1, 0], gap=[0, 0, 1, 0])
    with pytest.raises(ValueError, match="read-only"):
        data.values[0, 0] = 9
    part = data.slice(2, 4)
    assert part.rows == 2 and part.channels == 1 and part.time_s.tolist() == [0, 1]
    assert part.start == "2024-03-01T10:00:02" and not part.gap.any()
    assert part.label is not None and part.label.tolist() == [1, 0]
    for start, stop in ((2, 2), (-1, 2), (0, 5)):
        with pytest.raises(DataError, match=f"rows {start} to {stop} asked for, but it has rows 0 to 4"):
            data.slice(start, stop)


def test_a_dataset_checks_its_arrays_when_it_is_built() -> None:
    good = dataset([[1, 2], [3, 4]])
    fields = {name: getattr(good, name) for name in good.__dataclass_fields__}
    for changes, message in (
        ({"values": np.zeros((0, 2))}, r"values is \(0, 2\), expected \(rows, channels\)"),
        ({"names": ("a",), "gap": np.zeros(3)}, r"(?s)2 problems.*names has 1 entries.*gap is \(3,\)"),
        ({"names": ("a", "a")}, "two channels have the same name"),
        ({"present": np.zeros((2, 2))}, "values must be finite where present"),
        ({"gap": np.ones(2)}, "row 0 is marked as after a gap"),
        ({"label": np.array([0, 3])}, "label holds 3"),
        ({"time_s": np.array([0, -1])}, "never decrease"),
        ({"period_s": -1.0}, "period_s is -1.0"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset(**{**fields, **changes})


def test_splits_keep_time_order_and_every_row() -> None:
    data = dataset([[row] for row in range(21)])
    parts = split(data, 0.6, 0.2)
    assert [part.rows for part in parts] == [13, 4, 4]
    assert np.concatenate([part.values[:, 0] for part in parts]).tolist() == list(range(21))
    assert parts.test.start == "2024-03-01T10:00:17"


def test_a_split_with_too_few_rows_says_how_many_are_enough() -> None:
    for train, validation in ((0.6, 0.2), (0.5, 0.1), (0.34, 0.33)):
        for rows in range(4, 12):
            data = dataset([[row] for row in range(rows)])
            try:
                split(data, train, validation)
            except DataError as error:
                needed = int(str(error).split("record ")[1].split()[0])
                assert (
                    min(p.rows for p in split(dataset([[r] for r in range(needed)]), train, validation)) >= 4
                )
    with pytest.raises(DataError, match="10 rows give parts of 6, 2 and 2 rows, expected at least 4 in each"):
        split(dataset([[row] for row in range(10)]))


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (0.0, 0.2, "the train fraction is 0.0"), (1.2, -0.1, "2 problems"), (NAN, 0.2, "fraction is nan"),
        (0.7, 0.3, "leave nothing for the test part"), (0.9, 0.1, "leave nothing"),
    ],
)  # fmt: skip
def test_fractions_out_of_range_are_refused(train: float, validation: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(dataset([[row] for row in range(100)]), train, validation)


SCALED = [[0, 5, 1, NAN], [2, 5, 1, 3], [4, 5, 1, 5], [10, 5, 2, NAN], [1e6, 99, 9, 99]]


@pytest.mark.parametrize(
    ("kind", "center", "scale"),
    [
        ("standard", [4, 5, 1.25, 4], [np.sqrt(14), 1, np.sqrt(0.1875), 1]),
        ("minmax", [5, 5, 1.5, 4], [5, 1, 0.5, 1]),
        ("robust", [3, 5, 1, 4], [4, 1, 0.25, 1]),
    ],
)
def test_scaling_is_fitted_on_normal_present_rows_and_a_constant_channel_gets_scale_1(
    kind: str, center: list[float], scale: list[float]
) -> None:
    data = dataset(SCALED, label=[0, 0, 0, 0, 1])
    stream = fit_scaler(data, kind)
    np.testing.assert_allclose(stream.center, center, rtol=1e-12)
    np.testing.assert_allclose(stream.scale, scale, rtol=1e-12)
    assert stream.names == data.names and stream.period_s == 1
    if kind == "minmax":
        network = stream.to_network(data.values[:4])
        assert np.nanmin(network) == -1 and np.nanmax(network) == 1


def test_a_robust_scaler_without_an_interquartile_range_uses_the_standard_deviation() -> None:
    values = [0.0] * 10 + [8.0]
    stream = fit_scaler(dataset([[value] for value in values]), "robust")
    assert stream.center[0] == 0 and stream.scale[0] == pytest.approx(np.std(values))


def test_the_smallest_and_largest_spreads_still_give_a_channel() -> None:
    data = dataset([[1e-12, 1e150, 1e9], [2e-12, -1e150, 1e9 + 1e-6]] * 3)
    for kind in ("standard", "minmax", "robust"):
        network = fit_scaler(data, kind).to_network(data.values)
        assert np.abs(network[:, :2]) == pytest.approx(np.full((6, 2), 0.5 if kind == "robust" else 1.0))
        assert np.isfinite(network).all()


def test_scaling_without_a_normal_value_or_with_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 2 training rows is labelled normal"):
        fit_scaler(dataset([[1], [2]], label=[1, 1]))
    with pytest.raises(DataError, match="channel 'c1' has no value in the 1 normal training rows"):
        fit_scaler(dataset([[1, NAN], [2, 5]], label=[0, 1]))
    with pytest.raises(
        ConfigError, match="scaler 'log' is not known, expected one of standard, minmax, robust"
    ):
        fit_scaler(dataset([[1], [2]]), "log")


def slow_windows(data: Dataset, timesteps: int, stride: int, burn_in: int) -> list[tuple[np.ndarray, ...]]:
    """Row by row and value by value: the oracle of make_windows."""
    segments: list[list[int]] = []
    interrupted = True
    for row in range(data.rows):
        interrupted = interrupted or bool(data.gap[row])
        if data.present[row].any():
            if interrupted:
                segments.append([])
            segments[-1].append(row)
            interrupted = False
    found = []
    for rows in segments:
        held, current = {}, np.zeros(data.channels)
        for row in rows:
            current = np.array(
                [v if p else c for v, p, c in zip(data.values[row], data.present[row], current, strict=True)]
            )
            held[row] = current
        steps = len(rows) - 1
        starts = [*range(0, steps - timesteps, stride), steps - timesteps] if steps >= timesteps else []
        for start in starts:
            inputs, targets, weights = [], [], []
            for t in range(timesteps):
                row, following = rows[start + t], rows[start + t + 1]
                counts = t >= burn_in and data.normal[row] and data.normal[following]
                inputs.append(held[row])
                targets.append(held[following])
                weights.append([float(counts and p) for p in data.present[following]])
            if np.any(weights):
                found.append((np.array(inputs), np.array(targets), np.array(weights)))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_windows_equal_those_cut_row_by_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, channels = int(rng.integers(12, 60)), int(rng.integers(1, 4))
    values = np.where(rng.random((rows, channels)) < 0.25, NAN, rng.integers(-9, 9, (rows, channels)))
    gap = rng.random(rows) < 0.06
    gap[0] = False
    data = dataset(values.tolist(), label=(rng.random(rows) < 0.1).astype(int).tolist(), gap=gap.tolist())
    timesteps = int(rng.integers(1, 8))
    stride, burn_in = int(rng.integers(1, timesteps + 3)), int(rng.integers(0, timesteps))
    expected = slow_windows(data, timesteps, stride, burn_in)
    arguments = (data.values, data.present, data.gap, data.normal, timesteps, stride, burn_in)
    if not expected:
        with pytest.raises(DataError, match="windows: "):
            make_windows(*arguments)
        return
    windows = make_windows(*arguments)
    assert windows.count == len(expected)
    for name, place in (("inputs", 0), ("targets", 1), ("weights", 2)):
        array = getattr(windows, name)
        assert array.dtype == np.float32 and array.shape == (len(expected), timesteps, channels)
        np.testing.assert_array_equal(array, np.stack([window[place] for window in expected]))


def test_windows_cover_the_end_of_a_segment_and_the_target_is_the_next_row() -> None:
    data = dataset([[row] for row in range(9)])
    windows = make_windows(data.values, data.present, data.gap, data.normal, timesteps=3, stride=3, burn_in=1)
    assert windows.inputs[:, :, 0].tolist() == [[0, 1, 2], [3, 4, 5], [5, 6, 7]]
    assert windows.targets[:, :, 0].tolist() == [[1, 2, 3], [4, 5, 6], [6, 7, 8]]
    assert windows.weights[:, :, 0].tolist() == [[0, 1, 1]] * 3


def test_windows_that_cannot_be_cut_are_refused_with_figures() -> None:
    data = dataset([[row] for row in range(9)], gap=[0, 0, 0, 0, 1, 0, 0, 0, 0])

    def cut(usable: list[bool], timesteps: int, stride: int = 1, burn_in: int = 0) -> EdgeLstmError:
        with pytest.raises(EdgeLstmError) as failure:
            make_windows(data.values, data.present, data.gap, np.array(usable), timesteps, stride, burn_in)
        return failure.value

    message = str(cut([True] * 9, 5))
    assert "the longest of 2 segments between gaps has 5 rows, a window needs 6" in message
    message = str(cut([False] * 9, 2, burn_in=1))
    assert "all 5 windows of 2 steps hold only steps of the burn-in (1), missing or anomalous rows" in message
    problems = cut([True] * 9, 0, 0, -1)
    assert isinstance(problems, ConfigError) and "3 problems" in str(problems)
    assert "burn_in is 2, expected below timesteps (2)" in str(cut([True] * 9, 2, burn_in=2))
    nothing = np.zeros((9, 1), bool)
    with pytest.raises(DataError, match="the longest of 0 segments between gaps has 0 rows"):
        make_windows(data.values, nothing, data.gap, data.normal, 2, 1)
