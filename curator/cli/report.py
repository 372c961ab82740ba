"""`report`: the report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.diff import diff
from curator.cli.output import show, show_json


def report(
    target: Annotated[
        str, typer.Argument(metavar="STUDY_FOLDER", help="The folder of a study, or a version.")
    ],
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET@NEW]",
            help="Compare two versions instead: DATASET@OLD DATASET@NEW, as `curator diff`.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default: report.html in the study's folder.")
    ] = None,
    store: o.StoreOption = None,
    json: o.Json = False,
) -> None:
    """Write the report of a study.

    The report is one HTML file that opens offline, with a Markdown file beside it. With two
    versions instead of a folder, it compares their captions, like `curator diff --html`.

    Example:

        curator report study-folder --out verdict.html
    """
    if other is not None:
        page = out or Path("report.html")
        diff(target, other, html=page, store=store, json=json)
        return
    from dataclasses import asdict

    from finetune.report.text import headline as headline_of
    from finetune.report.write import write_report

    written = write_report(Path(target), out)
    headline = headline_of(written.report)
    if json:
        sentences = [{"task": task, "verdict": said} for task, said in headline]
        files = {"html": str(written.html), "markdown": str(written.markdown)}
        decision = asdict(written.report.decision)
        warnings = written.report.warnings
        show_json({**files, "decision": decision, "verdict": sentences, "warnings": warnings})
        return
    show(written.report.decision.sentence)
    for task, said in headline:
        show(f"{task}: {said}")
    for warning in written.report.warnings:
        show(f"  note: {warning}")
    show(f"written: {written.html} and {written.markdown}")
