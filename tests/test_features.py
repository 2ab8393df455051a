"""The feature stage in NumPy: exact arithmetic, float truth within stated bounds, chunks, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal, stats

from edge_lstm.detection.fixed import MISSING
from edge_lstm.errors import ConfigError, DataError
from edge_lstm.extraction import bands, history, moments
from edge_lstm.extraction.bands import BandState, QBand, design_band, filter_band, is_stable
from edge_lstm.extraction.config import ChannelFeatures, Feature, FeatureConfig
from edge_lstm.extraction.fixed import extract, quantize_features

IntArray = npt.NDArray[np.int64]

FAST = ["value", "mean", "rms", "std", "peak", "peak_to_peak", "crest", "kurtosis", "band(50, 200)"]
SLOW = ["value", "difference(2)", "lag(3)", "rolling_mean(4)", "rolling_std(3)"]
BANDS = [
    (50, 200, 3200),
    (5, 10, 3200),
    (200, 1500, 3200),
    (10, 1500, 3200),
    (100, 110, 6400),
    (2000, 4000, 12000),
]


def stage(fast: list[str], slow: list[str] | None = None, hop: int = 64, **options: Any) -> FeatureConfig:
    content: dict[str, Any] = {"name": "s", "rate_hz": 3200, "hop": hop, "fast": {"a": {"features": fast}}}
    if slow is not None:
        content["slow"] = {"t": {"features": slow}}
    return FeatureConfig.from_mapping({**content, **options})


def noise(seed: int, samples: int, spread: float, offset: float = 0.0) -> IntArray:
    values = np.random.default_rng(seed).normal(offset, spread, (samples, 1))
    return np.clip(np.rint(values), -32768, 32767).astype(np.int64)


def test_square_root_is_the_floor_at_every_power_and_beside_every_square() -> None:
    roots = np.unique([0, 1, *(2**k + d for k in range(1, 31) for d in (-1, 0, 1)), 2**31 - 1])
    x = np.unique(np.concatenate([roots**2, roots**2 - 1, roots**2 + 1, [2**62]]))
    x = x[x >= 0]
    assert moments.square_root(x).tolist() == [math.isqrt(value) for value in x.tolist()]


@pytest.mark.parametrize(("spread", "offset"), [(0, 700), (1, -3), (12, 2048), (3000, 0), (40000, 9000)])
def test_moments_are_those_of_floats_within_the_stated_bounds(spread: float, offset: float) -> None:
    x = noise(3, 640, spread, offset)
    names = FAST[:8]
    rows, _ = extract(quantize_features(stage(names)), x)
    found = dict(zip(names, rows.T.astype(np.float64), strict=True))
    windows = x.reshape(-1, 64).astype(np.float64)
    mean, spreads = windows.mean(axis=1), windows.std(axis=1)
    assert (found["value"] == windows[:, -1]).all()
    assert (found["peak_to_peak"] == np.ptp(windows, axis=1)).all()
    assert (np.abs(found["mean"] / 16 - mean) <= 1 / 32).all()
    below = np.sqrt((windows**2).mean(axis=1)) - found["rms"] / 16
    assert (below >= -1e-9).all() and (below < 1 / 16).all()
    off = found["std"] / 16 - spreads
    assert (off > -1 / 16 - 1e-9).all() and (off <= np.hypot(spreads, 1 / 32) - spreads + 1e-9).all()
    peaks = np.abs(windows - mean[:, None]).max(axis=1)
    assert (np.abs(found["peak"] / 16 - peaks) <= 1 / 32).all()
    if spread == 0:
        assert not found["crest"].any() and not found["kurtosis"].any()
        return
    # std is up to 1/16 too small, so that crest is up to that share too large
    share = 1 / 16 / spreads * 1.1 + 1 / 16 / peaks
    assert (np.abs(found["crest"] / 256 - peaks / spreads) <= peaks / spreads * share + 1 / 256).all()
    exact = stats.kurtosis(windows, axis=1, fisher=False)
    third = np.abs(((windows - mean[:, None]) ** 3).mean(axis=1))
    bound = 4 / 32 * third / spreads**4 + 8 / 1024 * exact / spreads**2 + 1 / 256
    assert (np.abs(found["kurtosis"] / 256 - exact) <= bound).all()


@pytest.mark.parametrize("seed", range(6))
def test_kurtosis_is_the_exact_ratio_rounded_down(seed: int) -> None:
    """At most one step of 1/256 below the ratio of whole numbers about the mean in 1/16."""
    rng = np.random.default_rng(seed)
    hop = int(rng.choice([1, 2, 5, 64, 1000]))
    x = (rng.integers(-32768, 32768, (20, hop)) >> rng.integers(0, 15, (20, 1))).astype(np.int64)
    x[0], x[1, 1:], x[2, ::2] = 5, x[1, 0], 32767
    found = moments.moments_of(x)
    for row, mean, value in zip(
        x.tolist(), found.mean.tolist(), moments.kurtosis(found).tolist(), strict=True
    ):
        second = sum((16 * v - mean) ** 2 for v in row)
        fourth = sum((16 * v - mean) ** 4 for v in row)
        exact = 256 * hop * fourth // second**2 if second else 0
        assert exact - 1 <= value <= exact + 1


@pytest.mark.parametrize("values", [(-32768, -32768), (32767, 32767), (-32768, 32767)])
def test_no_sum_overflows_in_the_longest_window_of_extremes(values: tuple[int, int]) -> None:
    """Whole numbers of Python are the oracle: 65,535 samples at both ends of int16."""
    x = np.resize(np.array(values, dtype=np.int64), 65535)[None]
    found = moments.moments_of(x)
    total, squares = sum(x[0].tolist()), sum(v * v for v in x[0].tolist())
    mean = math.floor((16 * total + 65535 // 2) / 65535)
    assert found.mean.tolist() == [mean] and found.squares.tolist() == [squares]
    assert found.central.tolist() == [sum((16 * v - mean) ** 2 for v in x[0].tolist())]
    assert abs(total) < 2**31 and squares <= 2**46 and int(found.central[0]) < 2**56
    assert moments.rms(found).tolist() == [math.isqrt(256 * squares // 65535)]
    assert moments.kurtosis(found).tolist() in ([0], [255], [256])


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
def test_a_band_is_scipys_filter_within_its_stated_error(low: float, high: float, rate: float) -> None:
    band = design_band(low, high, rate)
    x = np.random.default_rng(1).integers(-32768, 32768, 6000)
    z, _ = filter_band(band, x, BandState())
    sections = signal.butter(2, (low, high), "bandpass", fs=rate, output="sos")
    exact = signal.sosfilt(sections, (x - x[0]).astype(np.float64))
    assert np.abs(z / 16 - exact).max() <= 1 / 32 + band.error + 0.01  # coefficients of 30 bits


@pytest.mark.parametrize(("low", "high", "rate"), BANDS)
def test_the_worst_samples_reach_but_never_pass_the_bound_of_the_outputs(
    low: float, high: float, rate: float
) -> None:
    band = design_band(low, high, rate)
    assert all(is_stable(section) for section in band.sections)
    unit = 2.0**bands.COEFFICIENT_BITS
    impulse = np.zeros(6000)
    impulse[0] = 1.0
    for count in (1, 2):
        response = impulse
        for section in band.sections[:count]:
            forward = np.array([1.0, 0.0, -1.0]) * section.gain / unit
            response = signal.lfilter(forward, [1.0, *(-v / unit for v in section.back)], response)
        worst = np.where(response[::-1] > 0, 32767, -32768).astype(np.int64)
        outputs = section_outputs(band, worst)[count - 1]
        reach = np.abs(response).sum() * 32768 * 2**band.fraction
        assert 0.5 * reach < max(map(abs, outputs)) < bands.OUTPUT_LIMIT


def section_outputs(band: QBand, x: IntArray) -> list[list[int]]:
    """The filter as its definition reads, in Python's whole numbers."""
    steps = [int(v) << band.fraction for v in x - np.concatenate([x[:1], x[:1], x[:-2]])]
    found = []
    for section in band.sections:
        outputs, rest = [0, 0], 0
        for step in steps:
            acc = section.gain * step + section.back[0] * outputs[-1] + section.back[1] * outputs[-2] + rest
            assert abs(acc) < 2**62
            outputs.append(acc >> 30)
            rest = acc - (outputs[-1] << 30)
        found.append(outputs[2:])
        steps = [now - before for now, before in zip(outputs[2:], outputs, strict=False)]
    return found


