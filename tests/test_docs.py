"""What is written runs: the README's commands, the examples, the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from conftest import ROOT
from edge_lstm.cli import main
from edge_lstm.cli.config import load_defaults

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?:\s*)(edge-lstm [a-z].*?)(?:\s+#.*)?$", README, re.MULTILINE)


def parse(words: list[str]) -> click.Context:
    """Parse a command line without running it; click raises where an option does not exist."""
    context = click.Context(main)
    name, command, rest = main.resolve_command(context, words)
    assert command is not None
    return command.make_context(str(name), list(rest), parent=context)


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_is_one(line: str) -> None:
    parse(shlex.split(line)[1:])


def test_every_file_that_the_readme_names_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).is_file(), target
    for name in re.findall(r"`(edge_lstm/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_the_readme_table_is_what_the_demo_prints() -> None:
    """The figures need the demo itself; here: the rows and the columns are those that it prints."""
    from edge_lstm.verbs.demo import CORES

    for words in ("forecast R2", "AUC-PR", "event F1", "faults found", "false alarms", "codes that differ"):
        assert words in README, words
    for core in CORES:
        assert f"{core}: instructions a step" in README


def test_the_example_configuration_is_accepted_by_every_verb() -> None:
    for verb in ("train", "prune", "quantize", "detect", "serve"):
        command = main.get_command(click.Context(main), verb)
        assert command is not None
        assert load_defaults(ROOT / "examples" / "edge.toml", command)


PROMISES = {
    "pump_in_python.py": ["alarm in rows"],
    "pytorch_to_cortex_m4.py": ["lstm_torchscript", "lstm_dynamo", "gru_torchscript", "gru_dynamo"],
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_every_example_runs_and_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
    result = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    found = [line for line in result.stdout.splitlines() if "differ: " in line]
    assert found and all("differ: 0 of" in line for line in found), result.stdout
    assert all(promise in result.stdout for promise in PROMISES[path.name])


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("edge_lstm", "firmware_tools")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_hold(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0 and result.failed == 0
