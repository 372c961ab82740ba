"""Draw training batches from a source; captions and image bytes are joined on the fly.

    source = open_source("shards/@v2")
    train, held_out = source.split(500)
    pipeline = Pipeline(train, DataOptions(image_px=224, batch_size=512), tokenize=tokenizer)
    for batch in pipeline.batches(start_step=0): ...

Batches are cut from one endless sequence of epochs (`pretrain.data.order`). So no sample is
dropped, a batch may span the end of an epoch, and batch k is the same whether a run starts with it
or reaches it, with any number of workers or ranks.

The training process reads the tables, one window ahead and in a thread, and sends workers only the
places of the bytes; workers read, decode and tokenize. They are forked from a process that has
imported torch and has no threads. Cost: each rank reads the tables of all ranks, some 3 us per
sample, which limits the speed of a run over many machines. Shards of an object store are fetched
into the local cache one window ahead, so the cache should hold two windows. Memory does not grow
with the dataset, except for the names and counts of the shards.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader

from curator.core.errors import CuratorError, EngineError, UsageError
from curator.shards import cache
from curator.shards.places import Remote, to_text
from pretrain.data.batches import Batch, BatchPlan, Loader, Tokenize, start_worker
from pretrain.data.opening import open_source
from pretrain.data.options import DataOptions
from pretrain.data.order import SampleOrder, Window
from pretrain.data.rng import Ints
from pretrain.data.source import Source
from pretrain.data.tables import ShardTable

__all__ = ["Batch", "Pipeline", "Source", "open_source"]

_BATCHES_AHEAD = 2  # per worker
_FETCHES_AT_ONCE = 4


class Pipeline:
    """Draws batches of `source` for one of `world_size` ranks.

    `tokenize` turns N texts into (N, L) int64, and must be picklable if there are `num_workers`;
    None for objectives that read no text.

    Raises:
        UsageError: the ranks cannot share a batch evenly.
    """

    def __init__(
        self,
        source: Source,
        options: DataOptions,
        *,
        tokenize: Tokenize | None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if options.batch_size % world_size:
            raise UsageError(
                f"batch_size is {options.batch_size} for {world_size} processes",
                hint=f"allowed: a multiple of {world_size}",
                reason="option.value",
            )
        self._source = source
        self._options = options
        self._tokenize = tokenize
        self._rank = rank
        self._rank_batch = options.batch_size // world_size
        self._context = _start_server(tokenize) if options.num_workers else None
        self._order = SampleOrder(
            source.counts, seed=options.seed, window_samples=options.window_samples
        )

    def batches(self, start_step: int = 0) -> Generator[Batch]:
        """Yield this rank's part of each global batch, from `start_step` on, without end.

        Close or delete the iterator to end its workers.

        Raises:
            DamageError: a shard or an image has changed; names shard and key.
            EngineError: a worker process died.
        """
        return self._load(self.plans(start_step), drawn=True)

    def in_order(self) -> Generator[Batch]:
        """Yield every sample once, in order of shards, on any rank; the last batch may be smaller.

        Images are whole, or cut to 4:3 if longer, each with its text of highest weight.
        """
        return self._load(self.plans_in_order(), drawn=False)

    # -- plans ----------------------------------------------------------------------------------

    def plans(self, start_step: int = 0) -> Generator[BatchPlan]:
        """Yield the plans of `batches`: which samples, and where their bytes are."""
        kept = pl.DataFrame()
        for rows in self._ahead(start_step):
            kept = _joined(kept, rows)
            whole = len(kept) // self._rank_batch * self._rank_batch
            for start in range(0, whole, self._rank_batch):
                yield _plan(kept.slice(start, self._rank_batch))
            kept = kept.slice(whole)

    def _ahead(self, start_step: int) -> Iterator[pl.DataFrame]:
        """Yield the rows of this rank in each window, while the next window is read."""
        start = start_step * self._options.batch_size
        before: Future[pl.DataFrame] | None = None
        pool = ThreadPoolExecutor(1, "tables")
        try:
            for window in self._order.from_position(start):
                reading = pool.submit(self._rows, window, start)
                if before is not None:
                    yield before.result()
                before = reading
        finally:
            pool.shutdown(cancel_futures=True)

    def _rows(self, window: Window, start: int) -> pl.DataFrame:
        """Return this rank's rows of a window, from position `start` on, in order."""
        behind = window.epoch * self._order.num_samples + window.start
        positions = np.arange(max(start, behind), behind + window.num_samples)
        rank_of = positions % self._options.batch_size // self._rank_batch
        places = self._order.rows(window)[positions[rank_of == self._rank] - behind]
        if not len(places):
            return pl.DataFrame()
        tables = [self._source.read(shard) for shard in window.shards]
        if any(isinstance(table.path, Remote) for table in tables):  # before workers need them
            with ThreadPoolExecutor(_FETCHES_AT_ONCE, "fetch") as pool:
                list(pool.map(lambda table: cache.fetch(table.path), tables))
        rows = _laid_end_to_end(tables, self._order.numbers(window), window.epoch)
        return rows.select(pl.all().gather(places))

    def plans_in_order(self) -> Generator[BatchPlan]:
        """Yield the plans of `in_order`."""
        size = self._options.batch_size
        kept = pl.DataFrame()
        first = 0
        for shard, count in enumerate(self._source.counts.tolist()):
            if count == 0:
                continue
            numbers = np.arange(first, first + count)
            first += count
            rows = _laid_end_to_end([self._source.read(shard)], numbers, 0)
            kept = _joined(kept, rows)
            while len(kept) >= size:
                yield _plan(kept.head(size))
                kept = kept.slice(size)
        if len(kept):
            yield _plan(kept)

    # -- batches --------------------------------------------------------------------------------

    def _load(self, plans: Generator[BatchPlan], *, drawn: bool) -> Generator[Batch]:
        loader = Loader(
            self._options, self._tokenize, drawn=drawn, num_samples=self._source.num_samples
        )
        workers = self._options.num_workers
        made: DataLoader[Batch | CuratorError] = DataLoader(
            loader,  # type: ignore[arg-type]  # any object with __getitem__ is a dataset
            batch_size=None,
            sampler=plans,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=start_worker,
            multiprocessing_context=self._context,
            prefetch_factor=_BATCHES_AHEAD if workers else None,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # not the global one, which the training draws from
        )
        with _without_ctrl_c():
            batches = iter(made)
        try:
            for batch in batches:
                if isinstance(batch, CuratorError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise EngineError(
                f"a process that decodes images died ({str(error).splitlines()[0]})",
                did="checkpoints are kept",
                hint="often out of memory or /dev/shm: try fewer workers or a smaller batch",
                reason="pretrain.worker_died",
            ) from error
        finally:
            del batches  # ends the workers
            loader.close()
            plans.close()


def _start_server(tokenize: Tokenize | None) -> BaseContext:
    """Start the process that workers are forked from; it imports while the model is built."""
    context = get_context("forkserver")
    modules = ["pretrain.data.batches"]
    if tokenize is not None:
        modules.append(type(tokenize).__module__)
    context.set_forkserver_preload(modules)
    with _without_ctrl_c():
        forkserver.ensure_running()
    return context


def _joined(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    parts = [part for part in (first, second) if len(part)]
    return pl.concat(parts) if parts else first


def _laid_end_to_end(tables: Sequence[ShardTable], numbers: Ints, epoch: int) -> pl.DataFrame:
    """Concatenate the rows of several shards, with sample numbers, epoch and path."""
    parts = [
        table.rows.drop("written_by").with_columns(
            path=pl.lit(to_text(table.path)),
            image_sha256=pl.col("image_sha256") if table.verify else pl.lit(None, pl.String),
        )
        for table in tables
    ]
    return pl.concat(parts).with_columns(sample=pl.Series(numbers), epoch=pl.lit(epoch, pl.Int64))


def _plan(rows: pl.DataFrame) -> BatchPlan:
    paths = rows["path"].unique().to_list()
    number = {path: place for place, path in enumerate(paths)}
    return BatchPlan(
        epochs=rows["epoch"].to_numpy().copy(),
        samples=rows["sample"].to_numpy().copy(),
        paths=paths,
        file_of=[number[path] for path in rows["path"]],
        offsets=rows["offset"].to_list(),
        lengths=rows["length"].to_list(),
        sha256=rows["image_sha256"].to_list(),
        keys=rows["key"].to_list(),
        texts=rows["texts"].to_list(),
        weights=rows["weights"].to_list(),
    )


def _as_it_is(made: Any) -> Any:
    """Replaces torch's collation, which would take a batch apart."""
    return made


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Make processes started in the block ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
