"""Output files: written to a temporary file beside their place, then renamed; all or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_lstm.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; rename it to ``path`` when the block succeeds.

    Raises OutputError where the folder does not exist or cannot be written.  On any failure nothing is left.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; create the folder or choose another -o"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another -o") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or leave the old one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file with ``\\n`` line ends or leave the old one."""
    write_bytes(path, content.encode("utf-8"))


def check_place(path: Path, option: str = "-o") -> None:
    """Raises OutputError where a file could not be written for want of its folder: ask before long work."""
    if not Path(path).parent.is_dir():
        raise OutputError(
            f"cannot write {path}: there is no such folder; create it or choose another {option}"
        )


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; OutputError where that cannot be done."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path}: {error.strerror}; choose another -o") from error
    return Path(path)
