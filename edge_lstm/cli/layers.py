"""edge-lstm layers"""

from __future__ import annotations

from dataclasses import asdict

import click

from edge_lstm.cli.common import json_option, print_json, print_table, verb
from edge_lstm.verbs.layers import Support, layers

COLUMNS = ("layer", "takes", "integers", "int16x8", "native", "tflite", "onnx", "qdq")
HEADS = [
    "layer",
    "takes",
    "int8 in NumPy and C",
    "int16x8",
    "native",
    "int8 .tflite runs on",
    ".onnx",
    "int8 .onnx",
]


@verb("layers")
@click.option("--markdown", is_flag=True, help="Print the table as the README shows it.")
@json_option
def command(markdown: bool, as_json: bool) -> None:
    """Print what is supported: a small network of every kind runs through every back end.

    Below the table stand the layers and operators that each importer reads.
    """
    result = layers()
    if as_json:
        print_json(asdict(result))
    elif markdown:
        click.echo(markdown_table(result))
    else:
        print_table("Layers", HEADS, [[getattr(row, name) for name in COLUMNS] for row in result.layers])
        for kind, names in result.importers.items():
            click.echo(f"{kind}: {', '.join(names)}")


def markdown_table(result: Support) -> str:
    """The table and the importers' lists as the README shows them."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(getattr(row, name) for name in COLUMNS) + " |" for row in result.layers]
    lines.append("")
    lines += [f"- {kind}: {', '.join(names)}" for kind, names in result.importers.items()]
    return "\n".join(lines)
