"""edge-lstm verify"""

from __future__ import annotations

from pathlib import Path

import click

from edge_lstm.cli.common import (
    FILE,
    Names,
    json_option,
    print_json,
    print_notes,
    print_table,
    progress,
    verb,
)
from edge_lstm.verbs.verify import Agreement, Verification, verify

TFLM_STATE = (
    "State between invokes: TensorFlow Lite Micro keeps it with its reference kernels (run here), LiteRT and "
    "tflite-runtime keep it; TensorFlow Lite Micro built with CMSIS-NN kernels loses it at every invoke "
    "(tflite-micro#3564; not run here): do not stream with that build."
)


@verb("verify")
@click.argument("model", type=FILE)
@click.option("--on", type=Names(), default=None, help="Executors; by default every one that is installed.")
@click.option("--steps", default=10_000, show_default=True, help="Rows of the seeded stream.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--profile", default=None, help="Numerics profile (tflm, litert, tflite, native), not the file's."
)
@click.option("--c-dir", type=FILE, default=None, help="Folder with exported C to compile, not fresh C.")
@json_option
def command(
    model: Path, on: tuple[str, ...] | None, steps: int, seed: int, profile: str | None, c_dir: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run MODEL (.tflite) on every executor and compare each output code with the reference.

    The stream is seeded and hard: walks, noise, both ends of the range. Exit code 1 on any difference.
    """
    with progress(as_json) as show:
        result = verify(model, on, steps, seed, profile, c_dir, show)
    if as_json:
        print_json({agreement.executor: agreement.to_json() for agreement in result.agreements})
    else:
        _print(result)
    for agreement in result.agreements:
        _print_difference(agreement)
    if not result.agrees:
        click.get_current_context().exit(1)


def _print(result: Verification) -> None:
    rows: list[list[object]] = []
    for a in result.agreements:
        scores = "-" if a.detector is None else f"{a.detector.differing:,} of {a.detector.codes:,}"
        codes = f"{a.network.differing:,} of {a.network.codes:,}"
        kept = {True: "kept", False: "LOST", None: "-"}[a.keeps_state]
        rows.append([a.executor, a.profile, codes, a.network.max_difference, scores, kept])
    print_table(
        f"{result.model}: {result.steps:,} steps against the reference of each executor's profile",
        ["executor", "profile", "codes that differ", "by at most", "scores that differ", "state"],
        rows,
    )
    pairs = {frozenset((a.profile, a.other_profile["profile"])): a for a in reversed(result.agreements)}
    for a in pairs.values():
        if a.other_profile["profile"] == a.profile:
            continue
        if not a.other_profile["differing"]:
            click.echo(f"The profiles {a.profile} and {a.other_profile['profile']} return the same codes.")
            continue
        click.echo(
            f"The profiles {a.profile} and {a.other_profile['profile']} are apart in "
            f"{a.other_profile['differing']:,} of {a.network.codes:,} codes, by at most "
            f"{a.other_profile['max_difference']}: by design, their sigmoid and tanh differ."
        )
    print_notes(result.notes)
    if any(agreement.executor == "tflm" for agreement in result.agreements):
        click.echo(TFLM_STATE)
    print_notes(f"not run: {name} ({reason})" for name, reason in result.skipped.items())


def _print_difference(agreement: Agreement) -> None:
    for what, found in (("output", agreement.network), ("score", agreement.detector)):
        if found is not None and found.first is not None:
            first = found.first
            click.echo(
                f"edge-lstm verify: {agreement.executor}: step {first['step']}, {what} {first['output']}: "
                f"got {first['got']}, expected {first['expected']} "
                f"({found.differing:,} of {found.codes:,} differ)",
                err=True,
            )
