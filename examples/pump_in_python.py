"""The road in Python: from a CSV to alarms of the C code, on a short pump recording.

Run it: python examples/pump_in_python.py
It prints the forecast's R2, how many codes of the host's C differ (0), and each alarm.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import edge_lstm
from edge_lstm.detection.events import Event
from edge_lstm.training.config import TrainConfig


def show(event: Event) -> None:
    if event.stop_row is not None:
        print(f"alarm in rows {event.start_row} to {event.stop_row}, led by {event.leading}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv, keras, tflite = folder / "pump.csv", folder / "pump.keras", folder / "pump.tflite"
        edge_lstm.dataset("pump", csv, rows=6000, seed=1)
        trained = edge_lstm.train(csv, keras, TrainConfig(units=(12,), epochs=15)).trained
        print(f"R2 of the forecast on the validation rows: {trained.figures['validation']['r2_mean']:.2f}")
        edge_lstm.quantize(keras, csv, tflite)
        (host,) = edge_lstm.verify(tflite, on=["host"], steps=2000).agreements
        print(f"codes of the C on this machine that differ: {host.network.differing} of {host.network.codes}")
        found = edge_lstm.detect(tflite, csv, on="host", on_event=show)
        print(f"{len(found.events)} alarms in {found.rows} rows")


if __name__ == "__main__":
    main()
