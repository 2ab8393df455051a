"""What all verbs share: errors as one line, options from data classes, TOML, tables, progress."""

from __future__ import annotations

import json
import re
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from edge_lstm.cli.config import load_defaults
from edge_lstm.errors import EdgeLstmError

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")

FILE = click.Path(path_type=Path)


class Verb(click.Command):
    """A command whose stated failures end as one message and exit code 1, Ctrl-C as 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeLstmError as error:
            click.echo(f"edge-lstm {self.name}: {error}", err=True)
            ctx.exit(1)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            click.echo(f"edge-lstm {self.name}: {place}{error.strerror or error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(f"edge-lstm {self.name}: interrupted; nothing was written", err=True)
            ctx.exit(130)


def verb(name: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function the command ``name``, with ``--config`` for a TOML file."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        option = click.option(
            "--config", type=FILE, is_eager=True, expose_value=False, callback=_read_config,
            help=f"TOML file with these options in its table [{name}].",
        )  # fmt: skip
        command: click.Command = click.command(name, cls=Verb)(option(function))
        return command

    return decorate


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    if value is None:
        return
    try:
        ctx.default_map = load_defaults(value, ctx.command)
    except EdgeLstmError as error:
        click.echo(f"edge-lstm {ctx.command.name}: {error}", err=True)
        ctx.exit(1)


def field_help(kind: type) -> dict[str, str]:
    """Each field's sentence from the docstring: what stands after ``name:`` until the next field."""
    names = [field.name for field in fields(kind)]
    words = " ".join((kind.__doc__ or "").split())
    found = ((re.search(rf"\b{name}: ", words), name) for name in names)
    places = sorted((match.start(), name) for match, name in found if match is not None)
    helps = {}
    for index, (start, name) in enumerate(places):
        stop = places[index + 1][0] if index + 1 < len(places) else len(words)
        helps[name] = words[start + len(name) + 2 : stop].replace("``", "").strip()
    return helps


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """Whole numbers with commas between, as in 24,12; a TOML list works too."""

    name = "n,n..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, (tuple, list)):
            return tuple(value)
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not whole numbers with commas between, as in 24,12", param, ctx)


class Names(click.ParamType):  # type: ignore[type-arg]
    """Names with commas between."""

    name = "name,name..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, (tuple, list)):
            return tuple(str(part) for part in value)
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


class Reals(click.ParamType):  # type: ignore[type-arg]
    """Numbers with commas between, as in 0,0.25; a TOML list works too."""

    name = "x,x..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            parts = value if isinstance(value, (tuple, list)) else str(value).split(",")
            return tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"'{value}' is not numbers with commas between, as in 0,0.25", param, ctx)


def _type(annotation: Any) -> Any:
    plain = {
        int: int,
        float: float,
        str: str,
        bool: bool,
        tuple[str, ...]: Names(),
        tuple[float, ...]: Reals(),
    }
    return plain.get(annotation, Numbers())


def options_of(kind: type, skip: tuple[str, ...] = ()) -> Callable[[F], F]:
    """One option for every field of a data class of options, with its default and its sentence."""
    helps, hints = field_help(kind), typing.get_type_hints(kind)

    def decorate(function: F) -> F:
        for field in reversed(fields(kind)):
            if field.name in skip or field.default is MISSING:
                continue
            dashed = field.name.replace("_", "-")
            flag = f"--{dashed}/--no-{dashed}" if hints[field.name] is bool else f"--{dashed}"
            default = field.default
            if isinstance(default, tuple):
                default = ",".join(str(part) for part in default)
            function = click.option(
                flag, field.name, type=None if hints[field.name] is bool else _type(hints[field.name]),
                default=default, show_default=True, help=helps.get(field.name),
            )(function)  # fmt: skip
        return function

    return decorate


def take(kind: type[C], options: dict[str, Any]) -> C:
    """Build ``kind`` from the command's options, removing them from ``options``."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: options.pop(name) for name in names if name in options})


def stream_options(function: F) -> F:
    """Options of every verb that reads a CSV: which columns, and what is done about its defects."""
    from edge_lstm.datasets.policies import CHOICES, Policy

    for field in reversed(fields(Policy)):
        choices = CHOICES.get(field.name)
        function = click.option(
            f"--{field.name.replace('_', '-')}", field.name,
            type=click.Choice(choices) if choices else _type(type(field.default)),
            default=field.default, show_default=True, help=field_help(Policy).get(field.name),
        )(function)  # fmt: skip
    for name, kind, text in (
        ("label", str, "Label column (0/1); empty for none; by default found by its name."),
        ("channels", Names(), "Channel columns, in the order of the network; by default all others."),
        ("time", str, "Time column; empty for none; by default found by itself."),
    ):
        function = click.option(f"--{name}", type=kind, default=None, help=text)(function)
    return function


def take_stream(options: dict[str, Any]) -> Any:
    """Build StreamOptions from the command's options, removing them from ``options``."""
    from edge_lstm.datasets.policies import Policy
    from edge_lstm.verbs.streams import StreamOptions

    policy = take(Policy, options)
    time, channels, label = (options.pop(name) for name in ("time", "channels", "label"))
    return StreamOptions(time, channels, label, policy)


def json_option(function: F) -> F:
    """``--json`` for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts instead of tables.")(
        function
    )


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=1, allow_nan=False))


def console() -> Any:
    """A rich console on standard output; at least 100 columns where the output is no terminal."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=110)


def print_table(title: str, columns: list[str], rows: list[list[Any]], note: str = "") -> None:
    """A table with right-aligned figures."""
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(figure(cell) for cell in row))
    click.echo(title)
    console().print(table)
    if note:
        click.echo(note)


def figure(value: Any) -> str:
    """A cell as people read it: thousands with commas, three significant digits, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.3g}"
    return str(value)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error, as the callback ``(done, total, text)`` that verbs take."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True, disable=quiet or not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def print_notes(notes: typing.Iterable[str]) -> None:
    """Stated facts about the input, on standard error."""
    for note in notes:
        click.echo(f"note: {note}", err=True)
