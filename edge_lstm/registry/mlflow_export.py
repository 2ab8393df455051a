"""Artefacts as MLflow runs: one each, with params, metrics, tags and its parent's run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_lstm.errors import RuntimeFailure
from edge_lstm.optional import require
from edge_lstm.registry.artefacts import Artefact, Catalogue, flat

SHA256 = "edge_lstm.sha256"  # the tag by which a run is found again
PARENT = "mlflow.parentRunId"
MAX_VALUE = 500  # letters of a param that every version of MLflow takes


@dataclass(frozen=True)
class Exported:
    """written: paths of the artefacts that became runs.  known: of those that were runs already."""

    uri: str
    experiment: str
    written: tuple[str, ...]
    known: tuple[str, ...]


def export_catalogue(
    catalogue: Catalogue, options: Mapping[str, Mapping[str, Any]], uri: str, experiment: str
) -> Exported:
    """Write each artefact that has a record and is no run of ``experiment`` yet.

    options: SHA-256 of an artefact -> params.  Raises MissingTool, RuntimeFailure.
    """
    mlflow = require("mlflow", "mlflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():  # of SQLAlchemy, about how MLflow calls it
            warnings.simplefilter("ignore")
            return _export(mlflow.MlflowClient(uri), catalogue, options, uri, experiment)
    except (mlflow.exceptions.MlflowException, ImportError, OSError) as error:
        raise RuntimeFailure(
            f"MLflow at {uri}: {error}; give --mlflow a store that can be written, "
            "as in sqlite:///mlflow.db or http://127.0.0.1:5000"
        ) from error


def _export(
    client: Any, catalogue: Catalogue, options: Mapping[str, Mapping[str, Any]], uri: str, name: str
) -> Exported:
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found is not None else client.create_experiment(name)
    ids = {run.data.tags.get(SHA256): run.info.run_id for run in _all_runs(client, experiment)}
    written, known = [], []
    for _, artefact in catalogue.tree():
        path = artefact.path.relative_to(catalogue.folder).as_posix()
        if artefact.step is None:
            continue
        if artefact.sha256 in ids:
            known.append(path)
            continue
        tags = _tags(artefact) | ({PARENT: ids[artefact.parent]} if artefact.parent in ids else {})
        run = client.create_run(experiment, run_name=path, tags=tags)
        ids[artefact.sha256] = run.info.run_id
        _fill(client, run.info.run_id, artefact, options[artefact.sha256])
        written.append(path)
    return Exported(uri, name, tuple(written), tuple(known))


def _all_runs(client: Any, experiment: str) -> list[Any]:
    found: list[Any] = []
    page = client.search_runs([experiment])
    while True:
        found += page
        if not page.token:
            return found
        page = client.search_runs([experiment], page_token=page.token)


def _fill(client: Any, run: str, artefact: Artefact, options: Mapping[str, Any]) -> None:
    step = artefact.step
    assert step is not None
    for name, value in options.items():
        client.log_param(run, name, str(value)[:MAX_VALUE])
    if step.seed is not None and "seed" not in options:
        client.log_param(run, "seed", step.seed)
    for name, figure in step.figures.items():
        if figure is not None:
            client.log_metric(run, name, figure)
    client.set_terminated(run)


def _tags(artefact: Artefact) -> dict[str, str]:
    step = artefact.step
    assert step is not None
    told: dict[str, Any] = {"sha256": artefact.sha256, "verb": step.verb, "versions": step.versions}
    for name in ("data", "parent"):
        record = getattr(step, name)
        if record is not None:
            told[name] = record.to_mapping()
    return {f"edge_lstm.{name}": str(value) for name, value in flat(told).items()}
