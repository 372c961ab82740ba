"""The engine as `curator score` runs it: index, worker process, journal, facts.

One arm of benchmarks/score.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from benchmarks.common import Laps
from benchmarks.score_arms import arm_options
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.engine.executors import Done, Executor, Failed, Worker
from curator.engine.executors.local import ProcessExecutor
from curator.engine.makers import scorer_maker
from curator.shards.scan import ScanOptions
from curator.steps.index import make_index
from curator.steps.score import score
from curator.steps.workspace import open_workspace
from curator.store import index
from curator.store.facts import SCORES, Facts

T = TypeVar("T")
R = TypeVar("R")


class Timed:
    """Any executor, with a lap for every batch."""

    def __init__(self, inner: Executor, laps: Laps) -> None:
        self._inner = inner
        self._laps = laps

    def run(
        self,
        build: Callable[[], Worker[T, R]],
        batches: Iterable[Sequence[T]],
        *,
        probe: Callable[[Any], object],
        stop: Callable[[], bool],
    ) -> Iterator[list[Done[T, R] | Failed[T]]]:
        """See `curator.engine.executors.Executor`."""
        for outcomes in self._inner.run(build, batches, probe=probe, stop=stop):
            yield outcomes
            # Here the batch is journaled: whoever took it has come back for the next one.
            self._laps.lap(len(outcomes))


def main() -> None:
    """Index and score a folder of shards into a new store; print the time of a sample."""
    options = arm_options(__doc__)
    options.add_argument("--store", type=Path, required=True)
    args = options.parse_args()
    stop = StopRequest()
    ws = open_workspace(str(args.data), args.store, create=True)
    make_index(ws, ScanOptions(), stop=stop)
    laps = Laps()
    maker = scorer_maker(str(args.model), device=args.device, dtype=args.dtype)
    executor = Timed(ProcessExecutor(), laps)
    run_options = RunOptions(score_batch_size=args.batch_size, max_quarantine=1.0)
    score(ws, maker, run_options, executor=executor, stop=stop)
    facts = Facts(ws.store, SCORES, maker.name)
    total = 0.0
    for ref in ws.shards:
        samples = index.read(ws.store, ref.name, ["image_sha256", "alt_sha256"])
        pairs = samples.select("image_sha256", text_sha256="alt_sha256")
        found = pairs.join(facts.read(pairs, ["score"]), on=facts.key, how="left")
        total += float(found["score"].cast(pl.Float64).sum())
    print(json.dumps({**laps.summary(), "total": total}))


if __name__ == "__main__":
    main()
