"""Samples to alarms in one C program: the stage's rows are what the network's detector takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_lstm.detection.fixed import MISSING
from edge_lstm.emit.c_features import emit_features
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.extraction.config import FeatureConfig
from edge_lstm.extraction.fixed import extract, quantize_features
from edge_lstm.graph import Stream
from random_models import c_files, random_qgraph
from test_c_code import SANITIZE, need, run

HOP = 16
MAIN = """
#include <stdio.h>
#include "{name}.h"
#include "stage_features.h"
int main(void)
{{
    static stage_features_state_t samples;
    static {name}_state_t network;
    int16_t sample[2];
    int32_t slow[1], row[STAGE_FEATURES_COLUMNS], score = 0;
    stage_features_reset(&samples);
    {name}_reset(&network);
    while (fread(sample, 2, 2, stdin) == 2 && fread(slow, 4, 1, stdin) == 1) {{
        if (stage_features_push(&samples, sample, slow, row) != 0u) {{
            const uint8_t alarm = {name}_detect(&network, row, &score);
            fwrite(&score, 4, 1, stdout);
            fwrite(&alarm, 1, 1, stdout);
        }}
    }}
    return 0;
}}
"""


def test_c_turns_samples_into_the_scores_and_alarms_of_numpy(tmp_path: Path) -> None:
    need("gcc")
    content = {
        "name": "stage", "rate_hz": 1600, "hop": HOP,
        "fast": {"a": {"features": ["rms", "kurtosis"]}, "b": {"features": ["band(100, 300)"]}},
        "slow": {"t": {"features": ["value", "difference(1)"]}},
    }  # fmt: skip
    stage = quantize_features(FeatureConfig.from_mapping(content))
    rng = np.random.default_rng(8)
    x = rng.normal(100, 900, (200 * HOP, 2)).astype(np.int64)
    x[150 * HOP :: 40] += 6000
    slow = np.where(rng.random((len(x), 1)) < 0.1, rng.integers(-500, 500, (len(x), 1)), MISSING)
    rows, _ = extract(stage, x, slow)
    assert (rows == MISSING).any()

    qgraph = random_qgraph(22, units=4, features=len(stage.config.columns), detector=True)
    known = np.where(rows == MISSING, np.nan, rows.astype(np.float64))
    channels = tuple(
        replace(channel, name=name, center=float(center), scale=float(scale), resolution=1.0, zero=0.0)
        for channel, name, center, scale in zip(
            qgraph.stream.channels,
            stage.config.columns,
            np.nanmean(known, 0),
            np.nanstd(known, 0),
            strict=True,
        )
    )
    qgraph = replace(qgraph, stream=Stream(channels, HOP / 1600))
    for file, text in {**emit_features(stage), **c_files(qgraph)}.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "main.c").write_text(MAIN.format(name=qgraph.name))
    run(*SANITIZE, *sorted(tmp_path.glob("*.c")), "-o", tmp_path / "main")
    pairs = zip(x.astype("<i2"), slow.astype("<i4"), strict=True)
    written = run(tmp_path / "main", input=b"".join(a.tobytes() + b.tobytes() for a, b in pairs)).stdout
    found = np.frombuffer(written, dtype=np.dtype([("score", "<i4"), ("alarm", "u1")]))
    expected = NumpyExecutor(qgraph).detect(rows)
    assert found["score"].tolist() == expected.score.tolist()
    assert found["alarm"].tolist() == expected.alarm.tolist()
    assert len(np.unique(expected.score)) > 100
