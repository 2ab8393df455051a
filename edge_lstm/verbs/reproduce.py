"""reproduce: run the steps that made an artefact again, and say whether the same comes out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.datasets.policies import Policy
from edge_lstm.errors import ConfigError, DataError, ModelError, OutputError, raise_all
from edge_lstm.files import check_place, replacing
from edge_lstm.registry.artefacts import Artefact, read_artefact, read_folder
from edge_lstm.registry.comparison import Comparison, compare_artefacts
from edge_lstm.registry.manifest import MANIFEST
from edge_lstm.registry.record import FileRecord, Step, content_sha256, data_record
from edge_lstm.verbs.convert import convert
from edge_lstm.verbs.finetune import finetune
from edge_lstm.verbs.prune import prune
from edge_lstm.verbs.quantize import quantize
from edge_lstm.verbs.runs import TABLES
from edge_lstm.verbs.streams import StreamOptions
from edge_lstm.verbs.train import train

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Remade:
    """One step.  same: whether the file has the content that the record says; None where nothing says it.

    taken: it was found in the folder of parents, and was not made again.
    """

    verb: str
    file: str
    same: bool | None
    taken: bool = False


@dataclass(frozen=True)
class Reproduction:
    """steps: in order.  comparison: of the artefact with what came out.  versions: name -> (then, now)."""

    out: str
    steps: tuple[Remade, ...]
    comparison: Comparison
    versions: Mapping[str, tuple[str, str]]


def reproduce(
    model: Path,
    data: Sequence[Path],
    out: Path,
    parents: Path | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Make ``model`` again with the verbs and options of its record; write it to ``out``.

    data: the recordings of its steps, under any name; found by their SHA-256.
    parents: a folder with files that it was made from; the ones that are not found are made again.
    Raises ModelError for a file without a record, DataError where a recording is not given.
    """
    artefact = read_artefact(Path(model))
    out = Path(out)
    if artefact.step is None:
        raise ModelError(f"{model}: it has no record of how it was made, so it cannot be made again")
    _check_output(artefact, out)
    first, start = _start(artefact, parents)
    recordings = _recordings(artefact, artefact.steps[first:], data)
    with tempfile.TemporaryDirectory(prefix="edge-lstm-") as place:
        bench = _Bench(Path(place), artefact, recordings)
        taken = bench.take(first, start) if start is not None else []
        made = [
            bench.run(index, progress, len(artefact.steps)) for index in range(first, len(artefact.steps))
        ]
        again = read_artefact(bench.last)
        with replacing(out) as temporary:
            shutil.copyfile(bench.last, temporary)
    comparison = replace(compare_artefacts(artefact, again), second=str(out))
    now = again.step.versions if again.step else {}
    versions = {
        name: (then, now.get(name, "none"))
        for name, then in artefact.step.versions.items()
        if now.get(name) != then
    }
    return Reproduction(str(out), (*taken, *made), comparison, versions)


def _check_output(artefact: Artefact, out: Path) -> None:
    """Fail before the work: what cannot be made, or cannot be written."""
    if artefact.path.name == MANIFEST:
        raise ConfigError(
            f"{artefact.path}: an export is made again from its model; give the .tflite, then "
            f"edge-lstm {artefact.steps[-1].verb}"
        )
    if out.suffix != artefact.path.suffix:
        raise OutputError(
            f"cannot write {out}: {artefact.path.name} is made again; "
            f"choose -o {out.stem}{artefact.path.suffix}"
        )
    check_place(out)


def _start(artefact: Artefact, parents: Path | None) -> tuple[int, Path | None]:
    """The first step to run, and the file it is run on: the youngest ancestor that is there, else none."""
    catalogue = read_folder(parents) if parents is not None else None
    for index in range(len(artefact.steps) - 1, -1, -1):
        parent = artefact.steps[index].parent
        found = catalogue.by_sha256(parent.sha256) if catalogue and parent else None
        if found is not None:
            return index, found.path
    root = artefact.steps[0]
    if root.parent is not None:
        raise ModelError(
            f"{artefact.path}: it was made from {root.parent.file} (SHA-256 {root.parent.sha256[:12]}), "
            "which was not trained here; give --parents the folder that it lies in"
        )
    return 0, None


