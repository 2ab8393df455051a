"""What each piece of a suite's work is expected to take, in seconds of one core of a laptop.

Only their proportions count: ``suite_clock`` corrects them by what the work so far really took.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm.verbs.suite_networks import NETWORKS, Item, SuiteConfig

COMPILE_S = {"train": 10.0, "finetune": 8.0, "prune": 6.0, "": 3.0}  # of the program of a group
EPOCH_S = {"train": 1.0, "finetune": 2.0, "prune": 1.0}  # against one of training


def simple_s(item: Item) -> float:
    """Of all simple methods on one recording."""
    return 2.0 + 27e-6 * item.cells


def score_s(method: str, item: Item, config: SuiteConfig) -> float:
    """Of scoring the networks of one kind on one recording; the float network runs in NumPy."""
    row_s = 1.5e-4 if NETWORKS[method].quantizer is None else 2e-5
    return 1.5 + len(config.seeds) * (2e-6 * item.cells + row_s * len(item.rows.x))


def train_s(method: str, group: Sequence[Item], config: SuiteConfig) -> float:
    """Of making the networks of one kind of a group."""
    change = NETWORKS[method].change
    epochs = {"train": config.train.epochs, "finetune": config.finetune.epochs, "prune": config.prune.epochs}
    networks = len(group) * len(config.seeds)
    epoch_s = EPOCH_S.get(change, 0.0) * (0.09 + 0.001 * group[0].width)
    return COMPILE_S[change] + epoch_s * epochs.get(change, 0) * networks
