"""curator calibrate: from labels to the threshold of a scorer, with precision and recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json, table

if TYPE_CHECKING:
    from curator.steps.calibrate import Calibration, Share


def calibrate(
    dataset: o.WholeDataset,
    *,
    use_scorer: Annotated[
        str | None,
        typer.Option(
            "--use-scorer",
            metavar="SCORER",
            help="Scorer of the scores, such as vqa, or one of several by its full name "
            "(default: clip).",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE",
            help="Parquet, CSV or JSONL with the columns key, label (1 or 0, match or no-match) "
            "and perhaps text, by default the alt text (default: the blind ratings).",
        ),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(help="Lowest threshold with this precision, 0 to 1 (default: the best F1)."),
    ] = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Choose a threshold for a scorer from labels.

    Reads scores that exist: run `curator score` first. The threshold is chosen on half of the
    images and measured on the other half. Writes nothing.

    Example:

        curator calibrate shards/ --use-scorer vqa --labels labels.csv --precision 0.9
    """
    from dataclasses import asdict
    from pathlib import Path

    from curator.scorers import OF_MODELS
    from curator.steps.calibrate import calibrate as run
    from curator.steps.calibrate import labels_of_ratings, labels_of_table, skipped_text
    from curator.steps.decide import scorer_named
    from curator.steps.workspace import open_workspace, refuse_version

    refuse_version(dataset, "calibrate")
    ws = open_workspace(dataset, store)
    scorer = scorer_named(ws, use_scorer or OF_MODELS)
    found = labels_of_ratings(ws) if labels is None else labels_of_table(ws, Path(labels))
    result = run(ws, found, scorer, min_precision=precision)
    if json:
        show_json(asdict(result))
        return
    show(_text(result))
    if result.skipped:
        show(f"not used: {skipped_text(result.skipped.items())}")


def _text(found: Calibration) -> str:
    total = found.num_right + found.num_wrong
    half = f"of {total - found.num_chosen_on:,} other texts"
    rows = [
        ("AUROC", *_row(found.auroc), f"all {total:,} texts"),
        ("precision", *_row(found.precision), f"{half}, {found.precision.of:,} pass"),
        ("recall", *_row(found.recall), f"{half}, {found.recall.of:,} are right"),
    ]
    return "\n".join(
        (
            f"{found.scorer}: {found.num_right:,} right and {found.num_wrong:,} wrong texts "
            f"({found.source})",
            f"threshold {found.threshold:.4f} ({found.goal}, chosen on {found.num_chosen_on:,} "
            "texts)",
            table(rows, ["", "value", "95 % interval", "measured on"]),
            f"without a threshold {found.base_rate:.0%} of the texts are right",
            "as a rule of a policy:",
            "  [[rule]]",
            '  name = "right"',
            '  field = "score"',
            f'  scorer = "{found.scorer.partition("-")[0]}"',
            f"  min = {found.threshold:.9g}",
        )
    )


def _row(share: Share) -> tuple[str, str]:
    if share.value is None:
        return "none", ""
    return f"{share.value:.3f}", f"[{share.low:.3f}, {share.high:.3f}]"
