"""Write the report of a study, from its folder, as one HTML page and as Markdown.

Reads the cells, runs no model and imports no torch. The sentences come from `finetune.report.text`,
and `finetune.report.stats` decides what makes a winner.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from curator.store import fsops
from finetune.report.build import build_report
from finetune.report.html import render_html
from finetune.report.markdown import render_markdown
from finetune.report.values import Report


class Written(NamedTuple):
    """The files that were written, and the report in them."""

    report: Report
    html: Path
    markdown: Path


def write_report(folder: Path, out: Path | None = None) -> Written:
    """Write `out` (default: report.html in the folder of the study) and the .md file beside it.

    Raises:
        UsageError: no study in `folder`. DamageError: a damaged file in it.
    """
    report = build_report(folder)
    html = out or folder / "report.html"
    markdown = html.with_suffix(".md")
    fsops.write_atomic(html, render_html(report, folder).encode())
    fsops.write_atomic(markdown, render_markdown(report).encode())
    return Written(report, html, markdown)
