"""The report of a study: one HTML page and the same in Markdown, from the folder of the study.

Reads the cells, runs no model and loads no torch. Says nothing that its numbers do not: see
`finetune.report.text` for the sentences, `finetune.report.stats` for what makes a winner.
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
    """What was written, and of what."""

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
