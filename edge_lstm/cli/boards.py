"""edge-lstm boards"""

from __future__ import annotations

from dataclasses import asdict

import click

from edge_lstm.cli.common import json_option, print_json, print_table, verb
from edge_lstm.verbs.boards import boards

HEADS = ["board", "core", "flash", "RAM", "proven", "--on", "flashed with"]


@verb("boards")
@json_option
def command(as_json: bool) -> None:
    """Print the boards: core, flash and RAM for a firmware, and how each is proven."""
    result = boards()
    if as_json:
        print_json(asdict(result))
        return
    rows: list[list[object]] = [
        [row.name, row.core, row.flash, row.ram, row.proven, row.on or "serial:PORT", row.flash_tool or "-"]
        for row in result.boards
    ]
    print_table("Boards", HEADS, rows)
    for proof, meaning in result.proofs.items():
        click.echo(f"{proof}: {meaning}")
    for row in result.boards:
        if row.note:
            click.echo(f"{row.name}: {row.note}")
