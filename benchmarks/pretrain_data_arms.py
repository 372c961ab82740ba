"""Three arms of benchmarks/pretrain_data.py: batches for pretraining, made by the pipeline.

    version      the pipeline, from a version in a store: nothing was exported
    export       the pipeline, from the exported shards
    floor        decoding, cutting and resizing of the same bytes from memory: one process for each
                 worker, nothing else

The pipeline hands over bytes and the trainer normalises; so the consumer does it here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import open_clip
import torch

from benchmarks.common import Laps
from curator.shards.dataset import ShardRef
from curator.shards.places import read_bytes
from curator.shards.scan import ScanOptions, scan_shard
from pretrain.data import pixels
from pretrain.data.loader import Pipeline, open_source
from pretrain.data.options import DataOptions
from pretrain.data.rng import uniforms

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
WARM_BATCHES = 4


def main() -> None:
    """Draw the batches of one arm and print the time of a sample."""
    args = asked_for(__doc__, ["version", "export", "floor"])
    if args.arm == "floor":
        print(json.dumps(floor(args)))
    else:
        timed(from_pipeline, args)


def asked_for(doc: str | None, arms: Sequence[str]) -> argparse.Namespace:
    """The options of an arm."""
    options = argparse.ArgumentParser(description=doc)
    options.add_argument("arm", choices=arms)
    options.add_argument("source", help="DATASET@VERSION, or the folder of exported shards")
    options.add_argument("--workers", type=int, required=True)
    options.add_argument("--batch-size", type=int, required=True)
    options.add_argument("--image-px", type=int, required=True)
    options.add_argument("--batches", type=int, required=True)
    return options.parse_args()


def timed(
    batches_of: Callable[[argparse.Namespace], Iterator[int]], args: argparse.Namespace
) -> None:
    """Draw the batches, which are given by their sizes, and print the time of a sample."""
    laps = Laps()
    batches = batches_of(args)
    for number in range(WARM_BATCHES + args.batches):
        size = next(batches)
        if number >= WARM_BATCHES - 1:  # until then, what lay ready is used up
            laps.lap(size)
    print(json.dumps(laps.summary()))


def from_pipeline(args: argparse.Namespace) -> Iterator[int]:
    """The pipeline; normalised as the trainer does it."""
    data = DataOptions(image_px=args.image_px, batch_size=args.batch_size, num_workers=args.workers)
    tokenizer = open_clip.SimpleTokenizer()
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) * 255 for one in (MEAN, STD))
    for batch in Pipeline(open_source(args.source), data, tokenize=tokenizer).batches():
        images = batch.images.float().sub_(mean).div_(std)
        yield len(images)


def floor(args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a sample when every worker does its share with the bytes in memory."""
    num_workers = max(1, args.workers)
    share = args.batches * args.batch_size // num_workers
    with ProcessPoolExecutor(num_workers, get_context("spawn")) as pool:
        list(pool.map(_decode, *_jobs(args, num_workers, 1)))  # imports
        start = time.perf_counter()
        cpu = sum(pool.map(_decode, *_jobs(args, num_workers, share)))
        wall = time.perf_counter() - start
    total = share * num_workers
    return {
        "wall_ms": wall / total * 1000,
        "cpu_ms": cpu / total * 1000,
        "start_sec": 0.0,
        "num_samples": total,
    }


def _jobs(args: argparse.Namespace, workers: int, share: int) -> tuple[list[object], ...]:
    one = (args.source, args.image_px, share)
    return tuple([part] * workers for part in one)


def _decode(folder: str, image_px: int, num: int) -> float:
    """CPU seconds of `num` pictures, read before."""
    path = min(Path(folder).glob("*.tar"))
    found = scan_shard(ShardRef("first", path), options=ScanOptions()).samples[:256]
    pictures = [read_bytes(path, one.image.offset, one.image.length) for one in found if one.image]
    draws = uniforms(0, np.arange(num)[:, None], np.arange(pixels.NUM_DRAWS))
    start = time.process_time()
    for number in range(num):
        pixels.load(
            pictures[number % len(pictures)],
            image_px,
            partial(pixels.random_box, draws=draws[number], scale_min=0.9),
        )
    return time.process_time() - start


if __name__ == "__main__":
    main()
