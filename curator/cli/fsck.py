"""`fsck`: check and repair a store."""

from __future__ import annotations

from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.cli.trust import HARMLESS
from curator.core.errors import DamageError


def fsck(
    dataset: o.WholeDataset,
    *,
    deep: Annotated[
        bool, typer.Option(help="Also hash every file, including the source shards."), HARMLESS
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Set damaged files aside, keep intact ones, list what is lost."
        ),
    ] = False,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Check that a store is complete and undamaged.

    DATASET may also be the folder of a study, of a run, or of an export. Exits with 12 on damage.
    Changes nothing unless --repair is given.

    Example:

        curator fsck shards/ --deep
    """
    from dataclasses import asdict

    from curator.steps.fsck import check
    from curator.steps.workspace import refuse_version

    refuse_version(dataset, "fsck")
    report = check(dataset, store, deep=deep, repair=repair)
    if json:
        show_json(asdict(report))
    else:
        for finding in report.repaired:
            show(f"REPAIR  {finding.where}: {finding.what}")
        for finding in report.notices:
            show(f"note    {finding.where}: {finding.what}")
        for finding in report.damage:
            show(f"DAMAGE  {finding.where}: {finding.what}")
        show(
            (
                f"{report.num_versions} versions, {report.num_files} decision files, "
                f"{report.num_samples:,} samples"
                if report.is_store
                else f"{report.num_files} files"
            )
            + f": {len(report.damage)} damaged"
        )
    if report.damage:
        raise DamageError(
            f"{len(report.damage)} damaged files or entries, first: {report.damage[0].what}",
            where=report.damage[0].where,
            hint="restore the files named above from a backup"
            + ("" if repair or not report.is_store else ", or set them aside with --repair"),
        )
