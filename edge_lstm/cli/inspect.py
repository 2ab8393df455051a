"""edge-lstm inspect"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from edge_lstm.cli.common import FILE, json_option, print_json, print_table, verb
from edge_lstm.verbs.inspect import Inspection, inspect

MOST_NAMES = 3  # that a cell of the table lists


@verb("inspect")
@click.argument("model", type=FILE)
@json_option
def command(model: Path, as_json: bool) -> None:
    """Print the layers, shapes, parameters, scales, profile and description of MODEL.

    MODEL is any file that is read here (Keras, ONNX, .tflite, .safetensors); its kind is seen from its
    content. What cannot be read is refused with every reason.
    """
    result = inspect(model)
    if as_json:
        print_json(asdict(result))
    else:
        _print(result)


def _print(result: Inspection) -> None:
    takes = f"windows of {result.window} rows" if result.window else "one row a step"
    click.echo(f"{result.path}: {result.kind}, network '{result.name}', {result.numbers}, {takes}")
    if result.input:
        click.echo(f"input: {result.input}")
    rows: list[list[object]] = [
        [layer.name, layer.kind, _few(layer.reads), f"{layer.shape[0]} x {layer.shape[1]}",
         layer.parameters, layer.quantization or "-", layer.details or "-"]
        for layer in result.layers
    ]  # fmt: skip
    print_table(
        f"{len(result.layers)} layers, {result.parameters:,} parameters",
        ["layer", "kind", "reads", "writes", "parameters", "codes", "options"],
        rows,
    )
    _print_channels(result)
    click.echo(f"detector: {'yes' if result.detector else 'none'}")
    for key, value in result.made.items():
        click.echo(f"made: {key} = {value}")


def _few(names: tuple[str, ...]) -> str:
    """The first names of a long list."""
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def _print_channels(result: Inspection) -> None:
    plain = all(
        c["name"] == f"ch{i}" and (c["center"], c["scale"], c["resolution"]) == (0, 1, 0)
        for i, c in enumerate(result.channels)
    )
    if plain:
        click.echo(f"{len(result.channels)} channels without names or scaling")
        return
    period = f", a row each {result.period_s:g} s" if result.period_s else ""
    print_table(
        f"{len(result.channels)} channels{period}",
        ["channel", "unit", "center", "scale", "raw step", "raw zero"],
        [
            [c["name"], c["unit"] or "-", c["center"], c["scale"], c["resolution"] or None, c["zero"]]
            for c in result.channels
        ],
    )
