"""Batches of assets on Ray: a bounded number under way, a batch whose worker died tried again.

Reads batches; hands back results as they come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edge_lstm.errors import ConfigError, RuntimeFailure
from edge_lstm.optional import require
from edge_lstm.verbs.fleet_batch import Job, failure, run_batch
from edge_lstm.verbs.fleet_manifest import Asset

RETRIES = 3  # of a batch whose worker was killed, before its assets are tried one by one
QUEUED = 1  # batches a worker that wait beside the one at work, so that none is idle


@contextmanager
def session(workers: int, address: str | None) -> Iterator[Any]:
    """Ray with ``workers`` processes here, or the cluster at ``address``; one that runs already is used.

    Raises ConfigError for a cluster that does not answer, MissingTool without Ray.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # both are read when Ray is imported
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves beside other work
    ray = require("ray", "fleet")
    if ray.is_initialized():
        yield ray
        return
    here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", logging_level="error", log_to_driver=False, **here)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"--address {address}: {error}; start Ray there, or leave it out") from error
    except RuntimeError as error:
        raise RuntimeFailure(f"Ray does not start: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def run_batches(
    ray: Any, batches: Iterable[Sequence[Asset]], job: Job, threads: int
) -> Iterator[list[dict[str, Any]]]:
    """The results of each batch as it is done; one result an asset, whatever becomes of its worker.

    threads: of XLA, a worker.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    environment = {name: str(threads) for name in names} | {"CUDA_VISIBLE_DEVICES": "-1"}
    task = ray.remote(run_batch).options(
        num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": environment}
    )
    stored, waiting, left = ray.put(job), dict[Any, Sequence[Asset]](), iter(batches)
    most = (1 + QUEUED) * max(1, int(ray.cluster_resources().get("CPU", 1)))
    singly: list[Sequence[Asset]] = []
    while True:
        while len(waiting) < most and (batch := singly.pop() if singly else next(left, None)):
            waiting[task.remote(batch, stored)] = batch
        if not waiting:
            return
        for reference in ray.wait(list(waiting))[0]:
            batch = waiting.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                if len(batch) > 1:
                    singly += [[asset] for asset in batch]
                else:
                    yield [failure(batch[0], _reason(error))]


def _reason(error: Exception) -> str:
    """The last line that Ray says of a task that failed."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return f"{type(cause).__name__}: {cause}; this is an error of the toolkit, please report it"
    return f"its worker died {1 + RETRIES} times; is there memory for it? Try fewer --workers"
