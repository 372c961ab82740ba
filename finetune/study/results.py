"""The results of a study as a table, one row per cell and metric. Torch-free.

Values are stored as the tasks compute them; `finetune.metrics` defines how they are shown, and
which direction is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from curator.core.errors import UsageError, nearest
from curator.store import parquet
from finetune.metrics import RETRIEVAL_METRICS, Metric
from finetune.tasks import TASKS

FILE_NAME = "results.parquet"

RESULTS_SCHEMA = pa.schema(
    [
        ("study", pa.large_string()),
        ("arm", pa.large_string()),
        ("kind", pa.large_string()),  # captions, control, images, weights or random
        ("seed", pa.int64()),
        ("task", pa.large_string()),  # its name in the study; RETRIEVAL for pretraining metrics
        ("protocol", pa.large_string()),  # as printed: "solved"; null for pretraining
        ("protocol_digest", pa.large_string()),  # of every setting that defines it
        ("fraction", pa.float64()),  # of the labels
        ("metric", pa.large_string()),
        ("value", pa.float64()),
        ("higher_is_better", pa.bool_()),
        ("num_train", pa.int64()),
        ("num_test", pa.int64()),
        ("lr", pa.float64()),
        ("budget_samples", pa.int64()),  # as the study requests; null: no pretraining
        ("pretrain_samples", pa.int64()),  # actually seen; differs if FLOPs are matched
        ("pretrain_flops", pa.float64()),
        ("pretrain_seconds", pa.float64()),
        ("texts_cut", pa.float64()),  # fraction of captions longer than the context, or null
        ("dense_seconds", pa.float64()),
        ("config_digest", pa.large_string()),
        ("source_id", pa.large_string()),
        ("finished_at", pa.large_string()),  # UTC
    ]
)


def metric_of(name: str) -> Metric:
    """Return how a metric is shown, and which direction is better.

    Raises:
        UsageError: the metric is not in any task's row.
    """
    of_tasks = (metric for task in TASKS for metric in TASKS.spec(task).metrics)
    known = {metric.name: metric for metric in (*of_tasks, *RETRIEVAL_METRICS)}
    if name not in known:
        raise UsageError(
            f"unknown metric {name!r}",
            hint=f"{nearest(name, known)}; a new one goes into the row of its task in "
            "finetune/tasks/__init__.py",
            reason="metric.unknown",
        )
    return known[name]


def primary_metric(names: Sequence[str]) -> str:
    """Return the metric among `names` that decides a task, or the first if none is primary."""
    return next((name for name in names if metric_of(name).primary), names[0])


def write_results(folder: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write results.parquet of a study atomically."""
    frame = parquet.from_rows(rows, RESULTS_SCHEMA)
    parquet.write(folder / FILE_NAME, parquet.to_table(frame, RESULTS_SCHEMA))
