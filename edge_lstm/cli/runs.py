"""edge-lstm runs"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_lstm.cli.common import FILE, console, figure, json_option, print_json, print_table, progress, verb

if TYPE_CHECKING:
    from edge_lstm.registry.comparison import Comparison
    from edge_lstm.verbs.reproduce import Reproduction
    from edge_lstm.verbs.runs import Run, Runs

STEPS = "steps"  # the difference that is two lines, not a row
NO_RECORD = "no record of how it was made"
SHORT = 12  # letters of a SHA-256 that people read


class Actions(click.Group):
    """Takes a folder in place of an action: ``runs DIR`` is ``runs list DIR``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args and args[0] in self.commands
        return super().resolve_command(ctx, args if known else ["list", *args])


@click.group("runs", cls=Actions, context_settings={"ignore_unknown_options": True})
def command() -> None:
    """Say what made each model below a folder: edge-lstm runs DIR

    Every .keras, .tflite, .onnx and export carries its record: verbs, options, recordings, versions, seeds,
    figures, and the file that it was made from. The actions take --json, and --config with a table [runs].
    """


@verb("runs")
@click.argument("folder", type=FILE)
@json_option
def list_runs(folder: Path, as_json: bool) -> None:
    """List the models below FOLDER as a tree, each below the one it was made from.

    Shown are the options that differ from the defaults. Files that cannot be read are listed with the reason.
    """
    from edge_lstm.verbs.runs import runs

    result = runs(folder)
    if as_json:
        print_json(result.to_json())
    else:
        print_runs(result)


def print_runs(result: Runs) -> None:
    """The tree, and below it what was refused."""
    from rich.text import Text
    from rich.tree import Tree

    trunk = Tree(Text(f"{result.folder}: {len(result.runs)} artefacts, {len(result.refused)} files refused"))
    branches = [trunk]
    above: list[Run | None] = [None]
    for run in result.runs:
        del branches[run.depth + 1 :], above[run.depth + 1 :]
        branches.append(branches[-1].add(Text(_line(run, above[-1]))))
        above.append(run)
    console().print(trunk)
    for path, reason in result.refused.items():
        click.echo(f"{path}: {reason}")


def _line(run: Run, above: Run | None) -> str:
    """Name: verb, options | recording, where it is another one | figures | what is not right."""
    said = ", ".join(f"{key} {_value(value)}" for key, value in run.options.items())
    parts = [f"{run.verb or 'unknown'}{': ' if said else ''}{said}"]
    if run.data is not None and (above is None or above.data != run.data):
        parts.append(f"{run.data['file']} {run.data['sha256'][:SHORT]}, {run.data.get('rows', 0):,} rows")
    figures = [f"{key} {figure(value)}" for key, value in run.figures.items() if value is not None]
    parts += [", ".join(figures)] if figures else []
    if run.parent is not None and not run.known_parent:
        parts.append(f"made from {run.parent['file']}, which is not here")
    return " | ".join([f"{run.path}  {parts[0]}", *parts[1:], *run.notes])


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@verb("runs")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@json_option
def compare_runs(first: Path, second: Path, as_json: bool) -> None:
    """Print what differs between the models FIRST and SECOND: options, data, versions, figures, numbers."""
    from edge_lstm.verbs.runs import compare

    result = compare(first, second)
    if as_json:
        print_json({**asdict(result), "verdict": result.verdict})
    else:
        print_comparison(result)


def print_comparison(result: Comparison) -> None:
    """What differs in the records, then in the numbers, then the verdict."""
    rows = [[name, _short(here), _short(there)] for name, here, there in result.differences if name != STEPS]
    if rows:
        print_table("What differs in the steps that both have", ["", "first", "second"], rows)
    for name, here, there in result.differences:
        if name == STEPS:
            click.echo(f"{result.first}: {here or NO_RECORD}\n{result.second}: {there or NO_RECORD}")
    for line in result.numbers:
        click.echo(line)
    click.echo(f"{result.first} and {result.second}: {result.verdict}")


def _short(value: Any) -> Any:
    """A cell: sums of files by their first letters, lists with commas."""
    if isinstance(value, str) and len(value) == 64:
        return value[:SHORT]
    return _value(value) if isinstance(value, list) else value


@verb("runs")
@click.argument("model", type=FILE)
@click.option("--data", type=FILE, multiple=True, required=True, help="A CSV that its steps read; repeat it.")
@click.option("-o", "--out", type=FILE, required=True, help="The file to write.")
@click.option("--parents", type=FILE, default=None, help="Folder of files it was made from; else made again.")
@json_option
def reproduce_run(
    model: Path, data: tuple[Path, ...], out: Path, parents: Path | None, as_json: bool
) -> None:
    """Make MODEL again from its recordings, verb by verb, and say whether the same comes out."""
    from edge_lstm.verbs.reproduce import reproduce

    with progress(as_json) as show:
        result = reproduce(model, data, out, parents, show)
    if as_json:
        print_json({**asdict(result), "verdict": result.comparison.verdict})
    else:
        print_reproduction(result)


def print_reproduction(result: Reproduction) -> None:
    """Each step with what came out, then what differs."""
    for step in result.steps:
        same = {True: "the same content", False: "another content", None: "not recorded"}[step.same]
        click.echo(f"{step.file}: {'found' if step.taken else step.verb}, {same}")
    for name, (then, now) in result.versions.items():
        click.echo(f"{name} was {then}, is {now}")
    print_comparison(result.comparison)


@verb("runs")
@click.argument("folder", type=FILE)
@click.option("--mlflow", "uri", required=True, help="Tracking store, as in sqlite:///mlflow.db.")
@click.option("--experiment", default="", help="Its name; by default that of the folder.")
@json_option
def export_to_mlflow(folder: Path, uri: str, experiment: str, as_json: bool) -> None:
    """Write each model below FOLDER as an MLflow run, once: params, metrics, tags, parent."""
    from edge_lstm.verbs.runs import export_runs

    result = export_runs(folder, uri, experiment)
    if as_json:
        print_json(asdict(result))
    else:
        click.echo(
            f"experiment '{result.experiment}': {len(result.written)} runs written, "
            f"{len(result.known)} were there already"
        )


for name, action in (("list", list_runs), ("compare", compare_runs), ("reproduce", reproduce_run),
                     ("export", export_to_mlflow)):  # fmt: skip
    command.add_command(action, name)