def test_a_constant_has_no_energy_in_any_band_from_the_first_sample_on() -> None:
    rows, _ = extract(quantize_features(stage(["band(50, 200)", "band(5, 10)"])), np.full((640, 1), -32768))
    assert not rows.any()


@pytest.mark.parametrize("seed", range(4))
def test_chunks_of_any_size_give_the_rows_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = quantize_features(stage(FAST, SLOW, hop=int(rng.integers(1, 90))))
    x = noise(seed, 1500, 5000)
    slow = np.where(rng.random((1500, 1)) < 0.05, rng.integers(-(2**31), 2**31, (1500, 1)), MISSING)
    whole, last = extract(features, x, slow)
    state, parts, at = None, [], 0
    while at < 1500:
        size = int(rng.integers(0, 120))
        rows, state = extract(features, x[at : at + size], slow[at : at + size], state)
        parts.append(rows)
        at += size
    assert (np.concatenate(parts) == whole).all() and len(whole) == 1500 // features.config.hop
    assert state is not None and state.bands == last.bands


def test_slow_features_follow_their_definition_and_hand_missing_values_on() -> None:
    taken = [10, 20, MISSING, 40, -(2**31) + 1, 2**31 - 1]
    slow = np.full((12, 1), MISSING, dtype=np.int64)
    slow[1::2, 0] = taken  # the last of the two samples of each row
    slow[0, 0] = 7  # replaced within the row
    config = FeatureConfig.from_mapping(
        {"name": "s", "rate_hz": 1, "hop": 2, "slow": {"t": {"features": SLOW}}}
    )
    rows, _ = extract(quantize_features(config), slow=slow)
    gone = [MISSING, MISSING]
    assert rows[:, 0].tolist() == taken
    assert rows[:, 1].tolist() == [*gone, MISSING, 20, MISSING, 2**31 - 41]
    assert rows[:, 2].tolist() == [*gone, MISSING, 10, 20, MISSING]
    assert rows[:4, 3].tolist() == [10, 15, 15, 23]  # 70 / 3 = 23.3, ties up
    assert rows[:4, 4].tolist() == [0, 5, 5, 10]


