"""The command line: thin wrappers of the public functions; the only room that prints."""

from __future__ import annotations

import importlib
from typing import Any

import click

from edge_lstm import VERBS, __version__

SUMMARIES = {
    "dataset": "Write a labelled synthetic recording.",
    "study": "Say whether an LSTM is worth trying on a CSV, and how.",
    "features": "Turn fast samples into rows of integer features, and into the C that computes them.",
    "train": "Train a compact LSTM forecaster on a CSV.",
    "prune": "Prune a trained model and train it on.",
    "finetune": "Train a model on with the integers of its quantization (QAT).",
    "quantize": "Turn a float model of any kind into an integer .tflite with its detector.",
    "convert": "Write a model as C, .tflite or .onnx.",
    "export": "Write a package for Arduino, PlatformIO, Zephyr, ESP-IDF, CMSIS, CMake or MicroPython.",
    "run": "Run codes or a CSV through a model on one executor.",
    "verify": "Prove that every executor computes the same codes.",
    "bench": "Count instructions, flash, RAM and stack on a core.",
    "detect": "Find anomalies in a CSV; print alarms as they happen.",
    "evaluate": "Judge forecast and alarms beside simple methods.",
    "explain": "Say what a model rests on, what its forecast leaves and why its alarms rise.",
    "report": "Write one self-contained HTML page about a model.",
    "inspect": "Print what is in a model file, or why it is not read.",
    "layers": "Print what is supported, layer by layer.",
    "build": "Build a model's firmware for a board, with its sizes.",
    "flash": "Write a model's firmware to a board with the board's own tool.",
    "boards": "Print the boards and how each is proven.",
    "fit": "Print which boards take a model, and the most units that fit.",
    "tune": "Search networks that keep a board's limits; write the best ones.",
    "fleet": "Train, quantize and verify a model for each asset of a manifest.",
    "monitor": "Send a CSV to a board, row by row, and watch it live.",
    "serve": "Score many streams over MQTT and HTTP; publish alarms, show them live.",
    "runs": "Say what made each model in a folder; compare, reproduce, export to MLflow.",
    "demo": "The whole road on a synthetic pump, in one command.",
}


class Verbs(click.Group):
    """Loads a verb's module only when it is called: the help must not wait for NumPy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"edge_lstm.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # while a verb's module was still loading
            ctx.exit(130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, SUMMARIES[verb]) for verb in VERBS])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge-lstm")
def main() -> None:
    """From a sensor CSV to a proven int8 LSTM detector on a microcontroller.

    Start with: edge-lstm demo
    """
