"""runs: what made each artefact below a folder, what differs between two, and all of it as MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_lstm.detection.config import DetectorConfig
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.registry.artefacts import Artefact, Catalogue, flat, read_artefact, read_folder
from edge_lstm.registry.comparison import Comparison, compare_artefacts
from edge_lstm.registry.mlflow_export import Exported, export_catalogue
from edge_lstm.registry.record import Step
from edge_lstm.training.config import FinetuneConfig, PruneConfig, TrainConfig
from edge_lstm.verbs.streams import StreamOptions

# verb -> table of its options -> the data class of them
TABLES: dict[str, dict[str, type]] = {
    "train": {"config": TrainConfig, "stream": StreamOptions},
    "prune": {"config": PruneConfig, "stream": StreamOptions},
    "finetune": {"config": FinetuneConfig, "quantizer": QuantizeConfig, "stream": StreamOptions},
    "quantize": {"config": QuantizeConfig, "detector": DetectorConfig, "stream": StreamOptions},
}


@dataclass(frozen=True)
class Run:
    """One artefact.  path: below the folder.  depth: of the tree of parents.

    verb: "" without a record.  options: those that differ from the defaults.  data, parent: file, sha256 and,
    of a recording, rows; None where there is none.  known_parent: whether the parent is below the folder.
    """

    path: str
    depth: int
    sha256: str
    verb: str
    options: Mapping[str, Any]
    data: Mapping[str, Any] | None
    parent: Mapping[str, Any] | None
    known_parent: bool
    seed: int | None
    versions: Mapping[str, str]
    figures: Mapping[str, float | None]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Runs:
    """runs: parents before what was made from them.  refused: path below the folder -> the reason."""

    folder: str
    runs: tuple[Run, ...]
    refused: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def changed_options(step: Step) -> dict[str, Any]:
    """Options of a step that are not the defaults of this version; those of ``config`` without its name."""
    defaults: dict[str, Any] = {}
    for table, kind in TABLES.get(step.verb, {}).items():
        options = kind()
        defaults[table] = options.to_mapping() if hasattr(options, "to_mapping") else asdict(options)
    usual = flat(defaults)
    found = flat(step.options)
    return {
        name.removeprefix("config."): value
        for name, value in found.items()
        if value != usual.get(name) and value != []
    }


def runs(folder: Path) -> Runs:
    """List the models and exports below ``folder`` as a tree by what each was made from.

    Raises ModelError where ``folder`` is none; a file that cannot be read is listed with its reason.
    """
    catalogue = read_folder(Path(folder))
    rows = tuple(_run(catalogue, depth, artefact) for depth, artefact in catalogue.tree())
    refused = {_below(catalogue, path): reason for path, reason in catalogue.refused.items()}
    return Runs(str(folder), rows, refused)


def _run(catalogue: Catalogue, depth: int, artefact: Artefact) -> Run:
    step = artefact.step
    return Run(
        path=_below(catalogue, artefact.path),
        depth=depth,
        sha256=artefact.sha256,
        verb=step.verb if step else "",
        options=changed_options(step) if step else {},
        data=step.data.to_mapping() if step and step.data else None,
        parent=step.parent.to_mapping() if step and step.parent else None,
        known_parent=depth > 0,
        seed=step.seed if step else None,
        versions=step.versions if step else {},
        figures=step.figures if step else {},
        notes=artefact.notes,
    )


def _below(catalogue: Catalogue, path: Path) -> str:
    return path.relative_to(catalogue.folder).as_posix()


def compare(first: Path, second: Path) -> Comparison:
    """What differs between two artefacts: how they were made, and their numbers.

    Raises ModelError for a file that cannot be read.
    """
    return compare_artefacts(read_artefact(first), read_artefact(second))


def export_runs(folder: Path, uri: str, experiment: str = "") -> Exported:
    """Write the artefacts below ``folder`` as MLflow runs to the tracking store ``uri``, each one once.

    experiment: its name; "" for that of the folder.  Raises MissingTool without MLflow, RuntimeFailure where
    the store refuses.
    """
    catalogue = read_folder(Path(folder))
    options = {a.sha256: changed_options(a.step) for a in catalogue.artefacts if a.step}
    return export_catalogue(catalogue, options, uri, experiment or Path(folder).resolve().name)
