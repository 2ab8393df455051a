"""A package on disk: a folder that appears as a whole, or a zip with fixed dates."""

from __future__ import annotations

import io
import shutil
import tempfile
import zipfile
from pathlib import Path

from edge_lstm.errors import ConfigError, OutputError
from edge_lstm.files import make_folder, write_bytes

DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
FLAT = "cmsis-pack"  # its tools look for the .pdsc at the top of the zip; others for one folder


def write_package(out: Path, package_format: str, name: str, files: dict[str, str]) -> None:
    """Write ``files`` (path -> text) as the zip or the folder ``out``: all of them, or none.

    A folder is replaced only when every file in it is one of ``files``; else OutputError names one.
    """
    if out.suffix == ".pack" and package_format != FLAT:
        raise ConfigError(f"-o {out} is a CMSIS-Pack, --format is {package_format}; give a folder or a .zip")
    if out.suffix in (".zip", ".pack"):
        write_bytes(out, zip_bytes(files, "" if package_format == FLAT else f"{name}/"))
    else:
        _write_folder(out, files)


def zip_bytes(files: dict[str, str], top: str) -> bytes:
    """A zip of ``files`` behind the folder ``top``; stored, so that every zlib gives the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(top + path, DATE)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[path])
    return content.getvalue()


def _write_folder(out: Path, files: dict[str, str]) -> None:
    _refuse_foreign(out, files)
    make_folder(out)
    try:
        staging = Path(tempfile.mkdtemp(prefix=".edge-lstm-", dir=out))
        try:
            for path, text in files.items():
                (staging / path).parent.mkdir(parents=True, exist_ok=True)
                (staging / path).write_text(text, encoding="utf-8", newline="\n")
            for path in files:
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (staging / path).replace(out / path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror}; choose another -o") from error


def _refuse_foreign(out: Path, files: dict[str, str]) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} is not a folder; choose another -o, or one that ends in .zip")
    present = (path for path in sorted(out.rglob("*")) if path.is_symlink() or not path.is_dir())
    for path in present:
        if path.relative_to(out).as_posix() not in files:
            raise OutputError(
                f"{out} holds {path.relative_to(out).as_posix()}, which is not of this package; "
                "choose another -o or remove it"
            )