def _recordings(artefact: Artefact, steps: Sequence[Step], data: Sequence[Path]) -> dict[str, Path]:
    """SHA-256 -> file, of all that the steps read; DataError lists the ones that are not given."""
    given = {data_record(path, 0).sha256: Path(path) for path in data}
    readers: dict[FileRecord, list[str]] = {}
    for step in steps:
        if step.data is not None and step.data.sha256 not in given:
            readers.setdefault(step.data, []).append(step.verb)
    sums = ", ".join(f"{path.name} {sha256[:12]}" for sha256, path in given.items()) or "no recording"
    problems = [
        f"{', '.join(verbs)} read {record.file}, {record.rows or 0:,} rows, SHA-256 {record.sha256[:12]}; "
        f"given is {sums}: give --data the recording as it was"
        for record, verbs in readers.items()
    ]
    raise_all(DataError, str(artefact.path), problems)
    return given


class _Bench:
    """A folder in which the steps run, under the names that the record says.  last: the youngest file."""

    def __init__(self, place: Path, artefact: Artefact, recordings: Mapping[str, Path]) -> None:
        self.place, self.artefact, self.recordings = place, artefact, recordings
        self.last = place

    def take(self, first: int, start: Path) -> list[Remade]:
        """Begin from a file that is there."""
        parent = self.artefact.steps[first].parent
        assert parent is not None
        self.last = self._folder(first) / parent.file
        shutil.copyfile(start, self.last)
        return [Remade(self.artefact.steps[first - 1].verb if first else "", parent.file, True, taken=True)]

    def run(self, index: int, progress: Progress | None, total: int) -> Remade:
        """Run one step on the file of the one before."""
        steps = self.artefact.steps
        step, after = steps[index], steps[index + 1] if index + 1 < total else None
        expected = after.parent if after is not None else None
        name = expected.file if expected else self.artefact.path.name
        out = self._folder(index + 1) / name
        if progress:
            progress(index, total, step.verb)
        _run_step(step, self.last, self._recording(step, index), out)
        self.last = out
        if after is None:
            return Remade(step.verb, name, content_sha256(out) == self.artefact.sha256)
        return Remade(step.verb, name, content_sha256(out) == expected.sha256 if expected else None)

    def _folder(self, index: int) -> Path:
        folder = self.place / str(index)
        folder.mkdir(exist_ok=True)
        return folder

    def _recording(self, step: Step, index: int) -> Path:
        """The recording under the name that it had: the name is in the record."""
        if step.data is None:
            return self.place
        folder = self.place / f"data{index}"
        folder.mkdir()
        shutil.copyfile(self.recordings[step.data.sha256], folder / step.data.file)
        return folder / step.data.file


def _run_step(step: Step, parent: Path, data: Path, out: Path) -> None:
    """Run a verb as it was; ModelError for one that this version cannot run."""
    options = _tables(step)
    if step.verb == "train":
        train(data, out, options["config"], options["stream"])
    elif step.verb == "prune":
        prune(parent, data, out, options["config"], options["stream"])
    elif step.verb == "finetune":
        finetune(parent, data, out, options["quantizer"], options["config"], options["stream"])
    elif step.verb == "quantize":
        quantize(
            parent,
            data,
            out,
            options["config"],
            options["detector"],
            options["stream"],
            options["resolution"],
        )
    else:
        convert(parent, out, **options["config"])


def _tables(step: Step) -> dict[str, Any]:
    """The options of a step as data classes, where it has them."""
    if step.verb not in (*TABLES, "convert"):
        raise ModelError(f"step '{step.verb}' cannot be run again from its record; give --parents its result")
    try:
        found = dict(step.options)
        if step.verb == "convert":
            given = found["config"]
            return {"config": {name: given[name] for name in ("to", "timesteps", "profile")}}
        for name, kind in TABLES[step.verb].items():
            found[name] = _options(kind, found[name])
        return found | ({"resolution": tuple(found["resolution"])} if step.verb == "quantize" else {})
    except (LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"step '{step.verb}': its options are not of this version ({type(error).__name__}: {error}); "
            f"use edge_lstm {step.versions.get('edge_lstm', 'of then')}"
        ) from error


def _options(kind: type, values: Mapping[str, Any]) -> Any:
    """A data class of options from plain JSON values, whose lists were tuples."""
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    if kind is StreamOptions:
        plain["policy"] = Policy(**plain["policy"])
    return kind(**plain)
