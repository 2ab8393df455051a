"""The quantizer: portable scales, ranges, refusals, and how near integers stay to reals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.evaluation.quantization import compare
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.lower import lower
from edge_lstm.program import LstmProgram
from edge_lstm.qgraph import QDense, QLstm
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating, integer
from edge_lstm.scales import cell_power, find_range, portable_hidden_scale, portable_scale


def random_graph(seed: int, features: int, units: tuple[int, ...], gain: float = 1.0) -> Graph:
    """Glorot-like random weights with biases: layers that behave as trained ones do."""
    rng = np.random.default_rng(seed)
    layers: list[Lstm | Dense] = []
    width = features
    for index, n in enumerate(units):
        kernel = rng.normal(0, gain / np.sqrt(width), (width, 4 * n))
        recurrent = rng.normal(0, 0.6 / np.sqrt(n), (n, 4 * n))
        layers.append(Lstm(f"lstm_{index}", kernel, recurrent, rng.normal(0, 0.3, 4 * n)))
        width = n
    layers.append(
        Dense("head", rng.normal(0, 1 / np.sqrt(width), (width, features)), rng.normal(0, 0.2, features))
    )
    return Graph("net", tuple(layers), Stream.unnamed(features))


def stream(seed: int, steps: int, features: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)[:, None]
    phase = rng.uniform(0, 6, features)
    return np.sin(t / rng.uniform(5, 60, features) + phase) + rng.normal(0, 0.2, (steps, features))


@pytest.mark.parametrize("seed", range(20))
def test_portable_scales_give_all_runtimes_the_same_multipliers(seed: int) -> None:
    graph = random_graph(seed, 1 + seed % 7, (3 + seed % 11, 5)[: 1 + seed % 2])
    qgraph = quantize(graph, stream(seed, 300, graph.features))
    tflm, litert = lower(qgraph), lower(qgraph.with_profile("litert"))
    for a, b in zip(tflm.layers, litert.layers, strict=True):
        if isinstance(a, LstmProgram) and isinstance(b, LstmProgram):
            for name in ("input_requantizer", "recurrent_requantizer", "hidden_requantizer"):
                assert (getattr(a, name).multiplier == getattr(b, name).multiplier).all()
                assert (getattr(a, name).shift == getattr(b, name).shift).all()


def test_a_portable_scale_is_the_next_twelve_bit_significand() -> None:
    rng = np.random.default_rng(0)
    for scale in rng.uniform(1e-4, 0.3, 500):
        for function, most in ((portable_scale, 1 + 2**-11), (portable_hidden_scale, 1.13)):
            rounded = function(scale)
            assert scale <= rounded <= scale * most
            assert Fraction(rounded).numerator.bit_length() <= 12


def test_ranges_hold_zero_and_clip_as_asked() -> None:
    values = np.concatenate([np.linspace(1.0, 2.0, 9999), [50.0]])
    assert find_range(values, QuantizeConfig(ranges="minmax")) == (0.0, 50.0)
    low, high = find_range(values, QuantizeConfig(ranges="percentile", percentile=99.9))
    assert low == 0.0 and high == pytest.approx(2.0, abs=0.01)
    assert find_range(np.zeros(5), QuantizeConfig()) == (0.0, 1.0)


def test_the_mse_range_has_the_least_error_of_all_tried() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_t(3, 20_000)
    low, high = find_range(values, QuantizeConfig(ranges="mse"))

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        return float(np.mean((np.clip(np.rint((values - low) / scale), 0, 255) * scale + low - values) ** 2))

    full = find_range(values, QuantizeConfig(ranges="minmax"))
    tried = [error(full[0] * (1 - 0.02 * k), full[1] * (1 - 0.02 * k)) for k in range(40)]
    assert error(low, high) == pytest.approx(min(tried))
    assert min(tried) < tried[0]


@pytest.mark.parametrize(
    ("largest", "power"),
    [(0.0, -14), (0.3, -15), (0.5, -15), (0.51, -14), (1.0, -14), (3.9, -12), (60.0, -9)],
)
def test_the_cell_scale_keeps_one_bit_of_headroom_within_its_limits(largest: float, power: int) -> None:
    assert cell_power(largest, 1) == power


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ranges", ["minmax", "percentile", "mse"])
def test_integers_follow_reals_over_a_long_stream(seed: int, ranges: str) -> None:
    graph = random_graph(seed, 4, (12, 7)[: 1 + seed % 2])
    x = stream(seed, 3000, 4)
    qgraph = quantize(graph, x, QuantizeConfig(ranges=ranges))
    figures = compare(graph, qgraph, x)
    by_name = {tensor.name: tensor for tensor in figures.tensors}
    snr = by_name["head/output"].snr_db
    assert snr is not None and snr > 20  # 1 % of the signal's power; random nets reach 24 to 35
    for drift in figures.drift:
        assert drift.rms_last < 1.5 * drift.rms_first + 0.005  # the state does not run away


def test_figures_count_saturated_codes_and_compare_reals() -> None:
    graph = random_graph(2, 3, (6,))
    x = stream(2, 400, 3)
    qgraph = quantize(graph, x, QuantizeConfig(input_margin=0.0))
    loud = compare(graph, qgraph, 4 * x)
    tensor = next(t for t in loud.tensors if t.name == "input")
    half, q = qgraph.input.scale / 2, qgraph.input
    outside = (4 * x < q.decode(-128) - half) | (4 * x > q.decode(127) + half)
    assert tensor.saturated == int(outside.sum()) > 0
    assert tensor.count == x.size
    assert all(t.saturated == 0 for t in loud.tensors if t.kind == "weight")
    quiet, _ = integer.run(lower(qgraph), qgraph.input.encode(x)[None])
    exact, _ = floating.run(graph, x[None])
    error = float(np.mean((qgraph.output.decode(quiet) - exact) ** 2))
    expected = 10 * np.log10(float(np.mean(exact**2)) / error)
    found = next(t for t in compare(graph, qgraph, x).tensors if t.name == "head/output").snr_db
    assert found == pytest.approx(expected, abs=0.01)


def test_bad_calibration_streams_and_options_are_refused() -> None:
    graph = random_graph(0, 3, (4,))
    with pytest.raises(DataError, match=r"the stream is \(5, 2\), expected \(steps, 3\)"):
        quantize(graph, np.zeros((5, 2)))
    with pytest.raises(DataError, match="holds NaN"):
        quantize(graph, np.full((5, 3), np.nan))
    with pytest.raises(ConfigError) as caught:
        QuantizeConfig("cmsis", "int4", "int8", "best", 30.0, -1.0, 9)
    for part in (
        "profile is 'cmsis'",
        "scheme is 'int4'",
        "ranges is 'best'",
        "percentile is 30.0",
        "input_margin is -1.0",
        "cell_headroom",
    ):
        assert part in str(caught.value)


def test_a_cell_that_grows_beyond_sixteen_bits_saturates_and_is_stated() -> None:
    kernel, bias = np.zeros((1, 4)), np.array([30.0, 30.0, 5.0, 30.0])  # i = f = o = 1: the cell counts up
    graph = Graph("count", (Lstm("l", kernel, np.zeros((1, 4)), bias),), Stream.unnamed(1))
    qgraph = quantize(graph, np.ones((100, 1)))
    assert isinstance(qgraph.layers[0], QLstm) and qgraph.layers[0].cell_power == -9
    notes = compare(graph, qgraph, np.ones((100, 1))).notes
    assert any("l/cell reaches 100 and saturates at 64 in" in note for note in notes), notes


def test_a_bias_beyond_32_bits_is_refused() -> None:
    graph = Graph(
        "big", (Lstm("l", np.full((1, 4), 1e-6), np.zeros((1, 4)), np.full(4, 1e3)),), Stream.unnamed(1)
    )
    with pytest.raises(ModelError, match="lstm 'l': a bias of 1000 does not fit 32 bits"):
        quantize(graph, np.full((50, 1), 1e-3))


def test_layer_scales_meet_and_weights_stay_symmetric() -> None:
    qgraph = quantize(random_graph(4, 3, (6, 5)), stream(4, 300, 3))
    first, second, head = qgraph.layers
    assert isinstance(first, QLstm) and isinstance(second, QLstm) and isinstance(head, QDense)
    assert first.hidden == second.input and second.hidden == head.input
    for layer in (first, second):
        assert np.abs(layer.kernel.astype(int)).max() == 127 and layer.kernel.min() >= -127
