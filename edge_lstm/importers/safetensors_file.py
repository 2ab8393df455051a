"""The .safetensors format: 8 bytes of header length, a JSON header, raw little-endian arrays.

Reads bytes of any origin; writes float32 arrays and the header's metadata.  No package is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel

MAX_BYTES = 64 << 20
MAX_HEADER_BYTES = 1 << 20
MAX_WEIGHTS = 1 << 24
MAX_TENSORS = 2000
MAX_RANK = 8
MAX_NAME = 200
SHOWN = 5  # names in one message
METADATA = "__metadata__"
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8,
               "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of the header: where its bytes lie behind it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The tensors of a ``.safetensors`` file as float32, by name, and the metadata of its header.

    Raises ModelError for a file that is damaged, too large or of another format, or that holds NaN or
    infinity; UnsupportedModel for dtypes other than F32, F64, F16 and BF16.
    """
    path = Path(path)
    content = _read(path)
    try:
        header, start = _header(content)
        metadata = _metadata(header.pop(METADATA, {}))
        if len(header) > MAX_TENSORS:
            raise ValueError(f"it lists {len(header)} tensors, at most {MAX_TENSORS} are read")
        entries = [_entry(name, values) for name, values in header.items()]
        _check_layout(entries, len(content) - start)
    except (ValueError, RecursionError) as error:
        reason = "its header is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{path}: no sound .safetensors file: {reason}; save it again") from error
    foreign = [entry for entry in entries if entry.dtype not in BYTES]
    if foreign:
        found = sorted({entry.dtype for entry in foreign})
        raise UnsupportedModel(
            f"{path}: {listed([entry.name for entry in foreign])} of dtype {', '.join(found)}, expected "
            f"{', '.join(BYTES)}; save only the weights of float modules"
        )
    data = memoryview(content)[start:]
    tensors = {entry.name: _array(entry, data) for entry in entries}
    wild = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if wild:
        raise ModelError(
            f"{path}: {listed(wild)} with NaN, infinity or more than a float32 holds; the training diverged"
        )
    return tensors, metadata


def shown(names: Sequence[str]) -> str:
    """The first few names, in words."""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + rest


def listed(names: Sequence[str]) -> str:
    """The first few names of tensors, in words."""
    return f"tensor{'s' * (len(names) > 1)} {shown(names)}"


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path}: not a file, expected a .safetensors file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: it cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, expected a small network")
    return content


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header and where the arrays start.  ValueError with the reason where it is not sound."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 10 or content[8:9] != b"{":
        raise ValueError("it does not begin with a length and a JSON header")
    if length > min(MAX_HEADER_BYTES, len(content) - 8):
        raise ValueError(
            f"its header claims {length} bytes, the file has {len(content) - 8} behind the length, and at "
            f"most {MAX_HEADER_BYTES} are read"
        )
    try:
        text = content[8 : 8 + length].decode("utf-8")
        header = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
        )
    except ValueError as error:
        raise ValueError(f"its header is damaged ({str(error)[:120]})") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key stands twice")
    return values


def _integer(text: str) -> int:
    if len(text) > 15:
        raise ValueError(f"the number {text[:15]}... is too large")
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:15]} is no size")


def _metadata(values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError(f"its {METADATA} is not a table of texts")
    return values


def _entry(name: str, values: Any) -> Entry:
    if len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"tensor {name[:SHOWN]!r}... has a name that is no text of {MAX_NAME} letters")
    if not isinstance(values, Mapping) or set(values) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    if not isinstance(dtype, str) or dtype not in {**BYTES, **OTHER_BYTES}:
        raise ValueError(f"tensor {name!r} has dtype {str(dtype)[:20]!r}, which the format does not know")
    if not _sizes(shape) or len(shape) > MAX_RANK or 0 in shape:
        raise ValueError(f"tensor {name!r} has a shape that is no list of at most {MAX_RANK} sizes above 0")
    if not _sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r} has data_offsets that are not two positions")
    return Entry(name, dtype, tuple(shape), *offsets)


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _check_layout(entries: list[Entry], available: int) -> None:
    """The arrays fill the rest of the file, one behind another, and each has the bytes of its shape."""
    position = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        wanted = math.prod(entry.shape) * {**BYTES, **OTHER_BYTES}[entry.dtype]
        if entry.end - entry.begin != wanted:
            raise ValueError(
                f"tensor {entry.name!r} {list(entry.shape)} needs {wanted} bytes, its data_offsets are "
                f"{entry.begin} .. {entry.end}"
            )
        if entry.begin != position:
            raise ValueError(
                f"tensor {entry.name!r} starts at byte {entry.begin}, expected {position}: tensors "
                "overlap or leave a hole"
            )
        position = entry.end
    if position != available:
        raise ValueError(f"its tensors need {position} bytes, the file has {available}")
    weights = sum(math.prod(entry.shape) for entry in entries)
    if weights > MAX_WEIGHTS:
        raise ValueError(f"it holds {weights} weights, at most {MAX_WEIGHTS} are read")


def _array(entry: Entry, data: memoryview) -> FloatArray:
    raw = data[entry.begin : entry.end]
    if entry.dtype == "BF16":  # the upper half of a float32
        values: FloatArray = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):  # becomes infinity, which the caller refuses
            values = np.frombuffer(raw, f"<f{BYTES[entry.dtype]}").astype(np.float32)
    return values.reshape(entry.shape)
