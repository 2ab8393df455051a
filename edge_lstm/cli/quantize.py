"""edge-lstm quantize"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edge_lstm.cli.common import (
    FILE,
    json_option,
    options_of,
    print_json,
    print_notes,
    print_table,
    stream_options,
    take,
    take_stream,
    verb,
)
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.verbs.quantize import Quantized, quantize


@verb("quantize")
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, required=True, help="CSV to calibrate on and to fit the detector on.")
@click.option("-o", "--out", type=FILE, required=True, help="The .tflite file to write.")
@click.option(
    "--resolution",
    multiple=True,
    metavar="NAME=STEP[@ZERO]",
    help="What a raw integer of a channel stands for; by default found in the CSV. Repeat for each channel.",
)
@options_of(QuantizeConfig)
@options_of(DetectorConfig)
@stream_options
@json_option
def command(
    model: Path, data: Path, out: Path, resolution: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Quantize MODEL on the normal rows of a CSV before its test part; fit its detector.

    MODEL is a float network of any kind: Keras (.keras, .h5), ONNX, PyTorch weights (.safetensors), .tflite.
    """
    config, detector = take(QuantizeConfig, options), take(DetectorConfig, options)
    result = quantize(model, data, out, config, detector, take_stream(options), resolution)
    print_notes(result.notes)
    if as_json:
        print_json(
            {
                "path": result.path,
                "size_bytes": result.size_bytes,
                "tensors": [asdict(tensor) for tensor in result.figures.tensors],
                "drift": [asdict(drift) for drift in result.figures.drift],
                "notes": list(result.notes),
            }
        )
    else:
        print_quantized(result)


def print_quantized(result: Quantized) -> None:
    """Signal-to-noise and saturation of each tensor, and the drift of the state."""
    rows = [
        [t.name, f"{t.low:.3g} .. {t.high:.3g}", f"{t.representable_low:.3g} .. {t.representable_high:.3g}",
         t.snr_db, t.saturated, t.count]
        for t in result.figures.tensors
    ]  # fmt: skip
    print_table(
        f"{result.path}: {result.size_bytes:,} bytes, profile {result.qgraph.profile}",
        ["tensor", "seen", "representable", "SNR dB", "saturated", "of"],
        rows,
    )
    if not result.figures.drift:
        return
    print_table(
        "Hidden state, int8 against float over the whole calibration stream",
        ["layer", "RMS error, first tenth", "last tenth", "largest error"],
        [[d.layer, d.rms_first, d.rms_last, d.largest] for d in result.figures.drift],
    )
