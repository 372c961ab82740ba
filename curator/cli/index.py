"""`index`: read every shard once."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from curator.cli import options as o
from curator.cli.output import show, show_json
from curator.core.errors import DamageError
from curator.core.run_options import DEFAULTS, RunOptions


def index(
    dataset: o.WholeDataset,
    *,
    caption_field: o.CaptionField = None,
    image_ext: o.ImageExt = None,
    workers: o.Workers = 1,
    executor: o.Executor = DEFAULTS.executor,
    ray_address: o.RayAddress = None,
    shard_slice: o.ShardSlice = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Accept this dataset as the store's own, moved here.")
    ] = False,
    store: o.StoreOption = None,
    cache_dir: o.CacheDir = None,
    cache_size: o.CacheSize = None,
    json: o.Json = False,
) -> None:
    """Read every shard once and list all damage.

    Stores keys, offsets, hashes, sizes and alt texts. `recaption` and `score` index by themselves.

    Example:

        curator index shards/
    """
    from curator.core.stopping import stop_on_signals
    from curator.shards.scan import ScanOptions
    from curator.steps.index import make_index, say_index
    from curator.steps.workspace import open_workspace, refuse_version
    from curator.store.runs import open_run

    refuse_version(dataset, "index")
    scan = ScanOptions(
        caption_field=caption_field, image_ext=tuple(image_ext) if image_ext else None
    )
    run_options = RunOptions(workers=workers, executor=executor, ray_address=ray_address)
    ws = open_workspace(dataset, store, create=True, adopt=adopt, shard_slice=shard_slice)
    with stop_on_signals() as stop, open_run(ws.store, "index", {"dataset": dataset}) as run:
        report = make_index(ws, scan, run_options, stop=stop)
        say_index(report, run)
    with contextlib.suppress(
        DamageError
    ):  # a damaged version does not affect the index; fsck reports it
        if shard_slice is None and (newest := ws.store.newest()) is not None:
            ws.say_missing(newest)
    if json:
        show_json(report.to_json())
    else:
        show(f"{report.num_usable:,} of {report.num_samples:,} samples are usable")
