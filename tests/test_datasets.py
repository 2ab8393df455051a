"""Policies, splits, scaling and windows of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_lstm.datasets import Dataset, Policy, fit_scaler, make_windows, read_csv, split
from edge_lstm.errors import ConfigError, DataError, EdgeLstmError
from test_csv_file import NAN, dataset, rows_of, seconds, stamped, write

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