def test_rolling_std_is_exact_about_the_unrounded_mean() -> None:
    rng = np.random.default_rng(5)
    rows = rng.integers(-(2**23), 2**23, (50, 7))
    exact = [math.isqrt((7 * sum(v * v for v in row) - sum(row) ** 2) // 49) for row in rows.tolist()]
    found = history.rolling_std(rows)
    assert (np.abs(found - exact) <= 1).all()  # the two floors before the root
    wide = np.array([[-(2**31) + 1, 2**31 - 1]])
    assert history.rolling_std(wide).tolist() == [2**24]


def test_a_bad_configuration_is_refused_with_every_problem_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        stage(["rmss", "band(200, 50)", "rms(3)", "mean", "mean"], ["lag(0)", "kurtosis"], hop=70000)
    message = str(caught.value)
    for part in (
        "hop is 70000", "did you mean 'rms'?", "band(200, 50): expected 0 < low < high < 1600 Hz",
        "rms takes no argument", "'a_mean' comes twice", "lag takes one number of rows, 1 .. 4095",
        "kurtosis is no feature of a slow channel",
    ):  # fmt: skip
        assert part in message, message
    with pytest.raises(ConfigError) as caught:
        FeatureConfig.from_mapping({"nam": 1, "fast": {"a": {"features": "rms", "unit": "g"}, "b": 3}})
    for part in (
        "'nam' is unknown; did you mean 'name'?", "'rate_hz' is missing", "expected a list such as",
        "fast.a: 'unit' is unknown", "fast.b is 3, expected a table",
    ):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="fast.a: 3 is not a feature such as 'rms'"):
        stage([3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="has no features; list some"):
        stage([])
    with pytest.raises(ConfigError, match=r"name is '1 a', expected letters"):
        stage(["rms"], name="1 a")
    with pytest.raises(ConfigError, match="no channel; add a table"):
        FeatureConfig("s", 1.0, 1)
    with pytest.raises(ConfigError, match="resolution is 0, expected a number above 0"):
        FeatureConfig("s", 1.0, 1, (ChannelFeatures("a", (Feature("rms"),), resolution=0),))


def test_bands_that_integers_cannot_filter_are_refused_together() -> None:
    with pytest.raises(ConfigError) as caught:
        quantize_features(stage(["band(0.01, 0.02)", "band(1, 2)", "band(50, 200)"]))
    assert "too narrow for integers" in str(caught.value)
    assert "band(1, 2) at 3200 Hz cannot be filtered in 32 bits" in str(caught.value)


def test_samples_that_do_not_fit_are_refused_together() -> None:
    features = quantize_features(stage(["rms"], ["value"]))
    with pytest.raises(DataError, match=r"samples are \(3, 2\), expected \(3, 1\)"):
        extract(features, np.zeros((3, 2)))
    with pytest.raises(DataError) as caught:
        extract(features, np.full((3, 1), 40000), np.full((3, 1), 2**31))
    assert "reach from 40000 to 40000, expected int16" in str(caught.value)
    assert "expected int32" in str(caught.value)
    with pytest.raises(DataError, match=r"slow values are \(2, 1\), expected \(3, 1\)"):
        extract(features, np.zeros((3, 1)), np.zeros((2, 1)))
