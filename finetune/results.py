"""The results of a study as a table: one row a cell and metric. Torch-free.

Values are stored as the tasks compute them (mIoU from 0 to 1, RMSE in metres) and shown as papers
print them (mIoU from 0 to 100); `METRICS` says how, and which way is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curator import tables
from curator.errors import UsageError, nearest

FILE_NAME = "results.parquet"

RESULTS_SCHEMA = pa.schema(
    [
        ("study", pa.large_string()),
        ("arm", pa.large_string()),
        ("kind", pa.large_string()),  # captions, control, images, weights or random
        ("seed", pa.int64()),
        ("task", pa.large_string()),  # its name in the study; RETRIEVAL for pretraining itself
        ("mode", pa.large_string()),  # probe, finetune or pretrain
        ("fraction", pa.float64()),  # of the labels
        ("metric", pa.large_string()),
        ("value", pa.float64()),
        ("higher_is_better", pa.bool_()),
        ("num_train", pa.int64()),
        ("num_test", pa.int64()),
        ("lr", pa.float64()),
        ("budget_samples", pa.int64()),  # the rung: what the study asked for; null: no pretraining
        ("pretrain_samples", pa.int64()),  # what was seen; differs from the rung when FLOPs match
        ("pretrain_flops", pa.float64()),
        ("pretrain_seconds", pa.float64()),
        ("dense_seconds", pa.float64()),
        ("config_digest", pa.large_string()),
        ("source_id", pa.large_string()),
        ("finished_at", pa.large_string()),  # UTC
    ]
)

RETRIEVAL = "retrieval"
"""The task name of rows that pretraining itself gives, on held-out pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a metric is told. `primary` metrics decide; the others are in the table.

    A shown value is the stored one times `scale`, with `digits` decimals and `unit` behind it.
    """

    name: str
    label: str
    higher_is_better: bool
    scale: float = 1.0
    digits: int = 3
    unit: str = ""
    primary: bool = False

    def number(self, value: float, *, signed: bool = False) -> str:
        """A stored value (or a difference of two) as it is shown, without its unit."""
        text = f"{value * self.scale:{'+' if signed else ''}.{self.digits}f}"
        return text.replace("-", "\u2212")

    def amount(self, value: float) -> str:
        """The same with its unit: "2.1 mIoU", "0.031 m RMSE"."""
        return f"{self.number(value)} {f'{self.unit} ' if self.unit else ''}{self.label}"


def _percent(name: str, *, label: str = "", primary: bool = False) -> Metric:
    """Shares between 0 and 1, shown from 0 to 100."""
    return Metric(
        name=name, label=label or name, higher_is_better=True, scale=100, digits=1, primary=primary
    )


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _percent("mIoU", primary=True),
        _percent("mAcc"),
        Metric(name="RMSE", label="RMSE", higher_is_better=False, unit="m", primary=True),
        Metric(name="RMSE pooled", label="RMSE pooled", higher_is_better=False, unit="m"),
        Metric(name="AbsRel", label="AbsRel", higher_is_better=False),
        _percent("delta1", label="\u03b4\u2081"),
        _percent("box AP", primary=True),
        _percent("box AP50"),
        _percent("mask AP"),
        _percent("mask AP50"),
        _percent("image_to_text_r1", label="image to text R@1", primary=True),
        _percent("image_to_text_r5", label="image to text R@5"),
        _percent("text_to_image_r1", label="text to image R@1"),
        _percent("text_to_image_r5", label="text to image R@5"),
    )
}


def metric_of(name: str) -> Metric:
    """How a metric is told.

    Raises:
        UsageError: nobody said which way is better.
    """
    if name not in METRICS:
        raise UsageError(
            f"unknown metric {name!r}",
            hint=f"{nearest(name, METRICS)}; a new one is a line in finetune/results.py",
            reason="metric.unknown",
        )
    return METRICS[name]


def primary_metric(names: Sequence[str]) -> str:
    """The metric among `names` that decides a task: the first one if none is known to do."""
    return next((name for name in names if metric_of(name).primary), names[0])


def write_results(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write results.parquet of a study, all or nothing."""
    frame = tables.from_rows(rows, RESULTS_SCHEMA)
    tables.write(folder / FILE_NAME, tables.to_table(frame, RESULTS_SCHEMA))
