"""One TOML file for all verbs: a table a verb, keys as on the command line; [data] serves every verb."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from edge_lstm import VERBS
from edge_lstm.errors import ConfigError, raise_all


def load_defaults(path: Path, command: click.Command) -> dict[str, Any]:
    """Defaults of ``command`` from the tables [data] and [its name] of a TOML file.

    Raises ConfigError for a file that cannot be read, unknown tables and unknown keys, all at once.
    """
    content = read_toml(path)
    known = {param.name: param for param in command.params if param.name and param.name != "config"}
    problems = [
        f"table [{table}] is unknown; expected [data] or one of {', '.join(VERBS)}"
        for table in content
        if table not in (*VERBS, "data")
    ]
    defaults: dict[str, Any] = {}
    for table in ("data", str(command.name)):
        values = content.get(table, {})
        if not isinstance(values, dict):
            problems.append(f"'{table}' is a value, expected a table [{table}]")
            continue
        for key, value in values.items():
            name = key.replace("-", "_")
            if name in known:
                defaults[name] = value
            elif table != "data":
                near = difflib.get_close_matches(name, [k for k in known if k], n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                problems.append(f"[{table}] has no option '{key}'{hint}")
    raise_all(ConfigError, str(path), problems)
    return defaults


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give --config an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from error
    return content
