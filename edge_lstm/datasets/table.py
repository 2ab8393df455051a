"""The text of a CSV (plain or gzip) as a table of cells: separator, header, and the line of each row.

Refuses what is no CSV: binary, undecodable, ragged or without a header.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.datasets.dataset import MIN_ROWS
from edge_lstm.errors import DataError, raise_all

SEPARATORS = (",", ";", "\t")
UNIT = re.compile(r"(?P<name>.*\S)\s*(\[(?P<square>[^\[\]]*)\]|\((?P<round>[^()]*)\))")

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One column of the file: its header as it stands, and the same taken apart into name and unit."""

    index: int
    header: str
    name: str
    unit: str


@dataclass(frozen=True, eq=False)
class Table:
    """The cells of a file: a pandas frame with columns 0, 1 ... and the line of the file for each row."""

    columns: tuple[Column, ...]
    frame: Any
    lines: IndexArray


def _read_text(path: Path) -> str:
    """The decoded file with ``\\n`` line ends and at least one line that is not blank."""
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a CSV file") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: the gzip file is damaged ({error}); copy it again") from error
    if b"\0" in content:
        raise DataError(f"{path}: the file is binary (it holds zero bytes), expected a CSV as UTF-8 text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save the file as UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty, expected a header line and rows of numbers")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_table(pandas: Any, path: Path) -> Table:
    """Parse the cells after checking the header and that every row has as many fields.

    Raises DataError with every problem of the file's form.
    """
    where, text = str(path), _read_text(path)
    separator, fields, header_line, lines, ragged = _scan(text, where)
    raise_all(DataError, where, _header_problems(fields) + ragged)
    if len(lines) == 0:
        raise DataError(f"{where}: has a header line only, expected at least {MIN_ROWS} rows of numbers")
    body = io.StringIO(text.rstrip("\n"))
    for _ in range(header_line):
        body.readline()
    # pandas parses decimals exactly by default since 3.1, where the option is deprecated
    exact = {} if _version(pandas) >= (3, 1) else {"float_precision": "round_trip"}
    try:
        frame = pandas.read_csv(
            body, sep=separator, header=None, names=list(range(len(fields))), index_col=False,
            low_memory=False, skipinitialspace=True, skip_blank_lines=len(fields) > 1, **exact,
        )  # fmt: skip
    except pandas.errors.ParserError as error:
        raise DataError(f"{where}: cannot be read as CSV: {error}; is a quote left open?") from error
    taken = [_take_apart(index, field) for index, field in enumerate(fields)]
    names = [column.name for column in taken]
    columns = tuple(
        column if names.count(column.name) == 1 else replace(column, name=column.header) for column in taken
    )
    return Table(columns, frame, lines)


def _version(pandas: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in pandas.__version__.split(".")[:2])


def _scan(text: str, where: str) -> tuple[str, list[str], int, IndexArray, list[str]]:
    """Separator, header fields, header line, line of each row, and a problem if rows differ in length.

    Blank lines are skipped, unless a single column makes them missing values.
    """
    first = text[: len(text) - len(text.lstrip())].count("\n")  # blank lines before the header
    header = text.split("\n", first + 1)[first]
    separator = max(SEPARATORS, key=lambda sign: len(next(csv.reader([header], delimiter=sign))))
    reader = csv.reader(io.StringIO(text.rstrip("\n")), delimiter=separator, skipinitialspace=True)
    fields: list[str] = []
    header_line = 0
    lines, odd = [], []
    try:
        for record in reader:
            blank = not record or (len(record) == 1 and not record[0].strip())
            if not fields:
                if not blank:
                    fields, header_line = [field.strip() for field in record], reader.line_num
            elif not blank or len(fields) == 1:
                lines.append(reader.line_num)
                if record and len(record) != len(fields):
                    odd.append((reader.line_num, len(record)))
    except csv.Error as error:
        raise DataError(f"{where}: line {reader.line_num} cannot be read as CSV: {error}") from error
    ragged = [
        f"line {line} has {count} fields, expected {len(fields)} as in the header "
        f"({len(odd)} of {len(lines)} rows differ); correct or remove those lines"
        for line, count in odd[:1]
    ]
    return separator, fields, header_line, np.array(lines, dtype=np.int64), ragged


def _header_problems(fields: list[str]) -> list[str]:
    problems = []
    if all(_is_number(field) for field in fields):
        return [f"line 1 holds numbers ({', '.join(fields[:3])} ...), expected the names of the columns"]
    repeated = sorted({field for field in fields if field and fields.count(field) > 1})
    if repeated:
        problems.append(f"column names appear twice: {listed(repeated)}; rename them")
    problems += [
        f"column {index + 1} has no name; name it, or remove it"
        for index, field in enumerate(fields)
        if not field and index > 0  # the first is the index that pandas writes
    ]
    return problems


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _take_apart(index: int, header: str) -> Column:
    """Name and unit of ``pressure [bar]`` or ``pressure (bar)``."""
    match = UNIT.fullmatch(header)
    if not match:
        return Column(index, header, header, "")
    return Column(index, header, match["name"], (match["square"] or match["round"] or "").strip())


def listed(names: list[str], most: int = 40) -> str:
    """Names in one line, the rest as a number."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
